//! The buffer cache for metadata blocks, and the running transaction that changes them.
//!
//! Every change goes through [`Fs::block_mut`], which saves the block's old contents the first time an operation
//! touches it. A failed operation is rolled back whole, so that no error (a full disk, a corrupt block met half way)
//! leaves half a change in the transaction. Saving is cheap: blocks are reference-counted and copied on write.
//!
//! A buffer is *dirty* while the running transaction holds changes of it, and *waiting* from its commit until its
//! checkpoint. The journal checkpoints only between transactions, so one copy of a block is enough.

use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::fs::Fs;
use crate::group::Group;
use crate::types::Ino;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};
use hashbrown::HashMap;

/// The contents of a block.
pub(crate) type Block = Arc<[u8]>;

/// What a block holds: how its checksum is formed and checked. Numbers are the owning inode's checksum seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No checksum inside the block (superblock, descriptors, inode tables, pointer blocks).
    Plain,
    /// A block bitmap; its checksum is in the group's descriptor.
    BlockBitmap(u32),
    /// An inode bitmap, likewise.
    InodeBitmap(u32),
    /// A directory block with entries.
    Dir(u32),
    /// A directory block with hash-index entries.
    DirIndex(u32),
    /// A node of an extent tree.
    Extent(u32),
    /// An extended attribute block.
    Xattr,
}

/// A cached block.
#[derive(Debug, Clone)]
pub(crate) struct Buf {
    pub(crate) data: Block,
    pub(crate) kind: Kind,
    pub(crate) dirty: bool,
    pub(crate) waiting: bool,
    used: bool,
    op: u64,
    /// Of an inode table's block: the inodes whose checksums were found right, by position (the first 64).
    inodes_ok: u64,
}

/// A fixed multiplicative hash. Block numbers come from the file system, not from an attacker who profits from
/// collisions, and processes that share the cache must agree on the hash (so no per-process random seed).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NumberHash;

#[derive(Debug)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        let x = (self.0 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = x ^ (x >> 32);
    }
}

impl BuildHasher for NumberHash {
    type Hasher = NumberHasher;
    fn build_hasher(&self) -> NumberHasher {
        NumberHasher(0)
    }
}

/// A map keyed by block, group or inode number.
pub(crate) type NumberMap<K, V> = HashMap<K, V, NumberHash>;

/// How to take one step of an operation back.
#[derive(Debug)]
enum Undo {
    Block(u64, Option<Buf>),
    Group(u32, Group),
    Freed(u64, u32),
    Revoke(u64),
}

/// Superblock fields that operations change.
#[derive(Debug, Clone, Copy)]
struct SuperCounters {
    free_blocks: u64,
    free_inodes: u32,
    last_orphan: u32,
    ro_compat: crate::features::RoCompat,
    dirty: bool,
}

/// Changes not yet committed.
#[derive(Debug, Default)]
pub(crate) struct Txn {
    /// Dirty blocks.
    pub(crate) dirty: BTreeSet<u64>,
    /// Groups whose descriptors changed.
    pub(crate) groups: BTreeSet<u32>,
    /// The superblock changed.
    pub(crate) super_dirty: bool,
    /// Former metadata blocks that replay must not restore.
    pub(crate) revoked: BTreeSet<u64>,
    /// Blocks freed, as a bitmap per group: not to be reused before the commit, or a crash would leave the old
    /// owner with the new owner's data.
    pub(crate) freed: BTreeMap<u32, Vec<u8>>,
    /// Inodes changed; `true` if more than times changed.
    pub(crate) inodes: NumberMap<Ino, bool>,
    /// File data was written since the last flush.
    pub(crate) data_written: bool,
}

impl Txn {
    pub(crate) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.groups.is_empty() && !self.super_dirty && self.revoked.is_empty()
    }
}

/// A run of a regular file's written blocks, as a read found it.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    ino: Ino,
    /// The file's size.
    size: u64,
    /// First file block, count, and first device block.
    lblk: u64,
    len: u64,
    start: u64,
}

/// The runs that reads found last. Any operation makes them void.
#[derive(Debug, Default)]
struct Recent {
    op: u64,
    runs: [Seen; 4],
    next: usize,
}

/// The cache, the running transaction and the running operation.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    recent: Recent,
    bufs: NumberMap<u64, Buf>,
    pub(crate) txn: Txn,
    /// Committed blocks that are not in place yet.
    pub(crate) waiting: BTreeSet<u64>,
    undo: Vec<Undo>,
    saved: Option<SuperCounters>,
    op: u64,
    in_op: bool,
}

