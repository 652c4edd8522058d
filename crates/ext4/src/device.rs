//! The byte-addressed disk a file system lives on.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

/// A failed device access, carrying the `errno` value (`errno(3)`) that the host reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoError {
    /// Positive error number, for example 5 (`EIO`) or 28 (`ENOSPC`).
    pub errno: i32,
}

impl IoError {
    /// The general input/output error (`EIO`).
    pub const EIO: IoError = IoError { errno: 5 };
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            5 => f.write_str("input/output error (EIO)"),
            28 => f.write_str("no space left on the host for the image (ENOSPC)"),
            9 => f.write_str("the image is not open for this access (EBADF)"),
            30 => f.write_str("the image is read-only (EROFS)"),
            n => write!(f, "host error number {n}"),
        }
    }
}

/// A disk, or a window of one (a partition), addressed in bytes from 0.
///
/// Methods take `&self`: a device synchronises itself. Accesses that reach beyond [`BlockDevice::size`]
/// must fail, not extend the device.
pub trait BlockDevice: Send + Sync {
    /// The device's size in bytes.
    fn size(&self) -> u64;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// The host's error; a short read is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError>;
    /// Writes all of `buf` at `offset`. Durable only after [`BlockDevice::flush`].
    ///
    /// # Errors
    /// The host's error; a short write is an error.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError>;
    /// Writes `parts` one after the other from `offset` on, as one write where the device can.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn write_parts_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), IoError> {
        self.write_at(offset, &parts.concat())
    }
    /// A barrier: when it returns, every earlier write is durable (`fdatasync(2)`).
    ///
    /// # Errors
    /// The host's error; nothing is then known about the earlier writes.
    fn flush(&self) -> Result<(), IoError>;
    /// Tells the device that a range's contents are no longer needed (may punch a hole). Reads of the
    /// range may give anything afterwards.
    ///
    /// # Errors
    /// The host's error.
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let _ = (offset, len);
        Ok(())
    }
}

macro_rules! forward {
    ($($t:ty),*) => {$(
        impl<T: BlockDevice + ?Sized> BlockDevice for $t {
            fn size(&self) -> u64 { (**self).size() }
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> { (**self).read_at(offset, buf) }
            fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> { (**self).write_at(offset, buf) }
            fn write_parts_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), IoError> {
                (**self).write_parts_at(offset, parts)
            }
            fn flush(&self) -> Result<(), IoError> { (**self).flush() }
            fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> { (**self).discard(offset, len) }
        }
    )*};
}
forward!(&T, Arc<T>, Box<T>);
