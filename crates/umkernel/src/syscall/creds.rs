//! User and group ids, groups and capabilities.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::creds::{Creds, Ids, commit};
use crate::task::{Capabilities, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;

const ID: &[Arg] = &[Arg::Int];
const IDS2: &[Arg] = &[Arg::Int, Arg::Int];
const IDS3: &[Arg] = &[Arg::Int, Arg::Int, Arg::Int];
const ID_OUT: Arg = Arg::Kind("id_out");
const POINTERS3: &[Arg] = &[ID_OUT, ID_OUT, ID_OUT];
const GET_GROUPS: &[Arg] = &[Arg::Int, Arg::Kind("groups_out")];
const SET_GROUPS: &[Arg] = &[Arg::Int, Arg::Kind("groups_in")];
const CAPS: &[Arg] = &[Arg::Kind("cap_header"), Arg::Ptr];

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(102, "getuid", Family::Creds, &[], Support::Full, |ctx, _, _| Ok(ctx.creds().uid as usize)),
    Entry::new(104, "getgid", Family::Creds, &[], Support::Full, |ctx, _, _| Ok(ctx.creds().gid as usize)),
    Entry::new(105, "setuid", Family::Creds, ID, Support::Full, sys_setuid),
    Entry::new(106, "setgid", Family::Creds, ID, Support::Full, sys_setgid),
    Entry::new(107, "geteuid", Family::Creds, &[], Support::Full, |ctx, _, _| Ok(ctx.creds().euid as usize)),
    Entry::new(108, "getegid", Family::Creds, &[], Support::Full, |ctx, _, _| Ok(ctx.creds().egid as usize)),
    Entry::new(113, "setreuid", Family::Creds, IDS2, Support::Full, sys_setreuid),
    Entry::new(114, "setregid", Family::Creds, IDS2, Support::Full, sys_setregid),
    Entry::new(115, "getgroups", Family::Creds, GET_GROUPS, Support::Full, sys_getgroups),
    Entry::new(116, "setgroups", Family::Creds, SET_GROUPS, Support::Full, sys_setgroups),
    Entry::new(117, "setresuid", Family::Creds, IDS3, Support::Full, sys_setresuid),
    Entry::new(118, "getresuid", Family::Creds, POINTERS3, Support::Full, sys_getresuid),
    Entry::new(119, "setresgid", Family::Creds, IDS3, Support::Full, sys_setresgid),
    Entry::new(120, "getresgid", Family::Creds, POINTERS3, Support::Full, sys_getresgid),
    Entry::new(122, "setfsuid", Family::Creds, ID, Support::Full, sys_setfsuid),
    Entry::new(123, "setfsgid", Family::Creds, ID, Support::Full, sys_setfsgid),
    Entry::new(125, "capget", Family::Creds, CAPS, Support::Full, sys_capget),
    Entry::new(126, "capset", Family::Creds, CAPS, Support::Full, sys_capset),
];

/// Gives the running task the user ids that `change` makes of its own.
fn change_users(ctx: &Ctx, change: impl FnOnce(Ids, bool) -> Result<Ids>) -> Result<usize> {
    let old = ctx.creds();
    let ids = change(old.users(), old.capable(Capabilities::SETUID))?;
    commit(ctx, old.with_users(ids));
    Ok(0)
}

/// Gives the running task the group ids that `change` makes of its own.
fn change_groups(ctx: &Ctx, change: impl FnOnce(Ids, bool) -> Result<Ids>) -> Result<usize> {
    let old = ctx.creds();
    let ids = change(old.group_ids(), old.capable(Capabilities::SETGID))?;
    commit(ctx, old.with_groups(ids));
    Ok(0)
}

fn sys_setuid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    change_users(ctx, |ids, privileged| ids.set(args[0] as u32, privileged))
}

fn sys_setgid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    change_groups(ctx, |ids, privileged| ids.set(args[0] as u32, privileged))
}

fn sys_setreuid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    change_users(ctx, |ids, privileged| ids.set_re(args[0] as u32, args[1] as u32, privileged))
}

fn sys_setregid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    change_groups(ctx, |ids, privileged| ids.set_re(args[0] as u32, args[1] as u32, privileged))
}

fn sys_setresuid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    change_users(ctx, |ids, privileged| ids.set_res(args[0] as u32, args[1] as u32, args[2] as u32, privileged))
}

fn sys_setresgid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    change_groups(ctx, |ids, privileged| ids.set_res(args[0] as u32, args[1] as u32, args[2] as u32, privileged))
}

fn write_ids(ctx: &Ctx, args: &[u64; 6], ids: Ids) -> Result<usize> {
    ctx.write_val(args[0], &ids.real)?;
    ctx.write_val(args[1], &ids.effective)?;
    ctx.write_val(args[2], &ids.saved)?;
    Ok(0)
}

fn sys_getresuid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    write_ids(ctx, args, ctx.creds().users())
}

