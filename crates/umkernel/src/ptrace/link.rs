//! Who traces whom: attaching, detaching, and what the end of either side does.

use super::stop::Why;
use super::{Event, Link, Mode, Options, TaskTrace, Tracees, Traps, may_access};
use crate::bail;
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::signal::number::{SIGCHLD, SIGKILL, SIGSTOP};
use crate::signal::{self, SigInfo};
use crate::sync::Wake;
use crate::task::{self, Capabilities, CloneFlags, Process, ProcessState, Task, WaitStatus};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Whether a thread is the one that gives its process its id.
pub(super) fn is_leader(task: &Task) -> bool {
    task.tid() == task.process.pid
}

/// Ties a tracee to its tracer. False if somebody traces it already, if it has ended or the tracer is ending.
fn tie(tracer: &Arc<Task>, tracee: &Arc<Task>, seized: bool, options: Options) -> bool {
    let mut inner = tracee.process.inner.lock();
    let alive = inner.threads.iter().any(|t| Arc::ptr_eq(t, tracee)) && !tracee.dying.load(Ordering::SeqCst);
    let mut link = tracee.trace.link.lock();
    if !alive || link.tracer.is_some() {
        return false;
    }
    let mut tracees = tracer.trace.tracees.lock();
    if tracees.closed {
        return false;
    }
    tracees.list.push(tracee.clone());
    drop(tracees);
    let capable = tracer.creds().capable(Capabilities::SYS_PTRACE);
    *link = Link { tracer: Some(tracer.clone()), seized, options, capable, ..Link::default() };
    drop(link);
    if is_leader(tracee) {
        inner.tracer = Some(tracer.clone());
    }
    tracee.trace.mode.fetch_and(Mode::FILTERED.bits(), Ordering::SeqCst);
    tracee.trace.set_mode(Mode::TRACED, true);
    true
}

/// The tracee is its own again: its tracer detaches, ends, or has waited for its end. False if nobody traced it.
pub fn untie(tracee: &Arc<Task>) -> bool {
    let mut inner = tracee.process.inner.lock();
    let mut link = tracee.trace.link.lock();
    let Some(tracer) = link.tracer.take() else { return false };
    tracer.trace.tracees.lock().list.retain(|t| !Arc::ptr_eq(t, tracee));
    link.ended = None;
    if inner.tracer.is_some() && is_leader(tracee) {
        inner.tracer = None;
    }
    let trace = &tracee.trace;
    trace.mode.fetch_and(Mode::TRAP_FLAG.bits() | Mode::FILTERED.bits(), Ordering::SeqCst);
    trace.clear_traps(Traps::all());
    // A stop of its process that is in effect is its own, too, from now on.
    signal::rejoin_stop(&tracee.process, tracee);
    if let Some(stop) = &mut link.stop {
        stop.resume = stop.resume.or(Some(stop.left_signal()));
    }
    drop(link);
    tracee.attention.store(true, Ordering::SeqCst);
    tracee.waiter.wake();
    true
}

/// Checks that the running task may become a task's tracer.
fn check(ctx: &Ctx, task: &Arc<Task>) -> Result<()> {
    if Arc::ptr_eq(&task.process, &ctx.task.process) || task.mm.with(Option::is_none) {
        bail!(EPERM, "a thread of the tracer's own, or a kernel thread");
    }
    may_access(ctx, task)
}

/// `PTRACE_ATTACH`: the running task traces another one, which is sent `SIGSTOP`.
///
/// # Errors
/// `EPERM`.
pub fn attach(ctx: &Ctx, task: &Arc<Task>) -> Result<()> {
    begin(ctx, task, false, Options::empty())?;
    // Refused only by a task that is ending.
    let _ = signal::send_to_task(ctx.kernel, task, SigInfo::kernel(SIGSTOP));
    wait_for_stopped(ctx, task);
    Ok(())
}

