//! Robust futexes: what a thread held when it ended is marked as its owner's death (`get_robust_list(2)`,
//! `Documentation/locking/robust-futexes`).

use super::{exit_pi, wake};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::general::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT};

/// A task's part of futexes.
#[derive(Default)]
pub struct TaskFutexes {
    /// The task has let go of its locks for good.
    released: AtomicBool,
}

impl TaskFutexes {
    pub(super) fn is_released(&self) -> bool {
        self.released.load(Ordering::SeqCst)
    }
}

/// Length of `struct robust_list_head`.
pub const ROBUST_HEAD_SIZE: u64 = 24;

/// Lets go of the locks of a task that ends: walks its robust list, then hands over its priority-inheritance locks.
/// Its memory must still be there.
pub fn exit_robust_list(ctx: &Ctx) {
    ctx.task.futex.released.store(true, Ordering::SeqCst);
    release(ctx);
}

/// As [`exit_robust_list`], for a task that is about to execute a new program and lives on.
pub fn exec_robust_list(ctx: &Ctx) {
    release(ctx);
}

fn release(ctx: &Ctx) {
    let head = ctx.task.robust_list.swap(0, Ordering::SeqCst);
    if head != 0 {
        // A list that cannot be read ends the walk, as on Linux: there is nobody to tell.
        let _ = walk(ctx, head);
    }
    exit_pi(ctx.kernel, ctx.task);
}

fn walk(ctx: &Ctx, head: u64) -> Result<()> {
    /// Set in a list pointer whose lock is a priority-inheritance lock.
    const PI: u64 = 1;
    let [first, offset, pending] = ctx.read_val::<[u64; 3]>(head)?;
    let word_of = |entry: u64| (entry & !PI).wrapping_add(offset);
    let mut entry = first;
    for _ in 0..ROBUST_LIST_LIMIT {
        if entry & !PI == head {
            break;
        }
        // Read before the lock is given up: afterwards the entry is its next owner's.
        let next = ctx.read_val::<u64>(entry & !PI);
        if entry & !PI != pending & !PI {
            mark_dead(ctx, word_of(entry), entry & PI != 0, false)?;
        }
        entry = next?;
    }
    if pending & !PI != 0 {
        mark_dead(ctx, word_of(pending), pending & PI != 0, true)?;
    }
    Ok(())
}

/// Marks one lock, if the running task holds it, and wakes a waiter. With `pending` the task was about to take or to free
/// it: a waiter may have missed its wake-up.
fn mark_dead(ctx: &Ctx, addr: u64, pi: bool, pending: bool) -> Result<()> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL.into());
    }
    let mut word = ctx.read_val::<u32>(addr)?;
    loop {
        let owner = word & FUTEX_TID_MASK;
        if pending && !pi && owner == 0 {
            return wake(ctx, addr, true, 1, u32::MAX).map(drop);
        }
        if owner != ctx.task.tid() as u32 {
            return Ok(());
        }
        let new = word & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        let found = ctx.kernel.platform.compare_exchange(ctx.task, addr, word, new)?;
        if found == word {
            break;
        }
        word = found;
    }
    if !pi && word & FUTEX_WAITERS != 0 {
        wake(ctx, addr, true, 1, u32::MAX)?;
    }
    Ok(())
}
