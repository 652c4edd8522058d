//! Mounting step by step, by descriptors (Documentation/filesystems/mount_api.rst): what `mount(8)` does today.

use super::mount::{check_admin, propagation_type};
use super::open::install;
use super::{Arg, Entry, Family, Support, check_extensible, read_extensible};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::vfs::{
    AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, File, MountChange, MountContext, MountFlags,
    OpenFlags, OpenHow, Parameter, WalkFlags,
};
use alloc::string::String;
use alloc::sync::Arc;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(428, "open_tree", Family::File, OPEN_TREE, Support::Full, sys_open_tree),
    Entry::new(429, "move_mount", Family::File, MOVE_MOUNT, NO_GROUPS, sys_move_mount),
    Entry::new(430, "fsopen", Family::Desc, &[Arg::Str, Arg::Kind("fsopen_flags")], Support::Full, sys_fsopen),
    Entry::new(431, "fsconfig", Family::Desc, FSCONFIG, STRINGS_ONLY, sys_fsconfig),
    Entry::new(432, "fsmount", Family::Desc, FSMOUNT, Support::Full, sys_fsmount),
    Entry::new(433, "fspick", Family::File, FSPICK, Support::Full, sys_fspick),
    Entry::new(442, "mount_setattr", Family::File, SETATTR, NO_IDS, sys_mount_setattr),
];

const OPEN_TREE: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("open_tree_flags")];
const MOVE_MOUNT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::DirFd, Arg::Path, Arg::Kind("move_mount_flags")];
const FSCONFIG: &[Arg] = &[Arg::Fd, Arg::Kind("fsconfig_cmd"), Arg::Str, Arg::Kind("fsconfig_value"), Arg::Int];
const FSMOUNT: &[Arg] = &[Arg::Fd, Arg::Kind("fsmount_flags"), Arg::Kind("mount_attr_flags")];
const FSPICK: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("fspick_flags")];
const SETATTR: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("at_flags"), Arg::Kind("mount_attr"), Arg::Uint];
const NO_GROUPS: Support = Support::Partial("no MOVE_MOUNT_SET_GROUP, no MOVE_MOUNT_BENEATH");
const STRINGS_ONLY: Support =
    Support::Partial("parameters are flags and strings; sync, dirsync, lazytime and mand have no effect");
const NO_IDS: Support = Support::Partial("no MOUNT_ATTR_IDMAP");

/// `AT_RECURSIVE` of `linux/fcntl.h`.
const AT_RECURSIVE: u32 = 0x8000;
/// `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC`.
const CLOEXEC: u64 = 1;

/// A string argument, which must be text.
fn text(ctx: &Ctx, addr: u64, max: usize) -> Result<String> {
    match String::from_utf8(ctx.read_cstr(addr, max)?) {
        Ok(text) => Ok(text),
        Err(_) => bail!(EINVAL, "not text"),
    }
}

/// A walk by flags that are not those of `*at(2)`.
fn walk(follow: bool, empty: bool) -> WalkFlags {
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, follow);
    walk.set(WalkFlags::EMPTY, empty);
    walk
}

/// Runs `work` with the context that a descriptor stands for.
fn with_context<T>(ctx: &Ctx, fd: u64, work: impl FnOnce(&MountContext) -> Result<T>) -> Result<T> {
    let file = ctx.file(fd as i32)?;
    match file.ops_as::<MountContext>() {
        Some(context) => work(context),
        None => bail!(EINVAL, "no context of a file system"),
    }
}

fn sys_fsopen(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    check_admin(ctx)?;
    if args[1] & !CLOEXEC & 0xffff_ffff != 0 {
        bail!(EINVAL);
    }
    let fs_type = ctx.read_path(args[0])?;
    install(ctx, ctx.kernel.vfs.open_context(ctx, &fs_type)?, args[1] & CLOEXEC != 0)
}

fn sys_fspick(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const SYMLINK_NOFOLLOW: u64 = 2;
    const NO_AUTOMOUNT: u64 = 4;
    const EMPTY_PATH: u64 = 8;
    check_admin(ctx)?;
    let flags = args[2] & 0xffff_ffff;
    if flags & !(CLOEXEC | SYMLINK_NOFOLLOW | NO_AUTOMOUNT | EMPTY_PATH) != 0 {
        bail!(EINVAL);
    }
    let walk = walk(flags & SYMLINK_NOFOLLOW == 0, flags & EMPTY_PATH != 0);
    let vfs = &ctx.kernel.vfs;
    let at = vfs.resolve(ctx, args[0] as i32, &ctx.read_path(args[1])?, walk)?;
    install(ctx, vfs.pick_context(ctx, &at)?, flags & CLOEXEC != 0)
}

