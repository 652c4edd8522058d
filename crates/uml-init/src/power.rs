//! The end of the machine.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, sync};
use uml_init::Outcome;

use crate::first_root::FirstRoot;

/// How long processes may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends all processes but this one.
pub(crate) fn kill_all() {
    // With nobody there it fails.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let end = Instant::now() + PATIENCE;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(nix::sys::wait::WaitStatus::StillAlive) => {
                if Instant::now() > end {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => {}
        }
    }
}

/// Leaves the image in good order, tells the host, and powers off.
pub(crate) fn off(first: &FirstRoot, outcome: &Outcome) -> ! {
    kill_all();
    sync();
    // The whole file system becomes read-only, wherever else it is mounted; what cannot be is in sync all the same.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let _ = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>);
    first.leave(outcome);
    first.hush();
    loop {
        // SAFETY: a constant argument.
        unsafe { libc::reboot(libc::RB_POWER_OFF) };
        std::thread::sleep(PATIENCE);
    }
}
