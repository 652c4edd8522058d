//! Names and directories.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::Capabilities;
use crate::vfs::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, Access, DirEntry, FileType, Location, NotifyEvents, WalkFlags, notify,
};
use alloc::vec::Vec;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(78, "getdents", Family::Desc, GETDENTS, Support::Full, sys_getdents),
    Entry::new(79, "getcwd", Family::File, &[Arg::BufOut, Arg::Uint], Support::Full, sys_getcwd),
    Entry::new(80, "chdir", Family::File, &[Arg::Path], Support::Full, sys_chdir),
    Entry::new(81, "fchdir", Family::Desc, &[Arg::Fd], Support::Full, sys_fchdir),
    Entry::new(82, "rename", Family::File, &[Arg::Path, Arg::Path], Support::Full, sys_rename),
    Entry::new(83, "mkdir", Family::File, &[Arg::Path, Arg::Mode], Support::Full, sys_mkdir),
    Entry::new(84, "rmdir", Family::File, &[Arg::Path], Support::Full, sys_rmdir),
    Entry::new(86, "link", Family::File, &[Arg::Path, Arg::Path], Support::Full, sys_link),
    Entry::new(87, "unlink", Family::File, &[Arg::Path], Support::Full, sys_unlink),
    Entry::new(88, "symlink", Family::File, &[Arg::Path, Arg::Path], Support::Full, sys_symlink),
    Entry::new(95, "umask", Family::File, &[Arg::Mode], Support::Full, sys_umask),
    Entry::new(133, "mknod", Family::File, &[Arg::Path, Arg::Mode, Arg::Kind("dev")], Support::Full, sys_mknod),
    Entry::new(161, "chroot", Family::File, &[Arg::Path], Support::Full, sys_chroot),
    Entry::new(217, "getdents64", Family::Desc, GETDENTS, Support::Full, sys_getdents64),
    Entry::new(258, "mkdirat", Family::File, &[Arg::DirFd, Arg::Path, Arg::Mode], Support::Full, sys_mkdirat),
    Entry::new(259, "mknodat", Family::File, MKNODAT, Support::Full, sys_mknodat),
    Entry::new(263, "unlinkat", Family::File, UNLINKAT, Support::Full, sys_unlinkat),
    Entry::new(264, "renameat", Family::File, RENAMEAT, Support::Full, sys_renameat),
    Entry::new(265, "linkat", Family::File, LINKAT, Support::Full, sys_linkat),
    Entry::new(266, "symlinkat", Family::File, &[Arg::Path, Arg::DirFd, Arg::Path], Support::Full, sys_symlinkat),
    Entry::new(316, "renameat2", Family::File, RENAMEAT2, Support::Partial("no RENAME_WHITEOUT"), sys_renameat2),
];

const GETDENTS: &[Arg] = &[Arg::Fd, Arg::Kind("dirents"), Arg::Uint];
const MKNODAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Mode, Arg::Kind("dev")];
const UNLINKAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("at_flags")];
const RENAMEAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::DirFd, Arg::Path];
const RENAMEAT2: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::DirFd, Arg::Path, Arg::Kind("rename_flags")];
const LINKAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::DirFd, Arg::Path, Arg::Kind("at_flags")];

fn sys_mkdir(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[0])?;
    ctx.kernel.vfs.mkdir(ctx, AT_FDCWD, &path, args[1] as u32).map(|_| 0)
}

fn sys_mkdirat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[1])?;
    ctx.kernel.vfs.mkdir(ctx, args[0] as i32, &path, args[2] as u32).map(|_| 0)
}

fn sys_mknod(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    mknod(ctx, AT_FDCWD, args[0], args[1] as u32, args[2])
}

fn sys_mknodat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    mknod(ctx, args[0] as i32, args[1], args[2] as u32, args[3])
}

fn mknod(ctx: &Ctx, dirfd: i32, path: u64, mode: u32, dev: u64) -> Result<usize> {
    let file_type = match FileType::from_mode(mode) {
        Some(FileType::Directory) => bail!(EPERM),
        Some(FileType::Symlink) | None => bail!(EINVAL),
        Some(file_type) => file_type,
    };
    let path = ctx.read_path(path)?;
    let rdev = dev & 0xffff_ffff;
    ctx.kernel.vfs.mknod(ctx, dirfd, &path, file_type, mode & 0o7777, rdev).map(|_| 0)
}

