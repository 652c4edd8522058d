//! Reading files and links, and where a file's bytes lie.

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::{FL_ENCRYPT, FL_INLINE_DATA, I_BLOCK_LEN, Inode};
use crate::le::bytes_at;
use crate::map::{MAX_FILE_BLOCKS, Run};
use crate::types::{FileType, Ino, Mapping};
use alloc::vec::Vec;

/// How far about a read its run of blocks is remembered.
const MAX_RUN: u32 = 32768;

impl<D: BlockDevice> Fs<D> {
    /// Fails unless `inode` is a regular file.
    pub(crate) fn check_regular(inode: &Inode) -> Result<()> {
        match inode.file_type() {
            Some(FileType::Regular) if inode.has(FL_ENCRYPT) => Err(Error::Unsupported {
                what: alloc::format!("file {} is encrypted", inode.ino),
                read_only_possible: false,
            }),
            Some(FileType::Regular) => Ok(()),
            Some(FileType::Directory) => Err(Error::IsDirectory),
            _ => Err(Error::Invalid("not a regular file")),
        }
    }

    /// Splits a byte offset into file block and offset in it; `None` beyond the largest file.
    pub(crate) fn split(&self, offset: u64) -> Option<(u32, usize)> {
        let bs = self.bs as u64;
        let lblk = offset / bs;
        (lblk < MAX_FILE_BLOCKS).then_some((lblk as u32, (offset % bs) as usize))
    }

    /// The contents of an inline file.
    pub(crate) fn inline_contents(&mut self, inode: &Inode) -> Result<Vec<u8>> {
        let mut all = inode.i_block().to_vec();
        all.extend(self.inline_tail(inode)?.unwrap_or_default());
        let size = usize::try_from(inode.size()).unwrap_or(usize::MAX);
        if size > all.len() {
            return Err(Error::inode(inode.ino, "the inline data is shorter than the file"));
        }
        all.truncate(size);
        Ok(all)
    }

