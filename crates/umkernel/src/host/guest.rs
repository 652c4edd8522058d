//! Host calls for guest processes of the `direct` platform: memory, threads and signals of the calling process.

use super::sys::{check, syscall6};
use crate::errno::Result;
use core::ffi::c_int;
use linux_raw_sys::general::{
    __NR_exit_group, __NR_getppid, __NR_getrusage, __NR_madvise, __NR_mmap, __NR_mprotect, __NR_mremap, __NR_munmap,
    __NR_prctl, __NR_rt_sigaction, __NR_rt_sigprocmask, __NR_seccomp, __NR_setsid, __NR_sigaltstack, MAP_ANONYMOUS,
    MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, MREMAP_FIXED, MREMAP_MAYMOVE,
};

/// Bytes of a signal set in the host's eyes.
const SIGSET_SIZE: usize = 8;
const SIGKILL: usize = 9;

/// # Safety
/// As for [`syscall6`].
unsafe fn call(nr: u32, args: [usize; 6]) -> Result<usize> {
    // SAFETY: the caller's promise.
    check(unsafe { syscall6(nr as usize, args) })
}

/// Maps pages of a host file, or zero pages without one, at exactly `addr`, replacing what was there.
pub fn map_fixed(addr: u64, len: u64, prot: u32, file: Option<(i32, u64)>, shared: bool) -> Result<()> {
    let (kind, fd, offset) = match file {
        None => (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, usize::MAX, 0),
        Some((fd, offset)) => {
            (if shared { MAP_SHARED } else { MAP_PRIVATE | MAP_NORESERVE }, fd as usize, offset as usize)
        }
    };
    let args = [addr as usize, len as usize, prot as usize, (kind | MAP_FIXED) as usize, fd, offset];
    // SAFETY: the caller maps guest memory: the kernel's own ranges are kept out by the VMA tree.
    unsafe { call(__NR_mmap, args) }.map(drop)
}

/// Unmaps guest memory.
pub fn unmap_range(addr: u64, len: u64) -> Result<()> {
    // SAFETY: as for `map_fixed`.
    unsafe { call(__NR_munmap, [addr as usize, len as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Changes the protection of guest memory.
pub fn protect(addr: u64, len: u64, prot: u32) -> Result<()> {
    // SAFETY: as for `map_fixed`.
    unsafe { call(__NR_mprotect, [addr as usize, len as usize, prot as usize, 0, 0, 0]) }.map(drop)
}

/// Moves guest memory to exactly `new_addr`.
pub fn remap(addr: u64, len: u64, new_addr: u64, new_len: u64) -> Result<()> {
    let flags = (MREMAP_MAYMOVE | MREMAP_FIXED) as usize;
    let args = [addr as usize, len as usize, new_len as usize, flags, new_addr as usize, 0];
    // SAFETY: as for `map_fixed`.
    unsafe { call(__NR_mremap, args) }.map(drop)
}

/// `madvise(2)` on guest memory.
pub fn advise(addr: u64, len: u64, advice: c_int) -> Result<()> {
    // SAFETY: as for `map_fixed`.
    unsafe { call(__NR_madvise, [addr as usize, len as usize, advice as usize, 0, 0, 0]) }.map(drop)
}

/// `struct sigaction` as the host's kernel has it.
#[repr(C)]
struct KernelSigAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Has a signal of the calling process handled by `handler`, on the signal stack, with all signals blocked. The handler
/// does not return to a restorer: it calls `rt_sigreturn` itself.
pub fn set_handler(signal: i32, handler: u64) -> Result<()> {
    const SA_SIGINFO: u64 = 4;
    const SA_RESTORER: u64 = 0x0400_0000;
    const SA_ONSTACK: u64 = 0x0800_0000;
    let flags = SA_SIGINFO | SA_RESTORER | SA_ONSTACK;
    let action = KernelSigAction { handler, flags, restorer: handler, mask: u64::MAX };
    // SAFETY: the action is ours and readable; the caller's handler is one.
    unsafe { call(__NR_rt_sigaction, [signal as usize, &raw const action as usize, 0, SIGSET_SIZE, 0, 0]) }.map(drop)
}

/// Sets the calling thread's signal stack.
pub fn set_signal_stack(base: u64, size: u64) -> Result<()> {
    let stack = [base, 0, size];
    // SAFETY: three words, as `stack_t` has them.
    unsafe { call(__NR_sigaltstack, [stack.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

fn set_mask(mask: u64) -> Result<()> {
    const SIG_SETMASK: usize = 2;
    // SAFETY: the mask is ours and readable.
    unsafe { call(__NR_rt_sigprocmask, [SIG_SETMASK, &raw const mask as usize, 0, SIGSET_SIZE, 0, 0]) }.map(drop)
}

/// Blocks all signals of the calling thread.
pub fn block_signals() {
    // A constant argument: it cannot fail.
    let _ = set_mask(u64::MAX);
}

/// Unblocks all signals of the calling thread.
///
/// # Errors
/// None that a host gives; a refusal by the filter would be one.
pub fn unblock_signals() -> Result<()> {
    set_mask(0)
}

/// Has the host kill the calling process when its parent thread ends.
pub fn die_with_parent() {
    const PR_SET_PDEATHSIG: usize = 1;
    // SAFETY: no memory is involved.
    let _ = unsafe { call(__NR_prctl, [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0]) };
}

/// Host id of the calling process's parent.
pub fn getppid() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { syscall6(__NR_getppid as usize, [0; 6]) as i32 }
}

/// Puts the calling process into a session of its own.
pub fn set_session() {
    // SAFETY: no memory is involved. A process that leads a group already stays where it is.
    let _ = unsafe { call(__NR_setsid, [0; 6]) };
}

/// Ends the calling process.
pub fn exit_process(status: u8) -> ! {
    loop {
        // SAFETY: no memory is involved.
        unsafe { syscall6(__NR_exit_group as usize, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Puts the calling process behind a seccomp filter (`struct sock_fprog`), without a way back.
pub fn set_seccomp_filter(program: usize) -> Result<()> {
    const PR_SET_NO_NEW_PRIVS: usize = 38;
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    // SAFETY: the caller's program is one.
    unsafe {
        call(__NR_prctl, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0])?;
        call(__NR_seccomp, [SECCOMP_SET_MODE_FILTER, 0, program, 0, 0, 0]).map(drop)
    }
}

/// The most memory that the calling process has had resident, in bytes.
pub fn peak_resident() -> u64 {
    const RUSAGE_SELF: usize = 0;
    /// Where `struct rusage` has `ru_maxrss`, in words.
    const MAXRSS: usize = 4;
    let mut usage = [0u64; 18];
    // SAFETY: as large as `struct rusage`.
    match unsafe { call(__NR_getrusage, [RUSAGE_SELF, usage.as_mut_ptr() as usize, 0, 0, 0, 0]) } {
        Ok(_) => usage[MAXRSS] << 10,
        Err(_) => 0,
    }
}
