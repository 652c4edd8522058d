//! Partition tables, read: the GUID partition table (GPT; UEFI specification 2.10, chapter 5) and the DOS table of the master boot
//! record with its logical partitions.
//!
//! A disk has the table that Linux finds on it (`block/partitions/`), and its partitions have Linux's numbers. `imgtool` looks into
//! disks with it, the kernel makes devices of what it finds. Tables are written by `imgtool` alone.

#![no_std]

extern crate alloc;

mod gpt;
mod mbr;

pub use gpt::crc32;

use alloc::string::String;
use alloc::vec::Vec;

use ext4::{BlockDevice, IoError};

/// Bytes of a sector in both tables, as disks of files have them.
pub const SECTOR: u64 = 512;

/// The kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table.
    Gpt,
    /// The DOS table.
    Mbr,
}

/// What a partition says that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A type GUID, as it is stored: its first three fields are little-endian.
    Guid([u8; 16]),
    /// The type byte of a DOS table.
    Byte(u8),
}

impl Kind {
    /// Whether it is the container of logical partitions.
    pub fn is_extended(self) -> bool {
        matches!(self, Kind::Byte(0x05 | 0x0f | 0x85))
    }
}

/// A partition of a disk. That it lies inside the disk is not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1; logical partitions have numbers from 5 on.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// What it is for.
    pub kind: Kind,
    /// Its name (GPT only).
    pub name: String,
}

impl Partition {
    /// The first byte behind it, if it lies inside a disk of `size` bytes.
    pub fn end_within(&self, size: u64) -> Option<u64> {
        self.start.checked_add(self.size).filter(|end| *end <= size)
    }
}

/// Why a table cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk's.
    #[error("{0}")]
    Device(IoError),
    /// The table contradicts itself.
    #[error("the partition table at byte {at} is damaged: {what}")]
    Damaged {
        /// Where, in bytes.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        Error::Device(error)
    }
}

/// Which table the disk has; a GPT counts if the DOS table protects it, as the specification asks and Linux wants to see.
///
/// # Errors
/// The disk's.
pub fn scheme(disk: &dyn BlockDevice) -> Result<Option<Scheme>, IoError> {
    if disk.size() < SECTOR {
        return Ok(None);
    }
    let mut sector = [0; SECTOR as usize];
    disk.read_at(0, &mut sector)?;
    Ok(match mbr::entries(&sector) {
        Some(entries) if entries.iter().any(mbr::Entry::protects_gpt) => Some(Scheme::Gpt),
        Some(entries) if entries.iter().any(mbr::Entry::is_used) => Some(Scheme::Mbr),
        _ => None,
    })
}

/// The partitions of a table of this kind, numbers ascending.
///
/// # Errors
/// There is none, it is damaged (a GPT and its backup), or the disk cannot be read.
pub fn read(disk: &dyn BlockDevice, scheme: Scheme) -> Result<Vec<Partition>, Error> {
    match scheme {
        Scheme::Gpt => gpt::read(disk),
        Scheme::Mbr => mbr::read(disk),
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |eight| u64::from_le_bytes(*eight))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec;

    /// A disk in memory.
    pub(crate) struct Memory(pub(crate) Vec<u8>);

    impl BlockDevice for Memory {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
            let from = usize::try_from(offset).map_err(|_| IoError::EIO)?;
            let bytes = from.checked_add(buf.len()).and_then(|to| self.0.get(from..to)).ok_or(IoError::EIO)?;
            buf.copy_from_slice(bytes);
            Ok(())
        }

        fn write_at(&self, _offset: u64, _buf: &[u8]) -> Result<(), IoError> {
            Err(IoError::EIO)
        }

        fn flush(&self) -> Result<(), IoError> {
            Ok(())
        }
    }

    #[test]
    fn what_has_no_table_has_none() {
        for bytes in [vec![], vec![0x55, 0xaa], vec![0; 4096], vec![0xff; 4096]] {
            assert_eq!(scheme(&Memory(bytes)), Ok(None));
        }
        let mut signed = vec![0; 4096];
        signed[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(scheme(&Memory(signed)), Ok(None), "a boot sector without partitions");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_an_error(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
            entries in proptest::collection::vec((0..4usize, 0..8u32, 0..9u32), 0..4),
        ) {
            // What points into the disk itself leads the reader around in it.
            for (at, (slot, start, size)) in [0, 512, 1024, 2048].into_iter().zip(entries) {
                if let Some(sector) = bytes.get_mut(at..at + 512) {
                    sector[446..510].fill(0);
                    sector[446 + slot * 16 + 4] = 5;
                    sector[446 + slot * 16 + 8..][..4].copy_from_slice(&start.to_le_bytes());
                    sector[446 + slot * 16 + 12..][..4].copy_from_slice(&size.to_le_bytes());
                    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
                }
            }
            let disk = Memory(bytes);
            let _ = scheme(&disk);
            for which in [Scheme::Gpt, Scheme::Mbr] {
                if let Ok(found) = read(&disk, which) {
                    prop_assert!(found.is_sorted_by_key(|one| one.number));
                }
            }
        }
    }
}
