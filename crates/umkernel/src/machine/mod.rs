//! The machine: puts a kernel together, boots it from an image, and stops it in good order.
//!
//! It runs in the *kernel process*. The process that the user started watches it from outside (`monitor`), so that the
//! terminal and the exit status are in good hands even if this one is killed.
//!
//! [`run`] and what it calls are `no_std`: on the `direct` platform they run in an image that has neither libc nor `std`.
//! What needs `std`, opening what the user named and saying what is wrong with it, is done before, by `launch`.

mod console;
mod init;
#[cfg(feature = "ptrace")]
pub mod launch;
#[cfg(feature = "ptrace")]
pub mod monitor;
mod oom;
pub mod programs;
pub mod report;
#[cfg(feature = "ptrace")]
pub mod shares;
mod stdio;

use crate::block::{self, Disk, DiskFiles};
use crate::errno::Errno;
use crate::fs::hostfs;
use crate::host::{self, process};
use crate::kernel::{Config, Ctx, Kernel};
use crate::log::Level;
use crate::platform::Platform;
use crate::power::PowerAction;
use crate::signal::SigSet;
use crate::signal::number::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1, SIGWINCH};
use crate::task::{FirstTask, Task};
use crate::trace::{HostStream, Sink, Tracer};
use crate::vfs::{FdTable, FsContext, MountFlags};
use crate::{chardev, fs, time};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// How long tasks may take to end when the machine stops, before that is reported and the disk is closed all the same.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Host signals that the machine listens to. Every thread of the kernel process has them blocked
/// ([`process::block_signals`]), those of the platform included, so that one thread can wait for them.
pub const WATCHED_SIGNALS: SigSet = SigSet::of(&[SIGWINCH, SIGTERM, SIGINT, SIGHUP, SIGUSR1]);

/// What a machine is like and what it runs.
#[derive(Clone, Debug)]
pub struct MachineConfig {
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
}

/// Who looks on from the host.
#[derive(Default)]
pub struct Watchers {
    /// Sees the guests' system calls.
    pub trace: Option<Tracer>,
    /// Gets figures about them when the machine has stopped.
    pub stats: Option<HostStream>,
}

/// What the machine runs.
#[derive(Clone, Debug)]
pub enum Run {
    /// A program as process 1; without a path, the first of Linux's usual ones.
    Init(Option<String>),
    /// One command, then power-off: its arguments, the first its path in the guest.
    Command(Vec<String>),
}

/// A machine's disks.
#[derive(Debug)]
pub struct Disks {
    /// The one with the root file system.
    pub root: DiskFiles,
    /// Number of the partition that has it; `None` for the disk as a whole.
    pub partition: Option<u32>,
    /// Further ones.
    pub others: Vec<DiskFiles>,
}

/// Directories of the host's that the guest sees.
pub struct Shares {
    /// The way to who has them.
    pub channel: hostfs::Channel,
    /// Where the guest sees them.
    pub mounts: Vec<hostfs::ShareMount>,
}

/// What to do about a host that forbids something.
const DOCTOR: &str = "run `umlfs doctor` to see what the host allows";

