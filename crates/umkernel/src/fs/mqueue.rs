//! mqueue: POSIX message queues as files (`mq_overview(7)`).
//!
//! Each IPC namespace has one instance. The kernel itself looks for queues by name in it (`mq_open(2)`, `mq_unlink(2)`), whether it is mounted
//! anywhere or not; through a mount they can be listed, read, made and removed, too. Whatever opens a queue, its descriptor serves
//! all calls.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::ipc::mqueue::{How, Message, Notice, Patience, Queue};
use crate::kernel::Ctx;
use crate::mm::{IoDst, PAGE_SIZE};
use crate::sync::{Mutex, PollTable, SeqLock};
use crate::vfs::{
    Attr, DirEntry, DirSink, File, FileOps, FileSystem, FileType, FsType, Inode, InodeCommon, InodeRef, Mount,
    MountRequest, NAME_MAX, NewInode, OpenFlags, OpenHow, PollEvents, SetAttr, StatFs, Timestamp,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::any::Any;

/// `MQUEUE_MAGIC` of Linux's `ipc/mqueue.c`.
const MQUEUE_MAGIC: u64 = 0x1980_0202;
/// What a queue's file has for its size (`FILENT_SIZE`), whatever it says.
const FILE_SIZE: u64 = 80;
/// What each counts for in its directory's size (`DIRENT_SIZE`).
const ENTRY_SIZE: u64 = 20;
const ROOT_INO: u64 = 1;
/// The inode number of the first queue. Numbers are also places in a listing, behind `.` and `..`.
const FIRST_INO: u64 = 2;

/// The type, for `mount(2)`.
pub const FS_TYPE: FsType = FsType { name: "mqueue", needs_device: false, mount };

/// The instance.
pub struct MqueueFs {
    me: Weak<MqueueFs>,
    dev: u64,
    root: SeqLock<Attr>,
    names: Mutex<Names>,
}

/// The queues that have a name.
struct Names {
    by_name: BTreeMap<Arc<[u8]>, u64>,
    by_ino: BTreeMap<u64, (Arc<[u8]>, Arc<QueueInode>)>,
    next_ino: u64,
}

impl Names {
    fn get(&self, name: &[u8]) -> Option<&Arc<QueueInode>> {
        let ino = self.by_name.get(name)?;
        self.by_ino.get(ino).map(|(_, inode)| inode)
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<QueueInode>> {
        let ino = self.by_name.remove(name)?;
        self.by_ino.remove(&ino).map(|(_, inode)| inode)
    }
}

fn mount(ctx: &Ctx, request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    check_options(request.data)?;
    Ok(own_mount(ctx)?.sb.fs.clone())
}

/// Refuses whatever is said of the instance: there are no options.
fn check_options(data: &str) -> Result<()> {
    if data.split(',').any(|option| !option.is_empty()) {
        bail!(EINVAL, "mqueue has no options");
    }
    Ok(())
}

/// The mount that the kernel itself uses.
fn own_mount(ctx: &Ctx) -> Result<Arc<Mount>> {
    let vfs = &ctx.kernel.vfs;
    let mut own = ctx.ipc().mqueue.lock();
    match &*own {
        Some(mount) => Ok(mount.clone()),
        None => Ok(own.insert(vfs.internal_mount(MqueueFs::new(vfs.anonymous_dev()))?).clone()),
    }
}

/// What `mq_open(2)` and `mq_unlink(2)` look for: a name without any directory (`lookup_noperm_common` of Linux).
fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" => bail!(ENOENT),
        b"." | b".." => bail!(EACCES, "the directory is no queue"),
        _ if name.contains(&b'/') => bail!(EACCES, "queues have no directories"),
        _ if name.len() > NAME_MAX => bail!(ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// `mq_open(2)`; `wish`: how many messages a new queue is to take, and of how many bytes.
///
/// # Errors
/// Those of the man page.
pub fn open(ctx: &Ctx, name: &[u8], flags: OpenFlags, mode: u32, wish: Option<[i64; 2]>) -> Result<Arc<File>> {
    /// The one access mode that `open(2)` has and this call has not.
    const NO_ACCESS: OpenFlags = OpenFlags::WRONLY.union(OpenFlags::RDWR);
    check_name(name)?;
    let own = own_mount(ctx)?;
    let Some(fs) = own.sb.fs.as_any().downcast_ref::<MqueueFs>() else { bail!(ENODEV) };
    let exists = fs.names.lock().get(name).is_some();
    if exists && flags.contains(NO_ACCESS) && !flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) {
        bail!(EINVAL, "an access mode that there is not");
    }
    // What is said of a file's data means nothing.
    let how = OpenHow::new(flags - (OpenFlags::TRUNC | OpenFlags::NOATIME), mode & 0o7777);
    ctx.kernel.vfs.open_child(ctx, &own.root_location(), name, how, |new| fs.add(ctx, name, new, wish))
}

/// `mq_unlink(2)`.
///
/// # Errors
/// Those of the man page; `EPERM` where it has `EACCES`, which is the C library's.
pub fn unlink(ctx: &Ctx, name: &[u8]) -> Result<()> {
    check_name(name)?;
    let dir = own_mount(ctx)?.root_location();
    ctx.kernel.vfs.unlink_child(ctx, ctx.creds(), &dir, name, false)
}

impl MqueueFs {
    fn new(dev: u64) -> Arc<MqueueFs> {
        let root =
            Attr { nlink: 2, size: 2 * ENTRY_SIZE, ..Attr::new(dev, ROOT_INO, FileType::Directory, 0o1777, (0, 0)) };
        let names = Names { by_name: BTreeMap::new(), by_ino: BTreeMap::new(), next_ino: FIRST_INO };
        let (root, names) = (SeqLock::new(root), Mutex::new(names));
        Arc::new_cyclic(|me| MqueueFs { me: me.clone(), dev, root, names })
    }

    /// Makes a queue of the running task's user.
    fn add(&self, ctx: &Ctx, name: &[u8], new: &NewInode, wish: Option<[i64; 2]>) -> Result<InodeRef> {
        let queue = ctx.kernel.mqueues.create(ctx, wish)?;
        let name: Arc<[u8]> = Arc::from(name);
        let mut names = self.names.lock();
        if names.by_name.contains_key(&name) {
            bail!(EEXIST);
        }
        let ino = names.next_ino;
        names.next_ino += 1;
        let attr =
            Attr { size: FILE_SIZE, ..Attr::new(self.dev, ino, FileType::Regular, new.mode, (new.uid, new.gid)) };
        let inode = Arc::new(QueueInode { attr: SeqLock::new(attr), common: InodeCommon::default(), queue });
        names.by_name.insert(name.clone(), ino);
        names.by_ino.insert(ino, (name, inode.clone()));
        drop(names);
        self.names_changed(1);
        Ok(inode)
    }

    /// Notes that a name came or went.
    fn names_changed(&self, entries: i64) {
        let mut root = self.root.write();
        root.size = root.size.wrapping_add_signed(entries * ENTRY_SIZE as i64);
        let now = Timestamp::now();
        (root.atime, root.mtime, root.ctime) = (now, now, now);
    }
}

impl FileSystem for MqueueFs {
    fn name(&self) -> &'static str {
        FS_TYPE.name
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(Arc::new(Root { fs: self.me.upgrade().ok_or(Errno::ENODEV)?, common: InodeCommon::default() }))
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { fs_type: MQUEUE_MAGIC, bsize: PAGE_SIZE, namelen: NAME_MAX as u64, ..StatFs::default() })
    }

    fn remount(&self, _read_only: bool, data: &str) -> Result<()> {
        check_options(data)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The directory.
struct Root {
    fs: Arc<MqueueFs>,
    common: InodeCommon,
}

impl Inode for Root {
    fn attr(&self) -> Result<Attr> {
        Ok(self.fs.root.read())
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn common(&self) -> Option<&InodeCommon> {
        Some(&self.common)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        self.fs.root.write().apply(set);
        Ok(())
    }

    fn lookup(&self, _ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        match self.fs.names.lock().get(name) {
            Some(inode) => Ok(inode.clone()),
            None => bail!(ENOENT),
        }
    }

    /// A queue as `mq_open(2)` makes it without attributes.
    fn create_for(&self, ctx: &Ctx, name: &[u8], new: &NewInode) -> Result<InodeRef> {
        if new.file_type != FileType::Regular {
            bail!(EPERM, "there are queues only");
        }
        self.fs.add(ctx, name, new, None)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let gone = self.fs.names.lock().remove(name);
        let Some(inode) = gone else { bail!(ENOENT) };
        let mut attr = inode.attr.write();
        attr.nlink = 0;
        attr.ctime = Timestamp::now();
        drop(attr);
        self.fs.names_changed(-1);
        Ok(())
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        let dots: [(u64, &[u8]); 2] = [(0, b"."), (1, b"..")];
        for (place, name) in dots {
            let entry = DirEntry { ino: ROOT_INO, file_type: FileType::Directory, name, next: place + 1 };
            if place >= cookie && !sink(&entry) {
                return Ok(());
            }
        }
        for (&ino, (name, _)) in self.fs.names.lock().by_ino.range(cookie.max(FIRST_INO)..) {
            if !sink(&DirEntry { ino, file_type: FileType::Regular, name, next: ino + 1 }) {
                break;
            }
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A queue as a file.
struct QueueInode {
    attr: SeqLock<Attr>,
    common: InodeCommon,
    queue: Queue,
}

impl QueueInode {
    /// A message came or went.
    fn changed(&self) {
        let now = Timestamp::now();
        let mut attr = self.attr.write();
        (attr.atime, attr.mtime, attr.ctime) = (now, now, now);
    }

    /// Somebody has looked, or changed something else.
    fn looked_at(&self) {
        let now = Timestamp::now();
        let mut attr = self.attr.write();
        (attr.atime, attr.ctime) = (now, now);
    }
}

impl Inode for QueueInode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr.read())
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn common(&self) -> Option<&InodeCommon> {
        Some(&self.common)
    }

    /// As on Linux, the size can be set, and means nothing.
    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        let mut attr = self.attr.write();
        attr.apply(set);
        attr.size = set.size.unwrap_or(attr.size);
        Ok(())
    }

    fn open(self: Arc<Self>, _ctx: &Ctx, _flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        Ok(Some(Box::new(OpenQueue { inode: self })))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A queue that is open.
pub struct OpenQueue {
    inode: Arc<QueueInode>,
}

/// How long a call on `file` waits, with a deadline of its own or without.
fn patience(file: &File, deadline: Option<u64>) -> Patience {
    if file.nonblocking() { Patience::None } else { Patience::Until(deadline) }
}

impl OpenQueue {
    /// The queue that is open as `file`.
    ///
    /// # Errors
    /// `EBADF` where something else is.
    pub fn of(file: &File) -> Result<&OpenQueue> {
        match file.ops_as::<OpenQueue>() {
            Some(open) => Ok(open),
            None => bail!(EBADF, "not a message queue"),
        }
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.inode.queue
    }

    /// `mq_timedsend(2)` on `file`, which this is, with a deadline of `CLOCK_REALTIME`.
    ///
    /// # Errors
    /// `EAGAIN`, `ETIMEDOUT`, `ERESTARTSYS`.
    pub fn send(&self, ctx: &Ctx, file: &File, message: Message, deadline: Option<u64>) -> Result<()> {
        self.inode.queue.send(ctx, message, patience(file, deadline))?;
        self.inode.changed();
        Ok(())
    }

    /// `mq_timedreceive(2)` on `file`, which this is, with a deadline of `CLOCK_REALTIME`.
    ///
    /// # Errors
    /// `EAGAIN`, `ETIMEDOUT`, `ERESTARTSYS`.
    pub fn receive(&self, ctx: &Ctx, file: &File, deadline: Option<u64>) -> Result<Message> {
        let message = self.inode.queue.receive(ctx, patience(file, deadline))?;
        self.inode.changed();
        Ok(message)
    }

    /// `mq_notify(2)` by the running task; without a way, its process is not told any more.
    ///
    /// # Errors
    /// `EBUSY` when a process is told already.
    pub fn notify(&self, ctx: &Ctx, how: Option<How>) -> Result<()> {
        let changed = match how {
            Some(how) => self.inode.queue.register(Notice::new(ctx, how)?).map(|()| true)?,
            None => self.inode.queue.unregister(&ctx.task.process),
        };
        if changed {
            self.inode.looked_at();
        }
        Ok(())
    }

    /// `mq_setattr(3)` on `file`, which this is: whether calls wait.
    pub fn set_nonblocking(&self, ctx: &Ctx, file: &File, fd: i32, on: bool) {
        let mut flags = file.flags();
        flags.set(OpenFlags::NONBLOCK, on);
        file.change_flags(ctx, fd, flags);
        self.inode.looked_at();
    }
}

impl FileOps for OpenQueue {
    fn read(&self, _ctx: &Ctx, _file: &File, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let text = self.inode.queue.describe();
        let rest = usize::try_from(offset).ok().and_then(|at| text.as_bytes().get(at..)).unwrap_or_default();
        if rest.is_empty() || dst.remaining() == 0 {
            return Ok(0);
        }
        let done = dst.put(rest)?;
        self.inode.looked_at();
        Ok(done)
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        self.inode.queue.poll(table)
    }

    fn seekable(&self) -> bool {
        true
    }

    /// Whoever closes a descriptor of a queue is not told of its messages any more.
    fn flush(&self, ctx: &Ctx, _file: &File) -> Result<()> {
        self.inode.queue.unregister(&ctx.task.process);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use crate::testing::{open as open_path, tmpfs_machine};
    use crate::vfs::{AT_FDCWD, MountFlags, WalkFlags};
    use linux_raw_sys::general::{__NR_close, O_CREAT, O_RDONLY, O_RDWR};
    use std::string::{String, ToString};
    use std::vec::Vec;

    #[test]
    fn names_are_those_of_one_directory() {
        let machine = tmpfs_machine();
        let task = machine.task();
        let ctx = &machine.ctx(&task);
        let vfs = &ctx.kernel.vfs;
        let place = |path: &[u8]| vfs.resolve(ctx, AT_FDCWD, path, WalkFlags::FOLLOW).unwrap();
        let flags = OpenFlags::RDWR | OpenFlags::CREAT;
        let errno = |result: Result<Arc<File>>| result.err().map(|error| error.errno);
        let wrong: [(&[u8], Errno); 5] = [
            (b"", Errno::ENOENT),
            (b".", Errno::EACCES),
            (b"..", Errno::EACCES),
            (b"a/b", Errno::EACCES),
            (&[b'n'; 256], Errno::ENAMETOOLONG),
        ];
        for (name, error) in wrong {
            assert_eq!(errno(open(ctx, name, flags, 0o600, None)), Some(error));
        }
        let queue = open(ctx, b"before", flags, 0o600, None).unwrap();
        vfs.mkdir(ctx, AT_FDCWD, b"/m", 0o755).unwrap();
        let mount = |data| vfs.mount_new(ctx, &place(b"/m"), b"mqueue", b"none", MountFlags::empty(), data);
        assert_eq!(mount("mode=700").err().map(|error| error.errno), Some(Errno::EINVAL));
        mount("").unwrap();
        let made = open_path(ctx, "/m/made", O_RDWR | O_CREAT).unwrap();
        ctx.call(__NR_close, &[made]).unwrap();
        assert!(open(ctx, b"made", OpenFlags::RDWR, 0, None).is_ok());
        let listed = || {
            let mut names: Vec<String> = Vec::new();
            place(b"/m")
                .dentry
                .inode
                .read_dir(ctx, 2, &mut |entry| {
                    names.push(String::from_utf8_lossy(entry.name).to_string());
                    true
                })
                .unwrap();
            names
        };
        assert_eq!(listed(), ["before", "made"]);
        let attr = place(b"/m").dentry.inode.attr().unwrap();
        assert_eq!((attr.mode, attr.size, attr.nlink), (0o1777, 80, 2));
        assert_eq!(vfs.mkdir(ctx, AT_FDCWD, b"/m/d", 0o755).err().map(|error| error.errno), Some(Errno::EPERM));
        vfs.unlink(ctx, AT_FDCWD, b"/m/before").unwrap();
        assert_eq!(errno(open(ctx, b"before", OpenFlags::RDWR, 0, None)), Some(Errno::ENOENT));
        // Who has it open goes on.
        assert_eq!((OpenQueue::of(&queue).unwrap().queue().count(), queue.inode.attr().unwrap().nlink), (0, 0));
        unlink(ctx, b"made").unwrap();
        assert_eq!(open_path(ctx, "/m/made", O_RDONLY).unwrap_err().errno, Errno::ENOENT);
        assert!(listed().is_empty());
        vfs.umount(&place(b"/m"), 0).unwrap();
        assert!(open(ctx, b"after", flags, 0o600, None).is_ok());
    }
}
