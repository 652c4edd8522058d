//! The guest's console: a pseudo-terminal of the host's that the kernel has as `con0`. Between it and the user's terminal or
//! streams bytes are copied, so that the kernel never has the user's terminal itself.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::thread::{JoinHandle, spawn};

use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::messages::Messages;

/// The console's two ends.
pub(crate) struct Console {
    master: File,
    /// The kernel's end; kept open until it has ended, so that the other one does not end before.
    slave: OwnedFd,
}

impl Console {
    /// Makes it, as large as the user's window.
    pub(crate) fn new() -> std::io::Result<Console> {
        let pty = openpty(window().as_ref(), None)?;
        // The guest's terminal does all that a terminal does; here nothing is to be added.
        let mut settings = tcgetattr(&pty.slave)?;
        cfmakeraw(&mut settings);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &settings)?;
        for end in [pty.master.as_fd(), pty.slave.as_fd()] {
            nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        }
        Ok(Console { master: pty.master.into(), slave: pty.slave })
    }

    /// The kernel's end.
    pub(crate) fn slave(&self) -> RawFd {
        self.slave.as_raw_fd()
    }

    /// Takes over the size of the user's window.
    pub(crate) fn follow_window(&self) {
        if let Some(size) = window() {
            // SAFETY: the host reads one winsize. The kernel is told by it.
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        }
    }

    /// Starts to copy what the user types, from standard input, for as long as this process lives.
    pub(crate) fn feed(&self) -> std::io::Result<()> {
        let mut master = self.master.try_clone()?;
        spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a file or pipe is no more than a serial line on which nobody types any more.
            while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
                if master.write_all(buffer.get(..read).unwrap_or_default()).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Starts to copy what the guest prints, to a stream of ours and to the kept messages. The thread ends when
    /// the kernel's end is closed everywhere.
    pub(crate) fn show(&self, stream: Option<RawFd>, messages: &Messages) -> std::io::Result<JoinHandle<()>> {
        let (mut master, messages) = (self.master.try_clone()?, messages.clone());
        // SAFETY: a standard stream, open for as long as this process lives.
        let stream = stream.map(|stream| unsafe { BorrowedFd::borrow_raw(stream) }.try_clone_to_owned()).transpose()?;
        let mut stream = stream.map(File::from);
        Ok(spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = master.read(&mut buffer) {
                let bytes = buffer.get(..read).unwrap_or_default();
                messages.add(bytes);
                if let Some(stream) = &mut stream {
                    // A terminal that is gone shows nothing any more.
                    let _ = stream.write_all(bytes);
                }
            }
        }))
    }

    /// Closes the kernel's end.
    pub(crate) fn close(self) {
        drop(self.slave);
    }
}

/// The size of the user's window, if there is one.
fn window() -> Option<Winsize> {
    [0, 1].into_iter().find_map(|stream| {
        let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the host writes one winsize.
        let result = unsafe { libc::ioctl(stream, libc::TIOCGWINSZ, &raw mut size) };
        (result == 0 && size.ws_col > 0).then_some(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_arrives_unchanged_and_to_the_last_byte() {
        let console = Console::new().unwrap();
        let messages = Messages::default();
        let shown = console.show(None, &messages).unwrap();
        let mut kernel = File::from(console.slave.try_clone().unwrap());
        kernel.write_all(b"a\nb\x03\x04").unwrap();
        drop(kernel);
        console.close();
        shown.join().unwrap();
        assert_eq!(messages.text(), "a\nb\x03\x04");
    }
}
