//! Loop devices on files of a machine's, without programs.

use super::LoopDevice;
use super::status::{AUTOCLEAR, Config, Info64};
use crate::block::Opened;
use crate::errno::Errno;
use crate::fs::ext4::Ext4Fs;
use crate::kernel::Ctx;
use crate::mm::{KernelDst, KernelSrc};
use crate::testing::tmpfs_machine;
use crate::vfs::{AT_FDCWD, File, FileSystem, FileType, NewInode, OpenFlags};
use alloc::sync::Arc;

const SIZE: u64 = 8 << 20;

fn file(ctx: &Ctx, path: &str, how: OpenFlags) -> Arc<File> {
    let file = ctx.kernel.vfs.open(ctx, AT_FDCWD, path.as_bytes(), how | OpenFlags::CREAT, 0o600).unwrap();
    if how.writable() {
        ctx.kernel.vfs.truncate(ctx, &file.location, SIZE, true).unwrap();
    }
    file
}

fn attach(ctx: &Ctx, file: &Arc<File>, flags: u32) -> Arc<LoopDevice> {
    let device = LoopDevice::new(ctx.kernel, 0);
    let fd = ctx.install(file.clone(), false).unwrap() as u32;
    let info = Info64 { offset: 512, flags, ..Info64::EMPTY };
    device.attach(ctx, file, &Config { fd, block_size: 0, info, reserved: [0; 8] }).unwrap();
    drop(ctx.files().remove(ctx, fd as i32).unwrap());
    device
}

#[test]
fn bytes_and_places_are_the_files() {
    let machine = tmpfs_machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let file = file(&ctx, "/f", OpenFlags::RDWR);
    let device = attach(&ctx, &file, 0);
    let disk = device.disk();
    assert_eq!((disk.size(), disk.name()), (SIZE - 512, "loop0"));
    let used = Opened::new(&disk).unwrap();
    // A hole is zeros until it is written.
    let (fd, at, len) = disk.host_place(1000, 100).unwrap();
    let mut bytes = [1; 100];
    assert_eq!(crate::host::pread(fd, &mut bytes, at).unwrap(), 100);
    assert_eq!((bytes, len, at % 4096), ([0; 100], 100, 1512));
    let (fd, at, len) = disk.host_place_to_write(1000, 100).unwrap();
    assert_eq!((crate::host::pwrite(fd, &[7; 100], at).unwrap(), len), (100, 100));
    file.pread(&ctx, 1512, &mut KernelDst::new(&mut bytes)).unwrap();
    assert_eq!(bytes, [7; 100]);
    file.pwrite(&ctx, 1512, &mut KernelSrc::new(&[8; 100])).unwrap();
    disk.read(1000, &mut bytes).unwrap();
    assert_eq!(bytes, [8; 100]);
    let (fd, at, _) = disk.host_place(1050, 10).unwrap();
    assert_eq!(crate::host::pread(fd, &mut bytes[..10], at).unwrap(), 10);
    assert_eq!(bytes[..10], [8; 10]);
    // Its blocks stay while the disk is in use.
    let cut = || ctx.kernel.vfs.truncate(&ctx, &file.location, 4096, true).map_err(|e| e.errno);
    assert_eq!(cut(), Err(Errno::ETXTBSY));
    let punched = ctx.kernel.vfs.fallocate(&ctx, &file, 3, 0, 4096).map_err(|e| e.errno);
    assert_eq!(punched, Err(Errno::ETXTBSY));
    // Nor does it lose them to one device while another one goes by their places.
    let second = attach(&ctx, &file, 0);
    let other = Opened::new(&second.disk()).unwrap();
    assert_eq!(disk.discard(0, 65_536).map_err(|e| e.errno), Err(Errno::EOPNOTSUPP));
    drop(other);
    second.detach(&ctx).unwrap();
    disk.discard(0, 65_536).unwrap();
    disk.read(8192, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 100]);
    drop(used);
    assert_eq!(cut(), Ok(()));
    drop(disk);
    device.detach(&ctx).unwrap();
}

#[test]
fn the_file_goes_with_the_last_use() {
    let machine = tmpfs_machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let device = attach(&ctx, &file(&ctx, "/f", OpenFlags::RDWR), AUTOCLEAR);
    let disk = device.disk();
    let mut options = ext4::mkfs::Options::new(ext4::mkfs::FsType::Ext2);
    options.size = disk.size() / 4096 * 4096;
    options.block_size = Some(4096);
    ext4::mkfs::format(&*disk, &options).unwrap();
    let fs = Ext4Fs::mount(&disk, false).unwrap();
    // The device begins in the middle of a page of its file: what is mapped is a copy.
    let new = NewInode { file_type: FileType::Regular, mode: 0o600, uid: 0, gid: 0, rdev: 0 };
    let inode = fs.root().unwrap().create(b"f", &new).unwrap();
    inode.write_at(0, false, &mut KernelSrc::new(b"bytes")).unwrap();
    let (_, place) = inode.host_extents(0, 4096, true).unwrap()[0].host.unwrap();
    assert!(!disk.has_whole_pages() && place.is_multiple_of(4096));
    drop(inode);
    let second = Opened::new(&disk).unwrap();
    device.detach(&ctx).unwrap();
    fs.unmount().unwrap();
    drop(fs);
    assert!(device.is_attached());
    drop(second);
    assert!(!device.is_attached());
    // Whoever still knows the disk can use it no more.
    assert_eq!(Opened::new(&disk).err().map(|e| e.errno), Some(Errno::ENXIO));
}

#[test]
fn what_is_only_read_is_a_disk_that_is_only_read() {
    let machine = tmpfs_machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    drop(file(&ctx, "/f", OpenFlags::RDWR));
    let device = attach(&ctx, &file(&ctx, "/f", OpenFlags::empty()), 0);
    assert!(device.disk().read_only());
    assert_eq!(device.disk().write(0, b"x").map_err(|e| e.errno), Err(Errno::EROFS));
    assert_eq!(device.disk().host_place_to_write(0, 1).map_err(|e| e.errno), Err(Errno::EROFS));
}
