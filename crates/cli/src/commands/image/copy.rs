//! `umlfs image cp`: between the host and an image.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use imgtool::{Copied, Owner, Target, Volume};

use super::create::owner;
use super::{report, split};
use crate::CommandResult;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  umlfs image cp hosts root.img:/etc/            into the image
  umlfs image cp -r overlay/. root.img:/         what is in a directory, over what is there
  umlfs image cp root.img:/etc/passwd .          out of it
  umlfs image cp -r disk.img:2:/boot boot-copy   from a partition";

/// Copy files into an image or out of it
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Copy directories with all that is in them
    #[arg(short, long, visible_short_alias = 'a')]
    recursive: bool,
    /// Who owns what is copied in: `keep`, `root` (the calling user's files become root's) or UID:GID for all
    #[arg(long, default_value = "keep", value_parser = owner)]
    owner: Owner,
    /// What to copy: paths, or IMAGE:PATH
    #[arg(value_name = "FROM", required = true)]
    from: Vec<OsString>,
    /// Where to: IMAGE:PATH, or a path
    to: OsString,
}

/// An argument that names something in an image; a path that exists on the host as a whole does not.
fn in_image(argument: &OsStr) -> Option<(Target, Vec<u8>)> {
    if Path::new(argument).symlink_metadata().is_ok() {
        return None;
    }
    let (target, path) = split(argument);
    let path = path?;
    target.path.is_file().then_some((target, if path.is_empty() { b"/".to_vec() } else { path }))
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let mut skipped = 0;
    if let Some((target, to)) = in_image(&args.to) {
        if let Some(from) = args.from.iter().find(|from| in_image(from).is_some()) {
            return Err(CliError::usage(format_args!(
                "both {} and {} are in images, expected one of them on the host",
                from.to_string_lossy(),
                args.to.to_string_lossy()
            ))
            .hint("copy out first, then in; `umlfs image mv` and `ln` work inside one image"));
        }
        let mut image = Volume::open_writable(target).map_err(report)?;
        let many = args.from.len() > 1;
        let done = args.from.iter().try_for_each(|from| {
            if many && !image.is_directory(&to) {
                return Err(CliError::usage(format_args!(
                    "{} is no directory, expected one to copy several files to",
                    args.to.to_string_lossy()
                )));
            }
            let copied = image.copy_in(Path::new(from), &to, args.recursive, args.owner);
            copied.map(|_: Copied| ()).map_err(report)
        });
        done.and(image.close().map_err(report))?;
        return Ok(0);
    }
    let to = Path::new(&args.to);
    if args.from.len() > 1 && !to.is_dir() {
        return Err(CliError::usage(format_args!(
            "{} is no directory, expected one to copy several files to",
            to.display()
        )));
    }
    for from in &args.from {
        let Some((target, path)) = in_image(from) else {
            return Err(CliError::usage(format_args!(
                "neither {} nor {} is in an image, expected IMAGE:PATH on one side",
                from.to_string_lossy(),
                to.display()
            ))
            .hint("say, for example, `umlfs image cp FILE root.img:/etc/`"));
        };
        let copied = Volume::open(target).map_err(report)?.copy_out(&path, to, args.recursive).map_err(report)?;
        skipped += copied.skipped;
    }
    if skipped > 0 {
        tracing::warn!("{skipped} device nodes were left out: only root may make them");
    }
    Ok(0)
}
