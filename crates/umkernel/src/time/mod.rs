//! Clocks and timers (`time(7)`).

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
