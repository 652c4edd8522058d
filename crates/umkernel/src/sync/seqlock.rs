//! A sequence lock: values that are read far more often than written, and so small that a reader rather copies one twice than have
//! all readers write to the lock's memory.

use super::{Mutex, MutexGuard};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// Copies to try before a reader waits for the writer.
const TRIES: u32 = 8;

/// A value that readers copy without a lock, and that one writer at a time changes.
pub struct SeqLock<T> {
    writer: Mutex<()>,
    /// Odd while a writer is at it.
    sequence: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: readers take copies only and use none that was changed meanwhile; writers exclude each other.
unsafe impl<T: Copy + Send> Sync for SeqLock<T> {}

impl<T: Copy> SeqLock<T> {
    /// A lock around a value.
    pub const fn new(value: T) -> SeqLock<T> {
        SeqLock { writer: Mutex::new(()), sequence: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// A copy of the value.
    #[track_caller]
    pub fn read(&self) -> T {
        for _ in 0..TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            // SAFETY: the memory is there; what a writer may be changing is thrown away below.
            let copy = unsafe { ptr::read_volatile(self.value.get().cast::<MaybeUninit<T>>()) };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                // SAFETY: no writer came near, so this is a value.
                return unsafe { copy.assume_init() };
            }
            core::hint::spin_loop();
        }
        let _writer = self.writer.lock();
        // SAFETY: nobody writes without the lock.
        unsafe { *self.value.get() }
    }

    /// Waits until nobody else writes, and gives access.
    #[track_caller]
    pub fn write(&self) -> SeqWriter<'_, T> {
        let turn = self.writer.lock();
        self.sequence.store(self.sequence.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        SeqWriter { lock: self, _turn: turn }
    }
}

/// Access to change the value of a [`SeqLock`]; readers see the change when it is dropped.
pub struct SeqWriter<'a, T> {
    lock: &'a SeqLock<T>,
    _turn: MutexGuard<'a, ()>,
}

impl<T> Deref for SeqWriter<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this is the only writer.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SeqWriter<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; readers take no references.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SeqWriter<'_, T> {
    fn drop(&mut self) {
        let sequence = &self.lock.sequence;
        sequence.store(sequence.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn readers_never_see_half_a_change() {
        let lock = Arc::new(SeqLock::new([0u64; 16]));
        let writers = [1u64, 2].map(|step| {
            let lock = lock.clone();
            std::thread::spawn(move || (0..20_000).for_each(|_| lock.write().iter_mut().for_each(|word| *word += step)))
        });
        while !writers.iter().all(|writer| writer.is_finished()) {
            let value = lock.read();
            assert!(value.iter().all(|word| *word == value[0]));
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(lock.read(), [60_000; 16]);
    }
}
