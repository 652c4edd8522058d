//! The kernel's heap in the shared arena. It works from any process of the machine at any time: its state lies in the arena,
//! its locks are futexes.
//!
//! Small blocks come in size classes, each with a list of free ones, cut from runs of pages. Larger ones are runs of 2^n pages.
//! Free lists go through the blocks themselves. What is freed keeps its size: the kernel's sizes recur. Each thread keeps the last few
//! blocks that it freed for itself, in its slot: most blocks live for one call, and need no lock then.

use super::layout::{HEAP_BASE, HEAP_END};
use super::slot::current;
use crate::host;
use crate::sync::Mutex;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const PAGE: usize = 4096;
/// Block sizes; all of them multiples of 16.
const CLASSES: [u16; 20] =
    [16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024, 1344, 2048, 2720, 4096];
/// Runs of 2^0 to 2^23 pages: 4 KiB to 32 GiB.
const ORDERS: usize = 24;
/// Freed runs at least this long give their memory back to the host.
const RETURN_TO_HOST: usize = 256 * 1024;

/// For sizes up to a page, in steps of 16 bytes: the first class that is large enough.
const FIRST_CLASS: [u8; PAGE / STEP + 1] = {
    let mut first = [0; PAGE / STEP + 1];
    let (mut step, mut class) = (0, 0);
    while step < first.len() {
        if step * STEP > CLASSES[class] as usize {
            class += 1;
        }
        first[step] = class as u8;
        step += 1;
    }
    first
};
/// What all block sizes are multiples of.
const STEP: usize = 16;

/// Blocks of a class that a thread keeps.
const KEPT: u32 = 4;
/// Of larger blocks it keeps one.
const KEPT_SIZE: u16 = 1344;

/// The free blocks that a thread keeps.
#[derive(Default)]
pub(super) struct Kept([KeptList; CLASSES.len()]);

#[derive(Default)]
struct KeptList {
    head: u64,
    count: u32,
}

impl Kept {
    fn take(&mut self, class: usize) -> Option<*mut u8> {
        let list = &mut self.0[class];
        let block = list.head;
        if block == 0 {
            return None;
        }
        // SAFETY: a free block holds the address of the next, or 0.
        list.head = unsafe { *(block as *const u64) };
        list.count -= 1;
        Some(block as *mut u8)
    }

    fn put(&mut self, class: usize, block: *mut u8) -> bool {
        let list = &mut self.0[class];
        if list.count == if CLASSES[class] > KEPT_SIZE { 1 } else { KEPT } {
            return false;
        }
        // SAFETY: the block is nobody's, and at least 16 bytes long.
        unsafe { *block.cast::<u64>() = list.head };
        list.head = block as u64;
        list.count += 1;
        true
    }
}

/// One list of free blocks.
#[derive(Default)]
struct FreeList(Mutex<u64>);

/// The heap's state.
pub(super) struct Heap {
    classes: [FreeList; CLASSES.len()],
    runs: [FreeList; ORDERS],
    /// The first address never handed out.
    fresh: AtomicU64,
    /// The arena's host file, to give memory back.
    file: i32,
    /// Every thread has a slot.
    slots: AtomicBool,
}

impl Heap {
    pub(super) fn new(file: i32) -> Heap {
        Heap {
            classes: Default::default(),
            runs: Default::default(),
            fresh: AtomicU64::new(HEAP_BASE),
            file,
            slots: AtomicBool::new(false),
        }
    }

    /// The first thread has its slot: from now on each thread keeps some blocks.
    pub(super) fn keep_in_slots(&self) {
        self.slots.store(true, Ordering::Relaxed);
    }

    /// Calls `f` with what the running thread keeps.
    fn kept<T>(&self, f: impl FnOnce(&mut Kept) -> Option<T>) -> Option<T> {
        if !self.slots.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the running thread's own, and `f` does not come back here.
        f(unsafe { current().kept() })
    }

    /// Bytes of the arena that were ever used.
    pub(super) fn used(&self) -> u64 {
        self.fresh.load(Ordering::Relaxed) - HEAP_BASE
    }

    fn alloc(&self, layout: Layout) -> *mut u8 {
        match place(layout) {
            Place::Class(class) => self.kept(|kept| kept.take(class)).unwrap_or_else(|| self.alloc_small(class)),
            Place::Run(order) => self.alloc_run(order),
            Place::TooLarge => null_mut(),
        }
    }

    fn alloc_small(&self, class: usize) -> *mut u8 {
        let size = CLASSES[class] as usize;
        let mut list = self.classes[class].0.lock();
        if *list == 0 {
            // A few blocks at a time, so that a fork's child does not touch more pages than it uses.
            let order = if size > 1024 { 2 } else { 0 };
            let run = self.alloc_run(order) as u64;
            if run == 0 {
                return null_mut();
            }
            let count = (PAGE << order) / size;
            for i in (0..count).rev() {
                let block = run + (i * size) as u64;
                // SAFETY: the run is ours and mapped, and the block lies within it.
                unsafe { *(block as *mut u64) = *list };
                *list = block;
            }
        }
        let block = *list;
        // SAFETY: a free block holds the address of the next, or 0.
        *list = unsafe { *(block as *const u64) };
        block as *mut u8
    }

