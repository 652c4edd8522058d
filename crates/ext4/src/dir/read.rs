//! Listing directories.
//!
//! Cookies are what Linux's ext4 uses for `d_off`: with `dir_index`, hash positions, which hold while entries come
//! and go and while a directory turns from one block into an indexed tree; without, byte offsets.

use super::Entries;
use super::hash::{HALF_MD4, NameHash};
use crate::cache::Block;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::{Compat, Incompat};
use crate::fs::Fs;
use crate::inode::{FL_ENCRYPT, FL_INLINE_DATA, Inode};
use crate::le::bytes_at;
use crate::types::{DirEntry, FileType, Ino};
use alloc::vec::Vec;
use core::ops::Range;

/// The first cookie after `.` (0) and `..` (1).
const FIRST: u64 = 2;
/// The cookie at a directory's end (`EXT4_HTREE_EOF_64BIT`).
const END: u64 = i64::MAX as u64;

/// A hash as a position; bit 0 of the major part is not in use.
fn position(h: NameHash) -> u64 {
    (u64::from(h.major >> 1) << 32 | u64::from(h.minor)).max(FIRST)
}

/// An entry with its position, and where its name lies in its block.
struct Item {
    position: u64,
    ino: Ino,
    file_type: u8,
    leaf: usize,
    name: (usize, usize),
}

impl<D: BlockDevice> Fs<D> {
    /// Hands out a directory's entries from `cookie` (0 at first, later a [`DirEntry::next`]) until `emit` returns
    /// false or the directory ends. An entry for which `emit` returned false counts as not taken.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::Corrupt`], [`Error::Io`]. Entries before the damage
    /// have been handed out.
    pub fn read_dir(&mut self, dir: Ino, cookie: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let dir = self.dir_inode(dir)?;
        if dir.has(FL_ENCRYPT) {
            return Err(Error::Unsupported {
                what: alloc::format!("directory {} is encrypted", dir.ino),
                read_only_possible: false,
            });
        }
        if dir.has(FL_INLINE_DATA) {
            return self.inline_read_dir(&dir, cookie, emit);
        }
        let blocks = self.dir_blocks(&dir)?;
        let hashed = self.sb.features.compat.contains(Compat::DIR_INDEX) && (self.is_indexed(&dir) || blocks == 1);
        if hashed && self.read_dir_by_hash(&dir, cookie, emit)? {
            return Ok(());
        }
        self.read_dir_by_offset(&dir, blocks, cookie, emit)
    }

    pub(super) fn entry_type(&self, byte: u8) -> Option<FileType> {
        if self.sb.features.incompat.contains(Incompat::FILETYPE) { FileType::from_dirent_byte(byte) } else { None }
    }

