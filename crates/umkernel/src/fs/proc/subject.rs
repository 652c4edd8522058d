//! Whom a directory of `/proc` is about, and who may look.

use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::mm::AddressSpace;
use crate::task::{Creds, Pid, Process, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A process, or one of its threads.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) process: Arc<Process>,
    /// The thread; the process's first for the process.
    pub(super) tid: Pid,
    /// About the process as a whole (`/proc/PID`, not `/proc/PID/task/TID`).
    pub(super) whole: bool,
}

impl Subject {
    /// The process with this id, or the process of the thread with this id.
    pub(super) fn process(kernel: &Kernel, pid: Pid) -> Option<Subject> {
        let process = match kernel.tasks.process(pid) {
            Some(process) => process,
            None => kernel.tasks.task(pid)?.process.clone(),
        };
        Some(Subject { process, tid: pid, whole: true })
    }

    /// One thread of the process.
    pub(super) fn thread(&self, kernel: &Kernel, tid: Pid) -> Option<Subject> {
        let task = kernel.tasks.task(tid).filter(|t| Arc::ptr_eq(&t.process, &self.process))?;
        Some(Subject { process: self.process.clone(), tid: task.tid(), whole: false })
    }

    /// The threads that have not ended.
    pub(super) fn threads(&self) -> Vec<Arc<Task>> {
        self.process.inner.lock().threads.clone()
    }

    /// The thread, or, for a process whose first thread has ended, another; `None` for a zombie.
    pub(super) fn task(&self) -> Option<Arc<Task>> {
        let inner = self.process.inner.lock();
        let own = inner.threads.iter().find(|t| t.tid() == self.tid);
        own.or(inner.threads.first().filter(|_| self.whole)).cloned()
    }

    /// As [`Subject::task`], for what a zombie does not have.
    pub(super) fn living(&self) -> Result<Arc<Task>> {
        self.task().ok_or(Errno::ESRCH.into())
    }

    /// The memory, if it has any.
    pub(super) fn memory(&self) -> Option<Arc<AddressSpace>> {
        self.task()?.mm().ok()
    }

    /// User and group that own the directory: root's if the process is not to be looked into.
    pub(super) fn owner(&self) -> (u32, u32) {
        match self.task().map(|t| t.creds()) {
            Some(creds) if creds.dumpable => (creds.euid, creds.egid),
            _ => (0, 0),
        }
    }

    /// `EACCES` unless the running task may look into this one (`PTRACE_MODE_READ_FSCREDS`).
    pub(super) fn check_access(&self, ctx: &Ctx) -> Result<()> {
        if Arc::ptr_eq(&self.process, &ctx.task.process) {
            return Ok(());
        }
        let theirs = self.living()?.creds();
        let ours = ctx.creds();
        let by_fs_ids = Creds { uid: ours.fsuid, gid: ours.fsgid, ..(*ours).clone() };
        if by_fs_ids.may_trace(&theirs) { Ok(()) } else { Err(Errno::EACCES.into()) }
    }
}
