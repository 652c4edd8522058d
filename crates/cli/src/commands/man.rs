//! `umlfs man`: manual pages, generated from the command definition.

use std::path::PathBuf;

use clap::CommandFactory;

use crate::error::CliError;
use crate::{Cli, CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs man | man -l -                      read umlfs(1)
  umlfs man --out ~/.local/share/man/man1   install a page for each command; then: man umlfs-image";

/// Print the manual page, or write one for each command
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Write umlfs.1 and a page for each subcommand into DIR, which is made when missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let command = Cli::command();
    match &args.out {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(|error| CliError::output(&error))?;
            ui::with_stdout(|out| out.write_all(&page).map_err(|error| CliError::output(&error)))?;
        }
        Some(directory) => {
            std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory)).map_err(
                |error| {
                    CliError::failed(format_args!("cannot write manual pages into {}: {error}", directory.display()))
                },
            )?;
        }
    }
    Ok(0)
}
