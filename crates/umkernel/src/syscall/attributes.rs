//! Changing what files are: modes, owners, times, extended attributes.

use super::stat::{path_or_empty, resolve_at};
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host::TimeSpec;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::vfs::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Location, NewTime, Timestamp, WalkFlags};
use alloc::vec::Vec;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(90, "chmod", Family::File, &[Arg::Path, Arg::Mode], Support::Full, sys_chmod),
    Entry::new(91, "fchmod", Family::Desc, &[Arg::Fd, Arg::Mode], Support::Full, sys_fchmod),
    Entry::new(92, "chown", Family::File, &[Arg::Path, Arg::Int, Arg::Int], Support::Full, sys_chown),
    Entry::new(93, "fchown", Family::Desc, &[Arg::Fd, Arg::Int, Arg::Int], Support::Full, sys_fchown),
    Entry::new(94, "lchown", Family::File, &[Arg::Path, Arg::Int, Arg::Int], Support::Full, sys_lchown),
    Entry::new(132, "utime", Family::File, &[Arg::Path, Arg::Ptr], Support::Full, sys_utime),
    Entry::new(188, "setxattr", Family::File, SETXATTR, Support::Full, sys_setxattr),
    Entry::new(189, "lsetxattr", Family::File, SETXATTR, Support::Full, sys_lsetxattr),
    Entry::new(190, "fsetxattr", Family::Desc, FSETXATTR, Support::Full, sys_fsetxattr),
    Entry::new(191, "getxattr", Family::File, GETXATTR, Support::Full, sys_getxattr),
    Entry::new(192, "lgetxattr", Family::File, GETXATTR, Support::Full, sys_lgetxattr),
    Entry::new(193, "fgetxattr", Family::Desc, FGETXATTR, Support::Full, sys_fgetxattr),
    Entry::new(194, "listxattr", Family::File, LISTXATTR, Support::Full, sys_listxattr),
    Entry::new(195, "llistxattr", Family::File, LISTXATTR, Support::Full, sys_llistxattr),
    Entry::new(196, "flistxattr", Family::Desc, &[Arg::Fd, Arg::BufOut, Arg::Uint], Support::Full, sys_flistxattr),
    Entry::new(197, "removexattr", Family::File, &[Arg::Path, Arg::Str], Support::Full, sys_removexattr),
    Entry::new(198, "lremovexattr", Family::File, &[Arg::Path, Arg::Str], Support::Full, sys_lremovexattr),
    Entry::new(199, "fremovexattr", Family::Desc, &[Arg::Fd, Arg::Str], Support::Full, sys_fremovexattr),
    Entry::new(235, "utimes", Family::File, &[Arg::Path, Arg::Kind("timeval_pair")], Support::Full, sys_utimes),
    Entry::new(260, "fchownat", Family::File, FCHOWNAT, Support::Full, sys_fchownat),
    Entry::new(261, "futimesat", Family::File, FUTIMESAT, Support::Full, sys_futimesat),
    Entry::new(268, "fchmodat", Family::File, &[Arg::DirFd, Arg::Path, Arg::Mode], Support::Full, sys_fchmodat),
    Entry::new(280, "utimensat", Family::File, UTIMENSAT, Support::Full, sys_utimensat),
    Entry::new(452, "fchmodat2", Family::File, FCHMODAT2, Support::Full, sys_fchmodat2),
];

const SETXATTR: &[Arg] = &[Arg::Path, Arg::Str, Arg::BufIn(3), Arg::Uint, Arg::Kind("xattr_flags")];
const FSETXATTR: &[Arg] = &[Arg::Fd, Arg::Str, Arg::BufIn(3), Arg::Uint, Arg::Kind("xattr_flags")];
const GETXATTR: &[Arg] = &[Arg::Path, Arg::Str, Arg::BufOut, Arg::Uint];
const FGETXATTR: &[Arg] = &[Arg::Fd, Arg::Str, Arg::BufOut, Arg::Uint];
const LISTXATTR: &[Arg] = &[Arg::Path, Arg::BufOut, Arg::Uint];
const FCHOWNAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Int, Arg::Int, Arg::Kind("at_flags")];
const FUTIMESAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("timeval_pair")];
const UTIMENSAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("timespec_pair"), Arg::Kind("at_flags")];
const FCHMODAT2: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Mode, Arg::Kind("at_flags")];

/// What a path names, with or without following a link at its end.
fn named(ctx: &Ctx, path: u64, walk: WalkFlags) -> Result<Location> {
    let path = ctx.read_path(path)?;
    ctx.kernel.vfs.resolve(ctx, AT_FDCWD, &path, walk)
}

