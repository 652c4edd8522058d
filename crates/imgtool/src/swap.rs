//! Swap areas, as mkswap(8) makes them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::Error;

/// The page size of x86-64, in which swap areas count.
const PAGE: u64 = 4096;
/// mkswap's least number of pages.
const FEWEST: u64 = 10;

/// Writes the header of a swap area of `size` bytes from byte `start` on.
///
/// # Errors
/// The size is too small or too large, the label too long; the host's.
pub(crate) fn write_swap(file: &File, start: u64, size: u64, label: &str, uuid: &[u8; 16]) -> Result<(), Error> {
    let pages = size / PAGE;
    let last = u32::try_from(pages.saturating_sub(1)).ok().filter(|_| pages >= FEWEST);
    let Some(last) = last else {
        return Err(Error::new(format_args!("a swap area has {FEWEST} to 2^32 pages of {PAGE} bytes, not {pages}"))
            .hint("name another --size"));
    };
    if label.len() > 16 {
        return Err(Error::new(format_args!("the label `{label}` has {} bytes, expected at most 16", label.len())));
    }
    let failed = |error: io::Error| Error::new(format_args!("cannot write the swap area: {error}"));
    let mut page = [0; PAGE as usize];
    let fields: [(usize, &[u8]); 5] = [
        (1024, &1u32.to_le_bytes()),
        (1028, &last.to_le_bytes()),
        (1036, uuid),
        (1052, label.as_bytes()),
        (PAGE as usize - 10, b"SWAPSPACE2"),
    ];
    for (at, bytes) in fields {
        if let Some(place) = page.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    file.write_all_at(&page, start).map_err(failed)
}
