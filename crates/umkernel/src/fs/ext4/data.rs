//! File data of ext4: between guest memory and the image, at the places that the extents say.

use super::change::now;
use super::shadow::Shadow;
use super::{Ext4Inode, error};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::mm::{IoDst, IoSrc, PAGE_SIZE};
use crate::vfs::HostExtent;
use alloc::vec::Vec;

/// How much of a file's map is asked for at once, and of a file that is in many pieces.
const WINDOW: u64 = 256 << 20;
const SMALL_WINDOW: u64 = 16 << 20;
/// This many pieces of a window are many.
const MANY_PIECES: usize = 1024;

/// What is known of where a file's data lies.
#[derive(Default)]
pub(super) struct Extents {
    /// The range known, in whole blocks.
    start: u64,
    end: u64,
    pieces: Vec<ext4::Mapping>,
    in_many_pieces: bool,
    /// The file's copy in memory, where it needs one.
    pub(super) shadow: Option<Shadow>,
}

impl Extents {
    /// Forgets everything: blocks were allocated, moved or freed.
    pub(super) fn forget(&mut self) {
        self.start = 0;
        self.end = 0;
        self.pieces.clear();
    }

    /// The piece around `offset`: the bytes from `offset` on that it has, and where they lie.
    fn find(&self, offset: u64) -> Option<(u64, Option<u64>)> {
        if !(self.start..self.end).contains(&offset) {
            return None;
        }
        let at = self.pieces.partition_point(|p| p.file_offset + p.len <= offset);
        let piece = self.pieces.get(at)?;
        let into = offset.checked_sub(piece.file_offset)?;
        Some((piece.len - into, piece.device_offset.map(|d| d + into)))
    }

    /// As [`Ext4Inode::straight_place`], if it is known; else, and where there is no such place, `None`.
    fn straight(&self, offset: u64, left: usize) -> Option<(usize, u64)> {
        let (len, place) = self.find(offset).filter(|_| left > 0 && self.shadow.is_none())?;
        Some((usize::try_from(len).unwrap_or(usize::MAX).min(left), place?))
    }
}

impl Ext4Inode {
    /// Where the bytes at `offset`, which is below the file's size, lie: how many, and at which offset of the disk;
    /// `None` for a hole.
    fn place(&self, extents: &mut Extents, offset: u64) -> Result<(u64, Option<u64>)> {
        if let Some(found) = extents.find(offset) {
            return Ok(found);
        }
        let window = if extents.in_many_pieces { SMALL_WINDOW } else { WINDOW };
        let start = offset / window * window;
        let pieces = self.fs.lock().map(self.ino(), start, window).map_err(error)?;
        extents.in_many_pieces |= pieces.len() > MANY_PIECES;
        let end = pieces.last().map_or(start, |p| p.file_offset + p.len);
        extents.start = start;
        extents.end = end;
        extents.pieces = pieces;
        match extents.find(offset) {
            Some(found) => Ok(found),
            None => bail!(EIO, "the file's map ends before the file"),
        }
    }

