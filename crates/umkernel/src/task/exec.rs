//! `execve(2)`.

use super::fork::vfork_done;
use super::{Comm, Task, creds};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::futex;
use crate::kernel::Ctx;
use crate::loader::{self, Placed, StackPlan, Strings};
use crate::mm::AddressSpace;
use crate::platform::TrapFrame;
use crate::ptrace;
use crate::signal::{self, SigDetail, SigInfo};
use crate::vfs::File;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Runs the program in `file`, called as `path`, in place of the caller's. On success `frame` is where it starts.
///
/// # Errors
/// Before the old program is gone, as `execve(2)` says. Afterwards there is nothing to return to: the process is killed.
pub fn exec(ctx: &Ctx, file: Arc<File>, path: &[u8], mut strings: Strings, frame: &mut TrapFrame) -> Result<()> {
    if strings.args.is_empty() {
        // Linux since 5.18: a program never sees an empty argv.
        strings.args.push(Vec::new());
    }
    let image = loader::find_program(ctx, file, path, &mut strings)?;
    let stack_limit = ctx.task.process.limit(crate::mm::RLIMIT_STACK);
    loader::check_size(&strings, stack_limit)?;
    let loaded = loader::load(ctx, image.file.clone(), &image.head)?;
    let attr = image.file.inode.attr()?;
    let traced = !ctx.task.trace.may_gain_privileges();
    let no_suid = image.file.location.mount.no_suid() || traced;

    let old_tid = ctx.task.tid();
    end_other_threads(ctx)?;
    // No other thread sets `no_new_privs` any more.
    let (new_creds, secure) =
        creds::for_exec(ctx.creds(), &attr, no_suid, ctx.task.no_new_privs.load(Ordering::SeqCst));
    futex::exec_robust_list(ctx);

    let kernel = ctx.kernel;
    let task = ctx.task;
    let space = Arc::new(AddressSpace::new(kernel.new_id(), &kernel.platform.reserved_ranges()));
    space.debugged.store(task.trace.is_traced(), Ordering::Relaxed);
    // SAFETY: this thread runs the task, and nobody up to its system call looks at its memory any more: the strings are copied.
    let old = unsafe { task.mm.replace(None) };
    // The caller's reference is the last one unless a vfork parent or a CLONE_VM relative has the memory, too.
    let alone = old.as_ref().is_none_or(|old| Arc::strong_count(old) == 1);
    let replaced = kernel.platform.replace_memory(task, alone);
    super::exit::hand_over_memory(ctx, old);
    space.host_pid.store(task.host.pid.load(Ordering::Relaxed), Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { task.mm.replace(Some(space.clone())) };
    vfork_done(task);

    let started = replaced.and_then(|()| {
        let placed = loaded.map(ctx, &space)?;
        build_stack(ctx, &space, &placed, &strings, path, &new_creds, secure)
    });
    let (entry, sp) = match started {
        Ok(start) => start,
        Err(e) => {
            const SIGKILL: u8 = 9;
            signal::force(ctx, SigInfo { signo: SIGKILL, code: 0x80, errno: 0, detail: SigDetail::None });
            return Err(e);
        }
    };
    kernel.platform.set_extended_state(task, &[])?;
    // Tracers see which call it was.
    *frame = TrapFrame { orig_rax: frame.orig_rax, rax: frame.rax, ..TrapFrame::start(entry, sp) };

    become_program(ctx, &image.file, path, new_creds);
    ptrace::stop::event(ctx, frame, ptrace::Event::Exec, old_tid as u64);
    Ok(())
}

/// What changes besides memory: name, descriptors, handlers, credentials.
fn become_program(ctx: &Ctx, program: &Arc<File>, path: &[u8], new_creds: super::Creds) {
    let task = ctx.task;
    let process = &task.process;
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    *task.comm.lock() = Comm::new(name);
    *process.exe.lock() = Some(program.clone());
    process.inner.lock().has_execed = true;
    task.clear_child_tid.store(0, Ordering::Relaxed);
    *task.restart.lock() = None;
    if task.files.with(Arc::strong_count) > 1 {
        // exec ends the sharing of descriptors (`CLONE_FILES`).
        ctx.set_files(Arc::new(ctx.files().duplicate()));
    }
    drop(ctx.files().close_on_exec(ctx));
    let mut handlers = process.handlers.lock();
    let fresh = Arc::new(handlers.for_exec());
    *handlers = fresh;
    drop(handlers);
    task.signals.reset_for_exec();
    process.timers.reset_for_exec(ctx.kernel);
    ctx.set_creds(new_creds);
}

fn build_stack(
    ctx: &Ctx,
    space: &AddressSpace,
    placed: &Placed,
    strings: &Strings,
    path: &[u8],
    creds: &super::Creds,
    secure: bool,
) -> Result<(u64, u64)> {
    use loader::at;
    let mut auxv = Vec::new();
    let vdso = ctx.kernel.platform.reserved_ranges().into_iter().find(|r| r.name == "[vdso]");
    if let Some(vdso) = vdso {
        auxv.push((at::SYSINFO_EHDR, vdso.start));
    }
    auxv.extend_from_slice(&ctx.kernel.platform.hardware_auxv());
    auxv.extend([
        (at::PAGESZ, crate::mm::PAGE_SIZE),
        (at::CLKTCK, 100),
        (at::PHDR, placed.phdr),
        (at::PHENT, 56),
        (at::PHNUM, placed.phnum),
        (at::BASE, placed.interp_base),
        (at::FLAGS, 0),
        (at::ENTRY, placed.program_entry),
        (at::UID, creds.uid.into()),
        (at::EUID, creds.euid.into()),
        (at::GID, creds.gid.into()),
        (at::EGID, creds.egid.into()),
        (at::SECURE, secure.into()),
    ]);
    let mut inner = space.inner.lock();
    let plan = StackPlan::new(inner.stack_start, strings, path, &auxv);
    (inner.args, inner.env) = (plan.args, plan.env);
    inner.stack_start = plan.sp;
    inner.auxv = plan.auxv;
    drop(inner);
    if ctx.kernel.platform.write_memory(space, plan.sp, &plan.bytes) < plan.bytes.len() {
        bail!(EFAULT, "the new stack cannot be written");
    }
    Ok((placed.entry, plan.sp))
}

/// Ends all other threads of the process; the caller becomes its first thread.
fn end_other_threads(ctx: &Ctx) -> Result<()> {
    let process = &ctx.task.process;
    let inner = process.inner.lock();
    if inner.exiting.is_some() || ctx.task.dying.load(Ordering::SeqCst) {
        bail!(ERESTARTNOINTR, "the process is ending");
    }
    let others: Vec<Arc<Task>> = inner.threads.iter().filter(|t| !Arc::ptr_eq(t, ctx.task)).cloned().collect();
    // Another thread that executes or exits at the same time finds itself dying.
    others.iter().for_each(|t| t.dying.store(true, Ordering::SeqCst));
    drop(inner);
    others.iter().for_each(|t| t.interrupt(ctx.kernel));
    let sleeper = ctx.task.waiter.clone() as Arc<dyn crate::sync::Wake>;
    process.child_events.add(sleeper.clone());
    let ended = loop {
        ctx.task.waiter.prepare();
        if process.inner.lock().threads.len() == 1 {
            break Ok(());
        }
        if ctx.task.dying.load(Ordering::SeqCst) {
            break Err(Errno::ERESTARTNOINTR.into());
        }
        ctx.task.sleep(None);
    };
    process.child_events.remove(&sleeper);
    if ended.is_ok() && ctx.task.tid() != process.pid {
        ptrace::link::leader_replaced(ctx);
        ctx.kernel.tasks.remove_task(ctx.task.tid());
        ctx.task.tid.store(process.pid, Ordering::Relaxed);
        ctx.kernel.tasks.insert(ctx.task);
    }
    ended
}
