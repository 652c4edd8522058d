//! Changing attributes, and making changes durable.

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::{FL_USER, Time};
use crate::types::{Ino, SetAttr};

impl<D: BlockDevice> Fs<D> {
    /// Changes attributes; a size goes first.
    ///
    /// # Errors
    /// [`Error::TooBig`], [`Error::IsDirectory`] or [`Error::Invalid`] for the size of something that has none,
    /// [`Error::NotFound`], [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn set_attr(&mut self, ino: Ino, set: &SetAttr) -> Result<()> {
        if let Some(size) = set.size {
            let inode = self.inode(ino)?;
            Self::check_regular(&inode)?;
            if size != inode.size() {
                self.resize(ino, size, inode.nlink() == 0)?;
            }
        }
        if (SetAttr { size: None, ..*set }) == SetAttr::default() {
            return Ok(());
        }
        self.operation(|fs| {
            let mut inode = fs.inode(ino)?;
            let mut more = false;
            if let Some(mode) = set.mode {
                inode.set_mode(inode.mode() & 0o170_000 | mode & 0o7777);
                more = true;
            }
            if let Some(uid) = set.uid {
                inode.set_uid(uid);
                more = true;
            }
            if let Some(gid) = set.gid {
                inode.set_gid(gid);
                more = true;
            }
            if let Some(flags) = set.flags {
                inode.set_flags(inode.flags() & !FL_USER | flags & FL_USER);
                more = true;
            }
            for (which, t) in [
                (Time::Access, set.atime),
                (Time::Modify, set.mtime),
                (Time::Change, set.ctime),
                (Time::Create, set.crtime),
            ] {
                if let Some(t) = t {
                    inode.set_time(which, t);
                    if which == Time::Change {
                        fs.note_time(t);
                    }
                }
            }
            fs.put_inode(&mut inode, more)
        })
    }

    /// Makes everything durable (`syncfs(2)`): commits the transaction and waits for the device.
    ///
    /// # Errors
    /// [`Error::Io`]; the file system is then read-only.
    pub fn sync(&mut self) -> Result<()> {
        if self.read_only || self.cache.txn.is_empty() { self.flush_data() } else { self.commit() }
    }

    /// Makes one file durable (`fsync(2)`; with `data_only`, `fdatasync(2)`, which does not wait for times).
    ///
    /// # Errors
    /// [`Error::NotFound`], and as [`Fs::sync`].
    pub fn fsync(&mut self, ino: Ino, data_only: bool) -> Result<()> {
        if ino == 0 || ino > self.sb.inodes_count {
            return Err(Error::NotFound);
        }
        match self.cache.txn.inodes.get(&ino) {
            Some(more) if *more || !data_only => self.commit(),
            _ => self.flush_data(),
        }
    }

    fn flush_data(&mut self) -> Result<()> {
        self.dev.flush()?;
        self.cache.txn.data_written = false;
        Ok(())
    }
}
