//! Signals (`signal(7)`): who has which pending, who takes them, and what that does.
//!
//! Sending ([`send`](send_to_process)) puts a signal on a thread's or a process's queue and makes a thread look;
//! a thread looks on every way back to user mode ([`deliver()`]), where default actions happen and frames for handlers
//! are built. Stops and continues are in [`job`](is_orphaned).
//!
//! All queues and the job-control state of a process change under its lock, [`crate::task::Process::inner`], in which the
//! queues' and the handlers' own locks nest. The functions here that send take that lock: callers hold none of
//! a process.

mod action;
mod altstack;
mod deliver;
mod frame;
mod info;
mod job;
pub mod number;
mod queue;
mod send;
mod set;
mod state;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;

pub use action::{SaFlags, SigAction, SigHandlers};
pub use altstack::{AltStack, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK};
pub use deliver::{deliver, return_from_handler};
pub use frame::SigContext;
pub use info::{SIGINFO_SIZE, SigDetail, SigInfo, code};
pub use job::{
    child_ended, hang_up_orphans, is_orphaned, join_stop, leave_stop, notify_parent, rejoin_stop, stopping_signal,
    take_stop, tell_tracer, thread_ended,
};
pub use number::{DefaultAction, default_action};
pub use queue::{PendingQueue, QueuedByUser, TimerSignal};
use send::force_action;
pub use send::{
    force, may_signal, raise, send_timer, send_to_all, send_to_group, send_to_process, send_to_task, sent_by,
};
pub use set::SigSet;
pub use state::{
    FaultRecord, ProcessSignals, TaskSignals, dequeue, is_fatal_pending, mark_pending, pending, queued,
    recalculate_attention, set_action, set_blocked, wait_for, with_mask,
};
