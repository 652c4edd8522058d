//! Open file descriptions (`open(2)`): what descriptors refer to.

use super::{AsyncIo, InodeRef, Location, NotifyEvents, OpenFlags, PollEvents, notify};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, MutexGuard, PollTable};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What can be done with an open file that is not plain data on an inode: pipes, terminals, devices, sockets, `/proc`.
///
/// `offset` is the file position for seekable files, which the VFS keeps; streams ignore it.
pub trait FileOps: Any + Send + Sync {
    /// Reads; blocks unless `O_NONBLOCK` is set (`file.flags()`); 0 at the end.
    fn read(&self, _ctx: &Ctx, _file: &File, _offset: u64, _dst: &mut dyn IoDst) -> Result<usize> {
        Err(Errno::EINVAL.into())
    }

    /// Writes; blocks unless `O_NONBLOCK` is set.
    fn write(&self, _ctx: &Ctx, _file: &File, _offset: u64, _src: &mut dyn IoSrc) -> Result<usize> {
        Err(Errno::EINVAL.into())
    }

    /// What could be done now without blocking. Puts `table`'s sleeper on the queues that a change wakes, before it looks.
    fn poll(&self, _ctx: &Ctx, _file: &File, _table: Option<&mut PollTable>) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    /// Whether the file can be a member of an epoll set; without, it is always ready (`/dev/null`, files of `/proc`).
    fn pollable(&self) -> bool {
        true
    }

    /// `ioctl(2)`.
    fn ioctl(&self, _ctx: &Ctx, _file: &File, _cmd: u32, _arg: u64) -> Result<usize> {
        Err(Errno::ENOTTY.into())
    }

    /// Whether the file has a position (`lseek(2)` gives `ESPIPE` if not). A seekable file does not block in `read`
    /// and `write`: the position's lock is held.
    fn seekable(&self) -> bool {
        false
    }

    /// `lseek(2)` of a file that has ideas of its own about it; `None` for one that has a plain position, or none.
    fn seek(&self, _ctx: &Ctx, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        None
    }

    /// The size that `SEEK_END` counts from, for a seekable file whose inode does not know it (block devices).
    fn size(&self) -> Option<u64> {
        None
    }

    /// `fsync(2)` on a file that is not plain data; `EINVAL` for what has nothing to sync.
    fn sync(&self) -> Result<()> {
        Err(Errno::EINVAL.into())
    }

    /// Whether it can tell of its readiness by signals (`O_ASYNC`): what its poll waits for is told so.
    fn signals(&self) -> bool {
        false
    }

    /// Called at each `close(2)` of a descriptor of it.
    fn flush(&self, _ctx: &Ctx, _file: &File) -> Result<()> {
        Ok(())
    }

    /// What `/proc/PID/fd/N` shows for a file without a path: `"pipe:[12]"`; `None` to show the path.
    fn describe(&self) -> Option<alloc::string::String> {
        None
    }

    /// Further lines of `/proc/PID/fdinfo/N`.
    fn fdinfo(&self, _ctx: &Ctx) -> alloc::string::String {
        alloc::string::String::new()
    }

    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
}

/// Where reads and writes go on. Its lock is held across a read or write of a seekable file, as POSIX asks.
#[derive(Default)]
pub struct Position {
    turn: Mutex<()>,
    at: AtomicU64,
}

/// A turn at a file's position.
pub struct PositionTurn<'a> {
    position: &'a Position,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Position {
    /// The position at this moment, whoever has a turn.
    pub fn now(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }

    /// Waits for a turn, unless the caller knows that nobody else can want one.
    pub fn turn(&self, alone: bool) -> PositionTurn<'_> {
        PositionTurn { position: self, _turn: (!alone).then(|| self.turn.lock()) }
    }
}

impl PositionTurn<'_> {
    /// The position.
    pub fn get(&self) -> u64 {
        self.position.now()
    }

    /// Moves it.
    pub fn set(&self, at: u64) {
        self.position.at.store(at, Ordering::Relaxed);
    }
}

/// What an open file keeps others from doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing.
    None,
    /// Execution: the file is open for writing.
    Write,
    /// Writing: the file is being executed.
    Execute,
}

/// An open file description. The last reference closes it: `FileOps` releases what it holds in its `Drop`.
pub struct File {
    /// Where it was opened; anonymous files (pipes, sockets) hang off a pseudo mount.
    pub location: Location,
    /// The inode.
    pub inode: InodeRef,
    /// `None`: plain data, by the inode's `read_at` and `write_at`.
    pub ops: Option<Box<dyn FileOps>>,
    /// Status flags and access mode (`fcntl(F_GETFL)`).
    flags: AtomicU32,
    /// File position.
    pub position: Position,
    /// Signals that tell of its readiness, once somebody asked for them.
    async_io: Mutex<Option<Arc<AsyncIo>>>,
    hold: Hold,
    /// Opening it has made it (`fcntl(F_CREATED_QUERY)`).
    created: bool,
    /// Has been locked or leased: that goes with the last reference.
    locked: AtomicBool,
}

