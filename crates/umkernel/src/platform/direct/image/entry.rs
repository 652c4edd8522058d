//! The door: how guest code comes into the kernel and goes back, and the only place where the kernel calls its host.
//!
//! A patched call site jumps to `direct_entry` with the address to return to in `rcx`, which a system call clobbers anyway. A call
//! that traps gets there by way of the `SIGSYS` handler. The door uses the thread's scratch words for what the kernel
//! stack cannot hold yet or any more: guest code can write them, so each is read once, and only on the guest's own behalf.
//! Nothing is written below the guest's stack pointer.
//!
//! Order of a way in: save what is needed to switch, open the key, switch to the kernel stack, save the registers as a
//! [`TrapFrame`] and the xmm registers (the kernel is compiled for SSE, without AVX), call. The way out is its mirror image. A host
//! signal that lands on the way out makes the thread look for work once more (`direct_again`): the frame is still
//! whole.

use super::layout::{DOOR_OFFSET, KEYS_CLOSED, KEYS_OPEN};
use crate::platform::TrapFrame;
use core::arch::{asm, global_asm};

/// What lies at the upper end of a kernel stack while guest code runs or has called.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default)]
pub(super) struct Frame {
    /// The guest's xmm0 to xmm15.
    pub(super) xmm: [[u64; 2]; 16],
    pad: u64,
    /// Its other registers.
    pub(super) regs: TrapFrame,
}

/// Bytes from the end of a kernel stack to its frame.
pub(super) const FRAME_SIZE: u64 = size_of::<Frame>() as u64;
const _: () = assert!(FRAME_SIZE == 256 + 8 + 27 * 8);

/// Bytes from a frame to its registers.
const REGS: usize = core::mem::offset_of!(Frame, regs);

macro_rules! reg {
    ($name:ident) => {
        REGS + core::mem::offset_of!(TrapFrame, $name)
    };
}

