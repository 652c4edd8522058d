//! `umlfs image`: disk images made and looked into without root.

mod check;
mod copy;
mod cow;
mod create;
mod dd;
mod diff;
mod disk;
mod edit;
mod export;
mod find;
mod info;
mod list;
mod mkfs;
mod read;
mod resize;
mod stat;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use imgtool::{Kind, Target};

use crate::CommandResult;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  umlfs image create root.img --from rootdir --free 200M
  umlfs image ls -lR root.img:/etc
  umlfs image cat root.img:/etc/fstab
  umlfs image cp -r overlay/. root.img:/
  umlfs image cp root.img:/var/log/messages .
  umlfs image ls -l disk.img:2:/boot      the second partition of a disk
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
    Check(check::Check),
    Fsck(check::Fsck),
    Stat(stat::Args),
    Find(find::Args),
    Cp(copy::Args),
    Rm(edit::Rm),
    Mkdir(edit::Mkdir),
    Mv(edit::Mv),
    Ln(edit::Ln),
    Chmod(edit::Chmod),
    Chown(edit::Chown),
    Label(edit::Label),
    Export(export::Args),
    Dd(dd::Args),
    Resize(resize::Args),
    Diff(diff::Args),
    Cow(cow::Args),
    Disk(disk::Args),
    #[command(name = "mkfs.ext4")]
    MkfsExt4(mkfs::Args),
    #[command(name = "mkfs.ext3")]
    MkfsExt3(mkfs::Args),
    #[command(name = "mkfs.ext2")]
    MkfsExt2(mkfs::Args),
}

pub(crate) fn run(args: Args) -> CommandResult {
    match args.command {
        Command::Create(args) => create::run(args),
        Command::Ls(args) => list::run(&args),
        Command::Cat(args) => read::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Check(args) => args.run(),
        Command::Fsck(args) => args.run(),
        Command::Stat(args) => stat::run(&args),
        Command::Find(args) => find::run(&args),
        Command::Cp(args) => copy::run(&args),
        Command::Rm(args) => args.run(),
        Command::Mkdir(args) => args.run(),
        Command::Mv(args) => args.run(),
        Command::Ln(args) => args.run(),
        Command::Chmod(args) => args.run(),
        Command::Chown(args) => args.run(),
        Command::Label(args) => args.run(),
        Command::Export(args) => export::run(&args),
        Command::Dd(args) => dd::run(&args),
        Command::Resize(args) => resize::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Cow(args) => cow::run(&args),
        Command::Disk(args) => disk::run(&args),
        Command::MkfsExt4(args) => mkfs::run(&args, Kind::Ext4),
        Command::MkfsExt3(args) => mkfs::run(&args, Kind::Ext3),
        Command::MkfsExt2(args) => mkfs::run(&args, Kind::Ext2),
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

/// Splits `IMAGE[:PARTITION][:PATH]`; only a disk with a partition table has partitions.
fn split(argument: &OsStr) -> (Target, Option<Vec<u8>>) {
    let (image, rest) = split_target(argument);
    let Some(rest) = rest else {
        return (Target { path: image, partition: None }, None);
    };
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (number, tail) = rest.split_at(digits);
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
    let path = match tail {
        b"" => Some(None),
        [b':', path @ ..] => Some(Some(path.to_vec())),
        _ => None,
    };
    match (number, path) {
        (Some(_), Some(path)) if Target::from(&*image).contents().is_ok_and(|what| what.is_disk()) => {
            (Target { path: image, partition: number }, path)
        }
        _ => (Target { path: image, partition: None }, Some(rest)),
    }
}

/// `IMAGE` or `DISK:PARTITION`, where no path has a meaning.
pub(super) fn disk_or_partition(argument: &OsStr) -> Result<Target, CliError> {
    match split(argument) {
        (target, None) => Ok(target),
        (target, Some(rest)) if target.path.is_file() => {
            let (said, rest) = (argument.to_string_lossy(), String::from_utf8_lossy(&rest).into_owned());
            let what = target.contents().map_err(report)?;
            Err(CliError::usage(format_args!("`{said}`: {rest:?} is no partition of {target}, which is {what}"))
                .hint("say IMAGE, or DISK:NUMBER for a disk with a partition table"))
        }
        // A name with a colon of what is not there.
        (_, Some(_)) => Ok(Target::from(Path::new(argument))),
    }
}

/// `IMAGE:PATH` where a path must be named.
fn split_with_path(argument: &OsStr) -> Result<(Target, Vec<u8>), CliError> {
    let (target, path) = split(argument);
    match path.filter(|path| !path.is_empty()) {
        Some(path) => Ok((target, path)),
        None => Err(CliError::usage(format_args!("`{}` names no file in an image", argument.to_string_lossy()))
            .hint(format_args!("say {target}:/PATH"))),
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
