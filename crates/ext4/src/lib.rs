//! The ext2, ext3 and ext4 file systems: reading, writing, journal and mkfs.
//!
//! The crate does no I/O of its own, has no clock and no locks: a [`BlockDevice`] carries the bytes, callers pass
//! times, and one lock around a mounted file system is the caller's. It is `no_std` so that the user-mode kernel
//! can run it in any process.
//!
//! The format is the one Linux documents in `Documentation/filesystems/ext4/` and `e2fsprogs` checks.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod attr;
mod balloc;
mod bitmap;
mod bulk;
mod cache;
mod check;
mod crc;
mod csum;
mod device;
mod dir;
mod discard;
mod error;
mod extend;
mod features;
mod file;
mod fs;
mod group;
mod ialloc;
mod inode;
mod journal;
mod le;
mod map;
pub mod mkfs;
mod namei;
mod orphan;
mod superblock;
mod types;
mod usage;
mod write;
mod xattr;

pub use bulk::{Bulk, BulkEntry, BulkExtent, BulkInode};
pub use check::{Finding, Report};
pub use device::{BlockDevice, IoError};
pub use error::{Error, Place, Result};
pub use extend::Room;
pub use features::{Compat, Features, Incompat, RoCompat};
pub use fs::Fs;
pub use namei::LINK_MAX;
pub use superblock::Superblock;
pub use types::{
    Attr, DirEntry, FallocateMode, FileType, Ino, Mapping, MountOptions, NAME_MAX, NewInode, ROOT_INO, RenameFlags,
    SetAttr, StatFs, Timestamp, Unlinked, XattrMode,
};
pub use usage::BlockUse;
