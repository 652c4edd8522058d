//! How a task wants to be scheduled (`sched(7)`) and other per-thread settings that its children inherit. The host
//! schedules: policies and priorities are kept and shown, not enforced.

use crate::sync::Mutex;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

/// A thread's scheduling settings.
#[derive(Default)]
pub struct TaskSched {
    /// What changes together.
    pub inner: Mutex<SchedInner>,
    /// The task is in [`crate::kernel::Ctx::wait`]: neither running nor waiting for a processor.
    pub sleeping: AtomicBool,
    /// How often it went to sleep (`voluntary_ctxt_switches` of `/proc/PID/status`).
    pub sleeps: AtomicU64,
}

/// The changeable part of a [`TaskSched`].
#[derive(Clone, Debug)]
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
    /// `prctl(PR_SET_TIMERSLACK)`, nanoseconds, and what 0 brings back: what its parent had when it was made.
    pub timer_slack: u64,
    /// See [`SchedInner::timer_slack`].
    pub default_timer_slack: u64,
    /// `personality(2)`.
    pub personality: u32,
}

impl Default for SchedInner {
    fn default() -> SchedInner {
        /// What the first process has.
        const SLACK: u64 = 50_000;
        SchedInner {
            policy: 0,
            priority: 0,
            reset_on_fork: false,
            affinity: None,
            io_priority: 0,
            timer_slack: SLACK,
            default_timer_slack: SLACK,
            personality: 0,
        }
    }
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
        inner.default_timer_slack = inner.timer_slack;
        TaskSched { inner: Mutex::new(inner), ..TaskSched::default() }
    }

    /// Notes that the task goes on. It looks for [`super::Task::attention`] afterwards: whoever asked for it and saw the
    /// task asleep has not kicked it.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Notes that the task goes to sleep.
    pub(crate) fn fall_asleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        self.sleeps.fetch_add(1, Ordering::Relaxed);
    }
}

/// The set of all processors, 64 to a word.
pub fn all_cpus(cpus: usize) -> Vec<u64> {
    (0..cpus.div_ceil(64)).map(|i| u64::MAX >> (64 - (cpus - i * 64).min(64))).collect()
}

impl TaskSched {
    /// The processors that the task may run on, of `cpus` that there are.
    pub fn allowed_cpus(&self, cpus: usize) -> Vec<u64> {
        self.inner.lock().affinity.clone().unwrap_or_else(|| all_cpus(cpus))
    }
}

/// Settings of a process that its children inherit and exec keeps.
pub struct ProcessSettings {
    /// `/proc/PID/oom_score_adj`, -1000..=1000.
    pub oom_score_adj: AtomicI32,
    /// `/proc/PID/loginuid`; `u32::MAX` until set.
    pub login_uid: AtomicU32,
    /// Registered for private expedited `membarrier(2)`.
    pub membarrier: AtomicBool,
    /// The name of the last thread that ended: a zombie's.
    pub last_comm: Mutex<Option<super::Comm>>,
    /// Which memory goes into a core file (`/proc/PID/coredump_filter`).
    pub core_filter: AtomicU32,
    /// A core file is being written, or was tried.
    pub dumping: AtomicBool,
}

impl Default for ProcessSettings {
    fn default() -> ProcessSettings {
        ProcessSettings {
            oom_score_adj: AtomicI32::new(0),
            login_uid: AtomicU32::new(u32::MAX),
            membarrier: AtomicBool::new(false),
            last_comm: Mutex::new(None),
            core_filter: AtomicU32::new(super::core_dump::DEFAULT_FILTER),
            dumping: AtomicBool::new(false),
        }
    }
}

impl ProcessSettings {
    /// What a child gets.
    pub fn for_child(&self) -> ProcessSettings {
        ProcessSettings {
            oom_score_adj: AtomicI32::new(self.oom_score_adj.load(Ordering::Relaxed)),
            login_uid: AtomicU32::new(self.login_uid.load(Ordering::Relaxed)),
            membarrier: AtomicBool::new(self.membarrier.load(Ordering::Relaxed)),
            last_comm: Mutex::new(None),
            core_filter: AtomicU32::new(self.core_filter.load(Ordering::Relaxed)),
            dumping: AtomicBool::new(false),
        }
    }
}