/// `PTRACE_SEIZE`: as [`attach`], without stopping it.
///
/// # Errors
/// `EIO` for bits that are no option; `EPERM`, and as of [`Options::checked`].
pub fn seize(ctx: &Ctx, task: &Arc<Task>, options: u64) -> Result<()> {
    if options & !u64::from(Options::all().bits()) != 0 {
        bail!(EIO, "no such option");
    }
    begin(ctx, task, true, Options::checked(options)?)?;
    wait_for_stopped(ctx, task);
    Ok(())
}

fn begin(ctx: &Ctx, task: &Arc<Task>, seized: bool, options: Options) -> Result<()> {
    check(ctx, task)?;
    if !tie(ctx.task, task, seized, options) {
        bail!(EPERM, "already traced, or at its end");
    }
    Ok(())
}

/// A task that rests in a stop of its process comes over to a stop for its tracer, before the tracer's call is over.
fn wait_for_stopped(ctx: &Ctx, task: &Arc<Task>) {
    let inner = task.process.inner.lock();
    if !task.signals.is_stopped() {
        return;
    }
    task.trace.set_trap(Traps::STOP);
    signal::leave_stop(task);
    drop(inner);
    let sleeper = ctx.task.waiter.clone() as Arc<dyn Wake>;
    let events = &ctx.task.process.child_events;
    events.add(sleeper.clone());
    loop {
        ctx.task.waiter.prepare();
        let here = task.trace.link.lock().stop.is_some();
        if here || !task.trace.is_traced() || [task, ctx.task].iter().any(|t| t.dying.load(Ordering::SeqCst)) {
            break;
        }
        ctx.task.sleep(None);
    }
    events.remove(&sleeper);
}

/// `PTRACE_TRACEME`: the thread that made the running task's process traces it from now on.
///
/// # Errors
/// `EPERM` if somebody does already, or if that thread lacks capabilities that the task has.
pub fn trace_me(ctx: &Ctx) -> Result<()> {
    if ctx.task.trace.is_traced() {
        bail!(EPERM, "already traced");
    }
    let Some(parent) = ctx.task.process.parent() else { return Ok(()) };
    let maker = ctx.task.process.inner.lock().maker.upgrade();
    let inner = parent.inner.lock();
    let maker = maker.filter(|maker| inner.threads.iter().any(|t| Arc::ptr_eq(t, maker)));
    let tracer = maker.or_else(|| inner.threads.first().cloned());
    drop(inner);
    // A parent that is ending traces nobody, and that is no error.
    if let Some(tracer) = tracer {
        let creds = tracer.creds();
        if !creds.permitted.contains(ctx.creds().permitted) && !creds.capable(Capabilities::SYS_PTRACE) {
            bail!(EPERM, "the parent may do less");
        }
        tie(&tracer, ctx.task, false, Options::empty());
    }
    Ok(())
}

/// `PTRACE_DETACH` of a stopped tracee, which goes on with this signal, or none for 0.
pub fn detach(task: &Arc<Task>, sig: u8) {
    if let Some(stop) = &mut task.trace.link.lock().stop {
        stop.resume = Some(sig);
    }
    untie(task);
}

/// The event that a `clone(2)` with these flags is for the caller's tracer, if that asked for it.
pub fn clone_event(ctx: &Ctx, flags: CloneFlags, exit_signal: u8) -> Option<Event> {
    if !ctx.task.trace.is_traced() || flags.contains(CloneFlags::UNTRACED) {
        return None;
    }
    let event = match () {
        () if flags.contains(CloneFlags::VFORK) => Event::Vfork,
        () if exit_signal != SIGCHLD => Event::Clone,
        () => Event::Fork,
    };
    Some(event).filter(|&event| ctx.task.trace.wants(event))
}

/// The caller's tracer traces a new task as well, in the same way; the task stops before it runs any guest code.
pub fn new_child(ctx: &Ctx, child: &Arc<Task>) {
    let (tracer, seized, options) = {
        let link = ctx.task.trace.link.lock();
        (link.tracer.clone(), link.seized, link.options)
    };
    let Some(tracer) = tracer else { return };
    if !tie(&tracer, child, seized, options) {
        return;
    }
    if seized {
        child.trace.set_trap(Traps::STOP);
        child.attention.store(true, Ordering::SeqCst);
    } else {
        signal::mark_pending(child, SIGSTOP);
    }
}

