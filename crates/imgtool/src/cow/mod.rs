//! Copy-on-write files: what a machine writes goes to an overlay file, and the image below stays as it is. Overlays can
//! lie on overlays; [`commit()`] merges one into what is below it.
//!
//! An overlay is a sparse file: a header, a bitmap of the blocks that it has, and the disk's bytes, each at its own
//! offset behind `data_at`. Numbers are little-endian:
//!
//! | byte | what |
//! | --- | --- |
//! | 0 | `umlfscow` |
//! | 8, 12 | version (1), bytes of a block (4096) |
//! | 16, 24, 32 | size of the disk, `data_at`, `bitmap_at` |
//! | 40 | 1 while a commit is under way |
//! | 48, 56, 64 | size of the file below, its modification time in seconds and nanoseconds |
//! | 72 | SHA-256 of its first 64 KiB |
//! | 104, 108 | length of its path; the path from the overlay's directory on |
//! | 4092 | CRC-32 of the header before |

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::identify::size_of;
use crate::output::Output;
use crate::partition::crc32;
use crate::{Error, backing, identify};

mod commit;
mod layers;
mod uml;

pub use commit::commit;
pub(crate) use layers::Layers;
pub use uml::{Loan, lend};

/// The first bytes of an overlay.
pub(crate) const MAGIC: &[u8; 8] = b"umlfscow";
const VERSION: u32 = 1;
/// Bytes that an overlay has or has not, together.
const BLOCK: u64 = 4096;
const HEADER: usize = 4096;
const PATH_AT: usize = 108;
/// Bytes of the file below that count for its identity, beside its size and time.
const SAMPLE: usize = 64 * 1024;
/// The disk's bytes begin at a multiple of this.
const DATA_ALIGN: u64 = 64 * 1024;
/// The most overlays on top of each other.
const MAX_OVERLAYS: usize = 7;

/// What tells whether the file below is still the one that an overlay was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    size: u64,
    seconds: i64,
    nanoseconds: u32,
    sample: [u8; 32],
}

impl Identity {
    fn of(path: &Path, file: &File) -> Result<Self, Error> {
        let read = |error: io::Error| Error::io("read", path, &error);
        let metadata = file.metadata().map_err(read)?;
        let mut sample = vec![0; SAMPLE];
        let mut got = 0;
        while got < SAMPLE {
            match file.read_at(sample.get_mut(got..).unwrap_or_default(), got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read(error)),
            }
        }
        let sample = Sha256::digest(sample.get(..got).unwrap_or_default()).into();
        let nanoseconds = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
        Ok(Self { size: size_of(file).map_err(read)?, seconds: metadata.mtime(), nanoseconds, sample })
    }

    /// What has changed since `self` was taken, as a phrase.
    fn difference(&self, now: &Self) -> Option<&'static str> {
        if self.size != now.size {
            Some("its size is another")
        } else if self.sample != now.sample {
            Some("its contents have changed")
        } else if (self.seconds, self.nanoseconds) != (now.seconds, now.nanoseconds) {
            Some("it was written to since")
        } else {
            None
        }
    }
}

#[derive(Clone, Debug)]
struct Header {
    size: u64,
    committing: bool,
    below: Identity,
    path: PathBuf,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

impl Header {
    fn bitmap_at() -> u64 {
        HEADER as u64
    }

    /// Bytes of the bitmap, in whole blocks.
    fn bitmap_len(&self) -> u64 {
        self.size.div_ceil(BLOCK).div_ceil(8).next_multiple_of(BLOCK)
    }

    fn data_at(&self) -> u64 {
        (Self::bitmap_at() + self.bitmap_len()).next_multiple_of(DATA_ALIGN)
    }

    fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; HEADER];
        let path = self.path.as_os_str().as_bytes();
        if PATH_AT + path.len() > HEADER - 4 {
            return Err(Error::new(format_args!("the path {} is too long for an overlay", self.path.display())));
        }
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 12, &(BLOCK as u32).to_le_bytes());
        put(&mut bytes, 16, &self.size.to_le_bytes());
        put(&mut bytes, 24, &self.data_at().to_le_bytes());
        put(&mut bytes, 32, &Self::bitmap_at().to_le_bytes());
        put(&mut bytes, 40, &u32::from(self.committing).to_le_bytes());
        put(&mut bytes, 48, &self.below.size.to_le_bytes());
        put(&mut bytes, 56, &self.below.seconds.to_le_bytes());
        put(&mut bytes, 64, &self.below.nanoseconds.to_le_bytes());
        put(&mut bytes, 72, &self.below.sample);
        put(&mut bytes, 104, &(path.len() as u32).to_le_bytes());
        put(&mut bytes, PATH_AT, path);
        let sum = crc32(bytes.get(..HEADER - 4).unwrap_or_default());
        put(&mut bytes, HEADER - 4, &sum.to_le_bytes());
        Ok(bytes)
    }

    fn read(path: &Path, file: &File) -> Result<Self, Error> {
        let bad = |what: &str| Error::new(format_args!("{}: the overlay's header is damaged: {what}", path.display()));
        let mut bytes = vec![0; HEADER];
        file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", path, &error))?;
        if !bytes.starts_with(MAGIC) {
            return Err(
                Error::new(format_args!("{} is no overlay", path.display())).hint("`umlfs image cow create` makes one")
            );
        }
        if crc32(bytes.get(..HEADER - 4).unwrap_or_default()).to_le_bytes() != number::<4>(&bytes, HEADER - 4) {
            return Err(bad("its checksum does not match"));
        }
        let version = u32::from_le_bytes(number(&bytes, 8));
        if version != VERSION || u64::from(u32::from_le_bytes(number(&bytes, 12))) != BLOCK {
            return Err(Error::new(format_args!("{}: version {version} of overlays is not known", path.display())));
        }
        let length = u32::from_le_bytes(number(&bytes, 104)) as usize;
        let below = bytes.get(PATH_AT..PATH_AT + length).ok_or_else(|| bad("the path has no end"))?;
        let header = Self {
            size: u64::from_le_bytes(number(&bytes, 16)),
            committing: number(&bytes, 40) != [0; 4],
            below: Identity {
                size: u64::from_le_bytes(number(&bytes, 48)),
                seconds: i64::from_le_bytes(number(&bytes, 56)),
                nanoseconds: u32::from_le_bytes(number(&bytes, 64)),
                sample: number(&bytes, 72),
            },
            path: PathBuf::from(std::ffi::OsStr::from_bytes(below)),
        };
        let length = size_of(file).map_err(|error| Error::io("find the size of", path, &error))?;
        let wanted = header.size.checked_add(header.data_at()).filter(|_| header.size < 1 << 60);
        if number(&bytes, 24) != header.data_at().to_le_bytes() || wanted.is_none_or(|wanted| wanted != length) {
            return Err(bad("its sizes do not fit the file"));
        }
        Ok(header)
    }

    /// The file below, its path taken from the overlay's directory on.
    fn below(&self, overlay: &Path) -> PathBuf {
        overlay.parent().unwrap_or(Path::new("")).join(&self.path)
    }
}

/// An image with the overlays that lie on it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The image at the bottom.
    pub base: PathBuf,
    /// The overlays, from the lowest to the topmost.
    pub overlays: Vec<PathBuf>,
    /// Where the disk's first byte lies in each overlay.
    pub data_at: u64,
    /// Where the bitmap begins in each overlay.
    pub bitmap_at: u64,
}

fn open(path: &Path, write: bool) -> Result<File, Error> {
    let file = OpenOptions::new().read(true).write(write).open(path);
    file.map_err(|error| Error::io("open", path, &error))
}

/// Whether the file is an overlay.
///
/// # Errors
/// It cannot be read.
pub fn is_overlay(path: &Path) -> Result<bool, Error> {
    let mut start = [0; 8];
    let read = |error: io::Error| Error::io("read", path, &error);
    Ok(match open(path, false)?.read_exact_at(&mut start, 0) {
        Ok(()) => start == *MAGIC,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(read(error)),
    })
}

