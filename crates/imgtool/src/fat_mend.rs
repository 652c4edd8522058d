//! What `fatfs` 0.3 writes otherwise than the FAT specification has it: the entries `.` and `..` of directories have long
//! names before them, and `..` names the cluster of a FAT32 root, where 0 is to stand for it. fsck.fat rejects both.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const ENTRY: usize = 32;
const ATTRIBUTE: usize = 11;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;
const DELETED: u8 = 0xe5;
const DOT: &[u8; 11] = b".          ";
const DOT_DOT: &[u8; 11] = b"..         ";

/// A fresh FAT file system in a file.
struct Volume<'a> {
    file: &'a File,
    start: u64,
    sector: u64,
    cluster: u64,
    bits: u8,
    fat: u64,
    /// Where the root directory of FAT12 and FAT16 lies, and its length.
    root: (u64, u64),
    root_cluster: u32,
    /// Where cluster 2 lies.
    data: u64,
    clusters: u32,
}

fn le16(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |two| u64::from(u16::from_le_bytes(*two)))
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    le16(bytes, at) | le16(bytes, at + 2) << 16
}

/// Puts right what `fatfs` wrote into `file` from byte `start` on.
///
/// # Errors
/// The host's.
pub(crate) fn mend(file: &File, start: u64, bits: u8) -> io::Result<()> {
    let mut boot = [0; 512];
    file.read_exact_at(&mut boot, start)?;
    let sector = le16(&boot, 11);
    let cluster = u64::from(boot[13]) * sector;
    let sectors_per_fat = if le16(&boot, 22) == 0 { le32(&boot, 36) } else { le16(&boot, 22) };
    let total = if le16(&boot, 19) == 0 { le32(&boot, 32) } else { le16(&boot, 19) };
    let fat = le16(&boot, 14) * sector;
    let root = fat + u64::from(boot[16]) * sectors_per_fat * sector;
    let root_len = (le16(&boot, 17) * ENTRY as u64).next_multiple_of(sector);
    let data = root + root_len;
    let clusters = (total * sector).saturating_sub(data).checked_div(cluster).unwrap_or(0);
    let volume = Volume {
        file,
        start,
        sector,
        cluster,
        bits,
        fat,
        root: (root, root_len),
        root_cluster: le32(&boot, 44) as u32,
        data,
        clusters: u32::try_from(clusters).unwrap_or(u32::MAX),
    };
    volume.run()
}

impl Volume<'_> {
    fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, self.start + offset)?;
        Ok(bytes)
    }

    fn at(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster.saturating_sub(2)) * self.cluster
    }

    /// The cluster that follows in a chain.
    fn next(&self, cluster: u32) -> io::Result<Option<u32>> {
        let n = u64::from(cluster);
        let next = match self.bits {
            12 => {
                // An entry of a byte and a half can lie across two sectors.
                let pair = le16(&self.read(self.fat + n + n / 2, 2)?, 0);
                if n % 2 == 0 { pair & 0xfff } else { pair >> 4 }
            }
            16 => le16(&self.read(self.fat + 2 * n, 2)?, 0),
            _ => le32(&self.read(self.fat + 4 * n, 4)?, 0) & 0x0fff_ffff,
        } as u32;
        Ok((2..self.clusters + 2).contains(&next).then_some(next))
    }

    fn run(&self) -> io::Result<()> {
        debug_assert!(self.sector > 0);
        let mut waiting = Vec::new();
        if self.bits == 32 {
            self.collect(self.root_cluster, &mut waiting)?;
        } else {
            subdirectories(&self.read(self.root.0, self.root.1)?, &mut waiting);
        }
        let top = waiting.len();
        let mut number = 0;
        while let Some(directory) = waiting.get(number).copied() {
            self.mend_one(directory, number < top)?;
            self.collect(directory, &mut waiting)?;
            number += 1;
        }
        Ok(())
    }

    /// The subdirectories of the directory whose chain begins with `cluster`.
    fn collect(&self, cluster: u32, found: &mut Vec<u32>) -> io::Result<()> {
        let mut here = Some(cluster);
        let mut left = self.clusters;
        while let Some(cluster) = here.filter(|_| left > 0) {
            subdirectories(&self.read(self.at(cluster), self.cluster)?, found);
            here = self.next(cluster)?;
            left -= 1;
        }
        Ok(())
    }

    fn mend_one(&self, directory: u32, in_root: bool) -> io::Result<()> {
        let old = self.read(self.at(directory), 4 * ENTRY as u64)?;
        let slot = |number: usize| old.get(number * ENTRY..(number + 1) * ENTRY).unwrap_or_default();
        let named = |number: usize, name: &[u8]| slot(number).starts_with(name);
        let long = |number: usize| slot(number).get(ATTRIBUTE) == Some(&LONG_NAME);
        if !(long(0) && named(1, DOT) && long(2) && named(3, DOT_DOT)) {
            return Ok(());
        }
        let mut up = slot(3).to_vec();
        if in_root {
            for at in [20, 21, 26, 27] {
                if let Some(byte) = up.get_mut(at) {
                    *byte = 0;
                }
            }
        }
        let mut free = [0; ENTRY];
        free[0] = DELETED;
        self.file.write_all_at(&[slot(1), &up, &free, &free].concat(), self.start + self.at(directory))
    }
}

/// First clusters of the directories among these entries.
fn subdirectories(entries: &[u8], found: &mut Vec<u32>) {
    for entry in entries.chunks_exact(ENTRY) {
        let first = entry.first().copied().unwrap_or(0);
        let attribute = entry.get(ATTRIBUTE).copied().unwrap_or(0);
        if first == 0 {
            return;
        }
        let directory = attribute & DIRECTORY != 0 && attribute & LONG_NAME != LONG_NAME;
        if directory && first != DELETED && first != b'.' {
            found.push((le16(entry, 20) << 16 | le16(entry, 26)) as u32);
        }
    }
}
