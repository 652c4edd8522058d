//! The directories of devices: `/sys/devices/virtual/CLASS/NAME`, where all of them lie, as none has a bus.
//!
//! What each has: `uevent` (to be read, and to be written by `udevadm trigger`), `dev` where it has a number, `subsystem`, which leads
//! to its class, and what its class adds.

use super::DirBuilder;
use crate::block::Disk;
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::net::interface::{self, Loopback};
use crate::net::netlink::uevent;
use crate::vfs::{DeviceKind, DeviceNode, major, minor};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The classes of devices.
pub(super) const CLASSES: [&str; 4] = ["block", "mem", "net", "tty"];

/// What a device is, besides its number.
#[derive(Clone)]
enum Behind {
    Node,
    Disk(Arc<Disk>),
    Loopback,
}

/// A device.
#[derive(Clone)]
pub(super) struct Device {
    event: uevent::Device,
    name: String,
    number: Option<(DeviceKind, u64)>,
    behind: Behind,
}

impl Device {
    fn new(subsystem: &'static str, name: &str, properties: String, number: Option<(DeviceKind, u64)>) -> Device {
        let path = format!("/devices/virtual/{subsystem}/{name}");
        let event = uevent::Device { path, subsystem, properties };
        Device { event, name: name.to_owned(), number, behind: Behind::Node }
    }

    fn character(node: &DeviceNode) -> Device {
        let class = if major(node.rdev) == 1 { "mem" } else { "tty" };
        let properties = format!("{}DEVNAME={}\nDEVMODE={:04o}\n", numbers(node.rdev), node.name, node.mode);
        Device::new(class, &node.name, properties, Some((DeviceKind::Char, node.rdev)))
    }

    fn disk(disk: Arc<Disk>) -> Device {
        let properties = format!("{}DEVNAME={}\nDEVTYPE=disk\n", numbers(disk.rdev()), disk.name());
        let number = Some((DeviceKind::Block, disk.rdev()));
        Device { behind: Behind::Disk(disk.clone()), ..Device::new("block", disk.name(), properties, number) }
    }

    fn loopback() -> Device {
        let properties = format!("INTERFACE=lo\nIFINDEX={}\n", interface::INDEX);
        Device { behind: Behind::Loopback, ..Device::new("net", "lo", properties, None) }
    }

    pub(super) fn subsystem(&self) -> &'static str {
        self.event.subsystem
    }

    fn directory(&self, dir: DirBuilder) -> DirBuilder {
        let (shown, event) = (self.event.properties.clone(), self.event.clone());
        let subsystem = format!("../../../../class/{}", self.subsystem());
        let dir = dir
            .file_with(
                "uevent",
                0o644,
                move |_| Ok(shown.clone().into_bytes()),
                Some(Box::new(move |ctx, request| uevent::synthesize(ctx.kernel, &event, request))),
            )
            .link("subsystem", move |_| subsystem.clone().into_bytes());
        let dir = match self.number {
            Some((_, rdev)) => dir.file("dev", move |_| format!("{}:{}\n", major(rdev), minor(rdev)).into_bytes()),
            None => dir,
        };
        match &self.behind {
            Behind::Node => dir,
            Behind::Disk(disk) => block_files(dir, disk),
            Behind::Loopback => interface_files(dir),
        }
    }
}

fn numbers(rdev: u64) -> String {
    format!("MAJOR={}\nMINOR={}\n", major(rdev), minor(rdev))
}

/// All devices of the machine.
pub(super) struct Devices {
    all: Vec<Device>,
}

impl Devices {
    pub(super) fn new(kernel: &Kernel) -> Devices {
        let nodes = kernel.vfs.devices.nodes();
        // Names with a slash are of devices in a directory of their own (/dev/pts), which has no place here.
        let characters = nodes.iter().filter(|node| node.kind == DeviceKind::Char && !node.name.contains('/'));
        let disks = kernel.vfs.devices.disks();
        let all = characters.map(Device::character).chain(disks.into_iter().map(Device::disk));
        Devices { all: all.chain([Device::loopback()]).collect() }
    }

