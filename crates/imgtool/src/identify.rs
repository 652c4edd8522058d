//! What a file holds, told from its first bytes, so that "this is no ext4 image" can say what it is instead.
//!
//! Sources: the kernel's `Documentation/filesystems/ext4/`, the UEFI specification (GPT), Microsoft's FAT
//! specification, `libmagic`'s documentation of archive signatures.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use ext4::BlockDevice;

use crate::backing::host_error;
use crate::{Error, FileDevice, HumanSize};

/// Offset of the ext superblock from the start of the file system.
const EXT_SUPERBLOCK: u64 = 1024;
/// `s_magic`, at offset 56 of the superblock.
const EXT_MAGIC: u16 = 0xef53;
/// How much of the file's start is looked at: covers every signature below.
const HEAD: usize = 72 * 1024;

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contents {
    /// No bytes at all.
    Empty,
    /// Only zero bytes as far as looked: a blank disk.
    Blank,
    /// An ext2, ext3 or ext4 file system whose superblock is plausible.
    Ext {
        /// 2, 3 or 4, from the features.
        version: u8,
        /// Size that the superblock states, in bytes.
        size: u64,
    },
    /// An ext file system that cannot be used as it is.
    BrokenExt {
        /// What is wrong with it.
        fault: ExtFault,
        /// Block number and block size of a backup superblock that is whole, if one was found.
        backup: Option<(u64, u32)>,
    },
    /// A FAT file system; 12, 16 or 32.
    Fat(u8),
    /// A disk with a GUID partition table.
    Gpt,
    /// A disk with a DOS partition table.
    Mbr,
    /// Something else that is recognised, as a phrase with its article: `a gzip-compressed file`.
    Other(&'static str),
    /// Nothing that is known here.
    Unknown,
}

/// What is wrong with an ext superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtFault {
    /// The file is shorter than the file system in it.
    Truncated {
        /// Bytes that the superblock states.
        expected: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// The magic number is gone, while a backup superblock is there.
    Magic(u16),
    /// A field has a value that no ext file system can have.
    Field {
        /// Name of the field in the kernel's documentation.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
}

impl fmt::Display for ExtFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { expected, actual } => {
                write!(f, "the file is truncated: its file system has {expected} bytes, the file {actual}")
            }
            Self::Magic(found) => write!(
                f,
                "the superblock at byte {EXT_SUPERBLOCK} is damaged: its magic number is {found:#06x}, expected {EXT_MAGIC:#06x}"
            ),
            Self::Field { name, value, expected } => {
                write!(f, "the superblock at byte {EXT_SUPERBLOCK} is damaged: {name} is {value}, expected {expected}")
            }
        }
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty file"),
            Self::Blank => f.write_str("a blank disk (zero bytes only)"),
            Self::Ext { version, size } => write!(f, "an ext{version} file system of {}", HumanSize(*size)),
            Self::BrokenExt { fault, .. } => write!(f, "a broken ext file system ({fault})"),
            Self::Fat(bits) => write!(f, "a FAT{bits} file system"),
            Self::Gpt => f.write_str("a disk with a GUID partition table"),
            Self::Mbr => f.write_str("a disk with a DOS partition table"),
            Self::Other(phrase) => f.write_str(phrase),
            Self::Unknown => f.write_str("nothing that umlfs knows"),
        }
    }
}

impl Contents {
    /// Whether it is a disk with a partition table.
    pub fn is_disk(&self) -> bool {
        matches!(self, Self::Gpt | Self::Mbr)
    }

