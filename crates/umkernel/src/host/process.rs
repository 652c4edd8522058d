//! Host calls that are made in the kernel process only, never in a guest's: its streams, its signals, its files of proc(5).
//!
//! They are no part of the list in [`super`], which the seccomp filter of a guest's process lets through: code that a guest's
//! thread can reach in the kernel must not call anything here.

use super::sys::{check, syscall6};
use super::{HostFd, TimeSpec};
use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use core::time::Duration;

/// Host call numbers, x86-64 (`asm/unistd_64.h`).
mod nr {
    pub(super) const RT_SIGPROCMASK: usize = 14;
    pub(super) const IOCTL: usize = 16;
    pub(super) const WAIT4: usize = 61;
    pub(super) const KILL: usize = 62;
    pub(super) const FLOCK: usize = 73;
    pub(super) const RT_SIGTIMEDWAIT: usize = 128;
    pub(super) const CLOCK_NANOSLEEP: usize = 230;
    pub(super) const OPENAT: usize = 257;
}

/// Bytes of the host kernel's `sigset_t`.
const SIGSET_SIZE: usize = 8;

/// The whole of a host file that is read from its beginning to its end, as those of proc(5) are.
pub fn read_file(path: &core::ffi::CStr) -> Result<Vec<u8>> {
    const AT_FDCWD: isize = -100;
    const O_RDONLY_CLOEXEC: usize = 0o2_000_000;
    let args = [AT_FDCWD as usize, path.as_ptr() as usize, O_RDONLY_CLOEXEC, 0, 0, 0];
    // SAFETY: the path is NUL-terminated and outlives the call.
    let file = HostFd::new(check(unsafe { syscall6(nr::OPENAT, args) })? as i32);
    let mut text = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match super::read(file.raw(), &mut buf) {
            Ok(0) => return Ok(text),
            Ok(n) => text.extend_from_slice(&buf[..n]),
            Err(e) if e == Errno::EINTR => {}
            Err(e) => return Err(e),
        }
    }
}

/// Sleeps for at least `time`, whatever signals come.
pub fn sleep(time: Duration) {
    const CLOCK_MONOTONIC: usize = 1;
    const TIMER_ABSTIME: usize = 1;
    let end = Duration::from_nanos(super::monotonic_ns()).saturating_add(time);
    let end = TimeSpec { sec: end.as_secs() as i64, nsec: end.subsec_nanos().into() };
    let args = [CLOCK_MONOTONIC, TIMER_ABSTIME, &raw const end as usize, 0, 0, 0];
    // SAFETY: the timespec outlives the call, which only reads it.
    while check(unsafe { syscall6(nr::CLOCK_NANOSLEEP, args) }).is_err_and(|e| e == Errno::EINTR) {}
}

/// Bytes of the host kernel's `struct termios`.
pub const TERMIOS_SIZE: usize = 36;

/// Sets a terminal's modes at once (`struct termios` of the host's kernel).
pub fn set_terminal(fd: i32, termios: &[u8; TERMIOS_SIZE]) {
    const TCSETS: usize = 0x5402;
    // SAFETY: the structure is ours and readable. A terminal that is gone has no modes to set.
    let _ = check(unsafe { syscall6(nr::IOCTL, [fd as usize, TCSETS, termios.as_ptr() as usize, 0, 0, 0]) });
}

/// Gives up the lock on a file (`flock(2)`), whichever processes have it open.
pub fn unlock(fd: i32) {
    const LOCK_UN: usize = 8;
    // SAFETY: no memory is involved. A file system without locks has none to give up.
    let _ = check(unsafe { syscall6(nr::FLOCK, [fd as usize, LOCK_UN, 0, 0, 0, 0]) });
}

/// Kills a child process.
pub fn kill(pid: i32) {
    const SIGKILL: usize = 9;
    // SAFETY: no memory is involved. One that has ended needs no killing.
    let _ = check(unsafe { syscall6(nr::KILL, [pid as usize, SIGKILL, 0, 0, 0, 0]) });
}

