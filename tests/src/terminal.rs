//! A terminal for programs under test: types to them, waits for what they print, looks at the terminal's settings.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

use crate::machine::wait_within;

/// A program on a pseudo-terminal of its own, in a session of its own.
pub struct Terminal {
    child: Option<Child>,
    master: File,
    /// Kept open: the settings outlive the program, and reads do not fail when it ends.
    slave: File,
    /// All that the program has printed.
    seen: String,
    /// How much of it earlier calls of `expect` have used up.
    used: usize,
}

fn window(rows: u16, cols: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts a command with the terminal as all of its standard streams.
    pub fn start(command: &mut Command, rows: u16, cols: u16) -> Terminal {
        let mut terminal = Terminal::unstarted(rows, cols);
        terminal.run(command);
        terminal
    }

    /// A terminal on which nothing runs yet.
    pub fn unstarted(rows: u16, cols: u16) -> Terminal {
        let pty = openpty(Some(&window(rows, cols)), None::<&Termios>).unwrap();
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        Terminal { child: None, master, slave, seen: String::new(), used: 0 }
    }

    /// Starts the command on it.
    pub fn run(&mut self, command: &mut Command) {
        let stream = || Stdio::from(self.slave.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: only calls that are safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// The command's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("nothing runs").id()
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the program prints `text`, after what earlier calls waited for; returns what came before it.
    ///
    /// # Panics
    /// It does not within `limit`; shows all that was printed.
    #[track_caller]
    pub fn expect_within(&mut self, text: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.seen[self.used..].find(text) {
                let before = self.seen[self.used..self.used + at].to_string();
                self.used += at + text.len();
                return before;
            }
            if !self.read_until(end) {
                panic!("{text:?} was not printed within {limit:?}; the terminal shows:\n{}", self.seen);
            }
        }
    }

    /// `expect_within` a time that is enough for anything but a boot.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        self.expect_within(text, Duration::from_secs(30))
    }

    /// Reads some output; false when there was none until `end`.
    fn read_until(&mut self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap() == 0 {
            return false;
        }
        let mut buffer = [0; 4096];
        let count = self.master.read(&mut buffer).unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        true
    }

    /// All that was printed so far.
    pub fn transcript(&mut self) -> &str {
        while self.read_until(Instant::now()) {}
        &self.seen
    }

    /// Changes the window's size, as a terminal emulator does.
    pub fn resize(&self, rows: u16, cols: u16) {
        let size = window(rows, cols);
        // SAFETY: the kernel reads one winsize.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0);
    }

    /// The settings, as `stty -a` would show them.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    /// Waits for the program's end, reading on meanwhile.
    ///
    /// # Panics
    /// It does not end within `limit`; shows all that was printed.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            self.read_until(Instant::now() + Duration::from_millis(20));
            if let Some(status) = wait_within(self.child.as_mut().expect("nothing runs"), Duration::ZERO) {
                return status;
            }
            assert!(Instant::now() < end, "no end within {limit:?}; the terminal shows:\n{}", self.transcript());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended long since.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
