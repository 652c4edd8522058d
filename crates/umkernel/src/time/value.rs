//! Spans and points of time as programs hand them over. The kernel counts nanoseconds in a `u64`: 584 years.

use crate::bail;
use crate::errno::Result;
use crate::host::TimeSpec;
use crate::kernel::Ctx;
use crate::mm::Pod;

/// Nanoseconds in a second.
pub const NSEC_PER_SEC: u64 = 1_000_000_000;
/// Nanoseconds in a clock tick as programs know it (`USER_HZ` is 100).
pub const NSEC_PER_TICK: u64 = NSEC_PER_SEC / 100;

/// Seconds and microseconds, as `struct timeval`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeVal {
    /// Whole seconds.
    pub sec: i64,
    /// Microseconds, 0..1_000_000.
    pub usec: i64,
}

// SAFETY: two integers of eight bytes, no padding.
unsafe impl Pod for TimeVal {}

/// Nanoseconds of a `timespec`; `None` if it is negative or its nanoseconds are no part of a second. What is beyond the
/// kernel's range is the end of it.
pub(super) fn from_timespec(ts: &TimeSpec) -> Option<u64> {
    if ts.sec < 0 || !(0..NSEC_PER_SEC as i64).contains(&ts.nsec) {
        return None;
    }
    Some((ts.sec as u64).saturating_mul(NSEC_PER_SEC).saturating_add(ts.nsec as u64))
}

/// Reads a `timespec` as nanoseconds. `EINVAL` if it is no valid time, `EFAULT` for a bad pointer.
pub fn read_timespec(ctx: &Ctx, addr: u64) -> Result<u64> {
    match from_timespec(&ctx.read_val(addr)?) {
        Some(ns) => Ok(ns),
        None => bail!(EINVAL, "not a valid timespec"),
    }
}

/// Reads a `timeval` as nanoseconds. `EINVAL` if it is no valid time, `EFAULT` for a bad pointer.
pub fn read_timeval(ctx: &Ctx, addr: u64) -> Result<u64> {
    let tv = ctx.read_val::<TimeVal>(addr)?;
    if tv.sec < 0 || !(0..1_000_000).contains(&tv.usec) {
        bail!(EINVAL, "not a valid timeval");
    }
    Ok((tv.sec as u64).saturating_mul(NSEC_PER_SEC).saturating_add(tv.usec as u64 * 1000))
}

/// Nanoseconds as a `timespec`.
pub fn timespec(ns: u64) -> TimeSpec {
    TimeSpec { sec: (ns / NSEC_PER_SEC) as i64, nsec: (ns % NSEC_PER_SEC) as i64 }
}

/// Nanoseconds as a `timeval`, rounded down.
pub fn timeval(ns: u64) -> TimeVal {
    TimeVal { sec: (ns / NSEC_PER_SEC) as i64, usec: (ns % NSEC_PER_SEC / 1000) as i64 }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    #[test]
    fn a_timespec_is_checked_and_saturates() {
        let ts = |sec, nsec| from_timespec(&TimeSpec { sec, nsec });
        assert_eq!(ts(1, 5), Some(1_000_000_005));
        assert_eq!(ts(0, 1_000_000_000), None);
        assert_eq!(ts(0, -1), None);
        assert_eq!(ts(-1, 0), None);
        assert_eq!(ts(i64::MAX, 999_999_999), Some(u64::MAX));
    }
}
