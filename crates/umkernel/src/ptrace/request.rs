//! What a tracer asks of its tracee.

use super::stop::{AT_ENTRY, AT_EXIT, SYSCALL_BIT, Stop, interrupt};
use super::{Event, Mode, Options, Traps};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::signal::number::{self, SIGKILL, SIGTRAP};
use crate::signal::{self, SigInfo, SigSet};
use crate::sync::{Mutex, Wake};
use crate::task::Task;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The largest error that a system call's result stands for (`MAX_ERRNO`).
const MAX_ERRNO: i64 = 4095;

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// To the next signal (`PTRACE_CONT`).
    Continue,
    /// To the next system call's beginning or end.
    Syscall,
    /// By one instruction.
    Step,
    /// To the next system call, which is not made (`PTRACE_SYSEMU`).
    Emulate,
    /// Both (`PTRACE_SYSEMU_SINGLESTEP`).
    EmulateStep,
}

/// Calls `f` with the stop of a tracee of the running task's.
///
/// # Errors
/// `ESRCH` if it is no tracee of that task, does not rest in a stop, or listens (`PTRACE_LISTEN`).
pub fn with_stop<T>(ctx: &Ctx, task: &Task, f: impl FnOnce(&mut Stop) -> T) -> Result<T> {
    let mut link = task.trace.link.lock();
    let mine = link.tracer.as_ref().is_some_and(|tracer| Arc::ptr_eq(tracer, ctx.task));
    let resting = |stop: &&mut Box<Stop>| stop.resume.is_none() && !stop.listening && !stop.is_left(task);
    match link.stop.as_mut().filter(|stop| mine && resting(stop)) {
        Some(stop) => Ok(f(stop)),
        None => bail!(ESRCH, "no stopped tracee of the caller's"),
    }
}

/// Has a stopped tracee do something on its own kernel thread.
///
/// # Errors
/// As of [`with_stop`]; also if the tracee was killed first.
pub fn on_tracee<T: Send + 'static>(
    ctx: &Ctx,
    task: &Arc<Task>,
    job: impl FnOnce(&Ctx) -> T + Send + 'static,
) -> Result<T> {
    let answer = Arc::new(Mutex::new(None));
    let place = answer.clone();
    let job = Box::new(move |tracee: &Ctx| *place.lock() = Some(job(tracee)));
    with_stop(ctx, task, |stop| stop.job = Some(job))?;
    task.waiter.wake();
    loop {
        ctx.task.waiter.prepare();
        // The job has been done, or dropped.
        if Arc::strong_count(&answer) == 1 {
            return answer.lock().take().ok_or(Errno::ESRCH.into());
        }
        ctx.task.sleep(None);
    }
}

/// A request that does not need a stopped tracee: whether it is one of the running task's at all.
fn check_mine(ctx: &Ctx, task: &Task) -> Result<()> {
    let link = task.trace.link.lock();
    match link.tracer.as_ref().is_some_and(|tracer| Arc::ptr_eq(tracer, ctx.task)) {
        true => Ok(()),
        false => bail!(ESRCH, "no tracee of the caller's"),
    }
}

/// Lets a stopped tracee go on, with this signal, or none for 0.
///
/// # Errors
/// As of [`with_stop`].
pub fn resume(ctx: &Ctx, task: &Task, how: Resume, sig: u8) -> Result<()> {
    let mode = match how {
        Resume::Continue => Mode::empty(),
        Resume::Syscall => Mode::SYSCALLS,
        Resume::Step => Mode::STEP,
        Resume::Emulate => Mode::EMULATE,
        Resume::EmulateStep => Mode::EMULATE | Mode::STEP,
    };
    with_stop(ctx, task, |stop| {
        task.trace.set_mode(Mode::SYSCALLS | Mode::STEP | Mode::EMULATE, false);
        task.trace.set_mode(mode, true);
        stop.resume = Some(sig);
    })?;
    task.waiter.wake();
    Ok(())
}

/// `PTRACE_KILL`: stopped or not.
///
/// # Errors
/// `ESRCH` for no tracee of the running task's.
pub fn kill(ctx: &Ctx, task: &Arc<Task>) -> Result<()> {
    check_mine(ctx, task)?;
    // One that has ended needs no killing.
    let _ = signal::send_to_task(ctx.kernel, task, SigInfo::kernel(SIGKILL));
    Ok(())
}

/// `PTRACE_INTERRUPT`: a seized tracee stops wherever it is.
///
/// # Errors
/// `ESRCH` for no tracee of the running task's, `EIO` for one that was not seized.
pub fn interrupt_tracee(ctx: &Ctx, task: &Arc<Task>) -> Result<()> {
    check_mine(ctx, task)?;
    if !task.trace.is_seized() {
        bail!(EIO, "not seized");
    }
    interrupt(ctx.kernel, task);
    Ok(())
}

