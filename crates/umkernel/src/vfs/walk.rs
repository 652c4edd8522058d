//! Path walks (`path_resolution(7)`, `symlink(7)`, `openat2(2)`).

use super::{Dentry, FileType, Location, MountFlags, Vfs};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::task::Creds;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Symbolic links that one walk may follow (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;
/// Longest name of one component (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// `AT_FDCWD`: relative paths start at the working directory.
pub const AT_FDCWD: i32 = -100;

bitflags::bitflags! {
    /// How a path is to be resolved.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WalkFlags: u32 {
        /// Follow a symbolic link in the last component.
        const FOLLOW = 1;
        /// An empty path means the starting point itself (`AT_EMPTY_PATH`).
        const EMPTY = 2;
        /// The result must be a directory.
        const DIRECTORY = 4;
        /// Do not cross mounts (`RESOLVE_NO_XDEV`).
        const NO_XDEV = 8;
        /// Follow no magic links (`RESOLVE_NO_MAGICLINKS`).
        const NO_MAGICLINKS = 16;
        /// Follow no symbolic links at all (`RESOLVE_NO_SYMLINKS`).
        const NO_SYMLINKS = 32;
        /// Stay below the starting point (`RESOLVE_BENEATH`).
        const BENEATH = 64;
        /// The starting point is the root (`RESOLVE_IN_ROOT`).
        const IN_ROOT = 128;
    }
}

/// `AT_SYMLINK_NOFOLLOW`: do not follow a link in the last component.
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// `AT_SYMLINK_FOLLOW`: follow a link in the last component (`linkat(2)`).
pub const AT_SYMLINK_FOLLOW: u32 = 0x400;
/// `AT_NO_AUTOMOUNT`: nothing here mounts by itself.
pub const AT_NO_AUTOMOUNT: u32 = 0x800;
/// `AT_EMPTY_PATH`: an empty path means the descriptor itself.
pub const AT_EMPTY_PATH: u32 = 0x1000;

impl WalkFlags {
    /// The walk that `AT_*` flags ask for; links are followed unless they say no. `EINVAL` for flags not in `allowed`.
    pub fn from_at(flags: u32, allowed: u32) -> Result<WalkFlags> {
        if flags & !allowed != 0 {
            bail!(EINVAL);
        }
        let mut walk = WalkFlags::empty();
        walk.set(WalkFlags::FOLLOW, flags & AT_SYMLINK_NOFOLLOW == 0);
        walk.set(WalkFlags::EMPTY, flags & AT_EMPTY_PATH != 0);
        Ok(walk)
    }
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// A name, and whether slashes follow it.
    Name(Vec<u8>, bool),
    /// `.`, or a path of slashes only.
    Dot,
    /// `..`.
    DotDot,
}

/// A walk stopped before its last component.
pub(super) struct Walk<'a> {
    ctx: &'a Ctx<'a>,
    pub(super) creds: &'a Creds,
    /// Where `..` and absolute links end; looked up when there is a need, as on Linux.
    root: Option<Location>,
    /// What a scoped walk must not leave.
    start: Option<Location>,
    flags: WalkFlags,
    links: u32,
    /// Where the walk has come to.
    pub(super) at: Location,
}

