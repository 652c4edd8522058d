//! The GUID partition table.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use ext4::BlockDevice;

use crate::{Error, Kind, Partition, SECTOR, le32, le64};

/// Bytes of an entry that are used.
const LEAST_ENTRY: u32 = 128;
/// More bytes than any sensible entry has.
const MOST_ENTRY: u32 = 4096;
/// Entries of a table that is read: four times what every tool makes.
const MOST_ENTRIES: u32 = 512;

/// CRC-32 of IEEE 802.3, the checksum of a GPT.
pub fn crc32(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}

/// The primary table, or the backup at the disk's end if that one is damaged.
pub(crate) fn read(disk: &dyn BlockDevice) -> Result<Vec<Partition>, Error> {
    let last = (disk.size() / SECTOR).saturating_sub(1) * SECTOR;
    read_at(disk, SECTOR).or_else(|error| read_at(disk, last).map_err(|_| error))
}

fn read_at(disk: &dyn BlockDevice, at: u64) -> Result<Vec<Partition>, Error> {
    let damaged = |what: &'static str| Error::Damaged { at, what };
    let mut header = [0; SECTOR as usize];
    if disk.size() < at + SECTOR {
        return Err(damaged("the disk is too short"));
    }
    disk.read_at(at, &mut header)?;
    let used = le32(&header, 12) as usize;
    if !header.starts_with(b"EFI PART") || !(92..=header.len()).contains(&used) {
        return Err(damaged("there is no header"));
    }
    let stored = le32(&header, 16);
    let mut zeroed = header;
    zeroed[16..20].fill(0);
    if crc32(zeroed.get(..used).unwrap_or_default()) != stored {
        return Err(damaged("the header's checksum is wrong"));
    }
    if le64(&header, 24) != at / SECTOR {
        return Err(damaged("the header is for another place"));
    }
    let (entries, count, len) = (le64(&header, 72), le32(&header, 80), le32(&header, 84));
    if !(LEAST_ENTRY..=MOST_ENTRY).contains(&len) || !len.is_power_of_two() || count > MOST_ENTRIES {
        return Err(damaged("the entries' size or count is out of range"));
    }
    let mut table = vec![0; (count * len) as usize];
    let within = |offset: &u64| offset.checked_add(table.len() as u64).is_some_and(|end| end <= disk.size());
    let offset =
        entries.checked_mul(SECTOR).filter(within).ok_or_else(|| damaged("the entries lie behind the disk's end"))?;
    disk.read_at(offset, &mut table)?;
    if crc32(&table) != le32(&header, 88) {
        return Err(damaged("the entries' checksum is wrong"));
    }
    let used =
        (1..).zip(table.chunks_exact(len as usize)).filter(|(_, entry)| entry.iter().take(16).any(|byte| *byte != 0));
    used.map(|(number, entry)| partition(number, entry).ok_or_else(|| damaged("a partition ends before it begins")))
        .collect()
}

fn partition(number: u32, entry: &[u8]) -> Option<Partition> {
    let kind = Kind::Guid(*entry.first_chunk()?);
    let (first, last) = (le64(entry, 32), le64(entry, 40));
    let sectors = last.checked_sub(first)?.checked_add(1)?;
    let units = entry.get(56..128)?.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(Partition {
        number,
        start: first.checked_mul(SECTOR)?,
        size: sectors.checked_mul(SECTOR)?,
        kind,
        name: String::from_utf16_lossy(&units),
    })
}