/// Where an open file is; `EBADF` for one that is open as a path only.
fn opened(ctx: &Ctx, fd: u64) -> Result<Location> {
    let file = ctx.file(fd as i32)?;
    Ok(file.location.clone())
}

/// What an `*at` call works on.
fn at(ctx: &Ctx, dirfd: u64, path: u64, flags: u32) -> Result<Location> {
    let walk = WalkFlags::from_at(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let path = path_or_empty(ctx, path, walk)?;
    resolve_at(ctx, dirfd as i32, &path, walk)
}

fn sys_chmod(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = named(ctx, args[0], WalkFlags::FOLLOW)?;
    ctx.kernel.vfs.chmod(ctx, &location, args[1] as u32).map(|()| 0)
}

fn sys_fchmod(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = opened(ctx, args[0])?;
    ctx.kernel.vfs.chmod(ctx, &location, args[1] as u32).map(|()| 0)
}

fn sys_fchmodat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = at(ctx, args[0], args[1], 0)?;
    ctx.kernel.vfs.chmod(ctx, &location, args[2] as u32).map(|()| 0)
}

fn sys_fchmodat2(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = at(ctx, args[0], args[1], args[3] as u32)?;
    ctx.kernel.vfs.chmod(ctx, &location, args[2] as u32).map(|()| 0)
}

/// An id argument of `chown(2)`; -1 leaves the id as it is.
fn id(arg: u64) -> Option<u32> {
    (arg as u32 != u32::MAX).then_some(arg as u32)
}

fn sys_chown(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = named(ctx, args[0], WalkFlags::FOLLOW)?;
    ctx.kernel.vfs.chown(ctx, &location, id(args[1]), id(args[2])).map(|()| 0)
}

fn sys_lchown(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = named(ctx, args[0], WalkFlags::empty())?;
    ctx.kernel.vfs.chown(ctx, &location, id(args[1]), id(args[2])).map(|()| 0)
}

fn sys_fchown(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = opened(ctx, args[0])?;
    ctx.kernel.vfs.chown(ctx, &location, id(args[1]), id(args[2])).map(|()| 0)
}

fn sys_fchownat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let location = at(ctx, args[0], args[1], args[4] as u32)?;
    ctx.kernel.vfs.chown(ctx, &location, id(args[2]), id(args[3])).map(|()| 0)
}

/// `UTIME_NOW` and `UTIME_OMIT` of `utimensat(2)`.
const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

fn new_time(t: TimeSpec) -> Result<NewTime> {
    Ok(match t.nsec {
        UTIME_NOW => NewTime::Now,
        UTIME_OMIT => NewTime::Omit,
        0..=999_999_999 => NewTime::At(Timestamp { sec: t.sec, nsec: t.nsec as u32 }),
        _ => bail!(EINVAL),
    })
}

fn sys_utimensat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let times = match args[2] {
        0 => None,
        addr => {
            let [atime, mtime] = ctx.read_val::<[TimeSpec; 2]>(addr)?;
            Some((new_time(atime)?, new_time(mtime)?))
        }
    };
    if times == Some((NewTime::Omit, NewTime::Omit)) {
        return Ok(0);
    }
    // A NULL path means the open file (futimens(3)).
    let location = if args[1] == 0 && args[0] as i32 != AT_FDCWD {
        if args[3] != 0 {
            bail!(EINVAL);
        }
        opened(ctx, args[0])?
    } else {
        at(ctx, args[0], args[1], args[3] as u32)?
    };
    ctx.kernel.vfs.set_times(ctx, &location, times).map(|()| 0)
}

/// The two `struct timeval` of `utimes(2)`.
fn timevals(ctx: &Ctx, addr: u64) -> Result<Option<(NewTime, NewTime)>> {
    if addr == 0 {
        return Ok(None);
    }
    let [asec, ausec, msec, musec] = ctx.read_val::<[i64; 4]>(addr)?;
    let time = |sec: i64, usec: i64| match usec {
        0..=999_999 => Ok(NewTime::At(Timestamp { sec, nsec: usec as u32 * 1000 })),
        _ => Err(Errno::EINVAL),
    };
    Ok(Some((time(asec, ausec)?, time(msec, musec)?)))
}

fn sys_utimes(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let times = timevals(ctx, args[1])?;
    let location = named(ctx, args[0], WalkFlags::FOLLOW)?;
    ctx.kernel.vfs.set_times(ctx, &location, times).map(|()| 0)
}

fn sys_futimesat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let times = timevals(ctx, args[2])?;
    let location = if args[1] == 0 { opened(ctx, args[0])? } else { at(ctx, args[0], args[1], 0)? };
    ctx.kernel.vfs.set_times(ctx, &location, times).map(|()| 0)
}

