//! `exit(2)`: the end of a task, and of its process with the last.

use super::fork::vfork_done;
use super::{Process, ProcessState, Rusage, WaitStatus};
use crate::futex;
use crate::kernel::{Ctx, Kernel};
use crate::mm::AddressSpace;
use crate::ptrace;
use crate::signal::{self, SigDetail, SigInfo};
use crate::tty;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// `exit(2)`, or what ends a thread alone: the running task ends with this status when it is on its way to user mode.
pub fn exit_thread(ctx: &Ctx, status: WaitStatus) {
    let mut inner = ctx.task.process.inner.lock();
    // If all threads end one by one, wait(2) tells how the last one did (Linux since 5.17).
    if ctx.task.tid() == ctx.task.process.pid || inner.is_last(ctx.task) {
        inner.leader_status = Some(status);
    }
    // Under the lock: of two that end at the same time, one is the last.
    ctx.task.dying.store(true, Ordering::SeqCst);
    drop(inner);
    ctx.task.trace.exits(status);
    ctx.task.attention.store(true, Ordering::SeqCst);
}

/// `exit_group(2)`, a fatal signal: the running task's whole process ends with this status, unless it is ending already.
pub fn exit_group(ctx: &Ctx, status: WaitStatus) {
    end_process(ctx.kernel, &ctx.task.process, status);
    // Also without a process to end: a task that exec has told to die.
    ctx.task.dying.store(true, Ordering::SeqCst);
    ctx.task.attention.store(true, Ordering::SeqCst);
}

/// Ends a process from outside: all its threads end as soon as they look.
pub fn end_process(kernel: &Kernel, process: &Process, status: WaitStatus) {
    let mut inner = process.inner.lock();
    inner.begin_exit(kernel, status, None);
}

/// Undoes all that the running task was, and its process with the last task. Called once, on its kernel thread.
pub fn finish(ctx: &Ctx) {
    let task = ctx.task;
    let process = &task.process;
    task.dying.store(true, Ordering::SeqCst);
    // Before anybody hears of the end: a supervisor has nobody to wait for any more.
    task.seccomp.release();
    futex::exit_robust_list(ctx);
    let clear_tid = task.clear_child_tid.load(Ordering::Relaxed);
    if clear_tid != 0 && ctx.write_val(clear_tid, &0u32).is_ok() {
        futex::wake_address(ctx, clear_tid, 1);
    }
    let (utime, stime) = ctx.kernel.platform.cpu_times(task);
    ctx.kernel.load.task_ended(utime, stime, task.sched.sleeps.load(Ordering::Relaxed));
    *process.settings.last_comm.lock() = Some(*task.comm.lock());
    let last = {
        let inner = process.inner.lock();
        inner.threads.len() == 1
    };
    // The memory is all the threads': it is looked at when it goes.
    let peak = |mm: &AddressSpace| ctx.kernel.platform.resident_pages(mm).0 * 4;
    let max_rss = if last { ctx.mm().map_or(0, peak) } else { 0 };
    if last {
        process.timers.reset_for_exit(ctx.kernel);
    }
    // SAFETY: this thread runs the task, whose last call is over.
    let old = unsafe { task.mm.replace(None) };
    hand_over_memory(ctx, old);
    vfork_done(task);
    close_files(ctx);
    leave_places(ctx);

    let status = ptrace::stop::exit_status(ctx);
    let mut inner = process.inner.lock();
    inner.dead_threads.add(&Rusage { utime, stime, max_rss });
    inner.threads.retain(|t| !Arc::ptr_eq(t, task));
    let ended = inner.threads.is_empty();
    drop(inner);
    signal::thread_ended(ctx.kernel, task);
    ctx.kernel.tasks.remove_task(task.tid());
    ptrace::link::tracer_ended(ctx);
    ptrace::link::tracee_ended(ctx, status);
    process.child_events.wake_all();
    if ended {
        finish_process(ctx);
    }
}

/// Drops a task's share of its memory. If others keep it and the platform reached it through this task's host process,
/// it gets another.
pub(super) fn hand_over_memory(ctx: &Ctx, memory: Option<Arc<AddressSpace>>) {
    let Some(memory) = memory else { return };
    let mine = ctx.task.host.pid.load(Ordering::Relaxed);
    if Arc::strong_count(&memory) == 1 || memory.host_pid.load(Ordering::Relaxed) != mine {
        return;
    }
    let tasks = ctx.kernel.tasks.processes().into_iter().flat_map(|p| p.inner.lock().threads.clone());
    let hosts: Vec<i32> = tasks
        .filter(|t| !Arc::ptr_eq(t, ctx.task))
        .filter(|t| t.mm.with(|mm| mm.as_ref().is_some_and(|mm| Arc::ptr_eq(mm, &memory))))
        .map(|t| t.host.pid.load(Ordering::Relaxed))
        // A thread in the making has no host process yet; whoever makes it has.
        .filter(|&pid| pid != 0)
        .collect();
    // Another thread of this host process keeps it alive.
    if let Some(&heir) = hosts.first().filter(|_| !hosts.contains(&mine)) {
        memory.host_pid.store(heir, Ordering::Relaxed);
    }
}

