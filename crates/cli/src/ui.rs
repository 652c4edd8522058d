//! How the command talks: colours, logging, standard output.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::error::CliError;

/// The one set of styles, for clap's help and for our own messages. anstream drops them where the stream is no
/// terminal or NO_COLOR is set.
pub(crate) const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default())
    .error(AnsiColor::Red.on_default().effects(Effects::BOLD))
    .valid(AnsiColor::Green.on_default())
    .invalid(AnsiColor::Yellow.on_default());

/// Sends log events to standard error as the filter in UMLFS_LOG says; without it only warnings.
///
/// # Errors
/// The filter does not parse.
pub(crate) fn init_logging() -> Result<(), CliError> {
    let filter = match std::env::var("UMLFS_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            CliError::usage(format_args!("UMLFS_LOG=`{text}` is no log filter: {error}"))
                .hint("use a level (error, warn, info, debug, trace) or a list such as `imgtool=debug,umkernel=trace`")
        })?,
        _ => EnvFilter::new("warn"),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(true)
        .init();
    Ok(())
}

/// Runs `body` with a buffered standard output and flushes it, so that a full disk or a closed pipe is noticed.
///
/// # Errors
/// What `body` returns, or the failed write.
pub(crate) fn with_stdout(body: impl FnOnce(&mut dyn Write) -> Result<(), CliError>) -> Result<(), CliError> {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    body(&mut out)?;
    out.flush().map_err(|error| CliError::output(&error))
}

/// A progress bar on standard error. It shows only when the work takes longer than a second; where standard error is
/// no terminal, plain lines tell instead, one every five seconds.
pub(crate) struct Bar {
    what: &'static str,
    started: Instant,
    shown: Option<ProgressBar>,
    lines: u64,
}

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, started: Instant::now(), shown: None, lines: 0 }
    }

    /// `done` of `total`, in any unit.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        const PATIENCE: Duration = Duration::from_secs(1);
        const LINE_EVERY: u64 = 5;
        let elapsed = self.started.elapsed();
        if !std::io::stderr().is_terminal() {
            let due = elapsed.as_secs() / LINE_EVERY;
            if due > self.lines {
                self.lines = due;
                let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
                // Nobody is left to tell when standard error is gone.
                let _ = writeln!(std::io::stderr(), "{}: {percent} % after {} s", self.what, elapsed.as_secs());
            }
            return;
        }
        if self.shown.is_none() && elapsed > PATIENCE {
            let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent} % {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            self.shown = Some(ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(self.what));
        }
        if let Some(bar) = &self.shown {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}
