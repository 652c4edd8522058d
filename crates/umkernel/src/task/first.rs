//! Tasks that no task forked: the kernel's own, and the first processes of the machine.

use super::{Comm, Creds, Looks, Part, Pid, Process, ProcessInner, ProcessState, Rlimit, Rusage, Task, WaitStatus};
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::loader::Strings;
use crate::platform::{HostThread, TrapFrame};
use crate::signal::{ProcessSignals, TaskSignals};
use crate::sync::{Mutex, WaitQueue, Waiter};
use crate::vfs::{FdTable, FsContext};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};

/// The limits of process 1, as Linux sets them for a machine with room for `max_tasks` tasks.
fn initial_rlimits(max_tasks: u64) -> [Rlimit; 16] {
    const INF: u64 = Rlimit::INFINITY;
    let both = |n: u64| Rlimit { cur: n, max: n };
    let mut limits = [both(INF); 16];
    // STACK, CORE, NPROC, NOFILE, MEMLOCK, SIGPENDING, MSGQUEUE, NICE, RTPRIO.
    limits[3] = Rlimit { cur: 8 << 20, max: INF };
    limits[4] = Rlimit { cur: 0, max: INF };
    limits[6] = both(max_tasks / 2);
    limits[7] = Rlimit { cur: 1024, max: 4096 };
    limits[8] = both(8 << 20);
    limits[11] = both(max_tasks / 2);
    limits[12] = both(819_200);
    limits[13] = both(0);
    limits[14] = both(0);
    limits
}

/// What a first task starts with.
pub struct FirstTask {
    /// Process id.
    pub pid: Pid,
    /// Name.
    pub name: &'static [u8],
    /// Root and working directory.
    pub fs: Arc<FsContext>,
    /// Descriptors.
    pub files: Arc<FdTable>,
}

impl FirstTask {
    /// Makes the task, not yet running and not in the table.
    pub fn create(self, kernel: &Kernel) -> Arc<Task> {
        let process = Arc::new(Process {
            pid: self.pid,
            parent_pid: AtomicI32::new(0),
            inner: Mutex::new(ProcessInner {
                parent: None,
                children: Vec::new(),
                pgid: self.pid,
                sid: self.pid,
                tty: None,
                threads: Vec::new(),
                state: ProcessState::Running,
                exiting: None,
                leader_status: None,
                uid_at_exit: 0,
                maker: alloc::sync::Weak::new(),
                tracer: None,
                event: None,
                exit_signal: crate::signal::number::SIGCHLD,
                dead_threads: Rusage::default(),
                dead_children: Rusage::default(),
                has_execed: false,
                subreaper: false,
                parent_death_signal: 0,
                nice: 0,
            }),
            child_events: Arc::new(WaitQueue::new()),
            exit_event: Arc::new(WaitQueue::new()),
            handlers: Mutex::new(Arc::default()),
            signals: ProcessSignals::default(),
            rlimits: Mutex::new(initial_rlimits(kernel.config.max_tasks as u64)),
            exe: Mutex::new(None),
            timers: Default::default(),
            settings: Default::default(),
        });
        let task = Arc::new(Task {
            tid: AtomicI32::new(self.pid),
            process: process.clone(),
            waiter: Arc::new(Waiter::new()),
            host: HostThread::default(),
            comm: Mutex::new(Comm::new(self.name)),
            creds: Part::new(Arc::new(Creds::root())),
            fs: Part::new(self.fs),
            files: Part::new(self.files),
            namespaces: Part::new(Some(kernel.namespaces.initial.clone())),
            mm: Part::new(None),
            looks: Looks::default(),
            signals: TaskSignals::default(),
            futex: Default::default(),
            sched: Default::default(),
            attention: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            vfork_parent: Mutex::new(None),
            restart: Mutex::new(None),
            in_syscall: AtomicU32::new(u32::MAX),
            trace: Default::default(),
            no_new_privs: AtomicBool::new(false),
            seccomp: Default::default(),
            start_time: crate::host::monotonic_ns(),
        });
        process.inner.lock().threads.push(task.clone());
        task
    }
}

/// A program to start in a new process.
pub struct Program {
    /// Path in the guest.
    pub path: Vec<u8>,
    /// Arguments and environment.
    pub strings: Strings,
}

/// What came of starting a program.
pub(crate) type Started = Box<dyn FnOnce(Result<()>) + Send>;

/// Runs the first of `programs` that can be executed in `task`, which was made by [`FirstTask::create`] and is in the table.
/// `started` is told on the task's own kernel thread whether one could.
pub fn start_program(kernel: &Arc<Kernel>, task: &Arc<Task>, programs: Vec<Program>, started: Started) -> Result<()> {
    let start = move |ctx: &Ctx| {
        let mut frame = TrapFrame { orig_rax: TrapFrame::NO_SYSCALL, ..TrapFrame::default() };
        let mut result = Err(crate::Errno::ENOENT.into());
        for program in programs {
            result = (ctx.kernel.vfs.open_exec(ctx, &program.path))
                .and_then(|file| super::exec(ctx, file, &program.path, program.strings, &mut frame));
            // Only a program that is not there is passed over.
            if !result.is_err_and(|e| e == crate::Errno::ENOENT) {
                break;
            }
        }
        let ok = result.is_ok();
        if !ok {
            // The machine has nothing to run and stops; that process 1 is gone is no panic of its own.
            ctx.kernel.power(crate::power::PowerAction::Off(1));
            super::exit_thread(ctx, WaitStatus::Exited(127));
        }
        started(result);
        ok.then_some(frame)
    };
    kernel.platform.spawn_fresh(kernel, task, Box::new(start))
}
