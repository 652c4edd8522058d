//! ext2/ext3 block maps: 12 direct pointers, then one, two and three levels of pointer blocks
//! (Linux `Documentation/filesystems/ext4/blockmap.rst`).

use super::Run;
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::le::u32_at;

/// Where a file block's pointer is found: the slot in the inode, then one index a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Slot in the inode's 15 pointers.
    pub(crate) root: usize,
    /// Number of pointer blocks on the way (0 to 3).
    pub(crate) levels: usize,
    /// Index in each pointer block, outermost first.
    pub(crate) index: [usize; 3],
}

/// The way to a file block; `None` if it is beyond what triple indirection reaches.
pub(crate) fn slots(lblk: u32, per_block: usize) -> Option<Slots> {
    let per = per_block as u64;
    let mut n = u64::from(lblk);
    if n < 12 {
        return Some(Slots { root: n as usize, levels: 0, index: [0; 3] });
    }
    n -= 12;
    if n < per {
        return Some(Slots { root: 12, levels: 1, index: [n as usize, 0, 0] });
    }
    n -= per;
    if n < per * per {
        return Some(Slots { root: 13, levels: 2, index: [(n / per) as usize, (n % per) as usize, 0] });
    }
    n -= per * per;
    if n < per * per * per {
        let i = [(n / (per * per)) as usize, (n / per % per) as usize, (n % per) as usize];
        return Some(Slots { root: 14, levels: 3, index: i });
    }
    None
}

impl<D: BlockDevice> Fs<D> {
    /// Pointers in a block.
    pub(crate) fn pointers_per_block(&self) -> usize {
        self.bs / 4
    }

    pub(super) fn indirect_run(&mut self, inode: &Inode, lblk: u32, max: u32) -> Result<Run> {
        let per = self.pointers_per_block();
        let s = slots(lblk, per).ok_or(Error::TooBig)?;
        let mut ptr = u32_at(inode.i_block(), s.root * 4);
        if s.levels == 0 {
            let count = (12 - s.root).min(max as usize);
            return Ok(run_of(inode.i_block(), s.root, count));
        }
        // Blocks that one missing pointer at this level leaves out.
        let mut span = (per as u64).pow(s.levels as u32);
        for level in 0..s.levels {
            if ptr == 0 {
                let index_in_span = s.index[level..s.levels].iter().fold(0u64, |n, &i| n * per as u64 + i as u64);
                let len = (span - index_in_span).min(u64::from(max)) as u32;
                return Ok(Run { start: None, len, unwritten: false });
            }
            let data = self.block(u64::from(ptr), Kind::Plain)?;
            let i = s.index[level];
            if level + 1 == s.levels {
                return Ok(run_of(&data, i, (per - i).min(max as usize)));
            }
            ptr = u32_at(&data, i * 4);
            span /= per as u64;
        }
        Err(Error::inode(inode.ino, "the block map has too many levels"))
    }
}

/// The run that starts at pointer `from` and takes at most `count` pointers.
fn run_of(table: &[u8], from: usize, count: usize) -> Run {
    let first = u32_at(table, from * 4);
    let mut len = 1u32;
    while (len as usize) < count {
        let next = u32_at(table, (from + len as usize) * 4);
        let follows = if first == 0 { next == 0 } else { first.checked_add(len) == Some(next) };
        if !follows {
            break;
        }
        len += 1;
    }
    Run { start: (first != 0).then_some(u64::from(first)), len, unwritten: false }
}
