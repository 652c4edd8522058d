//! Device numbers and what is behind them.

use super::{FileOps, FileSystem, Location, OpenFlags};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

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
}

impl Devices {
    /// Adds a device, with the node that `/dev` gets for it. Devices are added before devtmpfs is mounted.
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
