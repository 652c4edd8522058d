//! Feature combinations: what this crate makes passes `e2fsck -fn`; it and what mke2fs makes is read, worked on at
//! random against a model, and passes again.
//!
//! The workload is modest; `UMLFS_LONG_TESTS=1` makes it 100,000 operations for each file system, which takes hours:
//! `EXT4_FROM=N` goes on with the `N`th. Seeds are fixed, and named when a combination fails.
#![allow(clippy::unwrap_used)]

mod common;

use common::model::{Model, Op};
use common::*;
use ext4::mkfs::{FsType, Options, format};
use ext4::{BlockDevice, Bulk, BulkEntry, BulkInode, Error, FileType, Fs, MountOptions, NewInode};
use std::fs;
use std::path::Path;

/// A combination, in mke2fs's words.
#[derive(Debug, Clone)]
struct Shape {
    fs_type: &'static str,
    block_size: u32,
    inode_size: u16,
    features: &'static str,
}

impl Shape {
    /// Large enough for several block groups.
    fn size(&self) -> u64 {
        match self.block_size {
            1024 => 28 << 20,
            2048 => 72 << 20,
            _ => 280 << 20,
        }
    }

    fn mke2fs(&self, image: &Path, more: &[&str]) {
        let (bs, isize) = (self.block_size.to_string(), self.inode_size.to_string());
        let mut args = vec!["-t", self.fs_type, "-b", &bs, "-I", &isize, "-N", "3000"];
        if !self.features.is_empty() {
            args.extend(["-O", self.features]);
        }
        args.extend(more);
        mke2fs(image, &args, &format!("{}k", self.size() >> 10));
    }

    fn ours(&self) -> Options {
        let fs_type = match self.fs_type {
            "ext2" => FsType::Ext2,
            "ext3" => FsType::Ext3,
            _ => FsType::Ext4,
        };
        let mut o = Options {
            block_size: Some(self.block_size),
            inode_size: self.inode_size,
            inodes: Some(3000),
            device_zeroed: true,
            ..options(fs_type)
        };
        for word in self.features.split(',').filter(|w| !w.is_empty()) {
            let (name, on) = word.strip_prefix('^').map_or((word, true), |name| (name, false));
            assert!(o.features.set_by_name(name, on), "{word}");
        }
        o
    }
}

/// Features that ext4 is made with or without.
const EXT4_FEATURES: &[&str] = &[
    "",
    "^has_journal",
    "^metadata_csum,^64bit",
    "^metadata_csum,uninit_bg",
    "^metadata_csum,uninit_bg,^flex_bg,^64bit",
    "^flex_bg",
    "^extent,^64bit",
    "^resize_inode,meta_bg",
    "^resize_inode,meta_bg,^flex_bg,^metadata_csum,^64bit",
    "sparse_super2",
    "^resize_inode,meta_bg,sparse_super2,orphan_file",
    "orphan_file,metadata_csum_seed",
    "inline_data,ea_inode",
    "large_dir,project,^huge_file",
    "^dir_index,^dir_nlink,^large_file",
    "^sparse_super,^resize_inode,^extra_isize",
    "^filetype,stable_inodes",
];

const EXT23_FEATURES: &[&str] = &["", "^dir_index,^filetype", "^resize_inode,^sparse_super", "^ext_attr,^large_file"];

fn shapes() -> Vec<Shape> {
    let mut all = Vec::new();
    for block_size in [1024, 2048, 4096] {
        let mut add = |fs_type, inode_size, features| {
            all.push(Shape { fs_type, block_size, inode_size, features });
        };
        for (n, features) in EXT4_FEATURES.iter().enumerate() {
            // Project ids and inline data live behind the first 128 bytes.
            let small = !features.contains("project") && !features.contains("inline_data");
            add("ext4", [256, 512, if small { 128 } else { 1024 }][n % 3], *features);
        }
        for (n, features) in EXT23_FEATURES.iter().enumerate() {
            add("ext3", [128, 256][n % 2], *features);
            add("ext2", [256, 128][n % 2], *features);
        }
    }
    all
}

