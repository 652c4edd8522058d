//! Packages: what a step installed, as deterministic tar archives and manifests.
//!
//! The build runs as one unprivileged user, so the archive and not the file system carries owners, set-user-ID bits and device
//! nodes: `root:root` and the installed mode unless the recipe's `files` say otherwise. Paths are sorted, every time is
//! [`SOURCE_DATE_EPOCH`]: the same files give the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use crate::SOURCE_DATE_EPOCH;
use crate::error::{Error, Result};
use crate::hash::sha256_file;
use crate::recipe::{FileRule, NodeKind};
use crate::store::Archive;

/// The name of the output that holds all that belongs to no other.
pub const MAIN: &str = "main";

/// What is in an archive: every path with what a file system records of it. Sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The paths.
    pub entries: Vec<Entry>,
}

/// One path of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Absolute path in the built system, without a slash at its end.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with set-ID and sticky bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Directory.
    Dir,
    /// Regular file.
    File {
        /// Bytes.
        size: u64,
        /// SHA-256 of the contents.
        sha256: String,
    },
    /// Another name of a file of the same archive.
    Hardlink {
        /// The first name, absolute.
        target: String,
    },
    /// Symbolic link.
    Symlink {
        /// What it points to, as written.
        target: String,
    },
    /// Character device.
    Char {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// Block device.
    Block {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// Named pipe.
    Fifo,
}

/// A path with where its contents come from.
struct Item {
    entry: Entry,
    /// The file on disk; none for what only the recipe's rules make.
    file: Option<PathBuf>,
    content: Vec<u8>,
    /// Device and inode of a file with several names.
    inode: Option<(u64, u64)>,
}

/// Archives what lies below `dest`, with the recipe's rules applied, into `into` (`OUTPUT.tar`, `OUTPUT.json`).
///
/// # Errors
/// A rule names a path that was not installed; a path is not UTF-8 or a socket; the disk is full.
pub(crate) fn pack(
    step: &str,
    dest: &Path,
    rules: &BTreeMap<String, FileRule>,
    outputs: &BTreeMap<String, Vec<String>>,
    into: &Path,
) -> Result<BTreeMap<String, Archive>> {
    let fail = |message: String| Error::Package { step: step.to_owned(), message };
    let mut items = BTreeMap::new();
    walk(dest, "", &mut items, &fail)?;
    apply_rules(&mut items, rules, &fail)?;
    let mut parts: BTreeMap<&str, Vec<Item>> = BTreeMap::new();
    parts.insert(MAIN, Vec::new());
    for output in outputs.keys() {
        parts.insert(output, Vec::new());
    }
    let mut found: HashMap<&str, bool> = HashMap::new();
    for (path, item) in items {
        let owner =
            outputs.iter().flat_map(|(output, paths)| paths.iter().map(move |p| (output, p))).find(|(_, prefix)| {
                path == **prefix || path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'))
            });
        let output = match owner {
            Some((output, prefix)) => {
                found.insert(prefix, true);
                output.as_str()
            }
            None => MAIN,
        };
        parts.entry(output).or_default().push(item);
    }
    for (output, paths) in outputs {
        if let Some(missing) = paths.iter().find(|p| !found.contains_key(p.as_str())) {
            return Err(fail(format!("output {output} is to have {missing}, which the step did not install")));
        }
    }
    parts.into_iter().map(|(output, items)| Ok((output.to_owned(), write_archive(output, items, into)?))).collect()
}

fn walk(dir: &Path, prefix: &str, items: &mut BTreeMap<String, Item>, fail: &dyn Fn(String) -> Error) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("reading", dir, e))? {
        let entry = entry.map_err(|e| Error::io("reading", dir, e))?;
        let file = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(fail(format!("installed a file whose name is not UTF-8: {}", file.display())));
        };
        let path = format!("{prefix}/{name}");
        let meta = file.symlink_metadata().map_err(|e| Error::io("reading", &file, e))?;
        let kind = meta.file_type();
        let mut inode = None;
        let kind = if kind.is_dir() {
            EntryKind::Dir
        } else if kind.is_file() {
            if meta.nlink() > 1 {
                inode = Some((meta.dev(), meta.ino()));
            }
            let (sha256, size) = sha256_file(&file)?;
            EntryKind::File { size, sha256 }
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&file).map_err(|e| Error::io("reading", &file, e))?;
            match String::from_utf8(target.as_os_str().as_bytes().to_vec()) {
                Ok(target) => EntryKind::Symlink { target },
                Err(_) => {
                    return Err(fail(format!("installed a link whose target is not UTF-8: {path}")));
                }
            }
        } else if kind.is_fifo() {
            EntryKind::Fifo
        } else {
            return Err(fail(format!("installed {path}, which is neither file, directory, link nor pipe")));
        };
        let is_dir = kind == EntryKind::Dir;
        let mode = if matches!(kind, EntryKind::Symlink { .. }) { 0o777 } else { meta.mode() & 0o7777 };
        let entry = Entry { path: path.clone(), kind, mode, uid: 0, gid: 0 };
        items.insert(path.clone(), Item { entry, file: Some(file.clone()), content: Vec::new(), inode });
        if is_dir {
            walk(&file, &path, items, fail)?;
        }
    }
    Ok(())
}

