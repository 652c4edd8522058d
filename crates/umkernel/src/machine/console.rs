//! The console: the host's terminal, or its standard streams, as the guest's `/dev/console`.

use super::MachineConfig;
use crate::host;
use crate::kernel::Kernel;
use crate::log::Level;
use crate::tty::{ConsoleOutput, Tty};
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use std::boxed::Box;
use std::format;
use std::sync::Arc;

/// Standard output of the kernel process.
const STDOUT: i32 = 1;

/// The guest's console terminal and the host threads that feed it.
pub(super) struct Console {
    pub(super) tty: Arc<Tty>,
}

struct HostTerminal;

impl ConsoleOutput for HostTerminal {
    fn write(&self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            match host::write(STDOUT, rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e == crate::Errno::EINTR => {}
                Err(e) if e == crate::Errno::EAGAIN => wait_writable(),
                // The terminal is gone: output has nowhere to go.
                Err(_) => break,
            }
        }
        bytes.len()
    }
}

/// Somebody made the terminal non-blocking: wait as a blocking write would.
fn wait_writable() {
    let mut fd = libc::pollfd { fd: STDOUT, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd of ours.
    unsafe { libc::poll(&raw mut fd, 1, 1000) };
}

/// Whether a descriptor is a terminal.
pub(super) fn is_terminal(fd: i32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::isatty(fd) == 1 }
}

/// Rows and columns of a host terminal.
fn host_window(fd: i32) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the winsize is ours and writable.
    let ok = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) } == 0;
    (ok && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

fn follow_window(kernel: &Kernel, tty: &Tty) {
    if let Some((rows, cols)) = host_window(0).or_else(|| host_window(STDOUT)) {
        tty.resize(kernel, rows, cols);
    }
}

impl Console {
    /// Makes the console and starts the threads that bring it keys, window sizes and requests to stop.
    pub(super) fn start(kernel: &Arc<Kernel>, config: &MachineConfig) -> Console {
        let tty = kernel.ttys.add_console(0, Box::new(HostTerminal));
        follow_window(kernel, &tty);
        if config.verbose {
            *kernel.message_sink.lock() = Some(Box::new(|level, time, text| {
                if level < Level::Debug {
                    let (sec, usec) = (time / 1_000_000_000, time % 1_000_000_000 / 1000);
                    HostTerminal.write(format!("[{sec:5}.{usec:06}] {text}\r\n").as_bytes());
                }
            }));
        }
        watch_signals(kernel, &tty);
        if is_terminal(0) || matches!(config.run, super::Run::Init(_)) {
            feed_keys(kernel, &tty);
        }
        Console { tty }
    }
}

/// Brings what the user types to the guest, as fast as the guest takes it.
fn feed_keys(kernel: &Arc<Kernel>, tty: &Arc<Tty>) {
    let (kernel, tty) = (kernel.clone(), tty.clone());
    super::spawn_service("console", move || {
        let mut buf = [0u8; 4096];
        loop {
            // SAFETY: the buffer is ours and writable.
            let n = unsafe { libc::read(0, buf.as_mut_ptr().cast(), buf.len()) };
            match n {
                n if n > 0 => give(&kernel, &tty, &buf[..n as usize]),
                0 => break,
                _ => match std::io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => {
                        let mut fd = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
                        // SAFETY: one pollfd of ours.
                        unsafe { libc::poll(&raw mut fd, 1, -1) };
                    }
                    _ => break,
                },
            }
        }
        // The end of a file or pipe is no more than a serial line on which nobody types any more: what came before is
        // still to be read, and the machine goes on. A terminal that is gone takes its session along.
        if is_terminal(0) {
            tty.disconnect(&kernel);
        }
    });
}

/// Hands over input, waiting while the terminal's queue is full.
fn give(kernel: &Kernel, tty: &Tty, mut bytes: &[u8]) {
    loop {
        let taken = tty.receive(kernel, bytes);
        bytes = &bytes[taken..];
        if bytes.is_empty() {
            return;
        }
        tty.wait_for_input_room(None);
    }
}

/// Signals that the host's user sends to the machine: a new window size, Ctrl-Alt-Del, or the wish that it stop.
fn watch_signals(kernel: &Arc<Kernel>, tty: &Arc<Tty>) {
    let mut set = SigSet::empty();
    for signal in super::WATCHED_SIGNALS {
        set.add(signal);
    }
    let (kernel, tty) = (kernel.clone(), tty.clone());
    super::spawn_service("signals", move || {
        while let Ok(signal) = set.wait() {
            match signal {
                Signal::SIGWINCH => follow_window(&kernel, &tty),
                // No terminal has these keys.
                Signal::SIGUSR1 => kernel.ctrl_alt_del(),
                other => {
                    kernel.message(Level::Notice, format!("stopped by {other} from the host"));
                    let code = 128 + (other as i32) as u8;
                    kernel.power(crate::power::PowerAction::Off(code));
                }
            }
        }
    });
}
