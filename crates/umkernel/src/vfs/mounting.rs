//! Changing the mount tree: `mount(2)`, `umount2(2)`, `pivot_root(2)`, `chroot(2)`; and what `/proc` says of it.

use super::{
    FileSystem, FileType, FsContext, FsInner, Location, Mount, MountFlags, MountRequest, Propagation, SuperBlock, Vfs,
    major, minor,
};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// `umount2(2)`: detach now, clean up when nobody uses it any more.
pub const MNT_DETACH: u32 = 2;
/// `umount2(2)`: give up instead of forcing (nothing here needs force).
pub const MNT_FORCE: u32 = 1;
/// `umount2(2)`: mark as expired, unmount at the second call.
pub const MNT_EXPIRE: u32 = 4;

impl FsContext {
    /// What the machine's first process starts with: everything at `root`.
    pub fn at_root(root: Location) -> FsContext {
        FsContext { inner: Mutex::new(FsInner { cwd: root.clone(), root, umask: 0o022 }) }
    }
}

impl Vfs {
    /// Mounts the machine's root file system and gives its root.
    pub fn mount_root(&self, fs: Arc<dyn FileSystem>, source: &[u8], flags: MountFlags) -> Result<Location> {
        let sb = SuperBlock::new(fs, flags.contains(MountFlags::RDONLY))?;
        let mount = self.new_mount(sb.clone(), sb.root.clone(), source, flags);
        self.mounts.lock().attach(mount.clone(), None);
        Ok(mount.root_location())
    }

    fn new_mount(&self, sb: Arc<SuperBlock>, root: Arc<super::Dentry>, source: &[u8], flags: MountFlags) -> Arc<Mount> {
        Mount::new(self.next_mount.fetch_add(1, Ordering::Relaxed), sb, root, source, flags)
    }

    /// Mounts a file system at a place, which must be a directory.
    pub fn mount_at(
        &self,
        at: &Location,
        fs: Arc<dyn FileSystem>,
        source: &[u8],
        flags: MountFlags,
    ) -> Result<Arc<Mount>> {
        let existing = self.mounts.lock().all().iter().map(|m| m.sb.clone()).find(|sb| Arc::ptr_eq(&sb.fs, &fs));
        let sb = match existing {
            Some(sb) => sb,
            None => SuperBlock::new(fs, flags.contains(MountFlags::RDONLY))?,
        };
        let root = sb.root.clone();
        self.graft(at, sb, root, source, flags, Propagation::default())
    }

    fn graft(
        &self,
        at: &Location,
        sb: Arc<SuperBlock>,
        root: Arc<super::Dentry>,
        source: &[u8],
        flags: MountFlags,
        propagation: Propagation,
    ) -> Result<Arc<Mount>> {
        let directory = |d: &super::Dentry| d.inode.file_type() == FileType::Directory;
        if directory(&root) != directory(&at.dentry) {
            bail!(ENOTDIR);
        }
        Vfs::alive(&at.dentry)?;
        let mount = self.new_mount(sb, root, source, flags);
        mount.set_propagation(propagation);
        let mut mounts = self.mounts.lock();
        let mut at = at.clone();
        while let Some(on_top) = mounts.covering(&at) {
            at = on_top.root_location();
        }
        mounts.attach_everywhere(&mount, &at, |m| self.new_mount(m.sb.clone(), m.root.clone(), &m.source, m.flags()));
        Ok(mount)
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
        let found = self.fs_types.lock().iter().find(|t| t.name.as_bytes() == fs_type).copied();
        let Some(fs_type) = found else {
            bail!(ENODEV);
        };
        let request = MountRequest { source, read_only: flags.contains(MountFlags::RDONLY), data };
        let fs = (fs_type.mount)(ctx, &request)?;
        if self.mounts.lock().all().iter().any(|m| {
            Arc::ptr_eq(&m.sb.fs, &fs) && m.mount_point().is_some_and(|p| p.same(at) || at.same(&m.root_location()))
        }) {
            bail!(EBUSY, "already mounted there");
        }
        self.mount_at(at, fs, source, flags).map(drop)
    }

    /// The mounted file system on a device number, so that a disk mounted twice is one file system.
    pub fn mounted_fs(&self, dev: u64) -> Option<Arc<dyn FileSystem>> {
        self.mounts.lock().all().iter().map(|m| &m.sb.fs).find(|fs| fs.dev() == dev).cloned()
    }

