//! Hash-indexed directories: the way from the root block to a leaf.

use super::Found;
use super::hash::{NameHash, name_hash};
use crate::cache::{Block, Kind};
use crate::csum::index_count_offset;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::Incompat;
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::{u8_at, u16_at, u32_at};
use crate::map::extent::partition;
use alloc::vec::Vec;

/// An index block on the way to a leaf, and the entry taken in it.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Its device block.
    pub(crate) block: u64,
    pub(crate) data: Block,
    /// Offset of limit and count, where the entries start.
    pub(crate) off: usize,
    pub(crate) count: usize,
    pub(crate) limit: usize,
    /// The entry taken.
    pub(crate) at: usize,
}

impl Frame {
    /// The hash at which an entry starts; the first has none.
    pub(crate) fn hash(&self, i: usize) -> u32 {
        if i == 0 { 0 } else { u32_at(&self.data, self.off + 8 * i) }
    }
    /// The directory block that an entry leads to.
    pub(crate) fn target(&self, i: usize) -> u32 {
        // The upper bits are reserved (`dx_get_block`).
        u32_at(&self.data, self.off + 8 * i + 4) & 0x0FFF_FFFF
    }
}

/// The way to a leaf.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) version: u8,
    pub(crate) frames: Vec<Frame>,
    /// The leaf's directory block.
    pub(crate) leaf: u32,
}

impl<D: BlockDevice> Fs<D> {
    pub(crate) fn hash_name(&self, name: &[u8], version: u8) -> Option<NameHash> {
        name_hash(name, version, self.sb.hash_unsigned(), &self.sb.hash_seed)
    }

    fn index_frame(&mut self, dir: &Inode, lblk: u32) -> Result<Option<Frame>> {
        let Some(block) = self.map_block(dir, lblk)? else {
            return Ok(None);
        };
        let seed = self.inode_seed(dir.ino, dir.generation());
        let plain = self.block(block, Kind::Plain)?;
        let Some(off) = index_count_offset(&plain) else {
            return Ok(None);
        };
        let data = self.block(block, Kind::DirIndex(seed))?;
        let limit = usize::from(u16_at(&data, off));
        let count = usize::from(u16_at(&data, off + 2));
        let tail = if self.sb.has_metadata_csum() { 8 } else { 0 };
        if count == 0 || count > limit || off + limit * 8 + tail > data.len() || (off == 8) == (lblk == 0) {
            return Ok(None);
        }
        Ok(Some(Frame { block, data, off, count, limit, at: 0 }))
    }

    /// Walks from the root to the leaf for the hash that `hash_of` gives for the root's hash version. `None` where
    /// the index is not usable; callers then scan all blocks, as Linux does.
    pub(crate) fn index_probe(
        &mut self,
        dir: &Inode,
        hash_of: impl Fn(&Self, u8) -> Option<u32>,
    ) -> Result<Option<Probe>> {
        let Some(root) = self.index_frame(dir, 0)? else {
            return Ok(None);
        };
        let version = u8_at(&root.data, 28);
        let levels = usize::from(u8_at(&root.data, 30));
        let max = if self.sb.features.incompat.contains(Incompat::LARGEDIR) { 2 } else { 1 };
        let Some(hash) = hash_of(self, version) else {
            return Ok(None);
        };
        if u8_at(&root.data, 31) & 1 != 0 || levels > max {
            return Ok(None);
        }
        let mut frames = Vec::with_capacity(levels + 1);
        let mut frame = root;
        loop {
            frame.at = partition(frame.count - 1, |i| frame.hash(i + 1) <= hash);
            let target = frame.target(frame.at);
            frames.push(frame);
            if frames.len() > levels {
                return Ok(Some(Probe { version, frames, leaf: target }));
            }
            match self.index_frame(dir, target)? {
                Some(f) => frame = f,
                None => return Ok(None),
            }
        }
    }

    /// Moves a probe to the next leaf. With `hash`, only if that leaf continues names of this very hash.
    /// Returns the hash at which the new leaf starts.
    pub(crate) fn index_next(&mut self, dir: &Inode, probe: &mut Probe, hash: Option<u32>) -> Result<Option<u32>> {
        let levels = probe.frames.len();
        let Some(level) = (0..levels).rev().find(|&l| probe.frames.get(l).is_some_and(|f| f.at + 1 < f.count)) else {
            return Ok(None);
        };
        let Some(f) = probe.frames.get_mut(level) else {
            return Ok(None);
        };
        let start = f.hash(f.at + 1);
        if hash.is_some_and(|h| start & !1 != h || start & 1 == 0) {
            return Ok(None);
        }
        f.at += 1;
        let mut target = f.target(f.at);
        for l in level + 1..levels {
            let Some(frame) = self.index_frame(dir, target)? else {
                return Err(Error::inode(dir.ino, "the directory's hash index is damaged"));
            };
            target = frame.target(0);
            if let Some(slot) = probe.frames.get_mut(l) {
                *slot = frame;
            }
        }
        probe.leaf = target;
        Ok(Some(start))
    }

    /// A leaf's block and contents.
    pub(crate) fn index_leaf(&mut self, dir: &Inode, lblk: u32) -> Result<(u64, Block)> {
        let Some(block) = self.map_block(dir, lblk)? else {
            return Err(Error::inode(dir.ino, "the directory's hash index leads to a hole"));
        };
        let seed = self.inode_seed(dir.ino, dir.generation());
        Ok((block, self.block(block, Kind::Dir(seed))?))
    }

    /// Looks a name up through the index: `None` if the index is not usable.
    pub(super) fn index_find(&mut self, dir: &Inode, name: &[u8]) -> Result<Option<Option<Found>>> {
        let Some(mut probe) = self.index_probe(dir, |fs, v| fs.hash_name(name, v).map(|h| h.major))? else {
            return Ok(None);
        };
        let Some(hash) = self.hash_name(name, probe.version) else {
            return Ok(None);
        };
        loop {
            let (block, data) = self.index_leaf(dir, probe.leaf)?;
            if let Some(f) = self.find_in_block(dir, block, &data, name)? {
                return Ok(Some(Some(f)));
            }
            if self.index_next(dir, &mut probe, Some(hash.major))?.is_none() {
                return Ok(Some(None));
            }
        }
    }
}
