//! Terminals and job control (`credentials(7)`, POSIX.1 chapter 11): who may read and write, whose terminal it is.

use super::Tty;
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::signal::{self, SigAction, SigInfo, number};
use crate::task::{Capabilities, Pid, Process};
use crate::vfs::File;
use crate::{bail, task};
use alloc::sync::Arc;

fn is_controlling(process: &Process, tty: &Arc<Tty>) -> bool {
    process.inner.lock().tty.as_ref().is_some_and(|t| Arc::ptr_eq(t, tty))
}

/// Whether the caller, if `tty` is its controlling terminal, may do what a background group may not. If not, its group gets
/// `sig` (`SIGTTIN`, `SIGTTOU`) and the call is to be restarted.
///
/// # Errors
/// `ERESTARTSYS` as said; `EIO` when the group is orphaned, or ignores or blocks `SIGTTIN`. A group that ignores or blocks
/// `SIGTTOU` may go on.
pub(super) fn check(ctx: &Ctx, tty: &Arc<Tty>, sig: u8) -> Result<()> {
    let process = &ctx.task.process;
    let group = {
        let inner = process.inner.lock();
        if !inner.tty.as_ref().is_some_and(|t| Arc::ptr_eq(t, tty)) {
            return Ok(());
        }
        inner.pgid
    };
    let foreground = tty.state.lock().foreground;
    if foreground.is_none_or(|f| f == group) {
        return Ok(());
    }
    let ignored = process.handlers.lock().get(sig).handler == SigAction::IGNORE;
    if ignored || ctx.task.signals.blocked().contains(sig) {
        return if sig == number::SIGTTIN { Err(Errno::EIO.into()) } else { Ok(()) };
    }
    if signal::is_orphaned(ctx.kernel, group, None) {
        bail!(EIO, "the process group is orphaned");
    }
    // The caller is a member of the group, so it is not empty.
    let _ = signal::send_to_group(ctx.kernel, group, SigInfo::kernel(sig));
    Err(Errno::ERESTARTSYS.into())
}

/// Makes `tty` the controlling terminal of the caller's session. The caller leads it.
pub(super) fn control(process: &Process, tty: &Arc<Tty>) {
    let mut inner = process.inner.lock();
    inner.tty = Some(tty.clone());
    let mut state = tty.state.lock();
    state.session = Some(inner.sid);
    state.foreground = Some(inner.pgid);
}

/// A session leader without a controlling terminal opens one that controls no session yet: it is its own from now on.
pub(super) fn acquire_at_open(ctx: &Ctx, tty: &Arc<Tty>) {
    let process = &ctx.task.process;
    let wants = {
        let inner = process.inner.lock();
        inner.sid == process.pid && inner.tty.is_none()
    };
    if wants && tty.state.lock().session.is_none() {
        control(process, tty);
        ctx.kernel.ttys.orphaned_groups.lock().remove(&process.pid);
    }
}

/// `TIOCSCTTY`.
pub(super) fn acquire(ctx: &Ctx, tty: &Arc<Tty>, file: &File, steal: bool) -> Result<()> {
    let process = &ctx.task.process;
    let (leader, has_tty, sid) = {
        let inner = process.inner.lock();
        (inner.sid == process.pid, inner.tty.is_some(), inner.sid)
    };
    let session = tty.state.lock().session;
    if leader && session == Some(sid) {
        return Ok(());
    }
    if !leader || has_tty {
        bail!(EPERM);
    }
    let admin = ctx.creds().capable(Capabilities::SYS_ADMIN);
    if let Some(other) = session {
        if !(steal && admin) {
            bail!(EPERM, "the terminal controls another session");
        }
        forget_in_session(ctx.kernel, other);
    }
    if !file.flags().readable() && !admin {
        bail!(EPERM);
    }
    control(process, tty);
    ctx.kernel.ttys.orphaned_groups.lock().remove(&process.pid);
    Ok(())
}

/// Takes the controlling terminal from all processes of a session.
fn forget_in_session(kernel: &Kernel, sid: Pid) {
    for process in kernel.tasks.processes() {
        let mut inner = process.inner.lock();
        if inner.sid == sid {
            inner.tty = None;
        }
    }
}

/// The terminal controls no session any more; nobody is told.
pub(super) fn release_session(kernel: &Kernel, tty: &Tty) {
    let session = {
        let mut state = tty.state.lock();
        state.foreground = None;
        state.session.take()
    };
    if let Some(sid) = session {
        forget_in_session(kernel, sid);
    }
}

