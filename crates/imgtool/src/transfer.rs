//! Copying between an image and the host.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ext4::{Attr, BlockDevice, FileType, Ino, NewInode, SetAttr, XattrMode};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::edit::DEEPEST;
use crate::host;
use crate::image::{Image, kind_name};
use crate::source::read_node;
use crate::tree::Body;
use crate::{Error, Owner, join};

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files of all types.
    pub files: u64,
    /// Bytes of contents, holes not counted.
    pub bytes: u64,
    /// Device nodes and sockets that the host did not let the caller make.
    pub skipped: u64,
}

impl<D: BlockDevice> Image<D> {
    /// Copies the host's file or, if `recursive`, directory at `from` to `to` in the image, into `to` if that is a
    /// directory. Modes, times, links, holes and extended attributes are kept; a file that is there is replaced, a
    /// directory that is there is merged with.
    ///
    /// # Errors
    /// `from` cannot be read; a directory would replace a file or the other way round; the image is full.
    pub fn copy_in(&mut self, from: &Path, to: &[u8], recursive: bool, owner: Owner) -> Result<Copied, Error> {
        let name = from.file_name().map(OsStr::as_bytes).map(<[u8]>::to_vec);
        let metadata = fs::symlink_metadata(from).map_err(|error| Error::io("stat", from, &error))?;
        // `cp -r dir/. image:/etc` means what is in it.
        let contents_only = name.is_none() || from.as_os_str().as_bytes().ends_with(b"/.");
        let mut copy = CopyIn { image: self, linked: HashMap::new(), owner, done: Copied::default() };
        if metadata.is_dir() {
            if !recursive {
                return Err(Error::new(format_args!("{} is a directory", from.display()))
                    .hint("add -r to copy it with all that is in it"));
            }
            if contents_only {
                let ino = copy.image.resolve(to, true)?;
                copy.directory(from, to, ino, 0)?;
                return Ok(copy.done);
            }
        }
        let to = copy.image.inside(to, &name.unwrap_or_default())?;
        let (directory, name) = copy.image.parent(&to)?;
        copy.file(from, &to, directory, &name, 0)?;
        Ok(copy.done)
    }

    /// Copies the file or, if `recursive`, directory at `from` in the image to `to` on the host, into `to` if that is
    /// a directory. Nothing outside of `to` is touched whatever the image holds: no link is followed. Owners are kept
    /// when the caller is root; modes, times, links, holes and user attributes always.
    ///
    /// # Errors
    /// `from` is not there; the host refuses; something of another type is in the way.
    pub fn copy_out(&mut self, from: &[u8], to: &Path, recursive: bool) -> Result<Copied, Error> {
        let ino = self.resolve(from, false)?;
        let attr = self.fs.attr(ino).map_err(|error| self.failed(from, error))?;
        if attr.file_type == FileType::Directory && !recursive {
            return Err(self.failed(from, "is a directory").hint("add -r to copy it with all that is in it"));
        }
        let name = crate::image::components(from).into_iter().next().filter(|name| name != b"..");
        let target = match name {
            Some(name) if to.is_dir() => to.join(OsStr::from_bytes(&name)),
            _ => to.to_owned(),
        };
        let root = nix::unistd::geteuid().is_root();
        let mut copy = CopyOut { image: self, linked: HashMap::new(), root, done: Copied::default() };
        copy.file(from, ino, &target, 0)?;
        Ok(copy.done)
    }
}

struct CopyIn<'a, D: BlockDevice> {
    image: &'a mut Image<D>,
    /// Inodes in the image of host files with several names, by device and inode number.
    linked: HashMap<(u64, u64), Ino>,
    owner: Owner,
    done: Copied,
}

