//! Writing files, and changing where they have blocks.
//!
//! Data goes to the device at once; only what makes it reachable waits in the transaction.

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::Incompat;
use crate::fs::Fs;
use crate::inode::{FL_EXTENTS, FL_INLINE_DATA, Inode, Time};
use crate::le::bytes_at;
use crate::map::{MAX_FILE_BLOCKS, Run};
use crate::types::{FallocateMode, Ino, Mapping, Timestamp};
use alloc::vec::Vec;

/// The most bytes one operation writes.
const CHUNK: usize = 64 << 20;
/// What fills up the last block of a file, and the first one where the data begins inside it.
static PADDING: [u8; 4096] = [0; 4096];
/// Bytes of zeros written at a time.
const ZEROS: usize = 64 << 10;

impl<D: BlockDevice> Fs<D> {
    /// Writes to a regular file at `offset`, extending it as needed; sets `mtime` and `ctime` to `now`. Returns how
    /// many bytes were written: fewer than given only if space ran out after the first part.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooBig`], [`Error::IsDirectory`], [`Error::Invalid`] for other types,
    /// [`Error::ReadOnly`], [`Error::NotFound`], [`Error::Corrupt`], [`Error::Io`].
    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8], now: Timestamp) -> Result<usize> {
        let mut done = 0;
        let mut chunk = CHUNK;
        while done < data.len() {
            let at = offset.checked_add(done as u64).ok_or(Error::TooBig)?;
            // Parts end where blocks end: one that ran out of space in its second block would have written its first.
            let skip = (at % self.bs as u64) as usize;
            let part = bytes_at(data, done, chunk - skip);
            match self.operation(|fs| fs.write_step(ino, at, part, now)) {
                Ok(n) => done += n,
                // As much as fits is written, down to single blocks.
                Err(Error::NoSpace) if skip + part.len() > self.bs => {
                    chunk = ((skip + part.len()) / 2).next_multiple_of(self.bs);
                }
                Err(Error::NoSpace | Error::TooBig) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_step(&mut self, ino: Ino, offset: u64, data: &[u8], now: Timestamp) -> Result<usize> {
        let mut inode = self.inode(ino)?;
        Self::check_regular(&inode)?;
        let end = offset.checked_add(data.len() as u64).ok_or(Error::TooBig)?;
        let max = self.max_size(&inode);
        if offset >= max {
            return Err(Error::TooBig);
        }
        let data = bytes_at(data, 0, usize::try_from(end.min(max) - offset).unwrap_or(usize::MAX));
        let mut changed = self.leave_inode(&mut inode)?;
        if offset > inode.size() {
            self.zero_tail(&inode, offset)?;
        }
        let n = self.write_runs(&mut inode, offset, data, &mut changed)?;
        let end = offset + n as u64;
        if end > inode.size() {
            inode.set_size(end);
            self.note_size(end);
            changed = true;
        }
        self.put_modified(&mut inode, now, changed)?;
        Ok(n)
    }

    /// Writes data, allocating where the file has none. Ends early when the transaction has grown large.
    fn write_runs(&mut self, inode: &mut Inode, offset: u64, data: &[u8], changed: &mut bool) -> Result<usize> {
        let bs = self.bs as u64;
        let mut done = 0;
        while done < data.len() {
            if done > 0 && self.txn_is_large() {
                break;
            }
            let Some((lblk, skip)) = self.split(offset + done as u64) else { break };
            let left = data.len() - done;
            let blocks = ((left + skip) as u64).div_ceil(bs).min(MAX_FILE_BLOCKS - u64::from(lblk)) as u32;
            let run = self.map_run(inode, lblk, blocks)?;
            let span = |len: u32| usize::try_from(u64::from(len) * bs - skip as u64).unwrap_or(usize::MAX).min(left);
            let n = match run {
                Run { start: Some(start), unwritten: false, len } => {
                    let n = span(len);
                    self.dev.write_at(start * bs + skip as u64, bytes_at(data, done, n))?;
                    n
                }
                Run { start: Some(start), len, .. } => {
                    let n = span(len);
                    self.write_padded(start, len, skip, bytes_at(data, done, n))?;
                    self.mark_written(inode, lblk, len)?;
                    *changed = true;
                    n
                }
                Run { len, .. } => {
                    let (start, len) = self.fill_hole(inode, lblk, len, false)?;
                    let n = span(len);
                    self.write_padded(start, len, skip, bytes_at(data, done, n))?;
                    *changed = true;
                    n
                }
            };
            self.cache.txn.data_written = true;
            done += n;
        }
        Ok(done)
    }

    /// Writes `data` at byte `skip` of `blocks` blocks whose other bytes become zero.
    fn write_padded(&self, start: u64, blocks: u32, skip: usize, data: &[u8]) -> Result<()> {
        let at = self.offset_of(start);
        let total = blocks as usize * self.bs;
        let tail = total.saturating_sub(skip + data.len());
        if data.len() == total {
            self.dev.write_at(at, data)?;
        } else if let (Some(before), Some(after)) = (PADDING.get(..skip), PADDING.get(..tail)) {
            // One write carries both.
            self.dev.write_parts_at(at, &[before, data, after])?;
        } else {
            self.write_zeros(at, skip as u64)?;
            self.dev.write_at(at + skip as u64, data)?;
            let end = skip + data.len();
            self.write_zeros(at + end as u64, (total - end) as u64)?;
        }
        Ok(())
    }

    pub(crate) fn write_zeros(&self, at: u64, len: u64) -> Result<()> {
        let zeros = alloc::vec![0; (len as usize).min(ZEROS)];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(ZEROS as u64);
            self.dev.write_at(at + done, bytes_at(&zeros, 0, n as usize))?;
            done += n;
        }
        Ok(())
    }

    /// Zeroes `from..to` where the file has written blocks. The range lies within one block.
    fn zero_in_block(&mut self, inode: &Inode, from: u64, to: u64) -> Result<()> {
        if let Some((lblk, skip)) = self.split(from)
            && to > from
            && let Some(block) = self.map_block(inode, lblk)?
        {
            self.write_zeros(self.offset_of(block) + skip as u64, to - from)?;
            self.cache.txn.data_written = true;
        }
        Ok(())
    }

    /// Before a file grows to `new_end`: zeroes what its last block holds behind the old end (a shared mapping may
    /// have written there).
    fn zero_tail(&mut self, inode: &Inode, new_end: u64) -> Result<()> {
        let size = inode.size();
        let block_end = size.next_multiple_of(self.bs as u64);
        self.zero_in_block(inode, size, block_end.min(new_end))
    }

    /// Gives an inline file blocks of its own. Returns whether it was inline.
    pub(crate) fn leave_inode(&mut self, inode: &mut Inode) -> Result<bool> {
        if !inode.has(FL_INLINE_DATA) {
            return Ok(false);
        }
        let data = self.inline_contents(inode)?;
        self.drop_inline(inode)?;
        inode.set_flags(inode.flags() & !FL_INLINE_DATA);
        self.init_map(inode);
        if !data.is_empty() {
            let (start, len) = self.fill_hole(inode, 0, data.len().div_ceil(self.bs) as u32, false)?;
            if (len as usize) * self.bs < data.len() {
                return Err(Error::NoSpace);
            }
            self.write_padded(start, len, 0, &data)?;
            self.cache.txn.data_written = true;
        }
        Ok(true)
    }

    /// Sets a regular file's size: frees what lies behind a smaller one, leaves a hole before a larger one. `orphan`
    /// says that the inode is on the orphan list already.
    pub(crate) fn resize(&mut self, ino: Ino, size: u64, orphan: bool) -> Result<()> {
        let mut listed = false;
        let mut first = true;
        loop {
            let done = self.operation(|fs| {
                let mut inode = fs.inode(ino)?;
                Self::check_regular(&inode)?;
                let bs = fs.bs as u64;
                if first {
                    if size > fs.max_size(&inode) {
                        return Err(Error::TooBig);
                    }
                    fs.leave_inode(&mut inode)?;
                    if size > inode.size() {
                        fs.zero_tail(&inode, size)?;
                        inode.set_size(size);
                        fs.note_size(size);
                        fs.put_inode(&mut inode, true)?;
                        return Ok(true);
                    }
                    fs.zero_in_block(&inode, size, inode.size().min(size.next_multiple_of(bs)))?;
                    inode.set_size(size);
                }
                let done = match fs.split(size.next_multiple_of(bs)) {
                    Some((from, _)) => fs.remove_range(&mut inode, from, 1 << 32)?,
                    None => true,
                };
                // Until all is freed, a crash must find the inode to go on with.
                if !done && !listed && !orphan {
                    fs.orphan_add(&mut inode)?;
                } else if done && listed {
                    fs.orphan_remove(&mut inode)?;
                }
                fs.put_inode(&mut inode, true)?;
                Ok(done)
            })?;
            if done {
                return Ok(());
            }
            first = false;
            listed = !orphan;
        }
    }

    /// Allocates, frees or zeroes a range of a file (`fallocate(2)`). Sets `mtime` and `ctime` where contents or size
    /// may have changed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a file with an ext2 block map (but for punching holes), [`Error::NoSpace`],
    /// [`Error::TooBig`], [`Error::Invalid`] for other mode combinations or an empty range, and as [`Fs::write`].
    pub fn fallocate(&mut self, ino: Ino, mode: FallocateMode, offset: u64, len: u64, now: Timestamp) -> Result<()> {
        let end = offset.checked_add(len).ok_or(Error::TooBig)?;
        if len == 0 {
            return Err(Error::Invalid("the range to allocate is empty"));
        }
        let punch = mode.contains(FallocateMode::PUNCH_HOLE);
        let zero = mode.contains(FallocateMode::ZERO_RANGE);
        let keep = mode.contains(FallocateMode::KEEP_SIZE);
        if punch && (zero || !keep) {
            return Err(Error::Invalid("PUNCH_HOLE goes with KEEP_SIZE only"));
        }
        let inode = self.inode(ino)?;
        Self::check_regular(&inode)?;
        if end > self.max_size(&inode) {
            return Err(Error::TooBig);
        }
        if !punch && !self.sb.features.incompat.contains(Incompat::EXTENTS)
            || !punch && !inode.has(FL_EXTENTS) && !inode.has(FL_INLINE_DATA)
        {
            return Err(Error::Unsupported {
                what: alloc::string::String::from("unwritten space in a file without extents"),
                read_only_possible: false,
            });
        }
        if punch || zero {
            self.punch(ino, offset, end, now)?;
        }
        if !punch {
            self.preallocate(ino, offset, end, keep, now)?;
        }
        Ok(())
    }

    /// Makes a range a hole, but for the parts of blocks at its edges, which become zero.
    fn punch(&mut self, ino: Ino, offset: u64, end: u64, now: Timestamp) -> Result<()> {
        loop {
            let done = self.operation(|fs| {
                let mut inode = fs.inode(ino)?;
                fs.leave_inode(&mut inode)?;
                let bs = fs.bs as u64;
                // What lies behind the file's end in its last block is zero already.
                let (first, last) = (offset.next_multiple_of(bs), end / bs * bs);
                if first > last {
                    fs.zero_in_block(&inode, offset, end)?;
                } else {
                    fs.zero_in_block(&inode, offset, first)?;
                    fs.zero_in_block(&inode, last, end)?;
                }
                let done = match fs.split(first) {
                    Some((from, _)) if first < last => fs.remove_range(&mut inode, from, last / bs)?,
                    _ => true,
                };
                fs.put_modified(&mut inode, now, true)?;
                Ok(done)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Fills a range's holes with unwritten blocks.
    fn preallocate(&mut self, ino: Ino, offset: u64, end: u64, keep: bool, now: Timestamp) -> Result<()> {
        let bs = self.bs as u64;
        let (mut at, last) = (offset / bs, end.div_ceil(bs));
        while at < last {
            at = self.operation(|fs| {
                let mut inode = fs.inode(ino)?;
                fs.leave_inode(&mut inode)?;
                let mut at = at;
                while at < last && !fs.txn_is_large() {
                    let run = fs.map_run(&inode, at as u32, (last - at).min(u64::from(u32::MAX)) as u32)?;
                    at += u64::from(match run.start {
                        Some(_) => run.len,
                        None => fs.fill_hole(&mut inode, at as u32, run.len, true)?.1,
                    });
                }
                if at >= last && !keep && end > inode.size() {
                    fs.zero_tail(&inode, end)?;
                    inode.set_size(end);
                    fs.note_size(end);
                    inode.set_time(Time::Modify, now);
                }
                inode.set_time(Time::Change, now);
                fs.note_time(now);
                fs.put_inode(&mut inode, true)?;
                Ok(at)
            })?;
        }
        Ok(())
    }

    /// Gives every block of a range, up to the file's end, a place on the device, with zeros written to it, so that
    /// the image's pages can be mapped shared. Neither size nor contents change.
    ///
    /// # Errors
    /// As [`Fs::write`].
    pub fn allocate(&mut self, ino: Ino, offset: u64, len: u64, now: Timestamp) -> Result<Vec<Mapping>> {
        let bs = self.bs as u64;
        let size = self.attr(ino)?.size;
        let end = offset.saturating_add(len).min(size);
        let (mut at, last) = (offset / bs, end.div_ceil(bs).min(MAX_FILE_BLOCKS));
        while at < last {
            at = self.operation(|fs| {
                let mut inode = fs.inode(ino)?;
                Self::check_regular(&inode)?;
                let mut changed = fs.leave_inode(&mut inode)?;
                let mut at = at;
                while at < last {
                    let run = fs.map_run(&inode, at as u32, (last - at) as u32)?;
                    let n = match run {
                        Run { start: Some(_), unwritten: false, len } => len,
                        Run { start: Some(start), len, .. } => {
                            fs.write_zeros(fs.offset_of(start), u64::from(len) * bs)?;
                            fs.mark_written(&mut inode, at as u32, len)?;
                            changed = true;
                            len
                        }
                        Run { len, .. } => {
                            let (start, len) = fs.fill_hole(&mut inode, at as u32, len, false)?;
                            fs.write_zeros(fs.offset_of(start), u64::from(len) * bs)?;
                            changed = true;
                            len
                        }
                    };
                    at += u64::from(n);
                    if fs.txn_is_large() {
                        break;
                    }
                }
                if changed {
                    inode.set_time(Time::Change, now);
                    fs.note_time(now);
                    fs.cache.txn.data_written = true;
                    fs.put_inode(&mut inode, true)?;
                }
                Ok(at)
            })?;
        }
        let inode = self.inode(ino)?;
        if offset >= end { Ok(Vec::new()) } else { self.map_range(&inode, offset, end) }
    }

    /// Remembers the latest time that callers passed, for the superblock.
    pub(crate) fn note_time(&mut self, now: Timestamp) {
        if now.sec > 0 {
            self.sb.write_time = now.sec.cast_unsigned();
        }
    }
}
