//! Requests for I/O and the events that tell how they went (`io_setup(2)`, `fs/aio.c` of Linux): what libaio is on.
//!
//! A request is over when `io_submit(2)` returns, as it is on Linux for all files that are read and written through the page cache,
//! which is the only way here. So nothing is ever under way that could be waited for or cancelled.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::map::{MapRequest, flags};
use crate::mm::{AddressSpace, PAGE_SIZE, Prot};
use crate::settings::Settings;
use crate::sync::{Mutex, WaitQueue};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a `struct io_event`.
const EVENT_SIZE: u64 = 32;
/// Bytes before the events of a ring (`struct aio_ring`).
const RING_HEADER: u64 = 32;
/// The most events that anybody may ask for, whatever the setting says.
const EVENTS_MAX: u64 = 0x1000_0000 / EVENT_SIZE;

/// How a request went: `struct io_event`.
pub struct Event {
    /// The request's own word (`aio_data`).
    pub data: u64,
    /// Where the request is.
    pub request: u64,
    /// Bytes moved, or an error's number, negative.
    pub result: i64,
}

/// A completion queue of an address space.
pub struct AioContext {
    /// Requests that may be there at a time, those whose events nobody has fetched included.
    capacity: usize,
    /// What was asked for, which counts for `fs.aio-max-nr`.
    asked: u64,
    /// The sum of these.
    total: Arc<AtomicU64>,
    /// Bytes that it has of the address space.
    len: u64,
    events: Mutex<VecDeque<Event>>,
    /// Requests that are being served.
    serving: Mutex<usize>,
    changed: WaitQueue,
    destroyed: AtomicBool,
}

impl Drop for AioContext {
    fn drop(&mut self) {
        self.total.fetch_sub(self.asked, Ordering::Relaxed);
    }
}

/// The contexts of an address space, by number: an address, since libaio looks there for a ring that it might read by itself. There
/// is none: the page is empty.
#[derive(Default)]
pub struct AioContexts(Mutex<BTreeMap<u64, Arc<AioContext>>>);

/// Counts the requests that all contexts may have (`/proc/sys/fs/aio-nr`).
#[derive(Default)]
pub struct AioTotal(Arc<AtomicU64>);

impl AioTotal {
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `asked` more.
    fn take(&self, settings: &Settings, asked: u64) -> Result<()> {
        let limit = settings.aio_max_nr.get();
        let more = |now: u64| now.checked_add(asked).filter(|sum| *sum <= limit);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => bail!(EAGAIN, "fs.aio-max-nr"),
        }
    }
}

/// Bytes of a ring for this many events, and how many requests may be there at a time: as Linux counts, which makes the ring larger
/// than was asked for, for each processor to have some at hand.
fn dimensions(asked: u64, cpus: u64) -> (u64, usize) {
    let events = asked.max(cpus * 4) * 2 + 2;
    let len = (RING_HEADER + events * EVENT_SIZE).next_multiple_of(PAGE_SIZE);
    (len, ((len - RING_HEADER) / EVENT_SIZE) as usize - 1)
}

impl AddressSpace {
    /// `io_setup(2)`: a new context for `asked` events; gives its number.
    ///
    /// # Errors
    /// `EINVAL` for none or far too many, `EAGAIN` for more than the setting allows.
    pub fn new_aio(&self, ctx: &Ctx, asked: u64) -> Result<u64> {
        if asked == 0 || asked > EVENTS_MAX {
            bail!(EINVAL);
        }
        let kernel = ctx.kernel;
        let (len, capacity) = dimensions(asked, kernel.config.cpus.into());
        kernel.aio.take(&kernel.settings, asked)?;
        let context = Arc::new(AioContext {
            capacity,
            asked,
            total: kernel.aio.0.clone(),
            len,
            events: Mutex::default(),
            serving: Mutex::default(),
            changed: WaitQueue::new(),
            destroyed: AtomicBool::new(false),
        });
        let (prot, flags) = (Prot::READ | Prot::WRITE, flags::PRIVATE | flags::ANONYMOUS);
        let number = self.mmap(ctx, MapRequest { addr: 0, len, prot, flags, file: None, offset: 0 })?;
        // The program may have unmapped the page of another one, whose number this has now.
        let lost = self.aio.0.lock().insert(number, context);
        if let Some(lost) = lost {
            lost.end();
        }
        Ok(number)
    }

