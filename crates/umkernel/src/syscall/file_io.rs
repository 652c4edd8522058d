//! Reading and writing open files.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{AddressSpace, UserDst, UserSrc};
use crate::platform::TrapFrame;
use crate::vfs::{File, FileRef, FileType, WalkFlags};
use alloc::vec::Vec;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(0, "read", Family::Desc, READ, Support::Full, sys_read),
    Entry::new(1, "write", Family::Desc, WRITE, Support::Full, sys_write),
    Entry::new(8, "lseek", Family::Desc, &[Arg::Fd, Arg::Long, Arg::Kind("whence")], Support::Full, sys_lseek),
    Entry::new(17, "pread64", Family::Desc, PREAD, Support::Full, sys_pread64),
    Entry::new(18, "pwrite64", Family::Desc, PWRITE, Support::Full, sys_pwrite64),
    Entry::new(19, "readv", Family::Desc, IOV, Support::Full, sys_readv),
    Entry::new(20, "writev", Family::Desc, IOV, Support::Full, sys_writev),
    Entry::new(74, "fsync", Family::Desc, &[Arg::Fd], Support::Full, sys_fsync),
    Entry::new(75, "fdatasync", Family::Desc, &[Arg::Fd], Support::Full, sys_fdatasync),
    Entry::new(76, "truncate", Family::File, &[Arg::Path, Arg::Long], Support::Full, sys_truncate),
    Entry::new(77, "ftruncate", Family::Desc, &[Arg::Fd, Arg::Long], Support::Full, sys_ftruncate),
    Entry::new(162, "sync", Family::File, &[], Support::Full, sys_sync),
    Entry::new(187, "readahead", Family::Desc, &[Arg::Fd, Arg::Long, Arg::Uint], Support::Full, sys_readahead),
    Entry::new(221, "fadvise64", Family::Desc, FADVISE, Support::Full, sys_fadvise64),
    Entry::new(277, "sync_file_range", Family::Desc, SYNC_RANGE, Support::Full, sys_sync_file_range),
    Entry::new(285, "fallocate", Family::Desc, FALLOCATE, Support::Full, sys_fallocate),
    Entry::new(295, "preadv", Family::Desc, PIOV, Support::Full, sys_preadv),
    Entry::new(296, "pwritev", Family::Desc, PIOV, Support::Full, sys_pwritev),
    Entry::new(306, "syncfs", Family::Desc, &[Arg::Fd], Support::Full, sys_syncfs),
    Entry::new(327, "preadv2", Family::Desc, PIOV2, Support::Full, sys_preadv2),
    Entry::new(328, "pwritev2", Family::Desc, PIOV2, Support::Full, sys_pwritev2),
];

const READ: &[Arg] = &[Arg::Fd, Arg::BufOut, Arg::Uint];
const WRITE: &[Arg] = &[Arg::Fd, Arg::BufIn(2), Arg::Uint];
const PREAD: &[Arg] = &[Arg::Fd, Arg::BufOut, Arg::Uint, Arg::Long];
const PWRITE: &[Arg] = &[Arg::Fd, Arg::BufIn(2), Arg::Uint, Arg::Long];
const IOV: &[Arg] = &[Arg::Fd, Arg::Kind("iovec"), Arg::Int];
const PIOV: &[Arg] = &[Arg::Fd, Arg::Kind("iovec"), Arg::Int, Arg::Long];
const PIOV2: &[Arg] = &[Arg::Fd, Arg::Kind("iovec"), Arg::Int, Arg::Long, Arg::Hex, Arg::Kind("rwf_flags")];
const FADVISE: &[Arg] = &[Arg::Fd, Arg::Long, Arg::Uint, Arg::Kind("fadvise")];
const SYNC_RANGE: &[Arg] = &[Arg::Fd, Arg::Long, Arg::Long, Arg::Hex];
const FALLOCATE: &[Arg] = &[Arg::Fd, Arg::Kind("fallocate_mode"), Arg::Long, Arg::Long];

/// The most that one call reads or writes (`MAX_RW_COUNT`).
const COUNT_MAX: usize = 0x7fff_f000;
/// `UIO_MAXIOV`.
const IOV_MAX: usize = 1024;

/// Ranges of user memory, bounded in number and total length as `readv(2)` says.
pub(super) fn read_iovec(ctx: &Ctx, addr: u64, count: usize) -> Result<Vec<(u64, usize)>> {
    if count > IOV_MAX {
        bail!(EINVAL);
    }
    let pairs: Vec<[u64; 2]> = ctx.read_vec(addr, count)?;
    let mut room = COUNT_MAX;
    let mut ranges = Vec::with_capacity(count);
    for [base, len] in pairs {
        if len > i64::MAX as u64 {
            bail!(EINVAL);
        }
        check_range(base, len)?;
        let len = (len as usize).min(room);
        room -= len;
        if len > 0 {
            ranges.push((base, len));
        }
    }
    Ok(ranges)
}

