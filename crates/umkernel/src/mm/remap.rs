//! `mremap(2)`.

use super::seal::check_seals;
use super::space::MMAP_MIN;
use super::{AddressSpace, MapFlags, PAGE_SIZE, SpaceInner, TASK_SIZE, Vma, VmaKind, page_up};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;

const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;

impl AddressSpace {
    /// `mremap(2)`; returns the address.
    ///
    /// # Errors
    /// Those of the man page.
    pub fn mremap(&self, ctx: &Ctx, old: u64, old_len: u64, new_len: u64, flags: u64, new: u64) -> Result<u64> {
        if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 {
            bail!(EINVAL, "unknown flags");
        }
        if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 && flags & MREMAP_MAYMOVE == 0 {
            bail!(EINVAL, "MREMAP_FIXED or MREMAP_DONTUNMAP without MREMAP_MAYMOVE");
        }
        let old_len = page_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_up(new_len).filter(|&l| l > 0).ok_or(Errno::EINVAL)?;
        if !old.is_multiple_of(PAGE_SIZE) {
            bail!(EINVAL, "address is not a multiple of the page size");
        }
        let old_end = old.checked_add(old_len).filter(|&end| end <= TASK_SIZE).ok_or(Errno::EINVAL)?;
        let mut inner = self.inner.lock();
        let vma = inner.vma_at(old).cloned().ok_or(Errno::EFAULT)?;
        check_seals(&inner.overlapping(old, old_end.max(old + 1)))?;
        if matches!(vma.kind, VmaKind::Reserved(_)) {
            bail!(EINVAL, "the kernel's own pages");
        }
        if flags & MREMAP_DONTUNMAP != 0 && old_len != new_len {
            bail!(EINVAL, "MREMAP_DONTUNMAP with another length");
        }
        if flags & MREMAP_DONTUNMAP != 0 && !new.is_multiple_of(PAGE_SIZE) {
            bail!(EINVAL, "the new address is not a multiple of the page size");
        }
        let duplicate = old_len == 0;
        if duplicate && !vma.flags.contains(MapFlags::SHARED) {
            bail!(EINVAL, "a second mapping of private pages");
        }
        if old_end > vma.end {
            bail!(EFAULT, "the range spans several mappings");
        }
        if duplicate || flags & MREMAP_DONTUNMAP != 0 {
            if flags & MREMAP_MAYMOVE == 0 {
                bail!(ENOMEM);
            }
            if inner.total().saturating_add(new_len) > ctx.task.process.limit(super::RLIMIT_AS) {
                bail!(ENOMEM, "RLIMIT_AS");
            }
            let wish = flags & MREMAP_DONTUNMAP != 0 && new >= MMAP_MIN;
            let free = wish && new.checked_add(new_len).is_some_and(|end| end <= TASK_SIZE && inner.is_free(new, end));
            let wanted = (flags & MREMAP_FIXED != 0 || free).then_some(new);
            let new = place(&mut inner, ctx, (old, old_end), new_len, wanted)?;
            if duplicate {
                inner.map(ctx, Vma { start: new, end: new + new_len, ..tail(&vma, old, old + new_len) })?;
                return Ok(new);
            }
            let left = vma.slice(old, old_end);
            move_vma(&mut inner, ctx, &left, new, new_len)?;
            inner.map(ctx, left)?;
            return Ok(new);
        }
        if flags & MREMAP_FIXED != 0 {
            place(&mut inner, ctx, (old, old_end), new_len, Some(new))?;
            if new_len < old_len {
                inner.unmap(ctx, old + new_len, old_end)?;
            }
            return move_vma(&mut inner, ctx, &vma.slice(old, old + old_len.min(new_len)), new, new_len);
        }
        if new_len <= old_len {
            if new_len < old_len {
                inner.unmap(ctx, old + new_len, old_end)?;
            }
            return Ok(old);
        }
        if inner.total().saturating_add(new_len - old_len) > ctx.task.process.limit(super::RLIMIT_AS) {
            bail!(ENOMEM, "RLIMIT_AS");
        }
        let grown_end = old.checked_add(new_len).filter(|&end| end <= TASK_SIZE);
        if let Some(end) = grown_end
            && old_end == vma.end
            && inner.is_free(old_end, end)
        {
            inner.map(ctx, tail(&vma, old_end, end))?;
            return Ok(old);
        }
        if flags & MREMAP_MAYMOVE == 0 {
            bail!(ENOMEM);
        }
        let below = inner.mmap_base;
        let new = inner.find_free(new_len, below)?;
        move_vma(&mut inner, ctx, &vma.slice(old, old_end), new, new_len)
    }
}

/// Where a mapping of `len` bytes goes: to `wanted`, which is made free and must not touch `old`, or anywhere.
fn place(inner: &mut SpaceInner, ctx: &Ctx, old: (u64, u64), len: u64, wanted: Option<u64>) -> Result<u64> {
    let Some(new) = wanted else {
        let below = inner.mmap_base;
        return inner.find_free(len, below);
    };
    let end = new.checked_add(len).filter(|&end| end <= TASK_SIZE).ok_or(Errno::EINVAL)?;
    if !new.is_multiple_of(PAGE_SIZE) || new < MMAP_MIN || (new < old.1 && old.0 < end) {
        bail!(EINVAL, "the new range is not usable");
    }
    inner.unmap(ctx, new, end)?;
    Ok(new)
}

/// What `vma` would be from its end at `start` on to `end`.
fn tail(vma: &Vma, start: u64, end: u64) -> Vma {
    let moved = start - vma.start;
    let kind = match &vma.kind {
        VmaKind::Shared { memory, offset } => VmaKind::Shared { memory: memory.clone(), offset: offset + moved },
        VmaKind::File { file, offset } => VmaKind::File { file: file.clone(), offset: offset + moved },
        VmaKind::Stack => VmaKind::Anonymous,
        other => other.clone(),
    };
    Vma { start, end, prot: vma.prot, flags: vma.flags, kind }
}

/// Moves the pages of `old`, a VMA or a part of one, to `new` and grows the mapping to `new_len`.
fn move_vma(inner: &mut SpaceInner, ctx: &Ctx, old: &Vma, new: u64, new_len: u64) -> Result<u64> {
    let len = old.len();
    let moved = Vma { start: new, end: new + len, ..old.clone() };
    if ctx.kernel.platform.remap(ctx.task, old.start, len, new, len).is_ok() {
        inner.forget(old.start, old.end);
        inner.insert_merged(moved.clone());
    } else {
        // The host holds the range as several mappings, which it moves one at a time only: make it anew and copy.
        inner.map(ctx, moved.clone())?;
        if !old.flags.contains(MapFlags::SHARED) {
            copy_pages(ctx, old.start, new, len)?;
        }
        inner.unmap(ctx, old.start, old.end)?;
    }
    if new_len > len {
        inner.map(ctx, tail(&moved, new + len, new + new_len))?;
    }
    Ok(new)
}

fn copy_pages(ctx: &Ctx, from: u64, to: u64, len: u64) -> Result<()> {
    let mut buf = alloc::vec![0u8; 64 * PAGE_SIZE as usize];
    let space = ctx.mm()?;
    let mut done = 0;
    while done < len {
        let want = (len - done).min(buf.len() as u64) as usize;
        let got = ctx.kernel.platform.read_memory(space, from + done, &mut buf[..want]);
        if got < want || ctx.kernel.platform.write_memory(space, to + done, &buf[..want]) < want {
            bail!(EFAULT, "private pages that cannot be read or written cannot be copied");
        }
        done += want as u64;
    }
    Ok(())
}
