//! Raw copies between files, devices and partitions.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::time::{Duration, Instant};

use crate::device::is_zero;
use crate::identify::size_of;
use crate::output::Output;
use crate::{Error, HumanSize, Target, partition};

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;
/// Runs of zeros of at least this length can become holes.
const HOLE: usize = 4096;

/// What to copy. Offsets and lengths are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dd {
    /// Source.
    pub from: Target,
    /// Destination: a new file appears when it is whole; one that is there is written in place.
    pub to: Target,
    /// Bytes of the source passed over.
    pub skip: u64,
    /// Bytes of the destination passed over.
    pub seek: u64,
    /// At most so many bytes; `None` copies to the source's end.
    pub count: Option<u64>,
    /// A file that is there is not cut at the copy's end.
    pub keep_rest: bool,
    /// Zeros become holes.
    pub sparse: bool,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DdDone {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes of them that were left as holes.
    pub holes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Copies; `report` is told bytes done and in all.
///
/// # Errors
/// The source is shorter than `skip`, the copy does not fit a partition or device, or the host fails.
pub fn dd(what: &Dd, report: &mut dyn FnMut(u64, u64)) -> Result<DdDone, Error> {
    let started = Instant::now();
    let path = &what.from.path;
    let source = File::open(path).map_err(|error| Error::io("open", path, &error))?;
    let (base, size) = place(&what.from, &source)?;
    let Some(rest) = size.checked_sub(what.skip) else {
        return Err(Error::new(format_args!("{} has {size} bytes, fewer than the {} to skip", what.from, what.skip)));
    };
    let total = what.count.map_or(rest, |count| count.min(rest));
    let source = Source { file: &source, path, start: base + what.skip };
    let to = &what.to.path;
    let kind = std::fs::metadata(to).map(|metadata| metadata.file_type());
    let holes = match kind {
        Ok(kind) if kind.is_file() || kind.is_block_device() => {
            let same = nix::sys::stat::stat(to).ok().zip(nix::sys::stat::fstat(source.file).ok());
            if same.is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)) {
                return Err(Error::new(format_args!("{} is source and destination at once", to.display())));
            }
            let file = OpenOptions::new().read(true).write(true).open(to);
            let file = file.map_err(|error| Error::io("open for writing", to, &error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(format_args!("{} is in use by another process", to.display()))
                        .hint("power off the machine that runs from it first"));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", to, &error)),
            }
            let whole = what.to.partition.is_none() && kind.is_file();
            let (start, room) = if whole { (0, u64::MAX) } else { place(&what.to, &file)? };
            if what.seek.checked_add(total).is_none_or(|end| end > room) {
                return Err(Error::new(format_args!(
                    "{} from byte {} on do not fit {}, which has {}",
                    HumanSize(total),
                    what.seek,
                    what.to,
                    HumanSize(room)
                )));
            }
            let end = start + what.seek + total;
            if whole && !what.keep_rest {
                file.set_len(what.seek).map_err(|error| Error::io("cut", to, &error))?;
            }
            // Holes are possible only where nothing was.
            let fresh = if whole { size_of(&file).map_err(|error| Error::io("stat", to, &error))? } else { u64::MAX };
            let holes = copy(&source, &file, to, start + what.seek, total, what.sparse.then_some(fresh), report)?;
            if whole && size_of(&file).map_err(|error| Error::io("stat", to, &error))? < end {
                file.set_len(end).map_err(|error| Error::io("set the length of", to, &error))?;
            }
            file.sync_data().map_err(|error| Error::io("write", to, &error))?;
            holes
        }
        Ok(_) => {
            return Err(Error::new(format_args!(
                "{} is neither a regular file nor a block device, expected one to write to",
                to.display()
            )));
        }
        Err(_) if what.to.partition.is_some() => {
            return Err(Error::new(format_args!("there is no disk {}", to.display())));
        }
        Err(_) => {
            let output = Output::create(to, false)?;
            let holes = copy(&source, output.file(), to, what.seek, total, what.sparse.then_some(0), report)?;
            let set = output.file().set_len(what.seek + total);
            set.map_err(|error| Error::io("set the length of", to, &error))?;
            output.publish()?;
            holes
        }
    };
    Ok(DdDone { bytes: total, holes, elapsed: started.elapsed() })
}

fn place(target: &Target, file: &File) -> Result<(u64, u64), Error> {
    match target.partition {
        Some(number) => partition::find(&target.path, number).map(|part| (part.start, part.size)),
        None => {
            size_of(file).map(|size| (0, size)).map_err(|error| Error::io("find the size of", &target.path, &error))
        }
    }
}

struct Source<'a> {
    file: &'a File,
    path: &'a std::path::Path,
    start: u64,
}

/// Copies `total` bytes; from byte `blank` of the output on (if given), zeros are left out. Returns how many were.
fn copy(
    source: &Source<'_>,
    out: &File,
    to: &std::path::Path,
    at: u64,
    total: u64,
    blank: Option<u64>,
    report: &mut dyn FnMut(u64, u64),
) -> Result<u64, Error> {
    let mut buffer = vec![0; CHUNK];
    let (mut done, mut holes) = (0, 0);
    while done < total {
        let len = (total - done).min(CHUNK as u64) as usize;
        let data = buffer.get_mut(..len).unwrap_or_default();
        let read = source.file.read_exact_at(data, source.start + done);
        read.map_err(|error| Error::io("read", source.path, &error))?;
        let mut from = 0;
        for piece in data.chunks(HOLE) {
            let offset = at + done + from as u64;
            if blank.is_some_and(|blank| offset >= blank) && is_zero(piece) {
                holes += piece.len() as u64;
            }
            from += piece.len();
        }
        write(out, data, at + done, blank).map_err(|error| Error::io("write", to, &error))?;
        done += len as u64;
        report(done, total);
    }
    Ok(holes)
}

/// Writes runs that are not zeros in whole.
fn write(out: &File, data: &[u8], at: u64, blank: Option<u64>) -> std::io::Result<()> {
    let Some(blank) = blank else {
        return out.write_all_at(data, at);
    };
    let mut start = 0;
    let mut offset = 0;
    for piece in data.chunks(HOLE) {
        let end = offset + piece.len();
        if at + offset as u64 >= blank && is_zero(piece) {
            out.write_all_at(data.get(start..offset).unwrap_or_default(), at + start as u64)?;
            start = end;
        }
        offset = end;
    }
    out.write_all_at(data.get(start..).unwrap_or_default(), at + start as u64)
}