/// `TIOCNOTTY`.
pub(super) fn give_up(ctx: &Ctx, tty: &Arc<Tty>) -> Result<()> {
    let process = &ctx.task.process;
    if !is_controlling(process, tty) {
        bail!(ENOTTY);
    }
    if process.group_and_session().1 == process.pid {
        let foreground = tty.state.lock().foreground;
        send(ctx.kernel, foreground, &[number::SIGHUP, number::SIGCONT]);
        release_session(ctx.kernel, tty);
    }
    process.inner.lock().tty = None;
    Ok(())
}

fn send(kernel: &Kernel, group: Option<Pid>, signals: &[u8]) {
    let Some(group) = group else { return };
    for &signo in signals {
        // A group without members hears nothing.
        let _ = signal::send_to_group(kernel, group, SigInfo::kernel(signo));
    }
}

/// A session leader ends: its session loses the controlling terminal. A console is hung up; of a pseudoterminal the
/// foreground group is told (`SIGHUP`). If the terminal was hung up before, the group in its foreground then is told.
pub fn disassociate(kernel: &Kernel, leader: &Arc<Process>) {
    let tty = leader.tty();
    let orphaned = kernel.ttys.orphaned_groups.lock().remove(&leader.pid);
    match tty {
        Some(tty) if tty.state.lock().pty.is_none() => hang_up(kernel, &tty, true),
        Some(tty) => {
            let foreground = tty.state.lock().foreground;
            send(kernel, foreground, &[number::SIGHUP]);
            release_session(kernel, &tty);
        }
        None => send(kernel, orphaned, &[number::SIGHUP, number::SIGCONT]),
    }
    kernel.ttys.orphaned_groups.lock().remove(&leader.pid);
    forget_in_session(kernel, leader.pid);
}

/// `vhangup(2)` and the loss of a pseudoterminal's master: all that have the terminal open have it no more, and the leader
/// of its session is told (`SIGHUP`, `SIGCONT`); with `whole_group` the foreground group as well.
pub(super) fn hang_up(kernel: &Kernel, tty: &Arc<Tty>, whole_group: bool) {
    let (session, foreground) = {
        let mut state = tty.state.lock();
        state.generation += 1;
        state.flush_input();
        state.out.flush();
        state.out.stopped = false;
        if state.pty.is_some() {
            state.ldisc = Default::default();
        }
        (state.session.take(), state.foreground.take())
    };
    tty.wake_everyone();
    let Some(sid) = session else { return };
    for process in kernel.tasks.processes() {
        {
            let mut inner = process.inner.lock();
            if inner.sid != sid {
                continue;
            }
            inner.tty.take_if(|t| Arc::ptr_eq(t, tty));
        }
        if process.pid == sid {
            for signo in [number::SIGHUP, number::SIGCONT] {
                // Refused only by a process that has ended.
                let _ = signal::send_to_process(kernel, &process, SigInfo::kernel(signo));
            }
            if let Some(group) = foreground {
                kernel.ttys.orphaned_groups.lock().insert(sid, group);
            }
        }
    }
    if whole_group {
        send(kernel, foreground, &[number::SIGHUP]);
    }
}

impl Tty {
    /// `vhangup(2)`.
    pub fn hang_up(self: &Arc<Tty>, kernel: &Kernel) {
        hang_up(kernel, self, false);
    }
}

/// `TIOCGPGRP`; `own` is false on a pseudoterminal's master, which need not be the caller's terminal.
pub(super) fn foreground_group(ctx: &Ctx, tty: &Arc<Tty>, own: bool) -> Result<Pid> {
    if own && !is_controlling(&ctx.task.process, tty) {
        bail!(ENOTTY);
    }
    Ok(tty.state.lock().foreground.unwrap_or(0))
}

/// `TIOCGSID`.
pub(super) fn session(ctx: &Ctx, tty: &Arc<Tty>, own: bool) -> Result<Pid> {
    if own && !is_controlling(&ctx.task.process, tty) {
        bail!(ENOTTY);
    }
    tty.state.lock().session.ok_or(Errno::ENOTTY.into())
}

/// `TIOCSPGRP`: the group at address `arg` becomes the foreground group.
pub(super) fn set_foreground_group(ctx: &Ctx, tty: &Arc<Tty>, arg: u64) -> Result<()> {
    match check(ctx, tty, number::SIGTTOU) {
        Err(e) if e == Errno::EIO => bail!(ENOTTY),
        other => other?,
    }
    let group: task::Pid = ctx.read_val(arg)?;
    if group < 0 {
        bail!(EINVAL);
    }
    let process = &ctx.task.process;
    let sid = process.group_and_session().1;
    if !is_controlling(process, tty) || tty.state.lock().session != Some(sid) {
        bail!(ENOTTY);
    }
    let members = ctx.kernel.tasks.group(group);
    let Some(member) = members.first() else { bail!(ESRCH) };
    if member.group_and_session().1 != sid {
        bail!(EPERM);
    }
    tty.state.lock().foreground = Some(group);
    Ok(())
}
