//! `umlfs image resize`: an image grows or shrinks.

use std::ffi::OsString;

use imgtool::{HumanSize, Image, Size, Snapshot, parse_size, resize};

use super::{report, split};
use crate::CommandResult;
use crate::error::CliError;
use crate::ui::Bar;

const EXAMPLES: &str = "\
Examples:
  umlfs image resize root.img 2G
  umlfs image resize root.img +500M
  umlfs image resize root.img auto --free 100M     as small as the files allow";

/// Give an image another size: larger or smaller
///
/// The image is written anew and then takes the old one's place, so it needs room for both for a moment. Files keep
/// everything but their inode numbers; label, UUID and features stay.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The image
    image: OsString,
    /// The new size, such as 2G; +SIZE or -SIZE for more or less than now; or `auto`
    #[arg(allow_hyphen_values = true)]
    size: String,
    /// With `auto`: how much stays free for users
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    free: u64,
    /// Say nothing when all went well
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let (target, path) = split(&args.image);
    if target.partition.is_some() || path.is_some() {
        return Err(CliError::usage(format_args!(
            "`{}` is a part of a disk or a path, expected an image",
            args.image.to_string_lossy()
        ))
        .hint("copy the partition out with `umlfs image dd`, and back into a larger one"));
    }
    let number = |text: &str| parse_size(text).map_err(CliError::usage);
    let now = || Image::open(target.clone()).map(|mut image| image.info().size).map_err(report);
    let size = match (args.size.as_str(), args.size.strip_prefix('+'), args.size.strip_prefix('-')) {
        ("auto", _, _) => Size::Auto { free: args.free },
        _ if args.free > 0 => {
            return Err(CliError::usage("--free and a fixed size contradict each other").hint("say auto --free SIZE"));
        }
        (_, Some(more), _) => Size::Bytes(now()?.saturating_add(number(more)?)),
        (_, _, Some(less)) => Size::Bytes(now()?.saturating_sub(number(less)?)),
        (text, ..) => Size::Bytes(number(text)?),
    };
    let mut bar = Bar::new("writing the image anew");
    let done = resize(&target.path, size, &mut |now: &Snapshot| bar.set(now.bytes, now.bytes_total)).map_err(report)?;
    bar.finish();
    if !args.quiet {
        use std::io::Write as _;
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(anstream::stderr(), "{target}: {} now ({} files)", HumanSize(done.size), done.files);
    }
    Ok(0)
}
