//! Where file contents are read from: the inputs that a tree was read from.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;

use crate::Error;
use crate::source::{ArchiveFile, ImageSource};
use crate::tree::Origin;

/// What the tree was read from, by position.
pub(crate) enum Input {
    Directory(PathBuf),
    Archive(ArchiveFile),
    Image(Box<ImageSource>),
}

/// Opens files of the inputs; keeps the directory that it opened last.
pub(crate) struct Opener<'a> {
    inputs: &'a [Input],
    /// The directory on the host: of this input, at this path of the tree.
    directory: Option<(u32, Vec<u8>, OwnedFd)>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(inputs: &'a [Input]) -> Self {
        Self { inputs, directory: None }
    }

    /// Opens the contents of the file `name` in the tree's directory `path` (`/a/b`, empty for the root).
    ///
    /// # Errors
    /// The host's, with the file's path.
    pub(crate) fn open(&mut self, path: &[u8], name: &[u8], origin: &Origin) -> Result<Source<'a>, Error> {
        // The file was regular when the tree was read; if it is a link or a pipe by now, neither follow nor wait.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = match (origin, self.input(origin)) {
            (Origin::Place(number), Some(Input::Directory(root))) => {
                if self.directory.as_ref().is_none_or(|(of, at, _)| of != number || at != path) {
                    let host = root.join(relative(path));
                    let directory =
                        fcntl::open(&host, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
                    let directory = directory.map_err(|errno| Error::io("open", &host, &errno.into()))?;
                    self.directory = Some((*number, path.to_owned(), directory));
                }
                let Some((_, _, directory)) = &self.directory else { return Err(missing()) };
                fcntl::openat(directory, OsStr::from_bytes(name), flags, Mode::empty())
            }
            (Origin::Host(_, below), Some(Input::Directory(root))) => {
                fcntl::open(&root.join(OsStr::from_bytes(below)), flags, Mode::empty())
            }
            (Origin::Archive(_), Some(Input::Archive(archive))) => return Ok(Source::Archive(archive)),
            (Origin::Image(_, ino), Some(Input::Image(image))) => return Ok(Source::Image(image, *ino)),
            _ => return Err(missing()),
        };
        match opened {
            Ok(file) => Ok(Source::Host(file.into())),
            Err(errno) => Err(Error::io("open", &self.host_path(path, name, origin), &errno.into())),
        }
    }

    fn input(&self, origin: &Origin) -> Option<&'a Input> {
        let (Origin::Place(number) | Origin::Host(number, _) | Origin::Archive(number) | Origin::Image(number, _)) =
            origin;
        self.inputs.get(*number as usize)
    }

    /// Where contents come from, for messages.
    fn host_path(&self, path: &[u8], name: &[u8], origin: &Origin) -> PathBuf {
        match (self.input(origin), origin) {
            (Some(Input::Directory(root)), Origin::Host(_, below)) => root.join(OsStr::from_bytes(below)),
            (Some(Input::Directory(root)), _) => root.join(relative(path)).join(OsStr::from_bytes(name)),
            (Some(Input::Archive(archive)), _) => archive.path.clone(),
            _ => PathBuf::from(OsStr::from_bytes(name)),
        }
    }

    /// The error that a failed read is, with the file's path.
    pub(crate) fn explain(&self, path: &[u8], name: &[u8], origin: &Origin, failure: &Failure) -> Error {
        let path = self.host_path(path, name, origin);
        match failure {
            Failure::Image(error) => Error::new(error),
            Failure::Short { len, offset } => Error::new(format_args!(
                "{} was shortened while it was read: expected {len} bytes at byte {offset}",
                path.display()
            )),
            Failure::Host(error) => Error::io("read", &path, error),
        }
    }
}

fn missing() -> Error {
    Error::new("contents without an input to read them from")
}

/// A path of the tree from a directory on.
fn relative(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

/// Why contents could not be read.
pub(crate) enum Failure {
    Image(Error),
    /// The file has become shorter.
    Short {
        len: usize,
        offset: u64,
    },
    Host(io::Error),
}

/// An open file or archive to read contents from.
pub(crate) enum Source<'a> {
    Host(File),
    Archive(&'a ArchiveFile),
    Image(&'a ImageSource, u32),
}

impl Source<'_> {
    /// Fills `buffer` from byte `offset` of the origin.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        let len = buffer.len();
        let result = match self {
            Source::Host(file) => file.read_exact_at(buffer, offset),
            Source::Archive(archive) => archive.read_exact_at(buffer, offset),
            Source::Image(image, ino) => return image.read(*ino, buffer, offset).map_err(Failure::Image),
        };
        result.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Failure::Short { len, offset },
            _ => Failure::Host(error),
        })
    }
}
