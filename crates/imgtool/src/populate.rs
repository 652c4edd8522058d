//! Writing a tree into a fresh file system.

use std::fmt;

use ext4::{BlockDevice, FileType, Fs, Ino, NewInode, ROOT_INO, SetAttr, Timestamp, XattrMode};

use crate::Error;
use crate::create::Progress;
use crate::feed::Feed;
use crate::text::shown;
use crate::tree::{Body, Content, Meta, Node, NodeId, Step, Tree};

/// The directory that mkfs makes for e2fsck's finds.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Progress is told after so many bytes or files.
const TELL_BYTES: u64 = 8 << 20;
const TELL_FILES: u64 = 1000;

/// Why populating stopped.
pub(crate) enum Stop {
    /// The file system is full; this path did not fit.
    Full(String),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Writes all of `tree`, whose contents come from `feed` in the order of its walk, into `fs`, which holds nothing but
/// a root directory and perhaps lost+found. Every inode gets its own modification time as all its times, and directories
/// get theirs when they are complete: nothing depends on the clock.
///
/// # Errors
/// The file system is full or fails, or contents cannot be read.
pub(crate) fn populate<D: BlockDevice>(
    fs: &mut Fs<D>,
    tree: &Tree,
    feed: &mut Feed,
    progress: &mut Progress<'_>,
) -> Result<(), Stop> {
    let mut writer = Writer { fs, tree, feed, progress, inodes: vec![0; tree.len()], trail: Vec::new() };
    writer.progress.tell();
    for step in tree.walk() {
        match step {
            Step::Root => writer.enter(NodeId::ROOT, b"", ROOT_INO)?,
            Step::Name { name, id } => writer.name(name, id)?,
            Step::Leave(id) => writer.leave(id)?,
        }
    }
    writer.progress.tell();
    Ok(())
}

struct Writer<'a, 'p, D: BlockDevice> {
    fs: &'a mut Fs<D>,
    tree: &'a Tree,
    feed: &'a mut Feed,
    progress: &'a mut Progress<'p>,
    /// The inode of each node, 0 if it has none yet.
    inodes: Vec<Ino>,
    /// The directories from the root to here: name and inode.
    trail: Vec<(&'a [u8], Ino)>,
}

impl<'a, D: BlockDevice> Writer<'a, '_, D> {
    fn here(&self) -> Ino {
        self.trail.last().map_or(ROOT_INO, |(_, ino)| *ino)
    }

