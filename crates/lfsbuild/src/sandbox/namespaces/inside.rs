//! The helper process: makes the namespaces, is the first process in them, and runs the phases one after the other.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getgid, getppid, getuid, pipe, read, write};
use step_init::{EXIT_NO_SANDBOX, Report};

use super::mounts;
use crate::sandbox::Spec;

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
    Report::NoSandbox { message }.send();
    EXIT_NO_SANDBOX
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
    loopback_up()?;
    let orders = spec.orders();
    step_init::settle(&orders)?;
    step_init::run(&orders, Report::send)
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
