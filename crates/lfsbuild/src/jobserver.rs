//! GNU make's jobserver: one pot of tokens for all steps, so that a build never runs more jobs than the user allows.
//!
//! The pipe form of the protocol (`--jobserver-auth=R,W`) is the one that make before 4.4 knows and later ones accept. The pot
//! holds one token for each job. A step takes one when it starts and gives it back at its end; that is the token which every
//! make assumes to hold already. More jobs take more tokens out of the same pipe. See "POSIX Jobserver" in make's manual.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{FcntlArg, fcntl};

use crate::error::{Error, Result};

/// Lowest descriptor number for the pipe: configure scripts and shells use the small ones for themselves.
const LOWEST_FD: i32 = 200;

/// Processors that the builder may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The pot.
#[derive(Debug)]
pub(crate) struct Jobserver {
    read: OwnedFd,
    write: File,
    /// The same pipe, opened anew so that it alone is non-blocking.
    try_read: File,
    jobs: usize,
    /// Steps that have a token of their own.
    steps: AtomicUsize,
}

/// Tokens of one step for as long as it lives: its own, and some that it keeps from all others.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    pot: &'a Jobserver,
    more: usize,
}

impl Share<'_> {
    /// How many jobs they allow.
    pub(crate) fn jobs(&self) -> usize {
        1 + self.more
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        (0..self.more).for_each(|_| self.pot.put());
    }
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
        let pot = Jobserver { read, write: write.into(), try_read, jobs: jobs.max(1), steps: AtomicUsize::new(0) };
        pot.refill().map_err(io)?;
        Ok(pot)
    }

    /// The value of `MAKEFLAGS` that lets make find the pot.
    pub(crate) fn makeflags(&self) -> String {
        format!("-j{} --jobserver-auth={},{}", self.jobs, self.read.as_raw_fd(), self.write.as_raw_fd())
    }

    /// Takes a step's own token if there is one.
    pub(crate) fn try_acquire(&self) -> bool {
        let taken = self.take();
        if taken {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Gives a step's own token back.
    pub(crate) fn release(&self) {
        self.steps.fetch_sub(1, Ordering::Relaxed);
        self.put();
    }

    /// For a step whose makes do not reach the pipe, and which has its own token: as many more as are free, but no more than its part
    /// where all steps that run get the same.
    pub(crate) fn share(&self) -> Share<'_> {
        let part = self.jobs.div_ceil(self.steps.load(Ordering::Relaxed).max(1));
        let more = (1..part).take_while(|_| self.take()).count();
        Share { pot: self, more }
    }

    fn take(&self) -> bool {
        let mut token = [0];
        matches!((&self.try_read).read(&mut token), Ok(1))
    }

    fn put(&self) {
        // The pipe holds far more bytes than there are tokens, so this neither blocks nor fails.
        let _ = (&self.write).write_all(b"+");
    }

    /// Fills the pot up while nothing runs: a make that was killed does not give its tokens back.
    pub(crate) fn refill(&self) -> std::io::Result<()> {
        while self.take() {}
        self.steps.store(0, Ordering::Relaxed);
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
    fn steps_share_what_is_free_evenly() {
        let pot = Jobserver::new(8).unwrap();
        assert!(pot.try_acquire());
        let alone = pot.share();
        assert_eq!(alone.jobs(), 8);
        drop(alone);
        assert!(pot.try_acquire() && pot.try_acquire());
        let (a, b) = (pot.share(), pot.share());
        assert_eq!((a.jobs(), b.jobs()), (3, 3));
        // Three steps and twice two more tokens: one is left.
        assert_eq!(pot.share().jobs(), 2);
        drop((a, b));
        (0..3).for_each(|_| pot.release());
        assert_eq!((0..9).take_while(|_| pot.take()).count(), 8);
        // Nothing is free.
        assert_eq!(pot.share().jobs(), 1);
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
