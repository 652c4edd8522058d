//! Committing the running transaction, and checkpointing.

use super::{
    COMMIT, DESCRIPTOR, INCOMPAT_64BIT, INCOMPAT_CSUM_V3, INCOMPAT_REVOKE, Journal, MAGIC, REVOKE, SUPER_V2,
    TAG_ESCAPE, TAG_LAST, TAG_SAME_UUID,
};
use crate::cache::{Block, Kind};
use crate::crc::crc32c;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::Incompat;
use crate::fs::Fs;
use crate::le::{be32_at, bytes_at, put_be16, put_be32, put_bytes, u32_at};
use alloc::vec::Vec;

/// Room a transaction must have left for the next operation. The largest steps (a write of many fragments, a piece
/// of a truncation) end themselves well below it.
const OPERATION_RESERVE: usize = 128;
/// Dirty or waiting blocks at which memory use, not the journal, calls for a commit or a checkpoint.
const MEMORY_LIMIT: usize = 4096;

impl Journal {
    /// Blocks that the log takes for this many logged blocks and revoked numbers.
    fn needed(&self, bs: usize, blocks: usize, revoked: usize) -> usize {
        let tags = (bs - 12 - 16 - 4) / self.tag_size();
        let revokes = (bs - 16 - 4) / self.revoke_size();
        blocks + blocks.div_ceil(tags) + revoked.div_ceil(revokes) + 1
    }

    /// The most blocks a transaction should grow to.
    fn transaction_limit(&self) -> usize {
        self.ring() as usize / 4
    }
}

impl<D: BlockDevice> Fs<D> {
    /// Whether the running transaction is so large that a long operation should end its step.
    pub(crate) fn txn_is_large(&self) -> bool {
        let n = self.cache.txn.dirty.len() + self.cache.txn.groups.len();
        let limit = self.journal.as_ref().map_or(MEMORY_LIMIT, |j| j.transaction_limit().min(MEMORY_LIMIT));
        n + OPERATION_RESERVE.min(limit / 2) > limit
    }

    /// Commits if the next operation might not fit.
    pub(crate) fn make_room_in_txn(&mut self) -> Result<()> {
        if self.txn_is_large() { self.commit() } else { Ok(()) }
    }

