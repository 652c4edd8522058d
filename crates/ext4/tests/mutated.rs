//! Damaged images: whatever the bytes, no panic, no hang, no memory beyond a bound.
//!
//! `EXT4_MUTATIONS=N` sets the number of images of each of the four shapes (default 250; with `UMLFS_LONG_TESTS=1`
//! 250,000, a million in all), `EXT4_SEED=N` where to start.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::{
    BlockDevice, DirEntry, Error, FallocateMode, FileType, Fs, IoError, MountOptions, RenameFlags, SetAttr, XattrMode,
};
use std::sync::Mutex;
use std::time::Duration;

struct Memory(Mutex<Vec<u8>>);

impl BlockDevice for Memory {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        let at = usize::try_from(offset).map_err(|_| IoError::EIO)?;
        let d = self.0.lock().unwrap();
        let end = at.checked_add(buf.len()).ok_or(IoError::EIO)?;
        buf.copy_from_slice(d.get(at..end).ok_or(IoError::EIO)?);
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        let at = usize::try_from(offset).map_err(|_| IoError::EIO)?;
        let mut d = self.0.lock().unwrap();
        let end = at.checked_add(buf.len()).ok_or(IoError::EIO)?;
        d.get_mut(at..end).ok_or(IoError::EIO)?.copy_from_slice(buf);
        Ok(())
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

fn next(x: &mut u64) -> u64 {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    *x
}

/// Reads everything that can be reached, up to a bound.
fn walk(fs: &mut Fs<&Memory>) -> Vec<(u32, Vec<u8>, u32)> {
    let mut todo = vec![2];
    let mut seen = Vec::new();
    let mut buf = vec![0; 70_000];
    while let Some(dir) = todo.pop() {
        let mut here: Vec<(Vec<u8>, u32)> = Vec::new();
        let _ = fs.read_dir(dir, 0, &mut |e: &DirEntry<'_>| {
            here.push((e.name.to_vec(), e.ino));
            here.len() < 500
        });
        for (name, ino) in here {
            let _ = fs.lookup(dir, &name);
            let Ok(a) = fs.attr(ino) else { continue };
            let _ = fs.xattr_list(ino).map(|l| l.iter().map(|n| fs.xattr_get(ino, n).is_ok()).count());
            let _ = fs.read(ino, 0, &mut buf);
            let _ = fs.read(ino, a.size.saturating_sub(1000), &mut buf);
            let _ = fs.read_link(ino);
            let _ = fs.map(ino, 0, 1 << 20);
            let _ = fs.seek_hole(ino, 0);
            if a.file_type == FileType::Directory && name != b"." && name != b".." && seen.len() < 400 {
                todo.push(ino);
            }
            seen.push((dir, name, ino));
        }
        if seen.len() > 1500 {
            break;
        }
    }
    seen
}

/// Appends by putting the bytes on the device first: what is promised lies inside it, and is not the file system's own.
fn grow(fs: &mut Fs<&Memory>, ino: u32, len: u64) -> Result<(), Error> {
    let Some(room) = fs.room_behind(ino, len)? else { return Ok(()) };
    let bytes = vec![8; room.len as usize];
    fs.device().write_at(room.device_offset, &bytes).expect("room is inside the device");
    fs.extend(&room, room.file_offset + room.len, NOW)
}

fn change(fs: &mut Fs<&Memory>, seen: &[(u32, Vec<u8>, u32)], x: &mut u64) {
    for _ in 0..60 {
        let (dir, name, ino) = &seen[next(x) as usize % seen.len()];
        let (other, oname, _) = &seen[next(x) as usize % seen.len()];
        let _ = match next(x) % 15 {
            0 => fs.write(*ino, next(x) % 300_000, &[7; 9000], NOW).map(drop),
            1 => fs.unlink(*dir, name, NOW).and_then(|u| fs.release(u.ino)),
            2 => fs.rmdir(*dir, name, NOW).and_then(|u| fs.release(u.ino)),
            3 => fs.create(*dir, format!("new{}", next(x) % 100).as_bytes(), &new(FileType::Regular)).map(drop),
            4 => fs.create(*dir, format!("dir{}", next(x) % 100).as_bytes(), &new(FileType::Directory)).map(drop),
            5 => fs.rename(*dir, name, *other, oname, RenameFlags::empty(), NOW).map(drop),
            6 => fs.rename(*dir, name, *other, oname, RenameFlags::EXCHANGE, NOW).map(drop),
            7 => fs.set_attr(*ino, &SetAttr { size: Some(next(x) % 200_000), ..SetAttr::default() }),
            8 => fs.xattr_set(*ino, b"user.x", &[1; 300], XattrMode::Any, NOW),
            9 => fs.symlink(*dir, b"link", &[b'y'; 100], &new(FileType::Symlink)).map(drop),
            10 => fs.link(*other, b"hard", *ino, NOW),
            11 => {
                let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
                fs.fallocate(*ino, mode, next(x) % 50_000, 60_000, NOW)
            }
            12 => fs.sync(),
            13 => grow(fs, *ino, next(x) % 100_000),
            _ => fs.allocate(*ino, 0, 100_000, NOW).map(drop),
        };
    }
}

