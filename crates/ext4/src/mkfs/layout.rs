//! Sizes and places: how many groups and inodes, and which blocks hold bitmaps and inode tables.

use super::Options;
use crate::bitmap;
use crate::error::{Error, Result};
use crate::features::{Compat, Incompat, RoCompat};
use crate::group::Group;
use crate::superblock::Superblock;
use alloc::vec::Vec;

/// The numbers of a file system to be made.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) reserved: u64,
    pub(super) first_block: u32,
    pub(super) blocks_per_group: u32,
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    pub(super) reserved_gdt: u32,
    /// Blocks of the journal, 0 for none.
    pub(super) journal: u32,
}

impl Layout {
    /// As `mke2fs` and `ext2fs_initialize` compute them.
    pub(super) fn plan(device: u64, o: &Options) -> Result<Layout> {
        let size = if o.size == 0 { device } else { o.size };
        if size > device {
            return Err(Error::Truncated { image: device, expected: size });
        }
        const MIB: u64 = 1 << 20;
        let block_size = o.block_size.unwrap_or(if size < 512 * MIB { 1024 } else { 4096 });
        if !block_size.is_power_of_two() || !(1024..=65536).contains(&block_size) {
            return Err(Error::Invalid("the block size is not a power of two from 1024 to 65536"));
        }
        if !o.inode_size.is_power_of_two() || o.inode_size < 128 || u32::from(o.inode_size) > block_size {
            return Err(Error::Invalid("the inode size is not a power of two from 128 to the block size"));
        }
        if o.label.len() > 16 {
            return Err(Error::Invalid("the label is longer than 16 bytes"));
        }
        if o.reserved_hundredths > 5000 {
            return Err(Error::Invalid("more than 50 percent of the blocks are reserved"));
        }
        if !o.flex_groups.is_power_of_two() || o.flex_groups > 1 << 16 {
            return Err(Error::Invalid("the groups in a flexible group are not a power of two"));
        }
        let bit64 = o.features.incompat.contains(Incompat::BIT64);
        let mut blocks = size / u64::from(block_size);
        if blocks > u64::from(u32::MAX) && !bit64 {
            return Err(Error::Invalid("a file system of more than 2^32 blocks needs the feature 64bit"));
        }
        if blocks > u64::from(u32::MAX) && o.features.compat.contains(Compat::RESIZE_INODE) {
            return Err(Error::Invalid("the feature resize_inode reaches to 2^32 blocks only"));
        }
        let ratio = o.bytes_per_inode.unwrap_or(match size {
            s if s < 3 * MIB => 8192,
            s if s < 512 * MIB => 4096,
            s if s < 4 * MIB * MIB => 16384,
            s if s < 16 * MIB * MIB => 32768,
            _ => 65536,
        });
        if ratio < 1024 {
            return Err(Error::Invalid("there would be more than one inode for 1024 bytes"));
        }
        let first_block = u32::from(block_size == 1024);
        let most = (block_size * 8).min(65528);
        let blocks_per_group = o.blocks_per_group.unwrap_or(most);
        if !blocks_per_group.is_multiple_of(8) || !(256..=most).contains(&blocks_per_group) {
            return Err(Error::Invalid(
                "the blocks in a group are not a multiple of 8 from 256 to a bitmap block's bits",
            ));
        }
        let desc_size = if bit64 { 64 } else { 32 };
        let per_block = block_size / desc_size;
        let isize = u32::from(o.inode_size);
        loop {
            let used = blocks.saturating_sub(u64::from(first_block));
            if used < 16 {
                return Err(Error::NoSpace);
            }
            let groups = u32::try_from(used.div_ceil(u64::from(blocks_per_group)))
                .map_err(|_| Error::Invalid("the file system would have too many block groups"))?;
            let desc_blocks = groups.div_ceil(per_block);
            let reserved_gdt = if o.features.compat.contains(Compat::RESIZE_INODE) {
                let max = blocks.saturating_mul(1024).min(u64::from(u32::MAX));
                let rsv_groups = (max - u64::from(first_block)).div_ceil(u64::from(blocks_per_group));
                let n = rsv_groups.div_ceil(u64::from(per_block)).saturating_sub(u64::from(desc_blocks));
                n.min(u64::from(block_size / 4)) as u32
            } else {
                0
            };
            let inodes = o.inodes.map_or(blocks.saturating_mul(u64::from(block_size)) / u64::from(ratio), u64::from);
            let inodes = inodes.clamp(16, u64::from(u32::MAX));
            let per = inodes.div_ceil(u64::from(groups)).min(u64::from(block_size * 8));
            let table = (per * u64::from(isize)).div_ceil(u64::from(block_size));
            let per = (table * u64::from(block_size) / u64::from(isize)) as u32;
            // Bitmaps are handled in whole bytes.
            let inodes_per_group = (per.min(block_size * 8) & !7).max(8);
            if u64::from(inodes_per_group) * u64::from(groups) > u64::from(u32::MAX) {
                return Err(Error::Invalid("there would be more than 2^32 inodes"));
            }
            // A last group that would hold little but its own metadata is left out.
            let rem = used % u64::from(blocks_per_group);
            let mut overhead = 2 + (inodes_per_group * isize).div_ceil(block_size);
            let meta_bg = o.features.incompat.contains(Incompat::META_BG);
            if has_super(groups - 1, groups, o) {
                overhead += 1 + if meta_bg { 1 } else { desc_blocks + reserved_gdt };
            } else if meta_bg {
                overhead += 1;
            }
            if rem != 0 && rem < u64::from(overhead) + 50 {
                if groups == 1 {
                    if rem < u64::from(overhead) + 8 {
                        return Err(Error::NoSpace);
                    }
                } else {
                    blocks -= rem;
                    continue;
                }
            }
            let journal = journal_blocks(o, blocks)?;
            return Ok(Layout {
                block_size,
                blocks,
                reserved: blocks * u64::from(o.reserved_hundredths) / 10_000,
                first_block,
                blocks_per_group,
                groups,
                inodes_per_group,
                reserved_gdt,
                journal,
            });
        }
    }
}

