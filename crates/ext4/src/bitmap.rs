//! Bit operations on allocation bitmaps: bit `i` of byte `i / 8`, lowest bit first.

use core::ops::Range;

/// Whether a bit is set; bits beyond the end count as set.
pub(crate) fn get(map: &[u8], bit: u32) -> bool {
    map.get((bit / 8) as usize).is_none_or(|b| b >> (bit % 8) & 1 != 0)
}

/// Sets a bit.
pub(crate) fn set(map: &mut [u8], bit: u32) {
    if let Some(b) = map.get_mut((bit / 8) as usize) {
        *b |= 1 << (bit % 8);
    }
}

/// Clears a bit.
pub(crate) fn clear(map: &mut [u8], bit: u32) {
    if let Some(b) = map.get_mut((bit / 8) as usize) {
        *b &= !(1 << (bit % 8));
    }
}

/// Sets or clears `len` bits from `start`.
pub(crate) fn fill(map: &mut [u8], start: u32, len: u32, on: bool) {
    let end = start.saturating_add(len);
    let mut i = start;
    while i < end {
        if i.is_multiple_of(8) && end - i >= 8 {
            let whole = (end - i) / 8;
            let from = (i / 8) as usize;
            let to = (from + whole as usize).min(map.len());
            if let Some(s) = map.get_mut(from.min(to)..to) {
                s.fill(if on { 0xFF } else { 0 });
            }
            i += whole * 8;
        } else {
            if on {
                set(map, i);
            } else {
                clear(map, i);
            }
            i += 1;
        }
    }
}

/// The runs of bits below `end` that are all set, or all clear.
pub(crate) fn runs(map: &[u8], end: u32, set: bool) -> impl Iterator<Item = Range<u32>> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let start = find(map, None, at, end, set);
        at = find(map, None, start, end, !set);
        (start < end).then_some(start..at)
    })
}

/// The 64 bits that hold bit `bit`, of `map | also`, missing bytes as ones.
fn word(map: &[u8], also: Option<&[u8]>, index: usize) -> u64 {
    let read = |m: &[u8], missing: u8| {
        let mut w = [missing; 8];
        for (i, b) in w.iter_mut().enumerate() {
            if let Some(v) = m.get(index * 8 + i) {
                *b = *v;
            }
        }
        u64::from_le_bytes(w)
    };
    let fast = |m: &[u8], missing: u8| match m.get(index * 8..).and_then(|s| s.first_chunk::<8>()) {
        Some(c) => u64::from_le_bytes(*c),
        None => read(m, missing),
    };
    fast(map, 0xFF) | also.map_or(0, |a| fast(a, 0))
}

/// The first bit in `from..end` whose state is `value`, of `map` combined with `also` by or; `end` if none.
pub(crate) fn find(map: &[u8], also: Option<&[u8]>, from: u32, end: u32, value: bool) -> u32 {
    let mut i = from;
    while i < end {
        let w = word(map, also, (i / 64) as usize);
        let w = if value { w } else { !w } >> (i % 64);
        if w != 0 {
            return (i + w.trailing_zeros()).min(end);
        }
        i = (i / 64 + 1) * 64;
    }
    end
}

/// Number of clear bits below `end`.
pub(crate) fn count_clear(map: &[u8], end: u32) -> u32 {
    let mut n = 0;
    let mut i = 0;
    while i < end {
        let start = find(map, None, i, end, false);
        i = find(map, None, start, end, true);
        n += i - start;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn find_agrees_with_a_bit_by_bit_search(
            map in proptest::collection::vec(any::<u8>(), 1..40),
            also in proptest::collection::vec(any::<u8>(), 1..40),
            from in 0u32..320, end in 0u32..320, value: bool,
        ) {
            let bit = |i: u32| get(&map, i) || also.get((i / 8) as usize).is_some_and(|b| b >> (i % 8) & 1 != 0);
            let slow = (from..end).find(|&i| bit(i) == value).unwrap_or(end.max(from));
            let fast = find(&map, Some(&also), from, end, value);
            prop_assert_eq!(fast.max(from), slow);
        }

        #[test]
        fn fill_agrees_with_single_bits(start in 0u32..200, len in 0u32..200, on: bool) {
            let mut a = vec![0x5A; 20];
            let mut b = a.clone();
            fill(&mut a, start, len, on);
            for i in start..start + len {
                if on { set(&mut b, i) } else { clear(&mut b, i) }
            }
            prop_assert_eq!(a, b);
        }
    }
}
