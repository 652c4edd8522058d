//! Reading, writing and positioning open files.

use super::{Access, File, FileRef, FileType, NotifyEvents, OpenFlags, SetAttr, Timestamp, Vfs, notify};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::map::{FileCut, file_cut};
use crate::mm::{IoDst, IoSrc, KernelDst, PAGE_SIZE};
use crate::task::Capabilities;

/// `RLIMIT_FSIZE` of `getrlimit(2)`.
const RLIMIT_FSIZE: usize = 1;
/// Largest file offset (`loff_t`).
pub(super) const OFFSET_MAX: u64 = i64::MAX as u64;

/// `lseek(2)`.
pub(crate) const SEEK_SET: u32 = 0;
const SEEK_CUR: u32 = 1;
pub(crate) const SEEK_END: u32 = 2;
pub(crate) const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// A source that gives only its first bytes.
struct Limited<'a> {
    src: &'a mut dyn IoSrc,
    left: usize,
}

impl IoSrc for Limited<'_> {
    fn remaining(&self) -> usize {
        self.src.remaining().min(self.left)
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(self.left);
        let n = self.src.take(&mut buf[..len])?;
        self.left -= n;
        Ok(n)
    }

    fn untake(&mut self, n: usize) {
        self.left += n;
        self.src.untake(n);
    }

    fn take_file(&mut self, fd: i32, offset: u64, len: usize) -> Option<Result<usize>> {
        let moved = self.src.take_file(fd, offset, len.min(self.left))?;
        if let Ok(n) = moved {
            self.left -= n;
        }
        Some(moved)
    }
}

impl File {
    /// Whether the file has a position.
    pub fn seekable(&self) -> bool {
        match &self.ops {
            Some(ops) => ops.seekable(),
            None => matches!(self.inode.file_type(), FileType::Regular | FileType::Directory),
        }
    }

    fn check_readable(&self) -> Result<()> {
        if !self.flags().readable() {
            bail!(EBADF);
        }
        if self.inode.file_type() == FileType::Directory {
            bail!(EISDIR);
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        if self.flags().writable() { Ok(()) } else { Err(Errno::EBADF.into()) }
    }

    /// `read(2)`: reads at the file position and advances it.
    pub fn read(&self, ctx: &Ctx, dst: &mut dyn IoDst) -> Result<usize> {
        self.read_next(ctx, dst, false)
    }

    fn read_next(&self, ctx: &Ctx, dst: &mut dyn IoDst, alone: bool) -> Result<usize> {
        self.check_readable()?;
        if !self.seekable() {
            return self.read_from(ctx, 0, dst);
        }
        let position = self.position.turn(alone);
        let n = self.read_from(ctx, position.get(), dst)?;
        position.set(position.get() + n as u64);
        Ok(n)
    }

    /// `pread(2)`: reads at `offset`.
    pub fn pread(&self, ctx: &Ctx, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        if offset > OFFSET_MAX {
            bail!(EINVAL);
        }
        if !self.seekable() && !self.flags().contains(OpenFlags::PATH) {
            bail!(ESPIPE);
        }
        self.check_readable()?;
        self.read_from(ctx, offset, dst)
    }

    fn read_from(&self, ctx: &Ctx, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let n = self.read_untold(ctx, offset, dst)?;
        if n > 0 {
            notify::at(&self.location, NotifyEvents::ACCESS);
        }
        Ok(n)
    }

    fn read_untold(&self, ctx: &Ctx, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        match &self.ops {
            Some(ops) => ops.read(ctx, self, offset, dst),
            None => {
                if dst.remaining() == 0 {
                    return Ok(0);
                }
                let n = self.inode.read_at(offset, dst)?;
                if !self.flags().contains(OpenFlags::NOATIME) {
                    ctx.kernel.vfs.touch_atime(&self.location);
                }
                Ok(n)
            }
        }
    }

    /// Reads plain data for the kernel itself (program loaders); short at the end of the file.
    pub fn read_kernel(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let n = self.inode.read_at(offset + done as u64, &mut KernelDst::new(&mut buf[done..]))?;
            if n == 0 {
                break;
            }
            done += n;
        }
        Ok(done)
    }

    /// `write(2)`: writes at the file position, or at the end with `O_APPEND`, and advances the position.
    pub fn write(&self, ctx: &Ctx, src: &mut dyn IoSrc) -> Result<usize> {
        self.write_next(ctx, src, false)
    }

    fn write_next(&self, ctx: &Ctx, src: &mut dyn IoSrc, alone: bool) -> Result<usize> {
        self.check_writable()?;
        if !self.seekable() {
            return self.write_to(ctx, 0, false, src).map(|r| r.0);
        }
        let append = self.flags().contains(OpenFlags::APPEND);
        let position = self.position.turn(alone);
        let (n, end) = self.write_to(ctx, position.get(), append, src)?;
        if n > 0 {
            position.set(end);
        }
        Ok(n)
    }

