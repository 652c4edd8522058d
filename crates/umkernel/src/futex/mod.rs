//! Futexes (`futex(2)`).

/// Sleepers by futex key.
#[derive(Default)]
pub struct FutexTable {}
