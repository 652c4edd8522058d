//! Mount namespaces (`mount_namespaces(7)`): trees of mounts, of which each task sees one.
//!
//! All are in one [`MountTree`], under one lock, since what happens in one propagates to others; each mount has its namespace's number.

use super::mount::MountTree;
use super::{Dentry, FsContext, Location, Mount, MountChanges, Vfs};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::ns::{self, Ticket};
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::Ordering;

/// As many mounts as there may be in all namespaces together: what Linux lets one have (`fs.mount-max`).
const MOUNTS_MAX: usize = 100_000;

/// A tree of mounts of its own.
pub struct MountNamespace {
    ticket: Ticket,
    changes: Arc<MountChanges>,
    mounts: Arc<Mutex<MountTree>>,
    ended: Arc<Ended>,
}

/// Namespaces that nobody is in any more and whose mounts are to be taken out of the tree.
#[derive(Default)]
pub(super) struct Ended(Mutex<EndedInner>);

#[derive(Default)]
struct EndedInner {
    numbers: Vec<u64>,
    /// Somebody takes them out, and will see what is added.
    busy: bool,
}

impl MountNamespace {
    /// The one that the machine starts with.
    pub(super) fn first(mounts: &Arc<Mutex<MountTree>>, ended: &Arc<Ended>) -> Arc<MountNamespace> {
        MountNamespace::new(Ticket::first_mounts(), mounts, ended)
    }

    fn new(ticket: Ticket, mounts: &Arc<Mutex<MountTree>>, ended: &Arc<Ended>) -> Arc<MountNamespace> {
        let changes = Arc::default();
        mounts.lock().add_namespace(ticket.number(), &changes);
        Arc::new(MountNamespace { ticket, changes, mounts: mounts.clone(), ended: ended.clone() })
    }

    /// Its number, which no other namespace has. Those that are made later have higher ones.
    pub fn number(&self) -> u64 {
        self.ticket.number()
    }

    /// Tells of changes to its mounts.
    pub fn changes(&self) -> &Arc<MountChanges> {
        &self.changes
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        self.ended.0.lock().numbers.push(self.number());
        self.ended.take_out(&self.mounts);
    }
}

impl Ended {
    /// Takes the mounts of namespaces that have ended out of the tree, unless somebody has it locked: the last reference to a namespace may
    /// go with a mount, under that lock. Then they are taken out the next time.
    fn take_out(&self, mounts: &Mutex<MountTree>) {
        // A file of another namespace may be mounted in one, and so on: these come here for each, and are left to the first.
        if mem::replace(&mut self.0.lock().busy, true) {
            return;
        }
        loop {
            let mut inner = self.0.lock();
            let tree = if inner.numbers.is_empty() { None } else { mounts.try_lock() };
            let Some(mut tree) = tree else {
                inner.busy = false;
                return;
            };
            let numbers = mem::take(&mut inner.numbers);
            drop(inner);
            let gone = tree.dissolve_namespaces(&numbers);
            drop(tree);
            drop(gone);
        }
    }
}

impl MountTree {
    /// The root of a namespace.
    fn root_of(&self, number: u64) -> Option<Arc<Mount>> {
        let is_root = |mount: &&Arc<Mount>| mount.namespace() == number && mount.mount_point().is_none();
        self.all().iter().find(is_root).cloned()
    }

    /// Takes all mounts of some namespaces out. The caller drops them without the tree's lock: the last may unmount a file system.
    fn dissolve_namespaces(&mut self, numbers: &[u64]) -> Vec<Arc<Mount>> {
        let gone = self.detach_all_of(numbers);
        numbers.iter().for_each(|number| self.remove_namespace(*number));
        gone
    }

    /// What is mounted on a dentry, on whichever mount of it and in whichever namespace.
    fn all_on(&self, dentry: &Dentry) -> Vec<Arc<Mount>> {
        let on = |mount: &&Arc<Mount>| mount.mount_point().is_some_and(|at| core::ptr::eq(&*at.dentry, dentry));
        self.all().iter().filter(on).cloned().collect()
    }

    /// Copies what is mounted below `original` to the same places below `copy`, its copy, parents first; not what `left_out` says, and
    /// what is mounted on that. Returns originals and copies, these two first.
    pub(super) fn copy_below(
        &mut self,
        (original, copy): (&Arc<Mount>, &Arc<Mount>),
        left_out: impl Fn(&Arc<Mount>, &Location) -> bool,
        make: impl Fn(&Arc<Mount>) -> Arc<Mount>,
    ) -> Vec<(Arc<Mount>, Arc<Mount>)> {
        let mut copies = alloc::vec![(original.clone(), copy.clone())];
        let mut by_original = BTreeMap::from([(original.id, copy.clone())]);
        for old in self.subtree(original).iter().skip(1) {
            let Some(point) = old.mount_point() else { continue };
            let parent = by_original.get(&point.mount.id);
            let Some(parent) = parent.filter(|_| !left_out(old, &point)) else { continue };
            let at = Location { mount: parent.clone(), dentry: point.dentry.clone() };
            let below = make(old);
            self.attach(below.clone(), Some(&at));
            by_original.insert(old.id, below.clone());
            copies.push((old.clone(), below));
        }
        copies
    }

    /// Fails with `ENOSPC` if so many more mounts would be more than there may be.
    pub(super) fn check_room(&self, more: usize) -> Result<()> {
        if self.all().len().saturating_add(more) > MOUNTS_MAX {
            bail!(ENOSPC, "as many mounts as there may be");
        }
        Ok(())
    }
}

