//! Telling of what happens to files (`inotify(7)`): marks on inodes, and the groups of marks that hear of it.
//!
//! A group is what an inotify descriptor stands for. Its marks hang on the inodes, which it keeps in memory. What
//! happens to a file is told to marks on the directory that has its name, with the name, and to marks on the file itself.

use super::{FileType, InodeRef, Location, Vfs};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::{Mutex, WaitQueue};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

bitflags::bitflags! {
    /// What happened, and what a mark is to hear of (`IN_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Events: u32 {
        /// It was read.
        const ACCESS = 0x1;
        /// Its contents changed.
        const MODIFY = 0x2;
        /// Its attributes changed.
        const ATTRIB = 0x4;
        /// It was closed that was open for writing.
        const CLOSE_WRITE = 0x8;
        /// It was closed that was not open for writing.
        const CLOSE_NOWRITE = 0x10;
        /// It was opened.
        const OPEN = 0x20;
        /// A name moved away.
        const MOVED_FROM = 0x40;
        /// A name came.
        const MOVED_TO = 0x80;
        /// A name was made.
        const CREATE = 0x100;
        /// A name was removed.
        const DELETE = 0x200;
        /// The marked file itself was removed.
        const DELETE_SELF = 0x400;
        /// The marked file itself was renamed.
        const MOVE_SELF = 0x800;
        /// Its file system is gone.
        const UNMOUNT = 0x2000;
        /// Events were lost.
        const Q_OVERFLOW = 0x4000;
        /// The mark is gone.
        const IGNORED = 0x8000;
        /// What it happened to is a directory.
        const ISDIR = 0x4000_0000;
        /// Not of a mark's events, but how it behaves: nothing of names that were removed.
        const EXCL_UNLINK = 0x400_0000;
        /// Gone after one event.
        const ONESHOT = 0x8000_0000;
        /// All that a mark can ask for.
        const ALL = 0xfff;
    }
}

/// Marks there are: while there is none, nothing is to be told to anybody.
static MARKED: AtomicUsize = AtomicUsize::new(0);
/// Connects the two events of a name that moves.
static COOKIE: AtomicU32 = AtomicU32::new(0);

/// The marks on an inode.
#[derive(Default)]
pub(super) struct Marks(Mutex<Vec<Mark>>);

struct Mark {
    group: Weak<Group>,
    number: i32,
    events: Events,
}

/// An event for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The mark's number (`wd`), -1 for lost events.
    pub number: i32,
    /// What happened.
    pub events: Events,
    /// Connects events of one move.
    pub cookie: u32,
    /// The name in the directory that is marked; empty for what happened to the marked file itself.
    pub name: Vec<u8>,
}

/// Marks that one reader hears of.
pub struct Group {
    /// Whose it is: what the limits count by.
    uid: u32,
    /// The most events that wait for the reader.
    queue_max: usize,
    inner: Mutex<Inner>,
    /// Woken when there is an event.
    pub readable: Arc<WaitQueue>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Event>,
    /// The inodes marked, by number.
    marked: BTreeMap<i32, InodeRef>,
    last: i32,
}

/// How [`Group::mark`] treats a mark that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The new events replace its own.
    Replace,
    /// They are added (`IN_MASK_ADD`).
    Add,
    /// `EEXIST` (`IN_MASK_CREATE`).
    Refuse,
}

impl Group {
    /// Marks an inode and gives the mark's number.
    ///
    /// # Errors
    /// `EEXIST`, `EOPNOTSUPP` for files that the kernel makes up (`/proc`, `/sys`), `ENOSPC` by the user's limit of marks.
    pub fn mark(self: &Arc<Self>, ctx: &Ctx, inode: &InodeRef, events: Events, existing: Existing) -> Result<i32> {
        let Some(common) = inode.common() else {
            bail!(EOPNOTSUPP, "files that the kernel makes up tell of nothing");
        };
        // Counted ahead: a group that ends meanwhile takes its marks off inodes, this one perhaps.
        let marks_of_user = ctx.kernel.vfs.marks_of_user(self.uid);
        let mut marks = common.marks.0.lock();
        if let Some(mark) = marks.iter_mut().find(|mark| mark.is_of(self)) {
            match existing {
                Existing::Replace => mark.events = events,
                Existing::Add => mark.events |= events,
                Existing::Refuse => bail!(EEXIST),
            }
            return Ok(mark.number);
        }
        if marks_of_user as u64 >= ctx.kernel.settings.inotify_user_watches.get() {
            bail!(ENOSPC, "fs.inotify.max_user_watches");
        }
        let mut inner = self.inner.lock();
        let number = inner.last.checked_add(1).ok_or(Errno::ENOSPC)?;
        inner.last = number;
        inner.marked.insert(number, inode.clone());
        drop(inner);
        marks.push(Mark { group: Arc::downgrade(self), number, events });
        MARKED.fetch_add(1, Ordering::Relaxed);
        Ok(number)
    }

