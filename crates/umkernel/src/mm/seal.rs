//! Sealed mappings (`mseal(2)`): what they are and allow stays as it is until the process ends.

use super::space::covers;
use super::{AddressSpace, MapFlags, Vma, VmaKind};
use crate::bail;
use crate::errno::Result;

impl AddressSpace {
    /// Seals `[start, end)`.
    ///
    /// # Errors
    /// `ENOMEM` for a gap: then nothing is sealed.
    pub fn seal(&self, start: u64, end: u64) -> Result<()> {
        let mut inner = self.inner.lock();
        let vmas = inner.overlapping(start, end);
        if !covers(&vmas, start, end) {
            bail!(ENOMEM, "not mapped");
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

/// `EPERM` if one of these VMAs is sealed.
pub(super) fn check_seals(vmas: &[Vma]) -> Result<()> {
    if vmas.iter().any(|vma| vma.flags.contains(MapFlags::SEALED)) {
        bail!(EPERM, "sealed");
    }
    Ok(())
}
