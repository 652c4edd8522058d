//! The cache on disk: sources, finished packages, work directories and logs.
//!
//! ```text
//! $XDG_CACHE_HOME/umlfs/
//!     sources/SHA256-NAME       downloaded files, verified
//!     packages/KEY/             finished steps: record.json, OUTPUT.tar, OUTPUT.json, build.log, test.log
//!     work/KEY/                 steps that run or failed, locked by who works there; wiped when the step starts
//!     logs/NAME-STAGE.log       output of the step's latest run, while it runs and when it failed
//!     apt/                      private state of apt
//!     host-hashes.json          contents of host tools, by size and time
//!     runs/PROFILE.json         when the latest build of a profile ran and which steps it built
//!     history.json              measured times of steps
//!     lock, apt.lock            held by the one builder that builds, and by who reads apt's index
//! ```
//!
//! Results appear by rename only, so an interrupted builder leaves nothing that a later one could take for finished.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::package::Manifest;
use crate::sandbox::Kind;
use crate::suite::TestResult;

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Store {
    top: PathBuf,
}

/// What is kept with a finished step, besides its archives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The step (`busybox/final`).
    pub step: String,
    /// Its key.
    pub key: String,
    /// The package's version.
    pub version: String,
    /// Its licence, an SPDX expression.
    pub license: String,
    /// Sources: file name and SHA-256.
    pub sources: BTreeMap<String, String>,
    /// Steps that it needed: reference and key.
    pub needs: BTreeMap<String, String>,
    /// What it made: output name (`main` and others) and archive.
    pub outputs: BTreeMap<String, Archive>,
    /// Wall time of the build in seconds.
    pub wall_seconds: f64,
    /// Processor time of the build in seconds.
    pub cpu_seconds: f64,
    /// When it was finished, seconds since 1970.
    pub finished: u64,
    /// The phases in their order, with the wall time of each in seconds. Empty in records of older builders.
    #[serde(default)]
    pub phases: Vec<(String, f64)>,
    /// How its test suite went, when it was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestResult>,
    /// What it was built in; that makes no difference to what it is. Older builders had namespaces only.
    #[serde(default)]
    pub sandbox: Kind,
    /// Version of the builder.
    pub builder: String,
}

/// One archive of a finished step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// SHA-256 of the tar file.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of the files in it.
    pub installed_size: u64,
    /// Number of paths in it.
    pub entries: u64,
}

/// The right to build into the store; given back when dropped.
#[derive(Debug)]
pub struct StoreLock {
    _file: Flock<File>,
}

impl Store {
    /// The user's store: `$XDG_CACHE_HOME/umlfs`, else `$HOME/.cache/umlfs`. Nothing is created yet.
    ///
    /// # Errors
    /// Neither variable is set to an absolute path.
    pub fn open_default() -> Result<Store> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        match cache {
            Some(cache) => Ok(Store::at(cache.join("umlfs"))),
            None => Err(Error::Usage {
                message: "neither XDG_CACHE_HOME nor HOME names a directory to keep sources and packages in".into(),
                hint: Some("set XDG_CACHE_HOME to a directory that you may write to".into()),
            }),
        }
    }

    /// A store in a given directory.
    pub fn at(top: impl Into<PathBuf>) -> Store {
        Store { top: top.into() }
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.top
    }

    /// A directory of the store, created if need be.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.top.join(name);
        std::fs::create_dir_all(&path).map_err(|e| Error::io("creating", &path, e))?;
        Ok(path)
    }

    /// Where a verified source lies or would lie.
    pub fn source_path(&self, sha256: &str, name: &str) -> PathBuf {
        self.top.join("sources").join(format!("{sha256}-{name}"))
    }

    /// Directory of a finished step.
    pub fn package_dir(&self, key: &str) -> PathBuf {
        self.top.join("packages").join(key)
    }

    /// Archive of a finished step's output.
    pub fn archive_path(&self, key: &str, output: &str) -> PathBuf {
        self.package_dir(key).join(format!("{output}.tar"))
    }

    /// The record of a finished step; none when the store does not have it, or not whole.
    pub fn record(&self, key: &str) -> Option<Record> {
        let record: Record = read_json(&self.package_dir(key).join("record.json"))?;
        let whole = record.outputs.iter().all(|(name, archive)| {
            std::fs::metadata(self.archive_path(key, name)).is_ok_and(|m| m.len() == archive.size)
        });
        (record.key == key && whole).then_some(record)
    }

    /// The manifest of a finished step's output.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn manifest(&self, key: &str, output: &str) -> Result<Manifest> {
        let path = self.package_dir(key).join(format!("{output}.json"));
        let text = std::fs::read(&path).map_err(|e| Error::io("reading", &path, e))?;
        serde_json::from_slice(&text).map_err(|e| Error::io("reading", &path, e.into()))
    }

    /// What the owner of a lock file wrote into it; none when nobody has the lock.
    pub(crate) fn held(&self, name: &str) -> Option<String> {
        let path = self.top.join(name);
        // Shared, so that those who look do not meet each other.
        match Flock::lock(File::open(&path).ok()?, FlockArg::LockSharedNonblock) {
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Some(std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned())
            }
            _ => None,
        }
    }

    /// Waits for the right to build, or to do what else the lock file `name` stands for. `owner` is written into it for others to
    /// read; `waiting` is called once, with the other's, when another process has it.
    ///
    /// # Errors
    /// The lock file cannot be made; the user interrupts the wait.
    pub fn lock(
        &self,
        name: &str,
        owner: &str,
        cancelled: &dyn Fn() -> bool,
        mut waiting: impl FnMut(&str),
    ) -> Result<StoreLock> {
        let path = self.dir("")?.join(name);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("opening", &path, e))?;
        let mut tries = 0;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    // For people only. A full disk has a better error to tell.
                    let _ = lock.set_len(0).and_then(|()| lock.write_all(owner.as_bytes()));
                    return Ok(StoreLock { _file: lock });
                }
                Err((again, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) => file = again,
                Err((_, e)) => return Err(Error::io("locking", &path, e.into())),
            }
            if cancelled() {
                return Err(Error::Interrupted);
            }
            // Who only looks whether it is held has it for an instant.
            tries += 1;
            if tries == 2 {
                waiting(std::fs::read_to_string(&path).unwrap_or_default().trim());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// Reads a JSON file that may be missing or from another version: then it counts as missing.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a JSON file whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| Error::io("writing", path, e.into()))?;
    write_whole(path, &text)
}

/// Writes a file whole or not at all: beside it, then renamed.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&part);
        Error::io("writing", path, e)
    })
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, e)),
        _ => Ok(()),
    }
}

/// Removes a directory with all in it, also where a build left directories that their owner may not enter.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fn open_up(path: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o700))?;
                open_up(&entry.path())?;
            }
        }
        Ok(())
    }
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .and_then(|()| open_up(path))
            .and_then(|()| std::fs::remove_dir_all(path))
            .map_err(|e| Error::io("removing", path, e)),
    }
}
