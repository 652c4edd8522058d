//! Wait queues: how a task sleeps until a condition holds, and how poll and epoll watch many at once.

use super::Mutex;
use crate::host;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// Something that a wait queue can wake: a sleeping task, an epoll item.
pub trait Wake: Send + Sync {
    /// Called with the queue's lock held: must be short and must not use the queue.
    fn wake(&self);

    /// As [`Wake::wake`], where one is enough: false if nobody was there to make use of it.
    fn wake_exclusively(&self) -> bool {
        self.wake();
        true
    }
}

/// One sleeper: a word to sleep on. Each task has one; signals wake it as well.
#[derive(Default)]
pub struct Waiter {
    woken: AtomicU32,
}

impl Waiter {
    /// A waiter that nobody has woken.
    pub const fn new() -> Waiter {
        Waiter { woken: AtomicU32::new(0) }
    }

    /// Forgets earlier wake-ups; call before looking at the condition for the last time.
    pub fn prepare(&self) {
        self.woken.store(0, Ordering::SeqCst);
    }

    /// Sleeps until woken since [`Waiter::prepare`], or until `deadline` (CLOCK_MONOTONIC, absolute, nanoseconds).
    /// May return early. True if woken.
    pub fn sleep(&self, deadline: Option<u64>) -> bool {
        if self.woken.load(Ordering::SeqCst) == 0 {
            host::futex_sleep(&self.woken, 0, deadline);
        }
        self.woken.load(Ordering::SeqCst) != 0
    }
}

impl Wake for Waiter {
    fn wake(&self) {
        if self.woken.swap(1, Ordering::SeqCst) == 0 {
            host::futex_wake(&self.woken, 1);
        }
    }
}

/// The sleepers that one event wakes. Kept in an `Arc` by what it belongs to, so that a poll can hold on to it.
#[derive(Default)]
pub struct WaitQueue {
    /// Mirrors the list's length, so that waking an empty queue takes no lock.
    len: AtomicU32,
    sleepers: Mutex<Vec<Sleeper>>,
}

struct Sleeper {
    wake: Arc<dyn Wake>,
    /// Of these, one is enough ([`WaitQueue::wake_one`]).
    exclusive: bool,
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> WaitQueue {
        WaitQueue { len: AtomicU32::new(0), sleepers: Mutex::new(Vec::new()) }
    }

    /// Adds a sleeper. It stays until [`WaitQueue::remove`].
    pub fn add(&self, sleeper: Arc<dyn Wake>) {
        self.add_sleeper(Sleeper { wake: sleeper, exclusive: false });
    }

    /// Whether anybody sleeps.
    pub fn has_sleepers(&self) -> bool {
        self.len.load(Ordering::SeqCst) > 0
    }

    fn add_sleeper(&self, sleeper: Sleeper) {
        let mut sleepers = self.sleepers.lock();
        sleepers.push(sleeper);
        self.len.store(sleepers.len() as u32, Ordering::SeqCst);
    }

    /// Removes a sleeper that was added.
    pub fn remove(&self, sleeper: &Arc<dyn Wake>) {
        let mut sleepers = self.sleepers.lock();
        if let Some(at) = sleepers.iter().position(|s| Arc::ptr_eq(&s.wake, sleeper)) {
            sleepers.remove(at);
        }
        self.len.store(sleepers.len() as u32, Ordering::SeqCst);
    }

    /// Wakes everyone. The caller has already changed what they wait for.
    pub fn wake_all(&self) {
        if self.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.sleepers.lock().iter().for_each(|s| s.wake.wake());
    }

    /// As [`WaitQueue::wake_all`], for what one of those who sleep exclusively (`EPOLLEXCLUSIVE`) can deal with: of them,
    /// only the first who is there is woken.
    pub fn wake_one(&self) {
        if !self.has_sleepers() {
            return;
        }
        let mut dealt_with = false;
        for sleeper in self.sleepers.lock().iter() {
            match sleeper.exclusive {
                false => sleeper.wake.wake(),
                true => dealt_with = dealt_with || sleeper.wake.wake_exclusively(),
            }
        }
    }
}

/// The queues that one poll, select or epoll call has put its waiter on; takes it off them when dropped.
pub struct PollTable {
    /// Who hears of input, or of anything else.
    sleeper: Arc<dyn Wake>,
    /// Who hears of room for output.
    for_output: Arc<dyn Wake>,
    /// One of those who sleep so is enough.
    exclusive: bool,
    /// The two are not the same: only what is news of data or room is of interest.
    directed: bool,
    /// The queues, with whether they are for output.
    queues: Vec<(Arc<WaitQueue>, bool)>,
}

impl PollTable {
    /// An empty table for a sleeper.
    pub fn new(sleeper: Arc<dyn Wake>) -> PollTable {
        PollTable::with(sleeper.clone(), sleeper, false, false)
    }

    /// An empty table for a sleeper that is one of several for the same (`EPOLLEXCLUSIVE`).
    pub fn exclusive(sleeper: Arc<dyn Wake>) -> PollTable {
        PollTable::with(sleeper.clone(), sleeper, true, false)
    }

    fn with(sleeper: Arc<dyn Wake>, for_output: Arc<dyn Wake>, exclusive: bool, directed: bool) -> PollTable {
        PollTable { sleeper, for_output, exclusive, directed, queues: Vec::new() }
    }

    /// An empty table for a sleeper that hears of input and one that hears of room for output.
    pub fn directed(input: Arc<dyn Wake>, output: Arc<dyn Wake>) -> PollTable {
        PollTable::with(input, output, false, true)
    }

    /// Puts the sleeper on a queue. Called by a file's `poll` before it looks at its state.
    pub fn register(&mut self, queue: &Arc<WaitQueue>) {
        queue.add_sleeper(Sleeper { wake: self.sleeper.clone(), exclusive: self.exclusive });
        self.queues.push((queue.clone(), false));
    }

    /// As [`PollTable::register`], on a queue that is woken by other changes of the file's state: a connection is there, say.
    pub fn register_state(&mut self, queue: &Arc<WaitQueue>) {
        if !self.directed {
            self.register(queue);
        }
    }

    /// As [`PollTable::register`], on a queue that is woken when there is room for output.
    pub fn register_output(&mut self, queue: &Arc<WaitQueue>) {
        queue.add_sleeper(Sleeper { wake: self.for_output.clone(), exclusive: self.exclusive });
        self.queues.push((queue.clone(), true));
    }
}

impl Drop for PollTable {
    fn drop(&mut self) {
        for (queue, output) in &self.queues {
            queue.remove(if *output { &self.for_output } else { &self.sleeper });
        }
    }
}
