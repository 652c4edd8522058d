//! A FAT image as the commands see it: paths, and what they name.

use std::io::Write;
use std::path::{Path, PathBuf};

use ext4::{Attr, FileType};
use serde::Serialize;

use super::directory::{DIRECTORY, Entry, New, READ_ONLY, no_space};
use super::name::{folded, unfit};
use super::{Run, Volume, damaged};
use crate::edit::{DEEPEST, Visitor};
use crate::image::components;
use crate::text::shown;
use crate::{Error, ReadError, Target, join};

/// Bytes copied at a time.
pub(super) const CHUNK: u64 = 1 << 20;

/// A FAT image, or a FAT partition of a disk.
pub struct FatImage {
    path: PathBuf,
    pub(super) volume: Volume,
}

/// The facts about a FAT image. Sizes are in bytes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct FatInfo {
    /// `FAT12`, `FAT16` or `FAT32`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Volume label.
    pub label: Option<String>,
    /// The volume's serial number, as `1234-ABCD`.
    pub id: String,
    /// Length of the file or device.
    pub file_size: u64,
    /// Bytes for files.
    pub size: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes of a cluster.
    pub cluster_size: u64,
    /// All clusters.
    pub clusters: u32,
    /// Free clusters.
    pub clusters_free: u32,
    /// `clean` or `not clean`.
    pub state: String,
}

/// What takes the pieces of a file, with their offsets.
type Taker<'a, E> = dyn FnMut(u64, &[u8]) -> Result<(), E> + 'a;
/// What is called with each path and what is there.
type NodeVisitor<'a, E> = dyn FnMut(&mut FatImage, &[u8], &Node) -> Result<(), E> + 'a;

/// A file or directory that was found.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// First cluster: 0 for an empty file, and for the root.
    pub(super) cluster: u32,
    /// Its directory's first cluster.
    pub(super) parent: u32,
    /// `None` for the root.
    pub(super) entry: Option<Entry>,
}

impl Node {
    pub(super) fn is_directory(&self) -> bool {
        self.entry.as_ref().is_none_or(Entry::is_directory)
    }
}

impl FatImage {
    /// Opens an image to be looked at.
    ///
    /// # Errors
    /// It is no FAT file system, or cannot be read.
    pub(crate) fn open(target: &Target) -> Result<Self, Error> {
        let path = PathBuf::from(target.to_string());
        let volume = Volume::open(target.open()?).map_err(|error| error.at(target))?;
        Ok(Self { path, volume })
    }

    /// Opens an image to change it, after a look at all of its directories and chains.
    ///
    /// # Errors
    /// As [`FatImage::open`]; it is in use, cannot be written, or is damaged.
    pub(crate) fn open_writable(target: &Target) -> Result<Self, Error> {
        let path = PathBuf::from(target.to_string());
        let mut volume = Volume::open(target.open_writable()?).map_err(|error| error.at(target))?;
        volume.check().map_err(|error| error.at(target))?;
        Ok(Self { path, volume })
    }

