//! The arena: the memory that all processes of a machine share, and the root of what lies there.

use super::client::Broker;
use super::heap::Heap;
use super::layout::ROOT;
use super::slot::Slots;
use super::text::Texts;
use super::vdso::Clock;
use super::xstate::XState;
use super::zygote::Zygote;
use crate::fs::hostfs::LANES;
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
    pub(super) broker: Broker,
    /// The share server's sockets, which the filter knows; -1 if nothing is shared.
    pub(super) shares: [i32; LANES],
    pub(super) texts: Texts,
    pub(super) facts: Facts,
    kernel: UnsafeCell<MaybeUninit<Arc<Kernel>>>,
    has_kernel: AtomicBool,
}

/// What does not change while the machine runs.
pub(super) struct Facts {
    /// Host id of the kernel process.
    pub(super) kernel_pid: i32,
    /// The disk image that is mapped at [`VIEW_BASE`](super::layout::VIEW_BASE); -1 if it is too large for that.
    pub(super) image_file: i32,
    /// How to read the time.
    pub(super) clock: Clock,
    /// Host id of the broker.
    pub(super) broker_pid: i32,
    /// The processor's extended state.
    pub(super) xstate: XState,
    /// `AT_HWCAP`, `AT_HWCAP2` and `AT_MINSIGSTKSZ` of the host.
    pub(super) hardware: [(u64, u64); 3],
    /// What every guest address space holds that is not the guest's; unused ones are empty.
    pub(super) reserved: [Reserved; super::handover::MAX_RESERVED],
}

// SAFETY: `kernel` is written once, before `has_kernel` is set and before there are other threads.
unsafe impl Sync for Arena {}

const _: () = assert!(size_of::<Arena>() as u64 <= super::layout::SLOTS_BASE - ROOT);

/// The arena of the machine that this process belongs to.
pub(super) fn arena() -> &'static Arena {
    // SAFETY: every process that runs the kernel image has the arena mapped there, and the kernel process
    // initialised it before it did anything else.
    unsafe { &*(ROOT as *const Arena) }
}

/// The platform's own descriptors.
pub(super) struct Files {
    /// The arena's memory file.
    pub(super) arena: i32,
    /// The patches' memory file.
    pub(super) patches: i32,
    /// The broker's socket.
    pub(super) broker: i32,
    /// The share server's sockets.
    pub(super) shares: [i32; LANES],
}

/// Makes a fresh arena usable: the first thing that the kernel image does.
///
/// # Safety
/// Called once in a machine, with the memory files mapped, empty, and nobody else running.
pub(super) unsafe fn initialise(files: Files, facts: Facts) {
    let arena = Arena {
        heap: Heap::new(files.arena),
        slots: Slots::default(),
        zygote: Zygote::default(),
        broker: Broker::new(files.broker),
        shares: files.shares,
        texts: Texts::new(files.patches),
        facts,
        kernel: UnsafeCell::new(MaybeUninit::uninit()),
        has_kernel: AtomicBool::new(false),
    };
    // SAFETY: the caller's promise; the place is large and aligned enough.
    unsafe { core::ptr::write(ROOT as *mut Arena, arena) };
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
