//! Changing the mount tree: `mount(2)`, `umount2(2)`, `pivot_root(2)`, `chroot(2)`; and what `/proc` says of it.

use super::namespace::check_no_loop;
use super::{
    FileSystem, FileType, FsContext, FsInner, Location, Mount, MountFlags, MountRequest, PropagationType, SuperBlock,
    Vfs, major, minor,
};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// `umount2(2)`: detach now, clean up when nobody uses it any more.
pub const MNT_DETACH: u32 = 2;
/// `umount2(2)`: give up instead of forcing (nothing here needs force).
pub const MNT_FORCE: u32 = 1;
/// `umount2(2)`: mark as expired, unmount at the second call.
pub const MNT_EXPIRE: u32 = 4;

/// What `mount_setattr(2)` makes of mounts.
#[derive(Clone, Copy, Debug)]
pub struct MountChange {
    /// Flags that they have from now on.
    pub set: MountFlags,
    /// Flags that they lose first.
    pub clear: MountFlags,
    /// How they propagate, if that is to change.
    pub propagation: Option<PropagationType>,
}

impl Mount {
    /// `EBUSY` if it is writable and files are open for writing through it.
    fn check_no_writers(&self) -> Result<()> {
        if !self.flags().contains(MountFlags::RDONLY) && self.writers.load(Ordering::Acquire) > 0 {
            bail!(EBUSY, "files are open for writing");
        }
        Ok(())
    }
}

/// A file system that is in use still.
pub(super) fn living(known: &[Weak<SuperBlock>], is: impl Fn(&SuperBlock) -> bool) -> Option<Arc<SuperBlock>> {
    known.iter().filter_map(Weak::upgrade).find(|sb| is(sb))
}

impl FsContext {
    /// What the machine's first process starts with: everything at `root`.
    pub fn at_root(root: Location) -> FsContext {
        FsContext { inner: Mutex::new(FsInner { cwd: root.clone(), root, umask: 0o022 }) }
    }
}

impl Vfs {
    /// Mounts the machine's root file system and gives its root.
    pub fn mount_root(&self, fs: Arc<dyn FileSystem>, source: &[u8], flags: MountFlags) -> Result<Location> {
        let sb = self.super_block(fs, flags.contains(MountFlags::RDONLY))?;
        let mount = self.new_mount(sb.clone(), sb.root.clone(), source, flags);
        mount.set_namespace(self.initial_namespace().number());
        self.mounts.lock().attach(mount.clone(), None);
        Ok(mount.root_location())
    }

    /// A mount of a file system that the kernel itself works with, mounted elsewhere or not (`kern_mount` of Linux). It goes with its last
    /// reference, and the file system with it unless it is mounted elsewhere.
    pub(crate) fn internal_mount(&self, fs: Arc<dyn FileSystem>) -> Result<Arc<Mount>> {
        let sb = self.super_block(fs, false)?;
        let mount = self.new_mount(sb.clone(), sb.root.clone(), b"none", MountFlags::empty());
        self.mounts.lock().add_internal(&mount);
        Ok(mount)
    }

    pub(super) fn new_mount(
        &self,
        sb: Arc<SuperBlock>,
        root: Arc<super::Dentry>,
        source: &[u8],
        flags: MountFlags,
    ) -> Arc<Mount> {
        Mount::new(self.next_mount.fetch_add(1, Ordering::Relaxed), sb, root, source, flags)
    }

    /// Another mount of the same file system, of what is at `root` in it, that propagates as its original does.
    pub(super) fn copy_of(&self, original: &Mount, root: Arc<super::Dentry>) -> Arc<Mount> {
        let copy = self.new_mount(original.sb.clone(), root, &original.source, original.flags());
        copy.set_propagation(original.propagation());
        copy
    }

    /// The superblock of a file system, of which there is one however often it is mounted.
    pub(super) fn super_block(&self, fs: Arc<dyn FileSystem>, read_only: bool) -> Result<Arc<SuperBlock>> {
        let mut known = self.super_blocks.lock();
        known.retain(|sb| sb.strong_count() > 0);
        if let Some(sb) = living(&known, |sb| Arc::ptr_eq(&sb.fs, &fs)) {
            return Ok(sb);
        }
        let sb = SuperBlock::new(fs, read_only)?;
        known.push(Arc::downgrade(&sb));
        Ok(sb)
    }

    /// Whether a file system is in use already.
    pub(super) fn is_in_use(&self, fs: &Arc<dyn FileSystem>) -> bool {
        living(&self.super_blocks.lock(), |sb| Arc::ptr_eq(&sb.fs, fs)).is_some()
    }

