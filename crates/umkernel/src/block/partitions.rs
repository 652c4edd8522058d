//! Partitions: ranges of a disk that are block devices themselves (`block/partitions/` of Linux).

use super::loops::LOOP_MAJOR;
use super::{Disk, MINORS, device, in_use};
use crate::bail;
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::log::Level;
use crate::net::netlink::uevent;
use crate::vfs::{DeviceKind, major, makedev, minor};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Major number of partitions for which a disk has no minor number of its own (`BLOCK_EXT_MAJOR`).
const EXTENDED_MAJOR: u32 = 259;
/// Disks of the other kind come before loop devices in the numbers of their partitions.
const FIRST_LOOP: u32 = 16;
/// What an extended partition shows of itself: enough for a boot loader, too little to write over the logical ones.
const EXTENDED_SIZE: u64 = 1024;

/// What distinguishes a partition from its disk.
pub(super) struct Part {
    number: u32,
    /// Where it begins on the disk, in bytes.
    start: u64,
    label: String,
    disk: u64,
}

impl Disk {
    /// The partition's number; `None` for a whole disk.
    pub fn partition(&self) -> Option<u32> {
        self.part.as_ref().map(|part| part.number)
    }

    /// Where it begins on its disk, in bytes.
    pub fn start(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.start)
    }

    /// The partition's name in its table; empty if it has none.
    pub fn label(&self) -> &str {
        self.part.as_ref().map_or("", |part| &part.label)
    }

    /// Device number of the whole disk.
    pub fn whole(&self) -> u64 {
        self.part.as_ref().map_or(self.rdev, |part| part.disk)
    }

    /// Whether the other one has bytes of this one.
    pub fn overlaps(&self, other: &Disk) -> bool {
        self.whole() == other.whole()
            && self.start() < other.start().saturating_add(other.size)
            && other.start() < self.start().saturating_add(self.size)
    }

    fn part(&self, found: partition::Partition) -> Arc<Disk> {
        let size = if found.kind.is_extended() { found.size.min(EXTENDED_SIZE) } else { found.size };
        let rdev = match (major(self.rdev), found.number) {
            (LOOP_MAJOR, number) => makedev(EXTENDED_MAJOR, (FIRST_LOOP + minor(self.rdev)) << 10 | number),
            (major, number @ 0..MINORS) => makedev(major, minor(self.rdev) + number),
            (_, number) => makedev(EXTENDED_MAJOR, (minor(self.rdev) / MINORS) << 10 | number),
        };
        // As Linux shows it: whoever made the table may have meant it for more than a name.
        let label = found.name.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '!' }).collect();
        let part = Part { number: found.number, start: found.start, label, disk: self.rdev };
        // Where the disk's own name ends with a number, that of the partition is set off.
        let between = if self.name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        let name = format!("{}{between}{}", self.name, part.number);
        Disk::part_of(self.files.clone(), Some(part), size, self.read_only, name, rdev)
    }
}

/// The partitions of a disk; a table that cannot be read is a message.
pub fn scan(kernel: &Kernel, disk: &Disk) -> Vec<Arc<Disk>> {
    let table = match partition::scheme(disk) {
        Ok(Some(scheme)) => partition::read(disk, scheme),
        Ok(None) => return Vec::new(),
        Err(e) => Err(e.into()),
    };
    let found = match table {
        Ok(found) => found,
        Err(e) => {
            kernel.message(Level::Warning, format!("{}: {e}", disk.name));
            return Vec::new();
        }
    };
    let (inside, outside): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.end_within(disk.size).is_some());
    for one in outside {
        let text = format!("{}: partition {} reaches behind the disk's end, left out", disk.name, one.number);
        kernel.message(Level::Warning, text);
    }
    let parts: Vec<_> = inside.into_iter().map(|one| disk.part(one)).collect();
    let names: String = parts.iter().map(|part| format!(" {}", part.name)).collect();
    kernel.message(Level::Info, format!(" {}:{names}", disk.name));
    parts
}

/// `BLKRRPART`: the partitions are those that the table has now. None of the old ones may be in use.
pub(super) fn reread(ctx: &Ctx, whole: &Disk) -> Result<()> {
    if whole.part.is_some() {
        bail!(EINVAL);
    }
    device::administrator(ctx)?;
    let vfs = &ctx.kernel.vfs;
    let _guard = vfs.devices.changing.lock();
    if in_use(vfs, whole) || of(ctx.kernel, whole).iter().any(|part| part.opened.load(Ordering::Relaxed) > 0) {
        bail!(EBUSY);
    }
    remove(ctx, whole);
    add(ctx, whole);
    Ok(())
}

