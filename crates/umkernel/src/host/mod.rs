//! The host calls that the kernel makes, raw and few: this list is what the seccomp filter of the `direct`
//! platform lets through. What only the kernel process itself calls is in [`process`] and not on it.
//!
//! Everything here is callable from a kernel that has neither libc nor thread-local storage. Errors are the
//! host's own numbers.

pub mod process;
mod sys;

#[cfg(feature = "direct")]
mod guest;
#[cfg(feature = "direct")]
pub use guest::*;

use crate::errno::{Errno, Error, Result};
use core::sync::atomic::AtomicU32;
use sys::{check, syscall6};

/// Host call numbers, x86-64 (`asm/unistd_64.h`).
mod nr {
    pub(super) const READ: usize = 0;
    pub(super) const CLOSE: usize = 3;
    pub(super) const POLL: usize = 7;
    pub(super) const MMAP: usize = 9;
    pub(super) const MUNMAP: usize = 11;
    pub(super) const PREAD64: usize = 17;
    pub(super) const PWRITE64: usize = 18;
    pub(super) const GETPID: usize = 39;
    pub(super) const WRITE: usize = 1;
    pub(super) const FDATASYNC: usize = 75;
    pub(super) const FTRUNCATE: usize = 77;
    pub(super) const SCHED_YIELD: usize = 24;
    pub(super) const FUTEX: usize = 202;
    pub(super) const CLOCK_GETTIME: usize = 228;
    pub(super) const TGKILL: usize = 234;
    pub(super) const FALLOCATE: usize = 285;
    pub(super) const PROCESS_VM_READV: usize = 310;
    pub(super) const PROCESS_VM_WRITEV: usize = 311;
    pub(super) const GETCPU: usize = 309;
    pub(super) const GETRANDOM: usize = 318;
    pub(super) const MEMFD_CREATE: usize = 319;
    pub(super) const MEMBARRIER: usize = 324;
}

/// Seconds and nanoseconds, as `timespec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpec {
    /// Whole seconds.
    pub sec: i64,
    /// Nanoseconds, 0..1_000_000_000.
    pub nsec: i64,
}

/// Sleeps while `*word == expected`, until woken or until `deadline` (CLOCK_MONOTONIC, absolute, nanoseconds).
///
/// Returns on a wake-up, a changed value, a signal to the host thread, or the deadline; the caller looks again.
/// The futex is process-shared, so it works from any process that maps the word.
pub fn futex_wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) {
    // SAFETY: the word and the timespec outlive the call; FUTEX_WAIT only reads them.
    with_wait_arguments(word, expected, deadline, |args| unsafe { _ = syscall6(nr::FUTEX, *args) });
}

/// As [`futex_wait`], for a task that holds no lock: on `direct`, the kernel survives that its host process is killed here.
pub fn futex_sleep(word: &AtomicU32, expected: u32, deadline: Option<u64>) {
    #[cfg(feature = "direct")]
    // SAFETY: as in `futex_wait`.
    with_wait_arguments(word, expected, deadline, |args| unsafe { crate::platform::direct::image::sleep(args) });
    #[cfg(not(feature = "direct"))]
    futex_wait(word, expected, deadline);
}

fn with_wait_arguments(word: &AtomicU32, expected: u32, deadline: Option<u64>, call: impl FnOnce(&[usize; 6])) {
    const FUTEX_WAIT_BITSET: usize = 9;
    let ts = deadline.map(|ns| TimeSpec { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as i64 });
    let ts_ptr = ts.as_ref().map_or(0, |t| t as *const TimeSpec as usize);
    call(&[word.as_ptr() as usize, FUTEX_WAIT_BITSET, expected as usize, ts_ptr, 0, u32::MAX as usize]);
}

