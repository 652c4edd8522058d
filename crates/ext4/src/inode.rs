//! Inodes: their bytes, where they lie, and their checksum (Linux `Documentation/filesystems/ext4/inodes.rst`).

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::RoCompat;
use crate::fs::Fs;
use crate::group::INODE_UNINIT;
use crate::le::{bytes_at, put_bytes, put16, put32, u16_at, u32_at};
use crate::types::{Attr, FileType, Ino, Timestamp};
use alloc::boxed::Box;

/// The directory has a hash index.
pub(crate) const FL_INDEX: u32 = 0x1000;
/// The block count is in file system blocks.
pub(crate) const FL_HUGE_FILE: u32 = 0x4_0000;
/// The inode uses extents.
pub(crate) const FL_EXTENTS: u32 = 0x8_0000;
/// The inode holds a large extended attribute.
pub(crate) const FL_EA_INODE: u32 = 0x20_0000;
/// The data lives in the inode.
pub(crate) const FL_INLINE_DATA: u32 = 0x1000_0000;
/// The contents are encrypted.
pub(crate) const FL_ENCRYPT: u32 = 0x800;
/// What is made in the directory takes its project id.
pub(crate) const FL_PROJINHERIT: u32 = 0x2000_0000;
/// Flags that a user may set (`EXT4_FL_USER_MODIFIABLE` less what needs features this crate lacks).
pub(crate) const FL_USER: u32 =
    0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
/// Flags that new inodes take from their directory (`EXT4_FL_INHERITED`).
pub(crate) const FL_INHERITED: u32 =
    0x1 | 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x400 | 0x4000 | 0x8000 | 0x1_0000 | FL_PROJINHERIT;

/// Where the 60 bytes of block pointers, extents or a short symlink start.
pub(crate) const I_BLOCK: usize = 40;
/// Their length.
pub(crate) const I_BLOCK_LEN: usize = 60;

/// An inode's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    pub(crate) raw: Box<[u8]>,
}

/// Which of the four times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    Access,
    Change,
    Modify,
    Create,
}

impl Time {
    /// Offsets of the seconds, and of the extra word with nanoseconds and two more bits of seconds.
    fn offsets(self) -> (usize, usize) {
        match self {
            Time::Access => (8, 140),
            Time::Change => (12, 132),
            Time::Modify => (16, 136),
            Time::Create => (144, 148),
        }
    }
}

impl Inode {
    pub(crate) fn zeroed(ino: Ino, size: u16) -> Inode {
        Inode { ino, raw: alloc::vec![0; usize::from(size)].into_boxed_slice() }
    }

