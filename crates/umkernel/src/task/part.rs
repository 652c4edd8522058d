//! What a task has a part in: its memory, descriptors, credentials, directories and namespaces.
//!
//! As on Linux, only the task itself replaces these (exec, exit, `unshare(2)`, `setuid(2)`), so it looks at them as they stand, without a
//! lock and without counting a reference; everybody else takes a [`Part`]'s lock. What a task replaces in a call, it may still be looking at:
//! that stays until the call is over ([`Task::drop_kept`]).

use super::{Creds, Task};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::AddressSpace;
use crate::ns::Namespaces;
use crate::sync::Mutex;
use crate::vfs::{FdTable, FsContext};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::UnsafeCell;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A pointer that one task replaces and all may read.
pub struct Part<P> {
    lock: Mutex<()>,
    pointer: UnsafeCell<P>,
}

// SAFETY: others than the task read under the lock, which the task takes to write.
unsafe impl<P: Send + Sync> Sync for Part<P> {}

impl<P> Part<P> {
    /// A part in what `pointer` points to.
    pub fn new(pointer: P) -> Part<P> {
        Part { lock: Mutex::new(()), pointer: UnsafeCell::new(pointer) }
    }

    /// Calls `f` with the pointer, for any task.
    pub fn with<T>(&self, f: impl FnOnce(&P) -> T) -> T {
        let _lock = self.lock.lock();
        // SAFETY: it is replaced under the lock only.
        f(unsafe { &*self.pointer.get() })
    }

    /// The pointer as it stands, for the task itself.
    ///
    /// # Safety
    /// Only for the thread that runs the task, and no longer than until the task replaces the pointer.
    pub(crate) unsafe fn own(&self) -> &P {
        // SAFETY: nobody else replaces it.
        unsafe { &*self.pointer.get() }
    }

    /// Replaces the pointer and returns the old one.
    ///
    /// # Safety
    /// Only for the thread that runs the task, or before the task runs; nothing that [`Part::own`] gave is in use.
    pub(crate) unsafe fn replace(&self, new: P) -> P {
        let _lock = self.lock.lock();
        // SAFETY: the caller's promise, and the lock.
        mem::replace(unsafe { &mut *self.pointer.get() }, new)
    }
}

#[cfg(any(test, fuzzing))]
impl<P> Part<P> {
    /// Replaces the pointer of a task that a test has made and that runs nowhere else.
    pub(crate) fn set(&self, new: P) {
        // SAFETY: a test's own task.
        drop(unsafe { self.replace(new) });
    }
}

impl<P: Clone> Part<P> {
    /// A copy of the pointer, for any task.
    pub fn get(&self) -> P {
        self.with(P::clone)
    }
}

/// What a task looks at in its call, and what it keeps for that reason.
#[derive(Default)]
pub struct Looks {
    /// Files of the task's own table that are looked at without a reference. Only the task changes it.
    files: AtomicU32,
    kept: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    keeps: AtomicBool,
}

impl Task {
    /// The running task begins to look at a file of its table.
    pub(crate) fn begin_look(&self) {
        self.looks.files.store(self.looks.files.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// And ends it.
    pub(crate) fn end_look(&self) {
        self.looks.files.store(self.looks.files.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// Whether the running task looks at files of its table.
    pub(crate) fn is_looking(&self) -> bool {
        self.looks.files.load(Ordering::Relaxed) != 0
    }

    /// Keeps something until the call is over.
    pub(crate) fn keep(&self, thing: Arc<dyn Any + Send + Sync>) {
        self.looks.kept.lock().push(thing);
        self.looks.keeps.store(true, Ordering::Relaxed);
    }

    /// Drops what was kept.
    ///
    /// # Safety
    /// Only for the thread that runs the task, when the call is over: nothing that it looked at is in use.
    pub(crate) unsafe fn drop_kept(&self) {
        if self.looks.keeps.load(Ordering::Relaxed) {
            self.looks.keeps.store(false, Ordering::Relaxed);
            drop(mem::take(&mut *self.looks.kept.lock()));
        }
    }
}

/// What the running task has a part in.
impl<'a> Ctx<'a> {
    /// Its memory; `ESRCH` for a task without.
    pub fn mm(&self) -> Result<&'a AddressSpace> {
        // SAFETY: this thread runs the task, which gives its memory up at the end of exec and exit only.
        unsafe { self.task.mm.own() }.as_deref().ok_or(Errno::ESRCH.into())
    }

    /// Its descriptors.
    pub fn files(&self) -> &'a FdTable {
        // SAFETY: this thread runs the task; what it replaces is kept until the call is over.
        unsafe { self.task.files.own() }
    }

    /// Its credentials.
    pub fn creds(&self) -> &'a Creds {
        // SAFETY: as for `files`.
        unsafe { self.task.creds.own() }
    }

    /// Its root, working directory and umask.
    pub fn fs(&self) -> &'a FsContext {
        // SAFETY: as for `files`.
        unsafe { self.task.fs.own() }
    }

    /// The namespaces that it is in; the machine's first ones for a task that has given its own up.
    pub fn namespaces(&self) -> &'a Namespaces {
        // SAFETY: as for `files`.
        let own = unsafe { self.task.namespaces.own() };
        own.as_deref().unwrap_or(&self.kernel.namespaces.initial)
    }

    /// Gives the task other descriptors.
    pub fn set_files(&self, files: Arc<FdTable>) {
        // SAFETY: this thread runs the task; what it may look at is kept.
        self.task.keep(unsafe { self.task.files.replace(files) });
    }

    /// Gives the task other credentials.
    pub fn set_creds(&self, creds: Creds) {
        // SAFETY: as in `set_files`.
        self.task.keep(unsafe { self.task.creds.replace(Arc::new(creds)) });
    }

    /// Gives the task another root, working directory and umask.
    pub fn set_fs(&self, fs: Arc<FsContext>) {
        // SAFETY: as in `set_files`.
        self.task.keep(unsafe { self.task.fs.replace(fs) });
    }

    /// Brings the task into other namespaces.
    pub fn set_namespaces(&self, namespaces: Arc<Namespaces>) {
        // SAFETY: as in `set_files`.
        let old = unsafe { self.task.namespaces.replace(Some(namespaces)) };
        if let Some(old) = old {
            self.task.keep(old);
        }
    }
}
