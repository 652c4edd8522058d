//! Processes and threads: fork, exec, exit, wait.

use super::{Arg, Entry, Family, Support, read_extensible};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::loader::Strings;
use crate::platform::TrapFrame;
use crate::task::{self, CloneArgs, CloneFlags, Found, WaitOptions, WaitStatus, Which, pidfd};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(56, "clone", Family::Process, CLONE, PROCESSES, sys_clone),
    Entry::new(57, "fork", Family::Process, &[], Support::Full, sys_fork),
    Entry::new(58, "vfork", Family::Process, &[], Support::Full, sys_vfork),
    Entry::new(59, "execve", Family::Process, &[Arg::Path, Arg::StrList, Arg::StrList], Support::Full, sys_execve),
    Entry::new(60, "exit", Family::Process, &[Arg::Int], Support::Full, sys_exit),
    Entry::new(61, "wait4", Family::Process, WAIT4, Support::Full, sys_wait4),
    Entry::new(158, "arch_prctl", Family::Process, &[Arg::Kind("arch_prctl"), Arg::Hex], Support::Full, sys_arch_prctl),
    Entry::new(218, "set_tid_address", Family::Process, &[Arg::Ptr], Support::Full, sys_set_tid_address),
    Entry::new(231, "exit_group", Family::Process, &[Arg::Int], Support::Full, sys_exit_group),
    Entry::new(247, "waitid", Family::Process, WAITID, Support::Full, sys_waitid),
    Entry::new(322, "execveat", Family::Process, EXECVEAT, Support::Full, sys_execveat),
    Entry::new(435, "clone3", Family::Process, CLONE3, PROCESSES, sys_clone3),
];

const PROCESSES: Support =
    Support::Partial("namespaces of mounts, names and System V objects only; no pidfd of a thread");
const CLONE: &[Arg] = &[Arg::Kind("clone_flags"), Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Hex];
const CLONE3: &[Arg] = &[Arg::Kind("clone_args"), Arg::Uint];
const WAIT4: &[Arg] = &[Arg::Int, Arg::Kind("wait_status"), Arg::Kind("wait_options"), Arg::Kind("rusage")];
const WAITID: &[Arg] = &[Arg::Kind("idtype"), Arg::Int, Arg::Kind("siginfo"), Arg::Kind("wait_options"), Arg::Ptr];
const EXECVEAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::StrList, Arg::StrList, Arg::Kind("at_flags")];

fn sys_clone(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    const CSIGNAL: u64 = 0xff;
    let clone = CloneArgs {
        flags: CloneFlags::from_bits_retain(args[0] & !CSIGNAL & 0xffff_ffff),
        exit_signal: (args[0] & CSIGNAL) as u8,
        stack: args[1],
        parent_tid: args[2],
        child_tid: args[3],
        tls: args[4],
        pidfd: args[2],
    };
    task::clone(ctx, &clone, frame).map(|pid| pid as usize)
}

fn sys_clone3(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    /// The first version of `struct clone_args`.
    const VERSION_0: u64 = 64;
    let words: [u64; 11] = read_extensible(ctx, args[0], args[1], VERSION_0)?;
    let flags = CloneFlags::from_bits_retain(words[0]);
    let (exit_signal, stack, stack_size) = (words[4], words[5], words[6]);
    if words[0] & 0xff != 0 && words[0] & 0xff != CloneFlags::NEWTIME.bits() || flags.contains(CloneFlags::DETACHED) {
        bail!(EINVAL, "flags of the old clone");
    }
    if exit_signal > 64 || (flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && exit_signal != 0) {
        bail!(EINVAL, "exit signal");
    }
    if (stack == 0) != (stack_size == 0) {
        bail!(EINVAL, "a stack without a size or the reverse");
    }
    if words[8] != 0 || words[9] != 0 || words[10] != 0 {
        bail!(EINVAL, "set_tid and cgroup are not built");
    }
    let clone = CloneArgs {
        flags,
        exit_signal: exit_signal as u8,
        stack: stack.wrapping_add(stack_size),
        parent_tid: words[3],
        child_tid: words[2],
        tls: words[7],
        pidfd: words[1],
    };
    task::clone(ctx, &clone, frame).map(|pid| pid as usize)
}

