//! File contents, read ahead by a second thread: while one core writes the image, the other opens and reads.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;

use crate::Error;
use crate::source::{ArchiveFile, ImageSource};
use crate::tree::{Body, Content, NodeId, Origin, Step, Tree};

/// Size of a buffer in bytes: large enough that a file's blocks are allocated in one go, small enough for the cache.
const BUFFER: usize = 1 << 20;
/// Buffers in flight.
const BUFFERS: usize = 3;

/// What the tree was read from, by position.
pub(crate) enum Input {
    Directory(PathBuf),
    Archive(ArchiveFile),
    Image(Box<ImageSource>),
}

/// A run of a file's data in a [`Batch`].
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) node: NodeId,
    /// Offset in the file.
    pub(crate) offset: u64,
    start: usize,
    len: usize,
}

/// A buffer with the data of one large or many small files.
#[derive(Default)]
pub(crate) struct Batch {
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    used: usize,
}

impl Batch {
    fn data(&self, piece: Piece) -> &[u8] {
        self.buffer.get(piece.start..piece.start + piece.len).unwrap_or_default()
    }
}

/// The receiving end: pieces in the order of the tree's walk.
pub(crate) struct Feed {
    batches: Receiver<Result<Batch, Error>>,
    /// Used buffers go back: fresh ones would cost their page faults again.
    spare: Sender<Batch>,
    current: Batch,
    next: usize,
}

impl Feed {
    /// Hands the next piece to `take`; it must be of `node`, as both sides walk the same tree.
    ///
    /// # Errors
    /// Reading failed, or `take` did.
    pub(crate) fn piece(
        &mut self,
        node: NodeId,
        take: impl FnOnce(Piece, &[u8]) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        while self.next >= self.current.pieces.len() {
            let batch =
                self.batches.recv().map_err(|_| Error::new("the thread that reads file contents ended early"))??;
            // The reader may have ended: then nobody wants the buffer.
            let _ = self.spare.send(std::mem::replace(&mut self.current, batch));
            self.next = 0;
        }
        let Some(piece) = self.current.pieces.get(self.next).copied().filter(|piece| piece.node == node) else {
            return Err(Error::new("file contents arrived in another order than the files"));
        };
        take(piece, self.current.data(piece))?;
        self.next += 1;
        Ok(piece.len as u64)
    }
}

/// Runs `body` with a feed of all regular files' contents, each node once, in the order of the tree's walk.
///
/// # Errors
/// What `body` returns.
pub(crate) fn with_feed<T, E: From<Error>>(
    tree: &Tree,
    inputs: &[Input],
    body: impl FnOnce(&mut Feed) -> Result<T, E>,
) -> Result<T, E> {
    thread::scope(|scope| {
        // The bound on buffers bounds the queue.
        let (batch_sender, batches) = sync_channel(BUFFERS);
        let (spare, spare_receiver) = channel();
        for _ in 0..BUFFERS {
            let _ = spare.send(Batch::default());
        }
        let filler = Filler {
            inputs,
            batches: batch_sender,
            spare: spare_receiver,
            batch: Batch::default(),
            path: Vec::new(),
            directory: None,
        };
        thread::Builder::new()
            .name("read contents".to_owned())
            .spawn_scoped(scope, move || filler.run(tree))
            .map_err(|error| Error::new(format_args!("cannot start a thread: {error}")))?;
        let mut feed = Feed { batches, spare, current: Batch::default(), next: 0 };
        body(&mut feed)
    })
}

struct Filler<'a> {
    inputs: &'a [Input],
    batches: SyncSender<Result<Batch, Error>>,
    spare: Receiver<Batch>,
    batch: Batch,
    /// The directory where the walk is, from the root of the tree on.
    path: Vec<u8>,
    /// The same on the host, of this input.
    directory: Option<(u32, OwnedFd)>,
}

/// Why the filler stops.
enum Stop {
    /// The other side went away, after an error of its own.
    Unwanted,
    Failed(Error),
}

