//! Files of `/proc` about the whole machine.

use super::{cpuinfo, sysvipc};
use crate::block::Disk;
use crate::fs::pseudo::DirBuilder;
use crate::kernel::{Ctx, Kernel};
use crate::mm::PAGE_SIZE;
use crate::net::{self, inet};
use crate::stats::{self, LOAD_FRACTION_BITS};
use crate::time::{NSEC_PER_SEC, NSEC_PER_TICK};
use crate::version;
use crate::vfs::{DeviceKind, major, minor};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

/// Adds the files.
pub(super) fn add(root: DirBuilder) -> DirBuilder {
    root.file("version", |_| {
        format!("{} version {} (umlfs) {}\n", version::SYSNAME, version::RELEASE, version::VERSION).into_bytes()
    })
    .file("cmdline", |ctx| format!("{}\n", ctx.kernel.config.command_line).into_bytes())
    .file("cpuinfo", |ctx| cpuinfo::text(ctx.kernel.config.cpus).into_bytes())
    .file("meminfo", |ctx| meminfo(ctx.kernel).into_bytes())
    .file("stat", |ctx| stat(ctx.kernel).into_bytes())
    .file("uptime", |ctx| uptime(ctx.kernel).into_bytes())
    .file("loadavg", |ctx| loadavg(ctx.kernel).into_bytes())
    .file("filesystems", |ctx| filesystems(ctx.kernel).into_bytes())
    .file("partitions", |ctx| partitions(ctx.kernel).into_bytes())
    .file("diskstats", |ctx| diskstats(ctx.kernel).into_bytes())
    .file("devices", |ctx| devices(ctx.kernel).into_bytes())
    .file("vmstat", |ctx| vmstat(ctx.kernel).into_bytes())
    .text("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
    .text("modules", "")
    .file("interrupts", |ctx| {
        let cpus: String = (0..ctx.kernel.config.cpus).map(|i| format!("       CPU{i}")).collect();
        format!("   {cpus}\n").into_bytes()
    })
    .dir("tty", |dir| dir.text("drivers", TTY_DRIVERS))
    .dir("net", network)
    .dir("sysvipc", |dir| {
        dir.file("msg", |ctx| sysvipc::messages(ctx.ipc()).into_bytes())
            .file("sem", |ctx| sysvipc::semaphores(ctx.ipc()).into_bytes())
            .file("shm", |ctx| sysvipc::segments(ctx.ipc()).into_bytes())
    })
}

const TTY_DRIVERS: &str = "\
/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
/dev/ptmx            /dev/ptmx       5       2 system
pty_slave            /dev/pts      136 0-1048575 pty:slave
tty                  /dev/tty        4 0-63 console
";

/// The network's tables.
fn network(dir: DirBuilder) -> DirBuilder {
    type Text = fn(&net::Net) -> String;
    let tables: [(&str, Text); 7] = [
        ("dev", net::tables::devices),
        ("if_inet6", net::tables::inet6),
        ("tcp", |net| inet::table(net, inet::Table::Tcp)),
        ("tcp6", |net| inet::table(net, inet::Table::Tcp6)),
        ("udp", |net| inet::table(net, inet::Table::Udp)),
        ("udp6", |net| inet::table(net, inet::Table::Udp6)),
        ("unix", net::tables::unix),
    ];
    let dir = NET.iter().fold(dir, |dir, (name, text)| dir.text(*name, text));
    tables.into_iter().fold(dir, |dir, (name, text)| dir.file(name, move |ctx| text(&ctx.kernel.net).into_bytes()))
}

/// Tables in which there is nothing but their headings: no way leads off the machine.
const NET: &[(&str, &str)] = &[
    (
        "route",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                              \
         \u{20}                        \n",
    ),
    ("arp", "IP address       HW type     Flags       HW address            Mask     Device\n"),
    (
        "raw",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer \
         drops\n",
    ),
    ("packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"),
];

fn meminfo(kernel: &Kernel) -> String {
    let memory = stats::memory(kernel);
    let kb = |bytes: u64| bytes / 1024;
    let available = memory.free;
    let free = memory.free - memory.mapped;
    let lines = [
        ("MemTotal:", memory.total),
        ("MemFree:", free),
        ("MemAvailable:", available),
        ("Buffers:", 0),
        ("Cached:", memory.mapped),
        ("SwapCached:", 0),
        ("Active:", memory.anonymous + memory.mapped),
        ("Inactive:", 0),
        ("Active(anon):", memory.anonymous),
        ("Inactive(anon):", 0),
        ("Active(file):", memory.mapped),
        ("Inactive(file):", 0),
        ("Unevictable:", 0),
        ("Mlocked:", 0),
        ("SwapTotal:", 0),
        ("SwapFree:", 0),
        ("Dirty:", 0),
        ("Writeback:", 0),
        ("AnonPages:", memory.anonymous),
        ("Mapped:", memory.mapped),
        ("Shmem:", memory.shared),
        ("Slab:", memory.kernel),
        ("SReclaimable:", 0),
        ("SUnreclaim:", memory.kernel),
        ("CommitLimit:", memory.total / 2),
        ("Committed_AS:", memory.anonymous),
    ];
    lines.iter().map(|(name, bytes)| format!("{name:<15} {:8} kB\n", kb(*bytes))).collect()
}

/// Processor time of the machine in clock ticks: guest code, kernel code, idle.
fn processor_ticks(kernel: &Kernel) -> (u64, u64, u64) {
    let (mut user, mut system) = kernel.load.ended_times();
    for process in kernel.tasks.processes() {
        for task in process.inner.lock().threads.iter() {
            let (u, s) = kernel.platform.cpu_times(task);
            user += u;
            system += s;
        }
    }
    let all = kernel.uptime_ns() * u64::from(kernel.config.cpus.max(1));
    (user / NSEC_PER_TICK, system / NSEC_PER_TICK, all.saturating_sub(user + system) / NSEC_PER_TICK)
}

fn stat(kernel: &Kernel) -> String {
    let (user, system, idle) = processor_ticks(kernel);
    let mut text = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    // The host spreads the load; each processor is shown its part.
    let cpus = u64::from(kernel.config.cpus.max(1));
    for cpu in 0..cpus {
        let part = |all: u64| all / cpus + u64::from(cpu < all % cpus);
        text += &format!("cpu{cpu} {} 0 {} {} 0 0 0 0 0 0\n", part(user), part(system), part(idle));
    }
    let switches: u64 = kernel.load.ended_sleeps()
        + kernel
            .tasks
            .processes()
            .iter()
            .map(|p| p.inner.lock().threads.iter().map(|t| t.sched.sleeps.load(Ordering::Relaxed)).sum::<u64>())
            .sum::<u64>();
    let running = kernel.running_tasks();
    let forks = kernel.load.forks.load(Ordering::Relaxed);
    let boot = kernel.boot_realtime / NSEC_PER_SEC;
    text += &format!("intr 0\nctxt {switches}\nbtime {boot}\nprocesses {forks}\nprocs_running {running}\n");
    text += "procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n";
    text
}

fn uptime(kernel: &Kernel) -> String {
    let hundredths = |ticks: u64| format!("{}.{:02}", ticks / 100, ticks % 100);
    let up = kernel.uptime_ns() / NSEC_PER_TICK;
    format!("{} {}\n", hundredths(up), hundredths(processor_ticks(kernel).2))
}

fn loadavg(kernel: &Kernel) -> String {
    let mut text = String::new();
    for average in kernel.load.averages() {
        // Rounded to hundredths, as Linux does.
        let rounded = average + (1 << LOAD_FRACTION_BITS) / 200;
        let fraction = ((rounded & ((1 << LOAD_FRACTION_BITS) - 1)) * 100) >> LOAD_FRACTION_BITS;
        text += &format!("{}.{fraction:02} ", rounded >> LOAD_FRACTION_BITS);
    }
    let (tasks, last) = kernel.tasks.counts();
    text += &format!("{}/{tasks} {last}\n", kernel.running_tasks());
    text
}

fn filesystems(kernel: &Kernel) -> String {
    let line = |t: &crate::vfs::FsType| format!("{}\t{}\n", if t.needs_device { "" } else { "nodev" }, t.name);
    kernel.vfs.fs_types().iter().map(line).collect()
}

fn partitions(kernel: &Kernel) -> String {
    let mut text = String::from("major minor  #blocks  name\n\n");
    for disk in kernel.vfs.devices.disks().iter().filter(|disk| disk.size() > 0) {
        let (major, minor) = (major(disk.rdev()), minor(disk.rdev()));
        text += &format!("{major:4}  {minor:7} {:10} {}\n", disk.size() / 1024, disk.name());
    }
    text
}

fn diskstats(kernel: &Kernel) -> String {
    // The disk is a mapped file: its traffic is the host's, and is not counted here.
    let line = |disk: &Arc<Disk>| {
        let (major, minor, name) = (major(disk.rdev()), minor(disk.rdev()), disk.name());
        format!("{major:4} {minor:7} {name} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
    };
    kernel.vfs.devices.disks().iter().map(line).collect()
}

fn devices(kernel: &Kernel) -> String {
    let mut text = String::new();
    for (kind, heading) in [(DeviceKind::Char, "Character devices:\n"), (DeviceKind::Block, "\nBlock devices:\n")] {
        text += heading;
        let mut majors: BTreeMap<u32, String> = BTreeMap::new();
        for node in kernel.vfs.devices.nodes().into_iter().filter(|n| n.kind == kind) {
            majors.entry(major(node.rdev)).or_insert_with(|| driver_name(major(node.rdev), &node.name));
        }
        for (major, name) in majors {
            text += &format!("{major:3} {name}\n");
        }
    }
    text
}

/// What a driver calls itself, by its major number, or else its first device's name without its number.
fn driver_name(major: u32, device: &str) -> String {
    match major {
        1 => "mem".into(),
        4 => "tty".into(),
        5 => "/dev/tty".into(),
        136 => "pts".into(),
        7 => "loop".into(),
        10 => "misc".into(),
        98 => "ubd".into(),
        259 => "blkext".into(),
        _ => device.trim_end_matches(|c: char| c.is_ascii_digit()).into(),
    }
}

fn vmstat(kernel: &Kernel) -> String {
    let memory = stats::memory(kernel);
    let mut text = String::new();
    let free = memory.free - memory.mapped;
    for (name, bytes) in [
        ("nr_free_pages", free),
        ("nr_anon_pages", memory.anonymous),
        ("nr_mapped", memory.mapped),
        ("nr_file_pages", memory.mapped),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} {}", bytes / PAGE_SIZE);
    }
    text += "pgpgin 0\npgpgout 0\npswpin 0\npswpout 0\n";
    text
}

/// The text for a ctx-dependent file of few bytes.
pub(super) fn line(ctx: &Ctx, make: impl FnOnce(&Kernel) -> String) -> Vec<u8> {
    let mut text = make(ctx.kernel).into_bytes();
    text.push(b'\n');
    text
}
