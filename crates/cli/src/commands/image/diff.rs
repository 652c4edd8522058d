//! `umlfs image diff`: where two images differ.

use std::ffi::OsString;

use imgtool::{Difference, Image, diff};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Prints a line for each path that differs: `- PATH` and `+ PATH` for what only the first or the second image has,
`! PATH: WHAT` for what is different. The exit status is 0 when nothing differs, otherwise 1, as diff(1)'s.

Examples:
  umlfs image diff before.img after.img:/etc";

/// Compare the files of two images: contents, modes, owners, attributes
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Compare modification times, too
    #[arg(long)]
    times: bool,
    /// The first image
    #[arg(value_name = "IMAGE[:PARTITION]")]
    first: OsString,
    /// The second image, with the directory to compare in both
    #[arg(value_name = "IMAGE[:PATH]")]
    second: OsString,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let ((first, path), (second, other)) = (split(&args.first), split(&args.second));
    let path = other.or(path).filter(|path| !path.is_empty()).unwrap_or_else(|| b"/".to_vec());
    let mut first = Image::open(first).map_err(report)?;
    let mut second = Image::open(second).map_err(report)?;
    let mut status = 0;
    ui::with_stdout(|out| {
        let mut failure = None;
        let done = diff(&mut first, &mut second, &path, args.times, &mut |path, difference| {
            status = 1;
            let (mark, what) = match difference {
                Difference::OnlyFirst => ("- ", String::new()),
                Difference::OnlySecond => ("+ ", String::new()),
                Difference::Changed(what) => ("! ", format!(": {}", what.join(", "))),
            };
            let line = [mark.as_bytes(), path, what.as_bytes(), b"\n"].concat();
            out.write_all(&line).map_err(|error| {
                failure = Some(CliError::output(&error));
                imgtool::Error::new("standard output is gone")
            })
        });
        failure.map_or_else(|| done.map_err(report), Err)
    })?;
    Ok(status)
}
