//! Damaged images: whatever the bytes, no panic, no hang, no memory beyond a bound.
//!
//! `EXT4_MUTATIONS=N` sets the number of images of each of the four shapes (default 250; with `UMLFS_LONG_TESTS=1`
//! 250,000, a million in all), `EXT4_SEED=N` where to start.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/exercise.rs"]
mod exercise;

use common::*;
use exercise::{exercise, next};
use ext4::{FallocateMode, FileType, XattrMode};
use std::time::Duration;

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
        exercise(bytes, &mut x);
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
