//! Directories: entries of 32 bytes, those of long names before the one of the file.

use std::collections::HashSet;

use ext4::Timestamp;

use super::name::{Short, UNITS, checksum, folded, short_for, short_text};
use super::{LARGEST_DIRECTORY, Root, Run, Volume, damaged, le16, le32, put};
use crate::Error;

/// Bytes of an entry.
pub(super) const ENTRY: usize = 32;
pub(super) const READ_ONLY: u8 = 0x01;
pub(super) const VOLUME: u8 = 0x08;
pub(super) const DIRECTORY: u8 = 0x10;
pub(super) const ARCHIVE: u8 = 0x20;
const LONG_NAME: u8 = 0x0f;
const DELETED: u8 = 0xe5;
/// Flag of the first entry of a long name, which has its last part.
const LAST: u8 = 0x40;
/// Offsets of the name's units in an entry of a long name.
const UNIT_OFFSETS: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// A file's entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) short: Short,
    pub(super) attributes: u8,
    /// First cluster, 0 for an empty file.
    pub(super) cluster: u32,
    pub(super) size: u32,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) accessed: Timestamp,
    /// Its numbers in the directory: from its long name's to its own.
    slots: (usize, usize),
}

impl Entry {
    pub(super) fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }
}

/// A directory's bytes.
pub(super) struct Directory {
    /// First cluster; 0 for the root, as `..` has it.
    first: u32,
    runs: Vec<Run>,
    bytes: Vec<u8>,
}

/// What a new entry has beside its name.
pub(super) struct New {
    pub(super) attributes: u8,
    pub(super) cluster: u32,
    pub(super) size: u32,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
}

impl Volume {
    /// Reads a directory; `first` is 0 for the root.
    pub(super) fn directory(&mut self, first: u32) -> Result<Directory, Error> {
        let start = match (first, self.root) {
            (0, Root::Fixed(at, len)) => {
                return Ok(Directory { first, runs: Vec::new(), bytes: self.read(at, len)? });
            }
            (0, Root::Chain(start)) => start,
            _ => first,
        };
        let runs = self.chain(start, LARGEST_DIRECTORY.div_ceil(self.cluster))?;
        let mut bytes = Vec::new();
        for (cluster, count) in &runs {
            bytes.extend(self.read(self.at(*cluster), u64::from(*count) * self.cluster)?);
        }
        Ok(Directory { first, runs, bytes })
    }

    /// Where an entry lies on the disk.
    fn slot_at(&self, directory: &Directory, slot: usize) -> u64 {
        let mut offset = (slot * ENTRY) as u64;
        if let (0, Root::Fixed(at, _)) = (directory.first, self.root) {
            return at + offset;
        }
        for (first, count) in &directory.runs {
            let len = u64::from(*count) * self.cluster;
            if offset < len {
                return self.at(*first) + offset;
            }
            offset -= len;
        }
        // `slot` is one of the directory's.
        self.data
    }

    fn write_slots(&mut self, directory: &mut Directory, slot: usize, bytes: &[u8]) -> Result<(), Error> {
        for (number, entry) in (slot..).zip(bytes.chunks_exact(ENTRY)) {
            let at = self.slot_at(directory, number);
            self.write(at, entry)?;
            put(&mut directory.bytes, number * ENTRY, entry);
        }
        Ok(())
    }

    /// Adds an entry under a name that is not there.
    ///
    /// # Errors
    /// The directory or the disk is full.
    pub(super) fn add(&mut self, first: u32, name: &str, new: &New) -> Result<(), Error> {
        let mut directory = self.directory(first)?;
        let taken: HashSet<Short> = directory.entries().into_iter().map(|entry| entry.short).collect();
        let full = || Error::new(format_args!("the directory has no room for `{name}`"));
        let (short, long) = short_for(name, &taken).ok_or_else(full)?;
        let mut bytes = if long { long_entries(name, checksum(&short)) } else { Vec::new() };
        bytes.extend(short_entry(&short, new));
        let need = bytes.len() / ENTRY;
        let slot = loop {
            match directory.room(need) {
                Some(slot) => break slot,
                None => self.grow(&mut directory)?,
            }
        };
        let end = directory.end();
        self.write_slots(&mut directory, slot, &bytes)?;
        // What lay behind the end counts for nothing, but must not come to life.
        let next = slot + need;
        if end.is_some_and(|end| end < next) && (next + 1) * ENTRY <= directory.bytes.len() {
            self.write_slots(&mut directory, next, &[0; ENTRY])?;
        }
        Ok(())
    }

