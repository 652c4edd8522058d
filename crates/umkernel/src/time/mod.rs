//! Clocks and timers (`time(7)`).

/// The timers that belong to a process.
#[derive(Default)]
pub struct ProcessTimers {}

/// The machine's timers.
#[derive(Default)]
pub struct TimeKeeper {}