/// Wakes up to `count` host threads that sleep on `word`.
pub fn futex_wake(word: &AtomicU32, count: u32) {
    const FUTEX_WAKE: usize = 1;
    // SAFETY: FUTEX_WAKE uses the address as a name only.
    unsafe {
        syscall6(nr::FUTEX, [word.as_ptr() as usize, FUTEX_WAKE, count as usize, 0, 0, 0]);
    }
}

/// Reads from a host file at an offset; returns the bytes read, 0 at its end.
pub fn pread(fd: i32, buf: &mut [u8], offset: u64) -> Result<usize> {
    // SAFETY: the buffer is ours and writable for its length.
    check(unsafe { syscall6(nr::PREAD64, [fd as usize, buf.as_mut_ptr() as usize, buf.len(), offset as usize, 0, 0]) })
}

/// [`pread`] to an address of the guest's; `EFAULT` if not even one byte can be stored there.
///
/// # Safety
/// Whatever lies there, in the whole range, is the guest's.
pub unsafe fn pread_to(fd: i32, addr: u64, len: usize, offset: u64) -> Result<usize> {
    // SAFETY: the caller's promise; the host checks that the memory can be written.
    check(unsafe { syscall6(nr::PREAD64, [fd as usize, addr as usize, len, offset as usize, 0, 0]) })
}

/// [`pwrite`] from an address of the guest's; `EFAULT` if not even one byte can be fetched there. What lies there must not be
/// the kernel's, or the file would learn of it.
pub fn pwrite_from(fd: i32, addr: u64, len: usize, offset: u64) -> Result<usize> {
    // SAFETY: memory is only read, by the host, which checks that it can be.
    check(unsafe { syscall6(nr::PWRITE64, [fd as usize, addr as usize, len, offset as usize, 0, 0]) })
}

/// Writes to a host file at an offset; returns the bytes written.
pub fn pwrite(fd: i32, buf: &[u8], offset: u64) -> Result<usize> {
    // SAFETY: the buffer is readable for its length.
    check(unsafe { syscall6(nr::PWRITE64, [fd as usize, buf.as_ptr() as usize, buf.len(), offset as usize, 0, 0]) })
}

/// Reads from a host stream (standard input; the broker's socket in the `direct` platform); 0 at its end.
pub fn read(fd: i32, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer is ours and writable for its length.
    check(unsafe { syscall6(nr::READ, [fd as usize, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0]) })
}

/// Writes to a host stream (the console); returns the bytes written.
pub fn write(fd: i32, buf: &[u8]) -> Result<usize> {
    // SAFETY: the buffer is readable for its length.
    check(unsafe { syscall6(nr::WRITE, [fd as usize, buf.as_ptr() as usize, buf.len(), 0, 0, 0]) })
}

/// What a host descriptor is to be ready for (`POLLIN` and `POLLOUT` of poll(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Ready {
    /// There is something to read, or its end.
    Read = 1,
    /// A write would not have to wait.
    Write = 4,
}

/// Waits until a host descriptor, which somebody made non-blocking, is ready or has failed, or until a signal comes; the
/// caller tries again. Needed in a guest's process as well: its output goes to the console from there.
pub fn wait_ready(fd: i32, what: Ready) {
    const NO_TIMEOUT: usize = usize::MAX;
    #[repr(C)]
    struct PollFd {
        fd: i32,
        events: u16,
        revents: u16,
    }
    let mut poll = PollFd { fd, events: what as u16, revents: 0 };
    // SAFETY: the one pollfd is ours and writable.
    unsafe { syscall6(nr::POLL, [&raw mut poll as usize, 1, NO_TIMEOUT, 0, 0, 0]) };
}

/// Writes all of it to a host stream, waiting where that is full.
///
/// # Errors
/// The host's, of a stream that takes no more; part of it may have been written.
pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(0) => return Err(Errno::EIO.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e == Errno::EINTR => {}
            Err(e) if e == Errno::EAGAIN => wait_ready(fd, Ready::Write),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Flushes a host file's data to its disk: the kernel's write barrier.
pub fn fdatasync(fd: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { syscall6(nr::FDATASYNC, [fd as usize, 0, 0, 0, 0, 0]) }).map(drop)
}

