//! Inodes of tmpfs.

use super::data::FileData;
use super::directory::Names;
use super::{TmpFs, now};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc, PAGE_SIZE};
use crate::sync::{Mutex, SeqLock};
use crate::vfs::{
    Attr, DirSink, FileType, HostExtent, Inode, InodeCommon, InodeFlags, InodeRef, NewInode, RENAME_EXCHANGE,
    SEAL_EXEC, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE, SetAttr, Timestamp,
};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;

/// Space that a directory entry counts for in `st_size` (`BOGO_DIRENT_SIZE` of Linux).
const ENTRY_SIZE: u64 = 20;

/// An inode.
pub struct TmpInode {
    fs: Arc<TmpFs>,
    ino: u64,
    file_type: FileType,
    attr: SeqLock<Attr>,
    body: Body,
    xattrs: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    common: InodeCommon,
    me: Weak<TmpInode>,
}

enum Body {
    File(Mutex<FileData>),
    Directory { names: Mutex<Names>, parent: Mutex<Weak<TmpInode>> },
    Symlink(Vec<u8>),
    Other,
}

impl TmpInode {
    pub(super) fn new(
        fs: &Arc<TmpFs>,
        new: &NewInode,
        target: Option<&[u8]>,
        parent: Weak<TmpInode>,
    ) -> Result<Arc<TmpInode>> {
        let ino = fs.take_inode()?;
        let time = now();
        let directory = new.file_type == FileType::Directory;
        let attr = Attr {
            dev: fs.dev,
            ino,
            file_type: new.file_type,
            mode: new.mode,
            nlink: if directory { 2 } else { 1 },
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            size: target.map_or(if directory { 2 * ENTRY_SIZE } else { 0 }, |t| t.len() as u64),
            blksize: PAGE_SIZE as u32,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: Some(time),
        };
        let body = match (new.file_type, target) {
            (FileType::Regular, _) => Body::File(Mutex::default()),
            (FileType::Directory, _) => Body::Directory { names: Mutex::default(), parent: Mutex::new(parent) },
            (FileType::Symlink, Some(target)) => Body::Symlink(target.to_vec()),
            _ => Body::Other,
        };
        Ok(Arc::new_cyclic(|me| TmpInode {
            fs: fs.clone(),
            ino,
            file_type: new.file_type,
            attr: SeqLock::new(attr),
            body,
            xattrs: Mutex::default(),
            common: InodeCommon::sealable(SEAL_SEAL),
            me: me.clone(),
        }))
    }

    fn me(&self) -> Result<Arc<TmpInode>> {
        self.me.upgrade().ok_or(Errno::EIO.into())
    }

    /// Notes that a rename gave this inode another parent.
    fn moved_to(&self, dir: &TmpInode) -> Result<()> {
        if let Body::Directory { parent, .. } = &self.body {
            *parent.lock() = dir.me.clone();
        }
        self.attr.write().ctime = now();
        Ok(())
    }

    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    /// Makes a new file one without a name and with these seals.
    pub(super) fn unnamed(&self, seals: u32) {
        self.attr.write().nlink = 0;
        self.common.set_seals(seals);
    }

    fn seals(&self) -> u32 {
        self.common.seals().unwrap_or(0)
    }

    /// A name in this directory.
    pub(super) fn child(&self, name: &[u8]) -> Result<InodeRef> {
        match self.names()?.lock().get(name) {
            Some(inode) => Ok(inode.clone()),
            None => bail!(ENOENT),
        }
    }

    fn names(&self) -> Result<&Mutex<Names>> {
        match &self.body {
            Body::Directory { names, .. } => Ok(names),
            _ => bail!(ENOTDIR),
        }
    }

    fn data(&self) -> Result<&Mutex<FileData>> {
        match &self.body {
            Body::File(data) => Ok(data),
            _ if self.file_type == FileType::Directory => bail!(EISDIR),
            _ => bail!(EINVAL),
        }
    }

    /// Notes that a name came or went, and how many subdirectories more there are.
    fn names_changed(&self, entries: i64, subdirectories: i64) {
        let mut attr = self.attr.write();
        attr.size = attr.size.wrapping_add_signed(entries * ENTRY_SIZE as i64);
        attr.nlink = attr.nlink.wrapping_add_signed(subdirectories);
        attr.mtime = now();
        attr.ctime = attr.mtime;
    }

    /// Notes that a name of this inode came or went.
    fn links_changed(&self, links: i64) {
        let mut attr = self.attr.write();
        attr.nlink = attr.nlink.saturating_add_signed(links);
        attr.ctime = now();
    }

    fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// Adds a new inode to this directory; `EEXIST` if the name is there already.
    fn add(self: &Arc<TmpInode>, name: &[u8], new: &NewInode, target: Option<&[u8]>) -> Result<Arc<TmpInode>> {
        let mut names = self.names()?.lock();
        if self.attr.read().nlink == 0 {
            bail!(ENOENT);
        }
        if names.get(name).is_some() {
            bail!(EEXIST);
        }
        let inode = TmpInode::new(&self.fs, new, target, Arc::downgrade(self))?;
        names.set(name, inode.clone());
        drop(names);
        self.names_changed(1, i64::from(inode.is_directory()));
        Ok(inode)
    }

    /// The inode of this file system behind a reference.
    fn downcast(inode: &InodeRef) -> Result<&TmpInode> {
        inode.as_any().downcast_ref::<TmpInode>().ok_or(Errno::EXDEV.into())
    }

    /// Sets times and marks after the data changed.
    fn data_changed(&self, data: &FileData, time: Timestamp) {
        let mut attr = self.attr.write();
        attr.size = data.size;
        attr.blocks = data.pages() * (PAGE_SIZE / 512);
        attr.mtime = time;
        attr.ctime = time;
    }
}

/// An `Arc` of the same inode.
fn shared(inode: &InodeRef) -> Result<Arc<TmpInode>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    any.downcast::<TmpInode>().map_err(|_| Errno::EXDEV.into())
}

