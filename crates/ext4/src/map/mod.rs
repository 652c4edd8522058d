//! From a file's blocks to the device's: extents or ext2 block maps, behind one interface.

pub(crate) mod extent;
mod extent_insert;
mod extent_remove;
pub(crate) mod indirect;
mod indirect_write;

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::{FL_EXTENTS, Inode};

/// A run of a file's blocks that share one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// First device block; `None` for a hole.
    pub(crate) start: Option<u64>,
    /// Number of blocks, at least 1. A hole reaches to the next mapped block or as far as was asked.
    pub(crate) len: u32,
    /// Allocated, but reads as zeros.
    pub(crate) unwritten: bool,
}

/// File blocks are numbered with 32 bits, and the last number is not used.
pub(crate) const MAX_FILE_BLOCKS: u64 = u32::MAX as u64;

impl<D: BlockDevice> Fs<D> {
    /// The state of a file's blocks from `lblk` on, at most `max` (at least 1) of them.
    pub(crate) fn map_run(&mut self, inode: &Inode, lblk: u32, max: u32) -> Result<Run> {
        if !inode.has_blocks() {
            return Err(Error::inode(inode.ino, "the inode has no block map"));
        }
        let max = max.max(1);
        let run = if inode.has(FL_EXTENTS) {
            self.extent_run(inode, lblk, max)?
        } else {
            self.indirect_run(inode, lblk, max)?
        };
        if let Some(start) = run.start {
            let end = start.checked_add(u64::from(run.len));
            if start < u64::from(self.sb.first_data_block) || end.is_none_or(|e| e > self.sb.blocks_count) {
                return Err(Error::inode(inode.ino, "a block of the file lies outside the file system"));
            }
        }
        Ok(run)
    }

    /// The device block behind one file block, `None` for holes and unwritten blocks.
    pub(crate) fn map_block(&mut self, inode: &Inode, lblk: u32) -> Result<Option<u64>> {
        let run = self.map_run(inode, lblk, 1)?;
        Ok(run.start.filter(|_| !run.unwritten))
    }

    /// Where the device block for file block `lblk` should go: behind what precedes it in the file, or else in the
    /// inode's group.
    pub(crate) fn data_goal(&mut self, inode: &Inode, lblk: u32) -> Result<u64> {
        if inode.has(FL_EXTENTS) {
            let path = self.extent_path(inode, lblk)?;
            if let Some(leaf) = path.last()
                && extent::entries(&leaf.node) > 0
            {
                let e = extent::read_extent(&leaf.node, leaf.index);
                if e.lblk <= lblk {
                    return Ok(e.start.saturating_add(u64::from(lblk - e.lblk)));
                }
            }
        } else if let Some(before) = lblk.checked_sub(1)
            && let Some(start) = self.indirect_run(inode, before, 1)?.start
        {
            return Ok(start + 1);
        }
        Ok(self.inode_goal(inode.ino))
    }

    /// Fills part of a hole: allocates up to `len` blocks for `lblk` on, in one run.
    pub(crate) fn fill_hole(&mut self, inode: &mut Inode, lblk: u32, len: u32, unwritten: bool) -> Result<(u64, u32)> {
        let goal = self.data_goal(inode, lblk)?;
        let (start, len) = self.alloc_blocks(goal, len)?;
        self.add_run(inode, extent::Extent { lblk, len, start, unwritten })?;
        Ok((start, len))
    }

    /// Gives a file a run of blocks, allocated already, where it has a hole. Without extents there is no unwritten run.
    pub(crate) fn add_run(&mut self, inode: &mut Inode, run: extent::Extent) -> Result<()> {
        if inode.has(FL_EXTENTS) {
            self.insert_extent(inode, run)?;
        } else {
            self.set_pointers(inode, run.lblk, run.start, run.len)?;
        }
        self.add_blocks(inode, i64::from(run.len))
    }

    /// Frees file blocks `from..to`. Returns false if it stopped early because the running transaction is large.
    pub(crate) fn remove_range(&mut self, inode: &mut Inode, from: u32, to: u64) -> Result<bool> {
        if !inode.has_blocks() {
            return Ok(true);
        }
        if inode.has(FL_EXTENTS) {
            return self.remove_extents(inode, from, to);
        }
        self.remove_pointers(inode, from, to)?;
        Ok(true)
    }

    /// The largest size a file with this kind of map can have, in bytes.
    pub(crate) fn max_size(&self, inode: &Inode) -> u64 {
        let bs = self.bs as u64;
        if inode.has(FL_EXTENTS) {
            return MAX_FILE_BLOCKS * bs;
        }
        let per = bs / 4;
        let mapped = 12 + per + per * per + per * per * per;
        // Without huge_file the block count, in 512-byte units, has 32 bits.
        mapped.min(MAX_FILE_BLOCKS) * bs
    }
}
