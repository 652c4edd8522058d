//! A terminal and its state.

use super::ConsoleOutput;
use super::ldisc::{Effects, LineDiscipline, OutQueue};
use super::termios::{Termios, WinSize};
use crate::kernel::Kernel;
use crate::signal::{self, SigInfo, number};
use crate::sync::{Mutex, MutexGuard, WaitQueue};
use crate::task::Pid;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Input that may wait in front of the line discipline's own buffer.
const PENDING_LIMIT: usize = 8192;

/// Reports of packet mode (`TIOCPKT` of `ioctl_tty(2)`).
pub(super) mod packet {
    pub(in crate::tty) use linux_raw_sys::general::{
        TIOCPKT_DOSTOP, TIOCPKT_FLUSHREAD, TIOCPKT_FLUSHWRITE, TIOCPKT_IOCTL, TIOCPKT_NOSTOP, TIOCPKT_START,
        TIOCPKT_STOP,
    };
}

/// A terminal: a console or the slave side of a pseudoterminal.
pub struct Tty {
    /// Name below `/dev`.
    pub name: String,
    /// Device number: major, minor.
    pub device: (u32, u32),
    pub(super) state: Mutex<State>,
    /// Woken when a program's read may succeed.
    pub(super) read_wait: Arc<WaitQueue>,
    /// Woken when a program's write may succeed.
    pub(super) write_wait: Arc<WaitQueue>,
    /// Woken when there is room for input again: hosts' input threads and a pseudoterminal's master wait there.
    pub(super) input_room: Arc<WaitQueue>,
    /// Woken when there is output for a pseudoterminal's master.
    pub(super) master_read: Arc<WaitQueue>,
    /// The host's side of a console.
    output: Option<Box<dyn ConsoleOutput>>,
}

/// What changes about a terminal, under its lock.
pub(super) struct State {
    pub(super) ldisc: LineDiscipline,
    pub(super) out: OutQueue,
    /// Input that the line discipline had no room for.
    pub(super) pending: Vec<u8>,
    pub(super) size: WinSize,
    /// The session that it controls; its id.
    pub(super) session: Option<Pid>,
    /// The foreground process group.
    pub(super) foreground: Option<Pid>,
    /// Open files of this side.
    pub(super) opens: usize,
    /// Counts hang-ups: files opened before the last one are dead.
    pub(super) generation: u64,
    /// `TIOCEXCL`.
    pub(super) exclusive: bool,
    /// A write is under way; others wait for its end, so that they do not mix.
    pub(super) writing: bool,
    /// What a pseudoterminal has beyond.
    pub(super) pty: Option<PtyState>,
}

/// The master side's part of the state.
pub(super) struct PtyState {
    pub(super) master_open: bool,
    /// `TIOCSPTLCK`: the slave side may not be opened yet.
    pub(super) locked: bool,
    /// The slave side was open and is no more: the master reads an error once it has read all.
    pub(super) slave_closed: bool,
    /// `TIOCPKT`.
    pub(super) packet: bool,
    /// Reports for packet mode that the master has not read.
    pub(super) status: u32,
    /// `TIOCEXCL` on the master.
    pub(super) exclusive: bool,
    /// Output of the master is held (`TCOOFF`).
    pub(super) master_stopped: bool,
}

impl State {
    /// Takes input from the wire.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> (usize, Effects) {
        let mut effects = Effects::default();
        let n = bytes.len().min(self.input_room());
        let mut taken = 0;
        if self.pending.is_empty() {
            taken = self.ldisc.receive(&bytes[..n], &mut self.out, &mut effects);
        }
        self.pending.extend_from_slice(&bytes[taken..n]);
        if !self.pending.is_empty() {
            self.ldisc.look_ahead(&self.pending, &mut self.out, &mut effects);
        }
        (n, effects)
    }

    /// Offers waiting input to the line discipline, which has room again.
    pub(super) fn refill(&mut self, effects: &mut Effects) {
        if !self.pending.is_empty() {
            let taken = self.ldisc.receive(&self.pending, &mut self.out, effects);
            self.pending.drain(..taken);
        }
    }

    /// Bytes of input that fit.
    pub(super) fn input_room(&self) -> usize {
        PENDING_LIMIT.saturating_sub(self.pending.len())
    }

    /// Forgets all input (`TCIFLUSH`).
    pub(super) fn flush_input(&mut self) {
        self.pending.clear();
        self.ldisc.flush_input();
        self.report(packet::TIOCPKT_FLUSHREAD, 0);
    }

    /// Forgets output that has not reached the other side (`TCOFLUSH`).
    pub(super) fn flush_output(&mut self) {
        self.out.flush();
        self.report(packet::TIOCPKT_FLUSHWRITE, 0);
    }

    /// Notes an event for packet mode, in place of those in `instead_of`.
    pub(super) fn report(&mut self, event: u32, instead_of: u32) {
        if let Some(pty) = self.pty.as_mut().filter(|p| p.packet) {
            pty.status = pty.status & !instead_of | event;
        }
    }
}

