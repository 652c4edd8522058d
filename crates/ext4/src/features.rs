//! The three feature sets of the superblock (Linux `Documentation/filesystems/ext4/super.rst`).
//!
//! An unknown *incompatible* feature forbids any access, an unknown *read-only compatible* one forbids changes,
//! an unknown *compatible* one forbids nothing.

use alloc::string::String;

bitflags::bitflags! {
    /// Features that an implementation may ignore.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Compat: u32 {
        /// Directory preallocation (never used).
        const DIR_PREALLOC = 0x1;
        /// AFS server inodes (never used).
        const IMAGIC_INODES = 0x2;
        /// There is a journal.
        const HAS_JOURNAL = 0x4;
        /// Extended attributes.
        const EXT_ATTR = 0x8;
        /// Blocks are reserved for the group descriptor table to grow.
        const RESIZE_INODE = 0x10;
        /// Hash-indexed directories.
        const DIR_INDEX = 0x20;
        /// Two backup superblocks only, in groups that the superblock names.
        const SPARSE_SUPER2 = 0x200;
        /// The journal may hold fast commits.
        const FAST_COMMIT = 0x400;
        /// Inodes with stable numbers.
        const STABLE_INODES = 0x800;
        /// A file takes orphan inodes' numbers.
        const ORPHAN_FILE = 0x1000;
        const _ = !0;
    }

    /// Features that an implementation must know to read or write.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Incompat: u32 {
        /// Compressed files (never merged).
        const COMPRESSION = 0x1;
        /// Directory entries carry file types.
        const FILETYPE = 0x2;
        /// The journal needs replay.
        const RECOVER = 0x4;
        /// The device is a journal only.
        const JOURNAL_DEV = 0x8;
        /// Group descriptors are spread over the device.
        const META_BG = 0x10;
        /// Files may use extents.
        const EXTENTS = 0x40;
        /// 64-bit block numbers.
        const BIT64 = 0x80;
        /// Multiple mount protection.
        const MMP = 0x100;
        /// Several groups' metadata lie together.
        const FLEX_BG = 0x200;
        /// Large extended attributes live in inodes.
        const EA_INODE = 0x400;
        /// Data in directory entries (never merged).
        const DIRDATA = 0x1000;
        /// The checksum seed is stored in the superblock.
        const CSUM_SEED = 0x2000;
        /// Directories over 2 GiB or three index levels.
        const LARGEDIR = 0x4000;
        /// Small files live in their inode.
        const INLINE_DATA = 0x8000;
        /// Encrypted inodes.
        const ENCRYPT = 0x1_0000;
        /// Case-insensitive directories.
        const CASEFOLD = 0x2_0000;
        const _ = !0;
    }

    /// Features that an implementation must know to write.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct RoCompat: u32 {
        /// Backup superblocks in groups 0, 1 and powers of 3, 5 and 7 only.
        const SPARSE_SUPER = 0x1;
        /// Files over 2 GiB.
        const LARGE_FILE = 0x2;
        /// B-tree directories (never used).
        const BTREE_DIR = 0x4;
        /// Files whose block count is in file system blocks.
        const HUGE_FILE = 0x8;
        /// Group descriptors have checksums (`uninit_bg`).
        const GDT_CSUM = 0x10;
        /// Directories may have any number of subdirectories.
        const DIR_NLINK = 0x20;
        /// Inodes have extra fields.
        const EXTRA_ISIZE = 0x40;
        /// Snapshots (never merged).
        const HAS_SNAPSHOT = 0x80;
        /// Quota inodes.
        const QUOTA = 0x100;
        /// Space is allocated in clusters of blocks.
        const BIGALLOC = 0x200;
        /// All metadata has checksums.
        const METADATA_CSUM = 0x400;
        /// Replicas (never merged).
        const REPLICA = 0x800;
        /// No changes ever.
        const READONLY = 0x1000;
        /// Project quota.
        const PROJECT = 0x2000;
        /// Blocks shared between files (Android).
        const SHARED_BLOCKS = 0x4000;
        /// Files with Merkle trees.
        const VERITY = 0x8000;
        /// The orphan file has entries.
        const ORPHAN_PRESENT = 0x1_0000;
        const _ = !0;
    }
}

/// Incompatible features this crate implements, for reading at least.
pub(crate) const INCOMPAT_SUPPORTED: Incompat = Incompat::from_bits_retain(
    Incompat::FILETYPE.bits()
        | Incompat::RECOVER.bits()
        | Incompat::META_BG.bits()
        | Incompat::EXTENTS.bits()
        | Incompat::BIT64.bits()
        | Incompat::MMP.bits()
        | Incompat::FLEX_BG.bits()
        | Incompat::EA_INODE.bits()
        | Incompat::CSUM_SEED.bits()
        | Incompat::LARGEDIR.bits()
        | Incompat::INLINE_DATA.bits()
        | Incompat::ENCRYPT.bits(),
);

