//! ext2, ext3 and ext4 images.

use std::sync::{Mutex, OnceLock};

use ext4::mkfs::{FsType, Options, format};
use ext4::{FileType, Fs, MountOptions, NewInode, ROOT_INO, XattrMode};

use crate::patch::apply;
use exercise::{Memory, NOW};

#[path = "../../crates/ext4/tests/common/exercise.rs"]
pub mod exercise;

/// The first byte chooses an image that the rest changes; or the rest is one.
pub fn feed(data: &[u8]) {
    let Some((&[shape, seed], rest)) = data.split_first_chunk::<2>() else { return };
    let image = match bases().get(usize::from(shape) % (bases().len() + 1)) {
        Some(base) => apply(base, rest),
        None => rest.to_vec(),
    };
    exercise::exercise(image, &mut (u64::from(seed) << 32 | 1));
}

/// Each image as it is, and with a few bytes changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let shapes = 0..=bases().len() as u8;
    shapes.flat_map(|shape| [vec![shape, 1], vec![shape, 2, 0, 4, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8]]).collect()
}

fn bases() -> &'static [Vec<u8>] {
    static BASES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    BASES.get_or_init(|| {
        let with = |on: &[&str], off: &[&str], fs_type| {
            let mut options = Options { block_size: Some(1024), time: NOW, ..Options::new(fs_type) };
            options.journal_blocks = Some(1024);
            for (names, set) in [(on, true), (off, false)] {
                for name in names {
                    assert!(options.features.set_by_name(name, set), "{name}");
                }
            }
            image(&options)
        };
        vec![
            with(&[], &["metadata_csum"], FsType::Ext4),
            with(&[], &[], FsType::Ext4),
            with(&["dir_index"], &[], FsType::Ext3),
            with(&["dir_index"], &[], FsType::Ext2),
        ]
    })
}

/// A small file system with some of everything in it.
fn image(options: &Options) -> Vec<u8> {
    let disk = Memory(Mutex::new(vec![0; 2 << 20]));
    format(&disk, options).unwrap();
    let mut fs = Fs::mount(&disk, MountOptions::default()).unwrap();
    let new = |file_type| NewInode { file_type, mode: 0o755, uid: 1, gid: 2, rdev: (1, 3), now: NOW };
    let directory = fs.create(ROOT_INO, b"directory", &new(FileType::Directory)).unwrap();
    for number in 0..120 {
        fs.create(directory, format!("a-name-of-some-length-{number}").as_bytes(), &new(FileType::Regular)).unwrap();
    }
    let file = fs.create(ROOT_INO, b"file", &new(FileType::Regular)).unwrap();
    fs.write(file, 0, &[3; 30_000], NOW).unwrap();
    for hole in 0..20 {
        fs.write(file, 50_000 + hole * 9_000, &[4; 1000], NOW).unwrap();
    }
    fs.xattr_set(file, b"user.short", &[5; 20], XattrMode::Any, NOW).unwrap();
    fs.xattr_set(file, b"user.long", &[6; 600], XattrMode::Any, NOW).unwrap();
    fs.symlink(directory, b"long-link", &[b'x'; 200], &new(FileType::Symlink)).unwrap();
    fs.create(ROOT_INO, b"device", &new(FileType::CharDevice)).unwrap();
    fs.sync().unwrap();
    // Not unmounted: there is a journal to replay, where there is one.
    fs.create(ROOT_INO, b"late", &new(FileType::Directory)).unwrap();
    fs.sync().unwrap();
    drop(fs);
    disk.0.into_inner().unwrap()
}
