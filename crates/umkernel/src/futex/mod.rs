//! Futexes (`futex(2)`): sleeping on a word of user memory.
//!
//! Sleepers hang in hash buckets by *key*: what the word is, wherever it is mapped. Comparing the word and joining the
//! bucket happen under the bucket's lock, and so does waking, so no wake-up is lost. Each sleeper has its own word to
//! sleep on (its task's), so that a wake-up touches nobody else.

mod key;
mod pi;
mod requeue;
mod robust;
mod wait;

pub use key::Key;
pub use pi::{exit_pi, lock_pi, trylock_pi, unlock_pi};
pub use requeue::{WakeOp, requeue, wake_op};
pub use robust::{ROBUST_HEAD_SIZE, TaskFutexes, exec_robust_list, exit_robust_list};
pub use wait::{Timeout, wait, wake, wake_address};

use crate::sync::{Mutex, MutexGuard, Waiter, Wake};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Buckets of the hash table; a power of two.
const BUCKETS: usize = 64;

/// All tasks that sleep in `futex(2)`, by key.
pub struct FutexTable {
    buckets: [Mutex<Bucket>; BUCKETS],
    /// Priority-inheritance locks that the kernel knows of: lets an exit skip the search for most machines.
    pi_locks: AtomicU32,
}

impl Default for FutexTable {
    fn default() -> FutexTable {
        FutexTable { buckets: [const { Mutex::new(Bucket::new()) }; BUCKETS], pi_locks: AtomicU32::new(0) }
    }
}

/// The sleepers whose keys hash alike.
struct Bucket {
    /// Plain sleepers, longest waiting first.
    sleepers: Vec<Arc<Sleeper>>,
    /// Priority-inheritance locks with waiters.
    locks: Vec<pi::PiLock>,
}

impl Bucket {
    const fn new() -> Bucket {
        Bucket { sleepers: Vec::new(), locks: Vec::new() }
    }

    /// Takes off and wakes up to `count` sleepers of `key` that match `bitset`; returns how many.
    fn wake(&mut self, key: &Key, count: usize, bitset: u32) -> usize {
        let mut woken = 0;
        self.sleepers.retain(|sleeper| {
            let hit = woken < count && sleeper.bitset & bitset != 0 && *sleeper.key.lock() == *key;
            if hit {
                sleeper.finish();
                woken += 1;
            }
            !hit
        });
        woken
    }
}

/// One sleeping task.
struct Sleeper {
    /// What it sleeps on; changed by a requeue, under the locks of both buckets.
    key: Mutex<Key>,
    /// Wake-ups that it takes (`FUTEX_WAIT_BITSET`).
    bitset: u32,
    /// Set by whoever wakes it, after taking it off its bucket.
    woken: AtomicBool,
    waiter: Arc<Waiter>,
}

impl Sleeper {
    fn finish(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.waiter.wake();
    }
}

impl FutexTable {
    fn index(key: &Key) -> usize {
        (key.hash() >> (64 - BUCKETS.trailing_zeros())) as usize
    }

    fn bucket(&self, key: &Key) -> MutexGuard<'_, Bucket> {
        self.buckets[FutexTable::index(key)].lock()
    }

    /// The buckets of two keys, locked in the table's order; the second is `None` if it is the first.
    fn two_buckets(&self, a: &Key, b: &Key) -> (MutexGuard<'_, Bucket>, Option<MutexGuard<'_, Bucket>>) {
        let (i, j) = (FutexTable::index(a), FutexTable::index(b));
        if i < j {
            let first = self.buckets[i].lock();
            (first, Some(self.buckets[j].lock()))
        } else if i > j {
            let second = self.buckets[j].lock();
            (self.buckets[i].lock(), Some(second))
        } else {
            (self.buckets[i].lock(), None)
        }
    }

    /// Takes a sleeper off; false if somebody has woken it already.
    fn take_off(&self, sleeper: &Arc<Sleeper>) -> bool {
        loop {
            let key = sleeper.key.lock().clone();
            let mut bucket = self.bucket(&key);
            if let Some(at) = bucket.sleepers.iter().position(|s| Arc::ptr_eq(s, sleeper)) {
                bucket.sleepers.remove(at);
                return true;
            }
            if sleeper.woken.load(Ordering::SeqCst) {
                return false;
            }
            // Requeued between reading its key and locking the bucket.
            core::hint::spin_loop();
        }
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