    /// Gives a directory one more cluster.
    fn grow(&mut self, directory: &mut Directory) -> Result<(), Error> {
        if directory.runs.is_empty() {
            return Err(Error::new("the root directory is full")
                .hint("FAT12 and FAT16 have a fixed number of entries there; make a subdirectory"));
        }
        if directory.bytes.len() as u64 + self.cluster > LARGEST_DIRECTORY {
            return Err(Error::new("the directory has 65,536 entries, the most that FAT can have"));
        }
        let Some(more) = self.allocate(1)? else { return Err(no_space()) };
        let cluster = more.first().map_or(0, |run| run.0);
        let last = directory.runs.last().map_or(0, |(first, count)| first + count - 1);
        self.set_entry(last, cluster)?;
        let zeros = vec![0; self.cluster as usize];
        self.write(self.at(cluster), &zeros)?;
        directory.runs.extend(more);
        directory.bytes.extend(zeros);
        Ok(())
    }

    /// Takes an entry out of its directory; its clusters stay.
    pub(super) fn remove_entry(&mut self, first: u32, entry: &Entry) -> Result<(), Error> {
        let mut directory = self.directory(first)?;
        for slot in entry.slots.0..=entry.slots.1 {
            let mut bytes = directory.slot(slot).to_vec();
            put(&mut bytes, 0, &[DELETED]);
            self.write_slots(&mut directory, slot, &bytes)?;
        }
        Ok(())
    }

    /// Writes the entries `.` and `..` of a directory; `up` is 0 below the root.
    pub(super) fn set_dots(&mut self, first: u32, up: u32, time: Timestamp) -> Result<(), Error> {
        let mut directory = self.directory(first)?;
        for (slot, name, cluster) in [(0, b".          ", first), (1, b"..         ", up)] {
            let new = New { attributes: DIRECTORY, cluster, size: 0, created: time, modified: time };
            self.write_slots(&mut directory, slot, &short_entry(name, &new))?;
        }
        Ok(())
    }

    /// Sets the parent of a directory that was moved.
    pub(super) fn set_parent(&mut self, first: u32, up: u32) -> Result<(), Error> {
        let mut directory = self.directory(first)?;
        let mut bytes = directory.slot(1).to_vec();
        if !bytes.starts_with(b"..         ") {
            return Err(damaged("a directory has no entry `..`"));
        }
        put_cluster(&mut bytes, up);
        self.write_slots(&mut directory, 1, &bytes)
    }

    /// The label in the root directory.
    pub(super) fn label(&mut self) -> Result<Option<String>, Error> {
        let root = self.directory(0)?;
        let name = root.label_slot().and_then(|slot| root.slot(slot).first_chunk::<11>().copied());
        Ok(name.map(|name| name.iter().map(|byte| char::from(*byte)).collect::<String>().trim_end().to_owned()))
    }

    /// Sets the label, or takes it away if it is `empty`.
    pub(super) fn set_label(&mut self, label: &Short, empty: bool) -> Result<(), Error> {
        let mut root = self.directory(0)?;
        let in_boot = if empty { b"NO NAME    " } else { label };
        let at = if self.bits == 32 { 71 } else { 43 };
        self.write(at, in_boot)?;
        put(&mut self.boot, at as usize, in_boot);
        let slot = match (root.label_slot(), empty) {
            (None, true) => return Ok(()),
            (Some(slot), true) => {
                let mut bytes = root.slot(slot).to_vec();
                put(&mut bytes, 0, &[DELETED]);
                return self.write_slots(&mut root, slot, &bytes);
            }
            (Some(slot), false) => slot,
            (None, false) => loop {
                match root.room(1) {
                    Some(slot) => break slot,
                    None => self.grow(&mut root)?,
                }
            },
        };
        let was_end = root.end() == Some(slot);
        let now = crate::time::now();
        let new = New { attributes: VOLUME, cluster: 0, size: 0, created: now, modified: now };
        self.write_slots(&mut root, slot, &short_entry(label, &new))?;
        if was_end && (slot + 2) * ENTRY <= root.bytes.len() {
            self.write_slots(&mut root, slot + 1, &[0; ENTRY])?;
        }
        Ok(())
    }
}

pub(super) fn no_space() -> Error {
    Error::new("no space left in the file system")
}

impl Directory {
    fn slot(&self, slot: usize) -> &[u8] {
        self.bytes.get(slot * ENTRY..(slot + 1) * ENTRY).unwrap_or_default()
    }

    /// Entries up to the end mark.
    fn slots(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(ENTRY).take_while(|slot| slot.first().is_some_and(|byte| *byte != 0))
    }

