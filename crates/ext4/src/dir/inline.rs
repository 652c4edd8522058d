//! Directories whose entries live in the inode (feature `inline_data`): the parent's number in 4 bytes, entries in
//! the inode's other 56, and more of them in the attribute `system.data`.

use super::{Entries, Found};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::{bytes_at, u32_at};
use crate::types::{DirEntry, FileType, Ino};
use alloc::vec::Vec;

/// Inode, type byte and name.
pub(super) type InlineEntry = (Ino, u8, Vec<u8>);

impl<D: BlockDevice> Fs<D> {
    /// The two regions with entries.
    fn inline_regions(&mut self, dir: &Inode) -> Result<[Vec<u8>; 2]> {
        let first = bytes_at(dir.i_block(), 4, 56).to_vec();
        let second = self.inline_tail(dir)?.unwrap_or_default();
        Ok([first, second])
    }

    /// Calls `f` with inode, type byte, name and the entry's number (from 2; `.` is 0 and `..` 1).
    fn inline_each(&mut self, dir: &Inode, f: &mut impl FnMut(&Self, u32, u8, &[u8], u64) -> bool) -> Result<()> {
        let dir_type = FileType::Directory.dirent_byte();
        let parent = u32_at(dir.i_block(), 0);
        self.check_dirent_ino(dir, parent)?;
        let regions = self.inline_regions(dir)?;
        if !f(self, dir.ino, dir_type, b".", 0) || !f(self, parent, dir_type, b"..", 1) {
            return Ok(());
        }
        let mut n = 2;
        for region in &regions {
            for e in Entries::new(region, self.bs) {
                let e = e.map_err(|what| Error::inode(dir.ino, what))?;
                if e.ino == 0 {
                    continue;
                }
                self.check_dirent_ino(dir, e.ino)?;
                if !f(self, e.ino, e.file_type, e.name, n) {
                    return Ok(());
                }
                n += 1;
            }
        }
        Ok(())
    }

    /// All entries, `.` and `..` first: inode, type byte, name.
    pub(super) fn inline_entries(&mut self, dir: &Inode) -> Result<Vec<InlineEntry>> {
        let mut all = Vec::new();
        self.inline_each(dir, &mut |_, ino, byte, name, _| {
            all.push((ino, byte, name.to_vec()));
            true
        })?;
        Ok(all)
    }

    pub(super) fn inline_find(&mut self, dir: &Inode, name: &[u8]) -> Result<Option<Found>> {
        let mut found = None;
        self.inline_each(dir, &mut |_, ino, _, n, _| {
            if n == name {
                found = Some(Found { ino, block: 0, off: 0 });
            }
            found.is_none()
        })?;
        Ok(found)
    }

    pub(super) fn inline_read_dir(
        &mut self,
        dir: &Inode,
        cookie: u64,
        emit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.inline_each(dir, &mut |fs, ino, byte, name, n| {
            n < cookie || emit(&DirEntry { ino, file_type: fs.entry_type(byte), name, next: n + 1 })
        })
    }
}
