//! The block allocator.
//!
//! A search starts at a goal (after the file's last block, or in its inode's group) and looks for a free run that is
//! long enough, first in the goal's group, then in the groups after it. Blocks that the running transaction freed do
//! not count as free.

use crate::bitmap;
use crate::cache::{Block, Kind};
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::fs::Fs;
use crate::group::{BLOCK_UNINIT, INODE_UNINIT};
use crate::inode::Inode;
use alloc::vec::Vec;

impl<D: BlockDevice> Fs<D> {
    /// The group of a block, and the block's bit in its bitmap.
    pub(crate) fn group_of(&self, block: u64) -> (u32, u32) {
        let rel = block.saturating_sub(u64::from(self.sb.first_data_block));
        let per = u64::from(self.sb.blocks_per_group);
        ((rel / per) as u32, (rel % per) as u32)
    }

    /// Records where the file system's own blocks lie, so that neither a wrong bitmap nor a wrong file can hand them
    /// out.
    pub(crate) fn find_system_zones(&mut self) {
        let mut zones: Vec<(u64, u64)> = Vec::new();
        let table = u64::from(self.sb.inode_table_blocks());
        for (g, group) in (0..).zip(&self.groups) {
            let first = self.sb.group_first_block(g);
            zones.push((first, first + u64::from(self.sb.group_base_blocks(g))));
            zones.push((group.block_bitmap, group.block_bitmap + 1));
            zones.push((group.inode_bitmap, group.inode_bitmap + 1));
            zones.push((group.inode_table, group.inode_table + table));
        }
        zones.retain(|z| z.0 < z.1);
        zones.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(zones.len());
        for z in zones {
            match merged.last_mut() {
                Some(last) if z.0 <= last.1 => last.1 = last.1.max(z.1),
                _ => merged.push(z),
            }
        }
        self.system_zones = merged;
    }

    /// Whether a range touches the file system's own blocks.
    pub(crate) fn in_system_zone(&self, start: u64, len: u64) -> bool {
        let i = self.system_zones.partition_point(|z| z.1 <= start);
        self.system_zones.get(i).is_some_and(|z| z.0 < start.saturating_add(len))
    }

    /// The block bitmap that a group flagged as uninitialised stands for.
    fn fresh_block_bitmap(&self, group: u32) -> Block {
        let mut map = alloc::vec![0u8; self.bs];
        let first = self.sb.group_first_block(group);
        let blocks = self.sb.group_blocks(group);
        bitmap::fill(&mut map, 0, self.sb.group_base_blocks(group), true);
        bitmap::fill(&mut map, blocks, self.bs as u32 * 8 - blocks, true);
        if let Some(g) = self.groups.get(group as usize) {
            let mut mark = |start: u64, len: u64| {
                for b in start..start + len {
                    if b >= first && b < first + u64::from(blocks) {
                        bitmap::set(&mut map, (b - first) as u32);
                    }
                }
            };
            mark(g.block_bitmap, 1);
            mark(g.inode_bitmap, 1);
            mark(g.inode_table, u64::from(self.sb.inode_table_blocks()));
        }
        map.into()
    }

    pub(crate) fn block_bitmap_uninit(&self, group: u32) -> bool {
        self.sb.has_group_csum() && self.groups.get(group as usize).is_some_and(|g| g.flags & BLOCK_UNINIT != 0)
    }

    fn bitmap_block(&self, group: u32) -> Result<u64> {
        match self.groups.get(group as usize) {
            Some(g) => Ok(g.block_bitmap),
            None => Err(Error::corrupt("a block group number out of range", Place::Group(group))),
        }
    }

    /// A group's block bitmap.
    pub(crate) fn block_bitmap(&mut self, group: u32) -> Result<Block> {
        if self.block_bitmap_uninit(group) {
            return Ok(self.fresh_block_bitmap(group));
        }
        self.block(self.bitmap_block(group)?, Kind::BlockBitmap(group))
    }

