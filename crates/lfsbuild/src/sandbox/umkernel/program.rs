//! Running `umlfs` itself as a child process.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::error::{Error, Result};
use crate::sandbox::child;

/// Variables of the user's that a machine is to know of.
const KEPT: [&str; 2] = ["TERM", "UMLFS_PLATFORM"];

/// Bytes of an output in which an error is looked for.
const LOOKED_AT: u64 = 64 << 10;

/// The `umlfs` program.
pub(super) struct Program(PathBuf);

impl Program {
    pub(super) fn new(path: &Path) -> Program {
        Program(path.to_owned())
    }

    /// A command of it that ends with the builder.
    pub(super) fn command(&self, builder: i32) -> Command {
        let mut command = Command::new(&self.0);
        command.arg0("umlfs").env_clear();
        command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        let builder = Pid::from_raw(builder);
        // SAFETY: between fork and exec the closure makes two system calls and no allocation.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // It may have died before the signal was asked for.
                if getppid() == builder { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
            });
        }
        command
    }

    /// Runs a command to its end; the value is the lines that it wrote.
    ///
    /// # Errors
    /// It fails: with what it said. The user interrupts.
    pub(super) fn run(&self, mut command: Command, what: &str, work: &Path) -> Result<Vec<Vec<u8>>> {
        let said = work.join("umlfs.err");
        let file = File::create(&said).map_err(|e| Error::io("creating", &said, e))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let started = command.spawn().map_err(|e| Error::io("starting", &self.0, e))?;
        let mut lines = Vec::new();
        let exit = child::attend(started, &mut |line| lines.push(line.to_vec()))?;
        if exit.status.success() {
            return Ok(lines);
        }
        Err(failure(what, &text_from(&said, 0), exit.status, work))
    }
}

/// What a file has from a place on, or the last part of that.
pub(super) fn text_from(path: &Path, begin: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(begin.max(size.saturating_sub(LOOKED_AT))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The error that a command of `umlfs` has written, `umlfs: error: WHAT` and a hint.
pub(super) fn failure(what: &str, text: &str, status: ExitStatus, work: &Path) -> Error {
    if text.contains("No space left on device") {
        return Error::DiskFull { path: work.to_owned() };
    }
    let find = |mark: &str| text.lines().rev().find_map(|line| Some(line.split_once(mark)?.1.trim().to_owned()));
    let message = find("error: ").unwrap_or_else(|| match text.lines().last() {
        Some(line) => format!("{status}: {}", line.trim()),
        None => status.to_string(),
    });
    Error::Sandbox {
        message: format!("{what}: {message}"),
        hint: find("hint: ").unwrap_or_else(|| "`umlfs doctor` says what this host allows".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_child_s_error_is_handed_on() {
        let work = Path::new("/w");
        let show = |text: &str| {
            let error = failure("umlfs boot", text, ExitStatus::from_raw(256), work);
            (error.to_string(), error.hint().unwrap())
        };
        let (message, hint) = show("noise\numlfs: error: cannot mount x\n  hint: look there\n");
        assert_eq!(message, "cannot make the build sandbox: umlfs boot: cannot mount x");
        assert_eq!(hint, "look there");
        let (message, hint) = show("");
        assert_eq!(message, "cannot make the build sandbox: umlfs boot: exit status: 1");
        assert!(hint.contains("umlfs doctor"));
        assert!(show("only this").0.ends_with("exit status: 1: only this"));
        let full = failure("umlfs image create", "error: x: No space left on device", ExitStatus::from_raw(256), work);
        assert!(matches!(full, Error::DiskFull { .. }));
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let work = tempfile::tempdir().unwrap();
        let program = Program::new(Path::new("/bin/sh"));
        let run = |script: &str| {
            let mut command = program.command(std::process::id() as i32);
            command.args(["-c", script]);
            program.run(command, "sh", work.path())
        };
        assert_eq!(run("echo one; echo two").unwrap(), [b"one", b"two"]);
        let error = run("echo 'umlfs: error: it broke' >&2; exit 1").unwrap_err();
        assert_eq!(error.to_string(), "cannot make the build sandbox: sh: it broke");
        let orphan = program.command(1).args(["-c", "exit 0"]).status();
        assert!(orphan.is_err(), "a child of a builder that is gone");
    }
}