fn sys_fsconfig(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    const SET_BINARY: u32 = 2;
    const SET_PATH: u32 = 3;
    const SET_PATH_EMPTY: u32 = 4;
    const SET_FD: u32 = 5;
    const CMD_CREATE: u32 = 6;
    const CMD_RECONFIGURE: u32 = 7;
    const CMD_CREATE_EXCL: u32 = 8;
    const KEY_MAX: usize = 255;
    const VALUE_MAX: usize = 255;
    const BINARY_MAX: i32 = 1 << 20;
    let (command, key, value, aux) = (args[1] as u32, args[2], args[3], args[4] as i32);
    if (args[0] as i32) < 0 {
        bail!(EINVAL);
    }
    match command {
        SET_FLAG if key == 0 || value != 0 || aux != 0 => bail!(EINVAL),
        SET_STRING if key == 0 || value == 0 || aux != 0 => bail!(EINVAL),
        SET_BINARY if key == 0 || value == 0 || !(1..=BINARY_MAX).contains(&aux) => bail!(EINVAL),
        SET_PATH | SET_PATH_EMPTY if key == 0 || value == 0 || aux != AT_FDCWD && aux < 0 => bail!(EINVAL),
        SET_FD if key == 0 || value != 0 || aux < 0 => bail!(EINVAL),
        CMD_CREATE | CMD_RECONFIGURE | CMD_CREATE_EXCL if key != 0 || value != 0 || aux != 0 => bail!(EINVAL),
        0..=CMD_CREATE_EXCL => {}
        _ => bail!(EOPNOTSUPP),
    }
    with_context(ctx, args[0], |context| match command {
        SET_FLAG => context.set(Parameter::Flag(&text(ctx, key, KEY_MAX)?)),
        SET_STRING => context.set(Parameter::String(&text(ctx, key, KEY_MAX)?, &text(ctx, value, VALUE_MAX)?)),
        // The parameters that all have are taken in any form; no other is a path, a descriptor or bytes.
        SET_BINARY..=SET_FD => {
            let key = text(ctx, key, KEY_MAX)?;
            if !MountContext::is_common(&key) {
                bail!(EINVAL, "no file system here has such a parameter");
            }
            context.set(Parameter::Flag(&key))
        }
        CMD_RECONFIGURE => {
            check_admin(ctx)?;
            context.reconfigure(ctx)
        }
        _ => {
            check_admin(ctx)?;
            context.create(ctx, command == CMD_CREATE_EXCL)
        }
    })?;
    Ok(0)
}

