//! Inodes: what a file system offers the VFS.

use super::{FileLocks, FileOps, InodeFlags, Location, OpenFlags, Pipe};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

/// An inode in memory, shared by everyone who has the file open or cached.
pub type InodeRef = Arc<dyn Inode>;

/// The type of a file (`inode(7)`), with the values of `S_IFMT` shifted right by 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the types' own names")]
pub enum FileType {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    Symlink = 10,
    Socket = 12,
}

impl FileType {
    /// The type in the upper bits of a mode; a mode without type is a regular file (`mknod(2)`).
    pub fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode >> 12 & 15 {
            0 | 8 => FileType::Regular,
            1 => FileType::Fifo,
            2 => FileType::CharDevice,
            4 => FileType::Directory,
            6 => FileType::BlockDevice,
            10 => FileType::Symlink,
            12 => FileType::Socket,
            _ => return None,
        })
    }

    /// The type as the upper bits of a mode (`S_IFMT`).
    pub fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }
}

/// A point in time: seconds since the epoch and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC; may be negative.
    pub sec: i64,
    /// Nanoseconds, 0..1_000_000_000.
    pub nsec: u32,
}

impl Timestamp {
    /// The current time, CLOCK_REALTIME.
    pub fn now() -> Timestamp {
        let ns = crate::host::realtime_ns();
        Timestamp { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as u32 }
    }
}

/// What `stat(2)` tells of an inode.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields' names are those of stat(2)")]
pub struct Attr {
    pub dev: u64,
    pub ino: u64,
    pub file_type: FileType,
    /// Permission bits and set-id bits, 12 bits.
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    /// Encoded as `makedev(3)` does.
    pub rdev: u64,
    pub size: u64,
    pub blksize: u32,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// Birth time, where the file system knows it.
    pub btime: Option<Timestamp>,
}

impl Attr {
    /// Those of a file that is made up at this moment, with one name and no bytes.
    pub fn new(dev: u64, ino: u64, file_type: FileType, mode: u32, (uid, gid): (u32, u32)) -> Attr {
        let now = Timestamp::now();
        Attr {
            dev,
            ino,
            file_type,
            mode,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            size: 0,
            blksize: 4096,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: None,
        }
    }
}

/// Attributes to change; the VFS has checked permissions. `ctime` is what the change time becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields' names are those of stat(2)")]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Timestamp>,
    pub mtime: Option<Timestamp>,
    pub ctime: Option<Timestamp>,
}

/// What a new inode gets.
#[derive(Clone, Copy, Debug)]
pub struct NewInode {
    /// Type.
    pub file_type: FileType,
    /// Permission bits, umask applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for device nodes, encoded as `makedev(3)` does.
    pub rdev: u64,
}

/// A directory entry.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Type.
    pub file_type: FileType,
    /// Name, without `/` and NUL.
    pub name: &'a [u8],
    /// Where to go on reading behind this entry (`d_off`).
    pub next: u64,
}

/// Takes directory entries; false when it is full and the entry was not taken.
pub type DirSink<'a> = &'a mut dyn FnMut(&DirEntry<'_>) -> bool;

/// A piece of a file as the host has it: where `mmap` finds the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostExtent {
    /// Byte offset in the guest's file, page aligned.
    pub file_offset: u64,
    /// Bytes, whole pages.
    pub len: u64,
    /// Host descriptor and byte offset, page aligned; `None` for a hole: zero pages.
    pub host: Option<(i32, u64)>,
}

/// File system statistics (`statfs(2)`).
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the fields' names are those of statfs(2)")]
pub struct StatFs {
    pub fs_type: u64,
    pub bsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub fsid: u64,
    pub namelen: u64,
    pub flags: u64,
}

