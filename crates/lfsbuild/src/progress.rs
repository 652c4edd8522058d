//! What a build tells while it runs, and the ways to show it.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::suite::TestResult;

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The plan is known.
    Planned {
        /// Steps of the plan.
        total: usize,
        /// Those that are to be built now.
        to_build: usize,
        /// How long that may take.
        estimate: Duration,
    },
    /// A source is being fetched.
    FetchStarted {
        /// Its file name.
        file: &'a str,
        /// The host, or `Debian`.
        from: &'a str,
    },
    /// Some of it came.
    FetchProgress {
        /// Its file name.
        file: &'a str,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, when the server said so.
        total: Option<u64>,
    },
    /// It is there and verified.
    FetchFinished {
        /// Its file name.
        file: &'a str,
    },
    /// A step starts.
    StepStarted {
        /// The step.
        step: &'a str,
        /// How long it may take.
        estimate: Duration,
    },
    /// A step goes to its next phase.
    Phase {
        /// The step.
        step: &'a str,
        /// The phase.
        phase: &'a str,
    },
    /// A step's test suite has been run.
    Tested {
        /// The step.
        step: &'a str,
        /// How it went.
        result: &'a TestResult,
    },
    /// A step is done.
    StepFinished {
        /// The step.
        step: &'a str,
        /// How long it took.
        elapsed: Duration,
    },
    /// A step failed; the error comes at the end.
    StepFailed {
        /// The step.
        step: &'a str,
    },
    /// A line to tell.
    Note(&'a str),
    /// Nothing more will come.
    Finished,
}

/// Where events go. Called from several threads.
pub trait Progress: Sync {
    /// Takes an event.
    fn event(&self, event: Event<'_>);
}

/// Says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _: Event<'_>) {}
}

/// Bars when standard error is a terminal, else lines.
pub fn for_stderr() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() { Box::new(Bars::new()) } else { Box::new(Lines) }
}

/// `1:05` or `12 s`.
fn duration(d: Duration) -> String {
    let seconds = d.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m}:{s:02}"),
        (h, m, s) => format!("{h}:{m:02}:{s:02}"),
    }
}

fn plan_line(total: usize, to_build: usize, estimate: Duration) -> String {
    match to_build {
        0 => format!("all {total} steps are finished"),
        n => format!("{n} of {total} steps to build, about {}", duration(estimate)),
    }
}

/// One line for each event, for logs and pipes.
#[derive(Debug, Clone, Copy)]
pub struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event<'_>) {
        let line = match event {
            Event::Planned { to_build: 0, .. }
            | Event::FetchProgress { .. }
            | Event::FetchFinished { .. }
            | Event::Finished => return,
            Event::Planned { total, to_build, estimate } => plan_line(total, to_build, estimate),
            Event::FetchStarted { file, from } => format!("fetch  {file} from {from}"),
            Event::StepStarted { step, estimate } => {
                format!("start  {step} (about {})", duration(estimate))
            }
            Event::Tested { step, result } => format!("tested {step}: {result}"),
            Event::Phase { step, phase } => format!("       {step}: {phase}"),
            Event::StepFinished { step, elapsed } => {
                format!("done   {step} ({})", duration(elapsed))
            }
            Event::StepFailed { step } => format!("FAILED {step}"),
            Event::Note(text) => text.to_owned(),
        };
        // Where nobody reads any more there is nobody to tell.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// A line for each running step and a bar for the whole.
pub struct Bars {
    multi: MultiProgress,
    state: Arc<Mutex<BarsState>>,
}

#[derive(Default)]
struct BarsState {
    overall: Option<ProgressBar>,
    /// Steps finished, and to be built in all.
    counts: (usize, usize),
    /// Running steps: line and estimate.
    running: HashMap<String, (ProgressBar, Duration)>,
    fetches: HashMap<String, ProgressBar>,
    /// Estimates of the finished steps, and of all, in seconds.
    finished: f64,
    total: f64,
}

/// How often the whole's bar moves on.
const TICK: Duration = Duration::from_millis(250);

impl Bars {
    fn new() -> Self {
        let state = Arc::new(Mutex::new(BarsState::default()));
        let seen = Arc::downgrade(&state);
        // Ends when the bars are gone.
        std::thread::spawn(move || {
            while let Some(state) = seen.upgrade() {
                state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).move_on();
                drop(state);
                std::thread::sleep(TICK);
            }
        });
        Bars { multi: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), state }
    }

    fn say(&self, line: &str) {
        let _ = self.multi.println(line);
    }
}

