//! The machine: puts a kernel together, boots it from an image, and stops it in good order.
//!
//! It runs in the *kernel process*. The process that the user started watches it from outside (see `umlfs boot`), so that the
//! terminal and the exit status are in good hands even if this one is killed.

mod console;
mod init;
pub mod monitor;
mod oom;
mod stdio;

use crate::block::Disk;
use crate::host::HostFd;
use crate::kernel::{Config, Kernel};
use crate::log::Level;
use crate::platform::Platform;
use crate::platform::ptrace::Ptrace;
use crate::power::PowerAction;
use crate::task::{FirstTask, Task};
use crate::trace::TraceConfig;
use crate::vfs::{FdTable, FsContext, MountFlags};
use crate::{chardev, fs, time};
use nix::sys::signal::{SigSet, Signal};
use std::boxed::Box;
use std::format;
use std::fs::File;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::string::{String, ToString};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::Vec;

/// How long tasks may take to end when the machine stops, before that is reported and the disk is closed all the same.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Host signals that the machine listens to; blocked in every thread of the kernel process, before the first is started.
pub const WATCHED_SIGNALS: [Signal; 5] =
    [Signal::SIGWINCH, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];

/// What to boot, and how.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// The root disk's image: `/dev/ubda`.
    pub image: PathBuf,
    /// The root file system is mounted read-only.
    pub read_only: bool,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Processors that the guest sees.
    pub cpus: u32,
    /// Kernel command line.
    pub command_line: String,
    /// What runs.
    pub run: Run,
    /// Environment of the first program.
    pub env: Vec<(String, String)>,
    /// The kernel's messages go to the console.
    pub verbose: bool,
    /// Who watches the guests' system calls.
    pub trace: Option<TraceConfig>,
}

/// What the machine runs.
#[derive(Clone, Debug)]
pub enum Run {
    /// A program as process 1; without a path, the first of Linux's usual ones.
    Init(Option<String>),
    /// One command, then power-off: its arguments, the first its path in the guest.
    Command(Vec<String>),
}

