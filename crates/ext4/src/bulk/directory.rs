//! A directory composed in memory, all entries at once.

use crate::csum::{seal_directory, seal_index};
use crate::device::BlockDevice;
use crate::dir::change::{put_entry, put_rec_len, put_tail};
use crate::dir::entry_size;
use crate::dir::hash::{HALF_MD4, NameHash};
use crate::dir::htree_insert::{NODE_ENTRIES, ROOT_ENTRIES};
use crate::error::{Error, Result};
use crate::features::{Compat, Incompat};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::{put8, put16, put32};
use crate::map::extent::Extent;
use crate::namei::check_name;
use crate::types::{FileType, Ino};
use alloc::vec::Vec;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct BulkEntry<'a> {
    /// 1 to 255 bytes without `/` and zero.
    pub name: &'a [u8],
    /// The inode it leads to.
    pub ino: Ino,
    /// That inode's type.
    pub file_type: FileType,
}

/// Memory that serves one directory after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The composed blocks.
    pub(super) bytes: Vec<u8>,
    pub(super) runs: Vec<Extent>,
    /// Hashes, with the positions of their entries.
    order: Vec<(NameHash, u32)>,
    /// Where the leaves start: hash and number of the first entry.
    leaves: Vec<(u32, usize)>,
}

impl<D: BlockDevice> Fs<D> {
    /// Composes a directory's blocks in `scratch.bytes`; says whether it has a hash index.
    pub(super) fn compose_directory(
        &self,
        dir: &Inode,
        parent: Ino,
        entries: &[BulkEntry<'_>],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        for e in entries {
            check_name(e.name)?;
        }
        scratch.bytes.clear();
        let size: usize = entries.iter().map(|e| entry_size(e.name.len())).sum();
        let seed = self.inode_seed(dir.ino, dir.generation());
        let dots = [
            BulkEntry { name: b".", ino: dir.ino, file_type: FileType::Directory },
            BulkEntry { name: b"..", ino: parent, file_type: FileType::Directory },
        ];
        if 24 + size <= self.dir_space() || !self.sb.features.compat.contains(Compat::DIR_INDEX) {
            let mut leaf = Leaf::new(self, seed);
            for e in dots.iter().chain(entries) {
                leaf.add(&mut scratch.bytes, e);
            }
            leaf.close(&mut scratch.bytes);
            return Ok(false);
        }
        self.compose_indexed(seed, dots, entries, scratch)?;
        Ok(true)
    }

