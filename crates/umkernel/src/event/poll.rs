//! `poll(2)`.

use super::wait_until;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::{PollTable, Wake};
use crate::vfs::{File, PollEvents};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A file to be watched.
pub struct Watched {
    /// The file; `None` for one to be passed over.
    pub file: Option<Arc<File>>,
    /// The events that count.
    pub wanted: PollEvents,
    /// What was found.
    pub found: PollEvents,
}

impl Watched {
    /// A watch for `wanted` that has found nothing yet.
    pub fn new(file: Option<Arc<File>>, wanted: PollEvents) -> Watched {
        Watched { file, wanted, found: PollEvents::empty() }
    }
}

/// Looks at all files, waiting until there is something to report; returns how many files have something, 0 when the
/// deadline passed.
///
/// # Errors
/// `ERESTARTNOHAND` when a signal came first.
pub fn poll(ctx: &Ctx, watched: &mut [Watched], deadline: Option<u64>) -> Result<usize> {
    let sleeper = ctx.task.waiter.clone() as Arc<dyn Wake>;
    let mut table = Some(PollTable::new(sleeper));
    let mut first = true;
    let look = || {
        let mut ready = 0;
        for watch in watched.iter_mut() {
            if let Some(file) = &watch.file {
                // Once something is found nobody will sleep, so nothing more needs to be registered.
                let register = if first && ready == 0 { table.as_mut() } else { None };
                watch.found = file.poll(ctx, register) & watch.wanted;
            }
            ready += usize::from(!watch.found.is_empty());
        }
        first = false;
        (ready > 0).then_some(ready)
    };
    Ok(wait_until(ctx, deadline, Errno::ERESTARTNOHAND, look)?.unwrap_or(0))
}

/// Bytes of a `struct pollfd`.
const POLLFD_SIZE: usize = 8;

/// The array of `poll(2)` in user memory.
pub struct PollFds {
    addr: u64,
    raw: Vec<u8>,
}

impl PollFds {
    /// Reads `count` records.
    pub fn read(ctx: &Ctx, addr: u64, count: usize) -> Result<PollFds> {
        let mut raw = alloc::vec![0; count * POLLFD_SIZE];
        ctx.read_user(addr, &mut raw)?;
        Ok(PollFds { addr, raw })
    }

    /// The files to watch: a negative descriptor is passed over, one that is not open has `NVAL`.
    fn watched(&self, ctx: &Ctx) -> Vec<Watched> {
        let files = ctx.files();
        let (records, _) = self.raw.as_chunks::<POLLFD_SIZE>();
        let each = records.iter().map(|r| {
            let fd = i32::from_le_bytes([r[0], r[1], r[2], r[3]]);
            let wanted = PollEvents::from_bits_retain(u32::from(u16::from_le_bytes([r[4], r[5]])));
            let file = if fd < 0 { None } else { files.get(fd).ok() };
            // Errors and hang-ups are reported whether asked for or not.
            let mut watch = Watched::new(file, wanted | PollEvents::ERR | PollEvents::HUP);
            if fd >= 0 && watch.file.is_none() {
                watch.found = PollEvents::NVAL;
            }
            watch
        });
        each.collect()
    }

    /// Polls and stores what was found, also when a signal ended the wait.
    pub fn poll(&mut self, ctx: &Ctx, deadline: Option<u64>) -> Result<usize> {
        let mut watched = self.watched(ctx);
        let result = poll(ctx, &mut watched, deadline);
        let (records, _) = self.raw.as_chunks_mut::<POLLFD_SIZE>();
        for (record, watch) in records.iter_mut().zip(&watched) {
            record[6..8].copy_from_slice(&(watch.found.bits() as u16).to_le_bytes());
        }
        ctx.write_user(self.addr, &self.raw)?;
        result
    }
}