/// `MOUNT_ATTR_*` of `linux/mount.h`.
const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;
const ATTR_NOEXEC: u64 = 8;
/// One of three, not a set: `RELATIME` is 0.
const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// The flags of a mount that `MOUNT_ATTR_*` stand for, access times aside.
fn mount_flags(attributes: u64) -> Result<MountFlags> {
    let mut flags = MountFlags::empty();
    let mut left = attributes & !ATTR_ATIME;
    for (bit, flag) in [
        (ATTR_RDONLY, MountFlags::RDONLY),
        (ATTR_NOSUID, MountFlags::NOSUID),
        (ATTR_NODEV, MountFlags::NODEV),
        (ATTR_NOEXEC, MountFlags::NOEXEC),
        (ATTR_NODIRATIME, MountFlags::NODIRATIME),
        (ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ] {
        flags.set(flag, left & bit != 0);
        left &= !bit;
    }
    if left != 0 {
        bail!(EINVAL, "unknown attribute of a mount");
    }
    Ok(flags)
}

/// The flag for access times that the field of `MOUNT_ATTR__ATIME` stands for.
fn atime_flag(attributes: u64) -> Result<MountFlags> {
    Ok(match attributes & ATTR_ATIME {
        0 => MountFlags::empty(),
        ATTR_NOATIME => MountFlags::NOATIME,
        ATTR_STRICTATIME => MountFlags::STRICTATIME,
        _ => bail!(EINVAL, "more than one policy for access times"),
    })
}

fn sys_fsmount(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    check_admin(ctx)?;
    let (flags, attributes) = (args[1] & 0xffff_ffff, args[2] & 0xffff_ffff);
    if flags & !CLOEXEC != 0 {
        bail!(EINVAL);
    }
    let mount_flags = mount_flags(attributes)? | atime_flag(attributes)?;
    let file = with_context(ctx, args[0], |context| context.mount(ctx, mount_flags))?;
    install(ctx, file, flags & CLOEXEC != 0)
}

fn sys_open_tree(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const CLONE: u32 = 1;
    let close_on_exec = OpenFlags::CLOEXEC.bits();
    let flags = args[2] as u32;
    let walk_flags = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW;
    let (clone, recursive) = (flags & CLONE != 0, flags & AT_RECURSIVE != 0);
    if recursive && !clone {
        bail!(EINVAL);
    }
    let walk = WalkFlags::from_at(flags & !(CLONE | close_on_exec | AT_RECURSIVE), walk_flags)?;
    if clone {
        check_admin(ctx)?;
    }
    let (vfs, path) = (&ctx.kernel.vfs, ctx.read_path(args[1])?);
    let file: Arc<File> = if clone {
        let from = vfs.resolve(ctx, args[0] as i32, &path, walk)?;
        from.check_source(ctx)?;
        vfs.open_copy(&from, recursive)?
    } else {
        let mut how = OpenHow::new(OpenFlags::PATH, 0);
        how.flags.set(OpenFlags::NOFOLLOW, !walk.contains(WalkFlags::FOLLOW));
        how.resolve = walk & WalkFlags::EMPTY;
        vfs.open_how(ctx, args[0] as i32, &path, how)?
    };
    install(ctx, file, flags & close_on_exec != 0)
}

fn sys_move_mount(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const F_SYMLINKS: u32 = 1;
    const F_AUTOMOUNTS: u32 = 2;
    const F_EMPTY_PATH: u32 = 4;
    const T_SYMLINKS: u32 = 0x10;
    const T_AUTOMOUNTS: u32 = 0x20;
    const T_EMPTY_PATH: u32 = 0x40;
    const BENEATH: u32 = 0x200;
    const KNOWN: u32 = F_SYMLINKS | F_AUTOMOUNTS | F_EMPTY_PATH | T_SYMLINKS | T_AUTOMOUNTS | T_EMPTY_PATH | BENEATH;
    check_admin(ctx)?;
    let flags = args[4] as u32;
    if flags & !KNOWN != 0 {
        bail!(EINVAL, "MOVE_MOUNT_SET_GROUP is not built");
    }
    let vfs = &ctx.kernel.vfs;
    let place = |dirfd: u64, path: u64, follow: u32, empty: u32| {
        let walk = walk(flags & follow != 0, flags & empty != 0);
        vfs.resolve(ctx, dirfd as i32, &ctx.read_path(path)?, walk)
    };
    let from = place(args[0], args[1], F_SYMLINKS, F_EMPTY_PATH)?;
    let at = place(args[2], args[3], T_SYMLINKS, T_EMPTY_PATH)?;
    at.check_mounted()?;
    at.check_own_or_apart(ctx)?;
    from.check_own_or_apart(ctx)?;
    if flags & BENEATH != 0 { vfs.move_beneath(&from, &at) } else { vfs.move_mount(&from, &at) }.map(|()| 0)
}

fn sys_mount_setattr(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    /// Bytes of `struct mount_attr` as it is known here: what to set and to clear, propagation, a user namespace.
    const SIZE: u64 = 32;
    let flags = args[2] as u32;
    let allowed = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    let walk = WalkFlags::from_at(flags & !AT_RECURSIVE, allowed)?;
    check_extensible(args[4], SIZE)?;
    check_admin(ctx)?;
    let [set, clear, propagation, _user_namespace] = read_extensible(ctx, args[3], args[4], SIZE)?;
    if set == 0 && clear == 0 && propagation == 0 {
        return Ok(0);
    }
    let mut change = MountChange { set: mount_flags(set)?, clear: mount_flags(clear)?, propagation: None };
    match clear & ATTR_ATIME {
        ATTR_ATIME => {
            change.set |= atime_flag(set)?;
            change.clear |= MountFlags::NOATIME | MountFlags::STRICTATIME | MountFlags::RELATIME;
        }
        0 if set & ATTR_ATIME == 0 => {}
        _ => bail!(EINVAL, "a policy for access times replaces all others"),
    }
    if propagation != 0 {
        change.propagation = Some(propagation_type(propagation)?);
    }
    let vfs = &ctx.kernel.vfs;
    let at = vfs.resolve(ctx, args[0] as i32, &ctx.read_path(args[1])?, walk)?;
    at.check_own_or_apart(ctx)?;
    vfs.change_mounts(&at, &change, flags & AT_RECURSIVE != 0)?;
    Ok(0)
}
