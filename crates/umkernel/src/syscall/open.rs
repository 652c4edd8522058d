//! Descriptors: opening, closing, duplicating; pipes, memory files.

use super::{Arg, Entry, Family, Support, read_extensible};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::vfs::{AT_FDCWD, File, OpenFlags, OpenHow, SEAL_EXEC, SEAL_SEAL, WalkFlags};
use alloc::sync::Arc;

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(2, "open", Family::File, &[Arg::Path, Arg::Kind("open_flags"), Arg::Mode], Support::Full, sys_open),
    Entry::new(3, "close", Family::Desc, &[Arg::Fd], Support::Full, sys_close),
    Entry::new(22, "pipe", Family::Desc, &[Arg::Kind("fd_pair")], Support::Full, sys_pipe),
    Entry::new(32, "dup", Family::Desc, &[Arg::Fd], Support::Full, sys_dup),
    Entry::new(33, "dup2", Family::Desc, &[Arg::Fd, Arg::Fd], Support::Full, sys_dup2),
    Entry::new(85, "creat", Family::File, &[Arg::Path, Arg::Mode], Support::Full, sys_creat),
    Entry::new(257, "openat", Family::File, OPENAT, Support::Full, sys_openat),
    Entry::new(292, "dup3", Family::Desc, &[Arg::Fd, Arg::Fd, Arg::Kind("fd_flags")], Support::Full, sys_dup3),
    Entry::new(293, "pipe2", Family::Desc, PIPE2, Support::Full, sys_pipe2),
    Entry::new(319, "memfd_create", Family::Desc, MEMFD, Support::Partial("no MFD_HUGETLB"), sys_memfd_create),
    Entry::new(
        436,
        "close_range",
        Family::Desc,
        &[Arg::Uint, Arg::Uint, Arg::Kind("close_range_flags")],
        Support::Full,
        sys_close_range,
    ),
    Entry::new(437, "openat2", Family::File, OPENAT2, Support::Full, sys_openat2),
];

const OPENAT: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("open_flags"), Arg::Mode];
const OPENAT2: &[Arg] = &[Arg::DirFd, Arg::Path, Arg::Kind("open_how"), Arg::Uint];
const PIPE2: &[Arg] = &[Arg::Kind("fd_pair"), Arg::Kind("fd_flags")];

const MEMFD: &[Arg] = &[Arg::Str, Arg::Kind("memfd_flags")];

/// `RLIMIT_NOFILE` of `getrlimit(2)`.
pub(super) const RLIMIT_NOFILE: usize = 7;

/// The flags of `open(2)` that Linux knows (`VALID_OPEN_FLAGS`).
const KNOWN_FLAGS: u32 = 0o37_777_703;

/// Gives a file the lowest free descriptor.
pub(super) fn install(ctx: &Ctx, file: Arc<File>, close_on_exec: bool) -> Result<usize> {
    ctx.install(file, close_on_exec).map(|fd| fd as usize)
}

fn open(ctx: &Ctx, dirfd: i32, path: u64, how: OpenHow) -> Result<usize> {
    let path = ctx.read_path(path)?;
    let files = ctx.files();
    files.check_room(ctx.task.process.limit(RLIMIT_NOFILE))?;
    let file = ctx.kernel.vfs.open_how(ctx, dirfd, &path, how)?;
    install(ctx, file, how.flags.contains(OpenFlags::CLOEXEC))
}

/// The flags and mode of `open(2)`, which ignores what it does not know.
fn classic(flags: u64, mode: u64) -> OpenHow {
    let flags = OpenFlags::from_bits_retain(flags as u32 & KNOWN_FLAGS | OpenFlags::LARGEFILE.bits());
    OpenHow::new(flags, mode as u32 & 0o7777)
}

fn sys_open(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    open(ctx, AT_FDCWD, args[0], classic(args[1], args[2]))
}

fn sys_creat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    open(ctx, AT_FDCWD, args[0], classic(u64::from(flags.bits()), args[1]))
}

fn sys_openat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    open(ctx, args[0] as i32, args[1], classic(args[2], args[3]))
}

fn sys_openat2(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    /// `RESOLVE_*` of `linux/openat2.h` and what they are here.
    const RESOLVE: [(u64, WalkFlags); 5] = [
        (1, WalkFlags::NO_XDEV),
        (2, WalkFlags::NO_MAGICLINKS),
        (4, WalkFlags::NO_SYMLINKS),
        (8, WalkFlags::BENEATH),
        (16, WalkFlags::IN_ROOT),
    ];
    const RESOLVE_CACHED: u64 = 32;
    const HOW_SIZE: u64 = 24;
    let [flags, mode, resolve] = read_extensible(ctx, args[2], args[3], HOW_SIZE)?;
    let open_flags = OpenFlags::from_bits_retain(flags as u32);
    let creates = open_flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    if flags & !u64::from(KNOWN_FLAGS) != 0 || mode & !0o7777 != 0 || !creates && mode != 0 {
        bail!(EINVAL);
    }
    let with_path = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    if open_flags.contains(OpenFlags::PATH) && !with_path.contains(open_flags) {
        bail!(EINVAL);
    }
    let mut walk = WalkFlags::empty();
    let mut rest = resolve;
    for (bit, flag) in RESOLVE {
        walk.set(flag, resolve & bit != 0);
        rest &= !bit;
    }
    if rest & !RESOLVE_CACHED != 0 || walk.contains(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
        bail!(EINVAL);
    }
    if rest & RESOLVE_CACHED != 0 {
        // Linux gives this answer whenever the cache alone does not do, and the caller then asks without the flag.
        bail!(EAGAIN);
    }
    let mut flags = open_flags;
    flags.set(OpenFlags::LARGEFILE, !open_flags.contains(OpenFlags::PATH));
    open(ctx, args[0] as i32, args[1], OpenHow { flags, mode: mode as u32, resolve: walk })
}

