//! Opening files (`open(2)`, `openat2(2)`), and what the kernel itself opens.

use super::acl::{self, Acl, Kind};
use super::file::Hold;
use super::walk::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW};
use super::walk::{Last, Walk};
use super::{
    Access, Dentry, DeviceKind, File, FileOps, FileType, InodeFlags, InodeRef, Location, MountFlags, NewInode,
    NotifyEvents, OpenFlags, Pipe, Vfs, WalkFlags, check_access, notify,
};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::task::{Capabilities, Creds};
use alloc::boxed::Box;
use alloc::sync::Arc;

const SET_GID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o10;

/// How to open: the arguments of `openat2(2)`.
#[derive(Clone, Copy, Debug)]
pub struct OpenHow {
    /// `O_*`.
    pub flags: OpenFlags,
    /// Permission bits of a file that is created, before the umask.
    pub mode: u32,
    /// Restrictions on the walk (`RESOLVE_*`).
    pub resolve: WalkFlags,
}

impl OpenHow {
    /// Without restrictions on the walk.
    pub fn new(flags: OpenFlags, mode: u32) -> OpenHow {
        OpenHow { flags, mode, resolve: WalkFlags::empty() }
    }

    fn access(&self) -> Access {
        match self.flags.bits() & 3 {
            0 => Access::READ,
            1 => Access::WRITE,
            _ => Access::READ | Access::WRITE,
        }
    }
}

/// What a new inode begins with.
pub(super) struct Birth {
    /// Its attributes.
    pub(super) new: NewInode,
    access: Option<Acl>,
    default: Option<Acl>,
}

impl Birth {
    /// An inode to be made in `dir` (`inode(7)`, `acl(5)`): the set-group-ID bit of a directory is inherited, and so are default
    /// access control lists, which stand in for the umask.
    pub(super) fn new(ctx: &Ctx, creds: &Creds, dir: &InodeRef, file_type: FileType, mode: u32) -> Result<Birth> {
        let attr = dir.attr()?;
        let mut mode = mode & 0o7777;
        let mut gid = creds.fsgid;
        if attr.mode & SET_GID != 0 {
            gid = attr.gid;
            if file_type == FileType::Directory {
                mode |= SET_GID;
            } else if mode & (SET_GID | GROUP_EXEC) == SET_GID | GROUP_EXEC
                && !creds.in_group(gid)
                && !creds.capable(Capabilities::FSETID)
            {
                mode &= !SET_GID;
            }
        }
        let inherited = if file_type == FileType::Symlink { None } else { acl::of(&**dir, Kind::Default)? };
        let mut access = None;
        match &inherited {
            Some(default) => {
                let mut own = default.clone();
                mode = own.of_new_file(mode);
                access = Some(own).filter(|own| own.mode().1);
            }
            None => mode &= !ctx.fs().inner.lock().umask,
        }
        let default = inherited.filter(|_| file_type == FileType::Directory);
        Ok(Birth { new: NewInode { file_type, mode, uid: creds.fsuid, gid, rdev: 0 }, access, default })
    }

    /// Makes it, under a name.
    pub(super) fn create(&self, ctx: &Ctx, dir: &InodeRef, name: &[u8]) -> Result<InodeRef> {
        let inode = dir.create_for(ctx, name, &self.new)?;
        if let Err(error) = self.give_acls(&inode) {
            // Nobody has seen it.
            let _ = if self.new.file_type == FileType::Directory { dir.rmdir(name) } else { dir.unlink(name) };
            return Err(error);
        }
        Ok(inode)
    }

    fn give_acls(&self, inode: &InodeRef) -> Result<()> {
        for (kind, acl) in [(Kind::Access, &self.access), (Kind::Default, &self.default)] {
            if acl.is_some() {
                acl::set(&**inode, kind, acl.as_ref())?;
            }
        }
        Ok(())
    }
}

