//! Writes kept in memory on top of a disk that stays as it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ext4::{BlockDevice, IoError};

/// Bytes kept together.
const PAGE: u64 = 4096;

/// A disk whose writes do not reach the one below: for replaying the journal of an image that is only looked at, and,
/// over a `Zeros`, for trying out a format.
pub struct Overlay<D> {
    below: D,
    pages: Mutex<BTreeMap<u64, Box<[u8]>>>,
}

impl<D: BlockDevice> Overlay<D> {
    pub(crate) fn new(below: D) -> Self {
        Self { below, pages: Mutex::new(BTreeMap::new()) }
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<u64, Box<[u8]>>> {
        // Each change of the map is complete in itself.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), IoError> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size() => Ok(()),
            _ => Err(IoError::EIO),
        }
    }

    /// Writes to the disk below at once what no page here covers.
    pub(crate) fn write_through(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        let end = offset + buf.len() as u64;
        let covered = self.pages().range(offset / PAGE..end.div_ceil(PAGE)).next().is_some();
        if !covered {
            return self.below.write_at(offset, buf);
        }
        let mut at = offset;
        while at < end {
            let stop = end.min((at / PAGE + 1) * PAGE);
            let part = buf.get((at - offset) as usize..(stop - offset) as usize).unwrap_or_default();
            let covered = self.pages().contains_key(&(at / PAGE));
            if covered {
                self.write_at(at, part)?
            } else {
                self.below.write_at(at, part)?
            }
            at = stop;
        }
        Ok(())
    }

    /// Brings all pages to the disk below, what was written there before first.
    pub(crate) fn commit(&self) -> Result<(), IoError> {
        self.below.flush()?;
        let mut pages = self.pages();
        for (page, bytes) in pages.iter() {
            let start = page * PAGE;
            let len = (self.size() - start).min(PAGE) as usize;
            self.below.write_at(start, bytes.get(..len).unwrap_or_default())?;
        }
        pages.clear();
        self.below.flush()
    }

    /// Forgets all pages.
    pub(crate) fn discard_all(&self) {
        self.pages().clear();
    }

    /// The page from below; the last one of the disk may be short there and ends in zeros here.
    fn fetch(&self, page: u64) -> Result<Box<[u8]>, IoError> {
        let mut bytes = vec![0; PAGE as usize];
        let start = page * PAGE;
        let have = (self.size() - start).min(PAGE) as usize;
        self.below.read_at(start, bytes.get_mut(..have).unwrap_or_default())?;
        Ok(bytes.into())
    }
}

impl<D: BlockDevice> BlockDevice for Overlay<D> {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        self.below.read_at(offset, buf)?;
        let end = offset + buf.len() as u64;
        let pages = self.pages();
        for (page, bytes) in pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = page * PAGE;
            let (from, to) = (offset.max(start), end.min(start + PAGE));
            let source = bytes.get((from - start) as usize..(to - start) as usize);
            let target = buf.get_mut((from - offset) as usize..(to - offset) as usize);
            if let (Some(target), Some(source)) = (target, source) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, mut buf: &[u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        let mut at = offset;
        let mut pages = self.pages();
        while !buf.is_empty() {
            let page = at / PAGE;
            let inside = (at % PAGE) as usize;
            let (now, rest) = buf.split_at(buf.len().min(PAGE as usize - inside));
            let bytes = match pages.entry(page) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.fetch(page)?),
            };
            if let Some(target) = bytes.get_mut(inside..inside + now.len()) {
                target.copy_from_slice(now);
            }
            at += now.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

/// A disk of zeros, of any size.
pub(crate) struct Zeros(pub(crate) u64);

impl BlockDevice for Zeros {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<(), IoError> {
        buf.fill(0);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), IoError> {
        Err(IoError { errno: nix::libc::EROFS })
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_see_the_last_writes(
            size in 1u64..30_000,
            writes in prop::collection::vec((0u64..30_000, 0usize..9_000, any::<u8>()), 0..20),
        ) {
            let disk = Overlay::new(Zeros(size));
            let mut model = vec![0; size as usize];
            for (offset, len, byte) in writes {
                let fits = offset + len as u64 <= size;
                let result = disk.write_at(offset, &vec![byte; len]);
                prop_assert_eq!(result.is_ok(), fits);
                if fits {
                    model[offset as usize..offset as usize + len].fill(byte);
                }
            }
            let mut all = vec![0xee; size as usize];
            disk.read_at(0, &mut all).unwrap();
            prop_assert_eq!(&all, &model);
            let (from, to) = (size as usize / 3, size as usize / 2);
            let mut part = vec![0xee; to - from];
            disk.read_at(from as u64, &mut part).unwrap();
            prop_assert_eq!(&part[..], &model[from..to]);
        }
    }

    #[test]
    fn pages_go_below_at_a_commit_only() {
        let below = Overlay::new(Zeros(9000));
        let disk = Overlay::new(&below);
        let byte = |disk: &dyn BlockDevice, at: u64| {
            let mut byte = [0];
            disk.read_at(at, &mut byte).unwrap();
            byte[0]
        };
        disk.write_at(100, &[1]).unwrap();
        disk.write_through(4000, &[2; 200]).unwrap();
        assert_eq!([byte(&below, 100), byte(&below, 4000), byte(&below, 4096)], [0, 0, 2]);
        assert_eq!([byte(&disk, 100), byte(&disk, 4000), byte(&disk, 4096)], [1, 2, 2]);
        disk.discard_all();
        assert_eq!([byte(&disk, 100), byte(&disk, 4000), byte(&disk, 4199)], [0, 0, 2]);
        disk.write_at(8999, &[3]).unwrap();
        disk.commit().unwrap();
        assert_eq!(byte(&below, 8999), 3);
    }
}
