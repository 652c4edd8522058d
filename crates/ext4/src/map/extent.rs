//! Extent trees: lookup (Linux `Documentation/filesystems/ext4/ifork.rst`).
//!
//! A node has a 12-byte header and 12-byte entries. The root lies in the inode's 60 bytes (4 entries), other nodes
//! take a block each. Entries are sorted by their first file block.

use super::Run;
use crate::cache::{Block, Kind};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::{put16, put32, u16_at, u32_at};
use alloc::vec::Vec;

pub(crate) const EXTENT_MAGIC: u16 = 0xF30A;
/// The deepest tree that 2^32 blocks can need (`EXT4_MAX_EXTENT_DEPTH`).
pub(crate) const MAX_DEPTH: u16 = 5;
/// The longest initialised extent; longer stored lengths mean unwritten ones.
pub(crate) const MAX_LEN: u32 = 32768;
/// The longest unwritten extent.
pub(crate) const MAX_UNWRITTEN_LEN: u32 = 32767;

/// A leaf entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First file block.
    pub(crate) lblk: u32,
    /// Number of blocks.
    pub(crate) len: u32,
    /// First device block.
    pub(crate) start: u64,
    /// Allocated, but reads as zeros.
    pub(crate) unwritten: bool,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.lblk) + u64::from(self.len)
    }
}

/// A node's bytes, header first.
pub(crate) fn entries(node: &[u8]) -> usize {
    usize::from(u16_at(node, 2))
}
pub(crate) fn max_entries(node: &[u8]) -> usize {
    usize::from(u16_at(node, 4))
}
pub(crate) fn depth(node: &[u8]) -> u16 {
    u16_at(node, 6)
}
/// First file block of entry `i`, in leaves and index nodes alike.
pub(crate) fn key(node: &[u8], i: usize) -> u32 {
    u32_at(node, 12 + 12 * i)
}
pub(crate) fn read_extent(node: &[u8], i: usize) -> Extent {
    let at = 12 + 12 * i;
    let raw = u32::from(u16_at(node, at + 4));
    let unwritten = raw > MAX_LEN;
    Extent {
        lblk: u32_at(node, at),
        len: if unwritten { raw - MAX_LEN } else { raw },
        start: u64::from(u32_at(node, at + 8)) | u64::from(u16_at(node, at + 6)) << 32,
        unwritten,
    }
}
pub(crate) fn write_extent(node: &mut [u8], i: usize, e: &Extent) {
    let at = 12 + 12 * i;
    put32(node, at, e.lblk);
    put16(node, at + 4, if e.unwritten { e.len + MAX_LEN } else { e.len } as u16);
    put16(node, at + 6, (e.start >> 32) as u16);
    put32(node, at + 8, (e.start & 0xFFFF_FFFF) as u32);
}
pub(crate) fn child(node: &[u8], i: usize) -> u64 {
    let at = 12 + 12 * i;
    u64::from(u32_at(node, at + 4)) | u64::from(u16_at(node, at + 8)) << 32
}
pub(crate) fn write_index(node: &mut [u8], i: usize, first: u32, block: u64) {
    let at = 12 + 12 * i;
    put32(node, at, first);
    put32(node, at + 4, (block & 0xFFFF_FFFF) as u32);
    put16(node, at + 8, (block >> 32) as u16);
    put16(node, at + 10, 0);
}
pub(crate) fn init_node(node: &mut [u8], depth: u16, max: usize) {
    put16(node, 0, EXTENT_MAGIC);
    put16(node, 2, 0);
    put16(node, 4, max as u16);
    put16(node, 6, depth);
    put32(node, 8, 0);
}

/// One node on the way from the root to a leaf.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The node's block; `None` for the root.
    pub(crate) block: Option<u64>,
    /// Its bytes when it was read.
    pub(crate) node: Block,
    /// The entry that covers or precedes the block looked for; 0 if all entries follow it.
    pub(crate) index: usize,
    /// Where the subtree's file blocks end: the next key to the right, on this level or above.
    pub(crate) limit: u64,
}

impl<D: BlockDevice> Fs<D> {
    /// Entries that fit a node in a block.
    pub(crate) fn extents_per_block(&self) -> usize {
        (self.bs - 12 - if self.sb.has_metadata_csum() { 4 } else { 0 }) / 12
    }

    fn check_node(&self, ino: u32, node: &[u8], want_depth: Option<u16>) -> Result<()> {
        let bad = |what| Err(Error::inode(ino, what));
        if u16_at(node, 0) != EXTENT_MAGIC {
            return bad("an extent header's magic is not 0xF30A");
        }
        if entries(node) > max_entries(node) || 12 + 12 * max_entries(node) > node.len() || max_entries(node) == 0 {
            return bad("an extent header counts more entries than fit");
        }
        match want_depth {
            None if depth(node) > MAX_DEPTH => return bad("the extent tree is deeper than 5 levels"),
            Some(d) if depth(node) != d => return bad("an extent node's depth does not follow its parent's"),
            Some(_) if entries(node) == 0 => return bad("an extent node is empty"),
            _ => {}
        }
        Ok(())
    }