/// Why a machine could not be booted.
#[derive(Debug)]
pub struct BootError {
    /// What is wrong, and where.
    pub what: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl BootError {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> BootError {
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

/// Boots a machine and runs it until it stops. The calling thread, and the platform's if it has any, have
/// [`WATCHED_SIGNALS`] blocked.
///
/// The threads of the machine's services outlive it: the kernel process is to end when this returns.
///
/// # Errors
/// Before any guest code ran: the image, the host's rights, or a program that cannot be started.
pub fn run(
    config: &MachineConfig,
    platform: Box<dyn Platform>,
    disks: Disks,
    shares: Option<Shares>,
    watchers: Watchers,
) -> Result<Outcome, BootError> {
    let kernel = new_kernel(config, platform, watchers.trace, watchers.stats.is_some())?;
    let console = console::Console::start(&kernel, config)?;
    boot_messages(&kernel, config);
    let kernel_task = mount_root(&kernel, disks)?;
    let stdio = match start(&kernel, &kernel_task, config, shares, &console) {
        Ok(stdio) => stdio,
        Err(e) => {
            stop(&kernel, &kernel_task);
            return Err(e);
        }
    };

    let action = kernel.power.wait();
    stop(&kernel, &kernel_task);
    stdio.drain();
    if let (Some(stream), Some(profile)) = (watchers.stats, &kernel.profile) {
        stream.write(&profile.show(&kernel));
    }
    Ok(match action {
        PowerAction::Off(code) => Outcome::Off(code),
        PowerAction::Halt => Outcome::Off(0),
        PowerAction::Restart => Outcome::Restart,
        PowerAction::Panic => Outcome::Panic,
    })
}

fn new_kernel(
    config: &MachineConfig,
    platform: Box<dyn Platform>,
    trace: Option<Tracer>,
    profile: bool,
) -> Result<Arc<Kernel>, BootError> {
    /// Memory that a task takes on the host, guest and kernel side together, at the least.
    const TASK_MEMORY: u64 = 256 * 1024;
    let max_tasks = (config.memory / TASK_MEMORY).clamp(64, 16_384) as usize;
    let command_line = config.command_line.clone();
    let config = Config { memory: config.memory, cpus: config.cpus, max_tasks, command_line, profile };
    let kernel = Kernel::new(platform, config, trace)
        .map_err(|e| BootError::new(format!("cannot make a memory file: {e}"), "the host needs memfd_create(2)"))?;
    let started = kernel.platform.start(&kernel);
    started.map_err(|e| BootError::new(format!("cannot start guest processes: {e}"), DOCTOR))?;
    Ok(kernel)
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

/// Makes devices of a disk and its partitions.
fn attach(kernel: &Kernel, files: DiskFiles) -> Result<Vec<Arc<Disk>>, BootError> {
    let name = files.name.clone();
    let disk = Disk::open(files).map_err(|e| BootError::new(format!("{name}: the overlay cannot be read: {e}"), ""))?;
    let parts = block::scan(kernel, &disk);
    let all: Vec<_> = [disk].into_iter().chain(parts).collect();
    all.iter().for_each(|disk| block::register(&kernel.vfs, disk));
    Ok(all)
}

fn mount_root(kernel: &Arc<Kernel>, disks: Disks) -> Result<Arc<Task>, BootError> {
    let Disks { root, partition, others } = disks;
    let (path, read_only) = (root.name.clone(), root.read_only);
    fs::register(&kernel.vfs);
    chardev::register(kernel);
    block::register_loops(&kernel.vfs);
    let disks = attach(kernel, root)?;
    for other in others {
        attach(kernel, other)?;
    }
    let root_disk = disks.iter().find(|disk| disk.partition() == partition).ok_or_else(|| {
        let number = partition.unwrap_or(0);
        BootError::new(
            format!("{path} has no partition {number}"),
            format!("`umlfs image info {path}` tells what it has"),
        )
    })?;
    let root = fs::ext4::Ext4Fs::mount(root_disk, read_only).map_err(|e| {
        BootError::new(
            format!("cannot mount {path}: {e}"),
            format!("`umlfs image info {path}` tells what the file holds"),
        )
    })?;
    let name = crate::vfs::FileSystem::name(&*root);
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, read_only);
    let location = (kernel.vfs.mount_root(root, b"/dev/root", flags))
        .map_err(|e| BootError::new(format!("cannot mount {path}: {e}"), ""))?;
    let mode = if read_only { "read-only" } else { "read-write" };
    kernel.message(Level::Info, format!("VFS: mounted root ({name} file system) {mode} on /dev/{}", root_disk.name()));
    Ok(kernel_task(kernel, location))
}

/// Starts the services and the first program.
fn start(
    kernel: &Arc<Kernel>,
    kernel_task: &Arc<Task>,
    config: &MachineConfig,
    shares: Option<Shares>,
    console: &console::Console,
) -> Result<stdio::Stdio, BootError> {
    start_services(kernel)?;
    init::mount_devices(kernel, kernel_task);
    shares.map_or(Ok(()), |shares| mount_shares(&Ctx { kernel, task: kernel_task }, shares))?;
    let stdio = stdio::Stdio::connect(kernel, kernel_task, console, config)?;
    init::start(kernel, kernel_task, config, &stdio)?;
    Ok(stdio)
}

fn mount_shares(ctx: &Ctx, shares: Shares) -> Result<(), BootError> {
    let channel = Arc::new(shares.channel);
    hostfs::mount_shares(ctx, &channel, &shares.mounts).map_err(|(share, e)| {
        let guest = &share.guest;
        match e.errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::EROFS => {
                let what = format!("there is no directory {guest} in the guest, and it cannot be made: {e}");
                BootError::new(what, "name one that the image has, or boot without `ro`")
            }
            _ => BootError::new(format!("cannot mount the share on {guest}: {e}"), ""),
        }
    })
}

/// Host threads that work for the kernel as long as the machine runs.
fn start_services(kernel: &Arc<Kernel>) -> Result<(), BootError> {
    /// Between the journal's commits (`commit=` of ext4).
    const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
    let timers = kernel.clone();
    spawn_service(kernel, "timers", move || time::run(&timers))?;
    let memory = kernel.clone();
    spawn_service(kernel, "memory", move || oom::watch(&memory))?;
    let commits = kernel.clone();
    spawn_service(kernel, "commits", move || {
        loop {
            process::sleep(COMMIT_INTERVAL);
            if let Err(e) = commits.vfs.commit_all() {
                commits.message(Level::Error, format!("periodic commit: {e}"));
            }
        }
    })
}

fn spawn_service(kernel: &Kernel, name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), BootError> {
    let started = kernel.platform.spawn_host_thread(name, Box::new(body));
    started.map_err(|e| BootError::new(format!("cannot start the kernel's {name} thread: {e}"), ""))
}

/// Ends all tasks and closes the disk.
fn stop(kernel: &Arc<Kernel>, kernel_task: &Arc<Task>) {
    let give_up = host::monotonic_ns().saturating_add(END_TIMEOUT.as_nanos() as u64);
    let mut pause = Duration::from_micros(50);
    loop {
        for process in kernel.tasks.processes() {
            crate::task::end_process(kernel, &process, crate::task::WaitStatus::Signaled(SIGKILL, false));
        }
        if kernel.tasks.counts().0 == 0 {
            break;
        }
        if host::monotonic_ns() > give_up {
            kernel.message(Level::Error, format!("{} tasks did not end", kernel.tasks.counts().0));
            break;
        }
        process::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    // SAFETY: this thread runs the kernel's task, and no call of it is under way.
    drop(unsafe { kernel_task.files.replace(Arc::default()) });
    match kernel.vfs.shut_down() {
        Ok(()) => kernel.message(Level::Info, "reboot: file systems unmounted".to_string()),
        Err(e) => kernel.message(Level::Error, format!("unmount: {e}")),
    }
}
