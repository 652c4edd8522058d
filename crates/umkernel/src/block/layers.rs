//! Disks in layers: an image that is only read, and above it overlay files that have the blocks which were written since.
//! The topmost overlay takes the writes; who made the files sees to it that they belong together (`umlfs image cow`).
//!
//! In an overlay, the disk's bytes have their own place, from `data_at` on, and a bitmap from `bitmap_at` on says which
//! blocks it has. A block gets its bit only after its contents are in the file, and the bits reach the host's disk
//! behind what they stand for ([`Layers::flush`]): after a crash an overlay is one of an earlier moment, with all that
//! was flushed.

use crate::errno::Result;
use crate::host::{self, HostFd};
use crate::sync::Mutex;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that an overlay has or has not, together.
const BLOCK: u64 = 4096;
/// Bytes of the bitmap that are written together.
const BITMAP_PAGE: usize = 4096;
const BLOCKS_PER_PAGE: u64 = BITMAP_PAGE as u64 * 8;
/// The most overlays on top of each other.
pub const MAX_OVERLAYS: usize = 7;

/// Overlay files, opened by who starts the machine.
#[derive(Debug)]
pub struct OverlayFiles {
    /// From the lowest to the topmost.
    pub files: Vec<HostFd>,
    /// Where the disk's first byte lies in each.
    pub data_at: u64,
    /// Where the bitmap begins in each.
    pub bitmap_at: u64,
}

/// An overlay, with its bitmap in memory.
struct Overlay {
    fd: HostFd,
    present: Vec<AtomicU64>,
}

impl Overlay {
    fn has(&self, block: u64) -> bool {
        let word = self.present.get((block / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (block % 64) & 1 != 0)
    }

    fn set(&self, block: u64) {
        if let Some(word) = self.present.get((block / 64) as usize) {
            word.fetch_or(1 << (block % 64), Ordering::Release);
        }
    }
}

/// The layers of a disk.
pub(super) struct Layers {
    base: HostFd,
    /// At least one, the lowest first.
    overlays: Vec<Overlay>,
    size: u64,
    data_at: u64,
    bitmap_at: u64,
    /// Pages of the topmost bitmap that the host does not have yet.
    dirty: Vec<AtomicBool>,
    /// Held while a block comes into the topmost overlay.
    coming: Mutex<()>,
    /// Held while the bitmap goes to the host.
    flushing: Mutex<()>,
}

impl Layers {
    pub(super) fn open(base: HostFd, size: u64, overlays: OverlayFiles) -> Result<Layers> {
        let OverlayFiles { files, data_at, bitmap_at } = overlays;
        let pages = size.div_ceil(BLOCK).div_ceil(BLOCKS_PER_PAGE) as usize;
        let mut opened = Vec::new();
        for fd in files {
            let mut bytes = alloc::vec![0; pages * BITMAP_PAGE];
            read_all(fd.raw(), bitmap_at, &mut bytes)?;
            let words = bytes.as_chunks::<8>().0.iter().map(|word| AtomicU64::new(u64::from_le_bytes(*word)));
            opened.push(Overlay { fd, present: words.collect() });
        }
        let dirty = (0..pages).map(|_| AtomicBool::new(false)).collect();
        let (coming, flushing) = (Mutex::new(()), Mutex::new(()));
        Ok(Layers { base, overlays: opened, size, data_at, bitmap_at, dirty, coming, flushing })
    }

    fn top(&self) -> Option<&Overlay> {
        self.overlays.last()
    }

    /// Which layer has a block: the number of its overlay from 1 on, or 0 for the image.
    fn layer(&self, block: u64) -> usize {
        self.overlays.iter().rposition(|overlay| overlay.has(block)).map_or(0, |at| at + 1)
    }

    fn place_in(&self, layer: usize, offset: u64) -> (i32, u64) {
        match layer.checked_sub(1).and_then(|at| self.overlays.get(at)) {
            Some(overlay) => (overlay.fd.raw(), self.data_at + offset),
            None => (self.base.raw(), offset),
        }
    }

