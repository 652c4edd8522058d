//! Making, removing and moving names: `mkdir(2)`, `mknod(2)`, `symlink(2)`, `link(2)`, `unlink(2)`, `rmdir(2)`,
//! `rename(2)`.

use super::open::Birth;
use super::permission::check_sticky;
use super::walk::{Last, NamePlace};
use super::{Access, Dentry, FileType, InodeRef, Location, NewInode, NotifyEvents, Vfs, notify};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::MutexGuard;
use crate::task::{Capabilities, Creds};
use alloc::sync::Arc;

/// `renameat2(2)`: fail if the new name exists.
pub const RENAME_NOREPLACE: u32 = 1;
/// `renameat2(2)`: exchange the two names.
pub const RENAME_EXCHANGE: u32 = 2;

impl Vfs {
    /// Makes a name: checks that it is free and that the directory may be changed, then lets `make` do it.
    fn make_name(
        &self,
        ctx: &Ctx,
        place: NamePlace,
        directory: bool,
        make: impl FnOnce(&Location, &Creds, &[u8]) -> Result<InodeRef>,
    ) -> Result<Location> {
        let NamePlace { dir, last, creds } = place;
        let Last::Name(name, slashes) = last else {
            bail!(EEXIST);
        };
        let _guard = dir.dentry.lock.lock();
        if dir.dentry.lookup_locked(ctx, &self.lru, &name)?.is_some() {
            bail!(EEXIST);
        }
        if slashes && !directory {
            bail!(ENOENT);
        }
        Vfs::alive(&dir.dentry)?;
        dir.permission(creds, Access::WRITE | Access::EXEC)?;
        let inode = make(&dir, creds, &name)?;
        let named = inode.file_type();
        let dentry = dir.dentry.add(&self.lru, &name, inode);
        notify::name(&dir.dentry.inode, &name, NotifyEvents::CREATE, named);
        Ok(Location { mount: dir.mount.clone(), dentry })
    }

    /// `mkdirat(2)`.
    pub fn mkdir(&self, ctx: &Ctx, dirfd: i32, path: &[u8], mode: u32) -> Result<Location> {
        let place = self.resolve_parent(ctx, dirfd, path)?;
        // Of the set-id bits only the sticky one can be asked for.
        let mode = mode & 0o1777;
        self.make_name(ctx, place, true, |dir, creds, name| {
            Birth::new(ctx, creds, &dir.dentry.inode, FileType::Directory, mode)?.create(ctx, &dir.dentry.inode, name)
        })
    }

    /// `mknodat(2)`: a regular file, FIFO, socket or, with `CAP_MKNOD`, a device node.
    pub fn mknod(
        &self,
        ctx: &Ctx,
        dirfd: i32,
        path: &[u8],
        file_type: FileType,
        mode: u32,
        rdev: u64,
    ) -> Result<Location> {
        let place = self.resolve_parent(ctx, dirfd, path)?;
        self.make_name(ctx, place, false, |dir, creds, name| {
            let device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
            if device && !creds.capable(Capabilities::MKNOD) {
                bail!(EPERM);
            }
            let mut birth = Birth::new(ctx, creds, &dir.dentry.inode, file_type, mode)?;
            birth.new.rdev = if device { rdev } else { 0 };
            birth.create(ctx, &dir.dentry.inode, name)
        })
    }

    /// `symlinkat(2)`.
    pub fn symlink(&self, ctx: &Ctx, target: &[u8], dirfd: i32, path: &[u8]) -> Result<Location> {
        if target.is_empty() {
            bail!(ENOENT);
        }
        let place = self.resolve_parent(ctx, dirfd, path)?;
        self.make_name(ctx, place, false, |dir, creds, name| {
            let birth = Birth::new(ctx, creds, &dir.dentry.inode, FileType::Symlink, 0)?;
            dir.dentry.inode.symlink(name, target, &NewInode { mode: 0o777, ..birth.new })
        })
    }

    /// `linkat(2)`: another name for what is at `old`.
    pub fn link(&self, ctx: &Ctx, old: &Location, dirfd: i32, path: &[u8]) -> Result<()> {
        let place = self.resolve_parent(ctx, dirfd, path)?;
        let inode = &old.dentry.inode;
        self.make_name(ctx, place, false, |dir, _, name| {
            if !Arc::ptr_eq(&dir.mount, &old.mount) {
                bail!(EXDEV);
            }
            if inode.file_type() == FileType::Directory {
                bail!(EPERM);
            }
            inode.check_changeable()?;
            dir.dentry.inode.link(name, inode)?;
            // The number of its names.
            notify::inode(inode, NotifyEvents::ATTRIB);
            Ok(inode.clone())
        })?;
        Ok(())
    }