/// What the VFS keeps with an inode while it is in memory; the inode's file system only holds it.
#[derive(Default)]
pub struct InodeCommon {
    /// Open for writing this many times, or, negative, being executed this many times.
    writers: AtomicI32,
    /// Locks of `fcntl(2)` and `flock(2)`.
    pub locks: FileLocks,
    /// Leases (`fcntl(F_SETLEASE)`).
    pub(super) leases: super::leases::Leases,
    /// The pipe behind a FIFO that is open.
    pub pipe: Mutex<Weak<Pipe>>,
    /// Seals (`fcntl(F_GET_SEALS)`), with [`SEALABLE`] set where the file system knows them.
    seals: AtomicU32,
    /// Its flags ([`InodeFlags`]), as its file system has them.
    flags: AtomicU32,
    /// Has been mapped into memory.
    mapped: AtomicBool,
    /// How many go by the places where its blocks are.
    pins: AtomicU32,
    /// Who wants to hear of what happens to it.
    pub(super) marks: super::notify::Marks,
    /// Its access control lists.
    pub(super) acls: super::acl::Known,
}

/// Marks an inode that has seals.
const SEALABLE: u32 = 1 << 31;

/// No more seals may be added (`F_SEAL_SEAL`).
pub const SEAL_SEAL: u32 = 1;
/// The file must not become shorter (`F_SEAL_SHRINK`).
pub const SEAL_SHRINK: u32 = 2;
/// The file must not become longer (`F_SEAL_GROW`).
pub const SEAL_GROW: u32 = 4;
/// The contents must not change (`F_SEAL_WRITE`).
pub const SEAL_WRITE: u32 = 8;
/// The execute bits must not change (`F_SEAL_EXEC`).
pub const SEAL_EXEC: u32 = 32;
/// The contents must not change but through mappings that exist (`F_SEAL_FUTURE_WRITE`).
pub const SEAL_FUTURE_WRITE: u32 = 16;

impl InodeCommon {
    /// State of an inode that has seals, and these already.
    pub fn sealable(seals: u32) -> InodeCommon {
        InodeCommon { seals: AtomicU32::new(seals | SEALABLE), ..InodeCommon::default() }
    }

    /// The inode's flags.
    pub fn flags(&self) -> InodeFlags {
        InodeFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Notes what the flags are now.
    pub fn note_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// Notes that the file is being mapped into memory.
    pub fn set_mapped(&self) {
        self.mapped.store(true, Ordering::Release);
    }

    /// Whether the file may be mapped into somebody's memory: it was at some time.
    pub fn mapped(&self) -> bool {
        self.mapped.load(Ordering::Acquire)
    }

    /// Keeps the file's blocks where they are, for who goes by their places, until [`InodeCommon::unpin`].
    pub fn pin(&self) {
        self.pins.fetch_add(1, Ordering::AcqRel);
    }

    /// Undoes [`InodeCommon::pin`].
    pub fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many go by the places where its blocks are.
    pub fn pins(&self) -> u32 {
        self.pins.load(Ordering::Acquire)
    }

    /// The seals, of an inode that can have any.
    pub fn seals(&self) -> Option<u32> {
        let seals = self.seals.load(Ordering::Acquire);
        (seals & SEALABLE != 0).then_some(seals & !SEALABLE)
    }

    /// Replaces the seals of an inode that nobody else knows yet.
    pub fn set_seals(&self, seals: u32) {
        self.seals.store(seals | SEALABLE, Ordering::Release);
    }

    /// `fcntl(F_ADD_SEALS)`: `EPERM` once sealed against it, `EINVAL` for unknown seals, `EBUSY` for a seal against writes of a file
    /// whose blocks are pinned ([`InodeCommon::pin`]).
    pub fn add_seals(&self, seals: u32) -> Result<()> {
        const KNOWN: u32 = SEAL_SEAL | SEAL_SHRINK | SEAL_GROW | SEAL_WRITE | SEAL_FUTURE_WRITE | SEAL_EXEC;
        if seals & !KNOWN != 0 || self.seals().is_none() {
            return Err(Errno::EINVAL.into());
        }
        // Who goes by the places of its blocks writes there, and asks nobody.
        if seals & (SEAL_WRITE | SEAL_FUTURE_WRITE) != 0 && self.pins() > 0 {
            return Err(Errno::EBUSY.into());
        }
        let more = |old: u32| (old & SEAL_SEAL == 0).then_some(old | seals);
        self.seals.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Errno::EPERM)?;
        Ok(())
    }

