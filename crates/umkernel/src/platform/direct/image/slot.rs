//! Slots: the kernel stack of each host thread and what the platform keeps about the thread, in the arena, so that a thread of
//! one process can prepare one in another, and a task can move to another host process in the midst of a call.

use super::arena::arena;
use super::entry::{FRAME_SIZE, Frame, GUEST_GS};
use super::heap::Kept;
use super::layout::{
    DOOR_OFFSET, DOOR_STRIDE, HEAP_END, NEAR_SLOTS, PRIVATE_BASE, SLOT_SIZE, SLOTS, SLOTS_BASE, THREADS_PER_PROCESS,
};
use super::view::View;
use crate::errno::{Errno, Error, Result};
use crate::kernel::Ctx;
use crate::platform::{HostThreadFn, StartFn};
use crate::signal::SigInfo;
use crate::sync::Mutex;
use crate::task::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Written at the lower end of each stack; a stack that reached it has overrun its neighbour. Looked at when the slot is taken again: every
/// other look would cost a process a page fault.
const CANARY: u64 = 0x756d_6c66_7321_7374;

/// What a new thread does first.
pub(super) enum Start {
    /// Guest code, with the frame as it stands.
    User,
    /// Guest code in a forked process, whose id is stored there first.
    Forked {
        /// An address of the guest, or 0.
        settid: u64,
    },
    /// Kernel code that says what guest code begins with.
    Fresh(StartFn),
    /// Kernel code in the kernel process.
    Service(HostThreadFn),
}

/// Why guest code came into the kernel without a system call.
#[derive(Clone, Copy)]
pub(super) enum Trap {
    /// To look whether there is something to do.
    Interruption,
    /// A fault.
    Fault(SigInfo),
}

/// One thread's.
#[repr(C, align(64))]
pub(super) struct Slot {
    /// Next on the list of free slots.
    next: AtomicU64,
    /// Where a parked thread's context lies.
    pub(super) context: AtomicU64,
    /// The thread's number among those with the same memory.
    pub(super) index: AtomicU32,
    /// Host id of a thread that has no task to keep it.
    pub(super) host_id: AtomicI32,
    /// Host id of the guest process that the thread is in; 0 while there is none.
    pub(super) process: AtomicI32,
    /// [`IN_USER`], [`IN_KERNEL`] or [`ASLEEP`].
    pub(super) mode: AtomicU32,
    own: UnsafeCell<Own>,
    /// Free blocks of the heap. They stay with the slot.
    kept: UnsafeCell<Kept>,
}

/// Mode of a thread that runs guest code.
pub(super) const IN_USER: u32 = 0;
/// Mode of a thread that runs the kernel's code for its guest.
pub(super) const IN_KERNEL: u32 = 1;
/// Mode of a thread that sleeps in the kernel without a lock; its context is parked.
pub(super) const ASLEEP: u32 = 2;
/// Where a slot has its mode, for the door.
pub(super) const MODE: usize = core::mem::offset_of!(Slot, mode);
/// Where a slot has its context.
pub(super) const CONTEXT: usize = core::mem::offset_of!(Slot, context);

/// What only the slot's thread uses, and whoever prepares the slot for it.
#[derive(Default)]
pub(super) struct Own {
    pub(super) task: Option<Arc<Task>>,
    pub(super) memory: Option<Arc<HostMemory>>,
    pub(super) start: Option<Start>,
    pub(super) trap: Option<Trap>,
    /// Where the call came from that trapped; 0 for one by a patched site.
    pub(super) site: u64,
}

// SAFETY: `own` and `kept` are used by one thread at a time, see `Slot::own`.
unsafe impl Sync for Slot {}

/// The free slots.
#[derive(Default)]
pub(super) struct Slots {
    /// Lets one thread at a time take slots, so that the list's head cannot come back unseen.
    taking: Mutex<()>,
    /// How many were ever taken: the first ones.
    used: AtomicUsize,
    /// Head of the list of slots given back.
    pub(super) free: AtomicU64,
}

