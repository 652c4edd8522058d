//! Priority-inheritance locks (`FUTEX_LOCK_PI` and its companions): the kernel hands the lock from owner to waiter.
//!
//! The host schedules, so nobody's priority changes; what the kernel does is the ownership protocol that
//! `Documentation/locking/robust-futexes` and `futex(2)` describe: the word holds the owner's thread id, a flag that
//! there are waiters, and a flag that an owner died.

use super::{FutexTable, Key, Timeout};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::sync::{Waiter, Wake};
use crate::task::{Pid, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use linux_raw_sys::general::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};

const WAITING: u8 = 0;
/// The word already names the new owner.
const GRANTED: u8 = 1;
/// The owner died: the new owner has to put its id into the word.
const INHERITED: u8 = 2;

/// A lock with waiters.
pub(super) struct PiLock {
    key: Key,
    owner: Pid,
    waiters: Vec<Arc<PiWaiter>>,
}

struct PiWaiter {
    tid: Pid,
    state: AtomicU8,
    waiter: Arc<Waiter>,
}

#[cfg(test)]
impl PiLock {
    pub(super) fn waiter_count(&self) -> usize {
        self.waiters.len()
    }
}

impl PiWaiter {
    fn grant(&self, how: u8) {
        self.state.store(how, Ordering::SeqCst);
        self.waiter.wake();
    }
}

