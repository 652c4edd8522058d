//! Taking signals on the way to user mode: default actions, handlers, and whether an interrupted call starts again.

use super::state::{dequeue_locked, restore_saved_mask};
use super::{DefaultAction, SaFlags, SigAction, SigInfo, default_action, frame, job, number};
use super::{force_action, recalculate_attention, set_blocked};
use crate::errno::{Errno, Error, Result};
use crate::kernel::Ctx;
use crate::mm;
use crate::platform::TrapFrame;
use crate::ptrace;
use crate::task::{self, WaitStatus};
use crate::trace;
use core::sync::atomic::Ordering;

/// Bytes of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;
/// Number of `restart_syscall(2)`.
const RESTART_SYSCALL: u64 = linux_raw_sys::general::__NR_restart_syscall as u64;

/// What [`next`] found.
enum Found {
    /// Nothing more to do.
    Nothing,
    /// A signal with a handler.
    Handler(SigInfo, SigAction),
    /// The task ends.
    End,
}

/// Delivers what is pending and puts a system call's result into the frame; called on every way to user mode that has
/// something to look at. Afterwards the task goes on with the frame, or ends if it is `dying`.
///
/// Sleeps while the process is stopped.
pub fn deliver(ctx: &Ctx, regs: &mut TrapFrame, result: Option<Result<usize>>) {
    settle(regs, result);
    loop {
        match next(ctx, regs) {
            Found::End => return,
            Found::Handler(info, action) => {
                if let Some(errno) = interrupted(regs) {
                    restart(regs, errno, Some(action.flags()));
                }
                handle(ctx, regs, &info, &action);
                ptrace::stop::at_handler(ctx, regs);
            }
            Found::Nothing => {
                if let Some(errno) = interrupted(regs) {
                    restart(regs, errno, None);
                }
                mm::map::take_cuts(ctx);
                // May unblock what is pending already.
                restore_saved_mask(ctx);
                recalculate_attention(ctx.task);
                if !ctx.task.signal_pending() {
                    return;
                }
            }
        }
    }
}

/// Puts the result into `rax`, be it one of the numbers that ask for a restart, which tracers see there.
fn settle(regs: &mut TrapFrame, result: Option<Result<usize>>) {
    match result {
        Some(Ok(value)) => regs.rax = value as u64,
        Some(Err(Error { errno, .. })) => regs.rax = negated(errno),
        None => {}
    }
}

/// What the registers say of a system call that asks for a restart, whether the call has put it there or a tracer.
fn interrupted(regs: &TrapFrame) -> Option<Errno> {
    if regs.orig_rax == TrapFrame::NO_SYSCALL {
        return None;
    }
    let errno = Errno(u16::try_from(-(regs.rax as i64)).ok()?);
    let restarts = [Errno::ERESTARTSYS, Errno::ERESTARTNOINTR, Errno::ERESTARTNOHAND, Errno::ERESTART_RESTARTBLOCK];
    restarts.contains(&errno).then_some(errno)
}

fn negated(errno: Errno) -> u64 {
    (-i64::from(errno.0)) as u64
}

/// Lets an interrupted call start again after the handler (with these flags) or without one, or fail with `EINTR`.
fn restart(regs: &mut TrapFrame, errno: Errno, handler: Option<SaFlags>) {
    let number = match (errno, handler) {
        (Errno::ERESTART_RESTARTBLOCK, None) => RESTART_SYSCALL,
        (Errno::ERESTARTNOINTR, _) | (_, None) => regs.orig_rax,
        (Errno::ERESTARTSYS, Some(flags)) if flags.contains(SaFlags::RESTART) => regs.orig_rax,
        _ => {
            regs.rax = negated(Errno::EINTR);
            return;
        }
    };
    regs.rax = number;
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
}

/// Lets a handler run next.
fn handle(ctx: &Ctx, regs: &mut TrapFrame, info: &SigInfo, action: &SigAction) {
    let signals = &ctx.task.signals;
    let blocked = signals.blocked();
    let mask = signals.take_saved_mask().unwrap_or(blocked);
    if frame::push(ctx, regs, info, action, mask).is_err() {
        // A handler of SIGSEGV that has no stack to run on would fault for ever.
        let hopeless = info.signo == number::SIGSEGV;
        force_action(ctx, SigInfo::kernel(number::SIGSEGV), hopeless);
        return;
    }
    let mut in_handler = blocked | action.mask;
    if !action.flags().contains(SaFlags::NODEFER) {
        in_handler = in_handler.with(info.signo);
    }
    set_blocked(ctx, in_handler);
}

