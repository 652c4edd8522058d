//! What the guests asked of the kernel, in figures: for `umlfs boot --stats`.
//!
//! Times include sleep, as those of `strace -w` do: a `read` from a terminal takes as long as its user. While nobody asks for the
//! figures, each call costs one branch.

use crate::errno::Result;
use crate::host;
use crate::kernel::Kernel;
use crate::platform::WaysIn;
use crate::sync::contention;
use crate::syscall::names;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

/// Numbers that are told apart; calls with greater ones, which nobody has, count as one.
const NUMBERS: usize = 512;
/// The first bucket of a histogram holds what takes less than this many nanoseconds, each further one what takes up to twice as long.
const FIRST_BUCKET: u64 = 64;
/// Buckets: the last begins at 2 s.
const BUCKETS: usize = 27;

/// Counts of a machine's calls.
pub struct Profile {
    calls: Box<[Count]>,
    faults: AtomicU64,
}

#[derive(Default)]
struct Count {
    errors: AtomicU64,
    /// Nanoseconds.
    time: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Profile {
    fn default() -> Profile {
        Profile { calls: (0..=NUMBERS).map(|_| Count::default()).collect(), faults: AtomicU64::new(0) }
    }
}

/// The time, where calls are counted: what [`end`] wants of a call's beginning.
pub fn begin(kernel: &Kernel) -> u64 {
    if kernel.profile.is_some() { host::monotonic_ns() } else { 0 }
}

/// Counts a call that began then.
pub fn end(kernel: &Kernel, nr: u64, began: u64, result: &Result<usize>) {
    if let Some(profile) = &kernel.profile {
        profile.called(nr, host::monotonic_ns().saturating_sub(began), result.is_err());
    }
}

/// Counts a fault of guest code.
pub fn fault(kernel: &Kernel) {
    if let Some(profile) = &kernel.profile {
        profile.faults.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bucket for a time in nanoseconds.
fn bucket(time: u64) -> usize {
    ((time / FIRST_BUCKET).checked_ilog2().map_or(0, |log| log + 1) as usize).min(BUCKETS - 1)
}

impl Profile {
    fn called(&self, nr: u64, time: u64, failed: bool) {
        let count = &self.calls[usize::try_from(nr).map_or(NUMBERS, |nr| nr.min(NUMBERS))];
        count.errors.fetch_add(failed.into(), Ordering::Relaxed);
        count.time.fetch_add(time, Ordering::Relaxed);
        count.buckets[bucket(time)].fetch_add(1, Ordering::Relaxed);
    }

    /// All figures as text: a line a call, those that took longest first.
    pub fn show(&self, kernel: &Kernel) -> String {
        let rows = self.rows();
        let total = rows.iter().map(|row| row.count).sum();
        let time = rows.iter().map(|row| row.time).sum::<u64>().max(1);
        let mut text = format!(
            "{:<18} {:>11} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9}  {}\n",
            "call",
            "number",
            "errors",
            "time",
            "share",
            "mean",
            "median",
            "99 %",
            "64 ns to 2 s, each column twice as long"
        );
        for row in &rows {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<18} {:>11} {:>9} {:>9} {:>4} % {:>9} {:>9} {:>9}  {}",
                row.name,
                row.count,
                row.errors,
                duration(row.time),
                row.time * 100 / time,
                duration(row.time / row.count),
                quantile(&row.buckets, 50),
                quantile(&row.buckets, 99),
                bars(&row.buckets)
            );
        }
        text += &format!("{total} calls in {}\n", duration(kernel.uptime_ns()));
        if let Some(ways) = kernel.platform.ways_in() {
            text += &ways_in(&ways, total);
        }
        text += &format!("{} faults of guest code came to this kernel\n", self.faults.load(Ordering::Relaxed));
        text + &locks()
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.calls.iter().enumerate().filter_map(|(nr, count)| Row::new(nr, count)).collect();
        rows.sort_by_key(|row| (core::cmp::Reverse(row.time), core::cmp::Reverse(row.count)));
        rows
    }
}

struct Row {
    name: String,
    count: u64,
    errors: u64,
    time: u64,
    buckets: [u64; BUCKETS],
}

impl Row {
    fn new(nr: usize, count: &Count) -> Option<Row> {
        let buckets = core::array::from_fn(|at| count.buckets[at].load(Ordering::Relaxed));
        let sum: u64 = buckets.iter().sum();
        (sum != 0).then(|| Row {
            name: names::name(nr as u64).map_or_else(|| format!("number {nr}"), str::to_string),
            count: sum,
            errors: count.errors.load(Ordering::Relaxed),
            time: count.time.load(Ordering::Relaxed),
            buckets,
        })
    }
}

fn ways_in(ways: &WaysIn, total: u64) -> String {
    let patched = total.saturating_sub(ways.trapped);
    let share = if total == 0 { 0.0 } else { patched as f64 * 100.0 / total as f64 };
    format!(
        "{patched} calls ({share:.3} %) came by a jump, {} by a trap; {} places are patched, {} cannot be\n",
        ways.trapped, ways.patched_sites, ways.other_sites
    )
}

fn locks() -> String {
    /// Places that are shown.
    const SHOWN: usize = 10;
    let mut waits = contention::waits();
    if waits.is_empty() {
        return "no lock was waited for\n".to_string();
    }
    waits.sort_by_key(|wait| core::cmp::Reverse(wait.time));
    let (count, time) = waits.iter().fold((0, 0), |(count, time), wait| (count + wait.count, time + wait.time));
    let mut text = format!("{count} waits for locks took {}; longest in all, at:\n", duration(time));
    for wait in waits.iter().take(SHOWN) {
        // Without where the kernel was built.
        let file = wait.file.rsplit_once("/src/").map_or(wait.file, |(_, file)| file);
        let _ = writeln!(text, "{:>9} {:>11}  {file}:{}", duration(wait.time), wait.count, wait.line);
    }
    text
}

/// A time in nanoseconds, in at most seven characters.
fn duration(ns: u64) -> String {
    let tenth = |unit: u64, name: &str| {
        if ns < 100 * unit {
            format!("{}.{} {name}", ns / unit, ns % unit * 10 / unit)
        } else {
            format!("{} {name}", ns / unit)
        }
    };
    match ns {
        ..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => tenth(1_000, "us"),
        1_000_000..1_000_000_000 => tenth(1_000_000, "ms"),
        _ => tenth(1_000_000_000, "s"),
    }
}

/// What so many per cent of the calls took at most, to a power of two.
fn quantile(buckets: &[u64; BUCKETS], percent: u64) -> String {
    let wanted = buckets.iter().sum::<u64>() * percent;
    let mut sum = 0;
    for (at, count) in buckets.iter().enumerate() {
        sum += count;
        if sum * 100 >= wanted {
            let end = FIRST_BUCKET << at;
            return if at + 1 == BUCKETS { format!("> {}", duration(end / 2)) } else { format!("< {}", duration(end)) };
        }
    }
    String::new()
}

/// A histogram: the height of each bar is by the logarithm, so that rare calls are seen as well.
fn bars(buckets: &[u64; BUCKETS]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let log = |count: u64| count.checked_ilog2().map_or(0, |log| u64::from(log) + 1);
    let highest = buckets.iter().map(|&count| log(count)).max().unwrap_or(1).max(1);
    let bar = |&count: &u64| BARS[(log(count) * 8).div_ceil(highest) as usize];
    buckets.iter().map(bar).collect::<String>().trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double() {
        assert_eq!([0, 63, 64, 127, 128, 255, 256].map(bucket), [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(FIRST_BUCKET << (BUCKETS - 2)), BUCKETS - 1);
        assert_eq!(bucket((FIRST_BUCKET << (BUCKETS - 2)) - 1), BUCKETS - 2);
    }

    #[test]
    fn times_are_short() {
        let shown = [0, 999, 1_000, 99_949, 123_456, 1_500_000, 59_000_000_000].map(duration);
        assert_eq!(shown, ["0 ns", "999 ns", "1.0 us", "99.9 us", "123 us", "1.5 ms", "59.0 s"]);
    }

    #[test]
    fn calls_are_counted_by_number_and_time() {
        let profile = Profile::default();
        (0..99).for_each(|_| profile.called(39, 100, false));
        profile.called(39, 3_000_000_000, true);
        profile.called(u64::MAX, 10, true);
        let rows = profile.rows();
        assert_eq!((rows[0].name.as_str(), rows[0].count, rows[0].errors), ("getpid", 100, 1));
        assert_eq!(rows[0].time, 3_000_009_900);
        assert_eq!(
            (quantile(&rows[0].buckets, 50), quantile(&rows[0].buckets, 99)),
            ("< 128 ns".into(), "< 128 ns".into())
        );
        assert_eq!(quantile(&rows[0].buckets, 100), "> 2.1 s");
        assert_eq!(bars(&rows[0].buckets), format!(" █{}▂", " ".repeat(BUCKETS - 3)));
        assert_eq!((rows[1].name.as_str(), rows[1].count), ("number 512", 1));
    }
}
