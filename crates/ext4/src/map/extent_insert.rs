//! Extent trees: insertion, splitting of nodes, and the change of unwritten extents to written ones.

use super::extent::{
    Extent, MAX_DEPTH, MAX_LEN, MAX_UNWRITTEN_LEN, Step, child, depth, entries, init_node, key, max_entries,
    read_extent, write_extent, write_index,
};
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::{put16, put32};

/// Opens a gap at entry `pos`.
fn open_gap(node: &mut [u8], pos: usize) {
    let n = entries(node);
    let (from, to) = (12 + 12 * pos, 12 + 12 * n);
    if pos <= n && to + 12 <= node.len() {
        node.copy_within(from..to, from + 12);
        put16(node, 2, n as u16 + 1);
    }
}

/// Removes entry `pos`.
pub(super) fn close_gap(node: &mut [u8], pos: usize) {
    let n = entries(node);
    let (from, to) = (12 + 12 * (pos + 1), 12 + 12 * n);
    if pos < n && to <= node.len() {
        node.copy_within(from..to, from - 12);
        put16(node, 2, n as u16 - 1);
        // Leave no stale entry behind the last one.
        if let Some(s) = node.get_mut(to - 12..to) {
            s.fill(0);
        }
    }
}

/// One extent out of two neighbours, if they continue each other.
fn joined(a: &Extent, b: &Extent) -> Option<Extent> {
    let max = if a.unwritten { MAX_UNWRITTEN_LEN } else { MAX_LEN };
    let fits = a.len + b.len <= max;
    let follows = a.end() == u64::from(b.lblk) && a.start + u64::from(a.len) == b.start;
    (fits && follows && a.unwritten == b.unwritten).then_some(Extent { len: a.len + b.len, ..*a })
}

impl<D: BlockDevice> Fs<D> {
    /// Access for changing a node: the root in the inode, others in their block.
    pub(super) fn node_mut<'a>(&'a mut self, inode: &'a mut Inode, block: Option<u64>) -> Result<&'a mut [u8]> {
        match block {
            None => Ok(inode.i_block_mut()),
            Some(b) => {
                let seed = self.inode_seed(inode.ino, inode.generation());
                self.block_mut(b, Kind::Extent(seed))
            }
        }
    }

    /// After a leaf's or node's first key changed: corrects the keys above it. `path` ends at the changed node.
    pub(super) fn fix_keys(&mut self, inode: &mut Inode, path: &[Step], first: u32) -> Result<()> {
        for step in path.iter().rev().skip(1) {
            let node = self.node_mut(inode, step.block)?;
            put32(node, 12 + 12 * step.index, first);
            if step.index != 0 {
                break;
            }
        }
        Ok(())
    }

    /// Adds an extent to the tree, joined with its neighbours where possible.
    pub(crate) fn insert_extent(&mut self, inode: &mut Inode, e: Extent) -> Result<()> {
        // Each round without success makes the tree roomier; a tree has at most MAX_DEPTH levels to split.
        for _ in 0..=2 * usize::from(MAX_DEPTH) + 2 {
            let path = self.extent_path(inode, e.lblk)?;
            let Some(leaf) = path.last() else { break };
            let n = entries(&leaf.node);
            let pos = if n > 0 && key(&leaf.node, leaf.index) <= e.lblk { leaf.index + 1 } else { leaf.index.min(n) };
            let prev = (pos > 0).then(|| read_extent(&leaf.node, pos - 1));
            let next = (pos < n).then(|| read_extent(&leaf.node, pos));
            let overlaps = prev.is_some_and(|p| p.end() > u64::from(e.lblk))
                || next.is_some_and(|x| e.end() > u64::from(x.lblk))
                || e.end() > leaf.limit && n > 0 && next.is_none();
            if overlaps || e.len == 0 {
                return Err(Error::inode(inode.ino, "a new extent overlaps the file's others"));
            }
            let block = leaf.block;
            if let Some(j) = prev.and_then(|p| joined(&p, &e)) {
                let both = next.and_then(|x| joined(&j, &x));
                let node = self.node_mut(inode, block)?;
                write_extent(node, pos - 1, &both.unwrap_or(j));
                if both.is_some() {
                    close_gap(node, pos);
                }
                return Ok(());
            }
            if let Some(j) = next.and_then(|x| joined(&e, &x)) {
                write_extent(self.node_mut(inode, block)?, pos, &j);
                return if pos == 0 { self.fix_keys(inode, &path, e.lblk) } else { Ok(()) };
            }
            if n < max_entries(&leaf.node) {
                let node = self.node_mut(inode, block)?;
                open_gap(node, pos);
                write_extent(node, pos, &e);
                return if pos == 0 { self.fix_keys(inode, &path, e.lblk) } else { Ok(()) };
            }
            self.make_room(inode, &path, pos == n)?;
        }
        Err(Error::inode(inode.ino, "the extent tree cannot be split"))
    }