/// The overlays from `path` down to the image; each is checked to lie on the file that it was made for. A plain image is
/// a chain without overlays.
///
/// # Errors
/// A file is missing or damaged, has changed since an overlay was made for it, or a commit was interrupted.
pub fn chain(path: &Path) -> Result<Chain, Error> {
    let mut overlays = Vec::new();
    let mut at = path.to_owned();
    let mut data_at = 0;
    while is_overlay(&at)? {
        if overlays.len() == MAX_OVERLAYS {
            return Err(Error::new(format_args!("{}: more than {MAX_OVERLAYS} overlays, or a loop", path.display()))
                .hint("merge some with `umlfs image cow commit`"));
        }
        let header = Header::read(&at, &open(&at, false)?)?;
        let below = header.below(&at);
        if header.committing {
            return Err(Error::new(format_args!("{}: a commit to {} was interrupted", at.display(), below.display()))
                .hint(format_args!("finish it with `umlfs image cow commit {}`", at.display())));
        }
        let now = Identity::of(&below, &open(&below, false)?)?;
        if let Some(what) = header.below.difference(&now) {
            return Err(Error::new(format_args!(
                "{}: {} is not the file that this overlay was made for: {what}",
                at.display(),
                below.display()
            ))
            .hint("bring that file back, or make a new overlay with `umlfs image cow create`"));
        }
        data_at = header.data_at();
        overlays.push(std::mem::replace(&mut at, below));
    }
    overlays.reverse();
    Ok(Chain { base: at, overlays, data_at, bitmap_at: Header::bitmap_at() })
}

/// Makes an overlay on an image, or on another overlay.
///
/// # Errors
/// The image is none or in use by who writes it, or the overlay exists and `force` is not set, or the host refuses.
pub fn create(overlay: &Path, below: &Path, force: bool) -> Result<(), Error> {
    let chain = chain(below)?;
    if chain.overlays.len() == MAX_OVERLAYS {
        return Err(Error::new(format_args!("{} has {MAX_OVERLAYS} overlays already", below.display()))
            .hint("merge some with `umlfs image cow commit`"));
    }
    identify(&chain.base)?;
    let file = open(below, false)?;
    let base = open(&chain.base, false)?;
    for (path, file) in [(below, &file), (&chain.base, &base)] {
        backing::lock_shared(file, path)?;
    }
    let size = size_of(&base).map_err(|error| Error::io("find the size of", &chain.base, &error))?;
    let full = below.canonicalize().map_err(|error| Error::io("find", below, &error))?;
    let directory = overlay.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let directory = directory.canonicalize().map_err(|error| Error::io("find", directory, &error))?;
    // Side by side, both can be moved together.
    let path = match full.strip_prefix(&directory) {
        Ok(name) => name.to_owned(),
        Err(_) => full.clone(),
    };
    if overlay.canonicalize().is_ok_and(|overlay| overlay == full) {
        return Err(Error::new(format_args!("{} cannot be an overlay on itself", overlay.display())));
    }
    let header = Header { size, committing: false, below: Identity::of(below, &file)?, path };
    let output = Output::create(overlay, force)?;
    let failed = |error: io::Error| Error::io("write", overlay, &error);
    output.file().write_all_at(&header.encode()?, 0).map_err(failed)?;
    output.file().set_len(header.data_at() + size).map_err(failed)?;
    output.file().sync_all().map_err(failed)?;
    output.publish()
}

/// What is known of an overlay.
#[derive(Debug, Serialize)]
pub struct CowInfo {
    /// The file below it.
    pub below: PathBuf,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that the overlay has.
    pub changed: u64,
    /// A commit was interrupted.
    pub committing: bool,
    /// Why the overlay does not fit what is below it, if it does not.
    pub problem: Option<String>,
}

/// Tells about an overlay.
///
/// # Errors
/// The file is no overlay, or damaged.
pub fn info(overlay: &Path) -> Result<CowInfo, Error> {
    let file = open(overlay, false)?;
    let header = Header::read(overlay, &file)?;
    let bitmap = bitmap(overlay, &file, &header)?;
    let blocks: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
    Ok(CowInfo {
        below: header.below(overlay),
        size: header.size,
        changed: blocks * BLOCK,
        committing: header.committing,
        problem: chain(overlay).err().map(|error| error.to_string()),
    })
}

