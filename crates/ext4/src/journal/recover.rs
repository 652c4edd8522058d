//! Replay of committed transactions after a crash.

use super::{
    COMMIT, COMPAT_CHECKSUM, DESCRIPTOR, INCOMPAT_64BIT, INCOMPAT_CSUM_V2, INCOMPAT_CSUM_V3, Journal, MAGIC, REVOKE,
    TAG_ESCAPE, TAG_LAST, TAG_SAME_UUID,
};
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::fs::Fs;
use crate::le::{be16_at, be32_at, put_be32};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A logged block.
struct Tag {
    /// The block it belongs to.
    block: u64,
    /// The journal block that holds its contents.
    at: u32,
    /// Its first four bytes were the journal's magic, and have been zeroed in the log.
    escaped: bool,
    /// Its checksum: 32 bits with version 3, the lower 16 with version 2.
    csum: u32,
}

impl Journal {
    /// The tags of a descriptor block, with the journal blocks that follow it; `None` if it is malformed.
    fn parse_tags(&self, data: &[u8], descriptor_at: u32) -> Option<Vec<Tag>> {
        let size = self.tag_size();
        let end = data.len() - if self.csum_v2_or_3() { 4 } else { 0 };
        let (mut off, mut at) = (12, descriptor_at);
        let mut tags = Vec::new();
        while off + size <= end {
            let v3 = self.incompat & INCOMPAT_CSUM_V3 != 0;
            let (flags, csum) = if v3 {
                (be32_at(data, off + 4), be32_at(data, off + 12))
            } else {
                (u32::from(be16_at(data, off + 6)), u32::from(be16_at(data, off + 4)))
            };
            let mut block = u64::from(be32_at(data, off));
            if self.incompat & INCOMPAT_64BIT != 0 {
                block |= u64::from(be32_at(data, off + 8)) << 32;
            }
            at = self.step(at, 1);
            tags.push(Tag { block, at, escaped: flags & TAG_ESCAPE != 0, csum });
            off += size;
            if flags & TAG_SAME_UUID == 0 {
                off += 16;
            }
            if flags & TAG_LAST != 0 {
                return Some(tags);
            }
            if tags.len() as u32 > self.maxlen {
                return None;
            }
        }
        Some(tags)
    }
}

impl<D: BlockDevice> Fs<D> {
    pub(super) fn read_log(&self, j: &Journal, at: u32) -> Result<Vec<u8>> {
        let mut data = alloc::vec![0; self.bs];
        self.dev.read_at(self.offset_of(j.locate(at)?.0), &mut data)?;
        Ok(data)
    }

