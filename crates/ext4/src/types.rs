//! The values that pass between a file system and its callers.

use alloc::string::String;

/// An inode number; inodes count from 1.
pub type Ino = u32;
/// The root directory's inode.
pub const ROOT_INO: Ino = 2;
/// The longest name of a directory entry, in bytes.
pub const NAME_MAX: usize = 255;

/// A point in time since the epoch, as `struct timespec`. With 256-byte inodes the seconds reach to the
/// year 2446, with 128-byte inodes to 2038; later times are clamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

/// The kind of a file (`inode(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device node.
    CharDevice,
    /// A block device node.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A Unix-domain socket's name.
    Socket,
}

impl FileType {
    /// The `S_IFMT` bits of `st_mode`.
    #[must_use]
    pub fn mode_bits(self) -> u16 {
        match self {
            FileType::Fifo => 0o010_000,
            FileType::CharDevice => 0o020_000,
            FileType::Directory => 0o040_000,
            FileType::BlockDevice => 0o060_000,
            FileType::Regular => 0o100_000,
            FileType::Symlink => 0o120_000,
            FileType::Socket => 0o140_000,
        }
    }

    /// The type that `st_mode`'s `S_IFMT` bits name; `None` for a value no file has.
    #[must_use]
    pub fn from_mode(mode: u16) -> Option<FileType> {
        Some(match mode & 0o170_000 {
            0o010_000 => FileType::Fifo,
            0o020_000 => FileType::CharDevice,
            0o040_000 => FileType::Directory,
            0o060_000 => FileType::BlockDevice,
            0o100_000 => FileType::Regular,
            0o120_000 => FileType::Symlink,
            0o140_000 => FileType::Socket,
            _ => return None,
        })
    }

    /// The type byte of a directory entry (Linux `Documentation/filesystems/ext4/directory.rst`).
    pub(crate) fn dirent_byte(self) -> u8 {
        match self {
            FileType::Regular => 1,
            FileType::Directory => 2,
            FileType::CharDevice => 3,
            FileType::BlockDevice => 4,
            FileType::Fifo => 5,
            FileType::Socket => 6,
            FileType::Symlink => 7,
        }
    }

    pub(crate) fn from_dirent_byte(b: u8) -> Option<FileType> {
        Some(match b {
            1 => FileType::Regular,
            2 => FileType::Directory,
            3 => FileType::CharDevice,
            4 => FileType::BlockDevice,
            5 => FileType::Fifo,
            6 => FileType::Socket,
            7 => FileType::Symlink,
            _ => return None,
        })
    }
}

/// What `stat(2)` reports, and the inode's flags and generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Kind of file.
    pub file_type: FileType,
    /// The twelve permission bits (`07777`).
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Number of names (1 for a directory with more than 64,998 subdirectories, `dir_nlink`).
    pub nlink: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks512: u64,
    /// Major and minor number of a device node, otherwise (0, 0).
    pub rdev: (u32, u32),
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation; zero where inodes are too small to store it.
    pub crtime: Timestamp,
    /// Inode flags as `FS_IOC_GETFLAGS` shows them (`ioctl_iflags(2)`).
    pub flags: u32,
    /// The generation (`FS_IOC_GETVERSION`).
    pub generation: u32,
}

/// What a new inode starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewInode {
    /// Kind of file.
    pub file_type: FileType,
    /// The twelve permission bits (`07777`); other bits are ignored.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group. The caller has applied the set-group-ID rule of directories.
    pub gid: u32,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// All four times.
    pub now: Timestamp,
}

/// Attributes to change; `None` leaves one as it is. Nothing is changed implicitly but the block count:
/// the caller passes `ctime` (and `mtime` with `size`) as the system call demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// The twelve permission bits.
    pub mode: Option<u16>,
    /// Owning user.
    pub uid: Option<u32>,
    /// Owning group.
    pub gid: Option<u32>,
    /// New length: shorter frees blocks, longer leaves a hole.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Timestamp>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
    /// Change time.
    pub ctime: Option<Timestamp>,
    /// Creation time.
    pub crtime: Option<Timestamp>,
    /// User-settable inode flags (`FS_IOC_SETFLAGS`); bits that describe storage are kept.
    pub flags: Option<u32>,
}

