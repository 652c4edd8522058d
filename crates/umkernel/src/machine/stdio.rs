//! Standard input, output and error of `umlfs boot --exec`: the caller's own, each by itself.
//!
//! A stream that is a terminal becomes the guest's console; anything else becomes a guest pipe, which a kernel task pumps
//! from or to the host.

use super::console::{Console, is_terminal};
use super::{BootError, MachineConfig, Run};
use crate::host;
use crate::kernel::{Ctx, Kernel};
use crate::mm::{KernelDst, KernelSrc};
use crate::task::{FirstTask, Task};
use crate::tty::{Tty, TtyFile};
use crate::vfs::{AT_FDCWD, File, OpenFlags};
use nix::libc;
use std::boxed::Box;
use std::format;
use std::sync::{Arc, mpsc};
use std::vec;
use std::vec::Vec;

/// Bytes that a pump moves at once: as many as the guest's pipe holds.
const CHUNK: usize = 64 * 1024;

/// The three standard streams of the first program.
pub(super) struct Stdio {
    /// Descriptors 0, 1 and 2.
    pub(super) files: Vec<Arc<File>>,
    /// One message for each output pump that has seen the end of its pipe.
    done: Vec<mpsc::Receiver<()>>,
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
            if matches!(config.run, Run::Init(_)) || is_terminal(fd) {
                stdio.files.push(terminal.clone());
                stdio.terminal = Some(console.tty.clone());
                continue;
            }
            let (read, write) = kernel.vfs.pipe(&ctx, OpenFlags::empty());
            if fd == 0 {
                stdio.files.push(read);
                pump(kernel, task, Box::new(move |ctx| pump_in(ctx, &write)));
            } else {
                stdio.files.push(write);
                let (done, wait) = mpsc::channel();
                stdio.done.push(wait);
                pump(
                    kernel,
                    task,
                    Box::new(move |ctx| {
                        pump_out(ctx, &read, fd);
                        // The receiver may have given up; then nobody needs to know.
                        let _ = done.send(());
                    }),
                );
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
        self.done.iter().for_each(|done| _ = done.recv());
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
fn pump(kernel: &Arc<Kernel>, parent: &Arc<Task>, body: Box<dyn FnOnce(&Ctx) + Send>) {
    let task = FirstTask { pid: 0, name: b"pump", fs: parent.fs(), files: Arc::default() }.create(kernel);
    if let Err(e) = kernel.platform.spawn_kernel_thread(kernel, &task, body) {
        panic!("cannot start a pump: {e}");
    }
}

/// Host input to guest pipe, until either ends.
fn pump_in(ctx: &Ctx, pipe: &Arc<File>) {
    let mut buf = vec![0; CHUNK];
    loop {
        // SAFETY: the buffer is ours and writable.
        let n = unsafe { libc::read(0, buf.as_mut_ptr().cast(), buf.len()) };
        match n {
            0 => return,
            n if n > 0 => {
                let mut rest = &buf[..n as usize];
                while !rest.is_empty() {
                    match pipe.write(ctx, &mut KernelSrc::new(rest)) {
                        Ok(n) => rest = &rest[n..],
                        Err(_) => return,
                    }
                }
            }
            _ => match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => wait_for(0, libc::POLLIN),
                _ => return,
            },
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
        let mut rest = &buf[..n];
        while !rest.is_empty() {
            match host::write(fd, rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e == crate::Errno::EINTR => {}
                Err(e) if e == crate::Errno::EAGAIN => wait_for(fd, libc::POLLOUT),
                // Nobody reads any more: closing the pipe tells the guest's writers (SIGPIPE).
                Err(_) => return,
            }
        }
    }
}

fn wait_for(fd: i32, events: i16) {
    let mut fd = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd of ours.
    unsafe { libc::poll(&raw mut fd, 1, -1) };
}
