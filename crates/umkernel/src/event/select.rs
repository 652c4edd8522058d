//! `select(2)`: sets of descriptors as bit maps.

use super::poll::{Watched, poll};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::vfs::PollEvents;
use alloc::vec::Vec;

/// Bits of a word of an `fd_set`.
const WORD_BITS: usize = 64;

/// The addresses of the three sets; 0 for one that is not given.
#[derive(Clone, Copy, Debug)]
pub struct Sets {
    /// For reading.
    pub read: u64,
    /// For writing.
    pub write: u64,
    /// For exceptional conditions.
    pub except: u64,
}

/// What makes a descriptor a member of each of the resulting sets.
fn meaning() -> [PollEvents; 3] {
    [
        PollEvents::IN | PollEvents::RDNORM | PollEvents::RDBAND | PollEvents::HUP | PollEvents::ERR | PollEvents::NVAL,
        PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND | PollEvents::ERR | PollEvents::NVAL,
        PollEvents::PRI | PollEvents::NVAL,
    ]
}

/// Waits for the descriptors below `n` in the sets and stores those that are ready; returns how many bits are set.
///
/// # Errors
/// `EINVAL` for a negative `n`, `EBADF` when a set holds a descriptor that is not open, `EFAULT`, `ERESTARTNOHAND`.
pub fn select(ctx: &Ctx, n: i32, sets: Sets, deadline: Option<u64>) -> Result<usize> {
    let Ok(n) = usize::try_from(n) else { bail!(EINVAL) };
    let files = ctx.files();
    // Bits beyond the descriptor table are not looked at; its size is a multiple of a word's bits.
    let n = n.min(files.size().max(1).next_multiple_of(WORD_BITS));
    let words = n.div_ceil(WORD_BITS);
    let addresses = [sets.read, sets.write, sets.except];
    let mut asked: [Vec<u64>; 3] = Default::default();
    for (set, &addr) in asked.iter_mut().zip(&addresses) {
        *set = if addr == 0 { alloc::vec![0; words] } else { ctx.read_vec(addr, words)? };
    }
    let is_in = |set: &[u64], fd: usize| set[fd / WORD_BITS] & 1 << (fd % WORD_BITS) != 0;
    let mut watched = Vec::new();
    let mut descriptors = Vec::new();
    let meaning = meaning();
    for fd in 0..n {
        let mut wanted = PollEvents::empty();
        for (set, events) in asked.iter().zip(meaning) {
            wanted.set(events, wanted.contains(events) || is_in(set, fd));
        }
        if !wanted.is_empty() {
            watched.push(Watched::new(Some(files.get(fd as i32)?), wanted));
            descriptors.push(fd);
        }
    }
    let bits = |watched: &[Watched]| {
        let mut result: [Vec<u64>; 3] = core::array::from_fn(|_| alloc::vec![0; words]);
        let mut count = 0;
        for (watch, &fd) in watched.iter().zip(&descriptors) {
            for ((set, asked), events) in result.iter_mut().zip(&asked).zip(meaning) {
                if is_in(asked, fd) && watch.found.intersects(events) {
                    set[fd / WORD_BITS] |= 1 << (fd % WORD_BITS);
                    count += 1;
                }
            }
        }
        (result, count)
    };
    poll(ctx, &mut watched, deadline)?;
    let (result, count) = bits(&watched);
    for (set, addr) in result.iter().zip(addresses) {
        if addr != 0 {
            let raw: Vec<u8> = set.iter().flat_map(|word| word.to_le_bytes()).collect();
            ctx.write_user(addr, &raw)?;
        }
    }
    Ok(count)
}
