//! The superblock: 1024 bytes at byte 1024 (Linux `Documentation/filesystems/ext4/super.rst`).

use crate::crc::crc32c;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::{
    Compat, Features, INCOMPAT_READ_ONLY, INCOMPAT_SUPPORTED, Incompat, RO_COMPAT_WRITABLE, RoCompat,
};
use crate::le::{bytes_at, put_bytes, put16, put32, u8_at, u16_at, u32_at};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// Where the primary superblock starts.
pub(crate) const SUPER_OFFSET: u64 = 1024;
/// Its length.
pub(crate) const SUPER_SIZE: usize = 1024;
/// `s_magic`.
pub(crate) const MAGIC: u16 = 0xEF53;

/// `s_state`: unmounted cleanly.
pub(crate) const STATE_VALID: u16 = 1;

/// A decoded superblock. Fields not listed are kept as they were read.
#[derive(Debug, Clone)]
pub struct Superblock {
    raw: Vec<u8>,
    /// All inodes.
    pub inodes_count: u32,
    /// All blocks.
    pub blocks_count: u64,
    /// Blocks reserved for root.
    pub reserved_blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Free inodes.
    pub free_inodes: u32,
    /// Block that holds the superblock: 1 with 1 KiB blocks, else 0.
    pub first_data_block: u32,
    /// Block size in bytes, a power of two from 1024 to 65536.
    pub block_size: u32,
    /// Blocks in a block group.
    pub blocks_per_group: u32,
    /// Inodes in a block group.
    pub inodes_per_group: u32,
    /// Last mount, in seconds since the epoch.
    pub mount_time: u64,
    /// Last write, in seconds since the epoch.
    pub write_time: u64,
    /// Creation, in seconds since the epoch.
    pub mkfs_time: u64,
    /// Mounts since the last check.
    pub mount_count: u16,
    /// `s_state`: bit 0 clean, bit 1 errors found.
    pub state: u16,
    /// Format revision: 0 (fixed sizes) or 1.
    pub revision: u32,
    /// First inode for ordinary files.
    pub first_ino: u32,
    /// Inode size in bytes.
    pub inode_size: u16,
    /// Feature sets.
    pub features: Features,
    /// The file system's UUID.
    pub uuid: [u8; 16],
    /// The volume label.
    pub label: String,
    /// The directory where it was last mounted.
    pub last_mounted: String,
    /// Blocks kept for the group descriptor table to grow.
    pub reserved_gdt_blocks: u16,
    /// The journal's inode, 0 for none.
    pub journal_ino: u32,
    /// Inodes of the files that count what users, groups and projects have (feature `quota`); 0 for none.
    pub quota_inodes: [u32; 3],
    /// First inode of the orphan list, 0 for none.
    pub last_orphan: u32,
    /// Seed of directory hashes.
    pub hash_seed: [u32; 4],
    /// Hash version of new indexed directories: 0 legacy, 1 half MD4, 2 TEA.
    pub default_hash: u8,
    /// Group descriptor size in bytes.
    pub desc_size: u16,
    /// First block group whose descriptors follow the `meta_bg` layout.
    pub first_meta_bg: u32,
    /// Space that new inodes reserve for extra fields.
    pub want_extra_isize: u16,
    /// `s_flags`: bit 0 signed, bit 1 unsigned directory hashes.
    pub flags: u32,
    /// Base-2 logarithm of the groups in a flexible group.
    pub log_groups_per_flex: u8,
    /// The two groups with backups, under `sparse_super2`.
    pub backup_groups: [u32; 2],
    /// Blocks that the file system itself takes, as mkfs counted them; 0 if not recorded.
    pub overhead_blocks: u32,
    /// The orphan file's inode (feature `orphan_file`).
    pub orphan_file_ino: u32,
    /// Where checksums of this file system start from.
    pub(crate) csum_seed: u32,
}

/// Reads `len` bytes as text up to the first zero.
fn text(raw: &[u8], off: usize, len: usize) -> String {
    let b = bytes_at(raw, off, len);
    let end = b.iter().position(|&c| c == 0).unwrap_or(b.len());
    String::from_utf8_lossy(&b[..end]).into_owned()
}

