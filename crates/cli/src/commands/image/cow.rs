//! `umlfs image cow`: copy-on-write files.

use std::path::PathBuf;

use clap::Subcommand;
use imgtool::{HumanSize, cow};

use super::report;
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image cow create mine.cow root.img    an empty overlay on root.img
  umlfs boot mine.cow                         what this machine writes goes to mine.cow; root.img stays as it is
  umlfs boot root.img --cow mine.cow          the same; makes mine.cow if it is not there
  umlfs image cow info mine.cow
  umlfs image cow commit mine.cow             merge it into root.img";

/// Keep what a machine writes apart from its image
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an empty overlay on an image, or on another overlay
    #[command(
        after_help = "Examples:\n  umlfs image cow create mine.cow root.img\n  umlfs image cow create try.cow mine.cow"
    )]
    Create {
        /// Replace the overlay if it exists
        #[arg(long)]
        force: bool,
        /// The overlay to make
        overlay: PathBuf,
        /// The image that it lies on; it must not change as long as the overlay is in use
        image: PathBuf,
    },
    /// Merge an overlay into what it lies on, and empty it
    #[command(
        after_help = "Examples:\n  umlfs image cow commit mine.cow\n\nA commit that is interrupted is finished by the next one."
    )]
    Commit {
        /// The overlay
        overlay: PathBuf,
    },
    /// Say what an overlay lies on, and how much it has
    #[command(
        after_help = "Examples:\n  umlfs image cow info mine.cow\n  umlfs image cow info --json mine.cow | jq .changed"
    )]
    Info {
        /// Print a JSON object, sizes in bytes
        #[arg(long)]
        json: bool,
        /// The overlay
        overlay: PathBuf,
    },
}

pub(crate) fn run(args: &Args) -> CommandResult {
    match &args.command {
        Command::Create { force, overlay, image } => cow::create(overlay, image, *force).map_err(report)?,
        Command::Commit { overlay } => {
            let mut bar = ui::Bar::new("merging");
            let moved = cow::commit(overlay, &mut |done, total| bar.set(done, total)).map_err(report)?;
            bar.finish();
            print(&format!("{} merged\n", HumanSize(moved)))?;
        }
        Command::Info { json, overlay } => {
            let info = cow::info(overlay).map_err(report)?;
            if *json {
                let text = serde_json::to_string_pretty(&info)
                    .map_err(|error| CliError::failed(format_args!("cannot make JSON: {error}")))?;
                print(&(text + "\n"))?;
            } else {
                let mut text = format!(
                    "{:<9} {}\n{:<9} {}\n{:<9} {}\n",
                    "on",
                    info.below.display(),
                    "size",
                    HumanSize(info.size),
                    "changed",
                    HumanSize(info.changed)
                );
                if let Some(problem) = &info.problem {
                    text += &format!("{:<9} {problem}\n", "problem");
                }
                print(&text)?;
            }
        }
    }
    Ok(0)
}

fn print(text: &str) -> Result<(), CliError> {
    ui::with_stdout(|out| out.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))
}
