//! File contents copied into an image by threads of their own, each file to the place that it was given.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::Error;
use crate::contents::{Input, Opener, Source};
use crate::device::is_zero;
use crate::tree::Origin;

/// Size of a thread's buffer in bytes: what lies side by side in the image is written at once, and the buffer stays in
/// the processor's cache.
const BUFFER: usize = 512 * 1024;
/// A job is handed over once it has so many bytes or parts; long parts are cut.
const JOB_BYTES: u64 = 2 << 20;
const JOB_PARTS: usize = 256;
/// Jobs waiting at most.
const WAITING: usize = 8;
/// How often the end is looked for, to tell progress.
const LOOK: Duration = Duration::from_millis(50);

/// A run of bytes to copy.
struct Part<'t> {
    /// The directory in the tree.
    directory: Arc<[u8]>,
    name: &'t [u8],
    origin: &'t Origin,
    /// Offset in the origin.
    source: u64,
    /// Offset in the image.
    to: u64,
    len: u64,
}

/// The giving end.
pub(crate) struct Copiers<'s, 't> {
    shared: &'s Shared,
    jobs: Option<SyncSender<Vec<Part<'t>>>>,
    job: Vec<Part<'t>>,
    bytes: u64,
}

#[derive(Default)]
struct Shared {
    /// Bytes copied.
    done: AtomicU64,
    /// Threads at work, and the first failure.
    state: Mutex<(usize, Option<Error>)>,
    /// Signalled when a thread ends.
    ended: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, (usize, Option<Error>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'t> Copiers<'_, 't> {
    /// Has `len` bytes copied from byte `source` of the origin to byte `to` of the image, sooner or later. Parts are
    /// written together if they are given in the order in which they lie in the image.
    ///
    /// # Errors
    /// An earlier copy failed.
    pub(crate) fn copy(
        &mut self,
        directory: &Arc<[u8]>,
        name: &'t [u8],
        origin: &'t Origin,
        (mut source, mut to, mut len): (u64, u64, u64),
    ) -> Result<(), Error> {
        while len > 0 {
            let now = len.min(JOB_BYTES);
            self.job.push(Part { directory: Arc::clone(directory), name, origin, source, to, len: now });
            self.bytes += now;
            (source, to, len) = (source + now, to + now, len - now);
            if self.bytes >= JOB_BYTES || self.job.len() >= JOB_PARTS {
                self.send()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        if let Some(error) = self.shared.state().1.take() {
            return Err(error);
        }
        let job = std::mem::replace(&mut self.job, Vec::with_capacity(JOB_PARTS));
        self.bytes = 0;
        match &self.jobs {
            Some(jobs) if jobs.send(job).is_ok() => Ok(()),
            _ => Err(Error::new("the threads that copy file contents ended early")),
        }
    }

    /// Bytes copied so far.
    pub(crate) fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits until all is copied; `look` is called now and then.
    ///
    /// # Errors
    /// A copy failed.
    pub(crate) fn finish(&mut self, mut look: impl FnMut(u64)) -> Result<(), Error> {
        self.send()?;
        self.jobs = None;
        let mut state = self.shared.state();
        while state.0 > 0 {
            let waited = self.shared.ended.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            look(self.done());
        }
        state.1.take().map_or(Ok(()), Err)
    }
}

/// Runs `body` with threads that copy contents of `inputs` into `image`, of blocks of `block_size` bytes. They end with it; [`Copiers::finish`] says
/// whether all went well.
///
/// # Errors
/// What `body` returns; or the host has no thread to give.
pub(crate) fn with_copiers<'t, T, E: From<Error>>(
    inputs: &'t [Input],
    image: &File,
    block_size: u64,
    body: impl FnOnce(&mut Copiers<'_, 't>) -> Result<T, E>,
) -> Result<T, E> {
    // One more than processors: while one waits for its turn to write, another reads.
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4) + 1;
    let turn = Mutex::new(());
    let shared = Shared::default();
    thread::scope(|scope| {
        let (sender, jobs) = sync_channel(WAITING);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let (jobs, shared, turn) = (Arc::clone(&jobs), &shared, &turn);
            shared.state().0 += 1;
            let worker = move || {
                let (opener, buffer) = (Opener::new(inputs), vec![0; BUFFER]);
                let mut copier = Copier { image, turn, opener, block_size, buffer, start: 0, used: 0 };
                copier.run(&jobs, shared);
                shared.state().0 -= 1;
                shared.ended.notify_all();
            };
            if let Err(error) = thread::Builder::new().name("copy contents".to_owned()).spawn_scoped(scope, worker) {
                shared.state().0 -= 1;
                return Err(Error::new(format_args!("cannot start a thread: {error}")).into());
            }
        }
        drop(jobs);
        body(&mut Copiers { shared: &shared, jobs: Some(sender), job: Vec::new(), bytes: 0 })
    })
}

