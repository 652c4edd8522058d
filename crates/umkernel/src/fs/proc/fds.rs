//! `/proc/PID/fd` and `/proc/PID/fdinfo`.

use super::listed_ids;
use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::fs::pseudo::{Numbers, PseudoFile, list_directory};
use crate::kernel::Ctx;
use crate::vfs::{Attr, DirSink, File, FileType, Inode, InodeRef, Location, OpenFlags};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// A link to the open file.
    Links,
    /// A file that tells of it.
    Info,
}

/// A directory with an entry for each descriptor.
pub(super) struct FdDir {
    pub(super) attr: Attr,
    pub(super) numbers: Arc<Numbers>,
    pub(super) subject: Subject,
    pub(super) view: View,
}

fn file(subject: &Subject, fd: i32) -> Result<Arc<File>> {
    let task = subject.task().ok_or(Errno::ENOENT)?;
    task.files().get_or_path(fd).map_err(|_| Errno::ENOENT.into())
}

impl FdDir {
    /// The directory's number has no room left for the descriptor's: both are spread over all bits.
    fn ino(&self, fd: i32) -> u64 {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        (self.attr.ino.wrapping_add(fd as u64).wrapping_mul(SPREAD) ^ fd as u64) >> 1
    }
}

impl Inode for FdDir {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        self.subject.check_access(ctx).map_err(|_| Errno::ENOENT)?;
        let text = core::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let fd: i32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if fd.to_string() != text {
            return Err(Errno::ENOENT.into());
        }
        let open = file(&self.subject, fd)?;
        let owner = (self.attr.uid, self.attr.gid);
        let subject = self.subject.clone();
        if self.view == View::Info {
            let attr = self.numbers.attr_with(self.ino(fd), FileType::Regular, 0o400, owner);
            let generate: crate::fs::pseudo::Generate = Box::new(move |ctx| info(ctx, &subject, fd));
            return Ok(Arc::new(PseudoFile { attr, generate: Arc::new(generate), store: None, watched: None }));
        }
        let mode = if open.flags().readable() { 0o500 } else { 0 } | if open.flags().writable() { 0o300 } else { 0 };
        let attr = self.numbers.attr_with(self.ino(fd), FileType::Symlink, mode, owner);
        Ok(Arc::new(FdLink { attr, subject, fd }))
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn read_dir(&self, ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        self.subject.check_access(ctx)?;
        let file_type = if self.view == View::Links { FileType::Symlink } else { FileType::Regular };
        let descriptors = self.subject.task().map(|t| t.files().descriptors()).unwrap_or_default();
        let ids = descriptors.iter().map(|&fd| (self.ino(fd), file_type, fd.to_string()));
        list_directory(self.attr.ino, &listed_ids(ids), cookie, sink);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What `/proc/PID/fdinfo/FD` tells of any file.
fn info(ctx: &Ctx, subject: &Subject, fd: i32) -> Result<Vec<u8>> {
    subject.check_access(ctx)?;
    let open = file(subject, fd)?;
    let mut flags = open.flags().bits() & !OpenFlags::CLOEXEC.bits() | OpenFlags::LARGEFILE.bits();
    if subject.living()?.files().close_on_exec_of(fd).unwrap_or(false) {
        flags |= OpenFlags::CLOEXEC.bits();
    }
    let position = open.position.now();
    let ino = open.inode.attr().map_or(0, |a| a.ino);
    let mount = open.location.mount.id;
    let more = open.ops.as_ref().map_or(String::new(), |ops| ops.fdinfo(ctx));
    Ok(format!("pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n{more}").into_bytes())
}

/// A link to an open file.
struct FdLink {
    attr: Attr,
    subject: Subject,
    fd: i32,
}

impl Inode for FdLink {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self, ctx: &Ctx) -> Result<Vec<u8>> {
        self.subject.check_access(ctx)?;
        let open = file(&self.subject, self.fd)?;
        if let Some(text) = open.ops.as_ref().and_then(|ops| ops.describe()) {
            return Ok(text.into_bytes());
        }
        let root = ctx.fs().inner.lock().root.clone();
        Ok(open.location.display_path(&root))
    }

    fn magic_link(&self, ctx: &Ctx) -> Option<Result<Location>> {
        let place = || {
            self.subject.check_access(ctx)?;
            Ok(file(&self.subject, self.fd)?.location.clone())
        };
        Some(place())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
