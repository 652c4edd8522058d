//! Disks as block devices: their nodes, open disks, and what `ioctl(2)` tells of them.

use super::{Disk, Opened, in_use, partitions};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::net::netlink::uevent::{self, VIRTUAL};
use crate::task::Capabilities;
use crate::vfs::{Device, DeviceKind, DeviceNode, File, FileOps, Location, OpenFlags, Vfs, major, minor};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::Ordering;

/// Largest piece moved between the host file and guest memory at once.
const CHUNK: usize = 64 * 1024;

/// The block device of a disk.
struct DiskDevice(Arc<Disk>);

impl Device for DiskDevice {
    fn open(&self, ctx: &Ctx, _location: &Location, _rdev: u64, flags: OpenFlags) -> Result<Box<dyn FileOps>> {
        check_open(ctx, &self.0, flags)?;
        Ok(Box::new(OpenDisk(Opened::new(&self.0)?)))
    }

    fn block_device(&self) -> Option<Arc<Disk>> {
        Some(self.0.clone())
    }
}

/// Refuses to open a disk in a way that it cannot be. What is read-only can be opened to write; writes tell.
pub(super) fn check_open(ctx: &Ctx, disk: &Disk, flags: OpenFlags) -> Result<()> {
    // Who is about to change what lies on it asks so whether that is in use (`open(2)`).
    if flags.contains(OpenFlags::EXCL) && in_use(&ctx.kernel.vfs, disk) {
        bail!(EBUSY, "a file system on it is mounted");
    }
    Ok(())
}

/// An open disk.
struct OpenDisk(Opened);

/// `ioctl(2)` of block devices (`linux/fs.h`).
const BLKROSET: u32 = 0x125d;
const BLKROGET: u32 = 0x125e;
pub(super) const BLKRRPART: u32 = 0x125f;
const BLKGETSIZE: u32 = 0x1260;
const BLKFLSBUF: u32 = 0x1261;
const BLKRASET: u32 = 0x1262;
const BLKRAGET: u32 = 0x1263;
const BLKFRASET: u32 = 0x1264;
const BLKFRAGET: u32 = 0x1265;
const BLKSSZGET: u32 = 0x1268;
const BLKBSZGET: u32 = 0x8008_1270;
const BLKGETSIZE64: u32 = 0x8008_1272;
const BLKDISCARD: u32 = 0x1277;
const BLKIOMIN: u32 = 0x1278;
const BLKIOOPT: u32 = 0x1279;
const BLKALIGNOFF: u32 = 0x127a;
const BLKPBSZGET: u32 = 0x127b;
const BLKROTATIONAL: u32 = 0x127e;

/// `linux/hdreg.h`.
const HDIO_GETGEO: u32 = 0x301;
/// Heads, and sectors of a track, that User-Mode Linux gives its disks.
const HEADS: u64 = 128;
const TRACK: u64 = 32;

/// Bytes of a sector.
const SECTOR: u64 = partition::SECTOR;
/// Bytes that the host's page cache, which is the disk's, reads and writes together.
const BLOCK: i32 = 4096;

/// `EACCES` for who may not change how a disk is used.
pub(super) fn administrator(ctx: &Ctx) -> Result<()> {
    if ctx.creds().capable(Capabilities::SYS_ADMIN) { Ok(()) } else { Err(Errno::EACCES.into()) }
}

impl Disk {
    /// `struct hd_geometry`: heads, sectors and cylinders together, then where it begins.
    fn geometry(&self) -> [u64; 2] {
        let cylinders = (self.size / (HEADS * TRACK * SECTOR)) & 0xffff;
        [HEADS | TRACK << 8 | cylinders << 16, self.start() / SECTOR]
    }

    /// `BLKDISCARD`: the start and length of a range of whole sectors.
    fn discard_range(&self, ctx: &Ctx, file: &File, arg: u64) -> Result<()> {
        if !file.flags().writable() {
            bail!(EBADF);
        }
        if self.read_only() {
            bail!(EPERM);
        }
        let [start, len]: [u64; 2] = ctx.read_val(arg)?;
        if !(start | len).is_multiple_of(self.sector()) || start.checked_add(len).is_none_or(|end| end > self.size) {
            bail!(EINVAL);
        }
        if self.backing().is_some() && in_use(&ctx.kernel.vfs, self) {
            // Its memory and its mappings would be left with blocks that may be another file's by now.
            bail!(EBUSY, "a file system on it is mounted");
        }
        self.discard(start, len)
    }

