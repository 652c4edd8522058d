//! Where things lie in every process of a machine on the `direct` platform. Both sides of the door know these addresses: the
//! loader, which is an ordinary program, and the kernel image, which has no other way to find its state.

/// Where the kernel image is linked to lie, and the first address that is not the guest's.
pub const KERNEL_BASE: u64 = 0x6000_0000_0000;
/// The first address behind the kernel's that is the guest's again.
pub const KERNEL_END: u64 = 0x6100_0000_0000;

// What most processes touch lies within one GiB: each one more costs every process a page of its page table.

/// Private to each host process, and empty in a forked one: what its threads need to enter the kernel.
pub const PRIVATE_BASE: u64 = 0x6000_0400_0000;
/// Threads that one process may have.
pub const THREADS_PER_PROCESS: usize = 4096;
/// Bytes of a thread's scratch words and of its door words.
pub const DOOR_STRIDE: u64 = 64;
/// Bytes of scratch words, page aligned; guest code can reach them.
pub const SCRATCH_SIZE: u64 = DOOR_STRIDE * THREADS_PER_PROCESS as u64;
/// Where the door words begin, as seen from the scratch words; guest code cannot reach them.
pub const DOOR_OFFSET: u64 = SCRATCH_SIZE;
/// Bytes of each alternate signal stack: the frame of any processor (AMX included: 11 KiB) and the handler's own.
pub const SIGNAL_STACK_SIZE: u64 = 32 * 1024;
/// Where the alternate signal stacks begin.
pub const SIGNAL_STACKS: u64 = PRIVATE_BASE + 2 * SCRATCH_SIZE;
/// Bytes of the private area.
pub const PRIVATE_SIZE: u64 = 2 * SCRATCH_SIZE + SIGNAL_STACK_SIZE * THREADS_PER_PROCESS as u64;

/// The shared arena: all kernel state. A memory file, mapped by every process of the machine.
pub const ARENA_BASE: u64 = 0x6000_1000_0000;
/// Bytes of the arena; its file is sparse.
pub const ARENA_SIZE: u64 = 64 << 30;
/// Bytes at the arena's beginning for what the kernel image's libraries keep in statics: see `kernel.ld`.
pub const STATICS_SIZE: u64 = 64 * 1024;
/// Where the root of all kernel state lies.
pub const ROOT: u64 = ARENA_BASE + STATICS_SIZE;
/// Where the first slots lie: kernel threads' stacks.
pub const SLOTS_BASE: u64 = ARENA_BASE + (2 << 20);
/// Bytes of a slot: a kernel stack, with what belongs to the thread at its upper end.
pub const SLOT_SIZE: u64 = 128 * 1024;
/// Slots that are there. The others are needed in large machines only.
pub const NEAR_SLOTS: usize = 256;
/// Slots in all: threads that the machine may have.
pub const SLOTS: usize = 24 * 1024;
/// Where the heap begins.
pub const HEAP_BASE: u64 = ARENA_BASE + (64 << 20);
/// The first address behind the heap, where the other slots begin.
pub const HEAP_END: u64 = ARENA_BASE + ARENA_SIZE - (4 << 30);

/// Where the kernel sees the patched copies of program text, and the trampolines before them.
pub const PATCHES_BASE: u64 = 0x6040_0000_0000;
/// Bytes of the patches' file, which is sparse.
pub const PATCHES_SIZE: u64 = 16 << 30;
/// Bytes of each area of trampolines: the first two of the patches' file.
pub const TRAMPOLINES_SIZE: u64 = 512 * 1024;
/// Where the kernel sees the disk image.
pub const VIEW_BASE: u64 = 0x6080_0000_0000;
/// An image that is longer is not mapped.
pub const VIEW_SIZE: u64 = KERNEL_END - VIEW_BASE;
/// Where relocatable programs and libraries lie: within reach of a jump from one end to the other.
pub const WINDOW_BASE: u64 = 0x7e00_0000_0000;
/// The first address behind the window.
pub const WINDOW_END: u64 = WINDOW_BASE + 0x7000_0000;
/// Where guest code finds the trampolines of text in the window.
pub const WINDOW_TRAMPOLINES: u64 = WINDOW_BASE;
/// Where guest code finds the trampolines of text at low addresses.
pub const LOW_TRAMPOLINES: u64 = 0x2_0000;

/// What is the kernel's of a guest's address space: start and end, in order.
pub const KERNEL_RANGES: [(u64, u64); 3] = [
    (LOW_TRAMPOLINES, LOW_TRAMPOLINES + TRAMPOLINES_SIZE),
    (KERNEL_BASE, KERNEL_END),
    (WINDOW_TRAMPOLINES, WINDOW_TRAMPOLINES + TRAMPOLINES_SIZE),
];

/// The host signal that brings running guest code into the kernel (`SIGURG`).
pub const KICK: u8 = 23;

/// The protection key of all that guest code must not reach: the first that a process is given.
pub const KEY: u32 = 1;
/// The key register in kernel code: keys 0 and 1 open, the others closed.
pub const KEYS_OPEN: u32 = 0x5555_5550;
/// The key register in guest code: key 0 open, the others closed.
pub const KEYS_CLOSED: u32 = 0x5555_5554;

const _: () = assert!(SLOTS_BASE + SLOT_SIZE * NEAR_SLOTS as u64 <= HEAP_BASE);
const _: () = assert!(HEAP_END + SLOT_SIZE * SLOTS as u64 <= ARENA_BASE + ARENA_SIZE);
const _: () = assert!(PRIVATE_BASE + PRIVATE_SIZE <= ARENA_BASE);
const _: () = assert!(ARENA_BASE + ARENA_SIZE <= PATCHES_BASE && PATCHES_BASE + PATCHES_SIZE <= VIEW_BASE);
