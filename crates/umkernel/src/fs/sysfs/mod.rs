//! `/sys` (`sysfs(5)`): the little of it that programs read.

use super::proc::list_text;
use super::pseudo::{DirBuilder, Numbers, PseudoFs};
use crate::block::Disk;
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::vfs::{DeviceKind, DeviceNode, FileSystem, FsType, MountRequest, major, minor};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// `SYSFS_MAGIC` of `linux/magic.h`.
const MAGIC: u64 = 0x6265_6572;

/// The type, for `mount(2)`.
pub const FS_TYPE: FsType = FsType { name: "sysfs", needs_device: false, mount };

fn mount(ctx: &Ctx, _request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    Ok(new(ctx.kernel))
}

/// A new instance, with the devices that there are now.
pub fn new(kernel: &Kernel) -> Arc<dyn FileSystem> {
    let numbers = Numbers::new(kernel);
    let disks: Vec<Arc<Disk>> = kernel.vfs.devices.disks();
    let characters: Vec<DeviceNode> =
        kernel.vfs.devices.nodes().into_iter().filter(|n| n.kind == DeviceKind::Char).collect();
    let class = |name: &str| -> Vec<DeviceNode> {
        characters.iter().filter(|n| class_of(n) == name && !n.name.contains('/')).cloned().collect()
    };
    let (ttys, memory) = (class("tty"), class("mem"));
    let cpus = kernel.config.cpus.max(1) as usize;
    let root = DirBuilder::new(&numbers)
        .dir("block", |dir| disks.iter().fold(dir, block_device))
        .dir("bus", |dir| dir)
        .dir("class", |dir| {
            dir.dir("block", |dir| {
                disks.iter().fold(dir, |dir, disk| {
                    let target = format!("../../block/{}", disk.name());
                    dir.link(String::from(disk.name()), move |_| target.clone().into_bytes())
                })
            })
            .dir("mem", |dir| memory.iter().fold(dir, character_device))
            .dir("net", |dir| dir)
            .dir("tty", |dir| ttys.iter().fold(dir, character_device))
        })
        .dir("dev", |dir| {
            dir.dir("block", |dir| {
                disks.iter().fold(dir, |dir, disk| {
                    let target = format!("../../block/{}", disk.name());
                    dir.link(number(disk.rdev()), move |_| target.clone().into_bytes())
                })
            })
            .dir("char", |dir| {
                ttys.iter().chain(&memory).fold(dir, |dir, node| {
                    let target = format!("../../class/{}/{}", class_of(node), node.name);
                    dir.link(number(node.rdev), move |_| target.clone().into_bytes())
                })
            })
        })
        .dir("devices", |dir| dir.dir("system", |dir| dir.dir("cpu", |dir| processors(dir, cpus))))
        .dir("firmware", |dir| dir)
        .dir("fs", |dir| dir)
        .dir("kernel", |dir| dir.text("uevent_seqnum", "0\n"))
        .dir("module", |dir| dir)
        .dir("power", |dir| dir)
        .build();
    let dev = numbers.dev;
    Arc::new(PseudoFs { name: "sysfs", magic: MAGIC, dev, root })
}

fn number(rdev: u64) -> String {
    format!("{}:{}", major(rdev), minor(rdev))
}

fn class_of(node: &DeviceNode) -> &'static str {
    if major(node.rdev) == 1 { "mem" } else { "tty" }
}

fn character_device(dir: DirBuilder, node: &DeviceNode) -> DirBuilder {
    let (dev, event) = (number(node.rdev), uevent(node.rdev, &node.name, None));
    dir.dir(node.name.clone(), |dir| {
        dir.file("dev", move |_| format!("{dev}\n").into_bytes()).file("uevent", move |_| event.clone().into_bytes())
    })
}

fn uevent(rdev: u64, name: &str, kind: Option<&str>) -> String {
    let kind = kind.map_or(String::new(), |kind| format!("DEVTYPE={kind}\n"));
    format!("MAJOR={}\nMINOR={}\nDEVNAME={name}\n{kind}", major(rdev), minor(rdev))
}

fn block_device(dir: DirBuilder, disk: &Arc<Disk>) -> DirBuilder {
    let (dev, event) = (number(disk.rdev()), uevent(disk.rdev(), disk.name(), Some("disk")));
    let (sectors, read_only) = (disk.size() / 512, u8::from(disk.read_only()));
    dir.dir(String::from(disk.name()), |dir| {
        dir.file("dev", move |_| format!("{dev}\n").into_bytes())
            .file("size", move |_| format!("{sectors}\n").into_bytes())
            .file("ro", move |_| format!("{read_only}\n").into_bytes())
            .text("removable", "0\n")
            .text("range", "16\n")
            .file("uevent", move |_| event.clone().into_bytes())
            .dir("queue", |dir| {
                dir.text("logical_block_size", "512\n")
                    .text("physical_block_size", "512\n")
                    .text("hw_sector_size", "512\n")
                    .text("rotational", "0\n")
            })
            .dir("holders", |dir| dir)
            .dir("slaves", |dir| dir)
    })
}

fn processors(dir: DirBuilder, cpus: usize) -> DirBuilder {
    let all = move |_: &Ctx| format!("{}\n", list_text(&crate::task::all_cpus(cpus), cpus)).into_bytes();
    let last = cpus - 1;
    let dir = dir
        .file("online", all)
        .file("possible", all)
        .file("present", all)
        .text("offline", "\n")
        .file("kernel_max", move |_| format!("{last}\n").into_bytes());
    (0..cpus).fold(dir, |dir, cpu| {
        dir.dir(format!("cpu{cpu}"), |dir| {
            let dir = if cpu == 0 { dir } else { dir.text("online", "1\n") };
            dir.dir("topology", |dir| {
                dir.file("core_id", move |_| format!("{cpu}\n").into_bytes())
                    .text("physical_package_id", "0\n")
                    .file("core_cpus_list", move |_| format!("{cpu}\n").into_bytes())
                    .file("thread_siblings_list", move |_| format!("{cpu}\n").into_bytes())
                    .file("package_cpus_list", all)
                    .file("core_siblings_list", all)
            })
        })
    })
}
