//! File data of tmpfs: pages of the host memory file.

use super::TmpFs;
use crate::bail;
use crate::errno::Result;
use crate::fs::store::{RANGE, Store};
use crate::mm::{IoDst, IoSrc, PAGE_SIZE};
use crate::vfs::HostExtent;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A regular file's data.
#[derive(Default)]
pub(super) struct FileData {
    /// Where the file's range of the host file begins, once it has one.
    base: Option<u64>,
    pub(super) size: u64,
    /// Pages that the file has, as ranges of page numbers: start to end.
    pages: BTreeMap<u64, u64>,
    count: u64,
}

fn page_up(n: u64) -> u64 {
    n.div_ceil(PAGE_SIZE)
}

impl FileData {
    /// Pages that the file has.
    pub(super) fn pages(&self) -> u64 {
        self.count
    }

    fn base(&mut self, store: &Store) -> Result<u64> {
        match self.base {
            Some(base) => Ok(base),
            None => {
                let base = store.take_range()?;
                self.base = Some(base);
                Ok(base)
            }
        }
    }

    /// Pages of `start..end` that the file does not have.
    fn missing(&self, start: u64, end: u64) -> u64 {
        let before = self.pages.range(..start).next_back().map(|(&s, &e)| (s, e));
        let overlapping = before.into_iter().chain(self.pages.range(start..end).map(|(&s, &e)| (s, e)));
        let there: u64 = overlapping.map(|(s, e)| e.min(end).saturating_sub(s.max(start))).sum();
        end - start - there
    }

