//! Block devices: the disks `ubda`, `ubdb` and so on, which are host files, and loop devices (`loop(4)`), which are files of the
//! guest's; each with its partitions: `ubda1`, `ubda2`, `loop0p1` and so on.

mod backing;
mod device;
mod layers;
mod loops;
mod partitions;

pub(crate) use backing::Backing;
pub(crate) use device::event_of;
pub use device::register;
pub use layers::{MAX_OVERLAYS, OverlayFiles};
pub use loops::register as register_loops;
pub use partitions::scan;

use crate::bail;
use crate::errno::Result;
use crate::host::{self, HostFd};
use crate::mm::PAGE_SIZE;
use crate::vfs::Vfs;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use layers::Layers;
use partitions::Part;

/// Major number of `ubd` devices, as in user-mode Linux.
pub const UBD_MAJOR: u32 = 98;
/// Minor numbers that each disk has: the whole disk and its partitions.
const MINORS: u32 = 16;
/// The most disks of a machine: `ubda` to `ubdh`.
pub const MAX_DISKS: usize = 8;

/// What a disk's bytes lie in, opened and locked by who starts the machine.
#[derive(Debug)]
pub struct DiskFiles {
    /// Its number: 0 is `ubda`.
    pub index: u8,
    /// The image; open for writing unless `read_only` or below overlays.
    pub image: HostFd,
    /// Files above the image that have what is written; the topmost is open for writing unless `read_only`.
    pub overlays: Option<OverlayFiles>,
    /// Its size in bytes.
    pub size: u64,
    /// Nothing is written to it.
    pub read_only: bool,
    /// What the user calls it, for messages.
    pub name: String,
}

/// A disk or a partition of one: a file, or a range of it, read and written at byte offsets, perhaps with overlays above it.
pub struct Disk {
    files: Arc<Files>,
    /// What distinguishes a partition from its disk.
    part: Option<Part>,
    size: u64,
    read_only: bool,
    /// Name below `/dev`.
    name: String,
    rdev: u64,
    /// Open files of its device, and file systems on it.
    opened: AtomicUsize,
    /// Whoever comes from now on may only read (`BLKROSET`).
    protected: AtomicBool,
    /// Sectors to be read ahead (`BLKRASET`): a number that is kept, as the host decides that.
    read_ahead: AtomicU64,
}

/// Sectors that Linux reads ahead where nobody asked for another number.
const READ_AHEAD: u64 = 256;

/// What a disk's bytes lie in.
enum Files {
    One(HostFd),
    Layered(Layers),
    Loop(Backing),
    /// A loop device without a file.
    None,
}

/// A disk in use, by an open file of its device or a file system on it.
pub struct Opened(Arc<Disk>);

impl Opened {
    /// One more use of a disk.
    ///
    /// # Errors
    /// `ENXIO` for a loop device that has another file, or none, by now.
    pub fn new(disk: &Arc<Disk>) -> Result<Opened> {
        if let Files::Loop(backing) = &*disk.files {
            backing.enter(disk)?;
        }
        disk.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Opened(disk.clone()))
    }
}

impl Deref for Opened {
    type Target = Arc<Disk>;

    fn deref(&self) -> &Arc<Disk> {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.opened.fetch_sub(1, Ordering::Relaxed);
        if let Files::Loop(backing) = &*self.0.files {
            backing.leave();
        }
    }
}

impl Disk {
    /// The disk in these files.
    ///
    /// # Errors
    /// The host's, when an overlay is read.
    pub fn open(files: DiskFiles) -> Result<Arc<Disk>> {
        let DiskFiles { index, image, overlays, size, read_only, .. } = files;
        match overlays {
            Some(overlays) => {
                Ok(Disk::on(Files::Layered(Layers::open(image, size, overlays)?), size, read_only, index))
            }
            None => Ok(Disk::new(image, size, read_only, index)),
        }
    }

    /// The disk number `index` (0 for `ubda`) on a host descriptor that it takes over.
    pub fn new(fd: HostFd, size: u64, read_only: bool, index: u8) -> Arc<Disk> {
        Disk::on(Files::One(fd), size, read_only, index)
    }

    fn on(files: Files, size: u64, read_only: bool, index: u8) -> Arc<Disk> {
        let letter = (b'a' + index.min(25)) as char;
        let rdev = crate::vfs::makedev(UBD_MAJOR, u32::from(index) * MINORS);
        Disk::whole_on(Arc::new(files), size, read_only, format!("ubd{letter}"), rdev)
    }

    fn whole_on(files: Arc<Files>, size: u64, read_only: bool, name: String, rdev: u64) -> Arc<Disk> {
        // A disk has whole sectors, of the usual size whatever else it calls one.
        let size = size & !(partition::SECTOR - 1);
        Disk::part_of(files, None, size, read_only, name, rdev)
    }

