//! The system-call table and its dispatch. Handlers live in one file per family; each parses its arguments and calls
//! the subsystem that does the work.

mod aio;
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
mod ipc;
mod memory;
mod mlock;
mod mount;
mod mount_fd;
mod mqueue;
pub mod names;
mod namespaces;
mod open;
mod pidfd;
mod poll;
mod prctl;
mod process;
mod process_vm;
mod ptrace;
mod sched;
mod seccomp;
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

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::PAGE_SIZE;
use crate::platform::TrapFrame;
use crate::{profile, trace};
use alloc::vec;

/// A handler: the arguments as the registers hold them, and the frame for the few calls that change it.
pub type Handler = fn(&Ctx, &[u64; 6], &mut TrapFrame) -> Result<usize>;

/// The size that a caller gives a structure which later kernels may make longer; errors as of [`read_extensible`].
fn check_extensible(size: u64, least: u64) -> Result<()> {
    if size > PAGE_SIZE {
        bail!(E2BIG);
    }
    if size < least {
        bail!(EINVAL, "shorter than the structure's first version");
    }
    Ok(())
}

/// Reads a structure that later kernels may make longer, as words; those that the caller's version lacks are 0
/// (`copy_struct_from_user` of Linux). `least`: bytes of its first version.
///
/// # Errors
/// `EINVAL` for less than the first version; `E2BIG` for more than a page, or fields that are not known and not 0; `EFAULT`.
fn read_extensible<const KNOWN: usize>(ctx: &Ctx, addr: u64, size: u64, least: u64) -> Result<[u64; KNOWN]> {
    const WORD: usize = size_of::<u64>();
    check_extensible(size, least)?;
    let mut bytes = vec![0; (size as usize).max(KNOWN * WORD)];
    ctx.read_user(addr, &mut bytes[..size as usize])?;
    if bytes[KNOWN * WORD..].iter().any(|byte| *byte != 0) {
        bail!(E2BIG, "fields of a later version");
    }
    let mut words = [0; KNOWN];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    Ok(words)
}

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