fn sys_utime(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let times = match args[1] {
        0 => None,
        addr => {
            let time = |sec: i64| NewTime::At(Timestamp { sec, nsec: 0 });
            let [asec, msec] = ctx.read_val::<[i64; 2]>(addr)?;
            Some((time(asec), time(msec)))
        }
    };
    let location = named(ctx, args[0], WalkFlags::FOLLOW)?;
    ctx.kernel.vfs.set_times(ctx, &location, times).map(|()| 0)
}

/// `XATTR_NAME_MAX`, `XATTR_SIZE_MAX`, `XATTR_LIST_MAX` of `linux/limits.h`.
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: u64 = 65536;
const XATTR_LIST_MAX: usize = 65536;

fn xattr_name(ctx: &Ctx, addr: u64) -> Result<Vec<u8>> {
    match ctx.read_cstr(addr, XATTR_NAME_MAX) {
        Ok(name) if name.is_empty() => bail!(ERANGE),
        Ok(name) => Ok(name),
        Err(e) if e == Errno::ENAMETOOLONG => bail!(ERANGE),
        Err(e) => Err(e),
    }
}

/// `name`, `value`, `size`, `flags` of `setxattr(2)`.
fn setxattr(ctx: &Ctx, location: impl FnOnce() -> Result<Location>, rest: [u64; 4]) -> Result<usize> {
    let [name, value, size, flags] = rest;
    let flags = flags as u32;
    if flags & !3 != 0 {
        bail!(EINVAL);
    }
    let name = xattr_name(ctx, name)?;
    if size > XATTR_SIZE_MAX {
        bail!(E2BIG);
    }
    let mut bytes = alloc::vec![0; size as usize];
    ctx.read_user(value, &mut bytes)?;
    ctx.kernel.vfs.xattr_set(ctx, &location()?, &name, &bytes, flags).map(|()| 0)
}

fn sys_setxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    setxattr(ctx, || named(ctx, args[0], WalkFlags::FOLLOW), [args[1], args[2], args[3], args[4]])
}

fn sys_lsetxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    setxattr(ctx, || named(ctx, args[0], WalkFlags::empty()), [args[1], args[2], args[3], args[4]])
}

fn sys_fsetxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    setxattr(ctx, || opened(ctx, args[0]), [args[1], args[2], args[3], args[4]])
}

/// Stores a value or list in user memory; with size 0 only its length is asked for.
fn store(ctx: &Ctx, addr: u64, size: u64, bytes: &[u8]) -> Result<usize> {
    if size != 0 {
        if bytes.len() as u64 > size {
            bail!(ERANGE);
        }
        ctx.write_user(addr, bytes)?;
    }
    Ok(bytes.len())
}

fn getxattr(ctx: &Ctx, location: &Location, args: &[u64; 6]) -> Result<usize> {
    let name = xattr_name(ctx, args[1])?;
    let value = ctx.kernel.vfs.xattr_get(ctx, location, &name)?;
    store(ctx, args[2], args[3], &value)
}

fn sys_getxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    getxattr(ctx, &named(ctx, args[0], WalkFlags::FOLLOW)?, args)
}

fn sys_lgetxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    getxattr(ctx, &named(ctx, args[0], WalkFlags::empty())?, args)
}

fn sys_fgetxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    getxattr(ctx, &opened(ctx, args[0])?, args)
}

fn listxattr(ctx: &Ctx, location: &Location, args: &[u64; 6]) -> Result<usize> {
    let mut list = Vec::new();
    for name in ctx.kernel.vfs.xattr_list(ctx, location)? {
        list.extend_from_slice(&name);
        list.push(0);
    }
    if list.len() > XATTR_LIST_MAX {
        bail!(E2BIG);
    }
    store(ctx, args[1], args[2], &list)
}

fn sys_listxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    listxattr(ctx, &named(ctx, args[0], WalkFlags::FOLLOW)?, args)
}

fn sys_llistxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    listxattr(ctx, &named(ctx, args[0], WalkFlags::empty())?, args)
}

fn sys_flistxattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    listxattr(ctx, &opened(ctx, args[0])?, args)
}

fn removexattr(ctx: &Ctx, location: &Location, name: u64) -> Result<usize> {
    let name = xattr_name(ctx, name)?;
    ctx.kernel.vfs.xattr_remove(ctx, location, &name).map(|()| 0)
}

fn sys_removexattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    removexattr(ctx, &named(ctx, args[0], WalkFlags::FOLLOW)?, args[1])
}

fn sys_lremovexattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    removexattr(ctx, &named(ctx, args[0], WalkFlags::empty())?, args[1])
}

fn sys_fremovexattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    removexattr(ctx, &opened(ctx, args[0])?, args[1])
}
