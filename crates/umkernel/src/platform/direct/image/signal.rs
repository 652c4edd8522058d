//! Host signals in guest processes: traps of unpatched system calls, faults, and the kick that brings guest code into the kernel.
//!
//! The handler runs on a small stack of its own with all signals blocked and does next to nothing: it changes what the interrupted
//! code goes on with, and returns.

use super::arena::arena;
use super::entry::{FRAME_SIZE, Frame, at};
use super::layout::{DOOR_OFFSET, DOOR_STRIDE, KERNEL_BASE, KERNEL_END, KICK, PRIVATE_BASE, SCRATCH_SIZE};
use super::layout::{SIGNAL_STACK_SIZE, SIGNAL_STACKS};
use super::memory;
use super::slot::{Slot, Trap};
use crate::host;
use crate::platform::TrapFrame;
use crate::signal::number::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
use crate::signal::{SigContext, SigInfo};
use core::arch::asm;
use linux_raw_sys::ptrace::AUDIT_ARCH_X86_64;

/// What the handler is for. Others have no business in a guest process and keep their default actions.
const HANDLED: [u8; 7] = [SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, KICK];

/// `int3`.
pub(super) const BREAKPOINT: u8 = 0xcc;
/// Bytes of `syscall`.
const SYSCALL_LEN: u64 = 2;

const ENOSYS: i64 = 38;

/// `siginfo_t`, as much of it as matters here.
#[repr(C)]
pub(super) struct HostSigInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    /// `si_addr`; for `SIGSYS` the address of the call.
    addr: u64,
    /// `si_syscall`.
    syscall: i32,
    /// `si_arch`.
    arch: u32,
}

/// `struct ucontext` (`asm/ucontext.h`), as far as it matters here.
#[repr(C)]
pub(super) struct UContext {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    context: SigContext,
}

/// Handles any host signal of a guest process.
pub(super) extern "C" fn handle(signal: i32, info: &HostSigInfo, frame: &mut UContext) {
    let context = &mut frame.context;
    if (KERNEL_BASE..KERNEL_END).contains(&context.rip) {
        in_kernel(signal as u8, info, context);
        return;
    }
    let signal = signal as u8;
    match signal {
        SIGSYS if info.arch == AUDIT_ARCH_X86_64 => {
            if let Some(slot) = interrupted_slot() {
                // SAFETY: guest code was running on the thread.
                unsafe { slot.own() }.site = context.rip - SYSCALL_LEN;
            }
            // The door is entered as from a patched site.
            context.rcx = context.rip;
            context.rip = at::entry();
        }
        // A call by the 32-bit gate: there is no such kernel here.
        SIGSYS => context.rax = -ENOSYS as u64,
        KICK => enter(context, Trap::Interruption),
        // Code that is being patched: by the time that it is tried again it will have been.
        SIGTRAP if is_being_patched(context.rip.wrapping_sub(1)) => context.rip -= 1,
        // Sent by somebody on the host rather than raised by the code.
        _ if info.code <= 0 => {}
        _ => enter(context, Trap::Fault(SigInfo::fault(signal, info.code, info.addr))),
    }
}

/// Whether the breakpoint at `at` is or was a patch in the making, rather than one of the guest's own, which stays.
fn is_being_patched(at: u64) -> bool {
    let mut byte = [0];
    arena().texts.patching() == at || memory::read(at, &mut byte) == 1 && byte[0] != BREAKPOINT
}

/// The signal interrupted the kernel itself.
fn in_kernel(signal: u8, info: &HostSigInfo, context: &mut SigContext) {
    match signal {
        KICK => {
            // Kernel code looks for work on its way out; only when it is past that, it must look again.
            if at::exit().contains(&context.rip)
                && let Some(slot) = interrupted_slot()
            {
                context.rsp = slot.stack_top() - FRAME_SIZE;
                context.rip = at::again();
            }
        }
        SIGSEGV | SIGBUS if memory::fixup(context.rip).is_some() => {
            context.rip = memory::fixup(context.rip).unwrap_or(context.rip);
        }
        _ if info.code <= 0 => {}
        SIGSYS => panic!("host call {} from {:#x}, which the filter refuses", info.syscall, context.rip),
        _ => panic!("host signal {signal} (code {}) at {:#x}, address {:#x}", info.code, context.rip, info.addr),
    }
}

/// Makes the interrupted guest code enter the kernel without a system call.
fn enter(context: &mut SigContext, trap: Trap) {
    // Without its words the thread is not set up yet: it will look by itself.
    let Some(slot) = interrupted_slot() else { return };
    let fs_base: u64;
    // SAFETY: reads a register.
    unsafe { asm!("rdfsbase {}", out(reg) fs_base, options(nomem, nostack, preserves_flags)) };
    let regs = TrapFrame { fs_base, ..context.registers() };
    let frame: *mut Frame = slot.frame();
    // SAFETY: guest code was running, so nothing of the kernel's is on the thread's kernel stack.
    unsafe {
        (*frame).regs = regs;
        slot.own().trap = Some(trap);
    }
    context.rsp = frame as u64;
    context.rip = at::trap_entry();
}

/// The slot of the interrupted thread, if its gs base is what it should be and its words are set.
fn interrupted_slot() -> Option<&'static Slot> {
    let door: u64;
    // SAFETY: reads a register.
    unsafe { asm!("rdgsbase {}", out(reg) door, options(nomem, nostack, preserves_flags)) };
    if !(PRIVATE_BASE..PRIVATE_BASE + SCRATCH_SIZE).contains(&door) || !door.is_multiple_of(DOOR_STRIDE) {
        return None;
    }
    // SAFETY: the private area is mapped wherever the handler is installed; it holds nothing or the address of a slot.
    unsafe { (*((door + DOOR_OFFSET + 8) as *const *const Slot)).as_ref() }
}

/// Installs the handler for all signals that it is for. Forked processes and threads inherit it.
pub(super) fn install() -> crate::Result<()> {
    HANDLED.into_iter().try_for_each(|signal| host::set_handler(signal.into(), at::signal()))
}

/// Gives the running thread its signal stack.
pub(super) fn set_stack(index: u32) -> crate::Result<()> {
    host::set_signal_stack(signal_stack(index), SIGNAL_STACK_SIZE)
}

/// Where the signal stack of a thread lies.
pub(super) fn signal_stack(index: u32) -> u64 {
    SIGNAL_STACKS + u64::from(index) * SIGNAL_STACK_SIZE
}
