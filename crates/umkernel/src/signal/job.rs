//! Job control: stopping all threads of a process, letting them go on, and telling the parent (`signal(7)`, `wait(2)`).

use super::state::GroupStop;
use super::{SaFlags, SigAction, SigDetail, SigInfo, code, number, send_to_group, send_to_process};
use crate::kernel::{Ctx, Kernel};
use crate::ptrace;
use crate::ptrace::stop::Why;
use crate::sync::Wake;
use crate::task::{Pid, Process, ProcessInner, ProcessState, Task, WaitStatus};
use crate::trace;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Begins a stop of all threads; each takes part on its way to user mode. Nothing happens if a `SIGCONT` has come since the
/// stop signal was taken.
pub(super) fn begin_stop(ctx: &Ctx, process: &Process, sig: u8) {
    let inner = process.inner.lock();
    let own = &ctx.task.signals;
    if !own.stop_taken.load(Ordering::SeqCst) || own.stop_pending.load(Ordering::SeqCst) {
        return;
    }
    if process.signals.stop.lock().signal != 0 && !ctx.task.trace.is_traced() {
        // A process that stops already takes a further stop signal as part of the same stop. A tracee that its tracer has let
        // go on meanwhile stops anew.
        return;
    }
    let mut remaining = 0;
    let stops = |t: &&Arc<Task>| !t.dying.load(Ordering::SeqCst) && !t.signals.is_stopped();
    for thread in inner.threads.iter().filter(stops) {
        remaining += 1;
        thread.signals.stop_pending.store(true, Ordering::SeqCst);
        thread.signals.stop_owed.store(true, Ordering::SeqCst);
        if Arc::ptr_eq(thread, ctx.task) {
            continue;
        }
        if thread.trace.is_seized() {
            ptrace::stop::notify(ctx.kernel, thread);
        } else {
            thread.interrupt(ctx.kernel);
        }
    }
    *process.signals.stop.lock() = GroupStop { signal: sig, remaining };
}

/// Takes part in the stop of the process and rests until `SIGCONT` or the end of the process.
pub(super) fn take_part(ctx: &Ctx) {
    let (task, process) = (ctx.task, &ctx.task.process);
    let done = {
        let mut inner = process.inner.lock();
        if !task.signals.stop_pending.load(Ordering::SeqCst) || task.trace.is_traced() {
            return;
        }
        let done = join_stop(process, task, &mut inner);
        task.signals.stopped.store(true, Ordering::SeqCst);
        let sig = process.signals.stop.lock().signal;
        drop(inner);
        trace::stopped(ctx, sig);
        done
    };
    if let Some(status) = done {
        notify_parent(ctx.kernel, process, status);
    }
    loop {
        task.waiter.prepare();
        if !task.signals.is_stopped() || task.dying.load(Ordering::SeqCst) {
            break;
        }
        task.sleep(None);
    }
    task.signals.stopped.store(false, Ordering::SeqCst);
}

/// A thread takes part in the stop that is pending for it, if one is; what to tell the parent if it was the last.
pub fn join_stop(process: &Process, task: &Task, inner: &mut ProcessInner) -> Option<WaitStatus> {
    task.signals.stop_pending.store(false, Ordering::SeqCst);
    if task.signals.stop_owed.swap(false, Ordering::SeqCst) { count_down(process, inner) } else { None }
}

/// A thread that rests comes out of its rest, into a stop for its tracer, while the process stays stopped.
pub fn leave_stop(task: &Task) {
    task.signals.stopped.store(false, Ordering::SeqCst);
    task.waiter.wake();
}

/// A thread that was a tracee shares the stop of its process, whose lock is held, if there is one.
pub fn rejoin_stop(process: &Process, task: &Task) {
    if process.signals.stop.lock().signal != 0 {
        task.signals.stop_pending.store(true, Ordering::SeqCst);
    }
}

/// The running task obeys a stop signal, should its tracer give it one.
pub fn take_stop(task: &Task) {
    task.signals.stop_taken.store(true, Ordering::SeqCst);
}

/// The signal by which a process is stopped or about to; 0 for none.
pub fn stopping_signal(process: &Process) -> u8 {
    // A stop that is just being begun has its signal last.
    let _inner = process.inner.lock();
    process.signals.stop.lock().signal
}

/// One thread fewer has yet to stop; what to tell the parent if it was the last.
fn count_down(process: &Process, inner: &mut ProcessInner) -> Option<WaitStatus> {
    let mut stop = process.signals.stop.lock();
    stop.remaining = stop.remaining.saturating_sub(1);
    if stop.remaining > 0 || stop.signal == 0 {
        return None;
    }
    let status = WaitStatus::Stopped(stop.signal);
    if inner.state == ProcessState::Stopped {
        return None;
    }
    inner.state = ProcessState::Stopped;
    inner.event = Some(status);
    Some(status)
}

