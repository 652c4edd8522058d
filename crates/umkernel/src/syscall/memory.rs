//! Memory: the mmap family.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::map::{MapRequest, flags};
use crate::mm::{MapFlags, PAGE_SIZE, Prot, TASK_SIZE, VmaKind, covers, page_up};
use crate::platform::TrapFrame;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(9, "mmap", Family::Memory, MMAP, Support::Partial("no huge pages"), sys_mmap),
    Entry::new(10, "mprotect", Family::Memory, MPROTECT, Support::Full, sys_mprotect),
    Entry::new(11, "munmap", Family::Memory, &[Arg::Ptr, Arg::Uint], Support::Full, sys_munmap),
    Entry::new(12, "brk", Family::Memory, &[Arg::Ptr], Support::Full, sys_brk),
    Entry::new(25, "mremap", Family::Memory, MREMAP, Support::Full, sys_mremap),
    Entry::new(26, "msync", Family::Memory, &[Arg::Ptr, Arg::Uint, Arg::Kind("msync_flags")], Support::Full, sys_msync),
    Entry::new(
        27,
        "mincore",
        Family::Memory,
        &[Arg::Ptr, Arg::Uint, Arg::Ptr],
        Support::Partial("all is resident"),
        sys_mincore,
    ),
    Entry::new(28, "madvise", Family::Memory, &[Arg::Ptr, Arg::Uint, Arg::Kind("madvise")], Support::Full, sys_madvise),
    Entry::new(462, "mseal", Family::Memory, &[Arg::Ptr, Arg::Uint, Arg::Hex], Support::Full, sys_mseal),
];

const MMAP: &[Arg] = &[Arg::Ptr, Arg::Uint, Arg::Kind("prot"), Arg::Kind("map_flags"), Arg::Fd, Arg::Hex];
const MPROTECT: &[Arg] = &[Arg::Ptr, Arg::Uint, Arg::Kind("prot")];
const MREMAP: &[Arg] = &[Arg::Ptr, Arg::Uint, Arg::Uint, Arg::Kind("mremap_flags"), Arg::Ptr];

/// A page-aligned range of user memory; `None` for an empty one.
fn range(addr: u64, len: u64, bad_end: Errno) -> Result<Option<(u64, u64)>> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        bail!(EINVAL, "address is not a multiple of the page size");
    }
    let end = page_up(len).and_then(|len| addr.checked_add(len)).filter(|&end| end <= TASK_SIZE).ok_or(bad_end)?;
    Ok((end > addr).then_some((addr, end)))
}

fn sys_mmap(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let anonymous = args[3] & flags::ANONYMOUS != 0;
    let file = if anonymous { None } else { Some(ctx.file(args[4] as i32)?.clone()) };
    let request = MapRequest {
        addr: args[0],
        len: args[1],
        prot: Prot::from_bits_truncate(args[2] as u32),
        flags: args[3],
        file,
        offset: if anonymous { 0 } else { args[5] },
    };
    if !args[5].is_multiple_of(PAGE_SIZE) {
        bail!(EINVAL, "offset is not a multiple of the page size");
    }
    ctx.mm()?.mmap(ctx, request).map(|addr| addr as usize)
}

fn sys_mprotect(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const PROT_SEM: u64 = 8;
    const PROT_GROWSDOWN: u64 = 0x0100_0000;
    const PROT_GROWSUP: u64 = 0x0200_0000;
    if args[2] & !(7 | PROT_SEM | PROT_GROWSDOWN | PROT_GROWSUP) != 0 {
        bail!(EINVAL, "unknown protection");
    }
    if args[2] & (PROT_GROWSDOWN | PROT_GROWSUP) == PROT_GROWSDOWN | PROT_GROWSUP {
        bail!(EINVAL, "down and up");
    }
    let Some((mut start, end)) = range(args[0], args[1], Errno::ENOMEM)? else { return Ok(0) };
    let mut inner = ctx.mm()?.inner.lock();
    if args[2] & PROT_GROWSUP != 0 {
        bail!(EINVAL, "no stack grows up on this processor");
    }
    if args[2] & PROT_GROWSDOWN != 0 {
        let Some(vma) = inner.overlapping(start, end).into_iter().next() else { bail!(ENOMEM, "not mapped") };
        if !vma.grows_down() && !matches!(vma.kind, VmaKind::Stack) {
            bail!(EINVAL, "not a stack that grows");
        }
        start = vma.start;
    }
    inner.protect(ctx, start, end, Prot::from_bits_truncate(args[2] as u32)).map(|()| 0)
}

