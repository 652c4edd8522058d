//! `/sys` (`sysfs(5)`): the devices by class and by number, and the little else of it that programs read.

mod devices;
mod live;

use self::devices::{CLASSES, Devices};
use self::live::live;
use super::proc::list_text;
use super::pseudo::{DirBuilder, Numbers, PseudoFs};
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::net::netlink::uevent;
use crate::vfs::{DeviceKind, FileSystem, FsType, MountRequest};
use alloc::format;
use alloc::sync::Arc;

/// `SYSFS_MAGIC` of `linux/magic.h`.
const MAGIC: u64 = 0x6265_6572;

/// The class of disks and partitions, which come and go.
const BLOCK: &str = "block";

/// The type, for `mount(2)`.
pub const FS_TYPE: FsType = FsType { name: "sysfs", needs_device: false, mount };

fn mount(ctx: &Ctx, _request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    Ok(new(ctx.kernel))
}

/// A new instance.
pub fn new(kernel: &Kernel) -> Arc<dyn FileSystem> {
    let numbers = Numbers::new(kernel);
    let devices = Devices::lasting(kernel);
    let others = CLASSES.into_iter().filter(|class| *class != BLOCK);
    let cpus = kernel.config.cpus.max(1) as usize;
    let root = DirBuilder::new(&numbers)
        .add(BLOCK, live(&numbers, |disks, dir| disks.links(dir, "../devices/virtual", |disk| !disk.is_part())))
        .dir("bus", |dir| dir)
        .dir("class", |dir| {
            others
                .clone()
                .fold(dir, |dir, class| {
                    dir.dir(class, |dir| devices.links(dir, "../../devices/virtual", |d| d.subsystem() == class))
                })
                .add(BLOCK, live(&numbers, |disks, dir| disks.links(dir, "../../devices/virtual", |_| true)))
        })
        .dir("dev", |dir| {
            dir.add(BLOCK, live(&numbers, |disks, dir| disks.numbers(dir, DeviceKind::Block)))
                .dir("char", |dir| devices.numbers(dir, DeviceKind::Char))
        })
        .dir("devices", |dir| {
            dir.dir("system", |dir| dir.dir("cpu", |dir| processors(dir, cpus))).dir("virtual", |dir| {
                others
                    .clone()
                    .fold(dir, |dir, class| dir.dir(class, |dir| devices.class(dir, class)))
                    .add(BLOCK, live(&numbers, |disks, dir| disks.class(dir, BLOCK)))
            })
        })
        .dir("firmware", |dir| dir)
        .dir("fs", |dir| dir)
        .dir("kernel", |dir| {
            dir.file("uevent_seqnum", |ctx| format!("{}\n", uevent::sequence(ctx.kernel)).into_bytes())
        })
        .dir("module", |dir| dir)
        .dir("power", |dir| dir)
        .build();
    let dev = numbers.dev;
    Arc::new(PseudoFs { name: "sysfs", magic: MAGIC, dev, root })
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
