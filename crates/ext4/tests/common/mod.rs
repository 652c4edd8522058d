//! What the integration tests share: an image file as a device, and the judges (e2fsprogs).
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod model;

use ext4::mkfs::{FsType, Options};
use ext4::{BlockDevice, DirEntry, FileType, Fs, IoError, MountOptions, NewInode, Timestamp};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// An image file.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
}

impl FileDisk {
    pub fn open(path: &Path) -> FileDisk {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let size = file.metadata().unwrap().len();
        FileDisk { file, size }
    }

    pub fn create(path: &Path, size: u64) -> FileDisk {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(size).unwrap();
        FileDisk { file, size }
    }
}

fn io(e: &std::io::Error) -> IoError {
    IoError { errno: e.raw_os_error().unwrap_or(5) }
}

impl BlockDevice for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.file.read_exact_at(buf, offset).map_err(|e| io(&e))
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        assert!(offset + buf.len() as u64 <= self.size, "write beyond the device");
        self.file.write_all_at(buf, offset).map_err(|e| io(&e))
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

/// Options with all that chance would decide, the same in every test.
pub fn options(t: FsType) -> Options {
    Options { uuid: *b"0123456789abcdef", hash_seed: *b"fedcba9876543210", time: NOW, ..Options::new(t) }
}

/// A disk that notes what is written and what is discarded, offsets and lengths, and spoils what is discarded.
#[derive(Debug)]
pub struct Noting {
    disk: FileDisk,
    pub writes: Mutex<Vec<(u64, u64)>>,
    pub discards: Mutex<Vec<(u64, u64)>>,
}

impl Noting {
    pub fn open(path: &Path) -> Noting {
        Noting { disk: FileDisk::open(path), writes: Mutex::default(), discards: Mutex::default() }
    }
}

impl BlockDevice for Noting {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.writes.lock().unwrap().push((offset, buf.len() as u64));
        self.disk.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.disk.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.discards.lock().unwrap().push((offset, len));
        self.disk.write_at(offset, &vec![0xEE; len as usize])
    }
}

/// A temporary directory and an image path in it.
pub struct Scratch {
    pub dir: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { dir: tempfile::tempdir().unwrap() }
    }
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Runs a judge and returns its output; a missing tool fails the test.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap_or_else(|e| panic!("{program} cannot run ({e}): these tests need e2fsprogs (apt install e2fsprogs)"));
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{program} {args:?} failed ({}):\n{text}", out.status);
    text
}

/// Fails unless e2fsck finds nothing at all to say about the image.
pub fn fsck(image: &Path) {
    expect_silence(image, &[]);
}

/// Likewise after much work, which leaves files whose extents would fit fewer blocks (as it does with Linux): e2fsck
/// offers to pack them.
pub fn fsck_worked(image: &Path) {
    expect_silence(image, &["-E", "no_optimize_extents"]);
}

fn expect_silence(image: &Path, options: &[&str]) {
    let mut args = vec!["-fn"];
    args.extend(options);
    args.push(image.to_str().unwrap());
    let text = run("e2fsck", &args);
    for line in text.lines() {
        let ok = line.is_empty()
            || line.starts_with("e2fsck ")
            || line.starts_with("Pass ")
            || (line.contains(" files (") && line.contains(" blocks"));
        assert!(ok, "e2fsck complains about {}:\n{text}", image.display());
    }
}

pub fn debugfs(image: &Path, command: &str) -> String {
    run("debugfs", &["-R", command, image.to_str().unwrap()])
}

/// Runs mke2fs; the pseudo-argument `tea` changes the hash of directories (which mke2fs itself cannot).
pub fn mke2fs(image: &Path, args: &[&str], size: &str) {
    let mut a = vec!["-q", "-F"];
    a.extend(args.iter().filter(|a| **a != "tea"));
    a.push(image.to_str().unwrap());
    a.push(size);
    run("mke2fs", &a);
    if args.contains(&"tea") {
        run("tune2fs", &["-E", "hash_alg=tea", image.to_str().unwrap()]);
    }
}

pub const NOW: Timestamp = Timestamp { sec: 1_700_000_000, nsec: 123_456_789 };

pub fn new(file_type: FileType) -> NewInode {
    let mode = if file_type == FileType::Directory { 0o755 } else { 0o644 };
    NewInode { file_type, mode, uid: 1000, gid: 100, rdev: (0, 0), now: NOW }
}

pub fn mount_ro(image: &Path) -> Fs<FileDisk> {
    Fs::mount(FileDisk::open(image), MountOptions { read_only: true, ..MountOptions::default() }).unwrap()
}

pub fn mount(image: &Path) -> Fs<FileDisk> {
    Fs::mount(FileDisk::open(image), MountOptions::default()).unwrap()
}

/// All names of a directory but the dots, read in pieces of `step` entries to exercise the cookies.
pub fn list<D: BlockDevice>(fs: &mut Fs<D>, dir: u32, step: usize) -> BTreeMap<Vec<u8>, u32> {
    let mut out = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let mut taken = 0;
        let mut next = cookie;
        fs.read_dir(dir, cookie, &mut |e: &DirEntry<'_>| {
            if taken == step {
                return false;
            }
            taken += 1;
            next = e.next;
            if e.name != b"." && e.name != b".." {
                assert!(out.insert(e.name.to_vec(), e.ino).is_none(), "{:?} listed twice", e.name);
            }
            true
        })
        .unwrap();
        if taken == 0 {
            return out;
        }
        cookie = next;
    }
}

/// Resolves a path from the root.
pub fn resolve<D: BlockDevice>(fs: &mut Fs<D>, path: &str) -> u32 {
    let mut ino = 2;
    for part in path.split('/').filter(|p| !p.is_empty()) {
        ino = fs.lookup(ino, part.as_bytes()).unwrap_or_else(|e| panic!("{path}: {part}: {e}"));
    }
    ino
}

pub fn read_all<D: BlockDevice>(fs: &mut Fs<D>, ino: u32) -> Vec<u8> {
    let size = fs.attr(ino).unwrap().size as usize;
    let mut v = vec![0; size];
    let n = fs.read(ino, 0, &mut v).unwrap();
    assert_eq!(n, size);
    v
}
