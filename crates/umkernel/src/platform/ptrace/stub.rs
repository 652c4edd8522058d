//! The stub: one page of code at a fixed address in every guest process, in which the host makes the few calls that
//! only the process itself can make (`mmap`, `clone`...). Guest code that jumps there gains nothing: its system calls
//! stop before the host sees them, like everywhere else.

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::vec;
use std::vec::Vec;

/// Where the page lies; in no guest's reach, see [`crate::platform::Platform::reserved_ranges`].
pub(super) const STUB_BASE: u64 = 0x6000_0000_0000;
/// Length of the page.
pub(super) const STUB_LEN: u64 = 4096;
/// `syscall; int3`: makes one call and stops.
pub(super) const STUB_CALL: u64 = STUB_BASE;
/// `syscall`, then `int3` in the parent; the child sleeps until its tracer takes it.
pub(super) const STUB_CLONE: u64 = STUB_BASE + 16;
/// `lock cmpxchg %esi,(%rdi); int3`.
pub(super) const STUB_EXCHANGE: u64 = STUB_BASE + 96;
/// Where the child of [`STUB_CLONE`] sleeps.
const STUB_CHILD: usize = 32;

/// How long an untraced child waits for its tracer before it ends itself: its tracer was killed.
const ORPHAN_TIMEOUT_MS: u32 = 120_000;

fn code() -> Vec<u8> {
    let mut page = vec![0xcc; STUB_LEN as usize];
    page[..3].copy_from_slice(&[0x0f, 0x05, 0xcc]);
    // syscall; test %rax,%rax; jz child; int3
    page[16..24].copy_from_slice(&[0x0f, 0x05, 0x48, 0x85, 0xc0, 0x74, (STUB_CHILD - 23) as u8, 0xcc]);
    // poll(NULL, 0, timeout); exit_group(1): no stack is touched.
    let mut child = vec![0x31, 0xff, 0x31, 0xf6, 0xba];
    child.extend_from_slice(&ORPHAN_TIMEOUT_MS.to_le_bytes());
    child.extend_from_slice(&[0xb8, 7, 0, 0, 0, 0x0f, 0x05]);
    child.extend_from_slice(&[0xbf, 1, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05, 0xcc]);
    let exchange = (STUB_EXCHANGE - STUB_BASE) as usize;
    page[exchange..exchange + 5].copy_from_slice(&[0xf0, 0x0f, 0xb1, 0x37, 0xcc]);
    page[STUB_CHILD..STUB_CHILD + child.len()].copy_from_slice(&child);
    page
}

/// The page as a host file that every guest process maps.
pub(super) fn memfd() -> io::Result<OwnedFd> {
    // SAFETY: the name is NUL-terminated; the result is checked.
    let fd = unsafe { libc::memfd_create(c"umlfs-stub".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let page = code();
    crate::host::pwrite(fd.as_raw_fd(), &page, 0).map_err(|e| io::Error::from_raw_os_error(e.errno.0.into()))?;
    Ok(fd)
}

/// The first guest process: shares this process's descriptors, maps the stub and sleeps in it. Returns its host id.
pub(super) fn spawn_first(stub: &OwnedFd) -> io::Result<i32> {
    let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
    let fd = stub.as_raw_fd();
    // SAFETY: without CLONE_VM the child has its own copy of memory; it makes raw system calls only, as a child of a
    // process with several threads must.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, NONE, NONE, NONE, NONE) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: this is the child.
        0 => unsafe { first_main(fd) },
        pid => Ok(pid as i32),
    }
}

/// An unused argument. Arguments of a variadic call must be whole registers: the upper half of an `int` may hold anything.
const NONE: libc::c_long = 0;

fn long(n: i32) -> libc::c_long {
    n.into()
}

/// # Safety
/// Runs in a fresh child only, whose memory nobody else uses.
unsafe fn first_main(stub: i32) -> ! {
    // SAFETY: raw calls with constant or local arguments; the mapping lies where the host maps nothing by itself.
    unsafe {
        // A session of its own: the terminal's signals are for the front process.
        libc::syscall(libc::SYS_setsid);
        libc::syscall(libc::SYS_prctl, long(libc::PR_SET_PDEATHSIG), long(libc::SIGKILL), NONE, NONE, NONE);
        let none = 0u64;
        libc::syscall(libc::SYS_rt_sigprocmask, long(libc::SIG_SETMASK), &raw const none, NONE, 8 as libc::c_long);
        let got = libc::syscall(
            libc::SYS_mmap,
            STUB_BASE,
            STUB_LEN,
            long(libc::PROT_READ | libc::PROT_EXEC),
            long(libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE),
            long(stub),
            NONE,
        );
        if got as u64 != STUB_BASE {
            libc::syscall(libc::SYS_exit_group, long(1));
        }
        let child: extern "C" fn() -> ! = core::mem::transmute(STUB_BASE as usize + STUB_CHILD);
        child()
    }
}
