//! ext2/ext3 block maps: setting and freeing pointers.

use super::indirect::slots;
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::{put32, u32_at};

impl<D: BlockDevice> Fs<D> {
    /// Points file blocks from `lblk` on at device blocks from `start` on, with pointer blocks as needed.
    pub(crate) fn set_pointers(&mut self, inode: &mut Inode, lblk: u32, start: u64, len: u32) -> Result<()> {
        let per = self.pointers_per_block();
        for i in 0..len {
            let to = u32::try_from(start + u64::from(i)).map_err(|_| Error::NoSpace)?;
            let s = lblk.checked_add(i).and_then(|l| slots(l, per)).ok_or(Error::TooBig)?;
            if s.levels == 0 {
                put32(inode.i_block_mut(), s.root * 4, to);
                continue;
            }
            let mut block = u32_at(inode.i_block(), s.root * 4);
            if block == 0 {
                block = self.new_pointer_block(inode, start)?;
                put32(inode.i_block_mut(), s.root * 4, block);
            }
            for level in 0..s.levels {
                let Some(&index) = s.index.get(level) else { break };
                if level + 1 == s.levels {
                    put32(self.block_mut(u64::from(block), Kind::Plain)?, index * 4, to);
                    break;
                }
                let data = self.block(u64::from(block), Kind::Plain)?;
                let mut next = u32_at(&data, index * 4);
                if next == 0 {
                    next = self.new_pointer_block(inode, start)?;
                    put32(self.block_mut(u64::from(block), Kind::Plain)?, index * 4, next);
                }
                block = next;
            }
        }
        Ok(())
    }

    fn new_pointer_block(&mut self, inode: &mut Inode, goal: u64) -> Result<u32> {
        let b = self.alloc_meta(inode, goal)?;
        let n = u32::try_from(b).map_err(|_| Error::NoSpace)?;
        self.block_new(b, Kind::Plain)?;
        Ok(n)
    }

    /// Frees file blocks `from..to` and the pointer blocks that become empty.
    pub(super) fn remove_pointers(&mut self, inode: &mut Inode, from: u32, to: u64) -> Result<()> {
        let per = self.pointers_per_block() as u64;
        let (from, mut base) = (u64::from(from), 12u64);
        let mut table: [u32; 15] = core::array::from_fn(|i| u32_at(inode.i_block(), i * 4));
        let mut freed = FreeRun::default();
        for (slot, ptr) in (0u64..).zip(table.iter_mut()) {
            if slot < 12 {
                if *ptr != 0 && slot >= from && slot < to {
                    freed.add(self, inode, u64::from(*ptr))?;
                    *ptr = 0;
                }
                continue;
            }
            let levels = (slot - 11) as u32;
            let span = per.pow(levels);
            if *ptr != 0
                && base < to
                && base + span > from
                && self.remove_below(inode, *ptr, levels, base, (from, to), &mut freed)?
            {
                *ptr = 0;
            }
            base += span;
        }
        freed.finish(self, inode)?;
        for (i, ptr) in table.iter().enumerate() {
            put32(inode.i_block_mut(), i * 4, *ptr);
        }
        Ok(())
    }

    /// Frees the range's part below a pointer block that covers file blocks from `base` on. Returns true if the
    /// pointer block became empty and was freed.
    fn remove_below(
        &mut self,
        inode: &mut Inode,
        block: u32,
        levels: u32,
        base: u64,
        range: (u64, u64),
        freed: &mut FreeRun,
    ) -> Result<bool> {
        let per = self.pointers_per_block();
        let span = (per as u64).pow(levels - 1);
        let data = self.block(u64::from(block), Kind::Plain)?;
        let mut left = false;
        let mut cleared = alloc::vec::Vec::new();
        for i in 0..per {
            let ptr = u32_at(&data, i * 4);
            let start = base + i as u64 * span;
            if ptr == 0 {
                continue;
            }
            if start >= range.1 || start + span <= range.0 {
                left = true;
            } else if levels == 1 {
                freed.add(self, inode, u64::from(ptr))?;
                cleared.push(i);
            } else if self.remove_below(inode, ptr, levels - 1, start, range, freed)? {
                cleared.push(i);
            } else {
                left = true;
            }
        }
        if !left {
            self.free_blocks(u64::from(block), 1, true)?;
            self.add_blocks(inode, -1)?;
        } else if !cleared.is_empty() {
            let node = self.block_mut(u64::from(block), Kind::Plain)?;
            for i in cleared {
                put32(node, i * 4, 0);
            }
        }
        Ok(!left)
    }
}

/// Gathers single blocks into runs before they are freed.
#[derive(Default)]
struct FreeRun {
    start: u64,
    len: u64,
}

impl FreeRun {
    fn add<D: BlockDevice>(&mut self, fs: &mut Fs<D>, inode: &mut Inode, block: u64) -> Result<()> {
        if self.len > 0 && self.start + self.len == block {
            self.len += 1;
            return Ok(());
        }
        self.finish(fs, inode)?;
        *self = FreeRun { start: block, len: 1 };
        Ok(())
    }

    fn finish<D: BlockDevice>(&mut self, fs: &mut Fs<D>, inode: &mut Inode) -> Result<()> {
        if self.len > 0 {
            // Directory blocks were changed through the journal.
            fs.free_blocks(self.start, self.len, inode.is_dir())?;
            fs.add_blocks(inode, -(self.len as i64))?;
            self.len = 0;
        }
        Ok(())
    }
}