fn long() -> bool {
    std::env::var_os("UMLFS_LONG_TESTS").is_some_and(|v| v == "1")
}

/// A stream of operations (xorshift).
fn operations(seed: u64, n: usize) -> Vec<Op> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    };
    (0..n).map(|_| (next() as u8, next() as u16, next() as u16, next() as u32, next() as u16)).collect()
}

/// Works on the image, comparing with a model of what it held at first.
fn work(image: &Path, seed: u64) {
    let rounds = if long() { 10 } else { 2 };
    let each = if long() { 10_000 } else { 60 };
    let mut fs = mount(image);
    let mut model = Model::of(&mut fs);
    for round in 0..rounds {
        for op in operations(seed * 100 + round, each) {
            model.apply(&mut fs, op);
        }
        model.check(&mut fs);
        fs.unmount().unwrap();
        if long() {
            fsck_worked(image)
        } else {
            fsck(image)
        }
        fs = mount(image);
        let report = fs.check().unwrap();
        assert!(report.is_clean(), "e2fsck finds nothing, we do: {:#?}", report.findings);
    }
    model.check(&mut fs);
    fs.unmount().unwrap();
}

/// Runs `f` for every shape on two threads; names those that fail.
fn for_all(shapes: &[Shape], f: impl Fn(&Shape, u64, &Scratch) + Sync) {
    let first = std::env::var("EXT4_FROM").ok().and_then(|v| v.parse::<usize>().ok()).unwrap_or(1);
    let next = std::sync::atomic::AtomicUsize::new(first.max(1) - 1);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(shape) = shapes.get(n) else { return };
                    let s = Scratch::new();
                    let started = std::time::Instant::now();
                    let run = std::panic::AssertUnwindSafe(|| f(shape, n as u64 + 1, &s));
                    if std::panic::catch_unwind(run).is_err() {
                        failed.lock().unwrap().push(format!("seed {}: {shape:?}", n + 1));
                    }
                    if long() {
                        println!("{} of {} after {:?}: {shape:?}", n + 1, shapes.len(), started.elapsed());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), shapes.len(), failed.join("\n"));
}

#[test]
fn made_by_us() {
    let shapes = shapes();
    assert!(shapes.len() >= 60, "{}", shapes.len());
    for_all(&shapes, |shape, seed, s| {
        let image = s.image();
        format(&FileDisk::create(&image, shape.size()), &shape.ours()).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
        fsck(&image);
        let dump = run("dumpe2fs", &["-h", image.to_str().unwrap()]);
        let theirs = s.path("theirs");
        shape.mke2fs(&theirs, &[]);
        let wanted = run("dumpe2fs", &["-h", theirs.to_str().unwrap()]);
        let line = |dump: &str| dump.lines().find(|l| l.starts_with("Filesystem features:")).unwrap().to_owned();
        assert_eq!(line(&dump), line(&wanted), "{shape:?}: ours left, mke2fs's right");
        work(&image, seed);
    });
}

#[test]
fn made_by_mke2fs() {
    let source = Scratch::new();
    let tree = source.path("tree");
    make_tree(&tree);
    for_all(&shapes(), |shape, seed, s| {
        let image = s.image();
        shape.mke2fs(&image, &["-d", tree.to_str().unwrap()]);
        work(&image, seed + 1000);
    });
}

/// Filled in one pass rather than by operations: the same file system for everybody.
#[test]
fn filled_in_bulk() {
    for_all(&shapes(), |shape, seed, s| {
        let image = s.image();
        format(&FileDisk::create(&image, shape.size()), &shape.ours()).unwrap();
        let contents = fill(&image, seed.is_multiple_of(2));
        fsck(&image);
        let mut fs = mount_ro(&image);
        let report = fs.check().unwrap();
        assert!(report.is_clean(), "e2fsck finds nothing, we do: {:#?}", report.findings);
        for (path, bytes) in contents {
            let ino = resolve(&mut fs, &path);
            assert!(read_all(&mut fs, ino) == bytes, "{path}");
        }
        let many = resolve(&mut fs, "many");
        assert_eq!(list(&mut fs, many, 7).len(), 1500);
        let link = resolve(&mut fs, "many/file-1");
        assert_eq!((fs.attr(link).unwrap().nlink, resolve(&mut fs, "again")), (2, link));
        drop(fs);
        work(&image, seed + 2000);
    });
}

