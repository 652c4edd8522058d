//! Extent trees: removal of a range.

use super::extent::{Extent, depth, entries, init_node, key, read_extent, write_extent};
use super::extent_insert::close_gap;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::Inode;

impl<D: BlockDevice> Fs<D> {
    /// Frees file blocks `from..to`, from the end towards the start. Returns false if it stopped early because the
    /// running transaction is large: the caller ends its operation and goes on.
    pub(super) fn remove_extents(&mut self, inode: &mut Inode, from: u32, to: u64) -> Result<bool> {
        let Some(last) = to.checked_sub(1).map(|l| l.min(u64::from(u32::MAX)) as u32).filter(|l| *l >= from) else {
            return Ok(true);
        };
        loop {
            if self.txn_is_large() {
                return Ok(false);
            }
            let path = self.extent_path(inode, last)?;
            let Some(leaf) = path.last() else {
                return Err(Error::inode(inode.ino, "the extent tree has no root"));
            };
            if entries(&leaf.node) == 0 {
                break;
            }
            let e = read_extent(&leaf.node, leaf.index);
            if u64::from(e.lblk) >= to || e.end() <= u64::from(from) {
                break;
            }
            let s = e.lblk.max(from);
            let t = e.end().min(to);
            let gone = (t - u64::from(s)) as u32;
            let start = e.start + u64::from(s - e.lblk);
            let head = Extent { len: s - e.lblk, ..e };
            let tail = Extent {
                lblk: (t & 0xFFFF_FFFF) as u32,
                len: (e.end() - t) as u32,
                start: start + u64::from(gone),
                unwritten: e.unwritten,
            };
            let index = leaf.index;
            let node = self.node_mut(inode, leaf.block)?;
            if head.len > 0 {
                write_extent(node, index, &head);
                if tail.len > 0 {
                    self.insert_extent(inode, tail)?;
                }
            } else if tail.len > 0 {
                write_extent(node, index, &tail);
                if index == 0 {
                    self.fix_keys(inode, &path, tail.lblk)?;
                }
            } else {
                close_gap(node, index);
                let left = entries(node);
                if left == 0 {
                    self.drop_empty(inode, path.len() - 1, &path)?;
                } else if index == 0 {
                    let first = key(node, 0);
                    self.fix_keys(inode, &path, first)?;
                }
            }
            // Directory blocks were changed through the journal.
            self.free_blocks(start, u64::from(gone), inode.is_dir())?;
            self.add_blocks(inode, -i64::from(gone))?;
        }
        self.lower_tree(inode)?;
        Ok(true)
    }

    /// Removes the empty node `level` of `path`, and what becomes empty above it.
    fn drop_empty(&mut self, inode: &mut Inode, level: usize, path: &[super::extent::Step]) -> Result<()> {
        for l in (1..=level).rev() {
            let (Some(step), Some(parent)) = (path.get(l), path.get(l - 1)) else { break };
            if let Some(block) = step.block {
                self.free_blocks(block, 1, true)?;
                self.add_blocks(inode, -1)?;
            }
            let node = self.node_mut(inode, parent.block)?;
            close_gap(node, parent.index);
            if entries(node) > 0 {
                if parent.index == 0 {
                    let first = key(node, 0);
                    self.fix_keys(inode, path.get(..l).unwrap_or_default(), first)?;
                }
                return Ok(());
            }
        }
        if depth(inode.i_block()) > 0 {
            init_node(inode.i_block_mut(), 0, 4);
        }
        Ok(())
    }
}