impl Filler<'_> {
    fn run(mut self, tree: &Tree) {
        if let Err(Stop::Failed(error)) = self.fill(tree) {
            // If nobody listens, another error is being reported.
            let _ = self.batches.send(Err(error));
        }
    }

    fn fill(&mut self, tree: &Tree) -> Result<(), Stop> {
        self.batch.buffer = vec![0; BUFFER];
        let mut seen = vec![false; tree.len()];
        for step in tree.walk() {
            match step {
                Step::Root => {}
                Step::Leave(_) => {
                    let above = self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    self.path.truncate(above);
                    self.directory = None;
                }
                Step::Name { name, id } => match &tree.node(id).body {
                    Body::Directory(_) => {
                        self.path.push(b'/');
                        self.path.extend_from_slice(name);
                        self.directory = None;
                    }
                    // Further names of the same file bring no contents again.
                    Body::Regular(content)
                        if seen.get_mut(id.index()).is_some_and(|seen| !std::mem::replace(seen, true)) =>
                    {
                        self.file(id, name, content)?;
                    }
                    _ => {}
                },
            }
        }
        self.send()
    }

    fn file(&mut self, node: NodeId, name: &[u8], content: &Content) -> Result<(), Stop> {
        let mut segments = content.segments().peekable();
        let Some(first) = segments.peek() else {
            return Ok(());
        };
        // A file that fits a buffer is not spread over two.
        if first.len <= BUFFER as u64 && first.len > (BUFFER - self.batch.used) as u64 {
            self.send()?;
        }
        let source = self.open(name, &content.origin).map_err(Stop::Failed)?;
        for segment in segments {
            let mut done = 0;
            while done < segment.len {
                if self.batch.used == BUFFER {
                    self.send()?;
                }
                let start = self.batch.used;
                let len = (segment.len - done).min((BUFFER - start) as u64) as usize;
                let room = self.batch.buffer.get_mut(start..start + len).unwrap_or_default();
                let read = source.read(room, segment.source + done);
                read.map_err(|error| Stop::Failed(self.explain(name, &content.origin, &error)))?;
                self.batch.pieces.push(Piece { node, offset: segment.offset + done, start, len });
                self.batch.used += len;
                done += len as u64;
            }
        }
        Ok(())
    }

    /// Sends the batch off, if there is anything in it, and takes a spare one.
    fn send(&mut self) -> Result<(), Stop> {
        if self.batch.pieces.is_empty() {
            return Ok(());
        }
        let mut next = self.spare.recv().map_err(|_| Stop::Unwanted)?;
        next.buffer.resize(BUFFER, 0);
        next.pieces.clear();
        next.used = 0;
        let full = std::mem::replace(&mut self.batch, next);
        self.batches.send(Ok(full)).map_err(|_| Stop::Unwanted)
    }
}

impl<'a> Filler<'a> {
    fn open(&mut self, name: &[u8], origin: &Origin) -> Result<Source<'a>, Error> {
        // The file was regular when the tree was read; if it is a link or a pipe by now, neither follow nor wait.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = match (origin, self.input(origin)) {
            (Origin::Place(number), Some(Input::Directory(root))) => {
                if self.directory.as_ref().is_none_or(|(of, _)| of != number) {
                    let path = root.join(relative(&self.path));
                    let directory =
                        fcntl::open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
                    let directory = directory.map_err(|errno| Error::io("open", &path, &errno.into()))?;
                    self.directory = Some((*number, directory));
                }
                let Some((_, directory)) = &self.directory else { return Err(missing()) };
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
            Err(errno) => Err(Error::io("open", &self.host_path(name, origin), &errno.into())),
        }
    }

    fn input(&self, origin: &Origin) -> Option<&'a Input> {
        let (Origin::Place(number) | Origin::Host(number, _) | Origin::Archive(number) | Origin::Image(number, _)) =
            origin;
        self.inputs.get(*number as usize)
    }

    /// Where contents come from, for messages.
    fn host_path(&self, name: &[u8], origin: &Origin) -> PathBuf {
        match (self.input(origin), origin) {
            (Some(Input::Directory(root)), Origin::Host(_, below)) => root.join(OsStr::from_bytes(below)),
            (Some(Input::Directory(root)), _) => root.join(relative(&self.path)).join(OsStr::from_bytes(name)),
            (Some(Input::Archive(archive)), _) => archive.path.clone(),
            _ => PathBuf::from(OsStr::from_bytes(name)),
        }
    }

    fn explain(&self, name: &[u8], origin: &Origin, failure: &Failure) -> Error {
        let path = self.host_path(name, origin);
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
enum Failure {
    Image(Error),
    /// The file has become shorter.
    Short {
        len: usize,
        offset: u64,
    },
    Host(io::Error),
}

/// An open file or archive to read contents from.
enum Source<'a> {
    Host(File),
    Archive(&'a ArchiveFile),
    Image(&'a ImageSource, u32),
}

impl Source<'_> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
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
