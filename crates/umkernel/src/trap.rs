//! What a platform calls when guest code enters the kernel, and on its way back.

use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::signal::number::{SIGBUS, SIGSEGV};
use crate::signal::{self, SigDetail, SigInfo, code};
use crate::syscall;
use crate::task::{self, WaitStatus};
use crate::{profile, ptrace, seccomp, trace};
use core::sync::atomic::Ordering;

/// What happens to a task next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Guest code runs on with the frame.
    Run,
    /// The task ends.
    End,
}

/// A system call: services it. The result goes to [`return_to_user`], which puts it into the frame.
pub fn syscall(ctx: &Ctx, frame: &mut TrapFrame) -> Result<usize> {
    ctx.task.in_syscall.store(frame.orig_rax as u32, Ordering::Relaxed);
    if ctx.task.trace.is_watched() {
        return watched_syscall(ctx, frame);
    }
    syscall::dispatch(ctx, frame)
}

/// A system call of a task that somebody traces, or that has filters: as on Linux, these see what the tracer has made of it.
fn watched_syscall(ctx: &Ctx, frame: &mut TrapFrame) -> Result<usize> {
    let trace = &ctx.task.trace;
    let traced = trace.is_traced();
    if traced && let Some(result) = ptrace::stop::enter_syscall(ctx, frame) {
        return result;
    }
    if trace.is_filtered()
        && let Some(result) = seccomp::check(ctx, frame)
    {
        return result;
    }
    if traced && frame.orig_rax as i32 == -1 {
        // The tracer wants no call: it has left the result, if any.
        return Ok(frame.rax as usize);
    }
    syscall::dispatch(ctx, frame)
}

/// A processor fault of guest code, as the signal that Linux makes of it.
pub fn fault(ctx: &Ctx, _frame: &TrapFrame, info: SigInfo) {
    profile::fault(ctx.kernel);
    if let (SIGBUS, code::BUS_ADRERR, SigDetail::Fault { addr }) = (info.signo, info.code, info.detail)
        && ctx.mm().is_ok_and(|space| space.map_grown(ctx, addr))
    {
        return;
    }
    if let (SIGSEGV, code::SEGV_MAPERR, SigDetail::Fault { addr }) = (info.signo, info.code, info.detail)
        && ctx.mm().is_ok_and(|space| space.grow_down(ctx, addr))
    {
        return;
    }
    signal::force(ctx, info);
}

/// The host process was killed from outside, by the host's out-of-memory killer for one: as if by `SIGKILL`.
pub fn killed(ctx: &Ctx) {
    const SIGKILL: u8 = 9;
    task::exit_group(ctx, WaitStatus::Signaled(SIGKILL, false));
}

/// On the way to user mode: puts a system call's result into the frame, delivers signals, stops, ends.
pub fn return_to_user(ctx: &Ctx, frame: &mut TrapFrame, result: Option<Result<usize>>) -> Next {
    if result.is_some() {
        ctx.task.in_syscall.store(u32::MAX, Ordering::Relaxed);
    }
    // SAFETY: the call is over, and this thread runs the task.
    unsafe { ctx.task.drop_kept() };
    let traced = ctx.task.trace.is_traced();
    if !traced && !ctx.task.attention.load(Ordering::SeqCst) {
        match result {
            None => return Next::Run,
            Some(Ok(value)) => {
                frame.rax = value as u64;
                return Next::Run;
            }
            // A restart number without a signal: another thread took it. `deliver` knows what to do.
            Some(Err(e)) if e.errno >= Errno::ERESTARTSYS => {}
            Some(Err(e)) => {
                frame.rax = (-i64::from(e.errno.0)) as u64;
                return Next::Run;
            }
        }
    }
    if traced {
        return tracee_to_user(ctx, frame, result);
    }
    if ctx.task.dying.load(Ordering::SeqCst) {
        return Next::End;
    }
    signal::deliver(ctx, frame, result);
    // Somebody may have begun to trace it while it was stopped.
    if ctx.task.trace.is_traced() {
        return tracee_to_user(ctx, frame, None);
    }
    if ctx.task.dying.load(Ordering::SeqCst) { Next::End } else { Next::Run }
}

/// As [`return_to_user`], with the stops that a tracer wants.
#[cold]
fn tracee_to_user(ctx: &Ctx, frame: &mut TrapFrame, result: Option<Result<usize>>) -> Next {
    ptrace::stop::disarm(ctx, frame);
    if let Some(result) = result
        && !ctx.task.dying.load(Ordering::SeqCst)
    {
        ptrace::stop::leave_syscall(ctx, frame, result);
    }
    if !ctx.task.dying.load(Ordering::SeqCst) {
        signal::deliver(ctx, frame, None);
    }
    if ctx.task.dying.load(Ordering::SeqCst) {
        ptrace::stop::exiting(ctx, frame);
        return Next::End;
    }
    ptrace::stop::arm(ctx, frame);
    Next::Run
}

/// The task has left guest code for good: undoes all that it was.
pub fn ended(ctx: &Ctx) {
    trace::ended(ctx);
    task::finish(ctx);
    ctx.kernel.platform.release(ctx.task);
}
