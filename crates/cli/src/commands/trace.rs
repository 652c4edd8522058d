//! Options that show the guests' system calls.

use std::path::PathBuf;

use umkernel::machine::launch::{Target, TraceConfig};
use umkernel::trace::{CallFilter, Clock, Options, Style, TaskFilter};

use crate::error::CliError;

/// What is traced, how, and where to.
#[derive(clap::Args)]
#[command(next_help_heading = "Trace")]
pub(crate) struct TraceArgs {
    /// Show every system call of the guests as strace does, on standard error or in FILE; `explain` (or `explain:FILE`) tells
    /// in words what happens at each
    #[arg(long, value_name = "FILE|explain", num_args = 0..=1, require_equals = true)]
    trace: Option<Option<String>>,

    /// Only these calls: names and %families (file desc memory process signal ipc network time creds system), `!` takes
    /// away, as in open,%file,!read
    #[arg(long, value_name = "LIST", requires = "trace", value_parser = CallFilter::parse)]
    trace_calls: Option<CallFilter>,

    /// Only these processes, by their ids in the guest
    #[arg(long, value_name = "PIDS", requires = "trace")]
    trace_pid: Option<String>,

    /// Only processes of these names, as ps shows them
    #[arg(long, value_name = "NAMES", requires = "trace")]
    trace_comm: Option<String>,

    /// Begin each line with the time: seconds since boot, or since 1970
    #[arg(long, value_name = "CLOCK", requires = "trace")]
    trace_time: Option<TraceClock>,

    /// End each line with the time that the call took
    #[arg(long, requires = "trace")]
    trace_durations: bool,

    /// Bytes shown of each string
    #[arg(long, value_name = "N", requires = "trace", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    trace_strings: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum TraceClock {
    Boot,
    Epoch,
}

impl TraceArgs {
    /// Whether a trace is asked for.
    pub(crate) fn is_given(&self) -> bool {
        self.trace.is_some()
    }

    /// What to hand to the machine; makes the trace's file.
    pub(crate) fn config(&self) -> Result<Option<TraceConfig>, CliError> {
        let Some(target) = &self.trace else { return Ok(None) };
        let (style, file) = match target.as_deref() {
            None => (Style::Lines, None),
            Some("explain") => (Style::Explain, None),
            Some(text) => match text.strip_prefix("explain:") {
                Some(file) => (Style::Explain, Some(file)),
                None => (Style::Lines, Some(text)),
            },
        };
        if file == Some("") {
            return Err(CliError::usage("--trace= names no file").hint("--trace alone writes to standard error"));
        }
        let mut tasks = TaskFilter::default();
        if let Some(list) = &self.trace_pid {
            tasks.add_pids(list).map_err(|e| CliError::usage(format!("--trace-pid: {e}")))?;
        }
        if let Some(list) = &self.trace_comm {
            tasks.add_comms(list);
        }
        let options = Options {
            style,
            clock: match self.trace_time {
                None => Clock::None,
                Some(TraceClock::Boot) => Clock::SinceBoot,
                Some(TraceClock::Epoch) => Clock::Epoch,
            },
            durations: self.trace_durations,
            calls: self.trace_calls.unwrap_or_default(),
            tasks,
            string_limit: self.trace_strings as usize,
        };
        let config = TraceConfig { options, target: Target { file: file.map(PathBuf::from) } };
        config.target.create_file().map_err(CliError::failed)?;
        Ok(Some(config))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        trace: TraceArgs,
    }

    fn parse(words: &[&str]) -> Result<Option<TraceConfig>, String> {
        let words = std::iter::once("umlfs").chain(words.iter().copied());
        let line = Line::try_parse_from(words).map_err(|e| e.to_string())?;
        line.trace.config().map_err(|e| e.to_string())
    }

    #[test]
    fn the_target_tells_the_style() -> Result<(), String> {
        assert!(parse(&[])?.is_none());
        let lines = parse(&["--trace"])?.ok_or("no trace")?;
        assert_eq!((lines.options.style, lines.target.file), (Style::Lines, None));
        let explain = parse(&["--trace=explain", "--trace-comm=cat", "--trace-calls=%file"])?.ok_or("no trace")?;
        assert_eq!((explain.options.style, explain.target.file), (Style::Explain, None));
        assert_eq!(explain.options.tasks.comms, ["cat"]);
        Ok(())
    }

    #[test]
    fn wrong_words_are_refused() {
        assert!(parse(&["--trace", "--trace-calls=opne"]).is_err_and(|e| e.contains("opne")));
        assert!(parse(&["--trace", "--trace-pid=x"]).is_err_and(|e| e.contains("\"x\"")));
        assert!(parse(&["--trace-pid=1"]).is_err_and(|e| e.contains("--trace")));
        assert!(parse(&["--trace=/nonexistent/dir/file"]).is_err_and(|e| e.contains("/nonexistent/dir/file")));
    }
}