impl Superblock {
    /// Reads and checks the primary superblock of a device.
    ///
    /// # Errors
    /// [`Error::NotExt`], [`Error::Truncated`], [`Error::Unsupported`] or [`Error::Corrupt`], each naming what was
    /// found and what was expected; [`Error::Io`].
    pub fn read<D: BlockDevice + ?Sized>(dev: &D) -> Result<Superblock> {
        let size = dev.size();
        if size == 0 {
            return Err(Error::NotExt("the image is empty (0 bytes)".to_string()));
        }
        if size < SUPER_OFFSET + SUPER_SIZE as u64 {
            return Err(Error::NotExt(format!(
                "the image is {size} bytes, too small for a superblock (2048 bytes at least)"
            )));
        }
        let mut raw = alloc::vec![0; SUPER_SIZE];
        dev.read_at(SUPER_OFFSET, &mut raw)?;
        let magic = u16_at(&raw, 56);
        if magic != MAGIC {
            let mut boot = [0; 512];
            dev.read_at(0, &mut boot)?;
            let hint = foreign_format(&boot);
            return Err(Error::NotExt(format!("magic at byte 1080 is 0x{magic:04X}, expected 0xEF53{hint}")));
        }
        let sb = Superblock::decode(raw)?;
        let expected = sb.blocks_count.saturating_mul(u64::from(sb.block_size));
        if expected > size {
            return Err(Error::Truncated { image: size, expected });
        }
        Ok(sb)
    }

    /// Decodes and checks 1024 bytes whose magic has been found right.
    pub(crate) fn decode(raw: Vec<u8>) -> Result<Superblock> {
        let bad = |what| Error::corrupt(what, Place::Superblock);
        let r = &raw[..];
        let revision = u32_at(r, 76);
        if revision > 1 {
            return Err(Error::Unsupported { what: format!("format revision {revision}"), read_only_possible: false });
        }
        let features = if revision == 0 {
            Features::default()
        } else {
            Features {
                compat: Compat::from_bits_retain(u32_at(r, 92)),
                incompat: Incompat::from_bits_retain(u32_at(r, 96)),
                ro_compat: RoCompat::from_bits_retain(u32_at(r, 100)),
            }
        };
        if features.incompat.contains(Incompat::JOURNAL_DEV) {
            return Err(Error::NotExt("it is an external journal (feature journal_dev)".to_string()));
        }
        // With features that are not understood the fields below may mean something else: this check comes first,
        // but a wrong checksum says that the feature bits themselves are noise.
        let csum = features.ro_compat.contains(RoCompat::METADATA_CSUM);
        if csum {
            if u8_at(r, 373) != 1 {
                return Err(bad("the checksum type is not 1 (crc32c)"));
            }
            if crc32c(!0, bytes_at(r, 0, 1020)) != u32_at(r, 1020) {
                return Err(bad("the superblock's checksum does not match its contents"));
            }
        }
        let unknown = features.incompat.difference(INCOMPAT_SUPPORTED);
        if !unknown.is_empty() {
            let names = Features { incompat: unknown, ..Features::default() }.names();
            return Err(Error::Unsupported {
                what: format!("incompatible file system features: {names}"),
                read_only_possible: false,
            });
        }
        let log_block_size = u32_at(r, 24);
        if log_block_size > 6 {
            return Err(bad("log_block_size is over 6 (64 KiB blocks)"));
        }
        let block_size = 1024u32 << log_block_size;
        let bit64 = features.incompat.contains(Incompat::BIT64);
        let wide =
            |lo: usize, hi: usize| u64::from(u32_at(r, lo)) | if bit64 { u64::from(u32_at(r, hi)) << 32 } else { 0 };
        let (first_ino, inode_size) = if revision == 0 { (11, 128) } else { (u32_at(r, 84), u16_at(r, 88)) };
        let desc_size = if bit64 { u16_at(r, 254) } else { 32 };
        let mut seed = crc32c(!0, bytes_at(r, 104, 16));
        if features.incompat.contains(Incompat::CSUM_SEED) {
            seed = u32_at(r, 624);
        }
        let mut uuid = [0; 16];
        put_bytes(&mut uuid, 0, bytes_at(r, 104, 16));
        let sb = Superblock {
            inodes_count: u32_at(r, 0),
            blocks_count: wide(4, 336),
            reserved_blocks: wide(8, 340),
            free_blocks: wide(12, 344),
            free_inodes: u32_at(r, 16),
            first_data_block: u32_at(r, 20),
            block_size,
            blocks_per_group: u32_at(r, 32),
            inodes_per_group: u32_at(r, 40),
            mount_time: u64::from(u32_at(r, 44)) | u64::from(u8_at(r, 629)) << 32,
            write_time: u64::from(u32_at(r, 48)) | u64::from(u8_at(r, 628)) << 32,
            mkfs_time: u64::from(u32_at(r, 264)) | u64::from(u8_at(r, 630)) << 32,
            mount_count: u16_at(r, 52),
            state: u16_at(r, 58),
            revision,
            first_ino,
            inode_size,
            features,
            uuid,
            label: text(r, 120, 16),
            last_mounted: text(r, 136, 64),
            reserved_gdt_blocks: u16_at(r, 206),
            journal_ino: u32_at(r, 224),
            quota_inodes: [u32_at(r, 576), u32_at(r, 580), u32_at(r, 620)],
            last_orphan: u32_at(r, 232),
            hash_seed: [u32_at(r, 236), u32_at(r, 240), u32_at(r, 244), u32_at(r, 248)],
            default_hash: u8_at(r, 252),
            desc_size,
            first_meta_bg: u32_at(r, 260),
            want_extra_isize: u16_at(r, 350),
            flags: u32_at(r, 352),
            log_groups_per_flex: u8_at(r, 372),
            backup_groups: [u32_at(r, 588), u32_at(r, 592)],
            overhead_blocks: u32_at(r, 584),
            orphan_file_ino: u32_at(r, 640),
            csum_seed: seed,
            raw,
        };
        sb.check()?;
        Ok(sb)
    }

