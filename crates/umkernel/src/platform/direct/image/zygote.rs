//! The zygote: the process that fresh guest processes are cloned from. It waits in the kernel's code and has no guest memory.
//!
//! A program that starts by `vfork` and `exec`, as shells and compilers do it, needs a fresh process at once. So the zygote keeps
//! [spare](Spare) ones, made while nobody waits.

use super::arena::{Arena, arena};
use super::entry::{FRAME_SIZE, direct_clone};
use super::layout::{ARENA_BASE, HEAP_BASE, KICK, ROOT, SIGNAL_STACK_SIZE, SIGNAL_STACKS};
use super::slot::{HostMemory, Own, Slot};
use super::spawn::{PROCESS, below, die_with_kernel, empty_memory, fresh, host_result, task_of};
use super::{filter, signal};
use crate::errno::Result;
use crate::host;
use crate::mm::PAGE_SIZE;
use crate::sync::Mutex;
use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general::{CLONE_FILES, SIGCHLD};

/// How the zygote is asked, and what it has.
#[derive(Default)]
pub(super) struct Zygote {
    turn: Mutex<()>,
    state: AtomicU32,
    slot: AtomicU64,
    answer: AtomicI64,
    /// Its host id.
    pid: AtomicI32,
    /// 1 when the machine stops: guest processes are ended from outside; 2 when all have been reaped.
    pub(super) stopping: AtomicU32,
    spares: [Spare; SPARES],
}

/// Spare processes that are kept: the one that is next, and one while that comes out of its sleep.
const SPARES: usize = 2;

const IDLE: u32 = 0;
/// Somebody waits for a process.
const ASKED: u32 = 1;
const ANSWERED: u32 = 2;
/// A spare has been taken.
const REFILL: u32 = 3;

/// A process that has been made ahead, and sleeps until it is given a slot to go on with.
#[derive(Default)]
struct Spare {
    state: AtomicU32,
    /// Its host id.
    pid: AtomicI32,
    slot: AtomicU64,
}

/// There is none.
const NONE: u32 = 0;
/// It is being cloned.
const MAKING: u32 = 1;
/// It sleeps.
const READY: u32 = 2;
/// Somebody has it, and has not yet said what it is for.
const TAKEN: u32 = 3;
/// It has its slot.
const GO: u32 = 4;
/// The machine stops.
const OVER: u32 = 5;

impl Zygote {
    /// Has a process go on with a slot: where its context is parked, or at its start.
    pub(super) fn make(&self, slot: &Slot) -> Result<()> {
        let _turn = self.turn.lock();
        if self.spares.iter().any(|spare| spare.give(slot)) {
            self.say(REFILL);
            return Ok(());
        }
        self.slot.store(slot.address(), Ordering::Relaxed);
        self.say(ASKED);
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == ANSWERED {
                break;
            }
            host::futex_wait(&self.state, state, None);
        }
        self.state.store(IDLE, Ordering::Relaxed);
        host_result(self.answer.load(Ordering::Relaxed))
    }

    fn say(&self, state: u32) {
        self.state.store(state, Ordering::Release);
        host::futex_wake(&self.state, 1);
    }

    /// Its host id.
    pub(super) fn host_pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    fn serve(&self) -> ! {
        loop {
            match self.state.load(Ordering::Acquire) {
                ASKED => {
                    self.answer.store(self.clone_for_slot(), Ordering::Relaxed);
                    self.say(ANSWERED);
                    self.refill();
                }
                REFILL => {
                    // Somebody may ask meanwhile, and comes first.
                    if self.state.compare_exchange(REFILL, IDLE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                        self.refill();
                    }
                }
                idle => host::futex_wait(&self.state, idle, None),
            }
        }
    }

    fn clone_for_slot(&self) -> i64 {
        // SAFETY: whoever asked keeps the slot until the answer.
        let slot = unsafe { &*(self.slot.load(Ordering::Relaxed) as *const Slot) };
        let context = slot.context.load(Ordering::Relaxed);
        let top = if context == 0 { slot.stack_top() - FRAME_SIZE } else { context };
        let id = task_of(slot).map_or(core::ptr::null(), |task| task.host.tid.as_ptr().cast_const());
        // SAFETY: the stack is the slot's, below all that is live on it.
        unsafe { direct_clone(PROCESS.into(), below(top), id, slot.address(), fresh) }
    }

    fn refill(&self) {
        /// Each process has a signal stack of its own there that only its second thread uses: empty memory for the first steps.
        const STACK: u64 = SIGNAL_STACKS + 2 * SIGNAL_STACK_SIZE;
        for spare in &self.spares {
            if self.state.load(Ordering::Relaxed) == ASKED {
                return;
            }
            if !spare.step(NONE, MAKING) {
                continue;
            }
            let address = core::ptr::from_ref(spare) as u64;
            // SAFETY: the stack is the new process's own.
            let pid = unsafe { direct_clone(PROCESS.into(), below(STACK), spare.pid.as_ptr(), address, wait) };
            if pid < 0 {
                spare.step(MAKING, NONE);
            }
        }
    }

    /// A process has ended. If it was a spare one, there is one less; the value says so.
    ///
    /// # Panics
    /// It had been given something to do: that is lost.
    pub(super) fn forget_spare(&self, pid: i32, status: i32) -> bool {
        let Some(spare) = self.spares.iter().find(|spare| spare.pid.load(Ordering::SeqCst) == pid) else {
            return false;
        };
        let waiting = spare.step(MAKING, NONE) || spare.step(READY, NONE);
        let state = spare.state.load(Ordering::SeqCst);
        assert!(waiting, "spare host process {pid} was killed (status {status:#x}) in state {state}, with work to do");
        true
    }

    /// Ends the zygote and the spare processes.
    fn end(&self) {
        host::process::kill(self.host_pid());
        for spare in &self.spares {
            spare.state.store(OVER, Ordering::SeqCst);
            host::futex_wake(&spare.state, 1);
        }
    }
}

