//! Copies between kernel and guest memory that survive bad addresses: the signal handler goes on behind the copy.

use super::layout::{KERNEL_BASE, KERNEL_END};
use crate::mm::TASK_SIZE;
use core::arch::global_asm;

global_asm!(
    ".section .text.copy, \"ax\", @progbits",
    ".globl direct_copy, direct_copy_bytes, direct_copy_fault, direct_copy_end",
    ".globl direct_exchange, direct_exchange_fault",
    // direct_copy(to, from, count): the bytes that were not copied.
    "direct_copy:",
    "mov rcx, rdx",
    "cmp rdx, 512",
    "ja direct_copy_bytes",
    "2:",
    "cmp rcx, 16",
    "jb 3f",
    "movups xmm0, [rsi]",
    "movups [rdi], xmm0",
    "add rsi, 16",
    "add rdi, 16",
    "sub rcx, 16",
    "jmp 2b",
    "3:",
    "test cl, 8",
    "jz 4f",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "sub rcx, 8",
    "4:",
    "test cl, 4",
    "jz 5f",
    "mov eax, [rsi]",
    "mov [rdi], eax",
    "add rsi, 4",
    "add rdi, 4",
    "sub rcx, 4",
    "5:",
    "jrcxz direct_copy_fault",
    "movzx eax, byte ptr [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rcx",
    "jmp 5b",
    // A fault in the midst of a word comes here: the bytes before the bad one are copied still.
    "direct_copy_bytes:",
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
    fn direct_copy_bytes();
    fn direct_copy_fault();
    fn direct_copy_end();
    fn direct_exchange(address: u64, expected: u32, new: u32) -> u64;
    fn direct_exchange_fault();
}

/// Where the kernel goes on after a fault at `rip`, if that is one of the places that expect faults.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let (copy, exchange) = (direct_copy as *const () as u64, direct_exchange as *const () as u64);
    let bytes = direct_copy_bytes as *const () as u64;
    if (copy..bytes).contains(&rip) {
        return Some(bytes);
    }
    if (bytes..direct_copy_end as *const () as u64).contains(&rip) {
        return Some(direct_copy_fault as *const () as u64);
    }
    if (exchange..direct_exchange_fault as *const () as u64).contains(&rip) {
        return Some(direct_exchange_fault as *const () as u64);
    }
    None
}

/// Bytes from `addr` on that are the guest's to have, at most `len`.
pub(super) fn reachable(addr: u64, len: usize) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::ffi::c_int;

    // The kernel image's own, which no test can run in it.
    global_asm!(include_str!("../../../../../kernel-image/src/mem.s"));

    unsafe extern "C" {
        fn kernel_memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
        fn kernel_memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
        fn kernel_memset(to: *mut u8, value: c_int, count: usize) -> *mut u8;
        fn kernel_memcmp(a: *const u8, b: *const u8, count: usize) -> c_int;
    }

    const AROUND: usize = 40;

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 131 + seed * 17 + i / 251) as u8).collect()
    }

    /// Lengths around all the places where the functions do something else.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..140).chain([255, 256, 257, 500, 511, 512, 513, 527, 1023, 1024, 1025, 1056, 4096, 5001])
    }

    #[test]
    fn copies_are_the_bytes_and_nothing_else() {
        for len in lengths() {
            for shift in [0, 1, 7] {
                let from = bytes(len + shift, len);
                for which in 0..2 {
                    let mut to = bytes(len + 2 * AROUND, 5);
                    let mut expected = to.clone();
                    expected[AROUND..AROUND + len].copy_from_slice(&from[shift..]);
                    // SAFETY: both are long enough.
                    unsafe {
                        let (to, from) = (to.as_mut_ptr().add(AROUND), from.as_ptr().add(shift));
                        match which {
                            0 => assert_eq!(kernel_memcpy(to, from, len), to),
                            _ => assert_eq!(direct_copy(to, from, len), 0),
                        }
                    }
                    assert_eq!(to, expected, "{len} {shift} {which}");
                }
            }
        }
    }

    #[test]
    fn overlapping_bytes_move_whole() {
        for len in lengths() {
            for distance in [0, 1, 3, 8, 15, 16, 17, 31, 32, 33, 64, 100] {
                let start = bytes(len + 2 * distance, len);
                let (mut up, mut down) = (start.clone(), start.clone());
                let (mut up_expected, mut down_expected) = (start.clone(), start);
                up_expected.copy_within(0..len, distance);
                down_expected.copy_within(distance..distance + len, 0);
                // SAFETY: the buffers are long enough.
                unsafe {
                    kernel_memmove(up.as_mut_ptr().add(distance), up.as_ptr(), len);
                    kernel_memmove(down.as_mut_ptr(), down.as_ptr().add(distance), len);
                }
                assert_eq!(up, up_expected, "{len} {distance}");
                assert_eq!(down, down_expected, "{len} {distance}");
            }
        }
    }

    #[test]
    fn filling_and_comparing() {
        for len in lengths() {
            let mut buf = bytes(len + 2 * AROUND, 3);
            let mut expected = buf.clone();
            expected[AROUND..AROUND + len].fill(0xa5);
            // SAFETY: the buffer is long enough; only the value's lowest byte counts.
            unsafe { kernel_memset(buf.as_mut_ptr().add(AROUND), 0x1a5, len) };
            assert_eq!(buf, expected, "{len}");
            for at in [0, len / 2, len.saturating_sub(1)] {
                let mut other = buf.clone();
                other[AROUND + at] ^= 0x81;
                // SAFETY: as above.
                let order = unsafe { kernel_memcmp(buf.as_ptr().add(AROUND), other.as_ptr().add(AROUND), len) };
                let wanted = buf[AROUND..AROUND + len].cmp(&other[AROUND..AROUND + len]);
                assert_eq!(order.cmp(&0), wanted, "{len} {at}");
            }
        }
    }
}