    /// Takes a mark away; the reader is told (`IN_IGNORED`).
    ///
    /// # Errors
    /// `EINVAL` when there is none of this number.
    pub fn unmark(&self, number: i32) -> Result<()> {
        let Some(inode) = self.inner.lock().marked.remove(&number) else { bail!(EINVAL, "no such mark") };
        self.forget(&inode);
        self.put(number, Events::IGNORED, 0, &[]);
        Ok(())
    }

    /// Takes this group's mark off an inode.
    fn forget(&self, inode: &InodeRef) {
        let Some(common) = inode.common() else { return };
        let mut marks = common.marks.0.lock();
        let before = marks.len();
        marks.retain(|mark| !core::ptr::eq(mark.group.as_ptr(), self));
        MARKED.fetch_sub(before - marks.len(), Ordering::Relaxed);
    }

    fn put(&self, number: i32, events: Events, cookie: u32, name: &[u8]) {
        let mut inner = self.inner.lock();
        let same = |last: &Event| {
            (last.number, last.events, last.cookie, last.name.as_slice()) == (number, events, cookie, name)
        };
        // An event like the last one says nothing new.
        if inner.queue.back().is_some_and(same) {
            return;
        }
        match inner.queue.len() {
            len if len < self.queue_max => inner.queue.push_back(Event { number, events, cookie, name: name.to_vec() }),
            len if len == self.queue_max => {
                let lost = Event { number: -1, events: Events::Q_OVERFLOW, cookie: 0, name: Vec::new() };
                inner.queue.push_back(lost);
            }
            _ => return,
        }
        drop(inner);
        self.readable.wake_all();
    }

    /// Takes the events for which `fits` says that there is room, one after the other; none, and no events, when there are none.
    pub fn take(&self, mut fits: impl FnMut(&Event) -> bool) -> Option<Vec<Event>> {
        let mut inner = self.inner.lock();
        inner.queue.front()?;
        let mut taken = Vec::new();
        while inner.queue.front().is_some_and(&mut fits) {
            taken.extend(inner.queue.pop_front());
        }
        Some(taken)
    }

    /// What `look` makes of the events that wait.
    pub fn waiting<T>(&self, look: impl FnOnce(&VecDeque<Event>) -> T) -> T {
        look(&self.inner.lock().queue)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let marked = core::mem::take(&mut self.inner.get_mut().marked);
        marked.values().for_each(|inode| self.forget(inode));
    }
}

impl Mark {
    fn is_of(&self, group: &Arc<Group>) -> bool {
        core::ptr::eq(self.group.as_ptr(), Arc::as_ptr(group))
    }
}

/// Whether anybody wants to hear of anything.
pub fn wanted() -> bool {
    MARKED.load(Ordering::Relaxed) > 0
}

/// What happened to an inode: as a name of a directory that is marked, or itself.
struct Happened<'a> {
    events: Events,
    cookie: u32,
    name: &'a [u8],
    unlinked: bool,
}

impl Happened<'_> {
    fn tell(&self, inode: &InodeRef) {
        let Some(common) = inode.common() else { return };
        let hears = |mark: &Mark| {
            mark.events.intersects(self.events - Events::ISDIR)
                && !(self.unlinked && mark.events.contains(Events::EXCL_UNLINK))
        };
        let mut heard = Vec::new();
        for mark in common.marks.0.lock().iter().filter(|mark| hears(mark)) {
            heard.extend(mark.group.upgrade().map(|group| (group, mark.number, mark.events)));
        }
        for (group, number, mark) in heard {
            group.put(number, self.events, self.cookie, self.name);
            if mark.contains(Events::ONESHOT) {
                let _ = group.unmark(number);
            }
        }
    }
}

