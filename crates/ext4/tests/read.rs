//! Reading images that mke2fs made, of many shapes.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::{Error, FileType, Fs, MountOptions};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// A tree with everything that an unprivileged user can make.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    fs::write(root.join("hello"), b"hello, world\n").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("tiny"), [7; 50]).unwrap();
    fs::write(root.join("small"), [9; 150]).unwrap();
    let big: Vec<u8> = (0..3_000_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    fs::write(root.join("a/big"), &big).unwrap();
    let sparse = fs::File::create(root.join("a/sparse")).unwrap();
    for i in 0..40u64 {
        sparse.write_all_at(&[i as u8 + 1; 5000], i * 150_000).unwrap();
    }
    sparse.set_len(7_000_000).unwrap();
    fs::hard_link(root.join("hello"), root.join("a/b/hello2")).unwrap();
    symlink("../hello", root.join("a/short")).unwrap();
    symlink("x".repeat(200), root.join("a/long")).unwrap();
    for i in 0..3000 {
        fs::write(root.join(format!("many/file-with-a-longer-name-{i}")), format!("{i}")).unwrap();
    }
    fs::set_permissions(root.join("hello"), fs::Permissions::from_mode(0o4711)).unwrap();
    for i in 0..20 {
        fs::create_dir(root.join(format!("a/b/d{i}"))).unwrap();
    }
}

fn compare(fs: &mut Fs<FileDisk>, dir: u32, host: &Path) {
    let names = list(fs, dir, 7);
    let mut count = names.len();
    for e in fs::read_dir(host).unwrap() {
        let e = e.unwrap();
        count -= 1;
        let name = e.file_name();
        let ino = names[name.as_encoded_bytes()];
        assert_eq!(fs.lookup(dir, name.as_encoded_bytes()).unwrap(), ino);
        let attr = fs.attr(ino).unwrap();
        let meta = fs::symlink_metadata(e.path()).unwrap();
        assert_eq!(u32::from(attr.mode), meta.mode() & 0o7777);
        assert_eq!((attr.uid, attr.gid), (meta.uid(), meta.gid()));
        assert_eq!(attr.mtime.sec, meta.mtime());
        assert_eq!(u64::from(attr.nlink), meta.nlink().max(1), "{name:?}");
        match attr.file_type {
            FileType::Directory => compare(fs, ino, &e.path()),
            FileType::Regular => {
                assert!(read_all(fs, ino) == fs::read(e.path()).unwrap(), "{name:?} differs");
                let mut odd = vec![0; 12345];
                let n = fs.read(ino, 4097, &mut odd).unwrap();
                let all = fs::read(e.path()).unwrap();
                assert!(odd[..n] == all[4097.min(all.len())..(4097 + 12345).min(all.len())]);
            }
            FileType::Symlink => {
                let target = fs::read_link(e.path()).unwrap();
                assert_eq!(fs.read_link(ino).unwrap(), target.as_os_str().as_encoded_bytes());
            }
            t => panic!("unexpected {t:?}"),
        }
    }
    assert!(count == 0 || dir == 2 && count == 1, "{count} entries too many");
}

