//! A disk in layers: an image, and above it overlays that have the blocks which were written since.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ext4::{BlockDevice, IoError};

use super::{BLOCK, Header, chain, open};
use crate::device::{io_error, punch};
use crate::identify::size_of;
use crate::{Error, backing};

/// Bytes of the bitmap that are written together.
const PAGE: usize = 4096;

/// A disk in layers. The topmost overlay takes the writes. As in the kernel (`block/layers.rs`), a block gets its bit
/// only after its contents are in the file, and the bits reach the host's disk at a flush, behind what they stand for.
#[derive(Debug)]
pub(crate) struct Layers {
    top: File,
    bits: Mutex<Bits>,
    /// Those below with their bitmaps, the uppermost first.
    lower: Vec<(File, Vec<u8>)>,
    base: File,
    data_at: u64,
    size: u64,
    writable: bool,
}

/// Which blocks the topmost overlay has.
#[derive(Debug)]
struct Bits {
    bitmap: Vec<u8>,
    /// Pages that the file does not have yet.
    dirty: BTreeSet<usize>,
}

fn has(bitmap: &[u8], block: u64) -> bool {
    bitmap.get((block / 8) as usize).is_some_and(|byte| byte >> (block % 8) & 1 != 0)
}

impl Bits {
    fn set(&mut self, block: u64) {
        let byte = (block / 8) as usize;
        if let Some(bits) = self.bitmap.get_mut(byte) {
            *bits |= 1 << (block % 8);
            self.dirty.insert(byte / PAGE);
        }
    }
}

impl Layers {
    /// Opens an overlay with all below it; `writable` takes the locks that a machine would hold.
    ///
    /// # Errors
    /// As [`chain`], and for writing, a file is in use.
    pub(crate) fn open(path: &Path, writable: bool) -> Result<Self, Error> {
        let top = open(path, writable)?;
        if writable {
            backing::lock(&top, path)?;
        }
        let found = chain(path)?;
        let base = open(&found.base, false)?;
        let mut files = Vec::new();
        for path in found.overlays.iter().rev().skip(1) {
            files.push((path, open(path, false)?));
        }
        if writable {
            for (path, file) in files.iter().map(|(path, file)| (path.as_path(), file)).chain([(&*found.base, &base)]) {
                backing::lock_shared(file, path)?;
            }
            // Only now can nobody change them any more.
            chain(path)?;
        }
        let size = size_of(&base).map_err(|error| Error::io("find the size of", &found.base, &error))?;
        let read = |path: &Path, file: &File| super::bitmap(path, file, &Header::read(path, file)?);
        let bits = Mutex::new(Bits { bitmap: read(path, &top)?, dirty: BTreeSet::new() });
        let mut lower = Vec::new();
        for (path, file) in files {
            let bitmap = read(path, &file)?;
            lower.push((file, bitmap));
        }
        Ok(Self { top, bits, lower, base, data_at: found.data_at, size, writable })
    }

    /// Whether an overlay has the block.
    pub(crate) fn has(&self, block: u64) -> bool {
        has(&self.bits().bitmap, block) || self.lower.iter().any(|(_, bitmap)| has(bitmap, block))
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    fn bits(&self) -> MutexGuard<'_, Bits> {
        // Each change is complete in itself.
        self.bits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), IoError> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(IoError::EIO),
        }
    }

    /// Fills `buf`, which lies in one block.
    fn read_block(&self, top: &[u8], offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        let block = offset / BLOCK;
        let file = match has(top, block) {
            true => Some(&self.top),
            false => self.lower.iter().find(|(_, bitmap)| has(bitmap, block)).map(|(file, _)| file),
        };
        let read = match file {
            Some(file) => file.read_exact_at(buf, self.data_at + offset),
            None => self.base.read_exact_at(buf, offset),
        };
        read.map_err(|error| io_error(&error))
    }

    /// Copies a block to the topmost overlay, if it is not there.
    fn bring(&self, bits: &mut Bits, block: u64) -> Result<(), IoError> {
        if has(&bits.bitmap, block) {
            return Ok(());
        }
        let offset = block * BLOCK;
        let mut bytes = vec![0; (self.size - offset).min(BLOCK) as usize];
        self.read_block(&bits.bitmap, offset, &mut bytes)?;
        self.top.write_all_at(&bytes, self.data_at + offset).map_err(|error| io_error(&error))?;
        bits.set(block);
        Ok(())
    }
}

