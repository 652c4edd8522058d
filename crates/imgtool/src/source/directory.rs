//! A directory of the host as input.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use ext4::Timestamp;
use nix::sys::stat::{major, minor};
use nix::unistd::{Whence, lseek};

use crate::Error;
use crate::tree::{Body, Content, Data, Meta, Node, NodeId, Origin, Segment, Tree, Xattr, symlink_target};

/// Entries listed ahead of the tree at most, but for one directory's.
const AHEAD: usize = 20_000;

/// Adds what the directory at `root`, the `number`th input, holds to `tree`. Symbolic links are kept, not followed;
/// contents stay where they are.
///
/// # Errors
/// Something in it cannot be read, or contradicts an earlier input; the error names its path.
pub(crate) fn read_directory(root: &Path, number: u32, tree: &mut Tree) -> Result<(), Error> {
    let metadata = fs::metadata(root).map_err(|error| Error::io("stat", root, &error))?;
    tree.set_root(meta(&metadata), xattrs(root)?);
    let lister = Lister { root, number, work: Mutex::default(), changed: Condvar::new() };
    thread::scope(|scope| {
        // The caller mostly waits for them.
        let helpers = thread::available_parallelism().map_or(1, usize::from).min(4);
        for _ in 0..helpers {
            // Without helpers it only takes longer.
            let _ = thread::Builder::new().name("list directories".to_owned()).spawn_scoped(scope, || lister.help());
        }
        let placed = place_all(&lister, tree);
        lister.lock().closed = true;
        lister.changed.notify_all();
        placed
    })
}

/// Puts all directories' entries into the tree, in an order that does not depend on the threads.
fn place_all(lister: &Lister<'_>, tree: &mut Tree) -> Result<(), Error> {
    // Files with several names, by device and inode number.
    let mut linked = HashMap::new();
    // Directories still to be placed, by node and path from the root.
    let mut waiting = vec![(NodeId::ROOT, PathBuf::new())];
    while let Some((directory, below)) = waiting.pop() {
        for Found { name, identity, node } in lister.take(&below)? {
            let failed = |error: Error| error.at(lister.root.join(&below).join(&name).display());
            if let Some(identity) = identity
                && let Some(id) = linked.get(&identity)
            {
                tree.place_link(directory, name.as_bytes(), *id).map_err(failed)?;
                continue;
            }
            let is_directory = matches!(node.body, Body::Directory(_));
            let id = tree.place(directory, name.as_bytes(), node).map_err(failed)?;
            if let Some(identity) = identity {
                linked.insert(identity, id);
            }
            if is_directory {
                waiting.push((id, below.join(&name)));
            }
        }
    }
    Ok(())
}

/// A name in a directory and what it stands for.
struct Found {
    name: OsString,
    /// Device and inode number of a file with several names.
    identity: Option<(u64, u64)>,
    node: Node,
}

/// What the threads that list directories share. Directories are named by their paths from the root.
#[derive(Default)]
struct Work {
    /// Directories to be listed, the one that is wanted next last.
    waiting: Vec<PathBuf>,
    /// Listed directories' entries, sorted, and how many these are. By path as bytes: taking paths apart to compare
    /// them takes longer than listing a small directory.
    done: HashMap<OsString, Vec<Found>>,
    ahead: usize,
    error: Option<Error>,
    closed: bool,
}

/// Lists directories, several at a time and ahead of who takes them: most of it is waiting for the host.
struct Lister<'a> {
    root: &'a Path,
    number: u32,
    work: Mutex<Work>,
    changed: Condvar,
}

impl Lister<'_> {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, work: MutexGuard<'g, Work>) -> MutexGuard<'g, Work> {
        self.changed.wait(work).unwrap_or_else(PoisonError::into_inner)
    }

    fn help(&self) {
        let mut work = self.lock();
        while !work.closed {
            let next = if work.ahead < AHEAD { work.waiting.pop() } else { None };
            let Some(below) = next else {
                work = self.wait(work);
                continue;
            };
            drop(work);
            let listed = list_one(self.root, &below, self.number);
            work = self.lock();
            match listed {
                Ok(found) => {
                    work.waiting.extend(directories(&below, &found));
                    work.ahead += found.len();
                    work.done.insert(below.into_os_string(), found);
                }
                Err(error) => {
                    work.error.get_or_insert(error);
                }
            }
            self.changed.notify_all();
        }
    }

    /// The entries of a directory, the root or one from an earlier answer, each asked for once.
    fn take(&self, below: &Path) -> Result<Vec<Found>, Error> {
        let mut work = self.lock();
        loop {
            if let Some(error) = work.error.take() {
                return Err(error);
            }
            if let Some(found) = work.done.remove(below.as_os_str()) {
                work.ahead -= found.len();
                self.changed.notify_all();
                return Ok(found);
            }
            let at = work.waiting.iter().rposition(|waiting| waiting.as_os_str() == below.as_os_str());
            if at.is_some() || below.as_os_str().is_empty() {
                if let Some(at) = at {
                    work.waiting.remove(at);
                }
                drop(work);
                let found = list_one(self.root, below, self.number)?;
                self.lock().waiting.extend(directories(below, &found));
                self.changed.notify_all();
                return Ok(found);
            }
            // A helper is at it.
            work = self.wait(work);
        }
    }
}

/// The directories among the entries of `below`.
fn directories(below: &Path, found: &[Found]) -> impl Iterator<Item = PathBuf> {
    let directories = found.iter().filter(|entry| matches!(entry.node.body, Body::Directory(_)));
    directories.map(move |entry| below.join(&entry.name))
}