    fn label_slot(&self) -> Option<usize> {
        self.slots().position(|slot| {
            let attributes = slot.get(11).copied().unwrap_or(0);
            slot.first() != Some(&DELETED) && attributes & VOLUME != 0 && attributes & LONG_NAME != LONG_NAME
        })
    }

    /// The first entry that was never used, if there is one.
    fn end(&self) -> Option<usize> {
        let count = self.slots().count();
        (count * ENTRY < self.bytes.len()).then_some(count)
    }

    /// The first of `need` free entries in a row.
    fn room(&self, need: usize) -> Option<usize> {
        let mut run = 0;
        for (number, slot) in self.slots().enumerate() {
            run = if slot.first() == Some(&DELETED) { run + 1 } else { 0 };
            if run == need {
                return Some(number + 1 - need);
            }
        }
        let used = self.slots().count();
        (self.bytes.len() / ENTRY >= used - run + need).then_some(used - run)
    }

    /// The files and directories, without `.`, `..` and the volume's label.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut found = Vec::new();
        let mut long = LongName::default();
        for (number, slot) in self.slots().enumerate() {
            let attributes = slot.get(11).copied().unwrap_or(0);
            if slot.first() == Some(&DELETED) {
                long = LongName::default();
            } else if attributes & 0x3f == LONG_NAME {
                long.take(slot, number);
            } else {
                let long = std::mem::take(&mut long);
                let Some(short) = slot.first_chunk::<11>() else { continue };
                if attributes & VOLUME != 0 || short.starts_with(b".") {
                    continue;
                }
                let (name, start) = match long.text(short) {
                    Some((name, start)) => (name, start),
                    None => (short_text(short, slot.get(12).copied().unwrap_or(0)), number),
                };
                found.push(Entry {
                    name,
                    short: *short,
                    attributes,
                    cluster: u32::from(le16(slot, 20)) << 16 | u32::from(le16(slot, 26)),
                    size: le32(slot, 28),
                    created: time(le16(slot, 16), le16(slot, 14), slot.get(13).copied().unwrap_or(0)),
                    modified: time(le16(slot, 24), le16(slot, 22), 0),
                    accessed: time(le16(slot, 18), 0, 0),
                    slots: (start, number),
                });
            }
        }
        found
    }

    /// The entry that has this name, long or short, in any case.
    pub(super) fn find(&self, name: &str) -> Option<Entry> {
        let wanted = folded(name);
        let mut all = self.entries();
        let at = all.iter().position(|entry| folded(&entry.name) == wanted);
        let at = at.or_else(|| all.iter().position(|entry| short_text(&entry.short, 0) == wanted));
        at.map(|at| all.swap_remove(at))
    }
}

/// A long name on its way together.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    /// The part expected next, counted down.
    next: u8,
    sum: u8,
    start: usize,
}

impl LongName {
    fn take(&mut self, slot: &[u8], number: usize) {
        let order = slot.first().copied().unwrap_or(0);
        let sum = slot.get(13).copied().unwrap_or(0);
        let part = order & 0x1f;
        if order & LAST != 0 {
            *self = Self { units: vec![0xffff; usize::from(part) * UNITS], next: part, sum, start: number };
        }
        if part == 0 || part != self.next || sum != self.sum {
            *self = Self::default();
            return;
        }
        self.next -= 1;
        for (index, offset) in UNIT_OFFSETS.iter().enumerate() {
            if let Some(unit) = self.units.get_mut(usize::from(self.next) * UNITS + index) {
                *unit = le16(slot, *offset);
            }
        }
    }

    /// The name and its first entry, if it is whole and belongs to the short name behind it.
    fn text(self, short: &Short) -> Option<(String, usize)> {
        if self.units.is_empty() || self.next != 0 || self.sum != checksum(short) {
            return None;
        }
        let len = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        let text = String::from_utf16_lossy(self.units.get(..len).unwrap_or_default());
        let text = text.trim_end_matches('\u{ffff}').to_owned();
        // A slash would lead elsewhere on a host.
        (!text.is_empty() && !text.contains(['/', '\0']) && text != "." && text != "..").then_some((text, self.start))
    }
}

fn long_entries(name: &str, sum: u8) -> Vec<u8> {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    // A zero ends the name where it does not fill its last entry; ones fill that up.
    if !units.len().is_multiple_of(UNITS) {
        units.push(0);
        units.resize(units.len().next_multiple_of(UNITS), 0xffff);
    }
    let count = units.len() / UNITS;
    let mut bytes = Vec::new();
    for (order, part) in (1..=count as u8).zip(units.chunks_exact(UNITS)).rev() {
        let mut slot = [0; ENTRY];
        slot[0] = order | if usize::from(order) == count { LAST } else { 0 };
        slot[11] = LONG_NAME;
        slot[13] = sum;
        for (offset, unit) in UNIT_OFFSETS.iter().zip(part) {
            put(&mut slot, *offset, &unit.to_le_bytes());
        }
        bytes.extend(slot);
    }
    bytes
}

