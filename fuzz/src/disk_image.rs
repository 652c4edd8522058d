//! Whatever `umlfs image` is given as an image: disks with partition tables, FAT, overlays, and what is none of these.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

use imgtool::{
    Contents, Image, Kind, Options, Size, Table, Target, Volume, check, cow, create, create_disk, partitions,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tempfile::TempDir;

use crate::patch::apply;

/// Bytes of contents that are read at most: a sparse file may claim any number.
const READ: u64 = 4 << 20;

/// The first byte chooses an image that the rest changes; or the rest is one.
pub fn feed(data: &[u8]) {
    let Some((shape, rest)) = data.split_first() else { return };
    let bytes = match bases().images.get(usize::from(*shape) % (bases().images.len() + 1)) {
        Some(base) => apply(base, rest),
        None => rest.to_vec(),
    };
    let file = memory_file(&bytes);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    look(Target::from(Path::new(&path)));
    let _ = (cow::is_overlay(Path::new(&path)), cow::chain(Path::new(&path)), cow::info(Path::new(&path)));
    if let Ok(parts) = partitions(Path::new(&path)) {
        for part in parts.iter().take(4) {
            look(Target { path: path.clone().into(), partition: Some(part.number) });
        }
    }
    change(Target::from(Path::new(&path)));
}

fn look(target: Target) {
    let Ok(contents) = target.contents() else { return };
    let _ = check(target.clone());
    if let Contents::Ext { .. } = contents
        && let Ok(mut image) = Image::open(target.clone())
    {
        let _ = image.info();
        let _ = image.map(80).map(|map| (map.text(false), map.svg()));
    }
    let Ok(mut volume) = Volume::open(target) else { return };
    let mut files = Vec::new();
    let _ = volume.visit_all(b"/", &mut |path, _| {
        files.push(path.to_vec());
        if files.len() < 200 { Ok(()) } else { Err(imgtool::Error::new("enough")) }
    });
    for path in files.iter().take(20) {
        let _ = volume.stat(path);
        let _ = volume.xattrs(path);
        let _ = volume.read_to(path, &mut Sink(READ));
    }
    let _ = volume.export_tar(b"/", &mut Sink(READ));
}

fn change(target: Target) {
    let Ok(mut volume) = Volume::open_writable(target) else { return };
    let _ = volume.make_directory(b"/new/inside", 0o755, true);
    let _ = volume.rename(b"/directory", b"/new/moved");
    let _ = volume.remove(b"/file", false);
    let _ = volume.remove(b"/new", true);
    let _ = volume.set_label("LABEL");
    let _ = volume.close();
}

/// Takes so many bytes and no more.
struct Sink(u64);

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(buf.len() as u64).ok_or_else(|| io::Error::other("enough"))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is nowhere but in memory.
pub(crate) fn memory_file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file
}

struct Bases {
    images: Vec<Vec<u8>>,
    /// What the overlay lies on.
    _place: TempDir,
}

fn bases() -> &'static Bases {
    static BASES: OnceLock<Bases> = OnceLock::new();
    BASES.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        std::fs::create_dir_all(tree.join("directory/with a longer name")).unwrap();
        std::fs::write(tree.join("file"), [7; 3000]).unwrap();
        std::fs::write(tree.join("directory/another"), [8; 30_000]).unwrap();
        let options = |name: &str, kind, size| Options {
            from: vec![tree.clone()],
            kind,
            size: Size::Bytes(size),
            epoch: Some(1_600_000_000),
            ..Options::new(place.path().join(name))
        };
        let read = |name: &str| std::fs::read(place.path().join(name)).unwrap();
        create(&options("fat12", Kind::Fat, 512 << 10), &mut |_| {}).unwrap();
        create(&options("fat32", Kind::Fat, 40 << 20), &mut |_| {}).unwrap();
        create_disk(&options("gpt", Kind::Fat, 1 << 20), Table::Gpt, "one", &mut |_| {}).unwrap();
        create_disk(&options("mbr", Kind::Ext2, 1 << 20), Table::Mbr, "", &mut |_| {}).unwrap();
        cow::create(&place.path().join("cow"), &place.path().join("fat12"), false).unwrap();
        // Nearly all of it is free space.
        let fat32 = read("fat32")[..2 << 20].to_vec();
        Bases { images: vec![read("fat12"), fat32, read("gpt"), read("mbr"), read("cow")], _place: place }
    })
}

/// Each image as it is, and with a few bytes changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let shapes = 0..=bases().images.len() as u8;
    shapes.flat_map(|shape| [vec![shape], vec![shape, 11, 0, 0, 7, 0, 2, 1, 1, 0, 2, 0xe0, 0]]).collect()
}
