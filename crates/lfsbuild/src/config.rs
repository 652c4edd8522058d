//! Where recipes, profiles and the files they use come from: a directory on disk, or the copy compiled into the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// A tree of configuration files: `recipes/NAME.yaml`, `profiles/NAME.yaml`, `host.yaml`, `files/...`.
#[derive(Debug, Clone)]
pub enum ConfigDir {
    /// A directory that the user named or that lies in the current directory's source tree.
    Disk(PathBuf),
    /// The files compiled into the program, so that an installed `umlfs` works anywhere.
    Embedded,
}

impl ConfigDir {
    /// The tree that the command line asks for: `--config-dir`, else the compiled-in one.
    ///
    /// # Errors
    /// The named directory has no `recipes` in it.
    pub fn open(dir: Option<&Path>) -> Result<Self> {
        let Some(dir) = dir else {
            return Ok(ConfigDir::Embedded);
        };
        if !dir.join("recipes").is_dir() {
            return Err(Error::Usage {
                message: format!("{} is not a configuration directory: it has no recipes/ in it", dir.display()),
                hint: Some("name a directory with recipes/ and profiles/, as configs/ of the umlfs sources".into()),
            });
        }
        Ok(ConfigDir::Disk(dir.to_owned()))
    }

    /// How a file of the tree is named in messages.
    pub fn display_name(&self, relative: &str) -> String {
        match self {
            ConfigDir::Disk(dir) => dir.join(relative).display().to_string(),
            ConfigDir::Embedded => format!("configs/{relative}"),
        }
    }

    /// One file's bytes; none when there is no such file.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn read(&self, relative: &str) -> Result<Option<Vec<u8>>> {
        match self {
            ConfigDir::Disk(dir) => {
                let path = dir.join(relative);
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e) if is_absent(e.kind()) => Ok(None),
                    Err(e) => Err(Error::io("reading", &path, e)),
                }
            }
            ConfigDir::Embedded => Ok(EMBEDDED
                .binary_search_by(|(name, _)| (*name).cmp(relative))
                .ok()
                .and_then(|i| EMBEDDED.get(i))
                .map(|(_, bytes)| bytes.to_vec())),
        }
    }

    /// All files below a directory of the tree, by path relative to it, sorted. Empty when there is no such directory.
    ///
    /// # Errors
    /// A file cannot be read, or is neither a regular file nor a directory.
    pub fn read_tree(&self, relative: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        match self {
            ConfigDir::Disk(dir) => {
                let top = dir.join(relative);
                if top.is_dir() {
                    read_dir_into(&top, "", &mut files)?;
                }
            }
            ConfigDir::Embedded => {
                let prefix = format!("{}/", relative.trim_end_matches('/'));
                for (name, bytes) in EMBEDDED {
                    if let Some(rest) = name.strip_prefix(&prefix) {
                        files.insert(rest.to_owned(), bytes.to_vec());
                    }
                }
            }
        }
        Ok(files)
    }

    /// The names of the YAML files in a directory of the tree (`recipes`, `profiles`), without `.yaml`, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self, directory: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        match self {
            ConfigDir::Disk(dir) => {
                let top = dir.join(directory);
                let entries = match std::fs::read_dir(&top) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(names),
                    Err(e) => return Err(Error::io("reading", &top, e)),
                };
                for entry in entries {
                    let entry = entry.map_err(|e| Error::io("reading", &top, e))?;
                    if let Some(name) = entry.file_name().to_str().and_then(|n| n.strip_suffix(".yaml")) {
                        names.push(name.to_owned());
                    }
                }
            }
            ConfigDir::Embedded => {
                let prefix = format!("{directory}/");
                for (name, _) in EMBEDDED {
                    if let Some(name) = name.strip_prefix(&prefix).and_then(|n| n.strip_suffix(".yaml")) {
                        names.push(name.to_owned());
                    }
                }
            }
        }
        names.sort();
        Ok(names)
    }
}

/// No such file: also where a directory bears its name, or a file that of a directory above it.
fn is_absent(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind;
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

fn read_dir_into(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("reading", dir, e))? {
        let entry = entry.map_err(|e| Error::io("reading", dir, e))?;
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().map(|n| format!("{prefix}{n}")) else {
            return Err(Error::Usage { message: format!("{}: file name is not UTF-8", path.display()), hint: None });
        };
        let kind = entry.file_type().map_err(|e| Error::io("reading", &path, e))?;
        if kind.is_dir() {
            read_dir_into(&path, &format!("{name}/"), files)?;
        } else if kind.is_file() {
            files.insert(name, std::fs::read(&path).map_err(|e| Error::io("reading", &path, e))?);
        } else {
            return Err(Error::Usage {
                message: format!("{}: neither a regular file nor a directory", path.display()),
                hint: Some("name links and devices under `files:` in the recipe".into()),
            });
        }
    }
    Ok(())
}
