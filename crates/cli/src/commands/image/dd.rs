//! `umlfs image dd`: raw copies, with dd(1)'s operands.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use imgtool::{Dd, HumanSize, Target, dd, parse_size};

use super::{report, split};
use crate::CommandResult;
use crate::error::CliError;
use crate::ui::Bar;

const EXAMPLES: &str = "\
Operands, as dd(1) takes them:
  if=FILE or if=DISK:PARTITION     what to read [standard input is not read]
  of=FILE or of=DISK:PARTITION     what to write; a new file appears when it is whole
  bs=SIZE                          unit of count, skip and seek [512]
  count=N, skip=N, seek=N          how many units, and how many to pass over in input and output
  conv=notrunc,sparse              a file that is there keeps its rest; blocks of zeros become holes

Examples:
  umlfs image dd if=root.img of=disk.img:2
  umlfs image dd if=/dev/sdb of=stick.img conv=sparse";

/// Copy raw bytes between files and partitions, with progress
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Operands, NAME=VALUE
    #[arg(value_name = "OPERAND", required = true)]
    operands: Vec<OsString>,
    /// Say nothing when all went well
    #[arg(short, long)]
    quiet: bool,
}

fn parse(operands: &[OsString]) -> Result<Dd, CliError> {
    let (mut from, mut to, mut unit) = (None, None, 512u64);
    let (mut count, mut skip, mut seek) = (None, 0u64, 0u64);
    let (mut keep_rest, mut sparse) = (false, false);
    for operand in operands {
        let bytes = operand.as_bytes();
        let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
            return Err(CliError::usage(format_args!(
                "`{}` is no operand, expected NAME=VALUE such as if=root.img",
                operand.to_string_lossy()
            )));
        };
        let (name, value) = (&bytes[..at], OsStr::from_bytes(&bytes[at + 1..]));
        let text = value.to_string_lossy();
        let number = || parse_size(&text).map_err(CliError::usage);
        match name {
            b"if" => from = Some(place(value)?),
            b"of" => to = Some(place(value)?),
            b"bs" | b"ibs" | b"obs" => unit = number()?,
            b"count" => count = Some(number()?),
            b"skip" | b"iseek" => skip = number()?,
            b"seek" | b"oseek" => seek = number()?,
            b"status" => {}
            b"conv" => {
                for flag in text.split(',') {
                    match flag {
                        "notrunc" => keep_rest = true,
                        "sparse" => sparse = true,
                        // The copy ends with that anyway.
                        "fsync" | "fdatasync" => {}
                        other => {
                            return Err(CliError::usage(format_args!(
                                "conv={other} is not known, expected notrunc, sparse, fsync or fdatasync"
                            )));
                        }
                    }
                }
            }
            _ => {
                return Err(CliError::usage(format_args!("`{}` is no operand of dd", operand.to_string_lossy()))
                    .hint("if=, of=, bs=, count=, skip=, seek= and conv= are"));
            }
        }
    }
    let times = |number: u64| {
        number.checked_mul(unit).ok_or_else(|| CliError::usage(format_args!("{number} units of {unit} bytes overflow")))
    };
    let missing = |name| CliError::usage(format_args!("{name}= is missing")).hint("umlfs image dd if=IN of=OUT");
    Ok(Dd {
        from: from.ok_or_else(|| missing("if"))?,
        to: to.ok_or_else(|| missing("of"))?,
        skip: times(skip)?,
        seek: times(seek)?,
        count: count.map(times).transpose()?,
        keep_rest,
        sparse,
    })
}

fn place(value: &OsStr) -> Result<Target, CliError> {
    if PathBuf::from(value).exists() {
        return Ok(Target { path: value.into(), partition: None });
    }
    match split(value) {
        (target, None) => Ok(target),
        (target, Some(_)) if target.path.is_file() => Err(CliError::usage(format_args!(
            "`{}` is a path in an image, expected a file or DISK:PARTITION",
            value.to_string_lossy()
        ))
        .hint("`umlfs image cp` copies files")),
        // A new file whose name has a colon.
        (_, Some(_)) => Ok(Target { path: value.into(), partition: None }),
    }
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let what = parse(&args.operands)?;
    let mut bar = Bar::new("copying");
    let done = dd(&what, &mut |done, total| bar.set(done, total)).map_err(report)?;
    bar.finish();
    if !args.quiet {
        use std::io::Write as _;
        let rate = done.bytes as f64 / done.elapsed.as_secs_f64().max(1e-6);
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(
            anstream::stderr(),
            "{} ({} bytes, {} of them holes) copied in {:.2} s, {}/s",
            HumanSize(done.bytes),
            done.bytes,
            HumanSize(done.holes),
            done.elapsed.as_secs_f64(),
            HumanSize(rate as u64)
        );
    }
    Ok(0)
}
