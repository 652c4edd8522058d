//! `prctl(2)`, `personality(2)`.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::creds::{Creds, commit, securebits};
use crate::task::{Capabilities, Comm};
use core::sync::atomic::Ordering;
use linux_raw_sys::prctl::*;

const PRCTL: &[Arg] = &[Arg::Kind("prctl"), Arg::Hex, Arg::Hex, Arg::Hex, Arg::Hex];
const PRCTL_NOTE: &str = "no speculation control, no memory layout changes";
const PERSONALITY_NOTE: &str = "kept and shown; addresses stay as they are";

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(135, "personality", Family::Process, &[Arg::Hex], Support::Partial(PERSONALITY_NOTE), sys_personality),
    Entry::new(157, "prctl", Family::Process, PRCTL, Support::Partial(PRCTL_NOTE), sys_prctl),
];

/// `TASK_COMM_LEN` of `linux/sched.h`.
const COMM_LEN: usize = 16;
/// Highest capability (`CAP_LAST_CAP`).
const LAST_CAPABILITY: u64 = 40;

fn sys_personality(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const QUERY: u32 = u32::MAX;
    let mut sched = ctx.task.sched.inner.lock();
    let old = sched.personality;
    if args[0] as u32 != QUERY {
        sched.personality = args[0] as u32;
    }
    Ok(old as usize)
}

