//! The DOS table: four primary partitions in the disk's first sector, and logical partitions in a chain of sectors of the same form,
//! which an extended partition has room for.

use alloc::string::String;
use alloc::vec::Vec;

use ext4::BlockDevice;

use crate::{Error, Kind, Partition, SECTOR, le32};

/// Where the entries lie in a sector.
const ENTRIES: core::ops::Range<usize> = 446..510;
/// Bytes of each.
const ENTRY: usize = 16;
/// The type of the partition that stands for a GPT in the DOS table.
const PROTECTIVE: u8 = 0xee;
/// Number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// Links of the chain that are followed, as Linux does: one that leads back to itself has no end.
const MOST_LINKS: u32 = 100;

/// An entry of a table, in sectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    kind: u8,
    start: u64,
    size: u64,
}

impl Entry {
    fn read(bytes: &[u8]) -> Entry {
        let kind = bytes.get(4).copied().unwrap_or(0);
        Entry { kind, start: u64::from(le32(bytes, 8)), size: u64::from(le32(bytes, 12)) }
    }

    /// Whether it says that the disk has a GPT.
    pub(crate) fn protects_gpt(&self) -> bool {
        self.kind == PROTECTIVE && self.start == 1
    }

    /// Whether it is a partition.
    pub(crate) fn is_used(&self) -> bool {
        self.kind != 0 && self.size != 0
    }

    fn is_extended(&self) -> bool {
        Kind::Byte(self.kind).is_extended()
    }

    /// As a partition; `base` is the sector that its start counts from.
    fn partition(&self, number: u32, base: u64) -> Partition {
        Partition {
            number,
            start: (base + self.start) * SECTOR,
            size: self.size * SECTOR,
            kind: Kind::Byte(self.kind),
            name: String::new(),
        }
    }
}

/// The entries of a sector that has the table's form: its signature, and boot indicators that are set or clear.
pub(crate) fn entries(sector: &[u8; SECTOR as usize]) -> Option<[Entry; 4]> {
    let table = sector.get(ENTRIES).filter(|_| sector.ends_with(&[0x55, 0xaa]))?;
    let plausible = table.chunks_exact(ENTRY).all(|entry| matches!(entry.first(), Some(0 | 0x80)));
    let entry = |slot: usize| table.get(slot * ENTRY..(slot + 1) * ENTRY).map_or(Entry::read(&[]), Entry::read);
    plausible.then(|| core::array::from_fn(entry))
}

/// The partitions of the DOS table. Where the chain of logical partitions is broken, it ends.
pub(crate) fn read(disk: &dyn BlockDevice) -> Result<Vec<Partition>, Error> {
    let mut sector = [0; SECTOR as usize];
    disk.read_at(0, &mut sector)?;
    let primary = entries(&sector).ok_or(Error::Damaged { at: 0, what: "it has not the form of a DOS table" })?;
    let used = || (1..).zip(primary).filter(|(_, entry)| entry.is_used());
    let mut found: Vec<Partition> = used().map(|(number, entry)| entry.partition(number, 0)).collect();
    for (_, extended) in used().filter(|(_, entry)| entry.is_extended()) {
        read_logical(disk, extended, &mut found);
    }
    Ok(found)
}

/// Adds the logical partitions of an extended one. Each link of the chain describes one, from its own sector on, and the next link,
/// from the extended partition's start on.
fn read_logical(disk: &dyn BlockDevice, extended: Entry, found: &mut Vec<Partition>) {
    let mut next = Some(extended.start);
    for _ in 0..MOST_LINKS {
        let Some(here) = next else { return };
        let mut sector = [0; SECTOR as usize];
        let read = here * SECTOR < disk.size() && disk.read_at(here * SECTOR, &mut sector).is_ok();
        let Some(link) = entries(&sector).filter(|_| read) else { return };
        let inside = |entry: &Entry| {
            let (start, end) = (here + entry.start, here + entry.start + entry.size);
            start >= extended.start && end <= extended.start + extended.size
        };
        for (slot, entry) in link.iter().enumerate().filter(|(_, entry)| entry.is_used() && !entry.is_extended()) {
            // The last two entries have no meaning; Linux takes those that look right.
            if slot < 2 || inside(entry) {
                let logical = found.iter().map(|one| one.number + 1).max().unwrap_or(0).max(FIRST_LOGICAL);
                found.push(entry.partition(logical, here));
            }
        }
        next =
            link.iter().find(|entry| entry.is_used() && entry.is_extended()).map(|entry| extended.start + entry.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Memory;
    use crate::{Scheme, scheme};
    use alloc::vec;

    fn put(disk: &mut [u8], sector: usize, slot: usize, kind: u8, start: u32, size: u32) {
        let sector = &mut disk[sector * 512..][..512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let entry = &mut sector[446 + slot * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&size.to_le_bytes());
    }

    fn shown(disk: &[u8]) -> Vec<(u32, u64, u64, Kind)> {
        let found = read(&Memory(disk.to_vec())).unwrap();
        found.into_iter().map(|one| (one.number, one.start / SECTOR, one.size / SECTOR, one.kind)).collect()
    }

    #[test]
    fn logical_partitions_follow_their_chain() {
        let mut disk = vec![0; 100 * 512];
        put(&mut disk, 0, 0, 0x83, 1, 9);
        put(&mut disk, 0, 2, 0x05, 20, 60);
        put(&mut disk, 20, 0, 0x83, 2, 8);
        put(&mut disk, 20, 1, 0x05, 10, 20);
        put(&mut disk, 30, 0, 0x82, 1, 5);
        // Nonsense that other systems leave in the last entries.
        put(&mut disk, 30, 3, 0x83, 1000, 5);
        let (plain, swap, extended) = (Kind::Byte(0x83), Kind::Byte(0x82), Kind::Byte(0x05));
        let wanted = [(1, 1, 9, plain), (3, 20, 60, extended), (5, 22, 8, plain), (6, 31, 5, swap)];
        assert_eq!(shown(&disk), wanted);
        assert_eq!(scheme(&Memory(disk.clone())), Ok(Some(Scheme::Mbr)));
        // A chain that leads back to its first link.
        put(&mut disk, 30, 1, 0x05, 0, 20);
        assert_eq!(shown(&disk).len(), 2 + MOST_LINKS as usize);
    }

    #[test]
    fn a_chain_that_leaves_the_disk_ends() {
        let mut disk = vec![0; 30 * 512];
        put(&mut disk, 0, 0, 0x0f, 20, u32::MAX);
        put(&mut disk, 20, 0, 0x83, 2, 4);
        put(&mut disk, 20, 1, 0x0f, u32::MAX, 1);
        assert_eq!(shown(&disk).len(), 2);
    }

    #[test]
    fn a_gpt_is_protected() {
        let mut disk = vec![0; 4096];
        put(&mut disk, 0, 0, 0xee, 1, 7);
        assert_eq!(scheme(&Memory(disk.clone())), Ok(Some(Scheme::Gpt)));
        put(&mut disk, 0, 0, 0xee, 2, 7);
        assert_eq!(scheme(&Memory(disk)), Ok(Some(Scheme::Mbr)));
    }
}
