//! A loop device: which file it is on, who uses it, and what `ioctl(2)` makes of it.

use super::LOOP_MAJOR;
use super::status::{AUTOCLEAR, Config, DIRECT_IO, Info, Info64, NAME, PARTSCAN, READ_ONLY};
use crate::bail;
use crate::block::backing::{Backing, Shown};
use crate::block::device::{BLKRRPART, check_open};
use crate::block::{Disk, Files, event_of, in_use, partitions};
use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::mm::{IoDst, IoSrc, PAGE_SIZE};
use crate::net::netlink::uevent;
use crate::sync::Mutex;
use crate::task::Capabilities;
use crate::vfs::{Device, File, FileOps, Location, OpenFlags, makedev};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::Ordering;

/// `ioctl(2)` of loop devices (`linux/loop.h`).
const LOOP_SET_FD: u32 = 0x4c00;
const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_SET_STATUS: u32 = 0x4c02;
const LOOP_GET_STATUS: u32 = 0x4c03;
const LOOP_SET_STATUS64: u32 = 0x4c04;
const LOOP_GET_STATUS64: u32 = 0x4c05;
const LOOP_CHANGE_FD: u32 = 0x4c06;
const LOOP_SET_CAPACITY: u32 = 0x4c07;
const LOOP_SET_DIRECT_IO: u32 = 0x4c08;
const LOOP_SET_BLOCK_SIZE: u32 = 0x4c09;
const LOOP_CONFIGURE: u32 = 0x4c0a;

/// Bytes of a sector where nobody asked for another size.
const BLOCK_SIZE: u32 = 512;

/// Name of a device below `/dev`.
pub(super) fn name(number: u32) -> String {
    format!("loop{number}")
}

/// Device number of a device.
pub(super) fn rdev(number: u32) -> u64 {
    makedev(LOOP_MAJOR, number)
}

/// A loop device.
pub(crate) struct LoopDevice {
    number: u32,
    kernel: Weak<Kernel>,
    state: Mutex<State>,
}

struct State {
    /// What it shows; without a file, nothing.
    disk: Arc<Disk>,
    /// Open files of it, and uses of its partitions or of file systems on any of these.
    users: usize,
    /// [`READ_ONLY`], [`AUTOCLEAR`], [`PARTSCAN`].
    flags: u32,
    /// What the user called the file.
    file_name: [u8; NAME],
    /// Has been removed.
    gone: bool,
}

/// The disk of a device without a file.
fn empty(number: u32) -> Arc<Disk> {
    Disk::whole_on(Arc::new(Files::None), 0, false, name(number), rdev(number))
}

impl State {
    /// Takes the file away, which is to be dropped without the lock.
    #[must_use]
    fn clear(&mut self, number: u32) -> Arc<Disk> {
        (self.flags, self.file_name) = (0, [0; NAME]);
        core::mem::replace(&mut self.disk, empty(number))
    }
}

impl LoopDevice {
    /// A device without a file.
    pub(super) fn new(kernel: &Arc<Kernel>, number: u32) -> Arc<LoopDevice> {
        let state = State { disk: empty(number), users: 0, flags: 0, file_name: [0; NAME], gone: false };
        Arc::new(LoopDevice { number, kernel: Arc::downgrade(kernel), state: Mutex::new(state) })
    }

    /// Whether what it shows at this moment is `disk`, or has that as a part.
    fn shows(&self, disk: &Disk) -> bool {
        Arc::ptr_eq(&self.state.lock().disk.files, &disk.files)
    }

    /// Its device number.
    pub(in crate::block) fn rdev(&self) -> u64 {
        rdev(self.number)
    }

    /// What it shows at this moment.
    pub(super) fn disk(&self) -> Arc<Disk> {
        self.state.lock().disk.clone()
    }

    /// Whether it has a file.
    pub(super) fn is_attached(&self) -> bool {
        self.state.lock().disk.backing().is_some()
    }

    /// Whether it has one of its flags.
    pub(in crate::block) fn has_flag(&self, flag: u32) -> bool {
        self.state.lock().flags & flag != 0
    }

