//! Device numbers and what is behind them.

use super::mounting::living;
use super::{FileOps, FileSystem, FileType, Location, NewInode, NotifyEvents, OpenFlags, Vfs, notify};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Encodes a device number as `makedev(3)` does.
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// The major number of an encoded device number.
pub const fn major(dev: u64) -> u32 {
    ((dev >> 8 & 0xfff) | (dev >> 32 & !0xfff)) as u32
}

/// The minor number of an encoded device number.
pub const fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | (dev >> 12 & !0xff)) as u32
}

/// Character or block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the kinds' own names")]
pub enum DeviceKind {
    Char,
    Block,
}

/// What opening a device node leads to.
pub trait Device: Send + Sync {
    /// Opens the device; `location` is the node that was opened.
    fn open(&self, ctx: &Ctx, location: &Location, rdev: u64, flags: OpenFlags) -> Result<Box<dyn FileOps>>;

    /// The disk behind a block device, for `mount(2)`.
    fn block_device(&self) -> Option<Arc<crate::block::Disk>> {
        None
    }
}

impl<F> Device for F
where
    F: Fn(&Ctx, &Location, u64, OpenFlags) -> Result<Box<dyn FileOps>> + Send + Sync,
{
    fn open(&self, ctx: &Ctx, location: &Location, rdev: u64, flags: OpenFlags) -> Result<Box<dyn FileOps>> {
        self(ctx, location, rdev, flags)
    }
}

/// A device node that devtmpfs shows.
#[derive(Clone, Debug)]
pub struct DeviceNode {
    /// Path below `/dev`.
    pub name: String,
    /// Kind.
    pub kind: DeviceKind,
    /// Number, encoded as `makedev(3)` does.
    pub rdev: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owning group.
    pub gid: u32,
}

/// The devices of the machine.
#[derive(Default)]
pub struct Devices {
    by_number: Mutex<BTreeMap<(DeviceKind, u64), Arc<dyn Device>>>,
    nodes: Mutex<Vec<DeviceNode>>,
    devtmpfs: Mutex<Option<Arc<dyn FileSystem>>>,
    /// How often devices have come or gone.
    generation: AtomicU64,
    /// Held by who finds out which devices are to come and go.
    pub(crate) changing: Mutex<()>,
}

impl Devices {
    /// Adds a device, with the node that devtmpfs will have for it. Once that is there, [`Vfs::add_device`] is for it.
    pub fn register(
        &self,
        kind: DeviceKind,
        (major, minor): (u32, u32),
        name: &str,
        mode: u32,
        gid: u32,
        device: Arc<dyn Device>,
    ) {
        let rdev = makedev(major, minor);
        self.by_number.lock().insert((kind, rdev), device);
        self.nodes.lock().push(DeviceNode { name: name.into(), kind, rdev, mode, gid });
        self.changed();
    }

    /// Changes with each device that comes or goes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Notes that a device is not what it was.
    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Forgets the disks that are gone, which are to be dropped without a lock. Their nodes stay, and lead nowhere.
    #[must_use]
    pub(crate) fn forget_disks(&self, is_gone: impl Fn(&crate::block::Disk) -> bool) -> Vec<Arc<dyn Device>> {
        // All that were looked at are dropped without the lock: the last reference to one may close a file.
        let (mut looked_at, mut forgotten) = (Vec::new(), Vec::new());
        self.by_number.lock().retain(|_, device| {
            let Some(disk) = device.block_device() else { return true };
            let gone = is_gone(&disk);
            looked_at.push(disk);
            if gone {
                forgotten.push(device.clone());
            }
            !gone
        });
        forgotten
    }

    fn unregister(&self, kind: DeviceKind, rdev: u64) -> Option<DeviceNode> {
        self.by_number.lock().remove(&(kind, rdev));
        let mut nodes = self.nodes.lock();
        let at = nodes.iter().position(|node| (node.kind, node.rdev) == (kind, rdev))?;
        self.changed();
        Some(nodes.remove(at))
    }

    /// Adds a device without a node of its own.
    pub fn register_hidden(&self, kind: DeviceKind, (major, minor): (u32, u32), device: Arc<dyn Device>) {
        self.by_number.lock().insert((kind, makedev(major, minor)), device);
    }

    /// The device with this number; `ENXIO` if there is none.
    pub fn get(&self, kind: DeviceKind, rdev: u64) -> Result<Arc<dyn Device>> {
        self.by_number.lock().get(&(kind, rdev)).cloned().ok_or(Errno::ENXIO.into())
    }

