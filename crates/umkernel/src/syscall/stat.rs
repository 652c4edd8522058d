//! What files are: `stat(2)`, `statx(2)`, `access(2)`, `readlink(2)`, `statfs(2)`.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::vfs::{
    AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, Access, Attr, FileType, InodeFlags, Location,
    MountFlags, Timestamp, WalkFlags, check_access, major, minor,
};

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(4, "stat", Family::File, &[Arg::Path, Arg::Kind("stat")], Support::Full, sys_stat),
    Entry::new(5, "fstat", Family::Desc, &[Arg::Fd, Arg::Kind("stat")], Support::Full, sys_fstat),
    Entry::new(6, "lstat", Family::File, &[Arg::Path, Arg::Kind("stat")], Support::Full, sys_lstat),
    Entry::new(21, "access", Family::File, &[Arg::Path, Arg::Kind("access_mode")], Support::Full, sys_access),
    Entry::new(89, "readlink", Family::File, READLINK, Support::Full, sys_readlink),
    Entry::new(137, "statfs", Family::File, &[Arg::Path, Arg::Kind("statfs")], Support::Full, sys_statfs),
    Entry::new(138, "fstatfs", Family::Desc, &[Arg::Fd, Arg::Kind("statfs")], Support::Full, sys_fstatfs),
    Entry::new(262, "newfstatat", Family::File, FSTATAT, Support::Full, sys_newfstatat),
    Entry::new(267, "readlinkat", Family::File, READLINKAT, Support::Full, sys_readlinkat),
    Entry::new(269, "faccessat", Family::File, FACCESSAT, Support::Full, sys_faccessat),
    Entry::new(332, "statx", Family::File, STATX, Support::Full, sys_statx),
    Entry::new(439, "faccessat2", Family::File, FACCESSAT2, Support::Full, sys_faccessat2),
];

const READLINK: &[Arg] = &[Arg::Path, Arg::BufOut, Arg::Uint];
const READLINKAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::BufOut, Arg::Uint];
const FSTATAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("stat"), Arg::Kind("at_flags")];
const FACCESSAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("access_mode")];
const FACCESSAT2: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("access_mode"), Arg::Kind("at_flags")];
const STATX: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("at_flags"), Arg::Kind("statx_mask"), Arg::Kind("statx")];

/// Builds a structure for user memory field by field, padding and all.
struct Layout<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Layout<N> {
    fn new() -> Layout<N> {
        Layout { bytes: [0; N], at: 0 }
    }

    fn put<const M: usize>(&mut self, field: [u8; M]) -> &mut Layout<N> {
        self.bytes[self.at..self.at + M].copy_from_slice(&field);
        self.at += M;
        self
    }

    fn u16(&mut self, v: u16) -> &mut Layout<N> {
        self.put(v.to_ne_bytes())
    }

    fn u32(&mut self, v: u32) -> &mut Layout<N> {
        self.put(v.to_ne_bytes())
    }

    fn u64(&mut self, v: u64) -> &mut Layout<N> {
        self.put(v.to_ne_bytes())
    }

    /// `struct timespec`.
    fn time(&mut self, t: Timestamp) -> &mut Layout<N> {
        self.u64(t.sec as u64).u64(u64::from(t.nsec))
    }

    /// `struct statx_timestamp`.
    fn statx_time(&mut self, t: Timestamp) -> &mut Layout<N> {
        self.u64(t.sec as u64).u32(t.nsec).u32(0)
    }
}

/// `struct stat` of x86-64 (`asm/stat.h`).
fn stat_bytes(a: &Attr) -> [u8; 144] {
    let mut layout = Layout::<144>::new();
    layout.u64(a.dev).u64(a.ino).u64(a.nlink);
    layout.u32(a.mode | a.file_type.mode_bits()).u32(a.uid).u32(a.gid).u32(0);
    layout.u64(a.rdev).u64(a.size).u64(u64::from(a.blksize)).u64(a.blocks);
    layout.time(a.atime).time(a.mtime).time(a.ctime);
    layout.bytes
}

fn write_stat(ctx: &Ctx, addr: u64, location: &Location) -> Result<usize> {
    let attr = location.dentry.inode.attr()?;
    ctx.write_user(addr, &stat_bytes(&attr)).map(|()| 0)
}

fn sys_stat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[0])?;
    let at = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, &path, WalkFlags::FOLLOW)?;
    write_stat(ctx, args[1], &at)
}

fn sys_lstat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[0])?;
    let at = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, &path, WalkFlags::empty())?;
    write_stat(ctx, args[1], &at)
}

fn sys_fstat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file_or_path(args[0] as i32)?;
    let attr = file.inode.attr()?;
    ctx.write_user(args[1], &stat_bytes(&attr)).map(|()| 0)
}