fn with_kind(events: Events, file_type: FileType) -> Events {
    if file_type == FileType::Directory { events | Events::ISDIR } else { events }
}

/// Something happened to what is at a place: its directory and itself hear of it.
pub fn at(location: &Location, events: Events) {
    if !wanted() {
        return;
    }
    let dentry = &location.dentry;
    let events = with_kind(events, dentry.inode.file_type());
    if let Some(parent) = dentry.parent() {
        let name = dentry.name();
        Happened { events, cookie: 0, name: &name, unlinked: dentry.deleted() }.tell(&parent.inode);
    }
    Happened { events, cookie: 0, name: &[], unlinked: false }.tell(&dentry.inode);
}

/// Something happened to a name of a directory.
pub(super) fn name(directory: &InodeRef, name: &[u8], events: Events, named: FileType) {
    if wanted() {
        Happened { events: with_kind(events, named), cookie: 0, name, unlinked: false }.tell(directory);
    }
}

/// Something happened to an inode, whatever names it has.
pub(super) fn inode(inode: &InodeRef, events: Events) {
    if wanted() {
        // That a file itself moved is told without its kind, as ever.
        let events = if events == Events::MOVE_SELF { events } else { with_kind(events, inode.file_type()) };
        Happened { events, cookie: 0, name: &[], unlinked: false }.tell(inode);
    }
}

/// A name moved.
pub(super) fn moved(from: (&InodeRef, &[u8]), to: (&InodeRef, &[u8]), named: FileType) {
    if !wanted() {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    for ((directory, name), events) in [(from, Events::MOVED_FROM), (to, Events::MOVED_TO)] {
        Happened { events: with_kind(events, named), cookie, name, unlinked: false }.tell(directory);
    }
}

/// An inode's last name and last user are gone, or its file system is: its marks go as well.
fn gone(inode: &InodeRef, events: Events) {
    let Some(common) = inode.common() else { return };
    let marks: Vec<(Weak<Group>, i32, Events)> =
        common.marks.0.lock().iter().map(|mark| (mark.group.clone(), mark.number, mark.events)).collect();
    for (group, number, wanted) in marks {
        let Some(group) = group.upgrade() else { continue };
        // Of a file system's end all are told, whether they asked or not.
        if wanted.intersects(events) || events == Events::UNMOUNT {
            group.put(number, events, 0, &[]);
        }
        let _ = group.unmark(number);
    }
}

/// The last user of a name that was removed is gone.
pub(super) fn name_dropped(inode: &InodeRef) {
    if wanted() && inode.attr().is_ok_and(|attr| attr.nlink == 0) {
        gone(inode, Events::DELETE_SELF);
    }
}

impl Vfs {
    /// A new group of the running task's user.
    ///
    /// # Errors
    /// `EMFILE` when the user has as many as one may have.
    pub fn notify_group(&self, ctx: &Ctx) -> Result<Arc<Group>> {
        let settings = &ctx.kernel.settings;
        let uid = ctx.creds().uid;
        let queue_max = settings.inotify_queued_events.get() as usize;
        let mut groups = self.notified.lock();
        groups.retain(|group| group.strong_count() > 0);
        let users = groups.iter().filter_map(Weak::upgrade).filter(|group| group.uid == uid).count();
        if users as u64 >= settings.inotify_user_instances.get() {
            bail!(EMFILE, "fs.inotify.max_user_instances");
        }
        let group = Arc::new(Group { uid, queue_max, inner: Mutex::default(), readable: Arc::default() });
        groups.push(Arc::downgrade(&group));
        Ok(group)
    }

    fn marks_of_user(&self, uid: u32) -> usize {
        let groups = self.notify_groups();
        groups.iter().filter(|group| group.uid == uid).map(|group| group.inner.lock().marked.len()).sum()
    }

    fn notify_groups(&self) -> Vec<Arc<Group>> {
        self.notified.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The file system with this device number is not to be seen any more: no mark keeps an inode of it.
    pub(super) fn notify_unmounted(&self, dev: u64) {
        if !wanted() {
            return;
        }
        for group in self.notify_groups() {
            let marked: Vec<InodeRef> = group.inner.lock().marked.values().cloned().collect();
            let of_it = marked.iter().filter(|inode| inode.attr().is_ok_and(|attr| attr.dev == dev));
            of_it.for_each(|inode| gone(inode, Events::UNMOUNT));
        }
    }
}
