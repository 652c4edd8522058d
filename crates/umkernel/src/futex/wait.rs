//! Sleeping on a word, and waking.

use super::{Key, Sleeper};
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// Until when to sleep, absolute, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Without end.
    Never,
    /// CLOCK_MONOTONIC.
    Monotonic(u64),
    /// CLOCK_REALTIME: follows the host's clock when that is set.
    Realtime(u64),
}

impl Timeout {
    /// The same moment by CLOCK_MONOTONIC, as the clocks stand now.
    pub(super) fn deadline(self) -> Option<u64> {
        match self {
            Timeout::Never => None,
            Timeout::Monotonic(at) => Some(at),
            Timeout::Realtime(at) => Some(host::monotonic_ns().saturating_add(at.saturating_sub(host::realtime_ns()))),
        }
    }

    /// Whether the moment has come.
    pub(super) fn expired(self) -> bool {
        match self {
            Timeout::Never => false,
            Timeout::Monotonic(at) => host::monotonic_ns() >= at,
            Timeout::Realtime(at) => host::realtime_ns() >= at,
        }
    }
}

/// Sleeps until woken, if the word at `addr` holds `expected` (`FUTEX_WAIT_BITSET`).
///
/// # Errors
/// `EAGAIN` if the word holds something else; `ETIMEDOUT`; `ERESTARTSYS` when interrupted.
pub fn wait(ctx: &Ctx, addr: u64, shared: bool, expected: u32, bitset: u32, timeout: Timeout) -> Result<()> {
    let key = Key::new(ctx, addr, shared)?;
    let table = &ctx.kernel.futexes;
    let sleeper = {
        let mut bucket = table.bucket(&key);
        if ctx.read_val::<u32>(addr)? != expected {
            return Err(Errno::EAGAIN.into());
        }
        let sleeper = Arc::new(Sleeper {
            key: Mutex::new(key.clone()),
            bitset,
            woken: AtomicBool::new(false),
            waiter: ctx.task.waiter.clone(),
        });
        bucket.sleepers.push(sleeper.clone());
        sleeper
    };
    loop {
        let woken = || sleeper.woken.load(Ordering::SeqCst).then_some(());
        let slept = ctx.wait_on(&[], timeout.deadline(), woken);
        // The host's clock may have been set back since the deadline was computed.
        if matches!(slept, Ok(None)) && !timeout.expired() {
            continue;
        }
        return match slept {
            Ok(Some(())) => Ok(()),
            // A wake-up that came first is not lost to a timeout or a signal.
            _ if !table.take_off(&sleeper) => Ok(()),
            Ok(None) => Err(Errno::ETIMEDOUT.into()),
            Err(e) => Err(e),
        };
    }
}

/// Wakes up to `count` sleepers that match `bitset` (`FUTEX_WAKE_BITSET`); returns how many. Like Linux, wakes one if
/// asked for none.
pub fn wake(ctx: &Ctx, addr: u64, shared: bool, count: i32, bitset: u32) -> Result<usize> {
    let key = Key::new(ctx, addr, shared)?;
    let mut bucket = ctx.kernel.futexes.bucket(&key);
    Ok(bucket.wake(&key, count.max(1) as usize, bitset))
}

/// Wakes up to `count` sleepers on a word of the running task's memory, whichever kind of key they used: `CLONE_CHILD_CLEARTID` at a
/// thread's end.
pub fn wake_address(ctx: &Ctx, addr: u64, count: u32) {
    let Ok(space) = ctx.mm() else { return };
    let table = &ctx.kernel.futexes;
    let count = count as usize;
    let private = Key::Private(space.id, addr);
    let woken = table.bucket(&private).wake(&private, count, u32::MAX);
    if woken < count
        && let Some(shared) = Key::shared_in(space, addr)
    {
        table.bucket(&shared).wake(&shared, count - woken, u32::MAX);
    }
}
