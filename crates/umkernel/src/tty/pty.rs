//! Pseudoterminals (`pty(7)`): a terminal whose wire is a file, the master.

use super::ioctl::{self, Side};
use super::ldisc::OutQueue;
use super::terminal::PtyState;
use super::termios::Termios;
use super::{Tty, UNIX98_PTY_SLAVE_MAJOR, job};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::mm::{IoDst, IoSrc};
use crate::signal::{self, SigInfo, number};
use crate::sync::PollTable;
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use linux_raw_sys::ioctl::*;

/// Bytes that one read of the master can give; what lies behind them can still be flushed by the terminal.
pub const MASTER_BUFFER: usize = 4095;
/// Bytes of output that may wait for the master.
const OUTPUT_LIMIT: usize = MASTER_BUFFER + 8192;
/// Bytes fetched from the master's writer at a time.
const WRITE_CHUNK: usize = 4096;

/// What a master needs from the file system that shows its terminal.
pub trait SlaveDirectory: Send + Sync {
    /// Opens the terminal numbered `index`, for `TIOCGPTPEER`.
    fn open_slave(&self, ctx: &Ctx, tty: &Arc<Tty>, index: u32, flags: OpenFlags) -> Result<Arc<File>>;

    /// The terminal is gone: its number is free again.
    fn forget(&self, index: u32);
}

/// A new pseudoterminal numbered `index`: the open master, and the terminal, which is locked until `TIOCSPTLCK`.
pub fn create(ctx: &Ctx, index: u32, directory: Arc<dyn SlaveDirectory>) -> (Box<dyn FileOps>, Arc<Tty>) {
    let out = OutQueue::new(OUTPUT_LIMIT, MASTER_BUFFER);
    let tty = Tty::new(format!("pts/{index}"), (UNIX98_PTY_SLAVE_MAJOR, index), None, out, Termios::pseudoterminal());
    tty.state.lock().pty = Some(PtyState {
        master_open: true,
        locked: true,
        slave_closed: false,
        packet: false,
        status: 0,
        exclusive: false,
        master_stopped: false,
    });
    let master = PtyMaster { tty: tty.clone(), index, directory, kernel: Arc::downgrade(ctx.kernel) };
    (Box::new(master), tty)
}

/// An open master side.
pub struct PtyMaster {
    tty: Arc<Tty>,
    index: u32,
    directory: Arc<dyn SlaveDirectory>,
    kernel: Weak<Kernel>,
}

impl PtyMaster {
    /// The terminal on the other side.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    /// Takes a report of packet mode or output, up to `max` bytes; `None` if there is nothing.
    fn take(&self, ctx: &Ctx, max: usize) -> Option<Vec<u8>> {
        const TIOCPKT_DATA: u8 = 0;
        let mut state = self.tty.state.lock();
        let pty = state.pty.as_mut()?;
        let packet = pty.packet;
        if packet && pty.status != 0 {
            return Some(alloc::vec![core::mem::take(&mut pty.status) as u8]);
        }
        if state.out.is_empty() {
            return None;
        }
        let mut got = Vec::new();
        if packet {
            got.push(TIOCPKT_DATA);
        }
        let n = (max - got.len()).min(MASTER_BUFFER).min(state.out.len());
        let (first, second) = state.out.as_slices();
        let from_first = n.min(first.len());
        got.extend_from_slice(&first[..from_first]);
        got.extend_from_slice(&second[..n - from_first]);
        state.out.consume(n);
        self.tty.finish(ctx.kernel, state, Default::default());
        Some(got)
    }

    fn wait_for_output(&self, ctx: &Ctx) -> Result<()> {
        ctx.wait_for(&self.tty.master_read, || {
            let state = self.tty.state.lock();
            let pty = state.pty.as_ref()?;
            (!state.out.is_empty() || pty.slave_closed || pty.packet && pty.status != 0).then_some(())
        })
    }

    fn with_pty<T>(&self, change: impl FnOnce(&mut PtyState) -> T) -> Result<T> {
        self.tty.state.lock().pty.as_mut().map(change).ok_or(Errno::EIO.into())
    }

    fn set_flag(&self, ctx: &Ctx, arg: u64, set: impl FnOnce(&mut PtyState, bool)) -> Result<usize> {
        let value: u32 = ctx.read_val(arg)?;
        self.with_pty(|pty| set(pty, value != 0)).map(|()| 0)
    }

    /// `TIOCSIG`: a signal for the foreground group, as if its character had been typed.
    fn send_signal(&self, ctx: &Ctx, signo: u64) -> Result<usize> {
        let signo = match u8::try_from(signo) {
            Ok(signo @ (number::SIGINT | number::SIGQUIT | number::SIGTSTP)) => signo,
            _ => bail!(EINVAL),
        };
        let foreground = self.tty.state.lock().foreground;
        if let Some(group) = foreground {
            // A group without members hears nothing.
            let _ = signal::send_to_group(ctx.kernel, group, SigInfo::kernel(signo));
        }
        Ok(0)
    }
}

