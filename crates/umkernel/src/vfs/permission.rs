//! Who may do what (`path_resolution(7)`, `inode(7)`, `capabilities(7)`).

use super::acl::{self, Kind};
use super::{Attr, FileType, InodeRef, Location};
use crate::errno::{Errno, Result};
use crate::task::{Capabilities, Creds};

bitflags::bitflags! {
    /// Kinds of access, with the values of `access(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        /// Execute, or search a directory.
        const EXEC = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}

/// Checks the inode's flags, the permission bits or the access control list, and the capabilities that overrule them; `EACCES` if the access is
/// not allowed, `EPERM` for writing to what is immutable.
pub fn check_access(creds: &Creds, inode: &InodeRef, want: Access) -> Result<()> {
    if want.contains(Access::WRITE) {
        inode.check_mutable()?;
    }
    let attr = &inode.attr()?;
    let bits = |shift: u32| Access::from_bits_truncate(attr.mode >> shift & 7).contains(want);
    let allowed = if creds.fsuid == attr.uid {
        bits(6)
    } else if attr.mode & 0o070 != 0
        && let Some(acl) = acl::of(&**inode, Kind::Access)?
    {
        acl.allows(creds, attr, want)
    } else if creds.in_group(attr.gid) {
        bits(3)
    } else {
        bits(0)
    };
    if allowed {
        return Ok(());
    }
    let overruled = if attr.file_type == FileType::Directory {
        creds.capable(Capabilities::DAC_OVERRIDE)
            || !want.contains(Access::WRITE) && creds.capable(Capabilities::DAC_READ_SEARCH)
    } else {
        let executable = !want.contains(Access::EXEC) || attr.mode & 0o111 != 0;
        executable && creds.capable(Capabilities::DAC_OVERRIDE)
            || want == Access::READ && creds.capable(Capabilities::DAC_READ_SEARCH)
    };
    if overruled { Ok(()) } else { Err(Errno::EACCES.into()) }
}

impl Creds {
    /// Whether these credentials act as the owner of an inode (`CAP_FOWNER`).
    pub fn owns(&self, attr: &Attr) -> bool {
        self.fsuid == attr.uid || self.capable(Capabilities::FOWNER)
    }

    /// The credentials that `access(2)` asks about: real instead of effective ids, and the capabilities that go with them.
    pub fn for_access(&self) -> Creds {
        let effective = if self.uid == 0 { self.permitted } else { Capabilities::empty() };
        Creds { fsuid: self.uid, fsgid: self.gid, effective, ..self.clone() }
    }
}

impl Location {
    /// Checks an access to what is here, the mount's and file system's read-only state included.
    pub fn permission(&self, creds: &Creds, want: Access) -> Result<()> {
        let inode = &self.dentry.inode;
        if want.contains(Access::WRITE)
            && matches!(inode.file_type(), FileType::Regular | FileType::Directory | FileType::Symlink)
        {
            self.mount.want_write()?;
        }
        check_access(creds, inode, want)
    }

    /// Checks that the directory here may be searched: `ENOTDIR`, `EACCES`.
    pub(super) fn may_search(&self, creds: &Creds) -> Result<()> {
        let inode = &self.dentry.inode;
        if inode.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        if creds.capable(Capabilities::DAC_OVERRIDE) {
            return Ok(());
        }
        check_access(creds, inode, Access::EXEC)
    }
}

/// Whether the sticky bit of `dir` keeps these credentials from removing or renaming `victim`: `EPERM`.
pub(super) fn check_sticky(creds: &Creds, dir: &Attr, victim: &Attr) -> Result<()> {
    const STICKY: u32 = 0o1000;
    if dir.mode & STICKY == 0
        || creds.fsuid == victim.uid
        || creds.fsuid == dir.uid
        || creds.capable(Capabilities::FOWNER)
    {
        Ok(())
    } else {
        Err(Errno::EPERM.into())
    }
}