    /// Nobody can open it any more; `EBUSY` while it has a file or users.
    pub(super) fn retire(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.users > 0 || state.disk.backing().is_some() {
            bail!(EBUSY);
        }
        state.gone = true;
        Ok(())
    }

    fn enter(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.gone {
            bail!(ENXIO);
        }
        state.users += 1;
        Ok(())
    }

    /// One more user of `disk`, which shows its file or a part of it; `ENXIO` if it has another one, or none, by now.
    pub(in crate::block) fn enter_on(&self, disk: &Disk) -> Result<()> {
        let mut state = self.state.lock();
        if !Arc::ptr_eq(&state.disk.files, &disk.files) {
            bail!(ENXIO, "the loop device has let the file go");
        }
        state.users += 1;
        Ok(())
    }

    /// One user less; the file goes with the last one if it was asked to.
    pub(in crate::block) fn leave(&self) {
        let mut state = self.state.lock();
        state.users -= 1;
        if state.users > 0 || state.flags & AUTOCLEAR == 0 || state.disk.backing().is_none() {
            return;
        }
        let old = state.clear(self.number);
        drop(state);
        if let Some(kernel) = self.kernel.upgrade() {
            // Nodes in devtmpfs stay until the device gets another file: there may be no task in whose name they could be removed.
            // Somebody may have given it one by now: that one's partitions stay.
            let is_part_of_old =
                |disk: &Disk| disk.partition().is_some() && disk.whole() == old.rdev && !self.shows(disk);
            let parts = kernel.vfs.devices.forget_disks(is_part_of_old);
            self.changed(&kernel);
            drop(parts);
        }
        drop(old);
    }

    /// Tells of a new file, or of none.
    fn changed(&self, kernel: &Kernel) {
        kernel.vfs.devices.changed();
        uevent::announce(kernel, &event_of(&self.disk(), ""), "change");
    }

    /// A disk in these files.
    fn disk_in(&self, files: Arc<Files>, size: u64, read_only: bool) -> Arc<Disk> {
        Disk::whole_on(files, size, read_only, name(self.number), self.rdev())
    }

    /// A disk with what `backing` shows.
    fn disk_on(&self, backing: Backing, read_only: bool) -> Result<Arc<Disk>> {
        let size = backing.size()?;
        Ok(self.disk_in(Arc::new(Files::Loop(backing)), size, read_only))
    }

    /// `LOOP_SET_FD`, `LOOP_CONFIGURE`: the device is on this file from now on.
    pub(super) fn attach(self: &Arc<Self>, ctx: &Ctx, opened: &File, config: &Config) -> Result<()> {
        let file = ctx.files().get(config.fd as i32)?;
        let info = &config.info;
        if self.is_attached() {
            bail!(EBUSY, "the loop device has a file");
        }
        if info.flags & !(READ_ONLY | AUTOCLEAR | PARTSCAN | DIRECT_IO) != 0 {
            bail!(EINVAL, "unknown flags");
        }
        info.check()?;
        let block_size =
            if config.block_size == 0 { BLOCK_SIZE } else { checked_block_size(config.block_size.into())? };
        let shown = Shown { offset: info.offset, limit: info.size_limit, block_size };
        let backing = Backing::new(ctx, self, file, shown)?;
        let read_only = info.flags & READ_ONLY != 0 || backing.read_only() || !opened.flags().writable();
        let disk = self.disk_on(backing, read_only)?;
        let mut state = self.state.lock();
        if state.disk.backing().is_some() {
            bail!(EBUSY, "the loop device has a file");
        }
        state.disk = disk.clone();
        state.flags = info.flags & (AUTOCLEAR | PARTSCAN) | if read_only { READ_ONLY } else { 0 };
        state.file_name = info.name();
        drop(state);
        self.changed(ctx.kernel);
        self.scan(ctx);
        Ok(())
    }

    /// Has the device the partitions of the file that it has at this moment, if they are wanted, or none.
    fn scan(&self, ctx: &Ctx) {
        let _guard = ctx.kernel.vfs.devices.changing.lock();
        let state = self.state.lock();
        let (disk, wanted) = (state.disk.clone(), state.flags & PARTSCAN != 0);
        drop(state);
        partitions::remove(ctx, &disk);
        if wanted {
            partitions::add(ctx, &disk);
        }
    }