    /// Checks that a name may be taken out of `dir`, or replaced by a directory or something else (`directory`).
    fn may_remove(&self, ctx: &Ctx, creds: &Creds, dir: &Location, victim: &Dentry, directory: bool) -> Result<()> {
        dir.permission(creds, Access::WRITE | Access::EXEC)?;
        dir.dentry.inode.check_not_append_only()?;
        check_sticky(creds, &dir.dentry.inode.attr()?, &victim.inode.attr()?)?;
        victim.inode.check_changeable()?;
        let is_directory = victim.inode.file_type() == FileType::Directory;
        match (directory, is_directory) {
            (true, false) => bail!(ENOTDIR),
            (false, true) => bail!(EISDIR),
            _ => {}
        }
        if self.is_mounted_on(ctx, victim) {
            bail!(EBUSY, "a file system is mounted here");
        }
        Vfs::alive(&dir.dentry)
    }

    /// `unlinkat(2)` without `AT_REMOVEDIR`.
    pub fn unlink(&self, ctx: &Ctx, dirfd: i32, path: &[u8]) -> Result<()> {
        let NamePlace { dir, last, creds } = self.resolve_parent(ctx, dirfd, path)?;
        let Last::Name(name, slashes) = last else {
            bail!(EISDIR);
        };
        self.unlink_child(ctx, creds, &dir, &name, slashes)
    }

    /// Removes a name of a directory that the kernel knows by itself, or has walked to; `slashes` follow the name.
    ///
    /// # Errors
    /// Those of `unlink(2)`.
    pub(crate) fn unlink_child(
        &self,
        ctx: &Ctx,
        creds: &Creds,
        dir: &Location,
        name: &[u8],
        slashes: bool,
    ) -> Result<()> {
        let guard = dir.dentry.lock.lock();
        let Some(victim) = dir.dentry.lookup_locked(ctx, &self.lru, name)? else {
            bail!(ENOENT);
        };
        if slashes {
            match victim.inode.file_type() {
                FileType::Directory => bail!(EISDIR),
                _ => bail!(ENOTDIR),
            }
        }
        self.may_remove(ctx, creds, dir, &victim, false)?;
        dir.dentry.inode.unlink(name)?;
        let removed = victim.inode.file_type();
        victim.mark_deleted();
        dir.dentry.removed(name);
        notify::inode(&victim.inode, NotifyEvents::ATTRIB);
        // The inode may be freed with the last reference: not under the directory's lock.
        drop(guard);
        self.take_off(&victim);
        drop(victim);
        notify::name(&dir.dentry.inode, name, NotifyEvents::DELETE, removed);
        Ok(())
    }

    /// `rmdir(2)`, `unlinkat(2)` with `AT_REMOVEDIR`.
    pub fn rmdir(&self, ctx: &Ctx, dirfd: i32, path: &[u8]) -> Result<()> {
        let NamePlace { dir, last, creds } = self.resolve_parent(ctx, dirfd, path)?;
        let name = match last {
            Last::Name(name, _) => name,
            Last::DotDot => bail!(ENOTEMPTY),
            Last::Dot if path.iter().all(|&b| b == b'/') => bail!(EBUSY),
            Last::Dot => bail!(EINVAL),
        };
        let guard = dir.dentry.lock.lock();
        let Some(victim) = dir.dentry.lookup_locked(ctx, &self.lru, &name)? else {
            bail!(ENOENT);
        };
        self.may_remove(ctx, creds, &dir, &victim, true)?;
        let inside = victim.lock.lock();
        dir.dentry.inode.rmdir(&name)?;
        victim.mark_deleted();
        dir.dentry.removed(&name);
        drop(inside);
        drop(guard);
        self.take_off(&victim);
        drop(victim);
        notify::name(&dir.dentry.inode, &name, NotifyEvents::DELETE, FileType::Directory);
        Ok(())
    }