fn sys_fork(ctx: &Ctx, _args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    task::clone(ctx, &CloneArgs::fork(), frame).map(|pid| pid as usize)
}

fn sys_vfork(ctx: &Ctx, _args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    task::clone(ctx, &CloneArgs::vfork(), frame).map(|pid| pid as usize)
}

/// A NULL-terminated array of strings; a null pointer is an empty one, as on Linux.
fn read_strings(ctx: &Ctx, addr: u64) -> Result<Vec<Vec<u8>>> {
    use crate::loader::MAX_ARG_STRLEN;
    /// Far above what the stack limit lets through.
    const MAX_STRINGS: u64 = 0x20_0000;
    let mut strings = Vec::new();
    if addr == 0 {
        return Ok(strings);
    }
    let mut total = 0;
    for i in 0..MAX_STRINGS {
        let pointer: u64 = ctx.read_val(addr.checked_add(i * 8).ok_or(Errno::EFAULT)?)?;
        if pointer == 0 {
            return Ok(strings);
        }
        let too_big = |e: crate::Error| if e == Errno::ENAMETOOLONG { Errno::E2BIG.into() } else { e };
        let string = ctx.read_cstr(pointer, MAX_ARG_STRLEN - 1).map_err(too_big)?;
        total += string.len();
        if total > 6 << 20 {
            break;
        }
        strings.push(string);
    }
    bail!(E2BIG)
}

fn sys_execve(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[0])?;
    let strings = Strings { args: read_strings(ctx, args[1])?, env: read_strings(ctx, args[2])? };
    let file = ctx.kernel.vfs.open_exec(ctx, &path)?;
    task::exec(ctx, file, &path, strings, frame)?;
    Ok(0)
}

fn sys_execveat(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[1])?;
    let strings = Strings { args: read_strings(ctx, args[2])?, env: read_strings(ctx, args[3])? };
    let dirfd = args[0] as i32;
    let file = ctx.kernel.vfs.open_exec_at(ctx, dirfd, &path, args[4] as u32)?;
    // What scripts are told to open, as Linux names it.
    let name = match path.first() {
        Some(b'/') => path,
        None => alloc::format!("/dev/fd/{dirfd}").into_bytes(),
        Some(_) if dirfd == AT_FDCWD => path,
        Some(_) => [alloc::format!("/dev/fd/{dirfd}/").as_bytes(), &path].concat(),
    };
    task::exec(ctx, file, &name, strings, frame)?;
    Ok(0)
}

const AT_FDCWD: i32 = -100;

fn sys_exit(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    task::exit_thread(ctx, WaitStatus::Exited(args[0] as u8));
    Ok(0)
}

fn sys_exit_group(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    task::exit_group(ctx, WaitStatus::Exited(args[0] as u8));
    Ok(0)
}

fn sys_set_tid_address(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    ctx.task.clear_child_tid.store(args[0], Ordering::Relaxed);
    Ok(ctx.task.tid() as usize)
}

fn sys_arch_prctl(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    const ARCH_SET_GS: u64 = 0x1001;
    const ARCH_SET_FS: u64 = 0x1002;
    const ARCH_GET_FS: u64 = 0x1003;
    const ARCH_GET_GS: u64 = 0x1004;
    let canonical = args[1] < crate::mm::TASK_SIZE;
    match args[0] {
        ARCH_SET_FS if canonical => frame.fs_base = args[1],
        ARCH_SET_GS if canonical => frame.gs_base = args[1],
        ARCH_SET_FS | ARCH_SET_GS => bail!(EPERM, "not a user address"),
        ARCH_GET_FS => ctx.write_val(args[1], &frame.fs_base)?,
        ARCH_GET_GS => ctx.write_val(args[1], &frame.gs_base)?,
        _ => bail!(EINVAL),
    }
    Ok(0)
}

/// `struct rusage` as far as it is known: the times, the highest resident size.
fn rusage_words(found: &Found) -> [u64; 18] {
    let split = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000 / 1000];
    let mut words = [0; 18];
    words[..2].copy_from_slice(&split(found.used.utime));
    words[2..4].copy_from_slice(&split(found.used.stime));
    words[4] = found.used.max_rss;
    words
}

