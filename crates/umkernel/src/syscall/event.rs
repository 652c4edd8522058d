//! `epoll(7)`, `eventfd(2)`, `signalfd(2)`.

use super::open::install;
use super::poll::read_mask;
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::event::epoll::{self, Interest};
use crate::event::eventfd::{self, EventFdFlags};
use crate::event::{deadline_after, signalfd};
use crate::host;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::signal::{self, SigSet};
use crate::vfs::OpenFlags;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(213, "epoll_create", Family::Desc, &[Arg::Int], Support::Full, sys_epoll_create),
    Entry::new(232, "epoll_wait", Family::Desc, EPOLL_WAIT, Support::Full, sys_epoll_wait),
    Entry::new(233, "epoll_ctl", Family::Desc, EPOLL_CTL, Support::Full, sys_epoll_ctl),
    Entry::new(281, "epoll_pwait", Family::Desc, EPOLL_PWAIT, Support::Full, sys_epoll_pwait),
    Entry::new(282, "signalfd", Family::Desc, SIGNALFD, Support::Full, sys_signalfd),
    Entry::new(284, "eventfd", Family::Desc, &[Arg::Uint], Support::Full, sys_eventfd),
    Entry::new(289, "signalfd4", Family::Desc, SIGNALFD4, Support::Full, sys_signalfd),
    Entry::new(290, "eventfd2", Family::Desc, &[Arg::Uint, Arg::Kind("eventfd_flags")], Support::Full, sys_eventfd),
    Entry::new(291, "epoll_create1", Family::Desc, &[Arg::Kind("epoll_flags")], Support::Full, sys_epoll_create1),
    Entry::new(441, "epoll_pwait2", Family::Desc, EPOLL_PWAIT2, Support::Full, sys_epoll_pwait2),
];

const EPOLL_CTL: &[Arg] = &[Arg::Fd, Arg::Kind("epoll_op"), Arg::Fd, Arg::Kind("epoll_event_in")];
const EPOLL_WAIT: &[Arg] = &[Arg::Fd, EVENTS, Arg::Int, Arg::Int];
const EPOLL_PWAIT: &[Arg] = &[Arg::Fd, EVENTS, Arg::Int, Arg::Int, Arg::Kind("sigset_in"), Arg::Uint];
const EVENTS: Arg = Arg::Kind("epoll_events_out");
const EPOLL_PWAIT2: &[Arg] = &[Arg::Fd, EVENTS, Arg::Int, Arg::Kind("timespec_in"), Arg::Kind("sigset_in"), Arg::Uint];
const SIGNALFD: &[Arg] = &[Arg::Fd, Arg::Kind("sigset_in"), Arg::Uint];
const SIGNALFD4: &[Arg] = &[Arg::Fd, Arg::Kind("sigset_in"), Arg::Uint, Arg::Kind("signalfd_flags")];

/// Bytes of a `struct epoll_event`, which is packed on x86-64.
const EVENT_SIZE: usize = 12;

fn sys_epoll_create(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[0] as i32 <= 0 {
        bail!(EINVAL, "the size is not positive");
    }
    install(ctx, epoll::create(ctx), false)
}

fn sys_epoll_create1(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(args[0] as u32);
    if !(flags - OpenFlags::CLOEXEC).is_empty() {
        bail!(EINVAL, "unknown flag");
    }
    install(ctx, epoll::create(ctx), flags.contains(OpenFlags::CLOEXEC))
}

fn sys_epoll_ctl(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const ADD: i32 = 1;
    const DEL: i32 = 2;
    const MOD: i32 = 3;
    let op = args[1] as i32;
    let interest = if op == DEL {
        Interest { events: 0, data: 0 }
    } else {
        let raw: [u8; EVENT_SIZE] = ctx.read_val(args[3])?;
        let (events, data) = raw.split_at(4);
        Interest {
            events: u32::from_le_bytes(events.try_into().map_err(|_| Errno::EFAULT)?),
            data: u64::from_le_bytes(data.try_into().map_err(|_| Errno::EFAULT)?),
        }
    };
    let files = ctx.files();
    let own = files.get(args[0] as i32)?;
    let fd = args[2] as i32;
    let file = files.get(fd)?;
    if !file.ops.as_ref().is_some_and(|ops| ops.pollable()) {
        bail!(EPERM, "the file cannot be waited for");
    }
    let set = epoll::of(&own)?;
    if Arc::ptr_eq(&own, &file) {
        bail!(EINVAL, "a set cannot contain itself");
    }
    match op {
        ADD => set.add(ctx, &own, fd, &file, interest)?,
        MOD => set.modify(ctx, fd, &file, interest)?,
        DEL => set.delete(fd, &file)?,
        _ => bail!(EINVAL, "unknown operation"),
    }
    Ok(0)
}