/// The partitions that a disk has at this moment.
fn of(kernel: &Kernel, whole: &Disk) -> Vec<Arc<Disk>> {
    let mut parts = kernel.vfs.devices.disks();
    parts.retain(|disk| disk.part.is_some() && disk.whole() == whole.rdev);
    parts
}

/// Whether a device number is one of the partitions of a disk.
fn is_of(rdev: u64, whole: u64) -> bool {
    let disk = match major(whole) {
        LOOP_MAJOR => FIRST_LOOP + minor(whole),
        _ => minor(whole) / MINORS,
    };
    match major(rdev) {
        EXTENDED_MAJOR => minor(rdev) >> 10 == disk,
        same => same == major(whole) && same != LOOP_MAJOR && minor(rdev) / MINORS == disk && rdev != whole,
    }
}

/// Removes a disk's partitions. The caller holds the lock on which devices there are.
pub(super) fn remove(ctx: &Ctx, whole: &Disk) {
    for part in of(ctx.kernel, whole) {
        // Who has made something else of the node may keep it.
        let _ = ctx.kernel.vfs.remove_device(ctx, DeviceKind::Block, part.rdev);
        uevent::announce(ctx.kernel, &device::event_of(&part, &whole.name), "remove");
    }
    // Nodes of partitions that went with a loop device's file.
    for node in ctx.kernel.vfs.devices.nodes() {
        if node.kind == DeviceKind::Block && is_of(node.rdev, whole.rdev) {
            let _ = ctx.kernel.vfs.remove_device(ctx, DeviceKind::Block, node.rdev);
        }
    }
}

/// Adds the partitions that a disk's table has. The caller holds the lock on which devices there are.
pub(super) fn add(ctx: &Ctx, whole: &Disk) {
    for part in scan(ctx.kernel, whole) {
        let (node, device) = device::device(&part);
        // A full devtmpfs lacks the node; the partition is there, and mknod(2) reaches it.
        let _ = ctx.kernel.vfs.add_device(ctx, &node, device);
        uevent::announce(ctx.kernel, &device::event_of(&part, &whole.name), "add");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;
    use crate::host::{self, HostFd};
    use crate::testing::tmpfs_machine;

    fn entry(sector: &mut [u8], slot: usize, kind: u8, start: u32, size: u32) {
        let entry = &mut sector[446 + slot * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&size.to_le_bytes());
    }

    #[test]
    fn a_partition_is_a_range_of_its_disk() {
        let fd = HostFd::new(host::memfd_create(c"disk").unwrap());
        host::ftruncate(fd.raw(), 100 * 512 + 17).unwrap();
        let disk = Disk::new(fd, 100 * 512 + 17, false, 1);
        assert_eq!(disk.size(), 100 * 512, "half a sector");
        let mut table = [0; 512];
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        entry(&mut table, 0, 0x83, 10, 20);
        entry(&mut table, 2, 0x05, 40, 50);
        entry(&mut table, 3, 0x83, 90, 11);
        disk.write(0, &table).unwrap();
        let machine = tmpfs_machine();
        let parts = scan(&machine.kernel, &disk);
        let told: Vec<_> =
            parts.iter().map(|part| (part.name(), part.start(), part.size(), minor(part.rdev()))).collect();
        // What reaches behind the end is left out, the extended one shows its table alone.
        assert_eq!(told, [("ubdb1", 5120, 10240, 17), ("ubdb3", 20480, 1024, 19)]);
        let part = &parts[0];
        part.write(512, b"here").unwrap();
        let mut bytes = [0; 4];
        disk.read(5120 + 512, &mut bytes).unwrap();
        assert_eq!(&bytes, b"here");
        assert_eq!(part.host_place(8, 100).unwrap().1, 5128);
        assert_eq!(part.write(10240 - 3, b"here"), Err(Errno::ENOSPC.into()));
        assert_eq!(part.read(10240 - 3, &mut bytes), Err(Errno::EIO.into()));
        assert_eq!(part.discard(0, 10241), Err(Errno::EINVAL.into()));
        assert!(part.overlaps(&disk) && disk.overlaps(part) && !part.overlaps(&parts[1]));
    }
}