    /// `pwrite(2)`: writes at `offset`; as on Linux, at the end with `O_APPEND`.
    pub fn pwrite(&self, ctx: &Ctx, offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let append = self.flags().contains(OpenFlags::APPEND);
        self.pwrite_mode(ctx, offset, append, src)
    }

    /// As [`File::pwrite`], with `append` instead of what the flags say (`RWF_APPEND`, `RWF_NOAPPEND`).
    pub fn pwrite_mode(&self, ctx: &Ctx, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<usize> {
        if offset > OFFSET_MAX {
            bail!(EINVAL);
        }
        if !self.seekable() && !self.flags().contains(OpenFlags::PATH) {
            bail!(ESPIPE);
        }
        self.check_writable()?;
        self.write_to(ctx, offset, append, src).map(|r| r.0)
    }

    /// Writes and returns the count and the offset behind the last byte.
    fn write_to(&self, ctx: &Ctx, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        let (n, end) = self.write_untold(ctx, offset, append, src)?;
        if n > 0 {
            notify::at(&self.location, NotifyEvents::MODIFY);
        }
        Ok((n, end))
    }

    fn write_untold(&self, ctx: &Ctx, offset: u64, append: bool, src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        if let Some(ops) = &self.ops {
            let n = ops.write(ctx, self, offset, src)?;
            return Ok((n, offset + n as u64));
        }
        if src.remaining() == 0 {
            return Ok((0, offset));
        }
        let start = if append { self.inode.attr()?.size } else { offset };
        let room = file_size_room(ctx, start)?;
        remove_privileges(ctx, self)?;
        let (n, end) = self.inode.write_at(offset, append, &mut Limited { src, left: room })?;
        if self.flags().intersects(OpenFlags::DSYNC | OpenFlags::SYNC_BIT) {
            self.inode.sync(!self.flags().contains(OpenFlags::SYNC_BIT))?;
        }
        Ok((n, end))
    }

    /// The position of a seekable file, to be read under its lock: the size that `SEEK_END` counts from.
    fn end(&self) -> Result<u64> {
        match self.ops.as_ref().and_then(|ops| ops.size()) {
            Some(size) => Ok(size),
            None => Ok(self.inode.attr()?.size),
        }
    }

    /// `lseek(2)`.
    pub fn seek(&self, ctx: &Ctx, offset: i64, whence: u32) -> Result<u64> {
        self.seek_alone(ctx, offset, whence, false)
    }

    fn seek_alone(&self, ctx: &Ctx, offset: i64, whence: u32, alone: bool) -> Result<u64> {
        if self.flags().contains(OpenFlags::PATH) {
            bail!(EBADF);
        }
        if whence > SEEK_HOLE {
            bail!(EINVAL);
        }
        if let Some(own) = self.ops.as_ref().and_then(|ops| ops.seek(ctx, offset, whence)) {
            return own;
        }
        if !self.seekable() {
            bail!(ESPIPE);
        }
        let position = self.position.turn(alone);
        let base = match whence {
            SEEK_SET => 0,
            SEEK_CUR => position.get(),
            SEEK_END => self.end()?,
            SEEK_DATA | SEEK_HOLE => {
                let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                if self.inode.file_type() != FileType::Regular {
                    bail!(EINVAL);
                }
                position.set(self.inode.seek_data_or_hole(from, whence == SEEK_HOLE)?);
                return Ok(position.get());
            }
            _ => bail!(EINVAL),
        };
        let target = (base as i64).checked_add(offset).ok_or(Errno::EOVERFLOW)?;
        position.set(u64::try_from(target).map_err(|_| Errno::EINVAL)?);
        Ok(position.get())
    }

    /// `fsync(2)` and `fdatasync(2)`.
    pub fn sync(&self, data_only: bool) -> Result<()> {
        if self.flags().contains(OpenFlags::PATH) {
            bail!(EBADF);
        }
        match &self.ops {
            Some(ops) => ops.sync(),
            None => self.inode.sync(data_only),
        }
    }
}

impl FileRef<'_> {
    /// `read(2)`, as [`File::read`].
    pub fn read(&self, ctx: &Ctx, dst: &mut dyn IoDst) -> Result<usize> {
        self.read_next(ctx, dst, self.is_alone())
    }

    /// `write(2)`, as [`File::write`].
    pub fn write(&self, ctx: &Ctx, src: &mut dyn IoSrc) -> Result<usize> {
        self.write_next(ctx, src, self.is_alone())
    }

    /// `lseek(2)`, as [`File::seek`].
    pub fn seek(&self, ctx: &Ctx, offset: i64, whence: u32) -> Result<u64> {
        self.seek_alone(ctx, offset, whence, self.is_alone())
    }
}

/// Bytes that the file size limit lets a write at `offset` have; `SIGXFSZ` and `EFBIG` if none.
pub(super) fn file_size_room(ctx: &Ctx, offset: u64) -> Result<usize> {
    let limit = ctx.task.process.limit(RLIMIT_FSIZE).min(OFFSET_MAX);
    if offset < limit {
        return Ok(usize::try_from(limit - offset).unwrap_or(usize::MAX));
    }
    if limit < OFFSET_MAX {
        crate::signal::raise(ctx, crate::signal::number::SIGXFSZ);
    }
    Err(Errno::EFBIG.into())
}