/// Closes a file that was taken from a descriptor of the running task.
fn finish_close(ctx: &Ctx, file: &File) -> Result<()> {
    ctx.files().closed(file);
    match &file.ops {
        Some(ops) => ops.flush(ctx, file),
        None => Ok(()),
    }
}

fn sys_close(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.files().remove(ctx, args[0] as i32)?;
    finish_close(ctx, &file).map(|()| 0)
}

fn sys_close_range(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const UNSHARE: u64 = 2;
    const CLOEXEC: u64 = 4;
    let (first, last, flags) = (args[0] as u32 as usize, args[1] as u32 as usize, args[2]);
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        bail!(EINVAL);
    }
    if flags & UNSHARE != 0 {
        ctx.set_files(Arc::new(ctx.files().duplicate()));
    }
    let files = ctx.files();
    if flags & CLOEXEC != 0 {
        files.mark_range(first, last);
        return Ok(0);
    }
    for file in files.remove_range(ctx, first, last) {
        // close_range(2) reports no errors of the single files.
        let _ = finish_close(ctx, &file);
    }
    Ok(0)
}

fn sys_dup(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let file = ctx.file_or_path(args[0] as i32)?;
    install(ctx, file.clone(), false)
}

fn sys_dup2(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (old, new) = (args[0] as i32, args[1] as i32);
    if old == new {
        return ctx.file_or_path(old).map(|_| old as usize);
    }
    duplicate_to(ctx, old, new, false)
}

fn sys_dup3(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (old, new) = (args[0] as i32, args[1] as i32);
    let cloexec = u64::from(OpenFlags::CLOEXEC.bits());
    if args[2] & !cloexec != 0 || old == new {
        bail!(EINVAL);
    }
    duplicate_to(ctx, old, new, args[2] & cloexec != 0)
}

fn duplicate_to(ctx: &Ctx, old: i32, new: i32, close_on_exec: bool) -> Result<usize> {
    let files = ctx.files();
    if new < 0 || new as u64 >= ctx.task.process.limit(RLIMIT_NOFILE) {
        bail!(EBADF);
    }
    let file = files.get_or_path(old)?;
    if let Some(replaced) = files.replace(ctx, new as usize, file, close_on_exec) {
        // dup2(2) silently closes what was there.
        let _ = finish_close(ctx, &replaced);
    }
    Ok(new as usize)
}

fn sys_pipe(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    pipe(ctx, args[0], OpenFlags::empty())
}

fn sys_pipe2(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(args[1] as u32);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT).contains(flags) {
        bail!(EINVAL);
    }
    pipe(ctx, args[0], flags)
}

fn pipe(ctx: &Ctx, addr: u64, flags: OpenFlags) -> Result<usize> {
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let (reader, writer) = ctx.kernel.vfs.pipe(ctx, flags);
    let files = ctx.files();
    let read_fd = install(ctx, reader, cloexec)? as i32;
    let undo = |fd: i32| drop(files.remove(ctx, fd));
    let write_fd = match install(ctx, writer, cloexec) {
        Ok(fd) => fd as i32,
        Err(e) => {
            undo(read_fd);
            return Err(e);
        }
    };
    match ctx.write_val(addr, &[read_fd, write_fd]) {
        Ok(()) => Ok(0),
        Err(e) => {
            undo(read_fd);
            undo(write_fd);
            Err(e)
        }
    }
}

fn sys_memfd_create(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const CLOEXEC: u64 = 1;
    const ALLOW_SEALING: u64 = 2;
    const NOEXEC_SEAL: u64 = 8;
    const EXEC: u64 = 16;
    /// Longest name: `NAME_MAX` less the prefix that `/proc` shows.
    const NAME_MAX: usize = 255 - "memfd:".len();
    let flags = args[1];
    if flags & !(CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC) != 0
        || flags & (NOEXEC_SEAL | EXEC) == NOEXEC_SEAL | EXEC
    {
        bail!(EINVAL);
    }
    let name = match ctx.read_cstr(args[0], NAME_MAX) {
        Err(e) if e == Errno::ENAMETOOLONG => bail!(EINVAL),
        name => name?,
    };
    let sealable = flags & (ALLOW_SEALING | NOEXEC_SEAL) != 0;
    let seals = if sealable { 0 } else { SEAL_SEAL };
    let mode = if flags & NOEXEC_SEAL != 0 { 0o666 } else { 0o777 };
    let seals = if flags & NOEXEC_SEAL != 0 { seals | SEAL_EXEC } else { seals };
    let inode = crate::fs::tmpfs::memory_file(ctx, mode, seals)?;
    let shown = [&b"/memfd:"[..], &name].concat();
    let file = ctx.kernel.vfs.anon_regular(&shown, inode, OpenFlags::RDWR | OpenFlags::LARGEFILE)?;
    install(ctx, file, flags & CLOEXEC != 0)
}