    /// The file system on a device number that is in use, so that a disk mounted twice is one file system.
    pub fn mounted_fs(&self, dev: u64) -> Option<Arc<dyn FileSystem>> {
        living(&self.super_blocks.lock(), |sb| sb.fs.dev() == dev).map(|sb| sb.fs.clone())
    }

    /// Mounts a file system at a place, which must be a directory.
    pub fn mount_at(
        &self,
        at: &Location,
        fs: Arc<dyn FileSystem>,
        source: &[u8],
        flags: MountFlags,
    ) -> Result<Arc<Mount>> {
        let sb = self.super_block(fs, flags.contains(MountFlags::RDONLY))?;
        let mount = self.new_mount(sb.clone(), sb.root.clone(), source, flags);
        self.attach_tree(&mount, at)?;
        Ok(mount)
    }

    /// Attaches a mount, with what is mounted below it, at a place, and copies wherever that propagates to.
    pub(super) fn attach_tree(&self, mount: &Arc<Mount>, at: &Location) -> Result<()> {
        let directory = |d: &super::Dentry| d.inode.file_type() == FileType::Directory;
        if directory(&mount.root) != directory(&at.dentry) {
            bail!(ENOTDIR);
        }
        Vfs::alive(&at.dentry)?;
        if at.dentry.inode.file_type() == FileType::Symlink {
            bail!(ENOENT, "nothing is mounted on links, which only magic links lead to");
        }
        let mut mounts = self.mounts.lock();
        if at.mount.is_nowhere() {
            bail!(ENOENT, "unmounted meanwhile: nobody would ever find what is mounted there");
        }
        let mut at = at.clone();
        while let Some(on_top) = mounts.covering(&at) {
            at = on_top.root_location();
        }
        mounts.attach_everywhere(mount, &at, |original| self.copy_of(original, original.root.clone()))
    }

    /// `mount(2)` of a new file system of type `fs_type`.
    pub fn mount_new(
        &self,
        ctx: &Ctx,
        at: &Location,
        fs_type: &[u8],
        source: &[u8],
        flags: MountFlags,
        data: &str,
    ) -> Result<()> {
        let fs_type = self.fs_type(fs_type)?;
        let request = MountRequest { source, read_only: flags.contains(MountFlags::RDONLY), data };
        let fs = (fs_type.mount)(ctx, &request)?;
        if self.mounts.lock().all().iter().any(|m| {
            Arc::ptr_eq(&m.sb.fs, &fs) && m.mount_point().is_some_and(|p| p.same(at) || at.same(&m.root_location()))
        }) {
            bail!(EBUSY, "already mounted there");
        }
        self.mount_at(at, fs, source, flags).map(drop)
    }

    /// `mount(2)` with `MS_MOVE`, and `move_mount(2)`, whose mount may be attached nowhere yet.
    pub fn move_mount(&self, from: &Location, at: &Location) -> Result<()> {
        let detached = from.mount.is_detached();
        if !from.is_mount_root() || from.mount.mount_point().is_none() && !detached {
            bail!(EINVAL, "not a mount point");
        }
        if is_below_shared(&from.mount) {
            bail!(EINVAL, "mounted on a shared mount");
        }
        if at.is_within(&from.mount.root_location()) {
            bail!(ELOOP);
        }
        let directory = |l: &Location| l.dentry.inode.file_type() == FileType::Directory;
        if directory(from) != directory(at) {
            bail!(EINVAL, "a directory and something else");
        }
        if detached {
            return self.attach_tree(&from.mount, at);
        }
        let mut mounts = self.mounts.lock();
        // Under the lock: neither has been unmounted meanwhile.
        check_stays(from, at)?;
        mounts.relocate(&from.mount, Some(at));
        Ok(())
    }

    /// `move_mount(2)` with `MOVE_MOUNT_BENEATH`: puts a mount between another and what that is mounted on.
    ///
    /// # Errors
    /// `EINVAL` where nothing is mounted, or the root, or copies of the other would be left without it.
    pub fn move_beneath(&self, from: &Location, top: &Location) -> Result<()> {
        let detached = from.mount.is_detached();
        if !from.is_mount_root() || from.mount.mount_point().is_none() && !detached || !top.is_mount_root() {
            bail!(EINVAL, "not a mount point");
        }
        check_stays(from, top)?;
        let Some(point) = top.mount.mount_point() else { bail!(EINVAL, "the root") };
        if is_below_shared(&from.mount) || is_below_shared(&top.mount) {
            bail!(EINVAL, "mounted on a shared mount");
        }
        if top.is_within(&from.mount.root_location()) {
            bail!(EINVAL, "beneath what is mounted on it");
        }
        let directory = |l: &Location| l.dentry.inode.file_type() == FileType::Directory;
        if directory(from) != directory(top) {
            bail!(EINVAL, "a directory and something else");
        }
        let mut mounts = self.mounts.lock();
        let root = from.mount.root_location();
        if mounts.covering(&root).is_some() {
            bail!(EINVAL, "something is mounted on it");
        }
        check_no_loop(&mounts.subtree(&from.mount), &point.mount, false)?;
        mounts.relocate(&top.mount, Some(&root));
        if detached {
            mounts.attach(from.mount.clone(), Some(&point));
        } else {
            mounts.relocate(&from.mount, Some(&point));
        }
        Ok(())
    }

