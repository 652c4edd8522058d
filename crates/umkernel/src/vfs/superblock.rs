//! File systems, as the VFS mounts them.

use super::{Dentry, InodeRef, StatFs};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

/// One instance of a file system: a disk with its data, or a tree that the kernel makes up.
pub trait FileSystem: Any + Send + Sync {
    /// The type's name in `/proc/mounts`.
    fn name(&self) -> &'static str;

    /// The root directory.
    fn root(&self) -> Result<InodeRef>;

    /// `st_dev` of its inodes, encoded as `makedev(3)` does.
    fn dev(&self) -> u64;

    /// `statfs(2)`; the VFS adds the mount's flags.
    fn statfs(&self) -> Result<StatFs>;

    /// Brings everything to the disk.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Writes out what changed a while ago (every few seconds).
    fn commit(&self) -> Result<()> {
        Ok(())
    }

    /// Options of its own for `/proc/mounts`, separated by commas; empty for none.
    fn options(&self) -> String {
        String::new()
    }

    /// Changes to read-only or back, and takes options of its own (`mount -o remount`).
    fn remount(&self, _read_only: bool, _data: &str) -> Result<()> {
        Ok(())
    }

    /// Tells the device which runs of at least `least` free bytes lie in `len` bytes from `start` on (`FITRIM`); returns
    /// how many bytes these are.
    fn trim(&self, _start: u64, _len: u64, _least: u64) -> Result<u64> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// The last mount and the last open file are gone: leaves the disk clean.
    fn unmount(&self) -> Result<()> {
        Ok(())
    }

    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
}

/// A type of file system that `mount(2)` knows.
#[derive(Clone, Copy)]
pub struct FsType {
    /// Name, `mount -t`.
    pub name: &'static str,
    /// Whether it lives on a block device; `/proc/filesystems` says `nodev` if not.
    pub needs_device: bool,
    /// Makes an instance.
    pub mount: fn(&Ctx, &MountRequest<'_>) -> Result<Arc<dyn FileSystem>>,
}

/// What `mount(2)` hands to a type of file system.
pub struct MountRequest<'a> {
    /// First argument of `mount(2)`: a device's path, or any word.
    pub source: &'a [u8],
    /// Mount it read-only.
    pub read_only: bool,
    /// Options of the file system's own, separated by commas.
    pub data: &'a str,
}

/// A file system in use, and its cache of names.
pub struct SuperBlock {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// Its root.
    pub root: Arc<Dentry>,
    /// Takes no changes, whichever mount they come through.
    read_only: AtomicBool,
    /// One rename between directories at a time, so that the tree stays a tree.
    pub(super) rename: Mutex<()>,
}

impl SuperBlock {
    pub(super) fn new(fs: Arc<dyn FileSystem>, read_only: bool) -> Result<Arc<SuperBlock>> {
        let root = Dentry::new_root(fs.root()?);
        Ok(SuperBlock::with_root(fs, root, AtomicBool::new(read_only)))
    }

    pub(super) fn with_root(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, read_only: AtomicBool) -> Arc<SuperBlock> {
        Arc::new(SuperBlock { fs, root, read_only, rename: Mutex::new(()) })
    }

    /// Whether the file system takes no changes.
    pub fn read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// Changes between read-only and writable.
    pub(super) fn remount(&self, read_only: bool, data: &str) -> Result<()> {
        if read_only {
            self.fs.sync()?;
        }
        self.fs.remount(read_only, data)?;
        self.read_only.store(read_only, Ordering::Release);
        Ok(())
    }

    /// `EROFS` if the file system takes no changes.
    pub fn want_write(&self) -> Result<()> {
        if self.read_only() { Err(Errno::EROFS.into()) } else { Ok(()) }
    }
}

impl Drop for SuperBlock {
    fn drop(&mut self) {
        self.root.forget_children();
        // Nobody is left to be told; the file system reports what it can to the log.
        let _ = self.fs.unmount();
    }
}