    fn check_order(&self, ino: u32, node: &[u8]) -> Result<()> {
        let bad = |what| Err(Error::inode(ino, what));
        let mut end = 0u64;
        for i in 0..entries(node) {
            if depth(node) == 0 {
                let e = read_extent(node, i);
                if e.len == 0 {
                    return bad("an extent has no length");
                }
                if u64::from(e.lblk) < end || e.end() > 1 << 32 {
                    return bad("extents overlap or are out of order");
                }
                let stop = e.start.checked_add(u64::from(e.len));
                if e.start < u64::from(self.sb.first_data_block) || stop.is_none_or(|s| s > self.sb.blocks_count) {
                    return bad("an extent lies outside the file system");
                }
                end = e.end();
            } else {
                if i > 0 && u64::from(key(node, i)) < end {
                    return bad("extent index entries are out of order");
                }
                end = u64::from(key(node, i)) + 1;
            }
        }
        Ok(())
    }

    /// The nodes from the root to the leaf that holds, or would hold, `lblk`.
    pub(crate) fn extent_path(&mut self, inode: &Inode, lblk: u32) -> Result<Vec<Step>> {
        let mut path = Vec::new();
        let mut node: Block = inode.i_block().into();
        let mut block = None;
        let mut limit = 1u64 << 32;
        self.check_node(inode.ino, &node, None)?;
        self.check_order(inode.ino, &node)?;
        let seed = self.inode_seed(inode.ino, inode.generation());
        loop {
            let n = entries(&node);
            let index = partition(n, |i| key(&node, i) <= lblk).saturating_sub(1);
            let d = depth(&node);
            if index + 1 < n {
                limit = limit.min(u64::from(key(&node, index + 1)));
            }
            if n > 0 && index == 0 && key(&node, 0) > lblk && d == 0 {
                limit = limit.min(u64::from(key(&node, 0)));
            }
            let next = child(&node, index);
            path.push(Step { block, node: node.clone(), index, limit });
            if d == 0 {
                return Ok(path);
            }
            if n == 0 {
                return Err(Error::inode(inode.ino, "an extent index node is empty"));
            }
            node = self.extent_node(inode.ino, next, seed, d - 1)?;
            block = Some(next);
        }
    }

    pub(super) fn extent_run(&mut self, inode: &Inode, lblk: u32, max: u32) -> Result<Run> {
        let root = inode.i_block();
        self.check_node(inode.ino, root, None)?;
        self.check_order(inode.ino, root)?;
        let mut limit = 1u64 << 32;
        if depth(root) == 0 {
            return Ok(run_in_leaf(root, lblk, max, limit));
        }
        let seed = self.inode_seed(inode.ino, inode.generation());
        let (mut next, mut d) = self.descend(inode.ino, root, lblk, &mut limit)?;
        loop {
            let node = self.extent_node(inode.ino, next, seed, d)?;
            if d == 0 {
                return Ok(run_in_leaf(&node, lblk, max, limit));
            }
            (next, d) = self.descend(inode.ino, &node, lblk, &mut limit)?;
        }
    }

    /// The child to follow for `lblk`, and its depth.
    fn descend(&self, ino: u32, node: &[u8], lblk: u32, limit: &mut u64) -> Result<(u64, u16)> {
        let n = entries(node);
        if n == 0 {
            return Err(Error::inode(ino, "an extent index node is empty"));
        }
        let index = partition(n, |i| key(node, i) <= lblk).saturating_sub(1);
        if index + 1 < n {
            *limit = (*limit).min(u64::from(key(node, index + 1)));
        }
        Ok((child(node, index), depth(node) - 1))
    }

    /// Reads a node below the root and checks it.
    fn extent_node(&mut self, ino: u32, block: u64, seed: u32, d: u16) -> Result<Block> {
        let known = self.buffered(block).is_some_and(|b| b.kind == Kind::Extent(seed));
        let node = self.block(block, Kind::Extent(seed))?;
        self.check_node(ino, &node, Some(d))?;
        if !known {
            self.check_order(ino, &node)?;
        }
        Ok(node)
    }
}

/// The state of a leaf's blocks from `lblk` on. The leaf covers blocks below `limit`.
fn run_in_leaf(leaf: &[u8], lblk: u32, max: u32, limit: u64) -> Run {
    let n = entries(leaf);
    let after = partition(n, |i| key(leaf, i) <= lblk);
    if let Some(i) = after.checked_sub(1) {
        let e = read_extent(leaf, i);
        if u64::from(lblk) < e.end() {
            let skip = lblk - e.lblk;
            return Run {
                start: Some(e.start + u64::from(skip)),
                len: (e.len - skip).min(max),
                unwritten: e.unwritten,
            };
        }
    }
    let end = if after < n { limit.min(u64::from(key(leaf, after))) } else { limit };
    let hole = end.saturating_sub(u64::from(lblk)).clamp(1, u64::from(max)) as u32;
    Run { start: None, len: hole, unwritten: false }
}

/// The first index in `0..n` for which `pred` is false; `pred` holds for a prefix.
pub(crate) fn partition(n: usize, pred: impl Fn(usize) -> bool) -> usize {
    let (mut lo, mut hi) = (0, n);
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if pred(mid) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    lo
}
