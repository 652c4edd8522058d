//! POSIX timers (`timer_create(2)`).

use super::interval::forward;
use super::{Alarm, Clock, IntervalSetting, ProcessTimers, Ticket};
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::{Ctx, Kernel};
use crate::signal::{self, SigDetail, SigInfo, TimerSignal, code};
use crate::sync::Mutex;
use crate::task::{Process, Task};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};

/// What an expiry does.
#[derive(Clone)]
pub enum Notify {
    /// Nothing: the timer is read.
    None,
    /// A signal to the process.
    Process,
    /// A signal to one thread.
    Thread(Weak<Task>),
}

/// A timer of a process.
pub struct PosixTimer {
    id: i32,
    clock: Clock,
    notify: Notify,
    signo: u8,
    value: u64,
    process: Weak<Process>,
    me: Weak<PosixTimer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What `at` goes by; a relative setting of a real-time timer is not moved by setting the clock.
    base: Option<Clock>,
    /// When it expires next; `None` while it is not running.
    at: Option<u64>,
    interval: u64,
    ticket: Option<Ticket>,
    /// Its signal is in a queue.
    queued: bool,
    /// Expiries since the queued signal was sent.
    overrun: u64,
    /// The overrun of the signal taken last (`timer_getoverrun(2)`).
    last_overrun: i32,
}

/// Stands for the timer's signal in a queue: taken, or dropped with it.
struct Pending {
    timer: Weak<PosixTimer>,
    taken: AtomicBool,
}

impl Pending {
    fn leave(&self) -> i32 {
        let Some(timer) = self.timer.upgrade() else { return 0 };
        let mut state = timer.state.lock();
        state.queued = false;
        core::mem::take(&mut state.overrun).min(i32::MAX as u64) as i32
    }
}

impl TimerSignal for Pending {
    fn taken(&self) -> i32 {
        self.taken.store(true, Ordering::SeqCst);
        let overrun = self.leave();
        if let Some(timer) = self.timer.upgrade() {
            timer.state.lock().last_overrun = overrun;
        }
        overrun
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.taken.load(Ordering::SeqCst) {
            self.leave();
        }
    }
}

impl PosixTimer {
    /// Time left and interval (`timer_gettime(2)`).
    pub fn get(&self, kernel: &Kernel) -> IntervalSetting {
        let state = self.state.lock();
        let mut setting = IntervalSetting { value: 0, interval: state.interval };
        if let (Some(mut at), Some(base)) = (state.at, &state.base) {
            let now = base.now(kernel).unwrap_or(at);
            let silent = matches!(self.notify, Notify::None);
            if at <= now && state.interval > 0 {
                at = forward(at, state.interval, now).0;
            }
            // One that was not served yet still counts as running; one that tells nobody is over.
            setting.value = if at > now { at - now } else { u64::from(!silent) };
        }
        setting
    }

    /// Starts or stops the timer and returns its setting before (`timer_settime(2)`).
    pub fn set(&self, ctx: &Ctx, absolute: bool, new: IntervalSetting) -> Result<IntervalSetting> {
        let old = self.get(ctx.kernel);
        let relative_base = if self.clock.is_cpu() { self.clock.clone() } else { Clock::Host(1) };
        let base = if absolute { self.clock.clone() } else { relative_base };
        let now = base.now(ctx.kernel)?;
        let mut state = self.state.lock();
        if let Some(ticket) = state.ticket.take() {
            ctx.kernel.time.disarm(ticket);
        }
        state.interval = new.interval;
        state.overrun = 0;
        state.last_overrun = 0;
        state.at = (new.value > 0).then_some(if absolute { new.value } else { now.saturating_add(new.value) });
        state.base = Some(base);
        if state.at.is_none() || matches!(self.notify, Notify::None) {
            return Ok(old);
        }
        if self.clock.is_cpu() {
            drop(state);
            if let (Some(process), Some(me)) = (self.process.upgrade(), self.me.upgrade()) {
                process.timers.cpu_watch(&process).add(ctx.kernel, &me);
            }
        } else {
            self.arm(ctx.kernel, &mut state);
        }
        Ok(old)
    }