    /// The one instance of devtmpfs, which `make` makes at first.
    pub(crate) fn devtmpfs<T: FileSystem>(&self, make: impl FnOnce() -> Result<Arc<T>>) -> Result<Arc<dyn FileSystem>> {
        let mut slot = self.devtmpfs.lock();
        if let Some(fs) = &*slot {
            return Ok(fs.clone());
        }
        let fs: Arc<dyn FileSystem> = make()?;
        *slot = Some(fs.clone());
        Ok(fs)
    }

    /// The disks.
    pub fn disks(&self) -> Vec<Arc<crate::block::Disk>> {
        self.by_number.lock().values().filter_map(|device| device.block_device()).collect()
    }

    /// The nodes of `/dev`.
    pub fn nodes(&self) -> Vec<DeviceNode> {
        self.nodes.lock().clone()
    }
}

impl DeviceNode {
    /// The inode of its node.
    pub(crate) fn inode(&self) -> NewInode {
        let file_type = match self.kind {
            DeviceKind::Char => FileType::CharDevice,
            DeviceKind::Block => FileType::BlockDevice,
        };
        NewInode { file_type, mode: self.mode, uid: 0, gid: self.gid, rdev: self.rdev }
    }
}

impl Vfs {
    /// Adds a device while programs run: its node appears in devtmpfs, where nothing else has its name. Its number is free, and
    /// its name has no slash.
    ///
    /// # Errors
    /// devtmpfs has no room for the node; the device is there all the same.
    pub fn add_device(&self, ctx: &Ctx, node: &DeviceNode, device: Arc<dyn Device>) -> Result<()> {
        self.devices.register(node.kind, (major(node.rdev), minor(node.rdev)), &node.name, node.mode, node.gid, device);
        let (name, inode) = (node.name.as_bytes(), node.inode());
        let Some(fs) = self.devices.devtmpfs.lock().clone() else { return Ok(()) };
        let Some(sb) = living(&self.super_blocks.lock(), |sb| Arc::ptr_eq(&sb.fs, &fs)) else {
            return fs.root()?.create(name, &inode).map(drop);
        };
        let guard = sb.root.lock.lock();
        if sb.root.lookup_locked(ctx, &self.lru, name)?.is_some() {
            return Ok(());
        }
        let made = sb.root.inode.create(name, &inode)?;
        drop(sb.root.add(&self.lru, name, made));
        drop(guard);
        notify::name(&sb.root.inode, name, NotifyEvents::CREATE, inode.file_type);
        Ok(())
    }

    /// Removes a device while programs run, with its node in devtmpfs. Files that are open stay so.
    ///
    /// # Errors
    /// The node cannot be removed; the device is gone all the same.
    pub fn remove_device(&self, ctx: &Ctx, kind: DeviceKind, rdev: u64) -> Result<()> {
        let Some(node) = self.devices.unregister(kind, rdev) else { return Ok(()) };
        let name = node.name.as_bytes();
        let Some(fs) = self.devices.devtmpfs.lock().clone() else { return Ok(()) };
        let Some(sb) = living(&self.super_blocks.lock(), |sb| Arc::ptr_eq(&sb.fs, &fs)) else {
            return fs.root()?.unlink(name);
        };
        let guard = sb.root.lock.lock();
        let is_it = |attr: super::Attr| (attr.file_type, attr.rdev) == (node.inode().file_type, rdev);
        let found = sb.root.lookup_locked(ctx, &self.lru, name)?;
        let Some(victim) = found.filter(|dentry| dentry.inode.attr().is_ok_and(is_it)) else { return Ok(()) };
        sb.root.inode.unlink(name)?;
        victim.mark_deleted();
        sb.root.removed(name);
        drop(guard);
        notify::inode(&victim.inode, NotifyEvents::ATTRIB);
        notify::name(&sb.root.inode, name, NotifyEvents::DELETE, node.inode().file_type);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_round_trip() {
        for (maj, min) in [(0, 0), (98, 16), (4, 64), (0xfff, 0xfff), (0x12345, 0x6789a), (136, 1_000_000)] {
            let dev = makedev(maj, min);
            assert_eq!((major(dev), minor(dev)), (maj, min));
        }
        assert_eq!(makedev(5, 1), 0x501);
    }
}
