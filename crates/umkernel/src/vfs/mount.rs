//! Mounts: which file system is seen at which place of the tree.

use super::{Dentry, FileSystem, Location, Propagation, SuperBlock};
use crate::errno::{Errno, Result};
use crate::sync::{Mutex, WaitQueue};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

bitflags::bitflags! {
    /// Flags of a mount, with the values of `MS_*` (`mount(2)`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        /// No changes through this mount.
        const RDONLY = 1;
        /// Set-user-ID and set-group-ID bits have no effect.
        const NOSUID = 2;
        /// Device nodes cannot be opened.
        const NODEV = 4;
        /// Files cannot be executed.
        const NOEXEC = 8;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 256;
        /// Access times are not kept.
        const NOATIME = 1024;
        /// Access times of directories are not kept.
        const NODIRATIME = 2048;
        /// Access times are kept only when older than the modification time or a day.
        const RELATIME = 1 << 21;
        /// Access times are always kept.
        const STRICTATIME = 1 << 24;
    }
}

/// A mounted file system, or a part of one.
pub struct Mount {
    /// Number in `/proc/PID/mountinfo`.
    pub id: u32,
    /// The file system.
    pub sb: Arc<SuperBlock>,
    /// What of it is seen.
    pub root: Arc<Dentry>,
    /// First field of `/proc/mounts`.
    pub source: Vec<u8>,
    flags: AtomicU32,
    /// Where it is mounted; `None` for the root and for what was detached.
    attached: Mutex<Option<(Arc<Mount>, Arc<Dentry>)>>,
    /// How often it may still be walked into before an expiry (`MNT_EXPIRE`) starts anew; 0 while it was not marked.
    expiring: AtomicU32,
    /// Has not been attached anywhere yet, and need not ever be.
    detached: AtomicBool,
    /// The number of the namespace that it is mounted in; 0 for none. Set under the tree's lock.
    namespace: AtomicU64,
    /// Files open for writing through it.
    pub(super) writers: AtomicI32,
    propagation: Mutex<Propagation>,
}

impl Mount {
    /// A mount that is not attached yet.
    pub(super) fn new(id: u32, sb: Arc<SuperBlock>, root: Arc<Dentry>, source: &[u8], flags: MountFlags) -> Arc<Mount> {
        Arc::new(Mount {
            id,
            sb,
            root,
            source: source.to_vec(),
            flags: AtomicU32::new(flags.bits()),
            expiring: AtomicU32::new(0),
            attached: Mutex::new(None),
            detached: AtomicBool::new(false),
            namespace: AtomicU64::new(0),
            writers: AtomicI32::new(0),
            propagation: Mutex::default(),
        })
    }

