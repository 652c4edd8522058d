//! Block devices on host files: the disks `ubda`, `ubdb` and so on.

mod layers;

pub use layers::{MAX_OVERLAYS, OverlayFiles};

use crate::bail;
use crate::errno::{Errno, Result};
use crate::host::{self, HostFd};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::vfs::{Device, DeviceKind, File, FileOps, Location, OpenFlags, Vfs};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use layers::Layers;

/// Major number of `ubd` devices, as in user-mode Linux.
pub const UBD_MAJOR: u32 = 98;
/// Minor numbers that each disk has: the whole disk and its partitions.
const MINORS: u32 = 16;
/// Group of disk nodes (`disk` in the usual `/etc/group`).
const DISK_GID: u32 = 6;
/// Largest piece moved between the host file and guest memory at once.
const CHUNK: usize = 64 * 1024;

/// A disk: a host file, read and written at byte offsets, perhaps with overlays above it.
pub struct Disk {
    files: Files,
    size: u64,
    read_only: bool,
    /// Name below `/dev`.
    name: String,
    rdev: u64,
}

/// What a disk's bytes lie in.
enum Files {
    One(HostFd),
    Layered(Layers),
}

impl Disk {
    /// The disk number `index` (0 for `ubda`) on a host descriptor that it takes over.
    pub fn new(fd: HostFd, size: u64, read_only: bool, index: u8) -> Arc<Disk> {
        Disk::on(Files::One(fd), size, read_only, index)
    }

    /// A disk whose image is only read; overlays have what is written.
    ///
    /// # Errors
    /// The host's, when an overlay is read.
    pub fn layered(fd: HostFd, overlays: OverlayFiles, size: u64, read_only: bool, index: u8) -> Result<Arc<Disk>> {
        Ok(Disk::on(Files::Layered(Layers::open(fd, size, overlays)?), size, read_only, index))
    }

    fn on(files: Files, size: u64, read_only: bool, index: u8) -> Arc<Disk> {
        let letter = (b'a' + index.min(25)) as char;
        let rdev = crate::vfs::makedev(UBD_MAJOR, u32::from(index) * MINORS);
        Arc::new(Disk { files, size, read_only, name: alloc::format!("ubd{letter}"), rdev })
    }

    /// The host file that has the byte at `offset`, its place there, and how many of `len` bytes follow it there: to
    /// read or map them privately.
    pub fn host_place(&self, offset: u64, len: u64) -> (i32, u64, u64) {
        match &self.files {
            Files::One(fd) => (fd.raw(), offset, len),
            Files::Layered(layers) => layers.place(offset, len),
        }
    }

    /// The host file and the place in it to write or map a range for stores. A range that was read from another place
    /// has this one from now on.
    ///
    /// # Errors
    /// The host's, when blocks are brought into an overlay.
    pub fn host_place_to_write(&self, offset: u64, len: u64) -> Result<(i32, u64)> {
        match &self.files {
            Files::One(fd) => Ok((fd.raw(), offset)),
            Files::Layered(_) if self.read_only => bail!(EROFS),
            Files::Layered(layers) => layers.place_to_write(offset, len),
        }
    }

    /// As [`Disk::host_place_to_write`], for a range that is to be written whole: what it held is not brought along.
    ///
    /// # Errors
    /// As there.
    pub fn host_place_to_fill(&self, offset: u64, len: u64) -> Result<(i32, u64)> {
        match &self.files {
            Files::One(fd) => Ok((fd.raw(), offset)),
            Files::Layered(_) if self.read_only => bail!(EROFS),
            Files::Layered(layers) => layers.place_to_fill(offset, len),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Name below `/dev`, `"ubda"`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Device number.
    pub fn rdev(&self) -> u64 {
        self.rdev
    }

    /// Fills the buffer from `offset`; `EIO` if the host file has become too short.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match &self.files {
            Files::One(fd) => layers::read_all(fd.raw(), offset, buf),
            Files::Layered(layers) => layers.read(offset, buf),
        }
    }

