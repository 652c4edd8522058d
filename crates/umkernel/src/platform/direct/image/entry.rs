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
//!
//! The thread finds its words by its gs base. Guest code can change that (`wrgsbase`, `ARCH_SET_GS`), so the way in looks whether it
//! points into the private area; elsewhere the thread traps (`direct_foreign`) and the signal handler, which knows the thread by its
//! signal stack, puts the base right and keeps the guest's for the frame. What a jump cannot restore (a gs base, single steps, 32-bit
//! code) leaves by `iretq`, whose operands lie in the scratch words.

use super::layout::{DOOR_OFFSET, KEYS_CLOSED, KEYS_OPEN, PRIVATE_BASE, SCRATCH_SIZE};
use super::layout::{SIGNAL_STACK_SIZE, SIGNAL_STACKS, THREADS_PER_PROCESS};
use super::slot::{ASLEEP, CONTEXT, MODE};
use crate::platform::TrapFrame;
use core::arch::{asm, global_asm};

/// What lies at the upper end of a kernel stack while guest code runs or has called.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default)]
pub(super) struct Frame {
    /// The guest's xmm0 to xmm15.
    pub(super) xmm: [[u64; 2]; 16],
    /// 1 if the way out is the long one.
    pub(super) long_way: u64,
    /// Its other registers.
    pub(super) regs: TrapFrame,
}

/// Bytes from the end of a kernel stack to its frame.
pub(super) const FRAME_SIZE: u64 = size_of::<Frame>() as u64;
const _: () = assert!(FRAME_SIZE == 256 + 8 + 27 * 8);

/// Bytes from a frame to its registers.
const REGS: usize = core::mem::offset_of!(Frame, regs);
/// Bytes from a frame to its [`Frame::long_way`].
const LONG_WAY: usize = core::mem::offset_of!(Frame, long_way);
/// From the thread's scratch words: the guest's gs base while the thread is in the kernel, if it is not 0.
pub(super) const GUEST_GS: u64 = DOOR_OFFSET + 16;
/// Flags that would disturb the kernel, and the id flag, which the short way out does not put back: single step, nested task,
/// alignment check.
const DISTURBING: u32 = 0x24_4100;
/// Flags other than the arithmetic ones and those that are always set.
const UNUSUAL: u32 = !0xad7;
const _: () = assert!(PRIVATE_BASE.is_multiple_of(SCRATCH_SIZE) && SCRATCH_SIZE == 1 << 18);

macro_rules! reg {
    ($name:ident) => {
        REGS + core::mem::offset_of!(TrapFrame, $name)
    };
}

