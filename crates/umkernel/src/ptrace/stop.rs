//! Stops: a tracee is parked in the kernel, on its own kernel thread, until its tracer lets it go on, until it is detached or killed.

use super::{Event, Mode, Options, Traps, memory};
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::platform::TrapFrame;
use crate::signal::number::SIGTRAP;
use crate::signal::{self, SigDetail, SigInfo, code};
use crate::sync::Wake;
use crate::task::{Task, WaitStatus};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// What a stopped tracee does for its tracer, on its own kernel thread.
pub(super) type Job = Box<dyn FnOnce(&Ctx) + Send>;

/// Why a tracer hears of its tracee: the `si_code` of its `SIGCHLD`.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    /// `CLD_TRAPPED`, with the signal's number of the wait status.
    Trapped(u32),
    /// `CLD_STOPPED`: a group-stop.
    Stopped(u32),
    /// It has ended.
    Ended(WaitStatus),
}

/// A stop that a tracee is in.
pub struct Stop {
    /// The wait status without its lowest byte: a signal's number, and an event's.
    pub(super) code: u32,
    /// The tracer has waited for it.
    pub(super) reported: bool,
    /// The tracer waits for the stop to end by itself (`PTRACE_LISTEN`).
    pub(super) listening: bool,
    /// The registers that the tracee goes on with.
    pub(super) regs: TrapFrame,
    /// What `PTRACE_GETSIGINFO` tells.
    pub(super) info: Option<SigInfo>,
    /// What `PTRACE_GETEVENTMSG` tells.
    pub(super) message: u64,
    /// Set to let the tracee go on: the signal that it is given, or 0.
    pub(super) resume: Option<u8>,
    /// Something to do for the tracer.
    pub(super) job: Option<Job>,
    /// The tracee is at its end anyway: no `SIGKILL` takes it out of this stop.
    at_exit: bool,
}

impl Stop {
    /// The signal that comes of the stop if its tracer is gone without a word: the one that was about to be delivered, unless
    /// the tracer has been told of it.
    pub(super) fn left_signal(&self) -> u8 {
        let delivers = self.info.is_some_and(|info| info.code as u32 != self.code);
        if delivers && !self.reported { self.code as u8 } else { 0 }
    }

    /// What `PTRACE_GETEVENTMSG` tells.
    pub fn message(&self) -> u64 {
        self.message
    }

    /// The registers that the tracee goes on with.
    pub fn registers(&mut self) -> &mut TrapFrame {
        &mut self.regs
    }

    /// Whether the tracee is about to leave the stop, because it was killed.
    pub(super) fn is_left(&self, task: &Task) -> bool {
        task.dying.load(Ordering::SeqCst) && !self.at_exit
    }
}

/// What a stop is like.
struct Kind {
    code: u32,
    /// The tracee takes part in a stop of its process.
    group: bool,
    info: Option<SigInfo>,
    message: u64,
    at_exit: bool,
}

/// `PTRACE_EVENTMSG_SYSCALL_ENTRY` and `_EXIT`.
pub(super) const AT_ENTRY: u64 = 1;
pub(super) const AT_EXIT: u64 = 2;
/// The bit that `PTRACE_O_TRACESYSGOOD` asks for.
pub(super) const SYSCALL_BIT: u32 = 0x80;
/// What `rax` holds while a system call is being made.
const NO_RESULT: u64 = (-(Errno::ENOSYS.0 as i64)) as u64;
/// The trap flag of `eflags`.
const TRAP_FLAG: u64 = 0x100;

impl Kind {
    fn trap(code: u32, message: u64, ctx: &Ctx) -> Kind {
        let signo = (code & 0x7f) as u8;
        let detail = SigDetail::Sender { pid: ctx.task.tid(), uid: ctx.creds().uid, value: 0 };
        let info = SigInfo { signo, code: code as i32, errno: 0, detail };
        Kind { code, group: false, info: Some(info), message, at_exit: false }
    }
}

