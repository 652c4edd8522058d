//! `futex(2)` and robust lists.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::futex::{self, Timeout, WakeOp};
use crate::host;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::time::read_timespec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::*;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(202, "futex", Family::Ipc, FUTEX, Support::Partial(FUTEX_NOTE), sys_futex),
    Entry::new(273, "set_robust_list", Family::Process, &[Arg::Ptr, Arg::Uint], Support::Full, sys_set_robust_list),
    Entry::new(274, "get_robust_list", Family::Process, GET_LIST, Support::Full, sys_get_robust_list),
];

const FUTEX: &[Arg] = &[Arg::Ptr, Arg::Kind("futex_op"), Arg::Uint, Arg::Ptr, Arg::Ptr, Arg::Hex];
const FUTEX_NOTE: &str = "no requeueing to priority-inheritance locks; priorities are not lent";
const GET_LIST: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Ptr];

/// The timeout at `addr`: relative for `FUTEX_WAIT`, by the clock that the operation says.
fn timeout_at(ctx: &Ctx, addr: u64, relative: bool, realtime: bool) -> Result<Timeout> {
    if addr == 0 {
        return Ok(Timeout::Never);
    }
    let ns = read_timespec(ctx, addr)?;
    Ok(match (relative, realtime) {
        (true, _) => Timeout::Monotonic(host::monotonic_ns().saturating_add(ns)),
        (false, true) => Timeout::Realtime(ns),
        (false, false) => Timeout::Monotonic(ns),
    })
}

fn sys_futex(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let [addr, op, value, timeout, addr2, value3] = *args;
    let (op, value, value3) = (op as u32, value as u32, value3 as u32);
    let count2 = timeout as i32;
    let command = op & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    let shared = op & FUTEX_PRIVATE_FLAG == 0;
    let realtime = op & FUTEX_CLOCK_REALTIME != 0;
    if realtime && !matches!(command, FUTEX_WAIT_BITSET | FUTEX_LOCK_PI2) {
        return Err(Errno::ENOSYS.into());
    }
    match command {
        FUTEX_WAIT => {
            let timeout = timeout_at(ctx, timeout, true, false)?;
            wait(ctx, addr, shared, value, u32::MAX, timeout)
        }
        FUTEX_WAIT_BITSET => {
            let timeout = timeout_at(ctx, timeout, false, realtime)?;
            if value3 == 0 {
                bail!(EINVAL, "an empty bitset");
            }
            wait(ctx, addr, shared, value, value3, timeout)
        }
        FUTEX_WAKE => futex::wake(ctx, addr, shared, value as i32, u32::MAX),
        FUTEX_WAKE_BITSET if value3 == 0 => bail!(EINVAL, "an empty bitset"),
        FUTEX_WAKE_BITSET => futex::wake(ctx, addr, shared, value as i32, value3),
        FUTEX_REQUEUE => futex::requeue(ctx, addr, addr2, shared, value as i32, count2, None),
        FUTEX_CMP_REQUEUE => futex::requeue(ctx, addr, addr2, shared, value as i32, count2, Some(value3)),
        FUTEX_WAKE_OP => {
            let op = WakeOp::decode(value3)?;
            futex::wake_op(ctx, addr, addr2, shared, value as i32, count2, op)
        }
        FUTEX_LOCK_PI => {
            let timeout = timeout_at(ctx, timeout, false, true)?;
            futex::lock_pi(ctx, addr, shared, timeout).map(|()| 0)
        }
        FUTEX_LOCK_PI2 => {
            let timeout = timeout_at(ctx, timeout, false, realtime)?;
            futex::lock_pi(ctx, addr, shared, timeout).map(|()| 0)
        }
        FUTEX_TRYLOCK_PI => futex::trylock_pi(ctx, addr, shared).map(|()| 0),
        FUTEX_UNLOCK_PI => futex::unlock_pi(ctx, addr, shared).map(|()| 0),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Waits; an interrupted wait with a time limit goes on until the same moment.
fn wait(ctx: &Ctx, addr: u64, shared: bool, expected: u32, bitset: u32, timeout: Timeout) -> Result<usize> {
    match futex::wait(ctx, addr, shared, expected, bitset, timeout) {
        Err(e) if e == Errno::ERESTARTSYS && timeout != Timeout::Never => {
            Err(ctx.task.restart_with(move |ctx| wait(ctx, addr, shared, expected, bitset, timeout)))
        }
        other => other.map(|()| 0),
    }
}

fn sys_set_robust_list(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[1] != futex::ROBUST_HEAD_SIZE {
        bail!(EINVAL, "not the length of a robust list's head");
    }
    ctx.task.robust_list.store(args[0], Ordering::SeqCst);
    Ok(0)
}

fn sys_get_robust_list(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let target = match args[0] as i32 {
        0 => ctx.task.clone(),
        tid => ctx.kernel.tasks.task(tid).ok_or(Errno::ESRCH)?,
    };
    crate::ptrace::may_access(ctx, &target)?;
    ctx.write_val(args[2], &futex::ROBUST_HEAD_SIZE)?;
    ctx.write_val(args[1], &target.robust_list.load(Ordering::SeqCst))?;
    Ok(0)
}