/// What a descriptor and a path name for the `*at` calls, where an empty path may mean the descriptor.
pub(super) fn resolve_at(ctx: &Ctx, dirfd: i32, path: &[u8], walk: WalkFlags) -> Result<Location> {
    ctx.kernel.vfs.resolve(ctx, dirfd, path, walk)
}

/// The path argument of an `*at` call; with `AT_EMPTY_PATH` NULL stands for an empty one.
pub(super) fn path_or_empty(ctx: &Ctx, addr: u64, walk: WalkFlags) -> Result<alloc::vec::Vec<u8>> {
    if addr == 0 && walk.contains(WalkFlags::EMPTY) {
        return Ok(alloc::vec::Vec::new());
    }
    ctx.read_path(addr)
}

fn sys_newfstatat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let walk = WalkFlags::from_at(args[3] as u32, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)?;
    let path = path_or_empty(ctx, args[1], walk)?;
    let at = resolve_at(ctx, args[0] as i32, &path, walk)?;
    write_stat(ctx, args[2], &at)
}

const STATX_BASIC: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;
const STATX_MNT_ID: u32 = 0x1000;
const STATX_RESERVED: u32 = 0x8000_0000;
/// `AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC`: without meaning for local file systems.
const AT_STATX_SYNC: u32 = 0x6000;
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

/// `struct statx` (`linux/stat.h`).
fn statx_bytes(a: &Attr, inode_flags: (InodeFlags, InodeFlags), mount_id: u64, mount_root: bool) -> [u8; 256] {
    let mask = STATX_BASIC | STATX_MNT_ID | if a.btime.is_some() { STATX_BTIME } else { 0 };
    // The attributes that are flags of the inode have the flags' values.
    let (set, known) = inode_flags;
    let attributes = u64::from((set & known).bits()) | if mount_root { STATX_ATTR_MOUNT_ROOT } else { 0 };
    let mut layout = Layout::<256>::new();
    layout.u32(mask).u32(a.blksize).u64(attributes);
    layout.u32(a.nlink as u32).u32(a.uid).u32(a.gid);
    layout.u16((a.mode | a.file_type.mode_bits()) as u16).u16(0);
    layout.u64(a.ino).u64(a.size).u64(a.blocks).u64(STATX_ATTR_MOUNT_ROOT | u64::from(known.bits()));
    layout.statx_time(a.atime).statx_time(a.btime.unwrap_or_default());
    layout.statx_time(a.ctime).statx_time(a.mtime);
    layout.u32(major(a.rdev)).u32(minor(a.rdev)).u32(major(a.dev)).u32(minor(a.dev));
    layout.u64(mount_id);
    layout.bytes
}

fn sys_statx(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let flags = args[2] as u32;
    if args[3] as u32 & STATX_RESERVED != 0 || flags & AT_STATX_SYNC == AT_STATX_SYNC {
        bail!(EINVAL);
    }
    let walk = WalkFlags::from_at(flags & !AT_STATX_SYNC, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)?;
    let path = path_or_empty(ctx, args[1], walk)?;
    let at = resolve_at(ctx, args[0] as i32, &path, walk)?;
    let inode = &at.dentry.inode;
    let attr = inode.attr()?;
    let bytes = statx_bytes(&attr, (inode.flags(), inode.told_flags()), u64::from(at.mount.id), at.is_mount_root());
    ctx.write_user(args[4], &bytes).map(|()| 0)
}

fn sys_access(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    access(ctx, AT_FDCWD, args[0], args[1], 0)
}

fn sys_faccessat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    access(ctx, args[0] as i32, args[1], args[2], 0)
}

fn sys_faccessat2(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    access(ctx, args[0] as i32, args[1], args[2], args[3] as u32)
}

fn access(ctx: &Ctx, dirfd: i32, path: u64, mode: u64, flags: u32) -> Result<usize> {
    const AT_EACCESS: u32 = 0x200;
    let Some(want) = u32::try_from(mode).ok().and_then(Access::from_bits) else {
        bail!(EINVAL);
    };
    let walk = WalkFlags::from_at(flags & !AT_EACCESS, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let path = path_or_empty(ctx, path, walk)?;
    let creds = ctx.creds();
    let real;
    let creds = if flags & AT_EACCESS != 0 {
        creds
    } else {
        real = creds.for_access();
        &real
    };
    let at = ctx.kernel.vfs.resolve_as(ctx, creds, dirfd, &path, walk)?;
    let inode = &at.dentry.inode;
    let file_type = inode.file_type();
    if want.contains(Access::EXEC) && file_type == FileType::Regular && at.mount.no_exec() {
        bail!(EACCES);
    }
    check_access(creds, inode, want)?;
    if want.contains(Access::WRITE) && matches!(file_type, FileType::Regular | FileType::Directory | FileType::Symlink)
    {
        at.mount.want_write()?;
    }
    Ok(0)
}

fn sys_readlink(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    readlink(ctx, AT_FDCWD, args[0], args[1], args[2])
}

fn sys_readlinkat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    readlink(ctx, args[0] as i32, args[1], args[2], args[3])
}

