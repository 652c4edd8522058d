//! `umlfs image`, judged by e2fsprogs and the host's own tools.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use umlfs_tests::{judge, run, umlfs};

fn info(path: &Path) -> umlfs_tests::Run {
    run(umlfs().args(["image", "info"]).arg(path))
}

#[test]
fn what_is_no_image_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    let noise: Vec<u8> = (0..1u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();

    fs::write(&path, b"").unwrap();
    info(&path).expect_one_error(&["an empty file", "hint:"]);
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    info(&path).expect_one_error(&["a blank disk", "hint:"]);
    fs::write(&path, noise).unwrap();
    info(&path).expect_one_error(&["nothing that umlfs knows", "hint:"]);
    fs::write(&path, b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    info(&path).expect_one_error(&["a gzip-compressed file", "decompress"]);
    info(directory.path()).expect_one_error(&["is a directory", "--from"]);
    info(Path::new("/dev/null")).expect_one_error(&["neither a regular file nor a block device"]);
    info(&directory.path().join("none")).expect_one_error(&["No such file or directory"]);
}

#[test]
fn disks_and_fat_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    for (bits, megabytes) in [(12, 8u64), (16, 64), (32, 128)] {
        let path = directory.path().join(format!("fat{bits}"));
        fs::File::create(&path).unwrap().set_len(megabytes << 20).unwrap();
        run(judge("mkfs.fat").arg("-F").arg(bits.to_string()).arg(&path)).expect_success();
        assert!(info(&path).expect_success().stdout.contains(&format!("FAT{bits}")));
        run(umlfs().args(["image", "check"]).arg(&path))
            .expect_code(8)
            .stderr
            .find(&format!("a FAT{bits} file system"))
            .unwrap();
    }
    for (label, phrase) in [("gpt", "a GUID partition table"), ("dos", "a DOS partition table")] {
        let path = directory.path().join(label);
        fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
        let script = directory.path().join("script");
        fs::write(&script, format!("label: {label}\n2048,,L\n")).unwrap();
        run(judge("sfdisk").arg(&path).stdin(fs::File::open(&script).unwrap())).expect_success();
        assert!(info(&path).expect_success().stdout.contains("a blank disk"));
        run(umlfs().args(["image", "ls"]).arg(&path)).expect_one_error(&[phrase, "partition", ":1"]);
    }
}

#[test]
fn broken_ext_images_are_diagnosed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    for (arguments, block) in [(&["-b", "4096"][..], 32768u64), (&["-b", "1024"], 8193)] {
        let make = || {
            run(judge("mke2fs").args(["-q", "-F", "-t", "ext4"]).args(arguments).arg(&path).arg("256M"))
                .expect_success();
        };
        make();
        info(&path).expect_success();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100 << 20).unwrap();
        info(&path).expect_one_error(&["truncated", "268435456", "104857600", "hint:"]);
        fs::remove_file(&path).unwrap();

        make();
        let patch = |offset: u64, bytes: &[u8]| {
            use std::os::unix::fs::FileExt;
            fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(bytes, offset).unwrap();
        };
        patch(1024 + 56, &[0, 0]);
        info(&path).expect_one_error(&["magic", "0xef53", &format!("block {block} is good"), "e2fsck -b"]);
        patch(1024, &[0; 1024]);
        info(&path).expect_one_error(&["magic", "e2fsck -b"]);
        patch(1024, &[0xff; 1024]);
        info(&path).expect_one_error(&["damaged", "e2fsck -b"]);
        fs::remove_file(&path).unwrap();
        make();
        patch(1024 + 24, &[99]);
        info(&path).expect_one_error(&["s_log_block_size is 99", "e2fsck -b"]);
        fs::remove_file(&path).unwrap();
    }
}
