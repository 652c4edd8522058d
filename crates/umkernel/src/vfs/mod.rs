//! The virtual file system: mounts, dentries, path walks, open files; what every file system is to the kernel.
//!
//! The chain is the field's: a descriptor ([`FdTable`]) names an open file description ([`File`]), which was opened
//! at a place in the tree ([`Location`]: mount and dentry) on an [`Inode`], and works through its [`FileOps`].

mod fdtable;
mod file;
mod flags;
mod inode;
mod location;

pub use fdtable::{FdTable, FsContext};
pub use file::{File, FileOps};
pub use flags::{OpenFlags, PollEvents};
pub use inode::{Attr, DirEntry, DirSink, FileType, HostExtent, Inode, InodeRef, NewInode, SetAttr, StatFs, Timestamp};
pub use location::{Dentry, Location, Mount};

/// Mounts and caches of the machine.
#[derive(Default)]
pub struct Vfs {}

impl Vfs {
    /// Opens a program.
    pub fn open_exec(&self, _ctx: &crate::Ctx, _path: &[u8]) -> crate::Result<alloc::sync::Arc<File>> {
        Err(crate::Errno::ENOENT.into())
    }
    /// Opens a program.
    pub fn open_exec_at(
        &self,
        _ctx: &crate::Ctx,
        _fd: i32,
        _path: &[u8],
        _flags: u32,
    ) -> crate::Result<alloc::sync::Arc<File>> {
        Err(crate::Errno::ENOENT.into())
    }
}
