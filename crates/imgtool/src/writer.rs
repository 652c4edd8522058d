//! Writes carried to the host by a thread of its own, in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use ext4::IoError;

/// Buffers on their way at most: whoever writes faster than the host waits.
const WAITING: usize = 4;

/// A file that is written behind the caller's back.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Signalled at each change of the queue; both sides wait on it.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(u64, Vec<u8>)>,
    /// A job has been taken and is being written.
    busy: bool,
    /// Used buffers go back: fresh ones would cost their page faults again.
    spare: Vec<Vec<u8>>,
    /// The first failure; nothing is written after it.
    error: Option<IoError>,
    closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change of the queue is complete in itself.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, file: &File) {
        let mut queue = self.queue();
        loop {
            let Some((offset, data)) = queue.jobs.pop_front() else {
                if queue.closed {
                    return;
                }
                queue = self.wait(queue);
                continue;
            };
            queue.busy = true;
            let failed = queue.error.is_some();
            drop(queue);
            let result = if failed { Ok(()) } else { file.write_all_at(&data, offset) };
            queue = self.queue();
            queue.busy = false;
            queue.spare.push(data);
            if let Err(error) = result {
                queue.error.get_or_insert(crate::device::io_error(&error));
            }
            self.changed.notify_all();
        }
    }
}

impl Writer {
    /// Starts the thread that writes to `file`.
    ///
    /// # Errors
    /// The host has no thread to give.
    pub(crate) fn start(file: File) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("write image".to_owned()).spawn(move || its.run(&file))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has `data` written at `offset`, sooner or later; returns an empty buffer to go on with.
    ///
    /// # Errors
    /// An earlier write failed.
    pub(crate) fn write(&self, offset: u64, data: Vec<u8>) -> Result<Vec<u8>, IoError> {
        let mut queue = self.shared.queue();
        while queue.jobs.len() >= WAITING {
            queue = self.shared.wait(queue);
        }
        if let Some(error) = queue.error {
            return Err(error);
        }
        queue.jobs.push_back((offset, data));
        let mut next = queue.spare.pop().unwrap_or_default();
        next.clear();
        self.shared.changed.notify_all();
        Ok(next)
    }

    /// Waits until all has been handed to the host.
    ///
    /// # Errors
    /// A write failed.
    pub(crate) fn drain(&self) -> Result<(), IoError> {
        let mut queue = self.shared.queue();
        while queue.busy || !queue.jobs.is_empty() {
            queue = self.shared.wait(queue);
        }
        queue.error.map_or(Ok(()), Err)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic in it has been reported.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_is_told_to_the_next_caller() {
        // Not open for writing.
        let writer = Writer::start(File::open("/dev/null").unwrap()).unwrap();
        let _ = writer.write(0, vec![1]);
        assert_eq!(writer.drain(), Err(IoError { errno: nix::libc::EBADF }));
        assert_eq!(writer.write(0, vec![1]), Err(IoError { errno: nix::libc::EBADF }));
    }
}
