//! Partition tables, written: GPT (UEFI specification 2.10, chapter 5) with its protective record and backup, and the
//! DOS table. Every partition begins at a whole mebibyte, as other tools lay them out.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use crate::partition::{SECTOR, crc32};
use crate::{Contents, Error, HumanSize};

/// Partitions begin at multiples of this.
pub(crate) const ALIGN: u64 = 1 << 20;
/// Entries of a GPT, and bytes of each.
const ENTRIES: usize = 128;
const ENTRY: usize = 128;
/// A DOS table has room for so many.
const MBR_ENTRIES: usize = 4;

/// The kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// GUID partition table: any size, up to 128 partitions with names.
    Gpt,
    /// The DOS table of the master boot record: up to 4 partitions below 2 TiB.
    Mbr,
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Linux,
    Swap,
    /// The EFI system partition.
    Efi,
    Fat(u8),
}

impl Purpose {
    /// What a partition of these contents is for; FAT is an EFI system partition if its name says so.
    pub(crate) fn of(contents: &Contents, name: &str) -> Self {
        match contents {
            Contents::Fat(_) if ["esp", "efi", "boot/efi"].contains(&name.to_ascii_lowercase().as_str()) => Self::Efi,
            Contents::Fat(bits) => Self::Fat(*bits),
            Contents::Other("a swap area") => Self::Swap,
            _ => Self::Linux,
        }
    }

    /// The type GUID, as people write it.
    fn guid(self) -> &'static str {
        match self {
            Self::Linux => "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
            Self::Swap => "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
            Self::Efi => "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            Self::Fat(_) => "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
        }
    }

    /// The type byte of a DOS table.
    fn byte(self) -> u8 {
        match self {
            Self::Linux => 0x83,
            Self::Swap => 0x82,
            Self::Efi => 0xef,
            Self::Fat(12) => 0x01,
            Self::Fat(16) => 0x0e,
            Self::Fat(_) => 0x0c,
        }
    }
}

/// A partition to be made.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) purpose: Purpose,
    pub(crate) name: String,
}

/// Places partitions of these sizes one after the other; returns where each begins, and the disk's size.
pub(crate) fn lay_out(table: Table, sizes: &[u64]) -> Option<(Vec<u64>, u64)> {
    let mut at = ALIGN;
    let mut starts = Vec::with_capacity(sizes.len());
    for size in sizes {
        starts.push(at);
        at = at.checked_add(*size)?.checked_next_multiple_of(ALIGN)?;
    }
    let backup = if table == Table::Gpt { ALIGN } else { 0 };
    Some((starts, at.checked_add(backup)?))
}

/// Writes the table of a disk of `size` bytes. Identifiers are derived from `seed`.
///
/// # Errors
/// The table has no room for so many partitions or so large a disk; the host's.
pub(crate) fn write_table(file: &File, table: Table, size: u64, slots: &[Slot], seed: &[u8]) -> Result<(), Error> {
    let write = |bytes: &[u8], offset: u64| {
        file.write_all_at(bytes, offset)
            .map_err(|error| Error::new(format_args!("cannot write the partition table: {error}")))
    };
    match table {
        Table::Mbr => write(&mbr(size, slots, seed)?, 0),
        Table::Gpt => {
            if slots.len() > ENTRIES {
                return Err(Error::new(format_args!("{} partitions are too many, a GPT has {ENTRIES}", slots.len())));
            }
            let last = size / SECTOR - 1;
            let mut entries = vec![0; ENTRIES * ENTRY];
            for ((number, slot), entry) in (1u32..).zip(slots).zip(entries.chunks_exact_mut(ENTRY)) {
                fill_entry(entry, number, slot, seed);
            }
            let table_sectors = entries.len() as u64 / SECTOR;
            let disk = identifier(seed, 0);
            let header = |here: u64, other: u64, table_at: u64| header(&entries, here, other, table_at, last, &disk);
            write(&protective(last), 0)?;
            write(&header(1, last, 2), SECTOR)?;
            write(&entries, 2 * SECTOR)?;
            write(&entries, (last - table_sectors) * SECTOR)?;
            write(&header(last, 1, last - table_sectors), last * SECTOR)
        }
    }
}

