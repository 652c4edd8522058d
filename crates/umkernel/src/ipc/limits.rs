//! Limits, which `/proc/sys/kernel` shows and sets.

use super::table;
use crate::settings::Limit;

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
        const INT: u64 = i32::MAX as u64;
        Limits {
            shmmax: Limit::new(HUGE, u64::MAX),
            shmall: Limit::new(HUGE, u64::MAX),
            shmmni: Limit::new(4096, table::MOST),
            semmsl: Limit::new(32_000, 1 << 16),
            semmns: Limit::new(1_024_000_000, INT),
            semopm: Limit::new(500, 1 << 16),
            semmni: Limit::new(32_000, table::MOST),
            msgmax: Limit::new(8192, 16 << 20),
            msgmnb: Limit::new(16_384, INT),
            msgmni: Limit::new(32_000, table::MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_limits() {
        let limits = Limits::default();
        for limit in [&limits.msgmax, &limits.msgmnb, &limits.semmsl, &limits.semopm, &limits.msgmni] {
            let before = limit.get();
            assert!(limit.set(u64::MAX).is_err() && limit.get() == before);
            assert!(limit.set(before + 1).is_ok() && limit.get() == before + 1);
        }
    }
}