    /// `Ok` for an ext file system; for anything else the error to print about `path`, with what to do.
    ///
    /// # Errors
    /// The file holds no usable ext file system.
    pub fn require_ext(&self, path: &Path) -> Result<(), Error> {
        let path = path.display();
        let wrong = || Error::new(format_args!("{path} is no ext2, ext3 or ext4 image: it is {self}"));
        let make =
            format_args!("make an image with `umlfs image create {path} --size 1G --from DIR --force`").to_string();
        Err(match self {
            Self::Ext { .. } => return Ok(()),
            Self::Empty | Self::Blank => wrong().hint(make),
            Self::BrokenExt { fault, backup } => {
                let error = Error::new(format_args!("{path}: {fault}"));
                match (fault, backup) {
                    (ExtFault::Truncated { .. }, _) => error.hint("copy or make the image again; its end is missing"),
                    (_, Some((block, size))) => error.hint(format_args!(
                        "the backup superblock at block {block} is good; mend a copy with `e2fsck -b {block} -B {size} {path}`"
                    )),
                    (_, None) => error.hint("no backup superblock was found either; copy or make the image again"),
                }
            }
            Self::Gpt | Self::Mbr => wrong().hint(format_args!("name one of its partitions, as {path}:1")),
            Self::Other(phrase) if phrase.contains("compressed") => wrong().hint(format_args!(
                "decompress it first; if it is an archive, `umlfs image create root.img --from {path}` takes it as it is"
            )),
            Self::Other("a tar archive") => {
                wrong().hint(format_args!("make an image of it with `umlfs image create root.img --from {path}`"))
            }
            Self::Fat(_) | Self::Other(_) | Self::Unknown => {
                wrong().hint("name an image made by `umlfs image create` or mke2fs")
            }
        })
    }
}

/// Tells what the file at `path` holds; see [`crate::Target::contents`] for what the disk of an overlay does.
///
/// # Errors
/// The file cannot be opened or read, or is neither a regular file nor a block device.
pub fn identify(path: &Path) -> Result<Contents, Error> {
    let file = File::open(path).map_err(|error| Error::io("open", path, &error))?;
    let metadata = file.metadata().map_err(|error| Error::io("stat", path, &error))?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(Error::new(format_args!("{} is a directory, expected a disk image", path.display()))
            .hint(format_args!("make an image of it with `umlfs image create root.img --from {}`", path.display())));
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(Error::new(format_args!(
            "{} is neither a regular file nor a block device, expected a disk image",
            path.display()
        )));
    }
    let size = size_of(&file).map_err(|error| Error::io("find the size of", path, &error))?;
    identify_device(&FileDevice::new(file, size)).map_err(|error| Error::io("read", path, &error))
}

/// The length of a regular file or block device.
pub(crate) fn size_of(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    // The length of a block device is where its end is.
    Ok(nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekEnd)?.unsigned_abs())
}

/// Tells what a disk or a part of one holds.
///
/// # Errors
/// The host's.
pub(crate) fn identify_device(device: &dyn BlockDevice) -> io::Result<Contents> {
    let size = device.size();
    if size == 0 {
        return Ok(Contents::Empty);
    }
    let mut head = vec![0; HEAD];
    let got = read_up_to(device, 0, &mut head)?;
    head.truncate(got);
    let ext_magic = le16(&head, 1024 + 56);
    if ext_magic == Some(EXT_MAGIC) {
        let superblock = head.get(1024..).unwrap_or_default();
        return Ok(match ext_superblock(superblock) {
            Ok(ext) if ext.size > size => {
                Contents::BrokenExt { fault: ExtFault::Truncated { expected: ext.size, actual: size }, backup: None }
            }
            Ok(ext) => Contents::Ext { version: ext.version, size: ext.size },
            Err(fault) => Contents::BrokenExt { fault, backup: find_backup(device, size)? },
        });
    }
    if let Some(found) = signature(&head, size) {
        return Ok(found);
    }
    if let Some(backup) = find_backup(device, size)? {
        return Ok(Contents::BrokenExt { fault: ExtFault::Magic(ext_magic.unwrap_or(0)), backup: Some(backup) });
    }
    if head.iter().all(|byte| *byte == 0) {
        return Ok(Contents::Blank);
    }
    Ok(Contents::Unknown)
}

