//! Power cuts: every write and barrier is recorded, the device is cut at many points, with the writes since the last
//! barrier in order, or only some of their blocks. Some runs discard what they free. After replay the file system is clean and what was synced is there.
//!
//! `EXT4_CUTS=N` sets the number of cuts a run (default 40).
#![allow(clippy::unwrap_used)]

mod common;

use common::model::{Model, bytes};
use common::*;
use ext4::mkfs::{FsType, Options, format};
use ext4::{BlockDevice, FileType, Fs, IoError, MountOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

struct Recorder {
    now: Mutex<Vec<u8>>,
    log: Mutex<Vec<Event>>,
}

impl BlockDevice for Recorder {
    fn size(&self) -> u64 {
        self.now.lock().unwrap().len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        let at = offset as usize;
        buf.copy_from_slice(&self.now.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        let at = offset as usize;
        self.now.lock().unwrap()[at..at + buf.len()].copy_from_slice(buf);
        self.log.lock().unwrap().push(Event::Write(offset, buf.to_vec()));
        Ok(())
    }
    /// Leaves bytes that nobody may rely on.
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.write_at(offset, &vec![0xEE; len as usize])
    }
    fn flush(&self) -> Result<(), IoError> {
        self.log.lock().unwrap().push(Event::Flush);
        Ok(())
    }
}

/// A small generator, so that a seed names a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What a power cut after event `cut` leaves. `drop`: of the writes since the last barrier, only some arrived.
fn image_at(base: &[u8], log: &[Event], cut: usize, drop: Option<u64>) -> Vec<u8> {
    let mut image = base.to_vec();
    let barrier = log[..cut].iter().rposition(|e| matches!(e, Event::Flush)).unwrap_or(0);
    let mut r = Random(drop.unwrap_or(0) | 1);
    for (i, e) in log[..cut].iter().enumerate() {
        let Event::Write(off, data) = e else { continue };
        // A long write may arrive in part: blocks are lost one by one.
        for (k, piece) in data.chunks(1024).enumerate() {
            if i > barrier && drop.is_some() && r.next().is_multiple_of(2) {
                continue;
            }
            let at = *off as usize + k * 1024;
            image[at..at + piece.len()].copy_from_slice(piece);
        }
    }
    image
}

fn check(image: &Path, stable: &BTreeMap<String, (usize, Vec<u8>)>, cut: usize) {
    fsck(image);
    let mut fs = mount_ro(image);
    for (name, (at, data)) in stable {
        if *at <= cut {
            let ino = resolve(&mut fs, name);
            assert!(&read_all(&mut fs, ino) == data, "{name}, synced at event {at}, differs after a cut at {cut}");
        }
    }
}

fn cuts(t: FsType, seed: u64) {
    let count: usize = std::env::var("EXT4_CUTS").ok().and_then(|v| v.parse().ok()).unwrap_or(40);
    let s = Scratch::new();
    let size = 12 << 20;
    let o = Options { block_size: Some(1024), device_zeroed: true, ..options(t) };
    let dev = Recorder { now: Mutex::new(vec![0; size]), log: Mutex::new(Vec::new()) };
    format(&dev, &o).unwrap();
    let base = dev.now.lock().unwrap().clone();
    dev.log.lock().unwrap().clear();

    let mut r = Random(seed);
    let discard = seed.is_multiple_of(3);
    let mut fs = Fs::mount(&dev, MountOptions { discard, ..MountOptions::default() }).unwrap();
    let mut model = Model::new();
    model.adopt_lost_found(&mut fs);
    let mut stable = BTreeMap::new();
    let dir = fs.create(2, b"stable", &new(FileType::Directory)).unwrap();
    for i in 0..40u64 {
        for _ in 0..25 {
            let x = r.next();
            let op = (x as u8, (x >> 8) as u16, (x >> 24) as u16, r.next() as u32, (x >> 40) as u16);
            model.apply(&mut fs, op);
        }
        let name = format!("f{i}");
        let data = bytes(i as u32, (r.next() % 9000) as usize);
        let Ok(ino) = fs.create(dir, name.as_bytes(), &new(FileType::Regular)) else { continue };
        if fs.write(ino, 0, &data, NOW) == Ok(data.len()) && fs.fsync(ino, i % 2 == 0).is_ok() {
            stable.insert(format!("stable/{name}"), (dev.log.lock().unwrap().len(), data));
        }
    }
    if seed.is_multiple_of(2) {
        fs.unmount().unwrap();
    }
    drop(fs);
    let log = dev.log.into_inner().unwrap();
    assert!(stable.len() > 20 && log.len() > 100);

    let image = s.image();
    for n in 0..count {
        let cut = (r.next() % (log.len() as u64 + 1)) as usize;
        let drop = (n % 3 != 0).then(|| r.next());
        let bytes = image_at(&base, &log, cut, drop);
        std::fs::write(&image, &bytes).unwrap();
        if n % 4 == 0 {
            // The other implementation's replay of our journal; 1 says that it changed something.
            run("sh", &["-c", &format!("e2fsck -fy {} || [ $? = 1 ]", image.display())]);
        } else {
            let mut fs = mount(&image);
            fs.unmount().unwrap();
        }
        check(&image, &stable, cut);
    }
}

#[test]
fn ext4() {
    for seed in 1..4 {
        cuts(FsType::Ext4, seed * 7919);
    }
}

#[test]
fn ext3() {
    for seed in 1..3 {
        cuts(FsType::Ext3, seed * 104_729);
    }
}