    /// Counts one more writer; `ETXTBSY` while the file is being executed.
    pub fn get_write(&self) -> Result<()> {
        let more = |n: i32| (n >= 0).then_some(n + 1);
        self.writers.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Errno::ETXTBSY)?;
        Ok(())
    }

    /// How often it is open for writing; negative while it is being executed.
    pub(super) fn writers(&self) -> i32 {
        self.writers.load(Ordering::Acquire)
    }

    /// Undoes [`InodeCommon::get_write`].
    pub fn put_write(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Keeps writers away: the file is being executed. `ETXTBSY` while it is open for writing.
    pub fn deny_write(&self) -> Result<()> {
        let more = |n: i32| (n <= 0).then_some(n - 1);
        self.writers.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Errno::ETXTBSY)?;
        Ok(())
    }

    /// Undoes [`InodeCommon::deny_write`].
    pub fn allow_write(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }
}

/// A file, directory, device or other object of a file system.
///
/// Methods on names take one component, never `.`, `..` or an empty one; the VFS walks, checks permissions and caches.
/// What a type of file cannot do has a default that says so as Linux does.
pub trait Inode: Any + Send + Sync {
    /// What `stat(2)` tells.
    fn attr(&self) -> Result<Attr>;

    /// The type; never changes.
    fn file_type(&self) -> FileType;

    /// State that the VFS keeps with the inode: locks, writers, FIFOs. File systems whose files can be locked have it.
    fn common(&self) -> Option<&InodeCommon> {
        None
    }

    /// Whether accesses set its access time. True for file systems that store times.
    fn keeps_times(&self) -> bool {
        self.common().is_some()
    }

    /// Changes attributes. `size` truncates or extends.
    fn set_attr(&self, _set: &SetAttr) -> Result<()> {
        Err(Errno::EPERM.into())
    }

    /// Finds a name in a directory; `ENOENT` if there is none.
    fn lookup(&self, _ctx: &Ctx, _name: &[u8]) -> Result<InodeRef> {
        Err(Errno::ENOTDIR.into())
    }

    /// Whether what `lookup` found (or did not) may be kept in the dentry cache. False for `/proc/PID` and the like.
    fn cacheable(&self) -> bool {
        true
    }

    /// Whether names in this directory come and go without the VFS's doing: then what it caches is asked about
    /// ([`Inode::still_has`]) before it is used, and names that do not exist are not cached.
    fn changes_by_itself(&self) -> bool {
        false
    }

    /// Whether `name` in this directory, which [changes by itself](Inode::changes_by_itself), still is `child`.
    fn still_has(&self, _name: &[u8], _child: &InodeRef) -> bool {
        true
    }

    /// Adds a new file, directory, device, FIFO or socket to a directory.
    fn create(&self, _name: &[u8], _new: &NewInode) -> Result<InodeRef> {
        Err(Errno::EPERM.into())
    }

    /// As [`Inode::create`], for file systems to which it matters who asks for more than a name.
    fn create_for(&self, _ctx: &Ctx, name: &[u8], new: &NewInode) -> Result<InodeRef> {
        self.create(name, new)
    }

    /// Adds a symbolic link to a directory.
    fn symlink(&self, _name: &[u8], _target: &[u8], _new: &NewInode) -> Result<InodeRef> {
        Err(Errno::EPERM.into())
    }

    /// Adds a hard link to `target`, an inode of the same file system, to a directory.
    fn link(&self, _name: &[u8], _target: &InodeRef) -> Result<()> {
        Err(Errno::EPERM.into())
    }

