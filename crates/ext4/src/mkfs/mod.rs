//! Making a file system, with the layout and the defaults of `mke2fs` 1.47 (`mke2fs(8)`, `mke2fs.conf(5)`).
//!
//! The same options give the same bytes. Nothing is written but what differs from zeros, so that the image of an
//! empty file stays sparse; [`Options::device_zeroed`] says whether that may be relied on.

mod inodes;
mod layout;

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::{Compat, Features, Incompat, RoCompat};
use crate::fs::Fs;
use crate::group::{BLOCK_UNINIT, Group, INODE_UNINIT, INODE_ZEROED};
use crate::le::{bytes_at, put_bytes, put8, put16, put32};
use crate::superblock::{MAGIC, SUPER_OFFSET, SUPER_SIZE, Superblock};
use crate::types::{MountOptions, Timestamp};
use alloc::string::String;
use alloc::vec::Vec;
use layout::Layout;

/// Which defaults to start from (the `fs_types` of `mke2fs.conf`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsType {
    /// No journal, block maps.
    Ext2,
    /// Journal, block maps.
    Ext3,
    /// Journal, extents, checksums, 64 bits, flexible groups.
    Ext4,
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size in bytes; 0 for the whole device.
    pub size: u64,
    /// Block size in bytes; `None` for 4096, or 1024 below 512 MiB as `mke2fs` has it.
    pub block_size: Option<u32>,
    /// Inode size in bytes.
    pub inode_size: u16,
    /// Bytes of space for which there is one inode; `None` for `mke2fs`'s choice by size.
    pub bytes_per_inode: Option<u32>,
    /// Number of inodes, rounded up to fill the inode tables; overrides `bytes_per_inode`.
    pub inodes: Option<u32>,
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// The UUID.
    pub uuid: [u8; 16],
    /// Seed of directory hashes.
    pub hash_seed: [u8; 16],
    /// Journal size in blocks; `None` for `mke2fs`'s choice by size.
    pub journal_blocks: Option<u32>,
    /// Features.
    pub features: Features,
    /// Share of blocks reserved for root, in hundredths of a percent, at most 5000.
    pub reserved_hundredths: u16,
    /// Blocks in a group, a multiple of 8; `None` for as many as a bitmap block has bits.
    pub blocks_per_group: Option<u32>,
    /// Blocks that a RAID writes to one disk before the next, and to all; 0 if not known.
    pub raid: (u16, u32),
    /// Groups in a flexible group; a power of two.
    pub flex_groups: u32,
    /// Owner of the root directory.
    pub root_uid: u32,
    /// Group of the root directory.
    pub root_gid: u32,
    /// Permission bits of the root directory.
    pub root_mode: u16,
    /// All times.
    pub time: Timestamp,
    /// The device is known to read as zeros, for example a new sparse file. Otherwise inode tables without checksums
    /// and the journal are zeroed, and the kernel's lazy initialisation is left to do the rest.
    pub device_zeroed: bool,
}

impl Options {
    /// The defaults of a type. UUID, hash seed and time are zero: set them.
    #[must_use]
    pub fn new(fs_type: FsType) -> Options {
        let mut features = Features {
            compat: Compat::RESIZE_INODE | Compat::DIR_INDEX | Compat::EXT_ATTR,
            incompat: Incompat::FILETYPE,
            ro_compat: RoCompat::SPARSE_SUPER | RoCompat::LARGE_FILE,
        };
        if fs_type != FsType::Ext2 {
            features.compat |= Compat::HAS_JOURNAL;
        }
        if fs_type == FsType::Ext4 {
            features.incompat |= Incompat::EXTENTS | Incompat::BIT64 | Incompat::FLEX_BG;
            features.ro_compat |=
                RoCompat::HUGE_FILE | RoCompat::DIR_NLINK | RoCompat::EXTRA_ISIZE | RoCompat::METADATA_CSUM;
        }
        Options {
            size: 0,
            block_size: None,
            inode_size: 256,
            bytes_per_inode: None,
            inodes: None,
            label: String::new(),
            uuid: [0; 16],
            hash_seed: [0; 16],
            journal_blocks: None,
            features,
            reserved_hundredths: 500,
            blocks_per_group: None,
            raid: (0, 0),
            flex_groups: 16,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
            time: Timestamp::default(),
            device_zeroed: false,
        }
    }
}

