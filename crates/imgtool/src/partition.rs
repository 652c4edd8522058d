//! The partitions of a disk, with what they hold. The tables themselves are read by the `partition` crate.

use std::path::Path;

use ::partition::{Kind, Scheme};
use ext4::BlockDevice;

use crate::backing::{Part, host_error};
use crate::identify::identify_device;
use crate::text::uuid_text;
use crate::{Contents, Error, HumanSize, backing};

pub(crate) use ::partition::{SECTOR, crc32};

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
    let scheme = match identify_device(disk).map_err(|error| Error::io("read", path, &error))? {
        Contents::Gpt => Scheme::Gpt,
        Contents::Mbr => Scheme::Mbr,
        other => {
            return Err(Error::new(format_args!("{} has no partition table: it is {other}", path.display()))
                .hint("leave the partition number out"));
        }
    };
    let found = ::partition::read(disk, scheme).map_err(|error| table_error(error, path))?;
    found.into_iter().map(|one| described(one, disk, path)).collect()
}

fn table_error(error: ::partition::Error, path: &Path) -> Error {
    match error {
        ::partition::Error::Device(error) => Error::io("read the partition table of", path, &host_error(error)),
        damaged => {
            Error::new(damaged).at(path.display()).hint("`sgdisk --verify` tells more, and mends a GPT from its backup")
        }
    }
}

fn described(one: ::partition::Partition, disk: &dyn BlockDevice, path: &Path) -> Result<Partition, Error> {
    let size = disk.size();
    if one.end_within(size).is_none() {
        let (number, end) = (one.number, one.start.saturating_add(one.size));
        let what = format_args!("partition {number} ends at byte {end}, behind the disk's end at {size}").to_string();
        return Err(Error::new(what).at(path.display()).hint("copy the disk again; its end is missing"));
    }
    let contents = match one.kind.is_extended() {
        // Its first sector is a table of its own.
        true => Contents::Other("an extended partition"),
        false => identify_device(&Part::new(disk, one.start, one.size)).map_err(|e| Error::io("read", path, &e))?,
    };
    let kind = match one.kind {
        Kind::Guid(guid) => guid_text(&guid),
        Kind::Byte(byte) => format!("{byte:#04x}"),
    };
    Ok(Partition { number: one.number, start: one.start, size: one.size, kind, name: one.name, contents })
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

/// A GUID as people write it: its first three fields are little-endian on the disk.
fn guid_text(bytes: &[u8; 16]) -> String {
    let mut ordered = *bytes;
    ordered[0..4].reverse();
    ordered[4..6].reverse();
    ordered[6..8].reverse();
    uuid_text(&ordered)
}
