//! FAT12, FAT16 and FAT32 file systems that exist already, read and changed (Microsoft, "FAT: General Overview of On-Disk
//! Format", 1.03). New ones are made through the `fatfs` crate; it does not do here, since it panics on damaged images
//! and leaves `..` of a moved directory as it was.
//!
//! Changes are gathered in memory and reach the disk together when an operation is complete ([`Volume::commit`]); only
//! the contents of files go at once, to clusters that were free. So an operation that fails, on a full disk say, leaves
//! nothing behind.

mod check;
mod copy;
mod directory;
mod image;
mod name;

use ext4::{BlockDevice, IoError};

pub use image::{FatImage, FatInfo};

use crate::overlay::Overlay;
use crate::{Disk, Error};

/// Bytes of the table that are kept at hand.
const WINDOW: usize = 64 * 1024;
/// A directory's most bytes: 65,536 entries.
const LARGEST_DIRECTORY: u64 = 65_536 * 32;

/// A run of clusters: first, count.
type Run = (u32, u32);

/// Where the root directory lies.
#[derive(Clone, Copy, Debug)]
enum Root {
    /// FAT12 and FAT16: byte and length of its place.
    Fixed(u64, u64),
    /// FAT32: its first cluster.
    Chain(u32),
}

/// A FAT file system.
pub(crate) struct Volume {
    disk: Overlay<Disk>,
    /// 12, 16 or 32.
    bits: u8,
    /// Bytes of a cluster.
    cluster: u64,
    /// Where the table's copies begin; the first one is read.
    fats: Vec<u64>,
    root: Root,
    /// Where cluster 2 lies.
    data: u64,
    /// How many there are.
    clusters: u32,
    /// Where FAT32's hints about free clusters lie.
    info: Option<u64>,
    /// A piece of the table, and where it begins.
    window: (u64, Vec<u8>),
    /// Clusters below are all in use, as far as known.
    hint: u32,
    /// Free clusters, once they were counted.
    free: Option<u32>,
    boot: [u8; 512],
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(format_args!("damaged: {what}")).hint("`fsck.fat` tells more; let it repair a copy")
}

/// The disk failed.
fn failed(error: IoError) -> Error {
    Error::new(error)
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |two| u16::from_le_bytes(*two))
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

impl Volume {
    /// Reads the boot sector.
    ///
    /// # Errors
    /// It is none, or says what cannot be; the disk fails.
    pub(crate) fn open(disk: Disk) -> Result<Self, Error> {
        let mut boot = [0; 512];
        if disk.size() < 512 {
            return Err(damaged("there is no boot sector"));
        }
        disk.read_at(0, &mut boot).map_err(failed)?;
        let or = |small: u16, large: u32| if small == 0 { u64::from(large) } else { u64::from(small) };
        let sector = u64::from(le16(&boot, 11));
        let per_cluster = u64::from(boot[13]);
        let reserved = u64::from(le16(&boot, 14));
        let copies = u64::from(boot[16]);
        let total = or(le16(&boot, 19), le32(&boot, 32));
        let fat_sectors = or(le16(&boot, 22), le32(&boot, 36));
        let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && matches!(copies, 1 | 2)
            && fat_sectors > 0;
        if !sane {
            return Err(damaged("the boot sector's sizes are not those of a FAT file system"));
        }
        if total * sector > disk.size() {
            let (has, states) = (disk.size(), total * sector);
            return Err(Error::new(format_args!("truncated: the file system has {states} bytes, the image {has}"))
                .hint("copy the image again; its end is missing"));
        }
        let fat = reserved * sector;
        let root = fat + copies * fat_sectors * sector;
        let root_len = (u64::from(le16(&boot, 17)) * 32).next_multiple_of(sector);
        let data = root + root_len;
        let cluster = per_cluster * sector;
        let clusters = (total * sector).checked_sub(data).map(|bytes| bytes / cluster);
        let Some(clusters) = clusters.filter(|clusters| (1..0x0fff_fff5).contains(clusters)) else {
            return Err(damaged("the boot sector leaves no clusters for files"));
        };
        let bits = match clusters {
            0..4085 => 12,
            4085..65525 => 16,
            _ => 32,
        };
        if (clusters + 2) * u64::from(bits) > fat_sectors * sector * 8 {
            return Err(damaged("the allocation table is shorter than the clusters need"));
        }
        // FAT32 may keep one copy only up to date.
        let flags = if bits == 32 { le16(&boot, 40) } else { 0 };
        let active: Vec<u64> = match flags & 0x80 {
            0 => (0..copies).collect(),
            _ => vec![u64::from(flags & 0xf).min(copies - 1)],
        };
        let mut volume = Self {
            disk: Overlay::new(disk),
            bits,
            cluster,
            fats: active.into_iter().map(|number| fat + number * fat_sectors * sector).collect(),
            root: Root::Fixed(root, root_len),
            data,
            clusters: clusters as u32,
            info: None,
            window: (0, Vec::new()),
            hint: 2,
            free: None,
            boot,
        };
        if bits == 32 {
            let first = le32(&boot, 44);
            volume.inside(first)?;
            volume.root = Root::Chain(first);
            let info = u64::from(le16(&boot, 48));
            if info > 0 && info < reserved {
                let mut bytes = [0; 512];
                volume.disk.read_at(info * sector, &mut bytes).map_err(failed)?;
                if le32(&bytes, 0) == 0x4161_5252 && le32(&bytes, 484) == 0x6141_7272 {
                    volume.info = Some(info * sector);
                }
            }
        }
        Ok(volume)
    }