impl BarsState {
    /// Moves the whole's bar to where the finished steps and the running ones' time put it.
    fn move_on(&mut self) {
        let Some(bar) = &self.overall else { return };
        // A step that takes longer than expected stands at its end until it is there.
        let running: f64 =
            self.running.values().map(|(line, estimate)| line.elapsed().min(*estimate).as_secs_f64()).sum();
        let done = self.finished + running;
        bar.set_position((done * 1000.0) as u64);
        let left = time_left(bar.elapsed().as_secs_f64(), done, self.total);
        bar.set_prefix(format!("about {} left", duration(Duration::try_from_secs_f64(left).unwrap_or_default())));
    }
}

/// Seconds until `total` is done, when `done` of it took `elapsed`. In the beginning the estimates alone tell.
fn time_left(elapsed: f64, done: f64, total: f64) -> f64 {
    let left = (total - done).max(0.0);
    if elapsed < 5.0 || done < 1.0 { left } else { left * elapsed / done }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Planned { to_build: 0, .. } => {}
            Event::Planned { total, to_build, estimate } => {
                self.say(&plan_line(total, to_build, estimate));
                // Measured by the steps' estimates, so that a long step counts for more than a short one.
                let bar = self.multi.add(ProgressBar::new(estimate.as_millis().max(1) as u64));
                bar.set_style(style("  {msg:<31} [{bar:30}] {elapsed_precise}, {prefix}").progress_chars("=> "));
                bar.set_message(format!("0 of {to_build} steps"));
                bar.enable_steady_tick(Duration::from_millis(200));
                state.overall = Some(bar);
                state.counts = (0, to_build);
                state.finished = 0.0;
                state.total = estimate.as_secs_f64();
                state.move_on();
            }
            Event::FetchStarted { file, from } => {
                let bar = self.multi.insert(0, ProgressBar::no_length());
                bar.set_style(style("  {spinner} fetch {msg} {bytes}"));
                bar.set_message(format!("{file} from {from}"));
                bar.enable_steady_tick(Duration::from_millis(200));
                if let Some(old) = state.fetches.insert(file.to_owned(), bar) {
                    old.finish_and_clear();
                }
            }
            Event::FetchProgress { file, done, total } => {
                if let Some(bar) = state.fetches.get(file) {
                    if let Some(total) = total
                        && bar.length().is_none()
                    {
                        bar.set_length(total);
                        bar.set_style(style("  {spinner} fetch {msg} {bytes}/{total_bytes} {bytes_per_sec}"));
                    }
                    bar.set_position(done);
                }
            }
            Event::FetchFinished { file } => {
                if let Some(bar) = state.fetches.remove(file) {
                    bar.finish_and_clear();
                }
            }
            Event::StepStarted { step, estimate } => {
                let bar = self.multi.insert(0, ProgressBar::new_spinner());
                let about = duration(estimate);
                bar.set_style(style(&format!(
                    "  {{spinner}} {{prefix:<28}} {{msg:<12}} {{elapsed_precise}} of about {about}"
                )));
                bar.set_prefix(step.to_owned());
                bar.set_message("sources");
                bar.enable_steady_tick(Duration::from_millis(200));
                state.running.insert(step.to_owned(), (bar, estimate));
            }
            Event::Phase { step, phase } => {
                if let Some((bar, _)) = state.running.get(step) {
                    bar.set_message(phase.to_owned());
                }
            }
            Event::Tested { step, result } => self.say(&format!("  tested {step}: {result}")),
            Event::StepFinished { step, elapsed } => {
                if let Some((bar, estimate)) = state.running.remove(step) {
                    bar.finish_and_clear();
                    state.finished += estimate.as_secs_f64();
                }
                self.say(&format!("  done {step} ({})", duration(elapsed)));
                state.counts.0 += 1;
                if let Some(bar) = &state.overall {
                    bar.set_message(format!("{} of {} steps", state.counts.0, state.counts.1));
                }
            }
            Event::StepFailed { step } => {
                if let Some((bar, _)) = state.running.remove(step) {
                    bar.finish_and_clear();
                }
                self.say(&format!("  FAILED {step}"));
            }
            Event::Note(text) => self.say(text),
            Event::Finished => {
                for (_, bar) in state.fetches.drain() {
                    bar.finish_and_clear();
                }
                for (_, (bar, _)) in state.running.drain() {
                    bar.finish_and_clear();
                }
                if let Some(bar) = state.overall.take() {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_measured_speed() {
        assert_eq!(time_left(1.0, 0.5, 60.0), 59.5);
        assert_eq!(time_left(20.0, 10.0, 60.0), 100.0);
        assert_eq!(time_left(20.0, 70.0, 60.0), 0.0);
    }

    #[test]
    fn durations() {
        assert_eq!(duration(Duration::from_millis(12_400)), "12 s");
        assert_eq!(duration(Duration::from_secs(65)), "1:05");
        assert_eq!(duration(Duration::from_secs(3_725)), "1:02:05");
    }
}
