//! The queue of things to happen later, and the kernel thread that serves it.

use crate::host;
use crate::kernel::Kernel;
use crate::stats::LOAD_INTERVAL;
use crate::sync::{Mutex, Waiter, Wake};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Something that happens at a set time.
pub trait Alarm: Send + Sync {
    /// The time set by `ticket` has come. Whoever changed his mind since has another ticket and ignores this one. Called on
    /// the timer thread, which must not sleep.
    fn expire(&self, kernel: &Arc<Kernel>, ticket: Ticket);
}

/// Names one entry of the queue: when (CLOCK_MONOTONIC, nanoseconds), and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64, u64);

/// The machine's timers.
#[derive(Default)]
pub struct TimeKeeper {
    /// An alarm whose owner is gone is skipped.
    queue: Mutex<BTreeMap<Ticket, Weak<dyn Alarm>>>,
    waiter: Waiter,
    next: AtomicU64,
    stopped: AtomicBool,
}

impl TimeKeeper {
    /// Sets an alarm for a time by CLOCK_MONOTONIC, nanoseconds.
    pub fn arm(&self, at: u64, alarm: Weak<dyn Alarm>) -> Ticket {
        let ticket = Ticket(at, self.next.fetch_add(1, Ordering::Relaxed));
        let mut queue = self.queue.lock();
        queue.insert(ticket, alarm);
        let first = queue.first_key_value().is_some_and(|(t, _)| *t == ticket);
        drop(queue);
        if first {
            self.waiter.wake();
        }
        ticket
    }

    /// Takes an alarm off; without effect if it has gone off.
    pub fn disarm(&self, ticket: Ticket) {
        self.queue.lock().remove(&ticket);
    }

    /// Ends [`run`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.waiter.wake();
    }

    /// Takes the first alarm if its time has come; otherwise says when it will.
    fn due(&self, now: u64) -> Result<(Ticket, Weak<dyn Alarm>), Option<u64>> {
        let mut queue = self.queue.lock();
        match queue.first_key_value().map(|(ticket, _)| *ticket) {
            Some(ticket) if ticket.0 <= now => {
                let alarm = queue.remove(&ticket);
                alarm.map(|alarm| (ticket, alarm)).ok_or(None)
            }
            first => Err(first.map(|t| t.0)),
        }
    }
}

/// Serves the machine's timers and samples its load, until [`TimeKeeper::stop`]. Runs on a kernel thread of its own.
pub fn run(kernel: &Arc<Kernel>) {
    let time = &kernel.time;
    let mut next_sample = kernel.boot_monotonic + LOAD_INTERVAL;
    while !time.stopped.load(Ordering::SeqCst) {
        time.waiter.prepare();
        let now = host::monotonic_ns();
        if now >= next_sample {
            kernel.load.sample(kernel.running_tasks() as u64);
            next_sample = now + LOAD_INTERVAL;
        }
        match time.due(now) {
            Ok((ticket, alarm)) => {
                if let Some(alarm) = alarm.upgrade() {
                    alarm.expire(kernel, ticket);
                }
            }
            Err(first) if !time.stopped.load(Ordering::SeqCst) => {
                time.waiter.sleep(Some(first.unwrap_or(u64::MAX).min(next_sample)));
            }
            Err(_) => {}
        }
    }
}
