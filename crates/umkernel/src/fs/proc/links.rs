//! Links of `/proc/PID` to places: `cwd`, `root`, `exe`.

use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::vfs::{Attr, FileType, Inode, Location};
use alloc::vec::Vec;
use core::any::Any;

/// Which place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    WorkingDirectory,
    Root,
    Program,
}

/// A link that leads to the place itself, not to its path.
pub(super) struct PlaceLink {
    pub(super) attr: Attr,
    pub(super) subject: Subject,
    pub(super) place: Place,
}

impl PlaceLink {
    fn location(&self, ctx: &Ctx) -> Result<Location> {
        let task = self.subject.task().ok_or(Errno::ENOENT)?;
        self.subject.check_access(ctx)?;
        match self.place {
            Place::WorkingDirectory => Ok(task.fs().inner.lock().cwd.clone()),
            Place::Root => Ok(task.fs().inner.lock().root.clone()),
            Place::Program => {
                let program = self.subject.process.exe.lock().clone();
                program.map(|file| file.location.clone()).ok_or(Errno::ENOENT.into())
            }
        }
    }
}

impl Inode for PlaceLink {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self, ctx: &Ctx) -> Result<Vec<u8>> {
        let root = ctx.fs().inner.lock().root.clone();
        Ok(self.location(ctx)?.display_path(&root))
    }

    fn magic_link(&self, ctx: &Ctx) -> Option<Result<Location>> {
        Some(self.location(ctx))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