    /// Reads the bytes at `offset` into `buf`, all of them below the file's size.
    fn read_pieces(&self, extents: &mut Extents, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let (len, place) = self.place(extents, offset + done as u64)?;
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(buf.len() - done);
            let part = &mut buf[done..done + len];
            match place {
                Some(at) => self.fs.disk.read(at, part)?,
                None => part.fill(0),
            }
            done += len;
        }
        Ok(())
    }

    /// Reads from the disk, below the file's size.
    pub(super) fn read_disk(&self, extents: &mut Extents, offset: u64, buf: &mut [u8]) -> Result<()> {
        if extents.find(offset).is_none() && self.is_inline(self.size())? {
            self.fs.lock().read(self.ino(), offset, buf).map_err(error)?;
            return Ok(());
        }
        self.read_pieces(extents, offset, buf)
    }

    /// Whether the data is stored in the inode itself, where there is nothing to map.
    fn is_inline(&self, size: u64) -> Result<bool> {
        Ok(size > 0 && size < self.fs.block_size && self.fs.lock().map(self.ino(), 0, size).map_err(error)?.is_empty())
    }

    /// `read(2)` at an offset.
    pub(super) fn read_data(&self, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        /// Reads up to this size need no buffer from the heap.
        const SMALL: usize = 1024;
        let size = self.size();
        if offset >= size {
            return Ok(0);
        }
        let want = usize::try_from(size - offset).unwrap_or(usize::MAX).min(dst.remaining());
        let done = self.read_straight(offset, want, dst)?;
        let (offset, want) = (offset + done as u64, want - done);
        let rest = match want {
            0 => Ok(0),
            1..=SMALL => self.read_with(&mut [0; SMALL], offset, want, dst),
            _ => self.fs.buffers.with(|buffer| self.read_with(buffer, offset, want, dst)),
        };
        if done > 0 { Ok(done + rest.unwrap_or(0)) } else { rest }
    }

    /// Reads straight from the image into guest memory, as far as both allow it.
    fn read_straight(&self, offset: u64, want: usize, dst: &mut dyn IoDst) -> Result<usize> {
        let mut done = 0;
        while done < want {
            let at = offset + done as u64;
            // Held while bytes are copied, so that no other file gets the blocks meanwhile.
            let mut unknown;
            let known = self.extents.read();
            let left = usize::try_from(self.size().saturating_sub(at)).unwrap_or(usize::MAX).min(want - done);
            let (len, place) = match known.straight(at, left) {
                Some(piece) => piece,
                None => {
                    drop(known);
                    unknown = self.extents.write();
                    let left = usize::try_from(self.size().saturating_sub(at)).unwrap_or(usize::MAX).min(left);
                    match self.straight_place(&mut unknown, at, left)? {
                        Some(piece) => piece,
                        None => break,
                    }
                }
            };
            let (fd, place, len) = self.fs.disk.host_place(place, len as u64)?;
            match dst.put_file(fd, place, len as usize) {
                None => break,
                Some(Ok(0)) => bail!(EIO, "the host file has become shorter"),
                Some(Ok(n)) => done += n,
                Some(Err(e)) if e.errno == Errno::EINTR => {}
                Some(Err(e)) if done == 0 => return Err(e),
                Some(Err(_)) => break,
            }
        }
        Ok(done)
    }

    /// Where up to `left` bytes at `offset` lie in the image in one piece, if they are there and nowhere else.
    fn straight_place(&self, extents: &mut Extents, offset: u64, left: usize) -> Result<Option<(usize, u64)>> {
        if left == 0 || extents.shadow.is_some() {
            return Ok(None);
        }
        if extents.find(offset).is_none() && self.is_inline(self.size())? {
            return Ok(None);
        }
        let (len, place) = self.place(extents, offset)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(left);
        Ok(place.map(|place| (len, place)))
    }

    fn read_with(&self, buffer: &mut [u8], offset: u64, want: usize, dst: &mut dyn IoDst) -> Result<usize> {
        let mut done = 0;
        while done < want {
            let at = offset + done as u64;
            let mut extents = self.extents.write();
            // The file may have become shorter meanwhile.
            let size = self.size();
            let len =
                (want - done).min(buffer.len()).min(usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX));
            if len == 0 {
                break;
            }
            if !self.read_shadow(&extents, at, &mut buffer[..len])? {
                self.read_disk(&mut extents, at, &mut buffer[..len])?;
            }
            drop(extents);
            match dst.put(&buffer[..len]) {
                Ok(n) if n < len => return Ok(done + n),
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// `write(2)` at an offset, or at the end. Returns the bytes written and the offset behind them.
    pub(super) fn write_data(&self, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        let mut extents = self.extents.write();
        let start = if append { self.size() } else { offset };
        let mut done = self.overwrite_straight(&mut extents, start, src)?;
        match self.append_straight(&extents, start + done as u64, src) {
            Ok(n) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => return Ok((done, start + done as u64)),
        }
        if src.remaining() == 0 {
            return Ok((done, start + done as u64));
        }
        self.fs.buffers.with(|buffer| {
            while src.remaining() > 0 {
                let len = src.remaining().min(buffer.len());
                let stored = src.take(&mut buffer[..len]).and_then(|taken| {
                    let stored = self.store(&mut extents, start + done as u64, &buffer[..taken]);
                    src.untake(taken - stored.as_ref().map_or(0, |n| *n));
                    stored.map(|n| (n, taken))
                });
                match stored {
                    Ok((n, taken)) => {
                        done += n;
                        if n < taken || n == 0 {
                            break;
                        }
                    }
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => break,
                }
            }
            Ok((done, start + done as u64))
        })
    }

    /// Writes within the blocks that the file has straight from guest memory, as far as all allow it.
    fn overwrite_straight(&self, extents: &mut Extents, start: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let mut done = 0;
        while src.remaining() > 0 {
            let at = start + done as u64;
            let left = usize::try_from(self.size().saturating_sub(at)).unwrap_or(usize::MAX).min(src.remaining());
            if left == 0 || self.fs.is_read_only() {
                break;
            }
            let Some((len, place)) = self.straight_place(extents, at, left)? else { break };
            let (fd, place, len) = self.fs.disk.host_place_to_write(place, len as u64)?;
            match src.take_file(fd, place, len as usize) {
                None | Some(Ok(0)) => break,
                Some(Ok(n)) => done += n,
                Some(Err(e)) if e.errno == Errno::EINTR => {}
                Some(Err(e)) if done == 0 => return Err(e),
                Some(Err(_)) => break,
            }
        }
        if done > 0 {
            self.touch();
        }
        Ok(done)
    }

    /// Appends straight from guest memory, as far as all allow it.
    fn append_straight(&self, extents: &Extents, start: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let mut done = 0;
        while src.remaining() > 0 && extents.shadow.is_none() && start + done as u64 == self.size() {
            let stored =
                self.append(src.remaining(), |place, len| match self.fs.disk.host_place_to_fill(place, len as u64) {
                    Ok((fd, place, len)) => src.take_file(fd, place, len as usize),
                    Err(e) => Some(Err(e)),
                });
            match stored {
                None | Some(Ok(0)) => break,
                Some(Ok(n)) => done += n,
                Some(Err(e)) if e.errno == Errno::EINTR => {}
                Some(Err(e)) if done == 0 => return Err(e),
                Some(Err(_)) => break,
            }
        }
        Ok(done)
    }

    /// Stores bytes, in the file's copy as well.
    fn store(&self, extents: &mut Extents, offset: u64, data: &[u8]) -> Result<usize> {
        extents.check_room(offset.saturating_add(data.len() as u64))?;
        let n = self.write_disk(extents, offset, data)?;
        self.write_shadow(extents, offset, &data[..n])?;
        Ok(n)
    }

    /// Writes to the disk. What lies in blocks that the file has already, or follows its end, goes there without the file
    /// system.
    pub(super) fn write_disk(&self, extents: &mut Extents, offset: u64, data: &[u8]) -> Result<usize> {
        if offset + data.len() as u64 <= self.size() && self.overwrite(extents, offset, data)? {
            self.touch();
            return Ok(data.len());
        }
        let mut done = 0;
        if offset == self.size() {
            done = self.append_buffer(data)?;
        }
        if done == data.len() {
            return Ok(done);
        }
        extents.forget();
        let ino = self.ino();
        match self.change(|fs| fs.write(ino, offset + done as u64, &data[done..], now())) {
            Ok(n) => Ok(done + n),
            Err(e) if done == 0 => Err(e),
            Err(_) => Ok(done),
        }
    }

    /// Writes within the blocks that the file has; false, with nothing written, if it does not have them all.
    fn overwrite(&self, extents: &mut Extents, offset: u64, data: &[u8]) -> Result<bool> {
        if self.fs.is_read_only() || extents.find(offset).is_none() && self.is_inline(self.size())? {
            return Ok(false);
        }
        let mut checked = 0;
        while checked < data.len() {
            match self.place(extents, offset + checked as u64)? {
                (len, Some(_)) => checked += usize::try_from(len).unwrap_or(usize::MAX).min(data.len() - checked),
                (_, None) => return Ok(false),
            }
        }
        let mut done = 0;
        while done < data.len() {
            let (len, place) = self.place(extents, offset + done as u64)?;
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(data.len() - done);
            match place {
                Some(at) => self.fs.disk.write(at, &data[done..done + len])?,
                None => bail!(EIO),
            }
            done += len;
        }
        Ok(true)
    }

    /// `fallocate(2)`.
    pub(super) fn reserve(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let Some(mode) = ext4::FallocateMode::from_bits(mode) else {
            bail!(EOPNOTSUPP);
        };
        let mut extents = self.extents.write();
        if !mode.contains(ext4::FallocateMode::KEEP_SIZE) {
            extents.check_room(offset.saturating_add(len))?;
        }
        extents.forget();
        let ino = self.ino();
        self.change(|fs| fs.fallocate(ino, mode, offset, len, now()))?;
        if mode.intersects(ext4::FallocateMode::PUNCH_HOLE | ext4::FallocateMode::ZERO_RANGE) {
            self.clear_shadow(&extents, offset, (offset + len).min(self.size()))?;
        }
        Ok(())
    }

    /// Where the host has the pages of a range: in the image itself, if these are pages there, too.
    pub(super) fn mapped_extents(&self, offset: u64, len: u64, shared: bool) -> Result<Vec<HostExtent>> {
        let ino = self.ino();
        let mut extents = self.extents.write();
        let mappable = self.fs.block_size.is_multiple_of(PAGE_SIZE) && self.fs.disk.has_whole_pages();
        if !mappable || extents.shadow.is_some() || self.is_inline(self.size())? {
            return self.shadow_extents(&mut extents, offset, len, shared);
        }
        let mut fs = self.fs.lock();
        let mut pieces = fs.map(ino, offset, len).map_err(error)?;
        let holes = pieces.iter().any(|p| p.device_offset.is_none());
        let writable = !fs.is_read_only();
        drop(fs);
        if shared && holes && writable {
            // Stores need blocks to go to.
            extents.forget();
            pieces = self.change(|fs| fs.allocate(ino, offset, len, now()))?;
        }
        drop(extents);
        let end = offset.saturating_add(len);
        let mut extents = Vec::new();
        for piece in pieces {
            let from = piece.file_offset.max(offset);
            let to = (piece.file_offset + piece.len).min(end);
            if from >= to {
                continue;
            }
            let Some(at) = piece.device_offset else {
                extents.push(HostExtent { file_offset: from, len: to - from, host: None });
                continue;
            };
            let at = at + (from - piece.file_offset);
            let mut done = 0;
            while done < to - from {
                let (at, left) = (at + done, to - from - done);
                let (fd, place, len) = if shared && writable {
                    self.fs.disk.host_place_to_write(at, left)?
                } else {
                    self.fs.disk.host_place(at, left)?
                };
                extents.push(HostExtent { file_offset: from + done, len, host: Some((fd, place)) });
                done += len;
            }
        }
        Ok(extents)
    }
}