/// One thread's work.
struct Copier<'a> {
    image: &'a File,
    /// Held while writing: the host lets one thread at a time write to a file, and has the others spin.
    turn: &'a Mutex<()>,
    opener: Opener<'a>,
    /// Of the image: parts closer than a block to each other have nothing between them but their own blocks' ends.
    block_size: u64,
    buffer: Vec<u8>,
    /// Where in the image the buffer's bytes go, and how many there are.
    start: u64,
    used: usize,
}

impl Copier<'_> {
    fn run(&mut self, jobs: &Mutex<Receiver<Vec<Part<'_>>>>, shared: &Shared) {
        let mut failed = false;
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            // After a failure jobs are taken, so that nobody waits, but not done.
            if failed {
                continue;
            }
            if let Err(error) = self.copy_all(&job).and_then(|()| self.write_out()) {
                shared.state().1.get_or_insert(error);
                failed = true;
            }
            let bytes: u64 = job.iter().map(|part| part.len).sum();
            shared.done.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn copy_all(&mut self, job: &[Part<'_>]) -> Result<(), Error> {
        let mut source: Option<(&Part<'_>, Source<'_>)> = None;
        for part in job {
            let same = |of: &Part<'_>| std::ptr::eq(of.origin, part.origin) && std::ptr::eq(of.name, part.name);
            let open = match source.take().filter(|(of, _)| same(of)) {
                Some((_, open)) => open,
                None => self.opener.open(&part.directory, part.name, part.origin)?,
            };
            self.copy(part, &open)?;
            source = Some((part, open));
        }
        Ok(())
    }

    fn copy(&mut self, part: &Part<'_>, source: &Source<'_>) -> Result<(), Error> {
        let mut done = 0;
        while done < part.len {
            let to = part.to + done;
            let mut gap = to.wrapping_sub(self.start + self.used as u64);
            if self.used == 0 || gap >= self.block_size || self.used + gap as usize >= BUFFER {
                self.write_out()?;
                (self.start, gap) = (to, 0);
            }
            // A short rest of room is no place for a file that could be whole.
            let begin = self.used + gap as usize;
            let left = part.len - done;
            if left > (BUFFER - begin) as u64 && left <= BUFFER as u64 {
                self.write_out()?;
                self.start = to;
                continue;
            }
            let len = left.min((BUFFER - begin) as u64) as usize;
            self.buffer.get_mut(self.used..begin).unwrap_or_default().fill(0);
            let room = self.buffer.get_mut(begin..begin + len).unwrap_or_default();
            let read = source.read(room, part.source + done);
            read.map_err(|failure| self.opener.explain(&part.directory, part.name, part.origin, &failure))?;
            if is_zero(self.buffer.get(begin..begin + len).unwrap_or_default()) {
                // The image is new: it stays a hole.
                self.write_out()?;
            } else {
                self.used = begin + len;
            }
            done += len as u64;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), Error> {
        let bytes = self.buffer.get(..self.used).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        self.used = 0;
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.image.write_all_at(bytes, self.start);
        drop(turn);
        written.map_err(|error| Error::new(format_args!("cannot write file contents into the image: {error}")))
    }
}
