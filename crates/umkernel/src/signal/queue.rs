//! Pending signals: which, and what is known of each.

use super::number::SIGRTMIN;
use super::{SigInfo, SigSet, number};
use crate::sync::{Mutex, MutexGuard};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering};

/// What a POSIX timer hears when its queued signal is taken.
pub trait TimerSignal: Send + Sync {
    /// The signal leaves the queue: returns the expiries that it stands for beyond the first (`si_overrun`).
    fn taken(&self) -> i32;
}

/// How many signals each user has queued: what `RLIMIT_SIGPENDING` limits.
#[derive(Default)]
pub struct QueuedByUser {
    counts: Mutex<BTreeMap<u32, Arc<AtomicU64>>>,
}

impl QueuedByUser {
    /// Signals queued for processes of this real user id (`SigQ` of `/proc/PID/status`).
    pub fn count(&self, uid: u32) -> u64 {
        self.counts.lock().get(&uid).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// Charges one signal to a user; `None` if `limit` signals are charged already.
    pub(super) fn charge(&self, uid: u32, limit: u64) -> Option<Charge> {
        let mut counts = self.counts.lock();
        let count = counts.entry(uid).or_default();
        if count.load(Ordering::Relaxed) >= limit {
            return None;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(Charge(count.clone()))
    }
}

/// One signal charged to a user; given back on drop.
pub(super) struct Charge(Arc<AtomicU64>);

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One pending signal with its details.
struct Queued {
    info: SigInfo,
    timer: Option<Arc<dyn TimerSignal>>,
    _charge: Charge,
}

/// Signals pending for a thread or a process: a queue, and its set to look at without the lock.
#[derive(Default)]
pub(super) struct Pending {
    queue: Mutex<PendingQueue>,
    set: AtomicU64,
}

impl Pending {
    /// The pending signals.
    pub(super) fn set(&self) -> SigSet {
        SigSet(self.set.load(Ordering::SeqCst))
    }

    /// Waits for the queue.
    pub(super) fn lock(&self) -> PendingGuard<'_> {
        PendingGuard { queue: self.queue.lock(), set: &self.set }
    }
}

/// The queue of a [`Pending`].
pub(super) struct PendingGuard<'a> {
    queue: MutexGuard<'a, PendingQueue>,
    set: &'a AtomicU64,
}

impl Deref for PendingGuard<'_> {
    type Target = PendingQueue;

    fn deref(&self) -> &PendingQueue {
        &self.queue
    }
}

impl DerefMut for PendingGuard<'_> {
    fn deref_mut(&mut self) -> &mut PendingQueue {
        &mut self.queue
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.set.store(self.queue.set.0, Ordering::SeqCst);
    }
}

/// The signals themselves.
#[derive(Default)]
pub struct PendingQueue {
    set: SigSet,
    /// Oldest first. A signal may be in the set without being here: its details did not fit the limit.
    list: VecDeque<Queued>,
}

impl PendingQueue {
    /// The pending signals.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Whether one more of this signal changes nothing: only realtime signals are counted.
    pub(super) fn coalesces(&self, sig: u8) -> bool {
        sig < SIGRTMIN && self.set.contains(sig)
    }

    /// Adds a signal; without a charge its details are lost.
    pub(super) fn push(&mut self, info: SigInfo, timer: Option<Arc<dyn TimerSignal>>, charge: Option<Charge>) {
        self.set = self.set.with(info.signo);
        if let Some(charge) = charge {
            self.list.push_back(Queued { info, timer, _charge: charge });
        }
    }

    /// What is known of the pending signals, oldest first.
    pub(super) fn infos(&self) -> Vec<SigInfo> {
        self.list.iter().map(|queued| queued.info).collect()
    }

    /// Forgets the signals of a set.
    pub(super) fn discard(&mut self, set: SigSet) {
        self.set = self.set - set;
        self.list.retain(|q| !set.contains(q.info.signo));
    }

    /// Takes the next signal of `wanted`: lowest number first, oldest first among equals; faults before all.
    pub(super) fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let ready = self.set & wanted;
        let sig = (ready & number::SYNCHRONOUS).lowest().or_else(|| ready.lowest())?;
        let Some(at) = self.list.iter().position(|q| q.info.signo == sig) else {
            self.set = self.set.without(sig);
            return Some(SigInfo::lost(sig));
        };
        let queued = self.list.remove(at)?;
        if !self.list.iter().any(|q| q.info.signo == sig) {
            self.set = self.set.without(sig);
        }
        let mut info = queued.info;
        if let (Some(timer), super::SigDetail::Timer { overrun, .. }) = (queued.timer, &mut info.detail) {
            *overrun = timer.taken();
        }
        Some(info)
    }

    /// Takes a fault that the running instruction raised, before any other signal.
    pub(super) fn take_fault(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let ready = self.set & wanted & number::SYNCHRONOUS;
        let at = self.list.iter().position(|q| q.info.code > 0 && ready.contains(q.info.signo))?;
        let info = self.list.remove(at)?.info;
        if !self.list.iter().any(|q| q.info.signo == info.signo) {
            self.set = self.set.without(info.signo);
        }
        Some(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::number::*;
    use crate::signal::{SigDetail, code};

    fn push(queue: &mut PendingQueue, users: &QueuedByUser, sig: u8, value: u64) {
        let detail = SigDetail::Sender { pid: 1, uid: 0, value };
        let info = SigInfo { signo: sig, code: code::SI_QUEUE, errno: 0, detail };
        queue.push(info, None, users.charge(0, 100));
    }

    #[test]
    fn realtime_signals_come_in_order_of_number_then_age() {
        let (mut queue, users) = (PendingQueue::default(), QueuedByUser::default());
        [(40, 1), (34, 2), (40, 3), (34, 4), (SIGUSR1, 5)].iter().for_each(|&(s, v)| push(&mut queue, &users, s, v));
        let mut seen = Vec::new();
        while let Some(info) = queue.take(SigSet::FULL) {
            let SigDetail::Sender { value, .. } = info.detail else { panic!("{info:?}") };
            seen.push((info.signo, value));
        }
        assert_eq!(seen, [(SIGUSR1, 5), (34, 2), (34, 4), (40, 1), (40, 3)]);
        assert!(queue.set().is_empty());
        assert_eq!(users.count(0), 0, "taken signals are no longer charged");
    }

    #[test]
    fn faults_come_first_and_blocked_ones_stay() {
        let (mut queue, users) = (PendingQueue::default(), QueuedByUser::default());
        [SIGHUP, SIGSEGV, SIGUSR2].iter().for_each(|&s| push(&mut queue, &users, s, 0));
        assert_eq!(queue.take(!SigSet::of(&[SIGUSR2])).map(|i| i.signo), Some(SIGSEGV));
        assert_eq!(queue.take(!SigSet::of(&[SIGHUP])).map(|i| i.signo), Some(SIGUSR2));
        assert_eq!(queue.take(!SigSet::of(&[SIGHUP])), None);
        queue.discard(SigSet::of(&[SIGHUP]));
        assert!(queue.set().is_empty());
    }

    #[test]
    fn a_signal_beyond_the_limit_keeps_its_bit_only() {
        let (mut queue, users) = (PendingQueue::default(), QueuedByUser::default());
        assert!(users.charge(0, 0).is_none());
        queue.push(SigInfo::kernel(SIGTERM), None, None);
        assert_eq!(queue.take(SigSet::FULL), Some(SigInfo::lost(SIGTERM)));
        drop(users);
    }
}
