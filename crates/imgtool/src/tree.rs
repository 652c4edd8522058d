//! What an image is going to hold: a tree of names and inodes, in memory, with file contents still where they are.
//!
//! Every input (a host directory, archives in order) is read into one tree before the first block is written. So the
//! image's size and order of inodes depend on the input alone, a bad input is found before anything is written, and
//! paths of archives are only ever looked up here, never on the host.

use std::collections::BTreeMap;
use std::fmt;

use ext4::Timestamp;

use crate::Error;
use crate::text::shown;

/// Longest name of one path component in bytes: ext4's limit, and Linux's `NAME_MAX`.
const NAME_MAX: usize = 255;
/// Longest target of a symbolic link in bytes: Linux's `PATH_MAX` less the terminating zero.
const SYMLINK_MAX: usize = 4095;

/// Which node of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub(crate) const ROOT: Self = Self(0);

    /// For tables beside the tree.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Owner, mode and time of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The twelve permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
}

/// An extended attribute's full name (`user.comment`) and value.
pub(crate) type Xattr = (Box<[u8]>, Box<[u8]>);

/// One inode of the image to be.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    /// Sorted by name.
    pub(crate) xattrs: Vec<Xattr>,
    pub(crate) body: Body,
    /// What only another image has to say; `None` sets all times to the modification time.
    pub(crate) kept: Option<Box<Kept>>,
}

/// Further attributes of a file that comes from an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) atime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) crtime: Timestamp,
    /// Inode flags, those about storage included, which are left out.
    pub(crate) flags: u32,
}

/// What kind of file a node is.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Names in byte order.
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    Regular(Content),
    Symlink(Box<[u8]>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Socket,
}

impl Body {
    /// As a phrase with its article.
    fn name(&self) -> &'static str {
        match self {
            Self::Directory(_) => "a directory",
            Self::Regular(_) => "a regular file",
            Self::Symlink(_) => "a symbolic link",
            Self::CharDevice(..) => "a character device",
            Self::BlockDevice(..) => "a block device",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
        }
    }
}

/// Where a regular file's bytes are.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// The file's length, holes included.
    pub(crate) len: u64,
    pub(crate) origin: Origin,
    /// The parts that are data, in order, without overlap; the rest are holes.
    pub(crate) data: Data,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// All of it, from this offset of the origin.
    Whole(u64),
    Segments(Box<[Segment]>),
}

/// A run of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset in the file.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Offset in the origin.
    pub(crate) source: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A file below a host directory, by the directory's position in the list of inputs: at each of its own paths in
    /// the tree.
    Place(u32),
    /// Likewise, at this path from the directory on.
    Host(u32, Box<[u8]>),
    /// An archive, by its position in the list of inputs.
    Archive(u32),
    /// An image, likewise, and the inode in it.
    Image(u32, u32),
}

impl Content {
    /// The data runs in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        let (whole, rest) = match &self.data {
            Data::Whole(source) => {
                (Some(Segment { offset: 0, len: self.len, source: *source }).filter(|one| one.len > 0), &[][..])
            }
            Data::Segments(list) => (None, &list[..]),
        };
        whole.into_iter().chain(rest.iter().copied())
    }
}

/// The tree. Node 0 is the root directory; a node that lost its last name stays in the list and is not reached.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// Whether an input said what the root directory is like.
    root_known: bool,
}

/// A path inside the image, checked to stay inside: no empty, `.` or `..` component is left in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SafePath<'a>(Vec<&'a [u8]>);

impl<'a> SafePath<'a> {
    /// Splits a path from an input.
    ///
    /// # Errors
    /// It is absolute, climbs with `..`, or holds a zero byte or a name longer than 255 bytes.
    pub(crate) fn new(path: &'a [u8]) -> Result<Self, Error> {
        if path.first() == Some(&b'/') {
            return Err(Error::new(format_args!("absolute path `{}`, expected one relative to the root", shown(path)))
                .hint("make the archive with `tar -C ROOT -c .`"));
        }
        let mut parts = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    return Err(Error::new(format_args!(
                        "path `{}` climbs with `..`, expected one that stays below the root",
                        shown(path)
                    )));
                }
                _ if part.contains(&0) => {
                    return Err(Error::new(format_args!("path `{}` holds a zero byte", shown(path))));
                }
                _ if part.len() > NAME_MAX => {
                    return Err(Error::new(format_args!(
                        "a name of {} bytes in path `{}`, expected at most {NAME_MAX}",
                        part.len(),
                        shown(path)
                    )));
                }
                _ => parts.push(part),
            }
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for SafePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", shown(&self.0.join(&b'/')))
    }
}

