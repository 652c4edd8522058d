//! What a loop device's bytes lie in: a range of a file of the guest's, or of another disk (`loop(4)`).
//!
//! Reads and writes of the device go through the file. A file system on it asks for places in the host's files instead, as it does of
//! any disk: those are where the file's pages lie, as `mmap(2)` of the file finds them. They are good as long as the file keeps
//! its blocks, so it does ([`InodeCommon::pin`]): as long as a file system on the device is mounted, it can be neither shortened nor
//! get holes.

use super::loops::{AUTOCLEAR, LoopDevice, PARTSCAN};
use super::{Disk, Opened};
use crate::bail;
use crate::errno::Result;
use crate::host::{self, HostFd};
use crate::kernel::Ctx;
use crate::mm::{KernelSrc, PAGE_SIZE};
use crate::sync::Mutex;
use crate::vfs::{DeviceKind, File, FileType, InodeCommon, SEAL_FUTURE_WRITE, SEAL_WRITE};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// The most pieces of a file that are known at a time.
const MAX_PIECES: usize = 4096;
/// The most bytes that are looked for together: a page each, they are [`MAX_PIECES`].
const MAX_LOOK: u64 = MAX_PIECES as u64 * PAGE_SIZE;
/// The most loop devices on top of each other: each takes a part of the kernel's stack.
const MAX_DEPTH: u32 = 2;

/// What of its file a loop device shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Where it begins in the file, in bytes.
    pub(super) offset: u64,
    /// The most bytes that it has; 0 for all.
    pub(super) limit: u64,
    /// Bytes of a sector.
    pub(super) block_size: u32,
}

/// A file with a loop device on it.
pub(crate) struct Backing {
    file: Arc<File>,
    /// The disk, if the file is one.
    disk: Option<Opened>,
    shown: Shown,
    owner: Weak<LoopDevice>,
    /// Where the file's holes are read from.
    zeros: Zeros,
    /// Pieces of the file that have a place to be written at.
    places: Mutex<Pieces>,
    /// File systems on the device and uses of its partitions: while there is one, the file is pinned.
    entered: AtomicU32,
}

/// Pieces of a file by where they begin: how long, and in which file of the host's and where in it.
type Pieces = BTreeMap<u64, (u64, (i32, u64))>;

impl Backing {
    /// `file`, for the loop device `owner`.
    ///
    /// # Errors
    /// `EINVAL` for what is neither a regular file nor a disk, and for what the host has no pages of; `EBADF` for the device itself,
    /// or what lies on it.
    pub(super) fn new(ctx: &Ctx, owner: &Arc<LoopDevice>, file: Arc<File>, shown: Shown) -> Result<Backing> {
        let disk = match file.inode.file_type() {
            FileType::Regular => None,
            FileType::BlockDevice => {
                let disk = ctx.kernel.vfs.devices.get(DeviceKind::Block, file.inode.attr()?.rdev)?.block_device();
                let Some(disk) = disk else { bail!(EINVAL, "no disk") };
                if disk.whole() == owner.rdev() {
                    bail!(EBADF, "the device itself");
                }
                Some(Opened::new(&disk)?)
            }
            _ => bail!(EINVAL, "neither a regular file nor a disk"),
        };
        if disk.is_none() {
            file.inode.host_extents(0, PAGE_SIZE, false)?;
        }
        let backing = Backing {
            file,
            disk,
            shown,
            owner: Arc::downgrade(owner),
            zeros: Zeros::default(),
            places: Mutex::default(),
            entered: AtomicU32::new(0),
        };
        backing.check_depth(ctx, owner)?;
        Ok(backing)
    }

    /// The same file, of which another part is shown.
    pub(super) fn showing(&self, ctx: &Ctx, shown: Shown) -> Result<Backing> {
        let Some(owner) = self.owner.upgrade() else { bail!(ENXIO) };
        Backing::new(ctx, &owner, self.file.clone(), shown)
    }