global_asm!(
    ".section .text.door, \"ax\", @progbits",
    ".globl direct_entry, direct_entry_end, direct_trap_entry, direct_again, direct_exit, direct_exit_end",
    "direct_entry:",
    "mov gs:[8], rdx",
    "mov gs:[16], rcx",
    "mov gs:[0], rsp",
    "mov gs:[24], rax",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {open}",
    "wrpkru",
    "mov rsp, gs:[{door}]",
    "push 0",
    "push 0",
    "push 0",
    "push 0",
    "push 0",
    "rdfsbase rax",
    "push rax",
    "push 0x2b",
    "push qword ptr gs:[0]",
    "pushfq",
    "push 0x33",
    "push qword ptr gs:[16]",
    "push qword ptr gs:[24]",
    "push rdi",
    "push rsi",
    "push qword ptr gs:[8]",
    "push qword ptr gs:[16]",
    "push qword ptr gs:[24]",
    "push r8",
    "push r9",
    "push r10",
    "push qword ptr [rsp + 88]",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 264",
    "call direct_save_xmm",
    "cld",
    "mov rdi, rsp",
    "call {syscall}",
    "jmp direct_exit",
    "direct_entry_end:",
    // The frame's registers have been filled in by the signal handler; the xmm registers are still the guest's.
    "direct_trap_entry:",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {open}",
    "wrpkru",
    "call direct_save_xmm",
    "cld",
    "mov rdi, rsp",
    "call {trap}",
    "jmp direct_exit",
    // A signal came on the way out.
    "direct_again:",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {open}",
    "wrpkru",
    "cld",
    "mov rdi, rsp",
    "call {again}",
    "direct_exit:",
    "movaps xmm0, [rsp]",
    "movaps xmm1, [rsp + 16]",
    "movaps xmm2, [rsp + 32]",
    "movaps xmm3, [rsp + 48]",
    "movaps xmm4, [rsp + 64]",
    "movaps xmm5, [rsp + 80]",
    "movaps xmm6, [rsp + 96]",
    "movaps xmm7, [rsp + 112]",
    "movaps xmm8, [rsp + 128]",
    "movaps xmm9, [rsp + 144]",
    "movaps xmm10, [rsp + 160]",
    "movaps xmm11, [rsp + 176]",
    "movaps xmm12, [rsp + 192]",
    "movaps xmm13, [rsp + 208]",
    "movaps xmm14, [rsp + 224]",
    "movaps xmm15, [rsp + 240]",
    "mov rax, [rsp + {fs_base}]",
    "rdfsbase rcx",
    "cmp rax, rcx",
    "je 2f",
    "wrfsbase rax",
    "2:",
    "mov r11, [rsp + {rsp}]",
    "mov gs:[0], r11",
    "mov r11, [rsp + {rdx}]",
    "mov gs:[8], r11",
    "mov r11, [rsp + {rip}]",
    "mov gs:[16], r11",
    "mov r11, [rsp + {rax}]",
    "mov gs:[24], r11",
    "mov r11, [rsp + {rcx}]",
    "mov gs:[32], r11",
    "mov r15, [rsp + {r15}]",
    "mov r14, [rsp + {r14}]",
    "mov r13, [rsp + {r13}]",
    "mov r12, [rsp + {r12}]",
    "mov rbp, [rsp + {rbp}]",
    "mov rbx, [rsp + {rbx}]",
    "mov r10, [rsp + {r10}]",
    "mov r9, [rsp + {r9}]",
    "mov r8, [rsp + {r8}]",
    "mov rsi, [rsp + {rsi}]",
    "mov rdi, [rsp + {rdi}]",
    "mov r11, [rsp + {r11}]",
    "push qword ptr [rsp + {eflags}]",
    "popfq",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {closed}",
    "wrpkru",
    "mov rax, gs:[24]",
    "mov rdx, gs:[8]",
    "mov rsp, gs:[0]",
    "mov rcx, gs:[32]",
    "jmp qword ptr gs:[16]",
    "direct_exit_end:",
    "direct_save_xmm:",
    "movaps [rsp + 8], xmm0",
    "movaps [rsp + 24], xmm1",
    "movaps [rsp + 40], xmm2",
    "movaps [rsp + 56], xmm3",
    "movaps [rsp + 72], xmm4",
    "movaps [rsp + 88], xmm5",
    "movaps [rsp + 104], xmm6",
    "movaps [rsp + 120], xmm7",
    "movaps [rsp + 136], xmm8",
    "movaps [rsp + 152], xmm9",
    "movaps [rsp + 168], xmm10",
    "movaps [rsp + 184], xmm11",
    "movaps [rsp + 200], xmm12",
    "movaps [rsp + 216], xmm13",
    "movaps [rsp + 232], xmm14",
    "movaps [rsp + 248], xmm15",
    "ret",
    // Everything that the kernel asks of its host is asked from here: the seccomp filter knows the range.
    ".section .text.hostcall, \"ax\", @progbits",
    ".globl direct_hostcall_start, direct_hostcall_end, direct_hostcall, direct_clone, direct_leave, direct_signal",
    "direct_hostcall_start:",
    "direct_hostcall:",
    "syscall",
    "ret",
    // direct_clone(flags, stack, parent_tid, argument, function): the child calls function(argument) on its own stack.
    "direct_clone:",
    "push rbx",
    "push r12",
    "mov rbx, rcx",
    "mov r12, r8",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 3f",
    "pop r12",
    "pop rbx",
    "ret",
    "3:",
    "xor ebp, ebp",
    "mov rdi, rbx",
    "call r12",
    "ud2",
    // direct_leave(slot, list): puts the slot on a list and ends the thread; from the push on, the stack is another's.
    "direct_leave:",
    "mov rax, [rsi]",
    "4:",
    "mov [rdi], rax",
    "lock cmpxchg [rsi], rdi",
    "jne 4b",
    "xor edi, edi",
    "mov eax, 60",
    "syscall",
    "ud2",
    // Where the host delivers signals: (signal, siginfo, ucontext), key closed, on the thread's signal stack.
    "direct_signal:",
    "mov r8, rdx",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {open}",
    "wrpkru",
    "mov rdx, r8",
    "sub rsp, 8",
    "call {signal}",
    "add rsp, 16",
    "mov eax, 15",
    "syscall",
    "ud2",
    "direct_hostcall_end:",
    // direct_park(place, function, argument, stack): keeps the context at *place and calls the function on another stack.
    ".section .text.door, \"ax\", @progbits",
    ".globl direct_park, direct_unpark",
    "direct_park:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi], rsp",
    "mov rsp, rcx",
    "mov rdi, rdx",
    "call rsi",
    "ud2",
    // direct_unpark(context, value): goes on behind direct_park, which returns the value.
    "direct_unpark:",
    "mov rsp, rdi",
    "mov rax, rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".text",
    open = const KEYS_OPEN,
    closed = const KEYS_CLOSED,
    door = const DOOR_OFFSET,
    syscall = sym super::traps::syscall,
    trap = sym super::traps::trap,
    again = sym super::traps::again,
    signal = sym super::signal::handle,
    fs_base = const reg!(fs_base),
    rsp = const reg!(rsp),
    rdx = const reg!(rdx),
    rip = const reg!(rip),
    rax = const reg!(rax),
    rcx = const reg!(rcx),
    r15 = const reg!(r15),
    r14 = const reg!(r14),
    r13 = const reg!(r13),
    r12 = const reg!(r12),
    rbp = const reg!(rbp),
    rbx = const reg!(rbx),
    r11 = const reg!(r11),
    r10 = const reg!(r10),
    r9 = const reg!(r9),
    r8 = const reg!(r8),
    rsi = const reg!(rsi),
    rdi = const reg!(rdi),
    eflags = const reg!(eflags),
);

