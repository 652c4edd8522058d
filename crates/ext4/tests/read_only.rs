//! A read-only mount of a file system that a crash left shows what is committed, and writes nothing.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::{BlockDevice, FileType, Fs, IoError, MountOptions, SetAttr};
use std::path::Path;

/// A device that refuses to be written.
struct Sealed(Vec<u8>);

impl BlockDevice for Sealed {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        buf.copy_from_slice(&self.0[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
    fn write_at(&self, offset: u64, _: &[u8]) -> Result<(), IoError> {
        panic!("written at {offset}");
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

/// Names and contents below the root.
fn contents<D: BlockDevice>(fs: &mut Fs<D>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, ino) in list(fs, 2, 7) {
        let attr = fs.attr(ino).unwrap();
        let data = if attr.file_type == FileType::Regular { read_all(fs, ino) } else { Vec::new() };
        found.push((name, data));
    }
    found
}

fn crash(image: &Path) {
    let mut fs = mount(image);
    for n in 0..40u32 {
        let ino = fs.create(2, format!("file{n}").as_bytes(), &new(FileType::Regular)).unwrap();
        fs.write(ino, 0, &vec![n as u8; 5000 + n as usize], NOW).unwrap();
    }
    fs.sync().unwrap();
    let gone = fs.unlink(2, b"file7", NOW).unwrap();
    fs.release(gone.ino).unwrap();
    let ino = fs.lookup(2, b"file8").unwrap();
    fs.set_attr(ino, &SetAttr { size: Some(10), ..SetAttr::default() }).unwrap();
    fs.sync().unwrap();
    // No unmount: the power is cut here.
}

#[test]
fn a_dirty_journal_is_replayed_in_memory() {
    for arguments in [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext3", "-b", "1024"],
        &["-t", "ext4", "-O", "^metadata_csum"],
    ] {
        let s = Scratch::new();
        mke2fs(&s.image(), arguments, "24M");
        crash(&s.image());
        let before = std::fs::read(s.image()).unwrap();
        let options = MountOptions { read_only: true, ..MountOptions::default() };
        let mut fs = Fs::mount(Sealed(before.clone()), options).unwrap();
        let seen = contents(&mut fs);
        assert_eq!(seen.len(), 40, "39 files and lost+found");
        let ino = fs.lookup(2, b"file9").unwrap();
        assert!(!fs.map(ino, 0, 5000).unwrap().is_empty());
        fs.sync().unwrap();
        fs.unmount().unwrap();
        assert!(fs.device().0 == before);

        // e2fsck's replay, in place, leaves the same files.
        run("sh", &["-c", &format!("e2fsck -fy {} || [ $? = 1 ]", s.image().display())]);
        assert_eq!(contents(&mut mount_ro(&s.image())), seen, "{arguments:?}");

        // Without replay, the state before the crash.
        let stale = MountOptions { journal_replay: false, ..options };
        let mut fs = Fs::mount(Sealed(before), stale).unwrap();
        assert!(contents(&mut fs).len() <= 41);
    }
}
