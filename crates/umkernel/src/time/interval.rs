//! Interval timers (`setitimer(2)`).

use super::{Alarm, CpuWatch, ProcessTimers, Ticket};
use crate::host;
use crate::kernel::{Ctx, Kernel};
use crate::signal::{self, SigInfo, number};
use crate::sync::Mutex;
use crate::task::Process;
use alloc::sync::{Arc, Weak};

/// Which interval timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalKind {
    /// Real time; sends SIGALRM.
    Real,
    /// Processor time in guest code; sends SIGVTALRM.
    Virtual,
    /// Processor time in all; sends SIGPROF.
    Prof,
}

/// A timer's setting, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalSetting {
    /// Time to the next expiry; 0 when it is not running.
    pub value: u64,
    /// Time from one expiry to the next; 0 to stop after one.
    pub interval: u64,
}

/// `ITIMER_REAL` of a process.
pub(super) struct RealTimer {
    process: Weak<Process>,
    me: Weak<RealTimer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ticket: Option<Ticket>,
    /// CLOCK_MONOTONIC, nanoseconds.
    at: u64,
    interval: u64,
}

impl RealTimer {
    fn new(process: &Arc<Process>) -> Arc<RealTimer> {
        let process = Arc::downgrade(process);
        Arc::new_cyclic(|me| RealTimer { process, me: me.clone(), state: Mutex::default() })
    }

    fn get(&self) -> IntervalSetting {
        let state = self.state.lock();
        let value = match state.ticket {
            // Due but not served yet: not stopped.
            Some(_) => state.at.saturating_sub(host::monotonic_ns()).max(1000),
            None => 0,
        };
        IntervalSetting { value, interval: state.interval }
    }

    fn set(&self, kernel: &Kernel, new: IntervalSetting) {
        let mut state = self.state.lock();
        if let Some(ticket) = state.ticket.take() {
            kernel.time.disarm(ticket);
        }
        state.interval = if new.value == 0 { 0 } else { new.interval };
        if new.value > 0 {
            state.at = host::monotonic_ns().saturating_add(new.value);
            state.ticket = Some(kernel.time.arm(state.at, self.me.clone()));
        }
    }
}

impl Alarm for RealTimer {
    fn expire(&self, kernel: &Arc<Kernel>, ticket: Ticket) {
        let mut state = self.state.lock();
        if state.ticket != Some(ticket) {
            return;
        }
        state.ticket = None;
        if state.interval > 0 {
            state.at = forward(state.at, state.interval, host::monotonic_ns()).0;
            state.ticket = Some(kernel.time.arm(state.at, self.me.clone()));
        }
        drop(state);
        if let Some(process) = self.process.upgrade() {
            // A process that has ended needs no alarm.
            let _ = signal::send_to_process(kernel, &process, SigInfo::kernel(number::SIGALRM));
        }
    }
}

/// The first time after `now` that lies whole intervals behind `at`, and how many expiries lie between.
pub(super) fn forward(at: u64, interval: u64, now: u64) -> (u64, u64) {
    let missed = now.saturating_sub(at) / interval;
    (at.saturating_add(interval.saturating_mul(missed + 1)), missed)
}

impl ProcessTimers {
    /// What looks at the processor time of `process`, whose timers these are.
    pub(super) fn cpu_watch(&self, process: &Arc<Process>) -> Arc<CpuWatch> {
        self.cpu.lock().get_or_insert_with(|| CpuWatch::new(process)).clone()
    }

    /// Reads a timer of the process (`getitimer(2)`).
    pub fn interval(&self, ctx: &Ctx, kind: IntervalKind) -> IntervalSetting {
        match kind {
            IntervalKind::Real => self.real.lock().as_ref().map(|t| t.get()).unwrap_or_default(),
            _ => self.cpu.lock().clone().map(|w| w.interval(ctx.kernel, kind)).unwrap_or_default(),
        }
    }

    /// Sets a timer of the running task's process and returns its setting before (`setitimer(2)`).
    pub fn set_interval(&self, ctx: &Ctx, kind: IntervalKind, new: IntervalSetting) -> IntervalSetting {
        let old = self.interval(ctx, kind);
        let process = &ctx.task.process;
        match kind {
            IntervalKind::Real => {
                let timer = self.real.lock().get_or_insert_with(|| RealTimer::new(process)).clone();
                timer.set(ctx.kernel, new);
            }
            _ if new.value == 0 && self.cpu.lock().is_none() => {}
            _ => self.cpu_watch(process).set_interval(ctx.kernel, kind, new),
        }
        old
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::forward;

    #[test]
    fn missed_expiries_are_counted_and_skipped() {
        assert_eq!(forward(100, 10, 100), (110, 0));
        assert_eq!(forward(100, 10, 109), (110, 0));
        assert_eq!(forward(100, 10, 110), (120, 1));
        assert_eq!(forward(100, 10, 135), (140, 3));
    }
}
