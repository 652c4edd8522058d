//! What can go wrong, in words a user can act on.

use crate::device::IoError;
use alloc::string::String;
use core::fmt;

/// Result of every file system operation.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// The part of the file system in which corruption was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The superblock (byte 1024).
    Superblock,
    /// A block group's descriptor or bitmaps.
    Group(u32),
    /// An inode or the tree of blocks below it.
    Inode(u32),
    /// A block, by number.
    Block(u64),
    /// The journal.
    Journal,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Superblock => f.write_str("superblock"),
            Place::Group(g) => write!(f, "block group {g}"),
            Place::Inode(i) => write!(f, "inode {i}"),
            Place::Block(b) => write!(f, "block {b}"),
            Place::Journal => f.write_str("journal"),
        }
    }
}

/// An error of the file system; [`Error::errno`] gives the number a system call returns for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The device failed.
    Io(IoError),
    /// No such file, directory entry or inode (`ENOENT`).
    NotFound,
    /// The name exists already (`EEXIST`).
    Exists,
    /// The directory's files inherit its project id, which the inode does not have (`EXDEV`).
    OtherProject,
    /// A directory was needed (`ENOTDIR`).
    NotDirectory,
    /// A directory was not allowed here (`EISDIR`).
    IsDirectory,
    /// The directory still has entries (`ENOTEMPTY`).
    NotEmpty,
    /// No free block or inode (`ENOSPC`).
    NoSpace,
    /// A name longer than 255 bytes, or a symlink target of a block or more (`ENAMETOOLONG`).
    NameTooLong,
    /// The inode's link count is at its limit (`EMLINK`).
    TooManyLinks,
    /// The file system is mounted read-only, or was stopped after an error (`EROFS`).
    ReadOnly,
    /// No such extended attribute (`ENODATA`).
    NoData,
    /// An offset or size that the file system cannot hold (`EFBIG`).
    TooBig,
    /// Not permitted for this inode, for example a hard link to a directory (`EPERM`).
    NotPermitted(&'static str),
    /// A wrong argument (`EINVAL`), with what is wrong about it.
    Invalid(&'static str),
    /// Something on disk is not as the format demands (`EUCLEAN`, as Linux's ext4 reports).
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: Place,
    },
    /// The file system uses features that this code does not implement.
    Unsupported {
        /// The features' names as `dumpe2fs` prints them, or what else is not supported.
        what: String,
        /// Whether a read-only mount would be possible.
        read_only_possible: bool,
    },
    /// The device does not hold an ext2, ext3 or ext4 file system.
    NotExt(String),
    /// The device is smaller than the file system on it.
    Truncated {
        /// The device's size in bytes.
        image: u64,
        /// The size in bytes that the superblock states.
        expected: u64,
    },
}

impl Error {
    pub(crate) fn corrupt(what: &'static str, at: Place) -> Error {
        Error::Corrupt { what, at }
    }

    pub(crate) fn inode(ino: u32, what: &'static str) -> Error {
        Error::Corrupt { what, at: Place::Inode(ino) }
    }

    /// The `errno(3)` value that Linux returns for this error.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Error::Io(e) => e.errno,
            Error::NotPermitted(_) => 1,
            Error::NotFound => 2,
            Error::Exists => 17,
            Error::OtherProject => 18,
            Error::NotDirectory => 20,
            Error::IsDirectory => 21,
            Error::Invalid(_) | Error::NotExt(_) | Error::Truncated { .. } => 22,
            Error::TooBig => 27,
            Error::NoSpace => 28,
            Error::ReadOnly => 30,
            Error::TooManyLinks => 31,
            Error::NameTooLong => 36,
            Error::NotEmpty => 39,
            Error::NoData => 61,
            Error::Unsupported { read_only_possible: true, .. } => 30,
            Error::Unsupported { .. } => 95,
            Error::Corrupt { .. } => 117,
        }
    }
}

impl From<IoError> for Error {
    fn from(e: IoError) -> Error {
        Error::Io(e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(e) => write!(f, "device: {e}"),
            Error::NotFound => f.write_str("no such file or directory"),
            Error::Exists => f.write_str("file exists"),
            Error::OtherProject => f.write_str("the directory belongs to another project"),
            Error::NotDirectory => f.write_str("not a directory"),
            Error::IsDirectory => f.write_str("is a directory"),
            Error::NotEmpty => f.write_str("directory not empty"),
            Error::NoSpace => f.write_str("no space left in the file system (blocks or inodes)"),
            Error::NameTooLong => f.write_str("name too long (255 bytes at most; a symlink's target must fit a block)"),
            Error::TooManyLinks => f.write_str("too many links to the inode"),
            Error::ReadOnly => f.write_str("the file system is read-only"),
            Error::NoData => f.write_str("no such extended attribute"),
            Error::TooBig => f.write_str("offset or size beyond what the file system can hold"),
            Error::NotPermitted(s) => write!(f, "not permitted: {s}"),
            Error::Invalid(s) => write!(f, "invalid argument: {s}"),
            Error::Corrupt { what, at } => {
                write!(f, "corrupt file system: {at}: {what} (run e2fsck -f on the image)")
            }
            Error::Unsupported { what, read_only_possible: true } => {
                write!(f, "the file system can only be mounted read-only here: {what}")
            }
            Error::Unsupported { what, .. } => write!(f, "not supported: {what}"),
            Error::NotExt(s) => write!(f, "not an ext2/3/4 image: {s}"),
            Error::Truncated { image, expected } => write!(
                f,
                "image is {image} bytes but the file system says {expected}: the image was truncated; \
                 extend it or copy it again"
            ),
        }
    }
}

impl core::error::Error for Error {}