impl Slots {
    /// A slot for a thread that is not started yet.
    pub(super) fn take(&self, own: Own, index: u32) -> Result<&'static Slot> {
        let address = self.take_address()?;
        // SAFETY: the lower end of the slot's own memory.
        let word = unsafe { *(stack_bottom(address) as *const u64) };
        assert!(word == CANARY || word == 0, "a kernel stack has overrun");
        let slot = Slot {
            next: AtomicU64::new(0),
            context: AtomicU64::new(0),
            index: AtomicU32::new(index),
            host_id: AtomicI32::new(0),
            process: AtomicI32::new(0),
            mode: AtomicU32::new(IN_KERNEL),
            own: own.into(),
            // SAFETY: the slot's last thread left them, and it is gone; in fresh memory, zeroes say that there are none.
            kept: unsafe { core::ptr::read(&raw const (*(address as *const Slot)).kept) },
        };
        // SAFETY: the slot is free, so nobody else looks at its memory, which is mapped and large enough.
        unsafe {
            core::ptr::write(address as *mut Slot, slot);
            *(stack_bottom(address) as *mut u64) = CANARY;
            Ok(&*(address as *const Slot))
        }
    }

    fn take_address(&self) -> Result<u64> {
        let _turn = self.taking.lock();
        let mut head = self.free.load(Ordering::Acquire);
        while head != 0 {
            // SAFETY: a slot on the list stays until taken, which the lock lets only this thread do.
            let next = unsafe { (*(head as *const Slot)).next.load(Ordering::Relaxed) };
            match self.free.compare_exchange(head, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(head),
                Err(now) => head = now,
            }
        }
        let used = self.used.load(Ordering::Relaxed);
        if used == SLOTS {
            return Err(Error::new(Errno::EAGAIN, "no kernel stack is left"));
        }
        // Not looked at by `runs_kernel_code` before it is filled: fresh memory is a slot of no process.
        self.used.store(used + 1, Ordering::Release);
        Ok(slot_address(used))
    }

    /// Whether a guest process runs its own code only, or did so when it ended. Asks for no lock either.
    pub(super) fn runs_guest_code(&self, process: i32) -> bool {
        let mut modes = self.modes(process).peekable();
        modes.peek().is_some() && modes.all(|mode| mode == IN_USER)
    }

    /// Whether a thread of a guest process runs the kernel's code, or did so when the process was killed. Asks for no lock: a process that
    /// was killed may have held any.
    pub(super) fn runs_kernel_code(&self, process: i32) -> bool {
        self.modes(process).any(|mode| mode == IN_KERNEL)
    }

    fn modes(&self, process: i32) -> impl Iterator<Item = u32> {
        (0..self.used.load(Ordering::Acquire)).filter_map(move |number| {
            // SAFETY: the memory of all slots is mapped, and these fields are atomic whoever has the slot.
            let slot = unsafe { &*(slot_address(number) as *const Slot) };
            (slot.process.load(Ordering::SeqCst) == process).then(|| slot.mode.load(Ordering::SeqCst))
        })
    }
}

/// Where a slot lies: at the upper end of its kernel stack.
fn slot_address(number: usize) -> u64 {
    let end = match number + 1 {
        near @ ..=NEAR_SLOTS => SLOTS_BASE + SLOT_SIZE * near as u64,
        far => HEAP_END + SLOT_SIZE * (far - NEAR_SLOTS) as u64,
    };
    end - size_of::<Slot>() as u64
}

fn stack_bottom(slot: u64) -> u64 {
    slot + size_of::<Slot>() as u64 - SLOT_SIZE
}

impl Slot {
    pub(super) fn address(&self) -> u64 {
        self as *const Slot as u64
    }

    /// The upper end of its stack.
    pub(super) fn stack_top(&self) -> u64 {
        self.address()
    }

    /// Where the guest's registers lie while it is in the kernel.
    pub(super) fn frame(&self) -> *mut Frame {
        (self.stack_top() - FRAME_SIZE) as *mut Frame
    }