    /// Copies every block of every committed transaction to its place, then marks the log empty. Where nothing may be
    /// written, the blocks stay in the cache instead, in front of what is on the device.
    pub(crate) fn replay(&mut self, j: &mut Journal, in_place: bool) -> Result<()> {
        let start = be32_at(&j.sup, 28);
        if start == 0 {
            return if in_place { self.finish_replay(j) } else { Ok(()) };
        }
        if start < j.first || start >= j.maxlen {
            return Err(Error::corrupt("the journal's start lies outside its log", Place::Journal));
        }
        let mut at = start;
        let mut seq = be32_at(&j.sup, 24);
        let mut left = j.ring();
        // Blocks not to be restored, with the last transaction that said so; and what to restore, oldest first.
        let mut revoked: BTreeMap<u64, u32> = BTreeMap::new();
        let mut restore: Vec<(u32, Vec<Tag>)> = Vec::new();
        let mut pending: Vec<Tag> = Vec::new();
        let mut pending_revokes: Vec<u64> = Vec::new();
        while left > 0 {
            let data = self.read_log(j, at)?;
            if be32_at(&data, 0) != MAGIC || be32_at(&data, 8) != seq {
                break;
            }
            match be32_at(&data, 4) {
                DESCRIPTOR => {
                    if j.csum_v2_or_3() && be32_at(&data, data.len() - 4) != j.tail_csum(&data) {
                        break;
                    }
                    let Some(tags) = j.parse_tags(&data, at) else { break };
                    let n = tags.len() as u32 + 1;
                    if n > left {
                        break;
                    }
                    left -= n;
                    at = j.step(at, n);
                    pending.extend(tags);
                }
                REVOKE => {
                    if j.csum_v2_or_3() && be32_at(&data, data.len() - 4) != j.tail_csum(&data) {
                        break;
                    }
                    let size = j.revoke_size();
                    let end = (be32_at(&data, 12) as usize).min(data.len());
                    let mut off = 16;
                    while off + size <= end {
                        pending_revokes.push(if size == 8 {
                            u64::from(be32_at(&data, off)) << 32 | u64::from(be32_at(&data, off + 4))
                        } else {
                            u64::from(be32_at(&data, off))
                        });
                        off += size;
                    }
                    left -= 1;
                    at = j.step(at, 1);
                }
                COMMIT => {
                    if !self.commit_is_valid(j, &data, seq, &pending)? {
                        break;
                    }
                    for b in pending_revokes.drain(..) {
                        revoked.insert(b, seq);
                    }
                    restore.push((seq, core::mem::take(&mut pending)));
                    seq = seq.wrapping_add(1);
                    left -= 1;
                    at = j.step(at, 1);
                }
                _ => break,
            }
        }
        for (tid, tags) in &restore {
            for t in tags {
                // Sequence numbers wrap: compare by difference.
                if revoked.get(&t.block).is_some_and(|r| r.wrapping_sub(*tid).cast_signed() >= 0) {
                    continue;
                }
                self.check_block(t.block)?;
                let mut data = self.read_log(j, t.at)?;
                let csum = j.data_csum(*tid, &data);
                let matches = if j.incompat & INCOMPAT_CSUM_V3 != 0 {
                    csum == t.csum
                } else {
                    j.incompat & INCOMPAT_CSUM_V2 == 0 || csum & 0xFFFF == t.csum
                };
                if !matches {
                    return Err(Error::corrupt("a block in the journal does not match its checksum", Place::Journal));
                }
                if t.escaped {
                    put_be32(&mut data, 0, MAGIC);
                }
                if in_place {
                    self.dev.write_at(self.offset_of(t.block), &data)?;
                } else {
                    self.keep_replayed(t.block, data.into());
                }
            }
        }
        if !in_place {
            return Ok(());
        }
        // One more than any number in the log, so that what is left of it is not taken for a new transaction.
        j.seq = seq.wrapping_add(1);
        self.finish_replay(j)
    }

    /// Whether a commit block is intact, and (with the old whole-transaction checksum) all that it commits.
    fn commit_is_valid(&self, j: &Journal, data: &[u8], _seq: u32, pending: &[Tag]) -> Result<bool> {
        if j.csum_v2_or_3() {
            let mut copy = data.to_vec();
            put_be32(&mut copy, 16, 0);
            return Ok(crate::crc::crc32c(j.seed, &copy) == be32_at(data, 16));
        }
        if be32_at(&j.sup, 36) & COMPAT_CHECKSUM != 0 && j.incompat & super::INCOMPAT_ASYNC != 0 {
            // With an asynchronous commit the blocks may be missing although the commit block is there. Its CRC-32
            // covers them; without it in hand, a block that is a stale part of the log shows by its magic.
            for t in pending {
                let block = self.read_log(j, t.at)?;
                if !t.escaped && be32_at(&block, 0) == MAGIC {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn finish_replay(&mut self, j: &mut Journal) -> Result<()> {
        self.dev.flush()?;
        let seq = j.seq;
        self.write_journal_super(j, 0, seq)?;
        self.dev.flush()?;
        // The replayed superblock may lack changes that the one in memory does not have either: work on its bytes.
        let mut sb = crate::superblock::Superblock::read(&self.dev)?;
        sb.features.incompat.remove(crate::features::Incompat::RECOVER);
        let raw = sb.encode();
        self.dev.write_at(crate::superblock::SUPER_OFFSET, &raw)?;
        self.dev.flush()?;
        Ok(())
    }

    /// Writes the journal's superblock.
    pub(super) fn write_journal_super(&self, j: &mut Journal, start: u32, seq: u32) -> Result<()> {
        let at = self.offset_of(j.locate(0)?.0);
        let raw = j.encode_super(start, seq);
        self.dev.write_at(at, raw)?;
        Ok(())
    }
}