impl Spare {
    fn step(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Has the process, if it is there, go on with a slot.
    fn give(&self, slot: &Slot) -> bool {
        if !self.step(READY, TAKEN) {
            return false;
        }
        if let Some(task) = task_of(slot) {
            task.host.tid.store(self.pid.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.slot.store(slot.address(), Ordering::Relaxed);
        if self.step(TAKEN, GO) {
            host::futex_wake(&self.state, 1);
        }
        true
    }
}

/// Has the host fill the process's page table for what every task touches: the arena's root, and the heap's beginning, where there is
/// what lives long.
fn map_ahead() {
    const MADV_POPULATE_READ: i32 = 22;
    const HEAP: u64 = 1 << 20;
    const ROOT_SIZE: u64 = (size_of::<Arena>() as u64).next_multiple_of(PAGE_SIZE);
    let heap = arena().heap.used().next_multiple_of(PAGE_SIZE).min(HEAP);
    for (start, len) in [(ARENA_BASE, ROOT + ROOT_SIZE - ARENA_BASE), (HEAP_BASE, heap)] {
        // Older hosts cannot: then each page costs a fault.
        let _ = host::advise(start, len, MADV_POPULATE_READ);
    }
}

/// A spare process's life until it is given something to do.
extern "C" fn wait(spare: u64) -> ! {
    // SAFETY: one of the zygote's, which stay.
    let spare = unsafe { &*(spare as *const Spare) };
    die_with_kernel();
    map_ahead();
    spare.step(MAKING, READY);
    loop {
        match spare.state.load(Ordering::SeqCst) {
            GO => break,
            OVER => host::exit_process(0),
            other => host::futex_wait(&spare.state, other, None),
        }
    }
    let slot = spare.slot.load(Ordering::Relaxed);
    spare.pid.store(0, Ordering::SeqCst);
    spare.step(GO, NONE);
    fresh(slot)
}

/// Starts the zygote: a fork of the kernel process, which empties its memory and goes behind the filter.
pub(super) fn start() -> Result<()> {
    let slot = arena().slots.take(Own { memory: Some(HostMemory::new(0)), ..Own::default() }, 0)?;
    let flags = u64::from(CLONE_FILES | SIGCHLD);
    // SAFETY: a stack of its own; the argument lives in the arena.
    let pid = unsafe { direct_clone(flags, below(slot.stack_top()), core::ptr::null(), slot.address(), main) };
    arena().zygote.pid.store(pid as i32, Ordering::Relaxed);
    host_result(pid)
}

/// Ends the zygote and waits until no guest process is left. All tasks have ended.
pub(super) fn stop() {
    const PATIENCE: u64 = 2_000_000_000;
    let zygote = &arena().zygote;
    zygote.stopping.store(1, Ordering::SeqCst);
    host::futex_wake(&zygote.stopping, 1);
    zygote.end();
    // The broker ends when nobody can ask any more.
    host::close(arena().broker.socket());
    let give_up = host::monotonic_ns() + PATIENCE;
    while zygote.stopping.load(Ordering::SeqCst) == 1 && host::monotonic_ns() < give_up {
        host::futex_wait(&zygote.stopping, 1, Some(give_up));
    }
}

extern "C" fn main(slot: u64) -> ! {
    // SAFETY: the slot was made for this thread.
    let slot = unsafe { &*(slot as *const Slot) };
    // A session of its own: the terminal's signals are for the front process.
    host::set_session();
    die_with_kernel();
    slot.become_current();
    let prepared = empty_memory()
        .and_then(|()| host::join_membarrier())
        .and_then(|()| signal::install())
        .and_then(|()| signal::set_stack(0))
        .and_then(|()| host::unblock_signals())
        // The handler would find nothing in a process that has no slot yet, and end it. [`fresh`] unblocks it.
        .and_then(|()| host::process::block_signals(1 << (KICK - 1)))
        .and_then(|()| filter::install(filter::Role::GuestProcess));
    if let Err(e) = prepared {
        panic!("cannot prepare guest processes: {e}");
    }
    arena().zygote.serve()
}
