//! Interval timers, POSIX timers and timer descriptors.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::time::{self, Clock, IntervalKind, IntervalSetting, NSEC_PER_SEC, Notify, TimerFd, TimerFdFlags};
use alloc::sync::Arc;

const ITIMER: &[Arg] = &[Arg::Kind("itimer"), Arg::Kind("itimerval_out")];
const SET_ITIMER: &[Arg] = &[Arg::Kind("itimer"), Arg::Kind("itimerval_in"), Arg::Kind("itimerval_out")];
const CREATE: &[Arg] = &[Arg::Kind("clock"), Arg::Kind("sigevent"), Arg::Kind("timer_id_out")];
const SETTIME: &[Arg] = &[Arg::Int, Arg::Kind("clock_flags"), Arg::Kind("itimerspec_in"), Arg::Kind("itimerspec_out")];
const FD_CREATE: &[Arg] = &[Arg::Kind("clock"), Arg::Kind("timerfd_flags")];
const FD_SETTIME: &[Arg] =
    &[Arg::Fd, Arg::Kind("timerfd_settime_flags"), Arg::Kind("itimerspec_in"), Arg::Kind("itimerspec_out")];

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(36, "getitimer", Family::Time, ITIMER, Support::Full, sys_getitimer),
    Entry::new(37, "alarm", Family::Time, &[Arg::Uint], Support::Full, sys_alarm),
    Entry::new(38, "setitimer", Family::Time, SET_ITIMER, Support::Full, sys_setitimer),
    Entry::new(222, "timer_create", Family::Time, CREATE, Support::Full, sys_timer_create),
    Entry::new(223, "timer_settime", Family::Time, SETTIME, Support::Full, sys_timer_settime),
    Entry::new(
        224,
        "timer_gettime",
        Family::Time,
        &[Arg::Int, Arg::Kind("itimerspec_out")],
        Support::Full,
        sys_timer_gettime,
    ),
    Entry::new(225, "timer_getoverrun", Family::Time, &[Arg::Int], Support::Full, sys_timer_getoverrun),
    Entry::new(226, "timer_delete", Family::Time, &[Arg::Int], Support::Full, sys_timer_delete),
    Entry::new(283, "timerfd_create", Family::Desc, FD_CREATE, Support::Full, sys_timerfd_create),
    Entry::new(286, "timerfd_settime", Family::Desc, FD_SETTIME, Support::Full, sys_timerfd_settime),
    Entry::new(
        287,
        "timerfd_gettime",
        Family::Desc,
        &[Arg::Fd, Arg::Kind("itimerspec_out")],
        Support::Full,
        sys_timerfd_gettime,
    ),
];

fn interval_kind(which: u64) -> Result<IntervalKind> {
    Ok(match which as i32 {
        0 => IntervalKind::Real,
        1 => IntervalKind::Virtual,
        2 => IntervalKind::Prof,
        _ => bail!(EINVAL, "no such interval timer"),
    })
}

/// Stores a `struct itimerval`.
fn write_itimerval(ctx: &Ctx, addr: u64, setting: IntervalSetting) -> Result<()> {
    let (interval, value) = (time::timeval(setting.interval), time::timeval(setting.value));
    ctx.write_val(addr, &[interval, value])
}

/// Stores a `struct itimerspec`.
fn write_itimerspec(ctx: &Ctx, addr: u64, setting: IntervalSetting) -> Result<()> {
    ctx.write_val(addr, &[time::timespec(setting.interval), time::timespec(setting.value)])
}

fn read_itimerspec(ctx: &Ctx, addr: u64) -> Result<IntervalSetting> {
    let value = time::read_timespec(ctx, addr.wrapping_add(16))?;
    Ok(IntervalSetting { value, interval: time::read_timespec(ctx, addr)? })
}

fn sys_getitimer(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let setting = ctx.task.process.timers.interval(ctx, interval_kind(args[0])?);
    write_itimerval(ctx, args[1], setting)?;
    Ok(0)
}

fn sys_setitimer(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let new = if args[1] == 0 {
        IntervalSetting::default()
    } else {
        let interval = time::read_timeval(ctx, args[1])?;
        IntervalSetting { value: time::read_timeval(ctx, args[1].wrapping_add(16))?, interval }
    };
    let old = ctx.task.process.timers.set_interval(ctx, interval_kind(args[0])?, new);
    if args[2] != 0 {
        write_itimerval(ctx, args[2], old)?;
    }
    Ok(0)
}