/// Formats that are told by a signature near the start.
fn signature(head: &[u8], size: u64) -> Option<Contents> {
    let has = |offset: usize, bytes: &[u8]| head.get(offset..offset + bytes.len()) == Some(bytes);
    let simple: &[(usize, &[u8], &'static str)] = &[
        (0, b"\x1f\x8b", "a gzip-compressed file"),
        (0, b"\xfd7zXZ\0", "an xz-compressed file"),
        (0, b"\x28\xb5\x2f\xfd", "a zstd-compressed file"),
        (0, b"BZh", "a bzip2-compressed file"),
        (0, b"\x04\x22\x4d\x18", "an lz4-compressed file"),
        (0, b"PK\x03\x04", "a zip archive"),
        (0, b"070701", "a cpio archive"),
        (0, b"070702", "a cpio archive"),
        (257, b"ustar", "a tar archive"),
        (0, b"QFI\xfb", "a qcow2 disk image"),
        (0, crate::cow::MAGIC, "a copy-on-write overlay"),
        (0, b"KDMV", "a VMDK disk image"),
        (0, b"hsqs", "a squashfs file system"),
        (0, b"XFSB", "an XFS file system"),
        (0, b"\x7fELF", "an ELF program"),
        (0, b"#!", "a script"),
        (0x8001, b"CD001", "an ISO 9660 file system"),
        (0x10040, b"_BHRfS_M", "a btrfs file system"),
        (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
        (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
        (4086, b"SWAPSPACE2", "a swap area"),
        (3, b"NTFS    ", "an NTFS file system"),
        (3, b"EXFAT   ", "an exFAT file system"),
        (0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
    ];
    for sector in [512, 4096] {
        if has(sector, b"EFI PART") {
            return Some(Contents::Gpt);
        }
    }
    if let Some((_, _, phrase)) = simple.iter().find(|(offset, bytes, _)| has(*offset, bytes)) {
        return Some(Contents::Other(phrase));
    }
    if !has(510, b"\x55\xaa") {
        return None;
    }
    if let Some(bits) = fat(head, size) {
        return Some(Contents::Fat(bits));
    }
    // Four entries of 16 bytes: each is active or not, and at least one has a type.
    let entries: Vec<&[u8]> = head.get(446..510)?.chunks_exact(16).collect();
    let plausible = entries.iter().all(|entry| matches!(entry.first(), Some(0 | 0x80)));
    let used = entries.iter().any(|entry| entry.get(4).is_some_and(|kind| *kind != 0));
    (plausible && used).then_some(Contents::Mbr)
}

/// The width of a FAT file system, from its BIOS parameter block: only the count of clusters decides it.
fn fat(head: &[u8], size: u64) -> Option<u8> {
    let sector = u64::from(le16(head, 11)?);
    let per_cluster = u64::from(*head.get(13)?);
    let reserved = u64::from(le16(head, 14)?);
    let fats = u64::from(*head.get(16)?);
    let root_entries = u64::from(le16(head, 17)?);
    let total = match le16(head, 19)? {
        0 => u64::from(le32(head, 32)?),
        small => u64::from(small),
    };
    let fat_sectors = match le16(head, 22)? {
        0 => u64::from(le32(head, 36)?),
        small => u64::from(small),
    };
    let jump = matches!((head.first()?, head.get(2)?), (0xeb, 0x90) | (0xe9, _));
    let sane = jump
        && matches!(sector, 512 | 1024 | 2048 | 4096)
        && per_cluster.is_power_of_two()
        && reserved > 0
        && matches!(fats, 1 | 2)
        && total > 0
        && fat_sectors > 0
        // A truncated file is still FAT; a size far beyond the file means that these are other bytes.
        && total * sector <= size.max(1 << 20) * 1024;
    if !sane {
        return None;
    }
    let root_sectors = (root_entries * 32).div_ceil(sector);
    let data = total.checked_sub(reserved + fats * fat_sectors + root_sectors)?;
    Some(match data / per_cluster {
        0..4085 => 12,
        4085..65525 => 16,
        _ => 32,
    })
}

struct ExtSummary {
    version: u8,
    size: u64,
    group: u16,
}

/// Checks an ext superblock as far as it can be without the rest of the file system.
fn ext_superblock(bytes: &[u8]) -> Result<ExtSummary, ExtFault> {
    let word = |offset: usize| le32(bytes, offset).unwrap_or(0);
    let field = |name, value: u32, expected| ExtFault::Field { name, value: u64::from(value), expected };
    let log_block_size = word(24);
    if log_block_size > 6 {
        return Err(field("s_log_block_size", log_block_size, "0 to 6 (1 KiB to 64 KiB blocks)"));
    }
    let block_size = 1024u64 << log_block_size;
    let blocks_per_group = word(32);
    // With bigalloc the bits of a bitmap stand for clusters of blocks.
    let bigalloc = word(100) & ext4::RoCompat::BIGALLOC.bits() != 0;
    let bits = word(if bigalloc { 36 } else { 32 });
    if bigalloc && (bits == 0 || u64::from(bits) > 8 * block_size) {
        return Err(field("s_clusters_per_group", bits, "1 to 8 clusters for each byte of a block"));
    }
    if blocks_per_group == 0 || !bigalloc && u64::from(blocks_per_group) > 8 * block_size {
        return Err(field("s_blocks_per_group", blocks_per_group, "1 to 8 blocks for each byte of a block"));
    }
    let inodes_per_group = word(40);
    if inodes_per_group == 0 || u64::from(inodes_per_group) > 8 * block_size {
        return Err(field("s_inodes_per_group", inodes_per_group, "1 to 8 inodes for each byte of a block"));
    }
    let first_data_block = word(20);
    // Clusters count from the disk's first byte on.
    if first_data_block != u32::from(log_block_size == 0 && !bigalloc) {
        return Err(field("s_first_data_block", first_data_block, "1 with 1 KiB blocks, otherwise 0"));
    }
    let (compat, incompat, ro_compat) = (word(92), word(96), word(100));
    let mut blocks = u64::from(word(4));
    if incompat & 0x80 != 0 {
        blocks |= u64::from(word(0x150)) << 32;
    }
    if blocks <= u64::from(first_data_block) {
        return Err(ExtFault::Field { name: "s_blocks_count", value: blocks, expected: "a number of blocks" });
    }
    // What ext4 has beyond ext3: any incompatible feature but filetype, recover, journal_dev and meta_bg; any
    // read-only-compatible one but sparse_super, large_file and btree_dir. As blkid tells them apart.
    let version = if incompat & !0x1e != 0 || ro_compat & !0x7 != 0 {
        4
    } else if compat & 0x4 != 0 {
        3
    } else {
        2
    };
    Ok(ExtSummary { version, size: blocks.saturating_mul(block_size), group: le16(bytes, 90).unwrap_or(0) })
}

/// Looks for a whole backup superblock where mke2fs puts them: at the start of groups 1, 3, 5, 7 and 9.
fn find_backup(device: &dyn BlockDevice, size: u64) -> io::Result<Option<(u64, u32)>> {
    for block_size in [4096u32, 1024, 2048] {
        let first_data_block = u64::from(block_size == 1024);
        for group in [1u16, 3, 5, 7, 9] {
            let block = first_data_block + u64::from(group) * 8 * u64::from(block_size);
            let offset = block * u64::from(block_size);
            if offset + 1024 > size {
                break;
            }
            let mut superblock = [0; 1024];
            if read_up_to(device, offset, &mut superblock)? == superblock.len()
                && le16(&superblock, 56) == Some(EXT_MAGIC)
                && ext_superblock(&superblock).is_ok_and(|found| found.group == group)
            {
                return Ok(Some((block, block_size)));
            }
        }
    }
    Ok(None)
}

/// Reads as much as the device has; returns the count of bytes.
fn read_up_to(device: &dyn BlockDevice, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let len = device.size().saturating_sub(offset).min(buffer.len() as u64) as usize;
    device.read_at(offset, buffer.get_mut(..len).unwrap_or_default()).map_err(host_error)?;
    Ok(len)
}

fn le16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn le32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}
