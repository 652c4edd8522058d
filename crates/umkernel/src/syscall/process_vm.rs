//! Copies between the memory of two processes (`process_vm_readv(2)`).

use super::file_io::read_iovec;
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::AddressSpace;
use crate::ptrace;
use crate::task::Pid;
use alloc::sync::Arc;
use alloc::vec;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(310, "process_vm_readv", Family::Process, ARGS, Support::Full, |ctx, args, _| {
        copy(ctx, args, Way::Here)
    }),
    Entry::new(311, "process_vm_writev", Family::Process, ARGS, Support::Full, |ctx, args, _| {
        copy(ctx, args, Way::There)
    }),
];

const ARGS: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Ptr, Arg::Uint, Arg::Hex];

/// Bytes that are on their way at once.
const CHUNK: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Here,
    There,
}

fn space_of(ctx: &Ctx, pid: Pid) -> Result<Arc<AddressSpace>> {
    let task = ctx.kernel.tasks.task(pid).ok_or(Errno::ESRCH)?;
    ptrace::may_access(ctx, &task)?;
    task.mm().map_err(|_| Errno::ESRCH.into())
}

fn copy(ctx: &Ctx, args: &[u64; 6], way: Way) -> Result<usize> {
    let [pid, local, local_count, remote, remote_count, flags] = *args;
    if flags != 0 {
        bail!(EINVAL, "flags");
    }
    let local = read_iovec(ctx, local, local_count as usize)?;
    if local.iter().all(|(_, len)| *len == 0) {
        return Ok(0);
    }
    let remote = read_iovec(ctx, remote, remote_count as usize)?;
    let space = space_of(ctx, pid as Pid)?;
    let platform = &ctx.kernel.platform;
    let mut buffer = vec![0; CHUNK];
    let (mut here, mut there) = (local.into_iter(), remote.into_iter());
    let (mut ours, mut theirs) = ((0, 0), (0, 0));
    let mut done = 0;
    loop {
        // What is left of the ranges that are at hand, or the next ones.
        while ours.1 == 0 {
            let Some(next) = here.next() else { return Ok(done) };
            ours = next;
        }
        while theirs.1 == 0 {
            let Some(next) = there.next() else { return Ok(done) };
            theirs = next;
        }
        let want = ours.1.min(theirs.1).min(CHUNK);
        let piece = &mut buffer[..want];
        let moved = match way {
            Way::Here => {
                let got = platform.read_memory(&space, theirs.0, piece);
                ctx.write_user(ours.0, &piece[..got]).map(|()| got)
            }
            Way::There => ctx.read_user(ours.0, piece).map(|()| platform.write_memory(&space, theirs.0, piece)),
        };
        // What was copied counts, and what cannot be ends it.
        match moved {
            Ok(0) if done == 0 => bail!(EFAULT),
            Err(e) if done == 0 => return Err(e),
            Ok(0) | Err(_) => return Ok(done),
            Ok(moved) => {
                done += moved;
                for range in [&mut ours, &mut theirs] {
                    *range = (range.0 + moved as u64, range.1 - moved);
                }
                if moved < want {
                    return Ok(done);
                }
            }
        }
    }
}