impl<D: BlockDevice> CopyIn<'_, D> {
    fn directory(&mut self, from: &Path, to: &[u8], directory: Ino, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::new(format_args!("{} lies too deep", from.display())));
        }
        for name in host::names(from)? {
            let to = join(to, name.as_bytes());
            self.file(&from.join(&name), &to, directory, name.as_bytes(), depth + 1)?;
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &[u8], directory: Ino, name: &[u8], depth: usize) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(from).map_err(|error| Error::io("stat", from, &error))?;
        let node = read_node(from, &metadata)?;
        let now = crate::time::now();
        let old = self.image.lookup(directory, name, to)?;
        let identity = (metadata.dev(), metadata.ino());
        let several = !metadata.is_dir() && metadata.nlink() > 1;
        self.done.files += 1;
        if let Body::Directory(_) = node.body {
            let ino = match old {
                Some(ino) => {
                    let kind = self.image.fs.attr(ino).map_err(|error| self.image.failed(to, error))?.file_type;
                    if kind != FileType::Directory {
                        let text = format!("{} is in the way of the directory {}", kind_name(kind), from.display());
                        return Err(self.image.failed(to, text));
                    }
                    ino
                }
                None => self.make(FileType::Directory, (0, 0), directory, name, to)?,
            };
            self.directory(from, to, ino, depth)?;
            return self.settle(ino, &node, to);
        }
        if let Some(old) = old {
            let kind = self.image.fs.attr(old).map_err(|error| self.image.failed(to, error))?.file_type;
            if kind == FileType::Directory {
                return Err(self.image.failed(to, format_args!("a directory is in the way of {}", from.display())));
            }
            self.image.remove_name(directory, name, to)?;
        }
        if several && let Some(ino) = self.linked.get(&identity) {
            let made = self.image.fs.link(directory, name, *ino, now);
            return made.map_err(|error| self.image.failed(to, error));
        }
        let ino = match &node.body {
            Body::Symlink(target) => {
                let new = NewInode { file_type: FileType::Symlink, mode: 0o777, uid: 0, gid: 0, rdev: (0, 0), now };
                let made = self.image.fs.symlink(directory, name, target, &new);
                made.map_err(|error| self.image.failed(to, error))?
            }
            Body::Regular(content) => {
                let ino = self.make(FileType::Regular, (0, 0), directory, name, to)?;
                self.contents(from, content, ino, to)?;
                ino
            }
            Body::CharDevice(major, minor) => self.make(FileType::CharDevice, (*major, *minor), directory, name, to)?,
            Body::BlockDevice(major, minor) => {
                self.make(FileType::BlockDevice, (*major, *minor), directory, name, to)?
            }
            Body::Fifo => self.make(FileType::Fifo, (0, 0), directory, name, to)?,
            Body::Socket | Body::Directory(_) => self.make(FileType::Socket, (0, 0), directory, name, to)?,
        };
        if several {
            self.linked.insert(identity, ino);
        }
        self.settle(ino, &node, to)
    }

    fn make(
        &mut self,
        file_type: FileType,
        rdev: (u32, u32),
        directory: Ino,
        name: &[u8],
        to: &[u8],
    ) -> Result<Ino, Error> {
        let new = NewInode { file_type, mode: 0o600, uid: 0, gid: 0, rdev, now: crate::time::now() };
        self.image.fs.create(directory, name, &new).map_err(|error| self.image.failed(to, error))
    }

    fn contents(&mut self, from: &Path, content: &crate::tree::Content, ino: Ino, to: &[u8]) -> Result<(), Error> {
        let file = host::open_contents(from)?;
        let now = crate::time::now();
        let mut buffer = vec![0; CHUNK];
        for segment in content.segments() {
            let mut done = 0;
            while done < segment.len {
                let len = (segment.len - done).min(CHUNK as u64) as usize;
                let piece = buffer.get_mut(..len).unwrap_or_default();
                file.read_exact_at(piece, segment.source + done).map_err(|error| Error::io("read", from, &error))?;
                let written = crate::populate::write_all(&mut self.image.fs, ino, segment.offset + done, piece, now);
                written.map_err(|error| self.image.failed(to, error))?;
                done += len as u64;
                self.done.bytes += len as u64;
            }
        }
        let whole = SetAttr { size: Some(content.len), ..SetAttr::default() };
        self.image.fs.set_attr(ino, &whole).map_err(|error| self.image.failed(to, error))
    }

    /// Owner, mode, times and attributes, when all else is in place.
    fn settle(&mut self, ino: Ino, node: &crate::tree::Node, to: &[u8]) -> Result<(), Error> {
        let now = crate::time::now();
        for (key, value) in &node.xattrs {
            let set = self.image.fs.xattr_set(ino, key, value, XattrMode::Any, now);
            set.map_err(|error| self.image.failed(to, error))?;
        }
        let caller = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let (uid, gid) = self.owner.apply(node.meta.uid, node.meta.gid, caller);
        let set = SetAttr {
            mode: Some(node.meta.mode),
            uid: Some(uid),
            gid: Some(gid),
            atime: Some(node.meta.mtime),
            mtime: Some(node.meta.mtime),
            ctime: Some(now),
            ..SetAttr::default()
        };
        self.image.fs.set_attr(ino, &set).map_err(|error| self.image.failed(to, error))
    }
}

struct CopyOut<'a, D: BlockDevice> {
    image: &'a mut Image<D>,
    /// Where files with several names went.
    linked: HashMap<Ino, PathBuf>,
    /// The caller may give files away and make devices.
    root: bool,
    done: Copied,
}

