//! Large directories, limits, and single behaviours that need a judge.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::mkfs::{FsType, Options, format};
use ext4::{DirEntry, Error, FileType, Fs, MountOptions, NewInode, RenameFlags, SetAttr, Timestamp, XattrMode};
use std::collections::BTreeSet;

fn make(s: &Scratch, t: FsType, bs: u32, size: u64, inodes: Option<u32>) {
    let o = Options { block_size: Some(bs), device_zeroed: true, inodes, ..options(t) };
    format(&FileDisk::create(&s.image(), size), &o).unwrap();
}

#[test]
fn index_of_two_levels() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 1024, 96 << 20, Some(16_000));
    let mut fs = mount(&s.image());
    let dir = fs.create(2, b"d", &new(FileType::Directory)).unwrap();
    let name = |i: u32| format!("{i:0>200}").into_bytes();
    for i in 0..12_000 {
        fs.create(dir, &name(i), &new(FileType::Regular)).unwrap();
    }
    for i in (0..12_000).step_by(3) {
        let u = fs.unlink(dir, &name(i), NOW).unwrap();
        fs.release(u.ino).unwrap();
    }
    let want: BTreeSet<_> = (0..12_000).filter(|i| i % 3 != 0).map(name).collect();
    let got: BTreeSet<_> = list(&mut fs, dir, 1000).into_keys().collect();
    assert!(got == want);
    for i in 0..12_000 {
        assert_eq!(fs.lookup(dir, &name(i)).is_ok(), i % 3 != 0);
    }
    fs.unmount().unwrap();
    fsck(&s.image());
    let dump = debugfs(&s.image(), "htree_dump /d");
    assert!(dump.contains("Indirect levels: 1"), "{}", &dump[..400]);
}

