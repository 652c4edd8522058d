//! Pass 5: bitmaps and counts against what is in use.

use super::{Checker, Mend};
use crate::bitmap;
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Place, Result};
use crate::types::{FileType, ROOT_INO};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// Ranges named for one bitmap.
const NAMED: usize = 8;

/// What a group's bitmaps and counts are to be.
pub(super) struct Right {
    pub(super) blocks: Vec<u8>,
    pub(super) inodes: Vec<u8>,
    pub(super) free_blocks: u32,
    pub(super) free_inodes: u32,
    pub(super) dirs: u32,
}

impl<D: BlockDevice> Checker<'_, D> {
    /// A group's bitmaps and counts as they follow from what is in use.
    pub(super) fn right(&self, group: u32) -> Right {
        let sb = &self.fs.sb;
        let bits = self.fs.bs as u32 * 8;
        let in_group = sb.group_blocks(group);
        let mut blocks = self.used.get(group as usize).filter(|m| !m.is_empty()).cloned();
        let blocks = blocks.get_or_insert_with(|| alloc::vec![0; self.fs.bs]);
        bitmap::fill(blocks, in_group, bits - in_group, true);
        let per = sb.inodes_per_group;
        let first = group * per + 1;
        let mut inodes = alloc::vec![0; self.fs.bs];
        bitmap::fill(&mut inodes, per, bits - per, true);
        let mut dirs = 0;
        if group == 0 {
            bitmap::fill(&mut inodes, 0, (sb.first_ino - 1).min(per), true);
        }
        for (ino, known) in self.inodes.range(first..=first + (per - 1)) {
            bitmap::set(&mut inodes, ino - first);
            dirs += u32::from(known.file_type == Some(FileType::Directory));
        }
        // The root is in use whatever it looks like.
        debug_assert!(group != 0 || bitmap::get(&inodes, ROOT_INO - 1));
        Right {
            free_blocks: bitmap::count_clear(blocks, in_group),
            free_inodes: bitmap::count_clear(&inodes, per),
            blocks: core::mem::take(blocks),
            inodes,
            dirs,
        }
    }

    pub(super) fn check_bitmaps(&mut self) -> Result<()> {
        let (mut free_blocks, mut free_inodes) = (0u64, 0u32);
        for group in 0..self.fs.sb.group_count() {
            let right = self.right(group);
            free_blocks += u64::from(right.free_blocks);
            free_inodes += right.free_inodes;
            let blocks = if self.fs.block_bitmap_uninit(group) {
                self.fs.block_bitmap(group)?
            } else {
                let at = self.fs.groups.get(group as usize).map_or(0, |g| g.block_bitmap);
                self.read_checked(at, Kind::BlockBitmap(group), Mend::Counts)?
            };
            let first = self.fs.sb.group_first_block(group);
            let bits = self.fs.sb.blocks_per_group;
            self.compare(group, "block", first, bits, &blocks, &right.blocks);
            let inodes = if self.fs.inode_bitmap_uninit(group) {
                self.fs.inode_bitmap(group)?
            } else {
                let at = self.fs.groups.get(group as usize).map_or(0, |g| g.inode_bitmap);
                self.read_checked(at, Kind::InodeBitmap(group), Mend::Counts)?
            };
            let per = self.fs.sb.inodes_per_group;
            self.compare(group, "inode", u64::from(group) * u64::from(per) + 1, per, &inodes, &right.inodes);
            self.check_padding(group, "block", bits, &blocks, &right.blocks);
            self.check_padding(group, "inode", per, &inodes, &right.inodes);
            if self.fs.groups.get(group as usize).is_some_and(|g| g.csum_is_wrong) {
                let what = "the descriptor's checksum does not match its contents";
                self.found(Place::Group(group), Mend::Counts, what);
            }
            let Some(g) = self.fs.groups.get(group as usize) else { continue };
            let counts = [
                ("free blocks", g.free_blocks, right.free_blocks),
                ("free inodes", g.free_inodes, right.free_inodes),
                ("directories", g.used_dirs, right.dirs),
            ];
            for (of, stated, counted) in counts {
                if stated != counted {
                    let what = format!("the descriptor counts {stated} {of}, expected {counted}");
                    self.found(Place::Group(group), Mend::Counts, what);
                }
            }
            self.fs.shrink_cache();
        }
        if let Some((blocks, inodes)) = self.fs.stated_free {
            for (of, stated, counted) in
                [("blocks", blocks, free_blocks), ("inodes", u64::from(inodes), u64::from(free_inodes))]
            {
                if stated != counted {
                    let what = format!("{stated} free {of} are counted, expected {counted}");
                    self.found(Place::Superblock, Mend::Counts, what);
                }
            }
        }
        Ok(())
    }

    /// Bits behind those that stand for something are to be set.
    fn check_padding(&mut self, group: u32, of: &str, bits: u32, have: &[u8], right: &[u8]) {
        let from = (bits / 8) as usize;
        if have.get(from..) != right.get(from..) {
            let what = format!("the bits at the end of the {of} bitmap, which stand for nothing, are not set");
            self.found(Place::Group(group), Mend::Counts, what);
        }
    }

    /// Reports where a bitmap differs from what it should be.
    fn compare(&mut self, group: u32, of: &str, first: u64, bits: u32, have: &[u8], right: &[u8]) {
        for (on, state) in [(true, "used, but nothing uses"), (false, "free, but something uses")] {
            let mut ranges: Vec<String> = Vec::new();
            let (mut i, mut count) = (0, 0);
            while i < bits {
                let differs = |i: u32| bitmap::get(have, i) == on && bitmap::get(right, i) != on;
                if !differs(i) {
                    // Skip equal bytes whole.
                    let byte = (i / 8) as usize;
                    i = if i.is_multiple_of(8) && have.get(byte) == right.get(byte) { i + 8 } else { i + 1 };
                    continue;
                }
                let start = i;
                while i < bits && differs(i) {
                    i += 1;
                }
                count += 1;
                if count <= NAMED {
                    let (a, b) = (first + u64::from(start), first + u64::from(i - 1));
                    ranges.push(if a == b { a.to_string() } else { format!("{a}-{b}") });
                }
            }
            if count > 0 {
                let more = if count > NAMED { format!(" and {} more ranges", count - NAMED) } else { String::new() };
                let what = format!("the bitmap has {of} {}{more} as {state} it", ranges.join(", "));
                self.found(Place::Group(group), Mend::Counts, what);
            }
        }
    }
}