    /// Removes a name that is no directory.
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM.into())
    }

    /// Removes an empty directory.
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM.into())
    }

    /// Moves `name` to `new_name` in `new_dir`, a directory of the same file system. `flags` are `RENAME_*` of `rename(2)`.
    fn rename(&self, _name: &[u8], _new_dir: &InodeRef, _new_name: &[u8], _flags: u32) -> Result<()> {
        Err(Errno::EPERM.into())
    }

    /// A new file without a name (`O_TMPFILE`).
    fn tmpfile(&self, _new: &NewInode) -> Result<InodeRef> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// A symbolic link's target.
    fn read_link(&self, _ctx: &Ctx) -> Result<Vec<u8>> {
        Err(Errno::EINVAL.into())
    }

    /// Where a magic link of `/proc` leads, which no path could say; `None` for ordinary links.
    fn magic_link(&self, _ctx: &Ctx) -> Option<Result<Location>> {
        None
    }

    /// Lists a directory from `cookie` (0, or a `next` given before) on, `.` and `..` included.
    fn read_dir(&self, _ctx: &Ctx, _cookie: u64, _sink: DirSink<'_>) -> Result<()> {
        Err(Errno::ENOTDIR.into())
    }

    /// A `FileOps` of its own for an open file: devices, FIFOs, `/proc`. `None`: the VFS reads and writes by
    /// [`Inode::read_at`] and [`Inode::write_at`].
    fn open(self: Arc<Self>, _ctx: &Ctx, _flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        Ok(None)
    }

    /// Reads at an offset; fewer bytes at the end of the file, none behind it.
    fn read_at(&self, _offset: u64, _dst: &mut dyn IoDst) -> Result<usize> {
        Err(Errno::EINVAL.into())
    }

    /// Writes at an offset, or at the end if `append` (then the offset says nothing), and returns the bytes written
    /// and the offset behind them.
    fn write_at(&self, _offset: u64, _append: bool, _src: &mut dyn IoSrc) -> Result<(usize, u64)> {
        Err(Errno::EINVAL.into())
    }

    /// `fallocate(2)`.
    fn fallocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// The next data (`hole` false) or hole at or after `offset` (`SEEK_DATA`, `SEEK_HOLE`). By default the whole file is data.
    fn seek_data_or_hole(&self, offset: u64, hole: bool) -> Result<u64> {
        let size = self.attr()?.size;
        if offset >= size { Err(Errno::ENXIO.into()) } else { Ok(if hole { size } else { offset }) }
    }

    /// Brings data (and attributes, unless `data_only`) to the disk.
    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    /// Whether stores to a shared mapping reach the file. Without, a file that is open for writing cannot be mapped so.
    fn maps_shared_writable(&self) -> bool {
        true
    }

    /// Where the host has the pages of `[offset, offset + len)` (page aligned; may go beyond the end of the file), for
    /// `mmap(2)`. With `shared`, holes within the file are filled first.
    fn host_extents(&self, _offset: u64, _len: u64, _shared: bool) -> Result<Vec<HostExtent>> {
        Err(Errno::ENODEV.into())
    }

    /// Sets the inode's flags (`FS_IOC_SETFLAGS`) and notes them ([`InodeCommon::note_flags`]); permissions have been checked.
    fn set_flags(&self, _flags: u32) -> Result<()> {
        Err(Errno::ENOTTY.into())
    }

    /// Those of its flags that `statx(2)` tells; none where the file system has no flags.
    fn told_flags(&self) -> InodeFlags {
        InodeFlags::empty()
    }

    /// Whether extended attributes hold access control lists that this kernel is to follow.
    fn keeps_acls(&self) -> bool {
        false
    }

    /// An extended attribute's value (`xattr(7)`); `ENODATA` if there is none.
    fn xattr_get(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// Sets an extended attribute; `flags` are `XATTR_CREATE` and `XATTR_REPLACE`.
    fn xattr_set(&self, _name: &[u8], _value: &[u8], _flags: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// The names of the extended attributes.
    fn xattr_list(&self) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    /// Removes an extended attribute.
    fn xattr_remove(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// For downcasts by the inode's own file system.
    fn as_any(&self) -> &dyn Any;
}
