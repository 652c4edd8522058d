//! An ext image as input.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ext4::{FileType, Ino, ROOT_INO};

use crate::image::Image;
use crate::tree::{Body, Content, Data, Kept, Meta, Node, NodeId, Origin, Segment, Tree, Xattr};
use crate::{Error, join};

/// An image that contents are read from, by whichever thread needs them.
pub(crate) struct ImageSource(Mutex<Image>);

impl ImageSource {
    pub(crate) fn new(image: Image) -> Self {
        Self(Mutex::new(image))
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        // It is only read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `buffer` with a file's bytes.
    pub(crate) fn read(&self, ino: Ino, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let mut image = self.image();
        let path = image.path().display().to_string();
        let failed = |what: &dyn std::fmt::Display| Error::new(format_args!("{path}: inode {ino}: {what}"));
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match image.fs.read(ino, offset + done as u64, rest) {
                Ok(0) => return Err(failed(&"the file ends early")),
                Ok(count) => done += count,
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    /// Adds all that the image holds to `tree`, as its `number`th input.
    ///
    /// # Errors
    /// The image is damaged, or contradicts an earlier input.
    pub(crate) fn read_tree(&self, number: u32, tree: &mut Tree) -> Result<(), Error> {
        let mut image = self.image();
        let (meta, _) = attributes(&mut image, ROOT_INO, b"/")?;
        tree.set_root(meta, xattrs(&mut image, ROOT_INO, b"/")?);
        let mut linked: HashMap<Ino, NodeId> = HashMap::new();
        let mut entered = std::collections::HashSet::from([ROOT_INO]);
        let mut waiting = vec![(NodeId::ROOT, ROOT_INO, b"/".to_vec())];
        while let Some((directory, ino, path)) = waiting.pop() {
            for (name, child) in image.names(ino, &path)? {
                let path = join(&path, &name);
                if let Some(id) = linked.get(&child) {
                    tree.place_link(directory, &name, *id).map_err(|error| image.failed(&path, error))?;
                    continue;
                }
                let node = node(&mut image, number, child, &path)?;
                let is_directory = matches!(node.body, Body::Directory(_));
                let id = tree.place(directory, &name, node).map_err(|error| image.failed(&path, error))?;
                if is_directory {
                    // Two names of one directory would be a loop, or twice its contents.
                    if !entered.insert(child) {
                        return Err(image.failed(&path, "damaged: the directory has another name, too"));
                    }
                    waiting.push((id, child, path));
                } else {
                    linked.insert(child, id);
                }
            }
        }
        Ok(())
    }
}

fn attributes(image: &mut Image, ino: Ino, path: &[u8]) -> Result<(Meta, ext4::Attr), Error> {
    let attr = image.fs.attr(ino).map_err(|error| image.failed(path, error))?;
    Ok((Meta { mode: attr.mode, uid: attr.uid, gid: attr.gid, mtime: attr.mtime }, attr))
}

fn xattrs(image: &mut Image, ino: Ino, path: &[u8]) -> Result<Vec<Xattr>, Error> {
    let mut found = Vec::new();
    for key in image.fs.xattr_list(ino).map_err(|error| image.failed(path, error))? {
        let value = image.fs.xattr_get(ino, &key).map_err(|error| image.failed(path, error))?;
        found.push((key.into(), value.into()));
    }
    found.sort_unstable();
    Ok(found)
}

fn node(image: &mut Image, number: u32, ino: Ino, path: &[u8]) -> Result<Node, Error> {
    let (meta, attr) = attributes(image, ino, path)?;
    let body = match attr.file_type {
        FileType::Directory => Body::Directory(BTreeMap::new()),
        FileType::Regular => {
            let data = Data::Segments(segments(image, ino, attr.size, path)?);
            Body::Regular(Content { len: attr.size, origin: Origin::Image(number, ino), data })
        }
        FileType::Symlink => Body::Symlink(image.fs.read_link(ino).map_err(|error| image.failed(path, error))?.into()),
        FileType::CharDevice => Body::CharDevice(attr.rdev.0, attr.rdev.1),
        FileType::BlockDevice => Body::BlockDevice(attr.rdev.0, attr.rdev.1),
        FileType::Fifo => Body::Fifo,
        FileType::Socket => Body::Socket,
    };
    let kept = Kept { atime: attr.atime, ctime: attr.ctime, crtime: attr.crtime, flags: attr.flags };
    let kept = Some(Box::new(kept));
    Ok(Node { meta, xattrs: xattrs(image, ino, path)?, body, kept })
}

/// The parts of a file that are no holes.
fn segments(image: &mut Image, ino: Ino, size: u64, path: &[u8]) -> Result<Box<[Segment]>, Error> {
    let mut found: Vec<Segment> = Vec::new();
    let mut at = 0;
    while at < size {
        let Some(start) = image.fs.seek_data(ino, at).map_err(|error| image.failed(path, error))? else { break };
        let end = image.fs.seek_hole(ino, start).map_err(|error| image.failed(path, error))?.unwrap_or(size).min(size);
        if end <= start {
            break;
        }
        found.push(Segment { offset: start, len: end - start, source: start });
        at = end;
    }
    Ok(found.into())
}