fn apply_rules(
    items: &mut BTreeMap<String, Item>,
    rules: &BTreeMap<String, FileRule>,
    fail: &dyn Fn(String) -> Error,
) -> Result<()> {
    for (path, rule) in rules {
        match (items.get_mut(path), rule.kind) {
            (Some(item), None) => {
                item.entry.uid = rule.uid;
                item.entry.gid = rule.gid;
                if let Some(mode) = rule.mode {
                    item.entry.mode = mode.0;
                }
            }
            (Some(item), Some(NodeKind::Dir)) if item.entry.kind == EntryKind::Dir => {
                item.entry.uid = rule.uid;
                item.entry.gid = rule.gid;
                item.entry.mode = rule.mode.map_or(0o755, |m| m.0);
            }
            (Some(_), Some(_)) => {
                return Err(fail(format!("`files` makes {path}, which a phase has installed already")));
            }
            (None, None) => {
                return Err(fail(format!(
                    "`files` gives {path} an owner and mode, but the step did not install it (to make it, add `type`)"
                )));
            }
            (None, Some(_)) => {
                items.insert(path.clone(), made(path, rule));
            }
        }
    }
    // Directories above what the rules make.
    for path in rules.keys() {
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            if parent.is_empty() {
                break;
            }
            items
                .entry(parent.to_owned())
                .or_insert_with(|| made(parent, &FileRule { kind: Some(NodeKind::Dir), ..FileRule::default() }));
            above = parent;
        }
    }
    Ok(())
}

/// The path that a rule with a `type` makes.
fn made(path: &str, rule: &FileRule) -> Item {
    let content = rule.content.clone().unwrap_or_default().into_bytes();
    let device = rule.device.unwrap_or_default();
    let (kind, mode) = match rule.kind.unwrap_or(NodeKind::File) {
        NodeKind::Dir => (EntryKind::Dir, 0o755),
        NodeKind::File => {
            (EntryKind::File { size: content.len() as u64, sha256: crate::hash::sha256(&content) }, 0o644)
        }
        NodeKind::Symlink => (EntryKind::Symlink { target: rule.target.clone().unwrap_or_default() }, 0o777),
        NodeKind::Char => (EntryKind::Char { device }, 0o600),
        NodeKind::Block => (EntryKind::Block { device }, 0o600),
        NodeKind::Fifo => (EntryKind::Fifo, 0o644),
    };
    Item {
        entry: Entry {
            path: path.to_owned(),
            kind,
            mode: rule.mode.map_or(mode, |m| m.0),
            uid: rule.uid,
            gid: rule.gid,
        },
        file: None,
        content,
        inode: None,
    }
}

/// An archive of files that only rules make: a profile's own.
///
/// # Errors
/// The disk is full.
pub(crate) fn pack_rules(rules: &BTreeMap<String, FileRule>, output: &str, into: &Path) -> Result<Archive> {
    let items = rules.iter().map(|(path, rule)| made(path, rule)).collect();
    write_archive(output, items, into)
}