#[test]
fn more_subdirectories_than_links() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 1024, 160 << 20, Some(70_000));
    let mut fs = mount(&s.image());
    let dir = fs.create(2, b"d", &new(FileType::Directory)).unwrap();
    for i in 0..65_010 {
        fs.create(dir, format!("{i}").as_bytes(), &new(FileType::Directory)).unwrap();
        if i == 64_000 {
            assert_eq!(fs.attr(dir).unwrap().nlink, 64_003);
        }
    }
    assert_eq!(fs.attr(dir).unwrap().nlink, 1);
    fs.rmdir(dir, b"7", NOW).unwrap();
    assert_eq!(fs.attr(dir).unwrap().nlink, 1);
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn links_of_a_file_end() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 4096, 64 << 20, None);
    let mut fs = mount(&s.image());
    let f = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    for i in 1..65_000 {
        fs.link(2, format!("l{i}").as_bytes(), f, NOW).unwrap();
    }
    assert_eq!(fs.link(2, b"more", f, NOW), Err(Error::TooManyLinks));
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn a_large_write_is_one_extent_and_one_device_write() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 4096, 1 << 30, None);
    let disk = Noting::open(&s.image());
    let mut fs = Fs::mount(&disk, MountOptions::default()).unwrap();
    let f = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    disk.writes.lock().unwrap().clear();
    fs.write(f, 0, &vec![1; 32 << 20], NOW).unwrap();
    let writes = disk.writes.lock().unwrap().clone();
    assert_eq!(writes.len(), 1, "{writes:?}");
    let map = fs.map(f, 0, 32 << 20).unwrap();
    assert_eq!(map.len(), 1);
    assert_eq!(map[0].device_offset, Some(writes[0].0));
    // No metadata reaches its place before its commit.
    disk.writes.lock().unwrap().clear();
    for i in 0..500 {
        fs.create(2, format!("x{i}").as_bytes(), &new(FileType::Directory)).unwrap();
    }
    assert_eq!(disk.writes.lock().unwrap().len(), 0);
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn full_disk_takes_what_fits() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 1024, 8 << 20, None);
    let mut fs = mount(&s.image());
    let f = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    let free = fs.statfs().blocks_free * 1024;
    let n = fs.write(f, 0, &vec![1; 9 << 20], NOW).unwrap() as u64;
    assert!(n > free - 100_000 && n <= free, "{n} of {free}");
    assert_eq!(fs.write(f, n, &[1; 2048], NOW), Err(Error::NoSpace));
    assert_eq!(fs.attr(f).unwrap().size, n);
    // Deleting makes room at once, although the blocks are free only after a commit.
    fs.unlink(2, b"f", NOW).unwrap();
    fs.release(f).unwrap();
    let g = fs.create(2, b"g", &new(FileType::Regular)).unwrap();
    assert!(fs.write(g, 0, &vec![2; 4 << 20], NOW).unwrap() == 4 << 20);
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn a_write_without_room_leaves_what_it_says() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 1024, 8 << 20, None);
    let mut fs = mount(&s.image());
    let f = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    assert_eq!(fs.write(f, 0, &[1; 1024], NOW), Ok(1024));
    let g = fs.create(2, b"g", &new(FileType::Regular)).unwrap();
    fs.write(g, 0, &vec![2; 9 << 20], NOW).unwrap();
    // The first half of the bytes has a block, the other half finds none: a short write, as on Linux.
    assert_eq!(fs.write(f, 512, &[3; 1024], NOW), Ok(512));
    assert_eq!(fs.write(f, 1024, &[4; 1], NOW), Err(Error::NoSpace));
    assert_eq!(read_all(&mut fs, f), [[1; 512], [3; 512]].concat());
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn times_and_devices() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 4096, 64 << 20, None);
    let mut fs = mount(&s.image());
    let f = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    for (sec, nsec) in [(0, 0), (-1, 999_999_999), (-2_147_483_648, 1), (4_294_967_296, 5), (15_032_385_535, 7)] {
        let t = Timestamp { sec, nsec };
        let set = SetAttr { atime: Some(t), mtime: Some(t), ctime: Some(t), crtime: Some(t), ..SetAttr::default() };
        fs.set_attr(f, &set).unwrap();
        let a = fs.attr(f).unwrap();
        assert_eq!([a.atime, a.mtime, a.ctime, a.crtime], [t; 4]);
    }
    for (i, rdev) in [(0, 0), (1, 3), (255, 255), (256, 0), (8, 300), (4095, 1_048_575)].into_iter().enumerate() {
        let dev = NewInode { rdev, ..new(FileType::BlockDevice) };
        let ino = fs.create(2, format!("dev{i}").as_bytes(), &dev).unwrap();
        assert_eq!(fs.attr(ino).unwrap().rdev, rdev);
    }
    fs.unmount().unwrap();
    fsck(&s.image());
    let stat = debugfs(&s.image(), "stat /dev4");
    assert!(stat.contains("08:300"), "{stat}");
}

#[test]
fn nameless_files() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 4096, 64 << 20, None);
    let mut fs = mount(&s.image());
    let free = fs.statfs();
    let kept = fs.tmpfile(2, &new(FileType::Regular)).unwrap();
    let gone = fs.tmpfile(2, &new(FileType::Regular)).unwrap();
    let crashed = fs.tmpfile(2, &new(FileType::Regular)).unwrap();
    for f in [kept, gone, crashed] {
        fs.write(f, 0, &[1; 50_000], NOW).unwrap();
    }
    fs.link(2, b"kept", kept, NOW).unwrap();
    fs.release(gone).unwrap();
    fs.sync().unwrap();
    drop(fs);
    let mut fs = mount(&s.image());
    assert_eq!(fs.attr(kept).unwrap().nlink, 1);
    assert_eq!(fs.attr(crashed), Err(Error::NotFound));
    fs.unlink(2, b"kept", NOW).unwrap();
    fs.release(kept).unwrap();
    fs.unmount().unwrap();
    let after = fs.statfs();
    assert_eq!((after.blocks_free, after.files_free), (free.blocks_free, free.files_free));
    fsck(&s.image());
}

