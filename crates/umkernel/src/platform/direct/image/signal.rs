//! Host signals in guest processes: traps of unpatched system calls, faults, and the kick that brings guest code into the kernel.
//!
//! The handler runs on a small stack of its own with all signals blocked and does next to nothing: it changes what the interrupted
//! code goes on with, and returns.

use super::arena::arena;
use super::entry::{Frame, GUEST_GS, at};
use super::layout::{DOOR_OFFSET, DOOR_STRIDE, KERNEL_BASE, KERNEL_END, KEYS_OPEN, KICK, PRIVATE_BASE};
use super::layout::{SIGNAL_STACK_SIZE, SIGNAL_STACKS};
use super::memory;
use super::slot::{Slot, Trap};
use super::vdso;
use crate::host;
use crate::platform::TrapFrame;
use crate::signal::number::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
use crate::signal::{SigContext, SigInfo, code};
use core::arch::asm;
use linux_raw_sys::general::__NR_clock_gettime;
use linux_raw_sys::ptrace::AUDIT_ARCH_X86_64;

/// What the handler is for. Others have no business in a guest process and keep their default actions.
const HANDLED: [u8; 7] = [SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, KICK];

/// `int3`.
pub(super) const BREAKPOINT: u8 = 0xcc;
/// Bytes of `syscall`.
const SYSCALL_LEN: u64 = 2;

/// Flags that kernel code begins with.
const KERNEL_FLAGS: u64 = 0x202;

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
    let signal = signal as u8;
    let at_foreign = signal == SIGILL && frame.context.rip == at::foreign();
    let in_kernel = (KERNEL_BASE..KERNEL_END).contains(&frame.context.rip);
    // A process that guest code has made behind the kernel's back: a copy of its parent without words of its own.
    let Some(thread) = Interrupted::new(frame) else { host::exit_process(1) };
    let context = &mut frame.context;
    // The kernel calls the vdso, with its keys.
    let in_kernel = in_kernel || thread.keys == KEYS_OPEN && vdso::contains(context.rip);
    match signal {
        // On its way in, with a gs base of its own.
        SIGILL if at_foreign => {
            context.rcx = context.r11;
            thread.go_on(context, at::entry());
        }
        _ if in_kernel && thread.keys == KEYS_OPEN => in_kernel_code(signal, info, context, &thread),
        _ if in_kernel => beside_the_door(signal, info, context, &thread),
        SIGSYS if info.arch == AUDIT_ARCH_X86_64 => {
            // SAFETY: guest code was running on the thread.
            unsafe { thread.slot.own() }.site = context.rip - SYSCALL_LEN;
            // The door is entered as from a patched site.
            context.rcx = context.rip;
            thread.go_on(context, at::entry());
        }
        // A call by the 32-bit gate. A kernel without 32-bit programs has none: the instruction faults.
        SIGSYS => {
            context.rip -= SYSCALL_LEN;
            thread.enter(context, Trap::Fault(SigInfo::fault(SIGSEGV, code::SI_KERNEL, 0)));
        }
        KICK => thread.enter(context, Trap::Interruption),
        // Code that is being patched: by the time that it is tried again it will have been.
        SIGTRAP if info.code == code::SI_KERNEL && is_being_patched(context.rip.wrapping_sub(1)) => context.rip -= 1,
        // Sent by somebody on the host rather than raised by the code.
        _ if info.code <= 0 => {}
        _ => thread.enter(context, Trap::Fault(SigInfo::fault(signal, info.code, info.addr))),
    }
}

/// Whether the breakpoint at `at` is or was a patch in the making, rather than one of the guest's own, which stays.
fn is_being_patched(at: u64) -> bool {
    let mut byte = [0];
    arena().texts.patching() == at || memory::read(at, &mut byte) == 1 && byte[0] != BREAKPOINT
}

/// The signal interrupted the kernel itself.
fn in_kernel_code(signal: u8, info: &HostSigInfo, context: &mut SigContext, thread: &Interrupted) {
    match signal {
        // Kernel code looks for work on its way out; only when it is past that, it must look again.
        KICK if at::exit().contains(&context.rip) => thread.again(context),
        KICK => {}
        // The guest's single steps lead into the door, which then goes on without.
        SIGTRAP if info.code == code::TRAP_TRACE => {}
        SIGSEGV | SIGBUS if memory::fixup(context.rip).is_some() => {
            context.rip = memory::fixup(context.rip).unwrap_or(context.rip);
        }
        _ if info.code <= 0 => {}
        // The host has no clock any more that the vdso can read, so that asks the host.
        SIGSYS if vdso::contains(context.rip) && info.syscall as u32 == __NR_clock_gettime => {
            context.rax = host::clock_gettime_to(context.rdi as i32, context.rsi) as u64;
        }
        SIGSYS => panic!("host call {} from {:#x}, which the filter refuses", info.syscall, context.rip),
        _ => panic!("host signal {signal} (code {}) at {:#x}, address {:#x}", info.code, context.rip, info.addr),
    }
}

