//! `umlfs image check` and `umlfs image fsck`.

use std::ffi::OsString;

use imgtool::{Checked, HumanSize, Target};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

/// Exit status: something was found, or is left.
const FOUND: u8 = 1;
/// Exit status: the check could not be made (`e2fsck(8)` has the same one).
const FAILED: u8 = 8;

const CHECK_EXAMPLES: &str = "\
Examples:
  umlfs image check root.img
  umlfs image check disk.img:2                the second partition of a disk
  umlfs image check --json root.img | jq -r '.findings[]'

Exit status: 0 nothing was found, 1 something was, 8 the file cannot be checked.
The image is not changed; changes that wait in its journal count as made.";

/// Check that an image's file system is sound
#[derive(clap::Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct Check {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// The image, or a partition of a disk
    #[arg(value_name = "IMAGE[:PARTITION]")]
    image: OsString,
}

const FSCK_EXAMPLES: &str = "\
Examples:
  umlfs image fsck root.img                   after a machine was killed, or when `check` found something
  umlfs image fsck --json root.img | jq .left.count

Exit status: 0 the file system is sound now, 1 something is left for e2fsck, 8 it cannot be repaired.
Repaired is what needs no guess: checksums, counts, bitmaps, link counts, directory entries that lead nowhere, `..`;
files without a name get one in lost+found, and a damaged directory index is dropped.";

/// Replay an image's journal and repair what needs no guess
#[derive(clap::Args)]
#[command(after_help = FSCK_EXAMPLES)]
pub(crate) struct Fsck {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// The image, or a partition of a disk
    #[arg(value_name = "IMAGE[:PARTITION]")]
    image: OsString,
}

fn target(argument: &OsString) -> Result<Target, CliError> {
    match split(argument) {
        (target, None) => Ok(target),
        (_, Some(path)) => Err(CliError::usage(format_args!(
            "`{}` is a path in the image, expected an image",
            String::from_utf8_lossy(&path)
        ))),
    }
}

impl Check {
    pub(crate) fn run(&self) -> CommandResult {
        let target = target(&self.image)?;
        let checked = imgtool::check(target.clone()).map_err(|error| report(error).with_code(FAILED))?;
        if self.json {
            print_json(&serde_json::json!(checked))?;
        } else {
            let mut text = for_people(&target, &checked);
            if checked.repairable == checked.findings.len() && !checked.is_clean() {
                text += "`umlfs image fsck` can repair all of it.\n";
            } else if !checked.is_clean() {
                text += "Some of it needs e2fsck; work on a copy.\n";
            }
            ui::with_stdout(|out| out.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))?;
        }
        Ok(if checked.is_clean() { 0 } else { FOUND })
    }
}

impl Fsck {
    pub(crate) fn run(&self) -> CommandResult {
        let target = target(&self.image)?;
        let (found, left) = imgtool::fsck(target.clone()).map_err(|error| report(error).with_code(FAILED))?;
        if self.json {
            print_json(&serde_json::json!({"found": found, "left": left}))?;
        } else {
            let mut text = String::new();
            if found.replayed {
                text += "The journal was replayed.\n";
            }
            for finding in &found.findings {
                let state = if left.findings.contains(finding) { "left" } else { "repaired" };
                text += &format!("{state}: {finding}\n");
            }
            // What only a repair brought to light.
            for finding in left.findings.iter().filter(|finding| !found.findings.contains(finding)) {
                text += &format!("left: {finding}\n");
            }
            if left.is_clean() {
                text += &for_people(&target, &left);
            } else {
                text += "What is left needs e2fsck; work on a copy.\n";
            }
            ui::with_stdout(|out| out.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))?;
        }
        Ok(if left.is_clean() { 0 } else { FOUND })
    }
}

fn print_json(value: &serde_json::Value) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::failed(format_args!("cannot make JSON: {error}")))?;
    ui::with_stdout(|out| writeln!(out, "{text}").map_err(|error| CliError::output(&error)))
}

/// The findings, one a line, and a summary.
fn for_people(target: &Target, checked: &Checked) -> String {
    let mut text = String::new();
    for finding in &checked.findings {
        text += &format!("{finding}\n");
    }
    if checked.unusable {
        return text;
    }
    let hidden = checked.count - checked.findings.len();
    if hidden > 0 {
        text += &format!("... and {hidden} more\n");
    }
    let state = match checked.count {
        0 => "sound".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    let mut notes = String::new();
    if checked.replayed {
        notes += "; the journal holds changes for the next mount";
    }
    if checked.orphans > 0 {
        notes += &format!("; {} deleted or cut files are to be freed", checked.orphans);
    }
    text += &format!(
        "{target}: {state}: {} inodes in use, {} directories, {} used{notes}\n",
        checked.files,
        checked.directories,
        HumanSize(checked.used)
    );
    text
}