/// A child process that has ended: its host id and its status as `wait(2)` gives it. Waits for one, or gives id 0 if there is none.
pub fn wait_child(wait: bool) -> Result<(i32, i32)> {
    const WALL: usize = 0x4000_0000;
    const NOHANG: usize = 1;
    let options = if wait { WALL } else { WALL | NOHANG };
    let mut status = 0i32;
    loop {
        // SAFETY: the status word is ours; null stands for the usage.
        match check(unsafe { syscall6(nr::WAIT4, [usize::MAX, &raw mut status as usize, options, 0, 0, 0]) }) {
            Ok(pid) => return Ok((pid as i32, status)),
            Err(e) if e == Errno::EINTR => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether a descriptor is a terminal (`isatty(3)`).
pub fn is_terminal(fd: i32) -> bool {
    const TCGETS: usize = 0x5401;
    let mut termios = [0u32; TERMIOS_SIZE / 4];
    // SAFETY: the buffer is ours, writable, and as large as the call's structure.
    check(unsafe { syscall6(nr::IOCTL, [fd as usize, TCGETS, termios.as_mut_ptr() as usize, 0, 0, 0]) }).is_ok()
}

/// Rows and columns of a host terminal's window; `None` for what is no terminal or does not know.
pub fn window_size(fd: i32) -> Option<(u16, u16)> {
    const TIOCGWINSZ: usize = 0x5413;
    // struct winsize: rows, columns, and two of pixels.
    let mut size = [0u16; 4];
    // SAFETY: the buffer is ours, writable, and as large as the call's structure.
    check(unsafe { syscall6(nr::IOCTL, [fd as usize, TIOCGWINSZ, size.as_mut_ptr() as usize, 0, 0, 0]) }).ok()?;
    let [rows, columns, ..] = size;
    (columns > 0).then_some((rows, columns))
}

/// Blocks host signals in the calling thread, and so in the threads that it starts from now on. Bit `n - 1` of the set is
/// signal `n`.
pub fn block_signals(set: u64) -> Result<()> {
    const SIG_BLOCK: usize = 0;
    // SAFETY: the set outlives the call, which only reads it; null stands for the old mask.
    check(unsafe { syscall6(nr::RT_SIGPROCMASK, [SIG_BLOCK, &raw const set as usize, 0, SIGSET_SIZE, 0, 0]) }).map(drop)
}

/// Waits until one of these host signals, which every thread of the process has blocked, is sent to the process or the
/// calling thread, and takes it. The set is as for [`block_signals`].
pub fn wait_signal(set: u64) -> Result<u8> {
    loop {
        // SAFETY: the set outlives the call, which only reads it; null stands for the siginfo and for no timeout.
        match check(unsafe { syscall6(nr::RT_SIGTIMEDWAIT, [&raw const set as usize, 0, 0, SIGSET_SIZE, 0, 0]) }) {
            Ok(signal) => return Ok(signal as u8),
            Err(e) if e == Errno::EINTR => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn files_come_whole() {
        let file = read_file(c"/proc/self/exe").unwrap();
        assert_eq!(file, std::fs::read("/proc/self/exe").unwrap());
        assert_eq!(read_file(c"/nonexistent").unwrap_err().errno, Errno::ENOENT);
        assert_eq!(read_file(c"/").unwrap_err().errno, Errno::EISDIR);
    }

    #[test]
    fn sleeps_as_long_as_told() {
        let start = std::time::Instant::now();
        sleep(Duration::from_millis(30));
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn terminals_are_told_from_files() {
        let pty =
            nix::pty::openpty(Some(&nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }), None);
        let pty = pty.unwrap();
        assert!(is_terminal(pty.slave.as_raw_fd()));
        assert_eq!(window_size(pty.slave.as_raw_fd()), Some((24, 80)));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_terminal(file.as_raw_fd()));
        assert_eq!(window_size(file.as_raw_fd()), None);
    }

    #[test]
    fn a_blocked_signal_is_waited_for() {
        const SIGUSR1: u8 = 10;
        // A thread of its own: its mask is nobody else's.
        let taken = std::thread::spawn(|| {
            block_signals(1 << (SIGUSR1 - 1)).unwrap();
            // SAFETY: gettid has no arguments.
            let tid = unsafe { nix::libc::gettid() };
            crate::host::tgkill(crate::host::getpid(), tid, SIGUSR1.into()).unwrap();
            wait_signal(1 << (SIGUSR1 - 1)).unwrap()
        });
        assert_eq!(taken.join().unwrap(), SIGUSR1);
    }
}
