//! Host processes and threads: how they come about, how a task moves from one to another, how they end.
//!
//! All guest processes are children of the kernel process's first thread (`CLONE_PARENT`), which reaps them, and with which they
//! die. They share its descriptor table. None of them knows its host id but for the machine's own use.

use super::arena::arena;
use super::entry::{FRAME_SIZE, direct_clone, direct_leave, direct_park, direct_unpark, leave_to_user};
use super::layout::KERNEL_RANGES;
use super::slot::{HostMemory, IN_KERNEL, IN_USER, Own, Slot, Start, current};
use super::{signal, traps};
use crate::errno::{Errno, Error, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::mm::TASK_SIZE;
use crate::platform::{Spawn, TrapFrame};
use crate::signal::number::SIGKILL;
use crate::task::{Process, Task, WaitStatus, end_process};
use crate::trap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{
    CLONE_FILES, CLONE_FS, CLONE_PARENT, CLONE_PARENT_SETTID, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VM,
    SIGCHLD,
};

/// Flags of a guest process.
pub(super) const PROCESS: u32 = CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD;
/// Flags of a thread.
const THREAD: u32 =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID;

/// Room below a frame or a parked context for the first steps of a thread that goes on there.
const FIRST_STEPS: u64 = 1024;

pub(super) fn below(address: u64) -> u64 {
    (address - FIRST_STEPS) & !15
}

pub(super) fn host_result(value: i64) -> Result<()> {
    if value < 0 { Err(Error::new(Errno(-value as u16), "clone")) } else { Ok(()) }
}

pub(super) fn task_of(slot: &Slot) -> Option<&Arc<Task>> {
    // SAFETY: the slot is being prepared, or its thread waits for the caller.
    unsafe { slot.own() }.task.as_ref()
}

/// Reaps guest processes for as long as the machine runs; in the kernel process.
///
/// Nobody waits for it while the machine runs, so it lets a few gather: to wake up for each would cost as much as its end.
pub(super) fn reap() {
    const GATHER: u64 = 2_000_000;
    let stopping = &arena().zygote.stopping;
    let mut wait = true;
    while let Ok((pid, status)) = host::process::wait_child(wait) {
        if pid != 0 {
            reaped(pid, status);
            wait = false;
        } else {
            wait = true;
        }
        if wait && stopping.load(Ordering::SeqCst) == 0 {
            host::futex_wait(stopping, 0, Some(host::monotonic_ns() + GATHER));
        }
    }
    stopping.store(2, Ordering::SeqCst);
    host::futex_wake(stopping, 1);
}

fn reaped(pid: i32, status: i32) {
    if arena().zygote.stopping.load(Ordering::SeqCst) != 0 {
        return;
    }
    assert!(pid != arena().facts.broker_pid, "the broker was killed (status {status:#x})");
    assert!(pid != arena().zygote.host_pid(), "the zygote was killed (status {status:#x})");
    if arena().zygote.forget_spare(pid, status) {
        return;
    }
    let panicked = status == i32::from(super::boot::PANIC_STATUS) << 8;
    // A guest that makes its process end so has done itself harm.
    assert!(!panicked || arena().slots.runs_guest_code(pid), "the kernel panicked in host process {pid}");
    /// The signal that ended a process (`WTERMSIG`).
    const SIGNAL: i32 = 0x7f;
    assert!(
        status & SIGNAL == 0 || !arena().slots.runs_kernel_code(pid),
        "host process {pid} was killed (status {status:#x}) while it ran the kernel's code"
    );
    bury(pid, status);
}

/// A host process has ended. If tasks were in it still, it was killed from outside, and they with it: each ends itself in a fresh
/// host process, from where it was. A task that ran the kernel's code may have left anything half done, so that ends the machine.
fn bury(pid: i32, status: i32) {
    let kernel = arena().kernel();
    let threads = |process: &Arc<Process>| process.inner.lock().threads.clone();
    let was_in = |task: &Arc<Task>| match task.host.pid.load(Ordering::Relaxed) {
        // It has not come so far as to say so.
        0 => task.host.tid.load(Ordering::Relaxed) == pid,
        own => own == pid,
    };
    let dead: Vec<Arc<Task>> = kernel.tasks.processes().iter().flat_map(threads).filter(was_in).collect();
    for task in &dead {
        // SAFETY: empty, or the task's slot, which stays until the task has ended.
        let slot = unsafe { (task.host.slot.load(Ordering::Relaxed) as *const Slot).as_ref() };
        let mode = slot.map_or(IN_KERNEL, |slot| slot.mode.load(Ordering::SeqCst));
        assert!(mode != IN_KERNEL, "host process {pid} was killed (status {status:#x}) while it ran the kernel's code");
    }
    for task in &dead {
        end_process(kernel, &task.process, WaitStatus::Signaled(SIGKILL, false));
        if let Err(e) = revive(task, pid) {
            panic!("host process {pid} was killed (status {status:#x}), and no other can be made: {e}");
        }
    }
}

/// Has a task whose host process is gone go on in a fresh one.
fn revive(task: &Arc<Task>, dead: i32) -> Result<()> {
    // SAFETY: as in `bury`; the slot's thread is gone, so its things are this thread's.
    let slot = unsafe { &*(task.host.slot.load(Ordering::Relaxed) as *const Slot) };
    // SAFETY: as above.
    let own = unsafe { slot.own() };
    let index = slot.index.swap(0, Ordering::Relaxed);
    if let Some(memory) = own.memory.replace(HostMemory::new(0)) {
        memory.give_back(index);
    }
    if slot.mode.swap(IN_KERNEL, Ordering::SeqCst) == IN_USER {
        slot.context.store(0, Ordering::Relaxed);
        own.start = Some(Start::Fresh(alloc::boxed::Box::new(|_: &Ctx| None)));
    }
    task.host.pid.store(0, Ordering::Relaxed);
    slot.process.store(0, Ordering::SeqCst);
    arena().zygote.make(slot)?;
    // Others may have the memory still: what is asked of it goes to a process that the task hands it over from.
    if let Ok(space) = task.mm() {
        let id = task.host.tid.load(Ordering::Relaxed);
        let _ = space.host_pid.compare_exchange(dead, id, Ordering::Relaxed, Ordering::Relaxed);
    }
    Ok(())
}

/// The process ends when the kernel process does, be that now.
pub(super) fn die_with_kernel() {
    host::die_with_parent();
    if host::getppid() != arena().facts.kernel_pid {
        host::exit_process(1);
    }
}

/// Unmaps all that is the guest's.
pub(super) fn empty_memory() -> Result<()> {
    const OWN: usize = KERNEL_RANGES.len();
    let mut kept = [(u64::MAX, u64::MAX); OWN + super::handover::MAX_RESERVED];
    kept[..OWN].copy_from_slice(&KERNEL_RANGES);
    for (place, range) in kept[OWN..].iter_mut().zip(arena().facts.reserved.iter().filter(|r| r.end != 0)) {
        *place = (range.start, range.end);
    }
    let mut at = 0;
    kept.sort_unstable();
    for (start, end) in kept {
        let start = start.min(TASK_SIZE);
        if start > at {
            host::unmap_range(at, start - at)?;
        }
        at = at.max(end);
    }
    Ok(())
}

/// A new task that goes on from the running one's call. See [`crate::platform::Platform::spawn`].
pub(super) fn spawn(child: &Arc<Task>, how: Spawn, regs: TrapFrame, settid: u64) -> Result<()> {
    let parent = current();
    // SAFETY: the running thread's own slot.
    let own = unsafe { parent.own() };
    let Some(memory) = own.memory.clone() else { return Err(Errno::ESRCH.into()) };
    let index = match how {
        Spawn::Fork => parent.index.load(Ordering::Relaxed),
        Spawn::Thread | Spawn::ShareMemory => memory.take()?,
    };
    let (child_memory, start) = match how {
        Spawn::Fork => (HostMemory::new(index), Start::Forked { settid }),
        Spawn::Thread | Spawn::ShareMemory => (memory.clone(), Start::User),
    };
    let prepared = Own { task: Some(child.clone()), memory: Some(child_memory), start: Some(start), ..Own::default() };
    let slot = arena().slots.take(prepared, index).inspect_err(|_| {
        if how != Spawn::Fork {
            memory.give_back(index);
        }
    })?;
    // SAFETY: the new slot's frame is nobody else's yet, the running thread's holds what it came in with.
    unsafe {
        *slot.frame() = *parent.frame();
        (*slot.frame()).regs = regs;
    }
    let stack = below(slot.stack_top() - FRAME_SIZE);
    let space = child.mm().ok();
    let id = child.host.tid.as_ptr().cast_const();
    let answer = match how {
        Spawn::Fork => {
            // SAFETY: a stack of its own in the arena; memory is copied.
            let pid = unsafe { direct_clone(PROCESS.into(), stack, id, slot.address(), forked) };
            if let Some(space) = space.filter(|_| pid > 0) {
                // Others may ask for the child's memory before it has come so far as to say where that is.
                let _ = space.host_pid.compare_exchange(0, pid as i32, Ordering::Relaxed, Ordering::Relaxed);
            }
            pid
        }
        Spawn::Thread | Spawn::ShareMemory => {
            if how == Spawn::Thread {
                child.host.pid.store(own_pid(own), Ordering::Relaxed);
            }
            let flags = if how == Spawn::Thread { THREAD } else { PROCESS | CLONE_VM };
            // The child has no signal stack until it sets one.
            host::block_signals();
            // SAFETY: a stack and door words of its own.
            let answer = unsafe { direct_clone(flags.into(), stack, id, slot.address(), threaded) };
            host::unblock_signals()?;
            answer
        }
    };
    if answer < 0 {
        if how != Spawn::Fork {
            memory.give_back(index);
        }
        discard(slot);
    }
    host_result(answer)
}

fn own_pid(own: &Own) -> i32 {
    own.task.as_ref().map_or(0, |task| task.host.pid.load(Ordering::Relaxed))
}

/// Gives back a slot whose thread was never started.
fn discard(slot: &'static Slot) {
    // SAFETY: no thread has it.
    *unsafe { slot.own() } = Own::default();
    slot.give_back();
}

/// The first task of a process with empty memory.
pub(super) fn spawn_fresh(child: &Arc<Task>, start: crate::platform::StartFn) -> Result<()> {
    let own = Own {
        task: Some(child.clone()),
        memory: Some(HostMemory::new(0)),
        start: Some(Start::Fresh(start)),
        ..Own::default()
    };
    let slot = arena().slots.take(own, 0)?;
    // SAFETY: nobody else's yet.
    unsafe { *slot.frame() = Default::default() };
    arena().zygote.make(slot).inspect_err(|_| discard(slot))
}

/// A thread of the kernel process, with a task or without.
pub(super) fn spawn_service(task: Option<&Arc<Task>>, body: crate::platform::HostThreadFn) -> Result<()> {
    // SAFETY: the running thread's own slot.
    let memory = unsafe { current().own() }.memory.clone();
    let Some(memory) = memory else { return Err(Errno::ESRCH.into()) };
    let index = memory.take()?;
    let own =
        Own { task: task.cloned(), memory: Some(memory.clone()), start: Some(Start::Service(body)), ..Own::default() };
    let slot = arena().slots.take(own, index).inspect_err(|_| memory.give_back(index))?;
    let id = task.map_or(&slot.host_id, |task| &task.host.kernel_tid).as_ptr();
    // SAFETY: a stack and door words of its own.
    let answer = unsafe { direct_clone(THREAD.into(), below(slot.stack_top()), id, slot.address(), service) };
    host_result(answer).inspect_err(|_| {
        memory.give_back(index);
        discard(slot);
    })
}

/// The running thread's slot, right after it was started.
fn arrive(slot: u64) -> &'static Slot {
    // SAFETY: the slot was made for this thread.
    let slot = unsafe { &*(slot as *const Slot) };
    slot.become_current();
    slot
}

