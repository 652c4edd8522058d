//! `ioctl_tty(2)`: the requests that terminals know.

use super::ldisc::Effects;
use super::terminal::{State, packet};
use super::termios::*;
use super::{Tty, TtyFile, job};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::signal::number;
use crate::task::Capabilities;
use crate::vfs::File;
use alloc::sync::Arc;
use linux_raw_sys::ioctl::*;

/// Requests of `TCFLSH` and `TCXONC`.
mod queue {
    pub(super) const TCIFLUSH: u64 = 0;
    pub(super) const TCOFLUSH: u64 = 1;
    pub(super) const TCIOFLUSH: u64 = 2;
    pub(super) const TCOOFF: u64 = 0;
    pub(super) const TCOON: u64 = 1;
    pub(super) const TCIOFF: u64 = 2;
    pub(super) const TCION: u64 = 3;
}

/// Which side a request comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The terminal itself.
    Terminal,
    /// A pseudoterminal's master, which acts on the terminal on the other side.
    Master,
}

/// A request on an open terminal.
pub(super) fn on_terminal(open: &TtyFile, ctx: &Ctx, file: &File, cmd: u32, arg: u64) -> Result<usize> {
    if open.hung_up() {
        return Err(if cmd == TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO }.into());
    }
    let tty = &open.tty;
    match cmd {
        TIOCSCTTY => job::acquire(ctx, tty, file, arg == 1).map(|()| 0),
        TIOCNOTTY => job::give_up(ctx, tty).map(|()| 0),
        TIOCCONS => redirect_console(open, ctx),
        FIONREAD => {
            let len = tty.state.lock().ldisc.input_len();
            store(ctx, arg, &(len as u32))
        }
        TIOCOUTQ => {
            let state = tty.state.lock();
            let len = if state.pty.is_some() { 0 } else { state.out.len() };
            drop(state);
            store(ctx, arg, &(len as u32))
        }
        TIOCEXCL => set_exclusive(tty, true),
        TIOCNXCL => set_exclusive(tty, false),
        TIOCGEXCL => {
            let exclusive = tty.state.lock().exclusive;
            store(ctx, arg, &u32::from(exclusive))
        }
        TIOCSTI => simulate_input(tty, ctx, arg),
        TCXONC => {
            job::check(ctx, tty, number::SIGTTOU)?;
            flow(tty, ctx, arg)
        }
        TCFLSH => {
            job::check(ctx, tty, number::SIGTTOU)?;
            flush(tty, ctx, arg)
        }
        _ => common(tty, Side::Terminal, ctx, cmd, arg),
    }
}

/// Requests that both sides of a pseudoterminal know.
pub(super) fn common(tty: &Arc<Tty>, side: Side, ctx: &Ctx, cmd: u32, arg: u64) -> Result<usize> {
    let own = side == Side::Terminal;
    match cmd {
        TCGETS => store(ctx, arg, &tty.termios().to_termios()),
        TCGETS2 => store(ctx, arg, &tty.termios().to_termios2()),
        TCGETA => store(ctx, arg, &tty.termios().to_termio()),
        TCSETS | TCSETSW | TCSETSF => {
            let get = |old: &Termios| Ok(Termios::from_termios(&ctx.read_val(arg)?, old));
            set_termios(tty, side, ctx, get, cmd >= TCSETSW, cmd == TCSETSF)
        }
        TCSETS2 | TCSETSW2 | TCSETSF2 => {
            let get = |old: &Termios| Ok(Termios::from_termios2(&ctx.read_val(arg)?, old));
            set_termios(tty, side, ctx, get, cmd != TCSETS2, cmd == TCSETSF2)
        }
        TCSETA | TCSETAW | TCSETAF => {
            let get = |old: &Termios| Ok(Termios::from_termio(&ctx.read_val(arg)?, old));
            set_termios(tty, side, ctx, get, cmd != TCSETA, cmd == TCSETAF)
        }
        TCSBRK | TCSBRKP | TIOCSBRK => {
            // No wire here can carry a break; both of TCSBRK's uses wait for the output before.
            check_side(ctx, tty, side)?;
            drain(tty, ctx)
        }
        TIOCCBRK => {
            check_side(ctx, tty, side)?;
            Ok(0)
        }
        TIOCGWINSZ => store(ctx, arg, &tty.window_size().to_bytes()),
        TIOCSWINSZ => {
            let raw: [u8; 8] = ctx.read_val(arg)?;
            tty.set_window_size(ctx.kernel, WinSize::from_bytes(&raw));
            Ok(0)
        }
        TIOCGPGRP => store(ctx, arg, &job::foreground_group(ctx, tty, own)?),
        TIOCSPGRP => job::set_foreground_group(ctx, tty, arg).map(|()| 0),
        TIOCGSID => store(ctx, arg, &job::session(ctx, tty, own)?),
        TIOCGETD => store(ctx, arg, &0u32),
        TIOCSETD => {
            check_side(ctx, tty, side)?;
            let number: u32 = ctx.read_val(arg)?;
            if number == 0 { Ok(0) } else { Err(Errno::EINVAL.into()) }
        }
        TIOCGDEV => {
            let (major, minor) = tty.device;
            store(ctx, arg, &((minor & 0xff) | major << 8 | (minor & !0xff) << 12))
        }
        TIOCVHANGUP => {
            if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
                bail!(EPERM);
            }
            job::hang_up(ctx.kernel, tty, false);
            Ok(0)
        }
        TIOCGSOFTCAR => {
            let local = tty.termios().cflag & CLOCAL != 0;
            store(ctx, arg, &u32::from(local))
        }
        TIOCSSOFTCAR => {
            let local: u32 = ctx.read_val(arg)?;
            let mut state = tty.state.lock();
            let mut t = *state.ldisc.termios();
            t.cflag = t.cflag & !CLOCAL | if local != 0 { CLOCAL } else { 0 };
            let mut effects = Effects::default();
            let State { ldisc, out, .. } = &mut *state;
            ldisc.set_termios(t, out, &mut effects);
            tty.finish(ctx.kernel, state, effects);
            Ok(0)
        }
        _ => Err(Errno::ENOTTY.into()),
    }
}