/// `PTRACE_LISTEN`: a seized tracee stays in its event-stop until something happens to its process.
///
/// # Errors
/// As of [`with_stop`]; `EIO` for a tracee that was not seized, or in another stop.
pub fn listen(ctx: &Ctx, task: &Arc<Task>) -> Result<()> {
    let seized = task.trace.is_seized();
    let listens = with_stop(ctx, task, |stop| {
        stop.listening = seized && stop.info.is_some_and(|info| info.code >> 8 == Event::Stop as i32);
        stop.listening
    })?;
    if !listens {
        bail!(EIO, "no event-stop of a seized tracee");
    }
    if task.trace.has_trap(Traps::NOTIFY) {
        task.waiter.wake();
    }
    Ok(())
}

/// `PTRACE_SETOPTIONS`.
///
/// # Errors
/// As of [`with_stop`] and [`Options::checked`].
pub fn set_options(ctx: &Ctx, task: &Task, bits: u64) -> Result<()> {
    with_stop(ctx, task, |_| ())?;
    task.trace.link.lock().options = Options::checked(bits)?;
    Ok(())
}

/// `PTRACE_GETSIGINFO`.
///
/// # Errors
/// As of [`with_stop`]; `EINVAL` in a group-stop.
pub fn siginfo(ctx: &Ctx, task: &Task) -> Result<SigInfo> {
    with_stop(ctx, task, |stop| stop.info)?.ok_or(Errno::EINVAL.into())
}

/// `PTRACE_SETSIGINFO`.
///
/// # Errors
/// As of [`siginfo`].
pub fn set_siginfo(ctx: &Ctx, task: &Task, info: SigInfo) -> Result<()> {
    with_stop(ctx, task, |stop| stop.info.as_mut().map(|place| *place = info))?.ok_or(Errno::EINVAL.into())
}

/// `PTRACE_SETSIGMASK`.
///
/// # Errors
/// As of [`with_stop`].
pub fn set_sigmask(ctx: &Ctx, task: &Arc<Task>, mask: u64) -> Result<()> {
    on_tracee(ctx, task, move |tracee| signal::set_blocked(tracee, SigSet(mask)))
}

/// `PTRACE_PEEKSIGINFO`: signals that wait for the tracee alone, or for its process, from the `skip`th on.
///
/// # Errors
/// As of [`with_stop`].
pub fn pending_signals(ctx: &Ctx, task: &Arc<Task>, shared: bool, skip: u64, count: usize) -> Result<Vec<SigInfo>> {
    with_stop(ctx, task, |_| ())?;
    let _inner = task.process.inner.lock();
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    Ok(signal::queued(task, shared).into_iter().skip(skip).take(count).collect())
}

/// What `PTRACE_GET_SYSCALL_INFO` says beyond where the tracee is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallInfo {
    /// It is in no syscall-stop, or one that cannot be told from others: without `PTRACE_O_TRACESYSGOOD`.
    None,
    /// At a call: number and arguments.
    Entry(u64, [u64; 6]),
    /// Behind one: the result, and whether that is an error.
    Exit(i64, bool),
    /// At a call that a seccomp filter leaves to the tracer: number, arguments, and the filter's word on it.
    Seccomp(u64, [u64; 6], u32),
}

/// `PTRACE_GET_SYSCALL_INFO`: the instruction pointer, the stack pointer, and what the stop is.
///
/// # Errors
/// As of [`with_stop`].
pub fn syscall_info(ctx: &Ctx, task: &Task) -> Result<(u64, u64, SyscallInfo)> {
    with_stop(ctx, task, |stop| {
        let good = stop.info.is_some_and(|info| info.code as u32 == u32::from(SIGTRAP) | SYSCALL_BIT);
        let filtered = u32::from(SIGTRAP) | (Event::Seccomp as u32) << 8;
        let regs = &stop.regs;
        let what = match stop.message {
            word if stop.info.is_some_and(|info| info.code as u32 == filtered) => {
                SyscallInfo::Seccomp(regs.orig_rax, regs.args(), word as u32)
            }
            AT_ENTRY if good => SyscallInfo::Entry(regs.orig_rax, regs.args()),
            AT_EXIT if good => {
                let result = regs.rax as i64;
                SyscallInfo::Exit(result, (-MAX_ERRNO..0).contains(&result))
            }
            _ => SyscallInfo::None,
        };
        (regs.rip, regs.rsp, what)
    })
}

/// A signal's number as the requests take it that let a tracee go on.
///
/// # Errors
/// `EIO` for what is none.
pub fn signal_number(data: u64) -> Result<u8> {
    match data {
        0 => Ok(0),
        sig if number::is_valid(sig) => Ok(sig as u8),
        _ => bail!(EIO, "no signal"),
    }
}