    /// The host file that has the byte at `offset`, its place there, and how many of `len` bytes follow it there.
    pub(super) fn place(&self, offset: u64, len: u64) -> (i32, u64, u64) {
        let end = offset.saturating_add(len);
        let layer = self.layer(offset / BLOCK);
        let mut stop = (offset / BLOCK + 1) * BLOCK;
        while stop < end && self.layer(stop / BLOCK) == layer {
            stop += BLOCK;
        }
        let (fd, at) = self.place_in(layer, offset);
        (fd, at, stop.min(end) - offset)
    }

    fn has_all(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len).div_ceil(BLOCK);
        self.top().is_some_and(|top| (offset / BLOCK..end).all(|block| top.has(block)))
    }

    /// The place in the topmost overlay for a range that is to be written, after its blocks were brought there.
    pub(super) fn place_to_write(&self, offset: u64, len: u64) -> Result<(i32, u64)> {
        if !self.has_all(offset, len) {
            let _guard = self.coming.lock();
            for block in offset / BLOCK..offset.saturating_add(len).div_ceil(BLOCK) {
                self.bring(block)?;
            }
        }
        Ok(self.place_in(self.overlays.len(), offset))
    }

    /// Copies a block to the topmost overlay, if it is not there. `coming` is held.
    fn bring(&self, block: u64) -> Result<()> {
        let Some(top) = self.top().filter(|top| !top.has(block)) else { return Ok(()) };
        let offset = block * BLOCK;
        let mut bytes = [0; BLOCK as usize];
        let len = self.size.saturating_sub(offset).min(BLOCK) as usize;
        let (fd, at) = self.place_in(self.layer(block), offset);
        read_all(fd, at, &mut bytes[..len])?;
        write_all(top.fd.raw(), self.data_at + offset, &bytes[..len])?;
        self.mark(top, block);
        Ok(())
    }

    fn mark(&self, top: &Overlay, block: u64) {
        top.set(block);
        if let Some(page) = self.dirty.get((block / BLOCKS_PER_PAGE) as usize) {
            page.store(true, Ordering::Release);
        }
    }

    pub(super) fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let (fd, at, len) = self.place(offset, buf.len() as u64);
            let (part, rest) = buf.split_at_mut(len as usize);
            read_all(fd, at, part)?;
            offset += len;
            buf = rest;
        }
        Ok(())
    }

    /// The place in the topmost overlay for a range that is to be written whole: only its blocks at the edges, which have
    /// other bytes as well, are brought there. A crash before it is written leaves anything in it.
    pub(super) fn place_to_fill(&self, offset: u64, len: u64) -> Result<(i32, u64)> {
        let Some(top) = self.top() else { crate::bail!(EROFS) };
        if !self.has_all(offset, len) {
            let _guard = self.coming.lock();
            self.bring_edges(offset, len)?;
            self.mark_all(top, offset, len);
        }
        Ok(self.place_in(self.overlays.len(), offset))
    }

    /// Brings the blocks that a range has in part. `coming` is held.
    fn bring_edges(&self, offset: u64, len: u64) -> Result<()> {
        for edge in [offset, offset + len] {
            if !edge.is_multiple_of(BLOCK) && edge < self.size {
                self.bring(edge / BLOCK)?;
            }
        }
        Ok(())
    }

    fn mark_all(&self, top: &Overlay, offset: u64, len: u64) {
        for block in offset / BLOCK..(offset + len).div_ceil(BLOCK) {
            if !top.has(block) {
                self.mark(top, block);
            }
        }
    }

    pub(super) fn write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let Some(top) = self.top() else { crate::bail!(EROFS) };
        let len = buf.len() as u64;
        if self.has_all(offset, len) {
            return write_all(top.fd.raw(), self.data_at + offset, buf);
        }
        let _guard = self.coming.lock();
        self.bring_edges(offset, len)?;
        write_all(top.fd.raw(), self.data_at + offset, buf)?;
        self.mark_all(top, offset, len);
        Ok(())
    }

    /// Makes the topmost overlay's own whole blocks holes, which read as zeros; it keeps hiding what is below.
    pub(super) fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let Some(top) = self.top() else { crate::bail!(EROFS) };
        // Nothing may come into the overlay meanwhile and be lost.
        let _guard = self.coming.lock();
        let (mut block, end) = (offset.div_ceil(BLOCK), offset.saturating_add(len) / BLOCK);
        while block < end {
            let stop = (block..end).find(|block| !top.has(*block)).unwrap_or(end);
            punch(top.fd.raw(), self.data_at + block * BLOCK, (stop - block) * BLOCK)?;
            block = stop.max(block + 1);
        }
        Ok(())
    }

    /// Makes all that was written durable, the bitmap behind what it stands for.
    pub(super) fn flush(&self) -> Result<()> {
        let Some(top) = self.top() else { return Ok(()) };
        // A flush that finds nothing to do must wait for one that is at it.
        let _guard = self.flushing.lock();
        let mut pages = Vec::new();
        for (number, dirty) in self.dirty.iter().enumerate() {
            if dirty.swap(false, Ordering::AcqRel) {
                let words = top.present.iter().skip(number * BITMAP_PAGE / 8).take(BITMAP_PAGE / 8);
                let bytes: Vec<u8> = words.flat_map(|word| word.load(Ordering::Acquire).to_le_bytes()).collect();
                pages.push((number, bytes));
            }
        }
        let done = self.write_bitmap(top, &pages);
        if done.is_err() {
            for (number, _) in &pages {
                if let Some(dirty) = self.dirty.get(*number) {
                    dirty.store(true, Ordering::Release);
                }
            }
        }
        done
    }

    fn write_bitmap(&self, top: &Overlay, pages: &[(usize, Vec<u8>)]) -> Result<()> {
        host::fdatasync(top.fd.raw())?;
        if pages.is_empty() {
            return Ok(());
        }
        for (number, bytes) in pages {
            write_all(top.fd.raw(), self.bitmap_at + (number * BITMAP_PAGE) as u64, bytes)?;
        }
        host::fdatasync(top.fd.raw())
    }
}