/// One entry that [`crate::Fs::read_dir`] hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: Ino,
    /// Kind of file, if the directory stores it (feature `filetype`).
    pub file_type: Option<FileType>,
    /// The name, without a terminating zero.
    pub name: &'a [u8],
    /// The cookie from which a later call continues after this entry (`d_off`).
    pub next: u64,
}

/// A part of a file and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Byte offset in the file.
    pub file_offset: u64,
    /// Byte offset on the device; `None` where the file reads as zeros (hole or unwritten extent).
    pub device_offset: Option<u64>,
    /// Length in bytes.
    pub len: u64,
}

/// An inode that lost a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unlinked {
    /// The inode.
    pub ino: Ino,
    /// Its remaining links. At 0 it stays allocated, on the orphan list, until [`crate::Fs::release`].
    pub nlink: u32,
}

/// What `statfs(2)` reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatFs {
    /// Block size in bytes.
    pub block_size: u32,
    /// Blocks for data: all blocks less the file system's own (`minixdf` off, as Linux counts by default).
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks less those reserved for root.
    pub blocks_avail: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name in bytes.
    pub name_max: u32,
    /// The file system's UUID.
    pub uuid: [u8; 16],
    /// The volume label.
    pub label: String,
    /// Whether the file system takes no changes.
    pub read_only: bool,
}

bitflags::bitflags! {
    /// How `Fs::rename` treats an existing target (`renameat2(2)`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// Fail with `EEXIST` if the new name exists.
        const NOREPLACE = 1;
        /// Exchange the two names.
        const EXCHANGE = 2;
    }

    /// How `Fs::fallocate` works (`fallocate(2)`); empty allocates and extends the file.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FallocateMode: u32 {
        /// Leave the file's length alone.
        const KEEP_SIZE = 1;
        /// Free the range's whole blocks and zero its edges (with `KEEP_SIZE`).
        const PUNCH_HOLE = 2;
        /// Make the range read as zeros, with blocks allocated.
        const ZERO_RANGE = 16;
    }
}

/// How `Fs::xattr_set` treats an existing attribute (`setxattr(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrMode {
    /// Create or replace.
    #[default]
    Any,
    /// `XATTR_CREATE`: fail with `EEXIST` if it exists.
    Create,
    /// `XATTR_REPLACE`: fail with `ENODATA` if it does not.
    Replace,
}

/// How to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountOptions {
    /// Take no changes, and write nothing to the device: a journal that needs replay is replayed in memory.
    pub read_only: bool,
    /// Replay the journal if the file system was not unmounted. Without it such a file system can be mounted
    /// read-only (contents as of the last checkpoint), and a writable mount is refused.
    pub journal_replay: bool,
    /// Log metadata in the journal. Without it each commit writes in place, as `mke2fs -d` does: faster, and the
    /// journal's blocks stay untouched, but a power cut leaves a file system to be repaired. For fresh images.
    pub journal: bool,
    /// The most clean metadata blocks to keep in memory.
    pub cache_blocks: usize,
    /// Accept group descriptors whose checksums are wrong, for [`Fs::check`](crate::Fs::check) to find.
    pub for_check: bool,
    /// Discard blocks once the transaction that freed them is committed: the image file gets holes there.
    pub discard: bool,
    /// The time of the mount, recorded in the superblock; `None` leaves its times alone.
    pub now: Option<Timestamp>,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            read_only: false,
            journal_replay: true,
            journal: true,
            cache_blocks: 8192,
            for_check: false,
            discard: false,
            now: None,
        }
    }
}
