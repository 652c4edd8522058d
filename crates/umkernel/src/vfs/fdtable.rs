//! Descriptor tables, and what path walks start from.

use super::{File, Location};
use crate::errno::{Errno, Result};
use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A process's descriptors.
#[derive(Default)]
pub struct FdTable {
    slots: Mutex<Vec<Option<Slot>>>,
}

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

impl FdTable {
    /// The open file behind a descriptor; `EBADF` if there is none.
    pub fn get(&self, fd: i32) -> Result<Arc<File>> {
        let slots = self.slots.lock();
        let slot = usize::try_from(fd).ok().and_then(|fd| slots.get(fd)).and_then(Option::as_ref);
        slot.map(|s| s.file.clone()).ok_or(Errno::EBADF.into())
    }

    /// Puts a file on the lowest free descriptor that is at least `from` and below `limit` (`RLIMIT_NOFILE`); `EMFILE`
    /// if there is none.
    pub fn insert(&self, file: Arc<File>, close_on_exec: bool, from: usize, limit: u64) -> Result<i32> {
        let mut slots = self.slots.lock();
        let free = (from..slots.len()).find(|&i| slots[i].is_none()).unwrap_or(from.max(slots.len()));
        if free as u64 >= limit {
            return Err(Errno::EMFILE.into());
        }
        if free >= slots.len() {
            slots.resize(free + 1, None);
        }
        slots[free] = Some(Slot { file, close_on_exec });
        Ok(free as i32)
    }

    /// A copy of the table: fork, `unshare(CLONE_FILES)`.
    pub fn duplicate(&self) -> FdTable {
        FdTable { slots: Mutex::new(self.slots.lock().clone()) }
    }

    /// Closes everything: the end of the last task that has the table.
    pub fn close_all(&self, _ctx: &crate::Ctx) {
        let all = core::mem::take(&mut *self.slots.lock());
        drop(all);
    }

    /// Closes what is close-on-exec and returns it, to be dropped outside locks.
    pub fn close_on_exec(&self) -> Vec<Arc<File>> {
        let mut slots = self.slots.lock();
        slots.iter_mut().filter_map(|s| s.take_if(|s| s.close_on_exec).map(|s| s.file)).collect()
    }
}

/// Where path walks start, and what new files may not be allowed (`umask(2)`); shared with `CLONE_FS`.
pub struct FsContext {
    /// The changeable part.
    pub inner: Mutex<FsInner>,
}

/// The changeable part of an [`FsContext`].
#[derive(Clone)]
pub struct FsInner {
    /// Root directory (`chroot(2)`).
    pub root: Location,
    /// Working directory.
    pub cwd: Location,
    /// Permission bits that new files do not get.
    pub umask: u32,
}

impl FsContext {
    /// A copy: fork without `CLONE_FS`.
    pub fn duplicate(&self) -> FsContext {
        FsContext { inner: Mutex::new(self.inner.lock().clone()) }
    }
}
