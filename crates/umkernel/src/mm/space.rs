//! An address space: the tree of a process's VMAs, and what changes it.
//!
//! Every change goes to the platform first and into the tree when the host has agreed, both under the space's lock.

use super::map::{FileCut, back_vma};
use super::seal::check_seals;
use super::{MapFlags, PAGE_SIZE, Prot, SharedMemory, TASK_SIZE, Vma, VmaKind, page_up};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::event::aio::AioContexts;
use crate::kernel::Ctx;
use crate::platform::Reserved;
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// The lowest address that may be mapped (`vm.mmap_min_addr`).
pub const MMAP_MIN: u64 = 0x1_0000;
/// What the threads of a process share as their memory.
pub struct AddressSpace {
    /// A host process that has this memory: what the platform reads and writes it through.
    pub host_pid: AtomicI32,
    /// Distinguishes address spaces in futex keys.
    pub id: u64,
    /// The VMAs and what belongs to them.
    pub inner: Mutex<SpaceInner>,
    /// Files that others have cut, for this process to take notice of on its way to user mode.
    cuts: Mutex<Vec<FileCut>>,
    /// There are some.
    has_cuts: AtomicBool,
    /// Pages behind the end of a mapped file have been mapped: should the file have grown, kernel copies see to them as
    /// guest faults do.
    pub(super) tails: AtomicBool,
    /// A tracer has looked, or may: the program's own text is mapped, never a copy of the platform's with jumps in it.
    pub(crate) debugged: AtomicBool,
    /// Where requests for I/O are submitted (`io_setup(2)`).
    pub(crate) aio: AioContexts,
}

/// The changeable part of an [`AddressSpace`].
#[derive(Default, Clone)]
pub struct SpaceInner {
    /// VMAs by start address; they never overlap.
    pub vmas: BTreeMap<u64, Vma>,
    /// Where the heap begins.
    pub brk_start: u64,
    /// Where the heap ends (`brk(2)`).
    pub brk: u64,
    /// Highest address for `mmap(2)` to choose.
    pub mmap_base: u64,
    /// Where the arguments lie (start, end): `/proc/PID/cmdline`.
    pub args: (u64, u64),
    /// Where the environment lies (start, end): `/proc/PID/environ`.
    pub env: (u64, u64),
    /// Start of the stack as given to the program.
    pub stack_start: u64,
    /// What is mapped from now on is locked as well (`mlockall(MCL_FUTURE)`).
    pub lock_future: bool,
    /// The auxiliary vector as given to the program: `/proc/PID/auxv`.
    pub auxv: Vec<(u64, u64)>,
}

impl AddressSpace {
    /// An empty space, but for the ranges that are not the guest's.
    pub fn new(id: u64, reserved: &[Reserved]) -> AddressSpace {
        let mut inner = SpaceInner { mmap_base: TASK_SIZE, ..SpaceInner::default() };
        for r in reserved {
            let flags = MapFlags::empty();
            let prot = Prot::READ | if r.name == "[vdso]" { Prot::EXEC } else { Prot::empty() };
            let kind = VmaKind::Reserved(r.name);
            inner.vmas.insert(r.start, Vma { start: r.start, end: r.end, prot, flags, kind });
        }
        AddressSpace {
            host_pid: AtomicI32::new(0),
            id,
            inner: Mutex::new(inner),
            cuts: Mutex::default(),
            has_cuts: AtomicBool::new(false),
            tails: AtomicBool::new(false),
            debugged: AtomicBool::new(false),
            aio: AioContexts::default(),
        }
    }

    /// Notes a file that another process has cut.
    pub fn add_cut(&self, cut: FileCut) {
        let mut cuts = self.cuts.lock();
        cuts.push(cut);
        self.has_cuts.store(true, Ordering::SeqCst);
    }

    /// Takes what [`AddressSpace::add_cut`] has noted.
    pub fn take_cuts(&self) -> Vec<FileCut> {
        if !self.has_cuts() {
            return Vec::new();
        }
        let mut cuts = self.cuts.lock();
        self.has_cuts.store(false, Ordering::SeqCst);
        core::mem::take(&mut *cuts)
    }

