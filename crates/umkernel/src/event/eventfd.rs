//! `eventfd(2)`: a counter to wait for.

use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;

bitflags::bitflags! {
    /// Flags of `eventfd2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EventFdFlags: u32 {
        /// A read takes 1 rather than all.
        const SEMAPHORE = 1;
        /// As `O_NONBLOCK`.
        const NONBLOCK = 0o4000;
        /// As `O_CLOEXEC`.
        const CLOEXEC = 0o2000000;
    }
}

/// The highest value that the counter reaches by writes.
const MAX: u64 = u64::MAX - 1;

/// An open counter.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    changed: Arc<WaitQueue>,
}

/// A new counter.
pub fn create(ctx: &Ctx, initial: u32, flags: EventFdFlags) -> Arc<File> {
    let ops = EventFd {
        count: Mutex::new(u64::from(initial)),
        semaphore: flags.contains(EventFdFlags::SEMAPHORE),
        changed: Arc::default(),
    };
    let mut open = OpenFlags::RDWR;
    open.set(OpenFlags::NONBLOCK, flags.contains(EventFdFlags::NONBLOCK));
    ctx.kernel.vfs.anon_file("anon_inode:[eventfd]", Box::new(ops), open)
}

impl EventFd {
    fn take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let value = if self.semaphore { (*count).min(1) } else { *count };
        *count -= value;
        (value > 0).then_some(value)
    }

    /// Adds 1, unless the counter is full, and wakes who waits for it.
    pub fn signal(&self) {
        if self.add(1).is_some() {
            self.changed.wake_all();
        }
    }

    fn add(&self, value: u64) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_add(value).filter(|&sum| sum <= MAX)?;
        Some(())
    }
}

impl FileOps for EventFd {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        if dst.remaining() < 8 {
            bail!(EINVAL, "a counter is 8 bytes");
        }
        let value = match self.take() {
            Some(value) => value,
            None if file.nonblocking() => bail!(EAGAIN),
            None => ctx.wait_for(&self.changed, || self.take())?,
        };
        self.changed.wake_all();
        if dst.put(&value.to_le_bytes())? < 8 {
            bail!(EFAULT);
        }
        Ok(8)
    }

    fn write(&self, ctx: &Ctx, file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let mut raw = [0; 8];
        if src.remaining() < raw.len() {
            bail!(EINVAL, "a counter is 8 bytes");
        }
        if src.take(&mut raw)? < raw.len() {
            bail!(EFAULT);
        }
        let value = u64::from_le_bytes(raw);
        if value == u64::MAX {
            bail!(EINVAL);
        }
        match self.add(value) {
            Some(()) => {}
            None if file.nonblocking() => bail!(EAGAIN),
            None => ctx.wait_for(&self.changed, || self.add(value))?,
        }
        self.changed.wake_all();
        Ok(raw.len())
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.changed);
        }
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN, count > 0);
        events.set(PollEvents::OUT, count < MAX);
        events
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
