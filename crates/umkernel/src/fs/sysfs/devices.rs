//! The directories of devices: `/sys/devices/virtual/CLASS/NAME`, where all of them lie, as none has a bus. Partitions lie in the
//! directory of their disk.
//!
//! What each has: `uevent` (to be read, and to be written by `udevadm trigger`), `dev` where it has a number, `subsystem`, which leads
//! to its class, and what its class adds.

use super::DirBuilder;
use crate::block::{self, Backing, Disk};
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::net::interface::{self, Loopback};
use crate::net::netlink::uevent::{self, VIRTUAL};
use crate::vfs::{DeviceKind, DeviceNode, major, minor};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The classes of devices.
pub(super) const CLASSES: [&str; 5] = ["block", "mem", "misc", "net", "tty"];

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
        let path = format!("{VIRTUAL}/{subsystem}/{name}");
        let event = uevent::Device { path, subsystem, properties };
        Device { event, name: name.to_owned(), number, behind: Behind::Node }
    }

    fn character(node: &DeviceNode) -> Device {
        let class = match major(node.rdev) {
            1 => "mem",
            10 => "misc",
            _ => "tty",
        };
        let properties = format!("{}DEVNAME={}\nDEVMODE={:04o}\n", uevent::numbers(node.rdev), node.name, node.mode);
        Device::new(class, &node.name, properties, Some((DeviceKind::Char, node.rdev)))
    }

    /// A disk, or a partition of one of `disks`.
    fn disk(disk: &Arc<Disk>, disks: &[Arc<Disk>]) -> Device {
        let whole = disks.iter().find(|whole| whole.rdev() == disk.whole()).map_or("", |whole| whole.name());
        let number = Some((DeviceKind::Block, disk.rdev()));
        let (event, name) = (block::event_of(disk, whole), disk.name().to_owned());
        Device { event, name, number, behind: Behind::Disk(disk.clone()) }
    }

    fn loopback() -> Device {
        let properties = format!("INTERFACE=lo\nIFINDEX={}\n", interface::INDEX);
        Device { behind: Behind::Loopback, ..Device::new("net", "lo", properties, None) }
    }

    pub(super) fn subsystem(&self) -> &'static str {
        self.event.subsystem
    }

    /// Whether it is a part of another device.
    pub(super) fn is_part(&self) -> bool {
        matches!(&self.behind, Behind::Disk(disk) if disk.partition().is_some())
    }

    /// Adds its directory to another one.
    fn add_to(&self, dir: DirBuilder, all: &Devices) -> DirBuilder {
        dir.dir(self.name.clone(), |dir| self.directory(dir, all))
    }

    /// Its path from where all devices lie.
    fn place(&self) -> &str {
        self.event.path.strip_prefix(VIRTUAL).unwrap_or_default()
    }

    fn directory(&self, dir: DirBuilder, all: &Devices) -> DirBuilder {
        let (shown, event) = (self.event.properties.clone(), self.event.clone());
        let up = "../".repeat(self.event.path.matches('/').count());
        let subsystem = format!("{up}class/{}", self.subsystem());
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
            Behind::Disk(disk) if self.is_part() => partition_files(dir, disk),
            Behind::Disk(disk) => all.parts_of(disk).fold(disk_files(dir, disk), |dir, part| part.add_to(dir, all)),
            Behind::Loopback => interface_files(dir),
        }
    }
}

/// Devices of the machine.
pub(super) struct Devices {
    all: Vec<Device>,
}

impl Devices {
    /// Those that stay as they are.
    pub(super) fn lasting(kernel: &Kernel) -> Devices {
        let nodes = kernel.vfs.devices.nodes();
        // Names with a slash are of devices in a directory of their own (/dev/pts), which has no place here.
        let characters = nodes.iter().filter(|node| node.kind == DeviceKind::Char && !node.name.contains('/'));
        Devices { all: characters.map(Device::character).chain([Device::loopback()]).collect() }
    }

