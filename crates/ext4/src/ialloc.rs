//! The inode allocator: files near their directory, directories spread (Orlov's policy, as in Linux's
//! `fs/ext4/ialloc.c`).

use crate::bitmap;
use crate::cache::{Block, Kind};
use crate::crc::crc32c;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::{Incompat, RoCompat};
use crate::fs::Fs;
use crate::group::INODE_UNINIT;
use crate::inode::{FL_EXTENTS, FL_INHERITED, FL_PROJINHERIT, Inode, Time};
use crate::map::extent::init_node;
use crate::types::{FileType, Ino, NewInode, ROOT_INO};

/// What a group or flexible group has.
#[derive(Debug, Clone, Copy, Default)]
struct Supply {
    inodes: u64,
    blocks: u64,
    dirs: u64,
}

impl<D: BlockDevice> Fs<D> {
    fn fresh_inode_bitmap(&self) -> Block {
        let mut map = alloc::vec![0u8; self.bs];
        let n = self.sb.inodes_per_group;
        bitmap::fill(&mut map, n, self.bs as u32 * 8 - n, true);
        map.into()
    }

    fn inode_bitmap_block(&self, group: u32) -> Result<u64> {
        match self.groups.get(group as usize) {
            Some(g) => Ok(g.inode_bitmap),
            None => Err(Error::corrupt("a block group number out of range", Place::Group(group))),
        }
    }

    pub(crate) fn inode_bitmap(&mut self, group: u32) -> Result<Block> {
        if self.inode_bitmap_uninit(group) {
            return Ok(self.fresh_inode_bitmap());
        }
        self.block(self.inode_bitmap_block(group)?, Kind::InodeBitmap(group))
    }

    pub(crate) fn inode_bitmap_mut(&mut self, group: u32) -> Result<&mut [u8]> {
        let at = self.inode_bitmap_block(group)?;
        if self.inode_bitmap_uninit(group) {
            let fresh = self.fresh_inode_bitmap();
            self.group_mut(group)?.flags &= !INODE_UNINIT;
            let map = self.block_new(at, Kind::InodeBitmap(group))?;
            map.copy_from_slice(&fresh);
            return Ok(map);
        }
        self.block(at, Kind::InodeBitmap(group))?;
        self.block_mut(at, Kind::InodeBitmap(group))
    }

    /// Whether an inode is marked as used.
    pub(crate) fn inode_in_use(&mut self, ino: Ino) -> Result<bool> {
        let (_, _, group) = self.inode_place(ino)?;
        let map = self.inode_bitmap(group)?;
        Ok(bitmap::get(&map, (ino - 1) % self.sb.inodes_per_group))
    }

    fn supply(&self, first: u32, count: u32) -> Supply {
        let end = first.saturating_add(count).min(self.sb.group_count());
        let range = self.groups.get(first as usize..end as usize).unwrap_or_default();
        range.iter().fold(Supply::default(), |s, g| Supply {
            inodes: s.inodes + u64::from(g.free_inodes),
            blocks: s.blocks + u64::from(g.free_blocks),
            dirs: s.dirs + u64::from(g.used_dirs),
        })
    }

    /// First group with a free inode among `count` from `first`.
    fn group_with_inode(&self, first: u32, count: u32) -> Option<u32> {
        let end = first.saturating_add(count).min(self.sb.group_count());
        (first..end).find(|&g| self.groups.get(g as usize).is_some_and(|g| g.free_inodes > 0))
    }

