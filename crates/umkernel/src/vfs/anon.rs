//! Files without a place in any file system: pipes, sockets, eventfds. They hang off a mount that is attached nowhere.

use super::file::Hold;
use super::{
    Attr, Dentry, File, FileOps, FileSystem, FileType, Inode, InodeCommon, InodeRef, Location, Mount, MountFlags,
    OpenFlags, SetAttr, StatFs, SuperBlock, Vfs,
};
use crate::errno::Result;
use crate::sync::SeqLock;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

/// A file system whose files open files and links lead to, and no path.
pub(super) struct AnonFs {
    pub(super) name: &'static str,
    pub(super) magic: u64,
    pub(super) dev: u64,
}

/// `ANON_INODE_FS_MAGIC` of `linux/magic.h`.
pub(super) const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;
/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS_MAGIC: u64 = 0x6e73_6673;

impl FileSystem for AnonFs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(root_inode(self.dev))
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { fs_type: self.magic, bsize: 4096, namelen: 255, ..StatFs::default() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn root_inode(dev: u64) -> InodeRef {
    Arc::new(AnonInode::new(dev, 1, FileType::Directory, 0o555, 0, 0))
}

/// The mount of such a file system, which is attached nowhere.
pub(super) fn pseudo_mount(id: u32, fs: AnonFs, flags: MountFlags) -> Arc<Mount> {
    let (name, root) = (fs.name, Dentry::new_root(root_inode(fs.dev)));
    let sb = SuperBlock::with_root(Arc::new(fs), root, AtomicBool::new(false));
    let root = sb.root.clone();
    Mount::new(id, sb, root, name.as_bytes(), flags)
}

/// An inode that only open files refer to.
struct AnonInode {
    file_type: FileType,
    attr: SeqLock<Attr>,
    common: InodeCommon,
}

impl AnonInode {
    fn new(dev: u64, ino: u64, file_type: FileType, mode: u32, uid: u32, gid: u32) -> AnonInode {
        let attr = Attr::new(dev, ino, file_type, mode, (uid, gid));
        AnonInode { file_type, attr: SeqLock::new(attr), common: InodeCommon::default() }
    }
}

impl Inode for AnonInode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr.read())
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn common(&self) -> Option<&InodeCommon> {
        Some(&self.common)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        self.attr.write().apply(set);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Attr {
    /// Takes over the attributes that a change names, the size aside.
    pub fn apply(&mut self, set: &SetAttr) {
        self.mode = set.mode.unwrap_or(self.mode);
        self.uid = set.uid.unwrap_or(self.uid);
        self.gid = set.gid.unwrap_or(self.gid);
        self.atime = set.atime.unwrap_or(self.atime);
        self.mtime = set.mtime.unwrap_or(self.mtime);
        self.ctime = set.ctime.unwrap_or(self.ctime);
    }
}

impl Vfs {
    /// An inode without a name, owned by `(uid, gid)`: what sockets and pipes are to `fstat(2)`.
    pub fn anon_inode(&self, file_type: FileType, mode: u32, (uid, gid): (u32, u32)) -> InodeRef {
        let dev = self.anonymous.sb.fs.dev();
        Arc::new(AnonInode::new(dev, self.anonymous_ino(), file_type, mode, uid, gid))
    }

    /// The mount that the files of namespaces are on. Mounts of such a file are copies of it.
    pub(crate) fn nsfs(&self) -> Arc<Mount> {
        let make = || {
            let fs = AnonFs { name: "nsfs", magic: NSFS_MAGIC, dev: self.anonymous_dev() };
            // Times that nobody keeps; the list of mounts says nothing of them.
            pseudo_mount(self.next_mount.fetch_add(1, Ordering::Relaxed), fs, MountFlags::STRICTATIME)
        };
        self.nsfs.lock().get_or_insert_with(make).clone()
    }

    /// An open file without a name; `/proc/PID/fd` shows `name`, such as `"anon_inode:[eventfd]"`.
    pub fn anon_file(&self, name: &str, ops: Box<dyn FileOps>, flags: OpenFlags) -> Arc<File> {
        let inode = self.anon_inode(FileType::Regular, 0o600, (0, 0));
        self.anon_file_on(name, inode, Some(ops), flags)
    }

    /// An open regular file whose name is gone (`memfd_create(2)`); `/proc/PID/fd` shows `name` and `" (deleted)"`.
    pub fn anon_regular(&self, name: &[u8], inode: InodeRef, flags: OpenFlags) -> Result<Arc<File>> {
        let dentry = Dentry::detached(inode.clone(), name);
        dentry.mark_deleted();
        let location = Location { mount: self.anonymous.clone(), dentry };
        Hold::Write.acquire(&location)?;
        Ok(Arc::new(File::new(location, inode, None, flags).holding(Hold::Write)))
    }

    /// An open file on an inode without a name.
    pub fn anon_file_on(
        &self,
        name: &str,
        inode: InodeRef,
        ops: Option<Box<dyn FileOps>>,
        flags: OpenFlags,
    ) -> Arc<File> {
        let dentry = Dentry::detached(inode.clone(), name.as_bytes());
        let location = Location { mount: self.anonymous.clone(), dentry };
        Arc::new(File::new(location, inode, ops, flags))
    }
}
