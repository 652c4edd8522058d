//! Pipes and FIFOs (`pipe(7)`, `fifo(7)`).

use super::{File, FileOps, FileType, Location, OpenFlags, PollEvents, Vfs};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::task::Capabilities;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// Bytes that a new pipe holds.
const DEFAULT_CAPACITY: usize = 65536;
/// Largest size that `F_SETPIPE_SZ` gives without `CAP_SYS_RESOURCE` (`/proc/sys/fs/pipe-max-size`).
const UNPRIVILEGED_MAX: usize = 1 << 20;
/// Writes of up to this many bytes are atomic.
const PIPE_BUF: usize = 4096;
/// `FIONREAD` of `ioctl(2)`: bytes that can be read.
const FIONREAD: u32 = 0x541b;

/// A pipe: a ring of bytes between its readers and its writers.
pub struct Pipe {
    state: Mutex<State>,
    /// Woken when bytes came, or the last writer went.
    readable: Arc<WaitQueue>,
    /// Woken when room came, or the last reader went.
    writable: Arc<WaitQueue>,
    /// Woken when an end of a FIFO was opened.
    opened: WaitQueue,
}

struct State {
    /// Allocated with the first write.
    ring: Vec<u8>,
    capacity: usize,
    head: usize,
    len: usize,
    readers: usize,
    writers: usize,
    /// How often an end was opened: what the other end's `open` waits for.
    reader_opens: u64,
    writer_opens: u64,
}

impl State {
    fn free(&self) -> usize {
        self.capacity - self.len
    }

    /// Room that is worth waking a writer for.
    fn roomy(&self) -> bool {
        self.free() >= PIPE_BUF
    }

    /// Moves bytes from the ring to `dst`.
    fn pop(&mut self, dst: &mut dyn IoDst) -> Result<usize> {
        let mut done = 0;
        while self.len > 0 && dst.remaining() > 0 {
            let run = self.len.min(self.capacity - self.head);
            let piece = &self.ring[self.head..self.head + run];
            let n = match dst.put(piece) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            self.drop_front(n);
            done += n;
            if n < run {
                break;
            }
        }
        Ok(done)
    }

    fn drop_front(&mut self, n: usize) {
        self.len -= n;
        self.head = if self.len == 0 { 0 } else { (self.head + n) % self.capacity };
    }

    /// Moves up to `max` bytes from `src` to the ring.
    fn push(&mut self, src: &mut dyn IoSrc, max: usize) -> Result<usize> {
        if self.ring.is_empty() {
            self.ring.resize(self.capacity, 0);
        }
        let mut left = max.min(self.free());
        let mut done = 0;
        while left > 0 {
            let tail = (self.head + self.len) % self.capacity;
            let run = left.min(self.capacity - tail);
            let n = match src.take(&mut self.ring[tail..tail + run]) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            self.len += n;
            done += n;
            left -= n;
            if n < run {
                break;
            }
        }
        Ok(done)
    }
}

