//! The root of all kernel state, and the context in which a system call runs.

use crate::errno::{Errno, Result};
use crate::event::aio::AioTotal;
use crate::platform::Platform;
use crate::power::Power;
use crate::seccomp::ActionLog;
use crate::settings::Settings;
use crate::sync::{Mutex, WaitQueue};
use crate::task::core_dump::Pattern as CorePattern;
use crate::task::{Pid, Task, TaskTable};
use crate::vfs::Vfs;
use crate::{futex, host, ipc, log, net, ns, profile, signal, stats, syscall, time, trace, tty};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// What the machine was started with; fixed from boot on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Guest memory in bytes: what `/proc/meminfo` shows and where the out-of-memory killer acts.
    pub memory: u64,
    /// Processors that the guest sees.
    pub cpus: u32,
    /// The most tasks that may exist at once (Linux: `threads-max`).
    pub max_tasks: usize,
    /// The kernel command line, as `/proc/cmdline` shows it.
    pub command_line: String,
    /// Whether calls are counted: [`Kernel::profile`].
    pub profile: bool,
}

/// The kernel: everything that lives as long as the machine.
pub struct Kernel {
    /// How guests run here.
    pub platform: Box<dyn Platform>,
    /// What the machine was started with.
    pub config: Config,
    /// All tasks, by thread id.
    pub tasks: TaskTable,
    /// Mounts and caches.
    pub vfs: Vfs,
    /// Namespaces: those that the machine starts in, and what is known of the others.
    pub namespaces: ns::Registry,
    /// Signals queued, by user.
    pub queued_signals: signal::QueuedByUser,
    /// Load averages.
    pub load: stats::Load,
    /// Timers and what runs them.
    pub time: time::TimeKeeper,
    /// Tasks that sleep in `futex(2)`.
    pub futexes: futex::FutexTable,
    /// What an administrator may change.
    pub settings: Settings,
    /// Requests that contexts of `io_setup(2)` may have, taken together.
    pub aio: AioTotal,
    /// What core files are called.
    pub core_pattern: CorePattern,
    /// Which actions of seccomp filters are logged.
    pub seccomp_log: ActionLog,
    /// What POSIX message queues take.
    pub mqueues: ipc::mqueue::Mqueues,
    /// Terminals, the console among them.
    pub ttys: tty::Ttys,
    /// The names that sockets are bound to.
    pub net: net::Net,
    /// The kernel's messages (`dmesg(1)`).
    pub log: log::KernelLog,
    /// Calls that guests made and the kernel does not have.
    pub unknown_calls: syscall::UnknownCalls,
    /// Who watches the guests' system calls, if anybody does.
    pub trace: Option<trace::Tracer>,
    /// Counts of the guests' system calls, if anybody wants them.
    pub profile: Option<profile::Profile>,
    /// The power switch.
    pub power: Power,
    /// Where messages go besides the log, up to a level: the console.
    pub message_sink: Mutex<Option<log::Sink>>,
    /// A host file without a byte: pages behind the end of a mapped file, which give SIGBUS.
    pub empty_file: host::HostFd,
    /// Numbers for address spaces and other things that need one.
    pub next_id: AtomicU64,
    /// CLOCK_MONOTONIC of the host at boot, nanoseconds: the zero of the guest's uptime.
    pub boot_monotonic: u64,
    /// CLOCK_REALTIME at boot, nanoseconds.
    pub boot_realtime: u64,
}

/// The running task and its kernel: what every system call and every file operation is given.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    /// The kernel.
    pub kernel: &'a Arc<Kernel>,
    /// The task on whose behalf the kernel acts; always the one whose host thread this is, which nobody else acts for meanwhile.
    pub task: &'a Arc<Task>,
}

