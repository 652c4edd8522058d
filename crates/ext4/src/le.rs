//! Little-endian numbers at byte offsets. Out of range reads give 0 and writes are dropped: callers check
//! lengths that come from a disk before they use them, and a mistake there must not become a panic.

#[inline]
pub(crate) fn u16_at(b: &[u8], off: usize) -> u16 {
    match b.get(off..).and_then(|s| s.first_chunk::<2>()) {
        Some(c) => u16::from_le_bytes(*c),
        None => 0,
    }
}

#[inline]
pub(crate) fn u32_at(b: &[u8], off: usize) -> u32 {
    match b.get(off..).and_then(|s| s.first_chunk::<4>()) {
        Some(c) => u32::from_le_bytes(*c),
        None => 0,
    }
}

#[inline]
pub(crate) fn u8_at(b: &[u8], off: usize) -> u8 {
    b.get(off).copied().unwrap_or(0)
}

#[inline]
pub(crate) fn be32_at(b: &[u8], off: usize) -> u32 {
    u32_at(b, off).swap_bytes()
}

#[inline]
pub(crate) fn be16_at(b: &[u8], off: usize) -> u16 {
    u16_at(b, off).swap_bytes()
}

#[inline]
pub(crate) fn put8(b: &mut [u8], off: usize, v: u8) {
    if let Some(x) = b.get_mut(off) {
        *x = v;
    }
}

#[inline]
pub(crate) fn put16(b: &mut [u8], off: usize, v: u16) {
    put_bytes(b, off, &v.to_le_bytes());
}

#[inline]
pub(crate) fn put32(b: &mut [u8], off: usize, v: u32) {
    put_bytes(b, off, &v.to_le_bytes());
}

#[inline]
pub(crate) fn put_be32(b: &mut [u8], off: usize, v: u32) {
    put_bytes(b, off, &v.to_be_bytes());
}

#[inline]
pub(crate) fn put_be16(b: &mut [u8], off: usize, v: u16) {
    put_bytes(b, off, &v.to_be_bytes());
}

#[inline]
pub(crate) fn put_bytes(b: &mut [u8], off: usize, v: &[u8]) {
    if let Some(s) = off.checked_add(v.len()).and_then(|end| b.get_mut(off..end)) {
        s.copy_from_slice(v);
    }
}

/// The `len` bytes at `off`, fewer or none where the buffer ends.
#[inline]
pub(crate) fn bytes_at(b: &[u8], off: usize, len: usize) -> &[u8] {
    let start = off.min(b.len());
    let end = off.saturating_add(len).min(b.len());
    &b[start..end]
}