impl Tree {
    /// A tree of nothing but an empty root directory, which is root's with mode 0755.
    pub(crate) fn new() -> Self {
        let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default() };
        let body = Body::Directory(BTreeMap::new());
        Self { nodes: vec![Node { meta, xattrs: Vec::new(), body, kept: None }], root_known: false }
    }

    /// Replaces the root directory's own attributes.
    pub(crate) fn set_root(&mut self, meta: Meta, xattrs: Vec<Xattr>) {
        let root = self.node_mut(NodeId::ROOT);
        root.meta = meta;
        root.xattrs = xattrs;
        self.root_known = true;
    }

    /// The newest time of any file. A root directory that no input described gets it too.
    pub(crate) fn settle_times(&mut self) -> Timestamp {
        let mut newest: Option<Timestamp> = None;
        let start = usize::from(!self.root_known);
        for node in self.nodes.iter().skip(start) {
            newest = newest.max(Some(node.meta.mtime));
        }
        let newest = newest.unwrap_or_default();
        if !self.root_known {
            self.node_mut(NodeId::ROOT).meta.mtime = newest;
        }
        newest
    }

    /// How many nodes there are, replaced ones included: the bound of every [`NodeId::index`].
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        // Ids are only made by `add`, and nodes are never removed.
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// All nodes, also those that no name reaches any more.
    pub(crate) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut()
    }

    fn add(&mut self, node: Node) -> Result<NodeId, Error> {
        let id = u32::try_from(self.nodes.len())
            .map_err(|_| Error::new("more than 4,294,967,295 files, which is more than an ext file system can hold"))?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(directory).body {
            Body::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }

    /// Gives `directory` the name, replacing what had it.
    fn set_child(&mut self, directory: NodeId, name: &[u8], id: NodeId) {
        if let Body::Directory(names) = &mut self.node_mut(directory).body {
            names.insert(name.into(), id);
        }
    }

    fn append(&mut self, directory: NodeId, name: &[u8], node: Node) -> Result<NodeId, Error> {
        let id = self.add(node)?;
        self.set_child(directory, name, id);
        Ok(id)
    }

    /// Puts a node into a directory. A later node replaces an earlier one of the same name, as when archives are
    /// unpacked over each other; a directory keeps what is in it.
    ///
    /// # Errors
    /// A directory and something else contend for the name, or there are too many files.
    pub(crate) fn place(&mut self, directory: NodeId, name: &[u8], node: Node) -> Result<NodeId, Error> {
        // Sorted input comes behind all that is there: it need not be looked for.
        let behind = matches!(&self.node(directory).body, Body::Directory(names)
            if names.last_key_value().is_none_or(|(last, _)| **last < *name));
        let Some(id) = (if behind { None } else { self.child(directory, name) }) else {
            return self.append(directory, name, node);
        };
        let old = self.node_mut(id);
        match (&old.body, &node.body) {
            (Body::Directory(_), Body::Directory(_)) => {
                old.meta = node.meta;
                old.xattrs = node.xattrs;
                Ok(id)
            }
            (Body::Directory(_), new) | (_, new @ Body::Directory(_)) => {
                Err(Error::new(format_args!("it is {}, but an earlier entry made it {}", new.name(), old.body.name())))
            }
            _ => self.append(directory, name, node),
        }
    }

    /// Gives a node a second name.
    ///
    /// # Errors
    /// The name is a directory's.
    pub(crate) fn place_link(&mut self, directory: NodeId, name: &[u8], id: NodeId) -> Result<(), Error> {
        if let Some(old) = self.child(directory, name)
            && matches!(self.node(old).body, Body::Directory(_))
        {
            return Err(Error::new("it is a hard link, but an earlier entry made it a directory"));
        }
        self.set_child(directory, name, id);
        Ok(())
    }

    /// The directory that is to hold the last component of `path`, made where missing, and that component; `None`
    /// when the path is the root itself. Symbolic links are not followed: with one as a parent the path is refused.
    fn parent<'a>(&mut self, path: &SafePath<'a>, mtime: Timestamp) -> Result<Option<(NodeId, &'a [u8])>, Error> {
        let Some((last, parents)) = path.0.split_last() else {
            return Ok(None);
        };
        let mut directory = NodeId::ROOT;
        for (depth, name) in parents.iter().enumerate() {
            directory = match self.child(directory, name) {
                Some(id) => match &self.node(id).body {
                    Body::Directory(_) => id,
                    other => {
                        return Err(Error::new(format_args!(
                            "{path} lies below `{}`, which is {}, expected a directory",
                            shown(&path.0[..=depth].join(&b'/')),
                            other.name()
                        )));
                    }
                },
                None => {
                    let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime };
                    let body = Body::Directory(BTreeMap::new());
                    self.append(directory, name, Node { meta, xattrs: Vec::new(), body, kept: None })?
                }
            };
        }
        Ok(Some((directory, last)))
    }

    /// Adds a node at `path`, as [`Tree::place`] does.
    ///
    /// # Errors
    /// A parent is no directory, or a directory and something else contend for the path.
    pub(crate) fn insert(&mut self, path: &SafePath<'_>, node: Node) -> Result<(), Error> {
        match self.parent(path, node.meta.mtime)? {
            Some((directory, name)) => {
                self.place(directory, name, node).map_err(|error| error.at(path))?;
            }
            None if matches!(node.body, Body::Directory(_)) => self.set_root(node.meta, node.xattrs),
            None => return Err(Error::new(format_args!("the root itself is {}", node.body.name()))),
        }
        Ok(())
    }

    /// Adds a hard link at `path` to what `target` names.
    ///
    /// # Errors
    /// The target is missing or a directory, or `path` cannot be made.
    pub(crate) fn link(&mut self, path: &SafePath<'_>, target: &SafePath<'_>) -> Result<(), Error> {
        let mut id = NodeId::ROOT;
        for part in &target.0 {
            id = self.child(id, part).ok_or_else(|| {
                Error::new(format_args!("{path} is a hard link to {target}, which no earlier entry made"))
            })?;
        }
        if matches!(self.node(id).body, Body::Directory(_)) {
            return Err(Error::new(format_args!("{path} is a hard link to {target}, which is a directory")));
        }
        let node = self.node_mut(id);
        let mtime = node.meta.mtime;
        // The host's directory does not have the new name.
        if let Body::Regular(Content { origin: origin @ Origin::Place(_), .. }) = &mut node.body
            && let Origin::Place(number) = *origin
        {
            *origin = Origin::Host(number, target.0.join(&b'/').into());
        }
        match self.parent(path, mtime)? {
            Some((directory, last)) => self.place_link(directory, last, id).map_err(|error| error.at(path)),
            None => Err(Error::new("the root itself is given as a hard link")),
        }
    }

    /// The node at a path; symbolic links are not followed.
    fn find(&self, path: &[&[u8]]) -> Option<NodeId> {
        path.iter().try_fold(NodeId::ROOT, |at, name| self.child(at, name))
    }

    fn names_mut(&mut self, directory: &[&[u8]]) -> Option<&mut BTreeMap<Box<[u8]>, NodeId>> {
        let id = self.find(directory)?;
        match &mut self.node_mut(id).body {
            Body::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// Removes a name and all below it, if it is there.
    pub(crate) fn remove(&mut self, path: &SafePath<'_>) {
        if let Some((name, directory)) = path.0.split_last()
            && let Some(names) = self.names_mut(directory)
        {
            names.remove(*name);
        }
    }

    /// Removes all names in a directory, if it is there.
    pub(crate) fn clear(&mut self, path: &SafePath<'_>) {
        if let Some(names) = self.names_mut(&path.0) {
            names.clear();
        }
    }

    /// Removes what has the path, if it is a directory and the new one is not, or the other way round.
    pub(crate) fn make_way(&mut self, path: &SafePath<'_>, is_directory: bool) {
        let there = self.find(&path.0).map(|id| matches!(self.node(id).body, Body::Directory(_)));
        if there.is_some_and(|there| there != is_directory) {
            self.remove(path);
        }
    }

    /// Walks all names, parents first, names of a directory in byte order.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk { tree: self, stack: Vec::new(), root: true }
    }
}