impl<'a> Ctx<'a> {
    /// Sleeps on `queue` until `condition` gives a value.
    ///
    /// `Ok(None)` when `deadline` (CLOCK_MONOTONIC, absolute, nanoseconds) passed first; `ERESTARTSYS` when a signal
    /// wants the task's attention. Whoever changes what the condition looks at wakes the queue afterwards.
    pub fn wait<T>(
        &self,
        queue: &WaitQueue,
        deadline: Option<u64>,
        condition: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        self.wait_on(&[queue], deadline, condition)
    }

    /// As [`Ctx::wait`], woken by any of several queues.
    pub fn wait_on<T>(
        &self,
        queues: &[&WaitQueue],
        deadline: Option<u64>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        if let Some(value) = condition() {
            return Ok(Some(value));
        }
        self.task.sched.fall_asleep();
        let sleeper = self.task.waiter.clone() as Arc<dyn crate::sync::Wake>;
        queues.iter().for_each(|q| q.add(sleeper.clone()));
        let result = loop {
            self.task.waiter.prepare();
            if let Some(value) = condition() {
                break Ok(Some(value));
            }
            if self.task.signal_pending() {
                break Err(Errno::ERESTARTSYS.into());
            }
            if deadline.is_some_and(|d| host::monotonic_ns() >= d) {
                break Ok(None);
            }
            trace::blocking(self);
            self.task.waiter.sleep(deadline);
        };
        queues.iter().for_each(|q| q.remove(&sleeper));
        self.task.sched.awake();
        result
    }

    /// As [`Ctx::wait`] without a deadline.
    pub fn wait_for<T>(&self, queue: &WaitQueue, condition: impl FnMut() -> Option<T>) -> Result<T> {
        match self.wait_on(&[queue], None, condition)? {
            Some(value) => Ok(value),
            None => Err(Errno::EINTR.into()),
        }
    }
}

impl Kernel {
    /// A kernel in which nothing is mounted and nothing runs.
    ///
    /// # Errors
    /// What the host says to `memfd_create(2)`.
    pub fn new(platform: Box<dyn Platform>, config: Config, trace: Option<trace::Tracer>) -> Result<Arc<Kernel>> {
        let empty_file = host::HostFd::new(host::memfd_create(c"beyond-end-of-file")?);
        let unnamed = || String::from("(none)");
        let vfs = Vfs::new();
        let namespaces = ns::Registry::new(&vfs, ns::Uts { nodename: unnamed(), domainname: unnamed() });
        Ok(Arc::new(Kernel {
            platform,
            profile: config.profile.then(profile::Profile::default),
            config,
            tasks: TaskTable::default(),
            vfs,
            namespaces,
            queued_signals: Default::default(),
            load: Default::default(),
            trace,
            net: Default::default(),
            unknown_calls: Default::default(),
            time: Default::default(),
            futexes: Default::default(),
            settings: Default::default(),
            aio: Default::default(),
            core_pattern: Default::default(),
            seccomp_log: Default::default(),
            mqueues: Default::default(),
            ttys: Default::default(),
            log: Default::default(),
            power: Power::default(),
            message_sink: Mutex::new(None),
            empty_file,
            next_id: AtomicU64::new(1),
            boot_monotonic: host::monotonic_ns(),
            boot_realtime: host::realtime_ns(),
        }))
    }

    /// Logs a message, and shows it on the console if it matters enough there.
    pub fn message(&self, level: log::Level, text: String) {
        let time = host::monotonic_ns().saturating_sub(self.boot_monotonic);
        if self.log.on_console(level)
            && let Some(sink) = &*self.message_sink.lock()
        {
            sink(level, time, &text);
        }
        self.log.add(level, time, text);
    }

    /// An id for a new task.
    ///
    /// # Errors
    /// `EAGAIN` when there are as many tasks as there may be, or no id is free.
    pub fn new_pid(&self) -> Result<Pid> {
        self.tasks.allocate_pid(self.config.max_tasks, self.settings.pid_max.get())
    }

    /// A number never given before.
    pub fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
