//! tmpfs: files in memory (`tmpfs(5)`); also devtmpfs and what `memfd_create(2)` makes.
//!
//! All files of an instance share one host memory file, in which each has a range of offsets of its own, as long as a
//! file may ever get. The host keeps the pages and knows the holes; since a file's pages are always in one piece,
//! mapping it takes one host mapping.

mod data;
mod directory;
mod inode;
mod options;

pub use inode::TmpInode;
pub use options::Options;

use super::store::Store;
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::PAGE_SIZE;
use crate::sync::Mutex;
use crate::vfs::{Devices, FileSystem, FileType, FsType, InodeRef, MountRequest, NewInode, StatFs, Timestamp};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Name of the instance with the device nodes.
const DEVTMPFS: &str = "devtmpfs";
/// An instance of tmpfs.
pub struct TmpFs {
    name: &'static str,
    dev: u64,
    store: Store,
    limits: Mutex<Options>,
    used_pages: AtomicU64,
    used_inodes: AtomicU64,
    next_ino: AtomicU64,
    root: Mutex<Option<Arc<TmpInode>>>,
}

impl TmpFs {
    /// An empty instance called `name` in `/proc/mounts`.
    pub fn new(name: &'static str, dev: u64, options: Options) -> Result<Arc<TmpFs>> {
        let fs = Arc::new(TmpFs {
            name,
            dev,
            store: Store::new()?,
            used_pages: AtomicU64::new(0),
            used_inodes: AtomicU64::new(0),
            next_ino: AtomicU64::new(1),
            root: Mutex::new(None),
            limits: Mutex::new(options.clone()),
        });
        let new = NewInode {
            file_type: FileType::Directory,
            mode: options.mode,
            uid: options.uid,
            gid: options.gid,
            rdev: 0,
        };
        let root = TmpInode::new(&fs, &new, None, Weak::new())?;
        *fs.root.lock() = Some(root);
        Ok(fs)
    }

    /// Gives up the root directory. The inodes refer to the instance: without this it would never be freed.
    pub(crate) fn let_go(&self) {
        let root = self.root.lock().take();
        drop(root);
    }

    /// A file without a name (`memfd_create(2)`) with these seals.
    pub fn nameless(self: &Arc<TmpFs>, mode: u32, uid: u32, gid: u32, seals: u32) -> Result<Arc<TmpInode>> {
        let new = NewInode { file_type: FileType::Regular, mode, uid, gid, rdev: 0 };
        let inode = TmpInode::new(self, &new, None, Weak::new())?;
        inode.unnamed(seals);
        Ok(inode)
    }

    /// Counts `n` more pages; `ENOSPC` if the instance has no room for them.
    fn take_pages(&self, n: u64) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let limit = self.limits.lock().pages.unwrap_or(u64::MAX);
        let more = |used: u64| used.checked_add(n).filter(|&all| all <= limit);
        self.used_pages.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Errno::ENOSPC)?;
        Ok(())
    }

    fn return_pages(&self, n: u64) {
        self.used_pages.fetch_sub(n, Ordering::AcqRel);
    }

    fn take_inode(&self) -> Result<u64> {
        let limit = self.limits.lock().inodes.unwrap_or(u64::MAX);
        let more = |used: u64| (used < limit).then_some(used + 1);
        self.used_inodes.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Errno::ENOSPC)?;
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    fn return_inode(&self) {
        self.used_inodes.fetch_sub(1, Ordering::AcqRel);
    }
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Result<InodeRef> {
        match &*self.root.lock() {
            Some(root) => Ok(root.clone()),
            None => bail!(EIO),
        }
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn statfs(&self) -> Result<StatFs> {
        let limits = self.limits.lock().clone();
        let (pages, inodes) = (self.used_pages.load(Ordering::Acquire), self.used_inodes.load(Ordering::Acquire));
        let blocks = limits.pages.unwrap_or(0);
        let files = limits.inodes.unwrap_or(0);
        let free = blocks.saturating_sub(pages);
        Ok(StatFs {
            fs_type: TMPFS_MAGIC,
            bsize: PAGE_SIZE,
            blocks,
            bfree: free,
            bavail: free,
            files,
            ffree: files.saturating_sub(inodes),
            fsid: self.dev,
            namelen: 255,
            flags: 0,
        })
    }

    fn options(&self) -> String {
        self.limits.lock().describe()
    }

    fn remount(&self, _read_only: bool, data: &str) -> Result<()> {
        let mut limits = self.limits.lock();
        let new = Options::parse(data, limits.clone())?;
        let fits = |limit: Option<u64>, used: &AtomicU64| limit.is_none_or(|l| l >= used.load(Ordering::Acquire));
        if !fits(new.pages, &self.used_pages) || !fits(new.inodes, &self.used_inodes) {
            bail!(EINVAL, "more is in use already");
        }
        *limits = new;
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        if self.name == DEVTMPFS {
            // The nodes are there again with the next mount.
            return Ok(());
        }
        self.let_go();
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A file for `memfd_create(2)`, in an instance without limits that is mounted nowhere.
pub fn memory_file(ctx: &Ctx, mode: u32, seals: u32) -> Result<InodeRef> {
    let vfs = &ctx.kernel.vfs;
    let mut shmem = vfs.shmem.lock();
    let fs = match &*shmem {
        Some(fs) => fs.clone(),
        None => shmem.insert(TmpFs::new("tmpfs", vfs.anonymous_dev(), Options::unlimited())?).clone(),
    };
    drop(shmem);
    let creds = ctx.creds();
    Ok(fs.nameless(mode, creds.fsuid, creds.fsgid, seals)?)
}

/// `mount -t tmpfs`.
fn mount(ctx: &Ctx, request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let options = Options::parse(request.data, Options::for_memory(ctx.kernel.config.memory))?;
    Ok(TmpFs::new("tmpfs", ctx.kernel.vfs.anonymous_dev(), options)?)
}

/// `mount -t devtmpfs`: always the same instance.
fn mount_devices(ctx: &Ctx, request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let mut defaults = Options::for_memory(ctx.kernel.config.memory);
    defaults.mode = 0o755;
    let options = Options::parse(request.data, defaults)?;
    let devices = &ctx.kernel.vfs.devices;
    devices.devtmpfs(|| {
        let fs = TmpFs::new(DEVTMPFS, ctx.kernel.vfs.anonymous_dev(), options)?;
        populate(&fs, devices)?;
        Ok(fs)
    })
}

/// Makes the nodes of all devices.
fn populate(fs: &Arc<TmpFs>, devices: &Devices) -> Result<()> {
    for node in devices.nodes() {
        let mut dir = fs.root()?;
        let mut name = node.name.as_bytes();
        while let Some(slash) = name.iter().position(|&b| b == b'/') {
            let new = NewInode { file_type: FileType::Directory, mode: 0o755, uid: 0, gid: 0, rdev: 0 };
            dir = match dir.create(&name[..slash], &new) {
                Ok(made) => made,
                Err(_) => {
                    let Some(parent) = dir.as_any().downcast_ref::<TmpInode>() else {
                        bail!(EIO);
                    };
                    parent.child(&name[..slash])?
                }
            };
            name = &name[slash + 1..];
        }
        dir.create(name, &node.inode())?;
    }
    Ok(())
}

/// The types of file system that this module knows.
pub const TYPES: [FsType; 2] = [
    FsType { name: "tmpfs", needs_device: false, mount },
    FsType { name: DEVTMPFS, needs_device: false, mount: mount_devices },
];

/// The time of a change.
fn now() -> Timestamp {
    Timestamp::now()
}
