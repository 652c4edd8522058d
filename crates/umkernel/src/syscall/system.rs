//! The machine as a whole: its names, its state, its power switch.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::power::PowerAction;
use crate::task::{Capabilities, Task};
use crate::{host, stats, time, version};
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

const NAME: &[Arg] = &[Arg::Str, Arg::Uint];
const GETRANDOM: &[Arg] = &[Arg::BufOut, Arg::Uint, Arg::Kind("getrandom_flags")];
const SYSLOG: &[Arg] = &[Arg::Kind("syslog_action"), Arg::Ptr, Arg::Int];
const MAGIC: Arg = Arg::Kind("reboot_magic");
const REBOOT: &[Arg] = &[MAGIC, MAGIC, Arg::Kind("reboot_cmd"), Arg::Kind("reboot_arg")];
const KCMP: &[Arg] = &[Arg::Int, Arg::Int, Arg::Int, Arg::Uint, Arg::Uint];
const GETCPU: &[Arg] = &[Arg::Ptr, Arg::Ptr, Arg::Ptr];
const MEMBARRIER: &[Arg] = &[Arg::Int, Arg::Hex, Arg::Int];
const MEMBARRIER_NOTE: &str = "no instruction-stream or per-processor barriers";

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(63, "uname", Family::System, &[Arg::Kind("utsname")], Support::Full, sys_uname),
    Entry::new(99, "sysinfo", Family::System, &[Arg::Kind("sysinfo")], Support::Full, sys_sysinfo),
    Entry::new(103, "syslog", Family::System, SYSLOG, Support::Full, sys_syslog),
    Entry::new(169, "reboot", Family::System, REBOOT, Support::Partial("no kexec, no suspend"), sys_reboot),
    Entry::new(170, "sethostname", Family::System, NAME, Support::Full, sys_sethostname),
    Entry::new(171, "setdomainname", Family::System, NAME, Support::Full, sys_setdomainname),
    Entry::new(309, "getcpu", Family::System, GETCPU, Support::Full, sys_getcpu),
    Entry::new(312, "kcmp", Family::Process, KCMP, Support::Partial("no epoll targets"), sys_kcmp),
    Entry::new(318, "getrandom", Family::System, GETRANDOM, Support::Full, sys_getrandom),
    Entry::new(324, "membarrier", Family::System, MEMBARRIER, Support::Partial(MEMBARRIER_NOTE), sys_membarrier),
];

/// Length of a field of `struct utsname`, with its NUL.
const UTS_FIELD: usize = 65;

fn sys_uname(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let uts = ctx.uts().lock().clone();
    let fields =
        [version::SYSNAME, &uts.nodename, version::RELEASE, version::VERSION, version::MACHINE, &uts.domainname];
    let mut buf = [0u8; UTS_FIELD * 6];
    for (field, text) in buf.chunks_exact_mut(UTS_FIELD).zip(fields) {
        let len = text.len().min(UTS_FIELD - 1);
        field[..len].copy_from_slice(&text.as_bytes()[..len]);
    }
    ctx.write_user(args[0], &buf)?;
    Ok(0)
}

