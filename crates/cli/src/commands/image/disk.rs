//! `umlfs image disk`: a disk with a partition table, of images.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::ValueEnum;
use imgtool::{HumanSize, Part, Table, make_disk};

use super::report;
use crate::CommandResult;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  umlfs image create esp.img --type fat --from esp --size 64M
  umlfs image create swap.img --type swap --size 256M
  umlfs image create root.img --from root --free 1G
  umlfs image disk disk.img --table gpt esp=esp.img root=root.img swap=swap.img
  umlfs image info disk.img
  umlfs image ls disk.img:2:/etc";

/// Put images of file systems together to a disk with a partition table
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The disk to make
    disk: PathBuf,
    /// The partition table
    #[arg(long, value_enum, default_value_t)]
    table: TableArg,
    /// The partitions in order. A GPT keeps their names; FAT named `esp` becomes an EFI system partition
    #[arg(value_name = "[NAME=]IMAGE", required = true)]
    parts: Vec<OsString>,
    /// Replace a disk that is there
    #[arg(long)]
    force: bool,
    /// Say nothing when all went well
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(super) enum TableArg {
    /// GUID partition table
    #[default]
    Gpt,
    /// DOS table in the master boot record
    Mbr,
}

impl From<TableArg> for Table {
    fn from(table: TableArg) -> Self {
        match table {
            TableArg::Gpt => Self::Gpt,
            TableArg::Mbr => Self::Mbr,
        }
    }
}

fn part(argument: &OsString) -> Result<Part, CliError> {
    let bytes = argument.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) if !PathBuf::from(argument).is_file() => Ok(Part {
            name: String::from_utf8(bytes[..at].to_vec())
                .map_err(|_| CliError::usage(format_args!("`{}`: the name is no UTF-8", argument.to_string_lossy())))?,
            image: OsString::from_vec(bytes[at + 1..].to_vec()).into(),
        }),
        _ => Ok(Part { name: String::new(), image: argument.into() }),
    }
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let parts: Vec<Part> = args.parts.iter().map(part).collect::<Result<_, _>>()?;
    let size = make_disk(&args.disk, args.force, args.table.into(), &parts).map_err(report)?;
    if !args.quiet {
        use std::io::Write as _;
        // Nobody is left to tell when standard error is gone.
        let _ =
            writeln!(anstream::stderr(), "{}: {}, {} partitions", args.disk.display(), HumanSize(size), parts.len());
    }
    Ok(0)
}
