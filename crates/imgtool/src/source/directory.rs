//! A directory of the host as input.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use ext4::Timestamp;
use nix::sys::stat::{major, minor};
use nix::unistd::{Whence, lseek};

use crate::Error;
use crate::tree::{Body, Content, Data, Meta, Node, NodeId, Origin, Segment, Tree, Xattr, symlink_target};

/// Adds what the directory at `root`, the `number`th input, holds to `tree`. Symbolic links are kept, not followed;
/// contents stay where they are.
///
/// # Errors
/// Something in it cannot be read, or contradicts an earlier input; the error names its path.
pub(crate) fn read_directory(root: &Path, number: u32, tree: &mut Tree) -> Result<(), Error> {
    let metadata = fs::metadata(root).map_err(|error| Error::io("stat", root, &error))?;
    tree.set_root(meta(&metadata), xattrs(root)?);
    let mut listings = list_all(root, number)?;
    // Files with several names, by device and inode number.
    let mut linked = HashMap::new();
    // Directories still to be placed, by node and path from the root.
    let mut waiting = vec![(NodeId::ROOT, PathBuf::new())];
    while let Some((directory, below)) = waiting.pop() {
        for Found { name, identity, node } in listings.remove(&below).unwrap_or_default() {
            let below = below.join(&name);
            let failed = |error: Error| error.at(root.join(&below).display());
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
                waiting.push((id, below));
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

/// All directories' entries, sorted, by the directory's path from the root.
type Listings = HashMap<PathBuf, Vec<Found>>;

/// What the threads that list directories share.
#[derive(Default)]
struct Work {
    waiting: Vec<PathBuf>,
    /// Directories being listed; each may bring more.
    busy: usize,
    done: Listings,
    error: Option<Error>,
}

/// Lists the directory at `root` and all below it, several at a time: most of it is waiting for the host.
fn list_all(root: &Path, number: u32) -> Result<Listings, Error> {
    let work = Mutex::new(Work { waiting: vec![PathBuf::new()], ..Work::default() });
    let changed = Condvar::new();
    let list = || {
        let lock = || work.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shared = lock();
        loop {
            let Some(below) = shared.waiting.pop() else {
                if shared.busy == 0 {
                    return;
                }
                shared = changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            shared.busy += 1;
            drop(shared);
            let listed = list_one(root, &below, number);
            shared = lock();
            shared.busy -= 1;
            match listed {
                Ok(found) => {
                    let directories = found.iter().filter(|entry| matches!(entry.node.body, Body::Directory(_)));
                    shared.waiting.extend(directories.map(|entry| below.join(&entry.name)));
                    shared.done.insert(below, found);
                }
                Err(error) => {
                    shared.waiting.clear();
                    shared.error.get_or_insert(error);
                }
            }
            changed.notify_all();
        }
    };
    thread::scope(|scope| {
        let helpers = thread::available_parallelism().map_or(1, usize::from).min(4) - 1;
        for _ in 0..helpers {
            // Without helpers it only takes longer.
            let _ = thread::Builder::new().name("list directories".to_owned()).spawn_scoped(scope, list);
        }
        list();
    });
    let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    work.error.map_or(Ok(work.done), Err)
}

fn list_one(root: &Path, below: &Path, number: u32) -> Result<Vec<Found>, Error> {
    let path = root.join(below);
    let entries = fs::read_dir(&path).map_err(|error| Error::io("read the directory", &path, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| Error::io("read the directory", &path, &error))?.file_name();
        let path = path.join(&name);
        let metadata = fs::symlink_metadata(&path).map_err(|error| Error::io("stat", &path, &error))?;
        let several_names = !metadata.is_dir() && metadata.nlink() > 1;
        let identity = several_names.then(|| (metadata.dev(), metadata.ino()));
        let body = body(&path, &below.join(&name), number, &metadata)?;
        found.push(Found {
            name,
            identity,
            node: Node { meta: meta(&metadata), xattrs: xattrs(&path)?, body, kept: None },
        });
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
    Ok(Node { meta: meta(metadata), xattrs: xattrs(path)?, body: body(path, path, 0, metadata)?, kept: None })
}

fn meta(metadata: &Metadata) -> Meta {
    Meta {
        mode: (metadata.mode() & 0o7777) as u16,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Timestamp { sec: metadata.mtime(), nsec: metadata.mtime_nsec() as u32 },
    }
}

fn body(path: &Path, below: &Path, number: u32, metadata: &Metadata) -> Result<Body, Error> {
    let kind = metadata.file_type();
    let device = || (major(metadata.rdev()) as u32, minor(metadata.rdev()) as u32);
    if kind.is_dir() {
        Ok(Body::Directory(BTreeMap::new()))
    } else if kind.is_file() {
        content(path, below, number, metadata).map(Body::Regular)
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

fn content(path: &Path, below: &Path, number: u32, metadata: &Metadata) -> Result<Content, Error> {
    let len = metadata.len();
    // Fewer blocks than the length needs: there are holes (or the host compresses, which SEEK_DATA sorts out).
    let data = if metadata.blocks().saturating_mul(512) < len {
        Data::Segments(data_segments(path, len).map_err(|error| Error::io("find the holes of", path, &error))?)
    } else {
        Data::Whole(0)
    };
    let origin = Origin::Host(number, below.as_os_str().as_bytes().into());
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
    content(path, below, number, &metadata)
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