    fn part_of(
        files: Arc<Files>,
        part: Option<Part>,
        size: u64,
        read_only: bool,
        name: String,
        rdev: u64,
    ) -> Arc<Disk> {
        let (opened, protected, read_ahead) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicU64::new(READ_AHEAD));
        Arc::new(Disk { files, part, size, read_only, name, rdev, opened, protected, read_ahead })
    }

    /// What a loop device is on; `None` for other disks, and where it has no file.
    pub(crate) fn backing(&self) -> Option<&Backing> {
        match &*self.files {
            Files::Loop(backing) => Some(backing),
            Files::One(_) | Files::Layered(_) | Files::None => None,
        }
    }

    /// Bytes of a sector (`BLKSSZGET`).
    pub fn sector(&self) -> u64 {
        self.files.sector()
    }

    /// The place in the files of a place on this disk.
    fn place(&self, offset: u64) -> u64 {
        self.start().saturating_add(offset)
    }

    /// Whether its pages are pages of the host's files, so that they can be mapped.
    pub fn has_whole_pages(&self) -> bool {
        let below = self.backing().is_none_or(Backing::has_whole_pages);
        below && self.start().is_multiple_of(PAGE_SIZE)
    }

    /// The host file that has the byte at `offset`, its place there, and how many of `len` bytes follow it there: to
    /// read or map them privately.
    ///
    /// # Errors
    /// Of a loop device, those of its file.
    pub fn host_place(&self, offset: u64, len: u64) -> Result<(i32, u64, u64)> {
        let offset = self.place(offset);
        match &*self.files {
            Files::One(fd) => Ok((fd.raw(), offset, len)),
            Files::Layered(layers) => Ok(layers.place(offset, len)),
            Files::Loop(backing) => backing.place(offset, len),
            Files::None => bail!(ENXIO),
        }
    }

    /// As [`Disk::host_place`], to write a range or map it for stores. What was read from another place has this one from now on.
    ///
    /// # Errors
    /// The host's, when blocks are brought into an overlay. Of a loop device, those of its file, which may have no room.
    pub fn host_place_to_write(&self, offset: u64, len: u64) -> Result<(i32, u64, u64)> {
        let offset = self.place(offset);
        match &*self.files {
            Files::One(fd) => Ok((fd.raw(), offset, len)),
            _ if self.read_only => bail!(EROFS),
            Files::Layered(layers) => layers.place_to_write(offset, len).map(|(fd, at)| (fd, at, len)),
            Files::Loop(backing) => backing.place_to_write(offset, len),
            Files::None => bail!(ENXIO),
        }
    }

    /// As [`Disk::host_place_to_write`], for a range that is to be written whole: what it held is not brought along.
    ///
    /// # Errors
    /// As there.
    pub fn host_place_to_fill(&self, offset: u64, len: u64) -> Result<(i32, u64, u64)> {
        match &*self.files {
            Files::Layered(layers) if !self.read_only => {
                layers.place_to_fill(self.place(offset), len).map(|(fd, at)| (fd, at, len))
            }
            _ => self.host_place_to_write(offset, len),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether who wants to write to it is refused.
    pub fn read_only(&self) -> bool {
        self.read_only || self.protected.load(Ordering::Relaxed)
    }

    /// Name below `/dev`, `"ubda"` or `"ubda1"`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Device number.
    pub fn rdev(&self) -> u64 {
        self.rdev
    }

    /// Fills the buffer from `offset`; `EIO` behind the end, or if the host file has become too short.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            bail!(EIO);
        }
        let offset = self.place(offset);
        match &*self.files {
            Files::One(fd) => layers::read_all(fd.raw(), offset, buf),
            Files::Layered(layers) => layers.read(offset, buf),
            Files::Loop(backing) => backing.read(offset, buf),
            Files::None => Ok(()),
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
        let offset = self.place(offset);
        match &*self.files {
            Files::One(fd) => layers::write_all(fd.raw(), offset, buf),
            Files::Layered(layers) => layers.write(offset, buf),
            Files::Loop(backing) => backing.write(offset, buf),
            Files::None => Ok(()),
        }
    }

    /// Brings what was written to the host's disk.
    pub fn flush(&self) -> Result<()> {
        match &*self.files {
            Files::One(fd) => host::fdatasync(fd.raw()),
            Files::Layered(layers) => layers.flush(),
            Files::Loop(backing) => backing.flush(),
            Files::None => Ok(()),
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
        let offset = self.place(offset);
        match &*self.files {
            Files::One(fd) => layers::punch(fd.raw(), offset, len),
            Files::Layered(layers) => layers.discard(offset, len),
            Files::Loop(backing) => backing.discard(offset, len),
            Files::None => Ok(()),
        }
    }
}

impl Files {
    fn sector(&self) -> u64 {
        match self {
            Files::Loop(backing) => backing.block_size(),
            Files::One(_) | Files::Layered(_) | Files::None => partition::SECTOR,
        }
    }
}

/// Whether a file system is mounted that has bytes of this disk.
pub fn in_use(vfs: &Vfs, disk: &Disk) -> bool {
    vfs.devices.disks().iter().any(|other| other.overlaps(disk) && vfs.mounted_fs(other.rdev).is_some())
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
