//! The phases, one after the other, each a shell of its own.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::{DIR, EXIT_PHASE_FAILED, Orders, Report};

/// Why nothing could be run: the call and its errno.
type Reason = String;

/// Writes the shell text of phases, name and text, and what the shell reads before each, into the directory that is [`DIR`] for them.
///
/// # Errors
/// A file cannot be written; its name is in the message.
pub fn write_scripts(dir: &Path, phases: &[(String, String)]) -> Result<(), Reason> {
    let write =
        |path: &Path, text: &str| std::fs::write(path, text).map_err(|e| format!("writing {}: {e}", path.display()));
    let scripts = dir.join("phases");
    std::fs::create_dir_all(&scripts).map_err(|e| format!("mkdir {}: {e}", scripts.display()))?;
    for (i, (name, text)) in phases.iter().enumerate() {
        write(&scripts.join(script(i, name)), text)?;
    }
    // BASH_COMMAND is the failing command as written, LINENO its line in the phase's text.
    write(
        &dir.join("prelude"),
        &format!(
            "unset BASH_ENV\numask 022\ntrap 'printf \"%s\\n%s\" \"$LINENO\" \"$BASH_COMMAND\" > {DIR}/failure' ERR\n"
        ),
    )
}

fn script(i: usize, name: &str) -> String {
    format!("{}-{name}", i + 1)
}

/// Makes this process what the phases are to inherit, but for their environment.
///
/// # Errors
/// A system call that failed.
pub fn settle(orders: &Orders) -> Result<(), Reason> {
    nix::unistd::sethostname("umlfs").map_err(|e| format!("sethostname: {e}"))?;
    prctl::set_no_new_privs().map_err(|e| format!("prctl(PR_SET_NO_NEW_PRIVS): {e}"))?;
    umask(Mode::from_bits_truncate(0o022));
    std::env::set_current_dir(&orders.cwd).map_err(|e| format!("chdir {}: {e}", orders.cwd.display()))
}

/// Runs the phases, with their output on standard error, and tells of each; or gives the user a shell. The value is the exit status
/// for this process.
///
/// What a phase left running is killed, which is everything that this process may signal.
///
/// # Errors
/// A shell could not be started, or waited for.
pub fn run(orders: &Orders, tell: impl Fn(&Report)) -> Result<i32, Reason> {
    if orders.interactive {
        return shell(orders);
    }
    for (i, name) in orders.phases.iter().enumerate() {
        tell(&Report::Phase(name.clone()));
        let status = run_phase(orders, &format!("{DIR}/phases/{}", script(i, name)))?;
        if !status.success() {
            tell(&failure(name, status));
            return Ok(EXIT_PHASE_FAILED);
        }
    }
    Ok(0)
}

fn shell_path(orders: &Orders) -> &'static str {
    if orders.packages && !Path::new("/bin/bash").exists() { "/bin/sh" } else { "/bin/bash" }
}

/// Runs one phase, as the only one to wait for, and ends what it left running.
fn run_phase(orders: &Orders, script: &str) -> Result<ExitStatus, Reason> {
    let shell = shell_path(orders);
    let output = std::io::stderr();
    let dup = |e| format!("dup: {e}");
    let mut command = Command::new(shell);
    if shell.ends_with("bash") {
        command.args(["-eEu", "-o", "pipefail"]);
    } else {
        command.arg("-eu");
    }
    command
        .arg(script)
        .env_clear()
        .envs(orders.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(nix::unistd::dup(&output).map_err(dup)?)
        .stderr(nix::unistd::dup(&output).map_err(dup)?);
    if shell.ends_with("bash") {
        command.env("BASH_ENV", format!("{DIR}/prelude"));
    }
    let child = command.spawn().map_err(|e| format!("starting {shell}: {e}"))?;
    let status = reap_until(Pid::from_raw(child.id() as i32))?;
    // This process and process 1 are left out (kill(2)).
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while waitpid(None, None).is_ok() {}
    Ok(status)
}

/// Waits for a child, and for every orphan that ends before it.
fn reap_until(pid: Pid) -> Result<ExitStatus, Reason> {
    loop {
        let mut raw = 0;
        // SAFETY: `raw` is a valid place for the status.
        let got = unsafe { libc::waitpid(-1, &raw mut raw, 0) };
        match Errno::result(got) {
            Ok(got) if got == pid.as_raw() => return Ok(ExitStatus::from_raw(raw)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(format!("wait: {e}")),
        }
    }
}

fn failure(phase: &str, status: ExitStatus) -> Report {
    let (line, command) = match std::fs::read_to_string(format!("{DIR}/failure")) {
        Ok(text) => match text.split_once('\n') {
            Some((line, command)) => (line.parse().ok(), Some(command.to_owned())),
            None => (None, None),
        },
        Err(_) => (None, None),
    };
    Report::Failed {
        phase: phase.to_owned(),
        status: match status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => format!("exit status {}", status.code().unwrap_or(-1)),
        },
        line,
        command,
    }
}

/// `umlfs build --shell STEP`: a shell on the user's terminal.
fn shell(orders: &Orders) -> Result<i32, Reason> {
    let shell = shell_path(orders);
    let mut command = Command::new(shell);
    if shell.ends_with("bash") {
        command.args(["--noprofile", "--norc", "-i"]);
    }
    command.env_clear().envs(orders.env.iter().map(|(k, v)| (k, v)));
    let child = command.spawn().map_err(|e| format!("starting {shell}: {e}"))?;
    let status = reap_until(Pid::from_raw(child.id() as i32))?;
    Ok(status.code().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_numbered_and_share_a_prelude() {
        let dir = std::env::temp_dir().join(format!("umlfs-step-init-{}", std::process::id()));
        let phases = [("build".to_owned(), "make\n".to_owned()), ("install".to_owned(), "make install\n".to_owned())];
        write_scripts(&dir, &phases).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read("phases/1-build"), "make\n");
        assert_eq!(read("phases/2-install"), "make install\n");
        assert!(read("prelude").contains("> /run/umlfs/failure' ERR\n"), "{}", read("prelude"));
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(write_scripts(Path::new("/proc/none"), &phases).unwrap_err().contains("/proc/none"));
    }
}