impl<'a> Walk<'a> {
    /// Prepares a walk of `path` from `dirfd`, or from the working directory.
    pub(super) fn begin(ctx: &'a Ctx<'a>, dirfd: i32, path: &[u8], flags: WalkFlags) -> Result<Walk<'a>> {
        if path.is_empty() && !flags.contains(WalkFlags::EMPTY) {
            bail!(ENOENT);
        }
        let absolute = path.first() == Some(&b'/');
        let scoped = flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT);
        let fs = ctx.fs();
        let inner = fs.inner.lock();
        let base = if absolute && !scoped {
            inner.root.clone()
        } else if dirfd == AT_FDCWD {
            inner.cwd.clone()
        } else {
            drop(inner);
            let file = ctx.file_or_path(dirfd)?;
            if !path.is_empty() && file.inode.file_type() != FileType::Directory {
                bail!(ENOTDIR);
            }
            file.location.clone()
        };
        if absolute && flags.contains(WalkFlags::BENEATH) {
            bail!(EXDEV, "absolute path with RESOLVE_BENEATH");
        }
        let start = scoped.then(|| base.clone());
        Ok(Walk { ctx, creds: ctx.creds(), root: start.clone(), start, flags, links: 0, at: base })
    }

    /// Where `..` ends, and where the walk is.
    fn root_and_place(&mut self) -> (&Location, &Location) {
        let root = self.root.get_or_insert_with(|| self.ctx.fs().inner.lock().root.clone());
        (root, &self.at)
    }

    /// Replaces the credentials that permissions are checked with (`access(2)`).
    pub(super) fn with_creds(mut self, creds: &'a Creds) -> Walk<'a> {
        self.creds = creds;
        self
    }

    /// Walks all components but the last, following links on the way. Does not look at the last one.
    pub(super) fn walk_to_last(&mut self, vfs: &Vfs, path: &[u8]) -> Result<Last> {
        let mut owned: Vec<u8>;
        let mut path = path;
        let mut pos = 0;
        loop {
            while path.get(pos) == Some(&b'/') {
                pos += 1;
            }
            if pos == path.len() {
                return Ok(Last::Dot);
            }
            let end = path[pos..].iter().position(|&b| b == b'/').map_or(path.len(), |i| pos + i);
            let name = &path[pos..end];
            let mut next = end;
            while path.get(next) == Some(&b'/') {
                next += 1;
            }
            let last = next == path.len();
            self.at.may_search(self.creds)?;
            if last {
                return Ok(match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ if name.len() > NAME_MAX => bail!(ENAMETOOLONG),
                    _ => Last::Name(name.to_vec(), next > end),
                });
            }
            pos = next;
            match name {
                b"." => continue,
                b".." => {
                    self.dot_dot(vfs)?;
                    continue;
                }
                _ if name.len() > NAME_MAX => bail!(ENAMETOOLONG),
                _ => {}
            }
            let Some(child) = self.at.dentry.lookup(self.ctx, &vfs.lru, name)? else {
                bail!(ENOENT);
            };
            if child.inode.file_type() == FileType::Symlink {
                if let Some(mut target) = self.follow(vfs, child)? {
                    target.push(b'/');
                    target.extend_from_slice(&path[pos..]);
                    owned = target;
                    path = &owned;
                    pos = 0;
                }
                continue;
            }
            self.step(vfs, child)?;
        }
    }

    /// Enters a child of where the walk is, and what is mounted on it.
    pub(super) fn step(&mut self, vfs: &Vfs, child: Arc<Dentry>) -> Result<()> {
        self.at.dentry = child;
        self.cross_mounts(vfs)
    }

    /// Enters what is mounted here.
    fn cross_mounts(&mut self, vfs: &Vfs) -> Result<()> {
        if vfs.cross_mounts(&mut self.at) && self.flags.contains(WalkFlags::NO_XDEV) {
            bail!(EXDEV);
        }
        Ok(())
    }

    /// Goes to the parent directory, but not above the root.
    pub(super) fn dot_dot(&mut self, vfs: &Vfs) -> Result<()> {
        loop {
            let (root, at) = self.root_and_place();
            if at.same(root) {
                if self.flags.contains(WalkFlags::BENEATH) {
                    bail!(EXDEV, ".. leaves the starting directory");
                }
                return Ok(());
            }
            if !self.at.is_mount_root() {
                break;
            }
            match self.at.mount.mount_point() {
                Some(_) if self.flags.contains(WalkFlags::NO_XDEV) => bail!(EXDEV),
                Some(up) => self.at = up,
                None => return Ok(()),
            }
        }
        if let Some(parent) = self.at.dentry.parent() {
            self.at.dentry = parent;
        }
        self.cross_mounts(vfs)
    }

    /// Follows a symbolic link in the directory where the walk is. Gives the path to go on with, from where the walk
    /// then is; `None` for a magic link, which has been followed.
    pub(super) fn follow(&mut self, vfs: &Vfs, link: Arc<Dentry>) -> Result<Option<Vec<u8>>> {
        self.links += 1;
        if self.links > LINKS_MAX || self.flags.contains(WalkFlags::NO_SYMLINKS) {
            bail!(ELOOP);
        }
        if self.at.mount.flags().contains(MountFlags::NOSYMFOLLOW) {
            bail!(ELOOP, "the mount is nosymfollow");
        }
        if let Some(target) = link.inode.magic_link(self.ctx) {
            if self.flags.contains(WalkFlags::NO_MAGICLINKS) {
                bail!(ELOOP);
            }
            let target = target?;
            if self.flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT)
                || self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&target.mount, &self.at.mount)
            {
                bail!(EXDEV);
            }
            self.at = target;
            return Ok(None);
        }
        let place = Location { mount: self.at.mount.clone(), dentry: link };
        let target = place.dentry.inode.read_link(self.ctx)?;
        vfs.touch_atime(&place);
        if target.is_empty() {
            bail!(ENOENT);
        }
        if target.first() == Some(&b'/') {
            if self.flags.contains(WalkFlags::BENEATH) {
                bail!(EXDEV);
            }
            let stays = self.flags.contains(WalkFlags::NO_XDEV);
            let (root, at) = self.root_and_place();
            if stays && !Arc::ptr_eq(&root.mount, &at.mount) {
                bail!(EXDEV);
            }
            self.at = root.clone();
        }
        Ok(Some(target))
    }

    /// Walks the whole path.
    pub(super) fn walk_to_end(mut self, vfs: &Vfs, path: &[u8]) -> Result<Location> {
        if path.is_empty() {
            return self.finish(false);
        }
        let mut owned;
        let mut path = path;
        let mut directory = self.flags.contains(WalkFlags::DIRECTORY);
        let mut follow = self.flags.contains(WalkFlags::FOLLOW);
        loop {
            match self.walk_to_last(vfs, path)? {
                Last::Dot => return self.finish(directory),
                Last::DotDot => {
                    self.dot_dot(vfs)?;
                    return self.finish(directory);
                }
                Last::Name(name, slashes) => {
                    // Slashes ask for a directory: links are followed from here on, also those that a link leads to.
                    directory |= slashes;
                    follow |= slashes;
                    let Some(child) = self.at.dentry.lookup(self.ctx, &vfs.lru, &name)? else {
                        bail!(ENOENT);
                    };
                    if child.inode.file_type() == FileType::Symlink && follow {
                        match self.follow(vfs, child)? {
                            Some(target) => {
                                owned = target;
                                path = &owned;
                            }
                            None => return self.finish(directory),
                        }
                        continue;
                    }
                    self.step(vfs, child)?;
                    return self.finish(directory);
                }
            }
        }
    }

    pub(super) fn finish(self, directory: bool) -> Result<Location> {
        if directory && self.at.dentry.inode.file_type() != FileType::Directory {
            bail!(ENOTDIR);
        }
        if self.start.as_ref().is_some_and(|start| !self.at.is_within(start)) {
            bail!(EXDEV);
        }
        Ok(self.at)
    }
}

