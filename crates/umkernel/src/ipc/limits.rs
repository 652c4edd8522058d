//! Limits, which `/proc/sys/kernel` shows and sets.

use core::sync::atomic::{AtomicU64, Ordering};

/// A limit.
pub struct Limit(AtomicU64);

impl Limit {
    const fn new(value: u64) -> Limit {
        Limit(AtomicU64::new(value))
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The limits, with Linux's names and defaults (`proc(5)`).
pub struct Limits {
    /// Bytes of a segment.
    pub shmmax: Limit,
    /// Pages of all segments together.
    pub shmall: Limit,
    /// Segments.
    pub shmmni: Limit,
    /// Semaphores of a set.
    pub semmsl: Limit,
    /// Semaphores of all sets together.
    pub semmns: Limit,
    /// Operations of a call.
    pub semopm: Limit,
    /// Sets.
    pub semmni: Limit,
    /// Bytes of a message.
    pub msgmax: Limit,
    /// Bytes that a new queue takes.
    pub msgmnb: Limit,
    /// Queues.
    pub msgmni: Limit,
}

impl Default for Limits {
    fn default() -> Limits {
        const HUGE: u64 = u64::MAX - (1 << 24);
        Limits {
            shmmax: Limit::new(HUGE),
            shmall: Limit::new(HUGE),
            shmmni: Limit::new(4096),
            semmsl: Limit::new(32_000),
            semmns: Limit::new(1_024_000_000),
            semopm: Limit::new(500),
            semmni: Limit::new(32_000),
            msgmax: Limit::new(8192),
            msgmnb: Limit::new(16_384),
            msgmni: Limit::new(32_000),
        }
    }
}
