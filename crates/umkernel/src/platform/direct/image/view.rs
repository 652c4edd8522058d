//! The disk image, mapped: reads that come again are copies from there, without a call to the host.
//!
//! A process's first touch of a mapped page costs a fault, which is more than one read by the host; so a process copies only from
//! *windows* of the image that it has read from before. The table that knows them is made when a process has shown that it reads
//! more than the headers of a few programs.

use super::layout::{VIEW_BASE, VIEW_SIZE};
use super::memory;
use alloc::boxed::Box;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// What the host maps around a fault (`fault_around_bytes`), in bits.
const WINDOW_BITS: u32 = 16;
/// Windows that a process can know, each at a place of its own.
const WINDOWS: usize = 4096;
/// Longer reads are the host's: it copies as fast, and does not fault.
const LONGEST: usize = 32 * 1024;
/// Reads of a process before it gets a table.
const FEW: u32 = 16;

const _: () = assert!(VIEW_SIZE >> WINDOW_BITS < u32::MAX as u64);

type Windows = [AtomicU32; WINDOWS];

/// The windows that a host process has read from.
#[derive(Default)]
pub(super) struct View {
    reads: AtomicU32,
    /// Numbers of windows, counted from 1; null until there is a need.
    windows: AtomicPtr<Windows>,
}

impl View {
    /// Copies bytes of the image to guest memory, all of them; false, with nothing promised about what is there now, if
    /// the host has to be asked. The range is the guest's, and the disk image has it.
    pub(super) fn copy(&self, offset: u64, addr: u64, len: usize) -> bool {
        let end = offset.saturating_add(len as u64);
        if len == 0 || len > LONGEST || end > VIEW_SIZE {
            return false;
        }
        let Some(windows) = self.windows() else { return false };
        let (first, last) = (offset >> WINDOW_BITS, (end - 1) >> WINDOW_BITS);
        let mut known = true;
        for window in first..=last {
            let number = window as u32 + 1;
            let place = &windows[window as usize % WINDOWS];
            if place.load(Ordering::Relaxed) != number {
                place.store(number, Ordering::Relaxed);
                known = false;
            }
        }
        // A page that the host cannot give or take ends the copy.
        known && memory::copy_out(VIEW_BASE + offset, addr, len) == len
    }

    fn windows(&self) -> Option<&Windows> {
        let there = self.windows.load(Ordering::Acquire);
        if !there.is_null() {
            // SAFETY: made below, and freed with `self` only.
            return Some(unsafe { &*there });
        }
        if self.reads.fetch_add(1, Ordering::Relaxed) < FEW {
            return None;
        }
        let fresh = Box::into_raw(Box::new([const { AtomicU32::new(0) }; WINDOWS]));
        match self.windows.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: as above.
            Ok(_) => Some(unsafe { &*fresh }),
            Err(other) => {
                // SAFETY: just made, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as above.
                Some(unsafe { &*other })
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let windows = *self.windows.get_mut();
        if !windows.is_null() {
            // SAFETY: made by `Box::into_raw`, and nobody looks any more.
            drop(unsafe { Box::from_raw(windows) });
        }
    }
}