fn sys_wait4(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let allowed = WaitOptions::NOHANG
        | WaitOptions::STOPPED
        | WaitOptions::CONTINUED
        | WaitOptions::NOTHREAD
        | WaitOptions::CLONE
        | WaitOptions::ALL;
    let options = WaitOptions::from_bits_retain(args[2] as u32);
    if !allowed.contains(options) {
        bail!(EINVAL, "unknown options");
    }
    let which = match args[0] as i32 {
        -1 => Which::Any,
        0 => Which::Group(ctx.task.process.group_and_session().0),
        i32::MIN => bail!(ESRCH),
        pid if pid < 0 => Which::Group(-pid),
        pid => Which::Pid(pid),
    };
    let Some(found) = task::wait(ctx, which, options | WaitOptions::EXITED)? else { return Ok(0) };
    if args[1] != 0 {
        ctx.write_val(args[1], &found.status.to_word())?;
    }
    if args[3] != 0 {
        ctx.write_val(args[3], &rusage_words(&found))?;
    }
    Ok(found.pid as usize)
}

fn sys_waitid(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const P_ALL: u64 = 0;
    const P_PID: u64 = 1;
    const P_PGID: u64 = 2;
    const P_PIDFD: u64 = 3;
    let events = WaitOptions::EXITED | WaitOptions::STOPPED | WaitOptions::CONTINUED;
    let allowed = events
        | WaitOptions::NOHANG
        | WaitOptions::NOWAIT
        | WaitOptions::NOTHREAD
        | WaitOptions::CLONE
        | WaitOptions::ALL;
    let mut options = WaitOptions::from_bits_retain(args[3] as u32);
    if !allowed.contains(options) || !options.intersects(events) {
        bail!(EINVAL, "unknown options, or none of WEXITED, WSTOPPED, WCONTINUED");
    }
    let id = args[1] as i32;
    let mut may_sleep = true;
    let which = match args[0] {
        P_ALL => Which::Any,
        P_PIDFD if id >= 0 => {
            let file = ctx.file(id)?;
            may_sleep = !file.nonblocking();
            let process = pidfd::process_of(&file)?;
            if pidfd::is_reaped(ctx.kernel, process) {
                bail!(ECHILD);
            }
            Which::Pid(process.pid)
        }
        P_PID if id > 0 => Which::Pid(id),
        P_PGID if id > 0 => Which::Group(id),
        P_PGID if id == 0 => Which::Group(ctx.task.process.group_and_session().0),
        _ => bail!(EINVAL, "id"),
    };
    let asked = options;
    options.set(WaitOptions::NOHANG, !may_sleep || asked.contains(WaitOptions::NOHANG));
    let found = task::wait(ctx, which, options)?;
    if found.is_none() && !asked.contains(WaitOptions::NOHANG) {
        bail!(EAGAIN, "the descriptor is O_NONBLOCK");
    }
    if args[2] != 0 {
        let mut info = [0u32; 32];
        if let Some(found) = &found {
            // signo, errno, code, pad, pid, uid, status.
            let (code, value) = match found.status {
                WaitStatus::Exited(code) => (1, u32::from(code)),
                WaitStatus::Signaled(sig, core) => (if core { 3 } else { 2 }, u32::from(sig)),
                WaitStatus::Stopped(sig) => (5, u32::from(sig)),
                WaitStatus::Trapped(code) => (4, code),
                WaitStatus::Continued => (6, 18),
            };
            info[..7].copy_from_slice(&[17, 0, code, 0, found.pid as u32, found.uid, value]);
        }
        // Linux stores these words only, not the whole structure.
        ctx.write_user(args[2], crate::mm::bytes_of(&[info[0], info[1], info[2]]))?;
        ctx.write_user(args[2] + 16, crate::mm::bytes_of(&[info[4], info[5], info[6]]))?;
    }
    if let Some(found) = &found
        && args[4] != 0
    {
        ctx.write_val(args[4], &rusage_words(found))?;
    }
    Ok(0)
}