impl Pipe {
    /// A pipe that is open nowhere yet.
    pub fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            state: Mutex::new(State {
                ring: Vec::new(),
                capacity: DEFAULT_CAPACITY,
                head: 0,
                len: 0,
                readers: 0,
                writers: 0,
                reader_opens: 0,
                writer_opens: 0,
            }),
            readable: Arc::default(),
            writable: Arc::default(),
            opened: WaitQueue::new(),
        })
    }

    /// One end, or for a FIFO both.
    fn end(self: &Arc<Pipe>, read: bool, write: bool, ino: Option<u64>) -> PipeEnd {
        let mut state = self.state.lock();
        if read {
            state.readers += 1;
            state.reader_opens += 1;
        }
        if write {
            state.writers += 1;
            state.writer_opens += 1;
        }
        PipeEnd { pipe: self.clone(), read, write, ino, writers_before: state.writer_opens - u64::from(write) }
    }

    /// Opens a FIFO: waits for the other end unless both are opened or `O_NONBLOCK` is set.
    pub(super) fn open_fifo(ctx: &Ctx, location: &Location, flags: OpenFlags) -> Result<Box<dyn FileOps>> {
        let inode = &location.dentry.inode;
        let Some(common) = inode.common() else {
            bail!(ENXIO);
        };
        let pipe = {
            let mut slot = common.pipe.lock();
            match slot.upgrade() {
                Some(pipe) => pipe,
                None => {
                    let pipe = Pipe::new();
                    *slot = Arc::downgrade(&pipe);
                    pipe
                }
            }
        };
        let (read, write) = (flags.readable(), flags.writable());
        let nonblocking = flags.contains(OpenFlags::NONBLOCK);
        if write && !read && nonblocking && pipe.state.lock().readers == 0 {
            bail!(ENXIO);
        }
        let end = pipe.end(read, write, None);
        pipe.opened.wake_all();
        if read && write || nonblocking {
            return Ok(Box::new(end));
        }
        // The count tells of an end that was opened and closed again while this task slept.
        let (before, there) = {
            let state = pipe.state.lock();
            if read { (state.writer_opens, state.writers > 0) } else { (state.reader_opens, state.readers > 0) }
        };
        if !there {
            ctx.wait_for(&pipe.opened, || {
                let state = pipe.state.lock();
                let now = if read { state.writer_opens } else { state.reader_opens };
                (now != before).then_some(())
            })?;
        }
        Ok(Box::new(end))
    }

    fn read(&self, ctx: &Ctx, nonblocking: bool, dst: &mut dyn IoDst) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        loop {
            let mut state = self.state.lock();
            if state.len > 0 {
                let was_roomy = state.roomy();
                let result = state.pop(dst);
                let wake = !was_roomy && state.roomy();
                drop(state);
                if wake {
                    self.writable.wake_all();
                }
                return result;
            }
            if state.writers == 0 {
                return Ok(0);
            }
            drop(state);
            if nonblocking {
                bail!(EAGAIN);
            }
            ctx.wait_for(&self.readable, || {
                let state = self.state.lock();
                (state.len > 0 || state.writers == 0).then_some(())
            })?;
        }
    }

    fn write(&self, ctx: &Ctx, nonblocking: bool, src: &mut dyn IoSrc) -> Result<usize> {
        let total = src.remaining();
        if total == 0 {
            return Ok(0);
        }
        let mut done = 0;
        loop {
            let left = total - done;
            // What must fit at once: all of a small write; of a large one as much as a reader makes room for.
            let need = left.min(PIPE_BUF);
            let mut state = self.state.lock();
            if state.readers == 0 {
                drop(state);
                super::raise(ctx, crate::signal::number::SIGPIPE);
                return if done > 0 { Ok(done) } else { Err(Errno::EPIPE.into()) };
            }
            let fits = state.free() >= need || nonblocking && total > PIPE_BUF && state.free() > 0;
            if fits {
                let result = state.push(src, left);
                drop(state);
                match result {
                    Ok(n) => done += n,
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => return Ok(done),
                }
                self.readable.wake_all();
                if done == total || src.remaining() == 0 {
                    return Ok(done);
                }
                continue;
            }
            drop(state);
            if nonblocking {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN.into()) };
            }
            let woken = ctx.wait_for(&self.writable, || {
                let state = self.state.lock();
                (state.readers == 0 || state.free() >= need).then_some(())
            });
            match woken {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
        }
    }

    /// Bytes in the pipe.
    pub fn len(&self) -> usize {
        self.state.lock().len
    }

    /// Whether there are no bytes in the pipe.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `fcntl(F_GETPIPE_SZ)`.
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity
    }

    /// `fcntl(F_SETPIPE_SZ)`: rounds up to a power of two of pages; `EBUSY` when the bytes inside would not fit.
    pub fn set_capacity(&self, ctx: &Ctx, bytes: usize) -> Result<usize> {
        const PAGE: usize = 4096;
        if bytes > 1 << 31 {
            bail!(EINVAL);
        }
        let new = bytes.max(PAGE).next_power_of_two();
        if new > UNPRIVILEGED_MAX && !ctx.task.creds().capable(Capabilities::SYS_RESOURCE) {
            bail!(EPERM);
        }
        let mut state = self.state.lock();
        if state.len > new {
            bail!(EBUSY);
        }
        if !state.ring.is_empty() {
            let mut ring = alloc::vec![0; new];
            let first = state.len.min(state.capacity - state.head);
            ring[..first].copy_from_slice(&state.ring[state.head..state.head + first]);
            ring[first..state.len].copy_from_slice(&state.ring[..state.len - first]);
            state.ring = ring;
            state.head = 0;
        }
        state.capacity = new;
        drop(state);
        self.writable.wake_all();
        Ok(new)
    }

    /// Puts bytes that were read but could not be used back in front; the capacity may be exceeded no more than it
    /// was before they were read.
    pub(crate) fn unread(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let old = state.len;
        let total = old + bytes.len();
        let capacity = state.capacity.max(total.next_power_of_two());
        let mut ring = alloc::vec![0; capacity];
        ring[..bytes.len()].copy_from_slice(bytes);
        let first = old.min(state.capacity - state.head);
        if old > 0 {
            ring[bytes.len()..bytes.len() + first].copy_from_slice(&state.ring[state.head..state.head + first]);
            ring[bytes.len() + first..total].copy_from_slice(&state.ring[..old - first]);
        }
        state.ring = ring;
        state.capacity = capacity;
        state.head = 0;
        state.len = total;
        drop(state);
        self.readable.wake_all();
    }

    /// Copies the first bytes without taking them (`tee(2)`).
    pub(crate) fn peek(&self, buf: &mut [u8]) -> usize {
        let state = self.state.lock();
        let n = state.len.min(buf.len());
        let first = n.min(state.capacity - state.head);
        if n > 0 {
            buf[..first].copy_from_slice(&state.ring[state.head..state.head + first]);
            buf[first..n].copy_from_slice(&state.ring[..n - first]);
        }
        n
    }

    /// Sleeps until there is something to read. False when there never will be.
    pub(crate) fn wait_readable(&self, ctx: &Ctx, nonblocking: bool) -> Result<bool> {
        let look = || {
            let state = self.state.lock();
            if state.len > 0 { Some(true) } else { (state.writers == 0).then_some(false) }
        };
        match look() {
            Some(ready) => Ok(ready),
            None if nonblocking => bail!(EAGAIN),
            None => ctx.wait_for(&self.readable, look),
        }
    }

    /// Sleeps until a write of one page would not block. `EPIPE` without readers.
    pub(crate) fn wait_writable(&self, ctx: &Ctx, nonblocking: bool) -> Result<usize> {
        let look = || {
            let state = self.state.lock();
            if state.readers == 0 { Some(None) } else { state.roomy().then(|| Some(state.free())) }
        };
        let room = match look() {
            Some(room) => room,
            None if nonblocking => bail!(EAGAIN),
            None => ctx.wait_for(&self.writable, look)?,
        };
        match room {
            Some(room) => Ok(room),
            None => {
                super::raise(ctx, crate::signal::number::SIGPIPE);
                bail!(EPIPE)
            }
        }
    }
}

