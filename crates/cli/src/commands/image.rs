//! `umlfs image`: disk images made and looked into without root.

mod create;
mod info;
mod list;
mod read;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::CommandResult;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  umlfs image create root.img --from rootdir --free 200M
  umlfs image ls -lR root.img:/etc
  umlfs image cat root.img:/etc/fstab
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
    Create(create::Args),
    Ls(list::Args),
    Cat(read::Args),
    Info(info::Args),
}

pub(crate) fn run(args: Args) -> CommandResult {
    match args.command {
        Command::Create(args) => create::run(args),
        Command::Ls(args) => list::run(&args),
        Command::Cat(args) => read::run(&args),
        Command::Info(args) => info::run(&args),
    }
}

/// A library error as the command's.
pub(super) fn report(error: imgtool::Error) -> CliError {
    let shown = CliError::chain(&error);
    match error.advice() {
        Some(advice) => shown.hint(advice),
        None => shown,
    }
}

/// Splits `IMAGE:PATH`. A colon may be part of the image's name: the shortest part before a colon that is a file
/// wins, and an argument that is a file as a whole has no path.
fn split_target(target: &OsStr) -> (PathBuf, Option<Vec<u8>>) {
    let bytes = target.as_bytes();
    if Path::new(target).is_file() {
        return (target.into(), None);
    }
    let splits = || {
        bytes
            .iter()
            .enumerate()
            .filter(|(at, byte)| **byte == b':' && *at > 0)
            .map(|(at, _)| (Path::new(OsStr::from_bytes(&bytes[..at])), bytes[at + 1..].to_vec()))
    };
    let found = splits().find(|(image, _)| image.is_file()).or_else(|| splits().next());
    match found {
        Some((image, path)) => (image.to_owned(), Some(path)),
        None => (target.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split_at_the_image() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("a.img");
        let colon = directory.path().join("b:c.img");
        std::fs::write(&plain, b"").unwrap();
        std::fs::write(&colon, b"").unwrap();
        let with = |path: &Path, rest: &str| {
            let mut text = path.as_os_str().to_owned();
            text.push(rest);
            split_target(&text)
        };
        assert_eq!(with(&plain, ""), (plain.clone(), None));
        assert_eq!(with(&plain, ":/x:y"), (plain.clone(), Some(b"/x:y".to_vec())));
        assert_eq!(with(&plain, ":"), (plain, Some(Vec::new())));
        assert_eq!(with(&colon, ""), (colon.clone(), None));
        assert_eq!(with(&colon, ":x"), (colon, Some(b"x".to_vec())));
        assert_eq!(split_target(OsStr::new("no.img:/x")), ("no.img".into(), Some(b"/x".to_vec())));
        assert_eq!(split_target(OsStr::new("no.img")), ("no.img".into(), None));
    }
}
