//! Telling the device which blocks are free: an image file gets holes there.

use crate::bitmap;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

impl<D: BlockDevice> Fs<D> {
    /// Discards what a transaction freed, which is committed: no replay brings a user of these blocks back.
    pub(crate) fn discard_freed(&self, freed: &BTreeMap<u32, Vec<u8>>) {
        for (group, map) in freed {
            for (start, len) in self.runs(*group, map, true) {
                // As in Linux: a device that cannot keeps the bytes, which does no harm.
                let _ = self.dev.discard(self.offset_of(start), len * self.bs as u64);
            }
        }
    }

    /// The runs of a group's blocks whose bits are `value`: first block and count.
    fn runs<'m>(&self, group: u32, map: &'m [u8], value: bool) -> impl Iterator<Item = (u64, u64)> + use<'m, D> {
        let first = self.sb.group_first_block(group);
        let runs = bitmap::runs(map, self.sb.group_blocks(group), value);
        runs.map(move |run| (first + u64::from(run.start), run.len() as u64))
    }

    /// Whether blocks are discarded when they are freed ([`MountOptions::discard`](crate::MountOptions::discard)), from now on.
    pub fn set_discard(&mut self, on: bool) {
        self.options.discard = on;
    }

    /// Whether blocks are discarded when they are freed.
    pub fn discards(&self) -> bool {
        self.options.discard
    }

    /// Discards all runs of free blocks of at least `least` bytes that lie in `len` bytes from `start` on (`FITRIM`,
    /// `fstrim(8)`). Returns how many bytes these are.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Invalid`] for a `start` behind the end, [`Error::Corrupt`], [`Error::Io`]: a
    /// device that has no discard fails with `EOPNOTSUPP`.
    pub fn trim(&mut self, start: u64, len: u64, least: u64) -> Result<u64> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let bs = self.bs as u64;
        if start >= self.sb.blocks_count.saturating_mul(bs) {
            return Err(Error::Invalid("the range to trim begins behind the end"));
        }
        // What the running transaction freed may be needed again until it is committed.
        self.commit()?;
        let (from, to) = (start.div_ceil(bs), start.saturating_add(len) / bs);
        let mut done = 0;
        for group in 0..self.sb.group_count() {
            let first = self.sb.group_first_block(group);
            if first >= to || first + u64::from(self.sb.group_blocks(group)) <= from {
                continue;
            }
            let map = self.block_bitmap(group)?;
            for (start, len) in self.runs(group, &map, false) {
                let (start, end) = (start.max(from), (start + len).min(to));
                if start < end && (end - start) * bs >= least {
                    self.dev.discard(self.offset_of(start), (end - start) * bs)?;
                    done += (end - start) * bs;
                }
            }
        }
        Ok(done)
    }
}
