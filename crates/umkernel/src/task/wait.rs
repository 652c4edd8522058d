//! `wait4(2)` and `waitid(2)`.

use super::{Pid, Process, ProcessInner, ProcessState, Rusage, WaitStatus};
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::ptrace;
use crate::ptrace::wait::Seen;
use crate::signal::number::SIGCHLD;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

bitflags::bitflags! {
    /// Options of the wait calls (`linux/wait.h`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WaitOptions: u32 {
        /// Do not sleep.
        const NOHANG = 1;
        /// Tell of stopped children (`WUNTRACED`).
        const STOPPED = 2;
        /// Tell of ended children.
        const EXITED = 4;
        /// Tell of continued children.
        const CONTINUED = 8;
        /// Leave the child as it is.
        const NOWAIT = 0x0100_0000;
        /// Not children that other threads have made.
        const NOTHREAD = 0x2000_0000;
        /// Children of all kinds.
        const ALL = 0x4000_0000;
        /// Children whose end sends another signal than `SIGCHLD`.
        const CLONE = 0x8000_0000;
    }
}

/// Which children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    Any,
    /// One.
    Pid(Pid),
    /// Those of a process group.
    Group(Pid),
}

/// What a wait found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The child.
    pub pid: Pid,
    /// Its real user id.
    pub uid: u32,
    /// What happened to it.
    pub status: WaitStatus,
    /// What it and its waited-for children used.
    pub used: Rusage,
}

/// Waits for a child. `Ok(None)` with `NOHANG` when there is nothing to tell; `ECHILD` without a child to wait for.
pub fn wait(ctx: &Ctx, which: Which, options: WaitOptions) -> Result<Option<Found>> {
    let process = &ctx.task.process;
    if options.contains(WaitOptions::NOHANG) {
        return look(ctx, which, options);
    }
    ctx.wait_for(&process.child_events, || match look(ctx, which, options) {
        Ok(None) => None,
        other => Some(other),
    })?
}

fn look(ctx: &Ctx, which: Which, options: WaitOptions) -> Result<Option<Found>> {
    let process = &ctx.task.process;
    let mut any = match ptrace::wait::look(ctx, which, options) {
        Seen::Found(found) => return Ok(Some(found)),
        seen => matches!(seen, Seen::Nothing),
    };
    let children = process.inner.lock().children.clone();
    for child in children {
        let mut inner = child.inner.lock();
        let chosen = match which {
            Which::Any => true,
            Which::Pid(pid) => child.pid == pid,
            Which::Group(pgid) => inner.pgid == pgid,
        };
        let is_clone = inner.exit_signal != SIGCHLD;
        let right_kind = options.contains(WaitOptions::ALL) || is_clone == options.contains(WaitOptions::CLONE);
        if !chosen || !right_kind || options.contains(WaitOptions::NOTHREAD) && is_anothers(ctx, &inner) {
            continue;
        }
        any = true;
        let tracer = inner.tracer.as_ref();
        if tracer.is_some_and(|tracer| Arc::ptr_eq(&tracer.process, process)) {
            // Looked at as a tracee.
            continue;
        }
        let traced = tracer.is_some();
        let status = match (inner.state, inner.event) {
            // Its tracer is told first.
            (ProcessState::Zombie(_), _) if traced => continue,
            (ProcessState::Zombie(status), _) if options.contains(WaitOptions::EXITED) => status,
            (_, Some(status @ WaitStatus::Stopped(_))) if options.contains(WaitOptions::STOPPED) => status,
            (_, Some(status @ WaitStatus::Continued)) if options.contains(WaitOptions::CONTINUED) => status,
            _ => continue,
        };
        let mut used = inner.dead_threads;
        used.add(&inner.dead_children);
        let uid = inner.threads.first().map_or(inner.uid_at_exit, |t| t.creds().uid);
        let found = Found { pid: child.pid, uid, status, used };
        if options.contains(WaitOptions::NOWAIT) {
            return Ok(Some(found));
        }
        if matches!(inner.state, ProcessState::Zombie(_)) {
            drop(inner);
            if !forget(ctx.kernel, process, &child) {
                // Another thread was faster.
                continue;
            }
            process.inner.lock().dead_children.add(&used);
        } else {
            inner.event = None;
        }
        return Ok(Some(found));
    }
    if any { Ok(None) } else { Err(Errno::ECHILD.into()) }
}

/// Whether a child is another thread's: that thread has made it, and lives.
fn is_anothers(ctx: &Ctx, child: &ProcessInner) -> bool {
    child.maker.upgrade().is_some_and(|maker| {
        let lives = !maker.dying.load(Ordering::SeqCst);
        lives && Arc::ptr_eq(&maker.process, &ctx.task.process) && !Arc::ptr_eq(&maker, ctx.task)
    })
}

/// Removes a dead child for good; false if it was removed before.
pub(crate) fn forget(kernel: &Kernel, parent: &Process, child: &Arc<Process>) -> bool {
    let mut inner = parent.inner.lock();
    let before = inner.children.len();
    inner.children.retain(|c| !Arc::ptr_eq(c, child));
    let removed = inner.children.len() < before;
    drop(inner);
    if removed {
        ptrace::link::reaped(child);
        kernel.tasks.remove_process(child.pid);
        // Who polls a descriptor of it.
        child.exit_event.wake_all();
    }
    removed
}