/// Ends a stop without a word to the parent: the process is killed.
pub(super) fn clear_stop(process: &Process, threads: &[Arc<Task>]) {
    *process.signals.stop.lock() = GroupStop::default();
    for thread in threads {
        thread.signals.stop_pending.store(false, Ordering::SeqCst);
        thread.signals.stop_owed.store(false, Ordering::SeqCst);
        thread.signals.stop_taken.store(false, Ordering::SeqCst);
        if thread.signals.stopped.swap(false, Ordering::SeqCst) {
            thread.waiter.wake();
        }
    }
}

/// Lets a process go on. True if it had stopped or was about to: then the parent is to be told.
pub(super) fn resume(process: &Process, inner: &mut ProcessInner) -> bool {
    let had_stop = process.signals.stop.lock().signal != 0;
    clear_stop(process, &inner.threads);
    if had_stop {
        inner.state = ProcessState::Running;
        inner.event = Some(WaitStatus::Continued);
    }
    had_stop
}

/// Tells the parent that a process stopped or continued: wakes a `wait(2)` and sends `SIGCHLD` unless the parent does not
/// want it (`SA_NOCLDSTOP`).
pub fn notify_parent(kernel: &Kernel, process: &Process, status: WaitStatus) {
    let Some(parent) = process.parent() else { return };
    let (code, value) = match status {
        WaitStatus::Stopped(sig) => (code::CLD_STOPPED, sig),
        _ => (code::CLD_CONTINUED, number::SIGCONT),
    };
    if wants_stops(&parent) {
        let detail = child_detail(kernel, process, i32::from(value));
        let info = SigInfo { signo: number::SIGCHLD, code, errno: 0, detail };
        // A standard signal from the kernel is never refused; a parent that has ended needs none.
        let _ = send_to_process(kernel, &parent, info);
    }
    parent.child_events.wake_all();
}

/// Whether a process is sent `SIGCHLD` for children that stop.
fn wants_stops(parent: &Process) -> bool {
    let action = parent.handlers.lock().get(number::SIGCHLD);
    action.handler != SigAction::IGNORE && !action.flags().contains(SaFlags::NOCLDSTOP)
}

/// Tells a tracer that its tracee has stopped or ended: as [`notify_parent`].
pub fn tell_tracer(kernel: &Kernel, tracer: &Task, tracee: &Task, why: Why) {
    const NS_PER_TICK: u64 = 10_000_000;
    const SIGNAL: u32 = 0x7f;
    let (code, status, wanted) = match why {
        Why::Trapped(code) => (code::CLD_TRAPPED, code & SIGNAL, wants_stops(&tracer.process)),
        Why::Stopped(code) => (code::CLD_STOPPED, code & SIGNAL, wants_stops(&tracer.process)),
        Why::Ended(status) => {
            let (code, value) = end_code(status);
            let action = tracer.process.handlers.lock().get(number::SIGCHLD);
            (code, u32::from(value), action.handler != SigAction::IGNORE)
        }
    };
    if wanted {
        let (utime, stime) = kernel.platform.cpu_times(tracee);
        let detail = SigDetail::Child {
            pid: tracee.tid(),
            uid: tracee.creds().uid,
            status: status as i32,
            utime: utime / NS_PER_TICK,
            stime: stime / NS_PER_TICK,
        };
        // As in `notify_parent`.
        let _ = send_to_process(kernel, &tracer.process, SigInfo { signo: number::SIGCHLD, code, errno: 0, detail });
    }
    tracer.process.child_events.wake_all();
}

/// `si_code` and `si_status` of a `SIGCHLD` about the end of a process.
fn end_code(status: WaitStatus) -> (i32, u8) {
    match status {
        WaitStatus::Signaled(sig, true) => (code::CLD_DUMPED, sig),
        WaitStatus::Signaled(sig, false) => (code::CLD_KILLED, sig),
        WaitStatus::Exited(code) => (code::CLD_EXITED, code),
        WaitStatus::Stopped(sig) => (code::CLD_STOPPED, sig),
        WaitStatus::Trapped(code) => (code::CLD_TRAPPED, code as u8),
        WaitStatus::Continued => (code::CLD_CONTINUED, number::SIGCONT),
    }
}

