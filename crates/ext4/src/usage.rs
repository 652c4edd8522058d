//! What each block is used for: a map of the file system for people.

use crate::bitmap;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::fs::Fs;
use crate::types::Ino;
use alloc::vec::Vec;

/// What a block is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockUse {
    /// Nothing.
    Free,
    /// Contents of files, and what maps them.
    Files,
    /// Contents of directories.
    Directories,
    /// Files that count what users, groups and projects have.
    Quotas,
    /// The journal.
    Journal,
    /// Inode tables.
    Inodes,
    /// Bitmaps of blocks and inodes.
    Bitmaps,
    /// Superblocks, group descriptors and the space reserved for these.
    Superblocks,
}

/// A range of blocks inside one block group: start, end, use.
type Range = (u64, u64, BlockUse);

impl<D: BlockDevice> Fs<D> {
    /// Calls `visit` with the start, length and use of each run of blocks, in order and without gaps, from the first
    /// block group to the last; runs end with their block group.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn block_uses(&mut self, visit: &mut dyn FnMut(u64, u64, BlockUse)) -> Result<()> {
        // With `bigalloc` a bit stands for a cluster of blocks.
        let per_bit = self.sb.blocks_per_cluster();
        let mut special = self.special_blocks()?;
        special.sort_unstable();
        let mut special = special.into_iter().peekable();
        let mut uses: Vec<BlockUse> = Vec::new();
        for group in 0..self.sb.group_count() {
            let first = self.sb.group_first_block(group);
            let blocks = self.sb.group_blocks(group);
            // A bitmap that was never written says nothing beyond the metadata in the group.
            let written = per_bit == 1 || !self.block_bitmap_uninit(group);
            let map = if written { self.block_bitmap(group)? } else { self.zero_block() };
            uses.clear();
            uses.resize(blocks as usize, BlockUse::Free);
            let mut fill = |from: u64, to: u64, what: BlockUse| {
                if let Some(part) = uses.get_mut(from as usize..to as usize) {
                    part.fill(what);
                }
            };
            let bits = blocks.div_ceil(per_bit);
            let in_blocks = |bit: u64| (bit * u64::from(per_bit)).min(blocks.into());
            for used in bitmap::runs(&map, bits, true) {
                fill(in_blocks(used.start.into()), in_blocks(used.end.into()), BlockUse::Files);
            }
            let end = first + u64::from(blocks);
            let here: Vec<Range> = core::iter::from_fn(|| special.next_if(|range| range.0 < end)).collect();
            if !written {
                for (from, to, _) in &here {
                    let cluster = |block: u64| block / u64::from(per_bit);
                    fill(in_blocks(cluster(from - first)), in_blocks(cluster(to - first - 1) + 1), BlockUse::Files);
                }
            }
            for (from, to, what) in here {
                fill(from - first, to - first, what);
            }
            let mut start = 0;
            for run in uses.chunk_by(|a, b| a == b) {
                if let Some(what) = run.first() {
                    visit(first + start, run.len() as u64, *what);
                }
                start += run.len() as u64;
            }
        }
        Ok(())
    }

    /// All that is not free or a file's.
    fn special_blocks(&mut self) -> Result<Vec<Range>> {
        let mut found = Vec::new();
        let table = u64::from(self.sb.inode_table_blocks());
        for group in 0..self.sb.group_count() {
            let first = self.sb.group_first_block(group);
            self.note(&mut found, first, self.sb.group_base_blocks(group).into(), BlockUse::Superblocks);
            let Some(desc) = self.groups.get(group as usize) else { continue };
            let (blocks, inodes, start) = (desc.block_bitmap, desc.inode_bitmap, desc.inode_table);
            self.note(&mut found, blocks, 1, BlockUse::Bitmaps);
            self.note(&mut found, inodes, 1, BlockUse::Bitmaps);
            self.note(&mut found, start, table, BlockUse::Inodes);
        }
        if self.sb.journal_ino != 0 {
            self.note_file(&mut found, self.sb.journal_ino, BlockUse::Journal)?;
        }
        for ino in self.sb.quota_inodes.into_iter().filter(|ino| *ino != 0) {
            self.note_file(&mut found, ino, BlockUse::Quotas)?;
        }
        for group in 0..self.sb.group_count() {
            let Some(desc) = self.groups.get(group as usize) else { continue };
            if desc.used_dirs == 0 || self.inode_bitmap_uninit(group) {
                continue;
            }
            let per = self.sb.inodes_per_group;
            let last = per - desc.itable_unused.min(per);
            let map = self.inode_bitmap(group)?;
            let mut bit = 0;
            loop {
                bit = bitmap::find(&map, None, bit, last, true);
                if bit >= last {
                    break;
                }
                let ino = group * per + bit + 1;
                if self.inode_raw(ino)?.is_dir() {
                    self.note_file(&mut found, ino, BlockUse::Directories)?;
                }
                bit += 1;
            }
        }
        Ok(found)
    }

    /// Notes a range, cut at the bounds of block groups.
    fn note(&self, found: &mut Vec<Range>, start: u64, len: u64, what: BlockUse) {
        let end = start.saturating_add(len).min(self.sb.blocks_count);
        let mut at = start.max(self.sb.first_data_block.into());
        while at < end {
            let (group, _) = self.group_of(at);
            let stop = end.min(self.sb.group_first_block(group) + u64::from(self.sb.group_blocks(group)));
            found.push((at, stop, what));
            at = stop;
        }
    }

    fn note_file(&mut self, found: &mut Vec<Range>, ino: Ino, what: BlockUse) -> Result<()> {
        let inode = self.inode_raw(ino)?;
        if !inode.has_blocks() {
            return Ok(());
        }
        let blocks = inode.size().div_ceil(self.bs as u64).min(crate::map::MAX_FILE_BLOCKS) as u32;
        let mut at = 0;
        while at < blocks {
            let run = self.map_run(&inode, at, blocks - at)?;
            if let Some(start) = run.start {
                self.note(found, start, run.len.into(), what);
            }
            at = at.saturating_add(run.len);
            // Only directories that share blocks have more pieces together than there are blocks.
            if found.len() as u64 > self.sb.blocks_count.saturating_mul(2) {
                return Err(Error::corrupt("directories share blocks", Place::Inode(ino)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mkfs::{FsType, Options, format};
    use crate::types::{FileType, MountOptions, NewInode, ROOT_INO, Timestamp};
    use crate::{BlockDevice, IoError};
    use std::sync::Mutex;
    use std::vec;

    struct Memory(Mutex<Vec<u8>>);

    impl BlockDevice for Memory {
        fn size(&self) -> u64 {
            self.0.lock().unwrap().len() as u64
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
            let data = self.0.lock().unwrap();
            buf.copy_from_slice(&data[offset as usize..offset as usize + buf.len()]);
            Ok(())
        }
        fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
            self.0.lock().unwrap()[offset as usize..offset as usize + buf.len()].copy_from_slice(buf);
            Ok(())
        }
        fn flush(&self) -> Result<(), IoError> {
            Ok(())
        }
    }

    #[test]
    fn runs_cover_everything_and_agree_with_the_counts() {
        for fs_type in [FsType::Ext2, FsType::Ext3, FsType::Ext4] {
            let disk = Memory(Mutex::new(vec![0; 20 << 20]));
            let options = Options {
                block_size: Some(1024),
                device_zeroed: true,
                time: Timestamp::default(),
                ..Options::new(fs_type)
            };
            format(&disk, &options).unwrap();
            let mut fs = Fs::mount(disk, MountOptions::default()).unwrap();
            let now = Timestamp::default();
            let new = |file_type| NewInode { file_type, mode: 0o755, uid: 0, gid: 0, rdev: (0, 0), now };
            let file = fs.create(ROOT_INO, b"file", &new(FileType::Regular)).unwrap();
            fs.write(file, 0, &[7; 100_000], now).unwrap();
            fs.create(ROOT_INO, b"dir", &new(FileType::Directory)).unwrap();
            fs.sync().unwrap();
            let (free, blocks) = (fs.sb.free_blocks, fs.sb.blocks_count);
            let mut sums = [0; 8];
            let mut next = u64::from(fs.sb.first_data_block);
            fs.block_uses(&mut |start, len, what| {
                assert_eq!(start, next);
                next += len;
                sums[what as usize] += len;
            })
            .unwrap();
            assert_eq!(next, blocks);
            assert_eq!(sums[BlockUse::Free as usize], free);
            // The root, lost+found (of 16 KiB, as mke2fs makes it) and the new one.
            assert!(sums[BlockUse::Directories as usize] >= 3, "{sums:?}");
            assert!(sums[BlockUse::Files as usize] >= 98, "{sums:?}");
            assert_eq!(sums[BlockUse::Journal as usize] > 0, fs_type != FsType::Ext2);
            assert_eq!(sums[BlockUse::Bitmaps as usize], 2 * u64::from(fs.sb.group_count()));
        }
    }
}
