//! Writing a tree into a fresh file system.

use std::fmt;
use std::sync::Arc;

use ext4::{
    BlockDevice, Bulk, BulkEntry, BulkExtent, BulkInode, FileType, Fs, Ino, LINK_MAX, NewInode, ROOT_INO, SetAttr,
    Timestamp, XattrMode,
};

use crate::contents::Input;
use crate::copy::{Copiers, with_copiers};
use crate::create::Progress;
use crate::text::shown;
use crate::tree::{Body, Content, Meta, Node, NodeId, Step, Tree};
use crate::{Error, FileDevice};

/// The directory that mkfs makes for e2fsck's finds.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Progress is told after so many files.
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

/// Writes all of `tree`, whose contents come from `inputs`, into `fs`, which holds nothing but a root directory and
/// perhaps lost+found. Every inode gets its own modification time as all its times, or what its input says: nothing
/// depends on the clock. Inodes are numbered and blocks are laid out in the order of the tree's walk, by this thread;
/// others carry the contents.
///
/// # Errors
/// The file system is full or fails, or contents cannot be read.
pub(crate) fn populate(
    fs: &mut Fs<FileDevice>,
    tree: &Tree,
    inputs: &[Input],
    progress: &mut Progress<'_>,
) -> Result<(), Stop> {
    progress.tell();
    let mut plan = Plan { inodes: vec![0; tree.len()], links: vec![0; tree.len()], lost_found: None, later: false };
    plan.lost_and_found(fs, tree)?;
    let image = fs.device().file().try_clone();
    let image = image.map_err(|error| Error::new(format_args!("cannot open the image once more: {error}")))?;
    let block_size = u64::from(fs.superblock().block_size);
    let mut bulk = fs.bulk(plan.lost_found.is_some()).map_err(Error::new)?;
    plan.number(&mut bulk, tree)?;
    with_copiers(inputs, &image, block_size, |copiers| {
        let mut writer = Writer { bulk, tree, plan: &plan, copiers, progress, trail: Vec::new(), placed: Vec::new() };
        writer.write()?;
        let Writer { bulk, copiers, progress, .. } = writer;
        bulk.finish().map_err(Error::new)?;
        let finished = copiers.finish(|bytes| {
            progress.bytes = bytes;
            progress.tell();
        });
        progress.bytes = copiers.done();
        Ok::<_, Stop>(finished?)
    })?;
    if plan.later {
        Finisher { fs, tree, plan: &plan, trail: Vec::new() }.run()?;
    }
    progress.tell();
    Ok(())
}

/// Numbers for all nodes.
struct Plan {
    /// The inode of each node, 0 if it has none.
    inodes: Vec<Ino>,
    /// How many names lead to each.
    links: Vec<u16>,
    /// mkfs's lost+found, where it stays.
    lost_found: Option<Ino>,
    /// Some nodes have what is written when all others are there.
    later: bool,
}

impl Plan {
    fn inode(&self, id: NodeId) -> Ino {
        self.inodes.get(id.index()).copied().unwrap_or(0)
    }

