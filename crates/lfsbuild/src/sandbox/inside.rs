//! The helper process: makes the namespaces, is the first process in them, and runs the phases one after the other.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getgid, getppid, getuid, pipe, read, write};

use super::{EXIT_NO_SANDBOX, EXIT_PHASE_FAILED, Report, Spec, mounts};

/// Runs what the file `spec` orders; the value is the process's exit status.
pub(super) fn run(spec: &Path) -> i32 {
    let spec: Spec = match std::fs::read(spec)
        .map_err(|e| e.to_string())
        .and_then(|t| serde_json::from_slice(&t).map_err(|e| e.to_string()))
    {
        Ok(spec) => spec,
        Err(e) => return no_sandbox(format!("reading {}: {e}", spec.display())),
    };
    match outside(&spec) {
        Ok(status) => status,
        Err(reason) if spec.interactive => {
            eprintln!("cannot make the build sandbox: {reason}");
            EXIT_NO_SANDBOX
        }
        Err(reason) => no_sandbox(reason),
    }
}

fn no_sandbox(message: String) -> i32 {
    report(&Report::NoSandbox { message });
    EXIT_NO_SANDBOX
}

/// Sends a report to the builder. When that is gone this process is about to be killed, so a failed write says nothing new.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn die_with_parent() -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("prctl(PR_SET_PDEATHSIG): {e}"))
}

/// The process outside the namespaces: makes them, starts the first process inside, and waits for it.
fn outside(spec: &Spec) -> Result<i32, String> {
    let (uid, gid) = (getuid(), getgid());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .map_err(|e| format!("unshare(user, mount, pid, net, ipc, uts): {e}"))?;
    // user_namespaces(7): without CAP_SETGID outside, the group map can only be written after setgroups is denied.
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("writing /proc/self/{file}: {e}"))?;
    }
    // After unshare: new credentials clear the parent-death signal.
    die_with_parent()?;
    if getppid() != Pid::from_raw(spec.builder) {
        return Err("the builder is gone".into());
    }
    let (wait_for_go, go) = pipe().map_err(|e| format!("pipe: {e}"))?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
        ForkResult::Child => {
            drop(go);
            std::process::exit(match inside(spec, &wait_for_go) {
                Ok(status) => status,
                Err(reason) if spec.interactive => {
                    eprintln!("cannot make the build sandbox: {reason}");
                    EXIT_NO_SANDBOX
                }
                Err(reason) => no_sandbox(reason),
            });
        }
        ForkResult::Parent { child } => {
            drop(wait_for_go);
            write(&go, b"g").map_err(|e| format!("starting the first process: {e}"))?;
            loop {
                match waitpid(child, None) {
                    Ok(WaitStatus::Exited(_, status)) => return Ok(status),
                    Ok(WaitStatus::Signaled(_, signal, _)) => {
                        return Err(format!(
                            "the first process of the sandbox was killed by {signal} (out of memory?)"
                        ));
                    }
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(e) => return Err(format!("wait: {e}")),
                }
            }
        }
    }
}

/// Process 1 of the sandbox.
fn inside(spec: &Spec, wait_for_go: &OwnedFd) -> Result<i32, String> {
    die_with_parent()?;
    // The parent may have died before the signal was asked for: then the pipe has an end and no byte.
    let mut go = [0u8];
    if read(wait_for_go, &mut go) != Ok(1) {
        return Err("the builder is gone".into());
    }
    mounts::enter(spec)?;
    nix::unistd::sethostname("umlfs").map_err(|e| format!("sethostname: {e}"))?;
    loopback_up()?;
    prctl::set_no_new_privs().map_err(|e| format!("prctl(PR_SET_NO_NEW_PRIVS): {e}"))?;
    umask(Mode::from_bits_truncate(0o022));
    std::env::set_current_dir(&spec.cwd).map_err(|e| format!("chdir {}: {e}", spec.cwd.display()))?;
    if spec.interactive {
        return shell(spec);
    }
    for (i, (name, _)) in spec.phases.iter().enumerate() {
        report(&Report::Phase(name.clone()));
        let status = run_phase(spec, &format!("/run/umlfs/phases/{}-{name}", i + 1))?;
        if !status.success() {
            report(&failure(name, status));
            return Ok(EXIT_PHASE_FAILED);
        }
    }
    Ok(0)
}

/// Brings `lo` up: package test suites talk to themselves over it.
fn loopback_up() -> Result<(), String> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|e| format!("socket: {e}"))?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with its name and flags set (netdevice(7)).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result).map(drop).map_err(|e| format!("bringing up lo: {e}"))
}

fn shell_path(spec: &Spec) -> &'static str {
    match spec.root {
        crate::recipe::Root::Packages if !Path::new("/bin/bash").exists() => "/bin/sh",
        _ => "/bin/bash",
    }
}

/// Runs one phase, as the only one to wait for, and ends what it left running.
fn run_phase(spec: &Spec, script: &str) -> Result<std::process::ExitStatus, String> {
    let shell = shell_path(spec);
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
        .envs(spec.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(nix::unistd::dup(&output).map_err(dup)?)
        .stderr(nix::unistd::dup(&output).map_err(dup)?);
    if shell.ends_with("bash") {
        command.env("BASH_ENV", "/run/umlfs/prelude");
    }
    let child = command.spawn().map_err(|e| format!("starting {shell}: {e}"))?;
    let pid = Pid::from_raw(child.id() as i32);
    let status = reap_until(pid)?;
    // From process 1 this reaches everything in the namespace but process 1.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while waitpid(None, None).is_ok() {}
    Ok(status)
}

/// Waits for a child, and for every orphan that ends before it.
fn reap_until(pid: Pid) -> Result<std::process::ExitStatus, String> {
    loop {
        let mut raw = 0;
        // SAFETY: `raw` is a valid place for the status.
        let got = unsafe { libc::waitpid(-1, &raw mut raw, 0) };
        match Errno::result(got) {
            Ok(got) if got == pid.as_raw() => return Ok(std::process::ExitStatus::from_raw(raw)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(format!("wait: {e}")),
        }
    }
}

fn failure(phase: &str, status: std::process::ExitStatus) -> Report {
    let (line, command) = match std::fs::read_to_string("/run/umlfs/failure") {
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
fn shell(spec: &Spec) -> Result<i32, String> {
    let shell = shell_path(spec);
    let mut command = Command::new(shell);
    if shell.ends_with("bash") {
        command.args(["--noprofile", "--norc", "-i"]);
    }
    command.env_clear().envs(spec.env.iter().map(|(k, v)| (k, v)));
    let child = command.spawn().map_err(|e| format!("starting {shell}: {e}"))?;
    let status = reap_until(Pid::from_raw(child.id() as i32))?;
    Ok(status.code().unwrap_or(1))
}
