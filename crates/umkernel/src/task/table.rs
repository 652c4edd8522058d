//! All tasks and processes, by id; and ids for new ones.

use super::{Pid, Process, Task};
use crate::errno::{Errno, Result};
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Highest id, `PID_MAX_DEFAULT` of `linux/threads.h`, exclusive, until `kernel.pid_max` is set.
pub const PID_MAX: Pid = 32768;
/// The most that it can be set to (`PID_MAX_LIMIT`).
pub const PID_MAX_LIMIT: Pid = 4 << 20;
/// Where ids start again after the highest.
pub const RESERVED_PIDS: Pid = 300;

/// The tasks of the machine.
#[derive(Default)]
pub struct TaskTable {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: Pid,
    /// Ids have begun again: one may still name a process group or session whose leader is gone.
    wrapped: bool,
    /// Threads that have not ended.
    tasks: BTreeMap<Pid, Arc<Task>>,
    /// Processes up to their reaping, zombies among them.
    processes: BTreeMap<Pid, Arc<Process>>,
}

impl TaskTable {
    /// Takes a free id below `pid_max`. `EAGAIN` when there are `max_tasks` tasks already.
    pub fn allocate_pid(&self, max_tasks: usize, pid_max: u64) -> Result<Pid> {
        let pid_max = Pid::try_from(pid_max).unwrap_or(PID_MAX_LIMIT);
        let mut inner = self.inner.lock();
        if inner.tasks.len() >= max_tasks {
            return Err(Errno::EAGAIN.into());
        }
        for _ in 0..pid_max {
            inner.last += 1;
            if inner.last >= pid_max {
                (inner.last, inner.wrapped) = (RESERVED_PIDS, true);
            }
            let pid = inner.last;
            let used = inner.tasks.contains_key(&pid) || inner.processes.contains_key(&pid);
            let names_group = |process: &Arc<Process>| {
                let (pgid, sid) = process.group_and_session();
                pgid == pid || sid == pid
            };
            if !(used || inner.wrapped && inner.processes.values().any(names_group)) {
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

    /// Lets ids begin again with the next.
    #[cfg(test)]
    pub(crate) fn wrap(&self) {
        self.inner.lock().last = PID_MAX - 1;
    }

    /// Number of tasks, and the id given last: the end of `/proc/loadavg`.
    pub fn counts(&self) -> (usize, Pid) {
        let inner = self.inner.lock();
        (inner.tasks.len(), inner.last)
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use crate::testing::machine;

    #[test]
    fn ids_of_groups_and_sessions_without_a_leader_stay_taken() {
        let m = machine();
        let (_init, member) = (m.task(), m.task());
        m.kernel.tasks.wrap();
        let mut inner = member.process.inner.lock();
        (inner.pgid, inner.sid) = (RESERVED_PIDS, RESERVED_PIDS + 1);
        drop(inner);
        assert_eq!(m.kernel.tasks.allocate_pid(100, PID_MAX as u64), Ok(RESERVED_PIDS + 2));
    }
}