impl FutexTable {
    /// Forgets a lock that has no waiters any more.
    fn tidy(&self, locks: &mut Vec<PiLock>, at: usize) {
        if locks[at].waiters.is_empty() {
            locks.swap_remove(at);
            self.pi_locks.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Takes the lock if it is free (`FUTEX_TRYLOCK_PI`); `EAGAIN` if not.
pub fn trylock_pi(ctx: &Ctx, addr: u64, shared: bool) -> Result<()> {
    let key = Key::new(ctx, addr, shared)?;
    let bucket = ctx.kernel.futexes.bucket(&key);
    match take_if_free(ctx, addr, bucket.locks.iter().any(|l| l.key == key))? {
        None => Ok(()),
        Some(_) => Err(Errno::EAGAIN.into()),
    }
}

/// Takes the lock (`None`), or marks it as waited for and gives its owner. To be called under the bucket's lock.
fn take_if_free(ctx: &Ctx, addr: u64, known: bool) -> Result<Option<Pid>> {
    let me = ctx.task.tid() as u32;
    loop {
        let word = ctx.read_val::<u32>(addr)?;
        let owner = word & FUTEX_TID_MASK;
        if owner == me {
            return Err(Errno::EDEADLK.into());
        }
        let new = if owner == 0 && !known { me | word & FUTEX_OWNER_DIED } else { word | FUTEX_WAITERS };
        if ctx.kernel.platform.compare_exchange(ctx.task, addr, word, new)? == word {
            return Ok((owner != 0 || known).then_some(owner as Pid));
        }
    }
}

/// Takes the lock, sleeping until its owner gives it up (`FUTEX_LOCK_PI`).
///
/// # Errors
/// `EDEADLK` if the caller owns it; `ESRCH` if the word names a thread that does not exist; `ETIMEDOUT`; an
/// interruption restarts the call.
pub fn lock_pi(ctx: &Ctx, addr: u64, shared: bool, timeout: Timeout) -> Result<()> {
    let key = Key::new(ctx, addr, shared)?;
    let table = &ctx.kernel.futexes;
    let waiter =
        Arc::new(PiWaiter { tid: ctx.task.tid(), state: AtomicU8::new(WAITING), waiter: ctx.task.waiter.clone() });
    {
        let mut bucket = table.bucket(&key);
        let known = bucket.locks.iter().position(|l| l.key == key);
        let Some(owner) = take_if_free(ctx, addr, known.is_some())? else { return Ok(()) };
        match known {
            Some(at) if bucket.locks[at].owner == ctx.task.tid() => return Err(Errno::EDEADLK.into()),
            Some(at) => bucket.locks[at].waiters.push(waiter.clone()),
            None => {
                // Counted before the owner is looked at: an owner that ends either sees the count or is seen ended.
                table.pi_locks.fetch_add(1, Ordering::SeqCst);
                if ctx.kernel.tasks.task(owner).is_none_or(|t| t.futex.is_released()) {
                    table.pi_locks.fetch_sub(1, Ordering::SeqCst);
                    bail!(ESRCH, "the lock's owner does not exist");
                }
                bucket.locks.push(PiLock { key: key.clone(), owner, waiters: alloc::vec![waiter.clone()] });
            }
        }
    }
    loop {
        let granted = || Some(waiter.state.load(Ordering::SeqCst)).filter(|&s| s != WAITING);
        let slept = ctx.wait_on(&[], timeout.deadline(), granted);
        if matches!(slept, Ok(None)) && !timeout.expired() {
            continue;
        }
        let mut bucket = table.bucket(&key);
        let at = bucket.locks.iter().position(|l| l.key == key);
        match waiter.state.load(Ordering::SeqCst) {
            WAITING => {
                if let Some(at) = at {
                    bucket.locks[at].waiters.retain(|w| !Arc::ptr_eq(w, &waiter));
                    table.tidy(&mut bucket.locks, at);
                }
                return match slept {
                    Err(e) if e == Errno::ERESTARTSYS => Err(Errno::ERESTARTNOINTR.into()),
                    Err(e) => Err(e),
                    Ok(_) => Err(Errno::ETIMEDOUT.into()),
                };
            }
            INHERITED => {
                if let Some(at) = at {
                    table.tidy(&mut bucket.locks, at);
                }
                return inherit(ctx, addr);
            }
            _ => return Ok(()),
        }
    }
}

/// Puts the running task's id into the word of a lock whose owner died.
fn inherit(ctx: &Ctx, addr: u64) -> Result<()> {
    let new = ctx.task.tid() as u32 | FUTEX_WAITERS | FUTEX_OWNER_DIED;
    let mut word = ctx.read_val::<u32>(addr)?;
    loop {
        let found = ctx.kernel.platform.compare_exchange(ctx.task, addr, word, new)?;
        if found == word {
            return Ok(());
        }
        word = found;
    }
}

/// Gives the lock to the longest waiting task, or frees it (`FUTEX_UNLOCK_PI`).
///
/// # Errors
/// `EPERM` if the caller does not own it.
pub fn unlock_pi(ctx: &Ctx, addr: u64, shared: bool) -> Result<()> {
    let me = ctx.task.tid() as u32;
    let key = Key::new(ctx, addr, shared)?;
    let table = &ctx.kernel.futexes;
    let mut bucket = table.bucket(&key);
    loop {
        let word = ctx.read_val::<u32>(addr)?;
        if word & FUTEX_TID_MASK != me {
            bail!(EPERM, "the caller does not own the lock");
        }
        let at = bucket.locks.iter().position(|l| l.key == key && !l.waiters.is_empty());
        let next = at.map(|at| bucket.locks[at].waiters[0].clone());
        let new = next.as_ref().map_or(0, |next| next.tid as u32 | FUTEX_WAITERS);
        if ctx.kernel.platform.compare_exchange(ctx.task, addr, word, new)? != word {
            continue;
        }
        if let (Some(at), Some(next)) = (at, next) {
            let lock = &mut bucket.locks[at];
            lock.waiters.remove(0);
            lock.owner = next.tid;
            next.grant(GRANTED);
            table.tidy(&mut bucket.locks, at);
        }
        return Ok(());
    }
}

/// Hands the locks of a task that ends, or executes a new program, to their waiters.
pub fn exit_pi(kernel: &Kernel, task: &Task) {
    let table = &kernel.futexes;
    if table.pi_locks.load(Ordering::SeqCst) == 0 {
        return;
    }
    for bucket in &table.buckets {
        let mut bucket = bucket.lock();
        for lock in bucket.locks.iter_mut().filter(|l| l.owner == task.tid() && !l.waiters.is_empty()) {
            // The lock stays known until the heir has put its id into the word.
            let heir = lock.waiters.remove(0);
            lock.owner = heir.tid;
            heir.grant(INHERITED);
        }
        while let Some(at) = bucket.locks.iter().position(|l| l.owner == task.tid() && l.waiters.is_empty()) {
            table.tidy(&mut bucket.locks, at);
        }
    }
}
