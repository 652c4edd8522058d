//! Hash-indexed directories: making an index, splitting leaves and index blocks.

use super::Entries;
use super::change::{put_entry, put_rec_len, put_tail};
use super::htree::{Frame, Probe};
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::Incompat;
use crate::fs::Fs;
use crate::inode::{FL_INDEX, Inode};
use crate::le::{bytes_at, put_bytes, put8, put16, put32};
use crate::types::{FileType, Ino};
use alloc::vec::Vec;

/// Offset of limit and count in the root.
pub(crate) const ROOT_ENTRIES: usize = 32;
/// Offset of limit and count in other index blocks.
pub(crate) const NODE_ENTRIES: usize = 8;

impl<D: BlockDevice> Fs<D> {
    /// Index entries that fit a block whose entries start at `off`.
    pub(crate) fn index_limit(&self, off: usize) -> usize {
        (self.bs - off - if self.sb.has_metadata_csum() { 8 } else { 0 }) / 8
    }

    /// Turns a directory of one block into an indexed one: its entries move to a second block, and the first becomes
    /// the index's root.
    pub(super) fn make_indexed(&mut self, dir: &mut Inode) -> Result<()> {
        let Some((root, data, _)) = self.dir_block(dir, 0)? else {
            return Err(Error::inode(dir.ino, "the directory has no first block"));
        };
        let mut dots = Entries::new(&data, self.bs);
        let (Some(Ok(dot)), Some(Ok(dotdot))) = (dots.next(), dots.next()) else {
            return Err(Error::inode(dir.ino, "the directory does not start with . and .."));
        };
        if dot.name != b"." || dotdot.name != b".." || dot.rec_len != 12 {
            return Err(Error::inode(dir.ino, "the directory does not start with . and .."));
        }
        let parent = dotdot.ino;
        let mut entries = Vec::new();
        for e in dots {
            let e = e.map_err(|what| Error::inode(dir.ino, what))?;
            if e.ino != 0 {
                entries.push((e.ino, e.file_type, e.name));
            }
        }
        let (lblk, leaf) = self.append_dir_block(dir)?;
        self.fill_leaf(dir, leaf, &entries)?;
        dir.set_flags(dir.flags() | FL_INDEX);
        let (limit, bs) = (self.index_limit(ROOT_ENTRIES), self.bs);
        let version = if self.sb.default_hash <= 2 { self.sb.default_hash } else { super::hash::HALF_MD4 };
        let byte = self.dirent_type(FileType::Directory);
        let ino = dir.ino;
        let d = self.block_mut(root, Kind::DirIndex(self.dir_seed(dir)))?;
        d.fill(0);
        put_entry(d, 0, 12, ino, b".", byte);
        put_entry(d, 12, bs - 12, parent, b"..", byte);
        put8(d, 28, version);
        put8(d, 29, 8);
        put16(d, ROOT_ENTRIES, limit as u16);
        put16(d, ROOT_ENTRIES + 2, 1);
        put32(d, ROOT_ENTRIES + 4, lblk);
        Ok(())
    }

    /// Rewrites a leaf so that it holds just these entries.
    fn fill_leaf(&mut self, dir: &Inode, block: u64, entries: &[(Ino, u8, &[u8])]) -> Result<()> {
        let space = self.dir_space();
        let data = self.block_mut(block, Kind::Dir(self.dir_seed(dir)))?;
        data.fill(0);
        let mut off = 0;
        for (i, (ino, byte, name)) in entries.iter().enumerate() {
            let size = super::entry_size(name.len());
            let len = if i + 1 == entries.len() { space - off } else { size };
            put_entry(data, off, len, *ino, name, *byte);
            off += size;
        }
        if entries.is_empty() {
            put_rec_len(data, 0, space);
        }
        put_tail(data, space);
        Ok(())
    }

    /// Adds an entry where its hash belongs, splitting blocks as needed.
    pub(super) fn index_insert(
        &mut self,
        dir: &mut Inode,
        mut probe: Probe,
        name: &[u8],
        ino: Ino,
        file_type: FileType,
    ) -> Result<()> {
        let Some(hash) = self.hash_name(name, probe.version).map(|h| h.major) else {
            return Err(Error::inode(dir.ino, "the directory's hash version is not known"));
        };
        // Every round adds one block. Growing the tree takes one a level, and a leaf of the longest names may have to
        // be split twice.
        for _ in 0..8 {
            let (leaf, _) = self.index_leaf(dir, probe.leaf)?;
            if self.add_to_block(dir, leaf, name, ino, file_type)? {
                return Ok(());
            }
            let full = probe.frames.iter().rposition(|f| f.count < f.limit);
            match full {
                Some(level) if level + 1 == probe.frames.len() => self.split_leaf(dir, &probe, leaf)?,
                Some(level) => self.split_index(dir, &probe, level)?,
                None => self.add_index_level(dir, &probe)?,
            }
            probe = match self.index_probe(dir, |_, _| Some(hash))? {
                Some(p) => p,
                None => return Err(Error::inode(dir.ino, "the directory's hash index is damaged")),
            };
        }
        Err(Error::NoSpace)
    }