global_asm!(
    ".section .text.door, \"ax\", @progbits",
    ".globl direct_entry, direct_trap_entry, direct_again, direct_exit, direct_exit_end, direct_foreign",
    // Flags and all registers but rcx and r11 are the guest's still: these instructions change no flags.
    "direct_entry:",
    "mov r11, rcx",
    "rdgsbase rcx",
    "rorx rcx, rcx, 18",
    "lea ecx, [rcx - {private}]",
    "jrcxz 5f",
    "direct_foreign:",
    "ud2",
    "5:",
    "mov gs:[8], rdx",
    "mov gs:[16], r11",
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
    "push qword ptr gs:[{guest_gs}]",
    "rdfsbase rax",
    "push rax",
    "push 0x2b",
    "push qword ptr gs:[0]",
    "pushfq",
    "test dword ptr [rsp], {disturbing}",
    "jz 6f",
    "push 2",
    "popfq",
    "6:",
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
    "mov dword ptr [rsp + {mode}], 1",
    "call direct_save_xmm",
    "cld",
    "mov rdi, rsp",
    "call {syscall}",
    "jmp direct_exit",
    // The frame's registers have been filled in by the signal handler; the xmm registers are still the guest's.
    "direct_trap_entry:",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {open}",
    "wrpkru",
    "lea rax, [rsp + {frame_size}]",
    "cmp rax, gs:[{door}]",
    "jne direct_stray",
    "mov dword ptr [rsp + {mode}], 1",
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
    "lea rax, [rsp + {frame_size}]",
    "cmp rax, gs:[{door}]",
    "jne direct_stray",
    "mov dword ptr [rsp + {mode}], 1",
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
    "cmp qword ptr [rsp + {long_way}], 0",
    "jne direct_exit_long",
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
    "mov dword ptr [rsp + {mode}], 0",
    // `popfq` takes long: the usual flags are put back one by one, the overflow flag by an addition.
    "mov eax, [rsp + {eflags}]",
    "test eax, {unusual}",
    "jnz 4f",
    "mov ecx, eax",
    "shr ecx, 11",
    "and ecx, 1",
    "mov ah, al",
    "add cl, 0x7f",
    "sahf",
    "3:",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {closed}",
    "wrpkru",
    "mov rax, gs:[24]",
    "mov rdx, gs:[8]",
    "mov rsp, gs:[0]",
    "mov rcx, gs:[32]",
    "jmp qword ptr gs:[16]",
    "4:",
    "push qword ptr [rsp + {eflags}]",
    "popfq",
    "jmp 3b",
    "direct_exit_long:",
    "rdgsbase rcx",
    "mov qword ptr [rcx + {guest_gs}], 0",
    "mov rax, [rsp + {rip}]",
    "mov [rcx], rax",
    "mov rax, [rsp + {cs}]",
    "mov [rcx + 8], rax",
    "mov rax, [rsp + {eflags}]",
    "mov [rcx + 16], rax",
    "mov rax, [rsp + {rsp}]",
    "mov [rcx + 24], rax",
    "mov qword ptr [rcx + 32], 0x2b",
    "mov rax, [rsp + {rax}]",
    "mov [rcx + 40], rax",
    "mov rax, [rsp + {rdx}]",
    "mov [rcx + 48], rax",
    "mov rax, [rsp + {rcx}]",
    "mov [rcx + 56], rax",
    "mov r15, [rsp + {r15}]",
    "mov r14, [rsp + {r14}]",
    "mov r13, [rsp + {r13}]",
    "mov r12, [rsp + {r12}]",
    "mov rbp, [rsp + {rbp}]",
    "mov rbx, [rsp + {rbx}]",
    "mov r11, [rsp + {r11}]",
    "mov r10, [rsp + {r10}]",
    "mov r9, [rsp + {r9}]",
    "mov r8, [rsp + {r8}]",
    "mov rsi, [rsp + {rsi}]",
    "mov rdi, [rsp + {rdi}]",
    "mov rax, [rsp + {gs_base}]",
    // A gs base of 0 is how programs start; with the thread's own words there, the next call is quick.
    "test rax, rax",
    "cmovz rax, rcx",
    "mov dword ptr [rsp + {mode}], 0",
    "mov rsp, rcx",
    "wrgsbase rax",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {closed}",
    "wrpkru",
    "mov rax, [rsp + 40]",
    "mov rdx, [rsp + 48]",
    "mov rcx, [rsp + 56]",
    "iretq",
    "direct_exit_end:",
    // Code that has strayed to where only the signal handler leads: it faults with the guest's keys.
    "direct_stray:",
    "mov ecx, 0",
    "mov edx, 0",
    "mov eax, {closed}",
    "wrpkru",
    "ud2",
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
    // A load before the first store: the host then maps the pages around as well.
    "mov rax, [rsp - 8]",
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
    "mov rcx, {signal_stacks}",
    "mov rax, rsp",
    "sub rax, rcx",
    "cmp rax, {signal_stacks_size}",
    "jae direct_stray",
    // The host has cleared direction and single step only.
    "push 2",
    "popfq",
    "sub rsp, 8",
    "call {signal}",
    "add rsp, 16",
    "mov eax, 15",
    "syscall",
    "ud2",
    "direct_hostcall_end:",
    // direct_park(place, function, argument, stack): keeps the context at *place and calls the function on another stack.
    ".section .text.door, \"ax\", @progbits",
    ".globl direct_park, direct_unpark, direct_sleep",
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
    // direct_sleep(arguments, slot): a futex call, with a context kept that can go on behind it in another thread.
    "direct_sleep:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rbx, rsi",
    "mov [rbx + {context}], rsp",
    "mov dword ptr [rbx + {slot_mode}], {asleep}",
    "mov rsi, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov r10, [rdi + 24]",
    "mov r8, [rdi + 32]",
    "mov r9, [rdi + 40]",
    "mov rdi, [rdi]",
    "mov eax, 202",
    "call direct_hostcall",
    "mov dword ptr [rbx + {slot_mode}], 1",
    "mov qword ptr [rbx + {context}], 0",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
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
    guest_gs = const GUEST_GS,
    frame_size = const FRAME_SIZE,
    signal_stacks = const SIGNAL_STACKS,
    signal_stacks_size = const SIGNAL_STACK_SIZE * THREADS_PER_PROCESS as u64,
    private = const PRIVATE_BASE / SCRATCH_SIZE,
    disturbing = const DISTURBING,
    unusual = const UNUSUAL,
    mode = const FRAME_SIZE as usize + MODE,
    slot_mode = const MODE,
    context = const CONTEXT,
    asleep = const ASLEEP,
    long_way = const LONG_WAY,
    syscall = sym super::traps::syscall,
    trap = sym super::traps::trap,
    again = sym super::traps::again,
    signal = sym super::signal::handle,
    fs_base = const reg!(fs_base),
    gs_base = const reg!(gs_base),
    cs = const reg!(cs),
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
    fn direct_foreign();
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
    fn direct_sleep(arguments: *const [usize; 6], slot: u64) -> i64;
    pub(super) fn direct_unpark(context: u64, value: i64) -> !;
}

/// Addresses of the door.
pub(super) mod at {
    /// Where a system call comes in.
    pub(crate) fn entry() -> u64 {
        super::direct_entry as *const () as u64
    }

    /// The ways in, all of them.
    pub(crate) fn way_in() -> core::ops::Range<u64> {
        entry()..exit().start
    }

    /// Where a thread traps that comes in with a gs base of the guest's, and `r11` for `rcx`.
    pub(crate) fn foreign() -> u64 {
        super::direct_foreign as *const () as u64
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

/// A futex call in which the running thread sleeps, for one that holds no lock: if its host process is killed meanwhile, another
/// thread takes over behind the call.
///
/// # Safety
/// The arguments must be valid for the call.
pub(crate) unsafe fn sleep(arguments: &[usize; 6]) {
    // SAFETY: the caller's promise; the slot is the running thread's.
    unsafe { direct_sleep(arguments, super::slot::current().address()) };
}
