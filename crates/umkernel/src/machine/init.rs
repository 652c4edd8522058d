//! The first processes: init, or the one command of `umlfs boot --exec` under a small init of the kernel's own.

use super::programs::{INITS, environment, places};
use super::stdio::Stdio;
use super::{BootError, MachineConfig, Run};
use crate::kernel::{Ctx, Kernel};
use crate::loader::Strings;
use crate::log::Level;
use crate::power::PowerAction;
use crate::sync::oneshot;
use crate::task::{self, FirstTask, Program, Task, WaitOptions, WaitStatus, Which};
use crate::vfs::{AT_FDCWD, FdTable, MountFlags, WalkFlags};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Starts what the machine is to run; returns when it has started, or with the reason why it could not.
pub(super) fn start(
    kernel: &Arc<Kernel>,
    kernel_task: &Arc<Task>,
    config: &MachineConfig,
    stdio: &Stdio,
) -> Result<(), BootError> {
    match &config.run {
        Run::Init(path) => start_init(kernel, kernel_task, config, stdio, path.as_deref()),
        Run::Command(argv) => {
            mount_for_command(&Ctx { kernel, task: kernel_task });
            start_command(kernel, kernel_task, config, stdio, argv)
        }
    }
}

/// `/dev` is there before init, as with `CONFIG_DEVTMPFS_MOUNT`.
pub(super) fn mount_devices(kernel: &Arc<Kernel>, kernel_task: &Arc<Task>) {
    mount(&Ctx { kernel, task: kernel_task }, "devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755");
}