    /// Moves the upper half of a leaf's entries, by hash, to a new leaf.
    fn split_leaf(&mut self, dir: &mut Inode, probe: &Probe, leaf: u64) -> Result<()> {
        let data = self.block(leaf, Kind::Dir(self.dir_seed(dir)))?;
        let mut entries = Vec::new();
        for e in Entries::new(&data, self.bs) {
            let e = e.map_err(|what| Error::inode(dir.ino, what))?;
            if e.ino == 0 {
                continue;
            }
            let Some(h) = self.hash_name(e.name, probe.version) else {
                return Err(Error::inode(dir.ino, "the directory's hash version is not known"));
            };
            entries.push((h, (e.ino, e.file_type, e.name)));
        }
        if entries.len() < 2 {
            return Err(Error::inode(dir.ino, "a directory block that is full has fewer than two entries"));
        }
        entries.sort_by_key(|(h, _)| *h);
        let half = self.bs / 2;
        let (mut size, mut split) = (0, entries.len());
        while split > 1 {
            let next = entries.get(split - 1).map_or(0, |(_, e)| super::entry_size(e.2.len()));
            if size + next / 2 > half {
                break;
            }
            size += next;
            split -= 1;
        }
        let split = if split == entries.len() { entries.len() - 1 } else { split };
        let (low, high) = entries.split_at(split);
        let (Some((last, _)), Some((first, _))) = (low.last(), high.first()) else {
            return Err(Error::inode(dir.ino, "a directory block cannot be split"));
        };
        // The lowest bit says that names of this hash are found in the leaf before, too.
        let start = first.major | u32::from(first.major == last.major);
        let (lblk, block) = self.append_dir_block(dir)?;
        let high: Vec<_> = high.iter().map(|(_, e)| *e).collect();
        let low: Vec<_> = low.iter().map(|(_, e)| *e).collect();
        self.fill_leaf(dir, block, &high)?;
        self.fill_leaf(dir, leaf, &low)?;
        match probe.frames.last() {
            Some(f) => self.index_add(dir, f, start, lblk),
            None => Err(Error::inode(dir.ino, "the directory's hash index is damaged")),
        }
    }

    /// Adds an index entry behind the one that the frame took.
    fn index_add(&mut self, dir: &Inode, frame: &Frame, hash: u32, lblk: u32) -> Result<()> {
        let seed = self.dir_seed(dir);
        let d = self.block_mut(frame.block, Kind::DirIndex(seed))?;
        let at = frame.off + 8 * (frame.at + 1);
        let end = frame.off + 8 * frame.count;
        d.copy_within(at..end, at + 8);
        put32(d, at, hash);
        put32(d, at + 4, lblk);
        put16(d, frame.off + 2, frame.count as u16 + 1);
        Ok(())
    }

    /// A new index block with these entries; the first's hash is left out.
    fn new_index_block(&mut self, dir: &mut Inode, entries: &[u8]) -> Result<u32> {
        let (lblk, block) = self.append_dir_block(dir)?;
        let (limit, bs, seed) = (self.index_limit(NODE_ENTRIES), self.bs, self.dir_seed(dir));
        let d = self.block_mut(block, Kind::DirIndex(seed))?;
        d.fill(0);
        put_rec_len(d, 0, bs);
        put_bytes(d, NODE_ENTRIES, entries);
        put16(d, NODE_ENTRIES, limit as u16);
        put16(d, NODE_ENTRIES + 2, (entries.len() / 8) as u16);
        Ok(lblk)
    }

    /// Splits the full index block below `level`, which has room for one more.
    fn split_index(&mut self, dir: &mut Inode, probe: &Probe, level: usize) -> Result<()> {
        let (Some(parent), Some(full)) = (probe.frames.get(level), probe.frames.get(level + 1)) else {
            return Err(Error::inode(dir.ino, "the directory's hash index is damaged"));
        };
        let keep = full.count / 2;
        let hash = full.hash(keep);
        let moved = bytes_at(&full.data, full.off + 8 * keep, 8 * (full.count - keep)).to_vec();
        let lblk = self.new_index_block(dir, &moved)?;
        let seed = self.dir_seed(dir);
        put16(self.block_mut(full.block, Kind::DirIndex(seed))?, full.off + 2, keep as u16);
        self.index_add(dir, parent, hash, lblk)
    }

    /// Moves the root's entries to a block below it.
    fn add_index_level(&mut self, dir: &mut Inode, probe: &Probe) -> Result<()> {
        let max = if self.sb.features.incompat.contains(Incompat::LARGEDIR) { 3 } else { 2 };
        let Some(root) = probe.frames.first().filter(|_| probe.frames.len() < max) else {
            // Linux: "Directory index full!"
            return Err(Error::NoSpace);
        };
        let all = bytes_at(&root.data, root.off, 8 * root.count).to_vec();
        let lblk = self.new_index_block(dir, &all)?;
        let (seed, levels) = (self.dir_seed(dir), probe.frames.len());
        let d = self.block_mut(root.block, Kind::DirIndex(seed))?;
        put8(d, 30, levels as u8);
        put16(d, root.off + 2, 1);
        put32(d, root.off + 4, lblk);
        if let Some(stale) = d.get_mut(root.off + 8..root.off + 8 * root.count) {
            stale.fill(0);
        }
        Ok(())
    }
}