    /// The checks that Linux's `ext4_fill_super` makes.
    fn check(&self) -> Result<()> {
        let ensure = |ok: bool, what| {
            if ok { Ok(()) } else { Err(Error::corrupt(what, Place::Superblock)) }
        };
        let bs = self.block_size;
        ensure(
            self.inode_size.is_power_of_two() && self.inode_size >= 128 && u32::from(self.inode_size) <= bs,
            "the inode size is not a power of two from 128 to the block size",
        )?;
        if self.features.incompat.contains(Incompat::BIT64) {
            ensure(
                self.desc_size.is_power_of_two() && (64..=1024).contains(&self.desc_size),
                "the group descriptor size is not a power of two from 64 to 1024",
            )?;
        }
        let first = u64::from(self.first_data_block);
        let bigalloc = self.features.ro_compat.contains(RoCompat::BIGALLOC);
        ensure(
            first == u64::from(bs == 1024 && !bigalloc),
            "the first data block is neither 0 nor, with 1 KiB blocks, 1",
        )?;
        let bits = self.clusters_per_group();
        if bigalloc {
            let log = u32_at(&self.raw, 28);
            ensure(log <= 20, "the cluster size is over 1 GiB")?;
            ensure(
                self.cluster_size() >= bs
                    && u64::from(bits) * u64::from(self.blocks_per_cluster()) == u64::from(self.blocks_per_group),
                "the clusters per group are not the blocks per group",
            )?;
        }
        ensure(
            self.blocks_per_group >= 8 && bits >= 8 && bits <= bs * 8,
            "the blocks per group do not fit a bitmap block",
        )?;
        let per_block = bs / u32::from(self.inode_size);
        ensure(
            self.inodes_per_group >= per_block && self.inodes_per_group <= bs * 8,
            "the inodes per group do not fit an inode table and a bitmap block",
        )?;
        ensure(self.blocks_count > first, "the block count is zero")?;
        ensure(self.blocks_count < 1 << 48, "the block count is over 2^48")?;
        let groups = self.group_count_u64();
        ensure(groups <= u64::from(u32::MAX), "there are too many block groups")?;
        ensure(
            groups * u64::from(self.inodes_per_group) == u64::from(self.inodes_count),
            "the inode count is not the number of groups times the inodes per group",
        )?;
        ensure(self.free_blocks <= self.blocks_count, "more blocks are free than there are")?;
        ensure(self.free_inodes <= self.inodes_count, "more inodes are free than there are")?;
        ensure(self.reserved_blocks <= self.blocks_count, "more blocks are reserved than there are")?;
        ensure(
            self.first_ino >= 11 && self.first_ino < self.inodes_count,
            "the first inode for files is out of range",
        )?;
        ensure(self.log_groups_per_flex < 32, "log_groups_per_flex is over 31")?;
        ensure(
            u32::from(self.reserved_gdt_blocks) <= bs / 4,
            "more descriptor blocks are reserved than a block can address",
        )?;
        Ok(())
    }

    /// Bytes that are allocated together: a block, or with `bigalloc` several.
    pub fn cluster_size(&self) -> u32 {
        let bigalloc = self.features.ro_compat.contains(RoCompat::BIGALLOC);
        if bigalloc { 1024u32.checked_shl(u32_at(&self.raw, 28)).unwrap_or(0) } else { self.block_size }
    }

    /// Blocks that a bit of a block bitmap stands for.
    pub(crate) fn blocks_per_cluster(&self) -> u32 {
        (self.cluster_size() / self.block_size).max(1)
    }

