//! Files that the server has found: descriptors that say which, and open ones.

use crate::fs::hostfs::protocol::{OPEN_WRITE, Stat};
use crate::vfs::Timestamp;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::format;
use std::os::fd::{AsRawFd, OwnedFd};
use std::string::String;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the host says.
pub(super) type Shared<T> = Result<T, Errno>;

/// `nobody`: whom files of others belong to, as in a user namespace.
const NOBODY: u64 = 65534;

/// How owners look in the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners {
    uid: u64,
    gid: u64,
}

impl Owners {
    /// Those of the process.
    pub(super) fn own() -> Owners {
        Owners { uid: rustix::process::geteuid().as_raw().into(), gid: rustix::process::getegid().as_raw().into() }
    }

    #[cfg(test)]
    pub(super) fn of(uid: u64, gid: u64) -> Owners {
        Owners { uid, gid }
    }

    /// The user is the host's root, who knows everybody.
    pub(super) fn everybody(self) -> bool {
        self.uid == 0
    }

    fn seen(self, id: u64, own: u64) -> u64 {
        match id {
            _ if self.everybody() => id,
            _ if id == own => 0,
            _ => NOBODY,
        }
    }
}

/// A file, found by a name or shared.
pub(super) struct Node {
    /// Opened with `O_PATH`: says which file, and opens nothing.
    fd: OwnedFd,
    pub(super) file_type: FileType,
    read_only: bool,
    pub(super) owners: Owners,
    open: Mutex<Open>,
}

/// A file's open descriptors, made when there is a need.
#[derive(Default)]
struct Open {
    read: Option<Arc<OwnedFd>>,
    write: Option<Arc<OwnedFd>>,
}

impl Node {
    /// What a descriptor, opened with `O_PATH`, stands for.
    pub(super) fn new(fd: OwnedFd, read_only: bool, owners: Owners) -> Shared<Node> {
        let stat = rustix::fs::statat(&fd, c"", AtFlags::EMPTY_PATH)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        Ok(Node { fd, file_type, read_only, owners, open: Mutex::default() })
    }

    /// A file in the same share, found in this directory.
    pub(super) fn found(&self, fd: OwnedFd) -> Shared<Node> {
        Node::new(fd, self.read_only, self.owners)
    }

    /// The descriptor, for operations on the file itself or on names in the directory.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its number.
    pub(super) fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// `EROFS` if nothing may be changed.
    pub(super) fn may_change(&self) -> Shared<()> {
        if self.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub(super) fn is_symlink(&self) -> bool {
        self.file_type == FileType::Symlink
    }

    /// A path that leads to this very file, for calls that take no descriptor of this kind. Not for symbolic links: it would lead on.
    pub(super) fn path(&self) -> Shared<String> {
        if self.is_symlink() { Err(Errno::LOOP) } else { Ok(format!("/proc/self/fd/{}", self.fd.as_raw_fd())) }
    }

    /// What `stat(2)` tells.
    pub(super) fn stat(&self) -> Shared<Stat> {
        Ok(self.told(&rustix::fs::statat(&self.fd, c"", AtFlags::EMPTY_PATH)?))
    }

    /// What the host says of a file of the same share, as the guest is to see it.
    pub(super) fn told(&self, stat: &rustix::fs::Stat) -> Stat {
        let time = |sec: i64, nsec: u64| Timestamp { sec, nsec: nsec as u32 };
        Stat {
            node: 0,
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode.into(),
            nlink: stat.st_nlink,
            uid: self.owners.seen(stat.st_uid.into(), self.owners.uid),
            gid: self.owners.seen(stat.st_gid.into(), self.owners.gid),
            size: stat.st_size as u64,
            blksize: stat.st_blksize as u64,
            blocks: stat.st_blocks as u64,
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_by_path(&self, flags: OFlags) -> Shared<Arc<OwnedFd>> {
        // FIFOs and devices are the guest's own affair: opened here, they would be the host's.
        let flags = match self.file_type {
            FileType::RegularFile => flags,
            FileType::Directory => flags | OFlags::DIRECTORY,
            _ => return Err(Errno::NXIO),
        };
        let fd = rustix::fs::openat(CWD, self.path()?, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
        Ok(Arc::new(fd))
    }

    /// The descriptor that is kept at a place, opened now if there is none.
    fn kept(&self, place: fn(&mut Open) -> &mut Option<Arc<OwnedFd>>, flags: OFlags) -> Shared<Arc<OwnedFd>> {
        let mut open = self.opened();
        let place = place(&mut open);
        if let Some(fd) = place {
            return Ok(fd.clone());
        }
        Ok(place.insert(self.open_by_path(flags)?).clone())
    }

    /// A descriptor to read from.
    pub(super) fn reading(&self) -> Shared<Arc<OwnedFd>> {
        self.kept(|open| &mut open.read, OFlags::RDONLY)
    }

    /// A descriptor to write to.
    pub(super) fn writing(&self) -> Shared<Arc<OwnedFd>> {
        self.may_change()?;
        self.kept(|open| &mut open.write, OFlags::WRONLY)
    }

    /// Keeps a descriptor that the file was made with: its mode may forbid to open it once more.
    pub(super) fn keep_open(&self, fd: OwnedFd) {
        let fd = Arc::new(fd);
        let mut open = self.opened();
        open.read = Some(fd.clone());
        open.write = Some(fd);
    }

    /// Makes sure of what a guest opens the file for.
    pub(super) fn open(&self, how: u64) -> Shared<()> {
        if how & OPEN_WRITE != 0 {
            self.writing()?;
        }
        if how != OPEN_WRITE {
            self.reading()?;
        }
        Ok(())
    }

    /// The file behind a name in this directory, whatever it is.
    pub(super) fn open_name(&self, name: &CStr) -> Shared<Node> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.found(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?)
    }
}