/// What this thread has used of a processor: a loaded machine makes no test hang.
fn processor_time() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    now.into()
}

fn mutate(args: &[&str]) {
    let long = std::env::var_os("UMLFS_LONG_TESTS").is_some_and(|v| v == "1");
    let count = std::env::var("EXT4_MUTATIONS").ok().and_then(|v| v.parse().ok());
    let count: u64 = count.unwrap_or(if long { 250_000 } else { 250 });
    let first: u64 = std::env::var("EXT4_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let s = Scratch::new();
    let tree = s.path("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    for i in 0..150 {
        std::fs::write(tree.join(format!("a/file-with-a-longer-name-{i}")), format!("{i}")).unwrap();
    }
    std::fs::write(tree.join("big"), vec![3; 400_000]).unwrap();
    for i in 0..30u64 {
        use std::os::unix::fs::FileExt;
        let f = std::fs::File::options().write(true).create(true).truncate(false).open(tree.join("holes")).unwrap();
        f.write_all_at(&[1; 1000], i * 10_000).unwrap();
    }
    std::os::unix::fs::symlink("z".repeat(150), tree.join("a/b/link")).unwrap();
    let image = s.image();
    let mut all = args.to_vec();
    all.extend(["-d", tree.to_str().unwrap()]);
    mke2fs(&image, &all, "4M");
    run("sh", &["-c", &format!("e2fsck -fyD {} || [ $? = 1 ]", image.display())]);
    {
        // Some life, so that attributes, unwritten extents and a used journal are there.
        let mut fs = mount(&image);
        let ino = resolve(&mut fs, "big");
        fs.xattr_set(ino, b"user.long", &[9; 500], XattrMode::Any, NOW).unwrap();
        fs.xattr_set(ino, b"user.short", &[9; 20], XattrMode::Any, NOW).unwrap();
        let _ = fs.fallocate(ino, FallocateMode::empty(), 500_000, 100_000, NOW);
        fs.sync().unwrap();
        let _ = fs.create(2, b"more", &new(FileType::Directory)).unwrap();
        fs.sync().unwrap();
        // Dropped without unmounting: the journal is to be replayed.
    }
    let base = std::fs::read(&image).unwrap();
    let used: Vec<usize> = (0..base.len() / 64).filter(|i| base[i * 64..i * 64 + 64].iter().any(|b| *b != 0)).collect();
    for seed in first..first + count {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut bytes = base.clone();
        for _ in 0..1 + next(&mut x) % 12 {
            let line = match next(&mut x) % 4 {
                0 => 16 + next(&mut x) as usize % 16,
                _ => used[next(&mut x) as usize % used.len()],
            };
            let at = (line * 64 + next(&mut x) as usize % 64).min(bytes.len() - 4);
            match next(&mut x) % 4 {
                0 => bytes[at] ^= 1 << (next(&mut x) % 8),
                1 => bytes[at] = next(&mut x) as u8,
                2 => bytes[at..at + 4].fill(0xFF),
                _ => bytes[at..at + 4].copy_from_slice(&(next(&mut x) as u32 % 5000).to_le_bytes()),
            }
        }
        let start = processor_time();
        let disk = Memory(Mutex::new(bytes));
        if let Ok(mut fs) = Fs::mount(&disk, MountOptions { read_only: true, ..MountOptions::default() }) {
            let _ = walk(&mut fs);
        }
        if let Ok(mut fs) = Fs::mount(&disk, MountOptions::default()) {
            let seen = walk(&mut fs);
            if !seen.is_empty() {
                change(&mut fs, &seen, &mut x);
            }
            let _ = fs.unmount();
        }
        let took = processor_time() - start;
        assert!(took < Duration::from_secs(20), "seed {seed} took {took:?}");
        if long && seed.is_multiple_of(10_000) {
            println!("{args:?}: {} images", seed + 1 - first);
        }
    }
}

#[test]
fn ext4_without_checksums() {
    mutate(&["-t", "ext4", "-O", "^metadata_csum,^64bit"]);
}

#[test]
fn ext4_with_checksums() {
    mutate(&["-t", "ext4"]);
}

#[test]
fn ext3() {
    mutate(&["-t", "ext3"]);
}

#[test]
fn ext4_inline() {
    mutate(&["-t", "ext4", "-O", "^metadata_csum,inline_data,ea_inode,large_dir"]);
}
