//! Clocks and timers (`time(7)`).

mod value;

pub use value::{NSEC_PER_SEC, NSEC_PER_TICK, TimeVal, read_timespec, read_timeval, timespec, timeval};

/// The timers that belong to a process.
#[derive(Default)]
pub struct ProcessTimers {}

/// The machine's timers.
#[derive(Default)]
pub struct TimeKeeper {}

impl ProcessTimers {
    /// exec.
    pub fn reset_for_exec(&self, _kernel: &crate::Kernel) {}
    /// exit.
    pub fn reset_for_exit(&self, _kernel: &crate::Kernel) {}
}
