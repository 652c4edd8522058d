//! Sending signals.

use super::number::{self, SIGCONT, SIGKILL};
use super::queue::TimerSignal;
use super::{SigAction, SigDetail, SigInfo, SigSet, code, job, recalculate_attention};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::ptrace;
use crate::task::{Capabilities, Pid, Process, Task, WaitStatus};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::RLIMIT_SIGPENDING;

/// Sends a signal to one thread.
///
/// The caller holds no process's lock: this takes the target's, and its parent's when the target continues.
///
/// # Errors
/// `ESRCH` when the thread has ended, `EAGAIN` when a realtime signal does not fit `RLIMIT_SIGPENDING`.
pub fn send_to_task(kernel: &Kernel, task: &Arc<Task>, info: SigInfo) -> Result<()> {
    send(kernel, &task.process, Some(task), info, None)
}

/// Sends a signal to a process: any of its threads that does not block it takes it. See [`send_to_task`]; a zombie
/// takes signals without effect.
pub fn send_to_process(kernel: &Kernel, process: &Arc<Process>, info: SigInfo) -> Result<()> {
    send(kernel, process, None, info, None)
}

/// Sends a timer's signal to a process or to one of its threads; `timer` hears when it is taken.
pub fn send_timer(
    kernel: &Kernel,
    process: &Arc<Process>,
    task: Option<&Arc<Task>>,
    info: SigInfo,
    timer: Arc<dyn TimerSignal>,
) -> Result<()> {
    send(kernel, process, task, info, Some(timer))
}

/// Sends a signal to every process of a group, as the kernel (terminals do).
///
/// # Errors
/// `ESRCH` when the group is empty.
pub fn send_to_group(kernel: &Kernel, pgid: Pid, info: SigInfo) -> Result<()> {
    let members = kernel.tasks.group(pgid);
    if members.is_empty() {
        bail!(ESRCH);
    }
    members.iter().try_for_each(|p| send_to_process(kernel, p, info))
}

/// Sends a signal to every process but init and `except`: `kill(-1)`, shutting down. Returns how many there were.
pub fn send_to_all(kernel: &Kernel, except: Option<&Process>, info: SigInfo) -> usize {
    let all = kernel.tasks.processes();
    let chosen = all.iter().filter(|p| p.pid > 1 && except.is_none_or(|e| e.pid != p.pid));
    chosen.filter(|p| send_to_process(kernel, p, info).is_ok()).count()
}

/// Whether the running task may send a signal to a process (`kill(2)`).
///
/// # Errors
/// `EPERM` if not.
pub fn may_signal(ctx: &Ctx, target: &Arc<Process>, sig: u8) -> Result<()> {
    if Arc::ptr_eq(&ctx.task.process, target) {
        return Ok(());
    }
    let (theirs, session) = {
        let inner = target.inner.lock();
        (inner.threads.first().map(|t| t.creds()), inner.sid)
    };
    let Some(theirs) = theirs else { return Ok(()) };
    let ours = ctx.creds();
    let same_user = [ours.euid, ours.uid].iter().any(|&id| id == theirs.suid || id == theirs.uid);
    if same_user || ours.capable(Capabilities::KILL) {
        return Ok(());
    }
    if sig == SIGCONT && session == ctx.task.process.group_and_session().1 {
        return Ok(());
    }
    bail!(EPERM, "another user's process")
}

/// What `kill(2)` and the like say of the running task as the sender.
pub fn sent_by(ctx: &Ctx, sig: u8, code: i32) -> SigInfo {
    SigInfo::user(sig, code, ctx.task.process.pid, ctx.creds().uid)
}

/// Sends the running thread a signal for what it does, as if it had done so itself (`send_sig(..., current, 0)`): `SIGPIPE`,
/// `SIGXFSZ`.
pub fn raise(ctx: &Ctx, sig: u8) {
    // A thread that is ending already misses nothing.
    let _ = send_to_task(ctx.kernel, ctx.task, sent_by(ctx, sig, code::SI_USER));
}

/// Sends the running thread a signal that it cannot escape: a fault of its own doing. Where the thread blocks or ignores the
/// signal, the default action happens.
pub fn force(ctx: &Ctx, info: SigInfo) {
    if let SigDetail::Fault { .. } = info.detail {
        ctx.task.signals.record_fault(&info);
    }
    force_action(ctx, info, false);
}

/// As [`force`]; with `default` the process does not get to handle it.
pub(super) fn force_action(ctx: &Ctx, info: SigInfo, default: bool) {
    let (task, process) = (ctx.task, &ctx.task.process);
    let handlers = process.handlers.lock().clone();
    let blocked = task.signals.blocked();
    let action = handlers.get(info.signo);
    if default || blocked.contains(info.signo) || action.handler == SigAction::IGNORE {
        handlers.update(info.signo, |a| a.handler = SigAction::DEFAULT);
        task.signals.store_blocked(blocked.without(info.signo));
    }
    if handlers.get(info.signo).handler == SigAction::DEFAULT && !task.trace.is_traced() {
        // Even init dies of its own faults, but not of breakpoints that a tracer sees to.
        process.signals.unkillable.store(false, Ordering::SeqCst);
    }
    // Refused only when the thread is ending already.
    let _ = send_to_task(ctx.kernel, task, info);
    recalculate_attention(task);
}

