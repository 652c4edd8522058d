//! Files that grow by data which the caller puts on the device itself.
//!
//! A file that is written from front to back needs an allocation and a change of its inode for every write. With these
//! two calls it needs one of each for many writes, and the bytes may come from wherever the caller has them:
//! [`Fs::room_behind`] says where the bytes behind a file's end will lie, in blocks that are free as yet; the caller
//! writes there, piece after piece; [`Fs::extend`] gives the file the blocks that have got data. A crash in between
//! loses the bytes and nothing else, as with delayed allocation in Linux.

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::{FL_INLINE_DATA, Inode};
use crate::map::extent::Extent;
use crate::map::{MAX_FILE_BLOCKS, Run};
use crate::types::{Ino, Timestamp};

/// Free blocks left alone for each block that is promised, as a shift, and besides: the promise must not fail for want
/// of blocks for the file's map. A block of pointers maps at least 256 blocks.
const SPARE_SHIFT: u32 = 7;
const SPARE: u64 = 16;

/// Where the bytes behind a file's end will lie, in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The file.
    pub ino: Ino,
    /// Its size, in bytes: the offset in the file of what comes next.
    pub file_offset: u64,
    /// Byte offset on the device.
    pub device_offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl<D: BlockDevice> Fs<D> {
    /// Finds room for about `want` bytes behind the end of a regular file. Nothing is changed: the room stays the
    /// file's only until anything but [`Fs::extend`] is asked of this file system.
    ///
    /// `None` where there is no such room, and [`Fs::write`] must find some: the data is in the inode, the last block is
    /// a hole, blocks are allocated behind the end, or space is short.
    ///
    /// # Errors
    /// [`Error::IsDirectory`], [`Error::Invalid`] for other types, [`Error::ReadOnly`], [`Error::NotFound`],
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn room_behind(&mut self, ino: Ino, want: u64) -> Result<Option<Room>> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let inode = self.inode(ino)?;
        Self::check_regular(&inode)?;
        let size = inode.size();
        let want = want.min(self.max_size(&inode).saturating_sub(size));
        let Some((lblk, skip)) = self.split(size) else { return Ok(None) };
        if want == 0 || inode.has(FL_INLINE_DATA) {
            return Ok(None);
        }
        if skip == 0 {
            let goal = self.data_goal(&inode, lblk)?;
            let free = self.free_behind(&inode, lblk, goal, want)?;
            return Ok(free.map(|(start, blocks)| Room {
                ino,
                file_offset: size,
                device_offset: self.offset_of(start),
                len: (u64::from(blocks) * self.bs as u64).min(want),
            }));
        }
        let Some(last) = self.map_block(&inode, lblk)? else { return Ok(None) };
        let rest = (self.bs - skip) as u64;
        let mut len = rest;
        if want > rest
            && let Some(next) = lblk.checked_add(1)
            && let Some((start, blocks)) = self.free_behind(&inode, next, last + 1, want - rest)?
            && start == last + 1
        {
            len += u64::from(blocks) * self.bs as u64;
        }
        let device_offset = self.offset_of(last) + skip as u64;
        Ok(Some(Room { ino, file_offset: size, device_offset, len: len.min(want) }))
    }

    /// Free blocks for up to `want` bytes of a file from block `lblk` on, near `goal`.
    fn free_behind(&mut self, inode: &Inode, lblk: u32, goal: u64, want: u64) -> Result<Option<(u64, u32)>> {
        let left = MAX_FILE_BLOCKS.saturating_sub(u64::from(lblk));
        let wanted = want.div_ceil(self.bs as u64).min(left);
        let affordable = self.sb.free_blocks.saturating_sub(SPARE + (wanted >> SPARE_SHIFT));
        let blocks = wanted.min(affordable) as u32;
        if blocks == 0 {
            return Ok(None);
        }
        match self.map_run(inode, lblk, blocks)? {
            Run { start: None, len, .. } => self.find_free(goal, len),
            _ => Ok(None),
        }
    }

    /// Makes a file longer, up to byte `end`: what lies in its room up to there has been written by the caller. Sets
    /// `mtime` and `ctime` to `now`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `end` is not within the room, or the file has another size than when the room was found;
    /// [`Error::Corrupt`] if the blocks are somebody else's by now; as [`Fs::write`].
    pub fn extend(&mut self, room: &Room, end: u64, now: Timestamp) -> Result<()> {
        if end < room.file_offset || end - room.file_offset > room.len {
            return Err(Error::Invalid("the new end is not within the room behind the file"));
        }
        self.operation(|fs| {
            let mut inode = fs.inode(room.ino)?;
            if inode.size() != room.file_offset {
                return Err(Error::Invalid("the file's size has changed since there was room behind it"));
            }
            let bs = fs.bs as u64;
            let (first, last) = (room.file_offset.div_ceil(bs), end.div_ceil(bs));
            if first < last {
                let start = (room.device_offset + (first * bs - room.file_offset)) / bs;
                let run = Extent { lblk: first as u32, len: (last - first) as u32, start, unwritten: false };
                fs.take_blocks(run.start, run.len)?;
                fs.add_run(&mut inode, run)?;
                fs.write_zeros(fs.offset_of(start) + (end - first * bs), last * bs - end)?;
            }
            fs.cache.txn.data_written = true;
            inode.set_size(end);
            fs.note_size(end);
            fs.put_modified(&mut inode, now, true)
        })
    }
}
