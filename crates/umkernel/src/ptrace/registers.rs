//! A stopped tracee's registers: `struct user` of `sys/user.h`, and the register sets of `PTRACE_GETREGSET`.

use super::request::{on_tracee, with_stop};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::TASK_SIZE;
use crate::platform::TrapFrame;
use crate::task::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Words of `struct user_regs_struct`.
const WORDS: usize = TrapFrame::WORDS;
/// Bytes of `struct user` in the kernel's eyes: two words more than the C library's has.
const USER_SIZE: u64 = 928;
/// Where `struct user` has `u_debugreg`.
const DEBUG_REGISTERS: u64 = 848;
/// The bits of the debug status register that always read as 1.
const DR6_RESERVED: u64 = 0xffff_0ff0;

/// Bytes of `struct user_fpregs_struct`: the beginning of the XSAVE image.
pub const FP_SIZE: usize = 512;

/// Flags of `eflags` that a tracer may change: those of arithmetic, trap, direction, nested task, resume and alignment check.
const CHANGEABLE_FLAGS: u64 = 0x5_4dd5;

/// Where [`TrapFrame`]'s words lie that are not free.
mod word {
    pub(super) const CS: usize = 17;
    pub(super) const EFLAGS: usize = 18;
    pub(super) const SS: usize = 20;
    pub(super) const FS_BASE: usize = 21;
    pub(super) const GS_BASE: usize = 22;
    pub(super) const DS: usize = 23;
    pub(super) const GS: usize = 26;
}

/// `cs` of 32-bit code.
const CS_32: u64 = 0x23;

/// Sets one register, as far as guest code could have it that way.
fn put(words: &mut [u64; WORDS], index: usize, value: u64) -> Result<()> {
    let value = match index {
        // What else there is of code segments a processor would refuse on the way back.
        word::CS if ![TrapFrame::USER_CS, CS_32].contains(&(value & 0xffff)) => bail!(EIO, "no user code segment"),
        word::SS if value & 0xffff != TrapFrame::USER_SS => bail!(EIO, "no user stack segment"),
        word::CS | word::SS => value & 0xffff,
        word::DS..=word::GS if value & 0xffff != 0 && value & 3 != 3 => bail!(EIO, "no user segment"),
        // 64-bit code has no use for these segments, and the kernel keeps none.
        word::DS..=word::GS => return Ok(()),
        word::FS_BASE | word::GS_BASE if value >= TASK_SIZE => bail!(EIO, "no user address"),
        word::EFLAGS => words[index] & !CHANGEABLE_FLAGS | value & CHANGEABLE_FLAGS,
        _ => value,
    };
    words[index] = value;
    Ok(())
}

/// `PTRACE_PEEKUSER`: a word of `struct user`.
///
/// # Errors
/// As of [`with_stop`]; `EIO` for what is no word of it.
pub fn peek_user(ctx: &Ctx, task: &Task, addr: u64) -> Result<u64> {
    with_stop(ctx, task, |stop| {
        if !addr.is_multiple_of(8) || addr >= USER_SIZE {
            bail!(EIO, "outside struct user");
        }
        let debug = addr.checked_sub(DEBUG_REGISTERS).map(|offset| offset / 8);
        Ok(match (stop.regs.words().get(addr as usize / 8), debug) {
            (Some(word), _) => *word,
            (None, Some(6)) => DR6_RESERVED,
            _ => 0,
        })
    })?
}

/// `PTRACE_POKEUSER`. The guest has no debug registers: they take 0, which switches them off, and say to anything else what they
/// say on Linux when all are in use.
///
/// # Errors
/// As of [`peek_user`], `EIO` for what cannot be changed, `ENOSPC` for a breakpoint.
pub fn poke_user(ctx: &Ctx, task: &Task, addr: u64, value: u64) -> Result<()> {
    with_stop(ctx, task, |stop| {
        if !addr.is_multiple_of(8) {
            bail!(EIO, "not aligned");
        }
        let index = usize::try_from(addr / 8).unwrap_or(usize::MAX);
        if index < WORDS {
            let mut all = stop.regs.words();
            put(&mut all, index, value)?;
            stop.regs = TrapFrame::from_words(&all);
            return Ok(());
        }
        match addr.checked_sub(DEBUG_REGISTERS).map(|offset| offset / 8) {
            Some(0..=3 | 7) if value == 0 => Ok(()),
            Some(6) => Ok(()),
            Some(0..=3 | 7) => bail!(ENOSPC, "no debug registers"),
            _ => bail!(EIO, "cannot be changed"),
        }
    })?
}

