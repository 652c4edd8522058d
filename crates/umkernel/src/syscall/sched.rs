//! Scheduling (`sched(7)`) and I/O priorities. The host schedules: what is set is checked, kept and shown.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::{Capabilities, Pid, SchedInner, Task, all_cpus};
use crate::time::timespec;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::RLIMIT_RTPRIO;

const PID_PTR: &[Arg] = &[Arg::Int, Arg::Ptr];
const SET: &[Arg] = &[Arg::Int, Arg::Kind("sched_policy"), Arg::Ptr];
const AFFINITY: &[Arg] = &[Arg::Int, Arg::Uint, Arg::Ptr];
const POLICY: &[Arg] = &[Arg::Kind("sched_policy")];
const SETATTR: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint];
const GETATTR: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Uint];
const IOPRIO_SET: &[Arg] = &[Arg::Int, Arg::Int, Arg::Int];
const IOPRIO_GET: &[Arg] = &[Arg::Int, Arg::Int];
const KEPT: Support = Support::Partial("kept and shown; the host schedules");

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(24, "sched_yield", Family::Process, &[], Support::Full, sys_sched_yield),
    Entry::new(142, "sched_setparam", Family::Process, PID_PTR, KEPT, sys_sched_setparam),
    Entry::new(143, "sched_getparam", Family::Process, PID_PTR, Support::Full, sys_sched_getparam),
    Entry::new(144, "sched_setscheduler", Family::Process, SET, KEPT, sys_sched_setscheduler),
    Entry::new(145, "sched_getscheduler", Family::Process, &[Arg::Int], Support::Full, sys_sched_getscheduler),
    Entry::new(146, "sched_get_priority_max", Family::Process, POLICY, Support::Full, |_, args, _| {
        priority_range(args[0]).map(|range| range.1)
    }),
    Entry::new(147, "sched_get_priority_min", Family::Process, POLICY, Support::Full, |_, args, _| {
        priority_range(args[0]).map(|range| range.0)
    }),
    Entry::new(148, "sched_rr_get_interval", Family::Process, PID_PTR, Support::Full, sys_sched_rr_get_interval),
    Entry::new(203, "sched_setaffinity", Family::Process, AFFINITY, KEPT, sys_sched_setaffinity),
    Entry::new(204, "sched_getaffinity", Family::Process, AFFINITY, Support::Full, sys_sched_getaffinity),
    Entry::new(251, "ioprio_set", Family::Process, IOPRIO_SET, KEPT, sys_ioprio_set),
    Entry::new(252, "ioprio_get", Family::Process, IOPRIO_GET, Support::Full, sys_ioprio_get),
    Entry::new(
        314,
        "sched_setattr",
        Family::Process,
        SETATTR,
        Support::Partial("no deadline policy"),
        sys_sched_setattr,
    ),
    Entry::new(315, "sched_getattr", Family::Process, GETATTR, Support::Full, sys_sched_getattr),
];

const NORMAL: u32 = 0;
const FIFO: u32 = 1;
const RR: u32 = 2;
const BATCH: u32 = 3;
const IDLE: u32 = 5;
/// Added to a policy: children start with the normal one.
const RESET_ON_FORK: u32 = 0x4000_0000;

/// The thread that a call means; 0 is the caller.
fn task_of(ctx: &Ctx, pid: u64) -> Result<Arc<Task>> {
    match pid as Pid {
        pid if pid < 0 => Err(Errno::EINVAL.into()),
        0 => Ok(ctx.task.clone()),
        pid => ctx.kernel.tasks.task(pid).ok_or(Errno::ESRCH.into()),
    }
}

/// `EPERM` unless the caller may change how another task is scheduled.
fn check_owner(ctx: &Ctx, task: &Task) -> Result<()> {
    let (ours, theirs) = (ctx.creds(), task.creds());
    let same = ours.euid == theirs.euid || ours.euid == theirs.uid;
    if same || ours.capable(Capabilities::SYS_NICE) { Ok(()) } else { Err(Errno::EPERM.into()) }
}

fn sys_sched_yield(_ctx: &Ctx, _args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    host::sched_yield();
    Ok(0)
}