extern "C" fn forked(slot: u64) -> ! {
    let slot = arrive(slot);
    die_with_kernel();
    run(slot)
}

extern "C" fn threaded(slot: u64) -> ! {
    let slot = arrive(slot);
    if task_of(slot).is_some_and(|task| task.host.pid.load(Ordering::Relaxed) == 0) {
        die_with_kernel();
    }
    let ready = signal::set_stack(slot.index.load(Ordering::Relaxed)).and_then(|()| host::unblock_signals());
    if let Err(e) = ready {
        panic!("cannot set a thread up: {e}");
    }
    run(slot)
}

/// A process of the zygote's that has been given a slot. Its task may have been kicked already.
pub(super) extern "C" fn fresh(slot: u64) -> ! {
    let slot = arrive(slot);
    die_with_kernel();
    if let Err(e) = host::unblock_signals() {
        panic!("cannot set a process up: {e}");
    }
    let context = slot.context.swap(0, Ordering::Relaxed);
    if context != 0 {
        if let Some(task) = task_of(slot) {
            let pid = task.host.tid.load(Ordering::Relaxed);
            task.host.pid.store(pid, Ordering::Relaxed);
            slot.process.store(pid, Ordering::SeqCst);
        }
        // SAFETY: the context was parked by a thread that waits to see this one take it over.
        unsafe { direct_unpark(context, 0) }
    }
    run(slot)
}