    fn read_dir_by_offset(
        &mut self,
        dir: &Inode,
        blocks: u32,
        cookie: u64,
        emit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let bs = self.bs as u64;
        for lblk in (cookie / bs).min(u64::from(blocks)) as u32..blocks {
            let Some((_, data, index)) = self.dir_block(dir, lblk)? else { continue };
            if index && lblk != 0 {
                continue;
            }
            let base = u64::from(lblk) * bs;
            // The cookie may point into what has become part of another entry: go by entry starts.
            for e in Entries::new(&data, self.bs) {
                let e = e.map_err(|what| Error::inode(dir.ino, what))?;
                if e.ino == 0 || base + (e.off as u64) < cookie {
                    continue;
                }
                self.check_dirent_ino(dir, e.ino)?;
                let next = base + (e.off + e.rec_len) as u64;
                let file_type = self.entry_type(e.file_type);
                if !emit(&DirEntry { ino: e.ino, file_type, name: e.name, next }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns false if the directory's index is not usable and nothing was handed out.
    fn read_dir_by_hash(
        &mut self,
        dir: &Inode,
        cookie: u64,
        emit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<bool> {
        if cookie >= END {
            return Ok(true);
        }
        if !self.is_indexed(dir) {
            let version = if self.sb.default_hash <= 2 { self.sb.default_hash } else { HALF_MD4 };
            let Some((_, data, _)) = self.dir_block(dir, 0)? else {
                return Ok(false);
            };
            if self.emit_dots(dir, &data, cookie, emit)? {
                self.emit_leaves(dir, &[data], version, cookie..END, emit)?;
            }
            return Ok(true);
        }
        let from = if cookie <= FIRST { 0 } else { (cookie >> 32) as u32 };
        let Some(mut probe) = self.index_probe(dir, |fs, v| fs.hash_name(b"x", v).map(|_| from << 1))? else {
            return Ok(false);
        };
        if cookie < FIRST {
            let Some((_, root, _)) = self.dir_block(dir, 0)? else {
                return Ok(false);
            };
            if !self.emit_dots(dir, &root, cookie, emit)? {
                return Ok(true);
            }
        }
        let mut steps = 0u64;
        loop {
            // Names of equal hash may continue in the next leaves: gather those before sorting.
            let mut leaves = Vec::new();
            let next = loop {
                leaves.push(self.index_leaf(dir, probe.leaf)?.1);
                steps += 1;
                if steps > self.sb.blocks_count {
                    return Err(Error::inode(dir.ino, "the directory's hash index has a loop"));
                }
                match self.index_next(dir, &mut probe, None)? {
                    Some(h) if h & 1 != 0 => {}
                    next => break next,
                }
            };
            let end = next.map_or(END, |h| (u64::from(h >> 1) << 32).max(FIRST));
            if !self.emit_leaves(dir, &leaves, probe.version, cookie..end, emit)? || next.is_none() {
                return Ok(true);
            }
        }
    }

    /// Hands out `.` and `..` from the first block.
    fn emit_dots(
        &mut self,
        dir: &Inode,
        data: &[u8],
        cookie: u64,
        emit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<bool> {
        if cookie >= FIRST {
            return Ok(true);
        }
        for e in Entries::new(data, self.bs).take(2) {
            let e = e.map_err(|what| Error::inode(dir.ino, what))?;
            let next = match e.name {
                b"." => 1,
                b".." => FIRST,
                _ => continue,
            };
            self.check_dirent_ino(dir, e.ino)?;
            let file_type = self.entry_type(e.file_type);
            if e.ino != 0 && next > cookie && !emit(&DirEntry { ino: e.ino, file_type, name: e.name, next }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands out leaves' entries from `range.start` on in the order of their hashes. The next leaf starts at
    /// `range.end`.
    fn emit_leaves(
        &mut self,
        dir: &Inode,
        leaves: &[Block],
        version: u8,
        range: Range<u64>,
        emit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<bool> {
        let mut items: Vec<Item> = Vec::new();
        for (leaf, data) in leaves.iter().enumerate() {
            for e in Entries::new(data, self.bs) {
                let e = e.map_err(|what| Error::inode(dir.ino, what))?;
                if e.ino == 0 || e.name == b"." || e.name == b".." {
                    continue;
                }
                self.check_dirent_ino(dir, e.ino)?;
                let Some(h) = self.hash_name(e.name, version) else {
                    return Err(Error::inode(dir.ino, "the directory's hash version is not known"));
                };
                let position = position(h);
                if position >= range.start {
                    let name = (e.off + 8, e.name.len());
                    items.push(Item { position, ino: e.ino, file_type: e.file_type, leaf, name });
                }
            }
        }
        items.sort_by_key(|i| i.position);
        for (n, item) in items.iter().enumerate() {
            // Entries of one position stay together: a call that stops among them starts with them again.
            let next = match items.get(n + 1) {
                Some(following) => following.position,
                None => range.end.max(item.position + 1),
            };
            let data = leaves.get(item.leaf).map_or(&[][..], |d| &d[..]);
            let name = bytes_at(data, item.name.0, item.name.1);
            let file_type = self.entry_type(item.file_type);
            if !emit(&DirEntry { ino: item.ino, file_type, name, next }) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
