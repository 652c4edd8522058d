//! Clocks, sleeping, and what processes have used.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::{Capabilities, Rusage};
use crate::time::{self, Clock, NSEC_PER_SEC, NSEC_PER_TICK, TimeVal, read_timespec, timespec, timeval};
use core::sync::atomic::Ordering;

const SLEEP: &[Arg] = &[Arg::Kind("timespec_in"), Arg::Kind("timespec_left")];
const CLOCK: &[Arg] = &[Arg::Kind("clock"), Arg::Kind("timespec_out")];
const ADJUST: &[Arg] = &[Arg::Kind("clock"), Arg::Ptr];
const SET_CLOCK: &[Arg] = &[Arg::Kind("clock"), Arg::Kind("timespec_in")];
const CLOCK_SLEEP: &[Arg] =
    &[Arg::Kind("clock"), Arg::Kind("clock_flags"), Arg::Kind("timespec_in"), Arg::Kind("timespec_left")];
const RUSAGE: &[Arg] = &[Arg::Kind("rusage_who"), Arg::Kind("rusage")];
const READ_ONLY: Support = Support::Partial("read only: the clock is the host's");

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(35, "nanosleep", Family::Time, SLEEP, Support::Full, sys_nanosleep),
    Entry::new(
        96,
        "gettimeofday",
        Family::Time,
        &[Arg::Kind("timeval_out"), Arg::Ptr],
        Support::Full,
        sys_gettimeofday,
    ),
    Entry::new(
        98,
        "getrusage",
        Family::Time,
        RUSAGE,
        Support::Partial("faults and block I/O are not counted"),
        sys_getrusage,
    ),
    Entry::new(100, "times", Family::Time, &[Arg::Kind("tms")], Support::Full, sys_times),
    Entry::new(159, "adjtimex", Family::Time, &[Arg::Ptr], READ_ONLY, |ctx, args, _| adjust(ctx, args[0])),
    Entry::new(164, "settimeofday", Family::Time, &[Arg::Kind("timeval_in"), Arg::Ptr], READ_ONLY, sys_settimeofday),
    Entry::new(201, "time", Family::Time, &[Arg::Ptr], Support::Full, sys_time),
    Entry::new(227, "clock_settime", Family::Time, SET_CLOCK, READ_ONLY, sys_clock_settime),
    Entry::new(228, "clock_gettime", Family::Time, CLOCK, Support::Full, sys_clock_gettime),
    Entry::new(229, "clock_getres", Family::Time, CLOCK, Support::Full, sys_clock_getres),
    Entry::new(230, "clock_nanosleep", Family::Time, CLOCK_SLEEP, Support::Full, sys_clock_nanosleep),
    Entry::new(305, "clock_adjtime", Family::Time, ADJUST, READ_ONLY, sys_clock_adjtime),
];

fn sys_nanosleep(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let ns = read_timespec(ctx, args[0])?;
    time::sleep_for(ctx, &Clock::Host(1), ns, args[1])
}

fn sys_clock_nanosleep(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const ABSOLUTE: u64 = 1;
    if args[0] as u32 == linux_raw_sys::general::CLOCK_THREAD_CPUTIME_ID {
        bail!(EOPNOTSUPP, "no sleeping by this clock");
    }
    let clock = Clock::from_id(ctx, args[0] as i32)?;
    if let Clock::Thread(..) = clock {
        bail!(EINVAL, "a thread cannot wait for its own processor time");
    }
    if !clock.has_timers() {
        bail!(EOPNOTSUPP, "no sleeping by this clock");
    }
    let ns = read_timespec(ctx, args[2])?;
    if args[1] & ABSOLUTE != 0 {
        return time::sleep_until(ctx, &clock, ns).map(|()| 0);
    }
    time::sleep_for(ctx, &clock, ns, args[3])
}

fn sys_clock_gettime(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let now = Clock::from_id(ctx, args[0] as i32)?.now(ctx.kernel)?;
    ctx.write_val(args[1], &timespec(now))?;
    Ok(0)
}

fn sys_clock_getres(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let clock = Clock::from_id(ctx, args[0] as i32)?;
    clock.now(ctx.kernel)?;
    if args[1] != 0 {
        ctx.write_val(args[1], &timespec(clock.resolution()))?;
    }
    Ok(0)
}

