//! A file system in memory that random operations are checked against.

use super::{NOW, list};
use ext4::{BlockDevice, Error, FallocateMode, FileType, Fs, NewInode, RenameFlags, SetAttr, Timestamp, XattrMode};
use std::collections::BTreeMap;

/// An operation: what to do, and numbers that choose on what.
pub type Op = (u8, u16, u16, u32, u16);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Dir { entries: BTreeMap<Vec<u8>, u32>, parent: u32 },
    File(Vec<u8>),
    Link(Vec<u8>),
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub file_type: FileType,
    pub mode: u16,
    pub uid: u32,
    pub nlink: u32,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub body: Body,
}

impl Node {
    fn new(file_type: FileType, body: Body) -> Node {
        let nlink = if file_type == FileType::Directory { 2 } else { 1 };
        Node { file_type, mode: 0o644, uid: 1000, nlink, xattrs: BTreeMap::new(), body }
    }
}

/// Nodes beyond which a workload removes rather than creates.
const MANY: usize = 600;

/// What should be there, by inode number.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub nodes: BTreeMap<u32, Node>,
}

fn pick<T: Copy>(all: &[T], n: u16) -> T {
    all[usize::from(n) % all.len()]
}

fn name(n: u16) -> Vec<u8> {
    let n = n % 97;
    match n % 4 {
        0 => format!("n{n}").into_bytes(),
        1 => format!("name-{n:0>40}").into_bytes(),
        2 => vec![b'a' + (n % 26) as u8; 255],
        _ => format!("\u{e9}{n}").into_bytes(),
    }
}

pub fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}

/// Appends by putting the bytes on the device first, where the file has room behind it; sometimes thinks better of it.
fn grow<D: BlockDevice>(fs: &mut Fs<D>, ino: u32, data: &[u8], c: u32, now: Timestamp) -> Result<usize, Error> {
    let size = fs.attr(ino).unwrap().size;
    let Some(room) = fs.room_behind(ino, data.len() as u64 + u64::from(c % 70_000)).unwrap() else {
        return fs.write(ino, size, data, now);
    };
    assert_eq!((room.ino, room.file_offset), (ino, size));
    let n = data.len().min(room.len as usize);
    let (first, second) = data[..n].split_at(n / 3);
    fs.device().write_at(room.device_offset, first).unwrap();
    fs.device().write_at(room.device_offset + first.len() as u64, second).unwrap();
    if c.is_multiple_of(7) {
        return Ok(0);
    }
    fs.extend(&room, size + n as u64, now).unwrap();
    Ok(n)
}

impl Model {
    pub fn new() -> Model {
        let mut m = Model::default();
        let entries = BTreeMap::new();
        let root = Node { nlink: 2, ..Node::new(FileType::Directory, Body::Dir { entries, parent: 2 }) };
        m.nodes.insert(2, root);
        m
    }

    /// Takes in what mkfs made.
    pub fn adopt_lost_found<D: BlockDevice>(&mut self, fs: &mut Fs<D>) {
        let ino = fs.lookup(2, b"lost+found").unwrap();
        self.add(
            2,
            b"lost+found".to_vec(),
            ino,
            FileType::Directory,
            Body::Dir { entries: BTreeMap::new(), parent: 2 },
        );
    }

    /// The model of what a file system holds.
    pub fn of<D: BlockDevice>(fs: &mut Fs<D>) -> Model {
        let mut m = Model::new();
        m.adopt(fs, 2);
        m
    }

    fn adopt<D: BlockDevice>(&mut self, fs: &mut Fs<D>, dir: u32) {
        for (name, ino) in list(fs, dir, 50) {
            if self.nodes.contains_key(&ino) {
                self.entries(dir).insert(name, ino);
                continue;
            }
            let (t, body) = match fs.attr(ino).unwrap().file_type {
                FileType::Directory => (FileType::Directory, Body::Dir { entries: BTreeMap::new(), parent: dir }),
                FileType::Symlink => (FileType::Symlink, Body::Link(fs.read_link(ino).unwrap())),
                FileType::Regular => (FileType::Regular, Body::File(super::read_all(fs, ino))),
                t => (t, Body::Other),
            };
            self.add(dir, name, ino, t, body);
            if t == FileType::Directory {
                self.adopt(fs, ino);
            }
        }
        let inos: Vec<u32> = self.nodes.keys().copied().collect();
        for ino in inos {
            let at = fs.attr(ino).unwrap();
            let node = self.nodes.get_mut(&ino).unwrap();
            (node.mode, node.uid) = (at.mode, at.uid);
            if at.file_type != FileType::Directory {
                node.nlink = at.nlink;
            }
        }
    }