    /// `mount(2)` with `MS_BIND`: shows what is at `from` at `at` as well; `recursive` with the mounts below it.
    pub fn bind(&self, from: &Location, at: &Location, recursive: bool) -> Result<()> {
        let old = &from.mount;
        if old.propagation().unbindable {
            bail!(EINVAL, "an unbindable mount");
        }
        // A copy of a shared mount is its peer.
        let mount = self.graft(at, old.sb.clone(), from.dentry.clone(), &old.source, old.flags(), old.propagation())?;
        if !recursive {
            return Ok(());
        }
        // Copies of the mounts below, each at the same place of the copy of its parent.
        let mut copies: Vec<(Arc<Mount>, Arc<Mount>)> = alloc::vec![(from.mount.clone(), mount.clone())];
        let below = self.mounts.lock().subtree(&from.mount);
        for old in below.iter().skip(1).filter(|m| !Arc::ptr_eq(m, &mount) && !m.propagation().unbindable) {
            let Some(point) = old.mount_point() else {
                continue;
            };
            if Arc::ptr_eq(&point.mount, &from.mount) && !point.dentry.is_within(&from.dentry) {
                continue;
            }
            let Some((_, parent)) = copies.iter().find(|(o, _)| Arc::ptr_eq(o, &point.mount)) else {
                continue;
            };
            let at = Location { mount: parent.clone(), dentry: point.dentry.clone() };
            let copy =
                self.graft(&at, old.sb.clone(), old.root.clone(), &old.source, old.flags(), old.propagation())?;
            copies.push((old.clone(), copy));
        }
        Ok(())
    }

    /// `mount(2)` with `MS_MOVE`.
    pub fn move_mount(&self, from: &Location, at: &Location) -> Result<()> {
        if !from.is_mount_root() || from.mount.mount_point().is_none() {
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
            bail!(ENOTDIR);
        }
        self.mounts.lock().relocate(&from.mount, Some(at));
        Ok(())
    }

    /// `mount(2)` with `MS_REMOUNT`: changes the mount's flags and, unless `bind`, the file system's.
    pub fn remount(&self, at: &Location, flags: MountFlags, bind: bool, data: &str) -> Result<()> {
        if !at.is_mount_root() {
            bail!(EINVAL, "not a mount point");
        }
        let read_only = flags.contains(MountFlags::RDONLY);
        if read_only && !at.mount.flags().contains(MountFlags::RDONLY) {
            let writers: i32 = if bind {
                at.mount.writers.load(Ordering::Acquire)
            } else {
                let mounts = self.mounts.lock();
                let of_fs = mounts.all().iter().filter(|m| Arc::ptr_eq(&m.sb, &at.mount.sb));
                of_fs.map(|m| m.writers.load(Ordering::Acquire)).sum()
            };
            if writers > 0 {
                bail!(EBUSY, "files are open for writing");
            }
        }
        if !bind {
            at.mount.sb.remount(read_only, data)?;
        }
        at.mount.set_flags(flags);
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
            let copies = mounts.detached_with(&mount);
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
        if !new_root.is_mount_root() || !root.is_mount_root() {
            bail!(EINVAL, "not a mount point");
        }
        if is_below_shared(&new_root.mount) || is_below_shared(&root.mount) {
            bail!(EINVAL, "mounted on a shared mount");
        }
        if Arc::ptr_eq(&new_root.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
            bail!(EBUSY);
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

    /// Every mounted file system once, in the order of mounting.
    fn file_systems(&self) -> Vec<Arc<SuperBlock>> {
        let mut all: Vec<Arc<SuperBlock>> = Vec::new();
        for mount in self.mounts.lock().all() {
            if !all.iter().any(|sb| Arc::ptr_eq(sb, &mount.sb)) {
                all.push(mount.sb.clone());
            }
        }
        all
    }

    /// `sync(2)`: brings every file system to its disk. Returns the first error, having tried all.
    pub fn sync_all(&self) -> Result<()> {
        let results: Vec<Result<()>> = self.file_systems().iter().map(|sb| sb.fs.sync()).collect();
        results.into_iter().collect()
    }

    /// Writes out what changed since the last time, so that a crash loses seconds only. A timer calls it.
    pub fn commit_all(&self) -> Result<()> {
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
        result
    }

    /// The mounts that are seen from the task's root, each with its path.
    fn visible_mounts(&self, root: &Location) -> Vec<(Arc<Mount>, Vec<u8>)> {
        let all: Vec<Arc<Mount>> = self.mounts.lock().all().to_vec();
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
            None => break,
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