/// `EFAULT` for a range that is not in user memory at all.
pub(super) fn check_range(base: u64, len: u64) -> Result<()> {
    match base.checked_add(len) {
        Some(end) if end <= crate::mm::TASK_SIZE || len == 0 => Ok(()),
        _ => Err(Errno::EFAULT.into()),
    }
}

pub(super) fn one_range(addr: u64, count: u64) -> Result<(u64, usize)> {
    if count > i64::MAX as u64 {
        bail!(EINVAL);
    }
    check_range(addr, count)?;
    Ok((addr, (count as usize).min(COUNT_MAX)))
}

/// The file behind a descriptor, and the memory to move bytes from or to.
fn file_and_memory<'a>(ctx: &Ctx<'a>, fd: u64) -> Result<(FileRef<'a>, &'a AddressSpace)> {
    Ok((ctx.file(fd as i32)?, ctx.mm()?))
}

pub(super) fn readable(file: &File) -> Result<()> {
    if file.flags().readable() { Ok(()) } else { Err(Errno::EBADF.into()) }
}

pub(super) fn writable(file: &File) -> Result<()> {
    if file.flags().writable() { Ok(()) } else { Err(Errno::EBADF.into()) }
}

fn sys_read(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (file, space) = file_and_memory(ctx, args[0])?;
    readable(&file)?;
    let ranges = one_range(args[1], args[2])?;
    file.read(ctx, &mut UserDst::new(ctx, space, ranges))
}

fn sys_write(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (file, space) = file_and_memory(ctx, args[0])?;
    writable(&file)?;
    let ranges = one_range(args[1], args[2])?;
    file.write(ctx, &mut UserSrc::new(ctx, space, ranges))
}

fn sys_pread64(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if (args[3] as i64) < 0 {
        bail!(EINVAL);
    }
    let (file, space) = file_and_memory(ctx, args[0])?;
    let ranges = one_range(args[1], args[2])?;
    file.pread(ctx, args[3], &mut UserDst::new(ctx, space, ranges))
}

fn sys_pwrite64(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if (args[3] as i64) < 0 {
        bail!(EINVAL);
    }
    let (file, space) = file_and_memory(ctx, args[0])?;
    let ranges = one_range(args[1], args[2])?;
    file.pwrite(ctx, args[3], &mut UserSrc::new(ctx, space, ranges))
}

fn sys_readv(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (file, space) = file_and_memory(ctx, args[0])?;
    readable(&file)?;
    let ranges = read_iovec(ctx, args[1], args[2] as usize)?;
    file.read(ctx, &mut UserDst::new(ctx, space, ranges))
}

fn sys_writev(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (file, space) = file_and_memory(ctx, args[0])?;
    writable(&file)?;
    let ranges = read_iovec(ctx, args[1], args[2] as usize)?;
    file.write(ctx, &mut UserSrc::new(ctx, space, ranges))
}

fn sys_preadv(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if (args[3] as i64) < 0 {
        bail!(EINVAL);
    }
    let (file, space) = file_and_memory(ctx, args[0])?;
    if !file.seekable() {
        bail!(ESPIPE);
    }
    readable(&file)?;
    let ranges = read_iovec(ctx, args[1], args[2] as usize)?;
    file.pread(ctx, args[3], &mut UserDst::new(ctx, space, ranges))
}

fn sys_pwritev(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if (args[3] as i64) < 0 {
        bail!(EINVAL);
    }
    let (file, space) = file_and_memory(ctx, args[0])?;
    if !file.seekable() {
        bail!(ESPIPE);
    }
    writable(&file)?;
    let ranges = read_iovec(ctx, args[1], args[2] as usize)?;
    file.pwrite(ctx, args[3], &mut UserSrc::new(ctx, space, ranges))
}

/// Flags of a single read or write (`RWF_*`, `linux/fs.h`).
pub(super) const RWF_HIPRI: u64 = 1;
pub(super) const RWF_DSYNC: u64 = 2;
pub(super) const RWF_SYNC: u64 = 4;
pub(super) const RWF_NOWAIT: u64 = 8;
pub(super) const RWF_APPEND: u64 = 16;
const RWF_NOAPPEND: u64 = 32;
/// The position argument that stands for the file position.
const CURRENT: u64 = u64::MAX;

fn sys_preadv2(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    // What says how to write says nothing of a read.
    if args[5] & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND) != 0 {
        bail!(EOPNOTSUPP);
    }
    // A plain file's data is in the host's page cache or comes there: nobody can be told to wait for it.
    if args[5] & RWF_NOWAIT != 0 && ctx.file(args[0] as i32)?.ops.is_some() {
        bail!(EOPNOTSUPP);
    }
    if args[3] == CURRENT { sys_readv(ctx, args, frame) } else { sys_preadv(ctx, args, frame) }
}