    pub(crate) fn mode(&self) -> u16 {
        u16_at(&self.raw, 0)
    }
    pub(crate) fn set_mode(&mut self, v: u16) {
        put16(&mut self.raw, 0, v);
    }
    pub(crate) fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(self.mode())
    }
    pub(crate) fn is_dir(&self) -> bool {
        self.file_type() == Some(FileType::Directory)
    }
    pub(crate) fn uid(&self) -> u32 {
        u32::from(u16_at(&self.raw, 2)) | u32::from(u16_at(&self.raw, 120)) << 16
    }
    pub(crate) fn set_uid(&mut self, v: u32) {
        put16(&mut self.raw, 2, (v & 0xFFFF) as u16);
        put16(&mut self.raw, 120, (v >> 16) as u16);
    }
    pub(crate) fn gid(&self) -> u32 {
        u32::from(u16_at(&self.raw, 24)) | u32::from(u16_at(&self.raw, 122)) << 16
    }
    pub(crate) fn set_gid(&mut self, v: u32) {
        put16(&mut self.raw, 24, (v & 0xFFFF) as u16);
        put16(&mut self.raw, 122, (v >> 16) as u16);
    }
    pub(crate) fn size(&self) -> u64 {
        let high = match self.file_type() {
            Some(FileType::Regular | FileType::Directory) => u64::from(u32_at(&self.raw, 108)) << 32,
            _ => 0,
        };
        u64::from(u32_at(&self.raw, 4)) | high
    }
    pub(crate) fn set_size(&mut self, v: u64) {
        put32(&mut self.raw, 4, (v & 0xFFFF_FFFF) as u32);
        if matches!(self.file_type(), Some(FileType::Regular | FileType::Directory)) {
            put32(&mut self.raw, 108, (v >> 32) as u32);
        }
    }
    pub(crate) fn nlink(&self) -> u16 {
        u16_at(&self.raw, 26)
    }
    pub(crate) fn set_nlink(&mut self, v: u16) {
        put16(&mut self.raw, 26, v);
    }
    /// Deletion time; on the orphan list, the next inode of it.
    pub(crate) fn dtime(&self) -> u32 {
        u32_at(&self.raw, 20)
    }
    pub(crate) fn set_dtime(&mut self, v: u32) {
        put32(&mut self.raw, 20, v);
    }
    pub(crate) fn flags(&self) -> u32 {
        u32_at(&self.raw, 32)
    }
    pub(crate) fn set_flags(&mut self, v: u32) {
        put32(&mut self.raw, 32, v);
    }
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }
    pub(crate) fn generation(&self) -> u32 {
        u32_at(&self.raw, 100)
    }
    pub(crate) fn set_generation(&mut self, v: u32) {
        put32(&mut self.raw, 100, v);
    }
    /// The extended attribute block, 0 for none.
    pub(crate) fn file_acl(&self) -> u64 {
        u64::from(u32_at(&self.raw, 104)) | u64::from(u16_at(&self.raw, 118)) << 32
    }
    pub(crate) fn set_file_acl(&mut self, v: u64) {
        put32(&mut self.raw, 104, (v & 0xFFFF_FFFF) as u32);
        put16(&mut self.raw, 118, (v >> 32 & 0xFFFF) as u16);
    }
    /// The stored block count: 512-byte units, or blocks if the inode has [`FL_HUGE_FILE`].
    fn raw_blocks(&self) -> u64 {
        u64::from(u32_at(&self.raw, 28)) | u64::from(u16_at(&self.raw, 116)) << 32
    }
    pub(crate) fn i_block(&self) -> &[u8] {
        bytes_at(&self.raw, I_BLOCK, I_BLOCK_LEN)
    }
    pub(crate) fn i_block_mut(&mut self) -> &mut [u8] {
        &mut self.raw[I_BLOCK..I_BLOCK + I_BLOCK_LEN]
    }
    /// Bytes used after the first 128 for fixed fields.
    pub(crate) fn extra_isize(&self) -> usize {
        if self.raw.len() > 128 { usize::from(u16_at(&self.raw, 128)) } else { 0 }
    }
    pub(crate) fn set_extra_isize(&mut self, v: u16) {
        if self.raw.len() > 128 {
            put16(&mut self.raw, 128, v);
        }
    }
    /// The project that the inode belongs to; 0 where there is no room for one.
    pub(crate) fn project(&self) -> u32 {
        if self.has_extra(160) { u32_at(&self.raw, 156) } else { 0 }
    }
    pub(crate) fn set_project(&mut self, v: u32) {
        if self.has_extra(160) {
            put32(&mut self.raw, 156, v);
        }
    }
    /// Whether the fixed fields reach to `end`.
    fn has_extra(&self, end: usize) -> bool {
        end <= 128 + self.extra_isize() && end <= self.raw.len()
    }

    pub(crate) fn time(&self, which: Time) -> Timestamp {
        let (sec, extra) = which.offsets();
        if which == Time::Create && !self.has_extra(148) {
            return Timestamp::default();
        }
        // The 32 stored bits are signed; the two extra bits count further epochs of 2^32 seconds.
        let low = i64::from(u32_at(&self.raw, sec).cast_signed());
        if !self.has_extra(extra + 4) {
            return Timestamp { sec: low, nsec: 0 };
        }
        let e = u32_at(&self.raw, extra);
        Timestamp { sec: low + (i64::from(e & 3) << 32), nsec: (e >> 2).min(999_999_999) }
    }

    pub(crate) fn set_time(&mut self, which: Time, t: Timestamp) {
        let (sec, extra) = which.offsets();
        if which == Time::Create && !self.has_extra(148) {
            return;
        }
        let min = i64::from(i32::MIN);
        if self.has_extra(extra + 4) {
            let s = t.sec.clamp(min, i64::from(i32::MAX) + (3 << 32));
            let low = (s & 0xFFFF_FFFF) as u32;
            let epoch = ((s - i64::from(low.cast_signed())) >> 32) as u32 & 3;
            put32(&mut self.raw, sec, low);
            put32(&mut self.raw, extra, epoch | t.nsec.min(999_999_999) << 2);
        } else {
            put32(&mut self.raw, sec, (t.sec.clamp(min, i64::from(i32::MAX)) & 0xFFFF_FFFF) as u32);
        }
    }

    /// Device number of a device node (`new_decode_dev`, `old_decode_dev` of Linux).
    pub(crate) fn rdev(&self) -> (u32, u32) {
        if !matches!(self.file_type(), Some(FileType::CharDevice | FileType::BlockDevice)) {
            return (0, 0);
        }
        let old = u32_at(self.i_block(), 0);
        if old != 0 {
            return (old >> 8 & 0xFF, old & 0xFF);
        }
        let new = u32_at(self.i_block(), 4);
        (new >> 8 & 0xFFF, (new & 0xFF) | (new >> 12 & 0xF_FF00))
    }

    /// Stores the device number of a device node; other types have none.
    pub(crate) fn set_rdev(&mut self, (major, minor): (u32, u32)) {
        if !matches!(self.file_type(), Some(FileType::CharDevice | FileType::BlockDevice)) {
            return;
        }
        let b = self.i_block_mut();
        if major < 256 && minor < 256 {
            put32(b, 0, major << 8 | minor);
        } else {
            put32(b, 4, (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xF_FF00) << 12);
        }
    }

    /// Whether a symlink's target is stored in place of block pointers.
    pub(crate) fn is_fast_symlink(&self) -> bool {
        self.file_type() == Some(FileType::Symlink)
            && self.size() < I_BLOCK_LEN as u64
            && !self.has(FL_EXTENTS | FL_INLINE_DATA)
    }

    /// Whether the inode's 60 bytes describe blocks.
    pub(crate) fn has_blocks(&self) -> bool {
        match self.file_type() {
            Some(FileType::Regular | FileType::Directory) => !self.has(FL_INLINE_DATA),
            Some(FileType::Symlink) => !self.is_fast_symlink() && !self.has(FL_INLINE_DATA),
            _ => false,
        }
    }

    /// Whether the stored checksum is that of the contents.
    pub(crate) fn csum_matches<D: BlockDevice>(&self, fs: &Fs<D>) -> bool {
        self.csum(fs.inode_seed(self.ino, self.generation())) == self.stored_csum()
    }

    /// How many attributes have their value in this inode: kept in fields that such inodes have no use for.
    pub(crate) fn value_references(&self) -> u64 {
        u64::from(u32_at(&self.raw, 12)) << 32 | u64::from(u32_at(&self.raw, 36))
    }

    fn csum(&self, seed: u32) -> u32 {
        // The checksum's own fields count as zeros; with the bytes around them they fill steps of the algorithm.
        const AROUND: core::ops::Range<usize> = 112..144;
        let r = &self.raw;
        let mut around = [0; AROUND.end - AROUND.start];
        let len = r.len().min(AROUND.end).saturating_sub(AROUND.start);
        put_bytes(&mut around, 0, bytes_at(r, AROUND.start, len));
        put16(&mut around, 124 - AROUND.start, 0);
        if self.has_extra(132) {
            put16(&mut around, 130 - AROUND.start, 0);
        }
        let c = crc32c(seed, bytes_at(r, 0, AROUND.start));
        let c = crc32c(c, bytes_at(&around, 0, len));
        let c = crc32c(c, bytes_at(r, AROUND.end, r.len().saturating_sub(AROUND.end)));
        if self.has_extra(132) { c } else { c & 0xFFFF }
    }

    fn stored_csum(&self) -> u32 {
        let high = if self.has_extra(132) { u32::from(u16_at(&self.raw, 130)) << 16 } else { 0 };
        u32::from(u16_at(&self.raw, 124)) | high
    }
}

