//! The orphan list: inodes without names that are still open, or whose truncation is not finished. It is linked
//! through their deletion times from the superblock, and worked off at the next mount.

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::RoCompat;
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::{bytes_at, put32, u32_at};
use crate::types::{FileType, Ino};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// `ob_magic` of the orphan file's blocks.
pub(crate) const ORPHAN_BLOCK_MAGIC: u32 = 0x0B10_CA04;

impl<D: BlockDevice> Fs<D> {
    /// Puts an inode at the list's head. The caller writes the inode.
    pub(crate) fn orphan_add(&mut self, inode: &mut Inode) -> Result<()> {
        inode.set_dtime(self.sb.last_orphan);
        self.sb.last_orphan = inode.ino;
        self.cache.txn.super_dirty = true;
        Ok(())
    }

    /// Takes an inode off the list, if it is on it. The caller writes the inode.
    pub(crate) fn orphan_remove(&mut self, inode: &mut Inode) -> Result<()> {
        let next = inode.dtime();
        if self.sb.last_orphan == inode.ino {
            self.sb.last_orphan = next;
            self.cache.txn.super_dirty = true;
            inode.set_dtime(0);
            return Ok(());
        }
        let mut at = self.sb.last_orphan;
        let mut steps = 0u32;
        while at != 0 {
            let mut prev = self.inode_raw(at)?;
            let after = prev.dtime();
            if after == inode.ino {
                prev.set_dtime(next);
                self.put_inode(&mut prev, true)?;
                inode.set_dtime(0);
                return Ok(());
            }
            at = after;
            steps += 1;
            if steps > self.sb.inodes_count {
                break;
            }
        }
        Err(Error::inode(inode.ino, "the inode is not on the orphan list"))
    }

    /// Frees or truncates every inode that the last user left on the list.
    pub(crate) fn process_orphans(&mut self) -> Result<()> {
        let mut seen: BTreeSet<Ino> = BTreeSet::new();
        while self.sb.last_orphan != 0 {
            let ino = self.sb.last_orphan;
            if !seen.insert(ino) || ino < self.sb.first_ino || ino > self.sb.inodes_count {
                return Err(Error::corrupt("the orphan list is damaged", Place::Inode(ino)));
            }
            self.finish_orphan(ino)?;
            if self.sb.last_orphan == ino {
                self.operation(|fs| {
                    let mut inode = fs.inode_raw(ino)?;
                    fs.orphan_remove(&mut inode)?;
                    fs.put_inode(&mut inode, true)
                })?;
            }
        }
        if self.sb.features.ro_compat.contains(RoCompat::ORPHAN_PRESENT) {
            self.process_orphan_file()?;
        }
        Ok(())
    }

    /// Deletes an inode without links, or frees what lies behind the end of one with links.
    fn finish_orphan(&mut self, ino: Ino) -> Result<()> {
        if !self.inode_in_use(ino)? {
            return Err(Error::inode(ino, "the orphan list names a free inode"));
        }
        let inode = self.inode_raw(ino)?;
        if inode.nlink() == 0 {
            return self.delete_inode(ino);
        }
        if inode.file_type() == Some(FileType::Regular) {
            self.resize(ino, inode.size(), true)?;
        }
        Ok(())
    }

    /// Works off the orphan file, an array of inode numbers that newer kernels use instead of the list.
    fn process_orphan_file(&mut self) -> Result<()> {
        let file = self.inode(self.sb.orphan_file_ino)?;
        let per = (self.bs - 8) / 4;
        let blocks = (file.size() / self.bs as u64).min(self.sb.blocks_count) as u32;
        let mut inos = Vec::new();
        let mut places = Vec::new();
        for lblk in 0..blocks {
            let Some(block) = self.map_block(&file, lblk)? else { continue };
            let data = self.block(block, Kind::Plain)?;
            if u32_at(&data, self.bs - 8) != ORPHAN_BLOCK_MAGIC {
                return Err(Error::inode(file.ino, "a block of the orphan file has a wrong magic"));
            }
            let before = inos.len();
            inos.extend((0..per).map(|i| u32_at(&data, i * 4)).filter(|i| *i != 0));
            if inos.len() > before {
                places.push(block);
            }
        }
        for ino in inos {
            if ino < self.sb.first_ino || ino > self.sb.inodes_count {
                return Err(Error::corrupt("the orphan file is damaged", Place::Inode(ino)));
            }
            // The list is where deletion and truncation expect an orphan.
            self.operation(|fs| {
                let mut inode = fs.inode_raw(ino)?;
                fs.orphan_add(&mut inode)?;
                fs.put_inode(&mut inode, true)
            })?;
            self.finish_orphan(ino)?;
            if self.sb.last_orphan == ino {
                self.operation(|fs| {
                    let mut inode = fs.inode_raw(ino)?;
                    fs.orphan_remove(&mut inode)?;
                    fs.put_inode(&mut inode, true)
                })?;
            }
        }
        self.operation(|fs| {
            for &block in &places {
                fs.init_orphan_block(&file, block)?;
            }
            fs.sb.features.ro_compat.remove(RoCompat::ORPHAN_PRESENT);
            fs.cache.txn.super_dirty = true;
            Ok(())
        })
    }

    /// Makes a block of the orphan file one without entries.
    pub(crate) fn init_orphan_block(&mut self, file: &Inode, block: u64) -> Result<()> {
        let seed = self.inode_seed(file.ino, file.generation());
        let (has_csum, bs) = (self.sb.has_metadata_csum(), self.bs);
        let data = self.block_new(block, Kind::Plain)?;
        put32(data, bs - 8, ORPHAN_BLOCK_MAGIC);
        if has_csum {
            let c = orphan_csum(seed, block, data);
            put32(data, bs - 4, c);
        }
        Ok(())
    }
}

/// Checksum over the entries of a block of the orphan file (`ext4_orphan_file_block_csum_set`).
pub(crate) fn orphan_csum(seed: u32, block: u64, data: &[u8]) -> u32 {
    crc32c(crc32c(seed, &block.to_le_bytes()), bytes_at(data, 0, (data.len() - 8) / 4 * 4))
}
