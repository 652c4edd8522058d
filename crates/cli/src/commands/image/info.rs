//! `umlfs image info`: what the superblock says.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use imgtool::{FatInfo, HumanSize, Image, Info, Volume};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image info root.img
  umlfs image info --json root.img | jq .free
  umlfs image info --map root.img             where metadata, files and free blocks lie
  umlfs image info --map=root.svg root.img    the same as a picture";

/// Say what an image holds: type, sizes, features, state
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print a JSON object, sizes in bytes
    #[arg(long)]
    json: bool,
    /// Draw where block groups, metadata, used and free blocks lie: on the terminal, or in an SVG file
    #[arg(long, value_name = "FILE.svg", num_args = 0..=1, require_equals = true, conflicts_with = "json")]
    map: Option<Option<PathBuf>>,
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
    if target.partition.is_none() && target.contents().map_err(report)?.is_disk() {
        if args.map.is_some() {
            return Err(CliError::failed(format_args!("{target} is a whole disk, expected a file system to draw"))
                .hint(format_args!("name one of its partitions, as {target}:1")));
        }
        return disk(args.json, &target.path);
    }
    let mut volume = Volume::open(target).map_err(report)?;
    match &args.map {
        Some(Some(file)) => return picture(volume.ext("map here").map_err(report)?, file),
        Some(None) => return on_terminal(volume.ext("map here").map_err(report)?),
        None => {}
    }
    let image = match &mut volume {
        Volume::Ext(image) => image,
        Volume::Fat(image) => return fat(args.json, &image.info().map_err(report)?),
    };
    let info = image.info();
    let text = if args.json { json(serde_json::to_string_pretty(&info))? } else { for_people(&info) };
    print(&text)
}

fn json(text: serde_json::Result<String>) -> Result<String, CliError> {
    text.map(|text| text + "\n").map_err(|error| CliError::failed(format_args!("cannot make JSON: {error}")))
}

fn print(text: &str) -> CommandResult {
    ui::with_stdout(|out| out.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))?;
    Ok(0)
}

/// A FAT image.
fn fat(as_json: bool, info: &FatInfo) -> CommandResult {
    if as_json {
        return print(&json(serde_json::to_string_pretty(info))?);
    }
    let lines = [
        ("type", info.kind.clone()),
        ("label", info.label.clone().unwrap_or_else(|| "none".to_owned())),
        ("id", info.id.clone()),
        ("size", format!("{} ({} clusters of {} bytes)", HumanSize(info.size), info.clusters, info.cluster_size)),
        ("free", format!("{} ({} %)", HumanSize(info.free), percent(info.free, info.size))),
        ("state", info.state.clone()),
    ];
    print(&lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect::<String>())
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

/// Cells in a row of the SVG.
const SVG_COLUMNS: u32 = 512;
/// Cells in a row where standard output has no width.
const COLUMNS: u32 = 64;
/// Columns before the cells.
const LABEL: u32 = 7;

fn picture<D: imgtool::BlockDevice>(image: &mut Image<D>, file: &Path) -> CommandResult {
    if file.as_os_str().is_empty() {
        return Err(CliError::usage("--map= names no file").hint("--map alone draws on the terminal"));
    }
    let svg = image.map(SVG_COLUMNS).map_err(report)?.svg();
    std::fs::write(file, svg).map_err(|error| report(imgtool::Error::io("write", file, &error)))?;
    Ok(0)
}

fn on_terminal<D: imgtool::BlockDevice>(image: &mut Image<D>) -> CommandResult {
    let terminal = std::io::stdout().is_terminal();
    let window = umkernel::host::process::window_size(nix::libc::STDOUT_FILENO);
    let columns = window.map_or(COLUMNS, |(_, width)| u32::from(width).saturating_sub(LABEL).clamp(16, 256));
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    print(&image.map(columns).map_err(report)?.text(colour))
}

/// The partition table of a disk.
fn disk(json: bool, path: &Path) -> CommandResult {
    let table = imgtool::partitions(path).map_err(report)?;
    let text = if json {
        let rows: Vec<_> = table
            .iter()
            .map(|one| {
                serde_json::json!({"number": one.number, "start": one.start, "size": one.size, "type": one.kind,
                    "name": one.name, "contents": one.contents.to_string()})
            })
            .collect();
        self::json(serde_json::to_string_pretty(&rows))?
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
    print(&text)
}

fn for_people(info: &Info) -> String {
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
    if let Some(size) = info.cluster_size {
        add("clusters", format!("space is allocated in clusters of {}", HumanSize(size.into())));
    }
    if !info.quotas.is_empty() {
        add("quota", info.quotas.join(", "));
    }
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
