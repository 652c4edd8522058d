//! Changes of ext4: each goes through [`ext4::Fs`], and what it changed of the inodes in memory is read back.

use super::inode::Ext4Inode;
use super::volume::Locked;
use super::{Ext4Fs, error};
use crate::bail;
use crate::block::Disk;
use crate::errno::{Errno, Result};
use crate::vfs::{FileType, InodeRef, NewInode, RENAME_EXCHANGE, RENAME_NOREPLACE, SetAttr, Timestamp, major, minor};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

fn to_disk_time(t: Timestamp) -> ext4::Timestamp {
    ext4::Timestamp { sec: t.sec, nsec: t.nsec }
}

pub(super) fn now() -> ext4::Timestamp {
    to_disk_time(Timestamp::now())
}

fn to_disk_type(t: FileType) -> ext4::FileType {
    match t {
        FileType::Regular => ext4::FileType::Regular,
        FileType::Directory => ext4::FileType::Directory,
        FileType::Symlink => ext4::FileType::Symlink,
        FileType::CharDevice => ext4::FileType::CharDevice,
        FileType::BlockDevice => ext4::FileType::BlockDevice,
        FileType::Fifo => ext4::FileType::Fifo,
        FileType::Socket => ext4::FileType::Socket,
    }
}

fn to_disk_inode(new: &NewInode) -> ext4::NewInode {
    ext4::NewInode {
        file_type: to_disk_type(new.file_type),
        mode: new.mode as u16 & 0o7777,
        uid: new.uid,
        gid: new.gid,
        rdev: (major(new.rdev), minor(new.rdev)),
        now: now(),
    }
}

