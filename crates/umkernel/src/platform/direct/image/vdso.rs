//! The host's vdso, which lies in every process: it tells the time without a call to the host.

use super::arena::arena;
use crate::host::TimeSpec;
use core::ffi::CStr;
use core::ops::Range;

/// `__vdso_clock_gettime`.
type ClockGettime = extern "C" fn(i32, *mut TimeSpec) -> i32;

/// What [`Reserved`](crate::platform::Reserved) ranges call it.
pub(super) const VDSO: &str = "[vdso]";

/// Clocks that the vdso can have: `CLOCK_REALTIME`, `CLOCK_MONOTONIC`, `CLOCK_MONOTONIC_RAW`, the two coarse ones, `CLOCK_BOOTTIME`. It
/// asks the host for them by itself where the host's clock is not the processor's: the filter lets it.
pub(super) const CLOCKS: [i32; 6] = [0, 1, 4, 5, 6, 7];

/// Where the vdso's clock is; 0 if it has none, and the host is asked.
#[derive(Clone, Copy, Default)]
pub(super) struct Clock(u64);

impl Clock {
    /// Looks in the vdso that lies in this range.
    ///
    /// # Safety
    /// The range is mapped, for as long as the clock is used.
    pub(super) unsafe fn find(start: u64, end: u64) -> Clock {
        // SAFETY: the caller's promise.
        let image = unsafe { core::slice::from_raw_parts(start as *const u8, (end - start) as usize) };
        Clock(symbol(image, c"__vdso_clock_gettime").map_or(0, |offset| start + offset as u64))
    }
}

/// Nanoseconds of a clock; `None` if the host has to be asked.
pub(crate) fn clock_gettime(clock: i32) -> Option<u64> {
    // Tests are ordinary programs, without an arena.
    if cfg!(test) {
        return None;
    }
    let Clock(address) = arena().facts.clock;
    if address == 0 || !CLOCKS.contains(&clock) {
        return None;
    }
    // SAFETY: the address is that function's, in the vdso that every process has at the same place.
    let call: ClockGettime = unsafe { core::mem::transmute(address) };
    let mut time = TimeSpec::default();
    (call(clock, &raw mut time) == 0).then(|| time.sec as u64 * 1_000_000_000 + time.nsec as u64)
}

/// Where the vdso lies; nowhere if the host has none.
pub(super) fn range() -> Range<u64> {
    arena().facts.reserved.iter().find(|range| range.name == VDSO).map_or(0..0, |range| range.start..range.end)
}

/// Whether an address is in the vdso.
pub(super) fn contains(address: u64) -> bool {
    range().contains(&address)
}

/// Where a function of a shared object in memory begins (`elf(5)`): the object's own addresses begin at 0.
fn symbol(image: &[u8], name: &CStr) -> Option<usize> {
    const PT_DYNAMIC: u32 = 2;
    const DT_STRTAB: u64 = 5;
    const DT_SYMTAB: u64 = 6;
    const SYMBOL: usize = 24;
    let word = |at: usize| Some(u64::from_le_bytes(image.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let half = |at: usize| Some(u32::from_le_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let inside = |at: u64| usize::try_from(at).ok().filter(|&at| at < image.len());
    let (headers, count) = (inside(word(32)?)?, half(56)? & 0xffff);
    let dynamic = (0..count as usize).map(|i| headers + 56 * i).find(|&header| half(header) == Some(PT_DYNAMIC))?;
    let entries = inside(word(dynamic + 8)?)?;
    let entry = |tag: u64| {
        let at = (0..64).map(|i| entries + 16 * i).find(|&at| word(at) == Some(tag))?;
        inside(word(at + 8)?)
    };
    let (names, symbols) = (entry(DT_STRTAB)?, entry(DT_SYMTAB)?);
    // Linkers put the names right behind the symbols.
    let count = names.checked_sub(symbols)? / SYMBOL;
    let found = (0..count).map(|i| symbols + SYMBOL * i).find(|&at| {
        let text = half(at).and_then(|offset| image.get(names.checked_add(offset as usize)?..));
        text.is_some_and(|text| CStr::from_bytes_until_nul(text) == Ok(name))
    })?;
    inside(word(found + 8)?).filter(|&value| value != 0)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn the_hosts_vdso_tells_the_time() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else { return };
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let address = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
        let Some((start, end)) = range.map(|(start, end)| (address(start), address(end))) else { panic!("{line}") };
        // SAFETY: mapped as long as the process runs.
        let Clock(found) = unsafe { Clock::find(start, end) };
        assert!((start..end).contains(&found));
        // SAFETY: that function, found in this process's own vdso.
        let call: ClockGettime = unsafe { core::mem::transmute(found) };
        let mut time = TimeSpec::default();
        assert_eq!(call(1, &raw mut time), 0);
        assert!(time.sec > 0);
    }

    #[test]
    fn rubbish_has_no_symbols() {
        assert_eq!(symbol(&[], c"x"), None);
        assert_eq!(symbol(&[0xff; 4096], c"x"), None);
    }
}
