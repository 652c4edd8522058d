//! Getting sources: from the store, a directory of the user's, upstream, Debian through apt, then pip's index. All against pinned
//! hashes.

mod apt;
mod http;
pub(crate) mod pypi;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::hash::sha256_file;
use crate::progress::{Event, Progress};
use crate::recipe::{Recipe, Source};
use crate::store::Store;

/// Where to look, besides the store, and what was learnt in this run.
#[derive(Debug)]
pub struct Fetcher<'a> {
    store: &'a Store,
    directories: Vec<PathBuf>,
    offline: bool,
    /// Hosts that failed in this run; they are not asked again.
    failed_hosts: Mutex<HashSet<String>>,
    apt: Mutex<apt::Apt>,
    pypi: Mutex<pypi::Pypi>,
    /// A lock for each file that was asked for, by its hash.
    under_way: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

/// A source in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The file.
    pub path: PathBuf,
    /// Which of the pinned files it is.
    pub sha256: String,
}

/// What `umlfs sources list` and `verify` say about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// In the store; its hash is right where it was checked.
    Present,
    /// Not in the store.
    Missing,
    /// In the store, but not what the pin says.
    Damaged,
}

impl<'a> Fetcher<'a> {
    /// A fetcher into `store`, which also looks into `directories`; `offline` keeps it from the network.
    pub fn new(store: &'a Store, directories: Vec<PathBuf>, offline: bool) -> Self {
        Fetcher {
            store,
            directories,
            offline,
            failed_hosts: Mutex::new(HashSet::new()),
            apt: Mutex::new(apt::Apt::new(store.path().join("apt"))),
            pypi: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    /// Brings one source into the store, unless it is there, and checks it. Several threads and processes may fetch at once.
    ///
    /// # Errors
    /// [`Error::SourceUnavailable`] with each place's answer; [`Error::HashMismatch`] when all that came was something else.
    pub fn fetch(&self, recipe: &Recipe, source: &Source, progress: &dyn Progress) -> Result<Fetched> {
        // Two stages of a recipe want the same file: the second waits for the first's.
        let mutex = {
            let mut all = self.under_way.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(all.entry(source.sha256.value.clone()).or_default())
        };
        let _only = mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(present) = self.present(source, true)? {
            return Ok(present);
        }
        let mut attempts = Vec::new();
        let mut mismatch = None;
        let mut note = |place: String, error: Error, attempts: &mut Vec<String>| {
            let text = match &error {
                Error::HashMismatch { expected, found, size, .. } => {
                    format!("{place}: not the pinned file: sha256 {found} ({size} bytes), expected {expected}")
                }
                other => format!("{place}: {other}"),
            };
            if attempts.is_empty() || matches!(error, Error::HashMismatch { .. }) {
                mismatch = Some(error);
            }
            attempts.push(text);
        };
        for dir in &self.directories {
            for (name, sha256) in candidates(source) {
                let path = dir.join(name);
                if path.is_file() {
                    match self.take(&path, source, sha256) {
                        Ok(fetched) => return Ok(fetched),
                        Err(e) => note(path.display().to_string(), e, &mut attempts),
                    }
                }
            }
        }
        for url in &source.urls {
            match self.fetch_upstream(url, source, progress) {
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => attempts.push(format!("{}: skipped, its host failed before in this run", url.value)),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(e @ Error::DiskFull { .. }) => return Err(e),
                Err(e) => note(url.value.clone(), e, &mut attempts),
            }
        }
        let debian = source.debian.as_ref().map(|d| format!("Debian source package {} {}", d.source, d.version));
        let pypi = source.pypi.as_ref().map(|p| format!("Python package {} {}", *p.name, p.version));
        type From<'a> = fn(&Fetcher<'a>, &Source, &dyn Progress) -> Result<Fetched>;
        let packages: [(_, From<'a>); 2] = [(debian, Self::fetch_debian), (pypi, Self::fetch_pypi)];
        for (place, from) in packages {
            let Some(place) = place else { continue };
            if self.offline {
                attempts.push(format!("{place}: not asked (--offline)"));
                continue;
            }
            match from(self, source, progress) {
                Ok(fetched) => return Ok(fetched),
                Err(e @ (Error::Interrupted | Error::DiskFull { .. })) => return Err(e),
                Err(e) => note(place, e, &mut attempts),
            }
        }
        match (mismatch, attempts.len()) {
            (Some(Error::HashMismatch { expected, found, size, .. }), 1) => Err(Error::HashMismatch {
                what: attempts.first().and_then(|a| a.split(": not the pinned").next()).unwrap_or_default().to_owned(),
                expected,
                found,
                size,
            }),
            _ => Err(Error::SourceUnavailable {
                file: source.file.value.clone(),
                recipe: recipe.name.value.clone(),
                attempts,
            }),
        }
    }

    /// The source in the store; with `verify` its hash is computed and a damaged file is removed.
    fn present(&self, source: &Source, verify: bool) -> Result<Option<Fetched>> {
        for (_, sha256) in candidates(source) {
            let path = self.store.source_path(sha256, &source.file);
            if !path.is_file() {
                continue;
            }
            if verify && sha256_file(&path)?.0 != sha256 {
                std::fs::remove_file(&path).map_err(|e| Error::io("removing the damaged", &path, e))?;
                continue;
            }
            return Ok(Some(Fetched { path, sha256: sha256.to_owned() }));
        }
        Ok(None)
    }

    /// What the store has of a source; with `verify` its hash is computed. Nothing is changed.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn state(&self, source: &Source, verify: bool) -> Result<SourceState> {
        let mut state = SourceState::Missing;
        for (_, sha256) in candidates(source) {
            let path = self.store.source_path(sha256, &source.file);
            if path.is_file() {
                if !verify || sha256_file(&path)?.0 == sha256 {
                    return Ok(SourceState::Present);
                }
                state = SourceState::Damaged;
            }
        }
        Ok(state)
    }

    /// A place beside the source's in the store, for a download that is under way.
    fn scratch(&self, source: &Source) -> Result<PathBuf> {
        Ok(self.store.dir("sources")?.join(format!(".{}.{}.part", source.file.value, std::process::id())))
    }

    /// Copies a file of the user's into the store, if it is the pinned one.
    fn take(&self, path: &Path, source: &Source, sha256: &str) -> Result<Fetched> {
        let scratch = self.scratch(source)?;
        std::fs::copy(path, &scratch).map_err(|e| Error::io("copying", path, e))?;
        self.keep(&scratch, &path.display().to_string(), source, sha256)
    }

    /// Moves a finished download into its place, if it is the pinned file; otherwise removes it.
    fn keep(&self, scratch: &Path, from: &str, source: &Source, sha256: &str) -> Result<Fetched> {
        let (found, size) = sha256_file(scratch)?;
        if found != sha256 {
            std::fs::remove_file(scratch).map_err(|e| Error::io("removing", scratch, e))?;
            return Err(Error::HashMismatch { what: from.to_owned(), expected: sha256.to_owned(), found, size });
        }
        let path = self.store.source_path(sha256, &source.file);
        std::fs::set_permissions(scratch, std::fs::Permissions::from_mode(0o644))
            .map_err(|e| Error::io("changing the mode of", scratch, e))?;
        std::fs::rename(scratch, &path).map_err(|e| Error::io("moving to", &path, e))?;
        Ok(Fetched { path, sha256: sha256.to_owned() })
    }

    /// From upstream; none when the host is not asked again.
    fn fetch_upstream(&self, url: &str, source: &Source, progress: &dyn Progress) -> Result<Option<Fetched>> {
        if let Some(path) = url.strip_prefix("file://") {
            return self.take(Path::new(path), source, &source.sha256).map(Some);
        }
        let host = url.split('/').nth(2).unwrap_or(url).to_owned();
        if self.offline {
            return Err(Error::Usage { message: "not asked (--offline)".into(), hint: None });
        }
        let failed = |hosts: &Mutex<HashSet<String>>| hosts.lock().map(|h| h.contains(&host)).unwrap_or(false);
        if failed(&self.failed_hosts) {
            return Ok(None);
        }
        progress.event(Event::FetchStarted { file: &source.file, from: &host });
        let scratch = self.scratch(source)?;
        let request = http::Request { url, ..http::Request::default() };
        let result = http::get(&request, &scratch, &source.file, progress)
            .and_then(|_| self.keep(&scratch, url, source, &source.sha256));
        match result {
            Ok(fetched) => {
                progress.event(Event::FetchFinished { file: &source.file });
                Ok(Some(fetched))
            }
            Err(e) => {
                let _ = std::fs::remove_file(&scratch);
                if !matches!(e, Error::HashMismatch { .. } | Error::Interrupted | Error::DiskFull { .. })
                    && let Ok(mut hosts) = self.failed_hosts.lock()
                    && hosts.insert(host.clone())
                {
                    let reason = match &e {
                        Error::Io { source, .. } => source.to_string(),
                        other => other.to_string(),
                    };
                    progress.event(Event::Note(&format!("{host}: {reason}; not asked again in this run")));
                }
                Err(e)
            }
        }
    }

    fn fetch_debian(&self, source: &Source, progress: &dyn Progress) -> Result<Fetched> {
        let Some(debian) = &source.debian else {
            return Err(Error::Usage { message: "no Debian package is named".into(), hint: None });
        };
        let sha256 = debian.sha256(source);
        progress.event(Event::FetchStarted { file: &source.file, from: "Debian" });
        let scratch = self.scratch(source)?;
        // One apt at a time: its state directory has one user, here and in other processes.
        let mut apt = self.apt.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let owner = format!("process {}", std::process::id());
        let alone = self.store.lock("apt.lock", &owner, &cancelled, |other| {
            progress.event(Event::Note(&format!("another umlfs ({other}) asks apt; waiting for it")));
        })?;
        let from = apt.locate(debian, sha256, progress)?;
        let command = apt.download(&from, sha256, &scratch);
        drop((alone, apt));
        run(command, "downloading with apt")?;
        let fetched = self.keep(&scratch, &from, source, sha256)?;
        progress.event(Event::FetchFinished { file: &source.file });
        Ok(fetched)
    }

    fn fetch_pypi(&self, source: &Source, progress: &dyn Progress) -> Result<Fetched> {
        let Some(package) = &source.pypi else {
            return Err(Error::Usage { message: "no Python package is named".into(), hint: None });
        };
        let sha256 = package.sha256(source);
        progress.event(Event::FetchStarted { file: &source.file, from: "pip's index" });
        let scratch = self.scratch(source)?;
        let mut pypi = self.pypi.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = pypi.download(package, package.file(source), &scratch, progress);
        drop(pypi);
        let fetched = result.and_then(|from| self.keep(&scratch, &from, source, sha256)).inspect_err(|_| {
            let _ = std::fs::remove_file(&scratch);
        })?;
        progress.event(Event::FetchFinished { file: &source.file });
        Ok(fetched)
    }
}

/// Runs a program to its end and gives its output; ends it when the user interrupts.
fn run(mut command: Command, action: &str) -> Result<String> {
    use std::os::unix::process::CommandExt;
    // A group of its own: Ctrl-C on the terminal reaches the builder, which then decides.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let full = command.get_current_dir().unwrap_or(Path::new("/")).to_owned();
    let io = |source| Error::Io { action: action.to_owned(), source };
    let child = command.spawn().map_err(io)?;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let (send, receive) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let _ = send.send(child.wait_with_output());
    });
    let output = loop {
        match receive.recv_timeout(std::time::Duration::from_millis(100)) {
            Ok(output) => break output.map_err(io)?,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if !cancelled() => {}
            Err(_) => {
                let _ = nix::sys::signal::killpg(pid, nix::sys::signal::Signal::SIGKILL);
                let _ = reader.join();
                return Err(Error::Interrupted);
            }
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = stderr.lines().filter(|l| l.starts_with("E:") || l.starts_with("Err:")).take(3).collect();
    let reason = if lines.is_empty() { stderr.trim().to_owned() } else { lines.join("; ") };
    if reason.contains("No space left on device") || reason.contains("not have enough free space") {
        return Err(Error::DiskFull { path: full });
    }
    Err(io(std::io::Error::other(reason)))
}

/// The files that may serve as a source: name outside, pinned hash. Upstream's first.
fn candidates(source: &Source) -> Vec<(&str, &str)> {
    let mut all = vec![(source.file.as_str(), source.sha256.as_str())];
    if let Some(debian) = &source.debian {
        all.push((debian.file.as_str(), debian.sha256(source)));
    }
    if let Some(pypi) = &source.pypi {
        all.push((pypi.file(source), pypi.sha256(source)));
    }
    all
}