impl Vfs {
    /// `openat(2)`: opens what `path` names, from `dirfd` or the working directory (`AT_FDCWD`).
    pub fn open(&self, ctx: &Ctx, dirfd: i32, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Arc<File>> {
        self.open_how(ctx, dirfd, path, OpenHow::new(flags, mode))
    }

    /// `openat2(2)`.
    pub fn open_how(&self, ctx: &Ctx, dirfd: i32, path: &[u8], how: OpenHow) -> Result<Arc<File>> {
        if how.flags.contains(OpenFlags::PATH) {
            return self.open_path(ctx, dirfd, path, how);
        }
        if how.flags.contains(OpenFlags::TMPFILE_BIT) {
            return self.open_tmpfile(ctx, dirfd, path, how);
        }
        if how.flags.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
            bail!(EINVAL);
        }
        let creates = how.flags.contains(OpenFlags::CREAT);
        let exclusive = how.flags.contains(OpenFlags::CREAT | OpenFlags::EXCL);
        let mut follow = !how.flags.contains(OpenFlags::NOFOLLOW) && !exclusive;
        let mut directory = how.flags.contains(OpenFlags::DIRECTORY);
        let mut walk = Walk::begin(ctx, dirfd, path, how.resolve)?;
        let mut path = path.to_vec();
        loop {
            let (name, slashes) = match walk.walk_to_last(self, &path)? {
                Last::Name(name, slashes) => (name, slashes),
                _ if exclusive => bail!(EEXIST),
                _ if creates => bail!(EISDIR),
                last => {
                    if last == Last::DotDot {
                        walk.dot_dot(self)?;
                    }
                    let creds = walk.creds.clone();
                    return self.open_existing(ctx, &creds, walk.finish(directory)?, how, false);
                }
            };
            if creates && slashes {
                bail!(EISDIR);
            }
            directory |= slashes;
            follow |= slashes;
            let (child, created) = self.lookup_or_create(ctx, &walk, &name, how)?;
            if !created && exclusive {
                bail!(EEXIST);
            }
            if child.inode.file_type() == FileType::Symlink && follow {
                match walk.follow(self, child)? {
                    Some(target) => path = target,
                    None => {
                        let creds = walk.creds.clone();
                        return self.open_existing(ctx, &creds, walk.finish(directory)?, how, false);
                    }
                }
                continue;
            }
            walk.step(self, child)?;
            let creds = walk.creds.clone();
            return self.open_existing(ctx, &creds, walk.finish(directory)?, how, created);
        }
    }

    /// Finds the last component, or makes a regular file of it if the flags say so. True if it was made.
    fn lookup_or_create(&self, ctx: &Ctx, walk: &Walk<'_>, name: &[u8], how: OpenHow) -> Result<(Arc<Dentry>, bool)> {
        let dir = &walk.at;
        if !how.flags.contains(OpenFlags::CREAT) {
            return match dir.dentry.lookup(ctx, &self.lru, name)? {
                Some(child) => Ok((child, false)),
                None => Err(Errno::ENOENT.into()),
            };
        }
        if let Some(Some(child)) = dir.dentry.cached(name) {
            return Ok((child, false));
        }
        let _guard = dir.dentry.lock.lock();
        if let Some(child) = dir.dentry.lookup_locked(ctx, &self.lru, name)? {
            return Ok((child, false));
        }
        Vfs::alive(&dir.dentry)?;
        dir.permission(walk.creds, Access::WRITE | Access::EXEC)?;
        let birth = Birth::new(ctx, walk.creds, &dir.dentry.inode, FileType::Regular, how.mode)?;
        let inode = birth.create(ctx, &dir.dentry.inode, name)?;
        let child = dir.dentry.add(&self.lru, name, inode);
        notify::name(&dir.dentry.inode, name, NotifyEvents::CREATE, FileType::Regular);
        Ok((child, true))
    }

