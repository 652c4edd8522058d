//! What is done with a damaged image: everything is read, then much is changed. Nothing is expected of the results; the
//! mutated images' test and the fuzz target want no panic, no hang, and no memory beyond a bound.
#![allow(unreachable_pub, clippy::unwrap_used)]

use ext4::{
    BlockDevice, DirEntry, Error, FallocateMode, FileType, Fs, IoError, MountOptions, NewInode, RenameFlags, SetAttr,
    Timestamp, XattrMode,
};
use std::sync::Mutex;

/// The time of all that is done.
pub const NOW: Timestamp = Timestamp { sec: 1_700_000_000, nsec: 0 };

/// A device in memory.
pub struct Memory(pub Mutex<Vec<u8>>);

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

/// The next number of a row that looks like chance.
pub fn next(x: &mut u64) -> u64 {
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

fn new(file_type: FileType) -> NewInode {
    NewInode { file_type, mode: 0o755, uid: 0, gid: 0, rdev: (0, 0), now: NOW }
}

/// Reads the image and changes it, as `x` has it.
pub fn exercise(image: Vec<u8>, x: &mut u64) {
    let disk = Memory(Mutex::new(image));
    if let Ok(mut fs) = Fs::mount(&disk, MountOptions { read_only: true, ..MountOptions::default() }) {
        let _ = walk(&mut fs);
        let _ = fs.check();
    }
    if let Ok(mut fs) = Fs::mount(&disk, MountOptions::default()) {
        let seen = walk(&mut fs);
        if !seen.is_empty() {
            change(&mut fs, &seen, x);
        }
        let _ = fs.unmount();
    }
}
