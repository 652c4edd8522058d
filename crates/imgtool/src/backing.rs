//! What an image's bytes come from: a file, an overlay with all that lies below it, or a partition of either.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use ext4::{BlockDevice, IoError};

use crate::identify::size_of;
use crate::{Error, FileDevice, cow, identify};

/// A disk or a part of one.
pub type Disk = Box<dyn BlockDevice>;

/// Opens the disk at `path` to be looked at.
///
/// # Errors
/// It is a directory or another thing that is no disk, or cannot be read; an overlay does not fit what is below it.
pub(crate) fn open(path: &Path) -> Result<Disk, Error> {
    // Says what a directory or a missing file is before it is opened.
    identify(path)?;
    if cow::is_overlay(path)? {
        return Ok(Box::new(cow::Layers::open(path, false)?));
    }
    let file = File::open(path).map_err(|error| Error::io("open", path, &error))?;
    let size = size_of(&file).map_err(|error| Error::io("find the size of", path, &error))?;
    Ok(Box::new(FileDevice::new(file, size)))
}

/// Opens the disk at `path` for writing, under the lock that a running machine holds. What is written to an overlay
/// leaves the files below as they are.
///
/// # Errors
/// As [`open`]; it is in use or cannot be written.
pub(crate) fn open_writable(path: &Path) -> Result<Disk, Error> {
    identify(path)?;
    if cow::is_overlay(path)? {
        return Ok(Box::new(cow::Layers::open(path, true)?));
    }
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| Error::io("open for writing", path, &error))?;
    lock(&file, path)?;
    let size = size_of(&file).map_err(|error| Error::io("find the size of", path, &error))?;
    Ok(Box::new(FileDevice::new(file, size)))
}

/// Takes the lock of who writes a disk.
///
/// # Errors
/// Another process has it.
pub(crate) fn lock(file: &File, path: &Path) -> Result<(), Error> {
    locked(file.try_lock(), path)
}

/// Takes the lock of those who read a disk that must stay as it is.
///
/// # Errors
/// Another process writes to it.
pub(crate) fn lock_shared(file: &File, path: &Path) -> Result<(), Error> {
    locked(file.try_lock_shared(), path)
}

fn locked(result: Result<(), TryLockError>, path: &Path) -> Result<(), Error> {
    match result {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(format_args!("{} is in use by another process", path.display()))
                .hint("power off the machine that runs from it first"))
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path, &error)),
    }
}

/// A partition.
pub(crate) struct Part<D> {
    below: D,
    start: u64,
    size: u64,
}

impl<D: BlockDevice> Part<D> {
    /// `size` bytes of `below` from byte `start` on.
    pub(crate) fn new(below: D, start: u64, size: u64) -> Self {
        Self { below, start, size }
    }

    fn at(&self, offset: u64, len: usize) -> Result<u64, IoError> {
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= self.size);
        inside.then(|| self.start + offset).ok_or(IoError::EIO)
    }
}

impl<D: BlockDevice> BlockDevice for Part<D> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.below.read_at(self.at(offset, buf.len())?, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.below.write_at(self.at(offset, buf.len())?, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.below.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.below.discard(self.at(offset, usize::try_from(len).unwrap_or(usize::MAX))?, len)
    }
}

/// The device's error as the host's.
pub(crate) fn host_error(error: IoError) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_where_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, (0..100).collect::<Vec<u8>>()).unwrap();
        let part = Part::new(open_writable(&path).unwrap(), 10, 20);
        assert!(open_writable(&path).is_err_and(|error| error.to_string().contains("in use")));
        let mut bytes = [0; 4];
        part.read_at(16, &mut bytes).unwrap();
        assert_eq!(bytes, [26, 27, 28, 29]);
        part.write_at(18, b"ab").unwrap();
        for (offset, len) in [(17, 4), (20, 1), (u64::MAX, 2)] {
            assert_eq!(part.read_at(offset, &mut bytes[..len]), Err(IoError::EIO));
            assert_eq!(part.write_at(offset, &bytes[..len]), Err(IoError::EIO));
        }
        drop(part);
        let now = std::fs::read(&path).unwrap();
        assert_eq!((now.len(), &now[27..31]), (100, &[27, b'a', b'b', 30][..]));
    }
}