    /// Bits of a group's block bitmap.
    pub(crate) fn clusters_per_group(&self) -> u32 {
        let bigalloc = self.features.ro_compat.contains(RoCompat::BIGALLOC);
        if bigalloc { u32_at(&self.raw, 36) } else { self.blocks_per_group }
    }

    /// Fails unless this crate can write a file system with these features.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if let Some((_, why)) = INCOMPAT_READ_ONLY.iter().find(|(f, _)| self.features.incompat.contains(*f)) {
            return Err(Error::Unsupported { what: format!("feature {why}"), read_only_possible: true });
        }
        let unknown = self.features.ro_compat.difference(RO_COMPAT_WRITABLE);
        if !unknown.is_empty() {
            let names = Features { ro_compat: unknown, ..Features::default() }.names();
            return Err(Error::Unsupported { what: format!("features {names}"), read_only_possible: true });
        }
        Ok(())
    }

    fn group_count_u64(&self) -> u64 {
        (self.blocks_count - u64::from(self.first_data_block)).div_ceil(u64::from(self.blocks_per_group))
    }

    /// Number of block groups.
    #[must_use]
    pub fn group_count(&self) -> u32 {
        u32::try_from(self.group_count_u64()).unwrap_or(u32::MAX)
    }

    /// Whether metadata carries CRC-32C checksums.
    #[must_use]
    pub fn has_metadata_csum(&self) -> bool {
        self.features.ro_compat.contains(RoCompat::METADATA_CSUM)
    }

    /// Whether group descriptors carry a checksum, so that their `uninit` flags count.
    pub(crate) fn has_group_csum(&self) -> bool {
        self.features.ro_compat.intersects(RoCompat::METADATA_CSUM | RoCompat::GDT_CSUM)
    }

    /// Whether this group starts with a copy of the superblock and descriptors.
    #[must_use]
    pub fn group_has_super(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.compat.contains(Compat::SPARSE_SUPER2) {
            return self.backup_groups.contains(&group);
        }
        if group <= 1 || !self.features.ro_compat.contains(RoCompat::SPARSE_SUPER) {
            return true;
        }
        [3u64, 5, 7].iter().any(|&base| {
            let mut n = base;
            while n < u64::from(group) {
                n *= base;
            }
            n == u64::from(group)
        })
    }

    /// First block of a group.
    pub(crate) fn group_first_block(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// Number of blocks in a group; the last one may be short.
    pub(crate) fn group_blocks(&self, group: u32) -> u32 {
        let left = self.blocks_count.saturating_sub(self.group_first_block(group));
        left.min(u64::from(self.blocks_per_group)) as u32
    }

    /// Descriptors in a block.
    pub(crate) fn descs_per_block(&self) -> u32 {
        self.block_size / u32::from(self.desc_size)
    }

    /// Blocks of the whole descriptor table.
    pub(crate) fn desc_blocks(&self) -> u32 {
        self.group_count().div_ceil(self.descs_per_block())
    }

    /// The block that holds part `index` of the group descriptor table.
    pub(crate) fn desc_block(&self, index: u32) -> u64 {
        if !self.features.incompat.contains(Incompat::META_BG) || index < self.first_meta_bg {
            // Behind the superblock.
            return SUPER_OFFSET / u64::from(self.block_size) + 1 + u64::from(index);
        }
        let group = index.saturating_mul(self.descs_per_block());
        self.group_first_block(group) + u64::from(self.group_has_super(group))
    }

    /// Number of blocks at a group's start that superblock, descriptors and their reserve take.
    pub(crate) fn group_base_blocks(&self, group: u32) -> u32 {
        let has_super = self.group_has_super(group);
        let meta_bg = self.features.incompat.contains(Incompat::META_BG);
        let mut n = u32::from(has_super);
        if group == 0 && self.first_data_block == 0 && self.block_size == 1024 {
            // With bigalloc, clusters count from the disk's first block on, which is nobody's.
            n += 1;
        }
        if !meta_bg || group / self.descs_per_block() < self.first_meta_bg {
            if has_super {
                let table = if meta_bg { self.first_meta_bg.min(self.desc_blocks()) } else { self.desc_blocks() };
                n += table + u32::from(self.reserved_gdt_blocks);
            }
        } else {
            let in_meta = group % self.descs_per_block();
            if in_meta == 0 || in_meta == 1 || in_meta == self.descs_per_block() - 1 {
                n += 1;
            }
        }
        n
    }

    /// Blocks of a group's inode table.
    pub(crate) fn inode_table_blocks(&self) -> u32 {
        (self.inodes_per_group.saturating_mul(u32::from(self.inode_size))).div_ceil(self.block_size)
    }

    /// Whether directory hashes treat characters as unsigned.
    pub(crate) fn hash_unsigned(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Groups in a flexible group (1 without the feature).
    pub(crate) fn groups_per_flex(&self) -> u32 {
        if self.features.incompat.contains(Incompat::FLEX_BG) { 1 << self.log_groups_per_flex } else { 1 }
    }

    /// The hint of the journal's place that mkfs left in the superblock (17 words), used when inode 8 is damaged.
    #[must_use]
    pub fn journal_backup(&self) -> &[u8] {
        bytes_at(&self.raw, 268, 68)
    }

    /// Records the journal's place.
    pub(crate) fn set_journal(&mut self, ino: u32, i_block: &[u8], size: u64) {
        let r = &mut self.raw[..];
        put32(r, 224, ino);
        crate::le::put8(r, 253, 1);
        put_bytes(r, 268, bytes_at(i_block, 0, 60));
        put32(r, 328, (size >> 32) as u32);
        put32(r, 332, (size & 0xFFFF_FFFF) as u32);
        self.journal_ino = ino;
    }

    /// Records the orphan file's inode.
    pub(crate) fn set_orphan_file(&mut self, ino: u32) {
        put32(&mut self.raw, 640, ino);
        self.orphan_file_ino = ino;
    }

    /// Records a check without findings: its time, and that no mount followed.
    pub(crate) fn note_checked(&mut self, time: u64) {
        put32(&mut self.raw, 64, (time & 0xFFFF_FFFF) as u32);
        crate::le::put8(&mut self.raw, 631, (time >> 32 & 0xFF) as u8);
        self.mount_count = 0;
    }

    /// Default mount options of the superblock (`dumpe2fs`: "Default mount options").
    #[must_use]
    pub fn default_mount_options(&self) -> u32 {
        u32_at(&self.raw, 256)
    }

    /// Changes the volume label, which fits.
    pub(crate) fn set_label(&mut self, label: &str) {
        let mut field = [0; 16];
        put_bytes(&mut field, 0, label.as_bytes());
        put_bytes(&mut self.raw, 120, &field);
        self.label = label.into();
    }

    /// The 1024 bytes, with the changeable fields and the checksum brought up to date.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        let r = &mut raw[..];
        let low = |v: u64| (v & 0xFFFF_FFFF) as u32;
        put32(r, 12, low(self.free_blocks));
        if self.features.incompat.contains(Incompat::BIT64) {
            put32(r, 344, low(self.free_blocks >> 32));
        }
        put32(r, 16, self.free_inodes);
        put32(r, 44, low(self.mount_time));
        put32(r, 48, low(self.write_time));
        put16(r, 52, self.mount_count);
        put16(r, 58, self.state);
        if self.revision > 0 {
            put32(r, 92, self.features.compat.bits());
            put32(r, 96, self.features.incompat.bits());
            put32(r, 100, self.features.ro_compat.bits());
            crate::le::put8(r, 628, (self.write_time >> 32 & 0xFF) as u8);
            crate::le::put8(r, 629, (self.mount_time >> 32 & 0xFF) as u8);
        }
        put32(r, 232, self.last_orphan);
        put32(r, 352, self.flags);
        put32(r, 584, self.overhead_blocks);
        if self.has_metadata_csum() {
            let c = crc32c(!0, bytes_at(r, 0, 1020));
            put32(r, 1020, c);
        }
        raw
    }
}

/// Names another format whose signature the first sector shows.
fn foreign_format(boot: &[u8]) -> &'static str {
    if bytes_at(boot, 54, 3) == b"FAT" || bytes_at(boot, 82, 5) == b"FAT32" {
        "; it looks like a FAT file system"
    } else if bytes_at(boot, 3, 4) == b"NTFS" {
        "; it looks like an NTFS file system"
    } else if bytes_at(boot, 0, 4) == b"XFSB" {
        "; it looks like an XFS file system"
    } else if bytes_at(boot, 0, 4) == b"hsqs" {
        "; it looks like a squashfs image"
    } else if bytes_at(boot, 0, 4) == b"QFI\xFB" {
        "; it looks like a qcow2 image (convert it to raw first)"
    } else if bytes_at(boot, 0, 2) == [0x1F, 0x8B] {
        "; it looks like a gzip file (decompress it first)"
    } else if bytes_at(boot, 0, 4) == [0x28, 0xB5, 0x2F, 0xFD] {
        "; it looks like a zstd file (decompress it first)"
    } else if bytes_at(boot, 510, 2) == [0x55, 0xAA] {
        "; it looks like a partitioned disk (name the partition)"
    } else {
        ""
    }
}