fn sys_munmap(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    match range(args[0], args[1], Errno::EINVAL)? {
        Some((start, end)) => ctx.mm()?.unmap(ctx, start, end).map(|()| 0),
        None => bail!(EINVAL, "length is zero"),
    }
}

fn sys_brk(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    Ok(ctx.mm()?.inner.lock().set_brk(ctx, args[0]) as usize)
}

fn sys_mremap(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    ctx.mm()?.mremap(ctx, args[0], args[1], args[2], args[3], args[4]).map(|addr| addr as usize)
}

fn sys_msync(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const MS_ASYNC: u64 = 1;
    const MS_INVALIDATE: u64 = 2;
    const MS_SYNC: u64 = 4;
    if args[2] & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 || args[2] & (MS_ASYNC | MS_SYNC) == MS_ASYNC | MS_SYNC {
        bail!(EINVAL, "flags");
    }
    let Some((start, end)) = range(args[0], args[1], Errno::ENOMEM)? else { return Ok(0) };
    let vmas = ctx.mm()?.inner.lock().overlapping(start, end);
    let mut at = start;
    let mut gap = false;
    for vma in vmas {
        gap |= vma.start > at;
        at = vma.end;
        if args[2] & MS_INVALIDATE != 0 && vma.flags.contains(MapFlags::LOCKED) {
            bail!(EBUSY);
        }
        if let VmaKind::File { file, .. } = &vma.kind
            && args[2] & MS_SYNC != 0
            && vma.flags.contains(MapFlags::SHARED)
        {
            file.inode.sync(true)?;
        }
    }
    if gap || at < end { Err(Errno::ENOMEM.into()) } else { Ok(0) }
}

fn sys_mincore(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let Some((start, end)) = range(args[0], args[1], Errno::ENOMEM)? else { return Ok(0) };
    if !covers(&ctx.mm()?.inner.lock().overlapping(start, end), start, end) {
        bail!(ENOMEM, "not mapped");
    }
    let resident = [1u8; 4096];
    let pages = (end - start) / PAGE_SIZE;
    let mut done = 0;
    while done < pages {
        let n = (pages - done).min(resident.len() as u64);
        ctx.write_user(args[2] + done, &resident[..n as usize])?;
        done += n;
    }
    Ok(0)
}

fn sys_mseal(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if args[2] != 0 {
        bail!(EINVAL, "unknown flags");
    }
    if let Some((start, end)) = range(args[0], args[1], Errno::EINVAL)? {
        ctx.mm()?.seal(start, end)?;
    }
    Ok(0)
}

