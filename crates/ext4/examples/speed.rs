//! Measures the crate alone, on a sparse image file: `cargo run --release -p ext4 --example speed [IMAGE]`.
#![allow(clippy::unwrap_used)]

use ext4::mkfs::{FsType, Options, format};
use ext4::{BlockDevice, FileType, Fs, IoError, MountOptions, NewInode, Timestamp};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

struct Disk(File, u64);

fn io(e: std::io::Error) -> IoError {
    IoError { errno: e.raw_os_error().unwrap_or(5) }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.1
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

fn timed<R>(what: &str, count: u64, f: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let r = f();
    let t = start.elapsed().as_secs_f64();
    println!("{what:<44} {:8.1} ms  {:8.2} us each", t * 1e3, t * 1e6 / count as f64);
    r
}

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/tmp/ext4-speed.img".to_owned());
    let now = Timestamp { sec: 1_700_000_000, nsec: 0 };
    for journal in [true, false] {
        println!("journal: {journal}");
        let size = 2 << 30;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(size).unwrap();
        let disk = Disk(file, size);
        let o =
            Options { uuid: [1; 16], hash_seed: [2; 16], time: now, device_zeroed: true, ..Options::new(FsType::Ext4) };
        timed("mkfs 2 GiB", 1, || format(&disk, &o).unwrap());
        let mut fs = Fs::mount(&disk, MountOptions { journal, ..MountOptions::default() }).unwrap();
        let new = |file_type| NewInode { file_type, mode: 0o755, uid: 0, gid: 0, rdev: (0, 0), now };
        let n = 20_000u64;
        let one = fs.create(2, b"one", &new(FileType::Directory)).unwrap();
        timed("create 20,000 empty files in one directory", n, || {
            for i in 0..n {
                fs.create(one, format!("file-{i}").as_bytes(), &new(FileType::Regular)).unwrap();
            }
        });
        timed("look each up", n, || {
            for i in 0..n {
                fs.lookup(one, format!("file-{i}").as_bytes()).unwrap();
            }
        });
        let data = vec![0x5A; 6000];
        timed("create 20,000 files of 6000 bytes in 200 dirs", n, || {
            for d in 0..200 {
                let dir = fs.create(2, format!("d{d}").as_bytes(), &new(FileType::Directory)).unwrap();
                for i in 0..n / 200 {
                    let f = fs.create(dir, format!("file-{i}").as_bytes(), &new(FileType::Regular)).unwrap();
                    fs.write(f, 0, &data, now).unwrap();
                }
            }
        });
        timed("sync", 1, || fs.sync().unwrap());
        let f = fs.create(2, b"big", &new(FileType::Regular)).unwrap();
        let chunk = vec![0xA5; 4 << 20];
        timed("write 512 MiB in 4 MiB pieces", 128, || {
            for i in 0..128u64 {
                fs.write(f, i << 22, &chunk, now).unwrap();
            }
        });
        println!("  in {} pieces", fs.map(f, 0, u64::MAX).unwrap().len());
        let g = fs.create(2, b"small-writes", &new(FileType::Regular)).unwrap();
        timed("write 64 MiB in 4 KiB pieces", 16384, || {
            for i in 0..16384u64 {
                fs.write(g, i << 12, &chunk[..4096], now).unwrap();
            }
        });
        println!("  in {} pieces", fs.map(g, 0, u64::MAX).unwrap().len());
        let mut buf = vec![0; 4096];
        timed("read 4 KiB at 100,000 random places", 100_000, || {
            let mut x = 1u64;
            for _ in 0..100_000 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                fs.read(f, ((x >> 33) % (1 << 17)) << 12, &mut buf).unwrap();
            }
        });
        timed("unlink 20,000 files", n, || {
            for i in 0..n {
                let u = fs.unlink(one, format!("file-{i}").as_bytes(), now).unwrap();
                fs.release(u.ino).unwrap();
            }
        });
        timed("unmount", 1, || fs.unmount().unwrap());
    }
}