    /// Keeps the lost+found of mkfs if the tree has none, or an empty directory of that name.
    fn lost_and_found(&mut self, fs: &mut Fs<FileDevice>, tree: &Tree) -> Result<(), Stop> {
        let ino = match fs.lookup(ROOT_INO, LOST_AND_FOUND) {
            Ok(ino) => ino,
            Err(ext4::Error::NotFound) => return Ok(()),
            Err(error) => return Err(Error::new(error).into()),
        };
        let Body::Directory(names) = &tree.node(NodeId::ROOT).body else { return Ok(()) };
        match names.get(LOST_AND_FOUND).map(|id| (*id, &tree.node(*id).body)) {
            None => self.lost_found = Some(ino),
            Some((id, Body::Directory(names))) if names.is_empty() => {
                self.lost_found = Some(ino);
                // Its attributes are the tree's.
                self.later = true;
                if let Some(slot) = self.inodes.get_mut(id.index()) {
                    *slot = ino;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn number(&mut self, bulk: &mut Bulk<'_, FileDevice>, tree: &Tree) -> Result<(), Stop> {
        let mut trail = Trail::default();
        for step in tree.walk() {
            let id = match step {
                Step::Root => NodeId::ROOT,
                Step::Name { id, .. } => id,
                Step::Leave => {
                    trail.pop();
                    continue;
                }
            };
            let node = tree.node(id);
            let directory = matches!(node.body, Body::Directory(_));
            let name = if let Step::Name { name, .. } = step { name } else { b"" };
            let (Some(slot), Some(links)) = (self.inodes.get_mut(id.index()), self.links.get_mut(id.index())) else {
                continue;
            };
            if id == NodeId::ROOT {
                *slot = ROOT_INO;
            } else if *slot == 0 {
                *slot = bulk.reserve(directory).map_err(|error| failed(&trail, name, error))?;
            }
            if !directory {
                *links = links
                    .checked_add(1)
                    .filter(|links| *links <= LINK_MAX)
                    .ok_or_else(|| failed(&trail, name, ext4::Error::TooManyLinks))?;
            }
            self.later |= !node.xattrs.is_empty();
            if directory {
                trail.push(name);
            }
        }
        Ok(())
    }
}

/// The names of the directories from the root to here, the root's own included.
type Trail<'t> = Vec<&'t [u8]>;

/// Adds the path to an error of the file system.
fn failed(trail: &Trail<'_>, name: &[u8], error: ext4::Error) -> Stop {
    let mut path = Vec::new();
    for part in trail.iter().copied().chain([name]).filter(|part| !part.is_empty()) {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    let path = shown(&path).to_string();
    match error {
        ext4::Error::NoSpace => Stop::Full(path),
        other => Stop::Failed(Error::new(other).at(format_args!("cannot write {path} into the image"))),
    }
}

/// A directory on the way.
struct Level<'t> {
    name: &'t [u8],
    ino: Ino,
    /// Its path, for who opens its files.
    path: Arc<[u8]>,
}

struct Writer<'a, 'p, 's, 't> {
    bulk: Bulk<'a, FileDevice>,
    tree: &'t Tree,
    plan: &'a Plan,
    copiers: &'a mut Copiers<'s, 't>,
    progress: &'a mut Progress<'p>,
    trail: Vec<Level<'t>>,
    placed: Vec<BulkExtent>,
}

impl<'t> Writer<'_, '_, '_, 't> {
    fn write(&mut self) -> Result<(), Stop> {
        let mut written = vec![false; self.tree.len()];
        let mut entries = Vec::new();
        for step in self.tree.walk() {
            match step {
                Step::Root => self.directory(NodeId::ROOT, b"", &mut entries)?,
                Step::Leave => {
                    self.trail.pop();
                }
                Step::Name { name, id } => {
                    self.progress.files += 1;
                    if self.progress.files.is_multiple_of(TELL_FILES) {
                        self.progress.bytes = self.copiers.done();
                        self.progress.tell();
                    }
                    let directory = matches!(self.tree.node(id).body, Body::Directory(_));
                    let again = written.get_mut(id.index()).is_some_and(|written| std::mem::replace(written, true));
                    if directory {
                        self.directory(id, name, &mut entries)?;
                    } else if !again {
                        self.node(id, name)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn failed(&self, name: &[u8], error: ext4::Error) -> Stop {
        failed(&self.trail.iter().map(|level| level.name).collect(), name, error)
    }

    /// Attributes of a node; without flags, which come last, where there is more to write.
    fn attributes(&self, id: NodeId, node: &Node) -> BulkInode {
        let Meta { mode, uid, gid, mtime } = node.meta;
        let rdev = match node.body {
            Body::CharDevice(major, minor) | Body::BlockDevice(major, minor) => (major, minor),
            _ => (0, 0),
        };
        let new = NewInode { file_type: file_type(&node.body), mode, uid, gid, rdev, now: mtime };
        let links = self.plan.links.get(id.index()).copied().unwrap_or(1);
        let Some(kept) = node.kept.as_deref() else {
            return BulkInode { new, links, atime: mtime, ctime: mtime, crtime: mtime, flags: 0 };
        };
        let flags = if node.xattrs.is_empty() { kept.flags } else { 0 };
        BulkInode { new, links, atime: kept.atime, ctime: kept.ctime, crtime: kept.crtime, flags }
    }

    fn directory(&mut self, id: NodeId, name: &'t [u8], entries: &mut Vec<BulkEntry<'t>>) -> Result<(), Stop> {
        let tree = self.tree;
        let node = tree.node(id);
        let ino = self.plan.inode(id);
        entries.clear();
        if let Body::Directory(names) = &node.body {
            entries.extend(names.iter().map(|(name, id)| BulkEntry {
                name,
                ino: self.plan.inode(*id),
                file_type: file_type(&tree.node(*id).body),
            }));
            if let Some(ino) =
                self.plan.lost_found.filter(|_| id == NodeId::ROOT && !names.contains_key(LOST_AND_FOUND))
            {
                entries.push(BulkEntry { name: LOST_AND_FOUND, ino, file_type: FileType::Directory });
            }
        }
        let parent = self.trail.last().map_or(ROOT_INO, |level| level.ino);
        if self.plan.lost_found != Some(ino) {
            let attr = self.attributes(id, node);
            let written = self.bulk.directory(ino, &attr, parent, entries);
            written.map_err(|error| self.failed(name, error))?;
        }
        let above = self.trail.last().map_or(&[][..], |level| &level.path);
        let path = if name.is_empty() { Arc::from([]) } else { [above, b"/", name].concat().into() };
        self.trail.push(Level { name, ino, path });
        Ok(())
    }

    fn node(&mut self, id: NodeId, name: &'t [u8]) -> Result<(), Stop> {
        let node = self.tree.node(id);
        let (ino, attr) = (self.plan.inode(id), self.attributes(id, node));
        let written = match &node.body {
            Body::Directory(_) => return Ok(()),
            Body::Regular(content) => {
                self.placed.clear();
                let data = content.segments().map(|segment| (segment.offset, segment.len));
                let written = self.bulk.file(ino, &attr, content.len, data, &mut self.placed);
                written.map_err(|error| self.failed(name, error))?;
                return self.contents(name, content);
            }
            Body::Symlink(target) => self.bulk.symlink(ino, &attr, target),
            Body::CharDevice(..) | Body::BlockDevice(..) | Body::Fifo | Body::Socket => self.bulk.special(ino, &attr),
        };
        written.map_err(|error| self.failed(name, error))
    }

    /// Has a file's contents copied to the blocks that it got.
    fn contents(&mut self, name: &'t [u8], content: &'t Content) -> Result<(), Stop> {
        let Some(level) = self.trail.last() else { return Ok(()) };
        let mut places = self.placed.iter().copied().peekable();
        for segment in content.segments() {
            let (mut offset, end) = (segment.offset, segment.offset + segment.len);
            while offset < end {
                let Some(place) = places.peek().copied() else { break };
                if place.offset + place.len <= offset {
                    places.next();
                    continue;
                }
                let stop = end.min(place.offset + place.len);
                let (source, to) = (segment.source + (offset - segment.offset), place.device + (offset - place.offset));
                self.bulk.device().written_by_others(to, stop - offset);
                self.copiers.copy(&level.path, name, &content.origin, (source, to, stop - offset))?;
                offset = stop;
            }
        }
        Ok(())
    }
}

fn file_type(body: &Body) -> FileType {
    match body {
        Body::Directory(_) => FileType::Directory,
        Body::Regular(_) => FileType::Regular,
        Body::Symlink(_) => FileType::Symlink,
        Body::CharDevice(..) => FileType::CharDevice,
        Body::BlockDevice(..) => FileType::BlockDevice,
        Body::Fifo => FileType::Fifo,
        Body::Socket => FileType::Socket,
    }
}

/// Writes what few trees have: extended attributes, and the attributes of a lost+found.
struct Finisher<'a, 't> {
    fs: &'a mut Fs<FileDevice>,
    tree: &'t Tree,
    plan: &'a Plan,
    trail: Trail<'t>,
}

impl Finisher<'_, '_> {
    fn run(&mut self) -> Result<(), Stop> {
        let mut done = vec![false; self.tree.len()];
        for step in self.tree.walk() {
            let (name, id) = match step {
                Step::Root => (&b""[..], NodeId::ROOT),
                Step::Name { name, id } => (name, id),
                Step::Leave => {
                    self.trail.pop();
                    continue;
                }
            };
            let node = self.tree.node(id);
            let again = done.get_mut(id.index()).is_some_and(|done| std::mem::replace(done, true));
            let ino = self.plan.inode(id);
            let lost_found = self.plan.lost_found == Some(ino);
            if !again && (!node.xattrs.is_empty() || lost_found) {
                self.xattrs(name, ino, node)?;
                self.settle(name, ino, node)?;
            }
            if matches!(node.body, Body::Directory(_)) {
                self.trail.push(name);
            }
        }
        Ok(())
    }

    /// Owner, mode, times and flags; last, as other changes change times, and an immutable file takes none.
    fn settle(&mut self, name: &[u8], ino: Ino, node: &Node) -> Result<(), Stop> {
        let Meta { mode, uid, gid, mtime } = node.meta;
        let kept = node.kept.as_deref();
        let set = SetAttr {
            mode: Some(mode),
            uid: Some(uid),
            gid: Some(gid),
            atime: Some(kept.map_or(mtime, |kept| kept.atime)),
            mtime: Some(mtime),
            ctime: Some(kept.map_or(mtime, |kept| kept.ctime)),
            crtime: Some(kept.map_or(mtime, |kept| kept.crtime)),
            flags: kept.map(|kept| kept.flags),
            ..SetAttr::default()
        };
        self.fs.set_attr(ino, &set).map_err(|error| failed(&self.trail, name, error))
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
            return Err(match failed(&self.trail, name, error) {
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
                Step::Leave => continue,
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

/// Blocks of a directory, at most: entries are 8 bytes and the name, in steps of 4. A block is filled until an entry
/// does not fit.
fn directory_blocks(names: impl Iterator<Item = u64>, block_size: u64) -> u64 {
    let bytes: u64 = names.map(|len| (8 + len).next_multiple_of(4)).sum::<u64>() + 24;
    let room = block_size - 12;
    if bytes <= room {
        return 1;
    }
    let leaves = bytes.div_ceil(room - 260);
    let index_entries = block_size / 8 - 5;
    leaves + 1 + if leaves > index_entries { leaves.div_ceil(index_entries) + 1 } else { 0 }
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