/// Why a machine could not be booted.
#[derive(Debug)]
pub struct BootError {
    /// What is wrong, and where.
    pub what: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl BootError {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> BootError {
        BootError { what: what.into(), hint: hint.into() }
    }
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Powered off; the exit code for the caller.
    Off(u8),
    /// Wants to be booted again.
    Restart,
    /// The kernel panicked; its report is on the console.
    Panic,
}

/// Boots a machine and runs it until it stops.
///
/// # Errors
/// Before any guest code ran: the image, the host's rights, or a program that cannot be started.
pub fn run(config: &MachineConfig) -> Result<Outcome, BootError> {
    let mut watched = SigSet::empty();
    WATCHED_SIGNALS.into_iter().for_each(|s| watched.add(s));
    watched.thread_block().map_err(|e| BootError::new(format!("cannot block signals: {e}"), ""))?;
    let platform =
        Ptrace::start().map_err(|what| BootError::new(what, "run `umlfs doctor` to see what the host allows"))?;
    let disk = open_disk(config)?;
    let kernel = new_kernel(config, Box::new(platform))?;
    let console = console::Console::start(&kernel, config);
    boot_messages(&kernel, config);
    let kernel_task = mount_root(&kernel, config, &disk)?;
    start_services(&kernel);
    init::mount_devices(&kernel, &kernel_task);
    let stdio = stdio::Stdio::connect(&kernel, &kernel_task, &console, config)?;
    if let Err(e) = init::start(&kernel, &kernel_task, config, &stdio) {
        stop(&kernel, &kernel_task);
        return Err(e);
    }

    let action = kernel.power.wait();
    stop(&kernel, &kernel_task);
    stdio.drain();
    Ok(match action {
        PowerAction::Off(code) => Outcome::Off(code),
        PowerAction::Halt => Outcome::Off(0),
        PowerAction::Restart => Outcome::Restart,
        PowerAction::Panic => Outcome::Panic,
    })
}

fn open_disk(config: &MachineConfig) -> Result<Arc<Disk>, BootError> {
    let path = config.image.display();
    let open = |write| File::options().read(true).write(write).open(&config.image);
    let file = open(!config.read_only).map_err(|e| {
        BootError::new(format!("cannot open {path}: {e}"), "the root disk's image is the first argument")
    })?;
    let meta = file.metadata().map_err(|e| BootError::new(format!("{path}: {e}"), ""))?;
    if meta.is_dir() {
        return Err(BootError::new(format!("{path} is a directory"), "`umlfs image create` makes an image of it"));
    }
    lock_image(&file, config)?;
    let size = meta.len();
    let mut probe = [0; 1];
    if size == 0 || file.read_at(&mut probe, 0).map_err(|e| BootError::new(format!("{path}: {e}"), ""))? == 0 {
        return Err(BootError::new(format!("{path} is empty"), "`umlfs image create` makes an image"));
    }
    Ok(Disk::new(HostFd::new(file.into_raw_fd()), size, config.read_only, 0))
}

/// Two machines that write to one image would destroy it.
fn lock_image(file: &File, config: &MachineConfig) -> Result<(), BootError> {
    let result = if config.read_only { file.try_lock_shared() } else { file.try_lock() };
    match result {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(BootError::new(
            format!("{} is in use by another machine", config.image.display()),
            "power it off first, or boot with `ro` so that both only read",
        )),
        // A file system without locks: nothing to be done.
        Err(std::fs::TryLockError::Error(_)) => Ok(()),
    }
}

fn new_kernel(config: &MachineConfig, platform: Box<dyn Platform>) -> Result<Arc<Kernel>, BootError> {
    /// Memory that a task takes on the host, guest and kernel side together, at the least.
    const TASK_MEMORY: u64 = 256 * 1024;
    let max_tasks = (config.memory / TASK_MEMORY).clamp(64, 16_384) as usize;
    let command_line = config.command_line.clone();
    let trace = config.trace.as_ref().map(TraceConfig::start).transpose().map_err(|what| BootError::new(what, ""))?;
    let config = Config { memory: config.memory, cpus: config.cpus, max_tasks, command_line };
    Kernel::new(platform, config, trace)
        .map_err(|e| BootError::new(format!("cannot make a memory file: {e}"), "the host needs memfd_create(2)"))
}

fn boot_messages(kernel: &Kernel, config: &MachineConfig) {
    let name = kernel.platform.name();
    kernel.message(Level::Notice, format!("umlfs {} ({name} platform)", env!("CARGO_PKG_VERSION")));
    kernel.message(Level::Notice, format!("Command line: {}", config.command_line));
    kernel.message(Level::Info, format!("Memory: {} MiB, {} CPUs", config.memory >> 20, config.cpus));
}

/// The kernel's own task, in whose name it mounts and pumps; not in the task table.
fn kernel_task(kernel: &Kernel, root: crate::vfs::Location) -> Arc<Task> {
    let fs = Arc::new(FsContext::at_root(root));
    FirstTask { pid: 0, name: b"kernel", fs, files: Arc::new(FdTable::default()) }.create(kernel)
}

fn mount_root(kernel: &Arc<Kernel>, config: &MachineConfig, disk: &Arc<Disk>) -> Result<Arc<Task>, BootError> {
    let path = config.image.display();
    fs::register(&kernel.vfs);
    chardev::register(kernel);
    crate::block::register(&kernel.vfs, disk);
    let root = fs::ext4::Ext4Fs::mount(disk, config.read_only).map_err(|e| {
        BootError::new(
            format!("cannot mount {path}: {e}"),
            format!("`umlfs image info {path}` tells what the file holds"),
        )
    })?;
    let name = crate::vfs::FileSystem::name(&*root);
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, config.read_only);
    let location = (kernel.vfs.mount_root(root, b"/dev/root", flags))
        .map_err(|e| BootError::new(format!("cannot mount {path}: {e}"), ""))?;
    let mode = if config.read_only { "read-only" } else { "read-write" };
    kernel.message(Level::Info, format!("VFS: mounted root ({name} file system) {mode} on /dev/ubda"));
    Ok(kernel_task(kernel, location))
}

/// Host threads that work for the kernel as long as the machine runs.
fn start_services(kernel: &Arc<Kernel>) {
    /// Seconds between the journal's commits (`commit=` of ext4).
    const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
    let timers = kernel.clone();
    spawn_service("timers", move || time::run(&timers));
    let memory = kernel.clone();
    spawn_service("memory", move || oom::watch(&memory));
    let commits = kernel.clone();
    spawn_service("commits", move || {
        loop {
            std::thread::sleep(COMMIT_INTERVAL);
            if let Err(e) = commits.vfs.commit_all() {
                commits.message(Level::Error, format!("periodic commit: {e}"));
            }
        }
    });
}

fn spawn_service(name: &str, body: impl FnOnce() + Send + 'static) {
    // Without its services the machine would hang in odd ways: the host's refusal of a thread this early is fatal.
    if let Err(e) = std::thread::Builder::new().name(name.to_string()).spawn(body) {
        panic!("cannot start the kernel's {name} thread: {e}");
    }
}

/// Ends all tasks and closes the disk.
fn stop(kernel: &Arc<Kernel>, kernel_task: &Arc<Task>) {
    const SIGKILL: u8 = 9;
    let start = Instant::now();
    let mut pause = Duration::from_micros(50);
    loop {
        for process in kernel.tasks.processes() {
            crate::task::end_process(kernel, &process, crate::task::WaitStatus::Signaled(SIGKILL, false));
        }
        if kernel.tasks.counts().0 == 0 {
            break;
        }
        if start.elapsed() > END_TIMEOUT {
            kernel.message(Level::Error, format!("{} tasks did not end", kernel.tasks.counts().0));
            break;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    drop(core::mem::take(&mut *kernel_task.files.lock()));
    match kernel.vfs.shut_down() {
        Ok(()) => kernel.message(Level::Info, "reboot: file systems unmounted".to_string()),
        Err(e) => kernel.message(Level::Error, format!("unmount: {e}")),
    }
}
