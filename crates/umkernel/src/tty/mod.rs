//! Terminals (`tty(4)`, `termios(3)`).

pub mod ldisc;
pub mod termios;

/// A terminal.
pub struct Tty {}

/// The terminals of the machine.
#[derive(Default)]
pub struct Ttys {}

/// A session leader ends.
pub fn disassociate(_kernel: &crate::Kernel, _process: &alloc::sync::Arc<crate::task::Process>) {}
