//! Terminals (`tty(4)`, `termios(3)`, `pty(7)`).
//!
//! A [`Tty`] is a line discipline between a wire and the programs that have it open. The wire of a console is the host's
//! ([`ConsoleOutput`], [`Tty::receive`]); that of a pseudoterminal is the file behind `/dev/ptmx` ([`pty`]).

mod console;
mod file;
mod ioctl;
mod job;
pub mod ldisc;
pub mod pty;
mod terminal;
pub mod termios;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;

pub use console::ConsoleOutput;
pub use file::TtyFile;
pub use job::disassociate;
pub use terminal::Tty;

use crate::sync::Mutex;
use crate::task::Pid;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Major number of terminals (`linux/major.h`).
pub const TTY_MAJOR: u32 = 4;
/// Major number of `/dev/tty`, `/dev/console` and `/dev/ptmx`.
pub const TTYAUX_MAJOR: u32 = 5;
/// Major number of the pseudoterminals' slave sides.
pub const UNIX98_PTY_SLAVE_MAJOR: u32 = 136;

/// The terminals of the machine.
#[derive(Default)]
pub struct Ttys {
    consoles: Mutex<BTreeMap<u32, Arc<Tty>>>,
    /// The terminal that `TIOCCONS` sends the console's output to.
    redirect: Mutex<Option<Arc<Tty>>>,
    /// Foreground groups of terminals that were hung up, by the session's leader: they are told when it exits.
    orphaned_groups: Mutex<BTreeMap<Pid, Pid>>,
}

impl Ttys {
    /// The console `conN`.
    pub fn console(&self, index: u32) -> Option<Arc<Tty>> {
        self.consoles.lock().get(&index).cloned()
    }

    /// The numbers of the consoles.
    pub fn console_indices(&self) -> Vec<u32> {
        self.consoles.lock().keys().copied().collect()
    }

    /// The terminal behind `/dev/console`: the first console.
    pub fn system_console(&self) -> Option<Arc<Tty>> {
        self.consoles.lock().values().next().cloned()
    }
}
