//! Whether a file system is sound enough to be changed, and what its boot sector says.

use std::collections::HashMap;

use ext4::BlockDevice;

use super::image::FatInfo;
use super::{Root, Volume, damaged, le32};
use crate::Error;

/// Which clusters are taken, a bit for each.
struct Taken(Vec<u64>);

impl Taken {
    /// Takes a cluster; false if it was taken before.
    fn take(&mut self, cluster: u32) -> bool {
        let Some(word) = self.0.get_mut((cluster / 64) as usize) else { return false };
        let bit = 1 << (cluster % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

impl Volume {
    /// Follows every chain from the root on. A changer must not meet what is damaged: it could hand out clusters that
    /// are in use.
    ///
    /// # Errors
    /// A chain leads nowhere, has not the length of its file, or shares a cluster with another one; the copies of the
    /// table differ.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.compare_tables()?;
        let mut taken = Taken(vec![0; (self.clusters as usize + 2).div_ceil(64)]);
        if let Root::Chain(first) = self.root {
            self.take_chain(first, u64::from(self.clusters), &mut taken)?;
        }
        // First clusters, and whether the parent is the root.
        let mut waiting = vec![0];
        while let Some(first) = waiting.pop() {
            let mut names = HashMap::new();
            for entry in self.directory(first)?.entries() {
                if let Some(size) = names.insert(entry.short, entry.size) {
                    return Err(damaged(format_args!("two files of one name, of {size} and {} bytes", entry.size)));
                }
                if entry.is_directory() {
                    self.take_chain(entry.cluster, u64::from(self.clusters), &mut taken)?;
                    waiting.push(entry.cluster);
                } else if (entry.cluster, entry.size) != (0, 0) {
                    let need = u64::from(entry.size).div_ceil(self.cluster);
                    let found = self.take_chain(entry.cluster, need, &mut taken)?;
                    if found < need {
                        return Err(damaged(format_args!("{} has too few clusters for its size", entry.name)));
                    }
                }
            }
        }
        Ok(())
    }

    fn take_chain(&mut self, first: u32, most: u64, taken: &mut Taken) -> Result<u64, Error> {
        let mut count = 0;
        for (first, len) in self.chain(first, most)? {
            for cluster in first..first + len {
                if !taken.take(cluster) {
                    return Err(damaged(format_args!("cluster {cluster} is part of two files")));
                }
            }
            count += u64::from(len);
        }
        Ok(count)
    }

    fn compare_tables(&mut self) -> Result<(), Error> {
        const PIECE: u64 = 1 << 20;
        let [first, second] = self.fats[..] else { return Ok(()) };
        let len = (u64::from(self.clusters) + 2) * u64::from(self.bits) / 8;
        let mut at = 0;
        while at < len {
            let piece = (len - at).min(PIECE);
            if self.read(first + at, piece)? != self.read(second + at, piece)? {
                return Err(damaged("the two copies of the allocation table differ"));
            }
            at += piece;
        }
        Ok(())
    }

    pub(super) fn info(&mut self) -> Result<FatInfo, Error> {
        let free = self.count_free()?;
        let extended = if self.bits == 32 { 64 } else { 36 };
        let id = le32(&self.boot, extended + 3);
        let in_boot = String::from_utf8_lossy(self.boot.get(extended + 7..extended + 18).unwrap_or_default());
        let in_boot = Some(in_boot.trim_end().to_owned()).filter(|label| label != "NO NAME");
        let label = self.label()?.or(in_boot).filter(|label| !label.is_empty());
        // Bit 0 of the reserved byte, and the second entry's topmost bit but in FAT12, say so.
        let (at, len, clean) = match self.bits {
            12 => (0, 2, 0),
            16 => (2, 2, 1 << 15),
            _ => (4, 4, 1 << 27),
        };
        let marked = self.table(at, len)? & clean != clean;
        let dirty = marked || self.boot.get(extended + 1).is_some_and(|flags| flags & 1 != 0);
        Ok(FatInfo {
            kind: format!("FAT{}", self.bits),
            label,
            id: format!("{:04X}-{:04X}", id >> 16, id & 0xffff),
            file_size: self.disk.size(),
            size: u64::from(self.clusters) * self.cluster,
            free: u64::from(free) * self.cluster,
            cluster_size: self.cluster,
            clusters: self.clusters,
            clusters_free: free,
            state: if dirty { "not clean" } else { "clean" }.to_owned(),
        })
    }
}