/// Set-id bits do not survive a write by someone without `CAP_FSETID`.
fn remove_privileges(ctx: &Ctx, file: &File) -> Result<()> {
    const SET_UID: u32 = 0o4000;
    const SET_GID_EXEC: u32 = 0o2010;
    let attr = file.inode.attr()?;
    let mut drop = attr.mode & SET_UID;
    if attr.mode & SET_GID_EXEC == SET_GID_EXEC {
        drop |= 0o2000;
    }
    if drop == 0 || ctx.creds().capable(Capabilities::FSETID) {
        return Ok(());
    }
    let set = SetAttr { mode: Some(attr.mode & !drop), ctime: Some(Timestamp::now()), ..SetAttr::default() };
    file.inode.set_attr(&set)
}

impl Vfs {
    /// `truncate(2)` by path and by descriptor: `location` may be written, which the caller has checked if `opened`.
    pub fn truncate(&self, ctx: &Ctx, location: &super::Location, len: u64, opened: bool) -> Result<()> {
        let inode = &location.dentry.inode;
        if len > OFFSET_MAX {
            bail!(EINVAL);
        }
        match inode.file_type() {
            FileType::Regular => {}
            FileType::Directory => bail!(EISDIR),
            _ => bail!(EINVAL),
        }
        let hold = if opened { super::file::Hold::None } else { super::file::Hold::Write };
        if !opened {
            location.permission(ctx.creds(), Access::WRITE)?;
        }
        inode.check_not_append_only()?;
        hold.acquire(location)?;
        let way = if opened { Ok(()) } else { inode.break_leases(ctx, true, false) };
        let result = way.and_then(|()| self.truncate_inode(ctx, location, len));
        hold.release(location);
        result
    }

    /// Changes the length of a regular file, and with it its times and set-id bits.
    pub(super) fn truncate_inode(&self, ctx: &Ctx, location: &super::Location, len: u64) -> Result<()> {
        let inode = &location.dentry.inode;
        let attr = inode.attr()?;
        if len > attr.size && len > 0 {
            file_size_room(ctx, len - 1)?;
        }
        if len < attr.size {
            inode.check_unpinned()?;
        }
        let now = Some(Timestamp::now());
        let mut mode = None;
        if attr.mode & 0o6000 != 0 && !ctx.creds().capable(Capabilities::FSETID) {
            let drop = if attr.mode & 0o2010 == 0o2010 { 0o6000 } else { 0o4000 };
            mode = Some(attr.mode & !drop);
        }
        inode.set_attr(&SetAttr { size: Some(len), mtime: now, ctime: now, mode, ..SetAttr::default() })?;
        if len < attr.size {
            let from = len.next_multiple_of(PAGE_SIZE);
            file_cut(ctx, &FileCut { inode: inode.clone(), from, private: true });
        }
        notify::at(location, NotifyEvents::MODIFY);
        Ok(())
    }

    /// `fallocate(2)` on a regular file that is open for writing.
    pub fn fallocate(&self, ctx: &Ctx, file: &File, mode: u32, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        file.inode.check_mutable()?;
        if mode & !KEEP_SIZE != 0 {
            file.inode.check_not_append_only()?;
            file.inode.check_unpinned()?;
        }
        if mode & KEEP_SIZE == 0 && offset + len > file.inode.attr()?.size {
            file_size_room(ctx, offset + len - 1)?;
        }
        remove_privileges(ctx, file)?;
        file.inode.fallocate(mode, offset, len)?;
        if mode & !KEEP_SIZE != 0 {
            // Holes, and pages that moved.
            let from = offset / PAGE_SIZE * PAGE_SIZE;
            file_cut(ctx, &FileCut { inode: file.inode.clone(), from, private: false });
        }
        notify::at(&file.location, NotifyEvents::MODIFY);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that can go straight to a file.
    struct Straight(usize);

    impl IoSrc for Straight {
        fn remaining(&self) -> usize {
            self.0
        }
        fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
            let n = buf.len().min(self.0);
            self.0 -= n;
            Ok(n)
        }
        fn untake(&mut self, n: usize) {
            self.0 += n;
        }
        fn take_file(&mut self, _fd: i32, _offset: u64, len: usize) -> Option<Result<usize>> {
            let n = len.min(self.0).min(6);
            self.0 -= n;
            Some(Ok(n))
        }
    }

    #[test]
    fn a_limited_source_goes_straight_to_a_file_too() {
        let mut straight = Straight(100);
        let mut limited = Limited { src: &mut straight, left: 10 };
        let mut moved = || limited.take_file(0, 0, 50).map(|n| n.unwrap());
        assert_eq!([moved(), moved(), moved()], [Some(6), Some(4), Some(0)]);
        assert_eq!((limited.remaining(), straight.0), (0, 90));
    }
}
