//! What `mmap(2)` sees of a shared file: a copy of its data in a memory file of the machine's, made when it is asked for.
//!
//! A copy stays as it is while somebody may have it mapped: a file that changes on the host gets a new one at its next mapping.

use super::protocol::CHUNK;
use crate::bail;
use crate::errno::Result;
use crate::fs::store::{RANGE, Store};
use crate::mm::PAGE_SIZE;
use crate::vfs::{Attr, HostExtent, Timestamp};
use alloc::vec::Vec;

/// What tells that a file has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

/// One copy.
struct Copy {
    /// Where its range of the store begins.
    base: u64,
    version: Version,
    /// Which chunks it has.
    filled: Vec<bool>,
}

impl Copy {
    fn len(&self) -> u64 {
        self.filled.len() as u64 * CHUNK as u64
    }
}

/// A file's copies.
#[derive(Default)]
pub(super) struct Pages {
    copies: Vec<Copy>,
}

/// Chunks of a copy, which has no more than its range of the store.
fn chunks(size: u64) -> usize {
    size.min(RANGE).div_ceil(CHUNK as u64) as usize
}

impl Pages {
    /// Whether there is any copy.
    pub(super) fn is_mapped(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Where the pages of a range are, of a file that is as `attr` says. `read` fetches a chunk's bytes by its offset.
    pub(super) fn extents(
        &mut self,
        store: &Store,
        attr: &Attr,
        offset: u64,
        len: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<usize>,
    ) -> Result<Vec<HostExtent>> {
        let end = offset.saturating_add(len).min(attr.size.next_multiple_of(PAGE_SIZE));
        if offset >= end {
            return Ok(Vec::new());
        }
        if attr.size > RANGE {
            bail!(EFBIG, "a copy has no room for it");
        }
        let version = Version { size: attr.size, mtime: attr.mtime, ctime: attr.ctime };
        if self.copies.last().is_none_or(|copy| copy.version != version) {
            let base = store.take_range()?;
            self.copies.push(Copy { base, version, filled: alloc::vec![false; chunks(attr.size)] });
        }
        let Some(copy) = self.copies.last_mut() else { return Ok(Vec::new()) };
        for chunk in offset as usize / CHUNK..chunks(end).min(copy.filled.len()) {
            if copy.filled[chunk] {
                continue;
            }
            let at = (chunk * CHUNK) as u64;
            store.buffers.with(|buffer| {
                let got = read(at, &mut buffer[..CHUNK])?;
                store.write(copy.base + at, &buffer[..got])
            })?;
            copy.filled[chunk] = true;
        }
        let host = Some((store.fd.raw(), copy.base + offset));
        Ok(alloc::vec![HostExtent { file_offset: offset, len: end - offset, host }])
    }

    /// The guest has changed the file: who has it mapped sees that, as far as there is a copy.
    pub(super) fn written(&mut self, store: &Store, offset: u64, bytes: &[u8]) {
        if let Some(copy) = self.copies.last() {
            let room = copy.len().saturating_sub(offset).min(bytes.len() as u64);
            // A copy that does not follow is replaced at the next mapping.
            let _ = store.write(copy.base + offset, &bytes[..room as usize]);
        }
    }

    /// The guest has cut the file off behind `size` bytes.
    pub(super) fn cut(&mut self, store: &Store, size: u64) {
        if let Some(copy) = self.copies.last() {
            let _ = store.punch(copy.base + size, copy.len().saturating_sub(size));
        }
    }

    /// The file is as `attr` says after a change of the guest's own, which the newest copy has followed.
    pub(super) fn followed(&mut self, attr: &Attr) {
        if let Some(copy) = self.copies.last_mut() {
            copy.version = Version { size: attr.size, mtime: attr.mtime, ctime: attr.ctime };
            copy.filled.resize(chunks(attr.size), false);
        }
    }

    /// Frees everything: nobody has the file any more.
    pub(super) fn free(&mut self, store: &Store) {
        for copy in self.copies.drain(..) {
            // Pages that the host did not take back are only lost memory.
            let _ = store.punch(copy.base, copy.len().max(CHUNK as u64));
            store.return_range(copy.base);
        }
    }
}
