//! Consoles: terminals whose wire is the host's.

use super::ldisc::OutQueue;
use super::termios::Termios;
use super::{TTY_MAJOR, Tty};
use crate::kernel::Kernel;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

/// Where a console's output goes: supplied by the machine.
pub trait ConsoleOutput: Send + Sync {
    /// Sends bytes and returns how many were taken. When it takes fewer than all, the machine calls
    /// [`Tty::output_ready`] as soon as more fit. Called with the terminal locked: what it waits for, the whole
    /// terminal waits for.
    fn write(&self, bytes: &[u8]) -> usize;
}

/// Bytes that may wait for the host.
const OUTPUT_LIMIT: usize = 16 * 1024;

impl super::Ttys {
    /// Adds the console `conN`, which guests find as `/dev/ttyN`; the lowest is `/dev/console` as well.
    pub fn add_console(&self, index: u32, output: Box<dyn ConsoleOutput>) -> Arc<Tty> {
        let tty = Tty::new(
            format!("tty{index}"),
            (TTY_MAJOR, index),
            Some(output),
            OutQueue::new(OUTPUT_LIMIT, 0),
            Termios::default(),
        );
        self.consoles.lock().insert(index, tty.clone());
        tty
    }
}

impl Tty {
    /// Input from the host; returns how many bytes were taken. When fewer than all were, the rest is offered again after
    /// [`Tty::wait_for_input_room`].
    pub fn receive(&self, kernel: &Kernel, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        let (taken, effects) = state.receive(bytes);
        self.finish(kernel, state, effects);
        taken
    }

    /// Blocks the calling host thread, which runs no task, until there is room for input or `deadline`
    /// (CLOCK_MONOTONIC, absolute, nanoseconds) has passed.
    pub fn wait_for_input_room(&self, deadline: Option<u64>) {
        let waiter = Arc::new(crate::sync::Waiter::new());
        let sleeper = waiter.clone() as Arc<dyn crate::sync::Wake>;
        self.input_room.add(sleeper.clone());
        if self.state.lock().input_room() == 0 {
            waiter.sleep(deadline);
        }
        self.input_room.remove(&sleeper);
    }

    /// The host takes output again.
    pub fn output_ready(&self, kernel: &Kernel) {
        let state = self.state.lock();
        self.finish(kernel, state, Default::default());
    }

    /// Bytes of output that the host has not taken yet.
    pub fn output_pending(&self) -> usize {
        self.state.lock().out.len()
    }

    /// The host's end is gone: readers see the end, writers an error, and the session is told (`SIGHUP`).
    pub fn disconnect(self: &Arc<Tty>, kernel: &Kernel) {
        super::job::hang_up(kernel, self, true);
    }

    /// Makes this the controlling terminal of a session leader that the machine starts, in the foreground.
    pub fn become_controlling(self: &Arc<Tty>, leader: &crate::task::Process) {
        super::job::control(leader, self);
    }

    /// The window has another size: the foreground process group hears of it (`SIGWINCH`).
    pub fn resize(&self, kernel: &Kernel, rows: u16, cols: u16) {
        let size = super::termios::WinSize { rows, cols, xpixel: 0, ypixel: 0 };
        self.set_window_size(kernel, size);
    }
}