#[test]
fn cookies_hold_while_a_directory_grows_and_shrinks() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 1024, 64 << 20, Some(30_000));
    let mut fs = mount(&s.image());
    let dir = fs.create(2, b"d", &new(FileType::Directory)).unwrap();
    let old: BTreeSet<Vec<u8>> = (0..30).map(|i| format!("old{i}").into_bytes()).collect();
    for n in &old {
        fs.create(dir, n, &new(FileType::Fifo)).unwrap();
    }
    let (mut cookie, mut seen, mut i) = (0, Vec::new(), 0);
    loop {
        let mut one = None;
        fs.read_dir(dir, cookie, &mut |e: &DirEntry<'_>| {
            one.is_none() && {
                one = Some((e.name.to_vec(), e.next));
                true
            }
        })
        .unwrap();
        let Some((name, next)) = one else { break };
        cookie = next;
        seen.push(name);
        // Each step adds many names (one block becomes an index of two) and takes one of the added away.
        for _ in 0..20 {
            fs.create(dir, format!("new{i}").as_bytes(), &new(FileType::Fifo)).unwrap();
            i += 1;
        }
        let u = fs.unlink(dir, format!("new{}", i - 7).as_bytes(), NOW).unwrap();
        fs.release(u.ino).unwrap();
        if i > 20_000 {
            break;
        }
    }
    let unique: BTreeSet<Vec<u8>> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "an entry was listed twice");
    if i <= 20_000 {
        assert!(old.is_subset(&unique), "an entry that was there all along was not listed");
    }
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn attributes_and_acls() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 4096, 64 << 20, None);
    let mut fs = mount(&s.image());
    let f = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    let acl = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 7, 0, 232, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let set = |fs: &mut Fs<_>, n: &[u8], v: &[u8], m| fs.xattr_set(f, n, v, m, NOW);
    set(&mut fs, b"system.posix_acl_access", &acl, XattrMode::Create).unwrap();
    set(&mut fs, b"security.capability", &[1; 20], XattrMode::Any).unwrap();
    set(&mut fs, b"trusted.t", b"", XattrMode::Any).unwrap();
    set(&mut fs, b"user.big", &[7; 3000], XattrMode::Any).unwrap();
    assert_eq!(set(&mut fs, b"user.big", b"", XattrMode::Create), Err(Error::Exists));
    assert_eq!(set(&mut fs, b"user.none", b"", XattrMode::Replace), Err(Error::NoData));
    assert_eq!(set(&mut fs, b"user.huge", &[7; 5000], XattrMode::Any), Err(Error::NoSpace));
    assert!(matches!(set(&mut fs, b"nonsense", b"", XattrMode::Any), Err(Error::Unsupported { .. })));
    assert!(matches!(set(&mut fs, b"system.posix_acl_access", b"xx", XattrMode::Any), Err(Error::Invalid(_))));
    fs.unmount().unwrap();
    fsck(&s.image());
    let list = debugfs(&s.image(), "ea_list /f");
    for n in ["system.posix_acl_access", "security.capability", "trusted.t", "user.big"] {
        assert!(list.contains(n), "{list}");
    }
    let mut fs = mount(&s.image());
    assert_eq!(fs.xattr_get(f, b"system.posix_acl_access").unwrap(), acl);
    assert_eq!(fs.xattr_get(f, b"user.big").unwrap(), [7; 3000]);
    assert_eq!(fs.xattr_get(f, b"trusted.t").unwrap(), b"");
    for n in fs.xattr_list(f).unwrap() {
        fs.xattr_remove(f, &n, NOW).unwrap();
    }
    assert_eq!(fs.attr(f).unwrap().blocks512, 0);
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn replays_what_debugfs_logged() {
    let s = Scratch::new();
    let image = s.image();
    for args in [
        &["-t", "ext4", "-b", "4096"][..],
        &["-t", "ext4", "-O", "^metadata_csum,^64bit", "-b", "1024"],
        &["-t", "ext3"],
    ] {
        let _ = std::fs::remove_file(&image);
        mke2fs(&image, args, "64M");
        let script = s.path("script");
        let data = s.path("data");
        // Blocks of a free region; the third is revoked by the second transaction.
        let bs = mount_ro(&image).superblock().block_size as usize;
        let logged: Vec<u8> = (0..3u8).flat_map(|i| vec![0x40 + i; bs]).collect();
        // A block that starts like one of the journal's own must come back whole.
        let mut logged = logged;
        logged[..4].copy_from_slice(&0xC03B_3998u32.to_be_bytes());
        std::fs::write(&data, &logged).unwrap();
        std::fs::write(&script, format!("jo\njw -b 12000,12001,12002 {}\njw -r 12002\njc\n", data.display())).unwrap();
        run("debugfs", &["-w", "-f", script.to_str().unwrap(), image.to_str().unwrap()]);
        let before = std::fs::read(&image).unwrap();
        assert!(before[12000 * bs..12003 * bs].iter().all(|b| *b == 0));
        let mut fs = mount(&image);
        fs.unmount().unwrap();
        let after = std::fs::read(&image).unwrap();
        assert!(after[12000 * bs..12002 * bs] == logged[..2 * bs], "{args:?}: the logged blocks are not in place");
        assert!(after[12002 * bs..12003 * bs].iter().all(|b| *b == 0), "{args:?}: a revoked block was restored");
        fsck(&image);
    }
}