    /// The file's own state, where it is one whose blocks are to stay.
    fn pinned(&self) -> Option<&InodeCommon> {
        if self.disk.is_none() { self.file.inode.common() } else { None }
    }

    /// Refuses a device that would lie on itself, or too deep.
    fn check_depth(&self, ctx: &Ctx, owner: &Arc<LoopDevice>) -> Result<()> {
        let mut disk = self.below(ctx);
        for _ in 0..MAX_DEPTH {
            let Some(below) = disk else { return Ok(()) };
            let Some(backing) = below.backing() else { return Ok(()) };
            if Weak::as_ptr(&backing.owner) == Arc::as_ptr(owner) {
                bail!(EBADF, "the file lies on the device itself");
            }
            disk = backing.below(ctx);
        }
        bail!(EINVAL, "too many loop devices on top of each other")
    }

    /// The disk that the bytes are on.
    fn below(&self, ctx: &Ctx) -> Option<Arc<Disk>> {
        if let Some(disk) = &self.disk {
            return Some(Arc::clone(disk));
        }
        let dev = self.file.location.mount.sb.fs.dev();
        ctx.kernel.vfs.devices.get(DeviceKind::Block, dev).ok()?.block_device()
    }

    /// Whether nothing can be written to it, whatever is asked for.
    pub(super) fn read_only(&self) -> bool {
        let place = match &self.disk {
            Some(disk) => disk.read_only(),
            None => self.file.location.mount.read_only() || !self.file.inode.maps_shared_writable(),
        };
        place || !self.file.flags().writable()
    }

    /// Bytes that the device has.
    pub(super) fn size(&self) -> Result<u64> {
        let whole = match &self.disk {
            Some(disk) => disk.size(),
            None => self.file.inode.attr()?.size,
        };
        let left = whole.saturating_sub(self.shown.offset);
        Ok(if self.shown.limit == 0 { left } else { left.min(self.shown.limit) })
    }

    /// The file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// What of it is shown.
    pub(super) fn shown(&self) -> Shown {
        self.shown
    }

