//! The virtual file system: mounts, dentries, path walks, open files; what every file system is to the kernel.
//!
//! The chain is the field's: a descriptor ([`FdTable`]) names an open file description ([`File`]), which was opened
//! at a place in the tree ([`Location`]: mount and dentry) on an [`Inode`], and works through its [`FileOps`].

mod acl;
mod anon;
mod async_io;
mod attr;
mod context;
mod dentry;
mod detached;
mod devices;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod differential;
mod fdtable;
mod file;
mod flags;
mod inode;
mod inode_flags;
mod io;
mod leases;
mod location;
mod locks;
mod mount;
mod mounting;
mod names;
mod namespace;
pub mod notify;
mod open;
mod permission;
mod pipe;
mod propagation;
mod superblock;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
mod walk;
mod xattr;

pub use async_io::{AsyncIo, Owner};
pub use attr::NewTime;
pub use context::{MountContext, Parameter};
pub use dentry::Dentry;
pub use devices::{Device, DeviceKind, DeviceNode, Devices, major, makedev, minor};
pub use fdtable::{FdTable, FileRef, FsContext, FsInner, TakenFile};
pub use file::{File, FileOps};
pub use flags::{OpenFlags, PollEvents};
pub use inode::{
    Attr, DirEntry, DirSink, FileType, HostExtent, Inode, InodeCommon, InodeRef, NewInode, SEAL_EXEC,
    SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE, SetAttr, StatFs, Timestamp,
};
pub use inode_flags::InodeFlags;
pub(crate) use io::{SEEK_DATA, SEEK_END, SEEK_SET};
pub use leases::LeaseKind;
pub use location::{Location, PathText};
pub use locks::{FileLocks, LockOwner, RecordLock};
pub use mount::{Mount, MountChanges, MountFlags};
pub use mounting::{MNT_DETACH, MNT_EXPIRE, MNT_FORCE, MountChange};
pub use names::{RENAME_EXCHANGE, RENAME_NOREPLACE};
pub use namespace::MountNamespace;
pub use notify::Events as NotifyEvents;
pub use open::OpenHow;
pub use permission::{Access, check_access};
pub use pipe::{Pipe, PipeEnd};
pub use propagation::{Propagation, PropagationType};
pub use superblock::{FileSystem, FsType, MountRequest, SuperBlock};
pub use walk::{AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, NAME_MAX, WalkFlags};

use crate::errno::{Errno, Result};
use crate::sync::Mutex;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Mounts and caches of the machine.
pub struct Vfs {
    mounts: Arc<Mutex<mount::MountTree>>,
    /// The mount namespace that the machine starts with, and those that have ended and have mounts left.
    initial: Arc<MountNamespace>,
    ended: Arc<namespace::Ended>,
    /// Every file system in use, mounted or about to be.
    super_blocks: Mutex<Vec<Weak<SuperBlock>>>,
    lru: dentry::Lru,
    /// Types of file system that can be mounted.
    fs_types: Mutex<Vec<FsType>>,
    /// Character and block devices.
    pub devices: Devices,
    /// The instance of tmpfs that `memfd_create(2)` makes files in, once there are any.
    pub(crate) shmem: Mutex<Option<Arc<crate::fs::tmpfs::TmpFs>>>,
    /// Where pipes, sockets and other files without a name are.
    anonymous: Arc<Mount>,
    /// The directories of tasks that have ended.
    pub(crate) nowhere: Arc<FsContext>,
    /// Where the files of namespaces are, once somebody has looked.
    nsfs: Mutex<Option<Arc<Mount>>>,
    /// Who is told of what happens to files.
    notified: Mutex<Vec<Weak<notify::Group>>>,
    /// Sleepers for record locks.
    lock_waits: locks::LockWaits,
    next_mount: AtomicU32,
    next_dev: AtomicU32,
    next_ino: AtomicU64,
}

impl Default for Vfs {
    fn default() -> Vfs {
        Vfs::new()
    }
}

impl Vfs {
    /// A VFS without mounts.
    pub fn new() -> Vfs {
        const ANONYMOUS_DEV: u32 = 1;
        const ANONYMOUS_MOUNT: u32 = 1;
        let (mounts, ended) = (Arc::default(), Arc::default());
        let anonymous =
            anon::AnonFs { name: "anon_inodefs", magic: anon::ANON_INODE_FS_MAGIC, dev: makedev(0, ANONYMOUS_DEV) };
        let anonymous = anon::pseudo_mount(ANONYMOUS_MOUNT, anonymous, MountFlags::NOSUID | MountFlags::NODEV);
        Vfs {
            initial: MountNamespace::first(&mounts, &ended),
            mounts,
            ended,
            super_blocks: Mutex::new(Vec::new()),
            lru: dentry::Lru::default(),
            fs_types: Mutex::new(Vec::new()),
            devices: Devices::default(),
            shmem: Mutex::new(None),
            notified: Mutex::new(Vec::new()),
            lock_waits: locks::LockWaits::default(),
            nowhere: Arc::new(FsContext::at_root(anonymous.root_location())),
            anonymous,
            nsfs: Mutex::new(None),
            next_mount: AtomicU32::new(ANONYMOUS_MOUNT + 1),
            next_dev: AtomicU32::new(ANONYMOUS_DEV + 1),
            next_ino: AtomicU64::new(2),
        }
    }

    /// `st_dev` for a file system that is on no device: major 0 and a minor of its own.
    pub fn anonymous_dev(&self) -> u64 {
        makedev(0, self.next_dev.fetch_add(1, Ordering::Relaxed))
    }

    /// An inode number for a file without a file system.
    pub fn anonymous_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks at the `count` cached names that were used longest ago, and forgets those that nobody uses.
    pub fn forget_names(&self, count: usize) {
        self.lru.shrink(count);
    }

    /// Forgets all cached names that nobody uses.
    pub fn drop_names(&self) {
        self.lru.drop_all();
    }

    /// Makes a type of file system known to `mount(2)`.
    pub fn register_fs(&self, fs_type: FsType) {
        self.fs_types.lock().push(fs_type);
    }

    /// The type of file system with this name; `ENODEV` if there is none.
    fn fs_type(&self, name: &[u8]) -> Result<FsType> {
        let found = self.fs_types.lock().iter().find(|t| t.name.as_bytes() == name).copied();
        found.ok_or(Errno::ENODEV.into())
    }

    /// The types of file system that can be mounted: `/proc/filesystems`.
    pub fn fs_types(&self) -> Vec<FsType> {
        self.fs_types.lock().clone()
    }
}