    /// Whether there is something to take.
    pub fn has_cuts(&self) -> bool {
        self.has_cuts.load(Ordering::SeqCst)
    }

    /// The VMA that covers an address.
    pub fn vma_at(&self, addr: u64) -> Option<Vma> {
        self.inner.lock().vma_at(addr).cloned()
    }

    /// A copy of the description for a forked process, `pid`; the platform copies the pages.
    pub fn fork(&self, id: u64, pid: i32) -> AddressSpace {
        let mut inner = self.inner.lock().clone();
        inner.vmas.retain(|_, vma| !vma.flags.contains(MapFlags::DONT_FORK));
        inner.vmas.values_mut().for_each(|vma| vma.flags.remove(MapFlags::LOCKED));
        inner.lock_future = false;
        inner.attach_child(pid);
        let cuts = self.cuts.lock().clone();
        AddressSpace {
            host_pid: AtomicI32::new(0),
            id,
            inner: Mutex::new(inner),
            has_cuts: AtomicBool::new(!cuts.is_empty()),
            cuts: Mutex::new(cuts),
            tails: AtomicBool::new(self.tails.load(Ordering::Relaxed)),
            debugged: AtomicBool::new(self.debugged.load(Ordering::Relaxed)),
            aio: AioContexts::default(),
        }
    }

    /// Removes whatever the guest has mapped in `[start, end)` (`munmap(2)`).
    ///
    /// # Errors
    /// `EINVAL` if the range holds what is not the guest's; `ENOMEM` if splitting would make too many VMAs.
    pub fn unmap(&self, ctx: &Ctx, start: u64, end: u64) -> Result<()> {
        self.inner.lock().unmap(ctx, start, end)
    }

    /// Maps `vma`, replacing what was there (`mmap(2)` with its address decided).
    pub fn map(&self, ctx: &Ctx, vma: Vma) -> Result<()> {
        self.inner.lock().map(ctx, vma)
    }
}

impl SpaceInner {
    /// Gives a forked child attachments of its own, each for all the VMAs that its parent's has.
    fn attach_child(&mut self, pid: i32) {
        let mut made: Vec<(Arc<SharedMemory>, Arc<SharedMemory>)> = Vec::new();
        for vma in self.vmas.values_mut() {
            let VmaKind::Shared { memory, .. } = &mut vma.kind else { continue };
            let Some(attachment) = &memory.attachment else { continue };
            let own = match made.iter().find(|(parents, _)| Arc::ptr_eq(parents, memory)) {
                Some((_, own)) => own.clone(),
                None => {
                    let own = Arc::new(memory.attached(attachment.for_child(pid)));
                    made.push((memory.clone(), own.clone()));
                    own
                }
            };
            *memory = own;
        }
    }

    /// The VMA that covers an address.
    pub fn vma_at(&self, addr: u64) -> Option<&Vma> {
        self.vmas.range(..=addr).next_back().map(|(_, vma)| vma).filter(|vma| addr < vma.end)
    }

    /// The VMAs that overlap `[start, end)`, whole, in order.
    pub fn overlapping(&self, start: u64, end: u64) -> Vec<Vma> {
        let first = self.vma_at(start).map_or(start, |vma| vma.start);
        self.vmas.range(first..end).map(|(_, vma)| vma.clone()).collect()
    }

