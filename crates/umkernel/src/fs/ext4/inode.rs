//! Inodes of ext4: names and attributes.

use super::data::Extents;
use super::{Ext4Fs, error};
use crate::bail;
use crate::block::Disk;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, RwLock, SeqLock};
use crate::vfs::{
    Attr, DirEntry, DirSink, FileType, HostExtent, Inode, InodeCommon, InodeFlags, InodeRef, NewInode, SetAttr,
    Timestamp, makedev,
};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

/// The flags that programs see (`EXT4_FL_USER_VISIBLE`).
const VISIBLE_FLAGS: u32 = 0x705b_dfff;

/// An inode in memory.
pub struct Ext4Inode {
    pub(super) fs: Arc<Ext4Fs>,
    ino: u32,
    file_type: FileType,
    /// As on the disk; every change goes to both.
    attr: SeqLock<Attr>,
    /// A symbolic link's target, once read.
    target: Mutex<Option<Arc<[u8]>>>,
    /// Where the data lies; held while data moves.
    pub(super) extents: RwLock<Extents>,
    /// Modification and change time are newer here than on the disk.
    late_times: AtomicBool,
    common: InodeCommon,
}

pub(super) fn to_vfs_type(t: ext4::FileType) -> FileType {
    match t {
        ext4::FileType::Regular => FileType::Regular,
        ext4::FileType::Directory => FileType::Directory,
        ext4::FileType::Symlink => FileType::Symlink,
        ext4::FileType::CharDevice => FileType::CharDevice,
        ext4::FileType::BlockDevice => FileType::BlockDevice,
        ext4::FileType::Fifo => FileType::Fifo,
        ext4::FileType::Socket => FileType::Socket,
    }
}

fn to_vfs_time(t: ext4::Timestamp) -> Timestamp {
    Timestamp { sec: t.sec, nsec: t.nsec }
}

fn to_vfs_attr(a: &ext4::Attr, dev: u64, blksize: u64) -> Attr {
    let created = to_vfs_time(a.crtime);
    Attr {
        dev,
        ino: u64::from(a.ino),
        file_type: to_vfs_type(a.file_type),
        mode: u32::from(a.mode),
        nlink: u64::from(a.nlink),
        uid: a.uid,
        gid: a.gid,
        rdev: makedev(a.rdev.0, a.rdev.1),
        size: a.size,
        blksize: blksize as u32,
        blocks: a.blocks512,
        atime: to_vfs_time(a.atime),
        mtime: to_vfs_time(a.mtime),
        ctime: to_vfs_time(a.ctime),
        btime: (created != Timestamp::default()).then_some(created),
    }
}

impl Ext4Inode {
    pub(super) fn new(fs: Arc<Ext4Fs>, attr: ext4::Attr) -> Ext4Inode {
        let vfs_attr = to_vfs_attr(&attr, fs.disk.rdev(), fs.block_size);
        let common = InodeCommon::default();
        common.note_flags(attr.flags & VISIBLE_FLAGS);
        Ext4Inode {
            fs,
            ino: attr.ino,
            file_type: vfs_attr.file_type,
            attr: SeqLock::new(vfs_attr),
            target: Mutex::new(None),
            extents: RwLock::default(),
            late_times: AtomicBool::new(false),
            common,
        }
    }

    /// Inode number.
    pub(super) fn ino(&self) -> u32 {
        self.ino
    }

    pub(super) fn size(&self) -> u64 {
        self.attr.read().size
    }

    /// A weak reference to this inode, which is in the cache while it lives.
    pub(super) fn weak(&self) -> Weak<Ext4Inode> {
        let known = self.fs.inodes.lock().get(&self.ino).cloned();
        known.unwrap_or_default()
    }

    /// When the contents changed last.
    pub(super) fn modified(&self) -> Timestamp {
        self.attr.read().mtime
    }

    pub(super) fn nlink(&self) -> u64 {
        self.attr.read().nlink
    }

    /// Reads the attributes back from the file system.
    pub(super) fn refresh_from(&self, fs: &mut ext4::Fs<Arc<Disk>>) -> Result<()> {
        let attr = fs.attr(self.ino).map_err(error)?;
        self.common.note_flags(attr.flags & VISIBLE_FLAGS);
        *self.attr.write() = to_vfs_attr(&attr, self.fs.disk.rdev(), self.fs.block_size);
        Ok(())
    }

    /// Notes in memory that the contents changed; the disk hears of it with the next change or commit.
    pub(super) fn touch(&self) {
        let now = Timestamp::now();
        {
            let mut attr = self.attr.write();
            attr.mtime = now;
            attr.ctime = now;
        }
        if !self.late_times.swap(true, Ordering::AcqRel) {
            self.fs.times_pending(self);
        }
    }

    /// Notes in memory that the file grew from `old` to `size` bytes, in blocks that follow its last.
    pub(super) fn note_appended(&self, old: u64, size: u64, now: Timestamp) {
        let bs = self.fs.block_size;
        let mut attr = self.attr.write();
        attr.size = size;
        attr.blocks += (size.div_ceil(bs) - old.div_ceil(bs)) * (bs / 512);
        attr.mtime = now;
        attr.ctime = now;
    }