#[test]
fn reading_a_dirty_journal_without_replay() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 4096, 64 << 20, None);
    let mut fs = mount(&s.image());
    fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    fs.sync().unwrap();
    drop(fs);
    let before = std::fs::read(s.image()).unwrap();
    let o = MountOptions { read_only: true, journal_replay: false, ..MountOptions::default() };
    let mut fs = Fs::mount(FileDisk::open(&s.image()), o).unwrap();
    assert_eq!(fs.lookup(2, b"f"), Err(Error::NotFound));
    assert_eq!(fs.create(2, b"g", &new(FileType::Regular)), Err(Error::ReadOnly));
    drop(fs);
    assert!(std::fs::read(s.image()).unwrap() == before);
    let o = MountOptions { journal_replay: false, ..MountOptions::default() };
    assert_eq!(Fs::mount(FileDisk::open(&s.image()), o).unwrap_err().errno(), 30);
    // A read-only mount replays for itself; the image waits for one that may write.
    let mut fs = mount_ro(&s.image());
    assert!(fs.lookup(2, b"f").is_ok());
    drop(fs);
    assert!(std::fs::read(s.image()).unwrap() == before);
    mount(&s.image()).unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn a_read_write_mount_that_changes_nothing_writes_nothing() {
    let s = Scratch::new();
    make(&s, FsType::Ext4, 4096, 64 << 20, None);
    let before = std::fs::read(s.image()).unwrap();
    let mut fs = mount(&s.image());
    fs.lookup(2, b"lost+found").unwrap();
    assert_eq!(fs.rename(2, b"none", 2, b"x", RenameFlags::empty(), NOW), Err(Error::NotFound));
    fs.unmount().unwrap();
    assert!(std::fs::read(s.image()).unwrap() == before);
}

#[test]
fn the_same_operations_give_the_same_bytes() {
    let s = Scratch::new();
    let mut images = Vec::new();
    for _ in 0..2 {
        make(&s, FsType::Ext4, 4096, 64 << 20, None);
        let o = MountOptions { journal: false, ..MountOptions::default() };
        let mut fs = Fs::mount(FileDisk::open(&s.image()), o).unwrap();
        for d in 0..20 {
            let dir = fs.create(2, format!("d{d}").as_bytes(), &new(FileType::Directory)).unwrap();
            for i in 0..100 {
                let f = fs.create(dir, format!("f{i}").as_bytes(), &new(FileType::Regular)).unwrap();
                fs.write(f, 0, &model::bytes(i, 5000), NOW).unwrap();
            }
        }
        fs.unmount().unwrap();
        fsck(&s.image());
        images.push(std::fs::read(s.image()).unwrap());
    }
    assert!(images[0] == images[1]);
}
