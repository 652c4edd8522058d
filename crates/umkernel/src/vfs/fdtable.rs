//! Descriptor tables, and what path walks start from.

use super::{File, Location, OpenFlags};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::task::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::sync::atomic::{Ordering, fence};

/// Descriptors that one word of the map of used ones holds.
const WORD: usize = u64::BITS as usize;

/// A process's descriptors.
#[derive(Default)]
pub struct FdTable {
    slots: Mutex<Slots>,
}

#[derive(Clone, Default)]
struct Slots {
    files: Vec<Option<Slot>>,
    /// One bit for each descriptor in use.
    used: Vec<u64>,
    /// No descriptor below is free.
    lowest: usize,
}

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

impl Slots {
    /// The lowest free descriptor that is at least `from`.
    fn free(&self, from: usize) -> usize {
        let from = from.max(self.lowest);
        let mut word = from / WORD;
        let mut mask = u64::MAX << (from % WORD);
        while let Some(used) = self.used.get(word) {
            let free = !used & mask;
            if free != 0 {
                return word * WORD + free.trailing_zeros() as usize;
            }
            mask = u64::MAX;
            word += 1;
        }
        from.max(self.used.len() * WORD)
    }

    fn put(&mut self, fd: usize, slot: Slot) -> Option<Arc<File>> {
        if fd >= self.files.len() {
            self.files.resize((fd + 1).next_power_of_two().max(WORD), None);
            self.used.resize(self.files.len().div_ceil(WORD), 0);
        }
        self.used[fd / WORD] |= 1 << (fd % WORD);
        if fd == self.lowest {
            self.lowest += 1;
        }
        self.files[fd].replace(slot).map(|s| s.file)
    }

    fn take(&mut self, fd: usize) -> Option<Arc<File>> {
        let slot = self.files.get_mut(fd)?.take()?;
        self.used[fd / WORD] &= !(1 << (fd % WORD));
        self.lowest = self.lowest.min(fd);
        Some(slot.file)
    }

    fn get(&self, fd: i32) -> Result<&Slot> {
        let slot = usize::try_from(fd).ok().and_then(|fd| self.files.get(fd)).and_then(Option::as_ref);
        slot.ok_or(Errno::EBADF.into())
    }
}

impl FdTable {
    /// The open file behind a descriptor; `EBADF` if there is none, or only a place (`O_PATH`).
    pub fn get(&self, fd: i32) -> Result<Arc<File>> {
        let file = self.get_or_path(fd)?;
        opened(&file).map(|()| file)
    }

    /// As [`FdTable::get`], also one that is only a place (`O_PATH`).
    pub fn get_or_path(&self, fd: i32) -> Result<Arc<File>> {
        self.slots.lock().get(fd).map(|s| s.file.clone())
    }

    /// Whether a descriptor is closed by exec (`fcntl(F_GETFD)`).
    pub fn close_on_exec_of(&self, fd: i32) -> Result<bool> {
        self.slots.lock().get(fd).map(|s| s.close_on_exec)
    }

    /// Sets whether a descriptor is closed by exec (`fcntl(F_SETFD)`).
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<()> {
        let mut slots = self.slots.lock();
        slots.get(fd)?;
        if let Some(Some(slot)) = slots.files.get_mut(fd as usize) {
            slot.close_on_exec = on;
        }
        Ok(())
    }

    /// `EMFILE` unless a descriptor below `limit` (`RLIMIT_NOFILE`) is free.
    pub fn check_room(&self, limit: u64) -> Result<()> {
        if self.slots.lock().free(0) as u64 >= limit { Err(Errno::EMFILE.into()) } else { Ok(()) }
    }

    /// Puts a file on the lowest free descriptor that is at least `from` and below `limit` (`RLIMIT_NOFILE`); `EMFILE`
    /// if there is none.
    pub fn insert(&self, file: Arc<File>, close_on_exec: bool, from: usize, limit: u64) -> Result<i32> {
        let mut slots = self.slots.lock();
        let free = slots.free(from);
        if free as u64 >= limit {
            return Err(Errno::EMFILE.into());
        }
        slots.put(free, Slot { file, close_on_exec });
        Ok(free as i32)
    }

