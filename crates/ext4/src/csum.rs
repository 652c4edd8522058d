//! Checksums inside metadata blocks (Linux `Documentation/filesystems/ext4/checksums.rst`).

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::fs::Fs;
use crate::le::{bytes_at, put32, u8_at, u16_at, u32_at};

/// Bytes of the fake entry at a directory block's end that holds its checksum.
pub(crate) const DIR_TAIL: usize = 12;

/// Where the count and limit of an index block lie: after the fake entry of a node, or after `.`, `..` and the
/// root's information.
pub(crate) fn index_count_offset(data: &[u8]) -> Option<usize> {
    let bs = data.len();
    if rec_len(data, 0, bs) == bs && u32_at(data, 0) == 0 {
        return Some(8);
    }
    if rec_len(data, 0, bs) == 12 && rec_len(data, 12, bs) == bs - 12 && u8_at(data, 29) == 8 {
        return Some(32);
    }
    None
}

/// A directory entry's length; with 64 KiB blocks the two low bits extend it.
pub(crate) fn rec_len(data: &[u8], off: usize, bs: usize) -> usize {
    let n = usize::from(u16_at(data, off + 4));
    if bs < 65536 {
        n
    } else if n == 65535 || n == 0 {
        bs
    } else {
        (n & 65532) | ((n & 3) << 16)
    }
}

fn dir_csum(seed: u32, data: &[u8]) -> u32 {
    crc32c(seed, bytes_at(data, 0, data.len() - DIR_TAIL))
}

/// Checksum of an index block and the place it is stored at.
fn index_csum(seed: u32, data: &[u8]) -> Option<(usize, u32)> {
    let off = index_count_offset(data)?;
    let limit = usize::from(u16_at(data, off));
    let count = usize::from(u16_at(data, off + 2));
    let tail = off + limit * 8;
    if count > limit || tail + 8 > data.len() {
        return None;
    }
    let c = crc32c(seed, bytes_at(data, 0, off + count * 8));
    let c = crc32c(c, bytes_at(data, tail, 4));
    Some((tail + 4, crc32c(c, &[0; 4])))
}

fn extent_csum(seed: u32, data: &[u8]) -> (usize, u32) {
    let tail = (12 + 12 * usize::from(u16_at(data, 4))).min(data.len() - 4);
    (tail, crc32c(seed, bytes_at(data, 0, tail)))
}

fn xattr_csum(fs_seed: u32, block: u64, data: &[u8]) -> u32 {
    let c = crc32c(fs_seed, &block.to_le_bytes());
    let c = crc32c(c, bytes_at(data, 0, 16));
    let c = crc32c(c, &[0; 4]);
    crc32c(c, bytes_at(data, 20, data.len() - 20))
}

/// Stores the checksum of a directory block with entries.
pub(crate) fn seal_directory(seed: u32, data: &mut [u8]) {
    let at = data.len() - DIR_TAIL + 8;
    let c = dir_csum(seed, data);
    put32(data, at, c);
}

/// Stores the checksum of an index block.
pub(crate) fn seal_index(seed: u32, data: &mut [u8]) {
    if let Some((at, c)) = index_csum(seed, data) {
        put32(data, at, c);
    }
}

impl<D: BlockDevice> Fs<D> {
    /// The checksum seed of an inode and all blocks it owns.
    pub(crate) fn inode_seed(&self, ino: u32, generation: u32) -> u32 {
        crc32c(crc32c(self.sb.csum_seed, &ino.to_le_bytes()), &generation.to_le_bytes())
    }

    fn bitmap_csum(&self, bits: u32, data: &[u8]) -> u32 {
        let c = crc32c(self.sb.csum_seed, bytes_at(data, 0, (bits / 8) as usize));
        if self.sb.desc_size >= 64 { c } else { c & 0xFFFF }
    }

    /// Checks a block's checksum.
    pub(crate) fn verify(&self, block: u64, kind: Kind, data: &[u8]) -> Result<()> {
        if !self.sb.has_metadata_csum() {
            return Ok(());
        }
        let bad = |what| Err(Error::corrupt(what, Place::Block(block)));
        let group = |g: u32| self.groups.get(g as usize);
        match kind {
            Kind::Plain => Ok(()),
            Kind::BlockBitmap(g) => {
                let want = group(g).map(|g| g.block_bitmap_csum);
                if want == Some(self.bitmap_csum(self.sb.clusters_per_group(), data)) {
                    return Ok(());
                }
                bad("the block bitmap's checksum does not match its contents")
            }
            Kind::InodeBitmap(g) => {
                let want = group(g).map(|g| g.inode_bitmap_csum);
                if want == Some(self.bitmap_csum(self.sb.inodes_per_group, data)) {
                    return Ok(());
                }
                bad("the inode bitmap's checksum does not match its contents")
            }
            Kind::Dir(seed) => {
                let t = data.len() - DIR_TAIL;
                if u32_at(data, t) != 0 || u16_at(data, t + 4) != 12 || u16_at(data, t + 6) != 0xDE00 {
                    return bad("the directory block has no checksum entry at its end");
                }
                if u32_at(data, t + 8) != dir_csum(seed, data) {
                    return bad("the directory block's checksum does not match its contents");
                }
                Ok(())
            }
            Kind::DirIndex(seed) => match index_csum(seed, data) {
                Some((at, c)) if u32_at(data, at) == c => Ok(()),
                _ => bad("the directory index block's checksum does not match its contents"),
            },
            Kind::Extent(seed) => {
                let (at, c) = extent_csum(seed, data);
                if u32_at(data, at) == c { Ok(()) } else { bad("the extent block's checksum does not match") }
            }
            Kind::Xattr => {
                if u32_at(data, 16) == xattr_csum(self.sb.csum_seed, block, data) {
                    return Ok(());
                }
                bad("the extended attribute block's checksum does not match its contents")
            }
        }
    }

    /// Brings a changed block's checksum up to date, before it is committed.
    pub(crate) fn seal(&mut self, block: u64, kind: Kind) -> Result<()> {
        if !self.sb.has_metadata_csum() {
            return Ok(());
        }
        match kind {
            Kind::Plain => {}
            Kind::BlockBitmap(g) => {
                let data = self.block(block, Kind::Plain)?;
                let c = self.bitmap_csum(self.sb.clusters_per_group(), &data);
                self.group_mut(g)?.block_bitmap_csum = c;
            }
            Kind::InodeBitmap(g) => {
                let data = self.block(block, Kind::Plain)?;
                let c = self.bitmap_csum(self.sb.inodes_per_group, &data);
                self.group_mut(g)?.inode_bitmap_csum = c;
            }
            Kind::Dir(seed) => seal_directory(seed, self.block_mut(block, kind)?),
            Kind::DirIndex(seed) => seal_index(seed, self.block_mut(block, kind)?),
            Kind::Extent(seed) => {
                let data = self.block_mut(block, kind)?;
                let (at, c) = extent_csum(seed, data);
                put32(data, at, c);
            }
            Kind::Xattr => {
                let fs_seed = self.sb.csum_seed;
                let data = self.block_mut(block, kind)?;
                let c = xattr_csum(fs_seed, block, data);
                put32(data, 16, c);
            }
        }
        Ok(())
    }
}