    /// `mount(2)` with `MS_REMOUNT`: changes the mount's flags and, unless `bind`, the file system's.
    pub fn remount(&self, at: &Location, flags: MountFlags, bind: bool, data: &str) -> Result<()> {
        if !at.is_mount_root() {
            bail!(EINVAL, "not a mount point");
        }
        let read_only = flags.contains(MountFlags::RDONLY);
        if !bind {
            self.reconfigure(&at.mount.sb, read_only, data)?;
        } else if read_only {
            at.mount.check_no_writers()?;
        }
        at.mount.set_flags(flags);
        self.mounts.lock().changed(&at.mount);
        Ok(())
    }

    /// Changes a file system, for all its mounts.
    pub(super) fn reconfigure(&self, sb: &SuperBlock, read_only: bool, data: &str) -> Result<()> {
        if read_only && !sb.read_only() {
            let mounts = self.mounts.lock();
            let mut of_fs = mounts.with_internal().filter(|m| core::ptr::eq(&*m.sb, sb));
            of_fs.try_for_each(|m| m.check_no_writers())?;
        }
        sb.remount(read_only, data)
    }

    /// Changes the flags of a mount and how it propagates (`mount_setattr(2)`); `recursive`: of all below it, too.
    ///
    /// # Errors
    /// `EINVAL` where nothing is mounted; `EBUSY`, with nothing changed, where files are open for writing.
    pub fn change_mounts(&self, at: &Location, change: &MountChange, recursive: bool) -> Result<()> {
        if !at.is_mount_root() || at.mount.is_nowhere() {
            bail!(EINVAL, "not a mount point");
        }
        let mounts = self.mounts.lock();
        let all = if recursive { mounts.subtree(&at.mount) } else { alloc::vec![at.mount.clone()] };
        if change.set.contains(MountFlags::RDONLY) {
            all.iter().try_for_each(|mount| mount.check_no_writers())?;
        }
        for mount in &all {
            mount.set_flags((mount.flags() - change.clear) | change.set);
            if let Some(propagation) = change.propagation {
                mounts.set_type(mount, propagation);
            }
        }
        mounts.changed(&at.mount);
        Ok(())
    }

    /// `umount2(2)` of the mount at a place. The caller holds no other reference to it.
    pub fn umount(&self, at: &Location, flags: u32) -> Result<()> {
        if !at.is_mount_root() {
            bail!(EINVAL, "not a mount point");
        }
        let mount = at.mount.clone();
        if mount.mount_point().is_none() {
            // The root stays; Linux remounts it read-only where a second process still runs on it.
            bail!(EBUSY);
        }
        let mut mounts = self.mounts.lock();
        let below = mounts.subtree(&mount);
        if flags & MNT_DETACH != 0 {
            // All that goes, goes from the peers of what it is mounted on, too.
            let copies: Vec<Arc<Mount>> = below.iter().flat_map(|m| mounts.detached_with(m)).collect();
            below.iter().rev().for_each(|m| mounts.detach(m));
            for copy in &copies {
                mounts.subtree(copy).iter().rev().for_each(|m| mounts.detach(m));
            }
            let last = !mounts.shows(&mount.sb.fs);
            drop(mounts);
            mount.sb.fs.sync()?;
            if last {
                self.notify_unmounted(mount.sb.fs.dev());
            }
            drop(below);
            return Ok(());
        }
        // Whoever uses a mount holds a reference: besides the tree's two (by point and in order), `at`, `mount` and `below`.
        const OWN_REFERENCES: usize = 5;
        if below.len() > 1 || Arc::strong_count(&mount) > OWN_REFERENCES {
            bail!(EBUSY);
        }
        if flags & MNT_EXPIRE != 0 && !mount.expires() {
            bail!(EAGAIN, "marked: it goes if nobody uses it until this is asked again");
        }
        drop(below);
        // Its copies elsewhere go too, unless something is mounted on them.
        let mut copies = mounts.detached_with(&mount);
        copies.retain(|copy| mounts.children(copy).is_empty());
        // Two of the tree's, and the one of `copies`.
        const COPY_REFERENCES: usize = 3;
        if copies.iter().any(|copy| Arc::strong_count(copy) > COPY_REFERENCES) {
            bail!(EBUSY);
        }
        mounts.detach(&mount);
        copies.iter().for_each(|copy| mounts.detach(copy));
        let last = !mounts.shows(&mount.sb.fs);
        drop(mounts);
        if !last {
            return Ok(());
        }
        self.notify_unmounted(mount.sb.fs.dev());
        mount.sb.fs.sync()
    }

