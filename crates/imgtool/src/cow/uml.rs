//! Overlays lent to a User-Mode Linux, which knows only copy-on-write files of its own kind.
//!
//! [`lend`] writes such a file, with what the overlays have, on the same image; the machine writes to it, and
//! [`Loan::take_back`] brings what it wrote into the topmost overlay. The image itself is neither copied nor written. Until it is
//! taken back, a machine's work is in the lent file alone.
//!
//! The kernel's format (`arch/um/drivers/cow_user.c`, version 3; numbers are big-endian):
//!
//! | byte | what |
//! | --- | --- |
//! | 0, 4 | `OOOM`, version (3) |
//! | 8, 12 | the image's modification time in seconds, its size |
//! | 20, 24, 28 | bytes of a sector (512), alignment (4096), 0 for a bitmap |
//! | 32 | the image's absolute path, 4096 bytes |
//! | 8192 | the bitmap, a bit for each sector; the disk's bytes from the next multiple of the alignment on |

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ext4::BlockDevice;

use super::{BLOCK, Layers, chain, open, put};
use crate::identify::size_of;
use crate::{Error, backing};

const SECTOR: u64 = 512;
const ALIGN: u64 = 4096;
const BITMAP_AT: u64 = 8192;
const PATH_AT: usize = 32;
const PATH_LEN: usize = 4096;
const SECTORS_OF_BLOCK: u64 = BLOCK / SECTOR;

fn bitmap_len(size: u64) -> u64 {
    size.div_ceil(SECTOR).div_ceil(8)
}

fn data_at(size: u64) -> u64 {
    (BITMAP_AT + bitmap_len(size)).next_multiple_of(ALIGN)
}

/// A disk that a User-Mode Linux has, as a copy-on-write file of its kind. The files below are locked while this is there.
#[derive(Debug)]
pub struct Loan {
    layers: Option<Layers>,
    /// Locked.
    _held: Vec<File>,
    file: File,
    path: PathBuf,
    size: u64,
}

/// Writes the disk at `path`, an image or an overlay, to `file`, which is empty and is called `name`. With `write` it is to be taken
/// back; without, what the machine writes is for itself.
///
/// # Errors
/// As [`chain`]; a file is in use, or the host refuses.
pub fn lend(path: &Path, file: File, name: &Path, write: bool) -> Result<Loan, Error> {
    let found = chain(path)?;
    let layers = match found.overlays.is_empty() {
        true => None,
        false => Some(Layers::open(path, write)?),
    };
    let mut held = Vec::new();
    if !write || layers.is_none() {
        for path in found.overlays.iter().chain([&found.base]) {
            let file = open(path, false)?;
            backing::lock_shared(&file, path)?;
            held.push(file);
        }
    }
    let base = found.base.canonicalize().map_err(|error| Error::io("find", &found.base, &error))?;
    let below = open(&base, false)?;
    let size = size_of(&below).map_err(|error| Error::io("find the size of", &base, &error))?;
    let time = below.metadata().map_err(|error| Error::io("read", &base, &error))?.mtime();
    let failed = |error: std::io::Error| Error::io("write", name, &error);
    file.write_all_at(&header(&base, time, size)?, 0).map_err(failed)?;
    file.set_len(data_at(size) + size).map_err(failed)?;
    let loan = Loan { layers, _held: held, file, path: name.to_owned(), size };
    if let Some(layers) = &loan.layers {
        loan.give(layers)?;
    }
    Ok(loan)
}

fn header(base: &Path, time: i64, size: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; PATH_AT + PATH_LEN];
    let path = base.as_os_str().as_bytes();
    if path.len() >= PATH_LEN {
        return Err(Error::new(format_args!("the path {} is too long for an overlay", base.display())));
    }
    put(&mut bytes, 0, b"OOOM");
    put(&mut bytes, 4, &3u32.to_be_bytes());
    // As the kernel does: what does not fit is left out.
    put(&mut bytes, 8, &(time as u32).to_be_bytes());
    put(&mut bytes, 12, &size.to_be_bytes());
    put(&mut bytes, 20, &(SECTOR as u32).to_be_bytes());
    put(&mut bytes, 24, &(ALIGN as u32).to_be_bytes());
    put(&mut bytes, PATH_AT, path);
    Ok(bytes)
}

impl Loan {
    /// The bytes of a block, which may be the disk's last and short.
    fn block(&self, block: u64) -> Vec<u8> {
        vec![0; (self.size - block * BLOCK).min(BLOCK) as usize]
    }

