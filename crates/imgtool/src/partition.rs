//! Partition tables, read: GPT (UEFI specification, chapter 5) and the DOS table of the master boot record.

use std::path::Path;

use ext4::BlockDevice;

use crate::backing::{Part, host_error};
use crate::identify::identify_device;
use crate::text::uuid_text;
use crate::{Contents, Error, HumanSize, backing};

/// Bytes of a sector in both tables as disks of files have them.
pub(crate) const SECTOR: u64 = 512;
/// Entries of a GPT looked at: the specification's minimum, and what every tool makes.
const GPT_ENTRIES: u32 = 128;

/// A partition of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1; as Linux counts them.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its type: a GUID, or `0x83`.
    pub kind: String,
    /// Its name (GPT only).
    pub name: String,
    /// What it holds.
    pub contents: Contents,
}

/// The table of the disk at `path`, which may be an overlay; numbers ascending.
///
/// # Errors
/// It has none, or one that points outside the disk.
pub fn partitions(path: &Path) -> Result<Vec<Partition>, Error> {
    partitions_of(&*backing::open(path)?, path)
}

fn partitions_of(disk: &dyn BlockDevice, path: &Path) -> Result<Vec<Partition>, Error> {
    let size = disk.size();
    let mut found = match identify_device(disk).map_err(|error| Error::io("read", path, &error))? {
        Contents::Gpt => gpt(disk, path, size)?,
        Contents::Mbr => mbr(disk, path)?,
        other => {
            return Err(Error::new(format_args!("{} has no partition table: it is {other}", path.display()))
                .hint("leave the partition number out"));
        }
    };
    for one in &mut found {
        if one.start.checked_add(one.size).is_none_or(|end| end > size) {
            return Err(Error::new(format_args!(
                "{}: partition {} ends at byte {}, behind the disk's end at {size}",
                path.display(),
                one.number,
                one.start.saturating_add(one.size)
            ))
            .hint("copy the disk again; its end is missing"));
        }
        let part = Part::new(disk, one.start, one.size);
        one.contents = identify_device(&part).map_err(|error| Error::io("read", path, &error))?;
    }
    Ok(found)
}

/// One partition of a disk that is open; `path` is for messages.
///
/// # Errors
/// As [`partitions`]; or there is none of this number.
pub(crate) fn find_on(disk: &dyn BlockDevice, path: &Path, number: u32) -> Result<Partition, Error> {
    let all = partitions_of(disk, path)?;
    let Some(one) = all.iter().find(|one| one.number == number) else {
        let have: Vec<String> = all.iter().map(|one| format!("{} ({})", one.number, HumanSize(one.size))).collect();
        let have = if have.is_empty() { "none at all".to_owned() } else { have.join(", ") };
        return Err(Error::new(format_args!("{} has no partition {number}", path.display()))
            .hint(format_args!("it has {have}")));
    };
    Ok(one.clone())
}

fn read(disk: &dyn BlockDevice, path: &Path, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
    let read = disk.read_at(offset, buffer).map_err(host_error);
    read.map_err(|error| Error::io("read the partition table of", path, &error))
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// The four entries of the master boot record; an extended partition is shown as one.
fn mbr(disk: &dyn BlockDevice, path: &Path) -> Result<Vec<Partition>, Error> {
    let mut sector = [0; SECTOR as usize];
    read(disk, path, 0, &mut sector)?;
    let entries = sector.get(446..510).unwrap_or_default().chunks_exact(16);
    Ok((1..)
        .zip(entries)
        .filter_map(|(number, entry)| {
            let kind = entry.get(4).copied().filter(|kind| *kind != 0)?;
            Some(Partition {
                number,
                start: u64::from(le32(entry, 8)) * SECTOR,
                size: u64::from(le32(entry, 12)) * SECTOR,
                kind: format!("{kind:#04x}"),
                name: String::new(),
                contents: Contents::Unknown,
            })
        })
        .collect())
}

/// The primary table, or the backup at the disk's end if that one is damaged.
fn gpt(disk: &dyn BlockDevice, path: &Path, size: u64) -> Result<Vec<Partition>, Error> {
    let last = (size / SECTOR).saturating_sub(1) * SECTOR;
    let mut damage = None;
    for at in [SECTOR, last] {
        match gpt_at(disk, path, at) {
            Ok(found) => return Ok(found),
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    Err(damage.unwrap_or_else(|| Error::new(format_args!("{} is too short for a GPT", path.display()))))
}

fn gpt_at(disk: &dyn BlockDevice, path: &Path, at: u64) -> Result<Vec<Partition>, Error> {
    let damaged = |what: &str| {
        Error::new(format_args!("{}: the GUID partition table at byte {at} is damaged: {what}", path.display()))
            .hint("`sgdisk --verify` tells more, and mends it from its backup")
    };
    let mut header = [0; SECTOR as usize];
    read(disk, path, at, &mut header)?;
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
    let (entries, count, len) = (le64(&header, 72), le32(&header, 80), le32(&header, 84));
    if !(128..=4096).contains(&len) || !len.is_power_of_two() || count > 4 * GPT_ENTRIES {
        return Err(damaged("the entries' size or count is out of range"));
    }
    let mut table = vec![0; (count * len) as usize];
    let offset = entries.checked_mul(SECTOR).ok_or_else(|| damaged("the entries lie beyond any disk"))?;
    read(disk, path, offset, &mut table)?;
    if crc32(&table) != le32(&header, 88) {
        return Err(damaged("the entries' checksum is wrong"));
    }
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(table.chunks_exact(len as usize)) {
        let Some(guid) = entry.first_chunk::<16>().filter(|guid| guid.iter().any(|byte| *byte != 0)) else {
            continue;
        };
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        let sectors = last.checked_sub(first).and_then(|len| len.checked_add(1));
        let (Some(start), Some(size)) =
            (first.checked_mul(SECTOR), sectors.and_then(|sectors| sectors.checked_mul(SECTOR)))
        else {
            return Err(damaged("a partition ends before it begins"));
        };
        let units: Vec<u16> = entry
            .get(56..128)
            .unwrap_or_default()
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| u16::from_le_bytes(*pair))
            .take_while(|unit| *unit != 0)
            .collect();
        let (kind, name) = (guid_text(guid), String::from_utf16_lossy(&units));
        found.push(Partition { number, start, size, kind, name, contents: Contents::Unknown });
    }
    Ok(found)
}

/// A GUID as people write it: its first three fields are little-endian on the disk.
fn guid_text(bytes: &[u8; 16]) -> String {
    let mut ordered = *bytes;
    ordered[0..4].reverse();
    ordered[4..6].reverse();
    ordered[6..8].reverse();
    uuid_text(&ordered)
}

/// CRC-32 of IEEE 802.3, as GPT has it.
pub(crate) fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}