impl File {
    /// A new open file description at position 0.
    pub fn new(location: Location, inode: InodeRef, ops: Option<Box<dyn FileOps>>, flags: OpenFlags) -> File {
        File {
            location,
            inode,
            ops,
            flags: AtomicU32::new(flags.bits()),
            position: Position::default(),
            async_io: Mutex::new(None),
            hold: Hold::None,
            created: false,
            locked: AtomicBool::new(false),
        }
    }

    /// Takes over a hold that was acquired for this file; the last reference gives it back.
    pub(super) fn holding(mut self, hold: Hold) -> File {
        self.hold = hold;
        self
    }

    /// Notes whether opening the file has made it.
    pub(super) fn created_by(mut self, open: bool) -> File {
        self.created = open;
        self
    }

    /// Whether opening the file has made it.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// Status flags and access mode.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Signals that tell of the file's readiness, if anybody has asked for any.
    pub fn async_io(&self) -> Option<Arc<AsyncIo>> {
        self.async_io.lock().clone()
    }

    /// As [`File::async_io`], to ask for them.
    pub fn async_io_for(&self, ctx: &Ctx) -> Arc<AsyncIo> {
        self.async_io.lock().get_or_insert_with(|| AsyncIo::new(ctx.kernel)).clone()
    }

    /// `fcntl(F_SETFL)` on descriptor `fd`: replaces the changeable status flags; signals begin or end with `O_ASYNC`.
    pub fn change_flags(&self, ctx: &Ctx, fd: i32, new: OpenFlags) {
        let was = self.flags();
        self.set_flags(new);
        let on = new.contains(OpenFlags::ASYNC);
        if was.contains(OpenFlags::ASYNC) != on {
            self.async_io_for(ctx).switch(ctx, self, fd, on);
        }
    }

    /// Replaces the changeable status flags.
    fn set_flags(&self, new: OpenFlags) {
        let changeable =
            OpenFlags::APPEND | OpenFlags::NONBLOCK | OpenFlags::ASYNC | OpenFlags::DIRECT | OpenFlags::NOATIME;
        let kept = self.flags() - changeable;
        self.flags.store((kept | (new & changeable)).bits(), Ordering::Relaxed);
    }

    /// True with `O_NONBLOCK`.
    pub fn nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }

    /// The file's operations as a concrete type.
    pub fn ops_as<T: FileOps>(&self) -> Option<&T> {
        self.ops.as_ref().and_then(|ops| ops.as_any().downcast_ref())
    }

    /// Notes that the file was locked or leased: that goes with its last reference.
    pub fn note_lock(&self) {
        self.locked.store(true, Ordering::Release);
    }

    /// What could be done now without blocking; plain files are always ready.
    pub fn poll(&self, ctx: &Ctx, table: Option<&mut PollTable>) -> PollEvents {
        match &self.ops {
            Some(ops) => ops.poll(ctx, self, table),
            None => PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM,
        }
    }
}

impl Hold {
    /// Acquires the hold: `ETXTBSY` if it is in the way of another.
    pub(super) fn acquire(self, location: &Location) -> Result<()> {
        let common = location.dentry.inode.common();
        match self {
            Hold::None => {}
            Hold::Write => {
                common.map_or(Ok(()), |c| c.get_write())?;
                location.mount.writers.fetch_add(1, Ordering::AcqRel);
            }
            Hold::Execute => common.map_or(Ok(()), |c| c.deny_write())?,
        }
        Ok(())
    }

    /// Gives it back.
    pub(super) fn release(self, location: &Location) {
        let common = location.dentry.inode.common();
        match self {
            Hold::None => {}
            Hold::Write => {
                if let Some(common) = common {
                    common.put_write();
                }
                location.mount.writers.fetch_sub(1, Ordering::AcqRel);
            }
            Hold::Execute => {
                if let Some(common) = common {
                    common.allow_write();
                }
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Of its end nobody is told.
        *self.async_io.get_mut() = None;
        let flags = self.flags();
        if !flags.contains(OpenFlags::PATH) {
            let closed = if flags.writable() { NotifyEvents::CLOSE_WRITE } else { NotifyEvents::CLOSE_NOWRITE };
            notify::at(&self.location, closed);
        }
        self.hold.release(&self.location);
        if *self.locked.get_mut()
            && let Some(common) = self.inode.common()
        {
            common.locks.release_file(self as *const File as usize);
            common.leases.release(self as *const File as usize);
        }
    }
}
