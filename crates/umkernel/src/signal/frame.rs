//! The frame that a handler runs on, and the way back from it: `struct rt_sigframe` of x86-64
//! (`asm/sigframe.h`, `asm/ucontext.h`, `asm/sigcontext.h`), byte for byte.

use super::altstack::{AltStack, SS_AUTODISARM};
use super::{FaultRecord, SIGINFO_SIZE, SaFlags, SigAction, SigInfo, SigSet, set_blocked};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{Pod, TASK_SIZE, bytes_of};
use crate::platform::TrapFrame;
use alloc::vec::Vec;

/// Bytes below the stack pointer that belong to the interrupted function (x86-64 ABI).
const RED_ZONE: u64 = 128;
/// `uc_flags`: the frame has an XSAVE image.
const UC_FP_XSTATE: u64 = 1;
/// `uc_flags`: `ss` is restored as it stands.
const UC_STRICT_RESTORE_SS: u64 = 4;
/// `uc_flags`: `ss` is saved, and restored as it stands.
const UC_SIGCONTEXT_SS: u64 = 2 | UC_STRICT_RESTORE_SS;

/// Bytes of the legacy area of an XSAVE image (`FXSAVE`).
const FXSAVE_SIZE: usize = 512;
/// Where the legacy area leaves room for software: `struct _fpx_sw_bytes`.
const SOFTWARE_BYTES: usize = 464;
/// `FP_XSTATE_MAGIC1`: the image is an extended one.
const MAGIC1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`: right behind the image.
const MAGIC2: u32 = 0x4650_5845;
/// Legacy area and header: the least extended image.
const MIN_XSAVE_SIZE: usize = 576;
/// Beyond what any processor's image needs (AMX included).
const MAX_XSAVE_SIZE: usize = 16 * 1024;

/// Flags that a handler may change in the interrupted context (`FIX_EFLAGS`).
const USER_FLAGS: u64 = 0x5_0dd5;
const DIRECTION_FLAG: u64 = 0x400;
const TRAP_FLAG: u64 = 0x100;
const RESUME_FLAG: u64 = 0x1_0000;

/// `struct sigcontext`: the guests' and the host's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the fields' names are those of asm/sigcontext.h")]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub error_code: u64,
    pub trapno: u64,
    pub old_mask: u64,
    pub cr2: u64,
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

impl SigContext {
    /// The registers, in user mode and outside a system call. Segment bases are not among what a context holds.
    pub fn registers(&self) -> TrapFrame {
        TrapFrame {
            r8: self.r8,
            r9: self.r9,
            r10: self.r10,
            r11: self.r11,
            r12: self.r12,
            r13: self.r13,
            r14: self.r14,
            r15: self.r15,
            rdi: self.rdi,
            rsi: self.rsi,
            rbp: self.rbp,
            rbx: self.rbx,
            rdx: self.rdx,
            rax: self.rax,
            rcx: self.rcx,
            rsp: self.rsp,
            rip: self.rip,
            eflags: self.eflags,
            cs: TrapFrame::USER_CS,
            ss: TrapFrame::USER_SS,
            orig_rax: TrapFrame::NO_SYSCALL,
            ..TrapFrame::default()
        }
    }

    fn of(regs: &TrapFrame, fault: FaultRecord, mask: SigSet, fpstate: u64) -> SigContext {
        SigContext {
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
            rdi: regs.rdi,
            rsi: regs.rsi,
            rbp: regs.rbp,
            rbx: regs.rbx,
            rdx: regs.rdx,
            rax: regs.rax,
            rcx: regs.rcx,
            rsp: regs.rsp,
            rip: regs.rip,
            eflags: regs.eflags,
            cs: regs.cs as u16,
            gs: 0,
            fs: 0,
            ss: regs.ss as u16,
            error_code: fault.error_code,
            trapno: fault.trapno,
            old_mask: mask.0,
            cr2: fault.cr2,
            fpstate,
            reserved: [0; 8],
        }
    }
}

/// `struct rt_sigframe`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct SigFrame {
    restorer: u64,
    flags: u64,
    link: u64,
    stack: AltStack,
    context: SigContext,
    mask: SigSet,
    info: [u8; SIGINFO_SIZE],
}

// SAFETY: integers without padding between them: 8-byte fields, and four 2-byte fields in a row.
unsafe impl Pod for SigFrame {}

impl SigFrame {
    fn new(
        action: &SigAction,
        stack: AltStack,
        context: SigContext,
        mask: SigSet,
        info: &SigInfo,
        extended: bool,
    ) -> SigFrame {
        let flags = UC_SIGCONTEXT_SS | if extended { UC_FP_XSTATE } else { 0 };
        SigFrame { restorer: action.restorer, flags, link: 0, stack, context, mask, info: info.encode() }
    }
}

/// Bytes of a frame without its processor state.
const FRAME_SIZE: u64 = size_of::<SigFrame>() as u64;
/// Offset of the `ucontext` in a frame.
const UCONTEXT_OFFSET: u64 = core::mem::offset_of!(SigFrame, flags) as u64;
/// Offset of the `siginfo` in a frame.
const INFO_OFFSET: u64 = core::mem::offset_of!(SigFrame, info) as u64;

/// Puts a frame for `action`'s handler on the running task's stack and the registers so that the handler runs next;
/// `mask` is what returning from it goes back to.
///
/// # Errors
/// When the stack or the action will not do: the caller raises `SIGSEGV`.
pub(super) fn push(ctx: &Ctx, regs: &mut TrapFrame, info: &SigInfo, action: &SigAction, mask: SigSet) -> Result<()> {
    if !action.flags().contains(SaFlags::RESTORER) {
        bail!(EFAULT, "the action has no restorer");
    }
    if action.handler >= TASK_SIZE {
        bail!(EFAULT, "the handler's address is not the guest's");
    }
    let signals = &ctx.task.signals;
    let mut xstate = ctx.kernel.platform.extended_state(ctx.task)?;
    let extended = seal(&mut xstate);
    let altstack = *signals.altstack.lock();
    let place = place(regs.rsp, &altstack, action.flags(), xstate.len() as u64)?;

    let fault = *signals.fault.lock();
    let context = SigContext::of(regs, fault, mask, place.xstate);
    let frame = SigFrame::new(action, altstack, context, mask, info, extended);
    let bytes = bytes_of(&frame);
    let used = if action.flags().contains(SaFlags::SIGINFO) { bytes.len() } else { INFO_OFFSET as usize };
    ctx.write_user(place.xstate, &xstate)?;
    ctx.write_user(place.frame, &bytes[..used])?;
    if altstack.flags & SS_AUTODISARM != 0 {
        *signals.altstack.lock() = AltStack::default();
    }

    regs.rdi = u64::from(info.signo);
    regs.rsi = place.frame + INFO_OFFSET;
    regs.rdx = place.frame + UCONTEXT_OFFSET;
    regs.rax = 0;
    regs.rip = action.handler;
    regs.rsp = place.frame;
    regs.cs = TrapFrame::USER_CS;
    regs.ss = TrapFrame::USER_SS;
    regs.eflags &= !(DIRECTION_FLAG | TRAP_FLAG | RESUME_FLAG);
    regs.orig_rax = TrapFrame::NO_SYSCALL;
    ctx.kernel.platform.set_extended_state(ctx.task, &[])
}

/// Where a frame goes.
struct Place {
    frame: u64,
    xstate: u64,
}

fn place(rsp: u64, altstack: &AltStack, flags: SaFlags, xstate_size: u64) -> Result<Place> {
    let mut sp = rsp.wrapping_sub(RED_ZONE);
    let nested = altstack.is_active(sp);
    let entering = flags.contains(SaFlags::ONSTACK) && altstack.size != 0 && !nested;
    if entering {
        sp = altstack.base.wrapping_add(altstack.size);
    }
    let xstate = sp.wrapping_sub(xstate_size) & !63;
    // As if a call instruction had pushed the return address onto an aligned stack.
    let frame = (xstate.wrapping_sub(FRAME_SIZE) & !15).wrapping_sub(8);
    if (nested || entering) && !altstack.contains(frame) {
        bail!(EFAULT, "the alternate stack is full");
    }
    Ok(Place { frame, xstate })
}

/// Turns a bare XSAVE image into that of a frame: the marks that say how long it is, in it and behind it. False for an
/// image that has the legacy area only, which has no marks.
///
/// A platform's image carries the mask of its features where the marks go, as `PTRACE_GETREGSET` gives it.
fn seal(image: &mut Vec<u8>) -> bool {
    let size = image.len();
    let Some(software) = image.get_mut(SOFTWARE_BYTES..FXSAVE_SIZE).filter(|_| size >= MIN_XSAVE_SIZE) else {
        return false;
    };
    let mut features = [0; 8];
    features.copy_from_slice(&software[..8]);
    software.fill(0);
    software[0..4].copy_from_slice(&MAGIC1.to_ne_bytes());
    software[4..8].copy_from_slice(&(size as u32 + 4).to_ne_bytes());
    software[8..16].copy_from_slice(&features);
    software[16..20].copy_from_slice(&(size as u32).to_ne_bytes());
    image.extend_from_slice(&MAGIC2.to_ne_bytes());
    true
}

/// Returns from a handler (`rt_sigreturn(2)`): takes the frame off the stack. The value is that of the interrupted
/// context's `rax`, so that it passes for the call's result.
///
/// # Errors
/// When the frame is not one: the caller raises `SIGSEGV`.
pub(super) fn pop(ctx: &Ctx, regs: &mut TrapFrame) -> Result<usize> {
    // The handler's `ret` has taken the restorer's address off.
    let frame: SigFrame = ctx.read_val(regs.rsp.wrapping_sub(8))?;
    set_blocked(ctx, frame.mask);
    let context = &frame.context;
    if context.rip >= TASK_SIZE {
        bail!(EFAULT, "the frame's rip is not the guest's");
    }
    if u64::from(context.cs | 3) != TrapFrame::USER_CS {
        bail!(EINVAL, "the frame's cs is not that of 64-bit code");
    }
    if frame.flags & UC_STRICT_RESTORE_SS != 0 && u64::from(context.ss | 3) != TrapFrame::USER_SS {
        bail!(EINVAL, "the frame's ss is not that of 64-bit code");
    }
    // No call to start again: `registers` says so.
    *regs = TrapFrame {
        eflags: regs.eflags & !USER_FLAGS | context.eflags & USER_FLAGS,
        fs_base: regs.fs_base,
        gs_base: regs.gs_base,
        ds: regs.ds,
        es: regs.es,
        fs: regs.fs,
        gs: regs.gs,
        ..context.registers()
    };
    let image = if context.fpstate == 0 { Vec::new() } else { read_xstate(ctx, context.fpstate)? };
    ctx.kernel.platform.set_extended_state(ctx.task, &image)?;

    let mut altstack = ctx.task.signals.altstack.lock();
    // A stack that sigaltstack(2) would refuse is not restored, and that is no error.
    if let Ok(stack) = altstack.replaced_by(frame.stack, regs.rsp) {
        *altstack = stack;
    }
    Ok(regs.rax as usize)
}

/// The processor state of a frame: all of an image whose marks are right, the legacy area of any other.
fn read_xstate(ctx: &Ctx, addr: u64) -> Result<Vec<u8>> {
    let mut image = alloc::vec![0; FXSAVE_SIZE];
    ctx.read_user(addr, &mut image)?;
    let word = |at: usize| u32::from_ne_bytes(core::array::from_fn(|i| image[SOFTWARE_BYTES + at + i]));
    let (magic, total, size) = (word(0), word(4) as usize, word(16) as usize);
    let sane = magic == MAGIC1 && (MIN_XSAVE_SIZE..=MAX_XSAVE_SIZE).contains(&size) && size <= total;
    if sane && ctx.read_val::<u32>(addr.wrapping_add(size as u64))? == MAGIC2 {
        image.resize(size, 0);
        ctx.read_user(addr, &mut image)?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn layout_is_that_of_the_headers() {
        assert_eq!(FRAME_SIZE, 440);
        assert_eq!(offset_of!(SigFrame, context), 8 + 40);
        assert_eq!(offset_of!(SigContext, rip), 128);
        assert_eq!(offset_of!(SigContext, cs), 144);
        assert_eq!(offset_of!(SigContext, error_code), 152);
        assert_eq!(offset_of!(SigContext, fpstate), 184);
        assert_eq!(offset_of!(SigFrame, mask), 304);
        assert_eq!(INFO_OFFSET, 312);
    }

    #[test]
    fn frames_leave_the_red_zone_alone_and_are_aligned() -> Result<()> {
        for rsp in 0x7000_0000u64..0x7000_0040 {
            let place = place(rsp, &AltStack::default(), SaFlags::ONSTACK, 2696 + 4)?;
            assert!(place.xstate + 2700 <= rsp - RED_ZONE);
            assert!(place.frame + FRAME_SIZE <= place.xstate);
            assert_eq!((place.xstate % 64, place.frame % 16), (0, 8));
        }
        Ok(())
    }

    #[test]
    fn the_alternate_stack_is_entered_once_and_never_overrun() -> Result<()> {
        let alt = AltStack { base: 0x10000, flags: 0, padding: 0, size: 0x4000 };
        let first = place(0x7000_0000, &alt, SaFlags::ONSTACK, 836)?;
        assert!(alt.contains(first.frame) && first.xstate + 836 <= 0x14000);
        let second = place(first.frame, &alt, SaFlags::ONSTACK, 836)?;
        assert!(second.xstate + 836 <= first.frame - RED_ZONE);
        assert!(place(0x10400, &alt, SaFlags::empty(), 836).is_err(), "no room left");
        assert!(place(0x7000_0000, &alt, SaFlags::empty(), 836)?.frame > 0x6fff_0000, "without SA_ONSTACK not used");
        Ok(())
    }

    #[test]
    fn marks_frame_an_extended_image() {
        let mut image = alloc::vec![0u8; 832];
        image[SOFTWARE_BYTES] = 7;
        assert!(seal(&mut image));
        assert_eq!(image.len(), 836);
        assert_eq!(&image[464..468], &MAGIC1.to_ne_bytes());
        assert_eq!(&image[468..472], &836u32.to_ne_bytes());
        assert_eq!(image[472], 7);
        assert_eq!(&image[480..484], &832u32.to_ne_bytes());
        assert_eq!(&image[832..], &MAGIC2.to_ne_bytes());
        assert!(!seal(&mut alloc::vec![0u8; 512]));
    }
}

/// A frame of the host's kernel, to compare with.
#[cfg(test)]
#[cfg(feature = "ptrace")]
pub(super) mod native {
    use super::*;
    use nix::libc;
    use std::cell::Cell;
    use std::mem::MaybeUninit;

    /// What is compared.
    pub(in crate::signal) struct Captured {
        pub(in crate::signal) address: u64,
        pub(in crate::signal) bytes: Vec<u8>,
        pub(in crate::signal) xstate_address: u64,
        /// Software bytes of the image, and the mark behind it.
        pub(in crate::signal) marks: (Vec<u8>, u32),
        xstate: Vec<u8>,
    }

    std::thread_local! {
        static CAPTURED: Cell<Option<Captured>> = const { Cell::new(None) };
    }

    extern "C" fn catch(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let address = context as u64 - UCONTEXT_OFFSET;
        // SAFETY: the host's kernel has put a frame there, whose address the context tells.
        let (frame, bytes) = unsafe {
            let frame = *(address as *const SigFrame);
            (frame, std::slice::from_raw_parts(address as *const u8, FRAME_SIZE as usize).to_vec())
        };
        let xstate_address = frame.context.fpstate;
        let word = |at: usize| -> u32 {
            // SAFETY: within the image of the frame.
            unsafe { ((xstate_address as usize + at) as *const u32).read_unaligned() }
        };
        let size = word(SOFTWARE_BYTES + 16) as usize;
        // SAFETY: the image is as long as it says.
        let xstate = unsafe { std::slice::from_raw_parts(xstate_address as *const u8, size).to_vec() };
        let marks = (xstate[SOFTWARE_BYTES..FXSAVE_SIZE].to_vec(), word(size));
        CAPTURED.set(Some(Captured { address, bytes, xstate_address, marks, xstate }));
    }

    /// Raises a signal and takes the frame that its handler gets.
    pub(in crate::signal) fn capture() -> Captured {
        // SAFETY: the action is complete, its handler touches its own thread's memory only, and the signal is nobody else's.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = catch as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
            assert_eq!(libc::raise(libc::SIGUSR2), 0);
        }
        CAPTURED.take().expect("the handler has run")
    }

    /// The frame that this kernel would have built from the same registers.
    pub(in crate::signal) fn rebuild(host: &Captured) -> Captured {
        // SAFETY: the bytes are a frame's.
        let theirs: SigFrame = unsafe { host.bytes.as_ptr().cast::<SigFrame>().read_unaligned() };
        // As the platform gives an image: with the mask of features where the marks go.
        let mut xstate = host.xstate.clone();
        let software = &mut xstate[SOFTWARE_BYTES..FXSAVE_SIZE];
        software.copy_within(8..16, 0);
        software[8..].fill(0);
        let extended = seal(&mut xstate);
        // The test's thread has an alternate stack, of the Rust runtime, which the action does not ask for.
        let stack = theirs.stack;
        let place = place(theirs.context.rsp, &stack, SaFlags::RESTORER, xstate.len() as u64).expect("a stack");
        let info = SigInfo::decode(libc::SIGUSR2 as u8, &theirs.info);
        let c = theirs.context;
        let regs = TrapFrame {
            r8: c.r8,
            r9: c.r9,
            r10: c.r10,
            r11: c.r11,
            r12: c.r12,
            r13: c.r13,
            r14: c.r14,
            r15: c.r15,
            rdi: c.rdi,
            rsi: c.rsi,
            rbp: c.rbp,
            rbx: c.rbx,
            rdx: c.rdx,
            rax: c.rax,
            rcx: c.rcx,
            rsp: c.rsp,
            rip: c.rip,
            eflags: c.eflags,
            cs: TrapFrame::USER_CS,
            ss: TrapFrame::USER_SS,
            ..TrapFrame::default()
        };
        let fault = FaultRecord { trapno: c.trapno, error_code: c.error_code, cr2: c.cr2 };
        let context = SigContext::of(&regs, fault, SigSet(0), place.xstate);
        let action = SigAction { restorer: theirs.restorer, ..SigAction::default() };
        let frame = SigFrame::new(&action, stack, context, SigSet(0), &info, extended);
        let size = xstate.len() - 4;
        let mark = u32::from_ne_bytes(core::array::from_fn(|i| xstate[size + i]));
        Captured {
            address: place.frame,
            bytes: bytes_of(&frame).to_vec(),
            xstate_address: place.xstate,
            marks: (xstate[SOFTWARE_BYTES..FXSAVE_SIZE].to_vec(), mark),
            xstate,
        }
    }
}
