//! Guests that trace each other: `ptrace(2)`, as debuggers and `strace(1)` use it. (The *platform* of that name is another matter:
//! how the host's `ptrace` runs guests. Nothing here calls the host.)
//!
//! A *tracee* is a thread; its *tracer* is a thread, too. A tracee that stops is parked in the kernel, on its own kernel thread, with
//! its registers laid open ([`stop`]); requests of the tracer look at them and change them ([`request`]), and what only the tracee's
//! own thread can do (its extended registers, its memory's protection) it does for the tracer as a *job*. [`link`] has who
//! traces whom, [`wait`] what the wait calls tell a tracer, [`registers`] and [`memory`] what the tracer sees.
//!
//! Stops are those of `ptrace(2)`: signal-delivery-stops and group-stops in [`crate::signal::deliver()`], syscall-stops in
//! [`crate::trap`], `PTRACE_EVENT` stops where the event happens. A task that nobody traces pays for one test of
//! [`TaskTrace::is_watched`] on its way in and one of [`TaskTrace::is_traced`] on its way out.
//!
//! Lock order: process, [`TaskTrace`]'s link, its list of tracees.

pub mod link;
pub mod memory;
pub mod registers;
pub mod request;
pub mod stop;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
pub mod wait;

pub use link::{attach, new_child, seize, trace_me};
pub use stop::Stop;

use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::task::{Pid, Task, WaitStatus};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

bitflags::bitflags! {
    /// What the kernel does for the tracer as the tracee runs on; set by the request that lets it run.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Mode: u32 {
        /// Somebody traces the task.
        const TRACED = 1;
        /// It stops at system calls (`PTRACE_SYSCALL`).
        const SYSCALLS = 2;
        /// It stops behind the next instruction (`PTRACE_SINGLESTEP`).
        const STEP = 4;
        /// It stops at system calls, which are not made (`PTRACE_SYSEMU`).
        const EMULATE = 8;
        /// The trap flag in its registers is the kernel's, for [`Mode::STEP`], not its own.
        const TRAP_FLAG = 16;
        /// Its system calls are restricted ([`crate::seccomp`]): no tracer's business, but tested together with it.
        const FILTERED = 32;
    }

    /// Traps that a tracee falls into on its way to user mode (`JOBCTL_TRAP_*` of Linux).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Traps: u32 {
        /// It was asked to stop (`PTRACE_INTERRUPT`), or a group-stop is due.
        const STOP = 1;
        /// A group-stop began or ended, which a seized tracee tells.
        const NOTIFY = 2;
    }

    /// `PTRACE_O_*` of `linux/ptrace.h`: bit `n` asks for the stop of event `n`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Options: u32 {
        /// Syscall-stops have bit 7 of the signal's number set.
        const TRACESYSGOOD = 1;
        /// Stop at `fork(2)`, and trace the child.
        const TRACEFORK = 1 << Event::Fork as u32;
        /// Stop at `vfork(2)`, and trace the child.
        const TRACEVFORK = 1 << Event::Vfork as u32;
        /// Stop at `clone(2)`, and trace the child.
        const TRACECLONE = 1 << Event::Clone as u32;
        /// Stop at `execve(2)`.
        const TRACEEXEC = 1 << Event::Exec as u32;
        /// Stop when the child of a `vfork(2)` has let go of the memory.
        const TRACEVFORKDONE = 1 << Event::VforkDone as u32;
        /// Stop on the way to the end, with the registers still there.
        const TRACEEXIT = 1 << Event::Exit as u32;
        /// Stop where a seccomp filter says so.
        const TRACESECCOMP = 1 << Event::Seccomp as u32;
        /// Kill the tracee when the tracer ends.
        const EXITKILL = 1 << 20;
        /// For checkpoints: refused.
        const SUSPEND_SECCOMP = 1 << 21;
    }
}

/// `PTRACE_EVENT_*` of `linux/ptrace.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the events' own names")]
pub enum Event {
    Fork = 1,
    Vfork = 2,
    Clone = 3,
    Exec = 4,
    VforkDone = 5,
    Exit = 6,
    Seccomp = 7,
    /// A seized tracee's group-stop, `PTRACE_INTERRUPT`, or first stop.
    Stop = 128,
}

impl Options {
    /// Checks what a tracer asks for.
    ///
    /// # Errors
    /// `EINVAL` for bits that are no option, and for `PTRACE_O_SUSPEND_SECCOMP`, as of a Linux without checkpoints.
    pub fn checked(bits: u64) -> Result<Options> {
        match u32::try_from(bits).ok().and_then(Options::from_bits) {
            Some(options) if !options.contains(Options::SUSPEND_SECCOMP) => Ok(options),
            _ => bail!(EINVAL, "no such option"),
        }
    }
}

