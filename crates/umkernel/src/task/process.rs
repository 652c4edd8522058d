//! A process: a thread group and what its threads share.

use super::{Pid, Task};
use crate::signal::{ProcessSignals, SigHandlers};
use crate::sync::{Mutex, WaitQueue};
use crate::vfs::File;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, Ordering};

/// How a process ended, stopped or continued: the status word of `wait(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    /// Called `exit` with this code.
    Exited(u8),
    /// Killed by a signal; whether it would have left a core.
    Signaled(u8, bool),
    /// Stopped by a signal.
    Stopped(u8),
    /// Stopped for its tracer: a signal's number, and an event's (`ptrace(2)`).
    Trapped(u32),
    /// Continued by `SIGCONT`.
    Continued,
}

impl WaitStatus {
    /// The word that `wait4(2)` stores.
    pub fn to_word(self) -> u32 {
        match self {
            WaitStatus::Exited(code) => u32::from(code) << 8,
            WaitStatus::Signaled(sig, core) => u32::from(sig) | if core { 0x80 } else { 0 },
            WaitStatus::Stopped(sig) => u32::from(sig) << 8 | 0x7f,
            WaitStatus::Trapped(code) => code << 8 | 0x7f,
            WaitStatus::Continued => 0xffff,
        }
    }
}

/// A process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Has threads that run or sleep.
    Running,
    /// All threads rest until `SIGCONT`.
    Stopped,
    /// Has ended and waits for its parent to ask how.
    Zombie(WaitStatus),
}

/// A resource limit (`getrlimit(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Soft limit.
    pub cur: u64,
    /// Hard limit.
    pub max: u64,
}

impl Rlimit {
    /// No limit.
    pub const INFINITY: u64 = u64::MAX;
}

/// Resources used (`getrusage(2)`); times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rusage {
    /// Guest code.
    pub utime: u64,
    /// Kernel code.
    pub stime: u64,
    /// Highest resident size in KiB.
    pub max_rss: u64,
}

impl Rusage {
    /// Adds another's use to this one.
    pub fn add(&mut self, other: &Rusage) {
        self.utime += other.utime;
        self.stime += other.stime;
        self.max_rss = self.max_rss.max(other.max_rss);
    }
}

/// A thread group.
pub struct Process {
    /// Process id: the first thread's.
    pub pid: Pid,
    /// See [`Process::ppid`].
    pub(super) parent_pid: AtomicI32,
    /// What changes together, under the process's lock.
    pub inner: Mutex<ProcessInner>,
    /// Woken when a child ends, stops or continues, and when a thread of this process ends.
    pub child_events: Arc<WaitQueue>,
    /// Woken when this process ends (pidfd polls, vfork).
    pub exit_event: Arc<WaitQueue>,
    /// Signal handlers; shared with `CLONE_SIGHAND`.
    pub handlers: Mutex<Arc<SigHandlers>>,
    /// Signals pending for the process as a whole, and its job control state.
    pub signals: ProcessSignals,
    /// Resource limits, by `RLIMIT_*`.
    pub rlimits: Mutex<[Rlimit; 16]>,
    /// The executable, for `/proc/PID/exe`.
    pub exe: Mutex<Option<Arc<File>>>,
    /// `setitimer(2)`, `timer_create(2)`.
    pub timers: crate::time::ProcessTimers,
    /// Further settings; a child's are [`super::ProcessSettings::for_child`].
    pub settings: super::ProcessSettings,
}

/// The part of a process under its lock.
pub struct ProcessInner {
    /// The parent; `None` for process 1 and kernel threads. Replaced when the parent ends.
    pub parent: Option<Weak<Process>>,
    /// The thread that made the process: the one that traces it after `PTRACE_TRACEME`.
    pub maker: Weak<Task>,
    /// Who traces the thread that gives the process its id.
    pub tracer: Option<Arc<Task>>,
    /// Children, zombies among them.
    pub children: Vec<Arc<Process>>,
    /// Process group id.
    pub pgid: Pid,
    /// Session id.
    pub sid: Pid,
    /// The controlling terminal.
    pub tty: Option<Arc<crate::tty::Tty>>,
    /// Threads that have not ended.
    pub threads: Vec<Arc<Task>>,
    /// Where it is in its life.
    pub state: ProcessState,
    /// Set once the process is ending: the status that it will have.
    pub exiting: Option<WaitStatus>,
    /// How the first thread ended by itself, then how the last one did: the process's status if all threads do.
    pub leader_status: Option<WaitStatus>,
    /// The real user id when the process ended.
    pub uid_at_exit: u32,
    /// A stop or continue that the parent has not asked about yet.
    pub event: Option<WaitStatus>,
    /// Signal to the parent at the end (SIGCHLD for fork, 0 for none).
    pub exit_signal: u8,
    /// Used by threads that have ended.
    pub dead_threads: Rusage,
    /// Used by children that were waited for.
    pub dead_children: Rusage,
    /// Has executed a program since fork (`setpgid(2)` asks).
    pub has_execed: bool,
    /// `prctl(PR_SET_CHILD_SUBREAPER)`.
    pub subreaper: bool,
    /// `prctl(PR_SET_PDEATHSIG)`.
    pub parent_death_signal: u8,
    /// Nice value, -20..=19.
    pub nice: i8,
}

impl ProcessInner {
    /// Whether no other thread than this one goes on.
    pub fn is_last(&self, thread: &Arc<Task>) -> bool {
        self.threads.iter().all(|other| Arc::ptr_eq(other, thread) || other.dying.load(Ordering::SeqCst))
    }

    /// Begins the end of the process: every thread but `caller`, which sees to itself, is told to end. The first status counts.
    pub fn begin_exit(&mut self, kernel: &crate::Kernel, status: WaitStatus, caller: Option<&Task>) {
        if self.exiting.is_some() {
            return;
        }
        self.exiting = Some(status);
        for thread in &self.threads {
            thread.dying.store(true, Ordering::SeqCst);
            if caller.is_none_or(|c| c.tid() != thread.tid()) {
                thread.interrupt(kernel);
            }
        }
    }
}

impl Process {
    /// The parent's process id, 0 for none.
    pub fn ppid(&self) -> Pid {
        self.parent_pid.load(Ordering::Relaxed)
    }

    /// Gives the process, whose lock is held, a parent.
    pub fn set_parent(&self, inner: &mut ProcessInner, parent: &Arc<Process>) {
        inner.parent = Some(Arc::downgrade(parent));
        self.parent_pid.store(parent.pid, Ordering::Relaxed);
    }

    /// The parent, if it has one.
    pub fn parent(&self) -> Option<Arc<Process>> {
        self.inner.lock().parent.as_ref().and_then(Weak::upgrade)
    }

    /// Process group and session.
    pub fn group_and_session(&self) -> (Pid, Pid) {
        let inner = self.inner.lock();
        (inner.pgid, inner.sid)
    }

    /// The controlling terminal.
    pub fn tty(&self) -> Option<Arc<crate::tty::Tty>> {
        self.inner.lock().tty.clone()
    }

    /// The soft limit of a resource (`RLIMIT_*`).
    pub fn limit(&self, resource: usize) -> u64 {
        self.rlimits.lock().get(resource).map_or(Rlimit::INFINITY, |l| l.cur)
    }
}
