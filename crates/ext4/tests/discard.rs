//! Freed blocks become holes of the image, at a commit or all at once.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::mkfs::{FsType, Options, format};
use ext4::{Error, FileType, Fs, MountOptions};

#[test]
fn at_a_commit_and_all_at_once() {
    for (t, bs) in [(FsType::Ext4, 1024), (FsType::Ext4, 4096), (FsType::Ext3, 1024), (FsType::Ext2, 4096)] {
        let s = Scratch::new();
        let image = s.image();
        let o = Options { block_size: Some(bs), device_zeroed: true, ..options(t) };
        format(&FileDisk::create(&image, 48 << 20), &o).unwrap();
        let disk = Noting::open(&image);
        let discarded = || disk.discards.lock().unwrap().drain(..).map(|(_, len)| len).sum::<u64>();
        let mut fs = Fs::mount(&disk, MountOptions { discard: true, ..MountOptions::default() }).unwrap();
        let keep = fs.create(2, b"keep", &new(FileType::Regular)).unwrap();
        let gone = fs.create(2, b"gone", &new(FileType::Regular)).unwrap();
        let bytes = common::model::bytes(1, 3_000_000);
        // In turns, so that their blocks lie among each other.
        for at in (0..bytes.len()).step_by(100_000) {
            for ino in [keep, gone] {
                fs.write(ino, at as u64, &bytes[at..(at + 100_000).min(bytes.len())], NOW).unwrap();
            }
        }
        fs.sync().unwrap();
        assert_eq!(discarded(), 0);
        let unlinked = fs.unlink(2, b"gone", NOW).unwrap();
        fs.release(unlinked.ino).unwrap();
        assert_eq!(discarded(), 0, "{t:?}: before the commit a crash brings the file back");
        fs.sync().unwrap();
        let freed = discarded();
        assert!((3_000_000..3_200_000).contains(&freed), "{t:?}: {freed}");
        assert!(read_all(&mut fs, keep) == bytes);

        let free = fs.statfs().blocks_free * u64::from(bs);
        assert_eq!((fs.trim(0, u64::MAX, 0), discarded()), (Ok(free), free));
        let large = fs.trim(0, u64::MAX, 1 << 20).unwrap();
        assert!(large < free && large == discarded());
        let part = fs.trim(10 << 20, 1 << 20, 0).unwrap();
        assert!(part <= 1 << 20 && part == discarded());
        assert!(matches!(fs.trim(1 << 40, 1, 0), Err(Error::Invalid(_))));
        fs.set_discard(false);
        let unlinked = fs.unlink(2, b"keep", NOW).unwrap();
        fs.release(unlinked.ino).unwrap();
        fs.unmount().unwrap();
        assert_eq!(discarded(), 0);
        assert_eq!(fs.trim(0, u64::MAX, 0), Err(Error::ReadOnly));
        fsck(&image);
    }
}
