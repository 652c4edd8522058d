//! What a thread and a process have of signals, and when a thread must look.

use super::altstack::AltStack;
use super::queue::Pending;
use super::{DefaultAction, SigAction, SigDetail, SigInfo, SigSet, code, default_action, number};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::{Mutex, WaitQueue};
use crate::task::{Process, Task};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A thread's signal state.
///
/// The process's lock ([`Process::inner`]) is held for every change of pending queues and of job control, the
/// thread's and the process's; only the thread itself changes its masks.
#[derive(Default)]
pub struct TaskSignals {
    /// Pending for this thread alone.
    pub(super) pending: Pending,
    blocked: AtomicU64,
    /// Blocked in truth, but let through for `rt_sigtimedwait(2)`, which waits for them.
    pub(super) awaited: AtomicU64,
    /// The mask to come back to after `sigsuspend(2)`, `ppoll(2)` and the like.
    saved_mask: Mutex<Option<SigSet>>,
    /// The alternate stack (`sigaltstack(2)`).
    pub altstack: Mutex<AltStack>,
    /// The last processor fault, which every later frame shows as well.
    pub(super) fault: Mutex<FaultRecord>,
    /// The thread has yet to take part in a stop of its process.
    pub(super) stop_pending: AtomicBool,
    /// The stop waits for the thread to take part: it was counted when the stop began.
    pub(super) stop_owed: AtomicBool,
    /// The thread rests until `SIGCONT`.
    pub(super) stopped: AtomicBool,
    /// A stop signal was taken from the queue and not yet obeyed; `SIGCONT` takes it back.
    pub(super) stop_taken: AtomicBool,
}

/// What the processor said of a fault: `trapno`, `err` and `cr2` of a signal frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRecord {
    /// Exception vector: 14 for a page fault.
    pub trapno: u64,
    /// Its error code.
    pub error_code: u64,
    /// Address of the last page fault.
    pub cr2: u64,
}

/// Exception vectors of the processor.
mod vector {
    pub(super) const DIVIDE_ERROR: u64 = 0;
    pub(super) const DEBUG: u64 = 1;
    pub(super) const BREAKPOINT: u64 = 3;
    pub(super) const INVALID_OPCODE: u64 = 6;
    pub(super) const GENERAL_PROTECTION: u64 = 13;
    pub(super) const PAGE_FAULT: u64 = 14;
    pub(super) const ALIGNMENT_CHECK: u64 = 17;
    pub(super) const SIMD_EXCEPTION: u64 = 19;
}

/// Bits of a page fault's error code.
mod error {
    pub(super) const PRESENT: u64 = 1;
    pub(super) const USER: u64 = 4;
}

impl TaskSignals {
    /// The state of a child of this thread: same mask, nothing pending. A child that shares memory (`CLONE_VM` without
    /// `CLONE_VFORK`) has no alternate stack.
    pub fn for_child(&self, shares_memory: bool) -> TaskSignals {
        let altstack = if shares_memory { AltStack::default() } else { *self.altstack.lock() };
        TaskSignals {
            blocked: AtomicU64::new(self.blocked().0),
            altstack: Mutex::new(altstack),
            ..TaskSignals::default()
        }
    }

    /// exec: no alternate stack survives; mask and pending signals do.
    pub fn reset_for_exec(&self) {
        *self.altstack.lock() = AltStack::default();
    }

    /// The blocked signals.
    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Ordering::SeqCst))
    }

    /// The signals pending for this thread alone (`SigPnd` of `/proc/PID/status`).
    pub fn pending(&self) -> SigSet {
        self.pending.set()
    }

    /// True while the thread rests in a stop (state `T` in `/proc/PID/stat`).
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Whether a signal sent now would be kept rather than dropped as ignored.
    pub(super) fn holds_back(&self, sig: u8) -> bool {
        self.blocked().contains(sig) || SigSet(self.awaited.load(Ordering::SeqCst)).contains(sig)
    }

    pub(super) fn store_blocked(&self, set: SigSet) {
        self.blocked.store(set.blockable().0, Ordering::SeqCst);
    }

    /// Notes a fault for frames to show. The processor's own words do not reach the kernel on every platform: they are
    /// told from the signal, without the bit that tells a store from a load.
    pub(super) fn record_fault(&self, info: &SigInfo) {
        let SigDetail::Fault { addr } = info.detail else { return };
        let mut record = self.fault.lock();
        (record.trapno, record.error_code) = match (info.signo, info.code) {
            (number::SIGSEGV, code::SI_KERNEL) => (vector::GENERAL_PROTECTION, 0),
            (number::SIGSEGV, code::SEGV_ACCERR) => (vector::PAGE_FAULT, error::USER | error::PRESENT),
            (number::SIGSEGV, _) | (number::SIGBUS, code::BUS_ADRERR) => (vector::PAGE_FAULT, error::USER),
            (number::SIGBUS, _) => (vector::ALIGNMENT_CHECK, 0),
            (number::SIGFPE, code::FPE_INTDIV) => (vector::DIVIDE_ERROR, 0),
            (number::SIGFPE, _) => (vector::SIMD_EXCEPTION, 0),
            (number::SIGTRAP, code::TRAP_TRACE) => (vector::DEBUG, 0),
            (number::SIGTRAP, _) => (vector::BREAKPOINT, 0),
            _ => (vector::INVALID_OPCODE, 0),
        };
        if record.trapno == vector::PAGE_FAULT {
            record.cr2 = addr;
        }
    }

    /// The mask that the thread has when it is not in a call with another one (`PTRACE_GETSIGMASK`).
    pub(crate) fn lasting_mask(&self) -> SigSet {
        self.saved_mask.lock().unwrap_or(self.blocked())
    }

    pub(super) fn take_saved_mask(&self) -> Option<SigSet> {
        self.saved_mask.lock().take()
    }

    pub(super) fn save_mask(&self, mask: SigSet) {
        *self.saved_mask.lock() = Some(mask);
    }
}

