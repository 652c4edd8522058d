//! A system call of a task that is restricted, before it is made: what filters may say of it (seccomp(2)), and what then happens.

use super::State;
use super::bpf::Data;
use super::filter::Filter;
use super::log::note;
use crate::errno::{Errno, Error, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::ptrace;
use crate::signal::number::{SIGKILL, SIGSYS};
use crate::signal::{self, SigDetail, SigInfo, code};
use crate::task::{self, WaitStatus};
use crate::trace;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{__NR_exit, __NR_read, __NR_rt_sigreturn, __NR_write};
use linux_raw_sys::ptrace::{
    AUDIT_ARCH_X86_64, SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};

/// The calls of strict mode.
const STRICT_CALLS: [u32; 4] = [__NR_read, __NR_write, __NR_exit, __NR_rt_sigreturn];
/// The greatest error number that a filter can give (`MAX_ERRNO` of Linux).
const MAX_ERRNO: u16 = 4095;
/// What `rax` holds for a call that is not made and that nobody gave a result.
const NO_SYS: usize = (Errno::ENOSYS.0 as usize).wrapping_neg();

/// What is to be done about a call.
enum Verdict {
    /// It is made.
    Make,
    /// It is not; and this is its result.
    Skip(Result<usize>),
}

/// Looks at the call that the running task is about to make. `None` if it is to be made: the one that the frame then says. Else its
/// result, unless the task has been killed for it.
pub fn check(ctx: &Ctx, frame: &mut TrapFrame) -> Option<Result<usize>> {
    let Verdict::Skip(result) = judge(ctx, frame, false) else { return None };
    // Who watches sees a call that fails.
    trace::enter(ctx, frame);
    trace::leave(ctx, frame, &shown(result));
    Some(result)
}

/// A result as one of a call's handler.
fn shown(result: Result<usize>) -> Result<usize> {
    let value = result?;
    match Errno::from_return_value(value) {
        Some(errno) => Err(Error::new(errno, "a seccomp filter decided so")),
        None => Ok(value),
    }
}

/// What is to be done about the call; `again` if a tracer has had its say.
fn judge(ctx: &Ctx, frame: &mut TrapFrame, again: bool) -> Verdict {
    let nr = frame.orig_rax as u32;
    let filter = match &*ctx.task.seccomp.state.lock() {
        State::Off => return Verdict::Make,
        State::Strict if STRICT_CALLS.contains(&nr) => return Verdict::Make,
        State::Filters(filter) if filter.allows(nr) => return Verdict::Make,
        State::Strict => None,
        State::Filters(filter) => Some(filter.clone()),
    };
    match filter {
        Some(filter) => judge_by(ctx, frame, &filter, again),
        None => {
            note(ctx, nr, frame.rip, SECCOMP_RET_KILL_THREAD, false, SIGKILL);
            end_thread(ctx, SIGKILL)
        }
    }
}

fn judge_by(ctx: &Ctx, frame: &mut TrapFrame, filter: &Filter, again: bool) -> Verdict {
    let (nr, rip, args) = (frame.orig_rax as u32, frame.rip, frame.args());
    // To find out takes long where the call came by way of code of the platform's.
    let address = if filter.reads_address { ctx.kernel.platform.program_counter(rip) } else { rip };
    let (result, by) = filter.judge(&Data::new(nr, address, &args));
    let (action, word) = (result & SECCOMP_RET_ACTION_FULL, result as u16);
    let log = |signal: u8| note(ctx, nr, rip, action, by.logs, signal);
    match action {
        SECCOMP_RET_ALLOW => Verdict::Make,
        SECCOMP_RET_LOG => {
            log(0);
            Verdict::Make
        }
        SECCOMP_RET_ERRNO => {
            log(0);
            // Not an error of this kernel's: what looks like a number that asks for a restart is none.
            Verdict::Skip(Ok(usize::from(word.min(MAX_ERRNO)).wrapping_neg()))
        }
        SECCOMP_RET_TRAP => {
            log(0);
            trap(ctx, frame, word)
        }
        // It is the tracer that has let the call go.
        SECCOMP_RET_TRACE if again => Verdict::Make,
        SECCOMP_RET_TRACE => {
            log(0);
            ask_tracer(ctx, frame, word)
        }
        SECCOMP_RET_USER_NOTIF => {
            log(0);
            let data = Data::new(nr, ctx.kernel.platform.program_counter(rip), &args);
            match by.listener.as_ref().map(|listener| listener.ask(ctx, data)) {
                Some(None) => Verdict::Make,
                Some(Some(result)) => Verdict::Skip(result),
                None => Verdict::Skip(Ok(NO_SYS)),
            }
        }
        SECCOMP_RET_KILL_THREAD if !ctx.task.process.inner.lock().is_last(ctx.task) => {
            log(SIGSYS);
            end_thread(ctx, SIGSYS)
        }
        // `SECCOMP_RET_KILL_PROCESS`, and whatever is no action.
        _ => {
            log(SIGSYS);
            kill(ctx, frame, word)
        }
    }
}

/// The running task's `SIGSYS` for its call.
fn violation(frame: &TrapFrame, word: u16) -> SigInfo {
    let detail = SigDetail::Call { addr: frame.rip, nr: frame.orig_rax as i32, arch: AUDIT_ARCH_X86_64 };
    SigInfo { signo: SIGSYS, code: code::SYS_SECCOMP, errno: word.into(), detail }
}

/// Puts the registers back as they were at the call, for handlers and core files; the address is the one that the program knows.
fn roll_back(ctx: &Ctx, frame: &mut TrapFrame) {
    frame.rax = frame.orig_rax;
    let address = ctx.kernel.platform.program_counter(frame.rip);
    if address != frame.rip {
        // The task goes on there, where a jump of the platform's may lie.
        ptrace::memory::show_own_text(ctx);
        if frame.rcx == frame.rip {
            frame.rcx = address;
        }
        frame.rip = address;
    }
}

/// `SECCOMP_RET_TRAP`: a handler may make something of the call.
fn trap(ctx: &Ctx, frame: &mut TrapFrame, word: u16) -> Verdict {
    roll_back(ctx, frame);
    signal::force(ctx, violation(frame, word));
    Verdict::Skip(Ok(frame.rax as usize))
}

/// `SECCOMP_RET_TRACE`: the tracer decides, if there is one that has asked for it.
fn ask_tracer(ctx: &Ctx, frame: &mut TrapFrame, word: u16) -> Verdict {
    if !ptrace::stop::at_filter(ctx, frame, word) {
        return Verdict::Skip(Ok(NO_SYS));
    }
    if ctx.task.dying.load(Ordering::SeqCst) {
        return Verdict::Skip(Err(Errno::EINTR.into()));
    }
    if (frame.orig_rax as i32) < 0 {
        // The tracer does not want the call, and has given its result.
        return Verdict::Skip(Ok(frame.rax as usize));
    }
    judge(ctx, frame, true)
}

/// The running thread ends, as if by a signal.
fn end_thread(ctx: &Ctx, sig: u8) -> Verdict {
    task::exit_thread(ctx, WaitStatus::Signaled(sig, false));
    Verdict::Skip(Err(Errno::EINTR.into()))
}

/// The process ends by a `SIGSYS` that nobody hears of before, and may leave a core file.
fn kill(ctx: &Ctx, frame: &mut TrapFrame, word: u16) -> Verdict {
    roll_back(ctx, frame);
    let dumped = task::core_dump::write(ctx, frame, &violation(frame, word));
    task::exit_group(ctx, WaitStatus::Signaled(SIGSYS, dumped));
    Verdict::Skip(Err(Errno::EINTR.into()))
}
