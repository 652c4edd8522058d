//! Pipes and FIFOs (`pipe(7)`, `fifo(7)`).

use super::{File, FileOps, FileType, Location, OpenFlags, PollEvents, Vfs};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::task::Capabilities;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// Slots of a new pipe (`PIPE_DEF_BUFFERS`).
const DEFAULT_SLOTS: usize = 16;
/// Bytes of a slot. Writes of up to this many bytes (`PIPE_BUF`) are atomic.
const SLOT: usize = 4096;
/// `FIONREAD` of `ioctl(2)`: bytes that can be read.
const FIONREAD: u32 = 0x541b;
/// The largest buffer that is kept for the next write.
const SPARE_MAX: usize = 64 * 1024;

/// A pipe: bytes on their way from its writers to its readers.
///
/// As on Linux its size is counted in slots of a page: what a write adds goes behind the bytes of the last slot if all of
/// its odd part fits there, and otherwise into slots of its own. A slot is free again when its last byte was read.
pub struct Pipe {
    state: Mutex<State>,
    /// Woken when bytes came, or the last writer went.
    readable: Arc<WaitQueue>,
    /// Woken when room came, or the last reader went.
    writable: Arc<WaitQueue>,
    /// Woken when an end of a FIFO was opened.
    opened: WaitQueue,
}

/// What one write put into slots, one behind the other; the last may hold what later writes added.
struct Run {
    data: Vec<u8>,
    /// Bytes that were read.
    start: usize,
    /// One read takes all of it (`O_DIRECT`).
    packet: bool,
}

impl Run {
    /// Slots that it takes, those read to their ends left out.
    fn slots(&self) -> usize {
        self.data.len().div_ceil(SLOT) - self.start / SLOT
    }

    fn unread(&self) -> &[u8] {
        &self.data[self.start..]
    }
}

struct State {
    runs: VecDeque<Run>,
    /// A buffer that is empty again.
    spare: Vec<u8>,
    /// Slots taken, and how many there are.
    used: usize,
    slots: usize,
    /// Bytes.
    len: usize,
    readers: usize,
    writers: usize,
    /// How often an end was opened: what the other end's `open` waits for.
    reader_opens: u64,
    writer_opens: u64,
}

/// What an end found of the other one at the moment when it was opened. Looked at later, one that has come, for this very end, and gone
/// again would not have been.
struct OtherEnd {
    /// How often it had been opened.
    opens: u64,
    /// Whether somebody had it.
    there: bool,
}

impl State {
    /// Whether the other end was opened since this one, which is the one to read if `read`.
    fn has_come(&self, other: &OtherEnd, read: bool) -> bool {
        other.opens != if read { self.writer_opens } else { self.reader_opens }
    }

    fn full(&self) -> bool {
        self.used >= self.slots
    }

    /// Bytes that fit in free slots.
    fn room(&self) -> usize {
        self.slots.saturating_sub(self.used) * SLOT
    }

    /// Moves bytes from the pipe to `dst`.
    fn pop(&mut self, dst: &mut dyn IoDst) -> Result<usize> {
        let mut done = 0;
        while dst.remaining() > 0 {
            let Some(run) = self.runs.front() else { break };
            let available = run.unread().len();
            let n = match dst.put(run.unread()) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            done += n;
            if run.packet {
                self.drop_front(available);
                break;
            }
            self.drop_front(n);
            if n < available {
                break;
            }
        }
        Ok(done)
    }

    /// Forgets `n` bytes of the first run.
    fn drop_front(&mut self, n: usize) {
        let Some(run) = self.runs.front_mut() else { return };
        let before = run.slots();
        run.start += n;
        self.len -= n;
        if run.start < run.data.len() {
            self.used -= before - run.slots();
            return;
        }
        self.used -= before;
        if let Some(mut run) = self.runs.pop_front()
            && run.data.capacity() <= SPARE_MAX
        {
            run.data.clear();
            self.spare = run.data;
        }
    }

    /// The part of a write of `total` bytes that goes behind the bytes of the last slot: what is left of it after whole
    /// slots, if that fits.
    fn merges(&self, total: usize) -> usize {
        let odd = total % SLOT;
        let last = self.runs.back().filter(|run| !run.packet);
        let room = last.map_or(0, |run| run.data.len().next_multiple_of(SLOT) - run.data.len());
        if odd <= room { odd } else { 0 }
    }