impl Ext4Fs {
    /// The file system, to change it.
    pub(super) fn lock_to_change(&self) -> Locked<'_> {
        let fs = self.lock();
        self.dirty.store(true, Ordering::Release);
        fs
    }

    /// The inode with this number, if it is in memory.
    fn in_memory(&self, ino: u32) -> Option<Arc<Ext4Inode>> {
        self.inodes.lock().get(&ino).and_then(Weak::upgrade)
    }

    /// Reads back what a change did to an inode that is in memory.
    fn refresh(&self, ino: u32) -> Result<()> {
        if let Some(inode) = self.in_memory(ino) {
            let mut fs = self.lock();
            let result = inode.refresh_from(&mut fs);
            drop(fs);
            return result;
        }
        Ok(())
    }

    /// An inode lost a name: if it was the last, and nobody has the inode, it is freed now.
    fn lost_name(&self, unlinked: &ext4::Unlinked) -> Result<()> {
        match self.in_memory(unlinked.ino) {
            Some(_) => self.refresh(unlinked.ino),
            None if unlinked.nlink == 0 => self.lock_to_change().release(unlinked.ino).map_err(error),
            None => Ok(()),
        }
    }

    /// Notes that an inode's times are newer in memory than on the disk.
    pub(super) fn times_pending(&self, inode: &Ext4Inode) {
        if let Some(inode) = self.in_memory(inode.ino()) {
            self.late_times.lock().push(Arc::downgrade(&inode));
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Brings times that were only noted in memory to the file system.
    pub(super) fn store_times(&self) -> Result<()> {
        let pending = core::mem::take(&mut *self.late_times.lock());
        let inodes: Vec<Arc<Ext4Inode>> = pending.iter().filter_map(Weak::upgrade).collect();
        let mut fs = self.lock();
        let result = inodes.iter().try_for_each(|inode| inode.store_times(&mut fs));
        drop(fs);
        result
    }
}

impl Ext4Inode {
    /// Makes a change of this inode and reads back what it did.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&mut ext4::Fs<Arc<Disk>>) -> core::result::Result<T, ext4::Error>,
    ) -> Result<T> {
        let mut fs = self.fs.lock_to_change();
        self.store_times(&mut fs)?;
        let result = work(&mut fs);
        self.refresh_from(&mut fs)?;
        result.map_err(error)
    }

    pub(super) fn change_attr(&self, set: &SetAttr) -> Result<()> {
        let disk = ext4::SetAttr {
            mode: set.mode.map(|m| m as u16 & 0o7777),
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            atime: set.atime.map(to_disk_time),
            mtime: set.mtime.map(to_disk_time),
            ctime: set.ctime.map(to_disk_time),
            ..ext4::SetAttr::default()
        };
        let ino = self.ino();
        let Some(size) = set.size else {
            return self.change(|fs| fs.set_attr(ino, &disk));
        };
        let mut extents = self.extents.write();
        extents.check_room(size)?;
        extents.forget();
        let old = self.size();
        self.change(|fs| fs.set_attr(ino, &disk))?;
        self.clear_shadow(&extents, self.size(), old)
    }

    pub(super) fn add_name(&self, name: &[u8], new: &NewInode) -> Result<InodeRef> {
        let dir = self.ino();
        let ino = self.change(|fs| fs.create(dir, name, &to_disk_inode(new)))?;
        Ok(self.fs.inode(ino)?)
    }

    pub(super) fn add_symlink(&self, name: &[u8], target: &[u8], new: &NewInode) -> Result<InodeRef> {
        let dir = self.ino();
        let ino = self.change(|fs| fs.symlink(dir, name, target, &to_disk_inode(new)))?;
        Ok(self.fs.inode(ino)?)
    }

    /// The inode behind a reference, if it is of the same file system.
    fn sibling<'a>(&self, inode: &'a InodeRef) -> Result<&'a Ext4Inode> {
        match inode.as_any().downcast_ref::<Ext4Inode>() {
            Some(inode) if Arc::ptr_eq(&inode.fs, &self.fs) => Ok(inode),
            _ => bail!(EXDEV),
        }
    }

    pub(super) fn add_link(&self, name: &[u8], target: &InodeRef) -> Result<()> {
        let target = self.sibling(target)?;
        let (dir, ino) = (self.ino(), target.ino());
        target.change(|fs| fs.link(dir, name, ino, now()))?;
        self.fs.refresh(dir)
    }

    pub(super) fn remove_name(&self, name: &[u8], directory: bool) -> Result<()> {
        let dir = self.ino();
        let remove = |fs: &mut ext4::Fs<Arc<Disk>>| match directory {
            true => fs.rmdir(dir, name, now()),
            false => fs.unlink(dir, name, now()),
        };
        let unlinked = self.change(remove)?;
        self.fs.lost_name(&unlinked)
    }

    pub(super) fn move_name(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result<()> {
        let to = self.sibling(new_dir)?;
        let mut how = ext4::RenameFlags::empty();
        how.set(ext4::RenameFlags::NOREPLACE, flags & RENAME_NOREPLACE != 0);
        how.set(ext4::RenameFlags::EXCHANGE, flags & RENAME_EXCHANGE != 0);
        let (from_ino, to_ino) = (self.ino(), to.ino());
        let (moved, other, unlinked) = self.change(|fs| {
            let moved = fs.lookup(from_ino, name)?;
            let other = fs.lookup(to_ino, new_name).ok();
            let unlinked = fs.rename(from_ino, name, to_ino, new_name, how, now())?;
            Ok((moved, other, unlinked))
        })?;
        self.fs.refresh(to_ino)?;
        self.fs.refresh(moved)?;
        match (unlinked, other) {
            (Some(unlinked), _) => self.fs.lost_name(&unlinked),
            (None, Some(other)) => self.fs.refresh(other),
            (None, None) => Ok(()),
        }
    }

    pub(super) fn new_tmpfile(&self, new: &NewInode) -> Result<InodeRef> {
        let dir = self.ino();
        let ino = self.change(|fs| fs.tmpfile(dir, &to_disk_inode(new)))?;
        Ok(self.fs.inode(ino)?)
    }

    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        const CREATE: u32 = 1;
        const REPLACE: u32 = 2;
        let mode = match flags {
            0 => ext4::XattrMode::Any,
            CREATE => ext4::XattrMode::Create,
            REPLACE => ext4::XattrMode::Replace,
            _ => return Err(Errno::EINVAL.into()),
        };
        let ino = self.ino();
        self.change(|fs| fs.xattr_set(ino, name, value, mode, now()))
    }

    pub(super) fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let ino = self.ino();
        self.change(|fs| fs.xattr_remove(ino, name, now()))
    }

    /// `fsync(2)` and `fdatasync(2)`, which does not wait for times.
    pub(super) fn make_durable(&self, data_only: bool) -> Result<()> {
        self.store_shadow()?;
        let mut fs = self.fs.lock();
        let lost = fs.check_lost();
        if fs.is_read_only() {
            return lost;
        }
        if !data_only {
            self.store_times(&mut fs)?;
        }
        fs.fsync(self.ino(), data_only).map_err(error)?;
        lost
    }

    /// The last reference is gone: late times are stored, and an inode without names is freed.
    pub(super) fn let_go(&self) {
        let mut fs = self.fs.lock();
        if fs.is_read_only() {
            return;
        }
        // Nobody is left to be told; an inode that could not be freed stays on the orphan list for the next mount.
        let _ = if self.nlink() == 0 {
            self.fs.dirty.store(true, Ordering::Release);
            fs.release(self.ino()).map_err(error)
        } else {
            self.store_times(&mut fs)
        };
    }
}
