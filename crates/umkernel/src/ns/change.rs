//! How tasks come into other namespaces: `clone(2)`, `unshare(2)`, `setns(2)`.

use super::{Kind, Namespaces, UtsNamespace, file};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::ipc;
use crate::kernel::Ctx;
use crate::ptrace;
use crate::sync::Mutex;
use crate::task::{Capabilities, CloneFlags, pidfd};
use crate::vfs::{File, FsContext};
use alloc::sync::Arc;
use core::mem;

/// The namespaces that a child starts in; `fs` is what it will have as root and working directory, which follow it into new mounts.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `EINVAL` for kinds that are not built, or a new namespace of System V objects with `CLONE_SYSVSEM`;
/// `ENOSPC` for more namespaces or mounts than there may be.
pub fn for_child(ctx: &Ctx, flags: CloneFlags, fs: &FsContext) -> Result<Arc<Namespaces>> {
    check_built(ctx, flags & CloneFlags::NEWUSER)?;
    if !flags.intersects(CloneFlags::NAMESPACES) {
        return ctx.task.namespaces.get().ok_or(Errno::ESRCH.into());
    }
    check_admin(ctx)?;
    if flags.contains(CloneFlags::NEWIPC | CloneFlags::SYSVSEM) {
        bail!(EINVAL, "CLONE_NEWIPC with CLONE_SYSVSEM");
    }
    make(ctx, flags, fs)
}

/// `unshare(2)`: gives the running task parts of its own of what the flags name.
///
/// # Errors
/// `EINVAL` for unknown flags, what is not built, and what threads cannot give up; otherwise as of [`for_child`].
pub fn unshare(ctx: &Ctx, flags: CloneFlags) -> Result<()> {
    let private = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM;
    let own = CloneFlags::FS | CloneFlags::FILES | CloneFlags::SYSVSEM;
    if !(private | own | CloneFlags::NAMESPACES | CloneFlags::NEWUSER).contains(flags) {
        bail!(EINVAL);
    }
    if flags.intersects(private) && ctx.task.process.inner.lock().threads.len() > 1 {
        bail!(EINVAL, "the process has several threads");
    }
    // Anybody may ask for one of these.
    check_built(ctx, flags & CloneFlags::NEWUSER)?;
    // Who has mounts of its own has a root and a working directory of its own: they are on them.
    let fs = flags.intersects(CloneFlags::FS | CloneFlags::NEWNS).then(|| Arc::new(ctx.fs().duplicate()));
    let namespaces = if flags.intersects(CloneFlags::NAMESPACES) {
        check_admin(ctx)?;
        Some(make(ctx, flags, fs.as_deref().unwrap_or(ctx.fs()))?)
    } else {
        None
    };
    if flags.contains(CloneFlags::FILES) {
        ctx.set_files(Arc::new(ctx.files().duplicate()));
    }
    if let Some(fs) = fs {
        ctx.set_fs(fs);
    }
    if let Some(namespaces) = namespaces {
        enter(ctx, namespaces);
    }
    Ok(())
}

