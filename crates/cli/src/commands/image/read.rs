//! `umlfs image cat`: a file's contents.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use imgtool::{ReadError, Volume};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image cat root.img:/etc/os-release
  umlfs image cat root.img /etc/passwd /etc/group";

/// Print files of an image
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The image, with a path in it after a colon
    #[arg(value_name = "IMAGE[:PATH]")]
    image: OsString,
    /// Paths in the image
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let (image, first) = split(&args.image);
    let paths: Vec<Vec<u8>> = first.into_iter().chain(args.paths.iter().map(|path| path.clone().into_vec())).collect();
    if paths.is_empty() {
        return Err(CliError::usage(format_args!("no path in {image} is named, expected one to print"))
            .hint(format_args!("say `umlfs image cat {image}:/PATH`")));
    }
    let mut image = Volume::open(image).map_err(report)?;
    ui::with_stdout(|mut out| {
        for path in &paths {
            image.read_to(path, &mut out).map_err(|error| match error {
                ReadError::Image(error) => report(error),
                ReadError::Output(error) => CliError::output(&error),
            })?;
        }
        Ok(())
    })?;
    Ok(0)
}
