//! Data of shared files.

use super::node::{Node, Shared};
use crate::vfs::StatFs;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSlice;

impl Node {
    /// Reads at an offset.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Shared<usize> {
        let fd = self.reading()?;
        let mut done = 0;
        while done < out.len() {
            match rustix::io::pread(&*fd, &mut out[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Writes at an offset, or at the end; the bytes written, and the offset behind them.
    pub(super) fn write(&self, offset: u64, append: bool, bytes: &[u8]) -> Shared<(usize, u64)> {
        let fd = self.writing()?;
        let written = loop {
            let written = match append {
                true => rustix::io::pwritev2(&*fd, &[IoSlice::new(bytes)], 0, ReadWriteFlags::APPEND),
                false => rustix::io::pwrite(&*fd, bytes, offset),
            };
            match written {
                Err(Errno::INTR) => {}
                written => break written?,
            }
        };
        let end = if append { self.stat()?.size } else { offset + written as u64 };
        Ok((written, end))
    }

    /// `fallocate(2)`.
    pub(super) fn allocate(&self, mode: u32, offset: u64, len: u64) -> Shared<()> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        rustix::fs::fallocate(&*self.writing()?, mode, offset, len)
    }

    /// The next data, or hole.
    pub(super) fn seek(&self, offset: u64, hole: bool) -> Shared<u64> {
        rustix::fs::seek(&*self.reading()?, if hole { SeekFrom::Hole(offset) } else { SeekFrom::Data(offset) })
    }

    /// Brings it to the host's disk.
    pub(super) fn sync(&self, data_only: bool) -> Shared<()> {
        let fd = self.reading().or_else(|_| self.writing())?;
        if data_only { rustix::fs::fdatasync(&*fd) } else { rustix::fs::fsync(&*fd) }
    }

    /// How much room there is.
    pub(super) fn space(&self) -> Shared<StatFs> {
        let room = rustix::fs::fstatvfs(self.fd())?;
        Ok(StatFs {
            bsize: room.f_bsize,
            blocks: room.f_blocks,
            bfree: room.f_bfree,
            bavail: room.f_bavail,
            files: room.f_files,
            ffree: room.f_ffree,
            namelen: room.f_namemax,
            ..StatFs::default()
        })
    }
}