    /// `pivot_root(2)`: `new_root` becomes the root of the tree, and the old root is seen at `put_old`.
    pub fn pivot_root(&self, ctx: &Ctx, new_root: &Location, put_old: &Location) -> Result<()> {
        let root = ctx.fs().inner.lock().root.clone();
        root.check_own(ctx)?;
        new_root.check_own(ctx)?;
        if is_below_shared(&new_root.mount) || is_below_shared(&root.mount) {
            bail!(EINVAL, "mounted on a shared mount");
        }
        if Arc::ptr_eq(&new_root.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
            bail!(EBUSY);
        }
        if !new_root.is_mount_root() || !root.is_mount_root() {
            bail!(EINVAL, "not a mount point");
        }
        if !put_old.is_within(new_root) || !new_root.is_within(&root) {
            bail!(EINVAL);
        }
        let mut mounts = self.mounts.lock();
        let above = root.mount.mount_point();
        mounts.relocate(&new_root.mount, above.as_ref());
        mounts.relocate(&root.mount, Some(put_old));
        drop(mounts);
        for process in ctx.kernel.tasks.processes() {
            let threads = process.inner.lock().threads.clone();
            for task in threads {
                let fs = task.fs();
                let mut inner = fs.inner.lock();
                if inner.root.same(&root) {
                    inner.root = new_root.clone();
                }
                if inner.cwd.same(&root) {
                    inner.cwd = new_root.clone();
                }
            }
        }
        Ok(())
    }

