//! What finished packages hold: whose a file is, whether archives are whole, how two packages differ.

use std::collections::BTreeMap;
use std::path::Path;

use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::hash::sha256_file;
use crate::package::{Entry, EntryKind, MAIN, Manifest};
use crate::recipe::OutputRef;
use crate::store::{Record, read_json};

/// A path in which two packages differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the first has it.
    Removed(
        /// The path.
        String,
    ),
    /// Only the second has it.
    Added(
        /// The path.
        String,
    ),
    /// Both have it, but not the same.
    Changed {
        /// The path.
        path: String,
        /// What differs (`contents`, `mode 0644 -> 0755`...).
        what: String,
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Removed(path) => write!(f, "- {path}"),
            Difference::Added(path) => write!(f, "+ {path}"),
            Difference::Changed { path, what } => write!(f, "! {path}: {what}"),
        }
    }
}

/// Path by path, in which two packages differ. Sorted by path.
pub fn diff(first: &Manifest, second: &Manifest) -> Vec<Difference> {
    let index = |m: &Manifest| m.entries.iter().map(|e| (e.path.clone(), e.clone())).collect::<BTreeMap<_, _>>();
    let (first, second) = (index(first), index(second));
    let mut paths: Vec<&String> = first.keys().chain(second.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter_map(|path| match (first.get(path), second.get(path)) {
            (Some(_), None) => Some(Difference::Removed(path.clone())),
            (None, Some(_)) => Some(Difference::Added(path.clone())),
            (Some(a), Some(b)) if a != b => {
                Some(Difference::Changed { path: path.clone(), what: changes(a, b).join(", ") })
            }
            _ => None,
        })
        .collect()
}

fn changes(a: &Entry, b: &Entry) -> Vec<String> {
    let mut changes = Vec::new();
    match (&a.kind, &b.kind) {
        (a, b) if a == b => {}
        (EntryKind::File { size: a, .. }, EntryKind::File { size: b, .. }) if a == b => changes.push("contents".into()),
        (EntryKind::File { size: a, .. }, EntryKind::File { size: b, .. }) => {
            changes.push(format!("contents, {a} -> {b} bytes"));
        }
        (a, b) => changes.push(format!("{} -> {}", describe(a), describe(b))),
    }
    if a.mode != b.mode {
        changes.push(format!("mode {:04o} -> {:04o}", a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        changes.push(format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    changes
}

/// What a path is, in a word or two.
pub fn describe(kind: &EntryKind) -> String {
    match kind {
        EntryKind::Dir => "directory".into(),
        EntryKind::File { size, .. } => format!("file of {size} bytes"),
        EntryKind::Hardlink { target } => format!("another name of {target}"),
        EntryKind::Symlink { target } => format!("link to {target}"),
        EntryKind::Char { device: (major, minor) } => format!("character device {major}, {minor}"),
        EntryKind::Block { device: (major, minor) } => format!("block device {major}, {minor}"),
        EntryKind::Fifo => "named pipe".into(),
    }
}

/// The letter that `ls -l` begins a line with, for what a path is.
pub fn letter(kind: &EntryKind) -> char {
    match kind {
        EntryKind::Dir => 'd',
        EntryKind::File { .. } | EntryKind::Hardlink { .. } => '-',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Char { .. } => 'c',
        EntryKind::Block { .. } => 'b',
        EntryKind::Fifo => 'p',
    }
}

/// What is wrong with a finished step's archives: their sizes and hashes against its record. Empty when all is well.
///
/// # Errors
/// An archive cannot be read.
pub fn verify(builder: &Builder, record: &Record) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (output, archive) in &record.outputs {
        let path = builder.store.archive_path(&record.key, output);
        let (found, size) = sha256_file(&path)?;
        if found != archive.sha256 || size != archive.size {
            faults.push(format!(
                "{}: expected sha256 {} ({} bytes), found {found} ({size} bytes)",
                path.display(),
                archive.sha256,
                archive.size
            ));
        }
        let entries = builder.store.manifest(&record.key, output).map(|m| m.entries.len() as u64);
        if entries.as_ref().ok() != Some(&archive.entries) {
            faults.push(format!("{}: its list of paths is damaged", path.display()));
        }
    }
    Ok(faults)
}

/// The manifest that a name stands for: `NAME/STAGE[:OUTPUT]` of the plan, or a package's directory in any cache.
///
/// # Errors
/// There is no such step or directory, or the step is not built yet.
pub fn manifest(builder: &Builder, name: &str) -> Result<Manifest> {
    let path = Path::new(name);
    if path.is_dir() {
        return read_json(&path.join(format!("{MAIN}.json"))).ok_or_else(|| Error::Usage {
            message: format!("{name} is not a package's directory: it has no readable {MAIN}.json"),
            hint: Some("name a directory below packages/ of an umlfs cache".into()),
        });
    }
    let reference = OutputRef::parse(name).ok_or_else(|| Error::Usage {
        message: format!("found {name:?}, expected NAME/STAGE, NAME/STAGE:OUTPUT, or a package's directory"),
        hint: None,
    })?;
    let step = builder.plan.step(&reference.step)?;
    let output = reference.output.as_deref().unwrap_or(MAIN);
    let record = builder.store.record(&step.key).ok_or_else(|| Error::Usage {
        message: format!("{} is not built yet", step.name),
        hint: Some(format!("run `umlfs build --until {}`", step.name)),
    })?;
    if !record.outputs.contains_key(output) {
        return Err(Error::Usage {
            message: format!("{} has no output {output:?}", step.name),
            hint: Some(format!("it has: {}", record.outputs.keys().cloned().collect::<Vec<_>>().join(", "))),
        });
    }
    builder.store.manifest(&step.key, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind, mode: u32) -> Entry {
        Entry { path: path.into(), kind, mode, uid: 0, gid: 0 }
    }

    #[test]
    fn differences_are_named_path_by_path() {
        let file = |size, sha256: &str| EntryKind::File { size, sha256: sha256.into() };
        let first = Manifest {
            entries: vec![
                entry("/a", file(1, "x"), 0o644),
                entry("/b", file(1, "x"), 0o644),
                entry("/c", file(1, "x"), 0o644),
                entry("/same", EntryKind::Dir, 0o755),
            ],
        };
        let second = Manifest {
            entries: vec![
                entry("/b", file(1, "y"), 0o755),
                entry("/c", EntryKind::Symlink { target: "b".into() }, 0o644),
                entry("/d", EntryKind::Fifo, 0o644),
                entry("/same", EntryKind::Dir, 0o755),
            ],
        };
        let text: Vec<String> = diff(&first, &second).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["- /a", "! /b: contents, mode 0644 -> 0755", "! /c: file of 1 bytes -> link to b", "+ /d"]);
        assert_eq!(diff(&first, &first), []);
    }
}