/// Fills a fresh file system; returns paths and contents of regular files.
fn fill(image: &Path, keep_lost_found: bool) -> Vec<(String, Vec<u8>)> {
    let options = MountOptions { journal: false, ..MountOptions::default() };
    let mut fs = Fs::mount(FileDisk::open(image), options).unwrap();
    let lost_found = fs.lookup(2, b"lost+found").unwrap();
    let bs = fs.superblock().block_size as usize;
    let mut bulk = fs.bulk(keep_lost_found).unwrap();
    let attr = |file_type, links| BulkInode {
        new: NewInode { rdev: (8, 1), ..new(file_type) },
        links,
        atime: NOW,
        ctime: NOW,
        crtime: NOW,
        flags: 0,
    };
    // Long names and short ones; with blocks of 1 KiB an index of two levels.
    let name = |i: usize| format!("file-{i}{}", "-and-more".repeat((i - i % 2) * 7 % 23));
    let many = bulk.reserve(true).unwrap();
    let files: Vec<u32> = (0..1500).map(|_| bulk.reserve(false).unwrap()).collect();
    let names: Vec<String> = (0..1500).map(name).collect();
    let entry = |name, ino, file_type| BulkEntry { name, ino, file_type };
    let [empty, short, long, device, sparse, large] = std::array::from_fn(|i| bulk.reserve(i == 0).unwrap());
    let mut root = vec![
        entry(b"many", many, FileType::Directory),
        entry(b"empty", empty, FileType::Directory),
        entry(b"short", short, FileType::Symlink),
        entry(b"long", long, FileType::Symlink),
        entry(b"device", device, FileType::BlockDevice),
        entry(b"sparse", sparse, FileType::Regular),
        entry(b"large", large, FileType::Regular),
        entry(b"again", files[1], FileType::Regular),
    ];
    if keep_lost_found {
        root.push(entry(b"lost+found", lost_found, FileType::Directory));
    }
    bulk.directory(2, &attr(FileType::Directory, 0), 2, &root).unwrap();
    let entries: Vec<_> =
        names.iter().zip(&files).map(|(name, ino)| entry(name.as_bytes(), *ino, FileType::Regular)).collect();
    bulk.directory(many, &attr(FileType::Directory, 0), 2, &entries).unwrap();
    let mut contents = Vec::new();
    let mut put = |bulk: &mut Bulk<'_, FileDisk>, path: String, ino, links, size: usize, parts: &[(usize, usize)]| {
        let mut bytes = vec![0; size];
        let mut placed = Vec::new();
        for (offset, len) in parts {
            bytes[*offset..offset + len].copy_from_slice(&common::model::bytes(ino, *len));
        }
        let data = parts.iter().map(|(offset, len)| (*offset as u64, *len as u64));
        bulk.file(ino, &attr(FileType::Regular, links), size as u64, data, &mut placed).unwrap();
        for e in placed {
            let end = size.min((e.offset + e.len) as usize);
            bulk.device().write_at(e.device, &bytes[e.offset as usize..end]).unwrap();
        }
        contents.push((path, bytes));
    };
    for (i, ino) in files.iter().enumerate() {
        let size = [0, 1, bs, 3 * bs + 5][i % 4];
        put(&mut bulk, format!("many/{}", names[i]), *ino, if i == 1 { 2 } else { 1 }, size, &[(0, size)]);
    }
    bulk.directory(empty, &attr(FileType::Directory, 0), 2, &[]).unwrap();
    bulk.symlink(short, &attr(FileType::Symlink, 1), b"many/file-1").unwrap();
    bulk.symlink(long, &attr(FileType::Symlink, 1), &[b'y'; 200]).unwrap();
    bulk.special(device, &attr(FileType::BlockDevice, 1)).unwrap();
    // More extents than the inode holds, two parts in one block, a hole at the end.
    let parts: Vec<_> = (1..12).map(|i| (i * 5 * bs + 3, 700)).chain([(70 * bs, 100), (70 * bs + 600, 100)]).collect();
    put(&mut bulk, "sparse".into(), sparse, 1, 100 * bs, &parts);
    put(&mut bulk, "large".into(), large, 1, 3_000_000, &[(0, 3_000_000)]);
    bulk.finish().unwrap();
    fs.unmount().unwrap();
    contents
}