/// Reads a new host or domain name.
fn new_name(ctx: &Ctx, args: &[u64; 6]) -> Result<String> {
    if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let len = args[1] as i32;
    if len < 0 || len as usize >= UTS_FIELD {
        bail!(EINVAL, "longer than a name may be");
    }
    let mut name = alloc::vec![0; len as usize];
    ctx.read_user(args[0], &mut name)?;
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

fn sys_sethostname(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let name = new_name(ctx, args)?;
    ctx.uts().lock().nodename = name;
    Ok(0)
}

fn sys_setdomainname(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let name = new_name(ctx, args)?;
    ctx.uts().lock().domainname = name;
    Ok(0)
}

fn sys_sysinfo(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    /// Load averages are handed out with 16 bits of fraction, and kept with 11.
    const LOAD_SHIFT: u32 = 16 - stats::LOAD_FRACTION_BITS;
    let kernel = ctx.kernel;
    let memory = stats::memory(kernel);
    let load = kernel.load.averages();
    let uptime = kernel.uptime_ns().div_ceil(time::NSEC_PER_SEC);
    let words = [
        uptime,
        load[0] << LOAD_SHIFT,
        load[1] << LOAD_SHIFT,
        load[2] << LOAD_SHIFT,
        memory.total,
        memory.free - memory.mapped,
        memory.shared,
        0,
        0,
        0,
        kernel.tasks.counts().0 as u16 as u64,
        0,
        0,
        // mem_unit: bytes.
        1,
    ];
    ctx.write_val(args[0], &words)?;
    Ok(0)
}

fn sys_getrandom(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const KNOWN: u32 = 7;
    const RANDOM_AND_INSECURE: u32 = 6;
    let [addr, len, flags, ..] = *args;
    let flags = flags as u32;
    if flags & !KNOWN != 0 || flags & RANDOM_AND_INSECURE == RANDOM_AND_INSECURE {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(i32::MAX as u64) as usize;
    let mut chunk = [0u8; 1024];
    let mut done = 0;
    while done < len {
        let piece = &mut chunk[..(len - done).min(1024)];
        host::getrandom(piece);
        if let Err(e) = ctx.write_user(addr.wrapping_add(done as u64), piece) {
            return if done > 0 { Ok(done) } else { Err(e) };
        }
        done += piece.len();
        if done.is_multiple_of(4096) && ctx.task.signal_pending() {
            break;
        }
    }
    Ok(done)
}

fn sys_syslog(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const SIZE_BUFFER: i32 = 10;
    let (action, addr, len) = (args[0] as i32, args[1], args[2] as i32);
    let creds = ctx.creds();
    if !matches!(action, READ_ALL | SIZE_BUFFER) && !creds.capable(Capabilities::SYSLOG) {
        return Err(Errno::EPERM.into());
    }
    let log = &ctx.kernel.log;
    if matches!(action, READ | READ_ALL | READ_CLEAR) {
        if addr == 0 || len < 0 {
            return Err(Errno::EINVAL.into());
        }
        if len == 0 {
            return Ok(0);
        }
        let len = len as usize;
        let text = if action == READ {
            ctx.wait_for(&log.arrival, || Some(log.read(len)).filter(|t| !t.is_empty()))?
        } else {
            log.read_all(len, action == READ_CLEAR)
        };
        ctx.write_user(addr, &text)?;
        return Ok(text.len());
    }
    match action {
        // Open and close do nothing.
        0 | 1 => Ok(0),
        5 => {
            log.clear();
            Ok(0)
        }
        6 => {
            log.set_console(false);
            Ok(0)
        }
        7 => {
            log.set_console(true);
            Ok(0)
        }
        8 if (1..=8).contains(&len) => {
            log.set_console_level(len as u32);
            Ok(0)
        }
        9 => Ok(log.unread()),
        SIZE_BUFFER => Ok(crate::log::BUFFER_SIZE),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn sys_reboot(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    use linux_raw_sys::general::*;
    if !ctx.creds().capable(Capabilities::SYS_BOOT) {
        return Err(Errno::EPERM.into());
    }
    let second = [LINUX_REBOOT_MAGIC2, LINUX_REBOOT_MAGIC2A, LINUX_REBOOT_MAGIC2B, LINUX_REBOOT_MAGIC2C];
    if args[0] as u32 != LINUX_REBOOT_MAGIC1 || !second.contains(&(args[1] as u32)) {
        bail!(EINVAL, "not the magic numbers");
    }
    let action = match args[2] as u32 {
        LINUX_REBOOT_CMD_CAD_ON | LINUX_REBOOT_CMD_CAD_OFF => {
            let off = args[2] as u32 == LINUX_REBOOT_CMD_CAD_OFF;
            ctx.kernel.power.cad_tells_init.store(off, Ordering::Relaxed);
            return Ok(0);
        }
        LINUX_REBOOT_CMD_RESTART => PowerAction::Restart,
        LINUX_REBOOT_CMD_RESTART2 => {
            // The loader's argument; there is no loader to hand it to.
            ctx.read_cstr(args[3], 255)?;
            PowerAction::Restart
        }
        LINUX_REBOOT_CMD_HALT => PowerAction::Halt,
        LINUX_REBOOT_CMD_POWER_OFF => PowerAction::Off(0),
        _ => return Err(Errno::EINVAL.into()),
    };
    ctx.kernel.power(action);
    // The machine ends this task with all others; until then it must not run on.
    loop {
        let slept: Result<Option<()>> = ctx.wait_on(&[], None, || None);
        if slept.is_err() && ctx.task.dying.load(Ordering::SeqCst) {
            return Ok(0);
        }
        if slept.is_err() {
            return slept.map(|_| 0);
        }
    }
}

fn sys_getcpu(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[0] != 0 {
        ctx.write_val(args[0], &ctx.task.processor(ctx.kernel))?;
    }
    if args[1] != 0 {
        ctx.write_val(args[1], &0u32)?;
    }
    Ok(0)
}

fn sys_kcmp(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let task = |pid: u64| ctx.kernel.tasks.task(pid as i32).ok_or(Errno::ESRCH);
    let (a, b) = (task(args[0])?, task(args[1])?);
    crate::ptrace::may_access(ctx, &a)?;
    crate::ptrace::may_access(ctx, &b)?;
    fn address<T: ?Sized>(what: &Arc<T>) -> usize {
        Arc::as_ptr(what).cast::<()>() as usize
    }
    let place = |t: &Task, fd: u64| -> Result<usize> {
        Ok(match args[2] {
            0 => address(&t.files().get_or_path(fd as i32)?),
            1 => t.mm().map_or(0, |mm| address(&mm)),
            2 => address(&t.files()),
            3 => address(&t.fs()),
            4 => address(&*t.process.handlers.lock()),
            _ => bail!(EINVAL, "no such resource"),
        })
    };
    let (x, y) = (place(&a, args[3])?, place(&b, args[4])?);
    Ok(match x.cmp(&y) {
        core::cmp::Ordering::Equal => 0,
        core::cmp::Ordering::Less => 1,
        core::cmp::Ordering::Greater => 2,
    })
}

fn sys_membarrier(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const QUERY: u64 = 0;
    const GLOBAL: u64 = 1;
    const GLOBAL_EXPEDITED: u64 = 2;
    const REGISTER_GLOBAL_EXPEDITED: u64 = 4;
    const PRIVATE_EXPEDITED: u64 = 8;
    const REGISTER_PRIVATE_EXPEDITED: u64 = 16;
    if args[1] as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let registered = &ctx.task.process.settings.membarrier;
    match args[0] as u32 as u64 {
        QUERY => {
            Ok((GLOBAL | GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED | PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED)
                as usize)
        }
        // The host's barrier for all threads of the system is the strongest there is.
        GLOBAL | GLOBAL_EXPEDITED => host::membarrier().map(|()| 0),
        REGISTER_GLOBAL_EXPEDITED => Ok(0),
        REGISTER_PRIVATE_EXPEDITED => {
            registered.store(true, Ordering::Relaxed);
            Ok(0)
        }
        PRIVATE_EXPEDITED if !registered.load(Ordering::Relaxed) => bail!(EPERM, "not registered"),
        PRIVATE_EXPEDITED => host::membarrier().map(|()| 0),
        _ => Err(Errno::EINVAL.into()),
    }
}