    /// The context with this number.
    ///
    /// # Errors
    /// `EINVAL` if there is none.
    pub fn aio(&self, number: u64) -> Result<Arc<AioContext>> {
        self.aio.0.lock().get(&number).cloned().ok_or(Errno::EINVAL.into())
    }

    /// `io_destroy(2)`.
    ///
    /// # Errors
    /// `EINVAL` if there is no such context.
    pub fn destroy_aio(&self, ctx: &Ctx, number: u64) -> Result<()> {
        let Some(context) = self.aio.0.lock().remove(&number) else { bail!(EINVAL) };
        context.end();
        self.unmap(ctx, number, number + context.len)
    }
}

/// A place for one request of a context.
pub struct Place<'a>(&'a AioContext);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.serving.lock() -= 1;
    }
}

impl Place<'_> {
    /// The request is over.
    pub fn complete(self, event: Event) {
        self.0.events.lock().push_back(event);
        self.0.changed.wake_all();
    }
}

impl AioContext {
    /// It has no number any more: nobody waits for its events.
    fn end(&self) {
        self.destroyed.store(true, Ordering::SeqCst);
        self.changed.wake_all();
    }

    /// Requests that may be there at a time.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes a place for a request.
    ///
    /// # Errors
    /// `EAGAIN` while all are taken: until events are fetched.
    pub fn place(&self) -> Result<Place<'_>> {
        let mut serving = self.serving.lock();
        if *serving + self.events.lock().len() >= self.capacity {
            bail!(EAGAIN);
        }
        *serving += 1;
        Ok(Place(self))
    }

    /// `io_getevents(2)`: stores up to `most` events at `addr`, waiting until there are `least`; says how many.
    ///
    /// # Errors
    /// `EINTR` when a signal came before any event, `EINVAL` when somebody destroyed the context; `EFAULT`.
    pub fn fetch(&self, ctx: &Ctx, least: usize, most: usize, addr: u64, deadline: Option<u64>) -> Result<usize> {
        let mut done = 0;
        loop {
            match self.store(ctx, most - done, addr + done as u64 * EVENT_SIZE) {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => return Ok(done),
            }
            if done >= least {
                return Ok(done);
            }
            if self.destroyed.load(Ordering::SeqCst) {
                return if done > 0 { Ok(done) } else { Err(Errno::EINVAL.into()) };
            }
            let there = || (!self.events.lock().is_empty() || self.destroyed.load(Ordering::SeqCst)).then_some(());
            match ctx.wait(&self.changed, deadline, there) {
                Ok(Some(())) => {}
                Ok(None) => return Ok(done),
                Err(_) if done > 0 => return Ok(done),
                Err(_) => bail!(EINTR),
            }
        }
    }

    /// Moves events that are there to user memory.
    fn store(&self, ctx: &Ctx, most: usize, addr: u64) -> Result<usize> {
        let mut events = self.events.lock();
        let count = events.len().min(most);
        let words = |event: &Event| [event.data, event.request, event.result as u64, 0];
        let bytes: Vec<u8> = events.iter().take(count).flat_map(words).flat_map(u64::to_le_bytes).collect();
        ctx.write_user(addr, &bytes)?;
        events.drain(..count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_as_large_as_linux_makes_them() {
        assert_eq!(dimensions(1, 2), (4096, 126));
        assert_eq!(dimensions(128, 2), (12_288, 382));
    }
}