    /// The directory of a class's devices.
    pub(super) fn class(&self, dir: DirBuilder, class: &'static str) -> DirBuilder {
        dir.dir(class, |dir| {
            let of_it = self.all.iter().filter(|device| device.subsystem() == class);
            of_it.fold(dir, |dir, device| dir.dir(device.name.clone(), |dir| device.directory(dir)))
        })
    }

    /// Links by name, from a directory that reaches the devices' classes at `base`.
    pub(super) fn links(&self, dir: DirBuilder, base: &'static str, which: impl Fn(&Device) -> bool) -> DirBuilder {
        self.all.iter().filter(|device| which(device)).fold(dir, |dir, device| {
            let target = format!("{base}/{}/{}", device.subsystem(), device.name);
            dir.link(device.name.clone(), move |_| target.clone().into_bytes())
        })
    }

    /// Links by number, for `/sys/dev/KIND`.
    pub(super) fn numbers(&self, dir: DirBuilder, kind: DeviceKind) -> DirBuilder {
        self.all.iter().fold(dir, |dir, device| match device.number {
            Some((own, rdev)) if own == kind => {
                let target = format!("../..{}", device.event.path);
                dir.link(format!("{}:{}", major(rdev), minor(rdev)), move |_| target.clone().into_bytes())
            }
            _ => dir,
        })
    }
}

fn block_files(dir: DirBuilder, disk: &Arc<Disk>) -> DirBuilder {
    let (sectors, read_only) = (disk.size() / 512, u8::from(disk.read_only()));
    dir.file("size", move |_| format!("{sectors}\n").into_bytes())
        .file("ro", move |_| format!("{read_only}\n").into_bytes())
        .text("removable", "0\n")
        .text("range", "16\n")
        .dir("queue", |dir| {
            dir.text("logical_block_size", "512\n")
                .text("physical_block_size", "512\n")
                .text("hw_sector_size", "512\n")
                .text("rotational", "0\n")
        })
        .dir("holders", |dir| dir)
        .dir("slaves", |dir| dir)
}

/// `Documentation/ABI/testing/sysfs-class-net`.
fn interface_files(dir: DirBuilder) -> DirBuilder {
    type Show = fn(&Loopback) -> String;
    let shown = |dir: DirBuilder, name: &'static str, show: Show| {
        dir.file(name, move |ctx: &Ctx| show(&ctx.kernel.net.loopback.lock()).into_bytes())
    };
    let own: [(&str, Show); 5] = [
        ("flags", |lo| format!("{:#x}\n", lo.flags() & 0xffff)),
        ("mtu", |lo| format!("{}\n", lo.mtu)),
        ("operstate", |lo| String::from(if lo.up { "unknown\n" } else { "down\n" })),
        ("tx_queue_len", |lo| format!("{}\n", lo.queue)),
        ("type", |_| format!("{}\n", interface::HARDWARE)),
    ];
    let counted: [(&str, Show); 4] = [
        ("rx_bytes", |lo| format!("{}\n", lo.bytes)),
        ("rx_packets", |lo| format!("{}\n", lo.packets)),
        ("tx_bytes", |lo| format!("{}\n", lo.bytes)),
        ("tx_packets", |lo| format!("{}\n", lo.packets)),
    ];
    let dir = own.into_iter().fold(dir, |dir, (name, show)| shown(dir, name, show));
    // An interface that is down has no carrier to tell of.
    let carrier = |ctx: &Ctx| -> Result<Vec<u8>> {
        if ctx.kernel.net.loopback.lock().up { Ok(b"1\n".to_vec()) } else { crate::bail!(EINVAL) }
    };
    dir.text("addr_len", "6\n")
        .text("address", "00:00:00:00:00:00\n")
        .text("broadcast", "00:00:00:00:00:00\n")
        .file_with("carrier", 0o444, carrier, None)
        .text("ifindex", "1\n")
        .text("iflink", "1\n")
        .dir("statistics", |dir| counted.into_iter().fold(dir, |dir, (name, show)| shown(dir, name, show)))
}
