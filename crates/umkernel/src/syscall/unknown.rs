//! System calls that the kernel does not have.

use super::names;
use crate::kernel::Ctx;
use crate::log::Level;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

/// Which calls were missed: each is logged once.
#[derive(Default)]
pub struct UnknownCalls {
    seen: [AtomicU64; 8],
    /// A number beyond all that Linux uses was called.
    beyond: AtomicU64,
}

impl UnknownCalls {
    /// Notes that the running task made call `nr`; a message at the first time.
    pub fn note(&self, ctx: &Ctx, nr: u64) {
        let word = self.seen.get((nr / 64) as usize).unwrap_or(&self.beyond);
        let bit = 1 << (nr % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        let name = names::name(nr).unwrap_or("no call of Linux");
        let comm = *ctx.task.comm.lock();
        let comm = String::from_utf8_lossy(comm.as_bytes());
        let pid = ctx.task.process.pid;
        let text = format!("umkernel: system call {nr} ({name}) is not built: ENOSYS (pid {pid} {comm})");
        ctx.kernel.message(Level::Warning, text);
    }
}