impl Inode for TmpInode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr.read())
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn told_flags(&self) -> InodeFlags {
        InodeFlags::IMMUTABLE | InodeFlags::APPEND | InodeFlags::NODUMP
    }

    fn set_flags(&self, flags: u32) -> Result<()> {
        let known = InodeFlags::IMMUTABLE | InodeFlags::APPEND | InodeFlags::NODUMP | InodeFlags::NOATIME;
        if flags & !known.bits() != 0 {
            bail!(EOPNOTSUPP, "flags that tmpfs has not");
        }
        self.common.note_flags(flags);
        Ok(())
    }

    fn common(&self) -> Option<&InodeCommon> {
        Some(&self.common)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        if let Some(size) = set.size {
            let mut data = self.data()?.lock();
            let seals = self.seals();
            if size < data.size && seals & SEAL_SHRINK != 0 || size > data.size && seals & SEAL_GROW != 0 {
                bail!(EPERM);
            }
            data.resize(&self.fs, size)?;
            let mut attr = self.attr.write();
            attr.size = data.size;
            attr.blocks = data.pages() * (PAGE_SIZE / 512);
        }
        let mut attr = self.attr.write();
        if set.mode.is_some_and(|mode| (mode ^ attr.mode) & 0o111 != 0) && self.seals() & SEAL_EXEC != 0 {
            bail!(EPERM);
        }
        attr.apply(set);
        Ok(())
    }

    fn lookup(&self, _ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        self.child(name)
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<InodeRef> {
        Ok(self.me()?.add(name, new, None)?)
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: &NewInode) -> Result<InodeRef> {
        let new = NewInode { file_type: FileType::Symlink, ..*new };
        Ok(self.me()?.add(name, &new, Some(target))?)
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<()> {
        let inode = shared(target)?;
        if !Arc::ptr_eq(&inode.fs, &self.fs) {
            bail!(EXDEV);
        }
        let mut names = self.names()?.lock();
        if names.get(name).is_some() {
            bail!(EEXIST);
        }
        inode.links_changed(1);
        names.set(name, inode);
        drop(names);
        self.names_changed(1, 0);
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let gone = self.names()?.lock().remove(name);
        let Some(inode) = gone else {
            bail!(ENOENT);
        };
        inode.links_changed(-1);
        self.names_changed(-1, 0);
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let mut names = self.names()?.lock();
        let Some(inode) = names.get(name).cloned() else {
            bail!(ENOENT);
        };
        {
            let inside = inode.names()?.lock();
            if !inside.is_empty() {
                bail!(ENOTEMPTY);
            }
            inode.attr.write().nlink = 0;
        }
        names.remove(name);
        drop(names);
        self.names_changed(-1, -1);
        Ok(())
    }

    fn rename(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result<()> {
        let to = TmpInode::downcast(new_dir)?;
        if !Arc::ptr_eq(&to.fs, &self.fs) {
            bail!(EXDEV);
        }
        let source = self.names()?.lock().get(name).cloned();
        let Some(source) = source else {
            bail!(ENOENT);
        };
        let target = to.names()?.lock().get(new_name).cloned();
        let is_dir = |inode: &Arc<TmpInode>| i64::from(inode.is_directory());
        if flags & RENAME_EXCHANGE != 0 {
            let Some(target) = target else {
                bail!(ENOENT);
            };
            self.names()?.lock().set(name, target.clone());
            to.names()?.lock().set(new_name, source.clone());
            self.names_changed(0, is_dir(&target) - is_dir(&source));
            to.names_changed(0, is_dir(&source) - is_dir(&target));
            source.moved_to(to)?;
            target.moved_to(self)?;
            return Ok(());
        }
        if let Some(target) = &target {
            if target.is_directory() {
                if !target.names()?.lock().is_empty() {
                    bail!(ENOTEMPTY);
                }
                target.attr.write().nlink = 0;
            } else {
                target.links_changed(-1);
            }
        }
        self.names()?.lock().remove(name);
        to.names()?.lock().set(new_name, source.clone());
        self.names_changed(-1, -is_dir(&source));
        let replaced = target.as_ref().map_or((1, 0), |t| (0, is_dir(t)));
        to.names_changed(replaced.0, is_dir(&source) - replaced.1);
        source.moved_to(to)
    }

    fn tmpfile(&self, new: &NewInode) -> Result<InodeRef> {
        let inode = TmpInode::new(&self.fs, new, None, Weak::new())?;
        inode.attr.write().nlink = 0;
        Ok(inode)
    }

    fn read_link(&self, _ctx: &Ctx) -> Result<Vec<u8>> {
        match &self.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => bail!(EINVAL),
        }
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        let Body::Directory { names, parent } = &self.body else {
            bail!(ENOTDIR);
        };
        let parent = parent.lock().upgrade().map_or(self.ino, |p| p.ino);
        names.lock().list(cookie, (self.ino, parent), sink);
        Ok(())
    }

    fn read_at(&self, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        self.data()?.lock().read(&self.fs.store, offset, dst)
    }

    fn write_at(&self, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        let mut data = self.data()?.lock();
        let offset = if append { data.size } else { offset };
        let seals = self.seals();
        if seals & (SEAL_WRITE | SEAL_FUTURE_WRITE) != 0
            || seals & SEAL_GROW != 0 && offset.saturating_add(src.remaining() as u64) > data.size
        {
            bail!(EPERM);
        }
        let n = data.write(&self.fs, offset, src)?;
        self.data_changed(&data, now());
        Ok((n, offset + n as u64))
    }

    fn fallocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        let mut data = self.data()?.lock();
        let seals = self.seals();
        if mode & PUNCH_HOLE != 0 {
            if seals & (SEAL_WRITE | SEAL_FUTURE_WRITE) != 0 {
                bail!(EPERM);
            }
            data.punch(&self.fs, offset, len)?;
        } else if mode & !KEEP_SIZE == 0 {
            if seals & SEAL_GROW != 0 && offset + len > data.size {
                bail!(EPERM);
            }
            data.reserve(&self.fs, offset, len, mode & KEEP_SIZE != 0)?;
        } else {
            bail!(EOPNOTSUPP);
        }
        self.data_changed(&data, now());
        Ok(())
    }

    fn seek_data_or_hole(&self, offset: u64, hole: bool) -> Result<u64> {
        let data = self.data()?.lock();
        if offset >= data.size {
            bail!(ENXIO);
        }
        data.seek(offset, hole).ok_or(Errno::ENXIO.into())
    }

    fn host_extents(&self, offset: u64, len: u64, shared: bool) -> Result<Vec<HostExtent>> {
        let Body::File(data) = &self.body else {
            bail!(ENODEV);
        };
        let mut data = data.lock();
        let extents = data.extents(&self.fs, offset, len, shared)?;
        self.attr.write().blocks = data.pages() * (PAGE_SIZE / 512);
        Ok(extents)
    }

    fn keeps_acls(&self) -> bool {
        true
    }

    fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.xattrs.lock().get(name).cloned().ok_or(Errno::ENODATA.into())
    }

    fn xattr_set(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        const CREATE: u32 = 1;
        const REPLACE: u32 = 2;
        if name.starts_with(b"system.") && !name.starts_with(b"system.posix_acl_") {
            bail!(EOPNOTSUPP);
        }
        let mut xattrs = self.xattrs.lock();
        match xattrs.contains_key(name) {
            true if flags & CREATE != 0 => bail!(EEXIST),
            false if flags & REPLACE != 0 => bail!(ENODATA),
            _ => {}
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        self.attr.write().ctime = now();
        Ok(())
    }

    fn xattr_list(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.xattrs.lock().keys().cloned().collect())
    }

    fn xattr_remove(&self, name: &[u8]) -> Result<()> {
        self.xattrs.lock().remove(name).ok_or(Errno::ENODATA)?;
        self.attr.write().ctime = now();
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        match &mut self.body {
            Body::File(data) => data.get_mut().free(&self.fs),
            Body::Directory { names, .. } => {
                // The instance is gone with all that is in it: freed in a loop, since trees may be thousands deep.
                let mut pending = names.get_mut().take_all();
                while let Some(inode) = pending.pop() {
                    if let Some(inode) = Arc::into_inner(inode)
                        && let Body::Directory { names, .. } = &inode.body
                    {
                        pending.extend(names.lock().take_all());
                    }
                }
            }
            Body::Symlink(_) | Body::Other => {}
        }
        self.fs.return_inode();
    }
}
