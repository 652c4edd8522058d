//! File contents in order, read ahead by a second thread: while one core writes the image, the other opens and reads.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use crate::Error;
use crate::contents::{Input, Opener};
use crate::tree::{Body, Content, NodeId, Step, Tree};

/// Size of a buffer in bytes: large enough that a file's blocks are allocated in one go, small enough for the cache.
const BUFFER: usize = 1 << 20;
/// Buffers in flight.
const BUFFERS: usize = 3;

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
            opener: Opener::new(inputs),
            batches: batch_sender,
            spare: spare_receiver,
            batch: Batch::default(),
            path: Vec::new(),
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
    opener: Opener<'a>,
    batches: SyncSender<Result<Batch, Error>>,
    spare: Receiver<Batch>,
    batch: Batch,
    /// The directory where the walk is, from the root of the tree on.
    path: Vec<u8>,
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
                Step::Leave => {
                    let above = self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    self.path.truncate(above);
                }
                Step::Name { name, id } => match &tree.node(id).body {
                    Body::Directory(_) => {
                        self.path.push(b'/');
                        self.path.extend_from_slice(name);
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
        let source = self.opener.open(&self.path, name, &content.origin).map_err(Stop::Failed)?;
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
                read.map_err(|error| Stop::Failed(self.opener.explain(&self.path, name, &content.origin, &error)))?;
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