    /// A name that exists, chosen by two numbers.
    fn some_name(&self, a: u16, b: u16) -> Option<(u32, Vec<u8>)> {
        let full: Vec<u32> = self
            .nodes
            .iter()
            .filter(|(_, n)| matches!(&n.body, Body::Dir { entries, .. } if !entries.is_empty()))
            .map(|(i, _)| *i)
            .collect();
        let dir = *full.get(usize::from(a) % full.len().max(1))?;
        let Body::Dir { entries, .. } = &self.nodes[&dir].body else { return None };
        entries.keys().nth(usize::from(b) % entries.len()).map(|n| (dir, n.clone()))
    }

    fn dirs(&self) -> Vec<u32> {
        self.nodes.iter().filter(|(_, n)| n.file_type == FileType::Directory).map(|(i, _)| *i).collect()
    }

    fn files(&self) -> Vec<u32> {
        self.nodes.iter().filter(|(_, n)| n.file_type == FileType::Regular).map(|(i, _)| *i).collect()
    }

    fn entries(&mut self, dir: u32) -> &mut BTreeMap<Vec<u8>, u32> {
        match &mut self.nodes.get_mut(&dir).unwrap().body {
            Body::Dir { entries, .. } => entries,
            b => panic!("{dir} is {b:?}"),
        }
    }

    fn add(&mut self, dir: u32, name: Vec<u8>, ino: u32, t: FileType, body: Body) {
        assert!(self.entries(dir).insert(name, ino).is_none());
        if t == FileType::Directory {
            self.nodes.get_mut(&dir).unwrap().nlink += 1;
        }
        let mut node = Node::new(t, body);
        if t == FileType::Directory {
            node.mode = 0o755;
        } else if t == FileType::Symlink {
            node.mode = 0o777;
        }
        assert!(self.nodes.insert(ino, node).is_none(), "inode {ino} was handed out twice");
    }

    fn drop_name(&mut self, ino: u32) -> bool {
        let n = self.nodes.get_mut(&ino).unwrap();
        n.nlink = if n.file_type == FileType::Directory { 0 } else { n.nlink - 1 };
        if n.nlink == 0 {
            self.nodes.remove(&ino);
            return true;
        }
        false
    }

    fn is_below(&self, ino: u32, dir: u32) -> bool {
        let mut at = dir;
        loop {
            if at == ino {
                return true;
            }
            match &self.nodes[&at].body {
                Body::Dir { parent, .. } if at != 2 => at = *parent,
                _ => return false,
            }
        }
    }