/// The signal interrupted code in the kernel's memory with the guest's keys: the first or last steps of the door, or guest code that
/// has strayed there.
fn beside_the_door(signal: u8, info: &HostSigInfo, context: &mut SigContext, thread: &Interrupted) {
    match signal {
        KICK if at::exit().contains(&context.rip) => thread.again(context),
        KICK if at::way_in().contains(&context.rip) => {}
        KICK => thread.enter(context, Trap::Interruption),
        SIGTRAP if info.code == code::TRAP_TRACE && at::way_in().contains(&context.rip) => {}
        _ if info.code <= 0 && signal != SIGSYS => {}
        // For a guest there is nothing at that address.
        _ => thread.enter(context, Trap::Fault(SigInfo::fault(SIGSEGV, code::SEGV_MAPERR, context.rip))),
    }
}

/// The thread that a signal interrupted. The handler has found it by the signal stack: all registers may be anything.
struct Interrupted {
    slot: &'static Slot,
    /// Its scratch words.
    door: u64,
    /// Its gs base if that is not where its words are, or 0.
    gs_base: u64,
    /// Its key register.
    keys: u32,
}

impl Interrupted {
    /// `None` for a thread that has no words yet.
    fn new(frame: &UContext) -> Option<Interrupted> {
        let index = (&raw const *frame as u64).checked_sub(SIGNAL_STACKS)? / SIGNAL_STACK_SIZE;
        let door = PRIVATE_BASE + index * DOOR_STRIDE;
        let gs_base: u64;
        // SAFETY: reads a register.
        unsafe { asm!("rdgsbase {}", out(reg) gs_base, options(nomem, nostack, preserves_flags)) };
        // SAFETY: the frame is the host's.
        let keys = unsafe { arena().facts.xstate.keys(frame.context.fpstate) };
        // SAFETY: the private area is mapped wherever the handler is installed; it holds nothing or the address of a slot.
        let slot = unsafe { (*((door + DOOR_OFFSET + 8) as *const *const Slot)).as_ref() }?;
        Some(Interrupted { slot, door, gs_base: if gs_base == door { 0 } else { gs_base }, keys })
    }

    /// Makes the interrupted code go on in the door, in 64-bit code and with the thread's words.
    fn go_on(&self, context: &mut SigContext, rip: u64) {
        context.rip = rip;
        context.cs = TrapFrame::USER_CS as u16;
        context.ss = TrapFrame::USER_SS as u16;
        // SAFETY: the kernel's own words; the handler does not use the base.
        unsafe {
            *((self.door + GUEST_GS) as *mut u64) = self.gs_base;
            asm!("wrgsbase {}", in(reg) self.door, options(nostack, preserves_flags));
        }
    }

    /// Makes guest code enter the kernel without a system call.
    fn enter(&self, context: &mut SigContext, trap: Trap) {
        let fs_base: u64;
        // SAFETY: reads a register.
        unsafe { asm!("rdfsbase {}", out(reg) fs_base, options(nomem, nostack, preserves_flags)) };
        let (gs_base, cs) = (self.gs_base, context.cs.into());
        let regs = TrapFrame { fs_base, gs_base, cs, ..context.registers() };
        let frame: *mut Frame = self.slot.frame();
        // SAFETY: guest code was running, so nothing of the kernel's is on the thread's kernel stack.
        unsafe {
            (*frame).regs = regs;
            self.slot.own().trap = Some(trap);
        }
        context.rsp = frame as u64;
        context.eflags = KERNEL_FLAGS;
        self.go_on(context, at::trap_entry());
    }

    /// Makes a thread on its way out look for work once more. Its frame is whole.
    fn again(&self, context: &mut SigContext) {
        context.rsp = self.slot.frame() as u64;
        context.eflags = KERNEL_FLAGS;
        self.go_on(context, at::again());
    }
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