fn send(
    kernel: &Kernel,
    process: &Arc<Process>,
    task: Option<&Arc<Task>>,
    info: SigInfo,
    timer: Option<Arc<dyn TimerSignal>>,
) -> Result<()> {
    let sig = info.signo;
    let mut inner = process.inner.lock();
    // Signals for the process are judged by the mask of its first thread, as long as that lives.
    let leader = inner.threads.iter().find(|t| t.tid() == process.pid).or(inner.threads.first()).cloned();
    let Some(leader) = leader else {
        return if task.is_some() { Err(Errno::ESRCH.into()) } else { Ok(()) };
    };
    if task.is_some_and(|t| !inner.threads.iter().any(|other| Arc::ptr_eq(other, t))) {
        bail!(ESRCH);
    }
    if inner.exiting.is_some() {
        return Ok(());
    }
    let judge = task.unwrap_or(&leader);
    let handler = process.handlers.lock().get(sig);
    let protected = process.signals.unkillable.load(Ordering::SeqCst)
        && handler.handler == SigAction::DEFAULT
        && !judge.signals.holds_back(sig);
    if sig == SIGKILL {
        if !protected {
            job::clear_stop(process, &inner.threads);
            inner.begin_exit(kernel, WaitStatus::Signaled(SIGKILL, false), None);
        }
        return Ok(());
    }

    let mut continued = false;
    if number::STOPPING.contains(sig) {
        discard(process, &inner.threads, SigSet::of(&[SIGCONT]));
    } else if sig == SIGCONT {
        discard(process, &inner.threads, number::STOPPING);
        continued = job::resume(process, &mut inner);
        inner.threads.iter().filter(|t| t.trace.is_seized()).for_each(|t| ptrace::stop::notify(kernel, t));
    }
    // A tracer sees signals that its tracee ignores.
    let ignored = (protected || handler.ignores(sig) && !judge.signals.holds_back(sig)) && !judge.trace.is_traced();
    if !ignored {
        queue(kernel, process, task, &leader, info, timer)?;
        process.signals.arrival.wake_all();
        if let Some(target) = choose(&inner.threads, task, &leader, sig) {
            target.interrupt(kernel);
        }
    }
    drop(inner);
    if continued {
        job::notify_parent(kernel, process, WaitStatus::Continued);
    }
    Ok(())
}

/// Puts a signal on the queue that it is for.
fn queue(
    kernel: &Kernel,
    process: &Process,
    task: Option<&Arc<Task>>,
    leader: &Task,
    info: SigInfo,
    timer: Option<Arc<dyn TimerSignal>>,
) -> Result<()> {
    let sig = info.signo;
    let mut pending = match task {
        Some(task) => task.signals.pending.lock(),
        None => process.signals.pending.lock(),
    };
    if pending.coalesces(sig) {
        return Ok(());
    }
    // What the kernel sends, and kill(2) of a standard signal, is never held up by the limit.
    let exempt = sig < number::SIGRTMIN && info.code >= 0;
    let limit = if exempt { u64::MAX } else { process.limit(RLIMIT_SIGPENDING as usize) };
    let uid = leader.creds().uid;
    let charge = kernel.queued_signals.charge(uid, limit);
    if charge.is_none() && sig >= number::SIGRTMIN && info.code != code::SI_USER {
        bail!(EAGAIN, "RLIMIT_SIGPENDING");
    }
    pending.push(info, timer, charge);
    Ok(())
}

fn discard(process: &Process, threads: &[Arc<Task>], set: SigSet) {
    process.signals.pending.lock().discard(set);
    threads.iter().for_each(|t| t.signals.pending.lock().discard(set));
}

/// The thread that is made to look: the one that is meant, or the first thread, or another that does not block the
/// signal and has nothing else to look at.
fn choose<'a>(
    threads: &'a [Arc<Task>],
    task: Option<&'a Arc<Task>>,
    leader: &'a Arc<Task>,
    sig: u8,
) -> Option<&'a Arc<Task>> {
    let takes = |t: &&Arc<Task>| {
        !t.signals.blocked().contains(sig) && !t.dying.load(Ordering::SeqCst) && !t.signals.is_stopped()
    };
    if let Some(task) = task {
        return Some(task).filter(takes);
    }
    let mut candidates = core::iter::once(leader).chain(threads).filter(takes);
    let first = candidates.next()?;
    if first.signal_pending() { Some(candidates.find(|t| !t.signal_pending()).unwrap_or(first)) } else { Some(first) }
}
