//! Terminals as open files: reading, writing, polling (`tty(4)`).

use super::Tty;
use super::ldisc::{Effects, Taken};
use super::terminal::State;
use super::termios::{TOSTOP, VMIN, VTIME};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::{Ctx, Kernel};
use crate::mm::{IoDst, IoSrc};
use crate::signal::number;
use crate::sync::PollTable;
use crate::task::Capabilities;
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;

/// The unit of `VTIME`: a tenth of a second, in nanoseconds.
const TENTH: u64 = 100_000_000;
/// Bytes fetched from a program at a time.
const WRITE_CHUNK: usize = 4096;
/// Linux reads into a buffer of this size; a `VMIN` beyond it counts as reached when it is full.
const READ_CHUNK: usize = 64;
/// Room that the longest output of one character needs (a tab's spaces).
const LONGEST_OUTPUT: usize = 8;

/// An open console or slave side of a pseudoterminal.
pub struct TtyFile {
    pub(super) tty: Arc<Tty>,
    kernel: Weak<Kernel>,
    /// The terminal's count of hang-ups at the time of opening.
    generation: u64,
    /// Opened as `/dev/console`, whose output `TIOCCONS` can send elsewhere.
    pub(super) as_console: bool,
}

impl TtyFile {
    /// Opens a terminal, and makes it the controlling one if the caller has none and the flags do not forbid it.
    ///
    /// # Errors
    /// `EBUSY` when it is open exclusively (`TIOCEXCL`); `EIO` when it is the slave side of a pseudoterminal that is
    /// locked or whose master is gone.
    pub fn open(ctx: &Ctx, tty: &Arc<Tty>, flags: OpenFlags) -> Result<Box<dyn FileOps>> {
        let file = TtyFile::open_quietly(ctx, tty)?;
        if !flags.contains(OpenFlags::NOCTTY) && flags.readable() {
            super::job::acquire_at_open(ctx, tty);
        }
        Ok(Box::new(file))
    }

    /// As [`TtyFile::open`] without becoming anyone's controlling terminal.
    pub(super) fn open_quietly(ctx: &Ctx, tty: &Arc<Tty>) -> Result<TtyFile> {
        let mut state = tty.state.lock();
        if state.pty.as_ref().is_some_and(|p| !p.master_open || p.locked) {
            bail!(EIO);
        }
        if state.exclusive && !ctx.creds().capable(Capabilities::SYS_ADMIN) {
            bail!(EBUSY);
        }
        state.opens += 1;
        if let Some(pty) = &mut state.pty {
            pty.slave_closed = false;
        }
        let generation = state.generation;
        drop(state);
        Ok(TtyFile { tty: tty.clone(), kernel: Arc::downgrade(ctx.kernel), generation, as_console: false })
    }

    /// Opens `/dev/tty`: the caller's controlling terminal.
    ///
    /// # Errors
    /// `ENXIO` without one; and as [`TtyFile::open`].
    pub fn open_current(ctx: &Ctx) -> Result<Box<dyn FileOps>> {
        let tty = ctx.task.process.tty().ok_or(Errno::ENXIO)?;
        Ok(Box::new(TtyFile::open_quietly(ctx, &tty)?))
    }

    /// Opens `/dev/console`, which never becomes a controlling terminal and is not subject to job control.
    ///
    /// # Errors
    /// `ENODEV` when the machine has no console.
    pub fn open_console(ctx: &Ctx) -> Result<Box<dyn FileOps>> {
        let tty = ctx.kernel.ttys.system_console().ok_or(Errno::ENODEV)?;
        let mut file = TtyFile::open_quietly(ctx, &tty)?;
        file.as_console = true;
        Ok(Box::new(file))
    }

    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    /// The terminal was hung up since: this file is dead. What was opened as `/dev/console` lives on.
    pub(super) fn is_dead(&self, state: &State) -> bool {
        !self.as_console && state.generation != self.generation
    }

    pub(super) fn hung_up(&self) -> bool {
        self.is_dead(&self.tty.state.lock())
    }

    /// Reads from the line discipline into `got`, waiting as the mode says.
    fn read_input(&self, ctx: &Ctx, file: &File, max: usize, got: &mut Vec<u8>) -> Result<()> {
        let tty = &*self.tty;
        let (by_lines, min, time) = {
            let state = tty.state.lock();
            let t = state.ldisc.termios();
            (t.l(super::termios::ICANON), usize::from(t.control(VMIN)), u64::from(t.control(VTIME)) * TENTH)
        };
        let (min, mut deadline) = match (by_lines, min) {
            (true, _) => (0, None),
            (false, 0) => (1, Some(host::monotonic_ns() + time)),
            (false, min) => (min, None),
        };
        let between_bytes = !by_lines && deadline.is_none() && time > 0;
        let max = if min > READ_CHUNK { max.min(READ_CHUNK) } else { max };
        loop {
            let mut state = tty.state.lock();
            if state.ldisc.readable(1) {
                let taken = state.ldisc.take(max - got.len(), got);
                let mut effects = Effects::default();
                state.refill(&mut effects);
                tty.finish(ctx.kernel, state, effects);
                if taken == Taken::Line || got.len() >= min || got.len() == max {
                    return Ok(());
                }
                if between_bytes {
                    deadline = Some(host::monotonic_ns() + time);
                }
                continue;
            }
            if state.pty.as_ref().is_some_and(|p| !p.master_open) {
                bail!(EIO);
            }
            if self.is_dead(&state) {
                return Ok(());
            }
            drop(state);
            if deadline.is_some_and(|d| host::monotonic_ns() >= d) {
                return Ok(());
            }
            if file.nonblocking() {
                bail!(EAGAIN);
            }
            ctx.wait(&tty.read_wait, deadline, || {
                let state = tty.state.lock();
                let gone = state.pty.as_ref().is_some_and(|p| !p.master_open) || self.is_dead(&state);
                (gone || state.ldisc.readable(1)).then_some(())
            })?;
        }
    }