fn milliseconds(timeout: u64) -> Option<u64> {
    let ms = u64::try_from(timeout as i32).ok()?;
    Some(host::monotonic_ns().saturating_add(ms * 1_000_000))
}

fn wait(ctx: &Ctx, args: &[u64; 6], deadline: Option<u64>) -> Result<usize> {
    let max = args[2] as i32;
    if max <= 0 || max as usize > i32::MAX as usize / EVENT_SIZE {
        bail!(EINVAL, "not a number of events");
    }
    let end = args[1].checked_add(max as u64 * EVENT_SIZE as u64);
    if end.is_none_or(|end| end > crate::mm::TASK_SIZE) {
        bail!(EFAULT);
    }
    let file = ctx.file(args[0] as i32)?;
    let set = epoll::of(&file)?;
    let found = set.wait(ctx, max as usize, deadline)?;
    let raw: Vec<u8> =
        (found.iter()).flat_map(|f| f.events.bits().to_le_bytes().into_iter().chain(f.data.to_le_bytes())).collect();
    if let Err(e) = ctx.write_user(args[1], &raw) {
        set.put_back(&found);
        return Err(e);
    }
    Ok(found.len())
}

fn sys_epoll_wait(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    wait(ctx, args, milliseconds(args[3]))
}

fn sys_epoll_pwait(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let deadline = milliseconds(args[3]);
    let mask = read_mask(ctx, args[4], args[5])?;
    signal::with_mask(ctx, mask, || wait(ctx, args, deadline))
}

fn sys_epoll_pwait2(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let deadline = if args[3] == 0 {
        None
    } else {
        let [sec, nsec]: [i64; 2] = ctx.read_val(args[3])?;
        Some(deadline_after(sec, nsec)?)
    };
    let mask = read_mask(ctx, args[4], args[5])?;
    signal::with_mask(ctx, mask, || wait(ctx, args, deadline))
}

/// `eventfd(2)`, whose second argument is not there, and `eventfd2(2)`.
fn sys_eventfd(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    const EVENTFD: u64 = linux_raw_sys::general::__NR_eventfd as u64;
    let raw = if frame.orig_rax == EVENTFD { 0 } else { args[1] as u32 };
    let Some(flags) = EventFdFlags::from_bits(raw) else { bail!(EINVAL, "unknown flag") };
    install(ctx, eventfd::create(ctx, args[0] as u32, flags), flags.contains(EventFdFlags::CLOEXEC))
}

/// `signalfd(2)`, whose fourth argument is not there, and `signalfd4(2)`.
fn sys_signalfd(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    const SIGNALFD: u64 = linux_raw_sys::general::__NR_signalfd as u64;
    let raw = if frame.orig_rax == SIGNALFD { 0 } else { args[3] as u32 };
    if args[2] != SigSet::SIZE {
        bail!(EINVAL, "not the size of a signal set");
    }
    let mask = SigSet(ctx.read_val(args[1])?);
    let flags = OpenFlags::from_bits_retain(raw);
    if !(flags - OpenFlags::CLOEXEC - OpenFlags::NONBLOCK).is_empty() {
        bail!(EINVAL, "unknown flag");
    }
    let fd = args[0] as i32;
    if fd == -1 {
        let file = signalfd::create(ctx, mask, flags.contains(OpenFlags::NONBLOCK));
        return install(ctx, file, flags.contains(OpenFlags::CLOEXEC));
    }
    let file = ctx.file(fd)?;
    signalfd::set_mask(ctx, &file, mask)?;
    Ok(fd as usize)
}
