//! devpts: the directory of pseudoterminals (`pts(4)`, `Documentation/filesystems/devpts.rst`).
//!
//! Each mount is an instance with numbers of its own. `/dev/ptmx` makes terminals in the instance mounted at `pts` beside
//! it; the node `ptmx` within an instance in that one.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::{Mutex, SeqLock};
use crate::tty::pty::{self, SlaveDirectory};
use crate::tty::{TTYAUX_MAJOR, Tty, TtyFile, UNIX98_PTY_SLAVE_MAJOR};
use crate::vfs::{
    AT_FDCWD, Attr, DirEntry, DirSink, File, FileOps, FileSystem, FileType, FsType, Inode, InodeCommon, InodeRef,
    Location, MountRequest, OpenFlags, SetAttr, StatFs, WalkFlags, makedev,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::fmt::Write;

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
/// Terminals that may exist at once (`/proc/sys/kernel/pty/max`).
const MAX_TERMINALS: u32 = 4096;
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
/// Inode number of terminal 0.
const FIRST_INO: u64 = 3;

/// The type, for `mount(2)`.
pub const FS_TYPE: FsType = FsType { name: "devpts", needs_device: false, mount };

/// Mount options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    /// Owner of new terminals, rather than their creator's user.
    uid: Option<u32>,
    /// Group of new terminals, rather than their creator's group.
    gid: Option<u32>,
    /// Permission bits of new terminals.
    mode: u32,
    /// Permission bits of the node `ptmx`.
    ptmx_mode: u32,
    /// Terminals that may exist at once.
    max: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { uid: None, gid: None, mode: 0o600, ptmx_mode: 0, max: MAX_TERMINALS }
    }
}

impl Options {
    /// Takes what a mount's data says.
    ///
    /// # Errors
    /// `EINVAL` for an option or value that there is not.
    fn parse(mut self, data: &str) -> Result<Options> {
        let bad = || crate::Error::new(Errno::EINVAL, "unknown option of devpts, or a bad value");
        for option in data.split(',').filter(|o| !o.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let decimal = || value.parse::<u32>().map_err(|_| bad());
            let octal = || u32::from_str_radix(value, 8).map(|mode| mode & 0o7777).map_err(|_| bad());
            match name {
                "uid" => self.uid = Some(decimal()?),
                "gid" => self.gid = Some(decimal()?),
                "mode" => self.mode = octal()?,
                "ptmxmode" => self.ptmx_mode = octal()?,
                "newinstance" => {}
                "max" => self.max = decimal()?.min(MAX_TERMINALS),
                _ => return Err(bad()),
            }
        }
        Ok(self)
    }
}

/// An instance.
pub struct DevPts {
    me: Weak<DevPts>,
    dev: u64,
    root: Mutex<Attr>,
    options: Mutex<Options>,
    terminals: Mutex<BTreeMap<u32, Arc<Node>>>,
    ptmx: Arc<Node>,
}

fn mount(ctx: &Ctx, request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let options = Options::default().parse(request.data)?;
    let dev = ctx.kernel.vfs.anonymous_dev();
    Ok(DevPts::new(dev, options))
}

fn attr(dev: u64, ino: u64, file_type: FileType, mode: u32, rdev: u64) -> Attr {
    let nlink = if file_type == FileType::Directory { 2 } else { 1 };
    Attr { nlink, rdev, blksize: 1024, ..Attr::new(dev, ino, file_type, mode, (0, 0)) }
}

impl DevPts {
    fn new(dev: u64, options: Options) -> Arc<DevPts> {
        Arc::new_cyclic(|me| {
            let ptmx_attr = attr(dev, PTMX_INO, FileType::CharDevice, options.ptmx_mode, makedev(TTYAUX_MAJOR, 2));
            DevPts {
                me: me.clone(),
                dev,
                root: Mutex::new(attr(dev, ROOT_INO, FileType::Directory, 0o755, 0)),
                options: Mutex::new(options),
                terminals: Mutex::default(),
                ptmx: Arc::new(Node { attr: SeqLock::new(ptmx_attr), tty: None, common: InodeCommon::default() }),
            }
        })
    }

