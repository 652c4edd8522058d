//! Mounting.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::Capabilities;
use crate::vfs::{AT_FDCWD, MNT_DETACH, MNT_EXPIRE, MNT_FORCE, MountFlags, PropagationType, WalkFlags};
use alloc::string::String;
use alloc::vec::Vec;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(155, "pivot_root", Family::File, &[Arg::Path, Arg::Path], Support::Full, sys_pivot_root),
    Entry::new(165, "mount", Family::File, MOUNT, UNSYNCED, sys_mount),
    Entry::new(166, "umount2", Family::File, UMOUNT, Support::Full, sys_umount2),
];

const UNSYNCED: Support = Support::Partial("MS_SYNCHRONOUS, MS_DIRSYNC, MS_LAZYTIME and MS_MANDLOCK have no effect");
const MOUNT: &[Arg] = &[Arg::Path, Arg::Path, Arg::Str, Arg::Kind("mount_flags"), Arg::Str];
const UMOUNT: &[Arg] = &[Arg::Path, Arg::Kind("umount_flags")];

/// `MS_*` of `linux/mount.h` that say what to do; the others are [`MountFlags`].
const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_MOVE: u64 = 8192;
const MS_REC: u64 = 16384;
const MS_SILENT: u64 = 1 << 15;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;
const MS_PROPAGATION: u64 = MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED;
/// What programs put into the upper half before Linux 2.4.
const MS_MAGIC: u64 = 0xc0ed_0000;
const MS_MAGIC_MASK: u64 = 0xffff_0000;

/// `EPERM` for who may not mount.
pub(super) fn check_admin(ctx: &Ctx) -> Result<()> {
    if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
        bail!(EPERM);
    }
    Ok(())
}

/// The kind of propagation that one of `MS_SHARED` and its like stands for.
pub(super) fn propagation_type(flag: u64) -> Result<PropagationType> {
    Ok(match flag {
        MS_SHARED => PropagationType::Shared,
        MS_SLAVE => PropagationType::Slave,
        MS_PRIVATE => PropagationType::Private,
        MS_UNBINDABLE => PropagationType::Unbindable,
        _ => bail!(EINVAL, "not one kind of propagation"),
    })
}

/// An optional string argument.
fn optional(ctx: &Ctx, addr: u64) -> Result<Vec<u8>> {
    if addr == 0 { Ok(Vec::new()) } else { ctx.read_path(addr) }
}

fn sys_mount(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let fs_type = optional(ctx, args[2])?;
    let source = optional(ctx, args[0])?;
    let data = optional(ctx, args[4])?;
    let target = ctx.read_path(args[1])?;
    let vfs = &ctx.kernel.vfs;
    let at = vfs.resolve(ctx, AT_FDCWD, &target, WalkFlags::FOLLOW)?;
    check_admin(ctx)?;
    let Ok(data) = String::from_utf8(data) else {
        bail!(EINVAL);
    };
    let mut flags = args[3];
    if flags & MS_MAGIC_MASK == MS_MAGIC {
        flags &= !MS_MAGIC_MASK;
    }
    let mount_flags = MountFlags::from_bits_truncate(flags as u32);
    let from = || {
        let from = vfs.resolve(ctx, AT_FDCWD, &source, WalkFlags::FOLLOW)?;
        from.check_source(ctx).map(|()| from)
    };
    if flags & MS_REMOUNT != 0 {
        at.check_own(ctx)?;
        let mut new = mount_flags;
        if !new.intersects(MountFlags::NOATIME | MountFlags::RELATIME | MountFlags::STRICTATIME) {
            // As on Linux, a remount that says nothing of access times leaves them as they are.
            new |= at.mount.flags() & (MountFlags::NOATIME | MountFlags::STRICTATIME);
        }
        vfs.remount(&at, new, flags & MS_BIND != 0, &data)?;
    } else if flags & MS_BIND != 0 {
        at.check_mounted()?;
        at.check_own(ctx)?;
        vfs.bind(&from()?, &at, flags & MS_REC != 0)?;
    } else if flags & MS_PROPAGATION != 0 {
        // This can be said of any mount that can be reached.
        let others = flags & !(MS_PROPAGATION | MS_REC | MS_SILENT);
        let to = propagation_type(flags & MS_PROPAGATION)?;
        if others != 0 {
            bail!(EINVAL);
        }
        vfs.set_propagation(&at, to, flags & MS_REC != 0)?;
    } else if flags & MS_MOVE != 0 {
        at.check_mounted()?;
        at.check_own_or_apart(ctx)?;
        vfs.move_mount(&from()?, &at)?;
    } else {
        at.check_mounted()?;
        at.check_own(ctx)?;
        if fs_type.is_empty() {
            bail!(EINVAL);
        }
        vfs.mount_new(ctx, &at, &fs_type, &source, mount_flags, &data)?;
    }
    Ok(0)
}

fn sys_umount2(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const UMOUNT_NOFOLLOW: u32 = 8;
    let flags = args[1] as u32;
    if flags & !(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW) != 0 {
        bail!(EINVAL);
    }
    if flags & MNT_EXPIRE != 0 && flags & (MNT_FORCE | MNT_DETACH) != 0 {
        bail!(EINVAL, "MNT_EXPIRE goes with no other way to unmount");
    }
    let path = ctx.read_path(args[0])?;
    let follow = if flags & UMOUNT_NOFOLLOW != 0 { WalkFlags::empty() } else { WalkFlags::FOLLOW };
    let at = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, &path, follow)?;
    check_admin(ctx)?;
    at.check_own(ctx)?;
    ctx.kernel.vfs.umount(&at, flags).map(|()| 0)
}

fn sys_pivot_root(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    check_admin(ctx)?;
    let vfs = &ctx.kernel.vfs;
    let directory = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let new_root = vfs.resolve(ctx, AT_FDCWD, &ctx.read_path(args[0])?, directory)?;
    let put_old = vfs.resolve(ctx, AT_FDCWD, &ctx.read_path(args[1])?, directory)?;
    vfs.pivot_root(ctx, &new_root, &put_old).map(|()| 0)
}
