//! Directories: entries in blocks, and the lookup of names (Linux `Documentation/filesystems/ext4/directory.rst`).

pub(crate) mod change;
pub(crate) mod hash;
mod htree;
pub(crate) mod htree_insert;
mod inline;
mod read;

use crate::cache::{Block, Kind};
use crate::csum::{DIR_TAIL, rec_len};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::Compat;
use crate::fs::Fs;
use crate::inode::{FL_ENCRYPT, FL_INDEX, FL_INLINE_DATA, Inode};
use crate::le::{bytes_at, u8_at, u16_at, u32_at};
use crate::types::{Ino, NAME_MAX};

/// An entry inside a directory block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirent<'a> {
    pub(crate) off: usize,
    /// 0 for an unused entry.
    pub(crate) ino: Ino,
    pub(crate) rec_len: usize,
    pub(crate) name: &'a [u8],
    pub(crate) file_type: u8,
}

impl Dirent<'_> {
    /// Bytes the entry needs.
    pub(crate) fn used(&self) -> usize {
        if self.ino == 0 { 0 } else { entry_size(self.name.len()) }
    }
}

/// Bytes that an entry with a name of this length takes.
pub(crate) fn entry_size(name_len: usize) -> usize {
    (8 + name_len).next_multiple_of(4)
}

/// Walks the entries of a block, or of a part of one; stops after the first that is malformed.
pub(crate) struct Entries<'a> {
    data: &'a [u8],
    block_size: usize,
    off: usize,
    failed: bool,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(data: &'a [u8], block_size: usize) -> Entries<'a> {
        Entries { data, block_size, off: 0, failed: false }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Dirent<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.off >= self.data.len() {
            return None;
        }
        let (data, off) = (self.data, self.off);
        let len = rec_len(data, off, self.block_size);
        let ino = u32_at(data, off);
        let name_len = usize::from(u8_at(data, off + 6));
        let problem = if len < 12 {
            Some("a directory entry is shorter than 12 bytes")
        } else if !len.is_multiple_of(4) {
            Some("a directory entry's length is not a multiple of 4")
        } else if off + len > data.len() {
            Some("a directory entry crosses its block's end")
        } else if ino != 0 && entry_size(name_len) > len {
            Some("a directory entry's name is longer than the entry")
        } else {
            None
        };
        if let Some(p) = problem {
            self.failed = true;
            return Some(Err(p));
        }
        self.off += len;
        let name = if ino == 0 { &[][..] } else { bytes_at(data, off + 8, name_len) };
        Some(Ok(Dirent { off, ino, rec_len: len, name, file_type: u8_at(data, off + 7) }))
    }
}

/// Where an entry was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) ino: Ino,
    /// Device block of the entry.
    pub(crate) block: u64,
    /// Offset in the block.
    pub(crate) off: usize,
}

impl<D: BlockDevice> Fs<D> {
    /// Number of blocks of a directory.
    pub(crate) fn dir_blocks(&self, dir: &Inode) -> Result<u32> {
        let bs = self.bs as u64;
        if !dir.size().is_multiple_of(bs) {
            return Err(Error::inode(dir.ino, "the directory's size is not a multiple of the block size"));
        }
        let n = dir.size() / bs;
        // Every block must exist, so no honest directory has more blocks than the file system.
        if n > self.sb.blocks_count || n > u64::from(u32::MAX) {
            return Err(Error::inode(dir.ino, "the directory has more blocks than the file system"));
        }
        Ok(n as u32)
    }

    /// Whether names of this directory are found through a hash index.
    pub(crate) fn is_indexed(&self, dir: &Inode) -> bool {
        dir.has(FL_INDEX) && self.sb.features.compat.contains(Compat::DIR_INDEX)
    }

    /// Reads a directory block and says whether it is an index block. `None` for a hole.
    pub(crate) fn dir_block(&mut self, dir: &Inode, lblk: u32) -> Result<Option<(u64, Block, bool)>> {
        let Some(block) = self.map_block(dir, lblk)? else {
            return Ok(None);
        };
        let seed = self.inode_seed(dir.ino, dir.generation());
        let data = self.block(block, Kind::Plain)?;
        let index = dir.has(FL_INDEX) && (lblk == 0 || is_node(&data));
        let kind = if index { Kind::DirIndex(seed) } else { Kind::Dir(seed) };
        Ok(Some((block, self.block(block, kind)?, index)))
    }

    /// Bytes of a leaf block that entries may use.
    pub(crate) fn dir_space(&self) -> usize {
        if self.sb.has_metadata_csum() { self.bs - DIR_TAIL } else { self.bs }
    }

    /// Looks a name up in a directory.
    pub(crate) fn find_entry(&mut self, dir: &Inode, name: &[u8]) -> Result<Option<Found>> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if dir.has(FL_ENCRYPT) {
            return Err(Error::Unsupported {
                what: alloc::format!("directory {} is encrypted", dir.ino),
                read_only_possible: false,
            });
        }
        if dir.has(FL_INLINE_DATA) {
            return self.inline_find(dir, name);
        }
        if self.is_indexed(dir)
            && name != b"."
            && name != b".."
            && let Some(found) = self.index_find(dir, name)?
        {
            return Ok(found);
        }
        for lblk in 0..self.dir_blocks(dir)? {
            let Some((block, data, _)) = self.dir_block(dir, lblk)? else { continue };
            if let Some(f) = self.find_in_block(dir, block, &data, name)? {
                return Ok(Some(f));
            }
            if lblk == 0 && (name == b"." || name == b"..") {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Looks a name up in one block.
    pub(crate) fn find_in_block(&self, dir: &Inode, block: u64, data: &[u8], name: &[u8]) -> Result<Option<Found>> {
        for e in Entries::new(data, self.bs) {
            let e = e.map_err(|what| Error::inode(dir.ino, what))?;
            if e.ino != 0 && e.name == name {
                self.check_dirent_ino(dir, e.ino)?;
                return Ok(Some(Found { ino: e.ino, block, off: e.off }));
            }
        }
        Ok(None)
    }

    pub(crate) fn check_dirent_ino(&self, dir: &Inode, ino: Ino) -> Result<()> {
        if ino > self.sb.inodes_count {
            return Err(Error::inode(dir.ino, "a directory entry's inode number is out of range"));
        }
        Ok(())
    }

    /// Looks a name up. `.` and `..` are found as stored.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NameTooLong`], [`Error::Corrupt`], [`Error::Io`].
    pub fn lookup(&mut self, dir: Ino, name: &[u8]) -> Result<Ino> {
        let dir = self.dir_inode(dir)?;
        Ok(self.find_entry(&dir, name)?.ok_or(Error::NotFound)?.ino)
    }
}

/// Whether a block is an index node: it starts with a fake entry without a name. So does a leaf without checksums whose
/// last name was removed, but a node states its limit behind it.
pub(crate) fn is_node(data: &[u8]) -> bool {
    let limit = usize::from(u16_at(data, 8));
    let (plain, with_tail) = (data.len().saturating_sub(8) / 8, data.len().saturating_sub(16) / 8);
    u32_at(data, 0) == 0
        && rec_len(data, 0, data.len()) == data.len()
        && u8_at(data, 6) == 0
        && (limit == plain || limit == with_tail)
}
