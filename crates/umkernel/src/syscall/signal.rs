//! Signals: actions, masks, sending, waiting.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Error, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::signal::{self, AltStack, SIGINFO_SIZE, SaFlags, SigAction, SigInfo, SigSet, code, number};
use crate::sync::WaitQueue;
use crate::task::{Pid, Process};
use alloc::sync::Arc;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(13, "rt_sigaction", Family::Signal, SIGACTION, Support::Full, sys_rt_sigaction),
    Entry::new(14, "rt_sigprocmask", Family::Signal, SIGPROCMASK, Support::Full, sys_rt_sigprocmask),
    Entry::new(15, "rt_sigreturn", Family::Signal, &[Arg::Kind("sigreturn")], Support::Full, sys_rt_sigreturn),
    Entry::new(34, "pause", Family::Signal, &[], Support::Full, sys_pause),
    Entry::new(62, "kill", Family::Signal, &[Arg::Int, Arg::Signal], Support::Full, sys_kill),
    Entry::new(127, "rt_sigpending", Family::Signal, &[OUT_SET, Arg::Uint], Support::Full, sys_rt_sigpending),
    Entry::new(128, "rt_sigtimedwait", Family::Signal, TIMEDWAIT, Support::Full, sys_rt_sigtimedwait),
    Entry::new(129, "rt_sigqueueinfo", Family::Signal, QUEUEINFO, Support::Full, sys_rt_sigqueueinfo),
    Entry::new(130, "rt_sigsuspend", Family::Signal, &[IN_SET, Arg::Uint], Support::Full, sys_rt_sigsuspend),
    Entry::new(131, "sigaltstack", Family::Signal, ALTSTACK, Support::Full, sys_sigaltstack),
    Entry::new(200, "tkill", Family::Signal, &[Arg::Int, Arg::Signal], Support::Full, sys_tkill),
    Entry::new(219, "restart_syscall", Family::Signal, &[], Support::Full, sys_restart_syscall),
    Entry::new(234, "tgkill", Family::Signal, &[Arg::Int, Arg::Int, Arg::Signal], Support::Full, sys_tgkill),
    Entry::new(297, "rt_tgsigqueueinfo", Family::Signal, TGQUEUEINFO, Support::Full, sys_rt_tgsigqueueinfo),
];

const IN_SET: Arg = Arg::Kind("sigset_in");
const OUT_SET: Arg = Arg::Kind("sigset_out");
const SIGACTION: &[Arg] = &[Arg::Signal, Arg::Kind("sigaction_in"), Arg::Kind("sigaction_out"), Arg::Uint];
const SIGPROCMASK: &[Arg] = &[Arg::Kind("sigmask_how"), IN_SET, OUT_SET, Arg::Uint];
const TIMEDWAIT: &[Arg] = &[IN_SET, Arg::Kind("siginfo_out"), Arg::Kind("timespec_in"), Arg::Uint];
const QUEUEINFO: &[Arg] = &[Arg::Int, Arg::Signal, Arg::Kind("siginfo_in")];
const TGQUEUEINFO: &[Arg] = &[Arg::Int, Arg::Int, Arg::Signal, Arg::Kind("siginfo_in")];
const ALTSTACK: &[Arg] = &[Arg::Kind("stack_in"), Arg::Kind("stack_out")];

/// A signal set argument; `None` for a null pointer.
fn read_set(ctx: &Ctx, addr: u64) -> Result<Option<SigSet>> {
    if addr == 0 { Ok(None) } else { ctx.read_val(addr).map(|bits| Some(SigSet(bits))) }
}

/// The size of a set, which there is only one of.
fn check_size(size: u64) -> Result<()> {
    if size == SigSet::SIZE { Ok(()) } else { Err(Error::new(Errno::EINVAL, "sigsetsize is not 8")) }
}

/// A signal number argument; `EINVAL` unless 1..=64.
fn signal_number(arg: u64) -> Result<u8> {
    let sig = arg as i32;
    if sig > 0 && number::is_valid(sig as u64) { Ok(sig as u8) } else { Err(Errno::EINVAL.into()) }
}

/// A signal number argument, where 0 means none: a test of whether a signal could be sent.
fn signal_or_probe(arg: u64) -> Result<Option<u8>> {
    if arg as i32 == 0 { Ok(None) } else { signal_number(arg).map(Some) }
}