/// A process's signal state.
#[derive(Default)]
pub struct ProcessSignals {
    /// Pending for the whole process.
    pub(super) pending: Pending,
    /// Woken when a signal arrives for the process or one of its threads: what signalfds are polled on.
    pub arrival: Arc<WaitQueue>,
    /// Signals without a handler have no effect on the process: it is init.
    pub unkillable: AtomicBool,
    /// A stop that is in progress or done.
    pub(super) stop: Mutex<GroupStop>,
}

/// A stop of all threads of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupStop {
    /// The signal that stops; 0 when there is no stop.
    pub(super) signal: u8,
    /// Threads that have yet to stop.
    pub(super) remaining: usize,
}

impl ProcessSignals {
    /// The signals pending for the process as a whole (`ShdPnd` of `/proc/PID/status`).
    pub fn pending(&self) -> SigSet {
        self.pending.set()
    }
}

/// Brings a task's `attention` up to date with what it must look at.
pub fn recalculate_attention(task: &Task) {
    // Cleared before looking: whoever adds a reason meanwhile sets it again.
    task.attention.store(false, Ordering::SeqCst);
    let pending = task.signals.pending() | task.process.signals.pending();
    let wanted = !(pending - task.signals.blocked()).is_empty()
        || task.signals.stop_pending.load(Ordering::SeqCst)
        || task.dying.load(Ordering::SeqCst)
        || task.trace.must_trap()
        || task.mm.with(|mm| mm.as_ref().is_some_and(|space| space.has_cuts()));
    if wanted {
        task.attention.store(true, Ordering::SeqCst);
    }
}

/// Replaces the running task's mask. Signals for the process that the task blocks from now on go to another thread.
pub fn set_blocked(ctx: &Ctx, set: SigSet) {
    let task = ctx.task;
    let inner = task.process.inner.lock();
    let newly_blocked = set.blockable() - task.signals.blocked();
    task.signals.store_blocked(set);
    if newly_blocked.intersects(task.process.signals.pending()) {
        retarget(ctx.kernel, &task.process, &inner.threads, task, newly_blocked);
    }
    drop(inner);
    recalculate_attention(task);
}

/// Makes other threads look at signals of `set` that are pending for the process and that `from` will not take.
pub(super) fn retarget(
    kernel: &crate::Kernel,
    process: &Process,
    threads: &[Arc<Task>],
    from: &Arc<Task>,
    set: SigSet,
) {
    let mut left = process.signals.pending() & set;
    for thread in threads.iter().filter(|t| !Arc::ptr_eq(t, from)) {
        let takes = left - thread.signals.blocked();
        if !takes.is_empty() {
            thread.interrupt(kernel);
            left = left - takes;
        }
    }
}

/// Runs a sleeping call with another mask (`ppoll(2)`, `pselect(2)`, `epoll_pwait(2)`, `sigsuspend(2)`); `None` leaves the
/// mask as it is. When a signal interrupts the call, the old mask comes back only after its handler was set up.
pub fn with_mask<T>(ctx: &Ctx, mask: Option<SigSet>, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(mask) = mask else { return call() };
    ctx.task.signals.save_mask(ctx.task.signals.blocked());
    set_blocked(ctx, mask);
    let result = call();
    let interrupted = matches!(
        &result,
        Err(e) if matches!(e.errno, Errno::EINTR | Errno::ERESTARTSYS | Errno::ERESTARTNOHAND | Errno::ERESTARTNOINTR
            | Errno::ERESTART_RESTARTBLOCK)
    );
    if !interrupted {
        restore_saved_mask(ctx);
    }
    result
}

