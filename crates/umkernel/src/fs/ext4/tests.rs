//! ext4 as a root file system: what is written through the VFS is there after a new mount, and `e2fsck` agrees.

use super::Ext4Fs;
use crate::Ctx;
use crate::block::Disk;
use crate::errno::Errno;
use crate::fs::store::RANGE;
use crate::host::{self, HostFd};
use crate::mm::{KernelDst, KernelSrc};
use crate::testing::{Machine, machine_on};
use crate::vfs::{AT_FDCWD, File, FileSystem, FileType, OpenFlags, RENAME_EXCHANGE, WalkFlags};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::process::Command;

const SIZE: u64 = 64 << 20;

/// A disk in memory, all zeros.
fn blank() -> Arc<Disk> {
    let fd = HostFd::new(host::memfd_create(c"disk").unwrap());
    host::ftruncate(fd.raw(), SIZE).unwrap();
    Disk::new(fd, SIZE, false, 0)
}

/// All that a disk holds.
fn bytes_of(disk: &Disk) -> Vec<u8> {
    let mut bytes = alloc::vec![0; SIZE as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

/// A disk in memory with a fresh file system.
fn disk(fs_type: ext4::mkfs::FsType) -> Arc<Disk> {
    disk_of_blocks(fs_type, 4096)
}

fn disk_of_blocks(fs_type: ext4::mkfs::FsType, block_size: u32) -> Arc<Disk> {
    let disk = blank();
    let mut options = ext4::mkfs::Options::new(fs_type);
    options.size = SIZE;
    options.block_size = Some(block_size);
    ext4::mkfs::format(&*disk, &options).unwrap();
    disk
}

fn boot(disk: &Arc<Disk>) -> Machine {
    machine_on(Ext4Fs::mount(disk, false).unwrap())
}

fn shut_down(machine: Machine, disk: &Arc<Disk>) {
    machine.kernel.vfs.shut_down().unwrap();
    drop(machine);
    check(disk);
}

/// `e2fsck`'s opinion, where the host has it.
fn check(disk: &Disk) {
    let path = std::format!("/proc/{}/fd/{}", std::process::id(), disk.host_place(0, 1).unwrap().0);
    for program in ["e2fsck", "/usr/sbin/e2fsck", "/sbin/e2fsck"] {
        if let Ok(output) = Command::new(program).args(["-fn", &path]).output() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
    }
}

fn open(ctx: &Ctx, path: &str, flags: OpenFlags) -> Arc<File> {
    ctx.kernel.vfs.open(ctx, AT_FDCWD, path.as_bytes(), flags, 0o644).unwrap()
}

fn write_file(ctx: &Ctx, path: &str, content: &[u8]) {
    let file = open(ctx, path, OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC);
    assert_eq!(file.write(ctx, &mut KernelSrc::new(content)).unwrap(), content.len());
}

fn read_file(ctx: &Ctx, path: &str) -> Vec<u8> {
    let file = open(ctx, path, OpenFlags::empty());
    let mut content = alloc::vec![0; file.inode.attr().unwrap().size as usize];
    assert_eq!(file.read(ctx, &mut KernelDst::new(&mut content)).unwrap(), content.len());
    content
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn every_operation_survives_a_new_mount(fs_type: ext4::mkfs::FsType) {
    let disk = disk(fs_type);
    let machine = boot(&disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let vfs = &machine.kernel.vfs;
    let big = pattern(3_000_000);
    for dir in ["/d", "/d/e", "/gone"] {
        vfs.mkdir(&ctx, AT_FDCWD, dir.as_bytes(), 0o755).unwrap();
    }
    write_file(&ctx, "/d/big", &big);
    write_file(&ctx, "/d/small", b"small");
    vfs.symlink(&ctx, b"../d/small", AT_FDCWD, b"/d/link").unwrap();
    vfs.mknod(&ctx, AT_FDCWD, b"/d/null", FileType::CharDevice, 0o666, crate::vfs::makedev(1, 3)).unwrap();
    let small = vfs.resolve(&ctx, AT_FDCWD, b"/d/small", WalkFlags::FOLLOW).unwrap();
    vfs.link(&ctx, &small, AT_FDCWD, b"/hard").unwrap();
    vfs.chown(&ctx, &small, Some(1000), Some(100)).unwrap();
    vfs.chmod(&ctx, &small, 0o751).unwrap();
    vfs.xattr_set(&ctx, &small, b"user.colour", b"blue", 0).unwrap();
    for i in 0..400 {
        write_file(&ctx, &std::format!("/d/e/file{i}"), std::format!("{i}").as_bytes());
    }
    for i in (0..400).step_by(2) {
        vfs.unlink(&ctx, AT_FDCWD, std::format!("/d/e/file{i}").as_bytes()).unwrap();
    }
    vfs.rmdir(&ctx, AT_FDCWD, b"/gone").unwrap();
    let rename = |old: &str, new: &str, flags| {
        vfs.rename(&ctx, (AT_FDCWD, old.as_bytes()), (AT_FDCWD, new.as_bytes()), flags).unwrap();
    };
    rename("/d/e", "/moved", 0);
    write_file(&ctx, "/x", b"x");
    rename("/x", "/hard", RENAME_EXCHANGE);
    // In place, at the end, in a hole, and across.
    let file = open(&ctx, "/d/big", OpenFlags::RDWR);
    file.pwrite(&ctx, 1_000_000, &mut KernelSrc::new(b"in place")).unwrap();
    file.pwrite(&ctx, 2_999_998, &mut KernelSrc::new(b"over the end")).unwrap();
    file.pwrite(&ctx, 20_000_000, &mut KernelSrc::new(b"far")).unwrap();
    let mut expected = big.clone();
    expected[1_000_000..1_000_008].copy_from_slice(b"in place");
    expected.truncate(2_999_998);
    expected.extend_from_slice(b"over the end");
    expected.resize(20_000_000, 0);
    expected.extend_from_slice(b"far");
    assert_eq!(read_file(&ctx, "/d/big"), expected);
    // An open file without a name is freed with its last reference.
    write_file(&ctx, "/temporary", &big);
    let free = || machine.kernel.vfs.resolve(&ctx, AT_FDCWD, b"/", WalkFlags::FOLLOW).unwrap().mount.sb.fs.statfs();
    let open_file = open(&ctx, "/temporary", OpenFlags::RDWR);
    let before = free().unwrap().bfree;
    vfs.unlink(&ctx, AT_FDCWD, b"/temporary").unwrap();
    assert_eq!(free().unwrap().bfree, before);
    assert_eq!(open_file.inode.attr().unwrap().nlink, 0);
    drop(open_file);
    assert!(free().unwrap().bfree > before + 700);
    drop((file, small));
    let _ = ctx;
    drop(task);
    shut_down(machine, &disk);

    let machine = boot(&disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let vfs = &machine.kernel.vfs;
    assert_eq!(read_file(&ctx, "/d/big"), expected);
    assert_eq!(read_file(&ctx, "/d/link"), b"small");
    assert_eq!((read_file(&ctx, "/x"), read_file(&ctx, "/hard")), (b"small".to_vec(), b"x".to_vec()));
    let small = vfs.resolve(&ctx, AT_FDCWD, b"/d/small", WalkFlags::FOLLOW).unwrap();
    let attr = small.dentry.inode.attr().unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode, attr.nlink), (1000, 100, 0o751, 2));
    assert_eq!(vfs.xattr_get(&ctx, &small, b"user.colour").unwrap(), b"blue");
    assert_eq!(vfs.xattr_get(&ctx, &small, b"user.none").map_err(|e| e.errno), Err(Errno::ENODATA));
    let null = vfs.resolve(&ctx, AT_FDCWD, b"/d/null", WalkFlags::FOLLOW).unwrap().dentry.inode.attr().unwrap();
    assert_eq!((null.file_type, null.rdev), (FileType::CharDevice, crate::vfs::makedev(1, 3)));
    let dir = vfs.resolve(&ctx, AT_FDCWD, b"/moved", WalkFlags::FOLLOW).unwrap();
    let mut names = Vec::new();
    dir.dentry
        .inode
        .read_dir(&ctx, 0, &mut |e| {
            names.push(e.name.to_vec());
            true
        })
        .unwrap();
    assert_eq!(names.len(), 202);
    assert_eq!(read_file(&ctx, "/moved/file399"), b"399");
    drop((small, dir));
    let _ = ctx;
    drop(task);
    shut_down(machine, &disk);
}

#[test]
fn ext4_survives() {
    every_operation_survives_a_new_mount(ext4::mkfs::FsType::Ext4);
}

#[test]
fn ext2_survives() {
    every_operation_survives_a_new_mount(ext4::mkfs::FsType::Ext2);
}

#[test]
fn mapped_pages_are_the_files_own() {
    let disk = disk(ext4::mkfs::FsType::Ext4);
    let machine = boot(&disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let file = open(&ctx, "/f", OpenFlags::CREAT | OpenFlags::RDWR);
    file.pwrite(&ctx, 0, &mut KernelSrc::new(&pattern(5000))).unwrap();
    file.pwrite(&ctx, 40_960, &mut KernelSrc::new(b"after a hole")).unwrap();
    let private = file.inode.host_extents(0, 65_536, false).unwrap();
    assert!(private.iter().any(|e| e.host.is_none()));
    let shared = file.inode.host_extents(0, 65_536, true).unwrap();
    assert!(shared.iter().all(|e| e.host.is_some()));
    assert_eq!(shared.iter().map(|e| e.len).sum::<u64>(), 45_056);
    let mut page = [0; 12];
    let last = shared.last().unwrap();
    let (fd, at) = last.host.unwrap();
    host::pread(fd, &mut page, at + (40_960 - last.file_offset)).unwrap();
    assert_eq!(&page, b"after a hole");
    // A store through the mapping is what read(2) sees.
    let (fd, at) = shared[0].host.unwrap();
    host::pwrite(fd, b"stored", at + 4096).unwrap();
    let mut read = [0; 6];
    file.pread(&ctx, 4096, &mut KernelDst::new(&mut read)).unwrap();
    assert_eq!(&read, b"stored");
    drop(file);
    let _ = ctx;
    drop(task);
    shut_down(machine, &disk);
}

#[test]
fn a_file_does_not_outgrow_its_copy() {
    let disk = disk_of_blocks(ext4::mkfs::FsType::Ext4, 1024);
    let machine = boot(&disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let file = open(&ctx, "/f", OpenFlags::CREAT | OpenFlags::RDWR);
    file.pwrite(&ctx, 0, &mut KernelSrc::new(b"here")).unwrap();
    file.inode.host_extents(0, 4096, false).unwrap();
    let cut = ctx.kernel.vfs.truncate(&ctx, &file.location, RANGE + 1, true).map_err(|e| e.errno);
    let far = file.pwrite(&ctx, RANGE, &mut KernelSrc::new(b"there")).map_err(|e| e.errno);
    assert_eq!((cut, far), (Err(Errno::EFBIG), Err(Errno::EFBIG)));
    assert_eq!(file.inode.attr().unwrap().size, 4);
    drop(file);
    let _ = ctx;
    drop(task);
    shut_down(machine, &disk);
}

#[test]
fn a_read_only_mount_takes_nothing() {
    let disk = disk(ext4::mkfs::FsType::Ext4);
    let machine = boot(&disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let vfs = &machine.kernel.vfs;
    write_file(&ctx, "/f", b"x");
    let root = || vfs.resolve(&ctx, AT_FDCWD, b"/", WalkFlags::FOLLOW).unwrap();
    vfs.remount(&root(), crate::vfs::MountFlags::RDONLY, false, "").unwrap();
    check(&disk);
    let denied = vfs.mkdir(&ctx, AT_FDCWD, b"/d", 0o755).map(drop);
    assert_eq!(denied.map_err(|e| e.errno), Err(Errno::EROFS));
    assert_eq!(read_file(&ctx, "/f"), b"x");
    vfs.remount(&root(), crate::vfs::MountFlags::empty(), false, "").unwrap();
    write_file(&ctx, "/f", b"again");
    let _ = ctx;
    drop(task);
    shut_down(machine, &disk);
}

#[test]
fn a_read_only_mount_of_a_crashed_disk_shows_it_and_writes_nothing() {
    let disk = disk(ext4::mkfs::FsType::Ext4);
    let mut fs = ext4::Fs::mount(disk.clone(), ext4::MountOptions::default()).unwrap();
    let new = ext4::NewInode {
        file_type: ext4::FileType::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: (0, 0),
        now: ext4::Timestamp::default(),
    };
    let ino = fs.create(ext4::ROOT_INO, b"f", &new).unwrap();
    fs.write(ino, 0, b"committed", new.now).unwrap();
    fs.sync().unwrap();
    // No unmount: a crash.
    drop(fs);
    let before = bytes_of(&disk);
    let again = std::fs::File::open(std::format!("/proc/self/fd/{}", disk.host_place(0, 1).unwrap().0)).unwrap();
    let sealed = Disk::new(HostFd::new(std::os::fd::IntoRawFd::into_raw_fd(again)), SIZE, true, 0);
    let machine = machine_on(Ext4Fs::mount(&sealed, true).unwrap());
    let task = machine.task();
    let ctx = machine.ctx(&task);
    assert_eq!(read_file(&ctx, "/f"), b"committed");
    let _ = ctx;
    drop(task);
    machine.kernel.vfs.shut_down().unwrap();
    assert!(bytes_of(&disk) == before);
}

#[test]
fn garbage_is_no_file_system() {
    let disk = blank();
    assert!(Ext4Fs::mount(&disk, false).is_err());
    let fs: Arc<dyn FileSystem> = Ext4Fs::mount(&self::disk(ext4::mkfs::FsType::Ext4), true).unwrap();
    assert_eq!(fs.statfs().unwrap().fs_type, 0xef53);
}

#[test]
fn files_of_small_blocks_are_mapped_from_a_copy() {
    let disk = disk_of_blocks(ext4::mkfs::FsType::Ext4, 1024);
    let machine = boot(&disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let vfs = &machine.kernel.vfs;
    let content = pattern(9000);
    write_file(&ctx, "/f", &content);
    let file = open(&ctx, "/f", OpenFlags::RDWR);
    let mapped = file.inode.host_extents(0, 16_384, true).unwrap();
    assert_eq!((mapped.len(), mapped[0].len), (1, 12_288));
    let (fd, at) = mapped[0].host.unwrap();
    let mut page = alloc::vec![0; 9000];
    host::pread(fd, &mut page, at).unwrap();
    assert_eq!(page, content);
    // Stores through the mapping are read, written ones are mapped, and both reach the disk.
    host::pwrite(fd, b"stored", at + 4096).unwrap();
    file.pwrite(&ctx, 100, &mut KernelSrc::new(b"written")).unwrap();
    let mut expected = content.clone();
    expected[4096..4102].copy_from_slice(b"stored");
    expected[100..107].copy_from_slice(b"written");
    assert_eq!(read_file(&ctx, "/f"), expected);
    host::pread(fd, &mut page, at).unwrap();
    assert_eq!(page, expected);
    vfs.truncate(&ctx, &file.location, 5000, true).unwrap();
    vfs.truncate(&ctx, &file.location, 6000, true).unwrap();
    expected.truncate(5000);
    expected.resize(6000, 0);
    assert_eq!(read_file(&ctx, "/f"), expected);
    drop(file);
    let _ = ctx;
    drop(task);
    shut_down(machine, &disk);
    let machine = boot(&disk);
    let task = machine.task();
    assert_eq!(read_file(&machine.ctx(&task), "/f"), expected);
}

/// A disk with the bytes that this one has now, as after a crash of the machine.
fn copy(disk: &Disk) -> Arc<Disk> {
    let copy = blank();
    copy.write(0, &bytes_of(disk)).unwrap();
    copy
}

fn growing_files_are_whole(disk: &Arc<Disk>) {
    let machine = boot(disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let vfs = &machine.kernel.vfs;
    let names = ["/log", "/other"];
    let files = names.map(|name| open(&ctx, name, OpenFlags::CREAT | OpenFlags::RDWR | OpenFlags::APPEND));
    let mut expected = [Vec::new(), Vec::new()];
    let mut synced = 0;
    for i in 0..600usize {
        let piece = pattern(1 + i * 37 % 9000);
        let grown = usize::from(i % 10 == 3);
        assert_eq!(files[grown].write(&ctx, &mut KernelSrc::new(&piece)).unwrap(), piece.len());
        expected[grown].extend_from_slice(&piece);
        let (file, content) = (&files[0], &mut expected[0]);
        assert_eq!(file.inode.attr().unwrap().size, content.len() as u64);
        match i % 10 {
            4 => {
                let from = content.len().saturating_sub(5000);
                let mut tail = alloc::vec![0; content.len() - from];
                file.pread(&ctx, from as u64, &mut KernelDst::new(&mut tail)).unwrap();
                assert!(tail == content[from..], "round {i}");
            }
            5 => {
                let len = content.len() as u64;
                for extent in file.inode.host_extents(0, len, false).unwrap() {
                    let (from, to) = (extent.file_offset as usize, (extent.file_offset + extent.len).min(len) as usize);
                    let mut bytes = alloc::vec![0; to - from];
                    if let Some((fd, at)) = extent.host {
                        host::pread(fd, &mut bytes, at).unwrap();
                    }
                    assert!(bytes == content[from..to], "round {i}");
                }
            }
            6 => {
                write_file(&ctx, "/new", &piece);
                vfs.unlink(&ctx, AT_FDCWD, b"/new").unwrap();
            }
            7 => {
                content.truncate(content.len() - content.len().min(3));
                vfs.truncate(&ctx, &file.location, content.len() as u64, true).unwrap();
            }
            8 => {
                // In a hole that follows, and over the end.
                let at = content.len() + 5000;
                file.pwrite_mode(&ctx, at as u64, false, &mut KernelSrc::new(&piece)).unwrap();
                content.resize(at, 0);
                content.extend_from_slice(&piece);
            }
            9 if i % 50 == 9 => {
                file.sync(true).unwrap();
                synced = content.len();
            }
            _ => {}
        }
    }
    // A crash loses at most what came after the last sync.
    let crashed = boot(&copy(disk));
    let old = read_file(&crashed.ctx(&crashed.task()), "/log");
    assert!(old.len() >= synced && old[..synced] == expected[0][..synced]);
    let before = files.each_ref().map(|file| file.inode.attr().unwrap());
    for (name, content) in names.iter().zip(&expected) {
        assert!(read_file(&ctx, name) == *content, "{name}");
    }
    drop(files);
    let _ = ctx;
    drop(task);
    shut_down(machine, disk);
    let machine = boot(disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    for ((name, content), before) in names.iter().zip(&expected).zip(before) {
        assert!(read_file(&ctx, name) == *content, "{name}");
        let after = open(&ctx, name, OpenFlags::empty()).inode.attr().unwrap();
        assert_eq!((after.size, after.mtime.sec), (before.size, before.mtime.sec));
        assert!(after.blocks.abs_diff(before.blocks) <= 64, "{} blocks, then {}", before.blocks, after.blocks);
    }
}

#[test]
fn files_that_grow_are_whole_whenever_they_are_looked_at() {
    growing_files_are_whole(&disk(ext4::mkfs::FsType::Ext4));
    growing_files_are_whole(&disk(ext4::mkfs::FsType::Ext2));
    growing_files_are_whole(&disk_of_blocks(ext4::mkfs::FsType::Ext4, 1024));
}

#[test]
fn a_file_grows_until_the_disk_is_full() {
    let disk = disk(ext4::mkfs::FsType::Ext4);
    let machine = boot(&disk);
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let vfs = &machine.kernel.vfs;
    let piece = pattern(50_000);
    for _ in 0..2 {
        let file = open(&ctx, "/f", OpenFlags::CREAT | OpenFlags::WRONLY);
        let mut size = 0;
        let error = loop {
            match file.write(&ctx, &mut KernelSrc::new(&piece)) {
                Ok(n) => size += n,
                Err(e) => break e.errno,
            }
        };
        assert_eq!(error, Errno::ENOSPC);
        assert!(size > SIZE as usize / 2 && file.inode.attr().unwrap().size == size as u64);
        let content = read_file(&ctx, "/f");
        assert!(content.chunks(piece.len()).all(|part| *part == piece[..part.len()]));
        vfs.unlink(&ctx, AT_FDCWD, b"/f").unwrap();
    }
    let _ = ctx;
    drop(task);
    shut_down(machine, &disk);
}