/// What a task has of tracing: as a tracee, and as a tracer.
#[derive(Default)]
pub struct TaskTrace {
    mode: AtomicU32,
    traps: AtomicU32,
    link: Mutex<Link>,
    tracees: Mutex<Tracees>,
    /// How the thread ends by itself, once it does: its tracer is told.
    exit_status: Mutex<Option<WaitStatus>>,
}

/// Who traces a task, and how it is stopped for that one.
#[derive(Default)]
struct Link {
    tracer: Option<Arc<Task>>,
    /// By `PTRACE_SEIZE`.
    seized: bool,
    options: Options,
    /// The tracer had `CAP_SYS_PTRACE` when it attached: a set-user-id program keeps its privileges.
    capable: bool,
    stop: Option<Box<Stop>>,
    /// How a thread that was not its process's first ended, as long as the tracer has not waited for it.
    ended: Option<WaitStatus>,
}

/// The tasks that a task traces.
#[derive(Default)]
struct Tracees {
    list: Vec<Arc<Task>>,
    /// The tracer is ending and takes no more.
    closed: bool,
}

impl TaskTrace {
    /// The thread ends by itself, with this status.
    pub(crate) fn exits(&self, status: WaitStatus) {
        *self.exit_status.lock() = Some(status);
    }

    /// Whether somebody traces the task.
    pub fn is_traced(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & Mode::TRACED.bits() != 0
    }

    /// Whether the task's system calls are restricted ([`crate::seccomp`]).
    pub fn is_filtered(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & Mode::FILTERED.bits() != 0
    }

    /// Whether there is more to a system call of the task than the call: somebody traces it, or it is restricted.
    pub fn is_watched(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & (Mode::TRACED.bits() | Mode::FILTERED.bits()) != 0
    }

    /// The task's system calls are restricted from now on, for good.
    pub(crate) fn set_filtered(&self) {
        self.set_mode(Mode::FILTERED, true);
    }

    /// Whether the task rests in a stop for its tracer (state `t` in `/proc/PID/stat`).
    pub fn is_stopped(&self) -> bool {
        self.is_traced() && self.link.lock().stop.as_ref().is_some_and(|stop| stop.resume.is_none())
    }

    /// Whether the task has been let go on from a stop and is about to: it runs, for whoever looks.
    pub fn is_resumed(&self) -> bool {
        self.link.lock().stop.as_ref().is_some_and(|stop| stop.resume.is_some())
    }

    /// Whether the tracer asked for the tracee in the new way.
    pub(crate) fn is_seized(&self) -> bool {
        self.is_traced() && self.link.lock().seized
    }

    /// Whether the task has to stop on its way to user mode.
    pub(crate) fn must_trap(&self) -> bool {
        self.traps.load(Ordering::SeqCst) != 0
    }

    /// The tracer's thread id; 0 for none (`TracerPid` of `/proc/PID/status`).
    pub fn tracer_pid(&self) -> Pid {
        self.tracer().map_or(0, |tracer| tracer.tid())
    }

    /// The tracer.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        if self.is_traced() { self.link.lock().tracer.clone() } else { None }
    }

    /// Whether a program that the task executes may get privileges that its file gives it: nobody traces it, or one who may trace
    /// anybody.
    pub(crate) fn may_gain_privileges(&self) -> bool {
        let link = self.link.lock();
        link.tracer.is_none() || link.capable
    }

    fn has_mode(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) & mode.bits() != 0
    }

    fn set_mode(&self, mode: Mode, on: bool) {
        if on {
            self.mode.fetch_or(mode.bits(), Ordering::SeqCst);
        } else {
            self.mode.fetch_and(!mode.bits(), Ordering::SeqCst);
        }
    }

    fn set_trap(&self, trap: Traps) {
        self.traps.fetch_or(trap.bits(), Ordering::SeqCst);
    }

    fn clear_traps(&self, traps: Traps) {
        self.traps.fetch_and(!traps.bits(), Ordering::SeqCst);
    }

    fn has_trap(&self, traps: Traps) -> bool {
        self.traps.load(Ordering::SeqCst) & traps.bits() != 0
    }

    /// Whether the tracer asked for the stop of an event.
    fn wants(&self, event: Event) -> bool {
        self.is_traced() && self.link.lock().options.bits() & 1 << event as u32 != 0
    }
}

/// Checks that the running task may look into another one, its memory and registers (`PTRACE_MODE_ATTACH_REALCREDS` of
/// `ptrace(2)`): another thread of its process, or one whose credentials it covers.
///
/// # Errors
/// `EPERM` if not.
pub fn may_access(ctx: &Ctx, task: &Task) -> Result<()> {
    if !Arc::ptr_eq(&task.process, &ctx.task.process) && !ctx.creds().may_trace(&task.creds()) {
        bail!(EPERM, "not allowed to look into that process");
    }
    Ok(())
}