    /// Puts a file on a given descriptor (`dup2(2)`); what was there is returned, to be closed by [`FdTable::closed`].
    pub fn replace<'a>(&self, ctx: &Ctx<'a>, fd: usize, file: Arc<File>, close_on_exec: bool) -> Option<TakenFile<'a>> {
        let old = self.slots.lock().put(fd, Slot { file, close_on_exec });
        old.map(|old| TakenFile::new(ctx, old))
    }

    /// Takes a descriptor's file out of the table, to be closed by [`FdTable::closed`].
    pub fn remove<'a>(&self, ctx: &Ctx<'a>, fd: i32) -> Result<TakenFile<'a>> {
        let fd = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let file = self.slots.lock().take(fd).ok_or(Errno::EBADF)?;
        Ok(TakenFile::new(ctx, file))
    }

    /// Takes out all descriptors in `first..=last`.
    pub fn remove_range<'a>(&self, ctx: &Ctx<'a>, first: usize, last: usize) -> Vec<TakenFile<'a>> {
        let mut slots = self.slots.lock();
        let last = last.min(slots.files.len().saturating_sub(1));
        (first..=last).filter_map(|fd| slots.take(fd)).map(|file| TakenFile::new(ctx, file)).collect()
    }

    /// Marks all descriptors in `first..=last` as closed by exec.
    pub fn mark_range(&self, first: usize, last: usize) {
        let mut slots = self.slots.lock();
        let end = last.saturating_add(1).min(slots.files.len());
        if let Some(range) = slots.files.get_mut(first..end) {
            range.iter_mut().flatten().for_each(|s| s.close_on_exec = true);
        }
    }

    /// What closing a descriptor of `file` means besides dropping it: the process's record locks on the file go.
    pub fn closed(&self, file: &File) {
        if let Some(common) = file.inode.common() {
            common.locks.release_process(self.lock_owner());
        }
    }

    /// Names the process in record locks.
    pub fn lock_owner(&self) -> usize {
        self as *const FdTable as usize
    }

    /// The descriptors in use, in order: `/proc/PID/fd`.
    pub fn descriptors(&self) -> Vec<i32> {
        let slots = self.slots.lock();
        slots.files.iter().enumerate().filter(|(_, s)| s.is_some()).map(|(fd, _)| fd as i32).collect()
    }

    /// Size of the table: `FDSize` of `/proc/PID/status`.
    pub fn size(&self) -> usize {
        self.slots.lock().files.len()
    }

    /// A copy of the table: fork, `unshare(CLONE_FILES)`.
    pub fn duplicate(&self) -> FdTable {
        FdTable { slots: Mutex::new(self.slots.lock().clone()) }
    }

    /// Closes everything: the end of the last task that has the table.
    pub fn close_all(&self, ctx: &Ctx) {
        let files = core::mem::take(&mut *self.slots.lock()).files;
        for slot in files.into_iter().flatten() {
            let file = TakenFile::new(ctx, slot.file);
            self.closed(&file);
            if let Some(ops) = &file.ops {
                // The process is ending: nobody is left to be told.
                let _ = ops.flush(ctx, &file);
            }
        }
    }

    /// Closes what is close-on-exec and returns it, to be dropped outside locks.
    pub fn close_on_exec<'a>(&self, ctx: &Ctx<'a>) -> Vec<TakenFile<'a>> {
        let mut slots = self.slots.lock();
        let closing = (0..slots.files.len()).filter(|&fd| slots.files[fd].as_ref().is_some_and(|s| s.close_on_exec));
        let closing: Vec<usize> = closing.collect();
        let taken = closing.into_iter().filter_map(|fd| slots.take(fd));
        let files: Vec<TakenFile> = taken.map(|file| TakenFile::new(ctx, file)).collect();
        drop(slots);
        for file in &files {
            self.closed(file);
            if let Some(ops) = &file.ops {
                // The old program is gone: nobody is left to be told.
                let _ = ops.flush(ctx, file);
            }
        }
        files
    }
}