/// What is no fresh file system is refused, and one that is too small says so.
#[test]
fn bulk_refusals() {
    let s = Scratch::new();
    let image = s.image();
    let ours = &shapes()[0].ours();
    format(&FileDisk::create(&image, 8 << 20), ours).unwrap();
    assert!(matches!(mount(&image).bulk(true), Err(Error::Invalid(_))), "with a journal");
    let options = MountOptions { journal: false, ..MountOptions::default() };
    let mut fs = Fs::mount(FileDisk::open(&image), options).unwrap();
    fs.create(2, b"file", &new(FileType::Regular)).unwrap();
    assert!(matches!(fs.bulk(true), Err(Error::NotEmpty)));
    let gone = fs.unlink(2, b"file", NOW).unwrap();
    fs.release(gone.ino).unwrap();
    let mut bulk = fs.bulk(true).unwrap();
    let ino = bulk.reserve(false).unwrap();
    let attr = BulkInode { new: new(FileType::Regular), links: 1, atime: NOW, ctime: NOW, crtime: NOW, flags: 0 };
    let data = [(0, 9 << 20)].into_iter();
    assert_eq!(bulk.file(ino, &attr, 9 << 20, data, &mut Vec::new()), Err(Error::NoSpace));
    let attr = BulkInode { new: new(FileType::Directory), ..attr };
    let slash = BulkEntry { name: b"a/b", ino, file_type: FileType::Regular };
    assert!(matches!(bulk.directory(2, &attr, 2, &[slash]), Err(Error::Invalid(_))));
    while bulk.reserve(false).is_ok() {}
    assert_eq!(bulk.reserve(true), Err(Error::NoSpace));
}

/// Files, links, directories with few and with many entries.
fn make_tree(tree: &Path) {
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir(tree.join("many")).unwrap();
    for (name, len) in [("empty", 0), ("tiny", 40), ("small", 150), ("block", 4096), ("large", 300_000)] {
        fs::write(tree.join(name), common::model::bytes(len as u32, len)).unwrap();
    }
    fs::hard_link(tree.join("small"), tree.join("a/small2")).unwrap();
    std::os::unix::fs::symlink("../tiny", tree.join("a/short")).unwrap();
    std::os::unix::fs::symlink("y".repeat(100), tree.join("a/long")).unwrap();
    for i in 0..120 {
        fs::write(tree.join(format!("many/a-file-with-a-name-{i}")), format!("{i}")).unwrap();
    }
}

fn mount_error(image: &Path, read_only: bool) -> Error {
    Fs::mount(FileDisk::open(image), MountOptions { read_only, ..MountOptions::default() }).unwrap_err()
}