impl FileOps for PtyMaster {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        loop {
            if let Some(got) = self.take(ctx, dst.remaining()) {
                return dst.put(&got);
            }
            if self.with_pty(|pty| pty.slave_closed)? {
                bail!(EIO);
            }
            if file.nonblocking() {
                bail!(EAGAIN);
            }
            self.wait_for_output(ctx)?;
        }
    }

    fn write(&self, ctx: &Ctx, file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let mut chunk = alloc::vec![0u8; src.remaining().min(WRITE_CHUNK)];
        let mut written = 0;
        while src.remaining() > 0 {
            let n = match src.take(&mut chunk) {
                Ok(n) => n,
                Err(_) if written > 0 => break,
                Err(e) => return Err(e),
            };
            let mut done = 0;
            while done < n {
                let mut state = self.tty.state.lock();
                if !state.pty.as_ref().is_some_and(|p| p.master_stopped) {
                    let (taken, effects) = state.receive(&chunk[done..n]);
                    done += taken;
                    self.tty.finish(ctx.kernel, state, effects);
                } else {
                    drop(state);
                }
                if done == n {
                    break;
                }
                let waited = if file.nonblocking() {
                    Err(Errno::EAGAIN.into())
                } else {
                    ctx.wait_for(&self.tty.input_room, || {
                        let state = self.tty.state.lock();
                        let stopped = state.pty.as_ref().is_some_and(|p| p.master_stopped);
                        (state.input_room() > 0 && !stopped).then_some(())
                    })
                };
                if let Err(error) = waited {
                    src.untake(n - done);
                    written += done;
                    return if written > 0 { Ok(written) } else { Err(error) };
                }
            }
            written += n;
        }
        Ok(written)
    }

    fn signals(&self) -> bool {
        true
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.tty.master_read);
            table.register_output(&self.tty.input_room);
        }
        let state = self.tty.state.lock();
        let mut events = PollEvents::empty();
        let Some(pty) = &state.pty else { return PollEvents::HUP };
        let report = pty.packet && pty.status != 0;
        events.set(PollEvents::IN | PollEvents::RDNORM, !state.out.is_empty() || report);
        events.set(PollEvents::PRI, report);
        events.set(PollEvents::OUT | PollEvents::WRNORM, state.input_room() > 0 && !pty.master_stopped);
        events.set(PollEvents::HUP, pty.slave_closed);
        events
    }

    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        match cmd {
            TIOCGPTN => ctx.write_val(arg, &self.index).map(|()| 0),
            TIOCSPTLCK => self.set_flag(ctx, arg, |pty, on| pty.locked = on),
            TIOCGPTLCK => {
                let locked = self.with_pty(|pty| pty.locked)?;
                ctx.write_val(arg, &u32::from(locked)).map(|()| 0)
            }
            TIOCPKT => self.set_flag(ctx, arg, |pty, on| {
                if on && !pty.packet {
                    pty.status = 0;
                }
                pty.packet = on;
            }),
            TIOCGPKT => {
                let packet = self.with_pty(|pty| pty.packet)?;
                ctx.write_val(arg, &u32::from(packet)).map(|()| 0)
            }
            TIOCSIG => self.send_signal(ctx, arg),
            TIOCGPTPEER => {
                let flags = OpenFlags::from_bits_retain(arg as u32);
                let file = self.directory.open_slave(ctx, &self.tty, self.index, flags)?;
                ctx.install(file, flags.contains(OpenFlags::CLOEXEC)).map(|fd| fd as usize)
            }
            FIONREAD => {
                let len = self.tty.state.lock().out.len().min(MASTER_BUFFER);
                ctx.write_val(arg, &(len as u32)).map(|()| 0)
            }
            TIOCOUTQ => ctx.write_val(arg, &0u32).map(|()| 0),
            TIOCEXCL => self.with_pty(|pty| pty.exclusive = true).map(|()| 0),
            TIOCNXCL => self.with_pty(|pty| pty.exclusive = false).map(|()| 0),
            TIOCGEXCL => {
                let exclusive = self.with_pty(|pty| pty.exclusive)?;
                ctx.write_val(arg, &u32::from(exclusive)).map(|()| 0)
            }
            TCFLSH => self.flush(ctx, arg),
            TCXONC => self.flow(ctx, arg),
            TIOCSCTTY => bail!(EPERM, "a master is no terminal to control a session"),
            TIOCNOTTY => Err(Errno::ENOTTY.into()),
            TIOCSPGRP => job::set_foreground_group(ctx, &self.tty, arg).map(|()| 0),
            _ => ioctl::common(&self.tty, Side::Master, ctx, cmd, arg),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl PtyMaster {
    /// `TCFLSH` from this side: its input is the terminal's output.
    fn flush(&self, ctx: &Ctx, which: u64) -> Result<usize> {
        if which > 2 {
            bail!(EINVAL);
        }
        let mut state = self.tty.state.lock();
        if which != 1 {
            let len = state.out.len();
            state.out.consume(len);
        }
        if which != 0 {
            state.pending.clear();
        }
        self.tty.finish(ctx.kernel, state, Default::default());
        Ok(0)
    }

    /// `TCXONC` from this side: holds back its own writes.
    fn flow(&self, ctx: &Ctx, what: u64) -> Result<usize> {
        match what {
            0 | 1 => self.with_pty(|pty| pty.master_stopped = what == 0)?,
            // The master's own control characters are switched off: there is nothing to send.
            2 | 3 => {}
            _ => bail!(EINVAL),
        }
        let state = self.tty.state.lock();
        self.tty.finish(ctx.kernel, state, Default::default());
        Ok(0)
    }
}

impl Drop for PtyMaster {
    fn drop(&mut self) {
        if let Some(pty) = self.tty.state.lock().pty.as_mut() {
            pty.master_open = false;
            pty.packet = false;
        }
        self.tty.wake_everyone();
        self.directory.forget(self.index);
        if let Some(kernel) = self.kernel.upgrade() {
            job::hang_up(&kernel, &self.tty, false);
        }
    }
}
