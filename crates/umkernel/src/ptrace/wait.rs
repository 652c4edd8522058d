//! What `wait4(2)` and `waitid(2)` tell a tracer of its tracees.

use super::link::{is_leader, tell_parent_of_zombie, untie};
use crate::kernel::Ctx;
use crate::task::{self, Found, ProcessState, Rusage, Task, WaitOptions, WaitStatus, Which};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What a look at the tracees came to.
pub enum Seen {
    /// There is none that was asked for.
    None,
    /// There is, without anything to tell.
    Nothing,
    /// There is something to tell.
    Found(Found),
}

/// Looks at the tracees of the running task's process, or of the task alone with `__WNOTHREAD`. Their kind (`__WCLONE`) does not
/// matter, and their stops are told without `WUNTRACED`.
pub fn look(ctx: &Ctx, which: Which, options: WaitOptions) -> Seen {
    let threads = match options.contains(WaitOptions::NOTHREAD) {
        true => alloc::vec![ctx.task.clone()],
        false => ctx.task.process.inner.lock().threads.clone(),
    };
    let mut seen = Seen::None;
    for thread in threads {
        let tracees: Vec<Arc<Task>> = thread.trace.tracees.lock().list.clone();
        for task in tracees {
            let chosen = match which {
                Which::Any => true,
                Which::Pid(pid) => task.tid() == pid,
                Which::Group(pgid) => task.process.group_and_session().0 == pgid,
            };
            if !chosen {
                continue;
            }
            seen = Seen::Nothing;
            let found = ended(ctx, &task, options).or_else(|| stopped(&task, options));
            if let Some(found) = found.or_else(|| continued(&task, options)) {
                return Seen::Found(found);
            }
        }
    }
    seen
}

fn found(task: &Task, status: WaitStatus, used: Rusage) -> Found {
    Found { pid: task.tid(), uid: task.creds().uid, status, used }
}

fn ended(ctx: &Ctx, task: &Arc<Task>, options: WaitOptions) -> Option<Found> {
    if !options.contains(WaitOptions::EXITED) {
        return None;
    }
    if !is_leader(task) {
        let status = task.trace.link.lock().ended?;
        if !options.contains(WaitOptions::NOWAIT) {
            untie(task);
        }
        return Some(found(task, status, Rusage::default()));
    }
    let process = &task.process;
    let (status, mut used, dead_children, uid) = {
        let inner = process.inner.lock();
        let ProcessState::Zombie(status) = inner.state else { return None };
        (status, inner.dead_threads, inner.dead_children, inner.uid_at_exit)
    };
    used.add(&dead_children);
    let found = Found { uid, ..found(task, status, used) };
    if options.contains(WaitOptions::NOWAIT) {
        return Some(found);
    }
    untie(task);
    match process.parent() {
        Some(parent) if Arc::ptr_eq(&parent, &ctx.task.process) => {
            if !task::forget(ctx.kernel, &parent, process) {
                // Another thread was faster.
                return None;
            }
            parent.inner.lock().dead_children.add(&used);
        }
        _ => tell_parent_of_zombie(ctx.kernel, process),
    }
    Some(found)
}

fn stopped(task: &Arc<Task>, options: WaitOptions) -> Option<Found> {
    let code = {
        let mut link = task.trace.link.lock();
        let stop = link.stop.as_mut().filter(|stop| !stop.reported && !stop.listening && stop.resume.is_none())?;
        stop.reported = !options.contains(WaitOptions::NOWAIT);
        stop.code
    };
    let used = task.process.inner.lock().dead_threads;
    Some(found(task, WaitStatus::Trapped(code), used))
}

fn continued(task: &Arc<Task>, options: WaitOptions) -> Option<Found> {
    let mut inner = task.process.inner.lock();
    if !options.contains(WaitOptions::CONTINUED) || inner.event != Some(WaitStatus::Continued) {
        return None;
    }
    if !options.contains(WaitOptions::NOWAIT) {
        inner.event = None;
    }
    let used = inner.dead_threads;
    drop(inner);
    Some(found(task, WaitStatus::Continued, used))
}
