//! Advisory locks: record locks of `fcntl(2)`, of processes and of open file descriptions, and `flock(2)`.

use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::sync::{Mutex, WaitQueue};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Who holds a record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A process, named by its descriptor table.
    Process(usize),
    /// An open file description (`F_OFD_SETLK`).
    Description(usize),
}

/// A record lock on the bytes `start..=end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLock {
    /// Who holds it.
    pub owner: LockOwner,
    /// Process id for `F_GETLK`; -1 for open file descriptions.
    pub pid: i32,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// A write lock, which excludes all others; otherwise a read lock.
    pub exclusive: bool,
}

impl RecordLock {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start <= end && start <= self.end
    }

    fn conflicts(&self, other: &RecordLock) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.overlaps(other.start, other.end)
    }
}

#[derive(Clone, Copy)]
struct Flock {
    file: usize,
    exclusive: bool,
}

#[derive(Default)]
struct State {
    records: Vec<RecordLock>,
    flocks: Vec<Flock>,
    /// Woken when a lock is released.
    released: Arc<WaitQueue>,
}

impl State {
    fn blocker(&self, lock: &RecordLock) -> Option<RecordLock> {
        self.records.iter().find(|r| r.conflicts(lock)).copied()
    }

    /// Frees `start..=end` of an owner's locks, splitting those that reach beyond.
    fn clear(&mut self, owner: LockOwner, start: u64, end: u64) {
        let mut rest = Vec::new();
        self.records.retain(|r| {
            if r.owner != owner || !r.overlaps(start, end) {
                return true;
            }
            if r.start < start {
                rest.push(RecordLock { end: start - 1, ..*r });
            }
            if r.end > end {
                rest.push(RecordLock { start: end + 1, ..*r });
            }
            false
        });
        self.records.extend(rest);
    }

    /// Gives the owner the lock in place of what it held there, and joins it with equal neighbours.
    fn set(&mut self, mut lock: RecordLock) {
        self.clear(lock.owner, lock.start, lock.end);
        self.records.retain(|r| {
            let joins = r.owner == lock.owner
                && r.exclusive == lock.exclusive
                && (r.end.checked_add(1) == Some(lock.start) || lock.end.checked_add(1) == Some(r.start));
            if joins {
                lock.start = lock.start.min(r.start);
                lock.end = lock.end.max(r.end);
            }
            !joins
        });
        let at = self.records.iter().position(|r| r.start > lock.start).unwrap_or(self.records.len());
        self.records.insert(at, lock);
    }
}

/// The locks on one inode.
#[derive(Default)]
pub struct FileLocks {
    /// Most inodes never see a lock.
    state: Mutex<Option<Box<State>>>,
}

/// Processes that sleep for a record lock, and whom for: what deadlocks are found with.
#[derive(Default)]
pub(super) struct LockWaits {
    waits: Mutex<Vec<(LockOwner, LockOwner)>>,
}

impl LockWaits {
    /// Notes that `waiter` will sleep until `blocker` lets go; `EDEADLK` if `blocker` is waiting for `waiter`.
    fn add(&self, waiter: LockOwner, blocker: LockOwner) -> Result<()> {
        let mut waits = self.waits.lock();
        let mut at = blocker;
        // A chain longer than the list would be a cycle among others.
        for _ in 0..=waits.len() {
            match waits.iter().find(|(w, _)| *w == at) {
                Some(&(_, next)) if next == waiter => bail!(EDEADLK),
                Some(&(_, next)) => at = next,
                None => break,
            }
        }
        waits.push((waiter, blocker));
        Ok(())
    }

    /// Whether nobody sleeps.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waits.lock().is_empty()
    }

    fn remove(&self, waiter: LockOwner, blocker: LockOwner) {
        let mut waits = self.waits.lock();
        if let Some(at) = waits.iter().position(|w| *w == (waiter, blocker)) {
            waits.swap_remove(at);
        }
    }
}

impl FileLocks {
    /// The first lock that keeps `lock` from being granted (`F_GETLK`).
    pub fn test(&self, lock: &RecordLock) -> Option<RecordLock> {
        self.state.lock().as_ref().and_then(|s| s.blocker(lock))
    }

    /// Grants a record lock, or says who is in the way.
    fn try_record(&self, lock: &RecordLock) -> core::result::Result<(), (RecordLock, Arc<WaitQueue>)> {
        let mut state = self.state.lock();
        let state = state.get_or_insert_default();
        match state.blocker(lock) {
            Some(blocker) => Err((blocker, state.released.clone())),
            None => {
                // Turning a write lock into a read lock lets others in.
                state.set(*lock);
                state.released.wake_all();
                Ok(())
            }
        }
    }

    /// Sets a record lock; waits for it if `wait`, else `EAGAIN`. `EDEADLK` when waiting would never end.
    pub fn set_record(&self, ctx: &Ctx, lock: RecordLock, wait: bool) -> Result<()> {
        loop {
            let (blocker, released) = match self.try_record(&lock) {
                Ok(()) => return Ok(()),
                Err(_) if !wait => bail!(EAGAIN),
                Err(blocked) => blocked,
            };
            let detect = matches!((lock.owner, blocker.owner), (LockOwner::Process(_), LockOwner::Process(_)));
            let waits = &ctx.kernel.vfs.lock_waits;
            if detect {
                waits.add(lock.owner, blocker.owner)?;
            }
            let result = ctx.wait_for(&released, || match self.test(&lock) {
                Some(now) if now.owner == blocker.owner => None,
                _ => Some(()),
            });
            if detect {
                waits.remove(lock.owner, blocker.owner);
            }
            result?;
        }
    }

