//! Places in the tree: mounts and dentries.

use super::InodeRef;
use alloc::sync::Arc;

/// A name in the tree, cached.
pub struct Dentry {
    /// What it names.
    pub inode: InodeRef,
}

/// A mounted file system.
pub struct Mount {}

impl Mount {
    /// Mounted `nosuid`.
    pub fn no_suid(&self) -> bool {
        false
    }

    /// Mounted `noexec`.
    pub fn no_exec(&self) -> bool {
        false
    }
}

/// A place in the tree.
#[derive(Clone)]
pub struct Location {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry in it.
    pub dentry: Arc<Dentry>,
}