/// `setns(2)`: brings the running task into the namespace that a file stands for, or into some of those of the process that a descriptor
/// stands for.
///
/// # Errors
/// `EINVAL` for any other file, one of another kind than `flags` names, kinds that are not built, and a root directory that is shared with
/// other tasks and would be on other mounts; `ESRCH` for a process that has ended; `EPERM`.
pub fn join(ctx: &Ctx, file: &File, flags: CloneFlags) -> Result<()> {
    let mut new = ctx.namespaces().clone();
    let flags = if let Some(namespace) = file::of(&*file.inode) {
        let kind = namespace.kind().flag();
        if !flags.is_empty() && flags != kind {
            bail!(EINVAL, "a namespace of another kind");
        }
        check_admin(ctx)?;
        new.set(namespace.clone());
        kind
    } else {
        let Ok(process) = pidfd::process_of(file) else { bail!(EINVAL, "neither a namespace nor a process") };
        if flags.is_empty() || !(CloneFlags::NAMESPACES | CloneFlags::NEWUSER).contains(flags) {
            bail!(EINVAL, "no flag, or unknown ones");
        }
        check_built(ctx, flags)?;
        let Some(task) = process.inner.lock().threads.first().cloned() else { bail!(ESRCH) };
        ptrace::may_access(ctx, &task)?;
        let Some(theirs) = task.namespaces.get() else { bail!(ESRCH) };
        check_admin(ctx)?;
        Kind::ALL.into_iter().filter(|kind| flags.contains(kind.flag())).for_each(|kind| new.set(theirs.get(kind)));
        flags
    };
    if flags.contains(CloneFlags::NEWNS) {
        if !ctx.creds().capable(Capabilities::SYS_CHROOT) {
            bail!(EPERM);
        }
        // With other namespaces at once it is not asked for, as on Linux.
        if flags == CloneFlags::NEWNS && shares_fs(ctx) {
            bail!(EINVAL, "root and working directory are shared");
        }
        let Some(root) = ctx.kernel.vfs.root_of(&new.mnt) else { bail!(EINVAL, "nothing is mounted there") };
        let mut inner = ctx.fs().inner.lock();
        let old = (mem::replace(&mut inner.root, root.clone()), mem::replace(&mut inner.cwd, root));
        drop(inner);
        drop(old);
    }
    enter(ctx, Arc::new(new));
    Ok(())
}

fn check_admin(ctx: &Ctx) -> Result<()> {
    if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
        bail!(EPERM, "namespaces are an administrator's");
    }
    Ok(())
}

/// `EINVAL`, and a message, for kinds of namespaces that are not built.
fn check_built(ctx: &Ctx, flags: CloneFlags) -> Result<()> {
    let built = Kind::ALL.into_iter().fold(CloneFlags::empty(), |all, kind| all | kind.flag());
    let missing = flags & ((CloneFlags::NAMESPACES | CloneFlags::NEWUSER) - built);
    if !missing.is_empty() {
        ctx.kernel.unknown_calls.note_namespaces(ctx, missing);
        bail!(EINVAL, "namespaces of a kind that is not built");
    }
    Ok(())
}

/// New namespaces of the kinds that the flags name, and the running task's own of the others.
fn make(ctx: &Ctx, flags: CloneFlags, fs: &FsContext) -> Result<Arc<Namespaces>> {
    check_built(ctx, flags)?;
    let registry = &ctx.kernel.namespaces;
    let mut new = ctx.namespaces().clone();
    if flags.contains(CloneFlags::NEWUTS) {
        let ticket = registry.ticket(ctx, Kind::Uts)?;
        let names = ctx.uts().lock().clone();
        new.uts = Arc::new(UtsNamespace { ticket, names: Mutex::new(names) });
    }
    if flags.contains(CloneFlags::NEWIPC) {
        new.ipc = registry.new_ipc(registry.ticket(ctx, Kind::Ipc)?);
    }
    // Last, since it moves the directories.
    if flags.contains(CloneFlags::NEWNS) {
        let ticket = registry.ticket(ctx, Kind::Mnt)?;
        new.mnt = ctx.kernel.vfs.copy_namespace(&ctx.namespaces().mnt, ticket, fs)?;
    }
    Ok(Arc::new(new))
}

/// The running task goes on in other namespaces.
fn enter(ctx: &Ctx, namespaces: Arc<Namespaces>) {
    let process = &ctx.task.process;
    // What it was to undo there (`SEM_UNDO`) is undone when it leaves; threads share that, and those that stay may be the ones who did it.
    if !Arc::ptr_eq(&namespaces.ipc, &ctx.namespaces().ipc) && process.inner.lock().threads.len() == 1 {
        ipc::sem::undo_all(ctx.ipc(), process.pid);
    }
    ctx.set_namespaces(namespaces);
}

/// Whether another task has the same root and working directory as the running one (`CLONE_FS`).
fn shares_fs(ctx: &Ctx) -> bool {
    let same = |fs: &Arc<FsContext>| core::ptr::eq(&**fs, ctx.fs());
    ctx.kernel.tasks.processes().iter().any(|process| {
        let threads = process.inner.lock().threads.clone();
        threads.iter().any(|task| !Arc::ptr_eq(task, ctx.task) && task.fs.with(same))
    })
}
