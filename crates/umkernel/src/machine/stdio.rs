//! Standard input, output and error of `umlfs boot --exec`: the caller's own, each by itself.
//!
//! A stream that is a terminal becomes the guest's console; anything else becomes a guest pipe, which a kernel task pumps
//! from or to the host.

use super::console::Console;
use super::{BootError, MachineConfig, Run};
use crate::Errno;
use crate::host::{self, Ready, process};
use crate::kernel::{Ctx, Kernel};
use crate::mm::{KernelDst, KernelSrc};
use crate::platform::KernelThreadFn;
use crate::sync::{Receiver, oneshot};
use crate::task::{FirstTask, Task};
use crate::tty::{Tty, TtyFile};
use crate::vfs::{AT_FDCWD, File, OpenFlags};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes that a pump moves at once: as many as the guest's pipe holds.
const CHUNK: usize = 64 * 1024;

/// The three standard streams of the first program.
pub(super) struct Stdio {
    /// Descriptors 0, 1 and 2.
    pub(super) files: Vec<Arc<File>>,
    /// One message for each output pump that has seen the end of its pipe.
    done: Vec<Receiver<()>>,
    /// The console, if one of the streams is it.
    terminal: Option<Arc<Tty>>,
}

impl Stdio {
    /// Opens the console, or pipes where the command's streams are no terminal.
    pub(super) fn connect(
        kernel: &Arc<Kernel>,
        task: &Arc<Task>,
        console: &Console,
        config: &MachineConfig,
    ) -> Result<Stdio, BootError> {
        let ctx = Ctx { kernel, task };
        let terminal = open_console(&ctx).map_err(|e| BootError::new(format!("cannot open the console: {e}"), ""))?;
        let mut stdio = Stdio { files: Vec::new(), done: Vec::new(), terminal: None };
        for fd in 0..3 {
            if matches!(config.run, Run::Init(_)) || process::is_terminal(fd) {
                stdio.files.push(terminal.clone());
                stdio.terminal = Some(console.tty.clone());
                continue;
            }
            let (read, write) = kernel.vfs.pipe(&ctx, OpenFlags::empty());
            if fd == 0 {
                stdio.files.push(read);
                pump(kernel, task, Box::new(move |ctx| pump_in(ctx, &write)))?;
            } else {
                stdio.files.push(write);
                let (done, wait) = oneshot();
                stdio.done.push(wait);
                let body = move |ctx: &Ctx| {
                    pump_out(ctx, &read, fd);
                    done.send(());
                };
                pump(kernel, task, Box::new(body))?;
            }
        }
        Ok(stdio)
    }

    /// Makes the console the controlling terminal of a command that has it among its streams, with job control.
    pub(super) fn give_terminal(&self, task: &Arc<Task>) {
        if let Some(tty) = &self.terminal {
            tty.become_controlling(&task.process);
        }
    }

    /// Waits until what the guest wrote has left for the host. All its writers have ended.
    pub(super) fn drain(mut self) {
        self.files.clear();
        // A pump that has gone has nothing left to say.
        self.done.into_iter().for_each(|done| _ = done.receive());
    }
}

/// `/dev/console`, or the same terminal without a name where the image and the kernel have no such node.
fn open_console(ctx: &Ctx) -> crate::Result<Arc<File>> {
    let flags = OpenFlags::RDWR | OpenFlags::NOCTTY;
    ctx.kernel.vfs.open(ctx, AT_FDCWD, b"/dev/console", flags, 0).or_else(|_| {
        let ops = TtyFile::open_console(ctx)?;
        Ok(ctx.kernel.vfs.anon_file("/dev/console", ops, flags))
    })
}

/// Starts a pump as a task of its own: a task sleeps in one place at a time.
fn pump(kernel: &Arc<Kernel>, parent: &Arc<Task>, body: KernelThreadFn) -> Result<(), BootError> {
    let task = FirstTask { pid: 0, name: b"pump", fs: parent.fs(), files: Arc::default() }.create(kernel);
    let started = kernel.platform.spawn_kernel_thread(kernel, &task, body);
    started.map_err(|e| BootError::new(format!("cannot connect the standard streams: {e}"), ""))
}

/// Host input to guest pipe, until either ends.
fn pump_in(ctx: &Ctx, pipe: &Arc<File>) {
    let mut buf = vec![0; CHUNK];
    loop {
        match host::read(0, &mut buf) {
            Ok(0) => return,
            Ok(n) => {
                let mut rest = &buf[..n];
                while !rest.is_empty() {
                    match pipe.write(ctx, &mut KernelSrc::new(rest)) {
                        Ok(n) => rest = &rest[n..],
                        Err(_) => return,
                    }
                }
            }
            Err(e) if e == Errno::EINTR => {}
            Err(e) if e == Errno::EAGAIN => host::wait_ready(0, Ready::Read),
            Err(_) => return,
        }
    }
}

/// Guest pipe to host output, until either ends.
fn pump_out(ctx: &Ctx, pipe: &Arc<File>, fd: i32) {
    let mut buf = vec![0; CHUNK];
    loop {
        let n = match pipe.read(ctx, &mut KernelDst::new(&mut buf)) {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        // When nobody reads any more, closing the pipe tells the guest's writers (SIGPIPE).
        if host::write_all(fd, &buf[..n]).is_err() {
            return;
        }
    }
}
