//! Futexes (`futex(2)`).

/// Sleepers by futex key.
#[derive(Default)]
pub struct FutexTable {}

/// Robust list.
pub fn exit_robust_list(_ctx: &crate::Ctx) {}
/// Wakes.
pub fn wake_address(_ctx: &crate::Ctx, _addr: u64, _count: u32) {}