    /// Where the device begins in the file, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.shown.offset
    }

    /// The most bytes that the device has; 0 for all.
    pub(crate) fn size_limit(&self) -> u64 {
        self.shown.limit
    }

    /// Whether pages of the device are pages of what it lies in.
    pub(super) fn has_whole_pages(&self) -> bool {
        let below = self.disk.as_ref().is_none_or(|disk| disk.has_whole_pages());
        below && self.shown.offset.is_multiple_of(PAGE_SIZE)
    }

    /// Bytes of a sector.
    pub(super) fn block_size(&self) -> u64 {
        self.shown.block_size.into()
    }

    /// Whether the device lets the file go with its last use.
    pub(crate) fn autoclear(&self) -> bool {
        self.owner.upgrade().is_some_and(|owner| owner.has_flag(AUTOCLEAR))
    }

    /// Whether the device has the partitions that a table in the file tells of.
    pub(crate) fn partscan(&self) -> bool {
        self.owner.upgrade().is_some_and(|owner| owner.has_flag(PARTSCAN))
    }

    /// One more user of `disk`, which is this or a partition of it; `ENXIO` if the device has let it go.
    pub(super) fn enter(&self, disk: &Disk) -> Result<()> {
        let Some(owner) = self.owner.upgrade() else { bail!(ENXIO) };
        owner.enter_on(disk)?;
        if let Some(common) = self.pinned() {
            common.pin();
        }
        if self.entered.fetch_add(1, Ordering::AcqRel) == 0 {
            // What was known is of the time before.
            self.places.lock().clear();
        }
        Ok(())
    }

    /// One user less.
    pub(super) fn leave(&self) {
        self.entered.fetch_sub(1, Ordering::AcqRel);
        if let Some(common) = self.pinned() {
            common.unpin();
        }
        if let Some(owner) = self.owner.upgrade() {
            owner.leave();
        }
    }

    fn place_in_file(&self, offset: u64) -> u64 {
        self.shown.offset.saturating_add(offset)
    }

    /// A known piece at `at`, of which `len` bytes are wanted.
    fn known(&self, at: u64, len: u64) -> Option<(i32, u64, u64)> {
        let places = self.places.lock();
        let (&start, &(piece, (fd, place))) = places.range(..=at).next_back()?;
        let within = at - start;
        (within < piece).then(|| (fd, place + within, (piece - within).min(len)))
    }

    /// How many of `len` bytes at `at` the file has.
    ///
    /// # Errors
    /// `EIO` for none: it was cut before it was pinned.
    fn within(&self, at: u64, len: u64) -> Result<u64> {
        match self.file.inode.attr()?.size.saturating_sub(at).min(len) {
            0 if len > 0 => bail!(EIO, "the file has become shorter"),
            len => Ok(len),
        }
    }

    /// See [`Disk::host_place`].
    pub(super) fn place(&self, offset: u64, len: u64) -> Result<(i32, u64, u64)> {
        let at = self.place_in_file(offset);
        if let Some(disk) = &self.disk {
            return disk.host_place(at, len);
        }
        if let Some(known) = self.known(at, len) {
            return Ok(known);
        }
        let len = self.within(at, len)?;
        // Not kept: what is written to an overlay's file has another place then.
        let (from, pages) = pages_of(at, len);
        for piece in self.file.inode.host_extents(from, pages, false)? {
            if !(piece.file_offset..piece.file_offset + piece.len).contains(&at) {
                continue;
            }
            let within = at - piece.file_offset;
            return match piece.host {
                Some((fd, place)) => Ok((fd, place + within, (piece.len - within).min(len))),
                None => self.zeros.place(at, (piece.len - within).min(len)),
            };
        }
        bail!(EIO, "the file has become shorter")
    }

    /// See [`Disk::host_place_to_write`].
    pub(super) fn place_to_write(&self, offset: u64, len: u64) -> Result<(i32, u64, u64)> {
        let at = self.place_in_file(offset);
        if let Some(disk) = &self.disk {
            return disk.host_place_to_write(at, len);
        }
        if let Some(known) = self.known(at, len) {
            return Ok(known);
        }
        if self
            .pinned()
            .and_then(|common| common.seals())
            .is_some_and(|seals| seals & (SEAL_WRITE | SEAL_FUTURE_WRITE) != 0)
        {
            bail!(EPERM, "the file is sealed");
        }
        let len = self.within(at, len)?;
        let (from, pages) = pages_of(at, len);
        let pieces = self.file.inode.host_extents(from, pages, true)?;
        let mut places = self.places.lock();
        if places.len() + pieces.len() > MAX_PIECES {
            places.clear();
        }
        for piece in pieces {
            if let Some(host) = piece.host {
                note(&mut places, piece.file_offset, piece.len, host);
            }
        }
        drop(places);
        match self.known(at, len) {
            Some(known) => Ok(known),
            None => bail!(EIO, "the file has no place for it"),
        }
    }

    /// Fills the buffer from the device's `offset`.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.place_in_file(offset);
        if let Some(disk) = &self.disk {
            return disk.read(at, buf);
        }
        if self.file.read_kernel(at, buf)? < buf.len() {
            bail!(EIO, "the file has become shorter");
        }
        Ok(())
    }

    /// Writes the buffer at the device's `offset`.
    pub(super) fn write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let at = self.place_in_file(offset);
        if let Some(disk) = &self.disk {
            return disk.write(at, buf);
        }
        let mut done = 0;
        while done < buf.len() {
            match self.file.inode.write_at(at + done as u64, false, &mut KernelSrc::new(&buf[done..]))?.0 {
                0 => bail!(EIO),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Brings what was written to the disk that the file is on.
    pub(super) fn flush(&self) -> Result<()> {
        match &self.disk {
            Some(disk) => disk.flush(),
            None => self.file.inode.sync(true),
        }
    }

    /// Makes the whole pages of a range a hole of the file.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system knows no holes, and where the file is mapped into somebody's memory or another loop device is
    /// on it, who would be left with blocks that are not the file's any more.
    pub(super) fn discard(&self, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE_PUNCH_HOLE: u32 = 3;
        let at = self.place_in_file(offset);
        if let Some(disk) = &self.disk {
            return disk.discard(at, len);
        }
        if self
            .file
            .inode
            .common()
            .is_none_or(|common| common.mapped() || common.pins() > self.entered.load(Ordering::Acquire))
        {
            bail!(EOPNOTSUPP, "others go by the places of the file's blocks");
        }
        let (from, to) = (at.next_multiple_of(PAGE_SIZE), (at + len) / PAGE_SIZE * PAGE_SIZE);
        if from >= to {
            return Ok(());
        }
        self.file.inode.fallocate(KEEP_SIZE_PUNCH_HOLE, from, to - from)?;
        forget(&mut self.places.lock(), from, to);
        Ok(())
    }
}

/// The pages that a range has bytes of, the first ones if it is long: where they begin, and how many bytes they are.
fn pages_of(at: u64, len: u64) -> (u64, u64) {
    let from = at / PAGE_SIZE * PAGE_SIZE;
    let end = at.saturating_add(len.min(MAX_LOOK)).next_multiple_of(PAGE_SIZE);
    (from, (end - from).min(MAX_LOOK))
}

/// Adds a piece, which may continue the one before it.
fn note(places: &mut Pieces, start: u64, len: u64, host: (i32, u64)) {
    forget(places, start, start + len);
    if let Some((&before, (before_len, (fd, place)))) = places.range_mut(..start).next_back()
        && before + *before_len == start
        && (*fd, *place + *before_len) == host
    {
        *before_len += len;
        return;
    }
    places.insert(start, (len, host));
}

/// Forgets what is known of a range.
fn forget(places: &mut Pieces, start: u64, end: u64) {
    let overlapping: Vec<_> = places
        .range(..end)
        .rev()
        .take_while(|(at, (len, _))| **at + *len > start)
        .map(|(at, piece)| (*at, *piece))
        .collect();
    for (at, (len, (fd, place))) in overlapping {
        places.remove(&at);
        if at < start {
            places.insert(at, (start - at, (fd, place)));
        }
        if at + len > end {
            places.insert(end, (at + len - end, (fd, place + (end - at))));
        }
    }
}

/// Zeros to read and to map: a host file without a written byte, made when the first hole is asked for.
#[derive(Default)]
struct Zeros(Mutex<Option<HostFd>>);

impl Zeros {
    /// Bytes of the file.
    const SIZE: u64 = 1 << 20;

    /// A place with zeros, as far from a page's start as `at`.
    fn place(&self, at: u64, len: u64) -> Result<(i32, u64, u64)> {
        let mut file = self.0.lock();
        let fd = match &*file {
            Some(file) => file.raw(),
            None => {
                let made = HostFd::new(host::memfd_create(c"hole")?);
                host::ftruncate(made.raw(), Self::SIZE)?;
                file.insert(made).raw()
            }
        };
        let place = at % Self::SIZE;
        Ok((fd, place, len.min(Self::SIZE - place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_and_cut() {
        let mut places = BTreeMap::new();
        note(&mut places, 0, 4096, (3, 8192));
        note(&mut places, 4096, 4096, (3, 12_288));
        assert_eq!(places.len(), 1, "the second continues the first");
        note(&mut places, 8192, 4096, (3, 0));
        note(&mut places, 16_384, 8192, (4, 0));
        assert_eq!(places.len(), 3);
        forget(&mut places, 4096, 20_480);
        let left: Vec<_> = places.into_iter().collect();
        assert_eq!(left, [(0, (4096, (3, 8192))), (20_480, (4096, (4, 4096)))]);
    }

    #[test]
    fn a_range_has_whole_pages() {
        assert_eq!(pages_of(0, 1), (0, 4096));
        assert_eq!(pages_of(4095, 2), (0, 8192));
        assert_eq!(pages_of(8192, 4096), (8192, 4096));
        assert_eq!(pages_of(8193, 1 << 40), (8192, MAX_LOOK), "not all at once");
    }
}