fn has_super(group: u32, groups: u32, o: &Options) -> bool {
    if o.features.compat.contains(Compat::SPARSE_SUPER2) {
        return group <= 1 || group == groups - 1;
    }
    let power = |base: u32| {
        let mut n = base;
        while n < group {
            n = n.saturating_mul(base);
        }
        n == group
    };
    group <= 1 || !o.features.ro_compat.contains(RoCompat::SPARSE_SUPER) || power(3) || power(5) || power(7)
}

/// Blocks for the journal (`ext2fs_default_journal_size`).
fn journal_blocks(o: &Options, blocks: u64) -> Result<u32> {
    if !o.features.compat.contains(Compat::HAS_JOURNAL) {
        return Ok(0);
    }
    const K: u64 = 1024;
    let n = match o.journal_blocks {
        Some(n) if n < 1024 => return Err(Error::Invalid("the journal has fewer than 1024 blocks")),
        Some(n) => n,
        None => match blocks {
            b if b < 2048 => return Err(Error::Invalid("the file system is too small for a journal")),
            b if b < 32 * K => 1024,
            b if b < 256 * K => 4096,
            b if b < 512 * K => 8192,
            b if b < 4096 * K => 16384,
            b if b < 8192 * K => 32768,
            b if b < 16384 * K => 65536,
            b if b < 32768 * K => 131_072,
            _ => 262_144,
        },
    };
    if u64::from(n) > blocks / 2 {
        return Err(Error::Invalid("the journal would take more than half of the file system"));
    }
    Ok(n)
}

/// Which blocks are taken, while bitmaps and tables find their places.
pub(super) struct Used<'a> {
    sb: &'a Superblock,
    maps: Vec<Vec<u8>>,
}

impl<'a> Used<'a> {
    pub(super) fn new(sb: &'a Superblock) -> Used<'a> {
        let bits = sb.block_size * 8;
        let maps = (0..sb.group_count())
            .map(|g| {
                let mut m = alloc::vec![0; sb.block_size as usize];
                bitmap::fill(&mut m, 0, sb.group_base_blocks(g), true);
                let n = sb.group_blocks(g);
                bitmap::fill(&mut m, n, bits - n, true);
                m
            })
            .collect();
        Used { sb, maps }
    }

    /// Takes the first free run of `len` blocks at or after `start`; it lies within one group.
    pub(super) fn take(&mut self, start: u64, len: u32) -> Result<u64> {
        let first = u64::from(self.sb.first_data_block);
        let group = (start.saturating_sub(first) / u64::from(self.sb.blocks_per_group)) as u32;
        for g in group..self.sb.group_count() {
            let Some(map) = self.maps.get_mut(g as usize) else { break };
            let end = self.sb.group_blocks(g);
            let found = bitmap::runs(map, end, false).find(|run| run.len() >= len as usize);
            if let Some(run) = found {
                bitmap::fill(map, run.start, len, true);
                return Ok(self.sb.group_first_block(g) + u64::from(run.start));
            }
            // Without flexible groups, a group holds its own.
            if self.sb.groups_per_flex() == 1 {
                break;
            }
        }
        Err(Error::NoSpace)
    }

    pub(super) fn bitmap(&self, group: u32) -> Vec<u8> {
        self.maps.get(group as usize).cloned().unwrap_or_default()
    }

    /// Whether a group's bitmaps and table lie in the group itself.
    pub(super) fn holds_own_tables(&self, group: u32, d: &Group) -> bool {
        let first = self.sb.group_first_block(group);
        let end = first + u64::from(self.sb.group_blocks(group));
        [d.block_bitmap, d.inode_bitmap, d.inode_table].iter().all(|b| (first..end).contains(b))
    }
}
