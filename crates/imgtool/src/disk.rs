//! `image disk`: images of partitions put together to a disk.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Whence, lseek};
use sha2::{Digest, Sha256};

use crate::identify::size_of;
use crate::output::Output;
use crate::table::{Purpose, Slot, Table, lay_out, write_table};
use crate::{Error, identify};

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// A partition to be: its name (which only a GPT keeps) and the image that goes into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name.
    pub name: String,
    /// The image.
    pub image: PathBuf,
}

/// Makes the disk `output` of `parts`, in order, each as large as its image; types follow from what the images hold.
/// The same input gives the same bytes. Returns the disk's size.
///
/// # Errors
/// An image cannot be read, or the table has no room.
pub fn make_disk(output: &Path, overwrite: bool, table: Table, parts: &[Part]) -> Result<u64, Error> {
    let out = Output::create(output, overwrite)?;
    let mut files = Vec::new();
    let mut seed = Sha256::new();
    for part in parts {
        let path = &part.image;
        let contents = identify(path)?;
        let file = File::open(path).map_err(|error| Error::io("open", path, &error))?;
        let size = size_of(&file).map_err(|error| Error::io("find the size of", path, &error))?;
        if size == 0 {
            return Err(Error::new(format_args!("{} is empty, expected an image", path.display())));
        }
        // Superblocks have the identifiers of what is in them.
        let mut head = vec![0; (4096).min(size as usize)];
        file.read_exact_at(&mut head, 0).map_err(|error| Error::io("read", path, &error))?;
        seed.update(&head);
        seed.update(size.to_le_bytes());
        seed.update(part.name.as_bytes());
        files.push((file, size, Purpose::of(&contents, &part.name)));
    }
    let sizes: Vec<u64> = files.iter().map(|(_, size, _)| *size).collect();
    let (starts, size) = lay_out(table, &sizes).ok_or_else(|| Error::new("the disk would be larger than any file"))?;
    let failed = |error: std::io::Error| Error::io("write", output, &error);
    out.file().set_len(size).map_err(failed)?;
    let mut slots = Vec::new();
    for ((part, (file, len, purpose)), start) in parts.iter().zip(&files).zip(&starts) {
        copy(file, &part.image, *len, out.file(), output, *start)?;
        slots.push(Slot { start: *start, size: *len, purpose: *purpose, name: part.name.clone() });
    }
    write_table(out.file(), table, size, &slots, &seed.finalize())?;
    out.publish()?;
    Ok(size)
}

/// Copies what is no hole.
fn copy(from: &File, path: &Path, len: u64, to: &File, output: &Path, start: u64) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let (data, hole) = match lseek(from.as_fd(), at as i64, Whence::SeekData) {
            Ok(data) => {
                let hole = lseek(from.as_fd(), data, Whence::SeekHole).map_or(len, i64::unsigned_abs);
                (data.unsigned_abs(), hole.min(len))
            }
            Err(nix::errno::Errno::ENXIO) => return Ok(()),
            // A host that knows no holes.
            Err(_) => (at, len),
        };
        at = data;
        while at < hole {
            let piece = buffer.get_mut(..(hole - at).min(CHUNK as u64) as usize).unwrap_or_default();
            from.read_exact_at(piece, at).map_err(|error| Error::io("read", path, &error))?;
            to.write_all_at(piece, start + at).map_err(|error| Error::io("write", output, &error))?;
            at += piece.len() as u64;
        }
    }
    Ok(())
}