fn bitmap(path: &Path, file: &File, header: &Header) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(header.bitmap_len()).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, Header::bitmap_at()).map_err(|error| Error::io("read", path, &error))?;
    // Bits behind the disk's end mean nothing.
    let blocks = header.size.div_ceil(BLOCK);
    for block in blocks..(bytes.len() as u64 * 8).min(blocks.next_multiple_of(8)) {
        if let Some(byte) = bytes.get_mut((block / 8) as usize) {
            *byte &= !(1 << (block % 8));
        }
    }
    bytes.truncate(blocks.div_ceil(8) as usize);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(directory: &Path) -> (PathBuf, PathBuf) {
        let (base, overlay) = (directory.join("base.img"), directory.join("x.cow"));
        std::fs::write(&base, vec![1; 300_000]).unwrap();
        create(&overlay, &base, false).unwrap();
        (base, overlay)
    }

    /// Puts blocks into an overlay, as a machine does.
    fn change(overlay: &Path, blocks: &[u64], byte: u8) {
        let file = open(overlay, true).unwrap();
        let header = Header::read(overlay, &file).unwrap();
        let mut bits = bitmap(overlay, &file, &header).unwrap();
        for block in blocks {
            let len = (header.size - block * BLOCK).min(BLOCK) as usize;
            file.write_all_at(&vec![byte; len], header.data_at() + block * BLOCK).unwrap();
            bits[(block / 8) as usize] |= 1 << (block % 8);
        }
        file.write_all_at(&bits, Header::bitmap_at()).unwrap();
    }

    fn contents(path: &Path) -> Vec<u8> {
        let layers = Layers::open(path, false).unwrap();
        let mut bytes = vec![0; ext4::BlockDevice::size(&layers) as usize];
        ext4::BlockDevice::read_at(&layers, 0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_changed_file_below_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (base, overlay) = make(directory.path());
        assert_eq!(chain(&overlay).unwrap().overlays, std::slice::from_ref(&overlay));
        let bytes = std::fs::read(&base).unwrap();
        std::fs::write(&base, &bytes[..299_999]).unwrap();
        assert!(chain(&overlay).unwrap_err().to_string().contains("its size is another"));
        std::fs::write(&base, vec![2; 300_000]).unwrap();
        assert!(chain(&overlay).unwrap_err().to_string().contains("its contents have changed"));
        std::fs::write(&base, &bytes).unwrap();
        assert!(chain(&overlay).unwrap_err().to_string().contains("it was written to since"));
        std::fs::remove_file(&base).unwrap();
        assert!(chain(&overlay).is_err());
        assert!(info(&overlay).unwrap().problem.is_some());
    }

    #[test]
    fn chains_are_read_and_merged() {
        let directory = tempfile::tempdir().unwrap();
        let (base, low) = make(directory.path());
        change(&low, &[0, 3, 73], 2);
        let high = directory.path().join("high.cow");
        create(&high, &low, false).unwrap();
        change(&high, &[3, 4], 3);
        let before = contents(&high);
        for (block, byte) in [(0, 2), (1, 1), (3, 3), (4, 3), (73, 2)] {
            assert_eq!(before[block * 4096], byte, "block {block}");
        }
        assert_eq!(info(&high).unwrap().changed, 2 * 4096);
        assert_eq!(commit(&high, &mut |_, _| {}).unwrap(), 2 * 4096);
        assert_eq!(info(&high).unwrap().changed, 0);
        assert!(contents(&low) == before && contents(&high) == before);
        assert_eq!(commit(&low, &mut |_, _| {}).unwrap(), 4 * 4096);
        assert!(std::fs::read(&base).unwrap() == before && contents(&low) == before);
        // The overlay above one that was merged away is not valid any more.
        assert!(chain(&high).is_err());
    }

    #[test]
    fn an_interrupted_commit_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let (base, overlay) = make(directory.path());
        change(&overlay, &[5, 6, 7], 9);
        let wanted = contents(&overlay);
        // As after a crash in the midst of it.
        let file = open(&overlay, true).unwrap();
        let header = Header { committing: true, ..Header::read(&overlay, &file).unwrap() };
        file.write_all_at(&header.encode().unwrap(), 0).unwrap();
        open(&base, true).unwrap().write_all_at(&[9; 4096], 5 * 4096).unwrap();
        let error = chain(&overlay).unwrap_err();
        assert!(error.to_string().contains("was interrupted") && error.advice().unwrap().contains("commit"));
        commit(&overlay, &mut |_, _| {}).unwrap();
        assert!(std::fs::read(&base).unwrap() == wanted && contents(&overlay) == wanted);
    }

    #[test]
    fn damage_and_loops_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let (base, overlay) = make(directory.path());
        assert!(create(&overlay, &base, false).unwrap_err().to_string().contains("exists already"));
        assert!(create(&overlay, &overlay, true).is_err());
        let mut bytes = std::fs::read(&overlay).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&overlay, &bytes).unwrap();
        assert!(chain(&overlay).unwrap_err().to_string().contains("checksum"));
        assert!(info(&base).unwrap_err().to_string().contains("is no overlay"));
        assert!(create(&directory.path().join("y"), Path::new("/nonexistent"), false).is_err());
    }
}
