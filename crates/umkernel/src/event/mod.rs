//! Waiting for files: `poll(2)` and `select(2)`, `epoll(7)`, and files whose only purpose is to be waited for:
//! `eventfd(2)`, `signalfd(2)`, `inotify(7)`.

pub mod aio;
pub mod epoll;
pub mod eventfd;
pub mod inotify;
pub mod poll;
pub mod select;
pub mod signalfd;

use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;

/// A time limit as a program states it: seconds and nanoseconds from now.
///
/// # Errors
/// `EINVAL` for a negative time or nanoseconds beyond a second.
pub fn deadline_after(sec: i64, nsec: i64) -> Result<u64> {
    let nsec = u64::try_from(nsec).ok().filter(|&n| n < 1_000_000_000);
    let (Ok(sec), Some(nsec)) = (u64::try_from(sec), nsec) else {
        return Err(Errno::EINVAL.into());
    };
    let span = sec.saturating_mul(1_000_000_000).saturating_add(nsec);
    Ok(host::monotonic_ns().saturating_add(span))
}

/// Runs `look` until it finds something: `Ok(None)` when the deadline passes first, `interrupted` when a signal comes.
/// A first look registers for wake-ups by itself.
fn wait_until<T>(
    ctx: &Ctx,
    deadline: Option<u64>,
    interrupted: Errno,
    mut look: impl FnMut() -> Option<T>,
) -> Result<Option<T>> {
    loop {
        ctx.task.waiter.prepare();
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        if ctx.task.signal_pending() {
            return Err(interrupted.into());
        }
        if deadline.is_some_and(|d| host::monotonic_ns() >= d) {
            return Ok(None);
        }
        ctx.task.sleep(deadline);
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
