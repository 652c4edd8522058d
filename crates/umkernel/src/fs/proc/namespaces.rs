//! `/proc/PID/ns`: the namespaces that a task is in (`proc_pid_ns(5)`).

use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::fs::pseudo::{Listed, Numbers, list_directory};
use crate::kernel::Ctx;
use crate::ns::{self, Kind, Namespace};
use crate::vfs::{Attr, DirSink, FileType, Inode, InodeRef, Location};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// The directory.
pub(super) struct NsDir {
    pub(super) attr: Attr,
    pub(super) numbers: Arc<Numbers>,
    pub(super) subject: Subject,
}

impl NsDir {
    /// A link's number: behind all that the entries of the process's own directory have.
    fn ino(&self, kind: Kind) -> u64 {
        const LINKS: u64 = 1 << 12;
        self.attr.ino + LINKS + kind as u64
    }
}

impl Inode for NsDir {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, _ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name().as_bytes() == name).ok_or(Errno::ENOENT)?;
        let owner = (self.attr.uid, self.attr.gid);
        let attr = self.numbers.attr_with(self.ino(kind), FileType::Symlink, 0o777, owner);
        Ok(Arc::new(NsLink { attr, subject: self.subject.clone(), kind }))
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        let link = |kind: Kind| Listed::new(self.ino(kind), FileType::Symlink, kind.name().as_bytes());
        let links: Vec<Listed> = Kind::ALL.into_iter().map(link).collect();
        list_directory(self.attr.ino, &links, cookie, sink);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A link that leads to a namespace's file.
struct NsLink {
    attr: Attr,
    subject: Subject,
    kind: Kind,
}

impl NsLink {
    fn namespace(&self, ctx: &Ctx) -> Result<Namespace> {
        let task = self.subject.task().ok_or(Errno::ENOENT)?;
        self.subject.check_access(ctx)?;
        let namespaces = task.namespaces.get().ok_or(Errno::ENOENT)?;
        Ok(namespaces.get(self.kind))
    }
}

impl Inode for NsLink {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self, ctx: &Ctx) -> Result<Vec<u8>> {
        Ok(self.namespace(ctx)?.text().into_bytes())
    }

    fn magic_link(&self, ctx: &Ctx) -> Option<Result<Location>> {
        Some(self.namespace(ctx).map(|namespace| ns::location(ctx, namespace)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
