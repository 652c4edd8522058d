//! Places in the tree: a mount and a dentry in it.

use super::{Dentry, Mount};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A place in the tree.
#[derive(Clone)]
pub struct Location {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry in it.
    pub dentry: Arc<Dentry>,
}

/// A place's path, as seen from some root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathText {
    /// The path, from the root asked for; from the root of its mount if it is not reachable from there.
    pub path: Vec<u8>,
    /// Whether the root is above the place.
    pub reachable: bool,
    /// Whether the name was removed.
    pub deleted: bool,
}

impl Location {
    /// Whether both are the same place.
    pub fn same(&self, other: &Location) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// The place of a name in this directory, without a look at permissions or at what is mounted there.
    ///
    /// # Errors
    /// `ENOENT` when there is no such name, or what the file system says.
    pub fn child(&self, ctx: &Ctx, name: &[u8]) -> Result<Location> {
        let dentry = self.dentry.lookup(ctx, &ctx.kernel.vfs.lru, name)?.ok_or(Errno::ENOENT)?;
        Ok(Location { mount: self.mount.clone(), dentry })
    }

    /// Whether this is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// Whether `self` is `other` or lies below it, over mounts.
    pub fn is_within(&self, other: &Location) -> bool {
        let mut at = self.clone();
        loop {
            if at.same(other) {
                return true;
            }
            match at.up() {
                Some(up) => at = up,
                None => return false,
            }
        }
    }

    /// One step up, out of the mount if at its root; `None` at the top.
    fn up(&self) -> Option<Location> {
        if self.is_mount_root() {
            return self.mount.mount_point();
        }
        self.dentry.parent().map(|dentry| Location { mount: self.mount.clone(), dentry })
    }

    /// The path from `root` to here, as `getcwd(2)` and `/proc` need it.
    pub fn path_from(&self, root: &Location) -> PathText {
        let deleted = self.dentry.deleted();
        let mut names: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        let mut anonymous = false;
        let reachable = loop {
            if at.same(root) {
                break true;
            }
            if at.is_mount_root() {
                match at.mount.mount_point() {
                    Some(up) => at = up,
                    None => break false,
                }
                continue;
            }
            names.push(at.dentry.name());
            match at.dentry.parent() {
                Some(dentry) => at.dentry = dentry,
                None => {
                    anonymous = true;
                    break false;
                }
            }
        };
        let mut path = Vec::new();
        for name in names.iter().rev() {
            if !(anonymous && path.is_empty()) {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        PathText { path, reachable, deleted }
    }

    /// The path from `root` as `/proc` links show it: with `" (deleted)"` behind a removed name.
    pub fn display_path(&self, root: &Location) -> Vec<u8> {
        let mut text = self.path_from(root);
        if text.deleted {
            text.path.extend_from_slice(b" (deleted)");
        }
        text.path
    }
}