/// `si_pid` and the rest of a `SIGCHLD` about a process.
fn child_detail(kernel: &Kernel, process: &Process, status: i32) -> SigDetail {
    const NS_PER_TICK: u64 = 10_000_000;
    let (threads, dead) = {
        let inner = process.inner.lock();
        (inner.threads.clone(), inner.dead_threads)
    };
    let uid = threads.first().map_or(0, |t| t.creds().uid);
    let (mut utime, mut stime) = (dead.utime, dead.stime);
    for thread in &threads {
        let (user, system) = kernel.platform.cpu_times(thread);
        utime += user;
        stime += system;
    }
    SigDetail::Child { pid: process.pid, uid, status, utime: utime / NS_PER_TICK, stime: stime / NS_PER_TICK }
}

/// Whether a process group is orphaned: no member has a parent outside the group but in its session, so nobody would
/// ever continue it.
pub fn is_orphaned(kernel: &Kernel, pgid: Pid, ignoring: Option<&Process>) -> bool {
    !kernel.tasks.group(pgid).iter().any(|member| {
        if ignoring.is_some_and(|p| p.pid == member.pid) {
            return false;
        }
        let (sid, alive, parent) = {
            let inner = member.inner.lock();
            let alive = !matches!(inner.state, ProcessState::Zombie(_));
            (inner.sid, alive, inner.parent.as_ref().and_then(alloc::sync::Weak::upgrade))
        };
        let Some(parent) = parent.filter(|p| alive && p.pid != 1) else { return false };
        let (parent_group, parent_session) = parent.group_and_session();
        parent_group != pgid && parent_session == sid
    })
}

/// Called where `member`'s tie to `parent` is about to go, for `member` itself when it exits (`exiting`) and for each of its
/// children: if that leaves the group orphaned with stopped members, they get `SIGHUP` and `SIGCONT`.
pub fn hang_up_orphans(kernel: &Kernel, member: &Process, parent: &Process, exiting: Option<&Process>) {
    let (pgid, sid) = member.group_and_session();
    let (parent_group, parent_session) = parent.group_and_session();
    if parent_group == pgid || parent_session != sid || !is_orphaned(kernel, pgid, exiting) {
        return;
    }
    let stopped = |p: &Arc<Process>| p.inner.lock().state == ProcessState::Stopped;
    if kernel.tasks.group(pgid).iter().any(stopped) {
        for sig in [number::SIGHUP, number::SIGCONT] {
            // An empty group needs no signal.
            let _ = send_to_group(kernel, pgid, SigInfo::kernel(sig));
        }
    }
}

/// Called when a thread has left its process's list of threads: what it owed to the others is settled. Signals for the
/// process that it was to take go to another thread, and a stop no longer waits for it.
pub fn thread_ended(kernel: &Kernel, task: &Arc<Task>) {
    let process = &task.process;
    let done = {
        let mut inner = process.inner.lock();
        super::state::retarget(kernel, process, &inner.threads, task, !task.signals.blocked());
        task.signals.pending.lock().discard(super::SigSet::FULL);
        task.signals.stop_pending.store(false, Ordering::SeqCst);
        let owed = task.signals.stop_owed.swap(false, Ordering::SeqCst);
        if owed && !inner.threads.is_empty() { count_down(process, &mut inner) } else { None }
    };
    if let Some(status) = done {
        notify_parent(kernel, process, status);
    }
}

/// Called when a process has ended, with the status that `wait(2)` will report and its real user id and CPU time in
/// nanoseconds (user, kernel): sends the parent the child's exit signal and wakes its `wait(2)`. True if the child leaves no
/// zombie.
pub fn child_ended(kernel: &Kernel, child: &Process, uid: u32, times: (u64, u64), status: WaitStatus) -> bool {
    const NS_PER_TICK: u64 = 10_000_000;
    let (parent, sig) = {
        let inner = child.inner.lock();
        (inner.parent.as_ref().and_then(alloc::sync::Weak::upgrade), inner.exit_signal)
    };
    let Some(parent) = parent else { return true };
    let handlers = parent.handlers.lock().clone();
    let reaped = sig == number::SIGCHLD && handlers.reaps_children();
    let ignored = sig == number::SIGCHLD && handlers.get(sig).handler == SigAction::IGNORE;
    if sig != 0 && !ignored {
        let (code, value) = end_code(status);
        let detail = SigDetail::Child {
            pid: child.pid,
            uid,
            status: i32::from(value),
            utime: times.0 / NS_PER_TICK,
            stime: times.1 / NS_PER_TICK,
        };
        // Refused only when the parent has ended as well.
        let _ = send_to_process(kernel, &parent, SigInfo { signo: sig, code, errno: 0, detail });
    }
    parent.child_events.wake_all();
    reaped
}
