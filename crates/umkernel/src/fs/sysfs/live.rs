//! Directories of devices that come and go.

use super::devices::Devices;
use crate::errno::{Errno, Result};
use crate::fs::pseudo::{DirBuilder, Numbers, PseudoDir};
use crate::kernel::{Ctx, Kernel};
use crate::sync::Mutex;
use crate::vfs::{Attr, DirSink, FileType, Inode, InodeRef};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;

type Build = dyn Fn(&Devices, DirBuilder) -> DirBuilder + Send + Sync;

/// A directory whose entries are made anew after a disk or partition has come or gone.
struct LiveDir {
    attr: Attr,
    numbers: Arc<Numbers>,
    build: Box<Build>,
    /// Its entries, and which generation of devices they show.
    made: Mutex<Option<(u64, Arc<PseudoDir>)>>,
}

/// A directory of what there is of disks, as `build` shows it.
pub(super) fn live(
    numbers: &Arc<Numbers>,
    build: impl Fn(&Devices, DirBuilder) -> DirBuilder + Send + Sync + 'static,
) -> InodeRef {
    let attr = numbers.attr(FileType::Directory, 0o555);
    Arc::new(LiveDir { attr, numbers: numbers.clone(), build: Box::new(build), made: Mutex::new(None) })
}

impl LiveDir {
    fn entries(&self, kernel: &Kernel) -> Arc<PseudoDir> {
        let generation = kernel.vfs.devices.generation();
        let mut made = self.made.lock();
        match &*made {
            Some((of, entries)) if *of == generation => entries.clone(),
            _ => {
                let entries = (self.build)(&Devices::disks(kernel), DirBuilder::new(&self.numbers)).build();
                *made = Some((generation, entries.clone()));
                entries
            }
        }
    }
}

impl Inode for LiveDir {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        self.entries(ctx.kernel).find(name).ok_or(Errno::ENOENT.into())
    }

    fn cacheable(&self) -> bool {
        false
    }

    fn read_dir(&self, ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        crate::fs::pseudo::list_directory(self.attr.ino, &self.entries(ctx.kernel).list(), cookie, sink);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
