//! ext2, ext3 and ext4 on a disk: [`ext4::Fs`] under one lock, an inode cache above it, and file data moved between
//! guest memory and the image directly, also where a file grows.
//!
//! Lock order: an inode's data, the inode cache, the file system, an inode's attributes. An inode's last reference is
//! never dropped under any of them, since it may free the inode on the disk.

mod change;
mod data;
mod inode;
mod shadow;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
mod volume;

pub use inode::Ext4Inode;

use self::volume::Volume;
use crate::bail;
use crate::block::{Disk, Opened};
use crate::errno::{Errno, Error, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::vfs::{
    AT_FDCWD, DeviceKind, FileSystem, FileType, FsType, InodeRef, MountRequest, StatFs, Timestamp, WalkFlags,
};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

/// `EXT4_SUPER_MAGIC` of `linux/magic.h`.
const EXT4_MAGIC: u64 = 0xef53;

/// A mounted file system.
pub struct Ext4Fs {
    volume: Mutex<Volume>,
    disk: Arc<Disk>,
    name: &'static str,
    block_size: u64,
    /// Inodes in memory, so that there is one for each number.
    inodes: Mutex<BTreeMap<u32, Weak<Ext4Inode>>>,
    /// Has changed since the last commit.
    dirty: AtomicBool,
    /// Inodes whose times are newer in memory than on the disk.
    late_times: Mutex<Vec<Weak<Ext4Inode>>>,
    /// Copies of files that cannot be mapped in the image, and who has one that mappings store to.
    shadow_store: Mutex<Option<Arc<super::store::Store>>>,
    shadowed: Mutex<Vec<Weak<Ext4Inode>>>,
    /// Buffers for data on its way between the image and guest memory.
    buffers: super::buffer::BufferPool,
    me: Weak<Ext4Fs>,
    /// Keeps a loop device's file as long as anything of the file system is there: the last to go.
    _opened: Opened,
}

/// The number that the guest gets for an error of the file system.
fn error(e: ext4::Error) -> Error {
    Errno(e.errno() as u16).into()
}

fn options(read_only: bool) -> ext4::MountOptions {
    let now = Timestamp::now();
    let now = Some(ext4::Timestamp { sec: now.sec, nsec: now.nsec });
    ext4::MountOptions { read_only, now, ..ext4::MountOptions::default() }
}

impl Ext4Fs {
    /// Mounts the file system on a disk.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the user.
    pub fn mount(disk: &Arc<Disk>, read_only: bool) -> core::result::Result<Arc<Ext4Fs>, ext4::Error> {
        let io = |e: Error| ext4::Error::Io(ext4::IoError { errno: i32::from(e.errno.0) });
        let opened = Opened::new(disk).map_err(io)?;
        let fs = ext4::Fs::mount(disk.clone(), options(read_only))?;
        let features = &fs.superblock().features;
        let name = if features.incompat.contains(ext4::Incompat::EXTENTS) {
            "ext4"
        } else if features.compat.contains(ext4::Compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        };
        let block_size = u64::from(fs.statfs().block_size);
        Ok(Arc::new_cyclic(|me| Ext4Fs {
            volume: Mutex::new(Volume::new(fs)),
            disk: disk.clone(),
            name,
            block_size,
            inodes: Mutex::new(BTreeMap::new()),
            dirty: AtomicBool::new(false),
            late_times: Mutex::default(),
            shadow_store: Mutex::new(None),
            shadowed: Mutex::default(),
            buffers: Default::default(),
            me: me.clone(),
            _opened: opened,
        }))
    }

    /// The inode with this number, from memory or the disk.
    fn inode(&self, ino: u32) -> Result<Arc<Ext4Inode>> {
        let Some(fs) = self.me.upgrade() else {
            bail!(EIO);
        };
        let mut inodes = self.inodes.lock();
        if let Some(inode) = inodes.get(&ino).and_then(Weak::upgrade) {
            return Ok(inode);
        }
        let attr = self.lock_for_names().attr(ino).map_err(error)?;
        let inode = Arc::new(Ext4Inode::new(fs, attr));
        inodes.insert(ino, Arc::downgrade(&inode));
        Ok(inode)
    }

    /// Takes an inode that is being dropped out of the cache.
    fn forget(&self, inode: &Ext4Inode) {
        let mut inodes = self.inodes.lock();
        let same = |known: &Weak<Ext4Inode>| core::ptr::eq(known.as_ptr(), inode);
        if inodes.get(&inode.ino()).is_some_and(same) {
            inodes.remove(&inode.ino());
        }
    }
}

impl FileSystem for Ext4Fs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(self.inode(ext4::ROOT_INO)?)
    }

    fn dev(&self) -> u64 {
        self.disk.rdev()
    }

    fn statfs(&self) -> Result<StatFs> {
        let s = self.lock().statfs();
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&s.uuid[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Ok(StatFs {
            fs_type: EXT4_MAGIC,
            bsize: u64::from(s.block_size),
            blocks: s.blocks,
            bfree: s.blocks_free,
            bavail: s.blocks_avail,
            files: s.files,
            ffree: s.files_free,
            fsid: half(0) ^ half(8),
            namelen: u64::from(s.name_max),
            flags: 0,
        })
    }

    fn options(&self) -> String {
        if self.lock().discards() { "discard".into() } else { String::new() }
    }

    fn trim(&self, start: u64, len: u64, least: u64) -> Result<u64> {
        self.lock().trim(start, len, least).map_err(error)
    }

    fn remount(&self, read_only: bool, data: &str) -> Result<()> {
        let discard = check_options(data)?;
        let mut fs = self.lock();
        if let Some(on) = discard {
            fs.set_discard(on);
        }
        if read_only == fs.is_read_only() {
            return Ok(());
        }
        if read_only {
            drop(fs);
            self.store_shadows()?;
            self.store_times()?;
            let mut fs = self.lock();
            self.dirty.store(false, Ordering::Release);
            return fs.unmount().map_err(error);
        }
        if self.disk.read_only() {
            bail!(EROFS, "the image was opened read-only");
        }
        let discard = fs.discards();
        *fs = ext4::Fs::mount(self.disk.clone(), options(false)).map_err(error)?;
        fs.set_discard(discard);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.dirty.store(false, Ordering::Release);
        self.store_shadows()?;
        self.store_times()?;
        let mut fs = self.lock();
        let lost = fs.check_lost();
        fs.sync().map_err(error)?;
        lost
    }

    fn commit(&self) -> Result<()> {
        let stores = self.shadowed.lock().iter().any(|inode| inode.strong_count() > 0);
        if stores || self.dirty.load(Ordering::Acquire) { self.sync() } else { Ok(()) }
    }

    fn unmount(&self) -> Result<()> {
        self.store_shadows()?;
        self.store_times()?;
        let mut fs = self.lock();
        let lost = fs.check_lost();
        fs.unmount().map_err(error)?;
        lost
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Checks the options of `mount -o`, most of which only say what is so anyway; returns what they say about discard.
fn check_options(data: &str) -> Result<Option<bool>> {
    const KNOWN: [&str; 9] = [
        "errors=remount-ro",
        "errors=continue",
        "data=ordered",
        "user_xattr",
        "acl",
        "barrier",
        "barrier=1",
        "journal_checksum",
        "delalloc",
    ];
    let mut discard = None;
    for option in data.split(',').filter(|option| !option.is_empty()) {
        match option {
            "discard" => discard = Some(true),
            "nodiscard" => discard = Some(false),
            _ if KNOWN.contains(&option) => {}
            _ => bail!(EINVAL),
        }
    }
    Ok(discard)
}

/// `mount(2)` of a disk.
fn mount(ctx: &Ctx, request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let discard = check_options(request.data)?;
    if request.source.is_empty() {
        bail!(EINVAL, "no disk is named");
    }
    let vfs = &ctx.kernel.vfs;
    let node = vfs.resolve(ctx, AT_FDCWD, request.source, WalkFlags::FOLLOW)?;
    let inode = &node.dentry.inode;
    if inode.file_type() != FileType::BlockDevice {
        bail!(ENOTBLK);
    }
    let rdev = inode.attr()?.rdev;
    let Some(disk) = vfs.devices.get(DeviceKind::Block, rdev)?.block_device() else {
        bail!(ENOTBLK);
    };
    if let Some(fs) = vfs.mounted_fs(rdev) {
        return Ok(fs);
    }
    // As exclusive opens of Linux: a disk and its partitions are not in use at the same time.
    if crate::block::in_use(vfs, &disk) {
        bail!(EBUSY, "a file system on the same disk is mounted");
    }
    if disk.read_only() && !request.read_only {
        bail!(EACCES, "the image was opened read-only");
    }
    match Ext4Fs::mount(&disk, request.read_only) {
        Ok(fs) => {
            fs.lock().set_discard(discard.unwrap_or(false));
            Ok(fs)
        }
        Err(e) => {
            let text: String = alloc::format!("EXT4-fs ({}): {e}", disk.name());
            ctx.kernel.message(crate::log::Level::Error, text);
            // What is no file system of this type is EINVAL to mount(2), whatever else is wrong with it.
            Err(error(e))
        }
    }
}

/// The types of file system that this module knows.
pub const TYPES: [FsType; 3] = [
    FsType { name: "ext4", needs_device: true, mount },
    FsType { name: "ext3", needs_device: true, mount },
    FsType { name: "ext2", needs_device: true, mount },
];
