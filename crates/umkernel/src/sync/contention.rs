//! Where locks were waited for, and for how long: counted on the slow path only.

use crate::host;
use alloc::vec::Vec;
use core::panic::Location;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Places that are told apart; waits at further ones are not counted.
const PLACES: usize = 256;

struct Place {
    location: AtomicPtr<Location<'static>>,
    count: AtomicU64,
    time: AtomicU64,
}

static PLACES_SEEN: [Place; PLACES] =
    [const { Place { location: AtomicPtr::new(null_mut()), count: AtomicU64::new(0), time: AtomicU64::new(0) } };
        PLACES];

/// What was waited for at a place.
pub struct Wait {
    /// The source file of who waited.
    pub file: &'static str,
    /// The line in it.
    pub line: u32,
    /// How often.
    pub count: u64,
    /// How long in all, nanoseconds.
    pub time: u64,
}

/// Waits, and counts that for a place.
pub(super) fn counted(location: &'static Location<'static>, wait: impl FnOnce()) {
    let began = host::monotonic_ns();
    wait();
    let time = host::monotonic_ns().saturating_sub(began);
    let key = core::ptr::from_ref(location).cast_mut();
    for place in &PLACES_SEEN {
        let taken = place.location.compare_exchange(null_mut(), key, Ordering::Relaxed, Ordering::Relaxed);
        if taken.is_ok() || taken == Err(key) {
            place.count.fetch_add(1, Ordering::Relaxed);
            place.time.fetch_add(time, Ordering::Relaxed);
            return;
        }
    }
}

/// All places at which locks were waited for so far.
pub fn waits() -> Vec<Wait> {
    let seen = |place: &Place| {
        // SAFETY: null, or a location that was borrowed for good.
        let location = unsafe { place.location.load(Ordering::Relaxed).as_ref() }?;
        let count = place.count.load(Ordering::Relaxed);
        Some(Wait { file: location.file(), line: location.line(), count, time: place.time.load(Ordering::Relaxed) })
    };
    PLACES_SEEN.iter().map_while(seen).collect()
}
