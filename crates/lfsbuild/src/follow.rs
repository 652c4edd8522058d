//! `umlfs build --follow STEP`: a step's own output, as it comes.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::builder::{Builder, LOCK};
use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// How often the log is looked at for more.
const LOOK: Duration = Duration::from_millis(100);

/// Hands events on, and copies the log of one step to an output while the step runs.
pub struct Follow<'a> {
    inner: &'a dyn Progress,
    step: String,
    log: PathBuf,
    kept: PathBuf,
    /// Ends with the step.
    reader: Mutex<Option<JoinHandle<()>>>,
    over: std::sync::Arc<AtomicBool>,
}

impl std::fmt::Debug for Follow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("step", &self.step).field("log", &self.log).finish_non_exhaustive()
    }
}

impl<'a> Follow<'a> {
    /// Follows `step`, whose output goes to the file `log`, which becomes `kept` when it succeeds ([`crate::Builder::logs`]). What
    /// others are told goes to `inner`.
    pub fn new(inner: &'a dyn Progress, step: &str, (log, kept): (PathBuf, PathBuf)) -> Self {
        Follow {
            inner,
            step: step.to_owned(),
            log,
            kept,
            reader: Mutex::new(None),
            over: AtomicBool::new(false).into(),
        }
    }

    fn start(&self) {
        // What is there is of an earlier run. Where it cannot be removed the new run truncates it.
        let _ = std::fs::remove_file(&self.log);
        let (log, kept, over) = (self.log.clone(), self.kept.clone(), std::sync::Arc::clone(&self.over));
        let reader = std::thread::spawn(move || copy(&log, &kept, &over));
        *self.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reader);
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        if let Some(reader) = self.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            // It says nothing about how it ended; a closed output is no fault of the build's.
            let _ = reader.join();
        }
    }
}

impl Drop for Follow<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Progress for Follow<'_> {
    fn event(&self, event: Event<'_>) {
        self.inner.event(event);
        match event {
            Event::StepStarted { step, .. } if step == self.step => self.start(),
            Event::StepFinished { step, .. } | Event::StepFailed { step } if step == self.step => self.end(),
            Event::Finished => self.end(),
            _ => {}
        }
    }
}

/// How a step went that another builder has in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// It was finished there.
    Finished,
    /// It failed there.
    Failed,
    /// No other builder runs, or the one that ran ended without the step.
    Nobody,
}

/// Waits while another builder runs for it to come to `step`, and copies the step's output to standard output as it comes.
///
/// # Errors
/// There is no such step; the user interrupts.
pub fn beside(builder: &Builder, step: &str, progress: &dyn Progress) -> Result<Beside> {
    let key = &builder.plan.step(step)?.key;
    let (log, kept) = builder.logs(step)?;
    let mut told = false;
    loop {
        if builder.store.record(key).is_some() {
            if told {
                copy(&log, &kept, &AtomicBool::new(true));
            }
            return Ok(if told { Beside::Finished } else { Beside::Nobody });
        }
        let Some(owner) = builder.store.held(LOCK) else {
            return Ok(Beside::Nobody);
        };
        if cancelled() {
            return Err(Error::Interrupted);
        }
        if !told {
            told = true;
            progress.event(Event::Note(&format!("another umlfs ({owner}) is building: following {step} there")));
        }
        // A log appears when the step's phases begin; an older builder's is removed before.
        let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
        let fresh = changed(&log).is_some_and(|time| Some(time) >= changed(&builder.store.path().join(LOCK)));
        if fresh && builder.store.in_use(key) {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| copy(&log, &kept, &over));
                while builder.store.in_use(key) && builder.store.record(key).is_none() && !cancelled() {
                    std::thread::sleep(LOOK);
                }
                over.store(true, Ordering::Release);
            });
            let finished = builder.store.record(key).is_some();
            return if cancelled() {
                Err(Error::Interrupted)
            } else {
                Ok(if finished { Beside::Finished } else { Beside::Failed })
            };
        }
        std::thread::sleep(LOOK);
    }
}

fn reader(from: impl Read + 'static) -> Box<dyn Read> {
    Box::new(from)
}

/// Copies a growing file to standard output until `over` is set and all of it was read. The file may appear late, and have been
/// renamed to `kept` before it was seen.
fn copy(log: &Path, kept: &Path, over: &AtomicBool) {
    let mut file = None;
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Looked at first: what was written before it was set is still read below.
        let last = over.load(Ordering::Acquire);
        if file.is_none() {
            file = File::open(log).ok().map(reader);
            if file.is_none() && last {
                // The step's own output, and its tests'.
                let tests =
                    File::open(kept.with_file_name(crate::suite::LOG)).ok().map_or(reader(std::io::empty()), reader);
                file = File::open(kept).ok().map(|kept| reader(kept.chain(tests)));
            }
        }
        while let Some(n) = file.as_mut().and_then(|f| f.read(&mut buffer).ok()).filter(|n| *n > 0) {
            let mut out = std::io::stdout().lock();
            if out.write_all(buffer.get(..n).unwrap_or_default()).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
        if last {
            return;
        }
        std::thread::sleep(LOOK);
    }
}