    /// The disks and partitions that there are now.
    pub(super) fn disks(kernel: &Kernel) -> Devices {
        let disks = kernel.vfs.devices.disks();
        Devices { all: disks.iter().map(|disk| Device::disk(disk, &disks)).collect() }
    }

    /// Directories of a class's devices.
    pub(super) fn class(&self, dir: DirBuilder, class: &'static str) -> DirBuilder {
        let of_it = self.all.iter().filter(|device| device.subsystem() == class && !device.is_part());
        of_it.fold(dir, |dir, device| device.add_to(dir, self))
    }

    /// The partitions of a disk.
    fn parts_of(&self, whole: &Disk) -> impl Iterator<Item = &Device> {
        let number = whole.rdev();
        self.all.iter().filter(move |device| {
            matches!(&device.behind, Behind::Disk(disk) if disk.partition().is_some() && disk.whole() == number)
        })
    }

    /// Links by name, from a directory that reaches the devices' classes at `base`.
    pub(super) fn links(&self, dir: DirBuilder, base: &'static str, which: impl Fn(&Device) -> bool) -> DirBuilder {
        self.all.iter().filter(|device| which(device)).fold(dir, |dir, device| {
            let target = format!("{base}{}", device.place());
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

/// What disks and partitions have in common.
fn block_files(dir: DirBuilder, disk: &Arc<Disk>) -> DirBuilder {
    let (sectors, read_only) = (disk.size() / 512, u8::from(disk.read_only()));
    dir.file("size", move |_| format!("{sectors}\n").into_bytes())
        .file("ro", move |_| format!("{read_only}\n").into_bytes())
        .text("alignment_offset", "0\n")
        .text("discard_alignment", "0\n")
        .dir("holders", |dir| dir)
}

fn partition_files(dir: DirBuilder, disk: &Arc<Disk>) -> DirBuilder {
    let (number, sector) = (disk.partition().unwrap_or(0), disk.start() / 512);
    block_files(dir, disk)
        .file("partition", move |_| format!("{number}\n").into_bytes())
        .file("start", move |_| format!("{sector}\n").into_bytes())
}

fn disk_files(dir: DirBuilder, disk: &Arc<Disk>) -> DirBuilder {
    let sector = disk.sector();
    let size = move |_: &Ctx| format!("{sector}\n").into_bytes();
    let dir = block_files(dir, disk);
    let dir = if disk.backing().is_some() { dir.dir("loop", |dir| loop_files(dir, disk)) } else { dir };
    dir.text("removable", "0\n")
        .text("range", "16\n")
        .dir("queue", |dir| {
            dir.file("logical_block_size", size)
                .file("physical_block_size", size)
                .file("hw_sector_size", size)
                .file("minimum_io_size", size)
                .text("optimal_io_size", "0\n")
                .text("discard_granularity", "4096\n")
                .text("rotational", "0\n")
        })
        .dir("slaves", |dir| dir)
}

/// What a loop device is on. The directory does not keep the file: it is here longer than the device has it.
fn loop_files(dir: DirBuilder, disk: &Arc<Disk>) -> DirBuilder {
    type Show = fn(&Ctx, &Backing) -> Vec<u8>;
    fn line(number: u64) -> Vec<u8> {
        format!("{number}\n").into_bytes()
    }
    let shown: [(&str, Show); 6] = [
        ("autoclear", |_, backing| line(backing.autoclear().into())),
        ("backing_file", |ctx, backing| {
            let root = ctx.fs().inner.lock().root.clone();
            let mut path = backing.file().location.path_from(&root).path;
            path.push(b'\n');
            path
        }),
        ("dio", |_, _| line(0)),
        ("offset", |_, backing| line(backing.offset())),
        ("partscan", |_, backing| line(backing.partscan().into())),
        ("sizelimit", |_, backing| line(backing.size_limit())),
    ];
    shown.into_iter().fold(dir, |dir, (name, show)| {
        let disk = Arc::downgrade(disk);
        dir.file(name, move |ctx| {
            let disk = disk.upgrade();
            disk.as_ref().and_then(|disk| disk.backing()).map_or(Vec::new(), |backing| show(ctx, backing))
        })
    })
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
