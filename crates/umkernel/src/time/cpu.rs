//! Timers that go by processor time: `ITIMER_VIRTUAL`, `ITIMER_PROF`, POSIX timers on CPU clocks, `RLIMIT_CPU`.
//!
//! The host accounts for the processor; the kernel looks at the accounts. How soon it looks again depends on how much
//! time is left and whether the process is using any.

use super::interval::forward;
use super::{Alarm, IntervalKind, IntervalSetting, NSEC_PER_SEC, PosixTimer, Ticket, TimeKeeper};
use crate::host;
use crate::kernel::Kernel;
use crate::signal::{self, SigInfo, number};
use crate::sync::Mutex;
use crate::task::{Process, Rlimit, Rusage, WaitStatus};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::general::RLIMIT_CPU;

/// Nanoseconds between two looks while the process uses its processor, at least.
const BUSY_LOOK: u64 = 1_000_000;
/// Nanoseconds between two looks while it does not.
const IDLE_LOOK: u64 = 20_000_000;

/// What looks at the processor time of a process.
pub struct CpuWatch {
    process: Weak<Process>,
    me: Weak<CpuWatch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ticket: Option<Ticket>,
    /// Processor time at the last look, nanoseconds.
    seen: u64,
    user: Countdown,
    all: Countdown,
    posix: Vec<Weak<PosixTimer>>,
}

/// A timer by processor time.
#[derive(Clone, Copy, Default)]
struct Countdown {
    /// Processor time at which it expires; 0 while it is not running.
    at: u64,
    interval: u64,
}

impl Countdown {
    /// True if it has expired by `used`; it then goes on or stops.
    fn expired(&mut self, used: u64) -> bool {
        if self.at == 0 || used < self.at {
            return false;
        }
        self.at = if self.interval > 0 { forward(self.at, self.interval, used).0 } else { 0 };
        true
    }

    fn left(&self, used: u64) -> Option<u64> {
        (self.at != 0).then(|| self.at.saturating_sub(used))
    }
}

impl CpuWatch {
    pub(super) fn new(process: &Arc<Process>) -> Arc<CpuWatch> {
        let process = Arc::downgrade(process);
        Arc::new_cyclic(|me| CpuWatch { process, me: me.clone(), state: Mutex::default() })
    }

    pub(super) fn interval(&self, kernel: &Kernel, kind: IntervalKind) -> IntervalSetting {
        let Some(process) = self.process.upgrade() else { return IntervalSetting::default() };
        let used = kernel.process_times(&process);
        let state = self.state.lock();
        let (timer, used) = match kind {
            IntervalKind::Virtual => (state.user, used.utime),
            _ => (state.all, used.utime + used.stime),
        };
        IntervalSetting { value: timer.left(used).map_or(0, |left| left.max(1000)), interval: timer.interval }
    }

    pub(super) fn set_interval(&self, kernel: &Kernel, kind: IntervalKind, new: IntervalSetting) {
        let Some(process) = self.process.upgrade() else { return };
        let used = kernel.process_times(&process);
        let mut state = self.state.lock();
        let (timer, used) = match kind {
            IntervalKind::Virtual => (&mut state.user, used.utime),
            _ => (&mut state.all, used.utime + used.stime),
        };
        timer.interval = if new.value == 0 { 0 } else { new.interval };
        timer.at = if new.value == 0 { 0 } else { used.saturating_add(new.value) };
        self.look_soon(kernel, &mut state);
    }

    /// Watches a POSIX timer on a CPU clock from now on.
    pub(super) fn add(&self, kernel: &Kernel, timer: &Arc<PosixTimer>) {
        let mut state = self.state.lock();
        state.posix.retain(|t| t.upgrade().is_some_and(|t| !Arc::ptr_eq(&t, timer)));
        state.posix.push(Arc::downgrade(timer));
        self.look_soon(kernel, &mut state);
    }

    /// Looks as soon as possible, and from then on as often as needed.
    fn look_soon(&self, kernel: &Kernel, state: &mut State) {
        if let Some(ticket) = state.ticket.take() {
            kernel.time.disarm(ticket);
        }
        state.ticket = Some(kernel.time.arm(host::monotonic_ns(), self.me.clone()));
    }
}

impl Alarm for CpuWatch {
    fn expire(&self, kernel: &Arc<Kernel>, ticket: Ticket) {
        let Some(process) = self.process.upgrade() else { return };
        let used = kernel.process_times(&process);
        let all = used.utime + used.stime;
        let limit_left = check_limit(kernel, &process, &used);
        let mut signals = Vec::new();
        let posix: Vec<Arc<PosixTimer>> = {
            let mut state = self.state.lock();
            if state.ticket != Some(ticket) {
                return;
            }
            state.ticket = None;
            if state.user.expired(used.utime) {
                signals.push(number::SIGVTALRM);
            }
            if state.all.expired(all) {
                signals.push(number::SIGPROF);
            }
            state.posix.retain(|t| t.strong_count() > 0);
            state.posix.iter().filter_map(Weak::upgrade).collect()
        };
        for signo in signals {
            // A process that has ended needs no signal.
            let _ = signal::send_to_process(kernel, &process, SigInfo::kernel(signo));
        }
        let posix_left = posix.iter().filter_map(|t| t.look(kernel)).min();

        let mut state = self.state.lock();
        let busy = all != state.seen;
        state.seen = all;
        let left =
            [state.user.left(used.utime), state.all.left(all), limit_left, posix_left].into_iter().flatten().min();
        if let (Some(left), None) = (left, state.ticket) {
            let threads = process.inner.lock().threads.len().clamp(1, kernel.config.cpus.max(1) as usize);
            let pause = (left / threads as u64).max(if busy { BUSY_LOOK } else { IDLE_LOOK });
            state.ticket = Some(kernel.time.arm(host::monotonic_ns().saturating_add(pause), self.me.clone()));
        }
    }
}

/// Sends what `RLIMIT_CPU` asks for; returns how much time is left until it asks for more, `None` without a limit.
fn check_limit(kernel: &Kernel, process: &Arc<Process>, used: &Rusage) -> Option<u64> {
    const RESOURCE: usize = RLIMIT_CPU as usize;
    let total = used.utime + used.stime;
    let seconds = total / NSEC_PER_SEC;
    let mut limits = process.rlimits.lock();
    let limit = limits.get_mut(RESOURCE)?;
    if limit.max != Rlimit::INFINITY && seconds >= limit.max {
        drop(limits);
        let mut inner = process.inner.lock();
        inner.begin_exit(kernel, WaitStatus::Signaled(number::SIGKILL, false), None);
        return None;
    }
    let exceeded = limit.cur != Rlimit::INFINITY && seconds >= limit.cur.max(1);
    if exceeded {
        // A warning each second, as Linux does it: by raising the soft limit.
        limit.cur = seconds + 1;
    }
    let next = limit.cur.max(1).min(limit.max);
    drop(limits);
    if exceeded {
        // A process that has ended needs no signal.
        let _ = signal::send_to_process(kernel, process, SigInfo::kernel(number::SIGXCPU));
    }
    (next != Rlimit::INFINITY).then(|| next.saturating_mul(NSEC_PER_SEC).saturating_sub(total))
}

impl TimeKeeper {
    /// To be called when the limits of a process were set or inherited: watches its processor time if that is limited.
    pub fn limits_changed(&self, kernel: &Kernel, process: &Arc<Process>) {
        if process.limit(RLIMIT_CPU as usize) != Rlimit::INFINITY {
            let watch = process.timers.cpu_watch(process);
            let mut state = watch.state.lock();
            watch.look_soon(kernel, &mut state);
        }
    }
}
