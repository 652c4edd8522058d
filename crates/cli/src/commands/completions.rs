//! `umlfs completions`: the shell completion script, generated from the command definition.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::CliError;
use crate::{Cli, CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs completions bash > ~/.local/share/bash-completion/completions/umlfs
  umlfs completions zsh  > ~/.zfunc/_umlfs
  umlfs completions fish > ~/.config/fish/completions/umlfs.fish";

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell to complete in
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    // clap_complete panics when its writer fails; a Vec does not.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "umlfs", &mut script);
    ui::with_stdout(|out| out.write_all(&script).map_err(|error| CliError::output(&error)))?;
    Ok(0)
}
