//! How the command talks: colours, logging, standard output.

use std::io::{IsTerminal, Write};

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
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
