//! Descriptors of processes.

use super::open::install;
use super::signal::{kill_process, read_info};
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::signal::{self, SigInfo, code};
use crate::task::{Pid, pidfd};
use crate::vfs::OpenFlags;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(424, "pidfd_send_signal", Family::Signal, SEND, PROCESSES, sys_pidfd_send_signal),
    Entry::new(434, "pidfd_open", Family::Process, OPEN, PROCESSES, sys_pidfd_open),
    Entry::new(438, "pidfd_getfd", Family::Process, &[Arg::Fd, Arg::Int, Arg::Uint], Support::Full, sys_pidfd_getfd),
];

const SEND: &[Arg] = &[Arg::Fd, Arg::Signal, Arg::Kind("siginfo_in"), Arg::Uint];
const OPEN: &[Arg] = &[Arg::Int, Arg::Kind("pidfd_flags")];
const PROCESSES: Support = Support::Partial("processes only, no threads or groups");

fn sys_pidfd_open(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (pid, flags) = (args[0] as Pid, OpenFlags::from_bits_retain(args[1] as u32));
    if !(flags - OpenFlags::NONBLOCK).is_empty() {
        bail!(EINVAL, "unknown flag, or PIDFD_THREAD");
    }
    if pid <= 0 {
        bail!(EINVAL);
    }
    match ctx.kernel.tasks.process(pid) {
        Some(process) => install(ctx, pidfd::create(ctx, process, flags), true),
        None if ctx.kernel.tasks.task(pid).is_some() => bail!(ENOENT, "a thread, not a process"),
        None => bail!(ESRCH),
    }
}

fn sys_pidfd_send_signal(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const THREAD_GROUP: u64 = 2;
    let (sig, info, flags) = (args[1], args[2], args[3] & 0xffff_ffff);
    if flags & !THREAD_GROUP != 0 {
        bail!(EINVAL, "unknown flag, or one for threads or groups");
    }
    let file = ctx.file(args[0] as i32)?;
    // As ever, a directory of /proc will do.
    let process = match crate::fs::proc::process_of(&*file.inode) {
        Some(process) => process,
        None => pidfd::process_of(&file)?,
    };
    let info = match info {
        0 => None,
        addr => {
            let (signo, info) = read_info(ctx, addr, process.pid)?;
            if signo != sig as i32 {
                bail!(EINVAL, "si_signo is another signal");
            }
            Some(info)
        }
    };
    if pidfd::is_reaped(ctx.kernel, process) {
        bail!(ESRCH);
    }
    kill_process(ctx, process, sig, |signo| match info {
        Some(info) => SigInfo { signo, ..info },
        None => signal::sent_by(ctx, signo, code::SI_USER),
    })?;
    Ok(0)
}

fn sys_pidfd_getfd(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if args[2] & 0xffff_ffff != 0 {
        bail!(EINVAL);
    }
    let file = ctx.file(args[0] as i32)?;
    let process = pidfd::process_of(&file)?;
    let Some(task) = process.inner.lock().threads.first().cloned() else { bail!(ESRCH) };
    crate::ptrace::may_access(ctx, &task)?;
    install(ctx, task.files().get_or_path(args[1] as i32)?, true)
}
