//! An image file as the disk of a file system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ext4::{BlockDevice, IoError};
use nix::fcntl::{FallocateFlags, fallocate};

use crate::writer::Writer;

/// Bytes for which the device remembers together whether they were written.
const GRANULE: u64 = 64 * 1024;
/// Writes to a fresh file that continue each other are carried to the host together, up to so many bytes: few large
/// writes cost the host far less than many small ones.
const GATHERED: usize = 512 * 1024;
/// Zeros that continue gathered data are written with it up to this length; longer ones stay a hole.
const GATHERED_ZEROS: usize = 64 * 1024;

/// A regular file read and written at its offsets.
///
/// A device for a fresh file (all zeros) skips writes of zeros to parts never written: the file stays sparse, as
/// inode tables and journals mostly are zeros. It gathers writes until [`BlockDevice::flush`].
pub struct FileDevice {
    file: File,
    /// Where in the file the disk begins, in bytes.
    start: u64,
    size: u64,
    /// Set for a fresh file.
    fresh: Option<Fresh>,
}

/// What is known of a file that was blank.
struct Fresh {
    /// One bit for each granule, set once it has been written.
    written: Vec<AtomicU64>,
    gathered: Mutex<Gathered>,
    writer: Writer,
}

/// Data on its way to the host.
struct Gathered {
    start: u64,
    data: Vec<u8>,
}

impl Gathered {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }

    /// Hands what there is to the writer.
    fn write_out(&mut self, writer: &Writer) -> Result<(), IoError> {
        if !self.data.is_empty() {
            self.data = writer.write(self.start, std::mem::take(&mut self.data))?;
        }
        Ok(())
    }
}