    /// Waits for earlier writes to end and makes further ones wait.
    fn begin_write(&self, ctx: &Ctx, file: &File) -> Result<()> {
        let claim = || {
            let mut state = self.tty.state.lock();
            (!core::mem::replace(&mut state.writing, true)).then_some(())
        };
        if file.nonblocking() { claim().ok_or(Errno::EAGAIN.into()) } else { ctx.wait_for(&self.tty.write_wait, claim) }
    }

    fn write_output(&self, ctx: &Ctx, file: &File, src: &mut dyn IoSrc) -> Result<usize> {
        let tty = &*self.tty;
        let mut chunk = alloc::vec![0u8; src.remaining().min(WRITE_CHUNK)];
        let mut written = 0;
        while src.remaining() > 0 {
            let n = match src.take(&mut chunk) {
                Ok(n) => n,
                Err(_) if written > 0 => break,
                Err(e) => return Err(e),
            };
            let mut done = 0;
            let mut failure = None;
            while done < n {
                let mut state = tty.state.lock();
                let gone = state.pty.as_ref().is_some_and(|p| !p.master_open);
                if gone || self.is_dead(&state) {
                    failure = Some(Errno::EIO.into());
                    break;
                }
                let State { ldisc, out, .. } = &mut *state;
                ldisc.settle_echoes(out);
                done += ldisc.write(&chunk[done..n], out);
                tty.finish(ctx.kernel, state, Effects::default());
                if done == n {
                    break;
                }
                if file.nonblocking() {
                    failure = Some(Errno::EAGAIN.into());
                    break;
                }
                let waited = ctx.wait_for(&tty.write_wait, || {
                    let state = tty.state.lock();
                    let gone = state.pty.as_ref().is_some_and(|p| !p.master_open);
                    let changed = gone || self.is_dead(&state);
                    (changed || state.out.room() >= LONGEST_OUTPUT).then_some(())
                });
                if let Err(e) = waited {
                    failure = Some(e);
                    break;
                }
            }
            written += done;
            if let Some(error) = failure {
                src.untake(n - done);
                return if written > 0 { Ok(written) } else { Err(error) };
            }
            if ctx.task.signal_pending() {
                break;
            }
        }
        Ok(written)
    }
}

impl FileOps for TtyFile {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        if self.hung_up() {
            return Ok(0);
        }
        if !self.as_console {
            super::job::check(ctx, &self.tty, number::SIGTTIN)?;
        }
        let mut got = Vec::new();
        let max = dst.remaining();
        if max == 0 {
            return Ok(0);
        }
        let result = self.read_input(ctx, file, max, &mut got);
        if got.is_empty() {
            return result.map(|()| 0);
        }
        dst.put(&got)
    }

    fn write(&self, ctx: &Ctx, file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        if self.hung_up() {
            bail!(EIO);
        }
        let redirected = if self.as_console { ctx.kernel.ttys.redirect.lock().clone() } else { None };
        if let Some(other) = redirected {
            return TtyFile::open_quietly(ctx, &other)?.write(ctx, file, 0, src);
        }
        if !self.as_console && self.tty.termios().l(TOSTOP) {
            super::job::check(ctx, &self.tty, number::SIGTTOU)?;
        }
        self.begin_write(ctx, file)?;
        let result = self.write_output(ctx, file, src);
        self.tty.state.lock().writing = false;
        self.tty.write_wait.wake_all();
        result
    }

    fn signals(&self) -> bool {
        true
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.tty.read_wait);
            table.register_output(&self.tty.write_wait);
        }
        let (input, output) = (PollEvents::IN | PollEvents::RDNORM, PollEvents::OUT | PollEvents::WRNORM);
        let state = self.tty.state.lock();
        if self.is_dead(&state) {
            return input | output | PollEvents::ERR | PollEvents::HUP;
        }
        let mut events = PollEvents::empty();
        events.set(input, state.ldisc.poll_readable());
        events.set(output, state.out.room() > 0 && !state.writing);
        events.set(PollEvents::HUP, state.pty.as_ref().is_some_and(|p| !p.master_open));
        events
    }

    fn ioctl(&self, ctx: &Ctx, file: &File, cmd: u32, arg: u64) -> Result<usize> {
        super::ioctl::on_terminal(self, ctx, file, cmd, arg)
    }

    fn describe(&self) -> Option<String> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for TtyFile {
    fn drop(&mut self) {
        let mut state = self.tty.state.lock();
        state.opens -= 1;
        if state.opens > 0 {
            return;
        }
        state.exclusive = false;
        let is_pty = match &mut state.pty {
            Some(pty) => {
                pty.slave_closed = true;
                true
            }
            None => {
                state.flush_input();
                false
            }
        };
        drop(state);
        self.tty.wake_everyone();
        if let (false, Some(kernel)) = (is_pty, self.kernel.upgrade()) {
            // Nobody has the console open: it controls no session any more.
            super::job::release_session(&kernel, &self.tty);
        }
    }
}