fn store<T: crate::mm::Pod>(ctx: &Ctx, arg: u64, value: &T) -> Result<usize> {
    ctx.write_val(arg, value).map(|()| 0)
}

/// A background group that changes its terminal is stopped; a master's user is in no group of the terminal's.
fn check_side(ctx: &Ctx, tty: &Arc<Tty>, side: Side) -> Result<()> {
    if side == Side::Terminal { job::check(ctx, tty, number::SIGTTOU) } else { Ok(()) }
}

fn set_exclusive(tty: &Tty, exclusive: bool) -> Result<usize> {
    tty.state.lock().exclusive = exclusive;
    Ok(0)
}

/// Waits until a console's output has reached the host. A pseudoterminal's has arrived as soon as it is written.
fn drain(tty: &Tty, ctx: &Ctx) -> Result<usize> {
    ctx.wait_for(&tty.write_wait, || {
        let state = tty.state.lock();
        (state.pty.is_some() || state.out.is_empty()).then_some(0)
    })
}

fn set_termios(
    tty: &Arc<Tty>,
    side: Side,
    ctx: &Ctx,
    get: impl FnOnce(&Termios) -> Result<Termios>,
    wait: bool,
    flush: bool,
) -> Result<usize> {
    check_side(ctx, tty, side)?;
    let mut new = get(&tty.termios())?;
    new.derive_speeds();
    // N_TTY is the only discipline; TCSETS cannot choose another.
    new.line = 0;
    if wait {
        drain(tty, ctx)?;
    }
    let mut state = tty.state.lock();
    if flush {
        state.flush_input();
    }
    let old = *state.ldisc.termios();
    if state.pty.is_some() {
        new.cflag = new.cflag & !(CSIZE | PARENB) | CS8 | CREAD;
        report_settings(&mut state, &old, &new);
    }
    let mut effects = Effects::default();
    let State { ldisc, out, .. } = &mut *state;
    ldisc.set_termios(new, out, &mut effects);
    state.refill(&mut effects);
    tty.finish(ctx.kernel, state, effects);
    tty.write_wait.wake_all();
    Ok(0)
}

/// Tells a master in packet mode whether `^S` and `^Q` still control the flow, and with `EXTPROC` of every change.
fn report_settings(state: &mut State, old: &Termios, new: &Termios) {
    const CONTROL_S: u8 = 0o23;
    const CONTROL_Q: u8 = 0o21;
    let usual_flow = |t: &Termios| t.i(IXON) && t.control(VSTOP) == CONTROL_S && t.control(VSTART) == CONTROL_Q;
    if usual_flow(old) != usual_flow(new) {
        let event = if usual_flow(new) { packet::TIOCPKT_DOSTOP } else { packet::TIOCPKT_NOSTOP };
        state.report(event, packet::TIOCPKT_DOSTOP | packet::TIOCPKT_NOSTOP);
    }
    if old.l(EXTPROC) || new.l(EXTPROC) {
        state.report(packet::TIOCPKT_IOCTL, 0);
    }
}

fn flush(tty: &Tty, ctx: &Ctx, which: u64) -> Result<usize> {
    let mut state = tty.state.lock();
    match which {
        queue::TCIFLUSH => state.flush_input(),
        queue::TCOFLUSH => state.flush_output(),
        queue::TCIOFLUSH => {
            state.flush_input();
            state.flush_output();
        }
        _ => bail!(EINVAL),
    }
    tty.finish(ctx.kernel, state, Effects::default());
    Ok(0)
}

fn flow(tty: &Tty, ctx: &Ctx, what: u64) -> Result<usize> {
    let mut state = tty.state.lock();
    let mut effects = Effects::default();
    let State { ldisc, out, .. } = &mut *state;
    match what {
        queue::TCOOFF => ldisc.suspend(out, &mut effects),
        queue::TCOON => ldisc.resume(out, &mut effects),
        queue::TCIOFF | queue::TCION => {
            let index = if what == queue::TCIOFF { VSTOP } else { VSTART };
            let c = ldisc.termios().control(index);
            // These characters go ahead of stopped output.
            if c != DISABLED {
                out.put(&[c]);
            }
        }
        _ => bail!(EINVAL),
    }
    tty.finish(ctx.kernel, state, effects);
    Ok(0)
}

/// `TIOCSTI`: a character as if it were typed.
fn simulate_input(tty: &Arc<Tty>, ctx: &Ctx, arg: u64) -> Result<usize> {
    let controls = ctx.task.process.tty().is_some_and(|t| Arc::ptr_eq(&t, tty));
    if !controls && !ctx.creds().capable(Capabilities::SYS_ADMIN) {
        bail!(EPERM);
    }
    let c: u8 = ctx.read_val(arg)?;
    tty.receive(ctx.kernel, &[c]);
    Ok(0)
}

/// `TIOCCONS`: what goes to `/dev/console` goes to this terminal from now on; on the console itself, no longer.
fn redirect_console(open: &TtyFile, ctx: &Ctx) -> Result<usize> {
    if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
        bail!(EPERM);
    }
    let mut redirect = ctx.kernel.ttys.redirect.lock();
    if open.as_console {
        *redirect = None;
        return Ok(0);
    }
    if redirect.is_some() {
        bail!(EBUSY);
    }
    *redirect = Some(open.tty.clone());
    Ok(0)
}
