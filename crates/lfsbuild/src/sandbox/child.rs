//! Child processes that run phases: what they report, how long they took, and their end when the user wants it.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, ExitStatus};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cancel::cancelled;
use crate::error::{Error, Result};

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    /// Processor time of it and of all its descendants that were waited for.
    pub(crate) cpu: Duration,
}

/// A step's log, for a child to write on at its end.
pub(super) fn log_end(log: &Path) -> Result<File> {
    File::options().append(true).create(true).open(log).map_err(|e| Error::io("opening", log, e))
}

/// Hands on what a child writes to standard output, a pipe, line by line without their ends, until nobody has it open any more, and
/// waits for the child.
///
/// # Errors
/// [`Error::Interrupted`] when the user interrupts: the child is killed.
pub(super) fn attend(mut child: Child, line: &mut dyn FnMut(&[u8])) -> Result<Exit> {
    let fail = |source| Error::Io { action: "waiting for a step's sandbox".into(), source };
    let pid = Pid::from_raw(child.id() as i32);
    let interrupted = match child.stdout.take() {
        Some(mut output) => read_lines(&mut output, pid, line).map_err(fail)?,
        None => false,
    };
    let exit = wait_with_usage(pid).map_err(fail)?;
    if interrupted { Err(Error::Interrupted) } else { Ok(exit) }
}

/// The value tells whether the user has interrupted.
fn read_lines(output: &mut ChildStdout, pid: Pid, line: &mut dyn FnMut(&[u8])) -> std::io::Result<bool> {
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    let mut interrupted = false;
    loop {
        if cancelled() && !interrupted {
            interrupted = true;
            // It may have ended by itself just now.
            let _ = kill(pid, Signal::SIGKILL);
        }
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(100u16)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let n = output.read(&mut buffer)?;
        if n == 0 {
            return Ok(interrupted);
        }
        pending.extend_from_slice(buffer.get(..n).unwrap_or_default());
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = pending.drain(..=end).collect();
            line(whole.get(..end).unwrap_or_default());
        }
    }
}

/// Waits for a child; the value has the processor time of it and of all its descendants that were waited for.
fn wait_with_usage(pid: Pid) -> std::io::Result<Exit> {
    let mut raw = 0;
    // SAFETY: all-zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to valid places. The child was started by us and is waited for here only.
        let got = unsafe { libc::wait4(pid.as_raw(), &raw mut raw, 0, &raw mut usage) };
        match Errno::result(got) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let time = |t: libc::timeval| Duration::new(t.tv_sec.max(0) as u64, t.tv_usec.clamp(0, 999_999) as u32 * 1000);
    Ok(Exit { status: ExitStatus::from_raw(raw), cpu: time(usage.ru_utime) + time(usage.ru_stime) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn run(script: &str) -> (Vec<String>, Exit) {
        let child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = Vec::new();
        let exit = attend(child, &mut |line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap();
        (lines, exit)
    }

    #[test]
    fn lines_and_the_exit_status_arrive() {
        let (lines, exit) = run("echo one; printf 'two\\nunfinished'; exit 3");
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(exit.status.code(), Some(3));
        let (_, exit) = run("kill -9 $$");
        assert_eq!(exit.status.signal(), Some(9));
    }

    #[test]
    fn processor_time_is_that_of_all_that_ran() {
        let (_, exit) = run("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done & wait");
        assert!(exit.cpu > Duration::from_millis(20), "{:?}", exit.cpu);
    }
}
