//! Pass 1: every inode in use, and the blocks it takes.

use super::{Checker, Known, Mend};
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::{Compat, Incompat, RoCompat};
use crate::inode::{FL_EA_INODE, FL_EXTENTS, FL_INDEX, FL_INLINE_DATA, I_BLOCK_LEN, Inode};
use crate::le::bytes_at;
use crate::orphan::{ORPHAN_BLOCK_MAGIC, orphan_csum};
use crate::types::{FileType, Ino, ROOT_INO};
use alloc::format;
use alloc::vec::Vec;

/// Inode of the reserve for the descriptor table to grow.
const RESIZE_INO: Ino = 7;

/// What the blocks of an inode add up to.
#[derive(Debug, Default)]
pub(super) struct Extent {
    /// Blocks that it takes, those that lead to others included.
    pub(super) blocks: u64,
    /// The last block of the file that is mapped, and the last that holds data.
    pub(super) last: Option<u64>,
    pub(super) last_written: Option<u64>,
    /// Of a directory, where its blocks lie.
    pub(super) runs: Vec<super::DirRun>,
}

impl<D: BlockDevice> Checker<'_, D> {
    /// The inodes that the next mount will free or truncate.
    pub(super) fn find_orphans(&mut self) -> Result<()> {
        let mut at = self.fs.sb.last_orphan;
        while at != 0 {
            if at < self.fs.sb.first_ino || at > self.fs.sb.inodes_count {
                self.found(Place::Superblock, Mend::No, format!("the orphan list leads to inode {at}, out of range"));
                break;
            }
            if !self.orphans.insert(at) {
                self.bad_inode(at, "the orphan list has a loop");
                break;
            }
            let Some(inode) = self.read_inode(at)? else { break };
            at = inode.dtime();
        }
        let file = self.fs.sb.orphan_file_ino;
        if file != 0 && self.fs.sb.features.compat.contains(Compat::ORPHAN_FILE) {
            self.check_orphan_file(file)?;
        }
        self.report.orphans = self.orphans.len() as u32;
        Ok(())
    }

    fn check_orphan_file(&mut self, ino: Ino) -> Result<()> {
        let Some(file) = self.read_inode(ino)? else { return Ok(()) };
        if file.file_type() != Some(FileType::Regular) || !file.has_blocks() {
            self.bad_inode(ino, "the orphan file is no regular file");
            return Ok(());
        }
        let bs = self.fs.bs;
        let seed = self.fs.inode_seed(ino, file.generation());
        for lblk in 0..(file.size() / bs as u64).min(self.fs.sb.blocks_count) as u32 {
            let mapped = self.fs.map_block(&file, lblk);
            let Some(mapped) = self.note(mapped, Mend::No)? else { return Ok(()) };
            let Some(block) = mapped else {
                self.bad_inode(ino, format!("block {lblk} of the orphan file is a hole"));
                continue;
            };
            let data = self.fs.block(block, Kind::Plain)?;
            if crate::le::u32_at(&data, bs - 8) != ORPHAN_BLOCK_MAGIC {
                self.bad_inode(ino, format!("block {lblk} of the orphan file has a wrong magic"));
                continue;
            }
            if self.fs.sb.has_metadata_csum() && crate::le::u32_at(&data, bs - 4) != orphan_csum(seed, block, &data) {
                self.bad_inode(ino, format!("the checksum of block {lblk} of the orphan file does not match"));
            }
            for i in 0..(bs - 8) / 4 {
                let orphan = crate::le::u32_at(&data, i * 4);
                if orphan == 0 {
                    continue;
                }
                if orphan < self.fs.sb.first_ino || orphan > self.fs.sb.inodes_count {
                    self.bad_inode(ino, format!("the orphan file names inode {orphan}, out of range"));
                } else {
                    self.orphans.insert(orphan);
                }
            }
        }
        Ok(())
    }

    /// An inode's bytes, whatever they say. `None` where its block cannot be found.
    fn read_inode(&mut self, ino: Ino) -> Result<Option<Inode>> {
        let place = self.fs.inode_place(ino);
        let Some((block, off, _)) = self.note(place, Mend::No)? else { return Ok(None) };
        let data = self.fs.block(block, Kind::Plain)?;
        let raw = bytes_at(&data, off, usize::from(self.fs.sb.inode_size)).into();
        Ok(Some(Inode { ino, raw }))
    }

    pub(super) fn check_inodes(&mut self) -> Result<()> {
        let per = self.fs.sb.inodes_per_group;
        for group in 0..self.fs.sb.group_count() {
            if self.fs.inode_bitmap_uninit(group) {
                continue;
            }
            let unused = match self.fs.groups.get(group as usize) {
                Some(g) if self.fs.sb.has_group_csum() => g.itable_unused,
                _ => 0,
            };
            for index in 0..per - unused.min(per) {
                if let Some(inode) = self.read_inode(group * per + index + 1)? {
                    self.check_inode(&inode)?;
                }
            }
            self.fs.shrink_cache();
        }
        Ok(())
    }

    fn is_reserved(&self, ino: Ino) -> bool {
        ino < self.fs.sb.first_ino && ino != ROOT_INO
    }

    fn check_inode(&mut self, inode: &Inode) -> Result<()> {
        let ino = inode.ino;
        let reserved = self.is_reserved(ino);
        if reserved && inode.raw.iter().all(|b| *b == 0) {
            return Ok(());
        }
        if inode.nlink() == 0 && !self.orphans.contains(&ino) && !reserved {
            if inode.mode() != 0 && inode.dtime() == 0 {
                self.found(Place::Inode(ino), Mend::Inode(ino), "the inode is deleted, but has no deletion time");
            }
            if self.fs.sb.has_metadata_csum() && !inode.csum_matches(self.fs) && inode.raw.iter().any(|b| *b != 0) {
                self.found(Place::Inode(ino), Mend::Inode(ino), "the checksum of the free inode does not match");
            }
            return Ok(());
        }
        if self.fs.sb.has_metadata_csum() && !inode.csum_matches(self.fs) {
            self.found(Place::Inode(ino), Mend::Inode(ino), "the inode's checksum does not match its contents");
        }
        if inode.nlink() > 0 && inode.dtime() != 0 && !self.orphans.contains(&ino) && !reserved {
            self.found(Place::Inode(ino), Mend::Inode(ino), "the inode is in use, but has a deletion time");
        }
        let extra = inode.extra_isize();
        if inode.raw.len() > 128 && (!extra.is_multiple_of(4) || extra + 128 > inode.raw.len()) {
            self.bad_inode(ino, format!("the extra fields take {extra} bytes, which does not fit"));
            return Ok(());
        }
        if ino == RESIZE_INO && self.fs.sb.features.compat.contains(Compat::RESIZE_INODE) {
            return self.check_resize_inode(inode);
        }
        let file_type = inode.file_type();
        if file_type.is_none() && !reserved {
            self.bad_inode(ino, format!("the mode 0{:o} names no file type", inode.mode()));
        }
        self.check_flags(inode, file_type);
        let mut extent = Extent::default();
        self.check_attributes(inode, &mut extent)?;
        // The list of bad blocks has no type.
        let has_blocks = inode.has_blocks() || reserved && file_type.is_none() && !inode.has(FL_INLINE_DATA);
        if has_blocks {
            self.check_map(inode, &mut extent)?;
        }
        self.check_size(inode, file_type, &extent)?;
        let stored = self.fs.blocks512(inode);
        let unit = self.fs.bs as u64 / 512;
        if stored != extent.blocks * unit {
            let right = extent.blocks * unit;
            let what = format!("the block count is {stored}, expected {right} (units of 512 bytes)");
            self.found(Place::Inode(ino), Mend::Blocks(ino, right), what);
        }
        if reserved {
            return Ok(());
        }
        if ino == self.fs.sb.orphan_file_ino && self.fs.sb.features.compat.contains(Compat::ORPHAN_FILE) {
            self.know(inode, file_type);
            if let Some(known) = self.inodes.get_mut(&ino) {
                // It has no name.
                known.refs = u32::from(known.nlink);
            }
            return Ok(());
        }
        self.know(inode, file_type);
        if file_type == Some(FileType::Directory) && inode.nlink() > 0 {
            self.report.directories += 1;
            self.dirs.push((inode.clone(), extent.runs));
        }
        self.report.files += 1;
        Ok(())
    }

    fn know(&mut self, inode: &Inode, file_type: Option<FileType>) {
        let holds_value = inode.has(FL_EA_INODE).then(|| inode.value_references());
        let known = Known { file_type, nlink: inode.nlink(), refs: 0, parent: 0, dotdot: 0, holds_value };
        self.inodes.insert(inode.ino, known);
    }

    fn check_flags(&mut self, inode: &Inode, file_type: Option<FileType>) {
        let features = self.fs.sb.features;
        for (flag, there, name) in [
            (FL_EXTENTS, features.incompat.contains(Incompat::EXTENTS), "extent"),
            (FL_INLINE_DATA, features.incompat.contains(Incompat::INLINE_DATA), "inline_data"),
            (FL_EA_INODE, features.incompat.contains(Incompat::EA_INODE), "ea_inode"),
        ] {
            if inode.has(flag) && !there {
                self.bad_inode(inode.ino, format!("a flag needs the feature {name}, which the file system lacks"));
            }
        }
        if inode.has(FL_EXTENTS) && inode.has(FL_INLINE_DATA) {
            self.bad_inode(inode.ino, "the flags for extents and for inline data exclude each other");
        }
        if inode.has(FL_INDEX) && file_type.is_some_and(|t| t != FileType::Directory) {
            self.bad_inode(inode.ino, "the inode is flagged as an indexed directory, but is none");
        }
        if inode.has(FL_INDEX) && file_type == Some(FileType::Directory) && !features.compat.contains(Compat::DIR_INDEX)
        {
            let what = "the directory has an index, but the file system lacks the feature dir_index";
            self.found(Place::Inode(inode.ino), Mend::DropIndex(inode.ino), what);
        }
    }

    fn check_size(&mut self, inode: &Inode, file_type: Option<FileType>, extent: &Extent) -> Result<()> {
        let (ino, size, bs) = (inode.ino, inode.size(), self.fs.bs as u64);
        match file_type {
            Some(FileType::Directory) if inode.has(FL_INLINE_DATA) => {
                let tail = self.fs.inline_tail(inode);
                let tail = self.note(tail, Mend::No)?.flatten().unwrap_or_default();
                let have = (I_BLOCK_LEN + tail.len()) as u64;
                if size != have {
                    self.bad_inode(ino, format!("the inline directory's size is {size}, expected {have}"));
                }
            }
            Some(FileType::Directory) => {
                let have = extent.last.map_or(0, |last| last + 1) * bs;
                if inode.nlink() > 0 && size != have {
                    self.bad_inode(ino, format!("the directory's size is {size}, expected {have}"));
                }
            }
            Some(FileType::Regular) if inode.has(FL_INLINE_DATA) => {
                let contents = self.fs.inline_contents(inode);
                self.note(contents, Mend::No)?;
            }
            Some(FileType::Regular) => {
                let verity = inode.has(0x10_0000);
                if let Some(last) = extent.last_written.filter(|last| size < last * bs && !verity) {
                    self.bad_inode(ino, format!("the size is {size}, but block {last} of the file holds data"));
                }
                if size > self.fs.max_size(inode) && !self.is_reserved(ino) {
                    self.bad_inode(ino, format!("the size {size} is beyond what its block map can hold"));
                }
                if size > 0x7FFF_FFFF && !self.fs.sb.features.ro_compat.contains(RoCompat::LARGE_FILE) {
                    self.bad_inode(ino, format!("the size {size} needs the feature large_file"));
                }
            }
            Some(FileType::Symlink) => self.check_symlink(inode, extent)?,
            _ => {}
        }
        Ok(())
    }

    fn check_symlink(&mut self, inode: &Inode, extent: &Extent) -> Result<()> {
        let (ino, size) = (inode.ino, inode.size());
        if inode.has(crate::inode::FL_ENCRYPT) {
            return Ok(());
        }
        if size == 0 || size >= self.fs.bs as u64 {
            self.bad_inode(ino, format!("the symbolic link's length is {size}"));
            return Ok(());
        }
        let target = if inode.is_fast_symlink() {
            bytes_at(inode.i_block(), 0, size as usize).to_vec()
        } else if inode.has(FL_INLINE_DATA) {
            let contents = self.fs.inline_contents(inode);
            match self.note(contents, Mend::No)? {
                Some(target) => target,
                None => return Ok(()),
            }
        } else {
            if extent.last != Some(0) {
                self.bad_inode(ino, "the symbolic link's target does not lie in one block");
                return Ok(());
            }
            let mapped = self.fs.map_block(inode, 0);
            let Some(Some(block)) = self.note(mapped, Mend::No)? else { return Ok(()) };
            let data = self.fs.block(block, Kind::Plain)?;
            bytes_at(&data, 0, size as usize).to_vec()
        };
        let after = if inode.is_fast_symlink() { inode.i_block().get(size as usize).copied() } else { None };
        if target.contains(&0) || after.is_some_and(|b| b != 0) {
            self.bad_inode(ino, "the symbolic link's target does not have the inode's length");
        }
        Ok(())
    }

    /// The reserve for resizing: a double-indirect block that lists the reserved descriptor blocks, and these list
    /// their backups.
    fn check_resize_inode(&mut self, inode: &Inode) -> Result<()> {
        let sb = &self.fs.sb;
        let per = u64::from(sb.block_size / 4);
        let dind = u64::from(crate::le::u32_at(inode.i_block(), 13 * 4));
        let others = (0..15usize).filter(|i| *i != 13).any(|i| crate::le::u32_at(inode.i_block(), i * 4) != 0);
        let first = sb.desc_block(0);
        let (table, reserve) = (u64::from(sb.desc_blocks()), u64::from(sb.reserved_gdt_blocks));
        if others || self.fs.check_block(dind).is_err() {
            self.bad_inode(inode.ino, "the reserve for resizing has other blocks than one list");
            return Ok(());
        }
        self.mark(inode.ino, dind, 1);
        let list = self.fs.block(dind, Kind::Plain)?;
        let backups: Vec<u64> = (1..self.fs.sb.group_count())
            .filter(|g| self.fs.sb.group_has_super(*g))
            .map(|g| u64::from(g) * u64::from(self.fs.sb.blocks_per_group))
            .collect();
        for n in table..table + reserve {
            let block = first + n;
            let listed = u64::from(crate::le::u32_at(&list, (n % per) as usize * 4));
            if listed != block {
                self.bad_inode(inode.ino, format!("the reserve for resizing lists block {listed}, expected {block}"));
                return Ok(());
            }
            let copies = match self.fs.block(block, Kind::Plain) {
                Err(Error::Corrupt { .. }) => return Ok(()),
                other => other?,
            };
            for (slot, offset) in backups.iter().enumerate() {
                let listed = u64::from(crate::le::u32_at(&copies, slot * 4));
                if listed != block + offset {
                    let what = format!("block {block} of the reserve for resizing lists block {listed} as a backup");
                    self.bad_inode(inode.ino, what);
                    return Ok(());
                }
            }
        }
        let right = (1 + reserve * (1 + backups.len() as u64)) * (self.fs.bs as u64 / 512);
        let stored = self.fs.blocks512(inode);
        if stored != right {
            let what = format!("the block count is {stored}, expected {right} (units of 512 bytes)");
            self.found(Place::Inode(inode.ino), Mend::Blocks(inode.ino, right), what);
        }
        Ok(())
    }
}
