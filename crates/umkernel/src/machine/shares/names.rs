//! Names in shared directories.

use super::node::{Node, Shared};
use crate::fs::hostfs::protocol::{Stat, split};
use rustix::fs::{AtFlags, CWD, FileType, OFlags, RawDir, RenameFlags, SeekFrom};
use rustix::io::Errno;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::vec::Vec;

/// One name, never a path, and none that leads up: what all safety here rests on.
fn name(bytes: &[u8]) -> Shared<CString> {
    match bytes {
        b"" | b"." | b".." => Err(Errno::INVAL),
        _ if bytes.contains(&b'/') => Err(Errno::INVAL),
        _ => CString::new(bytes).map_err(|_| Errno::INVAL),
    }
}

/// A payload of two names.
fn names(payload: &[u8]) -> Shared<(CString, CString)> {
    let (first, second) = split(payload).ok_or(Errno::INVAL)?;
    Ok((name(first)?, name(second)?))
}

impl Node {
    /// The file behind a name.
    pub(super) fn child(&self, bytes: &[u8]) -> Shared<Node> {
        self.open_name(&name(bytes)?)
    }

    /// What is behind a name.
    pub(super) fn named(&self, bytes: &[u8]) -> Shared<Stat> {
        Ok(self.told(&rustix::fs::statat(self.fd(), name(bytes)?, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Makes a file, directory, FIFO or socket. Devices are nobody's to make.
    pub(super) fn create(&self, bytes: &[u8], mode: u32) -> Shared<Node> {
        self.may_change()?;
        let name = name(bytes)?;
        let file_type = FileType::from_raw_mode(mode);
        let mode = self.harmless(mode);
        match file_type {
            FileType::RegularFile => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(self.fd(), &name, flags, mode)?;
                let node = self.open_name(&name)?;
                let stat = rustix::fs::fstat(&fd)?;
                let found = node.stat()?;
                // Somebody on the host may have put another in its place meanwhile.
                if (stat.st_dev, stat.st_ino) == (found.dev, found.ino) {
                    node.keep_open(fd);
                }
                Ok(node)
            }
            FileType::Directory => {
                rustix::fs::mkdirat(self.fd(), &name, mode)?;
                self.open_name(&name)
            }
            FileType::Fifo | FileType::Socket => {
                rustix::fs::mknodat(self.fd(), &name, file_type, mode, 0)?;
                self.open_name(&name)
            }
            _ => Err(Errno::PERM),
        }
    }

    /// Makes a symbolic link; its target is any text.
    pub(super) fn symlink(&self, payload: &[u8]) -> Shared<Node> {
        self.may_change()?;
        let (bytes, target) = split(payload).ok_or(Errno::INVAL)?;
        let (name, target) = (name(bytes)?, CString::new(target).map_err(|_| Errno::INVAL)?);
        rustix::fs::symlinkat(&target, self.fd(), &name)?;
        self.open_name(&name)
    }

    /// Makes another name for a file.
    pub(super) fn link(&self, bytes: &[u8], file: &Node) -> Shared<()> {
        self.may_change()?;
        file.may_change()?;
        let name = name(bytes)?;
        match file.path() {
            Ok(path) => rustix::fs::linkat(CWD, path, self.fd(), &name, AtFlags::SYMLINK_FOLLOW),
            // A path would lead on to the symbolic link's target; the call for descriptors asks for more rights, on older hosts.
            Err(_) => rustix::fs::linkat(file.fd(), c"", self.fd(), &name, AtFlags::EMPTY_PATH),
        }
    }

    /// Removes a name.
    pub(super) fn remove(&self, bytes: &[u8], directory: bool) -> Shared<()> {
        self.may_change()?;
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(self.fd(), name(bytes)?, flags)
    }

    /// Moves a name.
    pub(super) fn rename(&self, payload: &[u8], to: &Node, flags: u32) -> Shared<()> {
        const KNOWN: RenameFlags = RenameFlags::NOREPLACE.union(RenameFlags::EXCHANGE);
        self.may_change()?;
        to.may_change()?;
        let (old, new) = names(payload)?;
        match RenameFlags::from_bits(flags) {
            Some(flags) if flags.is_empty() => rustix::fs::renameat(self.fd(), &old, to.fd(), &new),
            Some(flags) if KNOWN.contains(flags) => rustix::fs::renameat_with(self.fd(), &old, to.fd(), &new, flags),
            _ => Err(Errno::INVAL),
        }
    }

    /// A symbolic link's target.
    pub(super) fn target(&self) -> Shared<Vec<u8>> {
        if !self.is_symlink() {
            return Err(Errno::INVAL);
        }
        Ok(rustix::fs::readlinkat(self.fd(), c"", Vec::new())?.into_bytes())
    }

    /// Lists the directory from `cookie` on, as records of `getdents64(2)`; returns their length.
    pub(super) fn list(&self, cookie: u64, out: &mut [u8]) -> Shared<usize> {
        const HEAD: usize = 19;
        /// Read at once: what does not go into the answer is read again.
        const BUFFER: usize = 32 * 1024;
        if !self.is_directory() {
            return Err(Errno::NOTDIR);
        }
        let fd = self.reading()?;
        let mut buffer = std::vec![MaybeUninit::uninit(); BUFFER];
        rustix::fs::seek(&*fd, SeekFrom::Start(cookie))?;
        let mut entries = RawDir::new(&*fd, &mut buffer);
        let mut done = 0;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let len = (HEAD + name.count_bytes() + 1).next_multiple_of(8);
            let Some(place) = out.get_mut(done..done + len) else { break };
            let file_type = match entry.file_type() {
                FileType::Unknown => self.type_of(name),
                known => known,
            };
            place.fill(0);
            place[..8].copy_from_slice(&entry.ino().to_le_bytes());
            place[8..16].copy_from_slice(&entry.next_entry_cookie().to_le_bytes());
            place[16..18].copy_from_slice(&(len as u16).to_le_bytes());
            place[18] = (file_type.as_raw_mode() >> 12) as u8;
            place[HEAD..HEAD + name.count_bytes()].copy_from_slice(name.to_bytes());
            done += len;
        }
        Ok(done)
    }

    /// The type of a name, on a file system whose directories do not tell.
    fn type_of(&self, name: &std::ffi::CStr) -> FileType {
        let stat = rustix::fs::statat(self.fd(), name, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(FileType::RegularFile, |stat| FileType::from_raw_mode(stat.st_mode))
    }
}