/// Parks the running task in a stop, and returns that when it is over; `None` if there was none: nobody traces the task, or it
/// is at its end.
fn park(ctx: &Ctx, regs: &mut TrapFrame, kind: Kind) -> Option<Stop> {
    let (task, process) = (ctx.task, &ctx.task.process);
    regs.rip = ctx.kernel.platform.program_counter(regs.rip);
    memory::show_own_text(ctx);
    let is_event_stop = kind.code >> 8 == Event::Stop as u32;
    let (tracer, done) = {
        let mut inner = process.inner.lock();
        let mut link = task.trace.link.lock();
        let tracer = link.tracer.clone()?;
        if task.dying.load(Ordering::SeqCst) && !kind.at_exit {
            return None;
        }
        let done = if kind.group { signal::join_stop(process, task, &mut inner) } else { None };
        task.trace.clear_traps(Traps::STOP);
        if is_event_stop {
            task.trace.clear_traps(Traps::NOTIFY);
        }
        link.stop = Some(Box::new(Stop {
            code: kind.code,
            reported: false,
            listening: false,
            regs: *regs,
            info: kind.info,
            message: kind.message,
            resume: None,
            job: None,
            at_exit: kind.at_exit,
        }));
        (tracer, done)
    };
    let why = if kind.group { Why::Stopped(kind.code) } else { Why::Trapped(kind.code) };
    signal::tell_tracer(ctx.kernel, &tracer, task, why);
    if let Some(status) = done
        && !process.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.process))
    {
        signal::notify_parent(ctx.kernel, process, status);
    }
    while !may_go_on(ctx) {
        task.sleep(None);
    }
    let stop = task.trace.link.lock().stop.take();
    signal::recalculate_attention(task);
    let mut stop = *stop?;
    // A tracer that waits for a job to be done finds that nobody does it.
    drop(stop.job.take());
    tracer.waiter.wake();
    *regs = stop.regs;
    Some(stop)
}

/// Does what the tracer asks for; true if the task may go on.
fn may_go_on(ctx: &Ctx) -> bool {
    let task = ctx.task;
    loop {
        task.waiter.prepare();
        let mut link = task.trace.link.lock();
        let Some(stop) = &mut link.stop else { return true };
        if let Some(job) = stop.job.take() {
            let tracer = link.tracer.clone();
            drop(link);
            job(ctx);
            if let Some(tracer) = tracer {
                tracer.waiter.wake();
            }
            continue;
        }
        let called = stop.listening && task.trace.has_trap(Traps::all());
        return stop.resume.is_some() || stop.is_left(task) || called;
    }
}

/// A system call of a tracee: stops at it if the tracer wants that. `None` if it goes on, perhaps as another one, or as none (-1);
/// else what the tracee has instead.
pub fn enter_syscall(ctx: &Ctx, frame: &mut TrapFrame) -> Option<Result<usize>> {
    disarm(ctx, frame);
    let trace = &ctx.task.trace;
    frame.rax = NO_RESULT;
    let emulate = trace.has_mode(Mode::EMULATE);
    if emulate || trace.has_mode(Mode::SYSCALLS) {
        at_syscall(ctx, frame, AT_ENTRY);
        ctx.task.in_syscall.store(frame.orig_rax as u32, Ordering::Relaxed);
        if ctx.task.dying.load(Ordering::SeqCst) {
            return Some(Err(Errno::EINTR.into()));
        }
        if emulate {
            return Some(Ok(frame.rax as usize));
        }
    }
    None
}

/// A seccomp filter leaves the running task's call to its tracer, and gives it this number. False if no tracer has asked for that.
pub fn at_filter(ctx: &Ctx, frame: &mut TrapFrame, message: u16) -> bool {
    if !ctx.task.trace.wants(Event::Seccomp) {
        return false;
    }
    frame.rax = NO_RESULT;
    event(ctx, frame, Event::Seccomp, message.into());
    ctx.task.in_syscall.store(frame.orig_rax as u32, Ordering::Relaxed);
    true
}

/// A tracee's way out of a system call: its result goes into the frame, and it stops if the tracer wants that.
pub fn leave_syscall(ctx: &Ctx, frame: &mut TrapFrame, result: Result<usize>) {
    frame.rax = match result {
        Ok(value) => value as u64,
        Err(e) => (-i64::from(e.errno.0)) as u64,
    };
    let trace = &ctx.task.trace;
    if trace.has_mode(Mode::EMULATE) {
        return;
    }
    if trace.has_mode(Mode::STEP) {
        // A single step ends behind the call, before the next instruction.
        signal::force(ctx, SigInfo::fault(SIGTRAP, code::TRAP_BRKPT, frame.rip));
    } else if trace.has_mode(Mode::SYSCALLS) {
        at_syscall(ctx, frame, AT_EXIT);
    }
}

fn at_syscall(ctx: &Ctx, frame: &mut TrapFrame, which: u64) {
    let good = ctx.task.trace.link.lock().options.contains(Options::TRACESYSGOOD);
    let code = u32::from(SIGTRAP) | if good { SYSCALL_BIT } else { 0 };
    let kind = Kind::trap(code, which, ctx);
    if let Some(sig) = park(ctx, frame, kind).and_then(|stop| stop.resume).filter(|sig| *sig != 0) {
        // Not the same as a signal given at a signal-delivery-stop: it is sent, and comes by one itself.
        let _ = signal::send_to_task(ctx.kernel, ctx.task, SigInfo::kernel(sig));
    }
}

