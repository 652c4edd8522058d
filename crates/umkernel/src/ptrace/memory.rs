//! A tracee's memory as its tracer sees it: all of it that is there, whatever its protection, and the program's own bytes.
//!
//! What is written to pages that the tracee itself could not write, such as a breakpoint in its text, goes to a private copy of the
//! page, as on Linux (`FOLL_FORCE`): never to the file, never to another process. Pages that are shared and may not be written stay as
//! they are.

use super::request::{on_tracee, with_stop};
use crate::kernel::Ctx;
use crate::mm::map::back_vma;
use crate::mm::{AddressSpace, MapFlags, PAGE_SIZE, Prot, Vma, VmaKind};
use crate::task::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// From now on the running task's memory shows the program's own text: no copy of the platform's, with jumps in it, takes the
/// file's place.
pub(crate) fn show_own_text(ctx: &Ctx) {
    let Ok(space) = ctx.mm() else { return };
    let inner = space.inner.lock();
    if space.debugged.swap(true, Ordering::SeqCst) {
        return;
    }
    for vma in inner.vmas.values().filter(|vma| ctx.kernel.platform.has_text_copy(vma)) {
        // Where it fails, the copy stays: the program runs on as before.
        let _ = back_vma(ctx, vma);
    }
}

/// Whether a tracer may look at its tracee's memory: that has no secrets (it is dumpable), or the tracer may trace anybody.
fn may_look(tracee: &Task) -> bool {
    tracee.creds().dumpable || tracee.trace.link.lock().capable
}

/// Reads a stopped tracee's memory: the bytes read before the first that is not there.
pub fn read(ctx: &Ctx, tracee: &Arc<Task>, space: &Arc<AddressSpace>, addr: u64, buf: &mut [u8]) -> usize {
    if !may_look(tracee) {
        return 0;
    }
    let mut done = ctx.kernel.platform.read_memory(space, addr, buf);
    while done < buf.len() {
        let at = addr.wrapping_add(done as u64);
        let len = piece(at, buf.len() - done);
        let Some(bytes) = on_tracee(ctx, tracee, move |ctx| forced_read(ctx, at, len)).ok().flatten() else { break };
        buf[done..done + len].copy_from_slice(&bytes);
        done += len;
        done += ctx.kernel.platform.read_memory(space, at.wrapping_add(len as u64), &mut buf[done..]);
    }
    done
}

/// Writes a stopped tracee's memory: the bytes written before the first that may not be written.
pub fn write(ctx: &Ctx, tracee: &Arc<Task>, space: &Arc<AddressSpace>, addr: u64, bytes: &[u8]) -> usize {
    if !may_look(tracee) {
        return 0;
    }
    let mut done = ctx.kernel.platform.write_memory(space, addr, bytes);
    while done < bytes.len() {
        let at = addr.wrapping_add(done as u64);
        let len = piece(at, bytes.len() - done);
        let copy = Vec::from(&bytes[done..done + len]);
        if on_tracee(ctx, tracee, move |ctx| forced_write(ctx, at, &copy)).ok().flatten().is_none() {
            break;
        }
        done += len;
        done += ctx.kernel.platform.write_memory(space, at.wrapping_add(len as u64), &bytes[done..]);
    }
    done
}

/// As much of `len` bytes at `at` as lies in one page.
fn piece(at: u64, len: usize) -> usize {
    len.min((PAGE_SIZE - at % PAGE_SIZE) as usize)
}

/// Calls `access` on the running task's page at `at`, with these rights added for the moment if the VMA lets its debugger have them.
fn with_rights<T>(ctx: &Ctx, at: u64, rights: Prot, access: impl FnOnce(&AddressSpace) -> Option<T>) -> Option<T> {
    let space = ctx.mm().ok()?;
    // Held all the while: nobody changes the mapping meanwhile.
    let inner = space.inner.lock();
    let vma: &Vma = inner.vma_at(at)?;
    let shared = vma.flags.contains(MapFlags::SHARED);
    let forbidden = matches!(vma.kind, VmaKind::Reserved(_)) || rights.contains(Prot::WRITE) && shared;
    if vma.prot.contains(rights) || forbidden {
        return None;
    }
    let (platform, page) = (&ctx.kernel.platform, at & !(PAGE_SIZE - 1));
    platform.protect(ctx.task, page, PAGE_SIZE, vma.prot | rights).ok()?;
    let result = access(space);
    // What was possible a moment ago; if it fails, the page has more rights than its VMA says, for the task itself only.
    let _ = platform.protect(ctx.task, page, PAGE_SIZE, vma.prot);
    result
}

fn forced_read(ctx: &Ctx, at: u64, len: usize) -> Option<Vec<u8>> {
    with_rights(ctx, at, Prot::READ, |space| {
        let mut bytes = alloc::vec![0; len];
        (ctx.kernel.platform.read_memory(space, at, &mut bytes) == len).then_some(bytes)
    })
}

fn forced_write(ctx: &Ctx, at: u64, bytes: &[u8]) -> Option<()> {
    with_rights(ctx, at, Prot::READ | Prot::WRITE, |space| {
        (ctx.kernel.platform.write_memory(space, at, bytes) == bytes.len()).then_some(())
    })
}

/// Reads for `/proc/PID/mem`: as a tracer, if the running task is one of a task with this memory that is stopped.
pub fn read_any(ctx: &Ctx, space: &Arc<AddressSpace>, addr: u64, buf: &mut [u8]) -> usize {
    match tracee_with(ctx, space) {
        Some(tracee) => read(ctx, &tracee, space, addr, buf),
        None => ctx.kernel.platform.read_memory(space, addr, buf),
    }
}

/// Writes for `/proc/PID/mem`, likewise.
pub fn write_any(ctx: &Ctx, space: &Arc<AddressSpace>, addr: u64, bytes: &[u8]) -> usize {
    match tracee_with(ctx, space) {
        Some(tracee) => write(ctx, &tracee, space, addr, bytes),
        None => ctx.kernel.platform.write_memory(space, addr, bytes),
    }
}

fn tracee_with(ctx: &Ctx, space: &Arc<AddressSpace>) -> Option<Arc<Task>> {
    let list = ctx.task.trace.tracees.lock().list.clone();
    let has_it = |task: &Arc<Task>| task.mm.with(|mm| mm.as_ref().is_some_and(|mm| Arc::ptr_eq(mm, space)));
    list.into_iter().find(|task| has_it(task) && with_stop(ctx, task, |_| ()).is_ok())
}