    /// A walk has come into it.
    pub(super) fn entered(&self) {
        if self.expiring.load(Ordering::Relaxed) > 0 {
            self.expiring.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// `umount2(2)` with `MNT_EXPIRE`: whether nobody has come here since the last time; if not, the time begins now.
    pub(super) fn expires(&self) -> bool {
        // The walk of the next `umount2` is one that does not count.
        const MARKED: u32 = 2;
        let unused = self.expiring.load(Ordering::Relaxed) == MARKED - 1;
        self.expiring.store(if unused { 0 } else { MARKED }, Ordering::Relaxed);
        unused
    }

    /// How it takes part in propagation; changed only under the mount tree's lock.
    pub fn propagation(&self) -> Propagation {
        *self.propagation.lock()
    }

    pub(super) fn set_propagation(&self, propagation: Propagation) {
        *self.propagation.lock() = propagation;
    }

    /// The mount's flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Acquire))
    }

    /// Mounted `nosuid`.
    pub fn no_suid(&self) -> bool {
        self.flags().contains(MountFlags::NOSUID)
    }

    /// Mounted `noexec`.
    pub fn no_exec(&self) -> bool {
        self.flags().contains(MountFlags::NOEXEC)
    }

    pub(super) fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Release);
    }

    /// The mount and dentry that it covers.
    pub fn mount_point(&self) -> Option<Location> {
        self.attached.lock().as_ref().map(|(mount, dentry)| Location { mount: mount.clone(), dentry: dentry.clone() })
    }

    /// Whether it waits to be attached; changed only under the mount tree's lock.
    pub(super) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// The number of the namespace that it is mounted in; 0 for none: a tree that is attached nowhere yet, what was unmounted, and mounts of
    /// the kernel's own.
    pub(super) fn namespace(&self) -> u64 {
        self.namespace.load(Ordering::Acquire)
    }

    /// Whether it is neither in a namespace nor in a tree that is attached nowhere yet: it was unmounted, or is the kernel's own.
    pub(super) fn is_nowhere(self: &Arc<Mount>) -> bool {
        let mut top = self.clone();
        while let Some(point) = top.mount_point() {
            top = point.mount;
        }
        self.namespace() == 0 && !top.is_detached()
    }

    /// Says which namespace it is mounted in; under the mount tree's lock.
    pub(super) fn set_namespace(&self, number: u64) {
        self.namespace.store(number, Ordering::Release);
    }

    /// The location of its root.
    pub fn root_location(self: &Arc<Mount>) -> Location {
        Location { mount: self.clone(), dentry: self.root.clone() }
    }

    /// `EROFS` if nothing may be changed through it.
    pub fn want_write(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) { Err(Errno::EROFS.into()) } else { self.sb.want_write() }
    }

    /// Whether nothing may be changed through it.
    pub fn read_only(&self) -> bool {
        self.want_write().is_err()
    }
}

/// The mounts of the machine, in all namespaces.
#[derive(Default)]
pub(super) struct MountTree {
    /// Who hears of changes to a namespace's mounts, by its number.
    changes: BTreeMap<u64, Arc<MountChanges>>,
    /// What is mounted on which dentry of which mount.
    by_point: BTreeMap<(u32, usize), Arc<Mount>>,
    /// In the order in which they were mounted.
    order: Vec<Arc<Mount>>,
    /// Mounts of the kernel's own, which are seen nowhere and go with who holds them.
    internal: Vec<Weak<Mount>>,
}

/// Tells of changes to a namespace's mounts whoever polls `/proc/PID/mounts` or `mountinfo`.
#[derive(Default)]
pub struct MountChanges {
    count: AtomicU64,
    queue: Arc<WaitQueue>,
}

impl MountChanges {
    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Woken at each.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    fn one_more(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.queue.wake_all();
    }
}

fn key(at: &Location) -> (u32, usize) {
    (at.mount.id, Arc::as_ptr(&at.dentry) as usize)
}

impl MountTree {
    /// Changes to the mounts of a namespace are told from now on.
    pub(super) fn add_namespace(&mut self, number: u64, changes: &Arc<MountChanges>) {
        self.changes.insert(number, changes.clone());
    }

    /// They are not told any more.
    pub(super) fn remove_namespace(&mut self, number: u64) {
        self.changes.remove(&number);
    }

    /// A mount has come, gone or changed.
    pub(super) fn changed(&self, mount: &Mount) {
        if let Some(changes) = self.changes.get(&mount.namespace()) {
            changes.one_more();
        }
    }

    pub(super) fn all(&self) -> &[Arc<Mount>] {
        &self.order
    }

    /// What is mounted right at a place.
    pub(super) fn covering(&self, at: &Location) -> Option<Arc<Mount>> {
        self.by_point.get(&key(at)).cloned()
    }

    /// Adds a mount at a place, in that place's namespace, or as the root of its own.
    pub(super) fn attach(&mut self, mount: Arc<Mount>, at: Option<&Location>) {
        let was_detached = mount.detached.swap(false, Ordering::AcqRel);
        if let Some(at) = at {
            at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
            *mount.attached.lock() = Some((at.mount.clone(), at.dentry.clone()));
            self.by_point.insert(key(at), mount.clone());
            let namespace = at.mount.namespace();
            mount.set_namespace(namespace);
            if was_detached {
                // What is mounted below it comes along.
                self.subtree(&mount).iter().for_each(|below| below.set_namespace(namespace));
            }
        }
        self.changed(&mount);
        if !was_detached {
            self.order.push(mount);
        }
    }

