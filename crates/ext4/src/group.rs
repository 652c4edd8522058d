//! Block group descriptors (Linux `Documentation/filesystems/ext4/group_descr.rst`).

use crate::crc::{crc16, crc32c};
use crate::error::{Error, Place, Result};
use crate::features::{Incompat, RoCompat};
use crate::le::{bytes_at, put16, put32, u16_at, u32_at};
use crate::superblock::Superblock;

/// The group's inode bitmap and table were never written.
pub(crate) const INODE_UNINIT: u16 = 1;
/// The group's block bitmap was never written.
pub(crate) const BLOCK_UNINIT: u16 = 2;
/// The group's inode table is known to be zero where unused.
pub(crate) const INODE_ZEROED: u16 = 4;

/// A decoded descriptor, with what the allocators remember about the group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    pub(crate) inode_table: u64,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) used_dirs: u32,
    pub(crate) flags: u16,
    pub(crate) itable_unused: u32,
    pub(crate) block_bitmap_csum: u32,
    pub(crate) inode_bitmap_csum: u32,
    /// The checksum on the device does not match.
    pub(crate) csum_is_wrong: bool,
    /// Changed since the descriptor was last encoded.
    pub(crate) dirty: bool,
    /// The operation that last saved an undo copy.
    pub(crate) op: u64,
    /// No inode of the group below this index is free.
    pub(crate) inode_hint: u32,
    /// No block of the group below this index is free.
    pub(crate) block_hint: u32,
    /// No free run in the group is longer than this.
    pub(crate) longest_run: u32,
}

impl Group {
    /// Decodes a descriptor. With `accept`, one whose checksum is wrong is taken without its flags.
    pub(crate) fn decode(sb: &Superblock, group: u32, d: &[u8], accept: bool) -> Result<Group> {
        let wide = sb.features.incompat.contains(Incompat::BIT64) && sb.desc_size >= 64;
        let n64 =
            |lo: usize, hi: usize| u64::from(u32_at(d, lo)) | if wide { u64::from(u32_at(d, hi)) << 32 } else { 0 };
        let n32 =
            |lo: usize, hi: usize| u32::from(u16_at(d, lo)) | if wide { u32::from(u16_at(d, hi)) << 16 } else { 0 };
        let mut g = Group {
            block_bitmap: n64(0, 32),
            inode_bitmap: n64(4, 36),
            inode_table: n64(8, 40),
            free_blocks: n32(12, 44),
            free_inodes: n32(14, 46),
            used_dirs: n32(16, 48),
            flags: u16_at(d, 18),
            itable_unused: n32(28, 50),
            block_bitmap_csum: n32(24, 56),
            inode_bitmap_csum: n32(26, 58),
            longest_run: u32::MAX,
            ..Group::default()
        };
        let bad = |what| Err(Error::corrupt(what, Place::Group(group)));
        if sb.has_group_csum() && u16_at(d, 30) != desc_csum(sb, group, d) {
            if !accept {
                return bad("the descriptor's checksum does not match its contents");
            }
            g.csum_is_wrong = true;
            g.flags &= !(INODE_UNINIT | BLOCK_UNINIT);
            g.itable_unused = 0;
        }
        let inside = |start: u64, len: u32| {
            start > u64::from(sb.first_data_block)
                && start.checked_add(u64::from(len)).is_some_and(|end| end <= sb.blocks_count)
        };
        if !inside(g.block_bitmap, 1) {
            return bad("the block bitmap lies outside the file system");
        }
        if !inside(g.inode_bitmap, 1) {
            return bad("the inode bitmap lies outside the file system");
        }
        if !inside(g.inode_table, sb.inode_table_blocks()) {
            return bad("the inode table lies outside the file system");
        }
        if g.free_blocks > sb.group_blocks(group) || g.free_inodes > sb.inodes_per_group {
            return bad("more blocks or inodes are free than the group has");
        }
        if g.itable_unused > sb.inodes_per_group {
            return bad("more inodes are unused than the group has");
        }
        Ok(g)
    }

    /// Writes the descriptor over its old bytes, with its checksum.
    pub(crate) fn encode(&self, sb: &Superblock, group: u32, d: &mut [u8]) {
        let wide = sb.features.incompat.contains(Incompat::BIT64) && sb.desc_size >= 64;
        for (lo, hi, v) in [(0, 32, self.block_bitmap), (4, 36, self.inode_bitmap), (8, 40, self.inode_table)] {
            put32(d, lo, (v & 0xFFFF_FFFF) as u32);
            if wide {
                put32(d, hi, (v >> 32) as u32);
            }
        }
        for (lo, hi, v) in [
            (12, 44, self.free_blocks),
            (14, 46, self.free_inodes),
            (16, 48, self.used_dirs),
            (28, 50, self.itable_unused),
            (24, 56, self.block_bitmap_csum),
            (26, 58, self.inode_bitmap_csum),
        ] {
            put16(d, lo, (v & 0xFFFF) as u16);
            if wide {
                put16(d, hi, (v >> 16) as u16);
            }
        }
        put16(d, 18, self.flags);
        if sb.has_group_csum() {
            let c = desc_csum(sb, group, d);
            put16(d, 30, c);
        }
    }
}

fn desc_csum(sb: &Superblock, group: u32, d: &[u8]) -> u16 {
    let g = group.to_le_bytes();
    let size = usize::from(sb.desc_size);
    if sb.features.ro_compat.contains(RoCompat::METADATA_CSUM) {
        let mut c = crc32c(crc32c(sb.csum_seed, &g), bytes_at(d, 0, 30));
        c = crc32c(c, &[0, 0]);
        if size > 32 {
            c = crc32c(c, bytes_at(d, 32, size - 32));
        }
        (c & 0xFFFF) as u16
    } else {
        let mut c = crc16(crc16(crc16(!0, &sb.uuid), &g), bytes_at(d, 0, 30));
        if size > 32 {
            c = crc16(c, bytes_at(d, 32, size - 32));
        }
        c
    }
}