impl BlockDevice for Layers {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        let bits = self.bits();
        while !buf.is_empty() {
            let len = ((offset / BLOCK + 1) * BLOCK - offset).min(buf.len() as u64) as usize;
            let (part, rest) = buf.split_at_mut(len);
            self.read_block(&bits.bitmap, offset, part)?;
            offset += len as u64;
            buf = rest;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        if !self.writable {
            return Err(IoError { errno: nix::libc::EROFS });
        }
        self.check(offset, buf.len())?;
        let end = offset + buf.len() as u64;
        let mut bits = self.bits();
        // Blocks that are written in part need their other bytes; those written whole do not.
        for edge in [offset, end] {
            if !edge.is_multiple_of(BLOCK) && edge < self.size {
                self.bring(&mut bits, edge / BLOCK)?;
            }
        }
        self.top.write_all_at(buf, self.data_at + offset).map_err(|error| io_error(&error))?;
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            if !has(&bits.bitmap, block) {
                bits.set(block);
            }
        }
        Ok(())
    }

    /// The topmost overlay's own whole blocks become holes, and read as zeros; it keeps hiding what is below.
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        if !self.writable {
            return Err(IoError { errno: nix::libc::EROFS });
        }
        self.check(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        let bits = self.bits();
        let (mut block, end) = (offset.div_ceil(BLOCK), (offset + len) / BLOCK);
        while block < end {
            let stop = (block..end).find(|block| !has(&bits.bitmap, *block)).unwrap_or(end);
            punch(&self.top, self.data_at + block * BLOCK, (stop - block) * BLOCK)?;
            block = stop.max(block + 1);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        if !self.writable {
            return Ok(());
        }
        let mut bits = self.bits();
        let sync = || self.top.sync_data().map_err(|error| io_error(&error));
        sync()?;
        if bits.dirty.is_empty() {
            return Ok(());
        }
        for page in &bits.dirty {
            let from = page * PAGE;
            let bytes = bits.bitmap.get(from..bits.bitmap.len().min(from + PAGE)).unwrap_or_default();
            let at = Header::bitmap_at() + from as u64;
            self.top.write_all_at(bytes, at).map_err(|error| io_error(&error))?;
        }
        sync()?;
        bits.dirty.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cow::create;

    #[test]
    fn writes_go_to_the_topmost_overlay_and_stay_after_a_flush() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let size = 300_001;
        std::fs::write(path("base"), vec![1; size]).unwrap();
        create(&path("low"), &path("base"), false).unwrap();
        let mut model = vec![1; size];
        let mut seed = 5u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for name in ["low", "high"] {
            if name == "high" {
                create(&path("high"), &path("low"), false).unwrap();
            }
            let mut disk = Layers::open(&path(name), true).unwrap();
            for round in 0..200 {
                let len = [1, 512, 4096, 9000][random(4)];
                let offset = random(size - len);
                let bytes = vec![round as u8; len];
                disk.write_at(offset as u64, &bytes).unwrap();
                model[offset..offset + len].copy_from_slice(&bytes);
                if round % 40 == 39 {
                    disk.flush().unwrap();
                    drop(disk);
                    disk = Layers::open(&path(name), true).unwrap();
                }
                let mut all = vec![0; size];
                disk.read_at(0, &mut all).unwrap();
                assert!(all == model, "round {round}");
            }
            // The last byte's block is a short one.
            disk.write_at(size as u64 - 1, &[9]).unwrap();
            model[size - 1] = 9;
            disk.flush().unwrap();
            assert_eq!(disk.write_at(size as u64, &[1]), Err(IoError::EIO));
            assert!(Layers::open(&path(name), true).is_err_and(|error| error.to_string().contains("in use")));
            drop(disk);
            // Not flushed: as before.
            Layers::open(&path(name), true).unwrap().write_at(123_456, &[77]).unwrap();
            let disk = Layers::open(&path(name), false).unwrap();
            assert_eq!(disk.write_at(0, &[1]), Err(IoError { errno: nix::libc::EROFS }));
            // A block that was there already is written in place.
            let mut byte = [0];
            disk.read_at(123_456, &mut byte).unwrap();
            model[123_456] = byte[0];
        }
        // What is discarded takes no more space; what is not in the overlay stays as it is.
        let used = || std::os::unix::fs::MetadataExt::blocks(&path("high").metadata().unwrap());
        let disk = Layers::open(&path("high"), true).unwrap();
        disk.write_at(0, &[5; 65536]).unwrap();
        let before = used();
        disk.discard(100, 60_000).unwrap();
        assert!(used() + 100 <= before, "{} of {before} sectors", used());
        let mut bytes = [1; 3];
        for (at, byte) in [(0, 5), (4095, 5), (4096, 0), (57_343, 0), (57_344, 5)] {
            disk.read_at(at, &mut bytes[..1]).unwrap();
            assert_eq!(bytes[0], byte, "{at}");
        }
        assert_eq!(disk.discard(size as u64 - 1, 2), Err(IoError::EIO));
        assert!(std::fs::read(path("base")).unwrap() == vec![1; size], "the image was written to");
    }
}
