//! The dentry cache: which name in which directory is which inode.
//!
//! A directory has exactly one dentry while anyone uses it, so its `lock` serialises all changes of the directory.
//! Parents know their cached children, children keep their parents; [`Lru`] bounds how many of them stay unused.

use super::InodeRef;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Dentries that may stay cached; each pins an inode (some 600 bytes together).
const CACHED_MAX: usize = 32768;
/// Names known not to exist that one directory remembers.
const NEGATIVE_MAX: usize = 256;

/// A name in the tree, and what it names.
pub struct Dentry {
    /// What it names.
    pub inode: InodeRef,
    /// Where it is; changes when it is renamed.
    place: Mutex<Place>,
    /// Cached names of a directory.
    children: Mutex<Children>,
    /// Serialises lookups that miss the cache with changes of the directory.
    pub(super) lock: Mutex<()>,
    /// The name was removed.
    deleted: AtomicBool,
    /// Mounts whose mount point this is.
    pub(super) mounted: AtomicU32,
    /// Looked up since the cache last asked.
    referenced: AtomicBool,
    /// Its names change without the VFS's doing.
    volatile: bool,
}

struct Place {
    /// `None` for the root of a file system.
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

#[derive(Default)]
struct Children {
    /// `None`: known not to exist.
    names: BTreeMap<Arc<[u8]>, Option<Arc<Dentry>>>,
    negative: usize,
}

impl Children {
    fn put(&mut self, name: Arc<[u8]>, child: Option<Arc<Dentry>>) -> Option<Option<Arc<Dentry>>> {
        if child.is_none() {
            if self.negative >= NEGATIVE_MAX {
                self.names.retain(|_, c| c.is_some());
                self.negative = 0;
            }
            self.negative += 1;
        }
        let old = self.names.insert(name, child);
        if matches!(old, Some(None)) {
            self.negative -= 1;
        }
        old
    }

    fn take(&mut self, name: &[u8]) -> Option<Arc<Dentry>> {
        let old = self.names.remove(name);
        if matches!(old, Some(None)) {
            self.negative -= 1;
        }
        old.flatten()
    }
}

impl Dentry {
    /// The root of a file system.
    pub fn new_root(inode: InodeRef) -> Arc<Dentry> {
        Dentry::new(inode, None, Arc::from(&b"/"[..]))
    }

    /// A dentry without a place in any directory's cache, called `name`.
    pub fn detached(inode: InodeRef, name: &[u8]) -> Arc<Dentry> {
        Dentry::new(inode, None, Arc::from(name))
    }

    /// A dentry for an inode without a name that was made in `parent` (`O_TMPFILE`).
    pub(super) fn nameless(inode: InodeRef, parent: &Arc<Dentry>, name: &[u8]) -> Arc<Dentry> {
        let dentry = Dentry::new(inode, Some(parent.clone()), Arc::from(name));
        dentry.mark_deleted();
        dentry
    }

    fn new(inode: InodeRef, parent: Option<Arc<Dentry>>, name: Arc<[u8]>) -> Arc<Dentry> {
        Arc::new(Dentry {
            volatile: inode.changes_by_itself(),
            inode,
            place: Mutex::new(Place { parent, name }),
            children: Mutex::default(),
            lock: Mutex::new(()),
            deleted: AtomicBool::new(false),
            mounted: AtomicU32::new(0),
            referenced: AtomicBool::new(true),
        })
    }

    /// The directory that holds the name; `None` for a root.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    /// The name.
    pub fn name(&self) -> Arc<[u8]> {
        self.place.lock().name.clone()
    }

    /// Whether the name was removed.
    pub fn deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Whether `self` is `other` or lies below it.
    pub fn is_within(self: &Arc<Dentry>, other: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, other) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// What the cache knows of a name: nothing, that it does not exist, or its dentry.
    pub(super) fn cached(&self, name: &[u8]) -> Option<Option<Arc<Dentry>>> {
        let found = self.children.lock().names.get(name).cloned();
        if let Some(Some(child)) = &found {
            if !child.referenced.load(Ordering::Relaxed) {
                child.referenced.store(true, Ordering::Relaxed);
            }
            if self.volatile && !self.still_has(name, child) {
                return None;
            }
        }
        found
    }

    /// Whether a cached name is still true; if not, it is forgotten. A mount point stays where it is.
    fn still_has(&self, name: &[u8], child: &Arc<Dentry>) -> bool {
        if child.mounted.load(Ordering::Acquire) > 0 || self.inode.still_has(name, &child.inode) {
            return true;
        }
        let mut children = self.children.lock();
        let ours = matches!(children.names.get(name), Some(Some(cached)) if Arc::ptr_eq(cached, child));
        let gone = if ours { children.take(name) } else { None };
        drop(children);
        drop(gone);
        false
    }

    /// Finds a name: in the cache, then in the file system.
    pub(super) fn lookup(self: &Arc<Dentry>, ctx: &Ctx, lru: &Lru, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        if let Some(found) = self.cached(name) {
            return Ok(found);
        }
        let _guard = self.lock.lock();
        self.lookup_locked(ctx, lru, name)
    }

