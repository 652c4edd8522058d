//! Wait queues: how a task sleeps until a condition holds, and how poll and epoll watch many at once.

use super::Mutex;
use crate::host;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// Something that a wait queue can wake: a sleeping task, an epoll item.
pub trait Wake: Send + Sync {
    /// Called with the queue's lock held: must be short and must not use the queue.
    fn wake(&self);
}

/// One sleeper: a word to sleep on. Each task has one; signals wake it as well.
#[derive(Default)]
pub struct Waiter {
    woken: AtomicU32,
}

impl Waiter {
    /// A waiter that nobody has woken.
    pub const fn new() -> Waiter {
        Waiter { woken: AtomicU32::new(0) }
    }

    /// Forgets earlier wake-ups; call before looking at the condition for the last time.
    pub fn prepare(&self) {
        self.woken.store(0, Ordering::SeqCst);
    }

    /// Sleeps until woken since [`Waiter::prepare`], or until `deadline` (CLOCK_MONOTONIC, absolute, nanoseconds).
    /// May return early. True if woken.
    pub fn sleep(&self, deadline: Option<u64>) -> bool {
        if self.woken.load(Ordering::SeqCst) == 0 {
            host::futex_sleep(&self.woken, 0, deadline);
        }
        self.woken.load(Ordering::SeqCst) != 0
    }
}

impl Wake for Waiter {
    fn wake(&self) {
        if self.woken.swap(1, Ordering::SeqCst) == 0 {
            host::futex_wake(&self.woken, 1);
        }
    }
}

/// The sleepers that one event wakes. Kept in an `Arc` by what it belongs to, so that a poll can hold on to it.
#[derive(Default)]
pub struct WaitQueue {
    /// Mirrors the list's length, so that waking an empty queue takes no lock.
    len: AtomicU32,
    sleepers: Mutex<Vec<Arc<dyn Wake>>>,
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> WaitQueue {
        WaitQueue { len: AtomicU32::new(0), sleepers: Mutex::new(Vec::new()) }
    }

    /// Adds a sleeper. It stays until [`WaitQueue::remove`].
    pub fn add(&self, sleeper: Arc<dyn Wake>) {
        let mut sleepers = self.sleepers.lock();
        sleepers.push(sleeper);
        self.len.store(sleepers.len() as u32, Ordering::SeqCst);
    }

    /// Removes a sleeper that was added.
    pub fn remove(&self, sleeper: &Arc<dyn Wake>) {
        let mut sleepers = self.sleepers.lock();
        if let Some(at) = sleepers.iter().position(|s| Arc::ptr_eq(s, sleeper)) {
            sleepers.remove(at);
        }
        self.len.store(sleepers.len() as u32, Ordering::SeqCst);
    }

    /// Wakes everyone. The caller has already changed what they wait for.
    pub fn wake_all(&self) {
        if self.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.sleepers.lock().iter().for_each(|s| s.wake());
    }
}

/// The queues that one poll, select or epoll call has put its waiter on; takes it off them when dropped.
pub struct PollTable {
    /// Who hears of input, or of anything else.
    sleeper: Arc<dyn Wake>,
    /// Who hears of room for output.
    for_output: Arc<dyn Wake>,
    /// The queues, with whether they are for output.
    queues: Vec<(Arc<WaitQueue>, bool)>,
}

impl PollTable {
    /// An empty table for a sleeper.
    pub fn new(sleeper: Arc<dyn Wake>) -> PollTable {
        PollTable::directed(sleeper.clone(), sleeper)
    }

    /// An empty table for a sleeper that hears of input and one that hears of room for output.
    pub fn directed(input: Arc<dyn Wake>, output: Arc<dyn Wake>) -> PollTable {
        PollTable { sleeper: input, for_output: output, queues: Vec::new() }
    }

    /// Puts the sleeper on a queue. Called by a file's `poll` before it looks at its state.
    pub fn register(&mut self, queue: &Arc<WaitQueue>) {
        queue.add(self.sleeper.clone());
        self.queues.push((queue.clone(), false));
    }

    /// As [`PollTable::register`], on a queue that is woken when there is room for output.
    pub fn register_output(&mut self, queue: &Arc<WaitQueue>) {
        queue.add(self.for_output.clone());
        self.queues.push((queue.clone(), true));
    }
}

impl Drop for PollTable {
    fn drop(&mut self) {
        for (queue, output) in &self.queues {
            queue.remove(if *output { &self.for_output } else { &self.sleeper });
        }
    }
}