impl<D: BlockDevice> Fs<D> {
    /// The block and byte offset of an inode.
    pub(crate) fn inode_place(&self, ino: Ino) -> Result<(u64, usize, u32)> {
        if ino == 0 || ino > self.sb.inodes_count {
            return Err(Error::corrupt("an inode number out of range", Place::Inode(ino)));
        }
        let group = (ino - 1) / self.sb.inodes_per_group;
        let index = (ino - 1) % self.sb.inodes_per_group;
        let g = self
            .groups
            .get(group as usize)
            .ok_or(Error::corrupt("an inode number beyond the last block group", Place::Inode(ino)))?;
        let at = u64::from(index) * u64::from(self.sb.inode_size);
        Ok((g.inode_table + at / self.bs as u64, (at % self.bs as u64) as usize, group))
    }

    /// Reads an inode, whatever its state, and checks its checksum.
    pub(crate) fn inode_raw(&mut self, ino: Ino) -> Result<Inode> {
        let (block, off, group) = self.inode_place(ino)?;
        let uninit =
            self.sb.has_group_csum() && self.groups.get(group as usize).is_some_and(|g| g.flags & INODE_UNINIT != 0);
        if uninit {
            return Ok(Inode::zeroed(ino, self.sb.inode_size));
        }
        let data = self.block(block, Kind::Plain)?;
        let inode = Inode { ino, raw: bytes_at(&data, off, usize::from(self.sb.inode_size)).into() };
        if inode.raw.len() != usize::from(self.sb.inode_size) {
            return Err(Error::inode(ino, "the inode crosses its block's end"));
        }
        let position = off / usize::from(self.sb.inode_size).max(1);
        if self.sb.has_metadata_csum() && !self.inode_checked(block, position, false) {
            let seed = self.inode_seed(ino, inode.generation());
            if inode.csum(seed) != inode.stored_csum() && inode.raw.iter().any(|&b| b != 0) {
                return Err(Error::inode(ino, "the inode's checksum does not match its contents"));
            }
            self.inode_checked(block, position, true);
        }
        if inode.raw.len() > 128 && 128 + inode.extra_isize() > inode.raw.len() {
            return Err(Error::inode(ino, "the extra fields are longer than the inode"));
        }
        Ok(inode)
    }

