use super::directory::{ARCHIVE, New};
use crate::{FatImage, Target};
use std::path::Path;

fn make(path: &Path, megabytes: u64) {
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.set_len(megabytes << 20).unwrap();
    fatfs::format_volume(file, fatfs::FormatVolumeOptions::new()).unwrap();
}

fn open(path: &Path) -> FatImage {
    FatImage::open_writable(&Target::from(path)).unwrap()
}

#[test]
fn chains_are_made_read_and_freed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    for (megabytes, bits) in [(4, 12), (32, 16), (700, 32)] {
        make(&path, megabytes);
        let mut image = open(&path);
        let volume = &mut image.volume;
        assert_eq!(volume.bits, bits);
        let free = volume.count_free().unwrap();
        let a = volume.allocate(5).unwrap().unwrap();
        let b = volume.allocate(3).unwrap().unwrap();
        volume.release(&a).unwrap();
        // Around what is in use.
        let c = volume.allocate(9).unwrap().unwrap();
        assert_eq!(c.len(), 2, "{c:?}");
        assert_eq!(volume.chain(c[0].0, 9).unwrap(), c);
        assert!(volume.chain(c[0].0, 8).unwrap_err().to_string().contains("too long, or a loop"));
        assert_eq!(volume.allocate(u64::from(free) - 11).unwrap(), None);
        assert_eq!(volume.count_free().unwrap(), free - 12);
        volume.release(&b).unwrap();
        volume.release(&c).unwrap();
        volume.free = None;
        assert_eq!(volume.count_free().unwrap(), free);
        assert!(volume.chain(1, 9).is_err() && volume.chain(u32::MAX, 9).is_err());
        // Nothing was committed: a fresh look finds none of it.
        drop(image);
        assert_eq!(open(&path).volume.count_free().unwrap(), free);
    }
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    make(&path, 1);
    let big = directory.path().join("big");
    std::fs::write(&big, vec![7; 700_000]).unwrap();
    let mut image = open(&path);
    image.copy_in(&big, b"/one", false).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = image.copy_in(&big, b"/two", false).unwrap_err().to_string();
    assert!(error.contains("no space left"), "{error}");
    assert!(image.find(b"/two").unwrap().is_none());
    assert!(std::fs::read(&path).unwrap() == before);
    let mut copy = Vec::new();
    image.read_to(b"/ONE", &mut copy).unwrap();
    assert_eq!(copy, vec![7; 700_000]);
}

#[test]
fn the_root_of_fat16_has_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    make(&path, 32);
    let mut image = open(&path);
    let new =
        || New { attributes: ARCHIVE, cluster: 0, size: 0, created: crate::time::now(), modified: crate::time::now() };
    let mut count = 0;
    let error = loop {
        match image.operation(b"", |volume| volume.add(0, &format!("FILE{count}"), &new())) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("root directory is full") && count >= 511, "{count}: {error}");
    assert_eq!(image.list(b"/").unwrap().len(), count);
    image.make_directory(b"/nope", false).unwrap_err();
    image.remove(b"/FILE7", false).unwrap();
    image.make_directory(b"/YES", false).unwrap();
    image.volume.check().unwrap();
}

#[test]
fn damage_is_refused_or_survived() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    make(&path, 4);
    let mut image = open(&path);
    let file = directory.path().join("a file with a long name");
    std::fs::write(&file, vec![9; 30_000]).unwrap();
    image.make_directory(b"/dir", false).unwrap();
    for name in ["/one", "/dir/two", "/dir/a rather long name for a third one"] {
        image.copy_in(&file, name.as_bytes(), false).unwrap();
    }
    drop(image);
    let sound = std::fs::read(&path).unwrap();
    let used: Vec<usize> = (0..sound.len()).filter(|at| sound[*at] != 0).take_while(|at| *at < 200_000).collect();
    let mut x = 88_172_645_463_325_252u64;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for _ in 0..500 {
        let mut bytes = sound.clone();
        for _ in 0..1 + next() % 6 {
            let at = if next() % 2 == 0 { next() % 20_000 } else { used[next() % used.len()] };
            bytes[at] = next() as u8;
        }
        std::fs::write(&path, &bytes).unwrap();
        let target = Target::from(path.as_path());
        if let Ok(mut image) = FatImage::open(&target) {
            let _ = image.info();
            let mut out = Vec::new();
            let _ = image.export_tar(b"/", &mut out);
        }
        if let Ok(mut image) = FatImage::open_writable(&target) {
            let _ = image.copy_in(&file, b"/dir/new", false);
            let _ = image.rename(b"/dir", b"/other");
            let _ = image.remove(b"/other", true);
            image.volume.check().expect("a change of a sound image left damage");
        }
    }
}