fn sys_getresgid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    write_ids(ctx, args, ctx.creds().group_ids())
}

fn sys_setfsuid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let old = ctx.creds();
    let ids = old.users().set_fs(args[0] as u32, old.capable(Capabilities::SETUID));
    if ids.fs != old.fsuid {
        commit(ctx, old.with_fs_user(ids.fs));
    }
    Ok(old.fsuid as usize)
}

fn sys_setfsgid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let old = ctx.creds();
    let ids = old.group_ids().set_fs(args[0] as u32, old.capable(Capabilities::SETGID));
    if ids.fs != old.fsgid {
        commit(ctx, old.with_groups(ids));
    }
    Ok(old.fsgid as usize)
}

fn sys_getgroups(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let groups = ctx.creds().groups.clone();
    let size = args[0] as i32;
    if size < 0 {
        return Err(Errno::EINVAL.into());
    }
    if size == 0 {
        return Ok(groups.len());
    }
    if groups.len() > size as usize {
        bail!(EINVAL, "more groups than fit");
    }
    let bytes: Vec<u8> = groups.iter().flat_map(|g| g.to_ne_bytes()).collect();
    ctx.write_user(args[1], &bytes)?;
    Ok(groups.len())
}

fn sys_setgroups(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    /// `NGROUPS_MAX` of `linux/limits.h`.
    const MAX_GROUPS: u32 = 65536;
    let old = ctx.creds();
    if !old.capable(Capabilities::SETGID) {
        return Err(Errno::EPERM.into());
    }
    if args[0] as u32 > MAX_GROUPS {
        return Err(Errno::EINVAL.into());
    }
    let mut groups: Vec<u32> = ctx.read_vec(args[1], args[0] as u32 as usize)?;
    if groups.contains(&u32::MAX) {
        bail!(EINVAL, "-1 is no group id");
    }
    groups.sort_unstable();
    commit(ctx, Creds { groups: Arc::new(groups), ..(*old).clone() });
    Ok(0)
}

/// Words per set in the version of the capability interface that the header at `addr` names; `EINVAL` if there is no
/// such version, after telling the preferred one.
fn capability_words(ctx: &Ctx, addr: u64) -> Result<usize> {
    const VERSION_1: u32 = 0x1998_0330;
    const VERSION_2: u32 = 0x2007_1026;
    const VERSION_3: u32 = 0x2008_0522;
    match ctx.read_val::<u32>(addr)? {
        VERSION_1 => Ok(1),
        VERSION_2 | VERSION_3 => Ok(2),
        _ => {
            ctx.write_val(addr, &VERSION_3)?;
            bail!(EINVAL, "no such version of the capability interface")
        }
    }
}

fn sys_capget(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let words = match capability_words(ctx, args[0]) {
        Err(e) if args[1] == 0 && e == Errno::EINVAL => return Ok(0),
        Ok(_) if args[1] == 0 => return Ok(0),
        other => other?,
    };
    let pid = ctx.read_val::<i32>(args[0].wrapping_add(4))?;
    if pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let task: Arc<Task> = if pid == 0 { ctx.task.clone() } else { ctx.kernel.tasks.task(pid).ok_or(Errno::ESRCH)? };
    let creds = task.creds();
    let sets = [creds.effective, creds.permitted, creds.inheritable];
    for word in 0..words {
        let values = sets.map(|set| (set.bits() >> (32 * word)) as u32);
        ctx.write_val(args[1].wrapping_add(12 * word as u64), &values)?;
    }
    Ok(0)
}

fn sys_capset(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let words = capability_words(ctx, args[0])?;
    let pid = ctx.read_val::<i32>(args[0].wrapping_add(4))?;
    if pid != 0 && pid != ctx.task.tid() {
        bail!(EPERM, "a thread may change its own capabilities only");
    }
    let mut sets = [0u64; 3];
    for word in 0..words {
        let values: [u32; 3] = ctx.read_val(args[1].wrapping_add(12 * word as u64))?;
        sets.iter_mut().zip(values).for_each(|(set, value)| *set |= u64::from(value) << (32 * word));
    }
    let [effective, permitted, inheritable] = sets.map(|bits| Capabilities::from_bits_retain(bits) & Capabilities::ALL);
    let old = ctx.creds();
    if !old.capable(Capabilities::SETPCAP) && !(old.inheritable | old.permitted).contains(inheritable) {
        bail!(EPERM, "inheritable beyond permitted");
    }
    if !(old.inheritable | old.bounding).contains(inheritable) {
        bail!(EPERM, "inheritable beyond the bounding set");
    }
    if !old.permitted.contains(permitted) {
        bail!(EPERM, "permitted capabilities cannot be added");
    }
    if !permitted.contains(effective) {
        bail!(EPERM, "effective beyond permitted");
    }
    let ambient = old.ambient & permitted & inheritable;
    commit(ctx, Creds { effective, permitted, inheritable, ambient, ..(*old).clone() });
    Ok(0)
}