    /// The slot's own things.
    ///
    /// # Safety
    /// Only for the slot's thread, or for the one that prepares the slot before its thread is started; one borrow at a time.
    #[allow(clippy::mut_from_ref, reason = "the caller promises to be the only one")]
    pub(super) unsafe fn own(&self) -> &mut Own {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.own.get() }
    }

    /// Free blocks of the heap that the slot's thread keeps.
    ///
    /// # Safety
    /// Only for the slot's thread; one borrow at a time.
    #[allow(clippy::mut_from_ref, reason = "the caller promises to be the only one")]
    pub(super) unsafe fn kept(&self) -> &mut Kept {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.kept.get() }
    }

    /// Puts the slot on the free list; nobody has it any more.
    pub(super) fn give_back(&self) {
        let free = &arena().slots.free;
        let mut head = free.load(Ordering::Relaxed);
        loop {
            self.next.store(head, Ordering::Relaxed);
            match free.compare_exchange(head, self.address(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// The gs base of its thread.
    pub(super) fn door(&self) -> u64 {
        PRIVATE_BASE + u64::from(self.index.load(Ordering::Relaxed)) * DOOR_STRIDE
    }

    /// The running thread's gs base that its guest code has given itself, if this is the running thread's slot; 0 for none.
    pub(super) fn guest_gs(&self) -> u64 {
        // SAFETY: the words are the running thread's, behind the key, which is open.
        unsafe { *((self.door() + GUEST_GS) as *const u64) }
    }

    /// Makes the calling thread the slot's, and a task's thread the one that its task is found in: points its gs base to its words in the private area, and these to the slot.
    pub(super) fn become_current(&self) {
        let door = self.door();
        // SAFETY: the thread's own slot.
        if let Some(task) = &unsafe { self.own() }.task {
            task.host.slot.store(self.address(), Ordering::Relaxed);
        }
        // SAFETY: the private area is mapped, and these words are this thread's alone.
        unsafe {
            *((door + DOOR_OFFSET) as *mut u64) = self.stack_top();
            *((door + DOOR_OFFSET + 8) as *mut u64) = self.address();
            *((door + GUEST_GS) as *mut u64) = 0;
            asm!("wrgsbase {}", in(reg) door, options(nostack, preserves_flags));
        }
    }
}

/// The running thread's slot.
pub(super) fn current() -> &'static Slot {
    let slot: *const Slot;
    // SAFETY: every thread that runs kernel code has called `become_current` first.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) slot, const DOOR_OFFSET + 8, options(nostack, readonly, preserves_flags));
        &*slot
    }
}

/// Calls `f` in the context of the running thread's task.
pub(super) fn with_ctx<T>(f: impl FnOnce(&Ctx) -> T) -> T {
    // SAFETY: the thread's own slot; the task is read only.
    let own = unsafe { &*core::ptr::from_mut(current().own()) };
    let Some(task) = &own.task else { panic!("a thread without a task") };
    f(&Ctx { kernel: arena().kernel(), task })
}

/// A memory of the host's, which one or more host processes have: numbers its threads.
pub(super) struct HostMemory {
    taken: Mutex<Vec<u64>>,
    /// What it has seen of the disk image.
    pub(super) view: View,
}

impl HostMemory {
    /// A memory in which one thread has a number already.
    pub(super) fn new(index: u32) -> Arc<HostMemory> {
        let memory = HostMemory { taken: Mutex::default(), view: View::default() };
        memory.mark(index);
        Arc::new(memory)
    }

    fn mark(&self, index: u32) {
        let (word, bit) = (index as usize / 64, index % 64);
        let mut taken = self.taken.lock();
        if taken.len() <= word {
            taken.resize(word + 1, 0);
        }
        taken[word] |= 1 << bit;
    }

    /// A number for one more thread.
    pub(super) fn take(&self) -> Result<u32> {
        let mut taken = self.taken.lock();
        let free = taken.iter().position(|&word| word != u64::MAX).unwrap_or(taken.len());
        if free == taken.len() {
            if free * 64 >= THREADS_PER_PROCESS {
                return Err(Error::new(Errno::EAGAIN, "too many threads in one process"));
            }
            taken.push(0);
        }
        let bit = taken[free].trailing_ones();
        taken[free] |= 1 << bit;
        Ok(free as u32 * 64 + bit)
    }

    /// Gives a number back.
    pub(super) fn give_back(&self, index: u32) {
        if let Some(word) = self.taken.lock().get_mut(index as usize / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Whether only one thread has this memory.
    pub(super) fn alone(&self) -> bool {
        self.taken.lock().iter().map(|word| word.count_ones()).sum::<u32>() == 1
    }
}