    /// As [`Dentry::lookup`], with the directory's lock held.
    pub(super) fn lookup_locked(self: &Arc<Dentry>, ctx: &Ctx, lru: &Lru, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        if let Some(found) = self.cached(name) {
            return Ok(found);
        }
        if self.deleted() {
            return Ok(None);
        }
        match self.inode.lookup(ctx, name) {
            Ok(inode) => Ok(Some(self.add(lru, name, inode))),
            Err(e) if e == crate::Errno::ENOENT => {
                self.add_negative(name);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Notes what a name now is. The directory's lock is held.
    pub(super) fn add(self: &Arc<Dentry>, lru: &Lru, name: &[u8], inode: InodeRef) -> Arc<Dentry> {
        let name: Arc<[u8]> = Arc::from(name);
        let child = Dentry::new(inode, Some(self.clone()), name.clone());
        if self.inode.cacheable() {
            let old = self.children.lock().put(name, Some(child.clone()));
            drop(old);
            lru.add(&child);
        }
        child
    }

    /// Notes that a name does not exist. The directory's lock is held.
    pub(super) fn add_negative(&self, name: &[u8]) {
        if self.inode.cacheable() && !self.volatile {
            let old = self.children.lock().put(Arc::from(name), None);
            drop(old);
        }
    }

    /// Notes that a name was removed. The directory's lock is held.
    pub(super) fn removed(&self, name: &[u8]) {
        let gone = self.children.lock().take(name);
        if let Some(child) = gone {
            child.deleted.store(true, Ordering::Release);
        }
        self.add_negative(name);
    }

    /// Marks a directory as removed, however it is known.
    pub(super) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// Moves a child to another name and directory; both directories' locks are held.
    pub(super) fn moved(self: &Arc<Dentry>, name: &[u8], new_dir: &Arc<Dentry>, new_name: &[u8]) {
        let child = self.children.lock().take(name);
        self.add_negative(name);
        let Some(child) = child else {
            return;
        };
        child.set_place(new_dir, new_name);
        let key = child.name();
        let old = new_dir.children.lock().put(key, Some(child)).flatten();
        if let Some(replaced) = old {
            replaced.mark_deleted();
        }
    }

    /// Exchanges two children; both directories' locks are held.
    pub(super) fn exchanged(self: &Arc<Dentry>, name: &[u8], new_dir: &Arc<Dentry>, new_name: &[u8]) {
        let a = self.children.lock().take(name);
        let b = new_dir.children.lock().take(new_name);
        for (child, dir, name) in [(a, new_dir, new_name), (b, self, name)] {
            if let Some(child) = child {
                child.set_place(dir, name);
                let key = child.name();
                let old = dir.children.lock().put(key, Some(child));
                drop(old);
            }
        }
    }

    fn set_place(&self, dir: &Arc<Dentry>, name: &[u8]) {
        let new = Place { parent: Some(dir.clone()), name: Arc::from(name) };
        let old = core::mem::replace(&mut *self.place.lock(), new);
        drop(old);
    }

    /// Forgets the name if only the cache knows it. True if it did.
    fn evict(self: &Arc<Dentry>) -> bool {
        let Some(parent) = self.parent() else {
            return false;
        };
        let name = self.name();
        let mut children = parent.children.lock();
        let ours = matches!(children.names.get(&name), Some(Some(c)) if Arc::ptr_eq(c, self));
        // One reference is the map's, one the caller's; under the map's lock nobody can gain another.
        if !ours || Arc::strong_count(self) > 2 {
            return !ours;
        }
        let gone = children.take(&name);
        drop(children);
        drop(gone);
        true
    }

    /// Forgets everything below that nobody uses: the file system is being unmounted.
    pub(super) fn forget_children(self: &Arc<Dentry>) {
        let mut pending: Vec<Arc<Dentry>> = Vec::new();
        pending.push(self.clone());
        let mut keep_alive = Vec::new();
        while let Some(dentry) = pending.pop() {
            let children = core::mem::take(&mut *dentry.children.lock());
            pending.extend(children.names.into_values().flatten());
            keep_alive.push(dentry);
        }
        // Children before parents, so that no drop has to recurse.
        while keep_alive.pop().is_some() {}
    }

    /// Whether the cache knows anything below.
    fn has_cached_children(&self) -> bool {
        self.children.lock().names.values().any(Option::is_some)
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        if *self.deleted.get_mut() {
            super::notify::name_dropped(&self.inode);
        }
        // A chain of parents that only this dentry kept: freed in a loop, since paths may be thousands deep.
        let mut next = self.place.lock().parent.take();
        while let Some(dentry) = next {
            next = Arc::into_inner(dentry).and_then(|d| d.place.lock().parent.take());
        }
    }
}

/// Which cached dentries to forget first.
#[derive(Default)]
pub(super) struct Lru {
    queue: Mutex<VecDeque<Weak<Dentry>>>,
}

impl Lru {
    fn add(&self, dentry: &Arc<Dentry>) {
        let mut queue = self.queue.lock();
        queue.push_back(Arc::downgrade(dentry));
        let excess = queue.len() > CACHED_MAX;
        drop(queue);
        if excess {
            self.shrink(32);
        }
    }

    /// Forgets all dentries that nobody uses.
    pub(super) fn drop_all(&self) {
        // The first look at a dentry takes its mark of use, the next ones those of its children that are in its way.
        const LOOKS: usize = 4;
        let count = self.queue.lock().len();
        self.shrink(LOOKS * count);
    }

    /// Looks at the `count` oldest dentries and forgets those unused since they were last looked at.
    pub(super) fn shrink(&self, count: usize) {
        for _ in 0..count {
            let Some(oldest) = self.queue.lock().pop_front() else {
                return;
            };
            let Some(dentry) = oldest.upgrade() else {
                continue;
            };
            let recent = dentry.referenced.swap(false, Ordering::Relaxed);
            if recent || dentry.has_cached_children() || !dentry.evict() {
                self.queue.lock().push_back(oldest);
            }
        }
    }
}