/// Sets a host file's length.
pub fn ftruncate(fd: i32, len: u64) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { syscall6(nr::FTRUNCATE, [fd as usize, len as usize, 0, 0, 0, 0]) }).map(drop)
}

/// `fallocate(2)` on a host file; used to punch holes.
pub fn fallocate(fd: i32, mode: u32, offset: u64, len: u64) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { syscall6(nr::FALLOCATE, [fd as usize, mode as usize, offset as usize, len as usize, 0, 0]) })
        .map(drop)
}

/// Closes a host descriptor that the kernel owns.
pub fn close(fd: i32) {
    // SAFETY: no memory is involved; the caller owns the descriptor.
    unsafe { syscall6(nr::CLOSE, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// A new anonymous host memory file, close-on-exec.
pub fn memfd_create(name: &core::ffi::CStr) -> Result<i32> {
    const MFD_CLOEXEC: usize = 1;
    // SAFETY: the name is NUL-terminated.
    check(unsafe { syscall6(nr::MEMFD_CREATE, [name.as_ptr() as usize, MFD_CLOEXEC, 0, 0, 0, 0]) }).map(|fd| fd as i32)
}

/// Fills the buffer from the host's random number generator.
pub fn getrandom(buf: &mut [u8]) {
    let mut done = 0;
    while done < buf.len() {
        let rest = &mut buf[done..];
        // SAFETY: the rest of the buffer is ours and writable.
        if let Ok(n) = check(unsafe { syscall6(nr::GETRANDOM, [rest.as_mut_ptr() as usize, rest.len(), 0, 0, 0, 0]) }) {
            done += n;
        }
    }
}

/// A host clock's reading in nanoseconds; `clock` is a `clockid_t`, also one of a process's CPU clock.
pub fn clock_gettime(clock: i32) -> Result<u64> {
    #[cfg(feature = "direct")]
    if let Some(time) = crate::platform::direct::image::vdso::clock_gettime(clock) {
        return Ok(time);
    }
    let mut ts = TimeSpec::default();
    // SAFETY: the timespec is ours and writable.
    check(unsafe { syscall6(nr::CLOCK_GETTIME, [clock as usize, &raw mut ts as usize, 0, 0, 0, 0]) })?;
    Ok(ts.sec as u64 * 1_000_000_000 + ts.nsec as u64)
}

/// The host's answer to `clock_gettime(2)`, as a system call gives it, to an address of the vdso's choice.
#[cfg(feature = "direct")]
pub fn clock_gettime_to(clock: i32, address: u64) -> i64 {
    // SAFETY: the vdso's own code, called by the kernel, would make this call.
    unsafe { syscall6(nr::CLOCK_GETTIME, [clock as usize, address as usize, 0, 0, 0, 0]) as i64 }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_gettime(1).unwrap_or(0)
}

/// CLOCK_REALTIME in nanoseconds since the epoch.
pub fn realtime_ns() -> u64 {
    clock_gettime(0).unwrap_or(0)
}

/// As [`realtime_ns`], a few milliseconds late, for less.
pub fn realtime_coarse_ns() -> u64 {
    const CLOCK_REALTIME_COARSE: i32 = 5;
    clock_gettime(CLOCK_REALTIME_COARSE).unwrap_or(0)
}

/// Lets other host threads run.
pub fn sched_yield() {
    // SAFETY: no memory is involved.
    unsafe { syscall6(nr::SCHED_YIELD, [0; 6]) };
}

/// The host processor that the calling thread runs on.
pub fn getcpu() -> u32 {
    let mut cpu = 0u32;
    // SAFETY: the word is ours and writable; null stands for the node.
    unsafe { syscall6(nr::GETCPU, [&raw mut cpu as usize, 0, 0, 0, 0, 0]) };
    cpu
}

/// Has the calling process, and those forked from it, take part in [`membarrier`].
pub fn join_membarrier() -> Result<()> {
    const REGISTER_GLOBAL_EXPEDITED: usize = 4;
    // SAFETY: no memory is involved.
    check(unsafe { syscall6(nr::MEMBARRIER, [REGISTER_GLOBAL_EXPEDITED, 0, 0, 0, 0, 0]) }).map(drop)
}

/// A memory barrier on every processor that runs a thread of a process that takes part; each is interrupted for it.
pub fn membarrier() -> Result<()> {
    const GLOBAL_EXPEDITED: usize = 2;
    // SAFETY: no memory is involved.
    check(unsafe { syscall6(nr::MEMBARRIER, [GLOBAL_EXPEDITED, 0, 0, 0, 0, 0]) }).map(drop)
}

/// The host's id of the calling process.
pub fn getpid() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { syscall6(nr::GETPID, [0; 6]) as i32 }
}

/// Sends a host signal to one host thread.
pub fn tgkill(pid: i32, tid: i32, sig: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { syscall6(nr::TGKILL, [pid as usize, tid as usize, sig as usize, 0, 0, 0]) }).map(drop)
}

#[repr(C)]
struct IoVec {
    base: usize,
    len: usize,
}

/// Copies from another process's memory; returns the bytes read before the first page that cannot be read.
pub fn process_vm_read(pid: i32, addr: u64, buf: &mut [u8]) -> Result<usize> {
    let local = IoVec { base: buf.as_mut_ptr() as usize, len: buf.len() };
    let remote = IoVec { base: addr as usize, len: buf.len() };
    let args = [pid as usize, &raw const local as usize, 1, &raw const remote as usize, 1, 0];
    // SAFETY: the local vector describes our buffer; the remote one is checked by the host.
    check(unsafe { syscall6(nr::PROCESS_VM_READV, args) })
}

/// Copies into another process's memory; returns the bytes written before the first page that cannot be written.
pub fn process_vm_write(pid: i32, addr: u64, buf: &[u8]) -> Result<usize> {
    let local = IoVec { base: buf.as_ptr() as usize, len: buf.len() };
    let remote = IoVec { base: addr as usize, len: buf.len() };
    let args = [pid as usize, &raw const local as usize, 1, &raw const remote as usize, 1, 0];
    // SAFETY: the local vector describes our buffer; the remote one is checked by the host.
    check(unsafe { syscall6(nr::PROCESS_VM_WRITEV, args) })
}

/// Maps `len` bytes of a host file into the kernel's own memory, shared and writable.
pub fn map_shared(fd: i32, offset: u64, len: usize) -> Result<*mut u8> {
    const PROT_READ_WRITE: usize = 3;
    const MAP_SHARED: usize = 1;
    // SAFETY: the host chooses a free address.
    check(unsafe { syscall6(nr::MMAP, [0, len, PROT_READ_WRITE, MAP_SHARED, fd as usize, offset as usize]) })
        .map(|addr| addr as *mut u8)
}

/// Undoes [`map_shared`].
///
/// # Safety
/// `addr` and `len` are those of a `map_shared` whose memory nobody uses any more.
pub unsafe fn unmap(addr: *mut u8, len: usize) {
    // SAFETY: the caller owns the mapping.
    unsafe { syscall6(nr::MUNMAP, [addr as usize, len, 0, 0, 0, 0]) };
}

/// A host descriptor that the kernel owns; closed on drop.
#[derive(Debug)]
pub struct HostFd(i32);

impl HostFd {
    /// Takes ownership of a descriptor.
    pub fn new(fd: i32) -> HostFd {
        HostFd(fd)
    }

    /// The descriptor's number.
    pub fn raw(&self) -> i32 {
        self.0
    }
}

impl Drop for HostFd {
    fn drop(&mut self) {
        close(self.0);
    }
}

fn host_error(errno: i32) -> Error {
    Error::from(Errno(errno as u16))
}