/// What cannot be written here is read, and refused to a writer with the reason, as Linux does.
#[test]
fn readable_only() {
    let source = Scratch::new();
    let tree = source.path("tree");
    make_tree(&tree);
    for (features, reason) in [
        ("quota", "features quota"),
        ("quota,project", "features quota"),
        ("bigalloc", "features bigalloc"),
        ("verity", "features verity"),
        ("mmp", "mmp (another machine may have it mounted"),
        ("encrypt", "encrypt (names and contents need keys)"),
    ] {
        let s = Scratch::new();
        let image = s.image();
        let size = if features == "bigalloc" { "512M" } else { "32M" };
        mke2fs(&image, &["-t", "ext4", "-O", features, "-d", tree.to_str().unwrap()], size);
        let before = fs::read(&image).unwrap();
        let error = mount_error(&image, false);
        assert!(matches!(&error, Error::Unsupported { read_only_possible: true, .. }), "{features}: {error:?}");
        assert!(error.to_string().contains(reason), "{features}: {error}");
        assert_eq!(error.errno(), 30, "EROFS");
        let mut fs = mount_ro(&image);
        assert_eq!(fs.create(2, b"x", &new(ext4::FileType::Regular)), Err(Error::ReadOnly));
        Model::of(&mut fs).check(&mut fs);
        let large = resolve(&mut fs, "large");
        assert!(read_all(&mut fs, large) == common::model::bytes(300_000, 300_000));
        drop(fs);
        assert!(fs::read(&image).unwrap() == before, "{features}: the image changed");
    }
}

#[test]
fn unknown_features() {
    let s = Scratch::new();
    let image = s.image();
    mke2fs(&image, &["-t", "ext4", "-O", "casefold"], "16M");
    assert_eq!(mount_error(&image, true).to_string(), "not supported: incompatible file system features: casefold");

    for (command, name, writable, readable) in [
        ("feature +FEATURE_C30", "FEATURE_C30", true, true),
        ("feature +FEATURE_R30", "FEATURE_R30", false, true),
        ("feature +FEATURE_I30", "FEATURE_I30", false, false),
    ] {
        let _ = fs::remove_file(&image);
        mke2fs(&image, &["-t", "ext4"], "16M");
        run("debugfs", &["-w", "-R", command, image.to_str().unwrap()]);
        for (read_only, possible) in [(true, readable), (false, writable)] {
            let options = MountOptions { read_only, ..MountOptions::default() };
            match Fs::mount(FileDisk::open(&image), options) {
                Ok(mut fs) => {
                    assert!(possible, "{name} was mounted, read-only: {read_only}");
                    fs.unmount().unwrap();
                }
                Err(e) => {
                    assert!(!possible && e.to_string().contains(name), "{name}, read-only: {read_only}: {e}");
                    assert!(
                        matches!(e, Error::Unsupported { read_only_possible, .. } if read_only_possible == readable)
                    );
                }
            }
        }
    }
}

/// Files take their directory's project, and cannot be moved or linked to where another is inherited.
#[test]
fn projects_are_inherited() {
    let s = Scratch::new();
    let image = s.image();
    mke2fs(&image, &["-t", "ext4", "-O", "project"], "16M");
    let mut fs = mount(&image);
    let dir = fs.create(2, b"dir", &new(ext4::FileType::Directory)).unwrap();
    fs.create(2, b"outside", &new(ext4::FileType::Regular)).unwrap();
    fs.unmount().unwrap();
    for command in ["sif dir projid 7", "sif dir flags 0x20080000"] {
        run("debugfs", &["-w", "-R", command, image.to_str().unwrap()]);
    }
    let mut fs = mount(&image);
    let sub = fs.create(dir, b"sub", &new(ext4::FileType::Directory)).unwrap();
    fs.create(sub, b"file", &new(ext4::FileType::Regular)).unwrap();
    let outside = fs.lookup(2, b"outside").unwrap();
    assert_eq!(fs.link(sub, b"name", outside, NOW), Err(Error::OtherProject));
    let flags = ext4::RenameFlags::empty();
    assert_eq!(fs.rename(2, b"outside", sub, b"name", flags, NOW), Err(Error::OtherProject));
    let flags = ext4::RenameFlags::EXCHANGE;
    assert_eq!(fs.rename(2, b"outside", sub, b"file", flags, NOW), Err(Error::OtherProject));
    fs.rename(sub, b"file", 2, b"moved", ext4::RenameFlags::empty(), NOW).unwrap();
    fs.unmount().unwrap();
    fsck(&image);
    for path in ["dir/sub", "moved"] {
        assert!(debugfs(&image, &format!("stat {path}")).contains("Project:     7"), "{path}");
    }
}
