//! The arena: the memory that all processes of a machine share, and what lies at its beginning.

use super::heap::Heap;
use super::layout::ARENA_BASE;
use super::proxy::Proxy;
use super::slot::Slots;
use super::spawn::Zygote;
use super::text::Texts;
use super::xstate::XState;
use crate::kernel::Kernel;
use crate::platform::Reserved;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

/// The root of all kernel state.
pub(super) struct Arena {
    pub(super) heap: Heap,
    pub(super) slots: Slots,
    pub(super) zygote: Zygote,
    pub(super) proxy: Proxy,
    pub(super) texts: Texts,
    pub(super) facts: Facts,
    kernel: UnsafeCell<MaybeUninit<Arc<Kernel>>>,
    has_kernel: AtomicBool,
}

/// What does not change while the machine runs.
pub(super) struct Facts {
    /// Host id of the kernel process.
    pub(super) kernel_pid: i32,
    /// The processor's extended state.
    pub(super) xstate: XState,
    /// `AT_HWCAP`, `AT_HWCAP2` and `AT_MINSIGSTKSZ` of the host.
    pub(super) hardware: [(u64, u64); 3],
    /// What every guest address space holds that is not the guest's; unused ones are empty.
    pub(super) reserved: [Reserved; super::handover::MAX_RESERVED],
}

// SAFETY: `kernel` is written once, before `has_kernel` is set and before there are other threads.
unsafe impl Sync for Arena {}

const _: () = assert!(size_of::<Arena>() as u64 <= super::layout::SLOTS_BASE - ARENA_BASE);

/// The arena of the machine that this process belongs to.
pub(super) fn arena() -> &'static Arena {
    // SAFETY: every process that runs the kernel image has the arena mapped there, and the kernel process
    // initialised it before it did anything else.
    unsafe { &*(ARENA_BASE as *const Arena) }
}

/// Makes a fresh arena usable: the first thing that the kernel image does.
///
/// # Safety
/// Called once in a machine, with the arena's file mapped, empty, and nobody else running.
pub(super) unsafe fn initialise(file: i32, patches: i32, facts: Facts) {
    let arena = Arena {
        heap: Heap::new(file),
        slots: Slots::default(),
        zygote: Zygote::default(),
        proxy: Proxy::default(),
        texts: Texts::new(patches),
        facts,
        kernel: UnsafeCell::new(MaybeUninit::uninit()),
        has_kernel: AtomicBool::new(false),
    };
    // SAFETY: the caller's promise; the place is large and aligned enough.
    unsafe { core::ptr::write(ARENA_BASE as *mut Arena, arena) };
}

impl Arena {
    /// Where the kernel is found from now on. Called before the first guest process is made.
    pub(super) fn set_kernel(&self, kernel: Arc<Kernel>) {
        // SAFETY: nobody looks before `has_kernel` is set.
        unsafe { (*self.kernel.get()).write(kernel) };
        self.has_kernel.store(true, Ordering::Release);
    }

    /// The kernel. There is one in every thread that can call this: they are made for its tasks.
    pub(super) fn kernel(&self) -> &'static Arc<Kernel> {
        assert!(self.has_kernel.load(Ordering::Acquire), "no kernel yet");
        // SAFETY: written before `has_kernel`, never again, and the arena stays mapped.
        unsafe { (*arena().kernel.get()).assume_init_ref() }
    }
}