/// The general registers (`PTRACE_GETREGS`, `NT_PRSTATUS`).
///
/// # Errors
/// As of [`with_stop`].
pub fn general(ctx: &Ctx, task: &Task) -> Result<TrapFrame> {
    with_stop(ctx, task, |stop| stop.regs)
}

/// The general registers as the bytes of `struct user_regs_struct`.
///
/// # Errors
/// As of [`with_stop`].
pub fn general_bytes(ctx: &Ctx, task: &Task) -> Result<Vec<u8>> {
    Ok(general(ctx, task)?.words().iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// Sets the general registers, the first ones where the bytes are fewer; those before one that cannot be set are set.
///
/// # Errors
/// As of [`with_stop`], and `EIO`.
pub fn set_general(ctx: &Ctx, task: &Task, bytes: &[u8]) -> Result<()> {
    with_stop(ctx, task, |stop| {
        let mut all = stop.regs.words();
        let (values, _) = bytes.as_chunks::<8>();
        let result = values
            .iter()
            .take(WORDS)
            .enumerate()
            .try_for_each(|(index, value)| put(&mut all, index, u64::from_ne_bytes(*value)));
        stop.regs = TrapFrame::from_words(&all);
        result
    })?
}

/// The extended registers in the XSAVE format (`NT_X86_XSTATE`); their first [`FP_SIZE`] bytes are `struct user_fpregs_struct`.
///
/// # Errors
/// As of [`with_stop`], and what the platform says.
pub fn extended(ctx: &Ctx, task: &Arc<Task>) -> Result<Vec<u8>> {
    on_tracee(ctx, task, |tracee| tracee.kernel.platform.extended_state(tracee.task))?
}

/// Sets them, all at once.
///
/// # Errors
/// As of [`extended`]; `EFAULT` for another size, `EINVAL` for what the processor would refuse.
pub fn set_extended(ctx: &Ctx, task: &Arc<Task>, bytes: Vec<u8>) -> Result<()> {
    if bytes.len() != extended(ctx, task)?.len() {
        bail!(EFAULT, "a part of the registers");
    }
    on_tracee(ctx, task, move |tracee| tracee.kernel.platform.set_extended_state(tracee.task, &bytes))?
}

/// Sets the x87 and SSE registers from the bytes of `struct user_fpregs_struct`, and leaves the others as they are.
///
/// # Errors
/// As of [`extended`]; `EINVAL` for another size, and for what the processor would refuse.
pub fn set_fp(ctx: &Ctx, task: &Arc<Task>, bytes: Vec<u8>) -> Result<()> {
    /// Where an image has the mask of the components that are present, and the bytes in front that are the software's.
    const XSTATE_BV: usize = 512;
    const SOFTWARE_BYTES: usize = 464;
    const X87_AND_SSE: u8 = 3;
    if bytes.len() != FP_SIZE {
        bail!(EINVAL, "a part of the registers");
    }
    on_tracee(ctx, task, move |tracee| {
        let platform = &tracee.kernel.platform;
        let mut image = platform.extended_state(tracee.task)?;
        let Some(place) = image.get_mut(..SOFTWARE_BYTES) else { return Err(Errno::EIO.into()) };
        place.copy_from_slice(&bytes[..SOFTWARE_BYTES]);
        if let Some(present) = image.get_mut(XSTATE_BV) {
            *present |= X87_AND_SSE;
        }
        platform.set_extended_state(tracee.task, &image)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_frame_are_each_other() {
        let all: [u64; WORDS] = core::array::from_fn(|i| i as u64 + 1);
        assert_eq!(TrapFrame::from_words(&all).words(), all);
        let frame = TrapFrame::from_words(&all);
        assert_eq!((frame.cs, frame.eflags, frame.ss), (18, 19, 21));
        assert_eq!((frame.fs_base, frame.gs_base, frame.ds, frame.gs), (22, 23, 24, 27));
    }

    #[test]
    fn nothing_that_guest_code_could_not_have() {
        let mut all = [0; WORDS];
        for (index, value) in [
            (word::CS, 0x10),
            (word::CS, 0),
            (word::SS, 0x18),
            (word::FS_BASE, u64::MAX),
            (word::GS_BASE, TASK_SIZE),
            (word::DS, 0x10),
        ] {
            assert!(put(&mut all, index, value).is_err(), "{index} {value:#x}");
        }
        put(&mut all, word::EFLAGS, u64::MAX).unwrap();
        assert_eq!(all[word::EFLAGS] & 0x3200, 0, "neither I/O privilege nor interrupts");
    }
}