    /// Writes the buffer at `offset`.
    pub fn write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if self.read_only {
            bail!(EROFS);
        }
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            bail!(ENOSPC);
        }
        match &self.files {
            Files::One(fd) => layers::write_all(fd.raw(), offset, buf),
            Files::Layered(layers) => layers.write(offset, buf),
        }
    }

    /// Brings what was written to the host's disk.
    pub fn flush(&self) -> Result<()> {
        match &self.files {
            Files::One(fd) => host::fdatasync(fd.raw()),
            Files::Layered(layers) => layers.flush(),
        }
    }

    /// Frees a range of the host file; its bytes may be anything afterwards. The topmost overlay loses the blocks that it
    /// has; files below stay as they are.
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            bail!(EINVAL);
        }
        if self.read_only {
            bail!(EROFS);
        }
        match &self.files {
            Files::One(fd) => layers::punch(fd.raw(), offset, len),
            Files::Layered(layers) => layers.discard(offset, len),
        }
    }
}

fn device_error(e: crate::Error) -> ext4::IoError {
    ext4::IoError { errno: i32::from(e.errno.0) }
}

impl ext4::BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> core::result::Result<(), ext4::IoError> {
        self.read(offset, buf).map_err(device_error)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> core::result::Result<(), ext4::IoError> {
        self.write(offset, buf).map_err(device_error)
    }

    fn flush(&self) -> core::result::Result<(), ext4::IoError> {
        Disk::flush(self).map_err(device_error)
    }

    fn discard(&self, offset: u64, len: u64) -> core::result::Result<(), ext4::IoError> {
        Disk::discard(self, offset, len).map_err(device_error)
    }
}

/// The block device of a disk.
struct DiskDevice(Arc<Disk>);

impl Device for DiskDevice {
    fn open(&self, _ctx: &Ctx, _location: &Location, _rdev: u64, flags: OpenFlags) -> Result<Box<dyn FileOps>> {
        if self.0.read_only && flags.writable() {
            bail!(EACCES);
        }
        Ok(Box::new(OpenDisk(self.0.clone())))
    }

    fn block_device(&self) -> Option<Arc<Disk>> {
        Some(self.0.clone())
    }
}

/// An open disk.
struct OpenDisk(Arc<Disk>);

/// `ioctl(2)` of block devices (`linux/fs.h`).
const BLKROGET: u32 = 0x125e;
const BLKGETSIZE: u32 = 0x1260;
const BLKFLSBUF: u32 = 0x1261;
const BLKSSZGET: u32 = 0x1268;
const BLKGETSIZE64: u32 = 0x8008_1272;

impl FileOps for OpenDisk {
    fn read(&self, _ctx: &Ctx, _file: &File, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let mut buf = alloc::vec![0; dst.remaining().min(CHUNK)];
        let mut done = 0;
        while dst.remaining() > 0 {
            let left = self.0.size.saturating_sub(offset + done as u64);
            let want = dst.remaining().min(CHUNK).min(usize::try_from(left).unwrap_or(usize::MAX));
            if want == 0 {
                break;
            }
            self.0.read(offset + done as u64, &mut buf[..want])?;
            match dst.put(&buf[..want]) {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write(&self, _ctx: &Ctx, _file: &File, offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let mut buf = alloc::vec![0; src.remaining().min(CHUNK)];
        let mut done = 0;
        while src.remaining() > 0 {
            let left = self.0.size.saturating_sub(offset + done as u64);
            let want = src.remaining().min(CHUNK).min(usize::try_from(left).unwrap_or(usize::MAX));
            if want == 0 {
                return if done > 0 { Ok(done) } else { Err(Errno::ENOSPC.into()) };
            }
            match src.take(&mut buf[..want]) {
                Ok(n) => {
                    self.0.write(offset + done as u64, &buf[..n])?;
                    done += n;
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        match cmd {
            BLKROGET => ctx.write_val(arg, &i32::from(self.0.read_only))?,
            BLKGETSIZE => ctx.write_val(arg, &(self.0.size / 512))?,
            BLKGETSIZE64 => ctx.write_val(arg, &self.0.size)?,
            BLKSSZGET => ctx.write_val(arg, &512i32)?,
            BLKFLSBUF => self.0.flush()?,
            _ => bail!(ENOTTY),
        }
        Ok(0)
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

/// Makes a disk known as a block device.
pub fn register(vfs: &Vfs, disk: &Arc<Disk>) {
    let number = (crate::vfs::major(disk.rdev), crate::vfs::minor(disk.rdev));
    let device = Arc::new(DiskDevice(disk.clone()));
    vfs.devices.register(DeviceKind::Block, number, &disk.name, 0o660, DISK_GID, device);
}