/// The running task ends: its tracees are their own again, or are killed if it asked for that.
pub fn tracer_ended(ctx: &Ctx) {
    let list = {
        let mut tracees = ctx.task.trace.tracees.lock();
        tracees.closed = true;
        tracees.list.clone()
    };
    for tracee in list {
        if tracee.trace.link.lock().options.contains(Options::EXITKILL) {
            // A task that has ended needs no killing.
            let _ = signal::send_to_task(ctx.kernel, &tracee, SigInfo::kernel(SIGKILL));
        }
        let parent_is_here = tracee.process.parent().is_some_and(|p| Arc::ptr_eq(&p, &ctx.task.process));
        if untie(&tracee) && is_leader(&tracee) && !parent_is_here {
            tell_parent_of_zombie(ctx.kernel, &tracee.process);
        }
    }
}

/// The real parent of a zombie hears of it only now that the tracer has no part in it any more.
pub(super) fn tell_parent_of_zombie(kernel: &Kernel, process: &Arc<Process>) {
    let (state, used, uid) = {
        let inner = process.inner.lock();
        (inner.state, inner.dead_threads, inner.uid_at_exit)
    };
    if let ProcessState::Zombie(status) = state
        && signal::child_ended(kernel, process, uid, (used.utime, used.stime), status)
        && let Some(parent) = process.parent()
    {
        task::forget(kernel, &parent, process);
        parent.child_events.wake_all();
    }
}

/// The running task, which has left its process's list of threads, has ended with this status: its tracer may ask how. For the
/// thread that gives its process its id, that is the process's affair: [`zombie_of`].
pub fn tracee_ended(ctx: &Ctx, status: WaitStatus) {
    let task = ctx.task;
    let Some(tracer) = task.trace.tracer().filter(|_| !is_leader(task)) else { return };
    if ignores_children(&tracer.process) {
        untie(task);
    } else {
        let mut link = task.trace.link.lock();
        if link.tracer.is_some() {
            link.ended = Some(status);
        }
    }
    signal::tell_tracer(ctx.kernel, &tracer, task, Why::Ended(status));
}

/// Whether nobody in a process wants to know of ended children.
pub(super) fn ignores_children(process: &Process) -> bool {
    process.handlers.lock().clone().reaps_children()
}

/// A process has become a zombie: its tracer hears of it first, if that is not in its parent's process. True if the parent is
/// not to hear of it yet.
pub fn zombie_of(kernel: &Kernel, process: &Arc<Process>, status: WaitStatus) -> bool {
    let Some(tracer) = process.inner.lock().tracer.clone() else { return false };
    let leader = leader_among(&tracer.trace, process);
    let parent = process.parent();
    if parent.is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.process)) {
        return false;
    }
    if let Some(leader) = leader {
        signal::tell_tracer(kernel, &tracer, &leader, Why::Ended(status));
        if ignores_children(&tracer.process) {
            untie(&leader);
            return false;
        }
    }
    true
}

fn leader_among(tracer: &TaskTrace, process: &Arc<Process>) -> Option<Arc<Task>> {
    let tracees: &Tracees = &tracer.tracees.lock();
    tracees.list.iter().find(|t| Arc::ptr_eq(&t.process, process) && is_leader(t)).cloned()
}

/// Lets the tracer go of a zombie that has been waited for.
pub fn reaped(process: &Arc<Process>) {
    let tracer = process.inner.lock().tracer.clone();
    if let Some(leader) = tracer.and_then(|tracer| leader_among(&tracer.trace, process)) {
        untie(&leader);
    }
}

/// The running task is about to become its process's first thread by `execve(2)`: the one that was it is gone without a word, and
/// the task's own tracer traces the process from now on.
pub fn leader_replaced(ctx: &Ctx) {
    reaped(&ctx.task.process);
    let mut inner = ctx.task.process.inner.lock();
    inner.tracer = ctx.task.trace.tracer();
}