/// Checks a symbolic link's target.
///
/// # Errors
/// It is empty, too long or holds a zero byte.
pub(crate) fn symlink_target(target: &[u8]) -> Result<Box<[u8]>, Error> {
    match target {
        [] => Err(Error::new("a symbolic link with an empty target")),
        _ if target.len() > SYMLINK_MAX => Err(Error::new(format_args!(
            "a symbolic link whose target has {} bytes, expected at most {SYMLINK_MAX}",
            target.len()
        ))),
        _ if target.contains(&0) => Err(Error::new("a symbolic link whose target holds a zero byte")),
        _ => Ok(target.into()),
    }
}

/// One step of a [`Walk`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// The root directory.
    Root,
    /// A name in the directory entered last and not yet left.
    Name { name: &'a [u8], id: NodeId },
    /// All names of the directory entered last have been seen.
    Leave,
}

type Names<'a> = std::collections::btree_map::Iter<'a, Box<[u8]>, NodeId>;

/// The iterator behind [`Tree::walk`]; keeps its own stack, so depth costs no call frames.
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    stack: Vec<Names<'a>>,
    root: bool,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        if std::mem::take(&mut self.root) {
            self.enter(NodeId::ROOT);
            return Some(Step::Root);
        }
        let names = self.stack.last_mut()?;
        match names.next() {
            Some((name, id)) => {
                self.enter(*id);
                Some(Step::Name { name, id: *id })
            }
            None => {
                self.stack.pop();
                Some(Step::Leave)
            }
        }
    }
}