fn sys_symlink(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let target = ctx.read_path(args[0])?;
    let path = ctx.read_path(args[1])?;
    ctx.kernel.vfs.symlink(ctx, &target, AT_FDCWD, &path).map(|_| 0)
}

fn sys_symlinkat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let target = ctx.read_path(args[0])?;
    let path = ctx.read_path(args[2])?;
    ctx.kernel.vfs.symlink(ctx, &target, args[1] as i32, &path).map(|_| 0)
}

fn sys_link(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    link(ctx, (AT_FDCWD, args[0]), (AT_FDCWD, args[1]), 0)
}

fn sys_linkat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    link(ctx, (args[0] as i32, args[1]), (args[2] as i32, args[3]), args[4] as u32)
}

fn link(ctx: &Ctx, (old_fd, old): (i32, u64), (new_fd, new): (i32, u64), flags: u32) -> Result<usize> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        bail!(EINVAL);
    }
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, flags & AT_SYMLINK_FOLLOW != 0);
    if flags & AT_EMPTY_PATH != 0 {
        if !ctx.creds().capable(Capabilities::DAC_READ_SEARCH) {
            bail!(ENOENT);
        }
        walk |= WalkFlags::EMPTY;
    }
    let old = ctx.read_path(old)?;
    let new = ctx.read_path(new)?;
    let vfs = &ctx.kernel.vfs;
    let from = vfs.resolve(ctx, old_fd, &old, walk)?;
    vfs.link(ctx, &from, new_fd, &new).map(|()| 0)
}

fn sys_unlink(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[0])?;
    ctx.kernel.vfs.unlink(ctx, AT_FDCWD, &path).map(|()| 0)
}

fn sys_rmdir(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[0])?;
    ctx.kernel.vfs.rmdir(ctx, AT_FDCWD, &path).map(|()| 0)
}

fn sys_unlinkat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const AT_REMOVEDIR: u64 = 0x200;
    if args[2] & 0xffff_ffff & !AT_REMOVEDIR != 0 {
        bail!(EINVAL);
    }
    let path = ctx.read_path(args[1])?;
    let vfs = &ctx.kernel.vfs;
    if args[2] & AT_REMOVEDIR != 0 {
        vfs.rmdir(ctx, args[0] as i32, &path)?;
    } else {
        vfs.unlink(ctx, args[0] as i32, &path)?;
    }
    Ok(0)
}

fn sys_rename(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    rename(ctx, (AT_FDCWD, args[0]), (AT_FDCWD, args[1]), 0)
}

fn sys_renameat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    rename(ctx, (args[0] as i32, args[1]), (args[2] as i32, args[3]), 0)
}

fn sys_renameat2(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    rename(ctx, (args[0] as i32, args[1]), (args[2] as i32, args[3]), args[4] as u32)
}

fn rename(ctx: &Ctx, (old_fd, old): (i32, u64), (new_fd, new): (i32, u64), flags: u32) -> Result<usize> {
    let old = ctx.read_path(old)?;
    let new = ctx.read_path(new)?;
    ctx.kernel.vfs.rename(ctx, (old_fd, &old), (new_fd, &new), flags).map(|()| 0)
}

fn sys_umask(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let fs = ctx.fs();
    let mut inner = fs.inner.lock();
    Ok(core::mem::replace(&mut inner.umask, args[0] as u32 & 0o777) as usize)
}

/// A directory that the task may make its working directory.
fn enterable(ctx: &Ctx, path: u64) -> Result<Location> {
    let path = ctx.read_path(path)?;
    let at = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, &path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    at.permission(ctx.creds(), Access::EXEC)?;
    Ok(at)
}

fn sys_chdir(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let at = enterable(ctx, args[0])?;
    set_cwd(ctx, at);
    Ok(0)
}

fn sys_fchdir(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file_or_path(args[0] as i32)?;
    if file.inode.file_type() != FileType::Directory {
        bail!(ENOTDIR);
    }
    file.location.permission(ctx.creds(), Access::EXEC)?;
    set_cwd(ctx, file.location.clone());
    Ok(0)
}

fn set_cwd(ctx: &Ctx, at: Location) {
    let fs = ctx.fs();
    let old = core::mem::replace(&mut fs.inner.lock().cwd, at);
    drop(old);
}

fn sys_chroot(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let at = enterable(ctx, args[0])?;
    if !ctx.creds().capable(Capabilities::SYS_CHROOT) {
        bail!(EPERM);
    }
    let fs = ctx.fs();
    let old = core::mem::replace(&mut fs.inner.lock().root, at);
    drop(old);
    Ok(0)
}

