//! A futex reader-writer lock for data that is read far more often than changed. Writers are not starved: a
//! waiting writer stops new readers.

use super::contention;
use crate::host;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::sync::atomic::{AtomicU32, Ordering};

/// Set while a writer holds the lock or waits for it.
const WRITER: u32 = 1 << 31;
/// Set, only with [`WRITER`], once a reader sleeps: without, the writer need not ask the host to wake anybody.
const SLEEPERS: u32 = 1 << 30;

/// Shared or exclusive access between the kernel's host threads.
///
/// A reader must not take the same lock again: a writer that came in between would deadlock both.
#[derive(Default)]
pub struct RwLock<T: ?Sized> {
    /// Number of readers, plus [`WRITER`] and [`SLEEPERS`].
    state: AtomicU32,
    /// Serialises writers; 0 free, 1 held, 2 contended.
    writer: super::Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: readers share, a writer excludes everyone; both need T to be Send + Sync.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// A free lock around a value.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { state: AtomicU32::new(0), writer: super::Mutex::new(()), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until no writer holds or wants the lock, then shares it.
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & WRITER == 0 {
                if self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return ReadGuard { lock: self };
                }
            } else {
                contention::counted(Location::caller(), || self.wait_for_writer(state));
            }
        }
    }

    /// Waits until nobody else holds the lock, then excludes everyone.
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let turn = self.writer.lock();
        let state = self.state.fetch_or(WRITER, Ordering::Acquire) | WRITER;
        if state & !SLEEPERS != WRITER {
            contention::counted(Location::caller(), || self.wait_for_readers(state));
        }
        WriteGuard { lock: self, _turn: turn }
    }

    /// Sleeps until the writer that is in `state` may have gone.
    #[cold]
    fn wait_for_writer(&self, state: u32) {
        let asleep = state | SLEEPERS;
        if state == asleep || self.state.compare_exchange(state, asleep, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            host::futex_wait(&self.state, asleep, None);
        }
    }

    #[cold]
    fn wait_for_readers(&self, mut state: u32) {
        while state & !SLEEPERS != WRITER {
            host::futex_wait(&self.state, state, None);
            state = self.state.load(Ordering::Acquire);
        }
    }
}

/// Shared access; released on drop.
pub struct ReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the reader count keeps writers out while the guard lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        let before = self.lock.state.fetch_sub(1, Ordering::Release);
        if before & !SLEEPERS == WRITER + 1 {
            host::futex_wake(&self.lock.state, u32::MAX >> 1);
        }
    }
}

/// Exclusive access; released on drop.
pub struct WriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    _turn: super::MutexGuard<'a, ()>,
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard excludes everyone else.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        if self.lock.state.swap(0, Ordering::Release) & SLEEPERS != 0 {
            host::futex_wake(&self.lock.state, u32::MAX >> 1);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn readers_never_see_half_a_write() {
        let pair = Arc::new(RwLock::new((0u64, 0u64)));
        let writer = {
            let pair = pair.clone();
            std::thread::spawn(move || {
                for i in 1..20_000 {
                    let mut guard = pair.write();
                    guard.0 = i;
                    guard.1 = i;
                }
            })
        };
        while !writer.is_finished() {
            let guard = pair.read();
            assert_eq!(guard.0, guard.1);
        }
        writer.join().unwrap();
    }

    #[test]
    fn nobody_sleeps_for_ever() {
        let sum = Arc::new(RwLock::new(0u64));
        let threads: std::vec::Vec<_> = (0..6)
            .map(|n| {
                let sum = sum.clone();
                std::thread::spawn(move || {
                    for i in 0..3000 {
                        if n % 2 == 0 {
                            let mut guard = sum.write();
                            *guard += 1;
                            if i % 50 == 0 {
                                // Long enough for readers to fall asleep.
                                std::thread::sleep(std::time::Duration::from_micros(100));
                            }
                        } else {
                            let guard = sum.read();
                            if i % 50 == 0 {
                                std::thread::sleep(std::time::Duration::from_micros(100));
                            }
                            assert!(*guard <= 9000);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*sum.read(), 9000);
    }
}