fn sys_madvise(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    const DONTNEED: i32 = 4;
    const FREE: i32 = 8;
    const REMOVE: i32 = 9;
    const DONTFORK: i32 = 10;
    const DOFORK: i32 = 11;
    const DONTDUMP: i32 = 16;
    const DODUMP: i32 = 17;
    const WIPEONFORK: i32 = 18;
    const KEEPONFORK: i32 = 19;
    const POPULATE_READ: i32 = 22;
    const POPULATE_WRITE: i32 = 23;
    const DONTNEED_LOCKED: i32 = 24;
    const PUNCH_HOLE_KEEP_SIZE: u32 = 3;
    let advice = args[2] as i32;
    // Those up to KEEPONFORK but for merging of equal pages, then COLD, PAGEOUT, POPULATE_READ, POPULATE_WRITE, DONTNEED_LOCKED,
    // COLLAPSE.
    if !matches!(advice, 0..=4 | 8..=11 | 14..=25) {
        bail!(EINVAL, "unknown advice");
    }
    let Some((start, end)) = range(args[0], args[1], Errno::EINVAL)? else { return Ok(0) };
    let space = ctx.mm()?;
    let mut holes = alloc::vec::Vec::new();
    let mut inner = space.inner.lock();
    let mut at = start;
    let mut gap = false;
    for vma in inner.overlapping(start, end) {
        gap |= vma.start > at;
        at = vma.end;
        let piece = vma.slice(start, end);
        let mut flags = piece.flags;
        match advice {
            DONTFORK => flags.insert(MapFlags::DONT_FORK),
            DOFORK => flags.remove(MapFlags::DONT_FORK),
            DONTDUMP => flags.insert(MapFlags::DONT_DUMP),
            DODUMP => flags.remove(MapFlags::DONT_DUMP),
            WIPEONFORK if !matches!(piece.kind, VmaKind::Anonymous | VmaKind::Heap | VmaKind::Stack) => bail!(EINVAL),
            WIPEONFORK => flags.insert(MapFlags::WIPE_ON_FORK),
            KEEPONFORK => flags.remove(MapFlags::WIPE_ON_FORK),
            DONTNEED | FREE | REMOVE if piece.flags.contains(MapFlags::LOCKED) => bail!(EINVAL, "locked"),
            REMOVE => match &piece.kind {
                VmaKind::File { file, .. } if !piece.flags.contains(MapFlags::SHARED) || !file.flags().writable() => {
                    bail!(EACCES, "not the file's own pages, or not open for writing");
                }
                VmaKind::File { .. } => {}
                _ if !piece.flags.contains(MapFlags::SHARED) => bail!(EINVAL),
                _ => {}
            },
            _ => {}
        }
        match (advice, &piece.kind) {
            (_, VmaKind::Reserved(_)) => bail!(EINVAL, "the kernel's own pages"),
            // Contents that the owner of the seal cannot write any more are not to be lost by advice either.
            (
                DONTNEED | FREE | REMOVE | DONTFORK | WIPEONFORK | DONTNEED_LOCKED,
                VmaKind::Anonymous | VmaKind::Heap,
            ) if piece.flags.contains(MapFlags::SEALED) && !piece.prot.contains(Prot::WRITE) => {
                bail!(EPERM, "sealed");
            }
            (FREE, VmaKind::File { .. } | VmaKind::Shared { .. }) => bail!(EINVAL, "not private anonymous memory"),
            // What changes content or what a child gets; the rest is advice on speed.
            (DONTNEED | FREE | DONTFORK | DOFORK | WIPEONFORK | KEEPONFORK, _) => {
                ctx.kernel.platform.advise(ctx.task, piece.start, piece.len(), advice)?;
            }
            (POPULATE_READ | POPULATE_WRITE, _) => {
                ctx.kernel.platform.advise(ctx.task, piece.start, piece.len(), advice)?;
            }
            (REMOVE, VmaKind::File { file, offset }) => holes.push((file.clone(), *offset, piece.len())),
            _ => {}
        }
        if flags != piece.flags {
            inner.forget(piece.start, piece.end);
            inner.insert_merged(crate::mm::Vma { flags, ..piece });
        }
    }
    drop(inner);
    // All who have mapped such a file let go of the blocks that it loses.
    for (file, offset, len) in holes {
        ctx.kernel.vfs.fallocate(ctx, &file, PUNCH_HOLE_KEEP_SIZE, offset, len)?;
    }
    if gap || at < end { Err(Errno::ENOMEM.into()) } else { Ok(0) }
}
