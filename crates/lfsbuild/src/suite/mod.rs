//! `umlfs build --test`: packages' own test suites.
//!
//! A stage's `test` runs when its package has been made, in the tree that was built and in a sandbox of the same kind: so it cannot
//! change the package, which is the same to the byte with and without tests, and has the same key.

mod count;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::Step;
use crate::progress::Event;
use crate::recipe::Stage;
use crate::step::{Context, Ended, Prepared};
use count::Counter;

/// The name under which a stage's `test` runs as a phase.
pub(crate) const PHASE: &str = "test";

/// Name of a suite's output, beside the package.
pub const LOG: &str = "test.log";

/// Whether suites are run, and what a failing one means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    /// Results are recorded.
    Record,
    /// A step whose suite fails has failed.
    Strict,
}

/// Test cases, as far as the suite's output tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// They did what was expected.
    pub passed: u64,
    /// They failed, or passed where failure was expected.
    pub failed: u64,
    /// They were not run.
    pub skipped: u64,
    /// They failed, as was expected.
    pub xfailed: u64,
}

/// How a package's own test suite went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Its test cases; all zero where the output tells none.
    #[serde(flatten)]
    pub counts: Counts,
    /// Whether its commands ended well.
    pub good: bool,
    /// How they ended (`exit status 2`).
    pub status: String,
    /// How long they ran, in seconds.
    pub seconds: f64,
}

impl std::fmt::Display for TestResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { passed, failed, skipped, xfailed } = self.counts;
        if self.counts == Counts::default() {
            return f.write_str(&self.status);
        }
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")?;
        if xfailed > 0 {
            write!(f, ", {xfailed} failed as expected")?;
        }
        if self.good { Ok(()) } else { write!(f, " ({})", self.status) }
    }
}

/// A suite that has been run.
pub(crate) struct Tested {
    pub(crate) result: TestResult,
    pub(crate) ended: Ended,
    /// Where its output begins in the step's.
    pub(crate) begin: u64,
}

impl Context<'_> {
    /// Runs a stage's test suite in the tree of its finished step; none when it has none. Its output follows the step's in `log`, where
    /// one may be reading, and is copied from there to `kept`.
    pub(crate) fn test(
        &self,
        step: &Step,
        stage: &Stage,
        prepared: &Prepared,
        log: &Path,
        kept: &Path,
    ) -> Result<Option<Tested>> {
        let Some(text) = &stage.test else {
            return Ok(None);
        };
        let io = |e| Error::io("reading the test suite's output in", log, e);
        let mut spec = prepared.spec.clone();
        spec.phases = vec![(PHASE.to_owned(), text.value.clone())];
        let begin = log.metadata().map_err(io)?.len();
        let started = Instant::now();
        let ended = self.sandboxed(step, &spec, log)?;
        let seconds = started.elapsed().as_secs_f64();

        let mut file = File::open(log).map_err(io)?;
        file.seek(SeekFrom::Start(begin)).map_err(io)?;
        let write = |e| Error::io("writing", kept, e);
        let mut own = BufWriter::new(File::create(kept).map_err(write)?);
        let mut lines = BufReader::new(file);
        let (mut counter, mut line) = (Counter::default(), Vec::new());
        while lines.read_until(b'\n', &mut line).map_err(io)? > 0 {
            counter.line(&line);
            own.write_all(&line).map_err(write)?;
            line.clear();
        }
        own.flush().map_err(write)?;

        let (good, status) = (ended.exit.status.success(), ended.said());
        let result = TestResult { counts: counter.counts(), good, status, seconds };
        self.progress.event(Event::Tested { step: &step.name, result: &result });
        Ok(Some(Tested { result, ended, begin }))
    }
}