    /// An instance without a mount, for tests.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn for_test() -> Arc<DevPts> {
        DevPts::new(1, Options { ptmx_mode: 0o666, ..Options::default() })
    }

    /// Makes a terminal: its open master.
    fn create(&self, ctx: &Ctx, root: Location) -> Result<Box<dyn FileOps>> {
        let fs = self.me.upgrade().ok_or(Errno::ENODEV)?;
        let options = *self.options.lock();
        let mut terminals = self.terminals.lock();
        let index = (0..options.max).find(|n| !terminals.contains_key(n)).ok_or(Errno::ENOSPC)?;
        let (master, tty) = pty::create(ctx, index, Arc::new(Instance { fs, root }));
        let creds = ctx.creds();
        let rdev = makedev(UNIX98_PTY_SLAVE_MAJOR, index);
        let attr = Attr {
            uid: options.uid.unwrap_or(creds.fsuid),
            gid: options.gid.unwrap_or(creds.fsgid),
            ..attr(self.dev, FIRST_INO + u64::from(index), FileType::CharDevice, options.mode, rdev)
        };
        let node = Node { attr: SeqLock::new(attr), tty: Some(tty), common: InodeCommon::default() };
        terminals.insert(index, Arc::new(node));
        Ok(master)
    }
}

/// Opens `/dev/ptmx`: makes a terminal in the instance mounted at `pts` beside the node, or in the node's own.
///
/// # Errors
/// `ENODEV` when there is no such instance; `ENOSPC` when it is full.
pub fn open_ptmx(ctx: &Ctx, location: &Location) -> Result<Box<dyn FileOps>> {
    let mut root = location.clone();
    if location.mount.sb.fs.as_any().is::<DevPts>() {
        root = location.mount.root_location();
    } else {
        let mut path = location.path_from(&ctx.fs().inner.lock().root.clone()).path;
        path.truncate(path.iter().rposition(|&b| b == b'/').unwrap_or(0));
        path.extend_from_slice(b"/pts");
        let found = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, &path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY);
        root = found.map_err(|_| Errno::ENODEV).unwrap_or(root);
    }
    let fs = root.mount.sb.fs.clone();
    match fs.as_any().downcast_ref::<DevPts>() {
        Some(devpts) => devpts.create(ctx, root),
        None => bail!(ENODEV, "no devpts is mounted at pts beside ptmx"),
    }
}

/// An instance as the masters of its terminals know it.
struct Instance {
    fs: Arc<DevPts>,
    root: Location,
}

impl SlaveDirectory for Instance {
    fn open_slave(&self, ctx: &Ctx, tty: &Arc<Tty>, index: u32, flags: OpenFlags) -> Result<Arc<File>> {
        if !self.fs.terminals.lock().contains_key(&index) {
            bail!(EIO);
        }
        let location = self.root.child(ctx, alloc::format!("{index}").as_bytes())?;
        let ops = TtyFile::open(ctx, tty, flags)?;
        let inode = location.dentry.inode.clone();
        let kept = OpenFlags::RDWR | OpenFlags::WRONLY | OpenFlags::NONBLOCK;
        Ok(Arc::new(File::new(location, inode, Some(ops), flags & kept)))
    }

    fn forget(&self, index: u32) {
        let gone = self.fs.terminals.lock().remove(&index);
        drop(gone);
    }
}

