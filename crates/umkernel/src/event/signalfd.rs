//! `signalfd(2)`: signals as data.

use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::IoDst;
use crate::signal::{self, SIGINFO_SIZE, SigSet};
use crate::sync::{Mutex, PollTable};
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;

/// An open set of signals. It gives those of whoever reads it.
pub struct SignalFd {
    mask: Mutex<SigSet>,
}

/// A new file for the signals in `mask`.
pub fn create(ctx: &Ctx, mask: SigSet, nonblocking: bool) -> Arc<File> {
    let ops = SignalFd { mask: Mutex::new(mask.blockable()) };
    let mut open = OpenFlags::RDWR;
    open.set(OpenFlags::NONBLOCK, nonblocking);
    ctx.kernel.vfs.anon_file("anon_inode:[signalfd]", Box::new(ops), open)
}

/// Changes the signals of an open file.
///
/// # Errors
/// `EINVAL` when the file is none of [`create`]'s.
pub fn set_mask(ctx: &Ctx, file: &File, mask: SigSet) -> Result<()> {
    let Some(ops) = file.ops_as::<SignalFd>() else { bail!(EINVAL, "not a signalfd") };
    *ops.mask.lock() = mask.blockable();
    ctx.task.process.signals.arrival.wake_all();
    Ok(())
}

impl FileOps for SignalFd {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        if dst.remaining() < SIGINFO_SIZE {
            bail!(EINVAL, "no room for one signal");
        }
        let take = || {
            let mask = *self.mask.lock();
            signal::dequeue(ctx, mask)
        };
        let mut done = 0;
        while dst.remaining() >= SIGINFO_SIZE {
            let info = match take() {
                Some(info) => info,
                None if done > 0 => break,
                None if file.nonblocking() => bail!(EAGAIN),
                None => ctx.wait_for(&ctx.task.process.signals.arrival, take)?,
            };
            match dst.put(&info.encode_signalfd()) {
                Ok(SIGINFO_SIZE) => done += SIGINFO_SIZE,
                _ if done > 0 => break,
                Ok(_) => bail!(EFAULT),
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn poll(&self, ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&ctx.task.process.signals.arrival);
        }
        let mask = *self.mask.lock();
        if signal::pending(ctx.task).intersects(mask) { PollEvents::IN } else { PollEvents::empty() }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
