//! Sealed mappings (`mseal(2)`): what they are and allow stays as it is until the process ends.

use super::{AddressSpace, MapFlags, SpaceInner, VmaKind};
use crate::bail;
use crate::errno::{Errno, Result};

impl AddressSpace {
    /// Seals `[start, end)`.
    ///
    /// # Errors
    /// `ENOMEM` for a gap: then nothing is sealed.
    pub fn seal(&self, start: u64, end: u64) -> Result<()> {
        let mut inner = self.inner.lock();
        let vmas = inner.overlapping(start, end);
        let mut at = start;
        for vma in &vmas {
            if vma.start > at {
                break;
            }
            at = vma.end;
        }
        if at < end {
            return Err(Errno::ENOMEM.into());
        }
        for vma in vmas.iter().filter(|vma| !matches!(vma.kind, VmaKind::Reserved(_))) {
            let mut piece = vma.slice(start, end);
            piece.flags.insert(MapFlags::SEALED);
            inner.forget(piece.start, piece.end);
            inner.insert_merged(piece);
        }
        Ok(())
    }
}

impl SpaceInner {
    /// `EPERM` if something in `[start, end)` is sealed.
    pub(crate) fn check_seals(&self, start: u64, end: u64) -> Result<()> {
        let first = self.vma_at(start).map_or(start, |vma| vma.start);
        if start < end && self.vmas.range(first..end).any(|(_, vma)| vma.flags.contains(MapFlags::SEALED)) {
            bail!(EPERM, "sealed");
        }
        Ok(())
    }
}