/// The number of the mount namespace whose file a mount shows, if it does that.
fn shown_by(mount: &Mount) -> Option<u64> {
    ns::number_of_mounts(&*mount.root.inode)
}

/// Fails with `EINVAL` unless the files of mount namespaces that are mounted in `tree` are all of younger ones than the one that the tree
/// comes into: two could keep each other alive, or one itself (`mnt_ns_loop` of Linux). `propagates`: copies will be made elsewhere, and
/// of these files there are none (Linux has them fail, too).
pub(super) fn check_no_loop(tree: &[Arc<Mount>], into: &Mount, propagates: bool) -> Result<()> {
    if tree.iter().filter_map(|mount| shown_by(mount)).any(|number| propagates || number <= into.namespace()) {
        bail!(EINVAL, "a mount namespace that would be mounted in itself");
    }
    Ok(())
}

/// Whether anything is mounted on a dentry, wherever.
fn is_mounted(dentry: &Dentry) -> bool {
    dentry.mounted.load(Ordering::Acquire) > 0
}

impl Location {
    /// Fails with `EINVAL` for a place that is not in the running task's mount namespace: it may look there but not mount.
    pub(crate) fn check_own(&self, ctx: &Ctx) -> Result<()> {
        if self.mount.namespace() != ctx.namespaces().mnt.number() {
            bail!(EINVAL, "a mount of another namespace, or of none");
        }
        Ok(())
    }

    /// As [`Location::check_own`], but not for a tree that is attached nowhere yet: that is for who has it open.
    pub(crate) fn check_own_or_apart(&self, ctx: &Ctx) -> Result<()> {
        if self.mount.namespace() == 0 && !self.mount.is_nowhere() { Ok(()) } else { self.check_own(ctx) }
    }

    /// Fails with `ENOENT` for a place that is not mounted: nobody would find what is mounted on it.
    pub(crate) fn check_mounted(&self) -> Result<()> {
        if self.mount.is_nowhere() {
            bail!(ENOENT, "not mounted");
        }
        Ok(())
    }

    /// As [`Location::check_own_or_apart`], for what is to be seen elsewhere, too: namespaces' files can be, which are in no namespace.
    pub(crate) fn check_source(&self, ctx: &Ctx) -> Result<()> {
        if ns::is_file(&*self.dentry.inode) { Ok(()) } else { self.check_own_or_apart(ctx) }
    }
}

impl Vfs {
    /// The mount namespace that the machine starts with.
    pub(crate) fn initial_namespace(&self) -> &Arc<MountNamespace> {
        &self.initial
    }

    /// A namespace with a copy of each mount of another one but of mount namespaces' files; peers and slaves are what their originals are.
    /// The directories in `fs`, which nobody else looks at yet, become those of the copies.
    ///
    /// # Errors
    /// `ENOSPC` for more mounts than there may be.
    pub(crate) fn copy_namespace(
        &self,
        old: &MountNamespace,
        ticket: Ticket,
        fs: &FsContext,
    ) -> Result<Arc<MountNamespace>> {
        self.ended.take_out(&self.mounts);
        let new = MountNamespace::new(ticket, &self.mounts, &self.ended);
        let mut mounts = self.mounts.lock();
        let Some(root) = mounts.root_of(old.number()) else { bail!(EINVAL, "nothing is mounted here") };
        mounts.check_room(mounts.subtree(&root).len())?;
        let top = self.copy_of(&root, root.root.clone());
        top.set_namespace(new.number());
        mounts.attach(top.clone(), None);
        let left_out = |mount: &Arc<Mount>, _: &Location| shown_by(mount).is_some();
        let copies = mounts.copy_below((&root, &top), left_out, |old| self.copy_of(old, old.root.clone()));
        drop(mounts);
        let mut inner = fs.inner.lock();
        let inner = &mut *inner;
        for place in [&mut inner.root, &mut inner.cwd] {
            let copy = copies.iter().find(|(original, _)| Arc::ptr_eq(original, &place.mount));
            if let Some((_, copy)) = copy {
                place.mount = copy.clone();
            }
        }
        Ok(new)
    }

    /// Where who enters a namespace finds itself: at its root, and whatever is mounted on that.
    pub(crate) fn root_of(&self, namespace: &MountNamespace) -> Option<Location> {
        let mounts = self.mounts.lock();
        let mut at = mounts.root_of(namespace.number())?.root_location();
        while let Some(on_top) = mounts.covering(&at) {
            at = on_top.root_location();
        }
        Some(at)
    }

    /// Whether something is mounted on a dentry in the running task's namespace.
    pub(super) fn is_mounted_on(&self, ctx: &Ctx, dentry: &Dentry) -> bool {
        let own = ctx.namespaces().mnt.number();
        is_mounted(dentry) && self.mounts.lock().all_on(dentry).iter().any(|mount| mount.namespace() == own)
    }

    /// A name is gone, and with it what is mounted there in other namespaces: that does not keep anybody from removing it.
    pub(super) fn take_off(&self, dentry: &Dentry) {
        if !is_mounted(dentry) {
            return;
        }
        let mut mounts = self.mounts.lock();
        let gone: Vec<Arc<Mount>> = mounts.all_on(dentry).iter().flat_map(|mount| mounts.subtree(mount)).collect();
        gone.iter().rev().for_each(|mount| mounts.detach(mount));
        // They go without the lock: the last may unmount a file system.
        drop(mounts);
    }

    /// Takes out what is left of the mounts of namespaces that have ended. A timer calls it.
    pub(super) fn forget_namespaces(&self) {
        self.ended.take_out(&self.mounts);
    }
}
