//! `timerfd_create(2)`: a timer to read and to wait for.

use super::interval::forward;
use super::{Alarm, Clock, IntervalSetting, Ticket};
use crate::bail;
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::mm::IoDst;
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::any::Any;

bitflags::bitflags! {
    /// Flags of `timerfd_create(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TimerFdFlags: u32 {
        /// As `O_NONBLOCK`.
        const NONBLOCK = 0o4000;
        /// As `O_CLOEXEC`.
        const CLOEXEC = 0o2000000;
    }
}

/// An open timer.
pub struct TimerFd(Arc<Inner>);

struct Inner {
    clock: Clock,
    me: Weak<Inner>,
    state: Mutex<State>,
    changed: Arc<WaitQueue>,
}

#[derive(Default)]
struct State {
    /// What `at` goes by.
    base: Option<Clock>,
    at: Option<u64>,
    interval: u64,
    ticket: Option<Ticket>,
    /// Expiries that nobody has read.
    ticks: u64,
}

/// A new timer, not running.
pub(crate) fn create(ctx: &Ctx, clock: Clock, flags: TimerFdFlags) -> Arc<File> {
    let inner = Arc::new_cyclic(|me| Inner { clock, me: me.clone(), state: Mutex::default(), changed: Arc::default() });
    let mut open = OpenFlags::RDWR;
    open.set(OpenFlags::NONBLOCK, flags.contains(TimerFdFlags::NONBLOCK));
    ctx.kernel.vfs.anon_file("anon_inode:[timerfd]", Box::new(TimerFd(inner)), open)
}

impl Inner {
    /// Counts the expiries up to now.
    fn update(&self, kernel: &Kernel, state: &mut State) {
        let (Some(at), Some(base)) = (state.at, &state.base) else { return };
        let now = base.now(kernel).unwrap_or(0);
        if now < at {
            return;
        }
        let missed;
        (state.at, missed) = match state.interval {
            0 => (None, 0),
            interval => {
                let (next, missed) = forward(at, interval, now);
                (Some(next), missed)
            }
        };
        state.ticks = state.ticks.saturating_add(1 + missed);
    }

    fn arm(&self, kernel: &Kernel, state: &mut State) {
        if let Some(ticket) = state.ticket.take() {
            kernel.time.disarm(ticket);
        }
        if let (Some(at), Some(base)) = (state.at, &state.base) {
            state.ticket = Some(kernel.time.arm(base.to_monotonic(at), self.me.clone()));
        }
    }

    fn take(&self, kernel: &Kernel) -> Option<u64> {
        let mut state = self.state.lock();
        self.update(kernel, &mut state);
        Some(core::mem::take(&mut state.ticks)).filter(|&ticks| ticks > 0)
    }
}

impl Alarm for Inner {
    fn expire(&self, kernel: &Arc<Kernel>, ticket: Ticket) {
        let mut state = self.state.lock();
        if state.ticket != Some(ticket) {
            return;
        }
        state.ticket = None;
        self.update(kernel, &mut state);
        self.arm(kernel, &mut state);
        drop(state);
        self.changed.wake_all();
    }
}

impl TimerFd {
    /// Time left and interval (`timerfd_gettime(2)`).
    pub fn get(&self, kernel: &Kernel) -> IntervalSetting {
        let mut state = self.0.state.lock();
        self.0.update(kernel, &mut state);
        let now = state.base.as_ref().and_then(|base| base.now(kernel).ok()).unwrap_or(0);
        IntervalSetting { value: state.at.map_or(0, |at| at.saturating_sub(now)), interval: state.interval }
    }

    /// Starts or stops the timer and returns its setting before (`timerfd_settime(2)`).
    pub fn set(&self, kernel: &Kernel, absolute: bool, new: IntervalSetting) -> Result<IntervalSetting> {
        let old = self.get(kernel);
        let base = if absolute { self.0.clock.clone() } else { Clock::Host(1) };
        let now = base.now(kernel)?;
        let mut state = self.0.state.lock();
        state.ticks = 0;
        state.interval = new.interval;
        state.at = (new.value > 0).then_some(if absolute { new.value } else { now.saturating_add(new.value) });
        state.base = Some(base);
        self.0.arm(kernel, &mut state);
        Ok(old)
    }
}

impl FileOps for TimerFd {
    fn read(&self, ctx: &Ctx, file: &File, _offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        if dst.remaining() < 8 {
            bail!(EINVAL, "a number of expiries is 8 bytes");
        }
        let ticks = match self.0.take(ctx.kernel) {
            Some(ticks) => ticks,
            None if file.nonblocking() => bail!(EAGAIN),
            None => ctx.wait_for(&self.0.changed, || self.0.take(ctx.kernel))?,
        };
        if dst.put(&ticks.to_le_bytes())? < 8 {
            bail!(EFAULT);
        }
        Ok(8)
    }

    fn poll(&self, ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.0.changed);
        }
        let mut state = self.0.state.lock();
        self.0.update(ctx.kernel, &mut state);
        if state.ticks > 0 { PollEvents::IN } else { PollEvents::empty() }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