/// A signal is about to take effect on the running tracee: its tracer may change that. `None` if nothing is left to do.
pub fn at_signal(ctx: &Ctx, regs: &mut TrapFrame, info: SigInfo) -> Option<SigInfo> {
    let kind = Kind { code: info.signo.into(), group: false, info: Some(info), message: 0, at_exit: false };
    let tracer = ctx.task.trace.tracer();
    // It may be made a stop signal; `SIGCONT` takes that back.
    signal::take_stop(ctx.task);
    let Some(stop) = park(ctx, regs, kind) else { return Some(info) };
    let sig = stop.resume.filter(|sig| *sig != 0)?;
    let info = match stop.info {
        Some(info) if info.signo == sig => info,
        _ => {
            let (pid, uid) = tracer.map_or((0, 0), |t| (t.tid(), t.creds().uid));
            SigInfo::user(sig, code::SI_USER, pid, uid)
        }
    };
    if ctx.task.signals.blocked().contains(sig) || ctx.task.dying.load(Ordering::SeqCst) {
        // Refused only by a task that is ending.
        let _ = signal::send_to_task(ctx.kernel, ctx.task, info);
        return None;
    }
    Some(info)
}

/// A tracee is asked to stop, or its process stops: `JOBCTL_TRAP_STOP` and `_NOTIFY` of Linux.
pub fn trap(ctx: &Ctx, regs: &mut TrapFrame) {
    let sig = signal::stopping_signal(&ctx.task.process);
    let trace = &ctx.task.trace;
    if trace.is_seized() {
        let sig = if sig == 0 { SIGTRAP } else { sig };
        let code = u32::from(sig) | (Event::Stop as u32) << 8;
        park(ctx, regs, Kind { group: true, ..Kind::trap(code, 0, ctx) });
    } else if sig != 0 {
        park(ctx, regs, Kind { code: sig.into(), group: true, info: None, message: 0, at_exit: false });
    }
    // Also where there was no stop: a `SIGCONT` has come first.
    trace.clear_traps(if trace.is_seized() { Traps::empty() } else { Traps::all() });
    signal::recalculate_attention(ctx.task);
}

/// Something has happened that a tracer may have asked to be told of.
pub fn event(ctx: &Ctx, regs: &mut TrapFrame, event: Event, message: u64) {
    if ctx.task.trace.wants(event) {
        let code = u32::from(SIGTRAP) | (event as u32) << 8;
        park(ctx, regs, Kind::trap(code, message, ctx));
    } else if event == Event::Exec && ctx.task.trace.is_traced() && !ctx.task.trace.is_seized() {
        // What tracers of old expect.
        signal::raise(ctx, SIGTRAP);
    }
}

/// The running tracee is about to end.
pub fn exiting(ctx: &Ctx, regs: &mut TrapFrame) {
    if !ctx.task.trace.wants(Event::Exit) {
        return;
    }
    let status = exit_status(ctx);
    let code = u32::from(SIGTRAP) | (Event::Exit as u32) << 8;
    let kind = Kind { at_exit: true, ..Kind::trap(code, status.to_word().into(), ctx) };
    park(ctx, regs, kind);
}

/// How the running task ends.
pub fn exit_status(ctx: &Ctx) -> WaitStatus {
    let inner = ctx.task.process.inner.lock();
    let own = *ctx.task.trace.exit_status.lock();
    // A thread that execve(2) ends has said nothing: it ends with 0.
    inner.exiting.or(own).unwrap_or(WaitStatus::Exited(0))
}

/// The running task goes to a handler while it is stepped through: it stops at the handler's first instruction.
pub fn at_handler(ctx: &Ctx, regs: &mut TrapFrame) {
    let trace = &ctx.task.trace;
    if trace.is_traced() && trace.has_mode(Mode::STEP) {
        trace.set_mode(Mode::STEP, false);
        park(ctx, regs, Kind::trap(SIGTRAP.into(), 0, ctx));
    }
}

/// Takes the kernel's own trap flag out of the registers of a tracee that has come into the kernel.
pub fn disarm(ctx: &Ctx, frame: &mut TrapFrame) {
    let trace = &ctx.task.trace;
    if trace.has_mode(Mode::TRAP_FLAG) {
        trace.set_mode(Mode::TRAP_FLAG, false);
        frame.eflags &= !TRAP_FLAG;
    }
}

/// Sets it in those of one that goes to user mode for a single step.
pub fn arm(ctx: &Ctx, frame: &mut TrapFrame) {
    let trace = &ctx.task.trace;
    if trace.has_mode(Mode::STEP) && frame.eflags & TRAP_FLAG == 0 {
        trace.set_mode(Mode::TRAP_FLAG, true);
        frame.eflags |= TRAP_FLAG;
    }
}

/// A stop of its process has begun or ended: a seized tracee tells its tracer.
pub fn notify(kernel: &Kernel, task: &Task) {
    task.trace.set_trap(Traps::NOTIFY);
    task.interrupt(kernel);
}

/// `PTRACE_INTERRUPT`.
pub(super) fn interrupt(kernel: &Kernel, task: &Task) {
    task.trace.set_trap(Traps::STOP);
    task.interrupt(kernel);
}