    /// Copies what the overlays have.
    fn give(&self, layers: &Layers) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::io("write", &self.path, &error);
        let mut bitmap = vec![0; bitmap_len(self.size) as usize];
        for block in (0..self.size.div_ceil(BLOCK)).filter(|block| layers.has(*block)) {
            let mut bytes = self.block(block);
            let read = layers.read_at(block * BLOCK, &mut bytes).map_err(backing::host_error);
            read.map_err(|error| Error::new(format_args!("cannot read the overlay: {error}")))?;
            self.file.write_all_at(&bytes, data_at(self.size) + block * BLOCK).map_err(failed)?;
            for sector in block * SECTORS_OF_BLOCK..block * SECTORS_OF_BLOCK + (bytes.len() as u64).div_ceil(SECTOR) {
                if let Some(byte) = bitmap.get_mut((sector / 8) as usize) {
                    *byte |= 1 << (sector % 8);
                }
            }
        }
        self.file.write_all_at(&bitmap, BITMAP_AT).map_err(failed)
    }

    /// Brings what the machine has written into the topmost overlay. Nothing to do for one that was lent for reading. Returns
    /// the bytes brought.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn take_back(&self) -> Result<u64, Error> {
        let Some(layers) = self.layers.as_ref().filter(|layers| layers.is_writable()) else { return Ok(0) };
        let failed = |error: std::io::Error| Error::io("read", &self.path, &error);
        let host = |error| Error::new(format_args!("cannot write to the overlay: {}", backing::host_error(error)));
        let mut bitmap = vec![0; bitmap_len(self.size) as usize];
        self.file.read_exact_at(&mut bitmap, BITMAP_AT).map_err(failed)?;
        let has = |sector: u64| bitmap.get((sector / 8) as usize).is_some_and(|byte| byte >> (sector % 8) & 1 != 0);
        let mut brought = 0;
        for block in 0..self.size.div_ceil(BLOCK) {
            let sectors = block * SECTORS_OF_BLOCK..(block + 1) * SECTORS_OF_BLOCK;
            if !sectors.clone().any(has) {
                continue;
            }
            let mut before = self.block(block);
            layers.read_at(block * BLOCK, &mut before).map_err(host)?;
            let mut now = before.clone();
            for (sector, bytes) in sectors.zip(now.chunks_mut(SECTOR as usize)).filter(|(sector, _)| has(*sector)) {
                self.file.read_exact_at(bytes, data_at(self.size) + sector * SECTOR).map_err(failed)?;
            }
            if now != before {
                layers.write_at(block * BLOCK, &now).map_err(host)?;
                brought += now.len() as u64;
            }
        }
        layers.flush().map_err(host)?;
        Ok(brought)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cow::create;

    fn new_file(path: &Path) -> File {
        File::options().read(true).write(true).create_new(true).open(path).unwrap()
    }

    /// What a User-Mode Linux does when it writes a sector.
    fn machine_writes(path: &Path, size: u64, sector: u64, byte: u8) {
        let file = open(path, true).unwrap();
        file.write_all_at(&[byte; 512], data_at(size) + sector * SECTOR).unwrap();
        let mut bits = [0];
        file.read_exact_at(&mut bits, BITMAP_AT + sector / 8).unwrap();
        file.write_all_at(&[bits[0] | 1 << (sector % 8)], BITMAP_AT + sector / 8).unwrap();
    }

    #[test]
    fn what_the_machine_writes_comes_back_to_the_overlay() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let size = 300 * 1024u64 + 512;
        std::fs::write(path("base"), vec![1; size as usize]).unwrap();
        create(&path("low"), &path("base"), false).unwrap();
        Layers::open(&path("low"), true)
            .map(|low| (low.write_at(4096, &[2; 4096]).unwrap(), low.flush().unwrap()))
            .unwrap();
        create(&path("top"), &path("low"), false).unwrap();
        let loan = lend(&path("top"), new_file(&path("uml")), &path("uml"), true).unwrap();
        // The kernel's own figures, of a file that it made on an image of 64 MiB.
        assert_eq!((data_at(64 << 20), data_at(64 << 20) + (64 << 20)), (24_576, 67_133_440));
        let mut given = vec![0; 4096];
        open(&path("uml"), false).unwrap().read_exact_at(&mut given, data_at(size) + 4096).unwrap();
        assert_eq!(given, [2; 4096]);
        assert!(lend(&path("top"), new_file(&path("uml2")), &path("uml2"), true).is_err(), "it is lent already");
        machine_writes(&path("uml"), size, 9, 3);
        machine_writes(&path("uml"), size, 600, 4);
        assert_eq!(loan.take_back().unwrap(), 4096 + 512);
        let mut wanted = vec![1; size as usize];
        wanted[4096..8192].fill(2);
        wanted[9 * 512..10 * 512].fill(3);
        wanted[600 * 512..].fill(4);
        let layers = Layers::open(&path("top"), false).unwrap();
        let mut now = vec![0; size as usize];
        layers.read_at(0, &mut now).unwrap();
        assert!(now == wanted);
        assert!(std::fs::read(path("base")).unwrap() == vec![1; size as usize]);
    }

    #[test]
    fn what_is_lent_for_reading_is_shared_and_does_not_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("base"), vec![1; 65536]).unwrap();
        let one = lend(&path("base"), new_file(&path("a")), &path("a"), false).unwrap();
        let two = lend(&path("base"), new_file(&path("b")), &path("b"), false).unwrap();
        assert!(backing::open_writable(&path("base")).is_err());
        machine_writes(&path("a"), 65536, 0, 7);
        assert_eq!((one.take_back().unwrap(), two.take_back().unwrap()), (0, 0));
        assert!(std::fs::read(path("base")).unwrap() == vec![1; 65536]);
    }
}