impl FileSystem for DevPts {
    fn name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(Arc::new(Root { fs: self.me.upgrade().ok_or(Errno::ENODEV)? }))
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { fs_type: DEVPTS_SUPER_MAGIC, bsize: 4096, namelen: 255, ..StatFs::default() })
    }

    fn options(&self) -> String {
        let options = *self.options.lock();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = (|| {
            if let Some(uid) = options.uid {
                write!(text, "uid={uid},")?;
            }
            if let Some(gid) = options.gid {
                write!(text, "gid={gid},")?;
            }
            write!(text, "mode={:03o},ptmxmode={:03o}", options.mode, options.ptmx_mode)?;
            if options.max < MAX_TERMINALS { write!(text, ",max={}", options.max) } else { Ok(()) }
        })();
        text
    }

    fn remount(&self, _read_only: bool, data: &str) -> Result<()> {
        let mut options = self.options.lock();
        *options = options.parse(data)?;
        self.ptmx.attr.write().mode = options.ptmx_mode;
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The root directory.
struct Root {
    fs: Arc<DevPts>,
}

impl Inode for Root {
    fn attr(&self) -> Result<Attr> {
        Ok(*self.fs.root.lock())
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        self.fs.root.lock().apply(set);
        Ok(())
    }

    /// Terminals come and go without the cache's knowledge.
    fn cacheable(&self) -> bool {
        false
    }

    fn lookup(&self, _ctx: &Ctx, name: &[u8]) -> Result<InodeRef> {
        if name == b"ptmx" {
            return Ok(self.fs.ptmx.clone());
        }
        let canonical = name == b"0" || !name.starts_with(b"0") && name.iter().all(u8::is_ascii_digit);
        let index = core::str::from_utf8(name).ok().filter(|_| canonical).and_then(|n| n.parse::<u32>().ok());
        let node = index.and_then(|n| self.fs.terminals.lock().get(&n).cloned());
        node.map(|n| n as InodeRef).ok_or(Errno::ENOENT.into())
    }

    fn read_dir(&self, _ctx: &Ctx, cookie: u64, sink: DirSink<'_>) -> Result<()> {
        const FIXED: [(u64, FileType, &[u8]); 3] = [
            (ROOT_INO, FileType::Directory, b"."),
            (ROOT_INO, FileType::Directory, b".."),
            (PTMX_INO, FileType::CharDevice, b"ptmx"),
        ];
        for (at, (ino, file_type, name)) in FIXED.into_iter().enumerate().skip(cookie as usize) {
            if !sink(&DirEntry { ino, file_type, name, next: at as u64 + 1 }) {
                return Ok(());
            }
        }
        let fixed = FIXED.len() as u64;
        let from = u32::try_from(cookie.saturating_sub(fixed)).unwrap_or(u32::MAX);
        for (&index, _) in self.fs.terminals.lock().range(from..) {
            let name = alloc::format!("{index}");
            let ino = FIRST_INO + u64::from(index);
            let next = fixed + u64::from(index) + 1;
            if !sink(&DirEntry { ino, file_type: FileType::CharDevice, name: name.as_bytes(), next }) {
                break;
            }
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A terminal's node, or `ptmx`, which has no terminal.
struct Node {
    attr: SeqLock<Attr>,
    tty: Option<Arc<Tty>>,
    common: InodeCommon,
}

impl Inode for Node {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr.read())
    }

    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }

    fn common(&self) -> Option<&InodeCommon> {
        Some(&self.common)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<()> {
        self.attr.write().apply(set);
        Ok(())
    }

    /// `ptmx` is found by its number, for it needs to know where it was opened.
    fn open(self: Arc<Self>, ctx: &Ctx, flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        self.tty.as_ref().map(|tty| TtyFile::open(ctx, tty, flags)).transpose()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_shown() {
        let options = Options::default().parse("gid=5,mode=620,ptmxmode=666,newinstance").unwrap();
        assert_eq!((options.gid, options.mode, options.ptmx_mode), (Some(5), 0o620, 0o666));
        let fs = DevPts::new(7, options);
        assert_eq!(fs.options(), "gid=5,mode=620,ptmxmode=666");
        fs.remount(false, "ptmxmode=000,max=9").unwrap();
        assert_eq!(fs.options(), "gid=5,mode=620,ptmxmode=000,max=9");
    }

    #[test]
    fn bad_options_are_refused() {
        for data in ["gid=x", "mode=9", "color=red", "uid=-1"] {
            assert_eq!(Options::default().parse(data).map_err(|e| e.errno), Err(Errno::EINVAL), "{data}");
        }
    }
}
