//! The mlock family.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{PAGE_SIZE, TASK_SIZE, page_up};
use crate::platform::TrapFrame;

const RANGE: &[Arg] = &[Arg::Ptr, Arg::Uint];
const LOCK: Support = Support::Partial("counted; pages are the host's to keep");

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(149, "mlock", Family::Memory, RANGE, LOCK, |ctx, args, _| lock(ctx, args[0], args[1], true)),
    Entry::new(150, "munlock", Family::Memory, RANGE, Support::Full, sys_munlock),
    Entry::new(151, "mlockall", Family::Memory, &[Arg::Hex], LOCK, sys_mlockall),
    Entry::new(152, "munlockall", Family::Memory, &[], Support::Full, sys_munlockall),
    Entry::new(325, "mlock2", Family::Memory, &[Arg::Ptr, Arg::Uint, Arg::Hex], LOCK, sys_mlock2),
];

/// The pages that a range touches; `None` for none.
fn pages(addr: u64, len: u64) -> Result<Option<(u64, u64)>> {
    let start = addr & !(PAGE_SIZE - 1);
    let end = addr.checked_add(len).and_then(page_up).ok_or(Errno::EINVAL)?;
    if end > TASK_SIZE && len > 0 {
        bail!(ENOMEM, "beyond user memory");
    }
    Ok((end > start && len > 0).then_some((start, end)))
}

fn lock(ctx: &Ctx, addr: u64, len: u64, present: bool) -> Result<usize> {
    if let Some((start, end)) = pages(addr, len)? {
        ctx.mm()?.lock_range(ctx, start, end, present)?;
    }
    Ok(0)
}

fn sys_munlock(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if let Some((start, end)) = pages(args[0], args[1])? {
        ctx.mm()?.unlock_range(start, end)?;
    }
    Ok(0)
}

fn sys_mlock2(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const ON_FAULT: u64 = 1;
    if args[2] & !ON_FAULT != 0 {
        bail!(EINVAL, "unknown flags");
    }
    lock(ctx, args[0], args[1], args[2] & ON_FAULT == 0)
}

fn sys_mlockall(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const CURRENT: u32 = 1;
    const FUTURE: u32 = 2;
    const ON_FAULT: u32 = 4;
    let flags = args[0] as u32;
    if flags & !(CURRENT | FUTURE | ON_FAULT) != 0 || flags & (CURRENT | FUTURE) == 0 {
        return Err(Errno::EINVAL.into());
    }
    ctx.mm()?.lock_all(ctx, flags & CURRENT != 0, flags & FUTURE != 0, flags & ON_FAULT == 0)?;
    Ok(0)
}

fn sys_munlockall(ctx: &Ctx, _args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    ctx.mm()?.unlock_all();
    Ok(0)
}
