//! `pidfd_open(2)`: a descriptor for a process, which stays that process's when the number is used again.

use super::{Process, ProcessState};
use crate::bail;
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::sync::PollTable;
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

/// The open file.
pub struct PidFd {
    process: Arc<Process>,
}

/// A new descriptor's file; its flags are those of the descriptor, `O_NONBLOCK` or none.
pub fn create(ctx: &Ctx, process: Arc<Process>, flags: OpenFlags) -> Arc<File> {
    ctx.kernel.vfs.anon_file("anon_inode:[pidfd]", Box::new(PidFd { process }), OpenFlags::RDWR | flags)
}

/// The process that an open file stands for.
///
/// # Errors
/// `EBADF` for any other file.
pub fn process_of(file: &File) -> Result<&Arc<Process>> {
    match file.ops_as::<PidFd>() {
        Some(pidfd) => Ok(&pidfd.process),
        None => bail!(EBADF, "no descriptor of a process"),
    }
}

/// Whether a process has been waited for: its number may be another's by now.
pub fn is_reaped(kernel: &Kernel, process: &Arc<Process>) -> bool {
    !kernel.tasks.process(process.pid).is_some_and(|known| Arc::ptr_eq(&known, process))
}

impl FileOps for PidFd {
    /// Readable once the process has ended, hung up once it has been waited for.
    fn poll(&self, ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.process.exit_event);
        }
        let mut events = PollEvents::empty();
        let ended = matches!(self.process.inner.lock().state, ProcessState::Zombie(_));
        events.set(PollEvents::IN | PollEvents::RDNORM, ended);
        events.set(PollEvents::HUP, ended && is_reaped(ctx.kernel, &self.process));
        events
    }

    fn fdinfo(&self, ctx: &Ctx) -> String {
        let pid = if is_reaped(ctx.kernel, &self.process) { -1 } else { self.process.pid };
        alloc::format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