    /// `read(2)` of its device.
    pub(super) fn read_to(&self, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let mut buf = alloc::vec![0; dst.remaining().min(CHUNK)];
        let mut done = 0;
        while dst.remaining() > 0 {
            let left = self.size.saturating_sub(offset + done as u64);
            let want = dst.remaining().min(CHUNK).min(usize::try_from(left).unwrap_or(usize::MAX));
            if want == 0 {
                break;
            }
            self.read(offset + done as u64, &mut buf[..want])?;
            match dst.put(&buf[..want]) {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// `write(2)` of its device.
    pub(super) fn write_from(&self, offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        if self.read_only() {
            bail!(EPERM);
        }
        let mut buf = alloc::vec![0; src.remaining().min(CHUNK)];
        let mut done = 0;
        while src.remaining() > 0 {
            let left = self.size.saturating_sub(offset + done as u64);
            let want = src.remaining().min(CHUNK).min(usize::try_from(left).unwrap_or(usize::MAX));
            if want == 0 {
                return if done > 0 { Ok(done) } else { Err(Errno::ENOSPC.into()) };
            }
            match src.take(&mut buf[..want]) {
                Ok(n) => {
                    self.write(offset + done as u64, &buf[..n])?;
                    done += n;
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// `ioctl(2)` of its device.
    pub(super) fn request(&self, ctx: &Ctx, file: &File, cmd: u32, arg: u64) -> Result<usize> {
        match cmd {
            BLKROGET => ctx.write_val(arg, &i32::from(self.read_only()))?,
            BLKROSET => {
                administrator(ctx)?;
                self.protected.store(ctx.read_val::<i32>(arg)? != 0, Ordering::Relaxed);
                ctx.kernel.vfs.devices.changed();
            }
            BLKRAGET | BLKFRAGET => ctx.write_val(arg, &self.read_ahead.load(Ordering::Relaxed))?,
            BLKRASET | BLKFRASET => {
                administrator(ctx)?;
                self.read_ahead.store(arg, Ordering::Relaxed);
            }
            BLKGETSIZE => ctx.write_val(arg, &(self.size / SECTOR))?,
            BLKGETSIZE64 => ctx.write_val(arg, &self.size)?,
            BLKSSZGET | BLKPBSZGET | BLKIOMIN => ctx.write_val(arg, &(self.sector() as u32))?,
            BLKIOOPT | BLKALIGNOFF => ctx.write_val(arg, &0u32)?,
            BLKROTATIONAL => ctx.write_val(arg, &0u16)?,
            BLKBSZGET => ctx.write_val(arg, &BLOCK)?,
            BLKFLSBUF => self.flush()?,
            BLKDISCARD => self.discard_range(ctx, file, arg)?,
            HDIO_GETGEO => ctx.write_val(arg, &self.geometry())?,
            BLKRRPART => partitions::reread(ctx, self)?,
            _ => bail!(ENOTTY),
        }
        Ok(0)
    }
}

impl FileOps for OpenDisk {
    fn read(&self, _ctx: &Ctx, _file: &File, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        self.0.read_to(offset, dst)
    }

    fn write(&self, _ctx: &Ctx, _file: &File, offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        self.0.write_from(offset, src)
    }

    fn ioctl(&self, ctx: &Ctx, file: &File, cmd: u32, arg: u64) -> Result<usize> {
        self.0.request(ctx, file, cmd, arg)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.size)
    }

    fn sync(&self) -> Result<()> {
        self.0.flush()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A disk as events name it; `whole` is the disk that a partition belongs to.
pub(crate) fn event_of(disk: &Disk, whole: &str) -> uevent::Device {
    let (name, mut properties) = (disk.name(), uevent::numbers(disk.rdev()));
    properties += &format!("DEVNAME={name}\n");
    let path = match disk.partition() {
        None => {
            properties += "DEVTYPE=disk\n";
            format!("{VIRTUAL}/block/{name}")
        }
        Some(number) => {
            properties += &format!("DEVTYPE=partition\nPARTN={number}\n");
            format!("{VIRTUAL}/block/{whole}/{name}")
        }
    };
    if !disk.label().is_empty() {
        properties += &format!("PARTNAME={}\n", disk.label());
    }
    uevent::Device { path, subsystem: "block", properties }
}

/// A disk's device and the node that is for it.
pub(super) fn device(disk: &Arc<Disk>) -> (DeviceNode, Arc<dyn Device>) {
    // As devtmpfs makes it: which group may have disks, udev's rules say.
    let node = DeviceNode { name: disk.name.clone(), kind: DeviceKind::Block, rdev: disk.rdev, mode: 0o600, gid: 0 };
    (node, Arc::new(DiskDevice(disk.clone())))
}

/// Makes a disk known as a block device.
pub fn register(vfs: &Vfs, disk: &Arc<Disk>) {
    let (node, device) = device(disk);
    let number = (major(disk.rdev), minor(disk.rdev));
    vfs.devices.register(node.kind, number, &node.name, node.mode, node.gid, device);
}