/// Those among them that it only reads, with the reason.
pub(crate) const INCOMPAT_READ_ONLY: &[(Incompat, &str)] = &[
    (Incompat::MMP, "mmp (another machine may have it mounted; clear it with tune2fs -O ^mmp)"),
    (Incompat::ENCRYPT, "encrypt (names and contents need keys)"),
];

/// Read-only compatible features with which this crate writes.
pub(crate) const RO_COMPAT_WRITABLE: RoCompat = RoCompat::from_bits_retain(
    RoCompat::SPARSE_SUPER.bits()
        | RoCompat::LARGE_FILE.bits()
        | RoCompat::BTREE_DIR.bits()
        | RoCompat::HUGE_FILE.bits()
        | RoCompat::GDT_CSUM.bits()
        | RoCompat::DIR_NLINK.bits()
        | RoCompat::EXTRA_ISIZE.bits()
        | RoCompat::METADATA_CSUM.bits()
        | RoCompat::PROJECT.bits()
        | RoCompat::ORPHAN_PRESENT.bits(),
);

const COMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (0x4, "has_journal"),
    (0x8, "ext_attr"),
    (0x10, "resize_inode"),
    (0x20, "dir_index"),
    (0x200, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (0x1000, "orphan_file"),
];
const INCOMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "compression"),
    (0x2, "filetype"),
    (0x4, "needs_recovery"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x40, "extent"),
    (0x80, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
const RO_COMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "sparse_super"),
    (0x2, "large_file"),
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x100, "quota"),
    (0x200, "bigalloc"),
    (0x400, "metadata_csum"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

fn push_names(out: &mut String, prefix: char, bits: u32, names: &[(u32, &str)]) {
    use core::fmt::Write as _;
    for bit in (0..32).map(|i| 1u32 << i).filter(|b| bits & b != 0) {
        if !out.is_empty() {
            out.push(' ');
        }
        match names.iter().find(|(b, _)| *b == bit) {
            Some((_, name)) => out.push_str(name),
            // As e2fsprogs names unknown bits; writing to a String does not fail.
            None => {
                let _ = write!(out, "FEATURE_{prefix}{}", bit.trailing_zeros());
            }
        }
    }
}

/// All features of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Compatible features.
    pub compat: Compat,
    /// Incompatible features.
    pub incompat: Incompat,
    /// Read-only compatible features.
    pub ro_compat: RoCompat,
}

impl Features {
    /// The names in `dumpe2fs`'s order and spelling, separated by spaces.
    #[must_use]
    pub fn names(&self) -> String {
        let mut s = String::new();
        push_names(&mut s, 'C', self.compat.bits(), COMPAT_NAMES);
        push_names(&mut s, 'I', self.incompat.bits(), INCOMPAT_NAMES);
        push_names(&mut s, 'R', self.ro_compat.bits(), RO_COMPAT_NAMES);
        s
    }

    /// Sets (or clears) the feature that `mke2fs -O` knows by `name`. Returns whether the name is known.
    pub fn set_by_name(&mut self, name: &str, on: bool) -> bool {
        let name = match name {
            "extents" => "extent",
            "gdt_csum" => "uninit_bg",
            "largedir" => "large_dir",
            "xattr" => "ext_attr",
            n => n,
        };
        let find = |names: &[(u32, &str)]| names.iter().find(|(_, n)| *n == name).map(|(b, _)| *b);
        if let Some(b) = find(COMPAT_NAMES) {
            self.compat.set(Compat::from_bits_retain(b), on);
        } else if let Some(b) = find(INCOMPAT_NAMES) {
            self.incompat.set(Incompat::from_bits_retain(b), on);
        } else if let Some(b) = find(RO_COMPAT_NAMES) {
            self.ro_compat.set(RoCompat::from_bits_retain(b), on);
        } else {
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_dumpe2fs_prints_them() {
        let f = Features {
            compat: Compat::HAS_JOURNAL | Compat::EXT_ATTR,
            incompat: Incompat::EXTENTS | Incompat::from_bits_retain(0x80_0000),
            ro_compat: RoCompat::METADATA_CSUM,
        };
        assert_eq!(f.names(), "has_journal ext_attr extent FEATURE_I23 metadata_csum");
    }

    #[test]
    fn set_and_clear_by_name() {
        let mut f = Features::default();
        assert!(f.set_by_name("extents", true) && f.incompat.contains(Incompat::EXTENTS));
        assert!(f.set_by_name("extent", false) && f.incompat.is_empty());
        assert!(!f.set_by_name("nonsense", true));
    }
}