/// Names of a process's own descriptors in `/dev`, which udev makes as a rule, and many a script takes for granted.
const DESCRIPTORS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// What boot scripts would have mounted and made.
fn mount_for_command(ctx: &Ctx) {
    let closed = MountFlags::NOSUID | MountFlags::NODEV;
    mount(ctx, "proc", "/proc", closed | MountFlags::NOEXEC, "");
    mount(ctx, "sysfs", "/sys", closed | MountFlags::NOEXEC, "");
    mount(ctx, "devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, "gid=5,mode=620,ptmxmode=666");
    mount(ctx, "tmpfs", "/dev/shm", closed, "mode=1777");
    mount(ctx, "tmpfs", "/run", closed, "mode=0755");
    for (name, target) in DESCRIPTORS {
        // An image without the directory does without.
        let _ = ctx.kernel.vfs.symlink(ctx, target.as_bytes(), AT_FDCWD, name.as_bytes());
    }
}

/// Mounts a file system of the kernel's own. An image without the directory does without it.
fn mount(ctx: &Ctx, kind: &str, at: &str, flags: MountFlags, data: &str) {
    let vfs = &ctx.kernel.vfs;
    // Within /dev, which the kernel has just made, the directory is missing; elsewhere it is the image's to have.
    if at.starts_with("/dev/") {
        let _ = vfs.mkdir(ctx, AT_FDCWD, at.as_bytes(), 0o755);
    }
    let mounted = vfs
        .resolve(ctx, AT_FDCWD, at.as_bytes(), WalkFlags::FOLLOW | WalkFlags::DIRECTORY)
        .and_then(|at| vfs.mount_new(ctx, &at, kind.as_bytes(), kind.as_bytes(), flags, data));
    if let Err(e) = mounted {
        ctx.kernel.message(Level::Warning, format!("{kind}: cannot mount on {at}: {e}"));
    }
}

fn new_task(kernel: &Kernel, kernel_task: &Task, name: &'static [u8], pid: i32) -> Arc<Task> {
    let fs = Arc::new(kernel_task.fs().duplicate());
    FirstTask { pid, name, fs, files: Arc::new(FdTable::default()) }.create(kernel)
}

fn give_files(task: &Task, stdio: &Stdio) {
    for file in &stdio.files {
        // Three descriptors are within any limit.
        let _ = task.files().insert(file.clone(), false, 0, 3);
    }
}

fn strings(args: &[String], env: &[(String, String)]) -> Strings {
    Strings {
        args: args.iter().map(|a| a.clone().into_bytes()).collect(),
        env: env.iter().map(|(k, v)| format!("{k}={v}").into_bytes()).collect(),
    }
}

fn start_init(
    kernel: &Arc<Kernel>,
    kernel_task: &Arc<Task>,
    config: &MachineConfig,
    stdio: &Stdio,
    path: Option<&str>,
) -> Result<(), BootError> {
    let pid = kernel.new_pid().map_err(|e| BootError::new(format!("no process id for init: {e}"), ""))?;
    let task = new_task(kernel, kernel_task, b"init", pid);
    kernel.tasks.insert(&task);
    give_files(&task, stdio);
    let candidates = path.map_or(INITS.to_vec(), |p| vec![p]);
    let env = environment(config);
    let programs = candidates
        .iter()
        .map(|p| Program { path: p.as_bytes().to_vec(), strings: strings(&[p.to_string()], &env) })
        .collect();
    kernel.message(Level::Info, format!("Run {} as init process", candidates[0]));
    run_first(kernel, &task, programs).map_err(|e| match path {
        Some(path) => BootError::new(format!("cannot run init {path}: {e}"), "`init=` names a program in the image"),
        None => BootError::new(
            format!("no working init: none of {} runs: {e}", INITS.join(", ")),
            "name one with init=PATH, or run one command with --exec",
        ),
    })
}

/// Starts a program and waits until it has started.
fn run_first(kernel: &Arc<Kernel>, task: &Arc<Task>, programs: Vec<Program>) -> crate::Result<()> {
    let (tell, told) = oneshot();
    let started = Box::new(move |result| tell.send(result));
    task::start_program(kernel, task, programs, started)?;
    told.receive().unwrap_or(Err(crate::Errno::ESRCH.into()))
}

/// Process 1 is a kernel thread that waits for the command and for orphans, then powers off.
fn start_command(
    kernel: &Arc<Kernel>,
    kernel_task: &Arc<Task>,
    config: &MachineConfig,
    stdio: &Stdio,
    argv: &[String],
) -> Result<(), BootError> {
    let env = environment(config);
    let new_pid = || kernel.new_pid();
    let no_pid = |e| BootError::new(format!("no process id: {e}"), "");
    let init = new_task(kernel, kernel_task, b"init", new_pid().map_err(no_pid)?);
    kernel.tasks.insert(&init);
    let command = new_task(kernel, kernel_task, b"command", new_pid().map_err(no_pid)?);
    kernel.tasks.insert(&command);
    command.process.set_parent(&mut command.process.inner.lock(), &init.process);
    init.process.inner.lock().children.push(command.process.clone());
    give_files(&command, stdio);
    stdio.give_terminal(&command);

    let name = argv.first().cloned().unwrap_or_default();
    let programs = places(&name)
        .into_iter()
        .map(|path| Program { path: path.into_bytes(), strings: strings(argv, &env) })
        .collect();
    let pid = command.process.pid;
    let result = run_first(kernel, &command, programs);
    kernel
        .platform
        .spawn_kernel_thread(kernel, &init, Box::new(move |ctx| reap_until(ctx, pid)))
        .map_err(|e| BootError::new(format!("cannot start process 1: {e}"), ""))?;
    result.map_err(|e| {
        BootError::new(format!("cannot run {name} in the guest: {e}"), "`umlfs image ls` shows what the image holds")
    })
}

fn reap_until(ctx: &Ctx, pid: i32) {
    let code = loop {
        match task::wait(ctx, Which::Any, WaitOptions::EXITED | WaitOptions::ALL) {
            Ok(Some(found)) if found.pid == pid => {
                break match found.status {
                    WaitStatus::Exited(code) => code,
                    WaitStatus::Signaled(signal, _) => 128 + signal,
                    WaitStatus::Stopped(_) | WaitStatus::Trapped(_) | WaitStatus::Continued => continue,
                };
            }
            Ok(_) => {}
            // A stop from elsewhere: the machine is on its way down.
            Err(_) => break 0,
        }
    };
    ctx.kernel.power(PowerAction::Off(code));
    ctx.kernel.tasks.remove_task(ctx.task.tid());
}