impl<D: BlockDevice> Fs<D> {
    /// Runs `f` as one atomic operation: all of it joins the running transaction, or, if it fails, none.
    ///
    /// Where space runs out although this transaction freed some, that is committed and `f` run once more.
    pub(crate) fn operation<R>(&mut self, mut f: impl FnMut(&mut Self) -> Result<R>) -> Result<R> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        self.make_room_in_txn()?;
        let mut retried = false;
        loop {
            self.begin();
            match f(self) {
                Ok(r) => {
                    self.end();
                    return Ok(r);
                }
                Err(e) => {
                    self.roll_back();
                    if e == Error::NoSpace && !retried && !self.cache.txn.freed.is_empty() {
                        self.commit()?;
                        retried = true;
                        continue;
                    }
                    return Err(e);
                }
            }
        }
    }

    fn begin(&mut self) {
        let c = &mut self.cache;
        c.op += 1;
        c.in_op = true;
        c.undo.clear();
        c.saved = Some(SuperCounters {
            free_blocks: self.sb.free_blocks,
            free_inodes: self.sb.free_inodes,
            last_orphan: self.sb.last_orphan,
            ro_compat: self.sb.features.ro_compat,
            dirty: c.txn.super_dirty,
        });
    }

    fn end(&mut self) {
        self.cache.in_op = false;
        self.cache.undo.clear();
        self.shrink_cache();
    }

    fn roll_back(&mut self) {
        let c = &mut self.cache;
        c.in_op = false;
        while let Some(u) = c.undo.pop() {
            match u {
                Undo::Block(b, old) => {
                    let (dirty, waiting) = old.as_ref().map_or((false, false), |o| (o.dirty, o.waiting));
                    if dirty {
                        c.txn.dirty.insert(b);
                    } else {
                        c.txn.dirty.remove(&b);
                    }
                    if waiting {
                        c.waiting.insert(b);
                    } else {
                        c.waiting.remove(&b);
                    }
                    match old {
                        Some(o) => c.bufs.insert(b, o),
                        None => c.bufs.remove(&b),
                    };
                }
                Undo::Group(g, old) => {
                    if !old.dirty {
                        c.txn.groups.remove(&g);
                    }
                    if let Some(slot) = self.groups.get_mut(g as usize) {
                        *slot = old;
                    }
                }
                Undo::Freed(start, len) => mark_freed(&self.sb, &mut c.txn.freed, start, len, false),
                Undo::Revoke(b) => {
                    c.txn.revoked.remove(&b);
                }
            }
        }
        if let Some(s) = c.saved.take() {
            self.sb.free_blocks = s.free_blocks;
            self.sb.free_inodes = s.free_inodes;
            self.sb.last_orphan = s.last_orphan;
            self.sb.features.ro_compat = s.ro_compat;
            c.txn.super_dirty = s.dirty;
        }
    }

    /// Fails unless `block` lies inside the file system.
    pub(crate) fn check_block(&self, block: u64) -> Result<()> {
        if block >= u64::from(self.sb.first_data_block) && block < self.sb.blocks_count {
            Ok(())
        } else {
            Err(Error::corrupt("a block number outside the file system", Place::Block(block)))
        }
    }

    /// Byte offset of a block that was checked.
    pub(crate) fn offset_of(&self, block: u64) -> u64 {
        block * self.bs as u64
    }

    fn load(&mut self, block: u64) -> Result<()> {
        if self.cache.bufs.contains_key(&block) {
            return Ok(());
        }
        self.check_block(block)?;
        let mut data = self.zero_block();
        self.dev.read_at(self.offset_of(block), Arc::make_mut(&mut data))?;
        self.cache.bufs.insert(
            block,
            Buf { data, kind: Kind::Plain, dirty: false, waiting: false, used: true, op: 0, inodes_ok: 0 },
        );
        Ok(())
    }

    /// A block of zeros.
    pub(crate) fn zero_block(&self) -> Block {
        core::iter::repeat_n(0u8, self.bs).collect()
    }

    /// A block's contents, checked as `kind` demands the first time it is seen as such.
    pub(crate) fn block(&mut self, block: u64, kind: Kind) -> Result<Block> {
        self.load(block)?;
        let Some(buf) = self.cache.bufs.get_mut(&block) else {
            return Err(Error::corrupt("a block vanished from the cache", Place::Block(block)));
        };
        buf.used = true;
        if kind == buf.kind || kind == Kind::Plain {
            return Ok(buf.data.clone());
        }
        let data = buf.data.clone();
        if buf.dirty || buf.waiting {
            // Its checksum is written at the commit; a second user of a changed block is corruption.
            if buf.kind != Kind::Plain || buf.dirty {
                return Err(Error::corrupt("the block is used for two purposes", Place::Block(block)));
            }
        }
        self.verify(block, kind, &data)?;
        if let Some(buf) = self.cache.bufs.get_mut(&block) {
            buf.kind = kind;
        }
        Ok(data)
    }

    /// Whether the inode at this position of its block has been checked; notes that it has now been.
    pub(crate) fn inode_checked(&mut self, block: u64, position: usize, note: bool) -> bool {
        let Some(bit) = 1u64.checked_shl(position as u32) else {
            return false;
        };
        let Some(b) = self.cache.bufs.get_mut(&block) else {
            return false;
        };
        if note {
            b.inodes_ok |= bit;
        }
        b.inodes_ok & bit != 0
    }

    /// Where on the device the `len` bytes at `offset` of a file lie, if a read has lately found that all are in one run.
    pub(crate) fn recent_place(&self, ino: Ino, offset: u64, len: u64) -> Option<u64> {
        let c = &self.cache;
        if c.recent.op != c.op || c.in_op {
            return None;
        }
        let bs = self.bs as u64;
        let end = offset.checked_add(len)?;
        let holds = |s: &&Seen| s.ino == ino && end <= s.size && offset >= s.lblk * bs && end <= (s.lblk + s.len) * bs;
        c.recent.runs.iter().find(holds).map(|s| s.start * bs + (offset - s.lblk * bs))
    }

    /// Remembers a run for [`Fs::recent_place`].
    pub(crate) fn note_recent(&mut self, ino: Ino, size: u64, lblk: u32, len: u32, start: u64) {
        let c = &mut self.cache;
        if c.in_op {
            return;
        }
        if c.recent.op != c.op {
            c.recent = Recent { op: c.op, ..Recent::default() };
        }
        let (lblk, len) = (u64::from(lblk), u64::from(len));
        if let Some(slot) = c.recent.runs.get_mut(c.recent.next) {
            *slot = Seen { ino, size, lblk, len, start };
        }
        c.recent.next = (c.recent.next + 1) % c.recent.runs.len();
    }

    /// Access for changing a block, which joins the running transaction.
    pub(crate) fn block_mut(&mut self, block: u64, kind: Kind) -> Result<&mut [u8]> {
        self.load(block)?;
        self.dirty_buf(block, kind)
    }

    /// A new metadata block of zeros, not read from the device.
    pub(crate) fn block_new(&mut self, block: u64, kind: Kind) -> Result<&mut [u8]> {
        self.check_block(block)?;
        let fresh = Buf {
            data: self.zero_block(),
            kind,
            dirty: false,
            waiting: false,
            used: true,
            op: self.cache.op,
            inodes_ok: 0,
        };
        let c = &mut self.cache;
        let old = c.bufs.insert(block, fresh);
        c.waiting.remove(&block);
        if c.in_op {
            c.undo.push(Undo::Block(block, old));
        }
        // Replay may restore what the transaction writes to it from now on.
        self.dirty_buf(block, kind)
    }

    fn dirty_buf(&mut self, block: u64, kind: Kind) -> Result<&mut [u8]> {
        let c = &mut self.cache;
        let Some(buf) = c.bufs.get_mut(&block) else {
            return Err(Error::corrupt("a block vanished from the cache", Place::Block(block)));
        };
        if c.in_op && buf.op != c.op {
            c.undo.push(Undo::Block(block, Some(buf.clone())));
            buf.op = c.op;
        }
        buf.kind = kind;
        buf.used = true;
        if !buf.dirty {
            buf.dirty = true;
            c.txn.dirty.insert(block);
        }
        Ok(Arc::make_mut(&mut buf.data))
    }

    /// Drops a freed block's buffer. If it was metadata, replay must not bring its old contents back over whatever
    /// the block is used for next.
    pub(crate) fn forget(&mut self, block: u64, metadata: bool) {
        let c = &mut self.cache;
        if let Some(old) = c.bufs.remove(&block) {
            c.txn.dirty.remove(&block);
            c.waiting.remove(&block);
            if c.in_op {
                c.undo.push(Undo::Block(block, Some(old)));
            }
        }
        if metadata && self.journal.is_some() && c.txn.revoked.insert(block) && c.in_op {
            c.undo.push(Undo::Revoke(block));
        }
    }

    /// Access for changing a group's descriptor.
    pub(crate) fn group_mut(&mut self, group: u32) -> Result<&mut Group> {
        let c = &mut self.cache;
        let Some(g) = self.groups.get_mut(group as usize) else {
            return Err(Error::corrupt("a block group number out of range", Place::Group(group)));
        };
        if c.in_op && g.op != c.op {
            c.undo.push(Undo::Group(group, g.clone()));
            g.op = c.op;
        }
        if !g.dirty {
            g.dirty = true;
            c.txn.groups.insert(group);
        }
        Ok(g)
    }

    /// Notes blocks of one group as freed by the running transaction.
    pub(crate) fn note_freed(&mut self, start: u64, len: u32) {
        if self.journal.is_none() && !self.options.discard {
            return;
        }
        let c = &mut self.cache;
        mark_freed(&self.sb, &mut c.txn.freed, start, len, true);
        if c.in_op {
            c.undo.push(Undo::Freed(start, len));
        }
    }

    /// Keeps a block of the journal, replayed on a mount that writes nothing, in place of the device's.
    pub(crate) fn keep_replayed(&mut self, block: u64, data: Block) {
        let (kind, used, op, inodes_ok) = (Kind::Plain, true, 0, 0);
        self.cache.bufs.insert(block, Buf { data, kind, dirty: false, waiting: true, used, op, inodes_ok });
        self.cache.waiting.insert(block);
    }

    /// Whether the cache holds replayed blocks for any of `len` blocks from `start` on: what is on the device is old.
    pub(crate) fn replayed(&self, start: u64, len: u64) -> bool {
        self.read_only && self.cache.waiting.range(start..start.saturating_add(len)).next().is_some()
    }

    /// Reads file data from byte `offset` of the device, replayed blocks from the cache.
    pub(crate) fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.dev.read_at(offset, buf)?;
        let bs = self.bs as u64;
        let end = offset + buf.len() as u64;
        if !self.replayed(offset / bs, end.div_ceil(bs) - offset / bs) {
            return Ok(());
        }
        for block in self.cache.waiting.range(offset / bs..end.div_ceil(bs)) {
            let Some(data) = self.buffered(*block).map(|buf| &buf.data) else { continue };
            let (from, to) = (offset.max(block * bs), end.min((block + 1) * bs));
            let source = crate::le::bytes_at(data, (from - block * bs) as usize, (to - from) as usize);
            crate::le::put_bytes(buf, (from - offset) as usize, source);
        }
        Ok(())
    }

    /// Replaces a buffer's contents with what has just been written to the device.
    pub(crate) fn replace_contents(&mut self, block: u64, data: Block) {
        if let Some(b) = self.cache.bufs.get_mut(&block) {
            b.data = data;
        }
    }

    /// A block's buffer, if it has one.
    pub(crate) fn buffered(&self, block: u64) -> Option<&Buf> {
        self.cache.bufs.get(&block)
    }

    /// Marks a dirty block as committed (`waiting` for its checkpoint) or, without a journal, as written.
    pub(crate) fn set_committed(&mut self, block: u64, waiting: bool) {
        let c = &mut self.cache;
        c.txn.dirty.remove(&block);
        if let Some(b) = c.bufs.get_mut(&block) {
            b.dirty = false;
            b.waiting = waiting;
        }
        if waiting {
            c.waiting.insert(block);
        } else {
            c.waiting.remove(&block);
        }
    }

    /// Drops clean buffers once there are too many, those not used since the last time first.
    pub(crate) fn shrink_cache(&mut self) {
        let limit = self.options.cache_blocks.max(64);
        let c = &mut self.cache;
        if c.bufs.len().saturating_sub(c.txn.dirty.len() + c.waiting.len()) <= limit {
            return;
        }
        c.bufs.retain(|_, b| b.dirty || b.waiting || core::mem::take(&mut b.used));
        if c.bufs.len().saturating_sub(c.txn.dirty.len() + c.waiting.len()) > limit - limit / 4 {
            c.bufs.retain(|_, b| b.dirty || b.waiting);
        }
    }

    /// Drops every clean buffer (after the device changed underneath: journal replay).
    pub(crate) fn drop_clean(&mut self) {
        self.cache.bufs.retain(|_, b| b.dirty || b.waiting);
    }
}

fn mark_freed(sb: &crate::superblock::Superblock, freed: &mut BTreeMap<u32, Vec<u8>>, start: u64, len: u32, on: bool) {
    let rel = start.saturating_sub(u64::from(sb.first_data_block));
    let group = (rel / u64::from(sb.blocks_per_group)) as u32;
    let first = (rel % u64::from(sb.blocks_per_group)) as u32;
    let bytes = sb.block_size as usize;
    let map = freed.entry(group).or_insert_with(|| alloc::vec![0; bytes]);
    for i in first..first.saturating_add(len) {
        if on {
            crate::bitmap::set(map, i);
        } else {
            crate::bitmap::clear(map, i);
        }
    }
}