/// The longest path with its NUL that any call gives (`PATH_MAX`).
const PATH_MAX: usize = 4096;

fn sys_getcwd(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let fs = ctx.fs();
    let (root, cwd) = {
        let inner = fs.inner.lock();
        (inner.root.clone(), inner.cwd.clone())
    };
    let text = cwd.path_from(&root);
    if text.deleted {
        bail!(ENOENT);
    }
    let mut path = if text.reachable { Vec::new() } else { b"(unreachable)".to_vec() };
    path.extend_from_slice(&text.path);
    path.push(0);
    if path.len() > PATH_MAX {
        bail!(ENAMETOOLONG);
    }
    if path.len() as u64 > args[1] {
        bail!(ERANGE);
    }
    ctx.write_user(args[0], &path)?;
    Ok(path.len())
}

/// How `getdents` writes an entry: fills `out` and says how long the record became.
type Encode = fn(&mut Vec<u8>, &DirEntry<'_>);

/// Pads the record that starts at `start` to a multiple of 8 bytes and stores its length at `start + 16`.
fn finish_record(out: &mut Vec<u8>, start: usize, tail: usize) {
    let len = (out.len() - start + tail).next_multiple_of(8);
    out.resize(start + len, 0);
    out[start + 16..start + 18].copy_from_slice(&(len as u16).to_ne_bytes());
}

/// `struct linux_dirent64`.
fn encode64(out: &mut Vec<u8>, entry: &DirEntry<'_>) {
    let start = out.len();
    out.extend_from_slice(&entry.ino.to_ne_bytes());
    out.extend_from_slice(&entry.next.to_ne_bytes());
    out.extend_from_slice(&[0, 0, entry.file_type as u8]);
    out.extend_from_slice(entry.name);
    finish_record(out, start, 1);
}

/// `struct linux_dirent`, whose last byte is the type.
fn encode_old(out: &mut Vec<u8>, entry: &DirEntry<'_>) {
    let start = out.len();
    out.extend_from_slice(&entry.ino.to_ne_bytes());
    out.extend_from_slice(&entry.next.to_ne_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(entry.name);
    finish_record(out, start, 2);
    if let Some(last) = out.last_mut() {
        *last = entry.file_type as u8;
    }
}

fn sys_getdents64(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    getdents(ctx, args, encode64)
}

fn sys_getdents(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    getdents(ctx, args, encode_old)
}

fn getdents(ctx: &Ctx, args: &[u64; 6], encode: Encode) -> Result<usize> {
    /// More is not filled at once, however large the buffer.
    const BUFFER_MAX: usize = 256 * 1024;
    let file = ctx.file(args[0] as i32)?;
    if file.inode.file_type() != FileType::Directory {
        bail!(ENOTDIR);
    }
    let room = (args[2] as u32 as usize).min(BUFFER_MAX);
    let position = file.position.turn(false);
    if file.location.dentry.deleted() {
        bail!(ENOENT);
    }
    let mut out = Vec::with_capacity(room.min(32 * 1024));
    let mut next = position.get();
    let mut too_small = false;
    file.inode.read_dir(ctx, next, &mut |entry| {
        let start = out.len();
        encode(&mut out, entry);
        if out.len() > room {
            out.truncate(start);
            too_small = start == 0;
            return false;
        }
        next = entry.next;
        true
    })?;
    if too_small {
        bail!(EINVAL);
    }
    if !out.is_empty() {
        ctx.write_user(args[1], &out).map_err(|_| Errno::EFAULT)?;
    }
    position.set(next);
    drop(position);
    ctx.kernel.vfs.touch_atime(&file.location);
    notify::at(&file.location, NotifyEvents::ACCESS);
    Ok(out.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_aligned_and_carry_their_type() {
        let entry = DirEntry { ino: 5, file_type: FileType::Directory, name: b"abcde", next: 9 };
        let mut out = Vec::new();
        encode64(&mut out, &entry);
        assert_eq!(out.len(), 32);
        assert_eq!((out[16], out[18], &out[19..25]), (32, 4, &b"abcde\0"[..]));
        out.clear();
        encode_old(&mut out, &entry);
        assert_eq!(out.len(), 32);
        assert_eq!((out[16], out[31], &out[18..24]), (32, 4, &b"abcde\0"[..]));
    }
}
