//! Locked memory (`mlock(2)`). Whether pages stay in the host's memory is the host's affair; what is locked is kept, counted
//! against the limit and shown.

use super::{AddressSpace, MapFlags, Prot, SpaceInner, TASK_SIZE, Vma, VmaKind};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::task::Capabilities;
use linux_raw_sys::general::RLIMIT_MEMLOCK;

impl SpaceInner {
    /// Bytes locked.
    pub fn locked(&self) -> u64 {
        self.vmas.values().filter(|vma| vma.flags.contains(MapFlags::LOCKED)).map(Vma::len).sum()
    }

    /// Whether `more` bytes may be locked besides.
    pub(super) fn check_lock_limit(&self, ctx: &Ctx, more: u64) -> Result<()> {
        check_limit(ctx, self.locked().saturating_add(more))
    }

    /// Brings what is mapped in `[start, end)` into memory, as accesses would; what cannot be accessed stays as it is.
    pub(super) fn populate(&self, ctx: &Ctx, start: u64, end: u64) {
        const MADV_POPULATE_READ: i32 = 22;
        const MADV_POPULATE_WRITE: i32 = 23;
        for vma in self.overlapping(start, end) {
            let piece = vma.slice(start, end);
            let private = !piece.flags.contains(MapFlags::SHARED);
            let advice = match (piece.prot.contains(Prot::READ), piece.prot.contains(Prot::WRITE)) {
                (_, true) if private => MADV_POPULATE_WRITE,
                (true, _) => MADV_POPULATE_READ,
                _ => continue,
            };
            if !matches!(piece.kind, VmaKind::Reserved(_)) {
                // Pages behind a file's end, and hosts that do not know the advice: the pages come when they are used.
                let _ = ctx.kernel.platform.advise(ctx.task, piece.start, piece.len(), advice);
            }
        }
    }

    /// Marks `[start, end)` as locked or not. `ENOMEM` at the first gap, with what lies before it marked.
    fn mark_locked(&mut self, start: u64, end: u64, locked: bool) -> Result<()> {
        let mut at = start;
        for vma in self.overlapping(start, end) {
            if vma.start > at {
                break;
            }
            if !matches!(vma.kind, VmaKind::Reserved(_)) && vma.flags.contains(MapFlags::LOCKED) != locked {
                let mut piece = vma.slice(start, end);
                piece.flags.set(MapFlags::LOCKED, locked);
                self.forget(piece.start, piece.end);
                self.insert_merged(piece);
            }
            at = vma.end;
        }
        if at < end { Err(Errno::ENOMEM.into()) } else { Ok(()) }
    }
}

impl AddressSpace {
    /// Locks `[start, end)` (`mlock(2)`), and brings it into memory unless `present` is false (`MLOCK_ONFAULT`).
    ///
    /// # Errors
    /// `EPERM` or `ENOMEM` by `RLIMIT_MEMLOCK`; `ENOMEM` for a gap.
    pub fn lock_range(&self, ctx: &Ctx, start: u64, end: u64, present: bool) -> Result<()> {
        let mut inner = self.inner.lock();
        let already: u64 = inner
            .overlapping(start, end)
            .iter()
            .filter(|vma| vma.flags.contains(MapFlags::LOCKED))
            .map(|vma| vma.end.min(end) - vma.start.max(start))
            .sum();
        check_limit(ctx, inner.locked() + (end - start) - already)?;
        inner.mark_locked(start, end, true)?;
        if present {
            inner.populate(ctx, start, end);
        }
        Ok(())
    }

    /// Undoes [`AddressSpace::lock_range`].
    pub fn unlock_range(&self, start: u64, end: u64) -> Result<()> {
        self.inner.lock().mark_locked(start, end, false)
    }

    /// Locks everything that is mapped now, or will be, or both (`mlockall(2)`).
    ///
    /// # Errors
    /// `EPERM` or `ENOMEM` by `RLIMIT_MEMLOCK`.
    pub fn lock_all(&self, ctx: &Ctx, now: bool, future: bool, present: bool) -> Result<()> {
        let mut inner = self.inner.lock();
        check_limit(ctx, if now { inner.total() } else { 0 })?;
        inner.lock_future = future;
        if now {
            mark_all(&mut inner, true);
        }
        if now && present {
            inner.populate(ctx, 0, TASK_SIZE);
        }
        Ok(())
    }

    /// Unlocks everything (`munlockall(2)`).
    pub fn unlock_all(&self) {
        let mut inner = self.inner.lock();
        inner.lock_future = false;
        mark_all(&mut inner, false);
    }
}

fn mark_all(inner: &mut SpaceInner, locked: bool) {
    for vma in inner.vmas.values_mut().filter(|vma| !matches!(vma.kind, VmaKind::Reserved(_))) {
        vma.flags.set(MapFlags::LOCKED, locked);
    }
}

/// Whether so many bytes may be locked.
fn check_limit(ctx: &Ctx, bytes: u64) -> Result<()> {
    if ctx.creds().capable(Capabilities::IPC_LOCK) {
        return Ok(());
    }
    let limit = ctx.task.process.limit(RLIMIT_MEMLOCK as usize);
    if limit == 0 {
        bail!(EPERM, "RLIMIT_MEMLOCK is 0");
    }
    if bytes > limit {
        bail!(ENOMEM, "RLIMIT_MEMLOCK");
    }
    Ok(())
}