fn sys_rt_sigaction(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [sig, new, old, size, ..] = *args;
    check_size(size)?;
    let new: Option<SigAction> = if new == 0 { None } else { Some(ctx.read_val(new)?) };
    let sig = signal_number(sig)?;
    if new.is_some() && number::UNBLOCKABLE.contains(sig) {
        bail!(EINVAL, "neither SIGKILL nor SIGSTOP can be handled");
    }
    let previous = match new {
        None => ctx.task.process.handlers.lock().get(sig),
        Some(new) => signal::set_action(
            &ctx.task.process,
            sig,
            SigAction { flags: new.flags & SaFlags::KNOWN.bits(), mask: new.mask.blockable(), ..new },
        ),
    };
    if old != 0 {
        ctx.write_val(old, &previous)?;
    }
    Ok(0)
}

fn sys_rt_sigprocmask(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const SIG_BLOCK: i32 = 0;
    const SIG_UNBLOCK: i32 = 1;
    const SIG_SETMASK: i32 = 2;
    let [how, new, old, size, ..] = *args;
    check_size(size)?;
    let before = ctx.task.signals.blocked();
    if let Some(set) = read_set(ctx, new)? {
        let after = match how as i32 {
            SIG_BLOCK => before | set,
            SIG_UNBLOCK => before - set,
            SIG_SETMASK => set,
            _ => bail!(EINVAL, "how"),
        };
        signal::set_blocked(ctx, after);
    }
    if old != 0 {
        ctx.write_val(old, &before.0)?;
    }
    Ok(0)
}

fn sys_rt_sigpending(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [addr, size, ..] = *args;
    if size > SigSet::SIZE {
        bail!(EINVAL, "sigsetsize is more than 8");
    }
    let set = signal::pending(ctx.task) & ctx.task.signals.blocked();
    ctx.write_user(addr, &set.0.to_ne_bytes()[..size as usize])?;
    Ok(0)
}

/// Sleeps until a signal comes.
fn sleep_until_signal(ctx: &Ctx) -> Result<usize> {
    let nothing = WaitQueue::new();
    match ctx.wait_for(&nothing, || None::<usize>) {
        Err(e) if e == Errno::ERESTARTSYS => Err(Errno::ERESTARTNOHAND.into()),
        other => other,
    }
}

fn sys_rt_sigsuspend(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [mask, size, ..] = *args;
    check_size(size)?;
    let mask = SigSet(ctx.read_val(mask)?);
    signal::with_mask(ctx, Some(mask), || sleep_until_signal(ctx))
}

fn sys_pause(ctx: &Ctx, _: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    sleep_until_signal(ctx)
}

fn sys_rt_sigtimedwait(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [set, info, timeout, size, ..] = *args;
    check_size(size)?;
    let set = SigSet(ctx.read_val(set)?).blockable();
    let deadline = if timeout == 0 {
        None
    } else {
        let timeout: host::TimeSpec = ctx.read_val(timeout)?;
        if timeout.sec < 0 || !(0..1_000_000_000).contains(&timeout.nsec) {
            bail!(EINVAL, "timeout");
        }
        let ns = (timeout.sec as u64).saturating_mul(1_000_000_000).saturating_add(timeout.nsec as u64);
        Some(host::monotonic_ns().saturating_add(ns))
    };
    let found = signal::wait_for(ctx, set, deadline)?;
    if info != 0 {
        ctx.write_user(info, &found.encode())?;
    }
    Ok(usize::from(found.signo))
}

/// The process that a pid or tid names.
fn process_of(ctx: &Ctx, pid: Pid) -> Result<Arc<Process>> {
    let tasks = &ctx.kernel.tasks;
    tasks.process(pid).or_else(|| tasks.task(pid).map(|t| t.process.clone())).ok_or(Errno::ESRCH.into())
}

/// Checks the number and the permission, and sends unless the number is 0.
pub(super) fn kill_process(
    ctx: &Ctx,
    process: &Arc<Process>,
    sig: u64,
    info: impl FnOnce(u8) -> SigInfo,
) -> Result<()> {
    let sig = signal_or_probe(sig)?;
    signal::may_signal(ctx, process, sig.unwrap_or(0))?;
    sig.map_or(Ok(()), |sig| signal::send_to_process(ctx.kernel, process, info(sig)))
}

