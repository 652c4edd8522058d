//! Tasks that restrict which system calls they may make: seccomp(2). (The filter behind which the `direct` platform puts host
//! processes is another matter: that one is the host's.)
//!
//! A task is in *strict* mode, or has *filters*: programs ([`bpf`]) that look at each call's number and arguments. It never gets rid of
//! them, and its children have them, too. `enter` is what they do at a call, before it is made and after a tracer has seen
//! it; `notify` has what leaves it to another process, `log` what an administrator hears of.
//!
//! Who has none pays for one bit of the word that is tested for a tracer anyway: [`TaskTrace::is_watched`]. A call that all filters allow
//! by its number alone, as most do most calls, costs a look at a bitmap (`filter`); only others run programs.
//!
//! Lock order: process, [`TaskSeccomp`]. The filters of a process's threads change under the process's lock.
//!
//! [`TaskTrace::is_watched`]: crate::ptrace::TaskTrace::is_watched

pub mod bpf;
mod enter;
mod filter;
mod log;
mod notify;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;

pub use enter::check;
pub use log::{ACTIONS, ActionLog};
pub use notify::{NOTIFICATION_SIZE, RESPONSE_SIZE};

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::task::{Capabilities, ProcessInner, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bpf::Program;
use core::mem;
use core::sync::atomic::Ordering;
use filter::Filter;
use linux_raw_sys::ptrace::{SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT};
use notify::Listener;

/// The most instructions of all filters of a task, with what each costs besides (seccomp(2)).
const MAX_WEIGHT: usize = 32768;

bitflags::bitflags! {
    /// Flags of a new filter (`SECCOMP_FILTER_FLAG_*` of `linux/seccomp.h`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// The process's other threads get it, too.
        const TSYNC = 1;
        /// What it does is logged.
        const LOG = 2;
        /// The processor may speculate as ever, which it may anyway.
        const SPEC_ALLOW = 4;
        /// A supervisor's descriptor is made.
        const NEW_LISTENER = 8;
        /// A thread that cannot get it is no result, but an error.
        const TSYNC_ESRCH = 16;
        /// A call that the supervisor has taken is interrupted by fatal signals only.
        const WAIT_KILLABLE_RECV = 32;
    }
}

/// What a task has of seccomp.
#[derive(Default)]
pub struct TaskSeccomp {
    state: Mutex<State>,
}

#[derive(Clone, Default)]
enum State {
    #[default]
    Off,
    Strict,
    Filters(Arc<Filter>),
}

impl TaskSeccomp {
    /// `SECCOMP_MODE_*` (`prctl(PR_GET_SECCOMP)`, `Seccomp` of `/proc/PID/status`).
    pub fn mode(&self) -> u32 {
        match *self.state.lock() {
            State::Off => SECCOMP_MODE_DISABLED,
            State::Strict => SECCOMP_MODE_STRICT,
            State::Filters(_) => SECCOMP_MODE_FILTER,
        }
    }

    /// How many filters there are (`Seccomp_filters` of `/proc/PID/status`).
    pub fn filters(&self) -> u32 {
        match &*self.state.lock() {
            State::Filters(filter) => filter.depth,
            State::Off | State::Strict => 0,
        }
    }

    fn set(&self, state: State) {
        let old = mem::replace(&mut *self.state.lock(), state);
        // The last task behind a filter tells the supervisor: not under the lock.
        drop(old);
    }

    /// The task has ended: it makes no call any more.
    pub(crate) fn release(&self) {
        self.set(State::Off);
    }

    /// Whether a task may get this filter in place of what it has, without losing anything: it has nothing, or what the filter has
    /// been attached to.
    fn may_have(&self, filter: Option<&Filter>) -> bool {
        match &*self.state.lock() {
            State::Off => true,
            State::Strict => false,
            State::Filters(own) => filter.is_some_and(|filter| filter.chain().any(|f| core::ptr::eq(f, &**own))),
        }
    }
}