/// A GUID as it is stored, for the disk (0) or a partition.
fn identifier(seed: &[u8], number: u32) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"umlfs partition");
    hash.update(number.to_le_bytes());
    hash.update(seed);
    let digest = hash.finalize();
    let mut guid: [u8; 16] = std::array::from_fn(|at| digest[at]);
    // RFC 9562: version 8, variant 10. The version is in the third field, which is stored little-endian.
    guid[7] = guid[7] & 0x0f | 0x80;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

/// A GUID's text as it is stored: the first three fields little-endian.
fn stored(guid: &str) -> [u8; 16] {
    let mut bytes = crate::derive::parse_uuid(guid).unwrap_or_default();
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn fill_entry(entry: &mut [u8], number: u32, slot: &Slot, seed: &[u8]) {
    put(entry, 0, &stored(slot.purpose.guid()));
    put(entry, 16, &identifier(seed, number));
    put(entry, 32, &(slot.start / SECTOR).to_le_bytes());
    put(entry, 40, &((slot.start + slot.size).div_ceil(SECTOR) - 1).to_le_bytes());
    for (at, unit) in (56..).step_by(2).zip(slot.name.encode_utf16().take(36)) {
        put(entry, at, &unit.to_le_bytes());
    }
}

fn header(entries: &[u8], here: u64, other: u64, table_at: u64, last: u64, disk: &[u8; 16]) -> Vec<u8> {
    let sectors = entries.len() as u64 / SECTOR;
    let mut bytes = vec![0; SECTOR as usize];
    put(&mut bytes, 0, b"EFI PART");
    put(&mut bytes, 8, &0x0001_0000u32.to_le_bytes());
    put(&mut bytes, 12, &92u32.to_le_bytes());
    put(&mut bytes, 24, &here.to_le_bytes());
    put(&mut bytes, 32, &other.to_le_bytes());
    put(&mut bytes, 40, &(2 + sectors).to_le_bytes());
    put(&mut bytes, 48, &(last - sectors - 1).to_le_bytes());
    put(&mut bytes, 56, disk);
    put(&mut bytes, 72, &table_at.to_le_bytes());
    put(&mut bytes, 80, &(ENTRIES as u32).to_le_bytes());
    put(&mut bytes, 84, &(ENTRY as u32).to_le_bytes());
    put(&mut bytes, 88, &crc32(entries).to_le_bytes());
    let crc = crc32(bytes.get(..92).unwrap_or_default());
    put(&mut bytes, 16, &crc.to_le_bytes());
    bytes
}

/// The record that keeps tools which know no GPT away: one partition over the whole disk.
fn protective(last: u64) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize];
    let sectors = u32::try_from(last).unwrap_or(u32::MAX);
    put(&mut bytes, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    put(&mut bytes, 458, &sectors.to_le_bytes());
    put(&mut bytes, 510, &[0x55, 0xaa]);
    bytes
}

fn mbr(size: u64, slots: &[Slot], seed: &[u8]) -> Result<Vec<u8>, Error> {
    if slots.len() > MBR_ENTRIES {
        let text = format!("{} partitions are too many, a DOS table has room for {MBR_ENTRIES}", slots.len());
        return Err(Error::new(text).hint("take a GPT"));
    }
    let mut bytes = vec![0; SECTOR as usize];
    put(&mut bytes, 440, identifier(seed, 0).get(..4).unwrap_or_default());
    for (slot, at) in slots.iter().zip((446..).step_by(16)) {
        let sectors = |bytes: u64| u32::try_from(bytes.div_ceil(SECTOR));
        let (Ok(start), Ok(len)) = (sectors(slot.start), sectors(slot.size)) else {
            let text = format!("a disk of {} is too large for a DOS table, which ends at 2 TiB", HumanSize(size));
            return Err(Error::new(text).hint("take a GPT"));
        };
        // Cylinders, heads and sectors: the value that says "look at the sector numbers".
        put(&mut bytes, at, &[0, 0xfe, 0xff, 0xff, slot.purpose.byte(), 0xfe, 0xff, 0xff]);
        put(&mut bytes, at + 8, &start.to_le_bytes());
        put(&mut bytes, at + 12, &len.to_le_bytes());
    }
    put(&mut bytes, 510, &[0x55, 0xaa]);
    Ok(bytes)
}
