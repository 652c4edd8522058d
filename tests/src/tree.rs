//! A directory tree with one of everything that an image must keep.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// Bytes that do not compress and are the same for the same seed.
pub fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

/// Sets a file's times, of a symbolic link itself.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

/// Fills the empty directory `root`. Device nodes need root rights: they are made only then.
pub fn fill(root: &Path) {
    let file = |name: &str, contents: &[u8], mode: u32| {
        let path = root.join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for directory in ["bin", "etc", "var/empty", "a/b/c/d/e/f", "many", "names", "dev"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (name, len) in
        [("0", 0), ("1", 1), ("4095", 4095), ("4096", 4096), ("4097", 4097), ("1M", (1 << 20) + 3), ("5M", 5 << 20)]
    {
        file(&format!("etc/{name}"), &noise(len as u32 + 1, len), 0o644);
    }
    file("bin/su", b"#!/bin/sh\n", 0o4755);
    file("bin/wall", b"#!/bin/sh\n", 0o2755);
    file("etc/shadow", b"root::1::::::\n", 0o600);
    file("etc/none", b"no rights at all\n", 0o400);
    fs::hard_link(root.join("etc/1M"), root.join("a/b/hard")).unwrap();
    fs::hard_link(root.join("etc/1M"), root.join("a/hard")).unwrap();
    symlink("su", root.join("bin/sh")).unwrap();
    symlink("x".repeat(59), root.join("a/link59")).unwrap();
    symlink("x".repeat(60), root.join("a/link60")).unwrap();
    symlink("/".repeat(4000), root.join("a/link4000")).unwrap();
    symlink("/etc/../../..", root.join("a/dangling")).unwrap();
    nix::unistd::mkfifo(&root.join("dev/fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    mknod(&root.join("dev/socket"), SFlag::S_IFSOCK, Mode::from_bits_truncate(0o755), 0).unwrap();
    if nix::unistd::geteuid().is_root() {
        for (name, kind, major, minor) in
            [("null", SFlag::S_IFCHR, 1, 3), ("sda1", SFlag::S_IFBLK, 8, 1), ("big", SFlag::S_IFCHR, 4095, 1_048_575)]
        {
            // A container may forbid it: then the archive tests have the devices alone.
            let _ = mknod(&root.join("dev").join(name), kind, Mode::from_bits_truncate(0o660), makedev(major, minor));
        }
    }
    // Enough for an indexed directory with several leaves.
    for number in 0..1500 {
        file(&format!("many/a file with a longer name {number}"), format!("{number}\n").as_bytes(), 0o644);
    }
    for name in ["with space", "line\nfeed", "Grüße", "quote\"s'", "\u{1}control", &"n".repeat(255)] {
        file(&format!("names/{name}"), name.as_bytes(), 0o644);
    }
    sparse(&root.join("etc/sparse"), 30 << 20, &[(0, 5), (1 << 20, 70_000), (20 << 20, 4096)]);
    sparse(&root.join("etc/sparse-end"), (8 << 20) + 5, &[((8 << 20) + 1, 4)]);
    sparse(&root.join("etc/hole"), 3 << 20, &[]);
    for (path, name, len) in
        [("etc/0", "user.small", 3), ("etc/0", "user.empty", 0), ("etc/1", "user.large", 3000), ("etc", "user.dir", 40)]
    {
        match xattr::set(root.join(path), name, &noise(7, len)) {
            Ok(()) => {}
            // A host file system without extended attributes cannot show them.
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTSUP), "{error}"),
        }
    }
    fs::set_permissions(root.join("var/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    file("etc/old", b"before 1970", 0o644);
    file("etc/new", b"after 2038", 0o644);
    // Times last, directories after what is in them.
    let mut paths = walk(root);
    paths.reverse();
    for (number, path) in (0i64..).zip(paths) {
        set_time(&path, 1_600_000_000 + number * 1000, 999_999_999 - number);
    }
    set_time(&root.join("etc/old"), -1_000_000_000, 250_000_000);
    set_time(&root.join("etc/new"), 4_102_444_800, 1);
    set_time(&root.join("etc"), 1_500_000_000, 5);
    set_time(root, 1_500_000_001, 6);
}

/// Makes a file of `len` bytes with data in some places only.
fn sparse(path: &Path, len: u64, data: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (offset, count) in data {
        file.write_all_at(&noise(*offset as u32 + 9, *count), *offset).unwrap();
    }
    (&file).flush().unwrap();
}

/// All paths below `root`, parents first, each directory's names in byte order; `root` itself is not among them.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        found.push(path.clone());
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(walk(&path));
        }
    }
    found
}

/// Bytes of data in a file as the host tells them (SEEK_DATA), in whole blocks of 4096.
pub fn data_blocks(path: &Path) -> u64 {
    use nix::unistd::{Whence, lseek};
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len() as i64;
    let (mut at, mut blocks) = (0, 0);
    while at < len {
        let Ok(start) = lseek(&file, at, Whence::SeekData) else {
            break;
        };
        let end = lseek(&file, start, Whence::SeekHole).unwrap().min(len);
        blocks += (end as u64).div_ceil(4096) - start as u64 / 4096;
        at = end;
    }
    blocks
}

/// Whether the host says that `path` is of the kind that debugfs calls `kind`.
pub fn is_kind(path: &Path, kind: &str) -> bool {
    let bits = fs::symlink_metadata(path).unwrap().mode() & nix::libc::S_IFMT;
    let name = match bits {
        nix::libc::S_IFREG => "regular",
        nix::libc::S_IFDIR => "directory",
        nix::libc::S_IFLNK => "symlink",
        nix::libc::S_IFCHR => "character",
        nix::libc::S_IFBLK => "block",
        nix::libc::S_IFIFO => "FIFO",
        nix::libc::S_IFSOCK => "socket",
        _ => "",
    };
    name == kind
}
