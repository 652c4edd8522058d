//! Names: creating, linking, removing and renaming files.

use crate::device::BlockDevice;
use crate::dir::Found;
use crate::error::{Error, Result};
use crate::features::RoCompat;
use crate::fs::Fs;
use crate::inode::{FL_EA_INODE, FL_PROJINHERIT, I_BLOCK_LEN, Inode, Time};
use crate::le::put_bytes;
use crate::types::{FileType, Ino, NAME_MAX, NewInode, ROOT_INO, RenameFlags, Timestamp, Unlinked};

/// The most links of an inode (`EXT4_LINK_MAX`).
pub const LINK_MAX: u16 = 65000;

pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" => Err(Error::Invalid("an empty name")),
        b"." | b".." => Err(Error::Exists),
        _ if name.len() > NAME_MAX => Err(Error::NameTooLong),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Error::Invalid("a name with a slash or a zero byte")),
        _ => Ok(()),
    }
}

impl<D: BlockDevice> Fs<D> {
    /// A directory that takes a new name.
    fn live_dir(&mut self, dir: Ino) -> Result<Inode> {
        let d = self.changed_dir(dir)?;
        // A removed directory that is still open takes no entries.
        if d.nlink() == 0 { Err(Error::NotFound) } else { Ok(d) }
    }

    /// A directory whose entries will change: one with inline entries gets a block for them.
    fn changed_dir(&mut self, dir: Ino) -> Result<Inode> {
        let mut d = self.dir_inode(dir)?;
        self.dir_leave_inode(&mut d)?;
        Ok(d)
    }

    /// Fails if files of `dir` inherit its project and `inode` is of another.
    fn check_project(dir: &Inode, inode: &Inode) -> Result<()> {
        if dir.has(FL_PROJINHERIT) && dir.project() != inode.project() {
            return Err(Error::OtherProject);
        }
        Ok(())
    }

    /// Adds a link to `dir` for a subdirectory's `..`. With `dir_nlink`, a count over the limit becomes 1, "not
    /// counted".
    fn add_dir_link(&self, dir: &mut Inode) -> Result<()> {
        let n = dir.nlink();
        if n == 1 {
            return Ok(());
        }
        if n < LINK_MAX {
            dir.set_nlink(n + 1);
        } else if self.sb.features.ro_compat.contains(RoCompat::DIR_NLINK) && self.is_indexed(dir) {
            dir.set_nlink(1);
        } else {
            return Err(Error::TooManyLinks);
        }
        Ok(())
    }

    fn drop_dir_link(dir: &mut Inode) {
        let n = dir.nlink();
        if n > 2 {
            dir.set_nlink(n - 1);
        }
    }

