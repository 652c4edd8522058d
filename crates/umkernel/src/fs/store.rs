//! A host memory file in which many files have a range of offsets of their own, as long as a file may ever get. The
//! host keeps the pages and knows the holes; since a file's pages are always in one piece, mapping it takes one host
//! mapping.

use crate::bail;
use crate::errno::Result;
use crate::host::{self, HostFd};
use crate::sync::Mutex;
use alloc::vec::Vec;

/// Offsets of the host file that each file has: the largest size of a file.
pub(super) const RANGE: u64 = 1 << 40;
/// Files that have data at the same time: what fits into the offsets of one host file.
const RANGES: u32 = ((i64::MAX as u64) / RANGE) as u32;

/// The host memory file, and which ranges of it are free.
pub(super) struct Store {
    pub(super) fd: HostFd,
    ranges: Mutex<Ranges>,
    pub(super) buffers: super::buffer::BufferPool,
}

#[derive(Default)]
struct Ranges {
    free: Vec<u32>,
    next: u32,
}

impl Store {
    pub(super) fn new() -> Result<Store> {
        let fd = HostFd::new(host::memfd_create(c"guest-tmpfs")?);
        host::ftruncate(fd.raw(), i64::MAX as u64)?;
        Ok(Store { fd, ranges: Mutex::default(), buffers: Default::default() })
    }

    /// Takes a free range and gives the offset where it begins.
    pub(super) fn take_range(&self) -> Result<u64> {
        let mut ranges = self.ranges.lock();
        let index = match ranges.free.pop() {
            Some(index) => index,
            None if ranges.next < RANGES => {
                ranges.next += 1;
                ranges.next - 1
            }
            None => bail!(ENOSPC),
        };
        Ok(u64::from(index) * RANGE)
    }

    /// Gives a range back; its pages have been freed.
    pub(super) fn return_range(&self, base: u64) {
        self.ranges.lock().free.push((base / RANGE) as u32);
    }

    /// Frees the pages within a range of the host file; bytes of pages at its edges become zero.
    pub(super) fn punch(&self, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE_PUNCH_HOLE: u32 = 3;
        if len == 0 { Ok(()) } else { host::fallocate(self.fd.raw(), KEEP_SIZE_PUNCH_HOLE, offset, len) }
    }

    /// Reads at an offset of the host file.
    pub(super) fn read(&self, mut at: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            match host::pread(self.fd.raw(), buf, at)? {
                0 => bail!(EIO),
                n => {
                    at += n as u64;
                    buf = &mut buf[n..];
                }
            }
        }
        Ok(())
    }

    /// Writes at an offset of the host file.
    pub(super) fn write(&self, mut at: u64, mut buf: &[u8]) -> Result<()> {
        while !buf.is_empty() {
            let n = host::pwrite(self.fd.raw(), buf, at)?;
            at += n as u64;
            buf = &buf[n..];
        }
        Ok(())
    }
}
