//! The jbd2 journal (Linux `Documentation/filesystems/ext4/journal.rst`): its superblock and where its blocks lie.
//!
//! All numbers in it are big-endian. The log is a ring of blocks from `first` to `maxlen`; a transaction is a run of
//! descriptor blocks with the logged blocks behind each, revoke blocks, and a commit block.

mod commit;
mod recover;

use crate::crc::crc32c;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::fs::Fs;
use crate::le::{be32_at, bytes_at, put_be32, u8_at};
use crate::map::Run;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

const MAGIC: u32 = 0xC03B_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPER_V1: u32 = 3;
const SUPER_V2: u32 = 4;
const REVOKE: u32 = 5;

const TAG_ESCAPE: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

const COMPAT_CHECKSUM: u32 = 1;
const INCOMPAT_REVOKE: u32 = 1;
const INCOMPAT_64BIT: u32 = 2;
const INCOMPAT_ASYNC: u32 = 4;
const INCOMPAT_CSUM_V2: u32 = 8;
const INCOMPAT_CSUM_V3: u32 = 16;
const INCOMPAT_FAST_COMMIT: u32 = 32;

/// A journal inside the file system.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    /// Its superblock, 1024 bytes.
    sup: Vec<u8>,
    /// Where its blocks lie: first journal block, first device block, length.
    runs: Vec<(u32, u64, u32)>,
    /// Blocks in use of the journal, the superblock included.
    maxlen: u32,
    /// First block of the ring.
    first: u32,
    /// Next block of the log to write.
    head: u32,
    /// Blocks between the oldest transaction that is not checkpointed and the head.
    used: u32,
    /// Sequence number of the next transaction.
    seq: u32,
    /// The superblock on the device says where the log starts.
    open: bool,
    incompat: u32,
    seed: u32,
}

impl Journal {
    /// Blocks of the whole journal.
    pub(crate) fn len(&self) -> u32 {
        self.maxlen
    }

    /// Blocks of the ring.
    fn ring(&self) -> u32 {
        self.maxlen - self.first
    }

    /// The block of the ring `n` after `at`.
    fn step(&self, at: u32, n: u32) -> u32 {
        let rel = (u64::from(at - self.first) + u64::from(n)) % u64::from(self.ring());
        self.first + rel as u32
    }

    /// The device block behind a journal block, and how many blocks follow it in a row.
    fn locate(&self, jblk: u32) -> Result<(u64, u32)> {
        let i = self.runs.partition_point(|&(l, _, _)| l <= jblk);
        match i.checked_sub(1).and_then(|i| self.runs.get(i)) {
            Some(&(l, start, len)) if jblk - l < len => Ok((start + u64::from(jblk - l), len - (jblk - l))),
            _ => Err(Error::corrupt("the journal has a hole", Place::Journal)),
        }
    }