fn sys_pwritev2(ctx: &Ctx, args: &[u64; 6], frame: &mut TrapFrame) -> Result<usize> {
    let flags = args[5];
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND | RWF_NOAPPEND) != 0 {
        bail!(EOPNOTSUPP);
    }
    if flags & (RWF_APPEND | RWF_NOAPPEND) == RWF_APPEND | RWF_NOAPPEND {
        bail!(EINVAL);
    }
    let (file, space) = file_and_memory(ctx, args[0])?;
    let n = if flags & (RWF_APPEND | RWF_NOAPPEND) != 0 && args[3] != CURRENT {
        writable(&file)?;
        let ranges = read_iovec(ctx, args[1], args[2] as usize)?;
        let append = flags & RWF_APPEND != 0;
        file.pwrite_mode(ctx, args[3], append, &mut UserSrc::new(ctx, space, ranges))?
    } else if flags & (RWF_APPEND | RWF_NOAPPEND) != 0 {
        bail!(EOPNOTSUPP, "RWF_APPEND at the file position");
    } else if args[3] == CURRENT {
        sys_writev(ctx, args, frame)?
    } else {
        sys_pwritev(ctx, args, frame)?
    };
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 {
        file.sync(flags & RWF_SYNC == 0)?;
    }
    Ok(n)
}

fn sys_lseek(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file(args[0] as i32)?;
    file.seek(ctx, args[1] as i64, args[2] as u32).map(|at| at as usize)
}

fn sys_fsync(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    ctx.file(args[0] as i32)?.sync(false).map(|()| 0)
}

fn sys_fdatasync(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    ctx.file(args[0] as i32)?.sync(true).map(|()| 0)
}

fn sys_truncate(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if (args[1] as i64) < 0 {
        bail!(EINVAL);
    }
    let path = ctx.read_path(args[0])?;
    let vfs = &ctx.kernel.vfs;
    let at = vfs.resolve(ctx, crate::vfs::AT_FDCWD, &path, WalkFlags::FOLLOW)?;
    vfs.truncate(ctx, &at, args[1], false).map(|()| 0)
}

fn sys_ftruncate(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    if (args[1] as i64) < 0 {
        bail!(EINVAL);
    }
    let file = ctx.file(args[0] as i32)?;
    if !file.flags().writable() || file.inode.file_type() != FileType::Regular {
        bail!(EINVAL);
    }
    ctx.kernel.vfs.truncate(ctx, &file.location, args[1], true).map(|()| 0)
}

fn sys_fallocate(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let [_, mode, offset, len, ..] = *args;
    let file = ctx.file(args[0] as i32)?;
    if (offset as i64) < 0 || (len as i64) <= 0 {
        bail!(EINVAL);
    }
    const KEEP_SIZE: u64 = 1;
    const PUNCH_HOLE: u64 = 2;
    const ZERO_RANGE: u64 = 16;
    let mode = mode & 0xffff_ffff;
    if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 || mode & (PUNCH_HOLE | ZERO_RANGE) == PUNCH_HOLE | ZERO_RANGE
    {
        bail!(EOPNOTSUPP);
    }
    if mode & PUNCH_HOLE != 0 && mode & KEEP_SIZE == 0 {
        bail!(EOPNOTSUPP);
    }
    writable(&file)?;
    match file.inode.file_type() {
        FileType::Regular => {}
        FileType::Fifo => bail!(ESPIPE),
        FileType::Directory => bail!(EISDIR),
        _ => bail!(ENODEV),
    }
    let end = (offset as i64).checked_add(len as i64).ok_or(Errno::EFBIG)? as u64;
    ctx.kernel.vfs.fallocate(ctx, &file, mode as u32, offset, end - offset).map(|()| 0)
}

fn sys_sync(ctx: &Ctx, _: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    // sync(2) always succeeds; what failed is in the log of the file system that failed.
    let _ = ctx.kernel.vfs.sync_all();
    Ok(0)
}

fn sys_syncfs(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file(args[0] as i32)?;
    file.location.mount.sb.fs.sync().map(|()| 0)
}

fn sys_sync_file_range(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const KNOWN: u64 = 7;
    let file = ctx.file(args[0] as i32)?;
    let (offset, len) = (args[1] as i64, args[2] as i64);
    if args[3] & !KNOWN != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        bail!(EINVAL);
    }
    match file.inode.file_type() {
        // There is no finer grain here than the whole file.
        FileType::Regular | FileType::BlockDevice if args[3] != 0 => file.sync(true).map(|()| 0),
        FileType::Regular | FileType::BlockDevice | FileType::Directory | FileType::Symlink => Ok(0),
        _ => bail!(ESPIPE),
    }
}

/// Advice about reading ahead: checked, and without effect, since the host reads ahead by itself.
fn sys_fadvise64(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const NOREUSE: u64 = 5;
    let file = ctx.file(args[0] as i32)?;
    if file.inode.file_type() == FileType::Fifo {
        bail!(ESPIPE);
    }
    if (args[2] as i64) < 0 || args[3] > NOREUSE {
        bail!(EINVAL);
    }
    Ok(0)
}

/// As [`sys_fadvise64`].
fn sys_readahead(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file(args[0] as i32)?;
    readable(&file)?;
    match file.inode.file_type() {
        FileType::Regular if file.ops.is_none() => Ok(0),
        FileType::BlockDevice => Ok(0),
        _ => bail!(EINVAL),
    }
}