fn priority_range(policy: u64) -> Result<(usize, usize)> {
    match policy as u32 {
        FIFO | RR => Ok((1, 99)),
        // SCHED_DEADLINE has priorities of its own making.
        NORMAL | BATCH | IDLE | 6 => Ok((0, 0)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Gives a task a policy and priority, if the caller may.
fn set_policy(ctx: &Ctx, task: &Task, policy: u32, priority: u32) -> Result<()> {
    let (policy, reset_on_fork) = (policy & !RESET_ON_FORK, policy & RESET_ON_FORK != 0);
    let realtime = matches!(policy, FIFO | RR);
    if !realtime && !matches!(policy, NORMAL | BATCH | IDLE) {
        bail!(EINVAL, "no such policy, or one that is not built");
    }
    if priority > 99 || realtime != (priority > 0) {
        bail!(EINVAL, "not a priority of this policy");
    }
    let limit = task.process.limit(RLIMIT_RTPRIO as usize);
    check_owner(ctx, task)?;
    let privileged = ctx.creds().capable(Capabilities::SYS_NICE);
    let mut inner = task.sched.inner.lock();
    if !privileged {
        if realtime
            && (limit == 0 && policy != inner.policy || priority > inner.priority && u64::from(priority) > limit)
        {
            bail!(EPERM, "RLIMIT_RTPRIO");
        }
        if inner.reset_on_fork && !reset_on_fork {
            bail!(EPERM, "the reset on fork cannot be taken back");
        }
    }
    *inner = SchedInner { policy, priority, reset_on_fork, ..inner.clone() };
    Ok(())
}

fn sys_sched_setscheduler(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if (args[1] as i32) < 0 || (args[0] as Pid) < 0 || args[2] == 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority: i32 = ctx.read_val(args[2])?;
    let task = task_of(ctx, args[0])?;
    set_policy(ctx, &task, args[1] as u32, priority as u32)?;
    Ok(0)
}

fn sys_sched_setparam(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if (args[0] as Pid) < 0 || args[1] == 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority: i32 = ctx.read_val(args[1])?;
    let task = task_of(ctx, args[0])?;
    let inner = task.sched.inner.lock().clone();
    let policy = inner.policy | if inner.reset_on_fork { RESET_ON_FORK } else { 0 };
    set_policy(ctx, &task, policy, priority as u32)?;
    Ok(0)
}

fn sys_sched_getscheduler(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let task = task_of(ctx, args[0])?;
    let inner = task.sched.inner.lock();
    Ok((inner.policy | if inner.reset_on_fork { RESET_ON_FORK } else { 0 }) as usize)
}

fn sys_sched_getparam(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[1] == 0 {
        return Err(Errno::EINVAL.into());
    }
    let task = task_of(ctx, args[0])?;
    let priority = task.sched.inner.lock().priority;
    ctx.write_val(args[1], &priority)?;
    Ok(0)
}

fn sys_sched_rr_get_interval(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const ROUND: u64 = 100_000_000;
    // What the host's fair scheduler gives a task on an idle machine.
    const SLICE: u64 = 3_000_000;
    let task = task_of(ctx, args[0])?;
    let policy = task.sched.inner.lock().policy;
    let interval = match policy {
        RR => ROUND,
        FIFO => 0,
        _ => SLICE,
    };
    ctx.write_val(args[1], &timespec(interval))?;
    Ok(0)
}

fn cpus(ctx: &Ctx) -> usize {
    ctx.kernel.config.cpus.max(1) as usize
}

fn sys_sched_setaffinity(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let all = all_cpus(cpus(ctx));
    let len = (args[1] as usize).min(all.len() * 8);
    let mut bytes = alloc::vec![0u8; all.len() * 8];
    ctx.read_user(args[2], &mut bytes[..len])?;
    let task = task_of(ctx, args[0])?;
    check_owner(ctx, &task)?;
    let mut mask: Vec<u64> = Vec::with_capacity(all.len());
    for (word, present) in bytes.chunks_exact(8).zip(&all) {
        mask.push(word.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b)) & present);
    }
    if mask.iter().all(|&w| w == 0) {
        bail!(EINVAL, "none of the processors that there are");
    }
    task.sched.inner.lock().affinity = Some(mask);
    Ok(0)
}

fn sys_sched_getaffinity(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let len = args[1] as u32 as usize;
    if len * 8 < cpus(ctx) || !len.is_multiple_of(8) {
        bail!(EINVAL, "not room for all processors in whole words");
    }
    let mask = task_of(ctx, args[0])?.sched.allowed_cpus(cpus(ctx));
    let bytes: Vec<u8> = mask.iter().flat_map(|w| w.to_le_bytes()).take(len).collect();
    ctx.write_user(args[2], &bytes)?;
    Ok(bytes.len())
}

/// Length of the first version of `struct sched_attr`.
const SCHED_ATTR_SIZE: u32 = 48;

fn sys_sched_setattr(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const FLAG_RESET_ON_FORK: u64 = 1;
    if args[1] == 0 || (args[0] as Pid) < 0 || args[2] as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let size: u32 = ctx.read_val(args[1])?;
    if size != 0 && size < SCHED_ATTR_SIZE || size > 4096 {
        ctx.write_val(args[1], &SCHED_ATTR_SIZE)?;
        bail!(E2BIG, "not a length of struct sched_attr");
    }
    // size, policy; flags; nice, priority; three times of the deadline policy.
    let [head, flags, nice_priority, ..]: [u64; 6] = ctx.read_val(args[1])?;
    if flags & !FLAG_RESET_ON_FORK != 0 {
        bail!(EINVAL, "flags that are not built");
    }
    let task = task_of(ctx, args[0])?;
    let (policy, nice, priority) = ((head >> 32) as u32, nice_priority as i32, (nice_priority >> 32) as u32);
    let reset = if flags != 0 { RESET_ON_FORK } else { 0 };
    set_policy(ctx, &task, policy | reset, priority)?;
    if matches!(policy, NORMAL | BATCH) {
        super::ids::set_nice(ctx, &task.process, nice)?;
    }
    Ok(0)
}

fn sys_sched_getattr(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let size = args[2] as u32;
    if args[1] == 0 || args[3] as u32 != 0 || !(SCHED_ATTR_SIZE..=4096).contains(&size) {
        return Err(Errno::EINVAL.into());
    }
    let task = task_of(ctx, args[0])?;
    let inner = task.sched.inner.lock().clone();
    let nice = task.process.inner.lock().nice;
    let head = u64::from(SCHED_ATTR_SIZE) | u64::from(inner.policy) << 32;
    let priorities = u64::from(i32::from(nice) as u32) | u64::from(inner.priority) << 32;
    ctx.write_val(args[1], &[head, u64::from(inner.reset_on_fork), priorities, 0, 0, 0])?;
    Ok(0)
}

/// The threads that an I/O priority call means.
fn io_targets(ctx: &Ctx, which: u64, who: u64) -> Result<Vec<Arc<Task>>> {
    let who = who as Pid;
    let threads = |pgid: Pid| -> Vec<Arc<Task>> {
        ctx.kernel.tasks.group(pgid).iter().flat_map(|p| p.inner.lock().threads.clone()).collect()
    };
    let found = match which as u32 {
        1 => alloc::vec![task_of(ctx, who as u64)?],
        2 => threads(if who == 0 { ctx.task.process.group_and_session().0 } else { who }),
        3 => {
            let uid = if who == 0 { ctx.creds().uid } else { who as u32 };
            let all = ctx.kernel.tasks.processes().into_iter().flat_map(|p| p.inner.lock().threads.clone());
            all.filter(|t| t.creds().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if found.is_empty() { Err(Errno::ESRCH.into()) } else { Ok(found) }
}

fn sys_ioprio_set(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let priority = args[2] as u32;
    let (class, level) = (priority >> 13, priority & 7);
    match class {
        // Real-time.
        1 if !ctx.creds().capable(Capabilities::SYS_ADMIN | Capabilities::SYS_NICE) => {
            return Err(Errno::EPERM.into());
        }
        0 if level != 0 => return Err(Errno::EINVAL.into()),
        0..=3 => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    for task in io_targets(ctx, args[0], args[1])? {
        check_owner(ctx, &task)?;
        task.sched.inner.lock().io_priority = priority;
    }
    Ok(0)
}

fn sys_ioprio_get(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let mut best: Option<u32> = None;
    for task in io_targets(ctx, args[0], args[1])? {
        let own = task.sched.inner.lock().io_priority;
        // Not set: best effort, by the nice value.
        let nice = task.process.inner.lock().nice;
        let shown = if own == 0 { 2 << 13 | ((i32::from(nice) + 20) / 5) as u32 } else { own };
        best = Some(best.map_or(shown, |b| b.min(shown)));
    }
    best.map(|b| b as usize).ok_or(Errno::ESRCH.into())
}