unsafe extern "C" {
    fn direct_entry();
    fn direct_trap_entry();
    fn direct_again();
    fn direct_exit();
    fn direct_exit_end();
    fn direct_hostcall_start();
    fn direct_hostcall_end();
    fn direct_signal();
    pub(crate) fn direct_hostcall();
    pub(super) fn direct_clone(
        flags: u64,
        stack: u64,
        parent_tid: *const i32,
        argument: u64,
        function: extern "C" fn(u64) -> !,
    ) -> i64;
    pub(super) fn direct_leave(slot: u64, list: *const u64) -> !;
    pub(super) fn direct_park(place: *const u64, function: extern "C" fn(u64) -> !, argument: u64, stack: u64) -> i64;
    pub(super) fn direct_unpark(context: u64, value: i64) -> !;
}

/// Addresses of the door.
pub(super) mod at {
    /// Where a system call comes in.
    pub(crate) fn entry() -> u64 {
        super::direct_entry as *const () as u64
    }

    /// Where a fault or an interruption comes in, with the stack pointer at the thread's frame.
    pub(crate) fn trap_entry() -> u64 {
        super::direct_trap_entry as *const () as u64
    }

    /// Where a thread goes on that was interrupted on its way out, with the stack pointer at its frame.
    pub(crate) fn again() -> u64 {
        super::direct_again as *const () as u64
    }

    /// The way out, from when signals were last looked for.
    pub(crate) fn exit() -> core::ops::Range<u64> {
        super::direct_exit as *const () as u64..super::direct_exit_end as *const () as u64
    }

    /// The code that calls the host.
    pub(crate) fn hostcall() -> core::ops::Range<u64> {
        super::direct_hostcall_start as *const () as u64..super::direct_hostcall_end as *const () as u64
    }

    /// The handler of all host signals, and what a handler returns to: it does so by itself.
    pub(crate) fn signal() -> u64 {
        super::direct_signal as *const () as u64
    }
}

/// Leaves the kernel for guest code, with the registers of a frame at the upper end of the running thread's stack.
pub(super) fn leave_to_user(frame: *const Frame) -> ! {
    // SAFETY: the frame lies where the door expects it, and nothing below it on this stack is needed any more.
    unsafe { asm!("mov rsp, rdi", "jmp direct_exit", in("rdi") frame, options(noreturn)) }
}