impl<D: BlockDevice> CopyOut<'_, D> {
    fn file(&mut self, from: &[u8], ino: Ino, to: &Path, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(self.image.failed(from, "damaged: the directories are nested without an end"));
        }
        let attr = self.image.fs.attr(ino).map_err(|error| self.image.failed(from, error))?;
        let io = |action: &str, error: &io::Error| Error::io(action, to, error);
        self.done.files += 1;
        if attr.file_type == FileType::Directory {
            self.directory(from, ino, to, depth)?;
            return self.settle(from, &attr, to);
        }
        host::make_way(to)?;
        if attr.nlink > 1 {
            if let Some(first) = self.linked.get(&ino) {
                let linked = nix::unistd::linkat(AT_FDCWD, first, AT_FDCWD, to, AtFlags::empty());
                return linked.map_err(|errno| io("link", &errno.into()));
            }
            self.linked.insert(ino, to.to_owned());
        }
        let node = |flag: SFlag| {
            let (major, minor) = attr.rdev;
            mknod(to, flag, Mode::from_bits_truncate(0o600), makedev(major.into(), minor.into()))
        };
        let made = match attr.file_type {
            FileType::Regular => {
                self.contents(from, ino, attr.size, to)?;
                Ok(())
            }
            FileType::Symlink => {
                let target = self.image.fs.read_link(ino).map_err(|error| self.image.failed(from, error))?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), to)
                    .map_err(|error| io("make the link", &error))?;
                Ok(())
            }
            FileType::Fifo => node(SFlag::S_IFIFO),
            FileType::Socket => node(SFlag::S_IFSOCK),
            FileType::CharDevice => node(SFlag::S_IFCHR),
            FileType::BlockDevice | FileType::Directory => node(SFlag::S_IFBLK),
        };
        match made {
            Ok(()) => self.settle(from, &attr, to),
            Err(nix::errno::Errno::EPERM) => {
                self.linked.remove(&ino);
                self.done.skipped += 1;
                self.done.files -= 1;
                Ok(())
            }
            Err(errno) => Err(io("make the node", &errno.into())),
        }
    }

    fn directory(&mut self, from: &[u8], ino: Ino, to: &Path, depth: usize) -> Result<(), Error> {
        host::make_directory(to)?;
        for (name, child) in self.image.names(ino, from)? {
            let path = join(from, &name);
            if name == b"lost+found" && from.iter().all(|byte| *byte == b'/') {
                continue;
            }
            self.file(&path, child, &to.join(OsStr::from_bytes(&name)), depth + 1)?;
        }
        Ok(())
    }

    fn contents(&mut self, from: &[u8], ino: Ino, size: u64, to: &Path) -> Result<(), Error> {
        let failed = |error: &io::Error| Error::io("write", to, error);
        host::new_file(to, 0o600, |file| self.copy_data(from, ino, size, file, failed))
    }

    fn copy_data(
        &mut self,
        from: &[u8],
        ino: Ino,
        size: u64,
        file: &File,
        failed: impl Fn(&io::Error) -> Error,
    ) -> Result<(), Error> {
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while let Some(start) = self.image.fs.seek_data(ino, at).map_err(|error| self.image.failed(from, error))? {
            let end = self.image.fs.seek_hole(ino, start).map_err(|error| self.image.failed(from, error))?;
            let end = end.unwrap_or(size).min(size);
            at = start;
            while at < end {
                let len = (end - at).min(CHUNK as u64) as usize;
                let piece = buffer.get_mut(..len).unwrap_or_default();
                let count = self.image.fs.read(ino, at, piece).map_err(|error| self.image.failed(from, error))?;
                if count == 0 {
                    break;
                }
                file.write_all_at(piece.get(..count).unwrap_or_default(), at).map_err(|error| failed(&error))?;
                at += count as u64;
                self.done.bytes += count as u64;
            }
            if at >= size || at < end {
                break;
            }
        }
        file.set_len(size).map_err(|error| failed(&error))
    }

    fn settle(&mut self, from: &[u8], attr: &Attr, to: &Path) -> Result<(), Error> {
        let io = |action: &str, error: &io::Error| Error::io(action, to, error);
        let link = attr.file_type == FileType::Symlink;
        if self.root {
            std::os::unix::fs::lchown(to, Some(attr.uid), Some(attr.gid))
                .map_err(|error| io("set the owner of", &error))?;
        }
        if !link {
            // A set-id program of the image's root must not become one of the caller's.
            let mode = if self.root { attr.mode } else { attr.mode & 0o1777 };
            fs::set_permissions(to, fs::Permissions::from_mode(mode.into()))
                .map_err(|error| io("set the mode of", &error))?;
            for key in self.image.fs.xattr_list(attr.ino).map_err(|error| self.image.failed(from, error))? {
                let value = self.image.fs.xattr_get(attr.ino, &key).map_err(|error| self.image.failed(from, error))?;
                // Others are the system's, and an ordinary user may not set them.
                if key.starts_with(b"user.") || self.root {
                    let set = xattr::set(to, OsStr::from_bytes(&key), &value);
                    if let Err(error) = set
                        && !matches!(error.raw_os_error(), Some(nix::libc::ENOTSUP | nix::libc::EPERM))
                    {
                        return Err(io("set an extended attribute of", &error));
                    }
                }
            }
        }
        host::set_times(to, attr.atime, attr.mtime)
    }
}