/// Features that this code can make.
fn check_features(f: Features) -> Result<()> {
    let compat = Compat::HAS_JOURNAL
        | Compat::EXT_ATTR
        | Compat::RESIZE_INODE
        | Compat::DIR_INDEX
        | Compat::STABLE_INODES
        | Compat::SPARSE_SUPER2
        | Compat::ORPHAN_FILE;
    let incompat = Incompat::FILETYPE
        | Incompat::EXTENTS
        | Incompat::BIT64
        | Incompat::META_BG
        | Incompat::FLEX_BG
        | Incompat::EA_INODE
        | Incompat::CSUM_SEED
        | Incompat::LARGEDIR
        | Incompat::INLINE_DATA;
    let ro_compat = RoCompat::SPARSE_SUPER
        | RoCompat::LARGE_FILE
        | RoCompat::HUGE_FILE
        | RoCompat::GDT_CSUM
        | RoCompat::DIR_NLINK
        | RoCompat::EXTRA_ISIZE
        | RoCompat::METADATA_CSUM
        | RoCompat::PROJECT;
    let rest = Features {
        compat: f.compat.difference(compat),
        incompat: f.incompat.difference(incompat),
        ro_compat: f.ro_compat.difference(ro_compat),
    };
    if rest != Features::default() {
        return Err(Error::Unsupported {
            what: alloc::format!("making a file system with the features {}", rest.names()),
            read_only_possible: false,
        });
    }
    if f.compat.contains(Compat::RESIZE_INODE) && !f.ro_compat.contains(RoCompat::SPARSE_SUPER) {
        return Err(Error::Invalid("the feature resize_inode needs sparse_super"));
    }
    if f.incompat.contains(Incompat::CSUM_SEED) && !f.ro_compat.contains(RoCompat::METADATA_CSUM) {
        return Err(Error::Invalid("the feature metadata_csum_seed needs metadata_csum"));
    }
    if f.incompat.contains(Incompat::META_BG) && f.compat.contains(Compat::RESIZE_INODE) {
        return Err(Error::Invalid("the features meta_bg and resize_inode exclude each other"));
    }
    if f.compat.contains(Compat::ORPHAN_FILE) && !f.compat.contains(Compat::HAS_JOURNAL) {
        return Err(Error::Invalid("the feature orphan_file needs has_journal"));
    }
    if f.incompat.contains(Incompat::INLINE_DATA) && !f.compat.contains(Compat::EXT_ATTR) {
        return Err(Error::Invalid("the feature inline_data needs ext_attr"));
    }
    Ok(())
}

/// Makes a file system on a device.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Unsupported`] for options that do not fit each other or the size, before anything
/// is written; [`Error::NoSpace`] if the size is too small; [`Error::Io`].
pub fn format<D: BlockDevice>(dev: &D, options: &Options) -> Result<()> {
    check_features(options.features)?;
    let layout = Layout::plan(dev.size(), options)?;
    let raw = encode_super(&layout, options);
    let mut sb = Superblock::decode(raw)?;
    let groups = place_groups(&layout, &sb, options)?;
    sb.free_blocks = groups.groups.iter().map(|g| u64::from(g.free_blocks)).sum();
    write_base(dev, &sb, &groups, options)?;

    let mount = MountOptions { journal: false, ..MountOptions::default() };
    let mut fs = Fs::open(dev, sb, mount)?;
    fs.read_only = false;
    fs.state_at_mount = fs.sb.state;
    inodes::populate(&mut fs, &layout, options)?;
    fs.unmount()?;
    write_backups(&fs)?;
    dev.flush()?;
    Ok(())
}