    fn csum_v2_or_3(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    /// Bytes of a tag in a descriptor block, without the UUID.
    fn tag_size(&self) -> usize {
        if self.incompat & INCOMPAT_CSUM_V3 != 0 {
            return 16;
        }
        let mut n = 8;
        if self.incompat & INCOMPAT_CSUM_V2 != 0 {
            n += 2;
        }
        if self.incompat & INCOMPAT_64BIT != 0 {
            n += 4;
        }
        n
    }

    /// Bytes of a block number in a revoke block.
    fn revoke_size(&self) -> usize {
        if self.incompat & INCOMPAT_64BIT != 0 { 8 } else { 4 }
    }

    /// Checksum over a block of the log whose last four bytes hold it.
    fn tail_csum(&self, data: &[u8]) -> u32 {
        crc32c(crc32c(self.seed, bytes_at(data, 0, data.len() - 4)), &[0; 4])
    }

    /// Checksum over a logged block, as its tag holds it.
    fn data_csum(&self, seq: u32, data: &[u8]) -> u32 {
        crc32c(crc32c(self.seed, &seq.to_be_bytes()), data)
    }

    /// The superblock's bytes for a log that starts at `start` (0: empty) with transaction `seq`.
    fn encode_super(&mut self, start: u32, seq: u32) -> &[u8] {
        put_be32(&mut self.sup, 24, seq);
        put_be32(&mut self.sup, 28, start);
        if be32_at(&self.sup, 4) == SUPER_V2 {
            put_be32(&mut self.sup, 40, self.incompat);
            if self.csum_v2_or_3() {
                if let Some(t) = self.sup.get_mut(80) {
                    *t = 4;
                }
                let c = super_csum(&self.sup);
                put_be32(&mut self.sup, 252, c);
            }
        }
        &self.sup
    }
}

fn super_csum(sup: &[u8]) -> u32 {
    let c = crc32c(!0, bytes_at(sup, 0, 252));
    crc32c(crc32c(c, &[0; 4]), bytes_at(sup, 256, 768))
}

impl<D: BlockDevice> Fs<D> {
    /// Finds the journal and checks its superblock.
    pub(crate) fn load_journal(&mut self) -> Result<Journal> {
        let bad = |what| Err(Error::corrupt(what, Place::Journal));
        let unsupported = |what| Err(Error::Unsupported { what, read_only_possible: false });
        if self.sb.journal_ino == 0 {
            return unsupported("the journal is on another device (has_journal without an inode)".to_string());
        }
        let inode = self.inode(self.sb.journal_ino)?;
        if inode.nlink() == 0 || inode.file_type() != Some(crate::types::FileType::Regular) {
            return bad("the journal's inode is not a regular file");
        }
        let blocks = u32::try_from(inode.size() / self.bs as u64).unwrap_or(u32::MAX);
        if u64::from(blocks) > self.sb.blocks_count {
            return bad("the journal is larger than the file system");
        }
        let mut runs: Vec<(u32, u64, u32)> = Vec::new();
        let mut at = 0;
        while at < blocks {
            let Run { start: Some(start), len, unwritten: false } = self.map_run(&inode, at, blocks - at)? else {
                return bad("the journal has a hole");
            };
            match runs.last_mut() {
                Some((_, s, n)) if *s + u64::from(*n) == start => *n += len,
                _ => runs.push((at, start, len)),
            }
            at += len;
        }
        let Some(&(_, start, _)) = runs.first() else {
            return bad("the journal is empty");
        };
        let mut sup = alloc::vec![0; 1024];
        self.dev.read_at(self.offset_of(start), &mut sup)?;
        let kind = be32_at(&sup, 4);
        if be32_at(&sup, 0) != MAGIC || (kind != SUPER_V1 && kind != SUPER_V2) {
            return bad("the journal's superblock has a wrong magic or type");
        }
        if be32_at(&sup, 12) != self.sb.block_size {
            return bad("the journal's block size is not the file system's");
        }
        let (maxlen, first) = (be32_at(&sup, 16), be32_at(&sup, 20));
        if maxlen > blocks || maxlen < 64 || first == 0 || first >= maxlen - 32 {
            return bad("the journal's length or first block is out of range");
        }
        let incompat = if kind == SUPER_V2 { be32_at(&sup, 40) } else { 0 };
        let known = INCOMPAT_REVOKE
            | INCOMPAT_64BIT
            | INCOMPAT_ASYNC
            | INCOMPAT_CSUM_V2
            | INCOMPAT_CSUM_V3
            | INCOMPAT_FAST_COMMIT;
        if incompat & !known != 0 {
            return unsupported(format!("journal features 0x{:x}", incompat & !known));
        }
        if incompat & INCOMPAT_CSUM_V2 != 0 && incompat & INCOMPAT_CSUM_V3 != 0 {
            return bad("the journal has checksum versions 2 and 3 at once");
        }
        if incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
            && (u8_at(&sup, 80) != 4 || super_csum(&sup) != be32_at(&sup, 252))
        {
            return bad("the journal superblock's checksum does not match its contents");
        }
        if incompat & INCOMPAT_FAST_COMMIT != 0 && be32_at(&sup, 28) != 0 {
            return unsupported("replay of a journal with fast commits (run e2fsck on the image)".to_string());
        }
        let seed = crc32c(!0, bytes_at(&sup, 48, 16));
        let seq = be32_at(&sup, 24);
        Ok(Journal { sup, runs, maxlen, first, head: first, used: 0, seq, open: false, incompat, seed })
    }
}