    /// Where the image is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn failed(&self, path: &[u8], error: impl std::fmt::Display) -> Error {
        Error::new(error).at(format_args!("{}:{}", self.path.display(), shown(path)))
    }

    /// Puts the place in front of an error.
    pub(super) fn placed<T>(&self, path: &[u8], result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.at(format_args!("{}:{}", self.path.display(), shown(path))))
    }

    /// The boot sector and the count of free clusters.
    ///
    /// # Errors
    /// The image cannot be read.
    pub fn info(&mut self) -> Result<FatInfo, Error> {
        let path = self.path.clone();
        self.volume.info().map_err(|error| error.at(path.display()))
    }

    pub(super) fn resolve(&mut self, path: &[u8]) -> Result<Node, Error> {
        match self.find(path)? {
            Some(node) => Ok(node),
            None => Err(self.failed(path, ext4::Error::NotFound)),
        }
    }

    /// What `path` names; `None` if only its last component is missing.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Node>, Error> {
        let root = Node { cluster: 0, parent: 0, entry: None };
        let mut trail = vec![root.clone()];
        let mut rest = components(path);
        while let Some(name) = rest.pop() {
            if name == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let here = trail.last().unwrap_or(&root);
            if !here.is_directory() {
                return Err(self.failed(path, ext4::Error::NotDirectory));
            }
            let parent = here.cluster;
            let directory = self.volume.directory(parent);
            let directory = self.placed(path, directory)?;
            match std::str::from_utf8(&name).ok().and_then(|name| directory.find(name)) {
                Some(entry) => {
                    if entry.is_directory() && entry.cluster == 0 {
                        return self.placed(path, Err(damaged("a directory has no cluster")));
                    }
                    trail.push(Node { cluster: entry.cluster, parent, entry: Some(entry) });
                }
                None if rest.is_empty() => return Ok(None),
                None => return Err(self.failed(path, ext4::Error::NotFound)),
            }
        }
        Ok(trail.pop())
    }

    pub(super) fn attr(&self, node: &Node) -> Attr {
        let Some(entry) = &node.entry else {
            return attributes(0, FileType::Directory, 0o755, 0, 0);
        };
        let write = if entry.attributes & READ_ONLY != 0 { 0 } else { 0o200 };
        let clusters = u64::from(entry.size).div_ceil(self.volume.cluster);
        let mut attr = match entry.is_directory() {
            true => attributes(entry.cluster, FileType::Directory, 0o755, 0, 0),
            false => {
                let blocks = clusters * self.volume.cluster / 512;
                attributes(entry.cluster, FileType::Regular, 0o444 | write, entry.size.into(), blocks)
            }
        };
        (attr.atime, attr.mtime, attr.ctime, attr.crtime) =
            (entry.accessed, entry.modified, entry.modified, entry.created);
        attr
    }

    /// What the entry at `path` says.
    ///
    /// # Errors
    /// There is none, or the image is damaged.
    pub fn stat(&mut self, path: &[u8]) -> Result<crate::Entry, Error> {
        let node = self.resolve(path)?;
        let name = node.entry.as_ref().map_or_else(|| b"/".to_vec(), |entry| entry.name.clone().into_bytes());
        Ok(crate::Entry { name, attr: self.attr(&node), target: None })
    }

    /// Whether `path` names a directory.
    pub fn is_directory(&mut self, path: &[u8]) -> bool {
        self.resolve(path).is_ok_and(|node| node.is_directory())
    }

    /// What is in a directory, sorted by name.
    pub(super) fn below(&mut self, path: &[u8], node: &Node) -> Result<Vec<Node>, Error> {
        if !node.is_directory() {
            return Err(self.failed(path, ext4::Error::NotDirectory));
        }
        let directory = self.volume.directory(node.cluster);
        let mut entries = self.placed(path, directory)?.entries();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let parent = node.cluster;
        Ok(entries.into_iter().map(|entry| Node { cluster: entry.cluster, parent, entry: Some(entry) }).collect())
    }

    /// The entries of the directory at `path`, sorted by name.
    ///
    /// # Errors
    /// It is no directory, or damaged.
    pub fn list(&mut self, path: &[u8]) -> Result<Vec<crate::Entry>, Error> {
        let node = self.resolve(path)?;
        let found = self.below(path, &node)?;
        let entry = |node: &Node| crate::Entry { name: node.name(), attr: self.attr(node), target: None };
        Ok(found.iter().map(entry).collect())
    }

    /// Writes the contents of the file at `path` to `out`; returns their length.
    ///
    /// # Errors
    /// It is no file, or damaged; `out` fails, which [`ReadError::Output`] tells apart.
    pub fn read_to(&mut self, path: &[u8], out: &mut dyn Write) -> Result<u64, ReadError> {
        let node = self.resolve(path)?;
        if node.is_directory() {
            return Err(self.failed(path, "a directory, expected a regular file").into());
        }
        self.contents(path, &node, &mut |_, bytes| out.write_all(bytes).map_err(ReadError::Output))
    }

    /// Calls `take` with each piece of a file and its offset.
    pub(super) fn contents<E: From<Error>>(
        &mut self,
        path: &[u8],
        node: &Node,
        take: &mut Taker<'_, E>,
    ) -> Result<u64, E> {
        let size = node.entry.as_ref().map_or(0, |entry| entry.size);
        let runs = self.volume.file_chain(node.cluster, size);
        let runs: Vec<Run> = self.placed(path, runs)?;
        let size = u64::from(size);
        let mut buffer = vec![0; CHUNK.min(size) as usize];
        let mut at = 0;
        while at < size {
            let piece = buffer.get_mut(..(size - at).min(CHUNK) as usize).unwrap_or_default();
            let read = self.volume.read_runs(&runs, at, piece);
            self.placed(path, read)?;
            take(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(size)
    }

    /// Calls `visit` for the file at `path` and all below it, a directory before what is in it.
    pub(super) fn walk<E: From<Error>>(
        &mut self,
        path: &[u8],
        node: &Node,
        depth: usize,
        visit: &mut NodeVisitor<'_, E>,
    ) -> Result<(), E> {
        if depth > DEEPEST {
            return Err(self.failed(path, "damaged: the directories are nested without an end").into());
        }
        visit(self, path, node)?;
        if node.is_directory() {
            for child in self.below(path, node)? {
                self.walk(&join(path, &child.name()), &child, depth + 1, visit)?;
            }
        }
        Ok(())
    }

    /// Calls `visit` with the path and attributes of the file at `path` and of everything below it, directories
    /// first, names in order.
    ///
    /// # Errors
    /// As [`FatImage::list`], or what `visit` returns.
    pub fn visit_all(&mut self, path: &[u8], visit: &mut Visitor<'_>) -> Result<(), Error> {
        let node = self.resolve(path)?;
        self.walk(path, &node, 0, &mut |image, path, node| visit(path, &image.attr(node)))
    }

    /// Does `change` as a whole or not at all.
    pub(super) fn operation<T>(
        &mut self,
        path: &[u8],
        change: impl FnOnce(&mut Volume) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = change(&mut self.volume).and_then(|done| self.volume.commit().map(|()| done));
        if done.is_err() {
            self.volume.roll_back();
        }
        self.placed(path, done)
    }

    /// The directory that is to hold the last component of `path`, and that component as FAT has it.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<(Node, String), Error> {
        let mut parts = components(path);
        if parts.is_empty() {
            return Err(self.failed(path, "this is the root directory, expected a name in it"));
        }
        let name = parts.remove(0);
        parts.reverse();
        let above = parts.join(&b'/');
        let node = self.resolve(&above)?;
        if !node.is_directory() {
            return Err(self.failed(&above, ext4::Error::NotDirectory));
        }
        let Ok(name) = String::from_utf8(name) else {
            return Err(self.failed(path, "has a name that is no UTF-8, which FAT needs"));
        };
        match unfit(&name) {
            Some(reason) => Err(self.failed(path, reason)),
            None => Ok((node, name)),
        }
    }

    /// Makes a directory; with `parents`, also those above it, and none if it is there already.
    ///
    /// # Errors
    /// It exists, or the directory above does not, or the image is full.
    pub fn make_directory(&mut self, path: &[u8], parents: bool) -> Result<(), Error> {
        let mut parts = components(path);
        let mut so_far = Vec::new();
        while let Some(name) = parts.pop() {
            so_far = join(&so_far, &name);
            let last = parts.is_empty();
            if !last && !parents {
                continue;
            }
            match self.find(&so_far)? {
                Some(_) if last && !parents => return Err(self.failed(&so_far, "it exists already")),
                Some(node) if node.is_directory() => {}
                Some(_) => return Err(self.failed(&so_far, "a regular file, expected a directory")),
                None => self.new_directory(&so_far, crate::time::now()).map(drop)?,
            }
        }
        if components(path).is_empty() && !parents {
            return Err(self.failed(path, "it exists already"));
        }
        Ok(())
    }

    /// Makes a directory under a name that is not there; returns its first cluster.
    pub(super) fn new_directory(&mut self, path: &[u8], time: ext4::Timestamp) -> Result<u32, Error> {
        let (parent, name) = self.parent(path)?;
        self.operation(path, |volume| {
            let run = volume.allocate(1)?.and_then(|runs| runs.first().copied()).ok_or_else(no_space)?;
            let zeros = vec![0; volume.cluster as usize];
            volume.write(volume.at(run.0), &zeros)?;
            volume.set_dots(run.0, parent.cluster, time)?;
            let new = New { attributes: DIRECTORY, cluster: run.0, size: 0, created: time, modified: time };
            volume.add(parent.cluster, &name, &new)?;
            Ok(run.0)
        })
    }

    /// Removes a file or empty directory; with `recursive`, a directory with all that is in it.
    ///
    /// # Errors
    /// It does not exist, or is a directory that is not empty.
    pub fn remove(&mut self, path: &[u8], recursive: bool) -> Result<(), Error> {
        let node = self.resolve(path)?;
        if node.entry.is_none() {
            return Err(self.failed(path, "the root directory cannot be removed"));
        }
        self.remove_node(path, &node, recursive, 0)
    }

    fn remove_node(&mut self, path: &[u8], node: &Node, recursive: bool, depth: usize) -> Result<(), Error> {
        if node.is_directory() {
            let below = self.below(path, node)?;
            if !below.is_empty() && !recursive {
                return Err(self.failed(path, ext4::Error::NotEmpty));
            }
            if depth > DEEPEST {
                return Err(self.failed(path, "damaged: the directories are nested without an end"));
            }
            for child in below {
                self.remove_node(&join(path, &child.name()), &child, recursive, depth + 1)?;
            }
        }
        let Some(entry) = &node.entry else { return Ok(()) };
        self.operation(path, |volume| {
            volume.remove_entry(node.parent, entry)?;
            let runs = match entry.cluster {
                0 => Vec::new(),
                first => volume.chain(first, u64::from(volume.clusters))?,
            };
            volume.release(&runs)
        })
    }

    /// Renames; into `to` if that is a directory, as mv(1) does.
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        let node = self.resolve(from)?;
        let Some(entry) = node.entry.clone() else {
            return Err(self.failed(from, "the root directory cannot be moved"));
        };
        let mut to = to.to_vec();
        let into = self.find(&to)?.filter(Node::is_directory);
        // A new spelling of the directory's own name is no place in it.
        if into.is_some_and(|into| into.cluster != node.cluster || !entry.is_directory()) {
            to = join(&to, entry.name.as_bytes());
        } else if to.ends_with(b"/") && !entry.is_directory() {
            return Err(self.failed(&to, "no such directory"));
        }
        let (parent, name) = self.parent(&to)?;
        if entry.is_directory() && self.is_below(&node, &parent)? {
            return Err(self.failed(&to, "a directory cannot be moved into itself"));
        }
        let same = parent.cluster == node.parent && folded(&name) == folded(&entry.name);
        if let Some(old) = self.find(&to)?.filter(|_| !same) {
            match (entry.is_directory(), old.is_directory()) {
                (true, false) => return Err(self.failed(&to, ext4::Error::NotDirectory)),
                (false, true) => return Err(self.failed(&to, ext4::Error::IsDirectory)),
                _ => self.remove_node(&to, &old, false, 0)?,
            }
        }
        self.operation(&to, |volume| {
            volume.remove_entry(node.parent, &entry)?;
            let (attributes, cluster, size) = (entry.attributes, entry.cluster, entry.size);
            let new = New { attributes, cluster, size, created: entry.created, modified: entry.modified };
            volume.add(parent.cluster, &name, &new)?;
            match entry.is_directory() && parent.cluster != node.parent {
                true => volume.set_parent(entry.cluster, parent.cluster),
                false => Ok(()),
            }
        })
    }

    /// Sets the volume label, in the root directory and the boot sector.
    ///
    /// # Errors
    /// FAT cannot have it; the root directory is full.
    pub fn set_label(&mut self, label: &str) -> Result<(), Error> {
        let bytes = crate::fat::fat_label(label)?;
        self.operation(b"", |volume| volume.set_label(&bytes, label.is_empty()))
    }

    /// Whether `inner` is the directory `outer`, or below it.
    fn is_below(&mut self, outer: &Node, inner: &Node) -> Result<bool, Error> {
        let mut found = false;
        self.walk::<Error>(b"", outer, 0, &mut |_, _, node| {
            found |= node.is_directory() && node.cluster == inner.cluster;
            Ok(())
        })?;
        Ok(found)
    }
}

impl Node {
    /// Its name; empty for the root.
    pub(super) fn name(&self) -> Vec<u8> {
        self.entry.as_ref().map(|entry| entry.name.clone().into_bytes()).unwrap_or_default()
    }
}

fn attributes(cluster: u32, file_type: FileType, mode: u16, size: u64, blocks512: u64) -> Attr {
    let never = ext4::Timestamp::default();
    Attr {
        ino: cluster,
        file_type,
        mode,
        uid: 0,
        gid: 0,
        nlink: 1,
        size,
        blocks512,
        rdev: (0, 0),
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        flags: 0,
        generation: 0,
    }
}
