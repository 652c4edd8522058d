//! Copies between kernel and guest memory that survive bad addresses: the signal handler goes on behind the copy.

use super::layout::{KERNEL_BASE, KERNEL_END};
use crate::mm::TASK_SIZE;
use core::arch::global_asm;

global_asm!(
    ".section .text.copy, \"ax\", @progbits",
    ".globl direct_copy, direct_copy_fault, direct_copy_end",
    ".globl direct_exchange, direct_exchange_fault",
    // direct_copy(to, from, count): the bytes that were not copied.
    "direct_copy:",
    "mov rcx, rdx",
    "rep movsb",
    "direct_copy_fault:",
    "mov rax, rcx",
    "ret",
    "direct_copy_end:",
    // direct_exchange(address, expected, new): what was there; 2^32 if it cannot be written.
    "direct_exchange:",
    "mov eax, esi",
    "lock cmpxchg [rdi], edx",
    "mov eax, eax",
    "ret",
    "direct_exchange_fault:",
    "mov rax, 0x100000000",
    "ret",
    ".text",
);

unsafe extern "C" {
    fn direct_copy(to: *mut u8, from: *const u8, count: usize) -> usize;
    fn direct_copy_fault();
    fn direct_copy_end();
    fn direct_exchange(address: u64, expected: u32, new: u32) -> u64;
    fn direct_exchange_fault();
}

/// Where the kernel goes on after a fault at `rip`, if that is one of the places that expect faults.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let (copy, exchange) = (direct_copy as *const () as u64, direct_exchange as *const () as u64);
    if (copy..direct_copy_end as *const () as u64).contains(&rip) {
        return Some(direct_copy_fault as *const () as u64);
    }
    if (exchange..direct_exchange_fault as *const () as u64).contains(&rip) {
        return Some(direct_exchange_fault as *const () as u64);
    }
    None
}

/// Bytes from `addr` on that are the guest's to have, at most `len`.
fn reachable(addr: u64, len: usize) -> usize {
    let limit = match addr {
        _ if addr < KERNEL_BASE => KERNEL_BASE,
        _ if addr < KERNEL_END => addr,
        _ if addr < TASK_SIZE => TASK_SIZE,
        _ => addr,
    };
    len.min(usize::try_from(limit - addr).unwrap_or(len))
}

/// Whether a whole range is the guest's to have.
pub(super) fn is_guests(addr: u64, len: usize) -> bool {
    reachable(addr, len) == len
}

/// Copies from memory of the kernel's that may fault to guest memory that may, too; returns the bytes copied.
pub(super) fn copy_out(from: u64, addr: u64, len: usize) -> usize {
    let len = reachable(addr, len);
    // SAFETY: a fault on either side ends the copy; nothing of the kernel's own lies in the range that is written.
    len - unsafe { direct_copy(addr as *mut u8, from as *const u8, len) }
}

/// Copies from the running process's guest memory; returns the bytes copied before the first that cannot be read.
pub(super) fn read(addr: u64, buf: &mut [u8]) -> usize {
    let len = reachable(addr, buf.len());
    // SAFETY: the buffer is ours and as long; the guest's side may fault, which ends the copy.
    len - unsafe { direct_copy(buf.as_mut_ptr(), addr as *const u8, len) }
}

/// Copies to the running process's guest memory; returns the bytes copied before the first that cannot be written.
pub(super) fn write(addr: u64, buf: &[u8]) -> usize {
    let len = reachable(addr, buf.len());
    // SAFETY: as in `read`; nothing of the kernel's own lies in that range.
    len - unsafe { direct_copy(addr as *mut u8, buf.as_ptr(), len) }
}

/// One word of guest memory: compare and exchange. `None` if it cannot be written.
pub(super) fn compare_exchange(addr: u64, expected: u32, new: u32) -> Option<u32> {
    if reachable(addr, 4) < 4 {
        return None;
    }
    // SAFETY: as in `write`.
    u32::try_from(unsafe { direct_exchange(addr, expected, new) }).ok()
}