    /// Makes the running transaction durable. If that fails the file system takes no more changes: what is on disk
    /// is then consistent as of the last commit.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.cache.txn.is_empty() {
            return Ok(());
        }
        let r = self.commit_inner();
        if r.is_err() {
            self.read_only = true;
        }
        r
    }

    fn commit_inner(&mut self) -> Result<()> {
        self.mark_in_use()?;
        let blocks = self.seal_all()?;
        match self.journal.take() {
            Some(mut j) => {
                let r = self.write_transaction(&mut j, &blocks);
                self.journal = Some(j);
                r?;
                for &(b, _) in &blocks {
                    self.set_committed(b, true);
                }
            }
            None => {
                self.write_in_place(&blocks)?;
                self.dev.flush()?;
                for &(b, _) in &blocks {
                    self.set_committed(b, false);
                }
            }
        }
        let done = core::mem::take(&mut self.cache.txn);
        if self.options.discard {
            self.discard_freed(&done.freed);
        }
        // The blocks it freed can be used from now on.
        for group in done.freed.keys() {
            if let Some(g) = self.groups.get_mut(*group as usize) {
                g.longest_run = u32::MAX;
            }
        }
        let full = self.journal.as_ref().is_some_and(|j| {
            let free = (j.ring() - j.used) as usize;
            free < j.ring() as usize / 2 || self.cache.waiting.len() > MEMORY_LIMIT
        });
        if full { self.checkpoint() } else { Ok(()) }
    }

    /// Brings checksums, descriptors and the superblock up to date; returns all dirty blocks in order.
    fn seal_all(&mut self) -> Result<Vec<(u64, Block)>> {
        let dirty: Vec<u64> = self.cache.txn.dirty.iter().copied().collect();
        for b in dirty {
            if let Some(kind) = self.buffered(b).map(|b| b.kind) {
                self.seal(b, kind)?;
            }
        }
        let size = usize::from(self.sb.desc_size);
        let per = self.sb.descs_per_block();
        let groups: Vec<u32> = self.cache.txn.groups.iter().copied().collect();
        for g in groups {
            let Some(mut group) = self.groups.get(g as usize).cloned() else { continue };
            let block = self.sb.desc_block(g / per);
            let data = self.block(block, Kind::Plain)?;
            let off = (g % per) as usize * size;
            let mut desc = bytes_at(&data, off, size).to_vec();
            group.encode(&self.sb, g, &mut desc);
            put_bytes(self.block_mut(block, Kind::Plain)?, off, &desc);
            group.dirty = false;
            if let Some(slot) = self.groups.get_mut(g as usize) {
                *slot = group;
            }
        }
        self.cache.txn.groups.clear();
        self.log_super()?;
        let numbers: Vec<u64> = self.cache.txn.dirty.iter().copied().collect();
        let mut out = Vec::with_capacity(numbers.len());
        for b in numbers {
            out.push((b, self.block(b, Kind::Plain)?));
        }
        Ok(out)
    }

    /// Writes blocks to their places, neighbours together.
    fn write_in_place(&self, blocks: &[(u64, Block)]) -> Result<()> {
        const BATCH: usize = 1 << 20;
        let mut buf: Vec<u8> = Vec::new();
        let mut start = 0u64;
        for (b, data) in blocks {
            let next = start + (buf.len() / self.bs) as u64;
            if !buf.is_empty() && (*b != next || buf.len() >= BATCH) {
                self.dev.write_at(self.offset_of(start), &buf)?;
                buf.clear();
            }
            if buf.is_empty() {
                start = *b;
            }
            buf.extend_from_slice(data);
        }
        if !buf.is_empty() {
            self.dev.write_at(self.offset_of(start), &buf)?;
        }
        Ok(())
    }

    /// Writes committed blocks to their places and empties the log.
    ///
    /// Runs only between transactions, so that buffers hold exactly what was committed.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        let numbers: Vec<u64> = self.cache.waiting.iter().copied().collect();
        let mut blocks = Vec::with_capacity(numbers.len());
        for b in numbers {
            blocks.push((b, self.block(b, Kind::Plain)?));
        }
        self.write_in_place(&blocks)?;
        self.dev.flush()?;
        for &(b, _) in &blocks {
            self.set_committed(b, false);
        }
        let Some(mut j) = self.journal.take() else {
            return Ok(());
        };
        let r = if j.used > 0 {
            j.used = 0;
            let (head, seq) = (j.head, j.seq);
            // The log must start here before its old blocks are written over.
            self.write_journal_super(&mut j, head, seq).and_then(|()| Ok(self.dev.flush()?))
        } else {
            Ok(())
        };
        self.journal = Some(j);
        r
    }

    /// Marks the log empty, after a checkpoint.
    pub(crate) fn close_journal(&mut self) -> Result<()> {
        let Some(mut j) = self.journal.take() else {
            return Ok(());
        };
        let r = if j.open {
            j.open = false;
            j.head = j.first;
            let seq = j.seq;
            self.write_journal_super(&mut j, 0, seq).and_then(|()| Ok(self.dev.flush()?))
        } else {
            Ok(())
        };
        self.journal = Some(j);
        r
    }

    /// Writes the transaction's blocks to the log, then, once they and the file data before them are durable, the
    /// commit block.
    fn write_transaction(&mut self, j: &mut Journal, blocks: &[(u64, Block)]) -> Result<()> {
        let revoked: Vec<u64> = self.cache.txn.revoked.iter().copied().collect();
        if !j.open {
            if be32_at(&j.sup, 4) == SUPER_V2 {
                if self.sb.features.incompat.contains(Incompat::BIT64) {
                    j.incompat |= INCOMPAT_64BIT;
                }
                if self.sb.has_metadata_csum() {
                    j.incompat = j.incompat & !super::INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3;
                }
                j.incompat = j.incompat & !super::INCOMPAT_ASYNC | INCOMPAT_REVOKE;
                // The older checksum in commit blocks excludes the newer ones.
                let compat = be32_at(&j.sup, 36) & !super::COMPAT_CHECKSUM;
                put_be32(&mut j.sup, 36, compat);
            } else if !revoked.is_empty() {
                return Err(Error::Unsupported {
                    what: alloc::string::String::from("writing to a version 1 journal"),
                    read_only_possible: true,
                });
            }
            let (head, seq) = (j.head, j.seq);
            self.write_journal_super(j, head, seq)?;
            j.open = true;
        }
        let log = self.build_log(j, blocks, &revoked);
        let n = log.len() / self.bs;
        if n + 1 > (j.ring() - j.used) as usize {
            return Err(Error::corrupt("a transaction does not fit the journal", Place::Journal));
        }
        let mut at = j.head;
        let mut done = 0;
        while done < n {
            let (start, run) = j.locate(at)?;
            let k = (run as usize).min(n - done).min((j.maxlen - at) as usize);
            self.dev.write_at(self.offset_of(start), bytes_at(&log, done * self.bs, k * self.bs))?;
            done += k;
            at = j.step(at, k as u32);
        }
        self.dev.flush()?;
        let commit = self.commit_block(j);
        self.dev.write_at(self.offset_of(j.locate(at)?.0), &commit)?;
        self.dev.flush()?;
        j.head = j.step(at, 1);
        j.used += n as u32 + 1;
        j.seq = j.seq.wrapping_add(1);
        Ok(())
    }

    fn commit_block(&self, j: &Journal) -> Vec<u8> {
        let mut b = alloc::vec![0; self.bs];
        put_be32(&mut b, 0, MAGIC);
        put_be32(&mut b, 4, COMMIT);
        put_be32(&mut b, 8, j.seq);
        let sec = self.sb.write_time;
        put_be32(&mut b, 48, (sec >> 32) as u32);
        put_be32(&mut b, 52, (sec & 0xFFFF_FFFF) as u32);
        if j.csum_v2_or_3() {
            let c = crc32c(j.seed, &b);
            put_be32(&mut b, 16, c);
        }
        b
    }

    /// The descriptor, data and revoke blocks of a transaction, one after the other.
    fn build_log(&self, j: &Journal, blocks: &[(u64, Block)], revoked: &[u64]) -> Vec<u8> {
        let bs = self.bs;
        let size = j.tag_size();
        let tail = if j.csum_v2_or_3() { 4 } else { 0 };
        let per_descriptor = (bs - 12 - 16 - tail) / size;
        let mut log = Vec::with_capacity(j.needed(bs, blocks.len(), revoked.len()) * bs);
        let header = |b: &mut [u8], kind| {
            put_be32(b, 0, MAGIC);
            put_be32(b, 4, kind);
            put_be32(b, 8, j.seq);
        };
        for chunk in blocks.chunks(per_descriptor) {
            let mut desc = alloc::vec![0; bs];
            header(&mut desc, DESCRIPTOR);
            let data_start = log.len() + bs;
            log.resize(data_start, 0);
            let mut off = 12;
            for (i, (block, data)) in chunk.iter().enumerate() {
                let at = log.len();
                log.extend_from_slice(data);
                let mut flags = if i == 0 { 0 } else { TAG_SAME_UUID };
                // A logged block that looks like one of the log's own is disguised.
                if u32_at(data, 0) == MAGIC.swap_bytes() {
                    flags |= TAG_ESCAPE;
                    put_be32(&mut log, at, 0);
                }
                if i + 1 == chunk.len() {
                    flags |= TAG_LAST;
                }
                let csum = j.data_csum(j.seq, bytes_at(&log, at, bs));
                put_be32(&mut desc, off, (block & 0xFFFF_FFFF) as u32);
                if j.incompat & INCOMPAT_CSUM_V3 != 0 {
                    put_be32(&mut desc, off + 4, flags);
                    put_be32(&mut desc, off + 8, (block >> 32) as u32);
                    put_be32(&mut desc, off + 12, csum);
                } else {
                    if j.csum_v2_or_3() {
                        put_be16(&mut desc, off + 4, (csum & 0xFFFF) as u16);
                    }
                    put_be16(&mut desc, off + 6, flags as u16);
                    if j.incompat & INCOMPAT_64BIT != 0 {
                        put_be32(&mut desc, off + 8, (block >> 32) as u32);
                    }
                }
                off += size;
                if i == 0 {
                    put_bytes(&mut desc, off, bytes_at(&j.sup, 48, 16));
                    off += 16;
                }
            }
            if tail != 0 {
                let c = j.tail_csum(&desc);
                put_be32(&mut desc, bs - 4, c);
            }
            put_bytes(&mut log, data_start - bs, &desc);
        }
        let rsize = j.revoke_size();
        for chunk in revoked.chunks((bs - 16 - tail) / rsize) {
            let mut b = alloc::vec![0; bs];
            header(&mut b, REVOKE);
            put_be32(&mut b, 12, (16 + chunk.len() * rsize) as u32);
            for (i, block) in chunk.iter().enumerate() {
                let off = 16 + i * rsize;
                if rsize == 8 {
                    put_be32(&mut b, off, (block >> 32) as u32);
                    put_be32(&mut b, off + 4, (block & 0xFFFF_FFFF) as u32);
                } else {
                    put_be32(&mut b, off, (block & 0xFFFF_FFFF) as u32);
                }
            }
            if tail != 0 {
                let c = j.tail_csum(&b);
                put_be32(&mut b, bs - 4, c);
            }
            log.extend_from_slice(&b);
        }
        log
    }
}
