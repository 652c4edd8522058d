//! The host's tools as declared inputs: `host.yaml` names groups of commands, recipes name the groups that they use.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::ConfigDir;
use crate::error::{Error, Result};
use crate::hash::{Fields, sha256_file};
use crate::parse::yaml;
use crate::store::{Store, read_json, write_json};

/// Where a distribution puts its commands.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// `host.yaml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostTools {
    /// Groups by name.
    pub tools: BTreeMap<String, ToolGroup>,
}

/// Commands that belong together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolGroup {
    /// What they are for.
    pub summary: String,
    /// Debian packages that bring them.
    pub debian: Vec<String>,
    /// The commands.
    pub commands: Vec<String>,
    /// Directories and files besides the commands that make up the tool (a compiler's passes and start files). Where
    /// distributions differ: the places, joined by `|`.
    #[serde(default)]
    pub files: Vec<String>,
}

impl ToolGroup {
    /// Each of `files`: as written, and where it is here, if anywhere.
    pub fn located_files(&self) -> impl Iterator<Item = (&str, Option<PathBuf>)> {
        self.files.iter().map(|places| (places.as_str(), places.split('|').map(PathBuf::from).find(|p| p.exists())))
    }
}

/// Finds a command where the distribution puts them: not in `/usr/local` or a user's own directories.
pub fn find_command(name: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// The command that installs packages here, for a user as we are.
pub fn install_command(packages: &[String]) -> String {
    let root = if nix::unistd::geteuid().is_root() { "" } else { "sudo " };
    format!("{root}apt-get install -y --no-install-recommends {}", packages.join(" "))
}

impl HostTools {
    /// Reads `host.yaml`; a tree without one declares no tools.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn load(configs: &ConfigDir) -> Result<Self> {
        match configs.read("host.yaml")? {
            Some(text) => yaml(&configs.display_name("host.yaml"), &text),
            None => Ok(HostTools { tools: BTreeMap::new() }),
        }
    }

    /// The commands of some groups: name and path on the host. Unknown groups are an error of the caller's, who has the place.
    ///
    /// # Errors
    /// [`Error::Host`] naming the commands that the host lacks and the command that installs them.
    pub fn commands(&self, groups: &[&str], wanted_by: &str) -> Result<Vec<(String, PathBuf)>> {
        let mut commands = Vec::new();
        let mut missing = Vec::new();
        let mut packages = Vec::new();
        for group in groups.iter().filter_map(|g| self.tools.get(*g)) {
            for name in &group.commands {
                match find_command(name) {
                    Some(path) => commands.push((name.clone(), path)),
                    None => {
                        missing.push(name.as_str());
                        packages.extend(
                            group.debian.iter().filter(|p| !packages.contains(*p)).cloned().collect::<Vec<_>>(),
                        );
                    }
                }
            }
        }
        if missing.is_empty() {
            commands.sort();
            commands.dedup();
            return Ok(commands);
        }
        Err(Error::Host {
            message: format!("the host lacks {}, which {wanted_by} needs", missing.join(", ")),
            hint: install_command(&packages),
        })
    }
}

/// Contents of host files by path, remembered with size, times and inode, so that a file is read again only when it changed.
#[derive(Debug, Default)]
pub struct HostHashes {
    known: BTreeMap<PathBuf, Known>,
    changed: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    inode: u64,
    sha256: String,
}

const HASHES: &str = "host-hashes.json";

impl HostHashes {
    /// What the store remembers.
    pub fn load(store: &Store) -> Self {
        HostHashes { known: read_json(&store.path().join(HASHES)).unwrap_or_default(), changed: false }
    }

    /// Lets the store remember.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, store: &Store) -> Result<()> {
        if self.changed {
            write_json(&store.dir("")?.join(HASHES), &self.known)?;
        }
        Ok(())
    }

    /// A hash over the contents of a file, or of all files below a directory with their names.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be read, [`Error::Host`] when it does not exist.
    pub fn tree(&mut self, path: &Path) -> Result<String> {
        let mut fields = Fields::new("host tree");
        self.add_tree(path, "", &mut fields)?;
        Ok(fields.finish())
    }

    fn add_tree(&mut self, path: &Path, name: &str, fields: &mut Fields) -> Result<()> {
        let meta = path.metadata().map_err(|e| Error::io("reading", path, e))?;
        if !meta.is_dir() {
            let sha256 = self.file(path, &meta)?;
            fields.add(name, sha256);
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| Error::io("reading", path, e))? {
            names.push(entry.map_err(|e| Error::io("reading", path, e))?.file_name());
        }
        names.sort();
        for child in names {
            let child_path = path.join(&child);
            let child_name = format!("{name}/{}", child.to_string_lossy());
            match std::fs::read_link(&child_path) {
                // Not followed: what a link leads to is either in this tree or not part of it.
                Ok(target) => fields.add(&child_name, target.as_os_str().as_encoded_bytes()),
                Err(_) => self.add_tree(&child_path, &child_name, fields)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, meta: &std::fs::Metadata) -> Result<String> {
        let fresh = |k: &&Known| {
            k.size == meta.size()
                && k.mtime == (meta.mtime(), meta.mtime_nsec())
                && k.ctime == (meta.ctime(), meta.ctime_nsec())
                && k.inode == meta.ino()
        };
        if let Some(known) = self.known.get(path).filter(fresh) {
            return Ok(known.sha256.clone());
        }
        let (sha256, size) = sha256_file(path)?;
        self.changed = true;
        self.known.insert(
            path.to_owned(),
            Known {
                size,
                mtime: (meta.mtime(), meta.mtime_nsec()),
                ctime: (meta.ctime(), meta.ctime_nsec()),
                inode: meta.ino(),
                sha256: sha256.clone(),
            },
        );
        Ok(sha256)
    }
}