/// A new task has what its maker has; the caller holds the lock of the maker's process.
pub(crate) fn inherit(parent: &Task, child: &Task) {
    let state = parent.seccomp.state.lock().clone();
    if !matches!(state, State::Off) {
        child.trace.set_filtered();
    }
    child.seccomp.set(state);
    child.no_new_privs.store(parent.no_new_privs.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// `SECCOMP_SET_MODE_STRICT`: the running task reads, writes, ends and returns from handlers, and nothing else.
///
/// # Errors
/// `EINVAL` for a task with filters.
pub fn set_strict(ctx: &Ctx) -> Result<()> {
    let _inner = ctx.task.process.inner.lock();
    if ctx.task.seccomp.mode() == SECCOMP_MODE_FILTER {
        bail!(EINVAL, "the task has filters");
    }
    ctx.task.seccomp.set(State::Strict);
    ctx.task.trace.set_filtered();
    Ok(())
}

/// Whether the running task may attach filters.
///
/// # Errors
/// `EACCES` if programs that it executes could gain privileges, and it is no administrator: a filter could mislead them.
pub fn may_filter(ctx: &Ctx) -> Result<()> {
    if !ctx.task.no_new_privs.load(Ordering::SeqCst) && !ctx.creds().capable(Capabilities::SYS_ADMIN) {
        bail!(EACCES, "neither no_new_privs nor an administrator");
    }
    Ok(())
}

/// `SECCOMP_SET_MODE_FILTER`: one more filter for the running task, or for all threads of its process. The result is 0, or the
/// supervisor's descriptor, or the id of a thread that cannot get the filter: then no thread gets it.
///
/// # Errors
/// `ENOMEM` for too many instructions, `EBUSY` for a second supervisor, `ESRCH` as [`Flags::TSYNC_ESRCH`] says, `EMFILE`.
pub fn attach(ctx: &Ctx, program: Program, flags: Flags) -> Result<usize> {
    if !flags.contains(Flags::NEW_LISTENER) {
        return attach_with(ctx, program, flags, None);
    }
    let listener = Listener::new(flags.contains(Flags::WAIT_KILLABLE_RECV));
    // First, since a filter stays that is attached.
    let fd = ctx.install(listener.file(ctx), true)?;
    match attach_with(ctx, program, flags, Some(listener)) {
        Ok(_) => Ok(fd as usize),
        Err(e) => {
            // Nobody has heard of it.
            drop(ctx.files().remove(ctx, fd));
            Err(e)
        }
    }
}

fn attach_with(ctx: &Ctx, program: Program, flags: Flags, listener: Option<Arc<Listener>>) -> Result<usize> {
    let task = ctx.task;
    let inner = task.process.inner.lock();
    let state = task.seccomp.state.lock().clone();
    let previous = match state {
        State::Off => None,
        State::Strict => bail!(EINVAL, "strict mode is for good"),
        State::Filters(filter) => Some(filter),
    };
    if listener.is_some() && previous.as_ref().is_some_and(|filter| filter.chain().any(|f| f.listener.is_some())) {
        bail!(EBUSY, "there is a supervisor already");
    }
    if Filter::weight(&program, previous.as_deref()) > MAX_WEIGHT {
        bail!(ENOMEM, "too many instructions in all");
    }
    let all = flags.contains(Flags::TSYNC);
    if all && let Some(thread) = others(&inner, task).find(|thread| !thread.seccomp.may_have(previous.as_deref())) {
        if flags.contains(Flags::TSYNC_ESRCH) {
            bail!(ESRCH, "a thread has filters of its own");
        }
        return Ok(thread.tid() as usize);
    }
    let filter = Arc::new(Filter::new(program, previous, flags.contains(Flags::LOG), listener));
    task.seccomp.set(State::Filters(filter.clone()));
    task.trace.set_filtered();
    if all {
        let no_new_privs = task.no_new_privs.load(Ordering::SeqCst);
        for thread in others(&inner, task) {
            thread.seccomp.set(State::Filters(filter.clone()));
            if no_new_privs {
                // Or a thread could get around it by another one.
                thread.no_new_privs.store(true, Ordering::SeqCst);
            }
            thread.trace.set_filtered();
        }
    }
    Ok(0)
}

/// The other threads of a process that go on.
fn others<'a>(inner: &'a ProcessInner, task: &'a Arc<Task>) -> impl Iterator<Item = &'a Arc<Task>> {
    inner.threads.iter().filter(move |thread| !Arc::ptr_eq(thread, task) && !thread.dying.load(Ordering::SeqCst))
}

/// A filter of a task as a tracer sees it.
pub struct Shown {
    /// Its instructions, as `struct sock_filter`.
    pub instructions: Vec<u8>,
    /// What it does is logged.
    pub logs: bool,
}

/// The `index`th filter of a task, counted from the first that was attached (`PTRACE_SECCOMP_GET_FILTER`).
///
/// # Errors
/// `EACCES` for who is no administrator, or is restricted; `EINVAL` for a task without filters, `ENOENT` for one that has fewer.
pub fn show(ctx: &Ctx, task: &Task, index: u64) -> Result<Shown> {
    if !ctx.creds().capable(Capabilities::SYS_ADMIN) || ctx.task.seccomp.mode() != SECCOMP_MODE_DISABLED {
        bail!(EACCES, "filters are shown to administrators");
    }
    let state = task.seccomp.state.lock().clone();
    let State::Filters(last) = state else { bail!(EINVAL, "no filters") };
    let wanted = last.chain().find(|filter| u64::from(filter.depth) == index.saturating_add(1));
    let filter = wanted.ok_or(Errno::ENOENT)?;
    let instructions = filter.program().instructions().iter().flat_map(|instruction| instruction.encode()).collect();
    Ok(Shown { instructions, logs: filter.logs })
}
