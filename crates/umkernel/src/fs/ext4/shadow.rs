//! Files that cannot be mapped where they lie, because blocks are smaller than a page, the data is in the inode, or the
//! disk begins in the middle of a page (a partition, a loop device): once mapped, such a file has a copy in host memory,
//! which is what mappings and reads see. Writes go to both, and stores through shared mappings are brought to the disk
//! with every commit.

use super::Ext4Fs;
use super::data::Extents;
use super::inode::Ext4Inode;
use crate::bail;
use crate::errno::Result;
use crate::fs::store::{RANGE, Store};
use crate::mm::PAGE_SIZE;
use crate::vfs::HostExtent;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// A file's copy in host memory.
pub(super) struct Shadow {
    /// Where it begins in the host file.
    base: u64,
    /// Has been mapped so that stores go to it.
    stores: bool,
}

impl Extents {
    /// `EFBIG` for an end of the file that lies behind the room of its copy, if it has one: there another file's copy begins.
    pub(super) fn check_room(&self, end: u64) -> Result<()> {
        if self.shadow.is_some() && end > RANGE {
            bail!(EFBIG);
        }
        Ok(())
    }
}

impl Ext4Fs {
    /// The host file for copies, made with the first.
    fn shadows(&self) -> Result<Arc<Store>> {
        let mut store = self.shadow_store.lock();
        match &*store {
            Some(store) => Ok(store.clone()),
            None => Ok(store.insert(Arc::new(Store::new()?)).clone()),
        }
    }

    /// Brings what was stored through mappings to the disk.
    pub(super) fn store_shadows(&self) -> Result<()> {
        let mut known = self.shadowed.lock();
        known.retain(|inode| inode.strong_count() > 0);
        let inodes: Vec<Arc<Ext4Inode>> = known.iter().filter_map(Weak::upgrade).collect();
        drop(known);
        inodes.iter().try_for_each(|inode| inode.store_shadow())
    }
}

impl Ext4Inode {
    /// The pages of a range, in the file's copy.
    pub(super) fn shadow_extents(
        &self,
        extents: &mut Extents,
        offset: u64,
        len: u64,
        shared: bool,
    ) -> Result<Vec<HostExtent>> {
        let end = offset.saturating_add(len).min(self.size().next_multiple_of(PAGE_SIZE));
        if offset >= end {
            return Ok(Vec::new());
        }
        let store = self.fs.shadows()?;
        if extents.shadow.is_none() {
            let base = self.copy_to(extents, &store)?;
            extents.shadow = Some(Shadow { base, stores: false });
        }
        let Some(shadow) = &mut extents.shadow else {
            bail!(EIO);
        };
        if shared && !shadow.stores {
            shadow.stores = true;
            self.fs.shadowed.lock().push(self.weak());
        }
        let host = Some((store.fd.raw(), shadow.base + offset));
        Ok(alloc::vec![HostExtent { file_offset: offset, len: end - offset, host }])
    }

    /// Copies the whole file to a range of the host file.
    fn copy_to(&self, extents: &mut Extents, store: &Store) -> Result<u64> {
        let size = self.size();
        if size > RANGE {
            bail!(EFBIG);
        }
        let base = store.take_range()?;
        let copied = self.fs.buffers.with(|buffer| {
            let mut at = 0;
            while at < size {
                let len = buffer.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
                self.read_disk(extents, at, &mut buffer[..len])?;
                store.write(base + at, &buffer[..len])?;
                at += len as u64;
            }
            Ok(())
        });
        match copied {
            Ok(()) => Ok(base),
            Err(e) => {
                // The pages that were copied are only lost memory.
                let _ = store.punch(base, size);
                store.return_range(base);
                Err(e)
            }
        }
    }

    /// Reads from the copy, if there is one. True if it was.
    pub(super) fn read_shadow(&self, extents: &Extents, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let Some(shadow) = &extents.shadow else {
            return Ok(false);
        };
        self.fs.shadows()?.read(shadow.base + offset, buf)?;
        Ok(true)
    }

    /// Writes to the copy what was written to the disk.
    pub(super) fn write_shadow(&self, extents: &Extents, offset: u64, data: &[u8]) -> Result<()> {
        match &extents.shadow {
            Some(shadow) => self.fs.shadows()?.write(shadow.base + offset, data),
            None => Ok(()),
        }
    }

    /// Makes a range of the copy zeros.
    pub(super) fn clear_shadow(&self, extents: &Extents, offset: u64, end: u64) -> Result<()> {
        match &extents.shadow {
            Some(shadow) if offset < end => self.fs.shadows()?.punch(shadow.base + offset, end - offset),
            _ => Ok(()),
        }
    }

    /// Brings the copy to the disk, if stores may have changed it.
    pub(super) fn store_shadow(&self) -> Result<()> {
        let mut extents = self.extents.write();
        let Some(base) = extents.shadow.as_ref().filter(|s| s.stores).map(|s| s.base) else {
            return Ok(());
        };
        let store = self.fs.shadows()?;
        let size = self.size();
        let (mut ours, mut disk) = (alloc::vec![0; 64 * 1024], alloc::vec![0; 64 * 1024]);
        let mut at = 0;
        while at < size {
            let len = ours.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            store.read(base + at, &mut ours[..len])?;
            self.read_disk(&mut extents, at, &mut disk[..len])?;
            if ours[..len] != disk[..len] {
                self.write_disk(&mut extents, at, &ours[..len])?;
            }
            at += len as u64;
        }
        Ok(())
    }

    /// The last reference is gone: the copy goes, after a last look for stores.
    pub(super) fn drop_shadow(&self) {
        if self.extents.read().shadow.is_none() {
            return;
        }
        if self.nlink() > 0 {
            // Nobody is left to be told.
            let _ = self.store_shadow();
        }
        let shadow = self.extents.write().shadow.take();
        if let (Some(shadow), Ok(store)) = (shadow, self.fs.shadows()) {
            // Pages that the host did not take back are only lost memory.
            let _ = store.punch(shadow.base, self.size().next_multiple_of(PAGE_SIZE));
            store.return_range(shadow.base);
        }
    }
}