    /// A group for a new directory: a top-level one goes where few directories and much space are; others stay near
    /// their parent unless it is crowded there.
    fn dir_group(&self, parent: Ino) -> Result<u32> {
        let per_flex = self.sb.groups_per_flex().min(self.sb.group_count());
        let flexes = self.sb.group_count().div_ceil(per_flex);
        let all = self.supply(0, self.sb.group_count());
        let n = u64::from(flexes);
        let home = (parent.max(1) - 1) / self.sb.inodes_per_group / per_flex;
        let order = |i: u32| (home + i) % flexes;
        let pick = |f: u32| self.group_with_inode(f * per_flex, per_flex);
        if parent == ROOT_INO {
            let mut best: Option<(u64, u32)> = None;
            for f in (0..flexes).map(order) {
                let s = self.supply(f * per_flex, per_flex);
                let good = s.inodes > 0 && s.inodes >= all.inodes / n && s.blocks >= all.blocks / n;
                if good && best.is_none_or(|(dirs, _)| s.dirs < dirs) {
                    best = Some((s.dirs, f));
                }
            }
            if let Some(g) = best.and_then(|(_, f)| pick(f)) {
                return Ok(g);
            }
        } else {
            let inodes = u64::from(self.sb.inodes_per_group) * u64::from(per_flex);
            let blocks = u64::from(self.sb.blocks_per_group) * u64::from(per_flex);
            let max_dirs = all.dirs / n + inodes / 16;
            let min_inodes = (all.inodes / n).saturating_sub(inodes / 4).max(1);
            let min_blocks = (all.blocks / n).saturating_sub(blocks / 4);
            for f in (0..flexes).map(order) {
                let s = self.supply(f * per_flex, per_flex);
                if s.dirs < max_dirs
                    && s.inodes >= min_inodes
                    && s.blocks >= min_blocks
                    && let Some(g) = pick(f)
                {
                    return Ok(g);
                }
            }
        }
        (0..flexes).map(order).find_map(pick).ok_or(Error::NoSpace)
    }

    /// A group for a new file: its directory's, or one found by growing steps from there.
    fn file_group(&self, parent: Ino) -> Result<u32> {
        let groups = self.sb.group_count();
        let home = (parent.max(1) - 1) / self.sb.inodes_per_group;
        let fits = |g: u32| self.groups.get(g as usize).is_some_and(|g| g.free_inodes > 0 && g.free_blocks > 0);
        if fits(home) {
            return Ok(home);
        }
        let mut g = (u64::from(home) + u64::from(parent)) % u64::from(groups);
        let mut step = 1u64;
        while step < u64::from(groups) {
            g = (g + step) % u64::from(groups);
            if fits(g as u32) {
                return Ok(g as u32);
            }
            step <<= 1;
        }
        self.group_with_inode(home, groups).or_else(|| self.group_with_inode(0, groups)).ok_or(Error::NoSpace)
    }

    /// Allocates an inode for a file in directory `parent` and fills in what it starts with. The caller sets the
    /// link count and writes it.
    pub(crate) fn alloc_inode(&mut self, parent: &Inode, new: &NewInode) -> Result<Inode> {
        if self.sb.free_inodes == 0 {
            return Err(Error::NoSpace);
        }
        let is_dir = new.file_type == FileType::Directory;
        let group = if is_dir { self.dir_group(parent.ino)? } else { self.file_group(parent.ino)? };
        self.alloc_inode_in(group, parent, new)
    }

    /// Allocates the first free inode of a group.
    pub(crate) fn alloc_inode_in(&mut self, group: u32, parent: &Inode, new: &NewInode) -> Result<Inode> {
        let is_dir = new.file_type == FileType::Directory;
        let per = self.sb.inodes_per_group;
        let hint = self.groups.get(group as usize).map_or(0, |g| g.inode_hint);
        let first = if group == 0 { hint.max(self.sb.first_ino - 1) } else { hint };
        let map = self.inode_bitmap(group)?;
        let bit = bitmap::find(&map, None, first, per, false);
        // Or changing it would copy it.
        drop(map);
        if bit >= per {
            return Err(Error::corrupt("the group counts free inodes but its bitmap has none", Place::Group(group)));
        }
        bitmap::set(self.inode_bitmap_mut(group)?, bit);
        self.init_block_bitmap(group)?;
        let has_csum = self.sb.has_group_csum();
        let g = self.group_mut(group)?;
        g.inode_hint = bit + 1;
        g.free_inodes = g
            .free_inodes
            .checked_sub(1)
            .ok_or(Error::corrupt("no inodes are counted free but the bitmap has some", Place::Group(group)))?;
        g.used_dirs += u32::from(is_dir);
        if has_csum {
            g.itable_unused = g.itable_unused.min(per - bit - 1);
        }
        self.sb.free_inodes -= 1;
        self.cache.txn.super_dirty = true;

        Ok(self.fresh_inode(group * per + bit + 1, Some(parent), new))
    }