    /// Runs one operation on both; panics where they differ. Returns the inode it changed, if any.
    pub fn apply<D: BlockDevice>(&mut self, fs: &mut Fs<D>, op: Op) {
        let (what, a, b, c, d) = op;
        let now = Timestamp { sec: NOW.sec + i64::from(c % 1000), nsec: c };
        let dirs = self.dirs();
        let mut dir = pick(&dirs, a);
        let mut n = name(b);
        let mut kind = what % 20;
        // Once there is much, what would create removes.
        if self.nodes.len() > MANY
            && matches!(kind, 0..=2 | 14)
            && let Some((d, name)) = self.some_name(a, b)
        {
            let ino = self.entries(d)[&name];
            let is_dir = self.nodes[&ino].file_type == FileType::Directory;
            kind = if is_dir { 11 } else { 9 };
            (dir, n) = (d, name);
        }
        match kind {
            0..=2 => {
                let file_type = match c % 8 {
                    0 | 1 => FileType::Directory,
                    2 => FileType::Fifo,
                    3 => FileType::CharDevice,
                    _ => FileType::Regular,
                };
                let mode = if file_type == FileType::Directory { 0o755 } else { 0o644 };
                let new = NewInode { file_type, mode, uid: 1000, gid: 100, rdev: (5, 70000), now };
                let r = fs.create(dir, &n, &new);
                if self.entries(dir).contains_key(&n) {
                    assert_eq!(r, Err(Error::Exists));
                } else if let Ok(ino) = r {
                    let body = match file_type {
                        FileType::Directory => Body::Dir { entries: BTreeMap::new(), parent: dir },
                        FileType::Regular => Body::File(Vec::new()),
                        _ => Body::Other,
                    };
                    self.add(dir, n, ino, file_type, body);
                } else {
                    assert_eq!(r, Err(Error::NoSpace));
                }
            }
            3..=7 => {
                let files = self.files();
                if files.is_empty() {
                    return;
                }
                let ino = pick(&files, a);
                let offset = match d % 4 {
                    0 => u64::from(c % 200_000),
                    1 => u64::from(c % 50) * 4096,
                    2 => u64::from(c) % 3_000_000,
                    _ => fs.attr(ino).unwrap().size,
                };
                let data = bytes(c, usize::from(b) % 30_000 + 1);
                let r = match d % 8 {
                    7 => grow(fs, ino, &data, c, now),
                    _ => fs.write(ino, offset, &data, now),
                };
                let Body::File(f) = &mut self.nodes.get_mut(&ino).unwrap().body else { panic!() };
                match r {
                    Ok(n) => {
                        let end = offset as usize + n;
                        if f.len() < end {
                            f.resize(end, 0);
                        }
                        f[offset as usize..end].copy_from_slice(&data[..n]);
                    }
                    Err(e) => assert_eq!(e, Error::NoSpace),
                }
            }
            8 => {
                let files = self.files();
                if files.is_empty() {
                    return;
                }
                let ino = pick(&files, a);
                let size = if d.is_multiple_of(16) { u64::from(c) % 4_000_000 } else { u64::from(b) };
                fs.set_attr(ino, &SetAttr { size: Some(size), mtime: Some(now), ..SetAttr::default() }).unwrap();
                let Body::File(f) = &mut self.nodes.get_mut(&ino).unwrap().body else { panic!() };
                f.resize(size as usize, 0);
            }
            9 | 10 => {
                let r = fs.unlink(dir, &n, now);
                match self.entries(dir).get(&n).copied() {
                    None => assert_eq!(r, Err(Error::NotFound)),
                    Some(i) if self.nodes[&i].file_type == FileType::Directory => {
                        assert_eq!(r, Err(Error::IsDirectory));
                    }
                    Some(i) => {
                        let u = r.unwrap();
                        self.entries(dir).remove(&n);
                        let gone = self.drop_name(i);
                        assert_eq!((u.ino, u.nlink == 0), (i, gone));
                        if gone && !c.is_multiple_of(3) {
                            fs.release(i).unwrap();
                        }
                    }
                }
            }
            11 => {
                let r = fs.rmdir(dir, &n, now);
                match self.entries(dir).get(&n).copied() {
                    None => assert_eq!(r, Err(Error::NotFound)),
                    Some(i) => match &self.nodes[&i].body {
                        Body::Dir { entries, .. } if entries.is_empty() => {
                            assert_eq!(r.unwrap().ino, i);
                            self.entries(dir).remove(&n);
                            self.drop_name(i);
                            self.nodes.get_mut(&dir).unwrap().nlink -= 1;
                            fs.release(i).unwrap();
                        }
                        Body::Dir { .. } => assert_eq!(r, Err(Error::NotEmpty)),
                        _ => assert_eq!(r, Err(Error::NotDirectory)),
                    },
                }
            }
            12 | 13 => self.rename(fs, (dir, n), (pick(&dirs, d), name((c >> 8) as u16)), c, now),
            14 => {
                let target = bytes(c, usize::from(d) % 300 + 1).iter().map(|x| b'a' + x % 26).collect::<Vec<u8>>();
                let r = fs.symlink(dir, &n, &target, &super::new(FileType::Symlink));
                if self.entries(dir).contains_key(&n) {
                    assert_eq!(r, Err(Error::Exists));
                } else if let Ok(ino) = r {
                    self.add(dir, n, ino, FileType::Symlink, Body::Link(target));
                }
            }
            15 => {
                let files = self.files();
                if files.is_empty() {
                    return;
                }
                let ino = pick(&files, d);
                let r = fs.link(dir, &n, ino, now);
                let known = self.entries(dir).contains_key(&n);
                assert_eq!(r == Err(Error::Exists), known);
                if r.is_ok() {
                    self.entries(dir).insert(n, ino);
                    self.nodes.get_mut(&ino).unwrap().nlink += 1;
                }
            }
            16 => {
                let all: Vec<u32> = self.nodes.keys().copied().collect();
                let ino = pick(&all, a);
                let key = format!("user.k{}", b % 7).into_bytes();
                let node = self.nodes.get_mut(&ino).unwrap();
                if d.is_multiple_of(3) {
                    let r = fs.xattr_remove(ino, &key, now);
                    assert_eq!(r.is_ok(), node.xattrs.remove(&key).is_some());
                } else {
                    let value = bytes(c, (c % 400) as usize);
                    match fs.xattr_set(ino, &key, &value, XattrMode::Any, now) {
                        Ok(()) => drop(node.xattrs.insert(key, value)),
                        Err(e) => assert_eq!(e, Error::NoSpace),
                    }
                }
            }
            17 => {
                let all: Vec<u32> = self.nodes.keys().copied().collect();
                let ino = pick(&all, a);
                let (mode, uid) = ((c & 0o7777) as u16, c);
                fs.set_attr(ino, &SetAttr { mode: Some(mode), uid: Some(uid), ctime: Some(now), ..SetAttr::default() })
                    .unwrap();
                let node = self.nodes.get_mut(&ino).unwrap();
                (node.mode, node.uid) = (mode, uid);
            }
            18 => {
                let files = self.files();
                if files.is_empty() {
                    return;
                }
                let ino = pick(&files, a);
                let (offset, len) = (u64::from(c % 100_000), u64::from(b) + 1);
                let mode = match d % 4 {
                    0 => FallocateMode::empty(),
                    1 => FallocateMode::KEEP_SIZE,
                    2 => FallocateMode::ZERO_RANGE,
                    _ => FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE,
                };
                let r = fs.fallocate(ino, mode, offset, len, now);
                let Body::File(f) = &mut self.nodes.get_mut(&ino).unwrap().body else { panic!() };
                match r {
                    Ok(()) => {
                        let (from, to) = (offset as usize, (offset + len) as usize);
                        if !mode.contains(FallocateMode::KEEP_SIZE) && f.len() < to {
                            f.resize(to, 0);
                        }
                        if mode.intersects(FallocateMode::ZERO_RANGE | FallocateMode::PUNCH_HOLE) {
                            let (from, to) = (from.min(f.len()), to.min(f.len()));
                            f[from..to].fill(0);
                        }
                    }
                    Err(Error::Unsupported { .. } | Error::NoSpace) => {}
                    Err(e) => panic!("{e}"),
                }
                // Running out of space half way may have zeroed; only the size is certain then.
                let size = fs.attr(ino).unwrap().size as usize;
                let mut now = vec![0; size];
                fs.read(ino, 0, &mut now).unwrap();
                if r.is_err() {
                    *f = now;
                }
            }
            _ => match c % 4 {
                0 => fs.sync().unwrap(),
                1 => {
                    let files = self.files();
                    if !files.is_empty() {
                        fs.fsync(pick(&files, a), c.is_multiple_of(8)).unwrap();
                    }
                }
                _ => {
                    let files = self.files();
                    if !files.is_empty() {
                        let ino = pick(&files, a);
                        match fs.allocate(ino, u64::from(c % 100_000), u64::from(b), now) {
                            Ok(_) | Err(Error::NoSpace) => {}
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            },
        }
    }

    fn rename<D: BlockDevice>(
        &mut self,
        fs: &mut Fs<D>,
        (od, on): (u32, Vec<u8>),
        (nd, nn): (u32, Vec<u8>),
        c: u32,
        now: Timestamp,
    ) {
        let flags = match c % 4 {
            0 => RenameFlags::NOREPLACE,
            1 => RenameFlags::EXCHANGE,
            _ => RenameFlags::empty(),
        };
        let r = fs.rename(od, &on, nd, &nn, flags, now);
        let (src, dst) = (self.entries(od).get(&on).copied(), self.entries(nd).get(&nn).copied());
        let Some(s) = src else {
            assert_eq!(r, Err(Error::NotFound));
            return;
        };
        let is_dir = |m: &Model, i: u32| m.nodes[&i].file_type == FileType::Directory;
        if flags == RenameFlags::EXCHANGE {
            let Some(t) = dst else {
                assert_eq!(r, Err(Error::NotFound));
                return;
            };
            if s == t {
                assert_eq!(r, Ok(None));
                return;
            }
            if od != nd && (is_dir(self, s) && self.is_below(s, nd) || is_dir(self, t) && self.is_below(t, od)) {
                assert!(matches!(r, Err(Error::Invalid(_))), "{r:?}");
                return;
            }
            assert_eq!(r, Ok(None));
            self.entries(od).insert(on, t);
            self.entries(nd).insert(nn, s);
            for (i, from, to) in [(s, od, nd), (t, nd, od)] {
                if let Body::Dir { parent, .. } = &mut self.nodes.get_mut(&i).unwrap().body {
                    *parent = to;
                    self.nodes.get_mut(&from).unwrap().nlink -= 1;
                    self.nodes.get_mut(&to).unwrap().nlink += 1;
                }
            }
            return;
        }
        if let Some(t) = dst {
            if flags == RenameFlags::NOREPLACE {
                assert_eq!(r, Err(Error::Exists));
                return;
            }
            if t == s {
                assert_eq!(r, Ok(None));
                return;
            }
            match (is_dir(self, s), is_dir(self, t)) {
                (true, false) => return assert_eq!(r, Err(Error::NotDirectory)),
                (false, true) => return assert_eq!(r, Err(Error::IsDirectory)),
                (true, true) if !self.entries(t).is_empty() => return assert_eq!(r, Err(Error::NotEmpty)),
                _ => {}
            }
        }
        if is_dir(self, s) && od != nd && self.is_below(s, nd) {
            assert!(matches!(r, Err(Error::Invalid(_))), "{r:?}");
            return;
        }
        match r {
            Ok(u) => {
                self.entries(od).remove(&on);
                self.entries(nd).insert(nn, s);
                if let Body::Dir { parent, .. } = &mut self.nodes.get_mut(&s).unwrap().body {
                    *parent = nd;
                    self.nodes.get_mut(&od).unwrap().nlink -= 1;
                    self.nodes.get_mut(&nd).unwrap().nlink += 1;
                }
                if let Some(t) = dst {
                    if is_dir(self, t) {
                        self.nodes.get_mut(&nd).unwrap().nlink -= 1;
                    }
                    let gone = self.drop_name(t);
                    assert_eq!(u.map(|u| (u.ino, u.nlink == 0)), Some((t, gone)));
                    if gone {
                        fs.release(t).unwrap();
                    }
                }
            }
            Err(e) => assert_eq!(e, Error::NoSpace),
        }
    }

    /// Compares everything.
    pub fn check<D: BlockDevice>(&self, fs: &mut Fs<D>) {
        for (&ino, node) in &self.nodes {
            let at = fs.attr(ino).unwrap();
            assert_eq!((at.file_type, at.mode, at.uid, at.nlink), (node.file_type, node.mode, node.uid, node.nlink));
            match &node.body {
                Body::Dir { entries, parent } => {
                    assert_eq!(&list(fs, ino, 5), entries, "directory {ino}");
                    for (n, i) in entries {
                        assert_eq!(fs.lookup(ino, n), Ok(*i));
                    }
                    assert_eq!(fs.lookup(ino, b".."), Ok(*parent));
                }
                Body::File(f) => {
                    assert_eq!(at.size, f.len() as u64);
                    let mut data = vec![0xAA; f.len() + 10];
                    assert_eq!(fs.read(ino, 0, &mut data).unwrap(), f.len());
                    data.truncate(f.len());
                    if let Some(i) = (0..f.len()).find(|i| f[*i] != data[*i]) {
                        panic!("file {ino} differs at byte {i}");
                    }
                }
                Body::Link(t) => assert_eq!(&fs.read_link(ino).unwrap(), t),
                Body::Other if node.file_type == FileType::CharDevice => assert_eq!(at.rdev, (5, 70000)),
                Body::Other => {}
            }
            let names: Vec<_> = fs.xattr_list(ino).unwrap();
            assert_eq!(names.len(), node.xattrs.len());
            for (k, v) in &node.xattrs {
                assert_eq!(&fs.xattr_get(ino, k).unwrap(), v);
            }
        }
    }
}