    /// Releases an owner's record locks on `start..=end`.
    pub fn clear_record(&self, owner: LockOwner, start: u64, end: u64) {
        if let Some(state) = self.state.lock().as_mut() {
            state.clear(owner, start, end);
            state.released.wake_all();
        }
    }

    /// A process closed a descriptor of the file: all its record locks on the file go (`fcntl(2)`).
    pub fn release_process(&self, table: usize) {
        self.release(|r| r.owner == LockOwner::Process(table), |_| false);
    }

    /// An open file description is gone, and its locks with it.
    pub fn release_file(&self, file: usize) {
        self.release(|r| r.owner == LockOwner::Description(file), |f| f.file == file);
    }

    fn release(&self, record: impl Fn(&RecordLock) -> bool, flock: impl Fn(&Flock) -> bool) {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_mut() else {
            return;
        };
        let before = state.records.len() + state.flocks.len();
        state.records.retain(|r| !record(r));
        state.flocks.retain(|f| !flock(f));
        if state.records.len() + state.flocks.len() != before {
            state.released.wake_all();
        }
    }

    /// `flock(2)` for the open file description `file`; waits if `wait`, else `EWOULDBLOCK`. A lock held before is
    /// given up first, so that converting is not atomic, as on Linux.
    pub fn flock(&self, ctx: &Ctx, file: usize, exclusive: bool, wait: bool) -> Result<()> {
        let attempt = || -> core::result::Result<(), Arc<WaitQueue>> {
            let mut state = self.state.lock();
            let state = state.get_or_insert_default();
            if state.flocks.iter().any(|f| f.file == file && f.exclusive == exclusive) {
                return Ok(());
            }
            let before = state.flocks.len();
            state.flocks.retain(|f| f.file != file);
            if state.flocks.len() != before {
                state.released.wake_all();
            }
            if state.flocks.iter().any(|f| exclusive || f.exclusive) {
                return Err(state.released.clone());
            }
            state.flocks.push(Flock { file, exclusive });
            Ok(())
        };
        match attempt() {
            Ok(()) => Ok(()),
            Err(_) if !wait => bail!(EAGAIN),
            Err(released) => ctx.wait_for(&released, || attempt().ok()),
        }
    }

    /// Gives up a `flock(2)` lock.
    pub fn unflock(&self, file: usize) {
        self.release(|_| false, |f| f.file == file);
    }

    /// All locks, for `/proc/locks`.
    pub fn records(&self) -> Vec<RecordLock> {
        self.state.lock().as_ref().map_or_else(Vec::new, |s| s.records.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: usize, start: u64, end: u64, exclusive: bool) -> RecordLock {
        RecordLock { owner: LockOwner::Process(owner), pid: owner as i32, start, end, exclusive }
    }

    #[test]
    fn unlocking_the_middle_splits() {
        let mut state = State::default();
        state.set(lock(1, 0, 99, true));
        state.clear(LockOwner::Process(1), 40, 59);
        let mut ranges: Vec<_> = state.records.iter().map(|r| (r.start, r.end)).collect();
        ranges.sort_unstable();
        assert_eq!(ranges, [(0, 39), (60, 99)]);
    }

    #[test]
    fn neighbours_of_one_kind_join() {
        let mut state = State::default();
        state.set(lock(1, 0, 9, true));
        state.set(lock(1, 10, 19, true));
        state.set(lock(1, 20, u64::MAX, false));
        assert_eq!(state.records.len(), 2);
        assert_eq!(state.records[0], lock(1, 0, 19, true));
    }

    #[test]
    fn readers_share_and_writers_exclude() {
        let locks = FileLocks::default();
        assert!(locks.try_record(&lock(1, 0, 9, false)).is_ok());
        assert!(locks.try_record(&lock(2, 5, 14, false)).is_ok());
        assert!(locks.try_record(&lock(3, 9, 9, true)).is_err());
        assert!(locks.try_record(&lock(3, 15, 20, true)).is_ok());
        locks.release_process(1);
        assert_eq!(locks.test(&lock(3, 0, 4, true)), None);
        assert_eq!(locks.test(&lock(3, 0, 5, true)).map(|r| r.pid), Some(2));
    }

    #[test]
    fn a_cycle_of_waits_is_a_deadlock() {
        let waits = LockWaits::default();
        let owner = LockOwner::Process;
        assert!(waits.add(owner(1), owner(2)).is_ok());
        assert!(waits.add(owner(2), owner(3)).is_ok());
        assert_eq!(waits.add(owner(3), owner(1)).map_err(|e| e.errno), Err(crate::Errno::EDEADLK));
        waits.remove(owner(1), owner(2));
        assert!(waits.add(owner(3), owner(1)).is_ok());
    }
}
