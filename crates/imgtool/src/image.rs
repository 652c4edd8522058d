//! An ext image, or an ext partition of a disk, opened to be looked at or changed.

use std::io::Write;
use std::path::{Path, PathBuf};

use ext4::{Attr, BlockDevice, FileType, Fs, Ino, MountOptions, ROOT_INO};

use crate::backing::Part;
use crate::identify::identify_device;
use crate::overlay::Overlay;
use crate::text::shown;
use crate::{Contents, Disk, Error, backing, partition};

/// Symbolic links followed in one path, as Linux limits them (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// An ext2, ext3 or ext4 image. Opened for reading ([`Image::open`]), the file is never written: a journal left by a
/// crash is replayed in memory, so what is seen is what a mount would show. Opened for changes
/// ([`Image::open_writable`]), it is mounted as a kernel would.
pub struct Image<D: BlockDevice = Overlay<Disk>> {
    path: PathBuf,
    pub(crate) fs: Fs<D>,
    /// The journal holds changes that are not in place yet.
    pub(crate) needs_recovery: bool,
}

/// The path of an image, and the partition of a disk that is meant, if it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The file.
    pub path: PathBuf,
    /// Number of the partition, from 1; `None` for the file as a whole.
    pub partition: Option<u32>,
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self { path: path.to_owned(), partition: None }
    }
}

impl Target {
    /// Opens what is meant to be looked at.
    ///
    /// # Errors
    /// The file is no disk, or has no such partition, or cannot be read.
    pub(crate) fn open(&self) -> Result<Disk, Error> {
        self.part(backing::open(&self.path)?)
    }

    /// Opens what is meant for writing, under the lock that a running machine holds.
    ///
    /// # Errors
    /// As [`Target::open`]; it is in use or cannot be written.
    pub(crate) fn open_writable(&self) -> Result<Disk, Error> {
        self.part(backing::open_writable(&self.path)?)
    }

    fn part(&self, disk: Disk) -> Result<Disk, Error> {
        let Some(number) = self.partition else { return Ok(disk) };
        let part = partition::find_on(&*disk, &self.path, number)?;
        Ok(Box::new(Part::new(disk, part.start, part.size)))
    }

    /// Tells what it holds; for an overlay, what its disk does.
    ///
    /// # Errors
    /// As for opening.
    pub fn contents(&self) -> Result<Contents, Error> {
        self.identify(&*self.open()?)
    }

    pub(crate) fn identify(&self, disk: &dyn BlockDevice) -> Result<Contents, Error> {
        identify_device(disk).map_err(|error| Error::io("read", &self.path, &error))
    }

