//! `fcntl(2)` and `flock(2)`.

use super::open::RLIMIT_NOFILE;
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::vfs::{File, FileLocks, InodeFlags, LeaseKind, LockOwner, OpenFlags, Owner, Pipe, PipeEnd, RecordLock};
use alloc::sync::Arc;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(72, "fcntl", Family::Desc, FCNTL, Support::Partial("no F_NOTIFY"), sys_fcntl),
    Entry::new(73, "flock", Family::Desc, &[Arg::Fd, Arg::Kind("flock")], Support::Full, sys_flock),
];

const FCNTL: &[Arg] = &[Arg::Fd, Arg::Kind("fcntl_cmd"), Arg::Kind("fcntl_arg")];

/// Commands (`asm-generic/fcntl.h`, `linux/fcntl.h`).
mod cmd {
    pub(super) const DUPFD: u32 = 0;
    pub(super) const GETFD: u32 = 1;
    pub(super) const SETFD: u32 = 2;
    pub(super) const GETFL: u32 = 3;
    pub(super) const SETFL: u32 = 4;
    pub(super) const GETLK: u32 = 5;
    pub(super) const SETLK: u32 = 6;
    pub(super) const SETLKW: u32 = 7;
    pub(super) const SETOWN: u32 = 8;
    pub(super) const GETOWN: u32 = 9;
    pub(super) const SETSIG: u32 = 10;
    pub(super) const GETSIG: u32 = 11;
    pub(super) const SETOWN_EX: u32 = 15;
    pub(super) const GETOWN_EX: u32 = 16;
    pub(super) const SETLEASE: u32 = 1024;
    pub(super) const GETLEASE: u32 = 1025;
    pub(super) const CREATED_QUERY: u32 = 1028;
    pub(super) const OFD_GETLK: u32 = 36;
    pub(super) const OFD_SETLK: u32 = 37;
    pub(super) const OFD_SETLKW: u32 = 38;
    pub(super) const DUPFD_CLOEXEC: u32 = 1030;
    pub(super) const SETPIPE_SZ: u32 = 1031;
    pub(super) const GETPIPE_SZ: u32 = 1032;
    pub(super) const ADD_SEALS: u32 = 1033;
    pub(super) const GET_SEALS: u32 = 1034;
}

const FD_CLOEXEC: u64 = 1;