/// The superblock before anything is allocated.
fn encode_super(l: &Layout, o: &Options) -> Vec<u8> {
    let mut raw = alloc::vec![0; SUPER_SIZE];
    let r = &mut raw[..];
    let low = |v: u64| (v & 0xFFFF_FFFF) as u32;
    let high = |v: u64| (v >> 32) as u32;
    let time = o.time.sec.max(0).cast_unsigned();
    let bit64 = o.features.incompat.contains(Incompat::BIT64);
    put32(r, 0, l.inodes_per_group * l.groups);
    put32(r, 4, low(l.blocks));
    put32(r, 8, low(l.reserved));
    put32(r, 16, l.inodes_per_group * l.groups);
    put32(r, 20, l.first_block);
    put32(r, 24, l.block_size.trailing_zeros() - 10);
    put32(r, 28, l.block_size.trailing_zeros() - 10);
    put32(r, 32, l.blocks_per_group);
    put32(r, 36, l.blocks_per_group);
    put32(r, 40, l.inodes_per_group);
    put32(r, 48, low(time));
    put16(r, 54, 0xFFFF);
    put16(r, 56, MAGIC);
    put16(r, 58, 1);
    put16(r, 60, 1);
    put32(r, 64, low(time));
    put32(r, 76, 1);
    put32(r, 84, 11);
    put16(r, 88, o.inode_size);
    put32(r, 92, o.features.compat.bits());
    put32(r, 96, o.features.incompat.bits());
    put32(r, 100, o.features.ro_compat.bits());
    put_bytes(r, 104, &o.uuid);
    put_bytes(r, 120, bytes_at(o.label.as_bytes(), 0, 16));
    put16(r, 206, l.reserved_gdt as u16);
    put_bytes(r, 236, &o.hash_seed);
    put8(r, 252, crate::dir::hash::HALF_MD4);
    put16(r, 254, if bit64 { 64 } else { 0 });
    // Default mount options user_xattr and acl.
    put32(r, 256, 0xC);
    put32(r, 264, low(time));
    if bit64 {
        put32(r, 336, high(l.blocks));
        put32(r, 340, high(l.reserved));
    }
    if o.inode_size > 128 {
        put16(r, 348, 32);
        put16(r, 350, 32);
    }
    put16(r, 356, o.raid.0);
    put32(r, 368, o.raid.1);
    // Directory hashes treat characters as signed, as on x86.
    put32(r, 352, 1);
    if o.features.incompat.contains(Incompat::FLEX_BG) {
        put8(r, 372, o.flex_groups.trailing_zeros() as u8);
    }
    if o.features.ro_compat.contains(RoCompat::METADATA_CSUM) {
        put8(r, 373, 1);
    }
    if o.features.compat.contains(Compat::SPARSE_SUPER2) {
        // Groups 1 and the last; 0 stands for none.
        let last = l.groups - 1;
        put32(r, 588, last.min(1));
        put32(r, 592, if last > 1 { last } else { 0 });
    }
    if o.features.incompat.contains(Incompat::CSUM_SEED) {
        let seed = crate::crc::crc32c(!0, &o.uuid);
        put32(r, 624, seed);
    }
    put8(r, 628, (time >> 32 & 0xFF) as u8);
    put8(r, 630, (time >> 32 & 0xFF) as u8);
    put8(r, 631, (time >> 32 & 0xFF) as u8);
    if o.features.ro_compat.contains(RoCompat::METADATA_CSUM) {
        let c = crate::crc::crc32c(!0, bytes_at(r, 0, 1020));
        put32(r, 1020, c);
    }
    raw
}

/// The descriptors, with bitmaps and tables placed, and the bitmaps of the groups that need one.
struct Placed {
    groups: Vec<Group>,
    bitmaps: Vec<Option<Vec<u8>>>,
}

fn place_groups(l: &Layout, sb: &Superblock, o: &Options) -> Result<Placed> {
    let mut used = layout::Used::new(sb);
    let mut groups = alloc::vec![Group::default(); l.groups as usize];
    let per_flex = sb.groups_per_flex();
    let table = sb.inode_table_blocks();
    let mut first = 0;
    while first < l.groups {
        let set = first..first.saturating_add(per_flex).min(l.groups);
        let start = sb.group_first_block(first);
        for g in set.clone() {
            let at = used.take(start, 1)?;
            if let Some(d) = groups.get_mut(g as usize) {
                d.block_bitmap = at;
            }
        }
        for g in set.clone() {
            let at = used.take(start, 1)?;
            if let Some(d) = groups.get_mut(g as usize) {
                d.inode_bitmap = at;
            }
        }
        for g in set.clone() {
            let at = used.take(start, table)?;
            if let Some(d) = groups.get_mut(g as usize) {
                d.inode_table = at;
            }
        }
        first = set.end;
    }
    let csum = sb.has_group_csum();
    let mut bitmaps = Vec::with_capacity(groups.len());
    for (g, d) in (0..l.groups).zip(groups.iter_mut()) {
        let map = used.bitmap(g);
        let blocks = sb.group_blocks(g);
        d.free_blocks = crate::bitmap::count_clear(&map, blocks);
        d.free_inodes = l.inodes_per_group;
        let own = sb.group_base_blocks(g) + if used.holds_own_tables(g, d) { 2 + table } else { 0 };
        let plain = d.free_blocks == blocks - own;
        if csum {
            d.flags = INODE_UNINIT | if o.device_zeroed { INODE_ZEROED } else { 0 };
            d.itable_unused = l.inodes_per_group;
            // As mke2fs does, keep a bitmap for the first group and for the last, which may be short.
            if plain && g != 0 && g + 1 != l.groups {
                d.flags |= BLOCK_UNINIT;
                bitmaps.push(None);
                continue;
            }
        }
        bitmaps.push(Some(map));
    }
    Ok(Placed { groups, bitmaps })
}

