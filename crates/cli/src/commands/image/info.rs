//! `umlfs image info`: what the superblock says.

use std::ffi::OsString;

use imgtool::{HumanSize, Image, Info};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image info root.img
  umlfs image info --json root.img | jq .free";

/// Say what an image holds: type, sizes, features, state
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print a JSON object, sizes in bytes
    #[arg(long)]
    json: bool,
    /// The image, or a disk with a partition table, or one of its partitions
    #[arg(value_name = "IMAGE[:PARTITION]")]
    image: OsString,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let (target, path) = split(&args.image);
    if let Some(path) = path {
        return Err(CliError::usage(format_args!(
            "`{}` is a path in the image, expected an image",
            String::from_utf8_lossy(&path)
        ))
        .hint("`umlfs image stat` tells about files"));
    }
    if target.partition.is_none() && imgtool::identify(&target.path).map_err(report)?.is_disk() {
        return disk(args.json, &target.path);
    }
    let info = Image::open(target).map_err(report)?.info();
    let text = if args.json {
        serde_json::to_string_pretty(&info)
            .map_err(|error| CliError::failed(format_args!("cannot make JSON: {error}")))?
            + "\n"
    } else {
        for_people(&info)
    };
    ui::with_stdout(|out| out.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))?;
    Ok(0)
}

/// The partition table of a disk.
fn disk(json: bool, path: &std::path::Path) -> CommandResult {
    let table = imgtool::partitions(path).map_err(report)?;
    let text = if json {
        let rows: Vec<_> = table
            .iter()
            .map(|one| {
                serde_json::json!({"number": one.number, "start": one.start, "size": one.size, "type": one.kind,
                    "name": one.name, "contents": one.contents.to_string()})
            })
            .collect();
        serde_json::to_string_pretty(&rows)
            .map_err(|error| CliError::failed(format_args!("cannot make JSON: {error}")))?
            + "\n"
    } else {
        let mut text = format!("{:<10} {:>12} {:>10}  contents\n", "partition", "start", "size");
        for one in &table {
            let name = if one.name.is_empty() { String::new() } else { format!(" ({})", one.name) };
            let row = format!(
                "{:<10} {:>12} {:>10}  {}{name}\n",
                one.number,
                one.start,
                HumanSize(one.size).to_string(),
                one.contents
            );
            text.push_str(&row);
        }
        text
    };
    ui::with_stdout(|out| out.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))?;
    Ok(0)
}

fn for_people(info: &Info) -> String {
    let percent = |part: u64, whole: u64| part.saturating_mul(100).checked_div(whole).unwrap_or(0);
    let mut lines = vec![("type", info.kind.clone())];
    let mut add = |name, value: String| lines.push((name, value));
    add("label", info.label.clone().unwrap_or_else(|| "none".to_owned()));
    add("UUID", info.uuid.clone());
    add("size", format!("{} ({} blocks of {} bytes)", HumanSize(info.size), info.blocks, info.block_size));
    add(
        "free",
        format!(
            "{} ({} %), of which {} are root's only",
            HumanSize(info.free),
            percent(info.free, info.size),
            HumanSize(info.reserved)
        ),
    );
    add(
        "inodes",
        format!(
            "{} of {} bytes, {} free ({} %)",
            info.inodes,
            info.inode_size,
            info.inodes_free,
            percent(u64::from(info.inodes_free), u64::from(info.inodes))
        ),
    );
    add("groups", info.groups.to_string());
    add("journal", info.journal.map_or_else(|| "none".to_owned(), |size| HumanSize(size).to_string()));
    add("state", info.state.clone());
    add("features", info.features.join(" "));
    let or_never = |time: &Option<String>| time.clone().unwrap_or_else(|| "never".to_owned());
    add("created", or_never(&info.created));
    add("last written", or_never(&info.last_written));
    let on = info.last_mounted_on.as_ref().map_or_else(String::new, |place| format!(" on {place}"));
    add(
        "last mounted",
        format!("{}{on}; {} times since the last check", or_never(&info.last_mounted), info.mount_count),
    );
    if info.file_size != info.size {
        add(
            "file",
            format!(
                "{}: {} more than the file system",
                HumanSize(info.file_size),
                HumanSize(info.file_size.saturating_sub(info.size))
            ),
        );
    }
    lines.into_iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}
