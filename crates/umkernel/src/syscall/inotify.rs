//! `inotify(7)`.

use super::open::install;
use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::Result;
use crate::event::inotify;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::vfs::OpenFlags;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(253, "inotify_init", Family::Desc, &[], Support::Full, sys_inotify_init),
    Entry::new(254, "inotify_add_watch", Family::Desc, ADD_WATCH, Support::Full, sys_inotify_add_watch),
    Entry::new(255, "inotify_rm_watch", Family::Desc, &[Arg::Fd, Arg::Int], Support::Full, sys_inotify_rm_watch),
    Entry::new(294, "inotify_init1", Family::Desc, &[Arg::Kind("inotify_flags")], Support::Full, sys_inotify_init1),
];

const ADD_WATCH: &[Arg] = &[Arg::Fd, Arg::Path, Arg::Kind("inotify_mask")];

fn sys_inotify_init(ctx: &Ctx, _args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    install(ctx, inotify::create(ctx, OpenFlags::empty())?, false)
}

fn sys_inotify_init1(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(args[0] as u32);
    if !(flags - (OpenFlags::CLOEXEC | OpenFlags::NONBLOCK)).is_empty() {
        bail!(EINVAL, "unknown flag");
    }
    install(ctx, inotify::create(ctx, flags)?, flags.contains(OpenFlags::CLOEXEC))
}

fn sys_inotify_add_watch(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file(args[0] as i32)?;
    let path = ctx.read_path(args[1])?;
    inotify::add_watch(ctx, &file, &path, args[2] as u32).map(|number| number as usize)
}

fn sys_inotify_rm_watch(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file(args[0] as i32)?;
    inotify::remove_watch(&file, args[1] as i32).map(|()| 0)
}