    /// `LOOP_CLR_FD`: lets the file go, at once or with the last user.
    pub(super) fn detach(&self, ctx: &Ctx) -> Result<()> {
        let mut state = self.state.lock();
        if state.disk.backing().is_none() {
            bail!(ENXIO);
        }
        state.flags |= AUTOCLEAR;
        if state.users > 1 {
            return Ok(());
        }
        let old = state.clear(self.number);
        drop(state);
        self.scan(ctx);
        self.changed(ctx.kernel);
        drop(old);
        Ok(())
    }

    /// Replaces what the device shows by what `make` makes of its file.
    fn renew(&self, ctx: &Ctx, make: impl FnOnce(&Arc<Disk>, &Backing) -> Result<Arc<Disk>>) -> Result<()> {
        let old = self.disk();
        let Some(backing) = old.backing() else { bail!(ENXIO) };
        let new = make(&old, backing)?;
        let mut state = self.state.lock();
        if !Arc::ptr_eq(&state.disk, &old) {
            bail!(EAGAIN, "somebody else changes it");
        }
        // What was said of the device is not said of its file.
        new.protected.store(old.protected.load(Ordering::Relaxed), Ordering::Relaxed);
        new.read_ahead.store(old.read_ahead.load(Ordering::Relaxed), Ordering::Relaxed);
        let same_files = Arc::ptr_eq(&new.files, &old.files);
        state.disk = new;
        drop(state);
        self.changed(ctx.kernel);
        if !same_files {
            // The partitions that there are belong to what is shown no more.
            self.scan(ctx);
        }
        Ok(())
    }

    /// Shows another part of the file, or with other sectors.
    fn show(&self, ctx: &Ctx, change: impl FnOnce(Shown) -> Shown) -> Result<()> {
        self.renew(ctx, |old, backing| {
            let shown = change(backing.shown());
            if shown == backing.shown() {
                return Ok(old.clone());
            }
            if in_use(&ctx.kernel.vfs, old) {
                bail!(EBUSY, "a file system on it is mounted");
            }
            self.disk_on(backing.showing(ctx, shown)?, old.read_only)
        })
    }

    /// `LOOP_SET_CAPACITY`: the size is what the file has now.
    fn measure(&self, ctx: &Ctx) -> Result<()> {
        self.renew(ctx, |old, backing| Ok(self.disk_in(old.files.clone(), backing.size()?, old.read_only)))
    }

    /// `LOOP_CHANGE_FD`: a read-only device goes over to another file of the same size.
    fn exchange(self: &Arc<Self>, ctx: &Ctx, fd: i32) -> Result<()> {
        let file = ctx.files().get(fd)?;
        self.renew(ctx, |old, backing| {
            if !old.read_only {
                bail!(EINVAL, "the loop device can be written to");
            }
            if in_use(&ctx.kernel.vfs, old) {
                bail!(EBUSY, "a file system on it is mounted");
            }
            let new = Backing::new(ctx, self, file, backing.shown())?;
            if new.size()? != backing.size()? {
                bail!(EINVAL, "the file has another size");
            }
            Ok(self.disk_in(Arc::new(Files::Loop(new)), old.size, true))
        })
    }

    /// `LOOP_SET_STATUS64`.
    fn set_status(&self, ctx: &Ctx, info: &Info64) -> Result<()> {
        info.check()?;
        self.show(ctx, |shown| Shown { offset: info.offset, limit: info.size_limit, ..shown })?;
        let mut state = self.state.lock();
        let scanned = state.flags & PARTSCAN != 0;
        state.flags = state.flags & !AUTOCLEAR | info.flags & (AUTOCLEAR | PARTSCAN);
        state.file_name = info.name();
        drop(state);
        if info.flags & PARTSCAN != 0 && !scanned {
            self.scan(ctx);
        }
        Ok(())
    }

