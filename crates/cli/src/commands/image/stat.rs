//! `umlfs image stat`: all that an inode says.

use std::ffi::OsString;
use std::fmt::Write as _;

use imgtool::{FileType, Timestamp, Volume, iso8601};

use super::list::mode_text;
use super::{report, split_with_path};
use crate::error::CliError;
use crate::{CommandResult, ui};

/// Tell everything about files of an image
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  umlfs image stat root.img:/bin/busybox")]
pub(crate) struct Args {
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Which files; a last symbolic link is not followed
    #[arg(value_name = "IMAGE:PATH", required = true)]
    files: Vec<OsString>,
}

fn time(time: Timestamp) -> String {
    let text = iso8601(time.sec);
    format!("{}.{:09}Z", text.trim_end_matches('Z'), time.nsec)
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::CharDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
    }
}

pub(crate) fn run(args: &Args) -> CommandResult {
    ui::with_stdout(|out| {
        for file in &args.files {
            let (target, path) = split_with_path(file)?;
            let mut image = Volume::open(target).map_err(report)?;
            let entry = image.stat(&path).map_err(report)?;
            let xattrs = image.xattrs(&path).map_err(report)?;
            let attr = &entry.attr;
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let text = if args.json {
                let xattrs: serde_json::Map<String, serde_json::Value> =
                    xattrs.iter().map(|(key, value)| (shown(key), shown(value).into())).collect();
                let object = serde_json::json!({
                    "path": shown(&path), "type": kind(attr.file_type), "inode": attr.ino, "mode": format!("{:04o}", attr.mode),
                    "links": attr.nlink, "uid": attr.uid, "gid": attr.gid, "size": attr.size,
                    "allocated": attr.blocks512.saturating_mul(512), "major": attr.rdev.0, "minor": attr.rdev.1,
                    "accessed": time(attr.atime), "modified": time(attr.mtime), "changed": time(attr.ctime),
                    "created": time(attr.crtime), "target": entry.target.as_deref().map(shown), "xattrs": xattrs,
                });
                format!("{object}\n")
            } else {
                let mut text = format!("file          {}\n", shown(&path));
                let mut line = |name: &str, value: String| {
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "{name:<13} {value}");
                };
                line("type", kind(attr.file_type).to_owned());
                if let Some(target) = &entry.target {
                    line("target", shown(target));
                }
                line("mode", format!("{:04o} ({})", attr.mode, mode_text(attr.file_type, attr.mode)));
                line("owner", format!("{}:{}", attr.uid, attr.gid));
                line("size", format!("{} bytes, {} allocated", attr.size, attr.blocks512.saturating_mul(512)));
                if matches!(attr.file_type, FileType::CharDevice | FileType::BlockDevice) {
                    line("device", format!("{}, {}", attr.rdev.0, attr.rdev.1));
                }
                line("inode", format!("{}, {} links", attr.ino, attr.nlink));
                line("accessed", time(attr.atime));
                line("modified", time(attr.mtime));
                line("changed", time(attr.ctime));
                line("created", time(attr.crtime));
                for (key, value) in &xattrs {
                    line("attribute", format!("{} ({} bytes)", shown(key), value.len()));
                }
                text
            };
            out.write_all(text.as_bytes()).map_err(|error| CliError::output(&error))?;
        }
        Ok(())
    })?;
    Ok(0)
}
