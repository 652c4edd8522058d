//! Attributes of shared files, and their extended attributes.

use super::node::{Node, Shared};
use crate::fs::hostfs::protocol::{CHUNK, decode_change, split};
use crate::vfs::{SetAttr, Timestamp};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::vec::Vec;

/// Extended attributes that are passed on: others mean something to the host (`xattr(7)`).
const USER: &[u8] = b"user.";

fn xattr_name(bytes: &[u8]) -> Shared<CString> {
    if bytes.starts_with(USER) { CString::new(bytes).map_err(|_| Errno::INVAL) } else { Err(Errno::OPNOTSUPP) }
}

impl Node {
    /// A mode without set-id bits where they would be the host's root's: no guest makes such programs.
    pub(super) fn harmless(&self, mode: u32) -> Mode {
        const SET_ID: u32 = 0o6000;
        let file = !rustix::fs::FileType::from_raw_mode(mode).is_dir();
        let dropped = if self.owners.everybody() && file { SET_ID } else { 0 };
        Mode::from_bits_truncate(mode & 0o7777 & !dropped)
    }

    /// Changes attributes.
    pub(super) fn change(&self, payload: &[u8]) -> Shared<()> {
        let change = decode_change(payload).ok_or(Errno::INVAL)?;
        if change == SetAttr::default() {
            return Ok(());
        }
        self.may_change()?;
        if let Some(size) = change.size {
            rustix::fs::ftruncate(&*self.writing()?, size)?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            self.change_owner(change.uid, change.gid)?;
        }
        if let Some(mode) = change.mode {
            rustix::fs::chmodat(
                CWD,
                self.path()?,
                self.harmless(self.file_type.as_raw_mode() | mode),
                AtFlags::empty(),
            )?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            self.change_times(&change)?;
        }
        Ok(())
    }

    /// Only the host's root can give files away. Others may say what is so already.
    fn change_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Shared<()> {
        let stat = self.stat()?;
        let as_it_is = |id: Option<u32>, now: u64| id.is_none_or(|id| u64::from(id) == now);
        if as_it_is(uid, stat.uid) && as_it_is(gid, stat.gid) {
            return Ok(());
        }
        if !self.owners.everybody() {
            return Err(Errno::PERM);
        }
        // To the host, that would be to leave it as it is.
        if [uid, gid].contains(&Some(u32::MAX)) {
            return Err(Errno::INVAL);
        }
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(self.fd(), c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags)
    }

    fn change_times(&self, change: &SetAttr) -> Shared<()> {
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let time = |t: Option<Timestamp>| t.map_or(omit, |t| Timespec { tv_sec: t.sec, tv_nsec: t.nsec.into() });
        let times = Timestamps { last_access: time(change.atime), last_modification: time(change.mtime) };
        match rustix::fs::utimensat(self.fd(), c"", &times, AtFlags::EMPTY_PATH) {
            // Linux before 5.8.
            Err(Errno::INVAL) => rustix::fs::utimensat(CWD, self.path()?, &times, AtFlags::empty()),
            done => done,
        }
    }

    /// An extended attribute's value.
    pub(super) fn xattr(&self, name: &[u8]) -> Shared<Vec<u8>> {
        let mut value = std::vec![0u8; CHUNK];
        let len = rustix::fs::getxattr(self.path()?, &xattr_name(name)?, &mut value[..])?;
        value.truncate(len);
        Ok(value)
    }

    /// Sets an extended attribute.
    pub(super) fn set_xattr(&self, payload: &[u8], flags: u32) -> Shared<()> {
        self.may_change()?;
        let (name, value) = split(payload).ok_or(Errno::INVAL)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        rustix::fs::setxattr(self.path()?, &xattr_name(name)?, value, flags)
    }

    /// The names of those that are passed on.
    pub(super) fn xattrs(&self) -> Shared<Vec<u8>> {
        let Ok(path) = self.path() else { return Ok(Vec::new()) };
        let mut names = std::vec![0u8; CHUNK];
        let len = rustix::fs::listxattr(path, &mut names[..])?;
        let ours = names[..len].split_inclusive(|&byte| byte == 0).filter(|name| name.starts_with(USER));
        Ok(ours.flatten().copied().collect())
    }

    /// Removes an extended attribute.
    pub(super) fn remove_xattr(&self, name: &[u8]) -> Shared<()> {
        self.may_change()?;
        rustix::fs::removexattr(self.path()?, &xattr_name(name)?)
    }
}
