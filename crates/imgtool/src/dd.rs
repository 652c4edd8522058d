//! Raw copies between files, devices and partitions.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ext4::BlockDevice;

use crate::backing::host_error;
use crate::device::is_zero;
use crate::identify::size_of;
use crate::output::Output;
use crate::{Disk, Error, FileDevice, HumanSize, Target, backing};

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
    let disk = open_source(&what.from)?;
    let size = disk.size();
    let Some(rest) = size.checked_sub(what.skip) else {
        return Err(Error::new(format_args!("{} has {size} bytes, fewer than the {} to skip", what.from, what.skip)));
    };
    let total = what.count.map_or(rest, |count| count.min(rest));
    let source = Source { disk: &*disk, path: &what.from.path, start: what.skip };
    let to = &what.to.path;
    let kind = std::fs::metadata(to).map(|metadata| metadata.file_type());
    let holes = match kind {
        Ok(kind) if kind.is_file() || kind.is_block_device() => {
            let same = nix::sys::stat::stat(to).ok().zip(nix::sys::stat::stat(source.path).ok());
            if same.is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)) {
                return Err(Error::new(format_args!("{} is source and destination at once", to.display())));
            }
            let fits = |room: u64| match what.seek.checked_add(total) {
                Some(end) if end <= room => Ok(()),
                _ => Err(Error::new(format_args!(
                    "{} from byte {} on do not fit {}, which has {}",
                    HumanSize(total),
                    what.seek,
                    what.to,
                    HumanSize(room)
                ))),
            };
            if what.to.partition.is_some() || kind.is_block_device() {
                let out = what.to.open_writable()?;
                fits(out.size())?;
                copy(&source, &*out, to, what.seek, total, what.sparse.then_some(u64::MAX), report)?;
                out.flush().map_err(|error| Error::io("write", to, &host_error(error)))?;
                return Ok(DdDone { bytes: total, holes: 0, elapsed: started.elapsed() });
            }
            let file = OpenOptions::new().read(true).write(true).open(to);
            let file = file.map_err(|error| Error::io("open for writing", to, &error))?;
            backing::lock(&file, to)?;
            fits(i64::MAX as u64)?;
            if !what.keep_rest {
                file.set_len(what.seek).map_err(|error| Error::io("cut", to, &error))?;
            }
            // Holes are possible only where nothing was.
            let fresh = size_of(&file).map_err(|error| Error::io("stat", to, &error))?;
            let out = endless(&file, to)?;
            let holes = copy(&source, &out, to, what.seek, total, what.sparse.then_some(fresh), report)?;
            let end = what.seek + total;
            if size_of(&file).map_err(|error| Error::io("stat", to, &error))? < end {
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
            let out = endless(output.file(), to)?;
            let holes = copy(&source, &out, to, what.seek, total, what.sparse.then_some(0), report)?;
            let set = output.file().set_len(what.seek + total);
            set.map_err(|error| Error::io("set the length of", to, &error))?;
            output.publish()?;
            holes
        }
    };
    Ok(DdDone { bytes: total, holes, elapsed: started.elapsed() })
}

/// A partition, or a file as it is.
fn open_source(target: &Target) -> Result<Disk, Error> {
    if target.partition.is_some() {
        return target.open();
    }
    let path = &target.path;
    let file = File::open(path).map_err(|error| Error::io("open", path, &error))?;
    let size = size_of(&file).map_err(|error| Error::io("find the size of", path, &error))?;
    Ok(Box::new(FileDevice::new(file, size)))
}

/// A file that grows as it is written.
fn endless(file: &File, path: &Path) -> Result<FileDevice, Error> {
    let file = file.try_clone().map_err(|error| Error::io("open", path, &error))?;
    Ok(FileDevice::new(file, i64::MAX as u64))
}

struct Source<'a> {
    disk: &'a dyn BlockDevice,
    path: &'a Path,
    start: u64,
}

/// Copies `total` bytes; from byte `blank` of the output on (if given), zeros are left out. Returns how many were.
fn copy(
    source: &Source<'_>,
    out: &dyn BlockDevice,
    to: &Path,
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
        let read = source.disk.read_at(source.start + done, data).map_err(host_error);
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
fn write(out: &dyn BlockDevice, data: &[u8], at: u64, blank: Option<u64>) -> io::Result<()> {
    let put = |data: &[u8], at: u64| match data.is_empty() {
        true => Ok(()),
        false => out.write_at(at, data).map_err(host_error),
    };
    let Some(blank) = blank else {
        return put(data, at);
    };
    let mut start = 0;
    let mut offset = 0;
    for piece in data.chunks(HOLE) {
        let end = offset + piece.len();
        if at + offset as u64 >= blank && is_zero(piece) {
            put(data.get(start..offset).unwrap_or_default(), at + start as u64)?;
            start = end;
        }
        offset = end;
    }
    put(data.get(start..).unwrap_or_default(), at + start as u64)
}