fn write_archive(output: &str, items: Vec<Item>, into: &Path) -> Result<Archive> {
    let tar_path = into.join(format!("{output}.tar"));
    let file = std::fs::File::create(&tar_path).map_err(|e| Error::io("creating", &tar_path, e))?;
    let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 17, file));
    let mut first_names: HashMap<(u64, u64), String> = HashMap::new();
    let mut manifest = Manifest::default();
    let mut installed_size = 0;
    let io = |e| Error::io("writing", &tar_path, e);
    for mut item in items {
        if let Some(inode) = item.inode {
            match first_names.get(&inode) {
                Some(first) => item.entry.kind = EntryKind::Hardlink { target: first.clone() },
                None => {
                    first_names.insert(inode, item.entry.path.clone());
                }
            }
        }
        if let EntryKind::File { size, .. } = item.entry.kind {
            installed_size += size;
        }
        append(&mut tar, &item).map_err(io)?;
        manifest.entries.push(item.entry);
    }
    let mut writer = tar.into_inner().map_err(io)?;
    writer.flush().map_err(io)?;
    let file = writer.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(io)?;
    drop(file);
    crate::store::write_json(&into.join(format!("{output}.json")), &manifest)?;
    let (sha256, size) = sha256_file(&tar_path)?;
    Ok(Archive { sha256, size, installed_size, entries: manifest.entries.len() as u64 })
}

/// Appends one path, named relative to the root directory (`usr/bin/ls`).
fn append<W: Write>(tar: &mut tar::Builder<W>, item: &Item) -> std::io::Result<()> {
    let entry = &item.entry;
    let name = entry.path.trim_start_matches('/');
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(SOURCE_DATE_EPOCH);
    header.set_size(0);
    match &entry.kind {
        EntryKind::Dir => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{name}/"), std::io::empty())
        }
        EntryKind::File { size, .. } => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(*size);
            match &item.file {
                Some(path) => tar.append_data(&mut header, name, std::fs::File::open(path)?),
                None => tar.append_data(&mut header, name, item.content.as_slice()),
            }
        }
        EntryKind::Hardlink { target } => {
            header.set_entry_type(EntryType::Link);
            tar.append_link(&mut header, name, target.trim_start_matches('/'))
        }
        EntryKind::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            append_symlink(tar, header, name, target)
        }
        EntryKind::Char { device } | EntryKind::Block { device } => {
            header.set_entry_type(if matches!(entry.kind, EntryKind::Char { .. }) {
                EntryType::Char
            } else {
                EntryType::Block
            });
            header.set_device_major(device.0)?;
            header.set_device_minor(device.1)?;
            tar.append_data(&mut header, name, std::io::empty())
        }
        EntryKind::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            tar.append_data(&mut header, name, std::io::empty())
        }
    }
}

/// A link target is kept byte for byte: `Header::set_link_name` would tidy `a//b` and `./a`.
fn append_symlink<W: Write>(
    tar: &mut tar::Builder<W>,
    mut header: Header,
    name: &str,
    target: &str,
) -> std::io::Result<()> {
    if target.len() < 100 {
        header.set_link_name_literal(target)?;
        tar.append_data(&mut header, name, std::io::empty())
    } else {
        tar.append_link(&mut header, name, target)
    }
}

/// Whether two packages bring the same path otherwise than as a directory of both.
///
/// `packages` are names and manifests in the order of the image. Where both have a directory, the first one's owner and mode hold.
///
/// # Errors
/// [`Error::Conflict`] with the first such path.
pub fn check_conflicts<'a>(packages: impl IntoIterator<Item = (&'a str, &'a Manifest)>) -> Result<()> {
    let mut owners: HashMap<&str, (&str, bool)> = HashMap::new();
    for (name, manifest) in packages {
        for entry in &manifest.entries {
            let is_dir = entry.kind == EntryKind::Dir;
            match owners.get(entry.path.as_str()) {
                Some((_, true)) if is_dir => {}
                Some((first, _)) => {
                    return Err(Error::Conflict {
                        path: entry.path.clone(),
                        first: (*first).to_owned(),
                        second: name.to_owned(),
                    });
                }
                None => {
                    owners.insert(&entry.path, (name, is_dir));
                }
            }
        }
    }
    Ok(())
}