    /// Adds a mount that is attached nowhere; [`MountTree::attach`] may do so later.
    pub(super) fn add_detached(&mut self, mount: Arc<Mount>) {
        mount.detached.store(true, Ordering::Release);
        self.order.push(mount);
    }

    /// Adds a mount of the kernel's own: seen nowhere, it is one of its file system's while somebody holds it.
    pub(super) fn add_internal(&mut self, mount: &Arc<Mount>) {
        self.internal.retain(|known| known.strong_count() > 0);
        self.internal.push(Arc::downgrade(mount));
    }

    /// Takes a mount out; it lives on for those who use it.
    pub(super) fn detach(&mut self, mount: &Arc<Mount>) {
        self.order.retain(|m| !Arc::ptr_eq(m, mount));
        self.unhook(mount);
    }

    /// Takes all mounts of some namespaces out, in one pass.
    pub(super) fn detach_all_of(&mut self, numbers: &[u64]) -> Vec<Arc<Mount>> {
        let is_of = |mount: &Arc<Mount>| numbers.contains(&mount.namespace());
        let (gone, stay): (Vec<_>, Vec<_>) = mem::take(&mut self.order).into_iter().partition(is_of);
        self.order = stay;
        gone.iter().for_each(|mount| self.unhook(mount));
        gone
    }

    /// A mount that is no longer in the list is mounted nowhere.
    fn unhook(&mut self, mount: &Arc<Mount>) {
        if let Some((parent, dentry)) = mount.attached.lock().take() {
            dentry.mounted.fetch_sub(1, Ordering::AcqRel);
            self.by_point.remove(&key(&Location { mount: parent, dentry }));
        }
        mount.detached.store(false, Ordering::Release);
        self.changed(mount);
        mount.set_namespace(0);
    }

    /// Moves a mount to another place (`None`: it becomes the root), keeping its age.
    pub(super) fn relocate(&mut self, mount: &Arc<Mount>, at: Option<&Location>) {
        let index = self.order.iter().position(|m| Arc::ptr_eq(m, mount));
        let namespace = mount.namespace();
        self.detach(mount);
        // As a root, it is the same one's.
        mount.set_namespace(namespace);
        self.attach(mount.clone(), at);
        if let (Some(index), Some(moved)) = (index, self.order.pop()) {
            self.order.insert(index, moved);
        }
    }

    /// The mounts directly on `mount`.
    pub(super) fn children(&self, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let on = |m: &&Arc<Mount>| m.mount_point().is_some_and(|at| Arc::ptr_eq(&at.mount, mount));
        self.order.iter().filter(on).cloned().collect()
    }

    /// `mount` and all mounts below it, parents first.
    pub(super) fn subtree(&self, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut children: BTreeMap<u32, Vec<Arc<Mount>>> = BTreeMap::new();
        for child in &self.order {
            if let Some(point) = child.mount_point() {
                children.entry(point.mount.id).or_default().push(child.clone());
            }
        }
        let mut all = alloc::vec![mount.clone()];
        let mut next = 0;
        while let Some(parent) = all.get(next) {
            let below = children.remove(&parent.id);
            all.extend(below.into_iter().flatten());
            next += 1;
        }
        all
    }

    /// All mounts, those of the kernel's own among them.
    pub(super) fn with_internal(&self) -> impl Iterator<Item = Arc<Mount>> {
        self.order.iter().cloned().chain(self.internal.iter().filter_map(Weak::upgrade))
    }

    /// Whether any mount shows this file system.
    pub(super) fn shows(&self, fs: &Arc<dyn FileSystem>) -> bool {
        self.with_internal().any(|m| Arc::ptr_eq(&m.sb.fs, fs))
    }
}
