//! How a task wants to be scheduled (`sched(7)`) and other per-thread settings that its children inherit. The host
//! schedules: policies and priorities are kept and shown, not enforced.

use crate::sync::Mutex;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// A thread's scheduling settings.
#[derive(Default)]
pub struct TaskSched {
    /// What changes together.
    pub inner: Mutex<SchedInner>,
}

/// The changeable part of a [`TaskSched`].
#[derive(Clone, Debug, Default)]
pub struct SchedInner {
    /// `SCHED_*`.
    pub policy: u32,
    /// Real-time priority, 1..=99 for `SCHED_FIFO` and `SCHED_RR`, else 0.
    pub priority: u32,
    /// Children start with the normal policy (`SCHED_RESET_ON_FORK`).
    pub reset_on_fork: bool,
    /// Processors it may run on, 64 to a word; `None` for all.
    pub affinity: Option<Vec<u64>>,
    /// `ioprio_set(2)`: class and data.
    pub io_priority: u32,
    /// `prctl(PR_SET_TIMERSLACK)`, nanoseconds; 0 for the default.
    pub timer_slack: u64,
    /// `personality(2)`.
    pub personality: u32,
}

impl TaskSched {
    /// What a child gets.
    pub fn for_child(&self) -> TaskSched {
        let mut inner = self.inner.lock().clone();
        if inner.reset_on_fork {
            inner.reset_on_fork = false;
            inner.policy = 0;
            inner.priority = 0;
        }
        TaskSched { inner: Mutex::new(inner) }
    }
}

/// Settings of a process that its children inherit and exec keeps.
pub struct ProcessSettings {
    /// `/proc/PID/oom_score_adj`, -1000..=1000.
    pub oom_score_adj: AtomicI32,
    /// `/proc/PID/loginuid`; `u32::MAX` until set.
    pub login_uid: AtomicU32,
}

impl Default for ProcessSettings {
    fn default() -> ProcessSettings {
        ProcessSettings { oom_score_adj: AtomicI32::new(0), login_uid: AtomicU32::new(u32::MAX) }
    }
}

impl ProcessSettings {
    /// What a child gets.
    pub fn for_child(&self) -> ProcessSettings {
        ProcessSettings {
            oom_score_adj: AtomicI32::new(self.oom_score_adj.load(Ordering::Relaxed)),
            login_uid: AtomicU32::new(self.login_uid.load(Ordering::Relaxed)),
        }
    }
}
