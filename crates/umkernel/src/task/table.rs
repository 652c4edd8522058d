//! All tasks and processes, by id; and ids for new ones.

use super::{Pid, Process, Task};
use crate::errno::{Errno, Result};
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Highest id, `PID_MAX_DEFAULT` of `linux/threads.h`, exclusive.
pub const PID_MAX: Pid = 32768;
/// Where ids start again after the highest.
const RESERVED_PIDS: Pid = 300;

/// The tasks of the machine.
#[derive(Default)]
pub struct TaskTable {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: Pid,
    /// Threads that have not ended.
    tasks: BTreeMap<Pid, Arc<Task>>,
    /// Processes up to their reaping, zombies among them.
    processes: BTreeMap<Pid, Arc<Process>>,
}

impl TaskTable {
    /// Takes a free id. `EAGAIN` when there are `max_tasks` tasks already.
    pub fn allocate_pid(&self, max_tasks: usize) -> Result<Pid> {
        let mut inner = self.inner.lock();
        if inner.tasks.len() >= max_tasks {
            return Err(Errno::EAGAIN.into());
        }
        for _ in 0..PID_MAX {
            inner.last = if inner.last + 1 >= PID_MAX { RESERVED_PIDS } else { inner.last + 1 };
            let pid = inner.last;
            let used = inner.tasks.contains_key(&pid) || inner.processes.contains_key(&pid);
            if !used {
                return Ok(pid);
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Adds a task, and its process if it is the first thread.
    pub fn insert(&self, task: &Arc<Task>) {
        let mut inner = self.inner.lock();
        inner.tasks.insert(task.tid(), task.clone());
        inner.processes.entry(task.process.pid).or_insert_with(|| task.process.clone());
    }

    /// Forgets a thread that has ended.
    pub fn remove_task(&self, tid: Pid) {
        self.inner.lock().tasks.remove(&tid);
    }

    /// Forgets a process that was reaped.
    pub fn remove_process(&self, pid: Pid) {
        self.inner.lock().processes.remove(&pid);
    }

    /// The task with this id.
    pub fn task(&self, tid: Pid) -> Option<Arc<Task>> {
        self.inner.lock().tasks.get(&tid).cloned()
    }

    /// The process with this id, also a zombie.
    pub fn process(&self, pid: Pid) -> Option<Arc<Process>> {
        self.inner.lock().processes.get(&pid).cloned()
    }

    /// All processes, in order of id.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.inner.lock().processes.values().cloned().collect()
    }

    /// The processes of a process group.
    pub fn group(&self, pgid: Pid) -> Vec<Arc<Process>> {
        let all = self.processes();
        all.into_iter().filter(|p| p.inner.lock().pgid == pgid).collect()
    }

    /// Number of tasks, and the id given last: the end of `/proc/loadavg`.
    pub fn counts(&self) -> (usize, Pid) {
        let inner = self.inner.lock();
        (inner.tasks.len(), inner.last)
    }
}
