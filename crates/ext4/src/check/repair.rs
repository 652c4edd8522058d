//! Repairs that need no guess: each follows from what the check found.

use super::{Checker, Entry, Mend, Report};
use crate::bitmap;
use crate::cache::Kind;
use crate::csum::DIR_TAIL;
use crate::device::BlockDevice;
use crate::dir::change::{put_rec_len, put_tail};
use crate::dir::{Entries, Found, is_node};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::group::{BLOCK_UNINIT, INODE_UNINIT};
use crate::inode::{FL_INDEX, Inode};
use crate::le::{bytes_at, put8, put32, u16_at, u32_at};
use crate::superblock::STATE_VALID;
use crate::types::{FileType, Ino, NewInode, ROOT_INO, Timestamp};
use alloc::format;
use alloc::vec::Vec;

/// Rounds of checking and repairing: one repair brings others to light (a directory that gets its parent back, link
/// counts).
const ROUNDS: usize = 6;
/// `s_state`: errors were found.
const STATE_ERROR: u16 = 2;

impl<D: BlockDevice> Fs<D> {
    /// Checks the file system and puts right what needs no guess: checksums, counts and bitmaps, link counts, types and
    /// leftovers of directory entries, `..`, and files without a name, which get one in `lost+found`. A damaged hash
    /// index is dropped. Returns what was found at first, and what is left.
    ///
    /// What uses a block twice or has lost the way to its blocks is left for `e2fsck`; as long as there is something
    /// like it, no block or inode is freed.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] on a read-only mount, [`Error::Unsupported`], [`Error::Io`].
    pub fn repair(&mut self) -> Result<(Report, Report)> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let mut checker = Checker::run(self)?;
        let first = checker.report.clone();
        for _ in 0..ROUNDS {
            let mends: Vec<Mend> = checker.report.findings.iter().map(|f| f.mend.clone()).collect();
            if mends.iter().all(|m| *m == Mend::No) {
                break;
            }
            if mends.contains(&Mend::Counts) {
                checker.rewrite_bitmaps()?;
            }
            // The superblock's counts are right from here on.
            self.stated_free = None;
            for mend in &mends {
                match self.operation(|fs| fs.mend(mend)) {
                    // What cannot be done now stays a finding.
                    Err(Error::Io(e)) => return Err(Error::Io(e)),
                    Err(Error::ReadOnly) => return Err(Error::ReadOnly),
                    _ => {}
                }
            }
            self.commit()?;
            checker = Checker::run(self)?;
        }
        let left = checker.report;
        if left.is_clean() {
            self.state_at_mount |= STATE_VALID;
            self.sb.state &= !STATE_ERROR;
            if self.options.now.is_some() {
                self.sb.note_checked(self.sb.write_time);
            }
            self.cache.txn.super_dirty = true;
        }
        Ok((first, left))
    }

    fn mend(&mut self, mend: &Mend) -> Result<()> {
        match *mend {
            Mend::No | Mend::Counts => Ok(()),
            Mend::Inode(ino) => {
                let mut inode = self.unchecked_inode(ino)?;
                if inode.nlink() > 0 {
                    inode.set_dtime(0);
                } else if inode.dtime() == 0 {
                    inode.set_dtime((self.sb.write_time.max(1) & 0xFFFF_FFFF) as u32);
                }
                self.put_inode(&mut inode, true)
            }
            Mend::Blocks(ino, right) => {
                let mut inode = self.unchecked_inode(ino)?;
                self.set_blocks512(&mut inode, right)?;
                self.put_inode(&mut inode, true)
            }
            Mend::Links(ino, right) => {
                let mut inode = self.unchecked_inode(ino)?;
                inode.set_nlink(right);
                self.put_inode(&mut inode, true)
            }
            Mend::Reconnect(ino) => self.reconnect(ino),
            Mend::EntryType(Entry { dir, block, off }, file_type) => {
                let dir = self.unchecked_inode(dir)?;
                let seed = self.inode_seed(dir.ino, dir.generation());
                let byte = self.dirent_type(file_type);
                put8(self.block_mut(block, Kind::Dir(seed))?, off + 7, byte);
                Ok(())
            }
            Mend::ClearEntry(Entry { dir, block, off }) => {
                let mut dir = self.unchecked_inode(dir)?;
                self.remove_entry(&mut dir, Found { ino: 0, block, off })
            }
            Mend::Parent(dir, parent) => {
                let dir = self.unchecked_inode(dir)?;
                self.set_parent(&dir, parent)
            }
            Mend::DirBlock(dir, block) => self.seal_dir_block(dir, block),
            Mend::DropIndex(dir) => self.drop_index(dir),
            Mend::Shares(block, right) => {
                put32(self.block_mut(block, Kind::Xattr)?, 4, right);
                Ok(())
            }
        }
    }

    /// An inode whose checksum may be wrong.
    fn unchecked_inode(&mut self, ino: Ino) -> Result<Inode> {
        let (block, off, _) = self.inode_place(ino)?;
        let data = self.block(block, Kind::Plain)?;
        Ok(Inode { ino, raw: bytes_at(&data, off, usize::from(self.sb.inode_size)).into() })
    }

    /// Gives a nameless inode a name in `lost+found`.
    fn reconnect(&mut self, ino: Ino) -> Result<()> {
        let now = self.options.now.unwrap_or(Timestamp { sec: self.sb.write_time.cast_signed(), nsec: 0 });
        let root = self.dir_inode(ROOT_INO)?;
        let lost = match self.find_entry(&root, b"lost+found")? {
            Some(found) => found.ino,
            None => {
                let file_type = FileType::Directory;
                let new = NewInode { file_type, mode: 0o700, uid: 0, gid: 0, rdev: (0, 0), now };
                self.create_in_operation(ROOT_INO, b"lost+found", &new)?
            }
        };
        let mut lost = self.dir_inode(lost)?;
        self.dir_leave_inode(&mut lost)?;
        let inode = self.unchecked_inode(ino)?;
        let Some(file_type) = inode.file_type() else {
            return Err(Error::inode(ino, "the mode names no file type"));
        };
        let name = format!("#{ino}").into_bytes();
        let slot = self.entry_slot(&mut lost, &name)?;
        self.insert_entry(&mut lost, &name, ino, file_type, slot)?;
        if file_type == FileType::Directory {
            self.set_parent(&inode, lost.ino)?;
            lost.set_nlink(lost.nlink().saturating_add(1));
        }
        self.put_inode(&mut lost, true)
    }

    /// Forms the checksum of a block whose entries are sound.
    fn seal_dir_block(&mut self, dir: Ino, block: u64) -> Result<()> {
        let dir = self.unchecked_inode(dir)?;
        let data = self.block(block, Kind::Plain)?;
        let space = self.dir_space();
        let sound = Entries::new(bytes_at(&data, 0, space), self.bs).all(|e| e.is_ok());
        let tail = u32_at(&data, space) == 0 && usize::from(u16_at(&data, space + 4)) == DIR_TAIL;
        if !sound || !tail {
            return Err(Error::inode(dir.ino, "a directory block is damaged"));
        }
        let seed = self.inode_seed(dir.ino, dir.generation());
        let data = self.block_mut(block, Kind::Dir(seed))?;
        put_tail(data, space);
        Ok(())
    }

    /// Turns the blocks of a directory's hash index into blocks without entries.
    fn drop_index(&mut self, dir: Ino) -> Result<()> {
        let mut dir = self.unchecked_inode(dir)?;
        let (space, seed) = (self.dir_space(), self.inode_seed(dir.ino, dir.generation()));
        for lblk in 0..self.dir_blocks(&dir)? {
            let Some(block) = self.map_block(&dir, lblk)? else { continue };
            let data = self.block(block, Kind::Plain)?;
            if lblk == 0 {
                let mut dots = Entries::new(&data, self.bs);
                let dot = dots.next().is_some_and(|e| e.is_ok_and(|e| e.name == b"." && e.rec_len == 12));
                if !dot || !dots.next().is_some_and(|e| e.is_ok_and(|e| e.name == b"..")) {
                    return Err(Error::inode(dir.ino, "the directory's first entries are not . and .."));
                }
                let data = self.block_mut(block, Kind::Dir(seed))?;
                if let Some(index) = data.get_mut(24..space) {
                    index.fill(0);
                }
                put_rec_len(data, 12, space - 12);
                put_tail(data, space);
            } else if is_node(&data) {
                let data = self.block_mut(block, Kind::Dir(seed))?;
                data.fill(0);
                put_rec_len(data, 0, space);
                put_tail(data, space);
            }
        }
        dir.set_flags(dir.flags() & !FL_INDEX);
        self.put_inode(&mut dir, true)
    }
}

