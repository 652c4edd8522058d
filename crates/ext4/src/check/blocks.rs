//! Which blocks inodes take: block maps and extent trees, each block once.

use super::inodes::Extent;
use super::{Checker, Mend};
use crate::bitmap;
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Place, Result};
use crate::inode::{FL_EXTENTS, Inode};
use crate::le::{u16_at, u32_at};
use crate::map::extent::{EXTENT_MAGIC, MAX_DEPTH, child, depth, entries, key, max_entries, read_extent};
use crate::types::{FileType, Ino};
use alloc::format;

impl<D: BlockDevice> Checker<'_, D> {
    /// Marks the file system's own blocks as in use.
    pub(super) fn mark_system(&mut self) {
        let table = u64::from(self.fs.sb.inode_table_blocks());
        for g in 0..self.fs.sb.group_count() {
            let first = self.fs.sb.group_first_block(g);
            let base = u64::from(self.fs.sb.group_base_blocks(g));
            let Some(d) = self.fs.groups.get(g as usize) else { continue };
            let parts = [(first, base), (d.block_bitmap, 1), (d.inode_bitmap, 1), (d.inode_table, table)];
            for (start, len) in parts {
                for block in start..start + len {
                    if !self.set_used(block) {
                        let what = format!("block {block} of its bitmaps, table or descriptors has another use, too");
                        self.found(Place::Group(g), Mend::No, what);
                        break;
                    }
                }
            }
        }
    }

    /// Marks a block, which lies inside the file system; false if it was marked already.
    fn set_used(&mut self, block: u64) -> bool {
        let (group, bit) = self.fs.group_of(block);
        let bytes = self.fs.bs;
        let Some(map) = self.used.get_mut(group as usize) else { return false };
        if map.is_empty() {
            map.resize(bytes, 0);
        }
        if bitmap::get(map, bit) {
            return false;
        }
        bitmap::set(map, bit);
        self.report.blocks += 1;
        true
    }

    /// Marks an inode's blocks as in use. Returns whether they lie inside the file system and nobody else has them.
    pub(super) fn mark(&mut self, ino: Ino, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        if start < u64::from(self.fs.sb.first_data_block) || end > self.fs.sb.blocks_count {
            self.bad_inode(ino, format!("block {start} lies outside the file system, or {len} from there on do"));
            return false;
        }
        let mut fresh = true;
        for block in start..end {
            if !self.set_used(block) && fresh {
                fresh = false;
                let whose = if self.fs.in_system_zone(block, 1) { "the file system itself" } else { "another file" };
                self.bad_inode(ino, format!("block {block} is in use by {whose}, too"));
            }
        }
        fresh
    }

    /// Walks a block map or an extent tree.
    pub(super) fn check_map(&mut self, inode: &Inode, extent: &mut Extent) -> Result<()> {
        if inode.has(FL_EXTENTS) {
            let root: crate::cache::Block = inode.i_block().into();
            return self.check_node(inode, &root, None, (0, 1 << 32), extent);
        }
        let mut first = 0;
        for slot in 0..15u32 {
            let levels = slot.saturating_sub(11);
            let block = u32_at(inode.i_block(), slot as usize * 4);
            first += self.check_pointer(inode, block, levels, first, extent)?;
        }
        Ok(())
    }

    /// Checks what a pointer leads to, over `levels` pointer blocks; returns the number of file blocks below it.
    fn check_pointer(
        &mut self,
        inode: &Inode,
        block: u32,
        levels: u32,
        first: u64,
        extent: &mut Extent,
    ) -> Result<u64> {
        let per = self.fs.bs as u64 / 4;
        let span = per.pow(levels);
        if block == 0 {
            return Ok(span);
        }
        let fresh = self.mark(inode.ino, u64::from(block), 1);
        extent.blocks += 1;
        if levels == 0 {
            self.note_run(inode, first, u64::from(block), 1, true, extent);
            return Ok(span);
        }
        if !fresh {
            return Ok(span);
        }
        let data = self.fs.block(u64::from(block), Kind::Plain)?;
        let mut at = first;
        for i in 0..per as usize {
            at += self.check_pointer(inode, u32_at(&data, i * 4), levels - 1, at, extent)?;
        }
        Ok(span)
    }

    fn note_run(&mut self, inode: &Inode, first: u64, start: u64, len: u32, written: bool, extent: &mut Extent) {
        let last = first + u64::from(len) - 1;
        extent.last = extent.last.max(Some(last));
        if written {
            extent.last_written = extent.last_written.max(Some(last));
        }
        if inode.file_type() == Some(FileType::Directory)
            && let Ok(first) = u32::try_from(first)
        {
            extent.runs.push((first, start, len));
        }
    }

    /// Checks a node of an extent tree, whose file blocks are to lie in `range`, and all below it.
    fn check_node(
        &mut self,
        inode: &Inode,
        node: &[u8],
        want: Option<u16>,
        range: (u64, u64),
        extent: &mut Extent,
    ) -> Result<()> {
        let ino = inode.ino;
        if u16_at(node, 0) != EXTENT_MAGIC {
            self.bad_inode(ino, "an extent header's magic is not 0xF30A");
            return Ok(());
        }
        if entries(node) > max_entries(node) || 12 + 12 * max_entries(node) > node.len() {
            self.bad_inode(ino, "an extent header counts more entries than fit");
            return Ok(());
        }
        let d = depth(node);
        if want.map_or(d > MAX_DEPTH, |want| d != want) {
            self.bad_inode(ino, format!("an extent node has depth {d}, which does not follow its parent's"));
            return Ok(());
        }
        if entries(node) == 0 && (want.is_some() || d > 0) {
            self.bad_inode(ino, "an extent node is empty");
        }
        let mut end = range.0;
        for i in 0..entries(node) {
            let first = u64::from(key(node, i));
            if first < end || i == 0 && want.is_some() && first != range.0 {
                self.bad_inode(
                    ino,
                    format!("extents overlap, are out of order or not where their index says ({first})"),
                );
                return Ok(());
            }
            if d == 0 {
                let e = read_extent(node, i);
                if e.len == 0 || e.end() > range.1 {
                    self.bad_inode(ino, format!("the extent at {first} has no length or reaches into its neighbour"));
                    return Ok(());
                }
                end = e.end();
                self.mark(ino, e.start, u64::from(e.len));
                extent.blocks += u64::from(e.len);
                self.note_run(inode, first, e.start, e.len, !e.unwritten, extent);
                continue;
            }
            let next = if i + 1 < entries(node) { u64::from(key(node, i + 1)) } else { range.1 };
            let below = child(node, i);
            end = first + 1;
            extent.blocks += 1;
            if !self.mark(ino, below, 1) {
                continue;
            }
            let seed = self.fs.inode_seed(ino, inode.generation());
            let data = self.read_checked(below, Kind::Extent(seed), Mend::No)?;
            self.check_node(inode, &data, Some(d - 1), (first, next), extent)?;
        }
        Ok(())
    }
}
