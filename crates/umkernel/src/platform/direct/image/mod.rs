//! What the kernel image has beside the core: it is compiled for that program only.

mod arena;
pub mod boot;
mod client;
mod entry;
mod filter;
mod heap;
mod memory;
mod platform;
mod signal;
mod slot;
mod spawn;
mod text;
mod trampoline;
mod traps;
pub(crate) mod vdso;
mod view;
mod xstate;
mod zygote;

pub(crate) use entry::{direct_hostcall as hostcall, sleep};
pub use heap::ArenaAllocator;

use super::{handover, layout, messages};