/// A directory and a name in it: what the calls that make and remove names work on.
pub(super) struct NamePlace<'a> {
    /// The directory, which may be searched.
    pub(super) dir: Location,
    /// The last component.
    pub(super) last: Last,
    /// Credentials of the walk.
    pub(super) creds: &'a Creds,
}

impl Vfs {
    /// Finds what a path names. `dirfd` is a descriptor or [`AT_FDCWD`].
    pub fn resolve(&self, ctx: &Ctx, dirfd: i32, path: &[u8], flags: WalkFlags) -> Result<Location> {
        Walk::begin(ctx, dirfd, path, flags)?.walk_to_end(self, path)
    }

    /// As [`Vfs::resolve`], with other credentials than the task's own.
    pub fn resolve_as(&self, ctx: &Ctx, creds: &Creds, dirfd: i32, path: &[u8], flags: WalkFlags) -> Result<Location> {
        Walk::begin(ctx, dirfd, path, flags)?.with_creds(creds).walk_to_end(self, path)
    }

    /// Finds the directory that a path's last component is in.
    pub(super) fn resolve_parent<'a>(&self, ctx: &'a Ctx, dirfd: i32, path: &[u8]) -> Result<NamePlace<'a>> {
        let mut walk = Walk::begin(ctx, dirfd, path, WalkFlags::empty())?;
        let last = walk.walk_to_last(self, path)?;
        Ok(NamePlace { dir: walk.at, last, creds: walk.creds })
    }

    /// Goes into what is mounted at a place. True if it went anywhere.
    pub(super) fn cross_mounts(&self, at: &mut Location) -> bool {
        let mut crossed = false;
        while at.dentry.mounted.load(core::sync::atomic::Ordering::Acquire) > 0 {
            let Some(mount) = self.mounts.lock().covering(at) else {
                break;
            };
            mount.entered();
            *at = mount.root_location();
            crossed = true;
        }
        crossed
    }

    /// `ENOENT` for a directory that was removed.
    pub(super) fn alive(dir: &Dentry) -> Result<()> {
        if dir.deleted() { Err(Errno::ENOENT.into()) } else { Ok(()) }
    }
}
