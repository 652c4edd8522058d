//! File systems made by mkfs, judged by e2fsck and dumpe2fs.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::mkfs::{FsType, Options, format};
use std::fs;

#[test]
fn many_shapes_are_clean() {
    let s = Scratch::new();
    let image = s.image();
    let mut made = 0;
    for t in [FsType::Ext2, FsType::Ext3, FsType::Ext4] {
        for bs in [None, Some(1024), Some(2048), Some(4096)] {
            for inode_size in [128, 256, 512] {
                for size in [5u64 << 20, 64 << 20, 300 << 20, 3 << 30] {
                    if bs == Some(4096) && size < 9 << 20 && t != FsType::Ext2 {
                        continue;
                    }
                    let o = Options { block_size: bs, inode_size, device_zeroed: size > 6 << 20, ..options(t) };
                    let dev = FileDisk::create(&image, size);
                    format(&dev, &o).unwrap_or_else(|e| panic!("{t:?} {bs:?} {inode_size} {size}: {e}"));
                    fsck(&image);
                    made += 1;
                }
            }
        }
    }
    assert!(made > 100);
}

#[test]
fn layout_is_that_of_mke2fs() {
    let s = Scratch::new();
    for (t, name) in [(FsType::Ext2, "ext2"), (FsType::Ext3, "ext3"), (FsType::Ext4, "ext4")] {
        for size in ["16M", "64M", "1G", "5G"] {
            let theirs = s.path("theirs");
            let _ = fs::remove_file(&theirs);
            mke2fs(&theirs, &["-t", name], size);
            let bytes = fs::metadata(&theirs).unwrap().len();
            format(&FileDisk::create(&s.image(), bytes), &options(t)).unwrap();
            let keep = |text: &str| -> Vec<String> {
                text.lines()
                    .filter(|l| {
                        // Which of two middle groups has the journal is a matter of taste.
                        ![
                            "free blocks,",
                            "  Free blocks",
                            "UUID",
                            "csum",
                            "Hash Seed",
                            "ime",
                            "hecked",
                            "created",
                            "Checksum",
                            "writes",
                        ]
                        .iter()
                        .any(|w| l.contains(w))
                            || l.contains("bitmap at")
                    })
                    .map(|l| l.split(", csum").next().unwrap().to_owned())
                    .collect()
            };
            let a = keep(&run("dumpe2fs", &[theirs.to_str().unwrap()]));
            let b = keep(&run("dumpe2fs", &[s.image().to_str().unwrap()]));
            for (x, y) in a.iter().zip(&b) {
                assert_eq!(x, y, "{name} {size}: mke2fs left, ours right");
            }
        }
    }
}