    /// Fails unless the disk holds an ext file system.
    fn require_ext(&self, disk: &dyn BlockDevice) -> Result<(), Error> {
        self.identify(disk)?.require_ext(Path::new(&self.to_string()))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.partition {
            Some(number) => write!(f, "{}:{number}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

/// An extended attribute's name and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// A name in an image's directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// What the inode says.
    pub attr: Attr,
    /// A symbolic link's target.
    pub target: Option<Vec<u8>>,
}

impl Image {
    /// Opens an image for reading.
    ///
    /// # Errors
    /// The file is no ext image (says what it is instead), is damaged, or cannot be read.
    pub fn open(target: impl Into<Target>) -> Result<Self, Error> {
        let target = target.into();
        Self::mount(&target, Self::device(&target)?, true)
    }

    /// The disk, to be looked at. What is written stays in memory.
    pub(crate) fn device(target: &Target) -> Result<Overlay<Disk>, Error> {
        let disk = target.open()?;
        target.require_ext(&*disk)?;
        Ok(Overlay::new(disk))
    }
}

impl Image<Disk> {
    /// Opens an image to change it. Changes are complete after [`Image::close`]; until then a crash leaves what a
    /// power cut leaves. Changes of an overlay leave the image below as it is.
    ///
    /// # Errors
    /// As [`Image::open`]; or a machine is running from it, or it is not writable, or has features that only a
    /// read-only mount copes with.
    pub fn open_writable(target: impl Into<Target>) -> Result<Self, Error> {
        let target = target.into();
        let device = Self::lock(&target)?;
        Self::mount(&target, device, false)
    }

    /// Opens the disk for writing, under the lock that a running machine holds.
    pub(crate) fn lock(target: &Target) -> Result<Disk, Error> {
        let disk = target.open_writable()?;
        target.require_ext(&*disk)?;
        Ok(disk)
    }

    /// Writes everything in place and marks the file system clean.
    ///
    /// # Errors
    /// The host's.
    pub fn close(mut self) -> Result<(), Error> {
        self.fs.unmount().map_err(|error| Error::new(error).at(self.path.display()))
    }
}

impl<D: BlockDevice> Image<D> {
    fn mount(target: &Target, device: D, read_only: bool) -> Result<Self, Error> {
        let failed = |error: ext4::Error| Error::new(error).at(target);
        let found = ext4::Superblock::read(&device).map_err(failed)?;
        let needs_recovery = found.features.incompat.contains(ext4::Incompat::RECOVER);
        let now = (!read_only).then(crate::time::now);
        // What is removed takes no more space of the host.
        let options = MountOptions { read_only, now, discard: !read_only, ..MountOptions::default() };
        let fs = Fs::mount(device, options).map_err(failed)?;
        let path = PathBuf::from(target.to_string());
        Ok(Self { path, fs, needs_recovery })
    }

    /// Where the image is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn failed(&self, path: &[u8], error: impl std::fmt::Display) -> Error {
        Error::new(error).at(format_args!("{}:{}", self.path.display(), shown(path)))
    }

    /// The inode that `path` names, from the root of the image on. Symbolic links on the way are followed inside the
    /// image, the last one only if `follow`.
    ///
    /// # Errors
    /// A component is missing or no directory, or there are more than 40 links.
    pub fn resolve(&mut self, path: &[u8], follow: bool) -> Result<Ino, Error> {
        let mut links = 0;
        // Components still to be looked up, the next one last.
        let mut rest: Vec<Vec<u8>> = components(path);
        // The directories from the root to here.
        let mut trail = vec![ROOT_INO];
        while let Some(name) = rest.pop() {
            let here = trail.last().copied().unwrap_or(ROOT_INO);
            if name == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let ino = self.fs.lookup(here, &name).map_err(|error| self.failed(path, error))?;
            let attr = self.fs.attr(ino).map_err(|error| self.failed(path, error))?;
            if attr.file_type != FileType::Symlink || (rest.is_empty() && !follow) {
                trail.push(ino);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(self.failed(path, "too many levels of symbolic links"));
            }
            let target = self.fs.read_link(ino).map_err(|error| self.failed(path, error))?;
            if target.first() == Some(&b'/') {
                trail.truncate(1);
            }
            rest.extend(components(&target));
        }
        Ok(trail.last().copied().unwrap_or(ROOT_INO))
    }

    /// What the inode at `path` says; the last symbolic link is not followed.
    ///
    /// # Errors
    /// As [`Image::resolve`].
    pub fn stat(&mut self, path: &[u8]) -> Result<Entry, Error> {
        let ino = self.resolve(path, false)?;
        let name = components(path).into_iter().next().unwrap_or_else(|| b"/".to_vec());
        self.entry(path, name, ino)
    }

    fn entry(&mut self, path: &[u8], name: Vec<u8>, ino: Ino) -> Result<Entry, Error> {
        let attr = self.fs.attr(ino).map_err(|error| self.failed(path, error))?;
        let target = match attr.file_type {
            FileType::Symlink => Some(self.fs.read_link(ino).map_err(|error| self.failed(path, error))?),
            _ => None,
        };
        Ok(Entry { name, attr, target })
    }

    /// Whether `path` names a directory, perhaps through links.
    pub fn is_directory(&mut self, path: &[u8]) -> bool {
        match self.resolve(path, true) {
            Ok(ino) => self.fs.attr(ino).is_ok_and(|attr| attr.file_type == FileType::Directory),
            Err(_) => false,
        }
    }

    /// Names and values of the extended attributes of the file at `path`, by name; a last link is not followed.
    ///
    /// # Errors
    /// As [`Image::resolve`].
    pub fn xattrs(&mut self, path: &[u8]) -> Result<Vec<Attribute>, Error> {
        let ino = self.resolve(path, false)?;
        let mut names = self.fs.xattr_list(ino).map_err(|error| self.failed(path, error))?;
        names.sort_unstable();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let value = self.fs.xattr_get(ino, &name).map_err(|error| self.failed(path, error))?;
            found.push((name, value));
        }
        Ok(found)
    }

    /// The entries of the directory at `path`, sorted by name, without `.` and `..`.
    ///
    /// # Errors
    /// As [`Image::resolve`]; or it is no directory.
    pub fn list(&mut self, path: &[u8]) -> Result<Vec<Entry>, Error> {
        let directory = self.resolve(path, true)?;
        let mut found = Vec::new();
        self.fs
            .read_dir(directory, 0, &mut |entry| {
                if entry.name != b"." && entry.name != b".." {
                    found.push((entry.name.to_vec(), entry.ino));
                }
                true
            })
            .map_err(|error| self.failed(path, error))?;
        found.sort_unstable();
        found
            .into_iter()
            .map(|(name, ino)| {
                let full = join(path, &name);
                self.entry(&full, name, ino)
            })
            .collect()
    }

    /// Writes the contents of the regular file at `path` to `out`; returns their length.
    ///
    /// # Errors
    /// As [`Image::resolve`]; it is no regular file; `out` fails, which [`ReadError::Output`] tells apart.
    pub fn read_to(&mut self, path: &[u8], out: &mut dyn Write) -> Result<u64, ReadError> {
        let ino = self.resolve(path, true)?;
        let attr = self.fs.attr(ino).map_err(|error| self.failed(path, error))?;
        if attr.file_type != FileType::Regular {
            return Err(self
                .failed(path, format_args!("{}, expected a regular file", kind_name(attr.file_type)))
                .into());
        }
        let mut buffer = vec![0; CHUNK.min(usize::try_from(attr.size).unwrap_or(CHUNK)).max(1)];
        let mut at = 0u64;
        loop {
            let count = self.fs.read(ino, at, &mut buffer).map_err(|error| self.failed(path, error))?;
            if count == 0 {
                return Ok(at);
            }
            out.write_all(buffer.get(..count).unwrap_or_default()).map_err(ReadError::Output)?;
            at += count as u64;
        }
    }

    /// The device below, for its size.
    pub(crate) fn size(&self) -> u64 {
        self.fs.device().size()
    }
}

/// Why [`Image::read_to`] failed.
#[derive(Debug)]
pub enum ReadError {
    /// The image could not be read.
    Image(Error),
    /// The output could not be written.
    Output(std::io::Error),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Image(error)
    }
}

/// A path inside an image, joined.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let base = directory.strip_suffix(b"/").unwrap_or(directory);
    [base, b"/", name].concat()
}

/// As a phrase.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::CharDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
    }
}

/// The components of a path, the first one last.
pub(crate) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}