    /// Brings times that were only noted in memory to the file system.
    pub(super) fn store_times(&self, fs: &mut ext4::Fs<Arc<Disk>>) -> Result<()> {
        if !self.late_times.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let attr = self.attr.read();
        let time = |t: Timestamp| Some(ext4::Timestamp { sec: t.sec, nsec: t.nsec });
        let set = ext4::SetAttr { mtime: time(attr.mtime), ctime: time(attr.ctime), ..ext4::SetAttr::default() };
        fs.set_attr(self.ino, &set).map_err(error)
    }
}

/// Directory entries on their way out of the file system's lock.
struct Batch {
    names: Vec<u8>,
    entries: Vec<(u32, Option<FileType>, usize, u64)>,
}

impl Inode for Ext4Inode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr.read())
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn common(&self) -> Option<&InodeCommon> {
        Some(&self.common)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        self.change_attr(set)
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<InodeRef> {
        self.add_name(name, new)
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: &NewInode) -> Result<InodeRef> {
        self.add_symlink(name, target, new)
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<()> {
        self.add_link(name, target)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.remove_name(name, false)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove_name(name, true)
    }

    fn rename(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result<()> {
        self.move_name(name, new_dir, new_name, flags)
    }

    fn tmpfile(&self, new: &NewInode) -> Result<InodeRef> {
        self.new_tmpfile(new)
    }

    fn lookup(&self, _ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        let ino = self.fs.lock_for_names().lookup(self.ino, name).map_err(error)?;
        Ok(self.fs.inode(ino)?)
    }

    fn read_link(&self, _ctx: &Ctx) -> Result<Vec<u8>> {
        if let Some(target) = &*self.target.lock() {
            return Ok(target.to_vec());
        }
        let target = self.fs.lock_for_names().read_link(self.ino).map_err(error)?;
        *self.target.lock() = Some(Arc::from(&target[..]));
        Ok(target)
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        /// Entries taken under the lock at once.
        const BATCH: usize = 256;
        let mut cookie = cookie;
        loop {
            let mut batch = Batch { names: Vec::new(), entries: Vec::with_capacity(BATCH) };
            self.fs
                .lock_for_names()
                .read_dir(self.ino, cookie, &mut |e| {
                    if batch.entries.len() == BATCH {
                        return false;
                    }
                    batch.names.extend_from_slice(e.name);
                    batch.entries.push((e.ino, e.file_type.map(to_vfs_type), batch.names.len(), e.next));
                    true
                })
                .map_err(error)?;
            let mut start = 0;
            for &(ino, file_type, end, next) in &batch.entries {
                let file_type = match file_type {
                    Some(file_type) => file_type,
                    None => to_vfs_type(self.fs.lock_for_names().attr(ino).map_err(error)?.file_type),
                };
                let entry = DirEntry { ino: u64::from(ino), file_type, name: &batch.names[start..end], next };
                if !sink(&entry) {
                    return Ok(());
                }
                start = end;
                cookie = next;
            }
            if batch.entries.len() < BATCH {
                return Ok(());
            }
        }
    }

    fn read_at(&self, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        if self.file_type != FileType::Regular {
            bail!(EINVAL);
        }
        self.read_data(offset, dst)
    }

    fn write_at(&self, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        if self.file_type != FileType::Regular {
            bail!(EINVAL);
        }
        if self.common.flags().contains(InodeFlags::IMMUTABLE) {
            bail!(EPERM, "the file is immutable");
        }
        self.write_data(offset, append, src)
    }

    fn fallocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.reserve(mode, offset, len)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.make_durable(data_only)
    }

    fn seek_data_or_hole(&self, offset: u64, hole: bool) -> Result<u64> {
        let mut fs = self.fs.lock();
        let found = if hole { fs.seek_hole(self.ino, offset) } else { fs.seek_data(self.ino, offset) };
        found.map_err(error)?.ok_or(Errno::ENXIO.into())
    }

    fn host_extents(&self, offset: u64, len: u64, shared: bool) -> Result<Vec<HostExtent>> {
        if self.file_type != FileType::Regular {
            bail!(ENODEV);
        }
        self.mapped_extents(offset, len, shared)
    }

    fn told_flags(&self) -> InodeFlags {
        InodeFlags::IMMUTABLE
            | InodeFlags::APPEND
            | InodeFlags::NODUMP
            | InodeFlags::COMPRESSED
            | InodeFlags::ENCRYPTED
            | InodeFlags::VERITY
    }

    fn set_flags(&self, flags: u32) -> Result<()> {
        if flags & !VISIBLE_FLAGS != 0 {
            bail!(EOPNOTSUPP, "unknown flags");
        }
        self.change(|fs| fs.set_attr(self.ino, &ext4::SetAttr { flags: Some(flags), ..ext4::SetAttr::default() }))
    }

    fn keeps_acls(&self) -> bool {
        true
    }

    fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.fs.lock_for_names().xattr_get(self.ino, name).map_err(error)
    }

    fn xattr_set(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.set_xattr(name, value, flags)
    }

    fn xattr_remove(&self, name: &[u8]) -> Result<()> {
        self.remove_xattr(name)
    }

    fn xattr_list(&self) -> Result<Vec<Vec<u8>>> {
        self.fs.lock_for_names().xattr_list(self.ino).map_err(error)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Ext4Inode {
    fn drop(&mut self) {
        self.fs.forget(self);
        self.drop_shadow();
        self.let_go();
    }
}
