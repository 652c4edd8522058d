//! Files that grow by data which the caller puts on the device itself. The random workloads grow files so, too.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::mkfs::{FsType, Options, format};
use ext4::{BlockDevice as _, Error, FileType, Fs, SetAttr};

fn fresh(scratch: &Scratch, block_size: u32, size: u64) -> Fs<FileDisk> {
    let o = Options { block_size: Some(block_size), device_zeroed: true, ..options(FsType::Ext4) };
    format(&FileDisk::create(&scratch.image(), size), &o).unwrap();
    mount(&scratch.image())
}

#[test]
fn many_pieces_are_one_change() {
    let s = Scratch::new();
    let mut fs = fresh(&s, 1024, 16 << 20);
    let ino = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    fs.write(ino, 0, &model::bytes(1, 700), NOW).unwrap();
    let room = fs.room_behind(ino, 100_000).unwrap().unwrap();
    assert_eq!((room.file_offset, room.len), (700, 100_000));
    let data = model::bytes(2, 90_001);
    for (i, piece) in data.chunks(777).enumerate() {
        fs.device().write_at(room.device_offset + 777 * i as u64, piece).unwrap();
    }
    fs.extend(&room, 90_701, NOW).unwrap();
    let mut expected = model::bytes(1, 700);
    expected.extend_from_slice(&data);
    assert!(read_all(&mut fs, ino) == expected);
    let pieces = fs.map(ino, 0, u64::MAX).unwrap();
    assert_eq!(pieces.len(), 1, "{pieces:?}");
    // What lies behind the end in the last block is zero.
    fs.set_attr(ino, &SetAttr { size: Some(100_000), ..SetAttr::default() }).unwrap();
    expected.resize(100_000, 0);
    assert!(read_all(&mut fs, ino) == expected);
    fs.unmount().unwrap();
    fsck(&s.image());
}

#[test]
fn room_that_others_took_is_refused() {
    let s = Scratch::new();
    let mut fs = fresh(&s, 4096, 16 << 20);
    let [a, b] = [b"a", b"b"].map(|name| fs.create(2, name, &new(FileType::Regular)).unwrap());
    let room = fs.room_behind(a, 50_000).unwrap().unwrap();
    fs.write(b, 0, &model::bytes(3, 50_000), NOW).unwrap();
    assert!(matches!(fs.extend(&room, 50_000, NOW), Err(Error::Corrupt { .. })));
    assert_eq!(fs.attr(a).unwrap().size, 0);
    let room = fs.room_behind(a, 50_000).unwrap().unwrap();
    assert!(matches!(fs.extend(&room, room.len + 1, NOW), Err(Error::Invalid(_))));
    fs.write(a, 0, b"longer", NOW).unwrap();
    assert!(matches!(fs.extend(&room, 40_000, NOW), Err(Error::Invalid(_))));
    assert!(read_all(&mut fs, b) == model::bytes(3, 50_000));
    assert!(matches!(fs.room_behind(2, 10), Err(Error::IsDirectory)));
    fs.unmount().unwrap();
    assert_eq!(fs.room_behind(a, 10), Err(Error::ReadOnly));
    fsck(&s.image());
}

#[test]
fn a_promise_of_room_holds_until_the_disk_is_full() {
    let s = Scratch::new();
    let mut fs = fresh(&s, 1024, 8 << 20);
    // Every second block of a file is freed, so that the room is in pieces, and the map needs blocks of its own.
    let comb = fs.create(2, b"comb", &new(FileType::Regular)).unwrap();
    fs.write(comb, 0, &model::bytes(4, 3 << 20), NOW).unwrap();
    let hole = ext4::FallocateMode::PUNCH_HOLE | ext4::FallocateMode::KEEP_SIZE;
    for block in (0..3 << 10).step_by(2) {
        fs.fallocate(comb, hole, block << 10, 1024, NOW).unwrap();
    }
    fs.sync().unwrap();
    let ino = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    let mut size = 0;
    while let Some(room) = fs.room_behind(ino, 1 << 20).unwrap() {
        fs.device().write_at(room.device_offset, &vec![0x5A; room.len as usize]).unwrap();
        size += room.len;
        fs.extend(&room, size, NOW).unwrap();
    }
    assert!(size > 3 << 20);
    while let Ok(n) = fs.write(ino, size, &[0x5A; 1024], NOW) {
        size += n as u64;
    }
    assert!(read_all(&mut fs, ino) == vec![0x5A; size as usize]);
    fs.unmount().unwrap();
    fsck_worked(&s.image());
}

#[test]
fn the_file_systems_own_blocks_are_no_room() {
    let s = Scratch::new();
    let mut fs = fresh(&s, 4096, 16 << 20);
    let ino = fs.create(2, b"f", &new(FileType::Regular)).unwrap();
    fs.unmount().unwrap();
    drop(fs);
    run("debugfs", &["-w", "-R", "freeb 1 30", s.image().to_str().unwrap()]);
    let mut fs = mount(&s.image());
    assert!(matches!(fs.room_behind(ino, 50_000), Err(Error::Corrupt { .. })));
    assert!(matches!(fs.write(ino, 0, &[1; 50_000], NOW), Err(Error::Corrupt { .. })));
}