    /// Creates a file of any type but a symbolic link. Permissions, owner and times are `new`'s; the directory's
    /// default ACL is the caller's to apply.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoSpace`], [`Error::NameTooLong`], [`Error::TooManyLinks`],
    /// [`Error::NotDirectory`], [`Error::NotFound`] if the directory was removed, [`Error::Invalid`] for a symbolic
    /// link or a malformed name, [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn create(&mut self, dir: Ino, name: &[u8], new: &NewInode) -> Result<Ino> {
        if new.file_type == FileType::Symlink {
            return Err(Error::Invalid("symbolic links are made with a target"));
        }
        check_name(name)?;
        self.operation(|fs| fs.create_in_operation(dir, name, new))
    }

    /// [`Fs::create`] as part of an operation, with a name that is possible.
    pub(crate) fn create_in_operation(&mut self, dir: Ino, name: &[u8], new: &NewInode) -> Result<Ino> {
        let mut d = self.live_dir(dir)?;
        let slot = self.entry_slot(&mut d, name)?;
        let mut inode = self.alloc_inode(&d, new)?;
        inode.set_nlink(1);
        if new.file_type == FileType::Directory {
            self.add_dir_link(&mut d)?;
            self.init_dir(&mut inode, dir)?;
            inode.set_nlink(2);
        }
        self.put_inode(&mut inode, true)?;
        self.insert_entry(&mut d, name, inode.ino, new.file_type, slot)?;
        self.put_modified(&mut d, new.now, true)?;
        Ok(inode.ino)
    }

    /// Creates a symbolic link. Targets below 60 bytes are stored in the inode.
    ///
    /// # Errors
    /// As [`Fs::create`]; [`Error::NameTooLong`] for a target of a block or more, [`Error::NotFound`] for an empty
    /// one.
    pub fn symlink(&mut self, dir: Ino, name: &[u8], target: &[u8], new: &NewInode) -> Result<Ino> {
        check_name(name)?;
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        if target.len() >= self.bs {
            return Err(Error::NameTooLong);
        }
        let new = NewInode { file_type: FileType::Symlink, mode: 0o777, ..*new };
        self.operation(|fs| {
            let mut d = fs.live_dir(dir)?;
            let slot = fs.entry_slot(&mut d, name)?;
            let mut inode = fs.alloc_inode(&d, &new)?;
            inode.set_nlink(1);
            inode.set_size(target.len() as u64);
            if target.len() < I_BLOCK_LEN {
                put_bytes(inode.i_block_mut(), 0, target);
            } else {
                fs.init_map(&mut inode);
                let (start, _) = fs.fill_hole(&mut inode, 0, 1, false)?;
                let mut block = alloc::vec![0; fs.bs];
                put_bytes(&mut block, 0, target);
                fs.dev.write_at(fs.offset_of(start), &block)?;
                fs.cache.txn.data_written = true;
            }
            fs.put_inode(&mut inode, true)?;
            fs.insert_entry(&mut d, name, inode.ino, FileType::Symlink, slot)?;
            fs.put_modified(&mut d, new.now, true)?;
            Ok(inode.ino)
        })
    }

    /// Creates a file without a name (`O_TMPFILE`): it is on the orphan list until [`Fs::link`] gives it one, and is
    /// freed by [`Fs::release`] otherwise.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn tmpfile(&mut self, dir: Ino, new: &NewInode) -> Result<Ino> {
        if new.file_type != FileType::Regular {
            return Err(Error::Invalid("only regular files can be nameless"));
        }
        self.operation(|fs| {
            let d = fs.live_dir(dir)?;
            let mut inode = fs.alloc_inode(&d, new)?;
            inode.set_nlink(0);
            fs.orphan_add(&mut inode)?;
            fs.note_time(new.now);
            fs.put_inode(&mut inode, true)?;
            Ok(inode.ino)
        })
    }

    /// Gives an inode a further name.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for a directory, and as [`Fs::create`].
    pub fn link(&mut self, dir: Ino, name: &[u8], ino: Ino, now: Timestamp) -> Result<()> {
        check_name(name)?;
        self.operation(|fs| {
            let mut d = fs.live_dir(dir)?;
            let mut inode = fs.inode(ino)?;
            let Some(file_type) = inode.file_type().filter(|t| *t != FileType::Directory) else {
                return Err(Error::NotPermitted("directories have one name only"));
            };
            if ino < fs.sb.first_ino || inode.has(FL_EA_INODE) {
                return Err(Error::NotPermitted("the file system's own inodes have no names"));
            }
            if inode.nlink() >= LINK_MAX {
                return Err(Error::TooManyLinks);
            }
            Self::check_project(&d, &inode)?;
            let slot = fs.entry_slot(&mut d, name)?;
            if inode.nlink() == 0 {
                fs.orphan_remove(&mut inode)?;
            }
            inode.set_nlink(inode.nlink() + 1);
            inode.set_time(Time::Change, now);
            fs.put_inode(&mut inode, true)?;
            fs.insert_entry(&mut d, name, ino, file_type, slot)?;
            fs.put_modified(&mut d, now, true)
        })
    }

    /// Takes a name's link from an inode that is not a directory. At 0 links it joins the orphan list.
    fn drop_link(&mut self, inode: &mut Inode, now: Timestamp) -> Result<Unlinked> {
        let n = inode.nlink();
        if n == 0 {
            return Err(Error::inode(inode.ino, "a directory entry leads to an inode without links"));
        }
        inode.set_nlink(n - 1);
        inode.set_time(Time::Change, now);
        if n == 1 {
            self.orphan_add(inode)?;
        }
        self.put_inode(inode, true)?;
        Ok(Unlinked { ino: inode.ino, nlink: u32::from(n - 1) })
    }

    /// Removes an empty directory's links: it joins the orphan list.
    fn drop_dir(&mut self, inode: &mut Inode, now: Timestamp) -> Result<Unlinked> {
        inode.set_nlink(0);
        inode.set_size(0);
        inode.set_time(Time::Change, now);
        self.orphan_add(inode)?;
        self.put_inode(inode, true)?;
        Ok(Unlinked { ino: inode.ino, nlink: 0 })
    }

    fn find(&mut self, dir: &Inode, name: &[u8]) -> Result<(Found, Inode)> {
        let f = self.find_entry(dir, name)?.ok_or(Error::NotFound)?;
        if f.ino < self.sb.first_ino && f.ino != ROOT_INO {
            return Err(Error::inode(dir.ino, "a directory entry leads to one of the file system's own inodes"));
        }
        let inode = self.inode(f.ino).map_err(|e| match e {
            Error::NotFound => Error::inode(dir.ino, "a directory entry leads to a free inode"),
            e => e,
        })?;
        Ok((f, inode))
    }

    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::NotDirectory`], [`Error::ReadOnly`],
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn unlink(&mut self, dir: Ino, name: &[u8], now: Timestamp) -> Result<Unlinked> {
        self.operation(|fs| {
            let mut d = fs.changed_dir(dir)?;
            let (found, mut inode) = fs.find(&d, name)?;
            if inode.is_dir() {
                return Err(Error::IsDirectory);
            }
            fs.remove_entry(&mut d, found)?;
            fs.put_modified(&mut d, now, true)?;
            fs.drop_link(&mut inode, now)
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Invalid`] for `.`, and as [`Fs::unlink`].
    pub fn rmdir(&mut self, dir: Ino, name: &[u8], now: Timestamp) -> Result<Unlinked> {
        match name {
            b"." => return Err(Error::Invalid("a directory cannot be removed by the name .")),
            b".." => return Err(Error::NotEmpty),
            _ => {}
        }
        self.operation(|fs| {
            let mut d = fs.changed_dir(dir)?;
            let (found, mut inode) = fs.find(&d, name)?;
            if !inode.is_dir() {
                return Err(Error::NotDirectory);
            }
            if inode.ino == dir {
                return Err(Error::inode(dir, "a directory entry leads to the directory itself"));
            }
            if !fs.dir_is_empty(&inode)? {
                return Err(Error::NotEmpty);
            }
            fs.remove_entry(&mut d, found)?;
            Self::drop_dir_link(&mut d);
            fs.put_modified(&mut d, now, true)?;
            fs.drop_dir(&mut inode, now)
        })
    }

    /// Renames an entry, replacing what `new_name` leads to unless `flags` say otherwise. Returns the inode that lost
    /// its name, if one did.
    ///
    /// # Errors
    /// [`Error::Exists`] with `NOREPLACE`; [`Error::Invalid`] if a directory would be moved into itself;
    /// [`Error::IsDirectory`], [`Error::NotDirectory`], [`Error::NotEmpty`] for a target that does not fit; and as
    /// [`Fs::create`].
    pub fn rename(
        &mut self,
        old_dir: Ino,
        old_name: &[u8],
        new_dir: Ino,
        new_name: &[u8],
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<Option<Unlinked>> {
        let dots = |n: &[u8]| n == b"." || n == b"..";
        if dots(old_name) || dots(new_name) {
            return Err(Error::Invalid("the names . and .. cannot be renamed"));
        }
        check_name(new_name)?;
        if flags.contains(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) {
            return Err(Error::Invalid("NOREPLACE and EXCHANGE exclude each other"));
        }
        self.operation(|fs| {
            if flags.contains(RenameFlags::EXCHANGE) {
                fs.exchange(old_dir, old_name, new_dir, new_name, now)
            } else {
                fs.move_entry(old_dir, old_name, new_dir, new_name, flags, now)
            }
        })
    }

    /// Fails if `inode` is `dir` or an ancestor of it.
    fn check_not_ancestor(&mut self, inode: &Inode, dir: Ino) -> Result<()> {
        let mut at = dir;
        for _ in 0..self.sb.inodes_count {
            if at == inode.ino {
                return Err(Error::Invalid("a directory cannot be moved into itself"));
            }
            if at == ROOT_INO {
                return Ok(());
            }
            let d = self.dir_inode(at)?;
            at = self.find_entry(&d, b"..")?.ok_or(Error::inode(at, "the directory has no .. entry"))?.ino;
        }
        Err(Error::inode(dir, "the directory's parents form a loop"))
    }

    fn move_entry(
        &mut self,
        old_dir: Ino,
        old_name: &[u8],
        new_dir: Ino,
        new_name: &[u8],
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<Option<Unlinked>> {
        let mut od = self.changed_dir(old_dir)?;
        let (_, mut inode) = self.find(&od, old_name)?;
        let mut nd = self.live_dir(new_dir)?;
        Self::check_project(&nd, &inode)?;
        let target = match self.find_entry(&nd, new_name)? {
            Some(_) => Some(self.find(&nd, new_name)?),
            None => None,
        };
        if target.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Error::Exists);
        }
        let is_dir = inode.is_dir();
        let Some(file_type) = inode.file_type() else {
            return Err(Error::inode(inode.ino, "the mode names no file type"));
        };
        if let Some((_, t)) = &target {
            // Two names of one inode: nothing to do.
            if t.ino == inode.ino {
                return Ok(None);
            }
            match (is_dir, t.is_dir()) {
                (true, false) => return Err(Error::NotDirectory),
                (false, true) => return Err(Error::IsDirectory),
                (true, true) if !self.dir_is_empty(t)? => return Err(Error::NotEmpty),
                _ => {}
            }
        }
        let across = old_dir != new_dir;
        if is_dir && across {
            self.check_not_ancestor(&inode, new_dir)?;
        }
        let mut gone = None;
        match target {
            Some((found, mut t)) => {
                self.set_entry(&nd, found, inode.ino, file_type)?;
                if is_dir {
                    gone = Some(self.drop_dir(&mut t, now)?);
                    // The removed directory's `..` goes; a moved one's comes instead.
                    if !across {
                        Self::drop_dir_link(&mut nd);
                    }
                } else {
                    gone = Some(self.drop_link(&mut t, now)?);
                }
            }
            None => {
                if is_dir && across {
                    self.add_dir_link(&mut nd)?;
                }
                let slot = self.entry_slot(&mut nd, new_name)?;
                self.insert_entry(&mut nd, new_name, inode.ino, file_type, slot)?;
            }
        }
        self.put_modified(&mut nd, now, true)?;
        if !across {
            od = nd.clone();
        }
        // The insertion may have moved the old entry.
        let found = self.find_entry(&od, old_name)?.ok_or(Error::inode(old_dir, "a directory entry vanished"))?;
        self.remove_entry(&mut od, found)?;
        if is_dir && across {
            Self::drop_dir_link(&mut od);
            self.set_parent(&inode, new_dir)?;
        }
        self.put_modified(&mut od, now, true)?;
        // Renaming changes the inode's ctime; directories keep their own entry for the parent.
        inode.set_time(Time::Change, now);
        self.put_inode(&mut inode, true)?;
        Ok(gone)
    }

    fn exchange(
        &mut self,
        old_dir: Ino,
        old_name: &[u8],
        new_dir: Ino,
        new_name: &[u8],
        now: Timestamp,
    ) -> Result<Option<Unlinked>> {
        let mut od = self.changed_dir(old_dir)?;
        let mut nd = self.changed_dir(new_dir)?;
        let (a, mut ai) = self.find(&od, old_name)?;
        let (b, mut bi) = self.find(&nd, new_name)?;
        if ai.ino == bi.ino {
            return Ok(None);
        }
        Self::check_project(&nd, &ai)?;
        Self::check_project(&od, &bi)?;
        let (Some(at), Some(bt)) = (ai.file_type(), bi.file_type()) else {
            return Err(Error::inode(ai.ino, "the mode names no file type"));
        };
        let across = old_dir != new_dir;
        if across {
            if ai.is_dir() {
                self.check_not_ancestor(&ai, new_dir)?;
            }
            if bi.is_dir() {
                self.check_not_ancestor(&bi, old_dir)?;
            }
        }
        self.set_entry(&od, a, bi.ino, bt)?;
        self.set_entry(&nd, b, ai.ino, at)?;
        if across {
            if ai.is_dir() {
                self.set_parent(&ai, new_dir)?;
            }
            if bi.is_dir() {
                self.set_parent(&bi, old_dir)?;
            }
            if ai.is_dir() != bi.is_dir() {
                let (gains, loses) = if ai.is_dir() { (&mut nd, &mut od) } else { (&mut od, &mut nd) };
                self.add_dir_link(gains)?;
                Self::drop_dir_link(loses);
            }
        }
        self.put_modified(&mut od, now, true)?;
        if across {
            self.put_modified(&mut nd, now, true)?;
        }
        for i in [&mut ai, &mut bi] {
            i.set_time(Time::Change, now);
            self.put_inode(i, true)?;
        }
        Ok(None)
    }

    /// Says that nothing refers to an inode any more: if it has no links, its blocks and the inode are freed.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`]. The inode then stays on the orphan list.
    pub fn release(&mut self, ino: Ino) -> Result<()> {
        if self.inode(ino)?.nlink() > 0 || self.read_only {
            return Ok(());
        }
        self.delete_inode(ino)
    }

    /// Frees the blocks, the attributes and the inode of an orphan, in as many operations as it takes.
    pub(crate) fn delete_inode(&mut self, ino: Ino) -> Result<()> {
        loop {
            let done = self.operation(|fs| {
                let mut inode = fs.inode_raw(ino)?;
                if !fs.remove_range(&mut inode, 0, 1 << 32)? {
                    fs.put_inode(&mut inode, true)?;
                    return Ok(false);
                }
                fs.drop_xattrs(&mut inode)?;
                fs.orphan_remove(&mut inode)?;
                fs.free_inode(&mut inode)?;
                Ok(true)
            })?;
            if done {
                return Ok(());
            }
        }
    }
}
