//! An image file as the disk of a file system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use ext4::{BlockDevice, IoError};

/// Bytes for which the device remembers together whether they were written.
const GRANULE: u64 = 64 * 1024;

/// A regular file read and written at its offsets.
///
/// A device for a fresh file (all zeros) skips writes of zeros to parts never written: the file stays sparse, as
/// inode tables and journals mostly are zeros.
pub struct FileDevice {
    file: File,
    size: u64,
    /// One bit for each granule of a fresh file, set once it has been written; `None` for any other file.
    written: Option<Vec<AtomicU64>>,
}

impl FileDevice {
    /// The device of `size` bytes that `file` holds already.
    pub fn new(file: File, size: u64) -> Self {
        Self { file, size, written: None }
    }

    /// Makes the empty `file` a blank disk of `size` bytes.
    ///
    /// # Errors
    /// The host's, such as EFBIG.
    pub fn fresh(file: File, size: u64) -> io::Result<Self> {
        file.set_len(size)?;
        let words = size.div_ceil(GRANULE * 64);
        let written = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { file, size, written: Some(written) })
    }

    /// The file behind it.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), IoError> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(IoError::EIO),
        }
    }

    /// Whether all of the range still is as `set_len` made it; if not, or if `data` is to be written, marks it.
    fn blank(&self, offset: u64, len: usize, marking: bool) -> bool {
        let Some(written) = &self.written else {
            return false;
        };
        let mut blank = true;
        let last = (offset + len as u64).saturating_sub(1) / GRANULE;
        for granule in offset / GRANULE..=last {
            let Some(word) = usize::try_from(granule / 64).ok().and_then(|index| written.get(index)) else {
                return false;
            };
            let bit = 1u64 << (granule % 64);
            // Relaxed: a caller that writes the same bytes from two threads orders them itself.
            if word.load(Ordering::Relaxed) & bit != 0 {
                blank = false;
            } else if marking {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        blank
    }
}

pub(crate) fn is_zero(data: &[u8]) -> bool {
    // A look at the ends tells nearly every buffer of real data.
    let ends = data.first().into_iter().chain(data.last());
    if ends.into_iter().any(|byte| *byte != 0) {
        return false;
    }
    // Whole chunks without a branch inside: the compiler makes vector code of it.
    let (chunks, rest) = data.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

fn io_error(error: &io::Error) -> IoError {
    error.raw_os_error().map_or(IoError::EIO, |errno| IoError { errno })
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        self.file.read_exact_at(buf, offset).map_err(|error| io_error(&error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        if buf.is_empty() || (self.written.is_some() && is_zero(buf) && self.blank(offset, buf.len(), false)) {
            return Ok(());
        }
        self.blank(offset, buf.len(), true);
        self.file.write_all_at(buf, offset).map_err(|error| io_error(&error))
    }

    fn flush(&self) -> Result<(), IoError> {
        // A fresh file is made durable once, when it is whole.
        if self.written.is_some() {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| io_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_leave_holes_until_something_was_written() {
        let file = tempfile::tempfile().unwrap();
        let device = FileDevice::fresh(file, 1 << 20).unwrap();
        device.write_at(0, &[0; 300_000]).unwrap();
        assert_eq!(device.file().metadata().unwrap().blocks(), 0);
        device.write_at(70_000, b"data").unwrap();
        device.write_at(65_536, &[0; 8192]).unwrap();
        let mut back = [1; 8];
        device.read_at(69_998, &mut back).unwrap();
        assert_eq!(back, [0; 8], "zeros over data must be written");
        let mut one = vec![0; 100_000];
        one[99_999] = 7;
        device.write_at(200_000, &one).unwrap();
        device.read_at(299_992, &mut back).unwrap();
        assert_eq!(back, [0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn accesses_beyond_the_end_fail() {
        let device = FileDevice::fresh(tempfile::tempfile().unwrap(), 4096).unwrap();
        assert_eq!(device.write_at(4090, &[1; 7]), Err(IoError::EIO));
        assert_eq!(device.write_at(u64::MAX, &[1; 7]), Err(IoError::EIO));
        assert_eq!(device.read_at(4096, &mut [0]), Err(IoError::EIO));
        assert_eq!(device.file().metadata().unwrap().len(), 4096);
    }

    #[test]
    fn zero_is_told_at_any_alignment() {
        let mut bytes = [0u8; 100];
        for start in 0..9 {
            assert!(is_zero(&bytes[start..]));
            for at in start..100 {
                bytes[at] = 1;
                assert!(!is_zero(&bytes[start..]));
                bytes[at] = 0;
            }
        }
    }
}
