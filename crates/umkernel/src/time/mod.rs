//! Clocks and timers (`time(7)`).
//!
//! Sleeping calls sleep on their own deadlines. What is to happen later without a task that waits for it is an
//! [`Alarm`] of the [`TimeKeeper`], whose queue one kernel thread serves ([`run`]). Processor time is watched by looking
//! from time to time (`cpu`).

mod clock;
mod cpu;
mod interval;
mod keeper;
mod posix;
mod sleep;
mod timerfd;
mod value;

pub use clock::Clock;
pub use cpu::CpuWatch;
pub use interval::{IntervalKind, IntervalSetting};
pub use keeper::{Alarm, Ticket, TimeKeeper, run};
pub use posix::{Notify, PosixTimer};
pub use sleep::{sleep_for, sleep_until};
pub(crate) use timerfd::create as create_timerfd;
pub use timerfd::{TimerFd, TimerFdFlags};
pub use value::{NSEC_PER_SEC, NSEC_PER_TICK, TimeVal, read_timespec, read_timeval, timespec, timeval};

use crate::kernel::Kernel;
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

/// The timers that belong to a process.
#[derive(Default)]
pub struct ProcessTimers {
    /// `ITIMER_REAL`, once it was set.
    real: Mutex<Option<Arc<interval::RealTimer>>>,
    /// What looks at the process's processor time, once there is a reason.
    cpu: Mutex<Option<Arc<CpuWatch>>>,
    /// `timer_create(2)`: by id, and the id given last.
    posix: Mutex<(BTreeMap<i32, Arc<PosixTimer>>, i32)>,
}

impl ProcessTimers {
    /// exec deletes POSIX timers; interval timers go on.
    pub fn reset_for_exec(&self, _kernel: &Kernel) {
        let timers = core::mem::take(&mut self.posix.lock().0);
        timers.values().for_each(|t| t.disarm());
    }

    /// The end of the process deletes all.
    pub fn reset_for_exit(&self, kernel: &Kernel) {
        self.reset_for_exec(kernel);
        let real = self.real.lock().take();
        let cpu = self.cpu.lock().take();
        drop((real, cpu));
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