fn sys_alarm(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let new = IntervalSetting { value: u64::from(args[0] as u32) * NSEC_PER_SEC, interval: 0 };
    let old = ctx.task.process.timers.set_interval(ctx, IntervalKind::Real, new).value;
    // Rounded, but never to 0 while an alarm was due.
    let rounded = (old + NSEC_PER_SEC / 2) / NSEC_PER_SEC;
    Ok(if old > 0 { rounded.max(1) } else { 0 } as usize)
}

fn sys_timer_create(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const SIGALRM: u8 = 14;
    const SIGNAL: i32 = 0;
    const NONE: i32 = 1;
    const THREAD: i32 = 2;
    const THREAD_ID: i32 = 4;
    let clock = Clock::from_id(ctx, args[0] as i32)?;
    if !clock.has_timers() {
        bail!(EOPNOTSUPP, "no timers by this clock");
    }
    let mut notify = Notify::Process;
    let (mut signo, mut value) = (SIGALRM, None);
    if args[1] != 0 {
        // sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id.
        let sigev_value: u64 = ctx.read_val(args[1])?;
        let [sigev_signo, sigev_notify, tid, _]: [i32; 4] = ctx.read_val(args[1].wrapping_add(8))?;
        value = Some(sigev_value);
        notify = match sigev_notify {
            NONE => Notify::None,
            SIGNAL | THREAD => Notify::Process,
            THREAD_ID => {
                let task = ctx.kernel.tasks.task(tid).filter(|t| Arc::ptr_eq(&t.process, &ctx.task.process));
                match task {
                    Some(task) => Notify::Thread(Arc::downgrade(&task)),
                    None => bail!(EINVAL, "no thread of the process"),
                }
            }
            _ => bail!(EINVAL, "sigev_notify"),
        };
        if sigev_notify != NONE && !(1..=64).contains(&sigev_signo) {
            bail!(EINVAL, "no such signal");
        }
        signo = sigev_signo as u8;
    }
    let timers = &ctx.task.process.timers;
    let id = timers.create(ctx, clock, notify, signo, value);
    if let Err(e) = ctx.write_val(args[2], &id) {
        timers.delete(id)?;
        return Err(e);
    }
    Ok(0)
}

fn sys_timer_settime(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const ABSOLUTE: u64 = 1;
    if args[2] == 0 {
        bail!(EINVAL, "no new setting");
    }
    let new = read_itimerspec(ctx, args[2])?;
    let timer = ctx.task.process.timers.get(args[0] as i32)?;
    let old = timer.set(ctx, args[1] & ABSOLUTE != 0, new)?;
    if args[3] != 0 {
        write_itimerspec(ctx, args[3], old)?;
    }
    Ok(0)
}

fn sys_timer_gettime(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let timer = ctx.task.process.timers.get(args[0] as i32)?;
    write_itimerspec(ctx, args[1], timer.get(ctx.kernel))?;
    Ok(0)
}

fn sys_timer_getoverrun(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    Ok(ctx.task.process.timers.get(args[0] as i32)?.last_overrun() as usize)
}

fn sys_timer_delete(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    ctx.task.process.timers.delete(args[0] as i32)?;
    Ok(0)
}

fn sys_timerfd_create(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const CLOCKS: [i32; 3] = [0, 1, 7];
    let Some(flags) = TimerFdFlags::from_bits(args[1] as u32) else { bail!(EINVAL, "unknown flags") };
    if !CLOCKS.contains(&(args[0] as i32)) {
        bail!(EINVAL, "no timers by this clock");
    }
    let file = time::create_timerfd(ctx, Clock::Host(args[0] as i32), flags);
    super::open::install(ctx, file, flags.contains(TimerFdFlags::CLOEXEC))
}

fn sys_timerfd_settime(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const ABSOLUTE: u32 = 1;
    // The clock never jumps under the guest's hands: nothing to cancel for.
    const CANCEL_ON_SET: u32 = 2;
    let new = read_itimerspec(ctx, args[2])?;
    let flags = args[1] as u32;
    if flags & !(ABSOLUTE | CANCEL_ON_SET) != 0 {
        bail!(EINVAL, "unknown flags");
    }
    let file = ctx.file(args[0] as i32)?;
    let Some(timer) = file.ops_as::<TimerFd>() else { bail!(EINVAL, "no timer descriptor") };
    let old = timer.set(ctx.kernel, flags & ABSOLUTE != 0, new)?;
    if args[3] != 0 {
        write_itimerspec(ctx, args[3], old)?;
    }
    Ok(0)
}

fn sys_timerfd_gettime(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file(args[0] as i32)?;
    let Some(timer) = file.ops_as::<TimerFd>() else { bail!(EINVAL, "no timer descriptor") };
    write_itimerspec(ctx, args[1], timer.get(ctx.kernel))?;
    Ok(0)
}