    /// `renameat2(2)`.
    pub fn rename(
        &self,
        ctx: &Ctx,
        (old_fd, old_path): (i32, &[u8]),
        (new_fd, new_path): (i32, &[u8]),
        flags: u32,
    ) -> Result<()> {
        if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0 || flags == RENAME_NOREPLACE | RENAME_EXCHANGE {
            bail!(EINVAL);
        }
        let NamePlace { dir: old_dir, last: old_last, creds } = self.resolve_parent(ctx, old_fd, old_path)?;
        let NamePlace { dir: new_dir, last: new_last, .. } = self.resolve_parent(ctx, new_fd, new_path)?;
        if !Arc::ptr_eq(&old_dir.mount, &new_dir.mount) {
            bail!(EXDEV);
        }
        let Last::Name(old_name, old_slashes) = old_last else {
            bail!(EBUSY);
        };
        let Last::Name(new_name, new_slashes) = new_last else {
            if flags & RENAME_NOREPLACE != 0 {
                bail!(EEXIST);
            }
            bail!(EBUSY);
        };
        let same_dir = Arc::ptr_eq(&old_dir.dentry, &new_dir.dentry);
        let tree = (!same_dir).then(|| old_dir.mount.sb.rename.lock());
        let guards = lock_both(&old_dir.dentry, &new_dir.dentry);
        let Some(source) = old_dir.dentry.lookup_locked(ctx, &self.lru, &old_name)? else {
            bail!(ENOENT);
        };
        let target = new_dir.dentry.lookup_locked(ctx, &self.lru, &new_name)?;
        let exchange = flags & RENAME_EXCHANGE != 0;
        match &target {
            Some(_) if flags & RENAME_NOREPLACE != 0 => bail!(EEXIST),
            None if exchange => bail!(ENOENT),
            _ => {}
        }
        let source_is_dir = source.inode.file_type() == FileType::Directory;
        let target_is_dir = target.as_ref().map(|t| t.inode.file_type() == FileType::Directory);
        if exchange && new_slashes && target_is_dir == Some(false) {
            bail!(ENOTDIR);
        }
        if !source_is_dir && (old_slashes || !exchange && new_slashes) {
            bail!(ENOTDIR);
        }
        if new_dir.dentry.is_within(&source) {
            bail!(EINVAL, "a directory cannot move into itself");
        }
        if let Some(target) = &target {
            if old_dir.dentry.is_within(target) {
                if exchange {
                    bail!(EINVAL);
                }
                bail!(ENOTEMPTY);
            }
            if Arc::ptr_eq(&source.inode, &target.inode) {
                return Ok(());
            }
        }
        self.may_remove(ctx, creds, &old_dir, &source, source_is_dir)?;
        match &target {
            Some(target) if exchange => self.may_remove(ctx, creds, &new_dir, target, target_is_dir == Some(true))?,
            Some(target) => self.may_remove(ctx, creds, &new_dir, target, source_is_dir)?,
            None => {
                Vfs::alive(&new_dir.dentry)?;
                new_dir.permission(creds, Access::WRITE | Access::EXEC)?;
            }
        }
        if !same_dir {
            // A directory that moves has its `..` rewritten.
            let moves = |dentry: &Arc<Dentry>| {
                Location { mount: old_dir.mount.clone(), dentry: dentry.clone() }.permission(creds, Access::WRITE)
            };
            if source_is_dir {
                moves(&source)?;
            }
            if let (true, Some(true), Some(target)) = (exchange, target_is_dir, &target) {
                moves(target)?;
            }
        }
        let inside = match &target {
            Some(target) if !exchange && target_is_dir == Some(true) => Some(target.lock.lock()),
            _ => None,
        };
        old_dir.dentry.inode.rename(&old_name, &new_dir.dentry.inode, &new_name, flags)?;
        if exchange {
            old_dir.dentry.exchanged(&old_name, &new_dir.dentry, &new_name);
        } else {
            if let Some(target) = &target {
                target.mark_deleted();
            }
            old_dir.dentry.moved(&old_name, &new_dir.dentry, &new_name);
        }
        // Whoever hears of it and looks finds the new names.
        let (from, to) = ((&old_dir.dentry.inode, &*old_name), (&new_dir.dentry.inode, &*new_name));
        notify::moved(from, to, source.inode.file_type());
        if let Some(target) = target.as_ref().filter(|_| !exchange) {
            notify::inode(&target.inode, NotifyEvents::ATTRIB);
        }
        notify::inode(&source.inode, NotifyEvents::MOVE_SELF);
        if let Some(target) = target.as_ref().filter(|_| exchange) {
            notify::moved(to, from, target.inode.file_type());
            notify::inode(&target.inode, NotifyEvents::MOVE_SELF);
        }
        drop(inside);
        drop(guards);
        drop(tree);
        if let Some(target) = target.filter(|_| !exchange) {
            self.take_off(&target);
        }
        Ok(())
    }
}

/// Locks two directories, an ancestor before what is below it, so that it agrees with `rmdir`'s parent before child.
fn lock_both<'a>(a: &'a Arc<Dentry>, b: &'a Arc<Dentry>) -> (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>) {
    if Arc::ptr_eq(a, b) {
        return (a.lock.lock(), None);
    }
    let a_first = if b.is_within(a) {
        true
    } else if a.is_within(b) {
        false
    } else {
        Arc::as_ptr(a) < Arc::as_ptr(b)
    };
    let (first, second) = if a_first { (a, b) } else { (b, a) };
    let first = first.lock.lock();
    (first, Some(second.lock.lock()))
}

impl Location {
    /// `readlink(2)`: the target of the symbolic link here; `EINVAL` for anything else.
    pub fn read_link(&self, ctx: &Ctx) -> Result<alloc::vec::Vec<u8>> {
        let inode = &self.dentry.inode;
        if inode.file_type() != FileType::Symlink {
            return Err(Errno::EINVAL.into());
        }
        let target = inode.read_link(ctx)?;
        ctx.kernel.vfs.touch_atime(self);
        Ok(target)
    }
}