impl<D: BlockDevice> Checker<'_, D> {
    /// Writes bitmaps and counts as they follow from what is in use. While there is damage of which not all is known,
    /// nothing is freed.
    fn rewrite_bitmaps(&mut self) -> Result<()> {
        let keep = self.report.findings.iter().any(|f| f.mend == Mend::No) || self.report.count > super::KEPT;
        let (mut free_blocks, mut free_inodes) = (0u64, 0u32);
        for group in 0..self.fs.sb.group_count() {
            let mut right = self.right(group);
            let (blocks_at, inodes_at) = match self.fs.groups.get(group as usize) {
                Some(g) => (g.block_bitmap, g.inode_bitmap),
                None => continue,
            };
            let no_blocks = self.fs.block_bitmap_uninit(group);
            let no_inodes = self.fs.inode_bitmap_uninit(group);
            let blocks =
                if no_blocks { self.fs.block_bitmap(group)? } else { self.fs.block(blocks_at, Kind::Plain)? };
            let inodes =
                if no_inodes { self.fs.inode_bitmap(group)? } else { self.fs.block(inodes_at, Kind::Plain)? };
            if keep {
                for (right, have) in [(&mut right.blocks, &blocks), (&mut right.inodes, &inodes)] {
                    right.iter_mut().zip(have.iter()).for_each(|(right, have)| *right |= have);
                }
                right.free_blocks = bitmap::count_clear(&right.blocks, self.fs.sb.group_blocks(group));
                right.free_inodes = bitmap::count_clear(&right.inodes, self.fs.sb.inodes_per_group);
            }
            free_blocks += u64::from(right.free_blocks);
            free_inodes += right.free_inodes;
            let bad = |kind, at, have: &[u8]| self.fs.verify(at, kind, have).is_err();
            let new_blocks =
                right.blocks[..] != blocks[..] || !no_blocks && bad(Kind::BlockBitmap(group), blocks_at, &blocks);
            let new_inodes =
                right.inodes[..] != inodes[..] || !no_inodes && bad(Kind::InodeBitmap(group), inodes_at, &inodes);
            drop((blocks, inodes));
            self.fs.operation(|fs| {
                if new_blocks {
                    fs.group_mut(group)?.flags &= !BLOCK_UNINIT;
                    fs.block_new(blocks_at, Kind::BlockBitmap(group))?.copy_from_slice(&right.blocks);
                }
                if new_inodes {
                    fs.group_mut(group)?.flags &= !INODE_UNINIT;
                    fs.block_new(inodes_at, Kind::InodeBitmap(group))?.copy_from_slice(&right.inodes);
                }
                let g = fs.group_mut(group)?;
                (g.free_blocks, g.free_inodes, g.used_dirs) = (right.free_blocks, right.free_inodes, right.dirs);
                (g.block_hint, g.inode_hint, g.longest_run) = (0, 0, u32::MAX);
                g.csum_is_wrong = false;
                Ok(())
            })?;
        }
        self.fs.operation(|fs| {
            (fs.sb.free_blocks, fs.sb.free_inodes) = (free_blocks, free_inodes);
            fs.cache.txn.super_dirty = true;
            Ok(())
        })
    }
}
