//! Trees that the kernel makes up: directories, files with generated contents, links. `/proc` and `/sys` are made of these.

use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable};
use crate::vfs::{
    Attr, DirEntry, DirSink, File, FileOps, FileSystem, FileType, Inode, InodeRef, MountChanges, OpenFlags, PollEvents,
    SetAttr, StatFs, Timestamp,
};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

/// The name of an entry that is always there.
pub(super) type Name = Cow<'static, str>;
/// Makes a file's contents.
pub(super) type Generate = Box<dyn Fn(&Ctx) -> Result<Vec<u8>> + Send + Sync>;
/// Takes what is written to a file.
pub(super) type Store = Box<dyn Fn(&Ctx, &[u8]) -> Result<()> + Send + Sync>;

/// The longest text that can be written to a file.
const MAX_WRITE: usize = 4096;

/// A file system of made-up files.
pub(super) struct PseudoFs {
    pub(super) name: &'static str,
    pub(super) magic: u64,
    pub(super) dev: u64,
    pub(super) root: InodeRef,
}

impl FileSystem for PseudoFs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(self.root.clone())
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { fs_type: self.magic, bsize: 4096, namelen: 255, ..StatFs::default() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Numbers the nodes of one tree.
pub(super) struct Numbers {
    pub(super) dev: u64,
    next: AtomicU64,
    time: Timestamp,
}

impl Numbers {
    /// For a new tree on a device of its own.
    pub(super) fn new(kernel: &Kernel) -> Arc<Numbers> {
        let time = Timestamp::now();
        Arc::new(Numbers { dev: kernel.vfs.anonymous_dev(), next: AtomicU64::new(1), time })
    }

    /// Attributes of a new node that belongs to root.
    pub(super) fn attr(&self, file_type: FileType, mode: u32) -> Attr {
        self.attr_with(self.next.fetch_add(1, Ordering::Relaxed), file_type, mode, (0, 0))
    }

    /// Attributes of a node whose number and owner are known.
    pub(super) fn attr_with(&self, ino: u64, file_type: FileType, mode: u32, (uid, gid): (u32, u32)) -> Attr {
        Attr {
            dev: self.dev,
            ino,
            file_type,
            mode,
            nlink: if file_type == FileType::Directory { 2 } else { 1 },
            uid,
            gid,
            rdev: 0,
            size: 0,
            blksize: 1024,
            blocks: 0,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            btime: None,
        }
    }
}

/// A file with generated contents.
pub(super) struct PseudoFile {
    pub(super) attr: Attr,
    pub(super) generate: Arc<Generate>,
    pub(super) store: Option<Arc<Store>>,
    /// Tells those who poll when there is something new.
    pub(super) watched: Option<Arc<MountChanges>>,
}

impl Inode for PseudoFile {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    /// Truncation is for `open(2)` with `O_TRUNC`: there is nothing to cut.
    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() { Err(Errno::EPERM.into()) } else { Ok(()) }
    }

    fn open(self: Arc<Self>, _ctx: &Ctx, _flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        let (generate, store) = (self.generate.clone(), self.store.clone());
        let watched = self.watched.clone().map(|changes| (AtomicU64::new(changes.count()), changes));
        Ok(Some(Box::new(OpenPseudo { generate, store, contents: Mutex::new(None), watched })))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open file: its contents are made when it is read from its start.
struct OpenPseudo {
    generate: Arc<Generate>,
    store: Option<Arc<Store>>,
    contents: Mutex<Option<Arc<Vec<u8>>>>,
    /// What is polled for, and how many changes this file's users have heard of.
    watched: Option<(AtomicU64, Arc<MountChanges>)>,
}

impl FileOps for OpenPseudo {
    fn read(&self, ctx: &Ctx, _file: &File, offset: u64, dst: &mut dyn IoDst) -> Result<usize> {
        let kept = self.contents.lock().clone().filter(|_| offset > 0);
        let contents = match kept {
            Some(contents) => contents,
            None => {
                let made = Arc::new((self.generate)(ctx)?);
                *self.contents.lock() = Some(made.clone());
                made
            }
        };
        let rest = usize::try_from(offset).ok().and_then(|at| contents.get(at..)).unwrap_or_default();
        if rest.is_empty() { Ok(0) } else { dst.put(rest) }
    }

    fn write(&self, ctx: &Ctx, _file: &File, _offset: u64, src: &mut dyn IoSrc) -> Result<usize> {
        let Some(store) = &self.store else { return Err(Errno::EPERM.into()) };
        let len = src.remaining();
        if len > MAX_WRITE {
            return Err(Errno::EINVAL.into());
        }
        let mut text = alloc::vec![0; len];
        if len > 0 && src.take(&mut text)? < len {
            return Err(Errno::EFAULT.into());
        }
        store(ctx, &text)?;
        Ok(len)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn pollable(&self) -> bool {
        self.watched.is_some()
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        let mut events = PollEvents::IN | PollEvents::RDNORM;
        let Some((heard, changes)) = &self.watched else { return events | PollEvents::OUT | PollEvents::WRNORM };
        if let Some(table) = table {
            table.register(changes.queue());
        }
        let count = changes.count();
        events.set(PollEvents::ERR | PollEvents::PRI, heard.swap(count, Ordering::SeqCst) != count);
        events
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A symbolic link whose target may depend on who asks.
pub(super) struct PseudoLink {
    pub(super) attr: Attr,
    pub(super) target: Generate,
}

impl Inode for PseudoLink {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self, ctx: &Ctx) -> Result<Vec<u8>> {
        (self.target)(ctx)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A directory whose entries never change.
pub(super) struct PseudoDir {
    attr: Attr,
    entries: Vec<(Name, InodeRef)>,
}

impl PseudoDir {
    /// Looks an entry up.
    pub(super) fn find(&self, name: &[u8]) -> Option<InodeRef> {
        self.entries.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, inode)| inode.clone())
    }

    /// The entries as lists of a directory have them: inode number, type, name.
    pub(super) fn list(&self) -> Vec<Listed> {
        let entry = |(name, inode): &(Name, InodeRef)| {
            Some(Listed::new(inode.attr().ok()?.ino, inode.file_type(), name.as_bytes()))
        };
        self.entries.iter().filter_map(entry).collect()
    }

    pub(super) fn attr(&self) -> Attr {
        self.attr
    }
}

impl Inode for PseudoDir {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, _ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        self.find(name).ok_or(Errno::ENOENT.into())
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        list_directory(self.attr.ino, &self.list(), cookie, sink);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// One entry of a directory.
pub(super) struct Listed {
    ino: u64,
    file_type: FileType,
    name: Vec<u8>,
}

impl Listed {
    pub(super) fn new(ino: u64, file_type: FileType, name: &[u8]) -> Listed {
        Listed { ino, file_type, name: name.to_vec() }
    }
}

/// Gives `.`, `..` and the entries to `sink`, from a cookie on: positions in the list.
pub(super) fn list_directory(ino: u64, entries: &[Listed], cookie: u64, sink: DirSink<'_>) {
    let dots = [Listed::new(ino, FileType::Directory, b"."), Listed::new(ino, FileType::Directory, b"..")];
    let skip = usize::try_from(cookie).unwrap_or(usize::MAX);
    for (at, entry) in dots.iter().chain(entries).enumerate().skip(skip) {
        let next = at as u64 + 1;
        if !sink(&DirEntry { ino: entry.ino, file_type: entry.file_type, name: &entry.name, next }) {
            break;
        }
    }
}

/// Builds the entries of a directory.
pub(super) struct DirBuilder {
    numbers: Arc<Numbers>,
    entries: Vec<(Name, InodeRef)>,
}

impl DirBuilder {
    pub(super) fn new(numbers: &Arc<Numbers>) -> DirBuilder {
        DirBuilder { numbers: numbers.clone(), entries: Vec::new() }
    }

    /// Adds a file that everyone may read.
    pub(super) fn file(
        self,
        name: impl Into<Name>,
        generate: impl Fn(&Ctx) -> Vec<u8> + Send + Sync + 'static,
    ) -> DirBuilder {
        self.file_with(name, 0o444, move |ctx| Ok(generate(ctx)), None)
    }

    /// Adds a file of constant text.
    pub(super) fn text(self, name: impl Into<Name>, text: &'static str) -> DirBuilder {
        self.file(name, move |_| text.as_bytes().to_vec())
    }

    /// Adds a file with permission bits and, if it can be written, what takes it.
    pub(super) fn file_with(
        mut self,
        name: impl Into<Name>,
        mode: u32,
        generate: impl Fn(&Ctx) -> Result<Vec<u8>> + Send + Sync + 'static,
        store: Option<Store>,
    ) -> DirBuilder {
        let attr = self.numbers.attr(FileType::Regular, mode);
        let file =
            PseudoFile { attr, generate: Arc::new(Box::new(generate)), store: store.map(Arc::new), watched: None };
        self.entries.push((name.into(), Arc::new(file)));
        self
    }

    /// Adds a link.
    pub(super) fn link(
        mut self,
        name: impl Into<Name>,
        target: impl Fn(&Ctx) -> Vec<u8> + Send + Sync + 'static,
    ) -> DirBuilder {
        let attr = self.numbers.attr(FileType::Symlink, 0o777);
        self.entries.push((name.into(), Arc::new(PseudoLink { attr, target: Box::new(move |ctx| Ok(target(ctx))) })));
        self
    }

    /// Adds an inode of another kind.
    pub(super) fn add(mut self, name: impl Into<Name>, inode: InodeRef) -> DirBuilder {
        self.entries.push((name.into(), inode));
        self
    }

    /// Adds a directory.
    pub(super) fn dir(mut self, name: impl Into<Name>, build: impl FnOnce(DirBuilder) -> DirBuilder) -> DirBuilder {
        let dir = build(DirBuilder::new(&self.numbers)).build();
        self.entries.push((name.into(), dir));
        self
    }

    /// The directory.
    pub(super) fn build(self) -> Arc<PseudoDir> {
        let mut attr = self.numbers.attr(FileType::Directory, 0o555);
        attr.nlink += self.entries.iter().filter(|(_, e)| e.file_type() == FileType::Directory).count() as u64;
        Arc::new(PseudoDir { attr, entries: self.entries })
    }
}