/// Takes signals and does their default actions until one has a handler or there are no more.
fn next(ctx: &Ctx, regs: &mut TrapFrame) -> Found {
    let (task, process) = (ctx.task, &ctx.task.process);
    loop {
        if task.dying.load(Ordering::SeqCst) {
            return Found::End;
        }
        let stops = task.signals.stop_pending.load(Ordering::SeqCst);
        if task.trace.must_trap() || stops && task.trace.is_traced() {
            ptrace::stop::trap(ctx, regs);
            continue;
        }
        if stops {
            job::take_part(ctx);
            continue;
        }
        let inner = process.inner.lock();
        let wanted = !task.signals.blocked();
        let fault = task.signals.pending.lock().take_fault(wanted);
        let Some(info) = fault.or_else(|| dequeue_locked(task, wanted)) else {
            drop(inner);
            return Found::Nothing;
        };
        let traced = task.trace.is_traced();
        let (inner, info) = if traced {
            drop(inner);
            let Some(info) = ptrace::stop::at_signal(ctx, regs, info) else { continue };
            (process.inner.lock(), info)
        } else {
            (inner, info)
        };
        let sig = info.signo;
        let handlers = process.handlers.lock().clone();
        let action = handlers.get(sig);
        match action.handler {
            SigAction::IGNORE => continue,
            SigAction::DEFAULT => {}
            _ => {
                if action.flags().contains(SaFlags::RESETHAND) {
                    handlers.update(sig, |a| a.handler = SigAction::DEFAULT);
                }
                drop(inner);
                trace::signal_delivered(ctx, &info);
                return Found::Handler(info, action);
            }
        }
        drop(inner);
        let unkillable = process.signals.unkillable.load(Ordering::SeqCst);
        match default_action(sig) {
            DefaultAction::Ignore | DefaultAction::Continue => {}
            _ if unkillable => {}
            DefaultAction::Stop => {
                // Nobody could continue an orphaned group: terminals do not stop it.
                let group = process.group_and_session().0;
                if sig == number::SIGSTOP || !job::is_orphaned(ctx.kernel, group, None) {
                    trace::signal_delivered(ctx, &info);
                    job::begin_stop(ctx, process, sig);
                }
            }
            action @ (DefaultAction::Terminate | DefaultAction::Core) => {
                trace::signal_delivered(ctx, &info);
                let dumped = action == DefaultAction::Core && task::core_dump::write(ctx, regs, &info);
                task::exit_group(ctx, WaitStatus::Signaled(sig, dumped));
                return Found::End;
            }
        }
    }
}

/// `rt_sigreturn(2)`: goes back to what a handler interrupted. A bad frame raises `SIGSEGV`.
pub fn return_from_handler(ctx: &Ctx, regs: &mut TrapFrame) -> Result<usize> {
    // An interrupted sleep does not go on after a handler.
    *ctx.task.restart.lock() = None;
    match frame::pop(ctx, regs) {
        Ok(rax) => Ok(rax),
        Err(_) => {
            force_action(ctx, SigInfo::kernel(number::SIGSEGV), false);
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(errno: Errno, handler: Option<SaFlags>) -> (u64, u64) {
        let mut regs = TrapFrame { rip: 0x1002, orig_rax: 7, rax: 7, ..TrapFrame::default() };
        settle(&mut regs, Some(Err(errno.into())));
        assert_eq!(interrupted(&regs), Some(errno));
        restart(&mut regs, errno, handler);
        (regs.rip, regs.rax)
    }

    #[test]
    fn interrupted_calls_restart_as_linux_says() {
        let fails = (0x1002, negated(Errno::EINTR));
        let again = (0x1000, 7);
        let (plain, sa_restart) = (SaFlags::empty(), SaFlags::RESTART);
        for (errno, without, with_plain, with_restart) in [
            (Errno::ERESTARTSYS, again, fails, again),
            (Errno::ERESTARTNOINTR, again, again, again),
            (Errno::ERESTARTNOHAND, again, fails, fails),
            (Errno::ERESTART_RESTARTBLOCK, (0x1000, 219), fails, fails),
        ] {
            assert_eq!(after(errno, None), without, "{errno:?} without a handler");
            assert_eq!(after(errno, Some(plain)), with_plain, "{errno:?} with a handler");
            assert_eq!(after(errno, Some(sa_restart)), with_restart, "{errno:?} with SA_RESTART");
        }
    }

    #[test]
    fn results_go_to_rax() {
        let mut regs = TrapFrame::default();
        settle(&mut regs, Some(Ok(3)));
        assert_eq!((regs.rax, interrupted(&regs)), (3, None));
        settle(&mut regs, Some(Err(Errno::ENOENT.into())));
        assert_eq!((regs.rax as i64, interrupted(&regs)), (-2, None));
        regs.rax = 9;
        settle(&mut regs, None);
        assert_eq!(regs.rax, 9, "a fault leaves the registers alone");
    }
}
