//! What the door calls: a system call, a fault, an interruption.

use super::arena::arena;
use super::entry::Frame;
use super::slot::{Trap, current, with_ctx};
use super::spawn;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::trap::{self, Next};

/// Flags that guest code may have: the arithmetic ones, single step, direction, alignment check, id.
const USER_FLAGS: u64 = 0x24_0dd5;
const ALWAYS_SET: u64 = 0x202;
const SINGLE_STEP: u64 = 0x100;

/// A system call: the door has saved the registers.
pub(super) extern "C" fn syscall(frame: *mut Frame) {
    // SAFETY: the frame is the running thread's, at the end of its stack; this is the only reference to its registers.
    let regs = unsafe { &mut (*frame).regs };
    with_ctx(|ctx| {
        // SAFETY: the thread's own slot.
        let site = core::mem::take(&mut unsafe { current().own() }.site);
        if site != 0
            && let Some(back) = arena().texts.trapped(ctx, site)
        {
            (regs.rip, regs.rcx) = (back, back);
        }
        let result = trap::syscall(ctx, regs);
        back(ctx, regs, Some(result));
    });
}

/// A fault of guest code, or a host signal that interrupted it.
pub(super) extern "C" fn trap(frame: *mut Frame) {
    // SAFETY: as in `syscall`.
    let regs = unsafe { &mut (*frame).regs };
    with_ctx(|ctx| {
        // SAFETY: the thread's own slot.
        if let Some(Trap::Fault(info)) = unsafe { current().own() }.trap.take() {
            trap::fault(ctx, regs, info);
        }
        back(ctx, regs, None);
    });
}

/// A host signal came while the thread was on its way to guest code.
pub(super) extern "C" fn again(frame: *mut Frame) {
    // SAFETY: as in `syscall`.
    let regs = unsafe { &mut (*frame).regs };
    with_ctx(|ctx| back(ctx, regs, None));
}

/// On the way to guest code. The registers are those of the running thread's frame.
pub(super) fn back(ctx: &Ctx, regs: &mut TrapFrame, result: Option<Result<usize>>) {
    if trap::return_to_user(ctx, regs, result) == Next::End {
        spawn::end(ctx);
    }
    regs.orig_rax = TrapFrame::NO_SYSCALL;
    regs.eflags = regs.eflags & USER_FLAGS | ALWAYS_SET;
    let slot = current();
    let long =
        regs.gs_base != 0 || regs.eflags & SINGLE_STEP != 0 || regs.cs != TrapFrame::USER_CS || slot.guest_gs() != 0;
    // SAFETY: the running thread's own frame; its registers are borrowed, this is not.
    unsafe { (*slot.frame()).long_way = long.into() };
}
