//! GNU make's jobserver: one pot of tokens for all steps, so that a build never runs more jobs than the user allows.
//!
//! The pipe form of the protocol (`--jobserver-auth=R,W`) is the one that make before 4.4 knows and later ones accept. The pot
//! holds one token for each job. A step takes one when it starts and gives it back at its end; that is the token which every
//! make assumes to hold already. More jobs take more tokens out of the same pipe. See "POSIX Jobserver" in make's manual.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, fcntl};

use crate::error::{Error, Result};

/// Lowest descriptor number for the pipe: configure scripts and shells use the small ones for themselves.
const LOWEST_FD: i32 = 200;

/// The pot.
#[derive(Debug)]
pub(crate) struct Jobserver {
    read: OwnedFd,
    write: File,
    /// The same pipe, opened anew so that it alone is non-blocking.
    try_read: File,
    jobs: usize,
}

impl Jobserver {
    /// A pot with `jobs` tokens. Its descriptors are inherited by the programs that are started.
    pub(crate) fn new(jobs: usize) -> Result<Self> {
        let io = |e: std::io::Error| Error::Io { action: "making the jobserver".into(), source: e };
        let (read, write) = nix::unistd::pipe().map_err(|e| io(e.into()))?;
        let high = |fd: &OwnedFd| -> Result<OwnedFd> {
            let raw = fcntl(fd, FcntlArg::F_DUPFD(LOWEST_FD)).map_err(|e| io(e.into()))?;
            // SAFETY: fcntl has just made this descriptor, and nothing else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(raw) })
        };
        let (read, write) = (high(&read)?, high(&write)?);
        let try_read = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", read.as_raw_fd()))
            .map_err(io)?;
        let pot = Jobserver { read, write: write.into(), try_read, jobs: jobs.max(1) };
        pot.refill().map_err(io)?;
        Ok(pot)
    }

    /// The value of `MAKEFLAGS` that lets make find the pot.
    pub(crate) fn makeflags(&self) -> String {
        format!("-j{} --jobserver-auth={},{}", self.jobs, self.read.as_raw_fd(), self.write.as_raw_fd())
    }

    /// Takes a token if there is one.
    pub(crate) fn try_acquire(&self) -> bool {
        let mut token = [0];
        matches!((&self.try_read).read(&mut token), Ok(1))
    }

    /// Gives a token back.
    pub(crate) fn release(&self) {
        // The pipe holds far more bytes than there are tokens, so this neither blocks nor fails.
        let _ = (&self.write).write_all(b"+");
    }

    /// Fills the pot up while nothing runs: a make that was killed does not give its tokens back.
    pub(crate) fn refill(&self) -> std::io::Result<()> {
        while self.try_acquire() {}
        (&self.write).write_all(&vec![b'+'; self.jobs])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted() {
        let pot = Jobserver::new(2).unwrap();
        assert!(pot.try_acquire());
        assert!(pot.try_acquire());
        assert!(!pot.try_acquire());
        pot.release();
        assert!(pot.try_acquire());
        pot.refill().unwrap();
        assert!(pot.try_acquire() && pot.try_acquire() && !pot.try_acquire());
    }

    #[test]
    fn make_finds_the_pot() {
        let pot = Jobserver::new(3).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Makefile"), "all: a b\n\t@echo done\na b:\n\t@echo $@\n").unwrap();
        let output = std::process::Command::new("make")
            .current_dir(dir.path())
            .env("MAKEFLAGS", pot.makeflags())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !stderr.contains("jobserver"), "{stderr}");
        // make gave back all that it took.
        assert!(pot.try_acquire() && pot.try_acquire() && pot.try_acquire() && !pot.try_acquire());
    }
}