fn sys_fcntl(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (fd, command, arg) = (args[0] as i32, args[1] as u32, args[2]);
    let files = ctx.files();
    let file = files.get_or_path(fd)?;
    let about_descriptor = [cmd::DUPFD, cmd::DUPFD_CLOEXEC, cmd::GETFD, cmd::SETFD, cmd::GETFL].contains(&command);
    if file.flags().contains(OpenFlags::PATH) && !about_descriptor {
        bail!(EBADF);
    }
    match command {
        cmd::DUPFD | cmd::DUPFD_CLOEXEC => {
            let limit = ctx.task.process.limit(RLIMIT_NOFILE);
            let from = u64::from(arg as u32);
            if arg as i32 <= -1 || from >= limit {
                bail!(EINVAL);
            }
            files.insert(file, command == cmd::DUPFD_CLOEXEC, from as usize, limit).map(|fd| fd as usize)
        }
        cmd::GETFD => files.close_on_exec_of(fd).map(usize::from),
        cmd::SETFD => files.set_close_on_exec(fd, arg & FD_CLOEXEC != 0).map(|()| 0),
        cmd::GETFL => Ok(file.flags().bits() as usize),
        cmd::SETFL => {
            let flags = OpenFlags::from_bits_retain(arg as u32);
            if flags.contains(OpenFlags::NOATIME)
                && !file.flags().contains(OpenFlags::NOATIME)
                && !ctx.creds().owns(&file.inode.attr()?)
            {
                bail!(EPERM);
            }
            let appends = |flags: OpenFlags| flags.contains(OpenFlags::APPEND);
            if appends(file.flags()) && !appends(flags) && file.inode.flags().contains(InodeFlags::APPEND) {
                bail!(EPERM, "the file is append-only");
            }
            file.change_flags(ctx, fd, flags);
            Ok(0)
        }
        cmd::SETOWN => set_owner(ctx, &file, arg as i32),
        cmd::GETOWN => Ok(match owner_of(&file) {
            Owner::Nobody => 0,
            Owner::Thread(id) | Owner::Process(id) => id as usize,
            Owner::Group(pgid) => -(pgid as isize) as usize,
        }),
        cmd::SETSIG => file.async_io_for(ctx).set_signal(arg).map(|()| 0),
        cmd::GETSIG => Ok(file.async_io().map_or(0, |io| io.signal().into())),
        cmd::SETOWN_EX => set_owner_ex(ctx, &file, arg),
        cmd::GETOWN_EX => {
            let owner = match owner_of(&file) {
                Owner::Nobody => [OWNER_PROCESS, 0],
                Owner::Thread(tid) => [OWNER_THREAD, tid],
                Owner::Process(pid) => [OWNER_PROCESS, pid],
                Owner::Group(pgid) => [OWNER_GROUP, pgid],
            };
            ctx.write_val(arg, &owner).map(|()| 0)
        }
        cmd::GETLK | cmd::OFD_GETLK => get_lock(ctx, &file, arg, command == cmd::OFD_GETLK),
        cmd::SETLK | cmd::SETLKW => set_lock(ctx, fd, &file, arg, command == cmd::SETLKW, false),
        cmd::OFD_SETLK | cmd::OFD_SETLKW => set_lock(ctx, fd, &file, arg, command == cmd::OFD_SETLKW, true),
        cmd::SETPIPE_SZ => {
            if arg as i32 <= 0 && arg != 0 {
                bail!(EINVAL);
            }
            pipe_of(&file)?.set_capacity(ctx, arg as u32 as usize)
        }
        cmd::SETLEASE => match u16::try_from(arg) {
            Ok(F_RDLCK) => file.set_lease(ctx, fd, LeaseKind::Read),
            Ok(F_WRLCK) => file.set_lease(ctx, fd, LeaseKind::Write),
            Ok(F_UNLCK) => file.end_lease(ctx),
            _ => bail!(EINVAL),
        }
        .map(|()| 0),
        cmd::GETLEASE => Ok(match file.lease() {
            Some(LeaseKind::Read) => F_RDLCK,
            Some(LeaseKind::Write) => F_WRLCK,
            None => F_UNLCK,
        }
        .into()),
        cmd::CREATED_QUERY => Ok(file.was_created().into()),
        cmd::GETPIPE_SZ => Ok(pipe_of(&file)?.capacity()),
        cmd::ADD_SEALS => {
            let Some(common) = file.inode.common() else {
                bail!(EINVAL);
            };
            if !file.flags().writable() {
                bail!(EPERM);
            }
            common.add_seals(arg as u32).map(|()| 0)
        }
        cmd::GET_SEALS => match file.inode.common().and_then(|c| c.seals()) {
            Some(seals) => Ok(seals as usize),
            None => bail!(EINVAL),
        },
        _ => bail!(EINVAL),
    }
}

fn pipe_of(file: &File) -> Result<Arc<Pipe>> {
    file.ops_as::<PipeEnd>().map(|end| end.pipe().clone()).ok_or(Errno::EBADF.into())
}

/// `F_OWNER_*` of `struct f_owner_ex`.
const OWNER_THREAD: i32 = 0;
const OWNER_PROCESS: i32 = 1;
const OWNER_GROUP: i32 = 2;

fn owner_of(file: &File) -> Owner {
    file.async_io().map_or(Owner::Nobody, |io| io.owner())
}

/// Who gets `SIGIO`: a process, or with a negative number a process group.
fn set_owner(ctx: &Ctx, file: &File, who: i32) -> Result<usize> {
    let owner = match who {
        0 => Owner::Nobody,
        i32::MIN => bail!(EINVAL),
        pid if pid > 0 => Owner::Process(pid),
        group => Owner::Group(-group),
    };
    file.async_io_for(ctx).set_owner(ctx, owner).map(|()| 0)
}

fn set_owner_ex(ctx: &Ctx, file: &File, addr: u64) -> Result<usize> {
    let owner = match ctx.read_val::<[i32; 2]>(addr)? {
        [OWNER_THREAD | OWNER_PROCESS | OWNER_GROUP, 0] => Owner::Nobody,
        [OWNER_THREAD, tid] => Owner::Thread(tid),
        [OWNER_PROCESS, pid] => Owner::Process(pid),
        [OWNER_GROUP, pgid] => Owner::Group(pgid),
        _ => bail!(EINVAL),
    };
    file.async_io_for(ctx).set_owner(ctx, owner).map(|()| 0)
}

const F_RDLCK: u16 = 0;
const F_WRLCK: u16 = 1;
const F_UNLCK: u16 = 2;

/// `struct flock` of x86-64: type and whence in the first word, then start, length and process.
type RawLock = [u64; 4];