    /// Every file system in use, in the order of mounting: also those of which no mount is to be seen any more, but which somebody has
    /// files of.
    pub(crate) fn file_systems(&self) -> Vec<Arc<SuperBlock>> {
        self.super_blocks.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// `sync(2)`: brings every file system to its disk. Returns the first error, having tried all.
    pub fn sync_all(&self) -> Result<()> {
        let results: Vec<Result<()>> = self.file_systems().iter().map(|sb| sb.fs.sync()).collect();
        results.into_iter().chain(self.flush_disks()).collect()
    }

    /// Brings to the host's disks what was written to disks past any file system.
    fn flush_disks(&self) -> Vec<Result<()>> {
        let disks = self.devices.disks();
        disks.iter().filter(|disk| disk.partition().is_none()).map(|disk| disk.flush()).collect()
    }

    /// Writes out what changed since the last time, so that a crash loses seconds only. A timer calls it.
    pub fn commit_all(&self) -> Result<()> {
        self.forget_namespaces();
        let results: Vec<Result<()>> = self.file_systems().iter().map(|sb| sb.fs.commit()).collect();
        results.into_iter().collect()
    }

    /// Power-off: makes every file system read-only and leaves its disk clean, the last mounted first. Open files
    /// stay open, but nothing more can be written.
    pub fn shut_down(&self) -> Result<()> {
        let mut result = Ok(());
        for sb in self.file_systems().iter().rev() {
            let done = sb.fs.sync().and_then(|()| sb.remount(true, ""));
            result = result.and(done);
        }
        self.flush_disks().into_iter().fold(result, Result::and)
    }

    /// The mounts that are seen from the task's root, each with its path.
    fn visible_mounts(&self, root: &Location) -> Vec<(Arc<Mount>, Vec<u8>)> {
        let own = |mount: &&Arc<Mount>| mount.namespace() == root.mount.namespace();
        let all: Vec<Arc<Mount>> = self.mounts.lock().all().iter().filter(own).cloned().collect();
        let seen = all.into_iter().filter_map(|mount| {
            let text = mount.root_location().path_from(root);
            text.reachable.then_some((mount, text.path))
        });
        seen.collect()
    }

    /// `/proc/PID/mounts`, as seen from `root`.
    pub fn mounts_text(&self, root: &Location) -> Vec<u8> {
        let mut text = Vec::new();
        for (mount, path) in self.visible_mounts(root) {
            escape(&mut text, &mount.source);
            text.push(b' ');
            escape(&mut text, &path);
            text.push(b' ');
            text.extend_from_slice(mount.sb.fs.name().as_bytes());
            text.push(b' ');
            text.extend_from_slice(if mount.read_only() { b"ro" } else { b"rw" });
            push_flags(&mut text, mount.flags());
            push_options(&mut text, &mount);
            text.extend_from_slice(b" 0 0\n");
        }
        text
    }

    /// `/proc/PID/mountinfo`, as seen from `root` (`proc_pid_mountinfo(5)`).
    pub fn mountinfo_text(&self, root: &Location) -> Vec<u8> {
        let mut text = Vec::new();
        for (mount, path) in self.visible_mounts(root) {
            let parent = mount.mount_point().map_or(mount.id, |p| p.mount.id);
            let dev = mount.sb.fs.dev();
            let head = alloc::format!("{} {} {}:{} ", mount.id, parent, major(dev), minor(dev));
            text.extend_from_slice(head.as_bytes());
            let fs_root = Location { mount: mount.clone(), dentry: mount.sb.root.clone() };
            escape(&mut text, &subtree_path(&mount, &fs_root));
            text.push(b' ');
            escape(&mut text, &path);
            text.extend_from_slice(if mount.flags().contains(MountFlags::RDONLY) { b" ro" } else { b" rw" });
            push_flags(&mut text, mount.flags());
            let propagation = mount.propagation();
            if let Some(group) = propagation.group {
                text.extend_from_slice(alloc::format!(" shared:{group}").as_bytes());
            }
            if let Some(master) = propagation.master {
                text.extend_from_slice(alloc::format!(" master:{master}").as_bytes());
            }
            if propagation.unbindable {
                text.extend_from_slice(b" unbindable");
            }
            text.extend_from_slice(b" - ");
            text.extend_from_slice(mount.sb.fs.name().as_bytes());
            text.push(b' ');
            escape(&mut text, &mount.source);
            text.extend_from_slice(if mount.sb.read_only() { b" ro" } else { b" rw" });
            push_options(&mut text, &mount);
            text.push(b'\n');
        }
        text
    }
}

/// What is in a namespace moves within that; of a tree that is attached nowhere yet, only the whole does. (A part, moved alone, would bring
/// what is below it into no namespace.)
fn check_stays(from: &Location, at: &Location) -> Result<()> {
    let namespace = from.mount.namespace();
    if !from.mount.is_detached() && (namespace == 0 || namespace != at.mount.namespace()) {
        bail!(EINVAL, "out of a tree that is attached nowhere, or into one");
    }
    Ok(())
}

/// Whether what a mount is mounted on is shared: it cannot be moved then, for its copies would have to follow.
fn is_below_shared(mount: &Mount) -> bool {
    mount.mount_point().is_some_and(|point| point.mount.propagation().group.is_some())
}

/// The path of a mount's root within its file system.
fn subtree_path(mount: &Arc<Mount>, fs_root: &Location) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root.clone();
    while !Arc::ptr_eq(&at, &fs_root.dentry) {
        names.push(at.name());
        match at.parent() {
            Some(parent) => at = parent,
            // A file without a place, as those of namespaces are: its name is no path.
            None => return at.name().to_vec(),
        }
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

fn push_flags(text: &mut Vec<u8>, flags: MountFlags) {
    for (flag, name) in [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
    ] {
        if flags.contains(flag) {
            text.extend_from_slice(name.as_bytes());
        }
    }
    if !flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        text.extend_from_slice(b",relatime");
    }
    if flags.contains(MountFlags::NOSYMFOLLOW) {
        text.extend_from_slice(b",nosymfollow");
    }
}

fn push_options(text: &mut Vec<u8>, mount: &Mount) {
    let options = mount.sb.fs.options();
    if !options.is_empty() {
        text.push(b',');
        text.extend_from_slice(options.as_bytes());
    }
}

/// Writes a field of `/proc/mounts`: white space and backslashes as octal escapes (`getmntent(3)`).
fn escape(text: &mut Vec<u8>, field: &[u8]) {
    for &b in field {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' => text.extend_from_slice(alloc::format!("\\{b:03o}").as_bytes()),
            b => text.push(b),
        }
    }
    if field.is_empty() {
        text.extend_from_slice(b"none");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_escaped() {
        let mut text = Vec::new();
        escape(&mut text, b"a b\\c");
        assert_eq!(text, b"a\\040b\\134c");
    }
}