fn put_cluster(slot: &mut [u8], cluster: u32) {
    let [a, b, c, d] = cluster.to_le_bytes();
    put(slot, 26, &[a, b]);
    put(slot, 20, &[c, d]);
}

fn short_entry(short: &Short, new: &New) -> [u8; ENTRY] {
    let mut slot = [0; ENTRY];
    put(&mut slot, 0, short);
    slot[11] = new.attributes;
    let (date, clock, tenths) = stamp(new.created);
    slot[13] = tenths;
    put(&mut slot, 14, &clock.to_le_bytes());
    put(&mut slot, 16, &date.to_le_bytes());
    let (date, clock, _) = stamp(new.modified);
    put(&mut slot, 18, &date.to_le_bytes());
    put(&mut slot, 22, &clock.to_le_bytes());
    put(&mut slot, 24, &date.to_le_bytes());
    put_cluster(&mut slot, new.cluster);
    put(&mut slot, 28, &new.size.to_le_bytes());
    slot
}

/// Date, time and hundredths of a second, in UTC; 1980 to 2107.
fn stamp(time: Timestamp) -> (u16, u16, u8) {
    let (year, month, day, hour, minute, second) = crate::time::civil(time.sec);
    match year {
        ..1980 => (1 << 5 | 1, 0, 0),
        2108.. => (127 << 9 | 12 << 5 | 31, 0, 0),
        _ => {
            let date = ((year - 1980) as u16) << 9 | (month as u16) << 5 | day as u16;
            let clock = (hour as u16) << 11 | (minute as u16) << 5 | (second / 2) as u16;
            (date, clock, (second % 2 * 100) as u8 + (time.nsec / 10_000_000) as u8)
        }
    }
}

fn time(date: u16, clock: u16, hundredths: u8) -> Timestamp {
    let (year, month, day) = (1980 + i64::from(date >> 9), i64::from(date >> 5 & 15), i64::from(date & 31));
    if month == 0 || day == 0 {
        return Timestamp::default();
    }
    let (hour, minute, second) = (i64::from(clock >> 11), i64::from(clock >> 5 & 63), i64::from(clock & 31) * 2);
    let seconds = crate::time::days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let hundredths = u32::from(hundredths.min(199));
    Timestamp { sec: seconds + i64::from(hundredths / 100), nsec: hundredths % 100 * 10_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        for sec in [315_532_800, 1_700_000_001, 1_709_210_096, 4_354_819_198] {
            let given = Timestamp { sec, nsec: 120_000_000 };
            let (date, clock, tenths) = stamp(given);
            assert_eq!(time(date, clock, tenths), given);
        }
        assert_eq!(stamp(Timestamp { sec: 0, nsec: 0 }), (33, 0, 0));
        assert_eq!(time(0, 0, 0), Timestamp::default());
    }

    #[test]
    fn long_names_go_there_and_back() {
        for name in ["a", "thirteen char", "fourteen chars", &"ü".repeat(255)] {
            let short = *b"SHORT   TXT";
            let new = New {
                attributes: ARCHIVE,
                cluster: 5,
                size: 7,
                created: Timestamp::default(),
                modified: Timestamp::default(),
            };
            let mut bytes = long_entries(name, checksum(&short));
            bytes.extend(short_entry(&short, &new));
            let directory = Directory { first: 0, runs: Vec::new(), bytes };
            let entries = directory.entries();
            assert_eq!((entries.len(), entries[0].name.as_str()), (1, name));
            assert_eq!((entries[0].cluster, entries[0].size), (5, 7));
            assert!(directory.find(&name.to_uppercase()).is_some() && directory.find("short.txt").is_some());
            assert_eq!(directory.end(), None);
        }
    }

    #[test]
    fn a_long_name_of_another_file_is_dropped() {
        let new =
            New { attributes: 0, cluster: 0, size: 0, created: Timestamp::default(), modified: Timestamp::default() };
        let mut bytes = long_entries("a name that was", 1);
        bytes.extend(short_entry(b"OTHER      ", &new));
        let directory = Directory { first: 0, runs: Vec::new(), bytes };
        assert_eq!(directory.entries()[0].name, "OTHER");
    }
}