/// The bytes that a `struct flock` is about, first and last.
fn lock_range(file: &File, raw: &RawLock) -> Result<(u64, u64)> {
    let whence = raw[0] >> 16 & 0xffff;
    let base = match whence {
        0 => 0,
        1 => file.position.now(),
        2 => file.inode.attr()?.size,
        _ => bail!(EINVAL),
    };
    let (offset, len) = (raw[1] as i64, raw[2] as i64);
    let start = (base as i64).checked_add(offset).ok_or(Errno::EOVERFLOW)?;
    if start < 0 {
        bail!(EINVAL);
    }
    let (start, end) = match len {
        0 => (start, i64::MAX),
        len if len > 0 => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    if start < 0 {
        bail!(EINVAL);
    }
    Ok((start as u64, end as u64))
}

/// The locks of a file; `ENOLCK` on a file system that has none.
fn locks(file: &File) -> Result<&FileLocks> {
    file.inode.common().map(|c| &c.locks).ok_or(Errno::ENOLCK.into())
}

fn owner(ctx: &Ctx, file: &Arc<File>, description: bool) -> (LockOwner, i32) {
    if description {
        (LockOwner::Description(Arc::as_ptr(file) as usize), -1)
    } else {
        (LockOwner::Process(ctx.files().lock_owner()), ctx.task.process.pid)
    }
}

fn get_lock(ctx: &Ctx, file: &Arc<File>, addr: u64, description: bool) -> Result<usize> {
    let raw = ctx.read_val::<RawLock>(addr)?;
    let kind = raw[0] as u16;
    if kind != F_RDLCK && kind != F_WRLCK || description && raw[3] as u32 != 0 {
        bail!(EINVAL);
    }
    let (start, end) = lock_range(file, &raw)?;
    let (owner, pid) = owner(ctx, file, description);
    let wanted = RecordLock { owner, pid, start, end, exclusive: kind == F_WRLCK };
    let padding = raw[0] & !0xffff_ffff;
    let answer: RawLock = match locks(file)?.test(&wanted) {
        None => [raw[0] & !0xffff | u64::from(F_UNLCK), raw[1], raw[2], raw[3]],
        Some(found) => {
            let kind = if found.exclusive { F_WRLCK } else { F_RDLCK };
            let len = if found.end == i64::MAX as u64 { 0 } else { found.end - found.start + 1 };
            [padding | u64::from(kind), found.start, len, raw[3] & !0xffff_ffff | u64::from(found.pid as u32)]
        }
    };
    ctx.write_val(addr, &answer).map(|()| 0)
}

fn set_lock(ctx: &Ctx, fd: i32, file: &Arc<File>, addr: u64, wait: bool, description: bool) -> Result<usize> {
    let raw = ctx.read_val::<RawLock>(addr)?;
    let kind = raw[0] as u16;
    let (start, end) = lock_range(file, &raw)?;
    if description && raw[3] as u32 != 0 {
        bail!(EINVAL);
    }
    match kind {
        F_RDLCK if !file.flags().readable() => bail!(EBADF),
        F_WRLCK if !file.flags().writable() => bail!(EBADF),
        F_RDLCK | F_WRLCK | F_UNLCK => {}
        _ => bail!(EINVAL),
    }
    let locks = locks(file)?;
    let (owner, pid) = owner(ctx, file, description);
    if kind == F_UNLCK {
        locks.clear_record(owner, start, end);
        return Ok(0);
    }
    file.note_lock();
    locks.set_record(ctx, RecordLock { owner, pid, start, end, exclusive: kind == F_WRLCK }, wait)?;
    // Another thread may have closed the descriptor meanwhile: then nobody would ever release the lock.
    let files = ctx.files();
    if !description && !files.get_or_path(fd).is_ok_and(|now| Arc::ptr_eq(&now, file)) {
        locks.clear_record(owner, start, end);
        bail!(EBADF);
    }
    Ok(0)
}

fn sys_flock(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const LOCK_SH: u32 = 1;
    const LOCK_EX: u32 = 2;
    const LOCK_NB: u32 = 4;
    const LOCK_UN: u32 = 8;
    let operation = args[1] as u32;
    let exclusive = match operation & !LOCK_NB {
        LOCK_SH => Some(false),
        LOCK_EX => Some(true),
        LOCK_UN => None,
        _ => bail!(EINVAL),
    };
    let file = ctx.file(args[0] as i32)?;
    let locks = locks(&file)?;
    let id = Arc::as_ptr(&file) as usize;
    match exclusive {
        None => locks.unflock(id),
        Some(exclusive) => {
            file.note_lock();
            locks.flock(ctx, id, exclusive, operation & LOCK_NB == 0)?;
        }
    }
    Ok(0)
}