    /// `LOOP_GET_STATUS64`.
    fn status(&self) -> Result<Info64> {
        let state = self.state.lock();
        let (disk, flags, file_name) = (state.disk.clone(), state.flags, state.file_name);
        drop(state);
        let Some(backing) = disk.backing() else { bail!(ENXIO) };
        let attr = backing.file().inode.attr()?;
        Ok(Info64 {
            device: attr.dev,
            inode: attr.ino,
            rdevice: attr.rdev,
            offset: backing.offset(),
            size_limit: backing.size_limit(),
            number: self.number,
            flags,
            file_name,
            ..Info64::EMPTY
        })
    }
}

/// A size of sectors that a device can have; `EINVAL` for others.
fn checked_block_size(size: u64) -> Result<u32> {
    if !size.is_power_of_two() || !(u64::from(BLOCK_SIZE)..=PAGE_SIZE).contains(&size) {
        bail!(EINVAL, "no size of a sector");
    }
    Ok(size as u32)
}

/// The block device of a loop device.
pub(super) struct LoopNode(pub(super) Arc<LoopDevice>);

impl Device for LoopNode {
    fn open(&self, ctx: &Ctx, _location: &Location, _rdev: u64, flags: OpenFlags) -> Result<Box<dyn FileOps>> {
        check_open(ctx, &self.0.disk(), flags)?;
        self.0.enter()?;
        Ok(Box::new(OpenLoop(self.0.clone())))
    }

    fn block_device(&self) -> Option<Arc<Disk>> {
        Some(self.0.disk())
    }
}

/// An open loop device: what it shows is looked up each time.
struct OpenLoop(Arc<LoopDevice>);

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl FileOps for OpenLoop {
    fn read(&self, _ctx: &Ctx, _file: &File, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        self.0.disk().read_to(offset, dst)
    }

    fn write(&self, _ctx: &Ctx, _file: &File, offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        self.0.disk().write_from(offset, src)
    }

    fn ioctl(&self, ctx: &Ctx, file: &File, cmd: u32, arg: u64) -> Result<usize> {
        let device = &self.0;
        // Who may only read it may not change what it is, unless he is the administrator.
        if matches!(
            cmd,
            LOOP_SET_STATUS | LOOP_SET_STATUS64 | LOOP_SET_CAPACITY | LOOP_SET_DIRECT_IO | LOOP_SET_BLOCK_SIZE
        ) && !file.flags().writable()
            && !ctx.creds().capable(Capabilities::SYS_ADMIN)
        {
            bail!(EPERM);
        }
        match cmd {
            LOOP_SET_FD => {
                let config = Config { fd: arg as u32, block_size: 0, info: Info64::EMPTY, reserved: [0; 8] };
                device.attach(ctx, file, &config)?;
            }
            LOOP_CONFIGURE => device.attach(ctx, file, &ctx.read_val(arg)?)?,
            LOOP_CLR_FD => device.detach(ctx)?,
            LOOP_SET_STATUS => device.set_status(ctx, &ctx.read_val::<Info>(arg)?.to_new())?,
            LOOP_SET_STATUS64 => device.set_status(ctx, &ctx.read_val(arg)?)?,
            LOOP_GET_STATUS => ctx.write_val(arg, &device.status()?.to_old()?)?,
            LOOP_GET_STATUS64 => ctx.write_val(arg, &device.status()?)?,
            LOOP_CHANGE_FD => device.exchange(ctx, arg as i32)?,
            LOOP_SET_CAPACITY => device.measure(ctx)?,
            LOOP_SET_BLOCK_SIZE => {
                let block_size = checked_block_size(arg)?;
                device.show(ctx, |shown| Shown { block_size, ..shown })?;
            }
            LOOP_SET_DIRECT_IO if !device.is_attached() => bail!(ENXIO),
            LOOP_SET_DIRECT_IO if arg != 0 => bail!(EINVAL, "the host's page cache cannot be passed by"),
            LOOP_SET_DIRECT_IO => {}
            BLKRRPART if !device.has_flag(PARTSCAN) => bail!(EINVAL, "no partitions were asked for"),
            _ => return device.disk().request(ctx, file, cmd, arg),
        }
        Ok(0)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.disk().size)
    }

    fn sync(&self) -> Result<()> {
        self.0.disk().flush()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