/// Gives up the task's share of its descriptors; the last one closes them.
fn close_files(ctx: &Ctx) {
    // SAFETY: as for the memory.
    let table = unsafe { ctx.task.files.replace(Arc::default()) };
    if Arc::strong_count(&table) == 1 {
        table.close_all(ctx);
    }
}

/// Gives up the task's directories and its part in its namespaces. What is mounted in one that nobody is in any more goes with it, before
/// anybody hears of the task's end.
fn leave_places(ctx: &Ctx) {
    // SAFETY: as for the memory.
    drop(unsafe { ctx.task.fs.replace(ctx.kernel.vfs.nowhere.clone()) });
    // SAFETY: likewise.
    drop(unsafe { ctx.task.namespaces.replace(None) });
}

fn finish_process(ctx: &Ctx) {
    let kernel = ctx.kernel;
    let process = &ctx.task.process;
    *process.exe.lock() = None;
    crate::ipc::sem::process_ended(kernel, process.pid);
    let mut inner = process.inner.lock();
    let status = inner.exiting.or(inner.leader_status).unwrap_or(WaitStatus::Exited(0));
    let session_leader = inner.sid == process.pid;
    let children = core::mem::take(&mut inner.children);
    drop(inner);
    if session_leader {
        tty::disassociate(kernel, process);
    }
    reparent(ctx, children);
    let parent = process.parent();
    if let Some(parent) = &parent {
        signal::hang_up_orphans(kernel, process, parent, Some(process));
    }

    let uid = ctx.creds().uid;
    let mut inner = process.inner.lock();
    inner.state = ProcessState::Zombie(status);
    inner.event = None;
    inner.uid_at_exit = uid;
    let used = inner.dead_threads;
    drop(inner);
    process.exit_event.wake_all();
    if process.pid == 1 {
        kernel.init_ended(status);
    }
    if ptrace::link::zombie_of(kernel, process, status) {
        return;
    }
    let gone = signal::child_ended(kernel, process, uid, (used.utime, used.stime), status);
    if let (true, Some(parent)) = (gone, parent) {
        super::wait::forget(kernel, &parent, process);
        // A parent that waits without caring how now finds no child.
        parent.child_events.wake_all();
    }
}

/// Gives children that outlive their parent to the nearest subreaper, or to process 1.
fn reparent(ctx: &Ctx, children: Vec<Arc<Process>>) {
    if children.is_empty() {
        return;
    }
    let kernel = ctx.kernel;
    let process = &ctx.task.process;
    let mut ancestor = process.parent();
    while let Some(p) = &ancestor {
        let inner = p.inner.lock();
        if inner.subreaper && !matches!(inner.state, ProcessState::Zombie(_)) && inner.exiting.is_none() {
            break;
        }
        drop(inner);
        ancestor = p.parent();
    }
    let Some(reaper) = ancestor.or_else(|| kernel.tasks.process(1)) else { return };
    for child in children {
        signal::hang_up_orphans(kernel, &child, process, Some(process));
        let mut inner = child.inner.lock();
        child.set_parent(&mut inner, &reaper);
        // A child with another exit signal would be invisible to a reaper's wait.
        inner.exit_signal = signal::number::SIGCHLD;
        let (state, used, uid) = (inner.state, inner.dead_threads, inner.uid_at_exit);
        let traced = inner.tracer.is_some();
        let death_signal = inner.parent_death_signal;
        drop(inner);
        reaper.inner.lock().children.push(child.clone());
        if death_signal != 0 {
            let detail = SigDetail::Sender { pid: process.pid, uid: ctx.creds().uid, value: 0 };
            let info = SigInfo { signo: death_signal, code: signal::code::SI_USER, errno: 0, detail };
            // Refused only by a child that has ended.
            let _ = signal::send_to_process(kernel, &child, info);
        }
        if let ProcessState::Zombie(status) = state
            && !traced
            && signal::child_ended(kernel, &child, uid, (used.utime, used.stime), status)
        {
            super::wait::forget(kernel, &reaper, &child);
        }
    }
}