fn sys_prctl(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let [option, arg2, arg3, arg4, arg5, _] = *args;
    let task = ctx.task;
    let process = &task.process;
    let rest_is_zero = arg3 == 0 && arg4 == 0 && arg5 == 0;
    match option as u32 {
        PR_SET_PDEATHSIG => {
            if arg2 > 64 {
                bail!(EINVAL, "no such signal");
            }
            process.inner.lock().parent_death_signal = arg2 as u8;
            Ok(0)
        }
        PR_GET_PDEATHSIG => put_int(ctx, arg2, process.inner.lock().parent_death_signal.into()),
        PR_GET_DUMPABLE => Ok(task.creds().dumpable.into()),
        PR_SET_DUMPABLE => {
            if arg2 > 1 {
                bail!(EINVAL, "0 or 1");
            }
            replace(ctx, |creds| creds.dumpable = arg2 == 1)
        }
        PR_GET_TIMING => Ok(0),
        PR_SET_TIMING if arg2 == 0 => Ok(0),
        PR_SET_NAME => {
            let mut name = [0u8; COMM_LEN];
            read_name(ctx, arg2, &mut name)?;
            *task.comm.lock() = Comm::new(&name);
            Ok(0)
        }
        PR_GET_NAME => {
            let comm = *task.comm.lock();
            ctx.write_user(arg2, comm.raw())?;
            Ok(0)
        }
        PR_GET_SECCOMP => Ok(task.seccomp.mode() as usize),
        PR_SET_SECCOMP => super::seccomp::set_mode(ctx, arg2, arg3),
        PR_GET_TSC => put_int(ctx, arg2, PR_TSC_ENABLE as i32),
        PR_SET_TIMERSLACK => {
            let mut sched = task.sched.inner.lock();
            sched.timer_slack = if arg2 as i64 <= 0 { sched.default_timer_slack } else { arg2 };
            Ok(0)
        }
        PR_GET_TIMERSLACK => Ok(task.sched.inner.lock().timer_slack as usize),
        PR_SET_CHILD_SUBREAPER => {
            process.inner.lock().subreaper = arg2 != 0;
            Ok(0)
        }
        PR_GET_CHILD_SUBREAPER => put_int(ctx, arg2, process.inner.lock().subreaper.into()),
        PR_SET_NO_NEW_PRIVS if arg2 == 1 && rest_is_zero => {
            task.no_new_privs.store(true, Ordering::SeqCst);
            Ok(0)
        }
        PR_GET_NO_NEW_PRIVS if arg2 == 0 && rest_is_zero => Ok(task.no_new_privs.load(Ordering::SeqCst).into()),
        PR_GET_TID_ADDRESS => {
            ctx.write_val(arg2, &task.clear_child_tid.load(Ordering::Relaxed))?;
            Ok(0)
        }
        PR_GET_THP_DISABLE if arg2 == 0 && rest_is_zero => Ok(0),
        PR_GET_KEEPCAPS => Ok(task.creds().keep_caps.into()),
        PR_SET_KEEPCAPS => set_keep_caps(ctx, arg2),
        PR_GET_SECUREBITS => Ok(task.creds().all_securebits() as usize),
        PR_SET_SECUREBITS => set_securebits(ctx, arg2),
        PR_CAPBSET_READ => Ok(task.creds().bounding.contains(capability(arg2)?).into()),
        PR_CAPBSET_DROP => {
            if !task.creds().capable(Capabilities::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            let cap = capability(arg2)?;
            replace(ctx, |creds| creds.bounding.remove(cap))
        }
        PR_CAP_AMBIENT => ambient(ctx, arg2, arg3, arg4 == 0 && arg5 == 0),
        _ => bail!(EINVAL, "an option that is not built"),
    }
}

fn put_int(ctx: &Ctx, addr: u64, value: i32) -> Result<usize> {
    ctx.write_val(addr, &value)?;
    Ok(0)
}

/// A name is read up to its NUL or to what fits, not beyond: it may end right before an unmapped page.
fn read_name(ctx: &Ctx, addr: u64, name: &mut [u8; COMM_LEN]) -> Result<()> {
    for (i, byte) in name.iter_mut().take(COMM_LEN - 1).enumerate() {
        *byte = ctx.read_val(addr.checked_add(i as u64).ok_or(Errno::EFAULT)?)?;
        if *byte == 0 {
            break;
        }
    }
    Ok(())
}

fn replace(ctx: &Ctx, change: impl FnOnce(&mut Creds)) -> Result<usize> {
    let mut new = ctx.creds().clone();
    change(&mut new);
    ctx.set_creds(new);
    Ok(0)
}

fn capability(nr: u64) -> Result<Capabilities> {
    if nr > LAST_CAPABILITY {
        bail!(EINVAL, "no such capability");
    }
    Ok(Capabilities::from_bits_retain(1 << nr))
}

fn set_keep_caps(ctx: &Ctx, value: u64) -> Result<usize> {
    if value > 1 {
        bail!(EINVAL, "0 or 1");
    }
    if ctx.creds().securebits & securebits::KEEP_CAPS_LOCKED != 0 {
        bail!(EPERM, "locked");
    }
    replace(ctx, |creds| creds.keep_caps = value == 1)
}

fn set_securebits(ctx: &Ctx, value: u64) -> Result<usize> {
    let old = ctx.creds();
    let bits = old.all_securebits();
    let locked_bits = (bits & securebits::ALL_LOCKS) >> 1;
    let new = value as u32;
    let known = value & !u64::from(securebits::ALL | securebits::ALL_LOCKS) == 0;
    if !known
        || locked_bits & (bits ^ new) != 0
        || bits & securebits::ALL_LOCKS & !new != 0
        || !old.capable(Capabilities::SETPCAP)
    {
        return Err(Errno::EPERM.into());
    }
    commit(
        ctx,
        Creds {
            securebits: new & !securebits::KEEP_CAPS,
            keep_caps: new & securebits::KEEP_CAPS != 0,
            ..(*old).clone()
        },
    );
    Ok(0)
}

fn ambient(ctx: &Ctx, operation: u64, nr: u64, rest_is_zero: bool) -> Result<usize> {
    let creds = ctx.creds();
    if !rest_is_zero {
        return Err(Errno::EINVAL.into());
    }
    if operation == u64::from(PR_CAP_AMBIENT_CLEAR_ALL) {
        if nr != 0 {
            return Err(Errno::EINVAL.into());
        }
        return replace(ctx, |creds| creds.ambient = Capabilities::empty());
    }
    let cap = capability(nr)?;
    match operation as u32 {
        PR_CAP_AMBIENT_IS_SET => Ok(creds.ambient.contains(cap).into()),
        PR_CAP_AMBIENT_RAISE => {
            let available = creds.permitted & creds.inheritable;
            if !available.contains(cap) || creds.securebits & securebits::NO_CAP_AMBIENT_RAISE != 0 {
                bail!(EPERM, "not permitted and inheritable");
            }
            replace(ctx, |creds| creds.ambient |= cap)
        }
        PR_CAP_AMBIENT_LOWER => replace(ctx, |creds| creds.ambient.remove(cap)),
        _ => Err(Errno::EINVAL.into()),
    }
}