    /// Adds the path to an error of the file system.
    fn failed(&self, name: &[u8], error: ext4::Error) -> Stop {
        let mut path = Vec::new();
        for part in self.trail.iter().skip(1).map(|(part, _)| *part).chain([name]).filter(|part| !part.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        let path = shown(&path).to_string();
        match error {
            ext4::Error::NoSpace => Stop::Full(path),
            other => Stop::Failed(Error::new(other).at(format_args!("cannot write {path} into the image"))),
        }
    }

    fn enter(&mut self, id: NodeId, name: &'a [u8], ino: Ino) -> Result<(), Stop> {
        if let Some(slot) = self.inodes.get_mut(id.index()) {
            *slot = ino;
        }
        self.trail.push((name, ino));
        Ok(())
    }

    /// Settles a directory whose entries are all there: adding them changed its times.
    fn leave(&mut self, id: NodeId) -> Result<(), Stop> {
        let node = self.tree.node(id);
        let ino = self.here();
        self.settle(ino, node.meta).map_err(|error| self.failed(b"", error))?;
        self.xattrs(b"", ino, node)?;
        // The attributes changed the change time once more.
        self.settle(ino, node.meta).map_err(|error| self.failed(b"", error))?;
        self.kept(b"", ino, node)?;
        self.trail.pop();
        Ok(())
    }

    fn settle(&mut self, ino: Ino, meta: Meta) -> Result<(), ext4::Error> {
        let time = Some(meta.mtime);
        self.fs.set_attr(
            ino,
            &SetAttr {
                mode: Some(meta.mode),
                uid: Some(meta.uid),
                gid: Some(meta.gid),
                atime: time,
                mtime: time,
                ctime: time,
                crtime: time,
                ..SetAttr::default()
            },
        )
    }

    fn name(&mut self, name: &'a [u8], id: NodeId) -> Result<(), Stop> {
        let tree = self.tree;
        let node = tree.node(id);
        let (parent, now) = (self.here(), node.meta.mtime);
        self.progress.files += 1;
        if self.progress.files.is_multiple_of(TELL_FILES) {
            self.progress.tell();
        }
        if let Some(ino) = self.inodes.get(id.index()).copied().filter(|ino| *ino != 0) {
            self.fs.link(parent, name, ino, now).map_err(|error| self.failed(name, error))?;
            // A new link changed the change time.
            return self.kept(name, ino, node);
        }
        if parent == ROOT_INO && name == LOST_AND_FOUND && self.lost_and_found(id, name)? {
            return Ok(());
        }
        let new = |file_type, rdev| NewInode {
            file_type,
            mode: node.meta.mode,
            uid: node.meta.uid,
            gid: node.meta.gid,
            rdev,
            now,
        };
        let made = match &node.body {
            Body::Directory(_) => self.fs.create(parent, name, &new(FileType::Directory, (0, 0))),
            Body::Regular(_) => self.fs.create(parent, name, &new(FileType::Regular, (0, 0))),
            Body::Symlink(target) => self.fs.symlink(parent, name, target, &new(FileType::Symlink, (0, 0))),
            Body::CharDevice(major, minor) => {
                self.fs.create(parent, name, &new(FileType::CharDevice, (*major, *minor)))
            }
            Body::BlockDevice(major, minor) => {
                self.fs.create(parent, name, &new(FileType::BlockDevice, (*major, *minor)))
            }
            Body::Fifo => self.fs.create(parent, name, &new(FileType::Fifo, (0, 0))),
            Body::Socket => self.fs.create(parent, name, &new(FileType::Socket, (0, 0))),
        };
        let ino = made.map_err(|error| self.failed(name, error))?;
        match &node.body {
            Body::Directory(_) => return self.enter(id, name, ino),
            Body::Regular(content) => self.contents(name, id, ino, content, now)?,
            _ => {}
        }
        if let Some(slot) = self.inodes.get_mut(id.index()) {
            *slot = ino;
        }
        self.xattrs(name, ino, node)?;
        self.kept(name, ino, node)
    }

    /// Times and flags that the input has beyond the usual; last, as an immutable file takes no change.
    fn kept(&mut self, name: &[u8], ino: Ino, node: &Node) -> Result<(), Stop> {
        let Some(kept) = node.kept.as_deref() else {
            return Ok(());
        };
        let set = SetAttr {
            atime: Some(kept.atime),
            mtime: Some(node.meta.mtime),
            ctime: Some(kept.ctime),
            crtime: Some(kept.crtime),
            flags: Some(kept.flags),
            ..SetAttr::default()
        };
        self.fs.set_attr(ino, &set).map_err(|error| self.failed(name, error))
    }

    /// Takes the lost+found that mkfs made for the tree's one; says whether it did.
    fn lost_and_found(&mut self, id: NodeId, name: &'a [u8]) -> Result<bool, Stop> {
        let ino = match self.fs.lookup(ROOT_INO, name) {
            Ok(ino) => ino,
            Err(ext4::Error::NotFound) => return Ok(false),
            Err(error) => return Err(self.failed(name, error)),
        };
        if matches!(self.tree.node(id).body, Body::Directory(_)) {
            self.enter(id, name, ino)?;
            return Ok(true);
        }
        let now = self.tree.node(id).meta.mtime;
        self.fs
            .rmdir(ROOT_INO, name, now)
            .and_then(|gone| self.fs.release(gone.ino))
            .map_err(|error| self.failed(name, error))?;
        Ok(false)
    }

    fn contents(&mut self, name: &[u8], id: NodeId, ino: Ino, content: &Content, now: Timestamp) -> Result<(), Stop> {
        let total: u64 = content.segments().map(|segment| segment.len).sum();
        let mut done = 0;
        let mut end = 0;
        while done < total {
            let fs = &mut *self.fs;
            let mut failure = None;
            let count = self.feed.piece(id, |piece, data| {
                end = piece.offset + data.len() as u64;
                failure = write_all(fs, ino, piece.offset, data, now).err();
                Ok(())
            })?;
            if let Some(error) = failure {
                return Err(self.failed(name, error));
            }
            done += count;
            let before = self.progress.bytes / TELL_BYTES;
            self.progress.bytes += count;
            if self.progress.bytes / TELL_BYTES != before {
                self.progress.tell();
            }
        }
        if end < content.len {
            // A hole at the end.
            let longer = SetAttr { size: Some(content.len), ..SetAttr::default() };
            self.fs.set_attr(ino, &longer).map_err(|error| self.failed(name, error))?;
        }
        Ok(())
    }

    fn xattrs(&mut self, name: &[u8], ino: Ino, node: &Node) -> Result<(), Stop> {
        let all: usize = node.xattrs.iter().map(|(key, value)| 16 + key.len() + value.len()).sum();
        let block_size = self.fs.superblock().block_size;
        for (key, value) in &node.xattrs {
            let Err(error) = self.fs.xattr_set(ino, key, value, XattrMode::Any, node.meta.mtime) else {
                continue;
            };
            // They share one block; a larger file system would not help.
            let too_large = error == ext4::Error::NoSpace && all + 64 > block_size as usize;
            return Err(match self.failed(name, error) {
                Stop::Full(path) if too_large => Stop::Failed(
                    Error::new(format_args!(
                        "cannot write {path} into the image: its extended attributes ({all} bytes, `{}` among them) \
                         do not fit a block of {block_size} bytes",
                        shown(key)
                    ))
                    .hint("take a larger --block-size, or remove attributes"),
                ),
                Stop::Failed(error) => Stop::Failed(error.at(format_args!("extended attribute `{}`", shown(key)))),
                full @ Stop::Full(_) => full,
            });
        }
        Ok(())
    }
}

pub(crate) fn write_all<D: BlockDevice>(
    fs: &mut Fs<D>,
    ino: Ino,
    mut offset: u64,
    mut data: &[u8],
    now: Timestamp,
) -> Result<(), ext4::Error> {
    while !data.is_empty() {
        let count = fs.write(ino, offset, data, now)?;
        if count == 0 {
            return Err(ext4::Error::NoSpace);
        }
        data = data.get(count..).unwrap_or_default();
        offset += count as u64;
    }
    Ok(())
}

/// How much a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Names, hard links counted each.
    pub(crate) names: u64,
    /// Bytes of contents, without holes.
    pub(crate) bytes: u64,
    /// Inodes.
    pub(crate) inodes: u64,
    /// Blocks outside the file system's own, at the given block size; an upper bound but for rare splits.
    pub(crate) blocks: u64,
}

impl Need {
    /// Counts what `tree` takes with blocks of `block_size` bytes and inodes of `inode_size`.
    pub(crate) fn of(tree: &Tree, block_size: u64, inode_size: u64, extents: bool) -> Self {
        let mut need = Self::default();
        let mut seen = vec![false; tree.len()];
        for step in tree.walk() {
            let id = match step {
                Step::Root => NodeId::ROOT,
                Step::Name { id, .. } => {
                    need.names += 1;
                    id
                }
                Step::Leave(_) => continue,
            };
            if seen.get_mut(id.index()).is_none_or(|seen| std::mem::replace(seen, true)) {
                continue;
            }
            let node = tree.node(id);
            need.inodes += 1;
            need.blocks += match &node.body {
                Body::Directory(names) => directory_blocks(names.keys().map(|name| name.len() as u64), block_size),
                Body::Regular(content) => {
                    need.bytes += content.segments().map(|segment| segment.len).sum::<u64>();
                    file_blocks(content, block_size, extents)
                }
                // Up to 59 bytes lie in the inode.
                Body::Symlink(target) => u64::from(target.len() >= 60),
                Body::CharDevice(..) | Body::BlockDevice(..) | Body::Fifo | Body::Socket => 0,
            };
            need.blocks += xattr_blocks(node, inode_size);
        }
        need
    }
}

/// Blocks of a directory: entries are 8 bytes and the name, in steps of 4. An indexed one has its blocks split in
/// halves as it grows, so they are from half to wholly full.
fn directory_blocks(names: impl Iterator<Item = u64>, block_size: u64) -> u64 {
    let bytes: u64 = names.map(|len| (8 + len).next_multiple_of(4)).sum::<u64>() + 24;
    let room = block_size - 12;
    if bytes <= room {
        return 1;
    }
    let leaves = (bytes * 8).div_ceil(room * 5);
    let index_entries = block_size / 8 - 4;
    leaves + 1 + if leaves > index_entries { leaves.div_ceil(index_entries / 2) } else { 0 }
}

fn file_blocks(content: &Content, block_size: u64, extents: bool) -> u64 {
    let (mut blocks, mut runs, mut last) = (0u64, 0u64, None);
    for segment in content.segments() {
        let (mut first, end) = (segment.offset / block_size, (segment.offset + segment.len).div_ceil(block_size));
        if last == Some(first) {
            // Shared with the segment before.
            first += 1;
        }
        if first < end {
            blocks += end - first;
            // An extent covers 32,768 blocks at most; block groups break longer ones, too.
            runs += 1 + (end - first) / 16_384;
            last = Some(end - 1);
        }
    }
    let map = if extents {
        let per_leaf = block_size / 12 - 2;
        if runs <= 4 { 0 } else { runs.div_ceil(per_leaf / 2) + 1 }
    } else {
        let per_block = block_size / 4;
        // Each run may touch an indirect block of its own at both ends, and one of each higher level.
        if blocks <= 12 && runs <= 1 { 0 } else { blocks.div_ceil(per_block) + 2 * runs + 2 }
    };
    blocks + map
}

fn xattr_blocks(node: &Node, inode_size: u64) -> u64 {
    if node.xattrs.is_empty() {
        return 0;
    }
    let bytes: u64 = node
        .xattrs
        .iter()
        .map(|(name, value)| 16 + (name.len() as u64).next_multiple_of(4) + (value.len() as u64).next_multiple_of(4))
        .sum();
    // What the inode holds beyond its fixed part.
    u64::from(bytes + 8 > inode_size.saturating_sub(128 + 32))
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names, {} of contents", self.names, crate::HumanSize(self.bytes))
    }
}