impl Fresh {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        // What a panicking thread left is still what the host lacks.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of the range still is as `set_len` made it; if `marking`, it no longer is.
    fn blank(&self, offset: u64, len: usize, marking: bool) -> bool {
        let mut blank = true;
        let last = (offset + len as u64).saturating_sub(1) / GRANULE;
        for granule in offset / GRANULE..=last {
            let Some(word) = usize::try_from(granule / 64).ok().and_then(|index| self.written.get(index)) else {
                return false;
            };
            let bit = 1u64 << (granule % 64);
            // Relaxed: the lock of `gathered` orders writers.
            if word.load(Ordering::Relaxed) & bit != 0 {
                blank = false;
            } else if marking {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        blank
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), IoError> {
        if data.is_empty() {
            return Ok(());
        }
        let mut gathered = self.gathered();
        let goes_on = !gathered.data.is_empty() && offset == gathered.end();
        if !(goes_on && data.len() <= GATHERED_ZEROS) && is_zero(data) && self.blank(offset, data.len(), false) {
            return Ok(());
        }
        self.blank(offset, data.len(), true);
        if !goes_on || gathered.data.len() + data.len() > GATHERED {
            gathered.write_out(&self.writer)?;
            gathered.start = offset;
        }
        gathered.data.extend_from_slice(data);
        Ok(())
    }

    fn read(&self, file: &File, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        if self.blank(offset, buf.len(), false) {
            buf.fill(0);
            return Ok(());
        }
        let mut gathered = self.gathered();
        if offset < gathered.end() && gathered.start < offset + buf.len() as u64 {
            gathered.write_out(&self.writer)?;
        }
        self.writer.drain()?;
        file.read_exact_at(buf, offset).map_err(|error| io_error(&error))
    }
}

impl FileDevice {
    /// The device of `size` bytes that `file` holds already.
    pub fn new(file: File, size: u64) -> Self {
        Self::part(file, 0, size)
    }

    /// A partition: `size` bytes of `file` from byte `start` on.
    pub fn part(file: File, start: u64, size: u64) -> Self {
        Self { file, start, size, fresh: None }
    }

    /// Makes the empty `file` a blank disk of `size` bytes.
    ///
    /// # Errors
    /// The host's, such as EFBIG.
    pub fn fresh(file: File, size: u64) -> io::Result<Self> {
        file.set_len(size)?;
        let words = size.div_ceil(GRANULE * 64);
        let written = (0..words).map(|_| AtomicU64::new(0)).collect();
        let gathered = Mutex::new(Gathered { start: 0, data: Vec::with_capacity(GATHERED) });
        let writer = Writer::start(file.try_clone()?)?;
        Ok(Self { file, start: 0, size, fresh: Some(Fresh { written, gathered, writer }) })
    }

    /// The file behind it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Notes that somebody else writes, or has written, this range of the file.
    pub(crate) fn written_by_others(&self, offset: u64, len: u64) {
        if let Some(fresh) = &self.fresh {
            fresh.blank(offset, usize::try_from(len).unwrap_or(usize::MAX), true);
        }
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), IoError> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(IoError::EIO),
        }
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

/// Makes a range of a file a hole, which reads as zeros.
pub(crate) fn punch(file: &File, offset: u64, len: u64) -> Result<(), IoError> {
    let (Ok(start), Ok(bytes)) = (i64::try_from(offset), i64::try_from(len)) else { return Err(IoError::EIO) };
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match bytes {
        0 => Ok(()),
        _ => fallocate(file, mode, start, bytes).map_err(|errno| IoError { errno: errno as i32 }),
    }
}

pub(crate) fn io_error(error: &io::Error) -> IoError {
    error.raw_os_error().map_or(IoError::EIO, |errno| IoError { errno })
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        match &self.fresh {
            Some(fresh) => fresh.read(&self.file, offset, buf),
            None => self.file.read_exact_at(buf, self.start + offset).map_err(|error| io_error(&error)),
        }
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.check(offset, buf.len())?;
        match &self.fresh {
            Some(fresh) => fresh.write(offset, buf),
            None => self.file.write_all_at(buf, self.start + offset).map_err(|error| io_error(&error)),
        }
    }

    fn write_parts_at(&self, mut offset: u64, parts: &[&[u8]]) -> Result<(), IoError> {
        if self.fresh.is_none() {
            return self.write_at(offset, &parts.concat());
        }
        for part in parts {
            self.write_at(offset, part)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.check(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        match &self.fresh {
            // What is blank is a hole already, and what was gathered is on its way.
            Some(_) => Ok(()),
            None => punch(&self.file, self.start + offset, len),
        }
    }

    fn flush(&self) -> Result<(), IoError> {
        match &self.fresh {
            // A fresh file is made durable once, when it is whole.
            Some(fresh) => {
                fresh.gathered().write_out(&fresh.writer)?;
                fresh.writer.drain()
            }
            None => self.file.sync_data().map_err(|error| io_error(&error)),
        }
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
    fn gathered_writes_are_read_back_and_reach_the_file() {
        let mut other = tempfile::tempfile().unwrap();
        let device = FileDevice::fresh(other.try_clone().unwrap(), 4 << 20).unwrap();
        let mut model = vec![0u8; 4 << 20];
        let mut seed = 7u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        let mut at = 0;
        for round in 0..2000 {
            let len = [1, 100, 4096, 70_000, 600_000][random() % 5];
            if random() % 4 == 0 || at + len > model.len() {
                at = random() % (model.len() - len);
            }
            let byte = (round % 3) as u8;
            device.write_at(at as u64, &vec![byte; len]).unwrap();
            model[at..at + len].fill(byte);
            at += len;
            if random() % 8 == 0 {
                let from = random() % (model.len() - 5000);
                let mut back = vec![9; 5000];
                device.read_at(from as u64, &mut back).unwrap();
                assert!(back == model[from..from + 5000], "round {round}");
            }
            at = at.min(model.len());
        }
        device.flush().unwrap();
        let mut all = Vec::new();
        std::io::Seek::rewind(&mut other).unwrap();
        std::io::Read::read_to_end(&mut other, &mut all).unwrap();
        assert!(all == model);
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
