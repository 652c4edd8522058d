//! The memory functions that compiled code calls: see `mem.s`.

use core::arch::global_asm;

global_asm!(
    include_str!("mem.s"),
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen",
    ".set memcpy, kernel_memcpy",
    ".set memmove, kernel_memmove",
    ".set memset, kernel_memset",
    ".set memcmp, kernel_memcmp",
    ".set bcmp, kernel_bcmp",
    ".set strlen, kernel_strlen",
);
// The precompiled `alloc` was built to unwind and names these; this program aborts, so nothing ever calls them.
global_asm!(".globl rust_eh_personality, _Unwind_Resume", "rust_eh_personality:", "_Unwind_Resume:", "ud2");