    /// Reads an inode in use.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that is free.
    pub(crate) fn inode(&mut self, ino: Ino) -> Result<Inode> {
        if ino == 0 || ino > self.sb.inodes_count {
            return Err(Error::NotFound);
        }
        let inode = self.inode_raw(ino)?;
        // The deletion time of an orphan is the next orphan's number; a larger one says that the inode is free.
        if inode.nlink() == 0 && (inode.mode() == 0 || inode.dtime() > self.sb.inodes_count) {
            return Err(Error::NotFound);
        }
        if inode.file_type().is_none() {
            return Err(Error::inode(ino, "the mode names no file type"));
        }
        if inode.size() > i64::MAX as u64 {
            return Err(Error::inode(ino, "the size is over 2^63"));
        }
        Ok(inode)
    }

    /// Reads a directory's inode.
    pub(crate) fn dir_inode(&mut self, ino: Ino) -> Result<Inode> {
        let inode = self.inode(ino)?;
        if inode.is_dir() { Ok(inode) } else { Err(Error::NotDirectory) }
    }

    /// Brings an inode's checksum up to date.
    pub(crate) fn seal_inode(&self, inode: &mut Inode) {
        if self.sb.has_metadata_csum() {
            let c = inode.csum(self.inode_seed(inode.ino, inode.generation()));
            put16(&mut inode.raw, 124, (c & 0xFFFF) as u16);
            if inode.has_extra(132) {
                put16(&mut inode.raw, 130, (c >> 16) as u16);
            }
        }
    }