    fn alloc_run(&self, order: usize) -> *mut u8 {
        let mut list = self.runs[order].0.lock();
        if *list != 0 {
            let run = *list;
            // SAFETY: as for blocks.
            *list = unsafe { *(run as *const u64) };
            return run as *mut u8;
        }
        drop(list);
        let size = (PAGE << order) as u64;
        let run = self.fresh.fetch_add(size, Ordering::Relaxed);
        if run + size > HEAP_END {
            self.fresh.fetch_sub(size, Ordering::Relaxed);
            return null_mut();
        }
        run as *mut u8
    }

    fn free(&self, block: *mut u8, layout: Layout) {
        let (list, size) = match place(layout) {
            Place::Class(class) if self.kept(|kept| kept.put(class, block).then_some(())).is_some() => return,
            Place::Class(class) => (&self.classes[class], CLASSES[class] as usize),
            Place::Run(order) => (&self.runs[order], PAGE << order),
            Place::TooLarge => return,
        };
        if size >= RETURN_TO_HOST {
            const PUNCH_HOLE_KEEP_SIZE: u32 = 3;
            let offset = block as u64 - super::layout::ARENA_BASE + PAGE as u64;
            // Memory that the host keeps is memory to use again.
            let _ = host::fallocate(self.file, PUNCH_HOLE_KEEP_SIZE, offset, (size - PAGE) as u64);
        }
        let mut list = list.0.lock();
        // SAFETY: the caller gives the block up; it is at least 16 bytes long.
        unsafe { *block.cast::<u64>() = *list };
        *list = block as u64;
    }
}

enum Place {
    Class(usize),
    Run(usize),
    TooLarge,
}

fn place(layout: Layout) -> Place {
    let size = layout.size().max(1);
    // Blocks of a class start at multiples of its size in a page-aligned run: aligned as far as the size is.
    if size <= PAGE && layout.align() <= PAGE {
        let mut class = FIRST_CLASS[size.div_ceil(STEP)] as usize;
        // The last class, a page, is a multiple of every alignment.
        while CLASSES[class] as usize & (layout.align() - 1) != 0 {
            class += 1;
        }
        return Place::Class(class);
    }
    let pages = size.max(layout.align()).div_ceil(PAGE).next_power_of_two();
    match pages.trailing_zeros() as usize {
        // A fresh run is aligned to a page only.
        _ if layout.align() > PAGE => Place::TooLarge,
        order if order < ORDERS => Place::Run(order),
        _ => Place::TooLarge,
    }
}

/// The kernel image's global allocator: the heap of the arena.
pub struct ArenaAllocator;

// SAFETY: blocks are disjoint, at least as long and as aligned as asked, and stay until freed.
unsafe impl GlobalAlloc for ArenaAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        super::arena::arena().heap.alloc(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        super::arena::arena().heap.free(block, layout);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        let same = match (place(layout), place(wanted)) {
            (Place::Class(a), Place::Class(b)) | (Place::Run(a), Place::Run(b)) => a == b,
            _ => false,
        };
        if same {
            return block;
        }
        let heap = &super::arena::arena().heap;
        let new = heap.alloc(wanted);
        if !new.is_null() {
            // SAFETY: both blocks are at least as long as what is copied, and disjoint.
            unsafe { core::ptr::copy_nonoverlapping(block, new, layout.size().min(new_size)) };
            heap.free(block, layout);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_a_few_blocks_of_each_class() {
        let mut blocks = [[0u64; 4]; KEPT as usize + 1];
        let [kept @ .., one_more] = &mut blocks;
        let mut list = Kept::default();
        assert!(kept.iter_mut().all(|block| list.put(1, block.as_mut_ptr().cast())));
        assert!(!list.put(1, one_more.as_mut_ptr().cast()));
        assert!(list.take(0).is_none());
        let kept: [*mut u8; KEPT as usize] = kept.each_mut().map(|block| block.as_mut_ptr().cast());
        assert!(kept.iter().rev().all(|block| list.take(1) == Some(*block)));
        assert!(list.take(1).is_none());
        let page = CLASSES.len() - 1;
        assert!(list.put(page, one_more.as_mut_ptr().cast()));
        assert!(!list.put(page, kept[0]));
    }

    #[test]
    fn blocks_are_large_and_aligned_enough() {
        for size in (1..9000).step_by(7) {
            for align in [1usize, 8, 16, 64, 256, 4096] {
                let Ok(layout) = Layout::from_size_align(size, align) else { panic!() };
                match place(layout) {
                    Place::Class(class) => {
                        let block = CLASSES[class] as usize;
                        assert!(block >= size && block.is_multiple_of(align));
                        let smaller = CLASSES[..class].iter().map(|&s| s as usize);
                        assert!(!smaller.into_iter().any(|s| s >= size && s.is_multiple_of(align)));
                    }
                    Place::Run(order) => assert!(PAGE << order >= size),
                    Place::TooLarge => panic!("{size} {align}"),
                }
            }
        }
    }
}
