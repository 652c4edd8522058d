//! Measures the crate alone, on a sparse image file, against the host's own file system that holds the image:
//! `cargo run --release -p ext4 --example speed [DIRECTORY [ROUNDS]]`. The two take turns; of each figure the smallest counts.
#![allow(clippy::unwrap_used)]

use ext4::mkfs::{FsType, Options, format};
use ext4::{BlockDevice, FileType, Fs, Ino, IoError, MountOptions, NewInode, Timestamp};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of the image, and of the large file.
const SIZE: u64 = 2 << 30;
const LARGE: u64 = 256 << 20;
const FILES: u64 = 20_000;
const READS: u64 = 100_000;
const NOW: Timestamp = Timestamp { sec: 1_700_000_000, nsec: 0 };

struct Disk(File);

fn io(e: std::io::Error) -> IoError {
    IoError { errno: e.raw_os_error().unwrap_or(5) }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        SIZE
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.0.read_exact_at(buf, offset).map_err(io)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.0.write_all_at(buf, offset).map_err(io)
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

/// What is measured: the same work on a file system of ours, or on the host's.
trait Subject {
    fn create(&mut self, i: u64);
    fn look(&mut self, i: u64);
    fn unlink(&mut self, i: u64);
    fn write(&mut self, offset: u64, data: &[u8]);
    fn read(&mut self, offset: u64, data: &mut [u8]);
    fn end(&mut self);
}

struct Ours {
    fs: Fs<Disk>,
    directory: Ino,
    large: Ino,
}

fn new(file_type: FileType) -> NewInode {
    NewInode { file_type, mode: 0o755, uid: 0, gid: 0, rdev: (0, 0), now: NOW }
}

fn name(i: u64) -> String {
    format!("file-{i}")
}

impl Ours {
    fn new(path: &Path, journal: bool) -> Self {
        let _ = std::fs::remove_file(path);
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(SIZE).unwrap();
        let disk = Disk(file);
        let o =
            Options { uuid: [1; 16], hash_seed: [2; 16], time: NOW, device_zeroed: true, ..Options::new(FsType::Ext4) };
        format(&disk, &o).unwrap();
        let mut fs = Fs::mount(disk, MountOptions { journal, ..MountOptions::default() }).unwrap();
        let directory = fs.create(2, b"directory", &new(FileType::Directory)).unwrap();
        let large = fs.create(2, b"large", &new(FileType::Regular)).unwrap();
        Ours { fs, directory, large }
    }
}

impl Subject for Ours {
    fn create(&mut self, i: u64) {
        self.fs.create(self.directory, name(i).as_bytes(), &new(FileType::Regular)).unwrap();
    }
    fn look(&mut self, i: u64) {
        let ino = self.fs.lookup(self.directory, name(i).as_bytes()).unwrap();
        self.fs.attr(ino).unwrap();
    }
    fn unlink(&mut self, i: u64) {
        let gone = self.fs.unlink(self.directory, name(i).as_bytes(), NOW).unwrap();
        self.fs.release(gone.ino).unwrap();
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        assert_eq!(self.fs.write(self.large, offset, data, NOW), Ok(data.len()));
    }
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        assert_eq!(self.fs.read(self.large, offset, data), Ok(data.len()));
    }
    fn end(&mut self) {
        self.fs.unmount().unwrap();
    }
}

struct Host {
    directory: PathBuf,
    large: File,
}

impl Host {
    fn new(path: &Path) -> Self {
        let _ = std::fs::remove_dir_all(path);
        std::fs::create_dir(path).unwrap();
        let large = File::options().read(true).write(true).create_new(true).open(path.join("large")).unwrap();
        Host { directory: path.to_owned(), large }
    }
}

impl Subject for Host {
    fn create(&mut self, i: u64) {
        File::create_new(self.directory.join(name(i))).unwrap();
    }
    fn look(&mut self, i: u64) {
        self.directory.join(name(i)).symlink_metadata().unwrap();
    }
    fn unlink(&mut self, i: u64) {
        std::fs::remove_file(self.directory.join(name(i))).unwrap();
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        self.large.write_all_at(data, offset).unwrap();
    }
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.large.read_exact_at(data, offset).unwrap();
    }
    fn end(&mut self) {}
}

/// Seconds for each of the works, in the order of `WORKS`.
fn work(s: &mut dyn Subject) -> Vec<f64> {
    let chunk = vec![0xA5; 1 << 20];
    let mut buf = vec![0; 1 << 20];
    let mut took = Vec::new();
    let mut timed = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        took.push(start.elapsed().as_secs_f64());
    };
    timed(&mut || (0..FILES).for_each(|i| s.create(i)));
    timed(&mut || (0..FILES).for_each(|i| s.look(i)));
    timed(&mut || (0..FILES).for_each(|i| s.unlink(i)));
    timed(&mut || (0..LARGE >> 20).for_each(|i| s.write(i << 20, &chunk)));
    timed(&mut || (0..LARGE >> 20).for_each(|i| s.write(i << 20, &chunk)));
    timed(&mut || (0..LARGE >> 20).for_each(|i| s.read(i << 20, &mut buf)));
    timed(&mut || {
        let mut x = 1u64;
        for _ in 0..READS {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            s.read(((x >> 33) % (LARGE >> 12)) << 12, &mut buf[..4096]);
        }
    });
    timed(&mut || (0..16384).for_each(|i| s.write(LARGE + (i << 12), &chunk[..4096])));
    timed(&mut || s.end());
    took
}

const WORKS: [(&str, u64); 9] = [
    ("create 20,000 files in one directory", FILES),
    ("look each up", FILES),
    ("unlink them", FILES),
    ("write 256 MiB in pieces of 1 MiB", LARGE >> 20),
    ("write them once more", LARGE >> 20),
    ("read them", LARGE >> 20),
    ("read 4 KiB at 100,000 places", READS),
    ("append 64 MiB in pieces of 4 KiB", 16384),
    ("unmount", 1),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let rounds = arguments.next().map_or(3, |n| n.parse().unwrap());
    let (image, native) = (directory.join("ext4-speed.img"), directory.join("ext4-speed.native"));
    let mut best = [[f64::INFINITY; WORKS.len()]; 3];
    for _ in 0..rounds {
        for (n, best) in best.iter_mut().enumerate() {
            let took = match n {
                0 => work(&mut Host::new(&native)),
                n => work(&mut Ours::new(&image, n == 1)),
            };
            for (best, now) in best.iter_mut().zip(took) {
                *best = best.min(now);
            }
        }
    }
    println!("{:<40}{:>12}{:>22}{:>22}", "", "host us", "with a journal", "without");
    for (i, (what, count)) in WORKS.iter().enumerate() {
        let [host, journal, plain] = best.map(|b| b[i] * 1e6 / *count as f64);
        println!(
            "{what:<40}{host:>12.2}{journal:>12.2} ({:>5.2} x){plain:>12.2} ({:>5.2} x)",
            host / journal,
            host / plain
        );
    }
    println!("(x: how much faster than the host)");
    let _ = std::fs::remove_file(image);
    let _ = std::fs::remove_dir_all(native);
}