    /// Reads a file's bytes up to its end, whatever type it has; returns how many.
    pub(crate) fn read_blocks(&mut self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let size = inode.size();
        if offset >= size {
            return Ok(0);
        }
        let want = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buf.len());
        if inode.has(FL_INLINE_DATA) {
            let data = self.inline_contents(inode)?;
            let part = bytes_at(&data, usize::try_from(offset).unwrap_or(usize::MAX), want);
            if let Some(b) = buf.get_mut(..part.len()) {
                b.copy_from_slice(part);
            }
            return Ok(part.len());
        }
        let bs = self.bs as u64;
        let mut done = 0;
        while done < want {
            let pos = offset + done as u64;
            let Some((lblk, skip)) = self.split(pos) else { break };
            let blocks = ((want - done + skip) as u64).div_ceil(bs).min(MAX_FILE_BLOCKS - u64::from(lblk));
            let run = self.map_run(inode, lblk, blocks as u32)?;
            let n = usize::try_from(u64::from(run.len) * bs - skip as u64).unwrap_or(usize::MAX).min(want - done);
            let Some(part) = buf.get_mut(done..done + n) else { break };
            match run {
                Run { start: Some(start), unwritten: false, .. } => {
                    self.read_data(start * bs + skip as u64, part)?;
                }
                _ => part.fill(0),
            }
            done += n;
        }
        Ok(done)
    }

    /// Reads from a regular file; returns how many bytes, fewer than asked only at its end. Holes read as zeros.
    ///
    /// # Errors
    /// [`Error::IsDirectory`], [`Error::Invalid`] for other types, [`Error::NotFound`], [`Error::Corrupt`],
    /// [`Error::Io`].
    pub fn read(&mut self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if let Some(place) = self.recent_place(ino, offset, buf.len() as u64) {
            self.read_data(place, buf)?;
            return Ok(buf.len());
        }
        let inode = self.inode(ino)?;
        Self::check_regular(&inode)?;
        let read = self.read_blocks(&inode, offset, buf)?;
        // All of the run that begins there, for those who read on or about.
        if let Some((lblk, _)) = self.split(offset).filter(|_| read > 0 && !inode.has(FL_INLINE_DATA)) {
            self.note_run(&inode, lblk)?;
        }
        Ok(read)
    }

    /// Remembers the run of blocks that holds file block `lblk`.
    fn note_run(&mut self, inode: &Inode, lblk: u32) -> Result<()> {
        let blocks = inode.size().div_ceil(self.bs as u64);
        let rest = blocks.saturating_sub(u64::from(lblk)).clamp(1, u64::from(MAX_RUN)) as u32;
        let before = lblk.min(MAX_RUN);
        let (mut first, mut run) = (lblk - before, self.map_run(inode, lblk - before, before + rest)?);
        if u64::from(first) + u64::from(run.len) <= u64::from(lblk) {
            (first, run) = (lblk, self.map_run(inode, lblk, rest)?);
        }
        if let Run { start: Some(start), unwritten: false, len } = run {
            self.note_recent(inode.ino, inode.size(), first, len, start);
        }
        Ok(())
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the inode is not a symbolic link, [`Error::NotFound`], [`Error::Corrupt`],
    /// [`Error::Io`].
    pub fn read_link(&mut self, ino: Ino) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        if inode.file_type() != Some(FileType::Symlink) {
            return Err(Error::Invalid("not a symbolic link"));
        }
        if inode.has(FL_ENCRYPT) {
            return Err(Error::Unsupported {
                what: alloc::format!("symbolic link {ino} is encrypted"),
                read_only_possible: false,
            });
        }
        let size = inode.size();
        if size == 0 || size > self.bs as u64 {
            return Err(Error::inode(ino, "the symbolic link's length is zero or over a block"));
        }
        if inode.is_fast_symlink() {
            return Ok(bytes_at(inode.i_block(), 0, (size as usize).min(I_BLOCK_LEN)).to_vec());
        }
        let mut target = alloc::vec![0; size as usize];
        let n = self.read_blocks(&inode, 0, &mut target)?;
        target.truncate(n);
        Ok(target)
    }

    /// Where the bytes of a regular file lie, from `offset` for `len` bytes but not beyond the block that holds the
    /// file's end. Pieces are whole blocks, in order and without gaps.
    ///
    /// An inline file has no blocks: the list is empty, and [`Fs::read`] gives its contents.
    ///
    /// # Errors
    /// As [`Fs::read`]; [`Error::Unsupported`] on a read-only mount for a file whose data lies in an unreplayed journal
    /// (mode data=journal), which only [`Fs::read`] gives.
    pub fn map(&mut self, ino: Ino, offset: u64, len: u64) -> Result<Vec<Mapping>> {
        let inode = self.inode(ino)?;
        Self::check_regular(&inode)?;
        if inode.has(FL_INLINE_DATA) {
            return Ok(Vec::new());
        }
        let end = offset.saturating_add(len).min(inode.size());
        self.map_range(&inode, offset, end)
    }

    /// The pieces that cover `offset..end`.
    pub(crate) fn map_range(&mut self, inode: &Inode, offset: u64, end: u64) -> Result<Vec<Mapping>> {
        let bs = self.bs as u64;
        let mut out: Vec<Mapping> = Vec::new();
        let mut lblk = offset / bs;
        let last = end.div_ceil(bs).min(MAX_FILE_BLOCKS);
        while lblk < last && offset < end {
            let run = self.map_run(inode, lblk as u32, (last - lblk) as u32)?;
            let device_offset = run.start.filter(|_| !run.unwritten).map(|s| s * bs);
            if let Some(start) = run.start
                && !run.unwritten
                && self.replayed(start, u64::from(run.len))
            {
                return Err(Error::Unsupported {
                    what: alloc::format!("file {} has data in the journal, not in place yet", inode.ino),
                    read_only_possible: false,
                });
            }
            let len = u64::from(run.len) * bs;
            match out.last_mut() {
                Some(m)
                    if m.device_offset.is_none() && device_offset.is_none()
                        || m.device_offset.is_some() && m.device_offset.map(|d| d + m.len) == device_offset =>
                {
                    m.len += len;
                }
                _ => out.push(Mapping { file_offset: lblk * bs, device_offset, len }),
            }
            lblk += u64::from(run.len);
        }
        Ok(out)
    }

    /// The first offset from `offset` on that holds data (`SEEK_DATA`); `None` if there is none before the end.
    ///
    /// # Errors
    /// As [`Fs::read`].
    pub fn seek_data(&mut self, ino: Ino, offset: u64) -> Result<Option<u64>> {
        self.seek(ino, offset, true)
    }

    /// The first offset from `offset` on that lies in a hole (`SEEK_HOLE`); the end counts as one. `None` if
    /// `offset` is beyond the end.
    ///
    /// # Errors
    /// As [`Fs::read`].
    pub fn seek_hole(&mut self, ino: Ino, offset: u64) -> Result<Option<u64>> {
        self.seek(ino, offset, false)
    }

    fn seek(&mut self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>> {
        let inode = self.inode(ino)?;
        Self::check_regular(&inode)?;
        let size = inode.size();
        if offset >= size {
            return Ok(None);
        }
        if inode.has(FL_INLINE_DATA) {
            return Ok(Some(if data { offset } else { size }));
        }
        let bs = self.bs as u64;
        let mut pos = offset;
        while pos < size {
            let Some((lblk, _)) = self.split(pos) else { break };
            let blocks = (size.div_ceil(bs) - u64::from(lblk)).min(MAX_FILE_BLOCKS);
            let run = self.map_run(&inode, lblk, blocks as u32)?;
            if (run.start.is_some() && !run.unwritten) == data {
                return Ok(Some(pos));
            }
            pos = (u64::from(lblk) + u64::from(run.len)) * bs;
        }
        Ok(if data { None } else { Some(size) })
    }
}