impl<'a> Walk<'a> {
    fn enter(&mut self, id: NodeId) {
        let tree: &'a Tree = self.tree;
        if let Body::Directory(names) = &tree.node(id).body {
            self.stack.push(names.iter());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Node {
        let content = Content { len: 0, origin: Origin::Archive(0), data: Data::Whole(0) };
        Node { meta: meta(0o644), xattrs: Vec::new(), body: Body::Regular(content), kept: None }
    }

    fn meta(mode: u16) -> Meta {
        Meta { mode, uid: 0, gid: 0, mtime: Timestamp::default() }
    }

    fn directory() -> Node {
        Node { meta: meta(0o700), xattrs: Vec::new(), body: Body::Directory(BTreeMap::new()), kept: None }
    }

    fn symlink(target: &[u8]) -> Node {
        Node { body: Body::Symlink(target.into()), ..file() }
    }

    fn path(text: &str) -> SafePath<'_> {
        SafePath::new(text.as_bytes()).unwrap()
    }

    fn names(tree: &Tree) -> Vec<String> {
        let mut found = Vec::new();
        let mut parents: Vec<String> = Vec::new();
        for step in tree.walk() {
            match step {
                Step::Root => parents.push(String::new()),
                Step::Name { name, id } => {
                    let full = format!("{}/{}", parents.last().unwrap(), String::from_utf8_lossy(name));
                    found.push(full.clone());
                    if matches!(tree.node(id).body, Body::Directory(_)) {
                        parents.push(full);
                    }
                }
                Step::Leave => {
                    parents.pop();
                }
            }
        }
        assert!(parents.is_empty());
        found
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        for (bad, reason) in [("/etc/passwd", "absolute"), ("..", "climbs"), ("a/../../b", "climbs"), ("a\0b", "zero")]
        {
            let error = SafePath::new(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let long = "x".repeat(256);
        assert!(SafePath::new(long.as_bytes()).is_err());
        assert_eq!(path("./a//b/./c/"), path("a/b/c"));
        assert_eq!(path("./"), SafePath(Vec::new()));
    }

    #[test]
    fn entries_are_ordered_and_parents_are_made() {
        let mut tree = Tree::new();
        for name in ["b/x/y", "a", "b/c"] {
            tree.insert(&path(name), file()).unwrap();
        }
        assert_eq!(names(&tree), ["/a", "/b", "/b/c", "/b/x", "/b/x/y"]);
        tree.insert(&path("b/x"), directory()).unwrap();
        tree.insert(&path("."), directory()).unwrap();
        assert_eq!(names(&tree), ["/a", "/b", "/b/c", "/b/x", "/b/x/y"]);
        assert_eq!(tree.node(NodeId::ROOT).meta.mode, 0o700);
    }

    #[test]
    fn a_symlink_is_no_parent() {
        let mut tree = Tree::new();
        tree.insert(&path("a"), symlink(b"/etc")).unwrap();
        let error = tree.insert(&path("a/passwd"), file()).unwrap_err().to_string();
        assert!(error.contains("`a`, which is a symbolic link"), "{error}");
        assert!(tree.link(&path("b"), &path("a/passwd")).is_err());
        tree.link(&path("b"), &path("a")).unwrap();
        assert!(tree.insert(&path("a"), directory()).is_err());
    }

    #[test]
    fn directories_and_files_do_not_replace_each_other() {
        let mut tree = Tree::new();
        tree.insert(&path("d/f"), file()).unwrap();
        assert!(tree.insert(&path("d"), file()).is_err());
        assert!(tree.insert(&path("d/f"), directory()).is_err());
        assert!(tree.link(&path("d"), &path("d/f")).is_err());
        assert!(tree.link(&path("e"), &path("d")).is_err());
        assert!(tree.link(&path("e"), &path("none")).is_err());
        assert!(tree.insert(&path("."), file()).is_err());
        assert_eq!(names(&tree), ["/d", "/d/f"]);
    }
}