fn readlink(ctx: &Ctx, dirfd: i32, path: u64, buf: u64, size: u64) -> Result<usize> {
    if size as i32 <= 0 {
        bail!(EINVAL);
    }
    let path = ctx.read_path(path)?;
    // An empty path names the link that was opened with O_PATH and O_NOFOLLOW.
    let walk = if dirfd == AT_FDCWD { WalkFlags::empty() } else { WalkFlags::EMPTY };
    let at = ctx.kernel.vfs.resolve(ctx, dirfd, &path, walk)?;
    if path.is_empty() && at.dentry.inode.file_type() != FileType::Symlink {
        bail!(ENOENT);
    }
    let target = at.read_link(ctx)?;
    let len = target.len().min(size as usize);
    ctx.write_user(buf, &target[..len])?;
    Ok(len)
}

fn sys_statfs(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let path = ctx.read_path(args[0])?;
    let at = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, &path, WalkFlags::FOLLOW)?;
    statfs(ctx, &at, args[1])
}

fn sys_fstatfs(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file_or_path(args[0] as i32)?;
    statfs(ctx, &file.location, args[1])
}

/// `struct statfs` of x86-64 (`asm-generic/statfs.h`).
fn statfs(ctx: &Ctx, at: &Location, addr: u64) -> Result<usize> {
    /// `ST_VALID`: the flags are filled in.
    const ST_VALID: u64 = 0x20;
    /// What `f_flags` calls the flags of a mount (`linux/statfs.h`).
    const FLAGS: [(MountFlags, u64); 8] = [
        (MountFlags::RDONLY, 1),
        (MountFlags::NOSUID, 2),
        (MountFlags::NODEV, 4),
        (MountFlags::NOEXEC, 8),
        (MountFlags::NOATIME, 0x400),
        (MountFlags::NODIRATIME, 0x800),
        (MountFlags::RELATIME, 0x1000),
        (MountFlags::NOSYMFOLLOW, 0x2000),
    ];
    let s = at.mount.sb.fs.statfs()?;
    let mut mount_flags = at.mount.flags();
    mount_flags.set(MountFlags::RDONLY, at.mount.read_only());
    mount_flags.set(MountFlags::RELATIME, !mount_flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME));
    let set = FLAGS.iter().filter(|(flag, _)| mount_flags.contains(*flag));
    let flags = set.fold(ST_VALID, |all, (_, bit)| all | bit);
    let mut layout = Layout::<120>::new();
    layout.u64(s.fs_type).u64(s.bsize).u64(s.blocks).u64(s.bfree).u64(s.bavail);
    layout.u64(s.files).u64(s.ffree).u64(s.fsid).u64(s.namelen).u64(s.bsize).u64(flags);
    ctx.write_user(addr, &layout.bytes).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr() -> Attr {
        let t = |n| Timestamp { sec: n, nsec: n as u32 };
        Attr {
            dev: 0x6200,
            ino: 12,
            file_type: FileType::Regular,
            mode: 0o644,
            nlink: 2,
            uid: 1000,
            gid: 100,
            rdev: 0,
            size: 4097,
            blksize: 4096,
            blocks: 16,
            atime: t(1),
            mtime: t(2),
            ctime: t(3),
            btime: Some(t(4)),
        }
    }

    #[test]
    fn stat_has_the_layout_of_x86_64() {
        let bytes = stat_bytes(&attr());
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((word(0), word(8), word(16)), (0x6200, 12, 2));
        assert_eq!(word(24) as u32, 0o100_644);
        assert_eq!((word(48), word(56), word(64)), (4097, 4096, 16));
        assert_eq!((word(72), word(88), word(104)), (1, 2, 3));
    }

    #[test]
    fn statx_has_its_fields_in_place() {
        let flags = (InodeFlags::APPEND | InodeFlags::NOATIME, InodeFlags::APPEND | InodeFlags::IMMUTABLE);
        let bytes = statx_bytes(&attr(), flags, 7, true);
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(word(0) as u32, 0x1fff);
        assert_eq!((word(0x20), word(0x28)), (12, 4097));
        assert_eq!((word(0x40), word(0x50), word(0x60), word(0x70)), (1, 4, 3, 2));
        assert_eq!(word(0x90), 7);
    }
}
