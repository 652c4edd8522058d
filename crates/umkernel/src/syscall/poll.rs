//! `poll(2)` and `select(2)`.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::event::deadline_after;
use crate::event::poll::PollFds;
use crate::event::select::{Sets, select};
use crate::host::{self, TimeSpec};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::signal::{self, SigSet};

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(7, "poll", Family::Desc, &[Arg::Kind("pollfds"), Arg::Uint, Arg::Int], Support::Full, sys_poll),
    Entry::new(23, "select", Family::Desc, SELECT, Support::Full, sys_select),
    Entry::new(270, "pselect6", Family::Desc, PSELECT, Support::Full, sys_pselect6),
    Entry::new(271, "ppoll", Family::Desc, PPOLL, Support::Full, sys_ppoll),
];

const SELECT: &[Arg] =
    &[Arg::Int, Arg::Kind("fd_set"), Arg::Kind("fd_set"), Arg::Kind("fd_set"), Arg::Kind("timeval_in")];
const PSELECT_MASK: Arg = Arg::Kind("pselect_mask");
const PSELECT: &[Arg] =
    &[Arg::Int, Arg::Kind("fd_set"), Arg::Kind("fd_set"), Arg::Kind("fd_set"), Arg::Kind("timespec_in"), PSELECT_MASK];
const PPOLL: &[Arg] = &[Arg::Kind("pollfds"), Arg::Uint, Arg::Kind("timespec_in"), Arg::Kind("sigset_in"), Arg::Uint];

fn read_poll_fds(ctx: &Ctx, addr: u64, count: u64) -> Result<PollFds> {
    let limit = ctx.task.process.limit(linux_raw_sys::general::RLIMIT_NOFILE as usize);
    // The kernel takes the count as an unsigned int.
    let count = u64::from(count as u32);
    if count > limit {
        bail!(EINVAL, "more descriptors than RLIMIT_NOFILE");
    }
    PollFds::read(ctx, addr, count as usize)
}

fn sys_poll(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let timeout = args[2] as i32;
    let deadline = u64::try_from(timeout).ok().map(|ms| host::monotonic_ns().saturating_add(ms * 1_000_000));
    poll_until(ctx, args[0], args[1], deadline)
}

/// `poll` until a moment; interrupted without a handler, it goes on until the same moment.
fn poll_until(ctx: &Ctx, addr: u64, count: u64, deadline: Option<u64>) -> Result<usize> {
    match read_poll_fds(ctx, addr, count)?.poll(ctx, deadline) {
        Err(e) if e == Errno::ERESTARTNOHAND => {
            Err(ctx.task.restart_with(move |ctx| poll_until(ctx, addr, count, deadline)))
        }
        other => other,
    }
}

/// A mask in user memory, 0 for none; its size must be that of a set.
pub(super) fn read_mask(ctx: &Ctx, addr: u64, size: u64) -> Result<Option<SigSet>> {
    if addr == 0 {
        return Ok(None);
    }
    if size != SigSet::SIZE {
        bail!(EINVAL, "not the size of a signal set");
    }
    Ok(Some(SigSet(ctx.read_val(addr)?)))
}

/// Which structure a time limit is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Micro,
    Nano,
}

/// A time limit in user memory, where what is left of it is stored afterwards.
struct Limit {
    addr: u64,
    unit: Unit,
    deadline: Option<u64>,
}

impl Limit {
    fn read(ctx: &Ctx, addr: u64, unit: Unit) -> Result<Limit> {
        if addr == 0 {
            return Ok(Limit { addr, unit, deadline: None });
        }
        let [sec, part]: [i64; 2] = ctx.read_val(addr)?;
        let deadline = match unit {
            Unit::Nano => deadline_after(sec, part)?,
            // Microseconds beyond a second are taken, unlike nanoseconds.
            Unit::Micro => deadline_after(sec.wrapping_add(part / 1_000_000), part % 1_000_000 * 1000)?,
        };
        Ok(Limit { addr, unit, deadline: Some(deadline) })
    }

    /// Stores what is left. Where that is not possible, an interrupted call cannot be restarted with it.
    fn finish(&self, ctx: &Ctx, result: Result<usize>) -> Result<usize> {
        /// `STICKY_TIMEOUTS` of `personality(2)`: the limit stays as it was.
        const STICKY: u32 = 0x400_0000;
        let Some(deadline) = self.deadline else { return result };
        if ctx.task.sched.inner.lock().personality & STICKY != 0 {
            return match result {
                Err(e) if e == Errno::ERESTARTNOHAND => bail!(EINTR),
                other => other,
            };
        }
        let left = deadline.saturating_sub(host::monotonic_ns());
        let mut value = TimeSpec { sec: (left / 1_000_000_000) as i64, nsec: (left % 1_000_000_000) as i64 };
        if self.unit == Unit::Micro {
            value.nsec /= 1000;
        }
        let stored = ctx.write_val(self.addr, &value);
        match result {
            Err(e) if e == Errno::ERESTARTNOHAND && stored.is_err() => bail!(EINTR),
            other => other,
        }
    }
}

fn sets(args: &[u64; 6]) -> Sets {
    Sets { read: args[1], write: args[2], except: args[3] }
}

fn sys_select(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let limit = Limit::read(ctx, args[4], Unit::Micro)?;
    let result = select(ctx, args[0] as i32, sets(args), limit.deadline);
    limit.finish(ctx, result)
}

fn sys_pselect6(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let [mask, size]: [u64; 2] = if args[5] == 0 { [0, 0] } else { ctx.read_val(args[5])? };
    let limit = Limit::read(ctx, args[4], Unit::Nano)?;
    let mask = read_mask(ctx, mask, size)?;
    signal::with_mask(ctx, mask, || {
        let result = select(ctx, args[0] as i32, sets(args), limit.deadline);
        limit.finish(ctx, result)
    })
}

fn sys_ppoll(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let limit = Limit::read(ctx, args[2], Unit::Nano)?;
    let mask = read_mask(ctx, args[3], args[4])?;
    signal::with_mask(ctx, mask, || {
        let result = read_poll_fds(ctx, args[0], args[1]).and_then(|mut fds| fds.poll(ctx, limit.deadline));
        limit.finish(ctx, result)
    })
}
