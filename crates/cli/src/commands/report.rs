//! `umlfs report`: how a system was built, as one HTML file.

use std::path::PathBuf;

use super::build::{ProfileArgs, report};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs report                                   writes umlfs-report.html
  umlfs report --profile lfs-temporary --out lfs.html";

/// Write how a system was built as one HTML file: timeline, SBUs, critical path, sizes
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,

    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "umlfs-report.html")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let builder = args.profile.open()?;
    lfsbuild::report::write(&builder, &args.out).map_err(report)?;
    ui::with_stdout(|w| writeln!(w, "{}", args.out.display()).map_err(|error| CliError::output(&error)))?;
    Ok(0)
}
