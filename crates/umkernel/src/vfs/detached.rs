//! Mounts that are attached nowhere yet: what `fsmount(2)` and `open_tree(2)` make and `move_mount(2)` puts into the tree.
//! An open file stands for each; if it is closed while its mount is still attached nowhere, the mount goes with it.

use super::mount::MountTree;
use super::{File, FileOps, Location, Mount, MountFlags, OpenFlags, SuperBlock, Vfs};
use crate::bail;
use crate::errno::Result;
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// What the open file has to do with its mount in the end.
struct Keeper {
    mount: Arc<Mount>,
    mounts: Arc<Mutex<MountTree>>,
}

impl FileOps for Keeper {
    fn pollable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Outlives the lock: the last reference to a mount may unmount its file system.
        let _gone = self.mounts.lock().dissolve(&self.mount);
    }
}

impl MountTree {
    /// Takes a mount that is still attached nowhere out, and what is mounted below it.
    fn dissolve(&mut self, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
        if !mount.is_detached() {
            return Vec::new();
        }
        let all = self.subtree(mount);
        all.iter().rev().for_each(|mount| self.detach(mount));
        all
    }
}

impl Vfs {
    /// An open file that stands for a mount which is attached nowhere.
    fn detached_file(&self, mount: Arc<Mount>) -> Arc<File> {
        let location = mount.root_location();
        let inode = location.dentry.inode.clone();
        let keeper = Keeper { mount, mounts: self.mounts.clone() };
        Arc::new(File::new(location, inode, Some(Box::new(keeper)), OpenFlags::PATH))
    }

    /// A copy of what is seen at a place, attached nowhere; `recursive`: with the mounts below.
    fn copy_tree(&self, from: &Location, recursive: bool) -> Result<Arc<Mount>> {
        let old = &from.mount;
        if old.propagation().unbindable {
            bail!(EINVAL, "an unbindable mount");
        }
        let mut mounts = self.mounts.lock();
        mounts.check_room(if recursive { mounts.subtree(old).len() } else { 1 })?;
        // A copy of a shared mount is its peer.
        let top = self.copy_of(old, from.dentry.clone());
        mounts.add_detached(top.clone());
        if recursive {
            let is_beside = |point: &Location| Arc::ptr_eq(&point.mount, old) && !point.dentry.is_within(&from.dentry);
            let left_out = |mount: &Arc<Mount>, point: &Location| mount.propagation().unbindable || is_beside(point);
            mounts.copy_below((old, &top), left_out, |old| self.copy_of(old, old.root.clone()));
        }
        Ok(top)
    }

    /// An open file on a new mount of a file system, attached nowhere.
    pub(super) fn mount_detached(&self, sb: Arc<SuperBlock>, source: &[u8], flags: MountFlags) -> Arc<File> {
        let mount = self.new_mount(sb.clone(), sb.root.clone(), source, flags);
        self.mounts.lock().add_detached(mount.clone());
        self.detached_file(mount)
    }

    /// `open_tree(2)` with `OPEN_TREE_CLONE`.
    ///
    /// # Errors
    /// `EINVAL` for an unbindable mount.
    pub fn open_copy(&self, from: &Location, recursive: bool) -> Result<Arc<File>> {
        Ok(self.detached_file(self.copy_tree(from, recursive)?))
    }

    /// `mount(2)` with `MS_BIND`: shows what is at `from` at `at` as well; `recursive` with the mounts below it.
    ///
    /// # Errors
    /// `EINVAL` for an unbindable mount, `ENOTDIR` where one is a directory and the other is not, `ENOENT`.
    pub fn bind(&self, from: &Location, at: &Location, recursive: bool) -> Result<()> {
        let copy = self.copy_tree(from, recursive)?;
        let attached = self.attach_tree(&copy, at);
        let _gone = self.mounts.lock().dissolve(&copy);
        attached
    }
}
