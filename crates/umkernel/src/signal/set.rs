//! Sets of signals.

use super::number::{self, SIGRTMAX};
use core::ops::{BitAnd, BitOr, Not, Sub};

/// A set of signals: bit `n - 1` is signal `n`, as the kernel's 8-byte `sigset_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// All signals.
    pub const FULL: SigSet = SigSet(u64::MAX);
    /// Bytes of a set in user memory: the `sigsetsize` that every call insists on.
    pub const SIZE: u64 = 8;

    /// The set of the given signals, each 1..=64.
    pub const fn of(signals: &[u8]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << (signals[i] - 1);
            i += 1;
        }
        SigSet(bits)
    }

    /// Whether a signal is in the set; false for numbers that are no signal.
    pub const fn contains(self, sig: u8) -> bool {
        sig >= 1 && sig <= SIGRTMAX && self.0 & (1 << (sig - 1)) != 0
    }

    /// This set and one signal, 1..=64.
    pub const fn with(self, sig: u8) -> SigSet {
        SigSet(self.0 | 1 << (sig - 1))
    }

    /// This set without one signal, 1..=64.
    pub const fn without(self, sig: u8) -> SigSet {
        SigSet(self.0 & !(1 << (sig - 1)))
    }

    /// True for the empty set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the sets have a signal in common.
    pub const fn intersects(self, other: SigSet) -> bool {
        self.0 & other.0 != 0
    }

    /// The lowest signal in the set.
    pub fn lowest(self) -> Option<u8> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as u8 + 1)
    }

    /// The signals in the set, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..=SIGRTMAX).filter(move |&sig| self.contains(sig))
    }

    /// The set without what cannot be blocked.
    pub fn blockable(self) -> SigSet {
        self - number::UNBLOCKABLE
    }
}

impl BitOr for SigSet {
    type Output = SigSet;
    fn bitor(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }
}

impl BitAnd for SigSet {
    type Output = SigSet;
    fn bitand(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }
}

impl Sub for SigSet {
    type Output = SigSet;
    fn sub(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }
}

impl Not for SigSet {
    type Output = SigSet;
    fn not(self) -> SigSet {
        SigSet(!self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::number::*;

    #[test]
    fn sets_count_from_one() {
        let set = SigSet::of(&[SIGHUP, SIGRTMAX]);
        assert_eq!(set.0, 1 | 1 << 63);
        assert!(set.contains(1) && set.contains(64) && !set.contains(0) && !set.contains(65));
        assert_eq!(set.lowest(), Some(1));
        assert_eq!(set.without(1).lowest(), Some(64));
        assert!(SigSet::FULL.blockable().contains(SIGINT));
        assert!(!SigSet::FULL.blockable().contains(SIGKILL));
        assert_eq!(STOPPING.iter().collect::<alloc::vec::Vec<_>>(), [19, 20, 21, 22]);
    }
}