    /// Moves `n` bytes from `src` behind those of the last run.
    fn append(&mut self, src: &mut dyn IoSrc, n: usize) -> Result<usize> {
        let Some(run) = self.runs.back_mut() else { return Ok(0) };
        let old = run.data.len();
        run.data.resize(old + n, 0);
        let result = src.take(&mut run.data[old..]);
        let got = *result.as_ref().unwrap_or(&0);
        run.data.truncate(old + got);
        self.len += got;
        result
    }

    /// Moves up to `max` bytes from `src` to free slots, of which there is one.
    fn push(&mut self, src: &mut dyn IoSrc, max: usize, packet: bool) -> Result<usize> {
        let n = max.min(if packet { SLOT } else { self.room() });
        let mut data = core::mem::take(&mut self.spare);
        data.resize(n, 0);
        let got = src.take(&mut data)?;
        data.truncate(got);
        if got > 0 {
            self.add(Run { data, start: 0, packet });
        }
        Ok(got)
    }

    fn add(&mut self, run: Run) {
        self.used += run.slots();
        self.len += run.data.len();
        self.runs.push_back(run);
    }
}

impl Pipe {
    /// A pipe that is open nowhere yet.
    pub fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            state: Mutex::new(State {
                runs: VecDeque::new(),
                spare: Vec::new(),
                used: 0,
                slots: DEFAULT_SLOTS,
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

    /// One end, or for a FIFO both; and how it found the other one.
    fn end(self: &Arc<Pipe>, read: bool, write: bool, ino: Option<u64>) -> (PipeEnd, OtherEnd) {
        let mut state = self.state.lock();
        if read {
            state.readers += 1;
            state.reader_opens += 1;
        }
        if write {
            state.writers += 1;
            state.writer_opens += 1;
        }
        let (opens, there) = match read {
            true => (state.writer_opens, state.writers > 0),
            false => (state.reader_opens, state.readers > 0),
        };
        let writers_before = state.writer_opens - u64::from(write);
        (PipeEnd { pipe: self.clone(), read, write, ino, writers_before }, OtherEnd { opens, there })
    }

    /// Opens a FIFO: waits for the other end unless both are opened or `O_NONBLOCK` is set. A pipe, by way of `/proc/PID/fd`, has had
    /// both ends, and waits for none.
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
        let is_pipe = Arc::ptr_eq(&location.mount, &ctx.kernel.vfs.anonymous);
        if write && !read && nonblocking && !is_pipe && pipe.state.lock().readers == 0 {
            bail!(ENXIO);
        }
        let (end, other) = pipe.end(read, write, None);
        pipe.opened.wake_all();
        if read && write || nonblocking || is_pipe {
            return Ok(Box::new(end));
        }
        if !other.there {
            ctx.wait_for(&pipe.opened, || pipe.state.lock().has_come(&other, read).then_some(()))?;
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
                let was_full = state.full();
                let result = state.pop(dst);
                let wake = was_full && !state.full();
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

    fn write(&self, ctx: &Ctx, flags: OpenFlags, src: &mut dyn IoSrc) -> Result<usize> {
        let (nonblocking, packet) = (flags.contains(OpenFlags::NONBLOCK), flags.contains(OpenFlags::DIRECT));
        let total = src.remaining();
        if total == 0 {
            return Ok(0);
        }
        let mut done = 0;
        loop {
            let mut state = self.state.lock();
            if state.readers == 0 {
                drop(state);
                crate::signal::raise(ctx, crate::signal::number::SIGPIPE);
                return if done > 0 { Ok(done) } else { Err(Errno::EPIPE.into()) };
            }
            let merged = if done == 0 { state.merges(total) } else { 0 };
            let moved = match () {
                () if merged > 0 => Some(state.append(src, merged)),
                () if !state.full() => Some(state.push(src, total - done, packet)),
                () => None,
            };
            drop(state);
            match moved {
                Some(Ok(0)) => return if done > 0 { Ok(done) } else { Err(Errno::EFAULT.into()) },
                Some(Ok(n)) => done += n,
                Some(Err(e)) if done == 0 => return Err(e),
                Some(Err(_)) => return Ok(done),
                None if nonblocking => return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN.into()) },
                None => {
                    let woken = ctx.wait_for(&self.writable, || {
                        let state = self.state.lock();
                        (state.readers == 0 || !state.full()).then_some(())
                    });
                    match woken {
                        Ok(()) => {}
                        Err(_) if done > 0 => return Ok(done),
                        Err(e) => return Err(e),
                    }
                    continue;
                }
            }
            self.readable.wake_one();
            if done == total || src.remaining() == 0 {
                return Ok(done);
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

    /// `fcntl(F_GETPIPE_SZ)`: bytes of all slots.
    pub fn capacity(&self) -> usize {
        self.state.lock().slots * SLOT
    }

    /// `fcntl(F_SETPIPE_SZ)`: rounds up to a power of two of slots; `EBUSY` when more are in use.
    pub fn set_capacity(&self, ctx: &Ctx, bytes: usize) -> Result<usize> {
        if bytes > 1 << 31 {
            bail!(EINVAL);
        }
        let new = bytes.max(SLOT).next_power_of_two();
        let mut state = self.state.lock();
        let grows = new > state.slots * SLOT;
        if grows
            && new as u64 > ctx.kernel.settings.pipe_max_size.get()
            && !ctx.creds().capable(Capabilities::SYS_RESOURCE)
        {
            bail!(EPERM);
        }
        if state.used > new / SLOT {
            bail!(EBUSY);
        }
        state.slots = new / SLOT;
        drop(state);
        self.writable.wake_all();
        Ok(new)
    }

    /// Puts bytes that were read but could not be used back in front.
    pub(crate) fn unread(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let run = Run { data: bytes.to_vec(), start: 0, packet: false };
        state.used += run.slots();
        state.len += bytes.len();
        state.runs.push_front(run);
        drop(state);
        self.readable.wake_all();
    }

    /// Copies the first bytes without taking them (`tee(2)`).
    pub(crate) fn peek(&self, buf: &mut [u8]) -> usize {
        let state = self.state.lock();
        let mut done = 0;
        for run in &state.runs {
            let n = run.unread().len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&run.unread()[..n]);
            done += n;
        }
        done
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
            if state.readers == 0 { Some(None) } else { (!state.full()).then(|| Some(state.room())) }
        };
        let room = match look() {
            Some(room) => room,
            None if nonblocking => bail!(EAGAIN),
            None => ctx.wait_for(&self.writable, look)?,
        };
        match room {
            Some(room) => Ok(room),
            None => {
                crate::signal::raise(ctx, crate::signal::number::SIGPIPE);
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
        self.pipe.write(ctx, file.flags(), src)
    }

    fn signals(&self) -> bool {
        true
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            if self.read {
                table.register(&self.pipe.readable);
            }
            if self.write {
                table.register_output(&self.pipe.writable);
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
            if !state.full() {
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
            state.runs.clear();
            (state.len, state.used) = (0, 0);
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
    /// `pipe2(2)`: the reading and the writing end of a new pipe. `flags` may hold `O_NONBLOCK` and `O_DIRECT`.
    pub fn pipe(&self, ctx: &Ctx, flags: OpenFlags) -> (Arc<File>, Arc<File>) {
        let creds = ctx.creds();
        let inode = self.anon_inode(FileType::Fifo, 0o600, (creds.fsuid, creds.fsgid));
        let pipe = Pipe::new();
        if let Some(common) = inode.common() {
            *common.pipe.lock() = Arc::downgrade(&pipe);
        }
        let ino = inode.attr().map_or(0, |a| a.ino);
        let name = alloc::format!("pipe:[{ino}]");
        let reader = Box::new(pipe.end(true, false, Some(ino)).0);
        let writer = Box::new(pipe.end(false, true, Some(ino)).0);
        let flags = flags & (OpenFlags::NONBLOCK | OpenFlags::DIRECT);
        let write_flags = flags | OpenFlags::WRONLY;
        let reader = self.anon_file_on(&name, inode.clone(), Some(reader), flags);
        let writer = self.anon_file_on(&name, inode, Some(writer), write_flags);
        (reader, writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writer that was waiting for a reader is woken by this one, and may be done before this one looks for it.
    #[test]
    fn an_end_of_a_fifo_that_came_and_went_was_there() {
        for read in [true, false] {
            let pipe = Pipe::new();
            let (_own, other) = pipe.end(read, !read, None);
            assert!(!other.there && !pipe.state.lock().has_come(&other, read));
            drop(pipe.end(!read, read, None));
            assert!(pipe.state.lock().has_come(&other, read));
        }
    }
}