fn sys_kill(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (pid, sig) = (args[0] as Pid, args[1]);
    let send = |process: &Arc<Process>| kill_process(ctx, process, sig, |sig| signal::sent_by(ctx, sig, code::SI_USER));
    match pid {
        1.. => send(&process_of(ctx, pid)?)?,
        -1 => {
            // Everyone but init and the caller; a lack of permission is no failure if another process could be signalled.
            let own = ctx.task.process.pid;
            let others = ctx.kernel.tasks.processes().into_iter().filter(|p| p.pid > 1 && p.pid != own);
            let mut result = Err(Errno::ESRCH.into());
            for process in others {
                match send(&process) {
                    Err(e) if e == Errno::EPERM => result = if result.is_ok() { Ok(()) } else { Err(e) },
                    other => result = other,
                }
            }
            result?;
        }
        Pid::MIN => bail!(ESRCH),
        _ => {
            let group = if pid == 0 { ctx.task.process.group_and_session().0 } else { -pid };
            let mut result = Err(Errno::ESRCH.into());
            let mut sent = false;
            for process in ctx.kernel.tasks.group(group) {
                result = send(&process);
                sent |= result.is_ok();
            }
            if !sent {
                result?;
            }
        }
    }
    Ok(0)
}

/// Sends a signal to one thread, of process `tgid` if that is given.
fn kill_thread(ctx: &Ctx, tgid: Option<Pid>, tid: Pid, sig: u64, info: impl FnOnce(u8) -> SigInfo) -> Result<usize> {
    let task = ctx.kernel.tasks.task(tid).filter(|t| tgid.is_none_or(|tgid| t.process.pid == tgid));
    let Some(task) = task else { bail!(ESRCH) };
    let sig = signal_or_probe(sig)?;
    signal::may_signal(ctx, &task.process, sig.unwrap_or(0))?;
    match sig.map_or(Ok(()), |sig| signal::send_to_task(ctx.kernel, &task, info(sig))) {
        // It was there when it was looked up: as if the signal had come just before its end.
        Err(e) if e == Errno::ESRCH => Ok(0),
        other => other.map(|()| 0),
    }
}

fn sys_tkill(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let tid = args[0] as Pid;
    if tid <= 0 {
        bail!(EINVAL, "tid");
    }
    kill_thread(ctx, None, tid, args[1], |sig| signal::sent_by(ctx, sig, code::SI_TKILL))
}

fn sys_tgkill(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (tgid, tid) = (args[0] as Pid, args[1] as Pid);
    if tgid <= 0 || tid <= 0 {
        bail!(EINVAL, "tgid or tid");
    }
    kill_thread(ctx, Some(tgid), tid, args[2], |sig| signal::sent_by(ctx, sig, code::SI_TKILL))
}

/// A `siginfo_t` argument, and the signal that it names; only for a signal to itself may a process claim to be the kernel
/// or `kill(2)`.
pub(super) fn read_info(ctx: &Ctx, addr: u64, target: Pid) -> Result<(i32, SigInfo)> {
    let raw: [u8; SIGINFO_SIZE] = ctx.read_val(addr)?;
    let info = SigInfo::decode(0, &raw);
    let pretends = info.code >= 0 || info.code == code::SI_TKILL;
    if pretends && target != ctx.task.tid() && target != ctx.task.process.pid {
        bail!(EPERM, "si_code of the kernel or of kill(2)");
    }
    let named = i32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]);
    Ok((named, info))
}

fn sys_rt_sigqueueinfo(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (pid, sig) = (args[0] as Pid, args[1]);
    let (_, info) = read_info(ctx, args[2], pid)?;
    let process = process_of(ctx, pid)?;
    kill_process(ctx, &process, sig, |signo| SigInfo { signo, ..info })?;
    Ok(0)
}

fn sys_rt_tgsigqueueinfo(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (tgid, tid, sig) = (args[0] as Pid, args[1] as Pid, args[2]);
    let (_, info) = read_info(ctx, args[3], tid)?;
    if tgid <= 0 || tid <= 0 {
        bail!(EINVAL, "tgid or tid");
    }
    kill_thread(ctx, Some(tgid), tid, sig, |signo| SigInfo { signo, ..info })
}

fn sys_sigaltstack(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    let [new, old, ..] = *args;
    let new: Option<AltStack> = if new == 0 { None } else { Some(ctx.read_val(new)?) };
    let before = {
        let mut stack = ctx.task.signals.altstack.lock();
        let before = AltStack { flags: stack.status(frame.rsp), padding: 0, ..*stack };
        if let Some(new) = new {
            *stack = stack.replaced_by(AltStack { padding: 0, ..new }, frame.rsp)?;
        }
        before
    };
    if old != 0 {
        ctx.write_val(old, &before)?;
    }
    Ok(0)
}

fn sys_rt_sigreturn(ctx: &Ctx, _: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    signal::return_from_handler(ctx, frame)
}

fn sys_restart_syscall(ctx: &Ctx, _: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let restart = ctx.task.restart.lock().take();
    match restart {
        Some(restart) => restart(ctx),
        None => Err(Errno::EINTR.into()),
    }
}