fn list_one(root: &Path, below: &Path, number: u32) -> Result<Vec<Found>, Error> {
    let directory = root.join(below);
    let failed = |error: &io::Error| Error::io("read the directory", &directory, error);
    let mut found = Vec::new();
    // One buffer for all paths: a large tree has hundreds of thousands.
    let mut path = directory.join("").into_os_string().into_vec();
    let before_name = path.len();
    for entry in fs::read_dir(&directory).map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name();
        path.truncate(before_name);
        path.extend_from_slice(name.as_bytes());
        let path = Path::new(OsStr::from_bytes(&path));
        // From the open directory on: the path is not walked again.
        let metadata = entry.metadata().map_err(|error| Error::io("stat", path, &error))?;
        let several_names = !metadata.is_dir() && metadata.nlink() > 1;
        let identity = several_names.then(|| (metadata.dev(), metadata.ino()));
        let body = body(path, Origin::Place(number), &metadata)?;
        let node = Node { meta: meta(&metadata), xattrs: xattrs(path)?, body, kept: None };
        found.push(Found { name, identity, node });
    }
    // Nodes are numbered in this order; directories hand out names in any.
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The file at `path` as a node; its contents are found from `path` itself.
///
/// # Errors
/// Its attributes or its link cannot be read.
pub(crate) fn read_node(path: &Path, metadata: &Metadata) -> Result<Node, Error> {
    Ok(Node { meta: meta(metadata), xattrs: xattrs(path)?, body: body(path, Origin::Place(0), metadata)?, kept: None })
}

fn meta(metadata: &Metadata) -> Meta {
    Meta {
        mode: (metadata.mode() & 0o7777) as u16,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Timestamp { sec: metadata.mtime(), nsec: metadata.mtime_nsec() as u32 },
    }
}

fn body(path: &Path, origin: Origin, metadata: &Metadata) -> Result<Body, Error> {
    let kind = metadata.file_type();
    let device = || (major(metadata.rdev()) as u32, minor(metadata.rdev()) as u32);
    if kind.is_dir() {
        Ok(Body::Directory(BTreeMap::new()))
    } else if kind.is_file() {
        content(path, origin, metadata).map(Body::Regular)
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(|error| Error::io("read the link", path, &error))?;
        let target = symlink_target(&target.into_os_string().into_vec());
        target.map(Body::Symlink).map_err(|error| error.at(path.display()))
    } else if kind.is_char_device() {
        let (major, minor) = device();
        Ok(Body::CharDevice(major, minor))
    } else if kind.is_block_device() {
        let (major, minor) = device();
        Ok(Body::BlockDevice(major, minor))
    } else if kind.is_fifo() {
        Ok(Body::Fifo)
    } else if kind.is_socket() {
        Ok(Body::Socket)
    } else {
        Err(Error::new(format_args!("{} is of no type that is known", path.display())))
    }
}

fn content(path: &Path, origin: Origin, metadata: &Metadata) -> Result<Content, Error> {
    let len = metadata.len();
    // Fewer blocks than the length needs: there are holes (or the host compresses, which SEEK_DATA sorts out).
    let data = if metadata.blocks().saturating_mul(512) < len {
        Data::Segments(data_segments(path, len).map_err(|error| Error::io("find the holes of", path, &error))?)
    } else {
        Data::Whole(0)
    };
    Ok(Content { len, origin, data })
}

/// The contents of the regular file at `path`, which the `number`th input, a directory, has at `below`.
///
/// # Errors
/// It cannot be read, or is no regular file.
pub(crate) fn read_contents(path: &Path, below: &Path, number: u32) -> Result<Content, Error> {
    let metadata = fs::symlink_metadata(path).map_err(|error| Error::io("stat", path, &error))?;
    if !metadata.is_file() {
        return Err(Error::new(format_args!("{} is no regular file", path.display())));
    }
    content(path, Origin::Host(number, below.as_os_str().as_bytes().into()), &metadata)
}

/// The parts of a file that are not holes (`lseek(2)`, SEEK_DATA).
fn data_segments(path: &Path, len: u64) -> io::Result<Box<[Segment]>> {
    let file = File::open(path)?;
    let mut found = Vec::new();
    let mut at = 0u64;
    while at < len {
        let start = match lseek(file.as_fd(), at as i64, Whence::SeekData) {
            Ok(start) => start.unsigned_abs(),
            // No data from here on.
            Err(nix::errno::Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = lseek(file.as_fd(), start as i64, Whence::SeekHole)?.unsigned_abs().min(len);
        if start >= end {
            break;
        }
        found.push(Segment { offset: start, len: end - start, source: start });
        at = end;
    }
    Ok(found.into())
}

/// The extended attributes that the caller may see, sorted by name.
fn xattrs(path: &Path) -> Result<Vec<Xattr>, Error> {
    let unsupported = |error: &io::Error| error.raw_os_error() == Some(nix::libc::ENOTSUP);
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if unsupported(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list the extended attributes of", path, &error)),
    };
    let mut found = Vec::new();
    for name in names {
        let get = |name: &OsStr| xattr::get(path, name);
        match get(&name) {
            Ok(Some(value)) => found.push((name.as_bytes().into(), value.into())),
            // Gone meanwhile, or listed by a security module that does not hand it out.
            Ok(None) => {}
            Err(error) if unsupported(&error) => {}
            Err(error) => {
                let action = format!("read the extended attribute {} of", name.to_string_lossy());
                return Err(Error::io(&action, path, &error));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
