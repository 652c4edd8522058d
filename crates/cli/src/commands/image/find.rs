//! `umlfs image find`: paths by name, type, owner, size and mode.

use std::ffi::OsString;

use imgtool::{Attr, FileType, ModeChange, Volume, glob, parse_size};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image find root.img --name '*.so*' --type f
  umlfs image find root.img --perm 4000          set-user-id programs
  umlfs image find root.img:/var --size +10M";

/// Find files of an image
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The last component matches this pattern (*, ?, [...])
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// The type: f, d, l, c, b, p or s
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    kind: Option<FileType>,
    /// The owner's number
    #[arg(long)]
    uid: Option<u32>,
    /// The group's number
    #[arg(long)]
    gid: Option<u32>,
    /// Larger (+10M), smaller (-10M) or exactly this size
    #[arg(long, value_parser = size, allow_hyphen_values = true)]
    size: Option<SizeTest>,
    /// All of these mode bits are set, octal
    #[arg(long, value_name = "MODE", value_parser = perm)]
    perm: Option<u16>,
    /// End paths with a zero byte, for xargs -0
    #[arg(short = '0', long)]
    null: bool,
    /// The image, with the directory in it to begin at
    #[arg(value_name = "IMAGE[:PATH]")]
    image: OsString,
}

#[derive(Clone, Copy)]
enum SizeTest {
    Over(u64),
    Under(u64),
    Exactly(u64),
}

fn kind(text: &str) -> Result<FileType, &'static str> {
    Ok(match text {
        "f" => FileType::Regular,
        "d" => FileType::Directory,
        "l" => FileType::Symlink,
        "c" => FileType::CharDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        "s" => FileType::Socket,
        _ => return Err("expected f, d, l, c, b, p or s"),
    })
}

fn size(text: &str) -> Result<SizeTest, imgtool::Error> {
    Ok(match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(number), _) => SizeTest::Over(parse_size(number)?),
        (_, Some(number)) => SizeTest::Under(parse_size(number)?),
        _ => SizeTest::Exactly(parse_size(text)?),
    })
}

fn perm(text: &str) -> Result<u16, &'static str> {
    match ModeChange::parse(text) {
        Some(ModeChange::Absolute(mode)) => Ok(mode),
        _ => Err("expected an octal mode such as 4000"),
    }
}

impl Args {
    fn matches(&self, path: &[u8], attr: &Attr) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        self.name.as_ref().is_none_or(|pattern| glob(pattern.as_bytes(), name))
            && self.kind.is_none_or(|kind| kind == attr.file_type)
            && self.uid.is_none_or(|uid| uid == attr.uid)
            && self.gid.is_none_or(|gid| gid == attr.gid)
            && self.perm.is_none_or(|bits| attr.mode & bits == bits)
            && self.size.is_none_or(|test| match test {
                SizeTest::Over(bytes) => attr.size > bytes,
                SizeTest::Under(bytes) => attr.size < bytes,
                SizeTest::Exactly(bytes) => attr.size == bytes,
            })
    }
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let (target, path) = split(&args.image);
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| b"/".to_vec());
    let mut image = Volume::open(target).map_err(report)?;
    let end: &[u8] = if args.null { b"\0" } else { b"\n" };
    ui::with_stdout(|out| {
        let mut failure = None;
        let walked = image.visit_all(&path, &mut |path, attr| {
            if args.matches(path, attr)
                && let Err(error) = out.write_all(path).and_then(|()| out.write_all(end))
            {
                failure = Some(CliError::output(&error));
                return Err(imgtool::Error::new("standard output is gone"));
            }
            Ok(())
        });
        failure.map_or_else(|| walked.map_err(report), Err)
    })?;
    Ok(0)
}