/// Makes a range of a host file a hole.
pub(super) fn punch(fd: i32, offset: u64, len: u64) -> Result<()> {
    const KEEP_SIZE_PUNCH_HOLE: u32 = 3;
    match len {
        0 => Ok(()),
        _ => host::fallocate(fd, KEEP_SIZE_PUNCH_HOLE, offset, len),
    }
}

/// Fills the buffer from a host file; `EIO` if that has become too short.
pub(super) fn read_all(fd: i32, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
    while !buf.is_empty() {
        match host::pread(fd, buf, offset) {
            Ok(0) => crate::bail!(EIO, "the host file has become shorter"),
            Ok(n) => {
                offset += n as u64;
                buf = &mut buf[n..];
            }
            Err(e) if e == crate::errno::Errno::EINTR => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes the buffer to a host file.
pub(super) fn write_all(fd: i32, mut offset: u64, mut buf: &[u8]) -> Result<()> {
    while !buf.is_empty() {
        match host::pwrite(fd, buf, offset) {
            Ok(0) => crate::bail!(EIO),
            Ok(n) => {
                offset += n as u64;
                buf = &buf[n..];
            }
            Err(e) if e == crate::errno::Errno::EINTR => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::FileExt;

    const SIZE: u64 = 1 << 20;
    const DATA_AT: u64 = 64 << 10;

    fn file(fill: u8, len: u64) -> std::fs::File {
        static FILES: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(std::format!("umkernel-layers-{}-{number}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(len).unwrap();
        if fill != 0 {
            file.write_all_at(&std::vec![fill; len as usize], 0).unwrap();
        }
        file
    }

    fn layers(base: &std::fs::File, overlays: &[&std::fs::File]) -> Layers {
        let fd = |file: &std::fs::File| HostFd::new(file.try_clone().unwrap().into_raw_fd());
        let files = overlays.iter().map(|file| fd(file)).collect();
        Layers::open(fd(base), SIZE, OverlayFiles { files, data_at: DATA_AT, bitmap_at: 4096 }).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_the_base_stays() {
        let (base, over) = (file(7, SIZE), file(0, DATA_AT + SIZE));
        let mut model = std::vec![7u8; SIZE as usize];
        let mut seed = 1u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut disk = layers(&base, &[&over]);
        for round in 0..400u64 {
            let len = [1, 512, 1024, 4096, 10_000, 70_000][random(6) as usize];
            let offset = if round % 2 == 0 { random(SIZE - len) } else { random((SIZE - len) / 1024) * 1024 };
            let bytes = std::vec![round as u8; len as usize];
            let place = match round % 5 {
                0 => Some(disk.place_to_write(offset, len).unwrap()),
                1 => Some(disk.place_to_fill(offset, len).unwrap()),
                _ => None,
            };
            match place {
                Some((fd, at)) => write_all(fd, at, &bytes).unwrap(),
                None => disk.write(offset, &bytes).unwrap(),
            }
            model[offset as usize..(offset + len) as usize].copy_from_slice(&bytes);
            if round % 50 == 0 {
                disk.flush().unwrap();
                disk = layers(&base, &[&over]);
            }
            let (from, len) = (random(SIZE - 9000), 9000);
            let mut back = std::vec![0; len];
            disk.read(from, &mut back).unwrap();
            assert!(back == model[from as usize..from as usize + len], "round {round}");
        }
        let mut whole = std::vec![0; SIZE as usize];
        base.read_exact_at(&mut whole, 0).unwrap();
        assert!(whole.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn what_is_discarded_is_a_hole_in_the_topmost_overlay() {
        use std::os::unix::fs::MetadataExt;
        let (base, over) = (file(7, SIZE), file(0, DATA_AT + SIZE));
        let disk = layers(&base, &[&over]);
        disk.write(0, &[3; 64 << 10]).unwrap();
        let before = over.metadata().unwrap().blocks();
        disk.discard(1000, 512 << 10).unwrap();
        assert!(over.metadata().unwrap().blocks() + 100 <= before);
        let mut back = std::vec![0; 128 << 10];
        disk.read(0, &mut back).unwrap();
        assert!(back[..4096].iter().all(|b| *b == 3) && back[4096..64 << 10].iter().all(|b| *b == 0));
        assert!(back[64 << 10..].iter().all(|b| *b == 7), "the base was written to, or hidden");
    }

    #[test]
    fn an_overlay_without_flush_is_the_one_before() {
        let (base, over) = (file(1, SIZE), file(0, DATA_AT + SIZE));
        let disk = layers(&base, &[&over]);
        disk.write(8192, &[2; 4096]).unwrap();
        disk.flush().unwrap();
        disk.write(16384, &[3; 100]).unwrap();
        let crashed = layers(&base, &[&over]);
        let mut back = [0; 4096];
        crashed.read(8192, &mut back).unwrap();
        assert_eq!(back, [2; 4096]);
        crashed.read(16384, &mut back).unwrap();
        assert_eq!(back, [1; 4096]);
    }

    #[test]
    fn the_topmost_layer_that_has_a_block_counts() {
        let (base, low, high) = (file(1, SIZE), file(0, DATA_AT + SIZE), file(0, DATA_AT + SIZE));
        let lower = layers(&base, &[&low]);
        lower.write(0, &[2; 12288]).unwrap();
        lower.flush().unwrap();
        let disk = layers(&base, &[&low, &high]);
        disk.write(4096 + 10, &[3; 10]).unwrap();
        let mut back = [0; 16384];
        disk.read(0, &mut back).unwrap();
        assert!(back[..4106].iter().all(|b| *b == 2) && back[4106..4116].iter().all(|b| *b == 3));
        assert!(back[4116..12288].iter().all(|b| *b == 2) && back[12288..].iter().all(|b| *b == 1));
        let (_, at, len) = disk.place(4096, 8192);
        assert_eq!((at, len), (DATA_AT + 4096, 4096));
        let mut untouched = [0; 10];
        low.read_exact_at(&mut untouched, DATA_AT + 4106).unwrap();
        assert_eq!(untouched, [2; 10]);
    }
}
