//! The console: the host's terminal, or its standard streams, as the guest's `/dev/console`.

use super::{BootError, MachineConfig, Run, WATCHED_SIGNALS, spawn_service};
use crate::Errno;
use crate::host::{self, Ready, process};
use crate::kernel::Kernel;
use crate::log::Level;
use crate::signal::number::{self, SIGUSR1, SIGWINCH};
use crate::tty::{ConsoleOutput, Tty};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

/// Standard input of the kernel process.
const STDIN: i32 = 0;
/// Standard output of the kernel process.
const STDOUT: i32 = 1;

/// The guest's console terminal and the host threads that feed it.
pub(super) struct Console {
    pub(super) tty: Arc<Tty>,
}

struct HostTerminal;

impl ConsoleOutput for HostTerminal {
    fn write(&self, bytes: &[u8]) -> usize {
        // If the terminal is gone, output has nowhere to go.
        let _ = host::write_all(STDOUT, bytes);
        bytes.len()
    }
}

fn follow_window(kernel: &Kernel, tty: &Tty) {
    if let Some((rows, cols)) = process::window_size(STDIN).or_else(|| process::window_size(STDOUT)) {
        tty.resize(kernel, rows, cols);
    }
}

impl Console {
    /// Makes the console and starts the threads that bring it keys, window sizes and requests to stop.
    pub(super) fn start(kernel: &Arc<Kernel>, config: &MachineConfig) -> Result<Console, BootError> {
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
        watch_signals(kernel, &tty)?;
        if process::is_terminal(STDIN) || matches!(config.run, Run::Init(_)) {
            feed_keys(kernel, &tty)?;
        }
        Ok(Console { tty })
    }
}

/// Brings what the user types to the guest, as fast as the guest takes it.
fn feed_keys(kernel: &Arc<Kernel>, tty: &Arc<Tty>) -> Result<(), BootError> {
    let (keys_kernel, tty) = (kernel.clone(), tty.clone());
    spawn_service(kernel, "console", move || {
        let kernel = keys_kernel;
        let mut buf = [0; 4096];
        loop {
            match host::read(STDIN, &mut buf) {
                Ok(0) => break,
                Ok(n) => give(&kernel, &tty, &buf[..n]),
                Err(e) if e == Errno::EINTR => {}
                Err(e) if e == Errno::EAGAIN => host::wait_ready(STDIN, Ready::Read),
                Err(_) => break,
            }
        }
        // The end of a file or pipe is no more than a serial line on which nobody types any more: what came before is
        // still to be read, and the machine goes on. A terminal that is gone takes its session along.
        if process::is_terminal(STDIN) {
            tty.disconnect(&kernel);
        }
    })
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
fn watch_signals(kernel: &Arc<Kernel>, tty: &Arc<Tty>) -> Result<(), BootError> {
    let (told, tty) = (kernel.clone(), tty.clone());
    spawn_service(kernel, "signals", move || {
        let kernel = told;
        while let Ok(signal) = process::wait_signal(WATCHED_SIGNALS.0) {
            match signal {
                SIGWINCH => follow_window(&kernel, &tty),
                // No terminal has these keys.
                SIGUSR1 => kernel.ctrl_alt_del(),
                other => {
                    let name = number::name(other).unwrap_or("a signal");
                    kernel.message(Level::Notice, format!("stopped by {name} from the host"));
                    kernel.power(crate::power::PowerAction::Off(128 + other));
                }
            }
        }
    })
}