    /// An inode as it starts, in directory `parent`, from which it inherits.
    pub(crate) fn fresh_inode(&self, ino: Ino, parent: Option<&Inode>, new: &NewInode) -> Inode {
        let is_dir = new.file_type == FileType::Directory;
        let mut inode = Inode::zeroed(ino, self.sb.inode_size);
        inode.set_mode(new.file_type.mode_bits() | new.mode & 0o7777);
        inode.set_uid(new.uid);
        inode.set_gid(new.gid);
        if self.sb.inode_size > 128 {
            // The fixed fields that every ext4 of today knows; a stated wish for more is honoured where it fits.
            let want = self.sb.want_extra_isize.max(32).min(self.sb.inode_size - 128);
            inode.set_extra_isize(if want.is_multiple_of(4) { want } else { 32 });
        }
        for t in [Time::Access, Time::Change, Time::Modify, Time::Create] {
            inode.set_time(t, new.now);
        }
        let seed = crc32c(self.sb.csum_seed, &ino.to_le_bytes());
        let seed = crc32c(crc32c(seed, &new.now.sec.to_le_bytes()), &new.now.nsec.to_le_bytes());
        inode.set_generation(seed);
        let mut flags = parent.map_or(0, Inode::flags) & FL_INHERITED;
        if !is_dir {
            // DIRSYNC and TOPDIR belong to directories.
            flags &= !(0x3_0000 | FL_PROJINHERIT);
        }
        if new.file_type != FileType::Directory && new.file_type != FileType::Regular {
            flags &= 0xC0;
        }
        inode.set_flags(flags);
        if let Some(parent) = parent.filter(|parent| parent.has(FL_PROJINHERIT)) {
            inode.set_project(parent.project());
        }
        if matches!(new.file_type, FileType::Regular | FileType::Directory) {
            self.init_map(&mut inode);
        }
        inode.set_rdev(new.rdev);
        inode
    }

    /// Gives an inode an empty block map: an extent tree where the file system has extents.
    pub(crate) fn init_map(&self, inode: &mut Inode) {
        inode.i_block_mut().fill(0);
        if self.sb.features.incompat.contains(Incompat::EXTENTS) {
            inode.set_flags(inode.flags() | FL_EXTENTS);
            init_node(inode.i_block_mut(), 0, 4);
        }
    }

    /// Marks an inode free. Its blocks are freed already.
    pub(crate) fn free_inode(&mut self, inode: &mut Inode) -> Result<()> {
        let ino = inode.ino;
        let is_dir = inode.is_dir();
        if ino < self.sb.first_ino || !self.inode_in_use(ino)? {
            return Err(Error::inode(ino, "the inode to be freed is reserved or free already"));
        }
        let (_, _, group) = self.inode_place(ino)?;
        let bit = (ino - 1) % self.sb.inodes_per_group;
        bitmap::clear(self.inode_bitmap_mut(group)?, bit);
        let g = self.group_mut(group)?;
        g.free_inodes += 1;
        g.inode_hint = g.inode_hint.min(bit);
        g.used_dirs = g.used_dirs.saturating_sub(u32::from(is_dir));
        self.sb.free_inodes += 1;
        self.cache.txn.super_dirty = true;
        // Keep the generation: a stale handle must not match the next owner by chance.
        let generation = inode.generation();
        let dtime = self.sb.write_time.max(1);
        *inode = Inode::zeroed(ino, self.sb.inode_size);
        inode.set_generation(generation);
        inode.set_dtime((dtime & 0xFFFF_FFFF) as u32);
        self.put_inode(inode, true)?;
        self.cache.txn.inodes.remove(&ino);
        Ok(())
    }

    /// Sets the superblock's feature for files over 2 GiB once there is one.
    pub(crate) fn note_size(&mut self, size: u64) {
        if size > 0x7FFF_FFFF && !self.sb.features.ro_compat.contains(RoCompat::LARGE_FILE) && self.sb.revision > 0 {
            self.sb.features.ro_compat |= RoCompat::LARGE_FILE;
            self.cache.txn.super_dirty = true;
        }
    }
}
