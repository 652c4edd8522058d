//! Loop devices (`loop(4)`): disks that are files of the guest's, as `mount -o loop` and `losetup(8)` make them. There is none until
//! somebody asks `/dev/loop-control` for one.
//!
//! Lock order: the lock on which devices there are (`Devices::changing`), the loop devices, the devices by number, a device's state. A
//! disk that may be the last reference to a file is dropped without any of them.

mod device;
mod status;

pub(super) use device::LoopDevice;
pub(super) use status::{AUTOCLEAR, PARTSCAN};

use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::net::netlink::uevent;
use crate::sync::Mutex;
use crate::vfs::{Device, DeviceKind, DeviceNode, File, FileOps, Location, OpenFlags, Vfs};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::any::Any;
use device::LoopNode;

/// Major number of loop devices.
pub(super) const LOOP_MAJOR: u32 = 7;
/// Device number of `/dev/loop-control`: one of the miscellaneous devices.
const CONTROL: (u32, u32) = (10, 237);
/// The most loop devices: their numbers are below.
const MAX_LOOPS: u32 = 256;

/// `ioctl(2)` of `/dev/loop-control` (`linux/loop.h`).
const LOOP_CTL_ADD: u32 = 0x4c80;
const LOOP_CTL_REMOVE: u32 = 0x4c81;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;

/// The loop devices of the machine, by number.
#[derive(Default)]
struct Loops(Mutex<BTreeMap<u32, Arc<LoopDevice>>>);

/// Makes `/dev/loop-control` known.
pub fn register(vfs: &Vfs) {
    let device = Arc::new(ControlDevice(Arc::default()));
    vfs.devices.register(DeviceKind::Char, CONTROL, "loop-control", 0o600, 0, device);
}

/// `/dev/loop-control`.
struct ControlDevice(Arc<Loops>);

impl Device for ControlDevice {
    fn open(&self, _ctx: &Ctx, _location: &Location, _rdev: u64, _flags: OpenFlags) -> Result<Box<dyn FileOps>> {
        Ok(Box::new(OpenControl(self.0.clone())))
    }
}

/// `/dev/loop-control`, open.
struct OpenControl(Arc<Loops>);

impl FileOps for OpenControl {
    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        let number = match cmd {
            LOOP_CTL_ADD => self.0.add(ctx, u32::try_from(arg as i64).ok())?,
            LOOP_CTL_REMOVE => return self.0.remove(ctx, arg).map(|()| 0),
            LOOP_CTL_GET_FREE => match self.0.unused() {
                Some(number) => number,
                None => self.0.add(ctx, None)?,
            },
            _ => bail!(ENOSYS),
        };
        Ok(number as usize)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The node of a loop device.
fn node(number: u32) -> DeviceNode {
    let (name, rdev) = (device::name(number), device::rdev(number));
    DeviceNode { name, kind: DeviceKind::Block, rdev, mode: 0o600, gid: 0 }
}

impl Loops {
    /// The first device without a file.
    fn unused(&self) -> Option<u32> {
        self.0.lock().iter().find(|(_, device)| !device.is_attached()).map(|(number, _)| *number)
    }

    /// Makes a device, the one asked for or else the first that there is not yet.
    fn add(&self, ctx: &Ctx, number: Option<u32>) -> Result<u32> {
        let vfs = &ctx.kernel.vfs;
        let _guard = vfs.devices.changing.lock();
        let mut devices = self.0.lock();
        let number = match number {
            Some(number) if devices.contains_key(&number) => bail!(EEXIST),
            Some(number) => number,
            None => (0..).find(|number| !devices.contains_key(number)).unwrap_or(MAX_LOOPS),
        };
        if number >= MAX_LOOPS {
            bail!(ENOSPC, "there are no more loop devices");
        }
        let device = LoopDevice::new(ctx.kernel, number);
        devices.insert(number, device.clone());
        drop(devices);
        // A full devtmpfs lacks the node; the device is there, and mknod(2) reaches it.
        let _ = vfs.add_device(ctx, &node(number), Arc::new(LoopNode(device.clone())));
        uevent::announce(ctx.kernel, &super::event_of(&device.disk(), ""), "add");
        Ok(number)
    }

    /// Removes a device that nobody uses.
    fn remove(&self, ctx: &Ctx, number: u64) -> Result<()> {
        let Ok(number) = u32::try_from(number) else { bail!(EINVAL) };
        let vfs = &ctx.kernel.vfs;
        let _guard = vfs.devices.changing.lock();
        let mut devices = self.0.lock();
        let Some(device) = devices.get(&number).cloned() else { bail!(ENODEV) };
        device.retire()?;
        devices.remove(&number);
        drop(devices);
        super::partitions::remove(ctx, &device.disk());
        // Who has made something else of the node may keep it.
        let _ = vfs.remove_device(ctx, DeviceKind::Block, device::rdev(number));
        uevent::announce(ctx.kernel, &super::event_of(&device.disk(), ""), "remove");
        Ok(())
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
