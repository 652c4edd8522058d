//! `umlfs image ls`: names, or names with all that `ls -l` shows.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;

use imgtool::{Entry, FileType, Volume, civil, join};

use super::{report, split};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs image ls root.img               the root directory
  umlfs image ls -l root.img:/dev       with types, modes, owners, sizes and times (UTC)
  umlfs image ls -lR root.img:/etc      and everything below";

/// List files of an image
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Show type, mode, links, owners, size and time, too
    #[arg(short)]
    long: bool,
    /// Show owners as numbers; without it, names come from the image's own /etc/passwd and /etc/group
    #[arg(short)]
    numeric: bool,
    /// List what is in subdirectories, too
    #[arg(short = 'R')]
    recursive: bool,
    /// List a directory itself, not what is in it
    #[arg(short)]
    directory: bool,
    /// The image, with a path in it after a colon
    #[arg(value_name = "IMAGE[:PATH]")]
    image: OsString,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let (image, path) = split(&args.image);
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| b"/".to_vec());
    let mut image = Volume::open(image).map_err(report)?;
    let owners = match args.long && !args.numeric {
        true => Owners { users: names(&mut image, b"/etc/passwd"), groups: names(&mut image, b"/etc/group") },
        false => Owners::default(),
    };
    ui::with_stdout(|out| {
        let itself = image.stat(&path).map_err(report)?;
        // A link to a directory is shown as what it is with -l, as ls does.
        let enter = match itself.attr.file_type {
            FileType::Directory => !args.directory,
            FileType::Symlink if !args.long && !args.directory => image.is_directory(&path),
            _ => false,
        };
        if !enter {
            let shown = Entry { name: path.clone(), ..itself };
            return print(out, args, &owners, &[shown]);
        }
        // Directories still to be listed, the next one last.
        let mut waiting = vec![path.clone()];
        let mut first = true;
        while let Some(directory) = waiting.pop() {
            let entries = image.list(&directory).map_err(report)?;
            if args.recursive {
                let gap = if std::mem::take(&mut first) { "" } else { "\n" };
                write_all(out, &[gap.as_bytes(), &directory, b":\n"].concat())?;
            }
            print(out, args, &owners, &entries)?;
            if args.recursive {
                let below = entries.iter().rev().filter(|entry| entry.attr.file_type == FileType::Directory);
                waiting.extend(below.map(|entry| join(&directory, &entry.name)));
            }
        }
        Ok(())
    })?;
    Ok(0)
}

fn write_all(out: &mut dyn Write, bytes: &[u8]) -> Result<(), CliError> {
    out.write_all(bytes).map_err(|error| CliError::output(&error))
}

#[derive(Default)]
struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

/// Names by number from a passwd or group file; an image without a readable one has none.
pub(super) fn names<D: imgtool::BlockDevice>(image: &mut Volume<D>, path: &[u8]) -> HashMap<u32, String> {
    /// Larger files than this are no lists of users.
    const LARGEST: u64 = 1 << 20;
    let mut text = Vec::new();
    let small = image.stat(path).is_ok_and(|entry| entry.attr.size <= LARGEST);
    if !small || image.read_to(path, &mut text).is_err() {
        return HashMap::new();
    }
    let mut found = HashMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(number)) = (fields.next(), fields.nth(1).and_then(|field| field.parse().ok())) {
            // The first line for a number wins, as getpwuid(3) reads them.
            found.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    found
}

/// Prints entries, one a line, columns aligned.
fn print(out: &mut dyn Write, args: &Args, owners: &Owners, entries: &[Entry]) -> Result<(), CliError> {
    if !args.long {
        for entry in entries {
            write_all(out, &[&entry.name, &b"\n"[..]].concat())?;
        }
        return Ok(());
    }
    let rows: Vec<[String; 6]> = entries.iter().map(|entry| columns(entry, owners)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [links, user, group, size] = [1, 2, 3, 4].map(width);
    for (entry, [mode, n, u, g, s, time]) in entries.iter().zip(&rows) {
        let row = format!("{mode} {n:>links$} {u:<user$} {g:<group$} {s:>size$} {time} ");
        let arrow: &[u8] = if entry.target.is_some() { b" -> " } else { b"" };
        let target = entry.target.as_deref().unwrap_or_default();
        write_all(out, &[row.as_bytes(), &entry.name, arrow, target, b"\n"].concat())?;
    }
    Ok(())
}

fn columns(entry: &Entry, owners: &Owners) -> [String; 6] {
    let attr = &entry.attr;
    let name = |names: &HashMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    let size = match attr.file_type {
        FileType::CharDevice | FileType::BlockDevice => format!("{}, {}", attr.rdev.0, attr.rdev.1),
        _ => attr.size.to_string(),
    };
    let (year, month, day, hour, minute, _) = civil(attr.mtime.sec);
    [
        mode_text(attr.file_type, attr.mode),
        attr.nlink.to_string(),
        name(&owners.users, attr.uid),
        name(&owners.groups, attr.gid),
        size,
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}"),
    ]
}

/// `drwxr-xr-x`, as `ls(1)` writes it.
pub(super) fn mode_text(kind: FileType, mode: u16) -> String {
    let kind = match kind {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::CharDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, mark) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        let execute = bits & 1 != 0;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, execute) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => mark,
            (true, false) => mark.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_like_ls() {
        assert_eq!(mode_text(FileType::Regular, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode_text(FileType::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text(FileType::Directory, 0o3770), "drwxrws--T");
        assert_eq!(mode_text(FileType::Symlink, 0o777), "lrwxrwxrwx");
        assert_eq!(mode_text(FileType::Fifo, 0o6000), "p--S--S---");
    }
}