    /// Splits the topmost full node of the full tail of `path`, or adds a level. `appending`: the new extent follows
    /// all others in its leaf, so leave the old leaf nearly full.
    fn make_room(&mut self, inode: &mut Inode, path: &[Step], appending: bool) -> Result<()> {
        let leaf = path.len() - 1;
        let roomy = (0..leaf).rev().find(|&l| path.get(l).is_some_and(|s| entries(&s.node) < max_entries(&s.node)));
        let goal = self.inode_goal(inode.ino);
        let seed = self.inode_seed(inode.ino, inode.generation());
        let max = self.extents_per_block();
        let (Some(parent_level), Some(root)) = (roomy, path.first()) else {
            let Some(root) = path.first() else {
                return Err(Error::inode(inode.ino, "the extent tree has no root"));
            };
            if depth(&root.node) >= MAX_DEPTH {
                return Err(Error::TooBig);
            }
            // A new level: the root's entries move to a block below it.
            let block = self.alloc_meta(inode, goal)?;
            let old = root.node.clone();
            let node = self.block_new(block, Kind::Extent(seed))?;
            if let (Some(to), Some(from)) = (node.get_mut(..old.len()), old.get(..)) {
                to.copy_from_slice(from);
            }
            put16(node, 4, max as u16);
            let d = depth(&old) + 1;
            let r = inode.i_block_mut();
            r.fill(0);
            init_node(r, d, 4);
            put16(r, 2, 1);
            write_index(r, 0, key(&old, 0), block);
            return Ok(());
        };
        let _ = root;
        let (Some(parent), Some(full)) = (path.get(parent_level), path.get(parent_level + 1)) else {
            return Err(Error::inode(inode.ino, "the extent tree has no root"));
        };
        let n = entries(&full.node);
        let at_end = if parent_level + 1 == leaf { appending } else { full.index + 1 == n };
        let moved = if at_end { 1 } else { n / 2 }.max(1);
        let keep = n - moved;
        let block = self.alloc_meta(inode, goal)?;
        let old = full.node.clone();
        let node = self.block_new(block, Kind::Extent(seed))?;
        init_node(node, depth(&old), max);
        put16(node, 2, moved as u16);
        let (from, to) = (12 + 12 * keep, 12 + 12 * n);
        if let (Some(dst), Some(src)) = (node.get_mut(12..12 + 12 * moved), old.get(from..to)) {
            dst.copy_from_slice(src);
        }
        let node = self.node_mut(inode, full.block)?;
        put16(node, 2, keep as u16);
        if let Some(s) = node.get_mut(from..to) {
            s.fill(0);
        }
        let pos = parent.index + 1;
        let node = self.node_mut(inode, parent.block)?;
        open_gap(node, pos);
        write_index(node, pos, key(&old, keep), block);
        Ok(())
    }

    /// Makes unwritten blocks `lblk..lblk + len`, which must lie in one extent, written ones.
    pub(crate) fn mark_written(&mut self, inode: &mut Inode, lblk: u32, len: u32) -> Result<()> {
        let path = self.extent_path(inode, lblk)?;
        let Some(leaf) = path.last().filter(|l| entries(&l.node) > 0) else {
            return Err(Error::inode(inode.ino, "an unwritten extent vanished"));
        };
        let e = read_extent(&leaf.node, leaf.index);
        let (from, to) = (u64::from(lblk), u64::from(lblk) + u64::from(len));
        if !e.unwritten || from < u64::from(e.lblk) || to > e.end() || len == 0 {
            return Err(Error::inode(inode.ino, "an unwritten extent vanished"));
        }
        let head = lblk - e.lblk;
        let middle = Extent { lblk, len, start: e.start + u64::from(head), unwritten: false };
        let tail = Extent {
            lblk: (to & 0xFFFF_FFFF) as u32,
            len: (e.end() - to) as u32,
            start: middle.start + u64::from(len),
            unwritten: true,
        };
        let first = if head > 0 { Extent { len: head, ..e } } else { middle };
        write_extent(self.node_mut(inode, leaf.block)?, leaf.index, &first);
        if head > 0 {
            self.insert_extent(inode, middle)?;
        }
        if tail.len > 0 {
            self.insert_extent(inode, tail)?;
        }
        self.join_left(inode, lblk)?;
        if tail.len == 0 { self.join_left(inode, tail.lblk) } else { Ok(()) }
    }

    /// Joins the extent that starts at `lblk` with the one before it, if they share a leaf and continue each other.
    fn join_left(&mut self, inode: &mut Inode, lblk: u32) -> Result<()> {
        let path = self.extent_path(inode, lblk)?;
        let Some(leaf) = path.last().filter(|l| l.index > 0 && key(&l.node, l.index) == lblk) else {
            return Ok(());
        };
        let (a, b) = (read_extent(&leaf.node, leaf.index - 1), read_extent(&leaf.node, leaf.index));
        if let Some(j) = joined(&a, &b) {
            let node = self.node_mut(inode, leaf.block)?;
            write_extent(node, leaf.index - 1, &j);
            close_gap(node, leaf.index);
        }
        Ok(())
    }

    /// Moves the only child's entries into the root where they fit, as long as that makes the tree lower.
    pub(super) fn lower_tree(&mut self, inode: &mut Inode) -> Result<()> {
        loop {
            let root = inode.i_block();
            if depth(root) == 0 || entries(root) != 1 {
                return Ok(());
            }
            let (below, d) = (child(root, 0), depth(root));
            let seed = self.inode_seed(inode.ino, inode.generation());
            let node = self.block(below, Kind::Extent(seed))?;
            let n = entries(&node);
            if n > 4 || depth(&node) + 1 != d {
                return Ok(());
            }
            let r = inode.i_block_mut();
            r.fill(0);
            init_node(r, d - 1, 4);
            put16(r, 2, n as u16);
            if let (Some(to), Some(from)) = (r.get_mut(12..12 + 12 * n), node.get(12..12 + 12 * n)) {
                to.copy_from_slice(from);
            }
            self.free_blocks(below, 1, true)?;
            self.add_blocks(inode, -1)?;
        }
    }
}