    /// Stops the timer for good.
    pub fn disarm(&self) {
        let mut state = self.state.lock();
        state.at = None;
        state.ticket = None;
    }

    /// The overrun of the signal taken last.
    pub fn last_overrun(&self) -> i32 {
        self.state.lock().last_overrun
    }

    fn arm(&self, kernel: &Kernel, state: &mut State) {
        if let (Some(at), Some(base)) = (state.at, &state.base) {
            state.ticket = Some(kernel.time.arm(base.to_monotonic(at), self.me.clone()));
        }
    }

    /// Looks at a timer on a CPU clock; returns the time left.
    pub(super) fn look(&self, kernel: &Arc<Kernel>) -> Option<u64> {
        let now = self.clock.now(kernel).ok()?;
        let due = self.state.lock().at? <= now;
        if due {
            self.fire(kernel, now, false);
        }
        Some(self.state.lock().at?.saturating_sub(now))
    }

    /// The timer expires at `now`: it goes on or stops, and its signal is sent unless it is still queued.
    fn fire(&self, kernel: &Arc<Kernel>, now: u64, arm: bool) {
        let mut state = self.state.lock();
        let Some(at) = state.at else { return };
        let mut expiries = 1;
        if state.interval > 0 {
            let (next, missed) = forward(at, state.interval, now);
            expiries += missed;
            state.at = Some(next);
            if arm {
                self.arm(kernel, &mut state);
            }
        } else {
            state.at = None;
        }
        if state.queued {
            state.overrun = state.overrun.saturating_add(expiries);
            return;
        }
        state.queued = true;
        state.overrun = expiries - 1;
        drop(state);
        let detail = SigDetail::Timer { id: self.id, overrun: 0, value: self.value };
        let info = SigInfo { signo: self.signo, code: code::SI_TIMER, errno: 0, detail };
        let pending = Arc::new(Pending { timer: self.me.clone(), taken: AtomicBool::new(false) });
        let thread = match &self.notify {
            Notify::Thread(thread) => match thread.upgrade() {
                Some(thread) => Some(thread),
                None => return,
            },
            _ => None,
        };
        if let Some(process) = self.process.upgrade() {
            // Refused only when the target has ended.
            let _ = signal::send_timer(kernel, &process, thread.as_ref(), info, pending);
        }
    }
}

impl Alarm for PosixTimer {
    fn expire(&self, kernel: &Arc<Kernel>, ticket: Ticket) {
        let mut state = self.state.lock();
        if state.ticket != Some(ticket) {
            return;
        }
        state.ticket = None;
        let (Some(at), Some(base)) = (state.at, state.base.clone()) else { return };
        let now = base.now(kernel).unwrap_or_else(|_| host::monotonic_ns());
        if now < at {
            // The host's clock was set back.
            self.arm(kernel, &mut state);
            return;
        }
        drop(state);
        self.fire(kernel, now, true);
    }
}

impl ProcessTimers {
    /// Adds a timer of the running task's process; `value` of `None` stands for the timer's id.
    pub fn create(&self, ctx: &Ctx, clock: Clock, notify: Notify, signo: u8, value: Option<u64>) -> i32 {
        let mut posix = self.posix.lock();
        let (timers, next) = &mut *posix;
        let mut id = *next;
        while timers.contains_key(&id) {
            id = id.wrapping_add(1).max(0);
        }
        *next = id.wrapping_add(1).max(0);
        let timer = Arc::new_cyclic(|me| PosixTimer {
            id,
            clock,
            notify,
            signo,
            value: value.unwrap_or(id as u64),
            process: Arc::downgrade(&ctx.task.process),
            me: me.clone(),
            state: Mutex::default(),
        });
        timers.insert(id, timer);
        id
    }

    /// A timer by its id; `EINVAL` if there is none.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>> {
        self.posix.lock().0.get(&id).cloned().ok_or(Errno::EINVAL.into())
    }

    /// Deletes a timer; `EINVAL` if there is none.
    pub fn delete(&self, id: i32) -> Result<()> {
        let timer = self.posix.lock().0.remove(&id).ok_or(Errno::EINVAL)?;
        timer.disarm();
        Ok(())
    }
}