    /// Counts the pages of `start..end` as the file's own.
    fn add_pages(&mut self, fs: &TmpFs, start: u64, end: u64) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        let new = self.missing(start, end);
        if new == 0 {
            return Ok(());
        }
        fs.take_pages(new)?;
        let (mut from, mut to) = (start, end);
        if let Some((&s, &e)) = self.pages.range(..start).next_back()
            && e >= start
        {
            from = s;
            to = to.max(e);
        }
        while let Some((&s, &e)) = self.pages.range(from..=end).next() {
            self.pages.remove(&s);
            to = to.max(e);
        }
        self.pages.insert(from, to);
        self.count += new;
        Ok(())
    }

    /// Takes the pages of `start..end` away from the file.
    fn drop_pages(&mut self, fs: &TmpFs, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let gone = end - start - self.missing(start, end);
        if gone == 0 {
            return;
        }
        if let Some((&s, &e)) = self.pages.range(..start).next_back()
            && e > start
        {
            self.pages.insert(s, start);
            if e > end {
                self.pages.insert(end, e);
            }
        }
        while let Some((&s, &e)) = self.pages.range(start..end).next() {
            self.pages.remove(&s);
            if e > end {
                self.pages.insert(end, e);
            }
        }
        self.count -= gone;
        fs.return_pages(gone);
    }

    /// Reads at an offset.
    pub(super) fn read(&self, store: &Store, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        /// Reads up to this size need no buffer from the heap.
        const SMALL: usize = 1024;
        let want = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(dst.remaining());
        if want == 0 {
            return Ok(0);
        }
        if want <= SMALL {
            let mut small = [0; SMALL];
            return self.read_with(store, &mut small, offset, want, dst);
        }
        store.buffers.with(|buffer| self.read_with(store, buffer, offset, want, dst))
    }

    fn read_with(
        &self,
        store: &Store,
        buffer: &mut [u8],
        offset: u64,
        want: usize,
        dst: &mut dyn IoDst,
    ) -> Result<usize> {
        let mut done = 0;
        while done < want {
            let len = (want - done).min(buffer.len());
            let part = &mut buffer[..len];
            match self.base {
                Some(base) => store.read(base + offset + done as u64, part)?,
                None => part.fill(0),
            }
            match dst.put(part) {
                Ok(n) => {
                    done += n;
                    if n < len {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Writes at an offset; the size grows as needed.
    pub(super) fn write(&mut self, fs: &TmpFs, offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let room = usize::try_from(RANGE.saturating_sub(offset)).unwrap_or(usize::MAX);
        if room == 0 && src.remaining() > 0 {
            bail!(EFBIG);
        }
        let base = self.base(&fs.store)?;
        fs.store.buffers.with(|buffer| {
            let mut done = 0;
            while done < room && src.remaining() > 0 {
                let len = src.remaining().min(buffer.len()).min(room - done);
                match self.write_piece(fs, base, offset + done as u64, &mut buffer[..len], src) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => break,
                }
            }
            Ok(done)
        })
    }

    fn write_piece(&mut self, fs: &TmpFs, base: u64, at: u64, buffer: &mut [u8], src: &mut dyn IoSrc) -> Result<usize> {
        let mut len = buffer.len();
        let pages = |len: usize| (at / PAGE_SIZE, page_up(at + len as u64));
        let (start, end) = pages(len);
        if self.add_pages(fs, start, end).is_err() {
            // What still fits: the page that the file already has, or a single new one.
            len = len.min((PAGE_SIZE - at % PAGE_SIZE) as usize);
            let (start, end) = pages(len);
            self.add_pages(fs, start, end)?;
        }
        let n = src.take(&mut buffer[..len])?;
        fs.store.write(base + at, &buffer[..n])?;
        self.size = self.size.max(at + n as u64);
        Ok(n)
    }

    /// Changes the size; what is cut off reads as zeros should the file grow again.
    pub(super) fn resize(&mut self, fs: &TmpFs, size: u64) -> Result<()> {
        if size > RANGE {
            bail!(EFBIG);
        }
        if size < self.size
            && let Some(base) = self.base
        {
            let end = page_up(self.size) * PAGE_SIZE;
            fs.store.punch(base + size, end - size)?;
            self.drop_pages(fs, page_up(size), end / PAGE_SIZE);
        }
        self.size = size;
        Ok(())
    }

    /// `fallocate(2)` with `FALLOC_FL_PUNCH_HOLE`.
    pub(super) fn punch(&mut self, fs: &TmpFs, offset: u64, len: u64) -> Result<()> {
        let end = (offset + len).min(page_up(self.size) * PAGE_SIZE);
        if let (Some(base), true) = (self.base, offset < end) {
            fs.store.punch(base + offset, end - offset)?;
            self.drop_pages(fs, page_up(offset), end / PAGE_SIZE);
        }
        Ok(())
    }

    /// `fallocate(2)`: makes sure of pages; the size grows unless `keep_size`.
    pub(super) fn reserve(&mut self, fs: &TmpFs, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let end = offset + len;
        if end > RANGE {
            bail!(EFBIG);
        }
        self.base(&fs.store)?;
        self.add_pages(fs, offset / PAGE_SIZE, page_up(end))?;
        if !keep_size {
            self.size = self.size.max(end);
        }
        Ok(())
    }

    /// Where the pages of a range are. With `shared`, stores may fill holes: they are counted now.
    pub(super) fn extents(&mut self, fs: &TmpFs, offset: u64, len: u64, shared: bool) -> Result<Vec<HostExtent>> {
        let end = offset.saturating_add(len).min(page_up(self.size) * PAGE_SIZE);
        if offset >= end {
            return Ok(Vec::new());
        }
        let base = self.base(&fs.store)?;
        if shared {
            self.add_pages(fs, offset / PAGE_SIZE, end / PAGE_SIZE)?;
        }
        let host = Some((fs.store.fd.raw(), base + offset));
        Ok(alloc::vec![HostExtent { file_offset: offset, len: end - offset, host }])
    }

    /// The next data or hole at or behind `offset`, which is below the size; `None` for no more data.
    pub(super) fn seek(&self, offset: u64, hole: bool) -> Option<u64> {
        let page = offset / PAGE_SIZE;
        let around = self.pages.range(..=page).next_back().filter(|&(_, &end)| end > page);
        if hole {
            return Some(around.map_or(offset, |(_, &end)| (end * PAGE_SIZE).min(self.size)));
        }
        match around {
            Some(_) => Some(offset),
            None => self.pages.range(page..).next().map(|(&s, _)| s * PAGE_SIZE).filter(|&at| at < self.size),
        }
    }

    /// Frees everything: the file is gone.
    pub(super) fn free(&mut self, fs: &TmpFs) {
        if let Some(base) = self.base.take() {
            let last = self.pages.last_key_value().map_or(0, |(_, &end)| end);
            // Pages that the host did not take back are only lost memory.
            let _ = fs.store.punch(base, last.max(page_up(self.size)) * PAGE_SIZE);
            fs.store.return_range(base);
        }
        fs.return_pages(self.count);
        self.count = 0;
    }
}
