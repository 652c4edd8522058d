//! Process, group and session ids, priorities and resource limits.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::{Capabilities, Pid, Process, Rlimit, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::{RLIMIT_NICE, RLIMIT_NOFILE};

const PID: &[Arg] = &[Arg::Int];
const PRIORITY: &[Arg] = &[Arg::Kind("priority_which"), Arg::Int];
const SET_PRIORITY: &[Arg] = &[Arg::Kind("priority_which"), Arg::Int, Arg::Int];
const GET_RLIMIT: &[Arg] = &[Arg::Kind("rlimit_resource"), Arg::Kind("rlimit_out")];
const SET_RLIMIT: &[Arg] = &[Arg::Kind("rlimit_resource"), Arg::Kind("rlimit_in")];
const PRLIMIT: &[Arg] = &[Arg::Int, Arg::Kind("rlimit_resource"), Arg::Kind("rlimit_in"), Arg::Kind("rlimit_out")];
const NICE_NOTE: Support = Support::Partial("kept and shown; the host schedules");

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(39, "getpid", Family::Process, &[], Support::Full, |ctx, _, _| Ok(ctx.task.process.pid as usize)),
    Entry::new(97, "getrlimit", Family::System, GET_RLIMIT, Support::Full, sys_getrlimit),
    Entry::new(109, "setpgid", Family::Process, &[Arg::Int, Arg::Int], Support::Full, sys_setpgid),
    Entry::new(110, "getppid", Family::Process, &[], Support::Full, |ctx, _, _| Ok(ctx.task.process.ppid() as usize)),
    Entry::new(111, "getpgrp", Family::Process, &[], Support::Full, |ctx, _, _| {
        Ok(ctx.task.process.group_and_session().0 as usize)
    }),
    Entry::new(112, "setsid", Family::Process, &[], Support::Full, sys_setsid),
    Entry::new(121, "getpgid", Family::Process, PID, Support::Full, sys_getpgid),
    Entry::new(124, "getsid", Family::Process, PID, Support::Full, sys_getsid),
    Entry::new(140, "getpriority", Family::Process, PRIORITY, Support::Full, sys_getpriority),
    Entry::new(141, "setpriority", Family::Process, SET_PRIORITY, NICE_NOTE, sys_setpriority),
    Entry::new(160, "setrlimit", Family::System, SET_RLIMIT, Support::Full, sys_setrlimit),
    Entry::new(186, "gettid", Family::Process, &[], Support::Full, |ctx, _, _| Ok(ctx.task.tid() as usize)),
    Entry::new(302, "prlimit64", Family::System, PRLIMIT, Support::Full, sys_prlimit64),
];

/// The process that a call on a process or thread id means; 0 is the caller's.
fn process_of(ctx: &Ctx, pid: Pid) -> Result<Arc<Process>> {
    if pid == 0 {
        return Ok(ctx.task.process.clone());
    }
    let tasks = &ctx.kernel.tasks;
    let found = tasks.process(pid).or_else(|| tasks.task(pid).map(|t| t.process.clone()));
    found.ok_or(Errno::ESRCH.into())
}

fn sys_getpgid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    Ok(process_of(ctx, args[0] as Pid)?.group_and_session().0 as usize)
}

fn sys_getsid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    Ok(process_of(ctx, args[0] as Pid)?.group_and_session().1 as usize)
}

fn sys_setpgid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let me = &ctx.task.process;
    let pid = if args[0] as Pid == 0 { me.pid } else { args[0] as Pid };
    let pgid = if args[1] as Pid == 0 { pid } else { args[1] as Pid };
    if pgid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = process_of(ctx, pid)?;
    if target.pid != pid {
        bail!(EINVAL, "a thread other than the first");
    }
    let (_, session) = me.group_and_session();
    let is_me = Arc::ptr_eq(&target, me);
    let mine = target.parent().is_some_and(|p| Arc::ptr_eq(&p, me));
    {
        let inner = target.inner.lock();
        if mine && inner.sid != session {
            bail!(EPERM, "a child in another session");
        }
        if mine && inner.has_execed {
            bail!(EACCES, "the child has executed a program");
        }
        if !mine && !is_me {
            bail!(ESRCH, "neither the caller nor its child");
        }
        if inner.sid == target.pid {
            bail!(EPERM, "a session leader");
        }
    }
    let same_session = |p: &Arc<Process>| p.inner.lock().sid == session;
    if pgid != pid && !ctx.kernel.tasks.group(pgid).iter().any(same_session) {
        bail!(EPERM, "no such group in the session");
    }
    target.inner.lock().pgid = pgid;
    Ok(0)
}

fn sys_setsid(ctx: &Ctx, _args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let me = &ctx.task.process;
    if !ctx.kernel.tasks.group(me.pid).is_empty() || me.group_and_session().1 == me.pid {
        bail!(EPERM, "a process group leader");
    }
    let mut inner = me.inner.lock();
    inner.sid = me.pid;
    inner.pgid = me.pid;
    inner.tty = None;
    Ok(me.pid as usize)
}