    /// Opens a name of a directory that the kernel knows by itself, without a walk (`mq_open(2)`). If there is no such name,
    /// and the flags say so, `make` makes it.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `EROFS`, and what `make` says.
    pub(crate) fn open_child(
        &self,
        ctx: &Ctx,
        dir: &Location,
        name: &[u8],
        how: OpenHow,
        make: impl FnOnce(&NewInode) -> Result<InodeRef>,
    ) -> Result<Arc<File>> {
        let creds = ctx.creds();
        let guard = dir.dentry.lock.lock();
        let (child, created) = match dir.dentry.lookup_locked(ctx, &self.lru, name)? {
            Some(_) if how.flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) => bail!(EEXIST),
            Some(child) => (child, false),
            None if !how.flags.contains(OpenFlags::CREAT) => bail!(ENOENT),
            None => {
                dir.permission(creds, Access::WRITE | Access::EXEC)?;
                let inode = make(&Birth::new(ctx, creds, &dir.dentry.inode, FileType::Regular, how.mode)?.new)?;
                let child = dir.dentry.add(&self.lru, name, inode);
                notify::name(&dir.dentry.inode, name, NotifyEvents::CREATE, FileType::Regular);
                (child, true)
            }
        };
        drop(guard);
        self.open_existing(ctx, creds, Location { mount: dir.mount.clone(), dentry: child }, how, created)
    }

    fn open_path(&self, ctx: &Ctx, dirfd: i32, path: &[u8], how: OpenHow) -> Result<Arc<File>> {
        let kept = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
        let mut walk = how.resolve;
        walk.set(WalkFlags::FOLLOW, !how.flags.contains(OpenFlags::NOFOLLOW));
        walk.set(WalkFlags::DIRECTORY, how.flags.contains(OpenFlags::DIRECTORY));
        let location = self.resolve(ctx, dirfd, path, walk)?;
        let inode = location.dentry.inode.clone();
        Ok(Arc::new(File::new(location, inode, None, how.flags & kept & !OpenFlags::CLOEXEC)))
    }

    fn open_tmpfile(&self, ctx: &Ctx, dirfd: i32, path: &[u8], how: OpenHow) -> Result<Arc<File>> {
        if !how.flags.contains(OpenFlags::DIRECTORY) || !how.access().contains(Access::WRITE) {
            bail!(EINVAL);
        }
        if how.flags.contains(OpenFlags::CREAT) {
            bail!(EINVAL);
        }
        let dir = self.resolve(ctx, dirfd, path, how.resolve | WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
        let creds = ctx.creds();
        dir.permission(creds, Access::WRITE | Access::EXEC)?;
        let birth = Birth::new(ctx, creds, &dir.dentry.inode, FileType::Regular, how.mode)?;
        let inode = dir.dentry.inode.tmpfile(&birth.new)?;
        birth.give_acls(&inode)?;
        let name = alloc::format!("#{}", inode.attr()?.ino);
        let dentry = Dentry::nameless(inode.clone(), &dir.dentry, name.as_bytes());
        let location = Location { mount: dir.mount, dentry };
        Hold::Write.acquire(&location)?;
        notify::at(&location, NotifyEvents::OPEN);
        Ok(Arc::new(File::new(location, inode, None, kept_flags(how.flags)).holding(Hold::Write)))
    }

    /// Opens what a walk found. `created`: by this very call, which may use it whatever its mode says.
    fn open_existing(
        &self,
        ctx: &Ctx,
        creds: &Creds,
        location: Location,
        how: OpenHow,
        created: bool,
    ) -> Result<Arc<File>> {
        let inode = location.dentry.inode.clone();
        let file_type = inode.file_type();
        let access = how.access();
        let truncate = how.flags.contains(OpenFlags::TRUNC) && !created;
        match file_type {
            FileType::Symlink => bail!(ELOOP),
            FileType::Directory
                if access.contains(Access::WRITE) || how.flags.intersects(OpenFlags::CREAT | OpenFlags::TRUNC) =>
            {
                bail!(EISDIR)
            }
            FileType::CharDevice | FileType::BlockDevice if location.mount.flags().contains(MountFlags::NODEV) => {
                bail!(EACCES)
            }
            _ => {}
        }
        if !created {
            let mut want = access;
            if truncate {
                want |= Access::WRITE;
            }
            location.permission(creds, want)?;
            if inode.flags().contains(InodeFlags::APPEND)
                && (access.contains(Access::WRITE) && !how.flags.contains(OpenFlags::APPEND) || truncate)
            {
                bail!(EPERM, "the file is append-only");
            }
            if how.flags.contains(OpenFlags::NOATIME) && !creds.owns(&inode.attr()?) {
                bail!(EPERM);
            }
        }
        let hold =
            if file_type == FileType::Regular && access.contains(Access::WRITE) { Hold::Write } else { Hold::None };
        hold.acquire(&location)?;
        let opened = (|| {
            if file_type == FileType::Regular && !created {
                let write = truncate || access.contains(Access::WRITE);
                inode.break_leases(ctx, write, how.flags.contains(OpenFlags::NONBLOCK))?;
            }
            let ops = self.open_ops(ctx, &location, how.flags)?;
            notify::at(&location, NotifyEvents::OPEN);
            if truncate && file_type == FileType::Regular {
                self.truncate_inode(ctx, &location, 0)?;
            }
            Ok(ops)
        })();
        match opened {
            Ok(ops) => {
                let file = File::new(location, inode, ops, kept_flags(how.flags));
                Ok(Arc::new(file.holding(hold).created_by(created)))
            }
            Err(e) => {
                hold.release(&location);
                Err(e)
            }
        }
    }

    fn open_ops(&self, ctx: &Ctx, location: &Location, flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        let inode = &location.dentry.inode;
        let kind = match inode.file_type() {
            FileType::Socket => bail!(ENXIO),
            FileType::Fifo => return Pipe::open_fifo(ctx, location, flags).map(Some),
            FileType::CharDevice => DeviceKind::Char,
            FileType::BlockDevice => DeviceKind::Block,
            _ => return inode.clone().open(ctx, flags),
        };
        if let Some(ops) = inode.clone().open(ctx, flags)? {
            return Ok(Some(ops));
        }
        let rdev = inode.attr()?.rdev;
        self.devices.get(kind, rdev)?.open(ctx, location, rdev, flags).map(Some)
    }

    /// Opens a program to execute: a regular file with execute permission on a mount that allows it (`execve(2)`).
    /// While the file is open, nobody can open it for writing.
    pub fn open_exec(&self, ctx: &Ctx, path: &[u8]) -> Result<Arc<File>> {
        self.open_exec_at(ctx, super::AT_FDCWD, path, 0)
    }

    /// As [`Vfs::open_exec`], for `execveat(2)`; `flags` are `AT_EMPTY_PATH` and `AT_SYMLINK_NOFOLLOW`.
    pub fn open_exec_at(&self, ctx: &Ctx, dirfd: i32, path: &[u8], flags: u32) -> Result<Arc<File>> {
        let walk = WalkFlags::from_at(flags, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)?;
        let location = self.resolve(ctx, dirfd, path, walk)?;
        let inode = location.dentry.inode.clone();
        match inode.file_type() {
            FileType::Regular => {}
            FileType::Symlink => bail!(ELOOP),
            _ => bail!(EACCES, "not a regular file"),
        }
        if location.mount.flags().contains(MountFlags::NOEXEC) {
            bail!(EACCES, "the mount is noexec");
        }
        check_access(ctx.creds(), &inode, Access::EXEC)?;
        inode.break_leases(ctx, false, false)?;
        Hold::Execute.acquire(&location)?;
        notify::at(&location, NotifyEvents::OPEN);
        Ok(Arc::new(File::new(location, inode, None, OpenFlags::LARGEFILE).holding(Hold::Execute)))
    }
}

/// The flags that stay with an open file: those of `open(2)` that are not about opening alone.
fn kept_flags(flags: OpenFlags) -> OpenFlags {
    flags - (OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY | OpenFlags::TRUNC | OpenFlags::CLOEXEC)
}