    /// As [`Fs::put_inode`], after a change of the inode's contents at `now`.
    pub(crate) fn put_modified(&mut self, inode: &mut Inode, now: Timestamp, data: bool) -> Result<()> {
        inode.set_time(Time::Modify, now);
        inode.set_time(Time::Change, now);
        self.note_time(now);
        self.put_inode(inode, data)
    }

    /// Writes an inode into the running transaction; `data` says whether more than its times changed.
    pub(crate) fn put_inode(&mut self, inode: &mut Inode, data: bool) -> Result<()> {
        let (block, off, _) = self.inode_place(inode.ino)?;
        self.seal_inode(inode);
        let buf = self.block_mut(block, Kind::Plain)?;
        put_bytes(buf, off, &inode.raw);
        self.inode_checked(block, off / inode.raw.len().max(1), true);
        *self.cache.txn.inodes.entry(inode.ino).or_insert(false) |= data;
        Ok(())
    }

    /// Space taken, in 512-byte units.
    pub(crate) fn blocks512(&self, inode: &Inode) -> u64 {
        let n = inode.raw_blocks();
        if inode.has(FL_HUGE_FILE) { n.saturating_mul(self.bs as u64 / 512) } else { n }
    }

    /// Adds `blocks` file system blocks (negative: removes) to the inode's count.
    pub(crate) fn add_blocks(&self, inode: &mut Inode, blocks: i64) -> Result<()> {
        let per = self.bs as i64 / 512;
        let now = i64::try_from(self.blocks512(inode)).unwrap_or(i64::MAX);
        let total = blocks
            .checked_mul(per)
            .and_then(|d| now.checked_add(d))
            .and_then(|n| u64::try_from(n).ok())
            .ok_or(Error::inode(inode.ino, "the block count is less than the blocks being freed"))?;
        self.set_blocks512(inode, total)
    }

    /// Sets the inode's block count, in 512-byte units.
    pub(crate) fn set_blocks512(&self, inode: &mut Inode, total: u64) -> Result<()> {
        let per = self.bs as u64 / 512;
        let huge = self.sb.features.ro_compat.contains(RoCompat::HUGE_FILE);
        let (stored, flag) = if total < 1 << 32 {
            (total, false)
        } else if !huge {
            return Err(Error::TooBig);
        } else if total < 1 << 48 {
            (total, false)
        } else {
            (total / per, true)
        };
        let f = inode.flags();
        inode.set_flags(if flag { f | FL_HUGE_FILE } else { f & !FL_HUGE_FILE });
        put32(&mut inode.raw, 28, (stored & 0xFFFF_FFFF) as u32);
        if huge {
            put16(&mut inode.raw, 116, (stored >> 32 & 0xFFFF) as u16);
        }
        Ok(())
    }

    /// What `stat(2)` shows of an inode.
    pub(crate) fn attr_of(&self, inode: &Inode) -> Result<Attr> {
        Ok(Attr {
            ino: inode.ino,
            file_type: inode.file_type().ok_or(Error::inode(inode.ino, "the mode names no file type"))?,
            mode: inode.mode() & 0o7777,
            uid: inode.uid(),
            gid: inode.gid(),
            nlink: u32::from(inode.nlink()),
            size: inode.size(),
            blocks512: self.blocks512(inode),
            rdev: inode.rdev(),
            atime: inode.time(Time::Access),
            mtime: inode.time(Time::Modify),
            ctime: inode.time(Time::Change),
            crtime: inode.time(Time::Create),
            flags: inode.flags(),
            generation: inode.generation(),
        })
    }
}
