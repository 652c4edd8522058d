//! `umlfs image`: disk images made and looked into without root.

use std::path::PathBuf;

use clap::Subcommand;

use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image info root.img";

/// Make disk images and look into them
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(InfoArgs),
}

const INFO_EXAMPLES: &str = "\
Examples:
  umlfs image info root.img";

/// Say what an image holds
#[derive(clap::Args)]
#[command(after_help = INFO_EXAMPLES)]
struct InfoArgs {
    /// The image
    image: PathBuf,
}

pub(crate) fn run(args: Args) -> CommandResult {
    match args.command {
        Command::Info(args) => info(&args),
    }
}

fn info(args: &InfoArgs) -> CommandResult {
    let kind = imgtool::identify(&args.image).map_err(report)?;
    kind.require_ext(&args.image).map_err(report)?;
    ui::with_stdout(|out| writeln!(out, "{kind}").map_err(|error| CliError::output(&error)))?;
    Ok(0)
}

fn report(error: imgtool::Error) -> CliError {
    let shown = CliError::chain(&error);
    match error.advice() {
        Some(advice) => shown.hint(advice),
        None => shown,
    }
}
