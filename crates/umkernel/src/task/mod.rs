//! Tasks (threads) and processes (thread groups): what `fork`, `exec`, `exit` and `wait` work on.

pub mod core_dump;
pub mod creds;
mod exec;
mod exit;
mod first;
mod fork;
mod part;
pub mod pidfd;
mod process;
mod sched;
mod table;
mod wait;

pub use exec::exec;
pub use exit::{end_process, exit_group, exit_thread, finish};
pub use first::{FirstTask, Program, start_program};
pub use fork::{CloneArgs, CloneFlags, clone};
pub(crate) use wait::forget;
pub use wait::{Found, WaitOptions, Which, wait};

pub use creds::{Capabilities, Creds};
pub use part::{Looks, Part};
pub use process::{Process, ProcessInner, ProcessState, Rlimit, Rusage, WaitStatus};
pub use sched::{ProcessSettings, SchedInner, TaskSched, all_cpus};
pub use table::{PID_MAX, PID_MAX_LIMIT, RESERVED_PIDS, TaskTable};

use crate::errno::{Errno, Error, Result};
use crate::kernel::{Ctx, Kernel};
use crate::mm::AddressSpace;
use crate::ns::Namespaces;
use crate::platform::HostThread;
use crate::signal::TaskSignals;
use crate::sync::{Mutex, Waiter, Wake};
use crate::vfs::{FdTable, FsContext};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

/// A task or process id. Guests see these; the host's ids are the platform's affair.
pub type Pid = i32;

/// One thread of execution.
pub struct Task {
    /// See [`Task::tid`].
    pub(crate) tid: AtomicI32,
    /// The thread group.
    pub process: Arc<Process>,
    /// What the task sleeps on whenever it sleeps.
    pub waiter: Arc<Waiter>,
    /// The platform's part.
    pub host: HostThread,
    /// Name, at most 15 bytes (`prctl(PR_SET_NAME)`).
    pub comm: Mutex<Comm>,
    /// Credentials; replaced whole, never changed in place.
    pub creds: Part<Arc<Creds>>,
    /// Root, working directory, umask; shared with `CLONE_FS`.
    pub fs: Part<Arc<FsContext>>,
    /// Open files; shared with `CLONE_FILES`.
    pub files: Part<Arc<FdTable>>,
    /// Namespaces; `None` after exit.
    pub namespaces: Part<Option<Arc<Namespaces>>>,
    /// Memory; `None` for a kernel thread and after exit.
    pub mm: Part<Option<Arc<AddressSpace>>>,
    /// What of these the task looks at in its call.
    pub looks: Looks,
    /// This thread's pending and blocked signals.
    pub signals: TaskSignals,
    /// Something wants the task's attention on its way to user mode or in an interruptible sleep:
    /// a deliverable signal, a stop, the end of the process.
    pub attention: AtomicBool,
    /// The task must end as soon as it is on its way to user mode (its process exits or executes a new program).
    pub dying: AtomicBool,
    /// Where to store 0 and wake a futex when the thread ends (`set_tid_address(2)`); 0 for nowhere.
    pub clear_child_tid: AtomicU64,
    /// Head of the robust futex list; 0 for none.
    pub robust_list: AtomicU64,
    /// What else `futex(2)` knows of the task.
    pub futex: crate::futex::TaskFutexes,
    /// Scheduling settings; a child's are [`TaskSched::for_child`].
    pub sched: TaskSched,
    /// A parent sleeping in `vfork(2)` until this task lets go of its memory.
    pub vfork_parent: Mutex<Option<Arc<crate::sync::WaitQueue>>>,
    /// What `restart_syscall(2)` continues.
    pub restart: Mutex<Option<Restart>>,
    /// Number of the system call that the task is in, `u32::MAX` in user mode (`/proc/PID/syscall`, crash reports).
    pub in_syscall: AtomicU32,
    /// Who traces the task, and whom it traces (`ptrace(2)`).
    pub trace: crate::ptrace::TaskTrace,
    /// Programs that the task executes gain no privileges (`prctl(PR_SET_NO_NEW_PRIVS)`). Never unset; set by the task itself, and by a
    /// thread that attaches a filter for all.
    pub no_new_privs: AtomicBool,
    /// Which system calls the task may make (`seccomp(2)`).
    pub seccomp: crate::seccomp::TaskSeccomp,
    /// CLOCK_MONOTONIC at creation, nanoseconds.
    pub start_time: u64,
}

/// An interrupted call that `restart_syscall(2)` goes on with, deadlines made absolute. It gives the call's result, or
/// [`Task::restart_with`] again when it is interrupted again.
pub type Restart = Box<dyn FnOnce(&Ctx) -> Result<usize> + Send>;

/// A task's name: at most 15 bytes and a NUL, as `TASK_COMM_LEN` says.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Comm([u8; 16]);

impl Comm {
    /// Cuts `name` to 15 bytes.
    pub fn new(name: &[u8]) -> Comm {
        let mut comm = [0; 16];
        let len = name.iter().position(|&b| b == 0).unwrap_or(name.len()).min(15);
        comm[..len].copy_from_slice(&name[..len]);
        Comm(comm)
    }

    /// The name without its NUL.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(15);
        &self.0[..len]
    }

    /// The name with its NULs, as `PR_GET_NAME` returns it.
    pub fn raw(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Task {
    /// Thread id; the process id for a process's first thread. Changes once at most: exec makes the thread that calls it
    /// the process's first.
    pub fn tid(&self) -> Pid {
        self.tid.load(Ordering::Relaxed)
    }

    /// The task's memory; `ESRCH` for a kernel thread or a task that has exited.
    pub fn mm(&self) -> Result<Arc<AddressSpace>> {
        self.mm.get().ok_or(Errno::ESRCH.into())
    }

    /// The task's credentials.
    pub fn creds(&self) -> Arc<Creds> {
        self.creds.get()
    }

    /// The task's file table.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.get()
    }

    /// The task's root, working directory and umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.get()
    }

    /// The error of a call that a signal interrupted and that goes on by `restart`, unless a handler runs, which makes
    /// it `EINTR`.
    pub fn restart_with(&self, restart: impl FnOnce(&Ctx) -> Result<usize> + Send + 'static) -> Error {
        *self.restart.lock() = Some(Box::new(restart));
        Errno::ERESTART_RESTARTBLOCK.into()
    }

    /// True when an interruptible sleep must end: see [`Task::attention`].
    pub fn signal_pending(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// Sleeps on the task's waiter, on its own host thread: see [`Waiter::sleep`]. Meanwhile it counts as asleep.
    pub(crate) fn sleep(&self, deadline: Option<u64>) {
        self.sched.fall_asleep();
        self.waiter.sleep(deadline);
        self.sched.awake();
    }

    /// Asks for the task's attention and makes it look: wakes it from a sleep, or brings its guest code into the kernel.
    pub fn interrupt(&self, kernel: &Kernel) {
        self.attention.store(true, Ordering::SeqCst);
        self.waiter.wake();
        // One that sleeps, or is about to, looks before it goes on: see `awake`.
        if self.host.in_user.load(Ordering::SeqCst) && !self.sched.sleeping.load(Ordering::SeqCst) {
            kernel.platform.kick(self);
        }
    }
}