extern "C" fn service(slot: u64) -> ! {
    let slot = arrive(slot);
    // SAFETY: the running thread's own slot.
    if let Some(Start::Service(body)) = unsafe { slot.own() }.start.take() {
        body();
    }
    leave()
}

/// Runs a new task from its start; does not come back.
fn run(slot: &'static Slot) -> ! {
    let frame = slot.frame();
    // SAFETY: the running thread's own slot, and its own frame, whose other part may be set by `first`.
    let (start, regs) = unsafe { (slot.own().start.take(), &mut (*frame).regs) };
    super::slot::with_ctx(|ctx| {
        let host = &ctx.task.host;
        if host.pid.load(Ordering::Relaxed) == 0 {
            host.pid.store(host.tid.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        slot.process.store(host.pid.load(Ordering::Relaxed), Ordering::SeqCst);
        host.in_user.store(true, Ordering::Relaxed);
        match start {
            Some(Start::Forked { settid }) => {
                if let Ok(space) = ctx.mm() {
                    space.host_pid.store(host.pid.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                if settid != 0 {
                    // A bad address is the child's own loss, as on Linux.
                    let _ = ctx.write_val(settid, &ctx.task.tid());
                }
            }
            Some(Start::Fresh(first)) => match first(ctx) {
                Some(first) => *regs = first,
                None => end(ctx),
            },
            Some(Start::User | Start::Service(_)) | None => {}
        }
        traps::back(ctx, regs, None);
    });
    leave_to_user(frame)
}

/// The running task is over.
pub(super) fn end(ctx: &Ctx) -> ! {
    trap::ended(ctx);
    leave()
}

/// Ends the running thread.
fn leave() -> ! {
    // From here on nobody may need the signal stack, whose number is given back.
    host::block_signals();
    let slot = current();
    // SAFETY: the running thread's own slot.
    let own = core::mem::take(unsafe { slot.own() });
    slot.process.store(0, Ordering::SeqCst);
    drop(own.task);
    if let Some(memory) = own.memory {
        memory.give_back(slot.index.load(Ordering::Relaxed));
    }
    // SAFETY: nothing on this stack is needed any more.
    unsafe { direct_leave(slot.address(), arena().slots.free.as_ptr()) }
}

/// Moves the running task to a fresh host process with empty memory; its old host thread ends.
pub(super) fn move_to_fresh_process() -> Result<()> {
    let slot = current();
    // SAFETY: the running thread's own slot.
    let own = unsafe { slot.own() };
    let Some(memory) = own.memory.replace(HostMemory::new(0)) else { return Err(Errno::ESRCH.into()) };
    let index = slot.index.swap(0, Ordering::Relaxed);
    let helper = Own { memory: Some(memory.clone()), start: None, ..Own::default() };
    let helper = arena().slots.take(helper, index).inspect_err(|_| {
        own.memory = Some(memory.clone());
        slot.index.store(index, Ordering::Relaxed);
    })?;
    helper.context.store(slot.address(), Ordering::Relaxed);
    host::block_signals();
    // SAFETY: the helper's stack is empty; `moved` lets the context go on in exactly one thread.
    let value = unsafe { direct_park(slot.context.as_ptr(), moved, helper.address(), below(helper.stack_top())) };
    if value != 0 {
        host::unblock_signals()?;
        discard(helper);
        // SAFETY: the running thread's own slot, as before.
        unsafe { slot.own() }.memory = Some(memory);
        slot.index.store(index, Ordering::Relaxed);
        return host_result(value);
    }
    Ok(())
}

/// The old host thread of a task that moves, on a helper's stack.
extern "C" fn moved(helper: u64) -> ! {
    // SAFETY: made by `move_to_fresh_process` for this thread.
    let helper = unsafe { &*(helper as *const Slot) };
    // SAFETY: the slot whose context is parked.
    let slot = unsafe { &*(helper.context.load(Ordering::Relaxed) as *const Slot) };
    let task = task_of(slot).cloned();
    // What the slot's thread alone may use is another thread's from here on.
    helper.become_current();
    if let Err(e) = arena().zygote.make(slot) {
        drop(task);
        slot.become_current();
        let context = slot.context.swap(0, Ordering::Relaxed);
        // SAFETY: no other thread has taken the context over.
        unsafe { direct_unpark(context, -i64::from(e.errno.0)) }
    }
    // Before this process ends: a task that is still in it is taken for killed.
    if let Some(task) = task {
        task.host.pid.store(task.host.tid.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    // SAFETY: the helper's own things are this thread's.
    let own = core::mem::take(unsafe { helper.own() });
    if let Some(memory) = own.memory {
        memory.give_back(helper.index.load(Ordering::Relaxed));
    }
    // SAFETY: nothing on this stack is needed any more.
    unsafe { direct_leave(helper.address(), arena().slots.free.as_ptr()) }
}