impl Tty {
    pub(super) fn new(
        name: String,
        device: (u32, u32),
        output: Option<Box<dyn ConsoleOutput>>,
        out: OutQueue,
        termios: Termios,
    ) -> Arc<Tty> {
        let state = State {
            ldisc: LineDiscipline::new(termios),
            out,
            pending: Vec::new(),
            size: WinSize::default(),
            session: None,
            foreground: None,
            opens: 0,
            generation: 0,
            exclusive: false,
            writing: false,
            pty: None,
        };
        Arc::new(Tty {
            name,
            device,
            state: Mutex::new(state),
            read_wait: Arc::default(),
            write_wait: Arc::default(),
            input_room: Arc::default(),
            master_read: Arc::default(),
            output,
        })
    }

    /// The settings.
    pub fn termios(&self) -> Termios {
        *self.state.lock().ldisc.termios()
    }

    /// The window's size.
    pub fn window_size(&self) -> WinSize {
        self.state.lock().size
    }

    /// The session that it controls and the foreground process group, for `/proc/PID/stat`.
    pub fn session_and_foreground(&self) -> (Option<Pid>, Option<Pid>) {
        let state = self.state.lock();
        (state.session, state.foreground)
    }

    /// Sends a console's output as far as the host takes it.
    fn push_output(&self, state: &mut State) {
        let Some(output) = &self.output else { return };
        while !state.out.is_empty() {
            let (first, _) = state.out.as_slices();
            let taken = output.write(first).min(first.len());
            if taken == 0 {
                break;
            }
            state.out.consume(taken);
        }
    }

    /// Ends a change of state: pushes output, lets go of the lock, wakes whom the change may concern, sends signals.
    pub(super) fn finish(&self, kernel: &Kernel, mut state: MutexGuard<'_, State>, effects: Effects) {
        match effects.flow {
            Some(true) => state.report(packet::TIOCPKT_STOP, packet::TIOCPKT_START),
            Some(false) => state.report(packet::TIOCPKT_START, packet::TIOCPKT_STOP),
            None => {}
        }
        if effects.flushed {
            state.report(packet::TIOCPKT_FLUSHREAD | packet::TIOCPKT_FLUSHWRITE, 0);
        }
        self.push_output(&mut state);
        let readable = effects.readable || state.ldisc.readable(1);
        let writable = state.out.room() > 0;
        let for_master = !state.out.is_empty() || state.pty.as_ref().is_some_and(|p| p.status != 0);
        let input_room = state.input_room() > 0;
        let foreground = state.foreground;
        drop(state);
        for (condition, queue) in [
            (readable, &self.read_wait),
            (writable, &self.write_wait),
            (for_master, &self.master_read),
            (input_room, &self.input_room),
        ] {
            if condition {
                queue.wake_all();
            }
        }
        if let Some(group) = foreground {
            for signo in effects.signals {
                // A group without members hears nothing.
                let _ = signal::send_to_group(kernel, group, SigInfo::kernel(signo));
            }
        }
    }

    /// Wakes everyone: the terminal or one of its sides is gone.
    pub(super) fn wake_everyone(&self) {
        [&self.read_wait, &self.write_wait, &self.input_room, &self.master_read].iter().for_each(|q| q.wake_all());
    }

    /// Sets the window's size; the foreground group gets `SIGWINCH` if it changed.
    pub(super) fn set_window_size(&self, kernel: &Kernel, size: WinSize) {
        let foreground = {
            let mut state = self.state.lock();
            if core::mem::replace(&mut state.size, size) == size { None } else { state.foreground }
        };
        if let Some(group) = foreground {
            // A group without members hears nothing.
            let _ = signal::send_to_group(kernel, group, SigInfo::kernel(number::SIGWINCH));
        }
    }
}
