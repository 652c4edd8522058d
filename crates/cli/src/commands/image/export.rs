//! `umlfs image export`: an image's files as an archive.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use imgtool::{ReadError, Volume};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image export tar root.img root.tar.zst
  umlfs image export tar root.img:/etc | tar tv";

/// Write an image's files as an archive
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The archive's format
    #[arg(value_enum)]
    format: Format,
    /// The image, with a directory in it
    #[arg(value_name = "IMAGE[:PATH]")]
    image: OsString,
    /// The archive: .tar, or compressed as .tar.gz, .tar.xz, .tar.zst or .tar.bz2 says; without it or for `-`, standard output
    output: Option<PathBuf>,
    /// Replace an archive that is there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// POSIX tar with extended attributes
    Tar,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let Format::Tar = args.format;
    let (target, path) = split(&args.image);
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| b"/".to_vec());
    let mut image = Volume::open(target).map_err(report)?;
    let mut skipped = 0;
    match args.output.as_deref().filter(|output| *output != Path::new("-")) {
        Some(output) => skipped = image.export_tar_to(&path, output, args.force).map_err(report)?.skipped,
        None => ui::with_stdout(|mut out| {
            let done = image.export_tar(&path, &mut out).map_err(|error| match error {
                ReadError::Image(error) => report(error),
                ReadError::Output(error) => CliError::output(&error),
            })?;
            skipped = done.skipped;
            Ok(())
        })?,
    }
    if skipped > 0 {
        tracing::warn!("{skipped} sockets were left out: archives hold none");
    }
    Ok(0)
}
