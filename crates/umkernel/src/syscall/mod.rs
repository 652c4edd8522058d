//! The system-call table and its dispatch. Handlers live in one file per family; each parses its arguments and calls
//! the subsystem that does the work.

mod attributes;
mod creds;
mod directory;
mod event;
mod fcntl;
mod file_copy;
mod file_io;
mod futex;
mod ids;
mod inotify;
mod ioctl;
mod memory;
mod mlock;
mod mount;
mod mount_fd;
pub mod names;
mod open;
mod pidfd;
mod poll;
mod prctl;
mod process;
mod sched;
mod signal;
mod socket;
mod stat;
mod system;
mod table;
mod time;
mod timers;
mod unknown;

pub use table::{Arg, Entry, Family, Support, entries, entry, module};
pub use unknown::UnknownCalls;

use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::{profile, trace};

/// A handler: the arguments as the registers hold them, and the frame for the few calls that change it.
pub type Handler = fn(&Ctx, &[u64; 6], &mut TrapFrame) -> Result<usize>;

/// Services the system call in `frame` and returns what goes into `rax`, or an error, which may be one of the
/// kernel-internal restart numbers.
pub fn dispatch(ctx: &Ctx, frame: &mut TrapFrame) -> Result<usize> {
    let args = frame.args();
    trace::enter(ctx, frame);
    let (nr, began) = (frame.orig_rax, profile::begin(ctx.kernel));
    let result = match entry(frame.orig_rax) {
        Some(entry) => (entry.handler)(ctx, &args, frame),
        None => {
            ctx.kernel.unknown_calls.note(ctx, frame.orig_rax);
            Err(Errno::ENOSYS.into())
        }
    };
    profile::end(ctx.kernel, nr, began, &result);
    trace::leave(ctx, frame, &result);
    result
}