/// Goes back to the mask that [`with_mask`] replaced, if there is one.
pub(super) fn restore_saved_mask(ctx: &Ctx) {
    if let Some(mask) = ctx.task.signals.take_saved_mask() {
        set_blocked(ctx, mask);
    }
}

/// Takes a pending signal of `set` for the running task, its own before the process's: what signalfd reads.
pub fn dequeue(ctx: &Ctx, set: SigSet) -> Option<SigInfo> {
    let task = ctx.task;
    let inner = task.process.inner.lock();
    let info = dequeue_locked(task, set);
    drop(inner);
    recalculate_attention(task);
    info
}

/// Sleeps until a signal of `set` is pending and takes it (`rt_sigtimedwait(2)`); `deadline` is CLOCK_MONOTONIC, absolute,
/// nanoseconds.
///
/// # Errors
/// `EAGAIN` when the deadline passes, `EINTR` when another signal comes.
pub fn wait_for(ctx: &Ctx, set: SigSet, deadline: Option<u64>) -> Result<SigInfo> {
    if let Some(info) = dequeue(ctx, set) {
        return Ok(info);
    }
    let signals = &ctx.task.signals;
    let blocked = signals.blocked();
    // The signals are let through, so that they end the sleep, but are still not dropped as ignored.
    signals.awaited.store((blocked & set).0, Ordering::SeqCst);
    set_blocked(ctx, blocked - set);
    let arrival = ctx.task.process.signals.arrival.clone();
    let result = ctx.wait(&arrival, deadline, || dequeue(ctx, set));
    set_blocked(ctx, blocked);
    signals.awaited.store(0, Ordering::SeqCst);
    match result {
        Ok(Some(info)) => Ok(info),
        // It may have come between the last look and the end of the sleep.
        ended => match (dequeue(ctx, set), ended) {
            (Some(info), _) => Ok(info),
            (None, Ok(_)) => Err(Errno::EAGAIN.into()),
            (None, Err(_)) => Err(Errno::EINTR.into()),
        },
    }
}

/// Replaces a signal's action and returns what it was. Pending signals that the new action ignores are dropped.
pub fn set_action(process: &Process, sig: u8, action: SigAction) -> SigAction {
    let inner = process.inner.lock();
    let handlers = process.handlers.lock().clone();
    let old = handlers.update(sig, |a| *a = action);
    if action.ignores(sig) {
        let set = SigSet::of(&[sig]);
        process.signals.pending.lock().discard(set);
        inner.threads.iter().for_each(|t| t.signals.pending.lock().discard(set));
    }
    old
}

/// As [`dequeue`], by who holds the process's lock and recalculates afterwards.
pub(super) fn dequeue_locked(task: &Task, set: SigSet) -> Option<SigInfo> {
    let own = task.signals.pending.lock().take(set);
    let info = own.or_else(|| task.process.signals.pending.lock().take(set))?;
    if number::STOPPING.contains(info.signo) {
        task.signals.stop_taken.store(true, Ordering::SeqCst);
    }
    Some(info)
}

/// Marks a signal as pending for a task that does not run yet, without details.
pub fn mark_pending(task: &Task, sig: u8) {
    let _inner = task.process.inner.lock();
    task.signals.pending.lock().push(SigInfo::lost(sig), None, None);
    task.attention.store(true, Ordering::SeqCst);
}

/// The signals that wait for a task alone, or for its process; whose lock the caller holds.
pub fn queued(task: &Task, shared: bool) -> alloc::vec::Vec<SigInfo> {
    if shared { task.process.signals.pending.lock().infos() } else { task.signals.pending.lock().infos() }
}

/// Whether the running task is about to end by a signal that nobody handles: what interrupts even a killable sleep of Linux's.
pub fn is_fatal_pending(ctx: &Ctx) -> bool {
    let (task, process) = (ctx.task, &ctx.task.process);
    if task.dying.load(Ordering::SeqCst) {
        return true;
    }
    // A tracer may have other plans.
    if task.trace.is_traced() || process.signals.unkillable.load(Ordering::SeqCst) {
        return false;
    }
    let handlers = process.handlers.lock().clone();
    let ends =
        |sig: u8| handlers.get(sig).handler == SigAction::DEFAULT && default_action(sig) == DefaultAction::Terminate;
    (pending(task) - task.signals.blocked()).iter().any(ends)
}

/// The signals that wait for the running task, blocked or not (`sigpending(2)`, polls of a signalfd).
pub fn pending(task: &Task) -> SigSet {
    task.signals.pending() | task.process.signals.pending()
}