/// The processes that a priority call means: a process (or thread), a group, or a user's.
fn priority_targets(ctx: &Ctx, which: u64, who: u64) -> Result<Vec<Arc<Process>>> {
    let who = who as i32;
    let targets = match which as i32 {
        0 => alloc::vec![process_of(ctx, who)?],
        1 => ctx.kernel.tasks.group(if who == 0 { ctx.task.process.group_and_session().0 } else { who }),
        2 => {
            let uid = if who == 0 { ctx.creds().uid } else { who as u32 };
            let of_user = |p: &Arc<Process>| first_thread(p).is_some_and(|t| t.creds().uid == uid);
            ctx.kernel.tasks.processes().into_iter().filter(of_user).collect()
        }
        _ => bail!(EINVAL, "which"),
    };
    if targets.is_empty() { Err(Errno::ESRCH.into()) } else { Ok(targets) }
}

fn first_thread(process: &Process) -> Option<Arc<Task>> {
    process.inner.lock().threads.first().cloned()
}

fn sys_getpriority(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let targets = priority_targets(ctx, args[0], args[1])?;
    let highest = targets.iter().map(|p| 20 - i32::from(p.inner.lock().nice)).max();
    highest.map(|p| p as usize).ok_or(Errno::ESRCH.into())
}

fn sys_setpriority(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let mut result = Ok(0);
    for target in priority_targets(ctx, args[0], args[1])? {
        if let Err(e) = set_nice(ctx, &target, args[2] as i32) {
            result = Err(e);
        }
    }
    result
}

/// Sets a process's nice value, cut to -20..=19.
///
/// # Errors
/// `EPERM` for another user's process; `EACCES` to lower it beyond `RLIMIT_NICE`.
pub(super) fn set_nice(ctx: &Ctx, target: &Process, nice: i32) -> Result<()> {
    let nice = nice.clamp(-20, 19) as i8;
    let creds = ctx.creds();
    let privileged = creds.capable(Capabilities::SYS_NICE);
    let theirs = first_thread(target).map(|t| t.creds());
    let same_user = theirs.is_none_or(|t| t.uid == creds.euid || t.euid == creds.euid);
    let allowed = 20 - i64::from(nice) <= target.limit(RLIMIT_NICE as usize).min(40) as i64;
    let mut inner = target.inner.lock();
    if !same_user && !privileged {
        bail!(EPERM, "another user's process");
    }
    if nice < inner.nice && !allowed && !privileged {
        bail!(EACCES, "RLIMIT_NICE");
    }
    inner.nice = nice;
    Ok(())
}

/// Reads and changes one limit of a process.
fn change_limit(ctx: &Ctx, target: &Arc<Process>, resource: u64, new: Option<Rlimit>) -> Result<Rlimit> {
    /// `fs.nr_open`: the highest limit on descriptors.
    const MAX_OPEN: u64 = 1 << 20;
    let index = resource as u32 as usize;
    let mut limits = target.rlimits.lock();
    let Some(limit) = limits.get_mut(index) else { bail!(EINVAL, "no such resource") };
    let old = *limit;
    if let Some(new) = new {
        if new.cur > new.max {
            bail!(EINVAL, "the soft limit is above the hard one");
        }
        if index == RLIMIT_NOFILE as usize && new.max > MAX_OPEN {
            bail!(EPERM, "above fs.nr_open");
        }
        if new.max > old.max && !ctx.creds().capable(Capabilities::SYS_RESOURCE) {
            bail!(EPERM, "above the hard limit");
        }
        *limit = new;
    }
    drop(limits);
    if new.is_some() {
        ctx.kernel.time.limits_changed(ctx.kernel, target);
    }
    Ok(old)
}

fn read_limit(ctx: &Ctx, addr: u64) -> Result<Rlimit> {
    let [cur, max] = ctx.read_val(addr)?;
    Ok(Rlimit { cur, max })
}

fn sys_getrlimit(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let limit = change_limit(ctx, &ctx.task.process, args[0], None)?;
    ctx.write_val(args[1], &[limit.cur, limit.max])?;
    Ok(0)
}

fn sys_setrlimit(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let new = read_limit(ctx, args[1])?;
    change_limit(ctx, &ctx.task.process, args[0], Some(new)).map(|_| 0)
}

fn sys_prlimit64(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let [pid, resource, new, old, ..] = *args;
    let new = if new == 0 { None } else { Some(read_limit(ctx, new)?) };
    let target = process_of(ctx, pid as Pid)?;
    if !Arc::ptr_eq(&target, &ctx.task.process) {
        let ours = ctx.creds();
        let same = first_thread(&target)
            .map(|t| t.creds())
            .is_some_and(|t| [t.uid, t.euid, t.suid] == [ours.uid; 3] && [t.gid, t.egid, t.sgid] == [ours.gid; 3]);
        if !same && !ours.capable(Capabilities::SYS_RESOURCE) {
            bail!(EPERM, "another user's process");
        }
    }
    let was = change_limit(ctx, &target, resource, new)?;
    if old != 0 {
        ctx.write_val(old, &[was.cur, was.max])?;
    }
    Ok(0)
}