#[test]
fn images_of_many_shapes() {
    let s = Scratch::new();
    let tree = s.path("tree");
    make_tree(&tree);
    let shapes: &[&[&str]] = &[
        &["-t", "ext4"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "2048", "-I", "512"],
        &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
        &["-t", "ext4", "-O", "^64bit,^flex_bg"],
        &["-t", "ext4", "-O", "inline_data"],
        &["-t", "ext4", "-O", "inline_data", "-b", "1024"],
        &["-t", "ext4", "-O", "metadata_csum_seed,large_dir,ea_inode"],
        &["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"],
        &["-t", "ext4", "-O", "bigalloc"],
        &["-t", "ext4", "-O", "orphan_file,sparse_super2"],
        &["-t", "ext4", "tea"],
        &["-t", "ext3"],
        &["-t", "ext3", "-b", "1024"],
        &["-t", "ext2", "-b", "1024"],
        &["-t", "ext2", "-O", "^dir_index,^filetype"],
        &["-t", "ext2", "-r", "0", "-b", "1024"],
    ];
    for shape in shapes {
        // mke2fs 1.47.0 rounds the size of sparse files down to their last block when it makes inline files.
        let inline = shape.iter().any(|a| a.starts_with("inline_data"));
        if inline {
            let _ = fs::rename(tree.join("a/sparse"), s.path("sparse"));
        } else {
            let _ = fs::rename(s.path("sparse"), tree.join("a/sparse"));
        }
        let image = s.image();
        let _ = fs::remove_file(&image);
        let mut args = shape.to_vec();
        args.extend(["-d", tree.to_str().unwrap()]);
        mke2fs(&image, &args, if shape.contains(&"bigalloc") { "512M" } else { "64M" });
        // mke2fs -d leaves long directories linear; e2fsck -D builds their index.
        for optimise in [false, true] {
            if optimise {
                run("sh", &["-c", &format!("e2fsck -fyD {} || [ $? = 1 ]", image.display())]);
            }
            let mut fs = mount_ro(&image);
            compare(&mut fs, 2, &tree);
            if inline {
                continue;
            }
            let sparse = resolve(&mut fs, "a/sparse");
            assert_eq!(fs.seek_data(sparse, 100_000).unwrap().map(|o| o / 65536), Some(2), "{shape:?}");
            assert!(fs.seek_hole(sparse, 0).unwrap().unwrap() < 150_000);
            assert_eq!(fs.seek_data(sparse, 6_900_000).unwrap(), None);
            let st = fs.statfs();
            let dump = run("dumpe2fs", &["-h", image.to_str().unwrap()]);
            assert!(dump.contains(&format!("Free blocks:              {}\n", st.blocks_free)), "{dump}");
            assert_eq!(fs.superblock().features.names(), features_of(&dump), "{shape:?}");
        }
    }
}

fn features_of(dump: &str) -> &str {
    let line = dump.lines().find(|l| l.starts_with("Filesystem features:")).unwrap();
    let names = line["Filesystem features:".len()..].trim();
    if names == "(none)" { "" } else { names }
}

fn mount_error(image: &Path) -> Error {
    Fs::mount(FileDisk::open(image), MountOptions { read_only: true, ..MountOptions::default() }).unwrap_err()
}

#[test]
fn bad_images_are_named() {
    let s = Scratch::new();
    let image = s.image();
    fs::write(&image, b"").unwrap();
    assert_eq!(mount_error(&image).to_string(), "not an ext2/3/4 image: the image is empty (0 bytes)");
    fs::write(&image, [0; 1000]).unwrap();
    assert!(mount_error(&image).to_string().contains("1000 bytes, too small"));
    fs::write(&image, vec![0; 100_000]).unwrap();
    assert_eq!(mount_error(&image).to_string(), "not an ext2/3/4 image: magic at byte 1080 is 0x0000, expected 0xEF53");
    let mut fat = vec![0; 100_000];
    fat[54..59].copy_from_slice(b"FAT16");
    fs::write(&image, &fat).unwrap();
    assert!(mount_error(&image).to_string().contains("looks like a FAT file system"));
    fs::remove_file(&image).unwrap();
    mke2fs(&image, &["-t", "ext4"], "16M");
    let whole = fs::read(&image).unwrap();
    fs::write(&image, &whole[..9_000_000]).unwrap();
    assert_eq!(
        mount_error(&image).to_string(),
        "image is 9000000 bytes but the file system says 16777216: the image was truncated; extend it or copy it again"
    );
    let mut bad = whole.clone();
    bad[1024 + 40] ^= 1;
    fs::write(&image, &bad).unwrap();
    assert!(mount_error(&image).to_string().contains("superblock's checksum does not match"));
    fs::remove_file(&image).unwrap();
    mke2fs(&image, &["-t", "ext4", "-O", "^metadata_csum"], "16M");
    let mut bad = fs::read(&image).unwrap();
    bad[1024 + 24] = 9;
    fs::write(&image, &bad).unwrap();
    assert!(mount_error(&image).to_string().contains("log_block_size"));
    bad[1024 + 24] = 0;
    bad[1024 + 98] = 2;
    fs::write(&image, &bad).unwrap();
    assert_eq!(mount_error(&image).to_string(), "not supported: incompatible file system features: casefold");
}