    fn compose_indexed(
        &self,
        seed: u32,
        [dot, dotdot]: [BulkEntry<'_>; 2],
        entries: &[BulkEntry<'_>],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let version = if self.sb.default_hash <= 2 { self.sb.default_hash } else { HALF_MD4 };
        let Scratch { bytes, order, leaves, .. } = scratch;
        order.clear();
        for (i, e) in (0..).zip(entries) {
            let hash = self.hash_name(e.name, version).ok_or(Error::Invalid("a hash version that is not known"))?;
            order.push((hash, i));
        }
        order.sort_unstable();
        // Which entries go to which leaf.
        let space = self.dir_space();
        leaves.clear();
        let mut used = space;
        let mut before = None;
        let entry = |i: u32| entries.get(i as usize);
        for (at, (hash, i)) in order.iter().enumerate() {
            let size = entry(*i).map_or(0, |e| entry_size(e.name.len()));
            if used + size > space {
                // The lowest bit says that names of this hash begin in the leaf before.
                leaves.push((hash.major | u32::from(before == Some(hash.major)), at));
                used = 0;
            }
            used += size;
            before = Some(hash.major);
        }
        let bs = self.bs;
        let (root_limit, node_limit) = (self.index_limit(ROOT_ENTRIES), self.index_limit(NODE_ENTRIES));
        // Blocks of each level below the root, the leaves last.
        let mut levels = alloc::vec![leaves.len()];
        while levels.first().is_some_and(|n| *n > root_limit) {
            levels.insert(0, levels.first().map_or(0, |n| n.div_ceil(node_limit)));
        }
        let max = if self.sb.features.incompat.contains(Incompat::LARGEDIR) { 3 } else { 2 };
        if levels.len() > max {
            return Err(Error::NoSpace);
        }
        bytes.resize(bs, 0);
        let byte = self.dirent_type(FileType::Directory);
        put_entry(bytes, 0, 12, dot.ino, b".", byte);
        // It covers all the rest, so that those who know no index skip that.
        put_entry(bytes, 12, bs - 12, dotdot.ino, b"..", byte);
        put8(bytes, 28, version);
        put8(bytes, 29, 8);
        put8(bytes, 30, (levels.len() - 1) as u8);
        let mut first_below = 1;
        // Leaves below one block of a level.
        let per_block = |depth: usize| node_limit.pow((levels.len() - 1 - depth) as u32);
        let hash_of = |leaves: &[(u32, usize)], block: usize, depth: usize| {
            leaves.get(block * per_block(depth)).map_or(0, |(hash, _)| *hash)
        };
        let count = levels.first().copied().unwrap_or(0);
        put_index(bytes, 0, bs, ROOT_ENTRIES, root_limit, (0..count).map(|b| (hash_of(leaves, b, 0), first_below + b)));
        for (depth, blocks) in levels.iter().enumerate().take(levels.len() - 1) {
            let below = levels.get(depth + 1).copied().unwrap_or(0);
            first_below += blocks;
            for block in 0..*blocks {
                let start = bytes.len();
                bytes.resize(start + bs, 0);
                let node = bytes.get_mut(start..).unwrap_or_default();
                put_rec_len(node, 0, bs);
                let range = block * node_limit..((block + 1) * node_limit).min(below);
                let targets = range.map(|b| (hash_of(leaves, b, depth + 1), first_below + b));
                put_index(bytes, start, bs, NODE_ENTRIES, node_limit, targets);
            }
        }
        if self.sb.has_metadata_csum() {
            bytes.chunks_exact_mut(bs).for_each(|block| seal_index(seed, block));
        }
        let mut leaf = Leaf::new(self, seed);
        let mut starts = leaves.iter().skip(1).map(|(_, at)| *at).peekable();
        for (at, (_, i)) in order.iter().enumerate() {
            if starts.next_if_eq(&at).is_some() {
                leaf.close(bytes);
            }
            if let Some(e) = entry(*i) {
                leaf.add(bytes, e);
            }
        }
        leaf.close(bytes);
        Ok(())
    }
}

/// Writes an index block's limit, count and entries.
fn put_index(
    bytes: &mut [u8],
    start: usize,
    bs: usize,
    at: usize,
    limit: usize,
    targets: impl Iterator<Item = (u32, usize)>,
) {
    let block = bytes.get_mut(start..start + bs).unwrap_or_default();
    let mut count = 0;
    for (i, (hash, target)) in targets.enumerate() {
        // The first entry's hash is where the count lies.
        if i > 0 {
            put32(block, at + 8 * i, hash);
        }
        put32(block, at + 8 * i + 4, target as u32);
        count = i + 1;
    }
    put16(block, at, limit as u16);
    put16(block, at + 2, count as u16);
}

/// A leaf being filled, at the end of the composed bytes.
struct Leaf<'a, D: BlockDevice> {
    fs: &'a Fs<D>,
    seed: u32,
    /// Offset of the last entry in the block; `None` without a block.
    last: Option<usize>,
    used: usize,
}

impl<'a, D: BlockDevice> Leaf<'a, D> {
    fn new(fs: &'a Fs<D>, seed: u32) -> Self {
        Leaf { fs, seed, last: None, used: 0 }
    }

    /// Adds an entry, in a further block if it does not fit.
    fn add(&mut self, bytes: &mut Vec<u8>, e: &BulkEntry<'_>) {
        let size = entry_size(e.name.len());
        if self.last.is_some() && self.used + size > self.fs.dir_space() {
            self.close(bytes);
        }
        if self.last.is_none() {
            bytes.resize(bytes.len() + self.fs.bs, 0);
        }
        let start = bytes.len() - self.fs.bs;
        let block = bytes.get_mut(start..).unwrap_or_default();
        put_entry(block, self.used, size, e.ino, e.name, self.fs.dirent_type(e.file_type));
        self.last = Some(self.used);
        self.used += size;
    }

    /// Makes the last entry reach to the block's end, and seals the block.
    fn close(&mut self, bytes: &mut [u8]) {
        let Some(last) = self.last.take() else { return };
        let start = bytes.len() - self.fs.bs;
        let block = bytes.get_mut(start..).unwrap_or_default();
        let space = self.fs.dir_space();
        put_rec_len(block, last, space - last);
        put_tail(block, space);
        if self.fs.sb.has_metadata_csum() {
            seal_directory(self.seed, block);
        }
        self.used = 0;
    }
}