    /// True if nothing is mapped in `[start, end)`.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.vma_at(start).is_none() && self.vmas.range(start..end).next().is_none()
    }

    /// The highest free range of `len` bytes below `mmap_base`, or the lowest above if there is none.
    pub fn find_free(&self, len: u64, below: u64) -> Result<u64> {
        let mut top = below;
        for vma in self.vmas.range(..below).rev().map(|(_, vma)| vma) {
            if vma.end < top && top - vma.end >= len {
                return Ok(top - len);
            }
            top = top.min(vma.gap_start());
        }
        if top >= MMAP_MIN && top - MMAP_MIN >= len {
            return Ok(top - len);
        }
        let mut bottom = below;
        for vma in self.overlapping(below, TASK_SIZE) {
            if vma.gap_start() > bottom && vma.gap_start() - bottom >= len {
                return Ok(bottom);
            }
            bottom = bottom.max(vma.end);
        }
        if bottom < TASK_SIZE && TASK_SIZE - bottom >= len { Ok(bottom) } else { Err(Errno::ENOMEM.into()) }
    }

    /// Bytes mapped, but for what is not the guest's (`RLIMIT_AS`, `/proc/PID/statm`).
    pub fn total(&self) -> u64 {
        self.vmas.values().filter(|vma| !matches!(vma.kind, VmaKind::Reserved(_))).map(Vma::len).sum()
    }

    /// See [`AddressSpace::unmap`].
    pub fn unmap(&mut self, ctx: &Ctx, start: u64, end: u64) -> Result<()> {
        let hit = self.overlapping(start, end);
        if hit.iter().any(|vma| matches!(vma.kind, VmaKind::Reserved(_))) {
            bail!(EINVAL, "the range holds the kernel's own pages");
        }
        if hit.is_empty() {
            return Ok(());
        }
        check_seals(&hit)?;
        if self.vmas.len() >= max_map_count(ctx) && hit.len() == 1 && hit[0].start < start && end < hit[0].end {
            bail!(ENOMEM, "too many mappings");
        }
        ctx.kernel.platform.unmap(ctx.task, start, end - start)?;
        self.cut(start, end);
        Ok(())
    }

    /// Takes `[start, end)` out of the tree.
    fn cut(&mut self, start: u64, end: u64) {
        for vma in self.overlapping(start, end) {
            self.vmas.remove(&vma.start);
            if vma.start < start {
                self.vmas.insert(vma.start, vma.slice(vma.start, start));
            }
            if vma.end > end {
                self.vmas.insert(end, vma.slice(end, vma.end));
            }
        }
    }

    /// See [`AddressSpace::map`].
    pub fn map(&mut self, ctx: &Ctx, vma: Vma) -> Result<()> {
        let hit = self.overlapping(vma.start, vma.end);
        if hit.iter().any(|v| matches!(v.kind, VmaKind::Reserved(_))) {
            bail!(ENOMEM, "the range holds the kernel's own pages");
        }
        check_seals(&hit)?;
        if self.vmas.len() >= max_map_count(ctx) {
            bail!(ENOMEM, "too many mappings");
        }
        let had_something = !hit.is_empty();
        if let Err(e) = back_vma(ctx, &vma) {
            // What was there may be half replaced: leave a hole rather than a lie.
            if had_something {
                let _ = ctx.kernel.platform.unmap(ctx.task, vma.start, vma.len());
                self.cut(vma.start, vma.end);
            }
            return Err(e);
        }
        self.cut(vma.start, vma.end);
        self.insert_merged(vma);
        Ok(())
    }

    /// Changes the protection of `[start, end)` (`mprotect(2)`). `ENOMEM` at the first gap, with what lies before it changed.
    pub fn protect(&mut self, ctx: &Ctx, start: u64, end: u64, prot: Prot) -> Result<()> {
        let hit = self.overlapping(start, end);
        check_seals(&hit)?;
        let mut at = start;
        for vma in hit {
            if vma.start > at {
                break;
            }
            let piece = vma.slice(start, end);
            if matches!(vma.kind, VmaKind::Reserved(_)) {
                bail!(EACCES, "the kernel's own pages");
            }
            if prot.contains(Prot::WRITE) && piece.flags.contains(MapFlags::NEVER_WRITABLE) {
                bail!(EACCES, "a shared mapping of what is not open for writing");
            }
            if prot.contains(Prot::EXEC) && piece.flags.contains(MapFlags::NEVER_EXECUTABLE) {
                bail!(EACCES, "a file of a mount without execution");
            }
            if piece.prot != prot {
                if self.vmas.len() + 2 > max_map_count(ctx) {
                    bail!(ENOMEM, "too many mappings");
                }
                ctx.kernel.platform.protect(ctx.task, piece.start, piece.len(), prot)?;
                self.cut(piece.start, piece.end);
                self.insert_merged(Vma { prot, ..piece });
            }
            at = vma.end;
        }
        if at < end { Err(Errno::ENOMEM.into()) } else { Ok(()) }
    }

    /// Adds a VMA to its free place, joined with neighbours that it continues.
    pub fn insert_merged(&mut self, mut vma: Vma) {
        if let Some((_, before)) = self.vmas.range(..vma.start).next_back()
            && before.end == vma.start
            && continues(before, &vma)
        {
            let before = before.clone();
            self.vmas.remove(&before.start);
            vma = Vma { start: before.start, kind: before.kind, ..vma };
        }
        if let Some(after) = self.vmas.get(&vma.end)
            && continues(&vma, after)
        {
            let end = after.end;
            self.vmas.remove(&vma.end);
            vma.end = end;
        }
        self.vmas.insert(vma.start, vma);
    }

    /// Takes `[start, end)` out of the tree without telling the host, which has moved it already.
    pub fn forget(&mut self, start: u64, end: u64) {
        self.cut(start, end);
    }

    /// Moves the end of the heap (`brk(2)`); returns where it is afterwards, which is where it was if it cannot move.
    pub fn set_brk(&mut self, ctx: &Ctx, wanted: u64) -> u64 {
        let limit = ctx.task.process.limit(super::RLIMIT_DATA);
        let within = wanted >= self.brk_start && wanted - self.brk_start <= limit && wanted < TASK_SIZE;
        let (Some(old_end), Some(new_end)) = (page_up(self.brk), page_up(wanted)) else { return self.brk };
        if !within {
            return self.brk;
        }
        if new_end > old_end {
            let guard = PAGE_SIZE;
            let room = self.total().saturating_add(new_end - old_end) <= ctx.task.process.limit(super::RLIMIT_AS);
            let possible = new_end - old_end <= ctx.kernel.config.memory;
            let mut flags = MapFlags::empty();
            flags.set(MapFlags::LOCKED, self.lock_future);
            let lockable = !self.lock_future || self.check_lock_limit(ctx, new_end - old_end).is_ok();
            if !room || !lockable || !possible || !self.is_free(old_end, new_end + guard) {
                return self.brk;
            }
            let vma = Vma { start: old_end, end: new_end, prot: Prot::READ | Prot::WRITE, flags, kind: VmaKind::Heap };
            if self.map(ctx, vma).is_err() {
                return self.brk;
            }
        } else if new_end < old_end && self.unmap(ctx, new_end, old_end).is_err() {
            return self.brk;
        }
        self.brk = wanted;
        wanted
    }
}

fn max_map_count(ctx: &Ctx) -> usize {
    ctx.kernel.settings.max_map_count.get() as usize
}

/// Whether these VMAs, in order, leave nothing of `[start, end)` out.
pub(crate) fn covers(vmas: &[Vma], start: u64, end: u64) -> bool {
    let mut at = start;
    for vma in vmas {
        if vma.start > at {
            return false;
        }
        at = vma.end;
    }
    at >= end
}

/// Whether `b`, which starts where `a` ends, is the same mapping going on.
fn continues(a: &Vma, b: &Vma) -> bool {
    if a.prot != b.prot || a.flags != b.flags {
        return false;
    }
    match (&a.kind, &b.kind) {
        (VmaKind::Anonymous, VmaKind::Anonymous) | (VmaKind::Heap, VmaKind::Heap) => true,
        (VmaKind::Shared { memory: m, offset: o }, VmaKind::Shared { memory: n, offset: p }) => {
            Arc::ptr_eq(m, n) && o + a.len() == *p
        }
        (VmaKind::File { file: f, offset: o }, VmaKind::File { file: g, offset: p }) => {
            Arc::ptr_eq(f, g) && o + a.len() == *p
        }
        _ => false,
    }
}
