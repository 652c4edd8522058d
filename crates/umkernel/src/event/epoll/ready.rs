//! The ready list of a set, and the wakers that put members on it.

use crate::sync::{Mutex, WaitQueue, Wake};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Members that may have something to report, by their ids, each at most once.
///
/// Wakers hold it rather than the set: they run under the locks of other queues, where a set must not be destroyed.
#[derive(Default)]
pub(super) struct ReadyList {
    ids: Mutex<Ids>,
    /// Sleepers in `epoll_wait(2)`.
    pub(super) waiting: Arc<WaitQueue>,
    /// Polls of the set itself, and sets that it is a member of.
    pub(super) polled: Arc<WaitQueue>,
}

#[derive(Default)]
struct Ids {
    order: VecDeque<u64>,
    present: BTreeSet<u64>,
}

impl ReadyList {
    fn add(&self, id: u64) {
        let mut ids = self.ids.lock();
        if ids.present.insert(id) {
            ids.order.push_back(id);
        }
    }

    /// Number of members on the list.
    pub(super) fn len(&self) -> usize {
        self.ids.lock().order.len()
    }

    /// The members on the list.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.ids.lock().order.iter().copied().collect()
    }

    /// Takes the first member.
    pub(super) fn take(&self) -> Option<u64> {
        let mut ids = self.ids.lock();
        let id = ids.order.pop_front()?;
        ids.present.remove(&id);
        Some(id)
    }
}

/// Puts one member on the list.
pub(super) struct Waker {
    id: u64,
    list: Arc<ReadyList>,
}

impl Waker {
    pub(super) fn new(id: u64, list: Arc<ReadyList>) -> Waker {
        Waker { id, list }
    }

    /// Puts the member back on the list without waking anyone.
    pub(super) fn put_back(&self) {
        self.list.add(self.id);
    }
}

impl Wake for Waker {
    fn wake(&self) {
        self.list.add(self.id);
        self.list.waiting.wake_all();
        self.list.polled.wake_all();
    }

    fn wake_exclusively(&self) -> bool {
        let somebody = self.list.waiting.has_sleepers() || self.list.polled.has_sleepers();
        self.wake();
        somebody
    }
}