/// An open end of a pipe or FIFO.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    /// Inode number of an anonymous pipe.
    ino: Option<u64>,
    /// Writers opened before this end: a FIFO that none has written since does not hang up.
    writers_before: u64,
}

impl PipeEnd {
    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl FileOps for PipeEnd {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        self.pipe.read(ctx, file.nonblocking(), dst)
    }

    fn write(&self, ctx: &Ctx, file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        self.pipe.write(ctx, file.nonblocking(), src)
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            if self.read {
                table.register(&self.pipe.readable);
            }
            if self.write {
                table.register(&self.pipe.writable);
            }
        }
        let state = self.pipe.state.lock();
        let mut events = PollEvents::empty();
        if self.read {
            if state.len > 0 {
                events |= PollEvents::IN | PollEvents::RDNORM;
            }
            if state.writers == 0 && state.writer_opens != self.writers_before {
                events |= PollEvents::HUP;
            }
        }
        if self.write {
            if state.roomy() {
                events |= PollEvents::OUT | PollEvents::WRNORM;
            }
            if state.readers == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        match cmd {
            FIONREAD => ctx.write_val(arg, &(self.pipe.len() as i32)).map(|()| 0),
            _ => bail!(ENOTTY),
        }
    }

    fn describe(&self) -> Option<alloc::string::String> {
        self.ino.map(|ino| alloc::format!("pipe:[{ino}]"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= usize::from(self.read);
        state.writers -= usize::from(self.write);
        let (no_reader, no_writer) = (state.readers == 0, state.writers == 0);
        if no_reader && no_writer {
            state.len = 0;
            state.head = 0;
        }
        drop(state);
        if self.read && no_reader {
            self.pipe.writable.wake_all();
        }
        if self.write && no_writer {
            self.pipe.readable.wake_all();
        }
    }
}

impl Vfs {
    /// `pipe2(2)`: the reading and the writing end of a new pipe. `flags` may hold `O_NONBLOCK`.
    pub fn pipe(&self, ctx: &Ctx, flags: OpenFlags) -> (Arc<File>, Arc<File>) {
        let creds = ctx.task.creds();
        let inode = self.anon_inode(FileType::Fifo, 0o600, (creds.fsuid, creds.fsgid));
        let pipe = Pipe::new();
        if let Some(common) = inode.common() {
            *common.pipe.lock() = Arc::downgrade(&pipe);
        }
        let ino = inode.attr().map_or(0, |a| a.ino);
        let name = alloc::format!("pipe:[{ino}]");
        let reader = Box::new(pipe.end(true, false, Some(ino)));
        let writer = Box::new(pipe.end(false, true, Some(ino)));
        let flags = flags & OpenFlags::NONBLOCK;
        let write_flags = flags | OpenFlags::WRONLY;
        let reader = self.anon_file_on(&name, inode.clone(), Some(reader), flags);
        let writer = self.anon_file_on(&name, inode, Some(writer), write_flags);
        (reader, writer)
    }
}
