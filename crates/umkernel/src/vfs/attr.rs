//! Changing attributes: `chmod(2)`, `chown(2)`, `utimensat(2)`, access times.

use super::acl::{self, Acl, Kind};
use super::{Access, FileType, InodeFlags, Location, MountFlags, NotifyEvents, SetAttr, Timestamp, Vfs, notify};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::task::Capabilities;
use crate::time::NSEC_PER_SEC;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o10;

/// A time that `utimensat(2)` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// `UTIME_NOW`.
    Now,
    /// `UTIME_OMIT`.
    Omit,
    /// This one.
    At(Timestamp),
}

impl Vfs {
    /// `chmod(2)` on what is at a place.
    pub fn chmod(&self, ctx: &Ctx, location: &Location, mode: u32) -> Result<()> {
        let inode = &location.dentry.inode;
        if inode.file_type() == FileType::Symlink {
            bail!(EOPNOTSUPP);
        }
        location.mount.want_write()?;
        let creds = ctx.creds();
        let attr = inode.attr()?;
        if !creds.owns(&attr) {
            bail!(EPERM);
        }
        inode.check_changeable()?;
        let mut mode = mode & 0o7777;
        if !creds.in_group(attr.gid) && !creds.capable(Capabilities::FSETID) {
            mode &= !SET_GID;
        }
        inode.set_attr(&SetAttr { mode: Some(mode), ctime: Some(Timestamp::now()), ..SetAttr::default() })?;
        if let Some(mut acl) = acl::of(&**inode, Kind::Access)? {
            acl.set_mode(mode);
            acl::set(&**inode, Kind::Access, Some(&acl))?;
        }
        notify::at(location, NotifyEvents::ATTRIB);
        Ok(())
    }

    /// Gives what is at a place an access control list, or takes it away; the attribute's permissions have been checked.
    pub(super) fn set_acl(&self, ctx: &Ctx, location: &Location, kind: Kind, acl: Option<Acl>) -> Result<()> {
        let inode = &location.dentry.inode;
        let attr = inode.attr()?;
        if attr.file_type == FileType::Symlink {
            bail!(EOPNOTSUPP);
        }
        if kind == Kind::Default && attr.file_type != FileType::Directory {
            return if acl.is_some() { Err(Errno::EACCES.into()) } else { Ok(()) };
        }
        if let Some(acl) = &acl {
            acl.check()?;
        }
        let mut set = SetAttr { ctime: Some(Timestamp::now()), ..SetAttr::default() };
        let mut kept = acl.as_ref();
        if let (Kind::Access, Some(acl)) = (kind, &acl) {
            let (bits, more) = acl.mode();
            let mut mode = attr.mode & !0o777 | bits;
            let creds = ctx.creds();
            if !creds.in_group(attr.gid) && !creds.capable(Capabilities::FSETID) {
                mode &= !SET_GID;
            }
            set.mode = Some(mode);
            // The mode says it all.
            kept = kept.filter(|_| more);
        }
        acl::set(&**inode, kind, kept)?;
        inode.set_attr(&set)?;
        notify::at(location, NotifyEvents::ATTRIB);
        Ok(())
    }

    /// `chown(2)` on what is at a place; `None` leaves an id as it is.
    pub fn chown(&self, ctx: &Ctx, location: &Location, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        location.mount.want_write()?;
        let inode = &location.dentry.inode;
        let creds = ctx.creds();
        let attr = inode.attr()?;
        if !creds.capable(Capabilities::CHOWN) {
            let owner = creds.fsuid == attr.uid;
            let uid_ok = uid.is_none_or(|uid| owner && uid == attr.uid);
            let gid_ok = gid.is_none_or(|gid| owner && (gid == attr.gid || creds.in_group(gid)));
            if !uid_ok || !gid_ok {
                bail!(EPERM);
            }
        }
        if uid.is_some() || gid.is_some() {
            inode.check_changeable()?;
        }
        let mut set = SetAttr { uid, gid, ctime: Some(Timestamp::now()), ..SetAttr::default() };
        if attr.file_type != FileType::Directory && attr.mode & (SET_UID | SET_GID) != 0 {
            let mut mode = attr.mode & !SET_UID;
            let in_group = creds.in_group(attr.gid) || creds.capable(Capabilities::FSETID);
            if mode & GROUP_EXEC != 0 || !in_group {
                mode &= !SET_GID;
            }
            set.mode = Some(mode);
        }
        inode.set_attr(&set)?;
        if set.uid.is_some() || set.gid.is_some() || set.mode.is_some() {
            notify::at(location, NotifyEvents::ATTRIB);
        }
        Ok(())
    }

    /// `utimensat(2)` on what is at a place; `None` sets both times to now.
    pub fn set_times(&self, ctx: &Ctx, location: &Location, times: Option<(NewTime, NewTime)>) -> Result<()> {
        let (atime, mtime) = times.unwrap_or((NewTime::Now, NewTime::Now));
        if (atime, mtime) == (NewTime::Omit, NewTime::Omit) {
            return Ok(());
        }
        location.mount.want_write()?;
        let inode = &location.dentry.inode;
        let creds = ctx.creds();
        let attr = inode.attr()?;
        if (atime, mtime) == (NewTime::Now, NewTime::Now) {
            inode.check_mutable()?;
        } else {
            inode.check_changeable()?;
        }
        if !creds.owns(&attr) {
            if (atime, mtime) != (NewTime::Now, NewTime::Now) {
                bail!(EPERM);
            }
            location.permission(creds, Access::WRITE)?;
        }
        let now = Timestamp::now();
        let time = |t: NewTime| match t {
            NewTime::Now => Some(now),
            NewTime::Omit => None,
            NewTime::At(t) => Some(t),
        };
        inode.set_attr(&SetAttr { atime: time(atime), mtime: time(mtime), ctime: Some(now), ..SetAttr::default() })?;
        notify::at(
            location,
            match (atime, mtime) {
                (_, NewTime::Omit) => NotifyEvents::ACCESS,
                (NewTime::Omit, _) => NotifyEvents::MODIFY,
                _ => NotifyEvents::ATTRIB,
            },
        );
        Ok(())
    }

    /// Notes an access to what is at a place, as the mount's options say (`mount(8)`: relatime).
    pub fn touch_atime(&self, location: &Location) {
        const DAY: i64 = 24 * 60 * 60;
        let flags = location.mount.flags();
        let inode = &location.dentry.inode;
        if flags.contains(MountFlags::NOATIME)
            || flags.contains(MountFlags::NODIRATIME) && inode.file_type() == FileType::Directory
            || !inode.keeps_times()
            || inode.flags().contains(InodeFlags::NOATIME)
            || location.mount.read_only()
        {
            return;
        }
        let Ok(attr) = inode.attr() else {
            return;
        };
        let is_old = || host::realtime_coarse_ns().cast_signed() / NSEC_PER_SEC.cast_signed() - attr.atime.sec >= DAY;
        let stale = attr.atime <= attr.mtime || attr.atime <= attr.ctime || is_old();
        if stale || flags.contains(MountFlags::STRICTATIME) {
            // An access time that cannot be stored is not worth failing the access.
            let _ = inode.set_attr(&SetAttr { atime: Some(Timestamp::now()), ..SetAttr::default() });
        }
    }
}
