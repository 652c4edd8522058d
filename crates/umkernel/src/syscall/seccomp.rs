//! `seccomp(2)`, and what `prctl(2)` has of it. What filters do is in [`crate::seccomp`].

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::seccomp::bpf::{Data, Instruction, MAX_INSTRUCTIONS, Program};
use crate::seccomp::{self, ACTIONS, Flags, NOTIFICATION_SIZE, RESPONSE_SIZE};
use alloc::vec;
use linux_raw_sys::ptrace::{
    SECCOMP_GET_ACTION_AVAIL, SECCOMP_GET_NOTIF_SIZES, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT,
    SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_STRICT,
};

/// The call of this family.
pub(super) const TABLE: &[Entry] = &[Entry::new(317, "seccomp", Family::Process, ARGS, SUPPORT, sys_seccomp)];

const ARGS: &[Arg] = &[Arg::Kind("seccomp_operation"), Arg::Kind("seccomp_flags"), Arg::Ptr];
const SUPPORT: Support = Support::Partial("strict mode leaves programs the processor's clock");

fn sys_seccomp(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let (operation, flags, argument) = (args[0] as u32, args[1] as u32, args[2]);
    match operation {
        SECCOMP_SET_MODE_STRICT if flags == 0 && argument == 0 => seccomp::set_strict(ctx).map(|()| 0),
        SECCOMP_SET_MODE_FILTER => set_filter(ctx, flags, argument),
        SECCOMP_GET_ACTION_AVAIL if flags == 0 => {
            let action: u32 = ctx.read_val(argument)?;
            if !ACTIONS.iter().any(|known| known.0 == action) {
                bail!(EOPNOTSUPP, "no such action");
            }
            Ok(0)
        }
        SECCOMP_GET_NOTIF_SIZES if flags == 0 => {
            let sizes = [NOTIFICATION_SIZE as u16, RESPONSE_SIZE as u16, Data::SIZE as u16];
            ctx.write_val(argument, &sizes).map(|()| 0)
        }
        _ => bail!(EINVAL, "no such operation, or not with these arguments"),
    }
}

/// `prctl(PR_SET_SECCOMP)`.
///
/// # Errors
/// `EINVAL` for no mode that can be entered, and as of `seccomp(2)`.
pub(super) fn set_mode(ctx: &Ctx, mode: u64, filter: u64) -> Result<usize> {
    match u32::try_from(mode) {
        Ok(SECCOMP_MODE_STRICT) => seccomp::set_strict(ctx).map(|()| 0),
        Ok(SECCOMP_MODE_FILTER) => set_filter(ctx, 0, filter),
        _ => bail!(EINVAL, "no mode that can be entered"),
    }
}

fn set_filter(ctx: &Ctx, flags: u32, addr: u64) -> Result<usize> {
    let Some(flags) = Flags::from_bits(flags) else { bail!(EINVAL, "unknown flag") };
    let has = |flag: Flags| flags.contains(flag);
    if has(Flags::TSYNC | Flags::NEW_LISTENER) && !has(Flags::TSYNC_ESRCH) {
        bail!(EINVAL, "the result would be a thread's id or a descriptor");
    }
    if has(Flags::WAIT_KILLABLE_RECV) && !has(Flags::NEW_LISTENER) {
        bail!(EINVAL, "nobody takes calls without a listener");
    }
    seccomp::attach(ctx, read_program(ctx, addr)?, flags)
}

/// A program in user memory: `struct sock_fprog`.
fn read_program(ctx: &Ctx, addr: u64) -> Result<Program> {
    // A length of 16 bits, and where the instructions are.
    let [len, instructions]: [u64; 2] = ctx.read_val(addr)?;
    let len = usize::from(len as u16);
    if len == 0 || len > MAX_INSTRUCTIONS {
        bail!(EINVAL, "no instructions, or too many");
    }
    seccomp::may_filter(ctx)?;
    if instructions == 0 {
        bail!(EINVAL, "no instructions");
    }
    let mut bytes = vec![0; len * Instruction::SIZE];
    ctx.read_user(instructions, &mut bytes)?;
    Program::new(bytes.as_chunks::<{ Instruction::SIZE }>().0.iter().map(Instruction::decode).collect())
}