/// Refuses what is not open, but only a place.
fn opened(file: &File) -> Result<()> {
    if file.flags().contains(OpenFlags::PATH) {
        bail!(EBADF, "open as a path only");
    }
    Ok(())
}

impl<'a> Ctx<'a> {
    /// Gives a file the lowest free descriptor of the running task.
    ///
    /// # Errors
    /// `EMFILE` where `RLIMIT_NOFILE` allows no more.
    pub fn install(&self, file: Arc<File>, close_on_exec: bool) -> Result<i32> {
        let limit = self.task.process.limit(linux_raw_sys::general::RLIMIT_NOFILE as usize);
        self.files().insert(file, close_on_exec, 0, limit)
    }

    /// The open file behind a descriptor of the running task; `EBADF` if there is none, or only a place (`O_PATH`).
    pub fn file(&self, fd: i32) -> Result<FileRef<'a>> {
        let file = self.file_or_path(fd)?;
        opened(&file).map(|()| file)
    }

    /// As [`Ctx::file`], also one that is only a place (`O_PATH`): for the few calls that take those (`open(2)`).
    pub fn file_or_path(&self, fd: i32) -> Result<FileRef<'a>> {
        // SAFETY: this thread runs the task, and the reference does not outlive this function.
        let table = unsafe { self.task.files.own() };
        if Arc::strong_count(table) != 1 {
            return Ok(FileRef { file: ManuallyDrop::new(table.get_or_path(fd)?), looker: None });
        }
        // What others did with the table is done.
        fence(Ordering::Acquire);
        // SAFETY: the table is this task's alone: nobody else changes it, and this thread does not meanwhile.
        let file = &unsafe { table.slots.unlocked() }.get(fd)?.file;
        self.task.begin_look();
        // SAFETY: a second pointer that is never dropped. The table's own one stays: see `TakenFile`.
        Ok(FileRef { file: ManuallyDrop::new(unsafe { core::ptr::read(file) }), looker: Some(self.task) })
    }
}

/// An open file that the running task looks at: without a reference of its own, if the descriptor table is the task's alone.
pub struct FileRef<'a> {
    file: ManuallyDrop<Arc<File>>,
    /// The task, if the pointer is a copy of its table's.
    looker: Option<&'a Task>,
}

impl FileRef<'_> {
    /// Whether nobody else can come by the file before this is dropped: what only serves to keep others out may be left out.
    pub(super) fn is_alone(&self) -> bool {
        self.looker.is_some() && Arc::strong_count(&self.file) == 1
    }
}

impl Deref for FileRef<'_> {
    type Target = Arc<File>;

    fn deref(&self) -> &Arc<File> {
        &self.file
    }
}

impl Drop for FileRef<'_> {
    fn drop(&mut self) {
        match self.looker {
            Some(task) => task.end_look(),
            // SAFETY: the pointer is not used any more.
            None => unsafe { ManuallyDrop::drop(&mut self.file) },
        }
    }
}

/// A file that the running task has taken out of its table. It may be looking at it: then the file stays until the call is over.
pub struct TakenFile<'a> {
    file: Arc<File>,
    task: &'a Task,
}

impl<'a> TakenFile<'a> {
    fn new(ctx: &Ctx<'a>, file: Arc<File>) -> TakenFile<'a> {
        TakenFile { file, task: ctx.task }
    }
}

impl Deref for TakenFile<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for TakenFile<'_> {
    fn drop(&mut self) {
        if self.task.is_looking() {
            self.task.keep(self.file.clone());
        }
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let files = core::mem::take(&mut self.slots.get_mut().files);
        files.iter().flatten().for_each(|slot| self.closed(&slot.file));
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
