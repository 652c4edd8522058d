//! System calls that the kernel does not have, and kinds of namespaces.

use super::names;
use crate::kernel::Ctx;
use crate::log::Level;
use crate::task::CloneFlags;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Kinds of namespaces that Linux may have.
const NAMESPACES: [(u64, &str); 5] =
    [(0x80, "time"), (0x200_0000, "cgroup"), (0x1000_0000, "user"), (0x2000_0000, "PID"), (0x4000_0000, "network")];

/// Which calls were missed: each is logged once.
#[derive(Default)]
pub struct UnknownCalls {
    seen: [AtomicU64; 8],
    /// A number beyond all that Linux uses was called.
    beyond: AtomicU64,
    /// Namespaces that were asked for.
    namespaces: AtomicU64,
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
        tell(ctx, &format!("system call {nr} ({name}) is not built: ENOSYS"));
    }

    /// Notes that the running task asked for namespaces of kinds that are not built; a message at the first time.
    pub fn note_namespaces(&self, ctx: &Ctx, kinds: CloneFlags) {
        let kinds = kinds.bits();
        if kinds & !self.namespaces.fetch_or(kinds, Ordering::Relaxed) == 0 {
            return;
        }
        let named: Vec<&str> = NAMESPACES.iter().filter(|(bit, _)| kinds & bit != 0).map(|(_, name)| *name).collect();
        tell(ctx, &format!("{} namespaces are not built: EINVAL", named.join(" and ")));
    }
}

/// Logs what the running task has asked for.
fn tell(ctx: &Ctx, what: &str) {
    let comm = *ctx.task.comm.lock();
    let comm = String::from_utf8_lossy(comm.as_bytes());
    let pid = ctx.task.process.pid;
    ctx.kernel.message(Level::Warning, format!("umkernel: {what} (pid {pid} {comm})"));
}