/// Writes superblock, descriptors, bitmaps and, where needed, zeroed inode tables.
fn write_base<D: BlockDevice>(dev: &D, sb: &Superblock, placed: &Placed, o: &Options) -> Result<()> {
    let bs = sb.block_size as usize;
    let offset = |b: u64| b * u64::from(sb.block_size);
    let size = usize::from(sb.desc_size);
    let per = sb.descs_per_block();
    // What a previous file system left in the boot block would mislead others.
    if !o.device_zeroed && bs > 1024 {
        dev.write_at(0, &alloc::vec![0; 1024])?;
    }
    let mut table = alloc::vec![0u8; sb.desc_blocks() as usize * bs];
    for (g, d) in (0u32..).zip(&placed.groups) {
        let mut d = d.clone();
        if let Some(Some(map)) = placed.bitmaps.get(g as usize) {
            dev.write_at(offset(d.block_bitmap), map)?;
            if sb.has_metadata_csum() {
                let c = crate::crc::crc32c(sb.csum_seed, bytes_at(map, 0, (sb.blocks_per_group / 8) as usize));
                d.block_bitmap_csum = if size >= 64 { c } else { c & 0xFFFF };
            }
        }
        if !sb.has_group_csum() {
            let mut map = alloc::vec![0; bs];
            let n = sb.inodes_per_group;
            crate::bitmap::fill(&mut map, n, bs as u32 * 8 - n, true);
            dev.write_at(offset(d.inode_bitmap), &map)?;
            if !o.device_zeroed {
                let zeros = alloc::vec![0; bs];
                for b in 0..u64::from(sb.inode_table_blocks()) {
                    dev.write_at(offset(d.inode_table + b), &zeros)?;
                }
            }
        } else if !o.device_zeroed && g == 0 {
            // The first inodes of the first group are used at once; what shares their block must not be noise.
            let zeros = alloc::vec![0; bs];
            for b in 0..(16 * u64::from(sb.inode_size)).div_ceil(bs as u64) {
                dev.write_at(offset(d.inode_table + b), &zeros)?;
            }
        }
        let at = (g / per) as usize * bs + (g % per) as usize * size;
        if let Some(bytes) = table.get_mut(at..at + size) {
            d.encode(sb, g, bytes);
        }
    }
    for (index, block) in (0..).zip(table.chunks(bs)) {
        dev.write_at(offset(sb.desc_block(index)), block)?;
    }
    dev.write_at(SUPER_OFFSET, &sb.encode())?;
    Ok(())
}

/// Copies the finished superblock and descriptors to the groups that keep backups. With `meta_bg`, a block of the
/// descriptors has its backups in the second and in the last of the groups that it describes.
fn write_backups<D: BlockDevice>(fs: &Fs<D>) -> Result<()> {
    let sb = &fs.sb;
    let mut raw = alloc::vec![0; SUPER_SIZE];
    fs.dev.read_at(SUPER_OFFSET, &mut raw)?;
    let mut table = alloc::vec![0; sb.desc_blocks() as usize * fs.bs];
    for (index, block) in (0..).zip(table.chunks_mut(fs.bs)) {
        fs.dev.read_at(fs.offset_of(sb.desc_block(index)), block)?;
    }
    let meta_bg = sb.features.incompat.contains(Incompat::META_BG);
    for g in (1..sb.group_count()).filter(|g| sb.group_has_super(*g)) {
        put16(&mut raw, 90, g as u16);
        if sb.has_metadata_csum() {
            let c = crate::crc::crc32c(!0, bytes_at(&raw, 0, 1020));
            put32(&mut raw, 1020, c);
        }
        let mut both = alloc::vec![0; fs.bs];
        put_bytes(&mut both, 0, &raw);
        if !meta_bg {
            both.extend_from_slice(&table);
        }
        fs.dev.write_at(fs.offset_of(sb.group_first_block(g)), &both)?;
    }
    if meta_bg {
        let per = sb.descs_per_block();
        for (index, block) in (0..).zip(table.chunks(fs.bs)) {
            for g in [index * per + 1, index * per + per - 1].into_iter().filter(|g| *g < sb.group_count()) {
                let at = sb.group_first_block(g) + u64::from(sb.group_has_super(g));
                fs.dev.write_at(fs.offset_of(at), block)?;
            }
        }
    }
    Ok(())
}