/// What setting the clock comes to. Programs read the host's clock from the vdso, without the kernel: a clock of the
/// guest's own would differ from what they see.
fn refuse(ctx: &Ctx) -> Result<usize> {
    if ctx.creds().capable(Capabilities::SYS_TIME) {
        bail!(EPERM, "the clock is the host's, which the guest must not set");
    }
    Err(Errno::EPERM.into())
}

fn sys_clock_settime(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[0] as i32 != 0 {
        bail!(EINVAL, "this clock cannot be set");
    }
    read_timespec(ctx, args[1])?;
    refuse(ctx)
}

fn sys_settimeofday(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[0] != 0 {
        time::read_timeval(ctx, args[0])?;
    }
    if args[1] != 0 {
        ctx.read_val::<[i32; 2]>(args[1])?;
    }
    refuse(ctx)
}

fn sys_gettimeofday(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[0] != 0 {
        ctx.write_val(args[0], &timeval(host::realtime_ns()))?;
    }
    if args[1] != 0 {
        ctx.write_val(args[1], &[0i32; 2])?;
    }
    Ok(0)
}

fn sys_time(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let seconds = (host::realtime_ns() / NSEC_PER_SEC) as i64;
    if args[0] != 0 {
        ctx.write_val(args[0], &seconds)?;
    }
    Ok(seconds as usize)
}

fn sys_times(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let process = &ctx.task.process;
    if args[0] != 0 {
        let own = ctx.kernel.process_times(process);
        let children = process.inner.lock().dead_children;
        let ticks = [own.utime, own.stime, children.utime, children.stime].map(|ns| ns / NSEC_PER_TICK);
        ctx.write_val(args[0], &ticks)?;
    }
    Ok((host::monotonic_ns() / NSEC_PER_TICK) as usize)
}

fn sys_getrusage(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const SELF: i32 = 0;
    const CHILDREN: i32 = -1;
    const THREAD: i32 = 1;
    let process = &ctx.task.process;
    let rss = || ctx.mm().map_or(0, |mm| ctx.kernel.platform.resident_pages(mm).0 * 4);
    let sleeps = |t: &crate::task::Task| t.sched.sleeps.load(Ordering::Relaxed);
    let (used, switches) = match args[0] as i32 {
        SELF => {
            let mut used = ctx.kernel.process_times(process);
            used.max_rss = used.max_rss.max(rss());
            (used, process.inner.lock().threads.iter().map(|t| sleeps(t)).sum())
        }
        CHILDREN => (process.inner.lock().dead_children, 0),
        THREAD => {
            let (utime, stime) = ctx.kernel.platform.cpu_times(ctx.task);
            (Rusage { utime, stime, max_rss: rss() }, sleeps(ctx.task))
        }
        _ => bail!(EINVAL, "who"),
    };
    let mut words = [0u64; 18];
    for (pair, ns) in words.chunks_exact_mut(2).zip([used.utime, used.stime]) {
        let TimeVal { sec, usec } = timeval(ns);
        pair.copy_from_slice(&[sec as u64, usec as u64]);
    }
    words[4] = used.max_rss;
    // ru_nvcsw
    words[16] = switches;
    ctx.write_val(args[1], &words)?;
    Ok(0)
}

/// `adjtimex(2)`: tells the clock's state, and refuses to change it.
fn adjust(ctx: &Ctx, addr: u64) -> Result<usize> {
    /// `TIME_ERROR`: the clock is not known to be synchronised.
    const UNSYNCHRONISED: usize = 5;
    const STATUS_UNSYNC: u64 = 0x40;
    let mut words: [u64; 26] = ctx.read_val(addr)?;
    if words[0] as u32 != 0 {
        return refuse(ctx);
    }
    let now = timeval(host::realtime_ns());
    words = [0; 26];
    // Maximum and estimated error in microseconds, as Linux starts with.
    words[3] = 16_000_000;
    words[4] = 16_000_000;
    words[5] = STATUS_UNSYNC;
    words[6] = 2;
    words[7] = 1;
    words[8] = 32_768_000;
    words[9] = now.sec as u64;
    words[10] = now.usec as u64;
    // Microseconds in a tick.
    words[11] = 10_000;
    ctx.write_val(addr, &words)?;
    Ok(UNSYNCHRONISED)
}

fn sys_clock_adjtime(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    Clock::from_id(ctx, args[0] as i32)?;
    if args[0] as i32 != 0 {
        bail!(EOPNOTSUPP, "this clock cannot be adjusted");
    }
    adjust(ctx, args[1])
}
