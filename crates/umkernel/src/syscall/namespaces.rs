//! Namespaces.

use super::{Arg, Entry, Family, Support};
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::ns;
use crate::platform::TrapFrame;
use crate::task::CloneFlags;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(272, "unshare", Family::Process, &[Arg::Kind("clone_flags")], KINDS, sys_unshare),
    Entry::new(308, "setns", Family::Process, &[Arg::Fd, Arg::Kind("clone_flags")], KINDS, sys_setns),
];

const KINDS: Support = Support::Partial("mounts, names of the machine and System V objects only");

fn sys_unshare(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    ns::unshare(ctx, CloneFlags::from_bits_retain(args[0])).map(|()| 0)
}

fn sys_setns(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file(args[0] as i32)?;
    ns::join(ctx, &file, CloneFlags::from_bits_retain(u64::from(args[1] as u32))).map(|()| 0)
}