    /// A group's block bitmap, to be changed.
    fn block_bitmap_mut(&mut self, group: u32) -> Result<&mut [u8]> {
        let at = self.bitmap_block(group)?;
        if self.block_bitmap_uninit(group) {
            let fresh = self.fresh_block_bitmap(group);
            self.group_mut(group)?.flags &= !BLOCK_UNINIT;
            let map = self.block_new(at, Kind::BlockBitmap(group))?;
            map.copy_from_slice(&fresh);
            return Ok(map);
        }
        self.block(at, Kind::BlockBitmap(group))?;
        self.block_mut(at, Kind::BlockBitmap(group))
    }

    /// Writes the bitmap of a group that is flagged as uninitialised.
    pub(crate) fn init_block_bitmap(&mut self, group: u32) -> Result<()> {
        if self.block_bitmap_uninit(group) {
            self.block_bitmap_mut(group)?;
        }
        Ok(())
    }

    /// Allocates a run of up to `want` blocks, at or after `goal` if possible. Returns its start and length.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn alloc_blocks(&mut self, goal: u64, want: u32) -> Result<(u64, u32)> {
        let (start, len) = self.find_free(goal, want)?.ok_or(Error::NoSpace)?;
        self.take_blocks(start, len)?;
        Ok((start, len))
    }

    /// Looks for a run of up to `want` free blocks in one group, at or after `goal` if possible, and leaves it free.
    /// Returns its start and length; `None` where no block is free.
    pub(crate) fn find_free(&mut self, goal: u64, want: u32) -> Result<Option<(u64, u32)>> {
        let want = want.clamp(1, crate::map::extent::MAX_UNWRITTEN_LEN);
        let goal = if goal < u64::from(self.sb.first_data_block) || goal >= self.sb.blocks_count {
            u64::from(self.sb.first_data_block)
        } else {
            goal
        };
        if self.sb.free_blocks == 0 {
            return Ok(None);
        }
        let (goal_group, goal_bit) = self.group_of(goal);
        let groups = self.sb.group_count();
        let mut last_min = u32::MAX;
        for min in [want, want.div_ceil(8), 1] {
            if min >= last_min {
                continue;
            }
            last_min = min;
            for i in 0..groups {
                let g = (u64::from(goal_group) + u64::from(i)) % u64::from(groups);
                let from = if i == 0 { goal_bit } else { 0 };
                if let Some(run) = self.find_in_group(g as u32, from, want, min, i == 0)? {
                    return Ok(Some(run));
                }
            }
        }
        Ok(None)
    }

    /// Looks for `min` to `want` free blocks in a group, from bit `from` on and then before it. `at_goal`: what is
    /// free right at `from` will do, however short, since it continues a file.
    fn find_in_group(
        &mut self,
        group: u32,
        from: u32,
        want: u32,
        min: u32,
        at_goal: bool,
    ) -> Result<Option<(u64, u32)>> {
        let Some(g) = self.groups.get(group as usize) else {
            return Ok(None);
        };
        if g.free_blocks == 0 || g.longest_run < min {
            return Ok(None);
        }
        let hint = g.block_hint;
        let end = self.sb.group_blocks(group);
        let map = self.block_bitmap(group)?;
        let freed = self.cache.txn.freed.get(&group).map(|v| &v[..]);
        let mut found = None;
        if at_goal && from < end {
            let stop = bitmap::find(&map, freed, from, end.min(from.saturating_add(want)), true);
            if stop > from {
                found = Some((from, stop - from));
            }
        }
        let start = from.max(hint).min(end);
        let mut longest = 0;
        if found.is_none() {
            // The second pass takes the runs that begin before the goal.
            for (mut i, limit) in [(start, end), (hint.min(start), start)] {
                while i < limit && found.is_none() {
                    let run = bitmap::find(&map, freed, i, limit, false);
                    if run >= limit {
                        break;
                    }
                    let stop = bitmap::find(&map, freed, run, end, true);
                    longest = longest.max(stop - run);
                    if stop - run >= min {
                        found = Some((run, (stop - run).min(want)));
                    }
                    i = stop;
                }
            }
        }
        let Some((bit, len)) = found else {
            // Without the blocks that this transaction freed: its commit raises the bound again.
            if let Some(g) = self.groups.get_mut(group as usize) {
                g.longest_run = longest;
            }
            return Ok(None);
        };
        let start = self.sb.group_first_block(group) + u64::from(bit);
        self.refuse_system_zone(start, len)?;
        Ok(Some((start, len)))
    }

    /// Fails if a run that is free by its group's bitmap cannot be.
    fn refuse_system_zone(&self, start: u64, len: u32) -> Result<()> {
        if self.in_system_zone(start, u64::from(len)) {
            return Err(Error::corrupt(
                "the block bitmap has the file system's own blocks as free",
                Place::Group(self.group_of(start).0),
            ));
        }
        Ok(())
    }

    /// Takes a run of free blocks of one group.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they are not free, or cannot be; [`Error::Io`].
    pub(crate) fn take_blocks(&mut self, start: u64, len: u32) -> Result<()> {
        let (group, bit) = self.group_of(start);
        self.refuse_system_zone(start, len)?;
        let map = self.block_bitmap_mut(group)?;
        if bitmap::find(map, None, bit, bit.saturating_add(len), true) < bit.saturating_add(len) {
            return Err(Error::corrupt("a block to be taken is in use", Place::Block(start)));
        }
        bitmap::fill(map, bit, len, true);
        let g = self.group_mut(group)?;
        g.free_blocks = g
            .free_blocks
            .checked_sub(len)
            .ok_or(Error::corrupt("fewer blocks are counted free than the bitmap has", Place::Group(group)))?;
        if bit <= g.block_hint {
            g.block_hint = g.block_hint.max(bit + len);
        }
        self.sb.free_blocks = self.sb.free_blocks.saturating_sub(u64::from(len));
        self.cache.txn.super_dirty = true;
        Ok(())
    }

    /// Frees blocks; `metadata` says that they were changed through the journal.
    pub(crate) fn free_blocks(&mut self, start: u64, len: u64, metadata: bool) -> Result<()> {
        let end = start.checked_add(len).filter(|e| *e <= self.sb.blocks_count);
        let Some(end) = end.filter(|_| start >= u64::from(self.sb.first_data_block)) else {
            return Err(Error::corrupt("blocks to be freed lie outside the file system", Place::Block(start)));
        };
        if self.in_system_zone(start, len) {
            return Err(Error::corrupt("the file system's own blocks were to be freed", Place::Block(start)));
        }
        let mut at = start;
        while at < end {
            let (group, bit) = self.group_of(at);
            let n = (end - at).min(u64::from(self.sb.blocks_per_group - bit)) as u32;
            let map = self.block_bitmap(group)?;
            if bitmap::find(&map, None, bit, bit + n, false) != bit + n {
                return Err(Error::corrupt("a block to be freed is free already", Place::Block(at)));
            }
            bitmap::fill(self.block_bitmap_mut(group)?, bit, n, false);
            let g = self.group_mut(group)?;
            g.free_blocks += n;
            g.block_hint = g.block_hint.min(bit);
            g.longest_run = u32::MAX;
            self.sb.free_blocks += u64::from(n);
            self.note_freed(at, n);
            for b in at..at + u64::from(n) {
                if metadata || self.buffered(b).is_some() {
                    self.forget(b, metadata);
                }
            }
            at += u64::from(n);
        }
        self.cache.txn.super_dirty = true;
        Ok(())
    }

    /// Allocates one metadata block for an inode.
    pub(crate) fn alloc_meta(&mut self, inode: &mut Inode, goal: u64) -> Result<u64> {
        let (b, _) = self.alloc_blocks(goal, 1)?;
        self.add_blocks(inode, 1)?;
        Ok(b)
    }

    /// Where an inode's first blocks should go.
    pub(crate) fn inode_goal(&self, ino: u32) -> u64 {
        let group = (ino.max(1) - 1) / self.sb.inodes_per_group;
        self.sb.group_first_block(group)
    }

    /// Whether a group's inode bitmap and table were never written.
    pub(crate) fn inode_bitmap_uninit(&self, group: u32) -> bool {
        self.sb.has_group_csum() && self.groups.get(group as usize).is_some_and(|g| g.flags & INODE_UNINIT != 0)
    }
}
