//! `ioctl(2)`: the requests that every file knows, before the file's own; and `vhangup(2)`.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::Capabilities;
use crate::vfs::{File, FileType, InodeFlags, OpenFlags};
use linux_raw_sys::ioctl::*;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(16, "ioctl", Family::Desc, &[Arg::Fd, Arg::Kind("ioctl"), Arg::Kind("ioctl_arg")], IOCTL, sys_ioctl),
    Entry::new(153, "vhangup", Family::System, &[], Support::Full, sys_vhangup),
];

const IOCTL: Support = Support::Partial("the requests of the devices and file systems that exist here");

fn sys_ioctl(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let fd = args[0] as i32;
    let (cmd, arg) = (args[1] as u32, args[2]);
    let files = ctx.files();
    let file = files.get(fd)?;
    match cmd {
        FIOCLEX => files.set_close_on_exec(fd, true).map(|()| 0),
        FIONCLEX => files.set_close_on_exec(fd, false).map(|()| 0),
        FIONBIO => set_flag(ctx, (fd, &file), OpenFlags::NONBLOCK, arg),
        FIOASYNC => set_flag(ctx, (fd, &file), OpenFlags::ASYNC, arg),
        _ => match &file.ops {
            Some(ops) => ops.ioctl(ctx, &file, cmd, arg),
            None => plain_file(ctx, &file, cmd, arg),
        },
    }
}

/// Sets or clears a status flag by the number at `arg`.
fn set_flag(ctx: &Ctx, (fd, file): (i32, &File), flag: OpenFlags, arg: u64) -> Result<usize> {
    let on: u32 = ctx.read_val(arg)?;
    let mut flags = file.flags();
    flags.set(flag, on != 0);
    file.change_flags(ctx, fd, flags);
    Ok(0)
}

/// Requests of regular files and directories.
fn plain_file(ctx: &Ctx, file: &File, cmd: u32, arg: u64) -> Result<usize> {
    let regular = file.inode.file_type() == FileType::Regular;
    match cmd {
        FIGETBSZ => ctx.write_val(arg, &file.inode.attr()?.blksize).map(|()| 0),
        FIONREAD if regular => {
            let left = file.inode.attr()?.size.wrapping_sub(file.position.now());
            ctx.write_val(arg, &(left as u32)).map(|()| 0)
        }
        FITRIM => trim(ctx, file, arg),
        FS_IOC_GETFLAGS if has_flags(file) => ctx.write_val(arg, &file.inode.flags().bits()).map(|()| 0),
        FS_IOC_SETFLAGS if has_flags(file) => {
            let flags = InodeFlags::from_bits_retain(ctx.read_val(arg)?);
            ctx.kernel.vfs.set_inode_flags(ctx, &file.location, flags).map(|()| 0)
        }
        FS_IOC_FSGETXATTR if has_flags(file) => {
            ctx.write_val(arg, &[extended_flags(file.inode.flags()), 0, 0, 0, 0, 0, 0]).map(|()| 0)
        }
        FIOQSIZE => ctx.write_val(arg, &file.inode.attr()?.size).map(|()| 0),
        _ => Err(Errno::ENOTTY.into()),
    }
}

fn has_flags(file: &File) -> bool {
    !file.inode.told_flags().is_empty()
}

/// The flags as `FS_IOC_FSGETXATTR` has them (`FS_XFLAG_*`, `linux/fs.h`).
fn extended_flags(flags: InodeFlags) -> u32 {
    let pairs = [
        (InodeFlags::IMMUTABLE, 0x8),
        (InodeFlags::APPEND, 0x10),
        (InodeFlags::NOATIME, 0x40),
        (InodeFlags::NODUMP, 0x80),
    ];
    pairs.into_iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |all, (_, bit)| all | bit)
}

/// `fstrim(8)`: start, length and the least run, in bytes (`struct fstrim_range`); the length becomes what was freed.
fn trim(ctx: &Ctx, file: &File, arg: u64) -> Result<usize> {
    if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
        bail!(EPERM);
    }
    let [start, len, least]: [u64; 3] = ctx.read_val(arg)?;
    let done = file.location.mount.sb.fs.trim(start, len, least)?;
    ctx.write_val(arg, &[start, done, least]).map(|()| 0)
}

fn sys_vhangup(ctx: &Ctx, _args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    if !ctx.creds().capable(Capabilities::SYS_TTY_CONFIG) {
        bail!(EPERM);
    }
    if let Some(tty) = ctx.task.process.tty() {
        tty.hang_up(ctx.kernel);
    }
    Ok(0)
}