    fn inside(&self, cluster: u32) -> Result<u32, Error> {
        match cluster {
            2.. if cluster - 2 < self.clusters => Ok(cluster),
            _ => Err(damaged(format_args!("cluster {cluster} is none"))),
        }
    }

    /// Where a cluster's bytes lie.
    fn at(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster.saturating_sub(2)) * self.cluster
    }

    fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len as usize];
        self.disk.read_at(offset, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Changes bytes once the operation is complete.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.disk.write_at(offset, bytes).map_err(failed)
    }

    /// `len` bytes of the table, at most 4, from the byte `at` of its copies on.
    fn table(&mut self, at: u64, len: usize) -> Result<u32, Error> {
        let fat = self.fats.first().copied().unwrap_or(0);
        let (start, bytes) = &self.window;
        if at < *start || at + len as u64 > start + bytes.len() as u64 {
            // An entry of a byte and a half may lie across the bound of two windows.
            let start = at / WINDOW as u64 * WINDOW as u64;
            let end = (self.clusters as u64 + 2) * u64::from(self.bits) / 8 + 4;
            let len = (WINDOW as u64 + 4).min(end.saturating_sub(start)).min(self.disk.size() - fat - start);
            self.window = (start, self.read(fat + start, len)?);
        }
        let (start, bytes) = &self.window;
        let piece = bytes.get((at - start) as usize..).and_then(|rest| rest.get(..len)).unwrap_or_default();
        let mut four = [0; 4];
        put(&mut four, 0, piece);
        Ok(u32::from_le_bytes(four))
    }

    /// Place and length of an entry of the table.
    fn entry_place(&self, cluster: u32) -> (u64, usize) {
        let n = u64::from(cluster);
        match self.bits {
            12 => (n + n / 2, 2),
            16 => (2 * n, 2),
            _ => (4 * n, 4),
        }
    }

    /// What the table says about a cluster: 0 if it is free, all ones (of its width) at a chain's end.
    fn entry(&mut self, cluster: u32) -> Result<u32, Error> {
        let (at, len) = self.entry_place(self.inside(cluster)?);
        let raw = self.table(at, len)?;
        Ok(match self.bits {
            12 if cluster.is_multiple_of(2) => raw & 0xfff,
            12 => raw >> 4,
            16 => raw,
            _ => raw & 0x0fff_ffff,
        })
    }

    fn set_entry(&mut self, cluster: u32, value: u32) -> Result<(), Error> {
        let (at, len) = self.entry_place(self.inside(cluster)?);
        let old = self.table(at, len)?;
        let new = match self.bits {
            12 if cluster.is_multiple_of(2) => old & 0xf000 | value & 0xfff,
            12 => old & 0xf | (value & 0xfff) << 4,
            16 => value,
            _ => old & 0xf000_0000 | value & 0x0fff_ffff,
        };
        let bytes = new.to_le_bytes();
        let bytes = bytes.get(..len).unwrap_or_default();
        for fat in self.fats.clone() {
            self.write(fat + at, bytes)?;
        }
        let (start, window) = &mut self.window;
        put(window, (at - *start) as usize, bytes);
        Ok(())
    }

    fn end_mark(&self) -> u32 {
        match self.bits {
            12 => 0xfff,
            16 => 0xffff,
            _ => 0x0fff_ffff,
        }
    }

    /// The clusters that follow `first`, it included, in runs.
    ///
    /// # Errors
    /// The chain leads outside, into a free or bad cluster, or has more than `most` clusters.
    fn chain(&mut self, first: u32, most: u64) -> Result<Vec<Run>, Error> {
        let mut runs: Vec<Run> = Vec::new();
        let mut count = 0;
        let mut here = self.inside(first)?;
        loop {
            count += 1;
            if count > most {
                return Err(damaged(format_args!("the chain from cluster {first} is too long, or a loop")));
            }
            match runs.last_mut() {
                Some((start, len)) if *start + *len == here => *len += 1,
                _ => runs.push((here, 1)),
            }
            let next = self.entry(here)?;
            if next >= self.end_mark() - 7 {
                return Ok(runs);
            }
            here = match next {
                0 => return Err(damaged(format_args!("the chain from cluster {first} leads into a free one"))),
                _ => self.inside(next)?,
            };
        }
    }

    /// The chain of a file of `size` bytes, from `first` on (0 for an empty file).
    fn file_chain(&mut self, first: u32, size: u32) -> Result<Vec<Run>, Error> {
        let need = u64::from(size).div_ceil(self.cluster);
        if first == 0 && size == 0 {
            return Ok(Vec::new());
        }
        let runs = self.chain(first, need)?;
        if runs.iter().map(|run| u64::from(run.1)).sum::<u64>() < need {
            return Err(damaged(format_args!("a file of {size} bytes has too few clusters")));
        }
        Ok(runs)
    }

    /// Fills `buf` with a file's bytes from `offset` on, as its chain has them.
    fn read_runs(&self, runs: &[Run], mut offset: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        let mut start = 0;
        for (first, count) in runs {
            let len = u64::from(*count) * self.cluster;
            if offset < start + len && !buf.is_empty() {
                let inside = offset - start;
                let piece = (len - inside).min(buf.len() as u64) as usize;
                let (now, rest) = buf.split_at_mut(piece);
                self.disk.read_at(self.at(*first) + inside, now).map_err(failed)?;
                buf = rest;
                offset += piece as u64;
            }
            start += len;
        }
        if buf.is_empty() { Ok(()) } else { Err(damaged("a chain ends before its file")) }
    }

    /// Free clusters.
    fn count_free(&mut self) -> Result<u32, Error> {
        if let Some(free) = self.free {
            return Ok(free);
        }
        let mut free = 0;
        for cluster in 2..self.clusters + 2 {
            free += u32::from(self.entry(cluster)? == 0);
        }
        self.free = Some(free);
        Ok(free)
    }

    /// Takes `count` free clusters and chains them; `None` if there are not so many.
    fn allocate(&mut self, count: u64) -> Result<Option<Vec<Run>>, Error> {
        if count > u64::from(self.count_free()?) {
            return Ok(None);
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut before = None;
        let mut left = count;
        let (hint, end) = (self.hint, self.clusters + 2);
        for cluster in (hint..end).chain(2..hint) {
            if left == 0 {
                break;
            }
            if self.entry(cluster)? != 0 {
                continue;
            }
            self.set_entry(cluster, self.end_mark())?;
            if let Some(before) = before {
                self.set_entry(before, cluster)?;
            }
            before = Some(cluster);
            match runs.last_mut() {
                Some((start, len)) if *start + *len == cluster => *len += 1,
                _ => runs.push((cluster, 1)),
            }
            left -= 1;
        }
        self.hint = before.map_or(hint, |cluster| cluster + 1).min(end - 1);
        self.free = self.free.map(|free| free - count as u32);
        Ok(Some(runs))
    }

    /// Frees a chain.
    fn release(&mut self, runs: &[Run]) -> Result<(), Error> {
        for (first, count) in runs {
            for cluster in *first..first + count {
                self.set_entry(cluster, 0)?;
            }
            self.free = self.free.map(|free| free + count);
            self.hint = self.hint.min(*first);
        }
        Ok(())
    }

    /// Writes to clusters that were free before this operation.
    fn write_data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.disk.write_through(offset, bytes).map_err(failed)
    }

    /// Brings all changes to the disk.
    fn commit(&mut self) -> Result<(), Error> {
        if let Some(info) = self.info {
            let (free, hint) = (self.count_free()?.to_le_bytes(), self.hint.to_le_bytes());
            self.write(info + 488, &[free, hint].concat())?;
        }
        self.disk.commit().map_err(failed)
    }

    /// Takes back what was not committed.
    fn roll_back(&mut self) {
        self.disk.discard_all();
        self.window = (0, Vec::new());
        (self.hint, self.free) = (2, None);
    }
}

#[cfg(test)]
mod tests;
