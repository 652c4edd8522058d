//! The one error type of the builder: what went wrong, where, and what to do about it.

use std::path::{Path, PathBuf};

/// A place in a configuration file, 1-based; line 0 stands for the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file as the user can find it (`configs/recipes/musl.yaml`).
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

/// How a step failed, with all that is needed to look into it.
#[derive(Debug, Clone)]
pub struct StepFailure {
    /// The step (`busybox/final`).
    pub step: String,
    /// The phase that was running.
    pub phase: String,
    /// Where the failing command stands, when the shell could tell.
    pub location: Option<Location>,
    /// The failing command as written, when the shell could tell.
    pub command: Option<String>,
    /// `exit status 2`, `killed by signal 9`.
    pub status: String,
    /// The complete output of the step.
    pub log: PathBuf,
    /// The last lines of that output.
    pub tail: Vec<String>,
}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: phase {} failed: {}", self.step, self.phase, self.status)?;
        if let Some(command) = &self.command {
            write!(f, "\n  command: {command}")?;
        }
        if let Some(location) = &self.location {
            write!(f, "\n       at: {location}")?;
        }
        for line in &self.tail {
            write!(f, "\n  | {line}")?;
        }
        write!(f, "\n      log: {}", self.log.display())
    }
}

/// Everything that can stop the builder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A recipe or profile says something wrong.
    #[error("{location}: {message}")]
    Config {
        /// Where.
        location: Location,
        /// What was found and what was expected.
        message: String,
        /// What to do, when there is more to say.
        hint: Option<String>,
    },
    /// The user asked for something that does not exist (profile, step), or options that exclude each other.
    #[error("{message}")]
    Usage {
        /// What was asked.
        message: String,
        /// What exists.
        hint: Option<String>,
    },
    /// Steps need each other in a circle.
    #[error("the steps need each other in a circle: {}", .0.join(" -> "))]
    Cycle(
        /// The steps of the circle; the first is repeated at the end.
        Vec<String>,
    ),
    /// A file that is not what its pin says.
    #[error(
        "{what} is not the file that the recipe pins\n  expected sha256 {expected}\n  got      sha256 {found} ({size} bytes)"
    )]
    HashMismatch {
        /// The file and where it came from.
        what: String,
        /// The pinned hash.
        expected: String,
        /// The hash of what came.
        found: String,
        /// Its size in bytes.
        size: u64,
    },
    /// No place had a source.
    #[error("cannot get {file} for {recipe}:{}", .attempts.iter().map(|a| format!("\n  {a}")).collect::<String>())]
    SourceUnavailable {
        /// The file.
        file: String,
        /// The recipe that wants it.
        recipe: String,
        /// Each place that was tried, with its answer.
        attempts: Vec<String>,
    },
    /// The host lacks something.
    #[error("{message}")]
    Host {
        /// What is lacking and who needs it.
        message: String,
        /// The command that mends it.
        hint: String,
    },
    /// The sandbox could not be made.
    #[error("cannot make the build sandbox: {message}")]
    Sandbox {
        /// The call that failed and its errno.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A build step failed.
    #[error("{0}")]
    Step(Box<StepFailure>),
    /// Several build steps failed (`--keep-going`).
    #[error("{} steps failed:{}", .0.len(), .0.iter().map(|e| format!("\n{e}")).collect::<String>())]
    Steps(Vec<Error>),
    /// Two packages bring the same file.
    #[error("{path} is in two packages: {first} and {second}")]
    Conflict {
        /// The file, absolute in the built system.
        path: String,
        /// The package that comes first.
        first: String,
        /// The package that comes second.
        second: String,
    },
    /// What a step installed cannot be packaged.
    #[error("{step}: {message}")]
    Package {
        /// The step.
        step: String,
        /// What is wrong with which file.
        message: String,
    },
    /// No room left.
    #[error("no space left on the disk that holds {}", .path.display())]
    DiskFull {
        /// A file or directory on the full file system.
        path: PathBuf,
    },
    /// An operating-system error, with what was being done.
    #[error("{action}: {source}")]
    Io {
        /// What was being done to which file.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The user stopped the build.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Wraps a system error; a full disk gets its own variant.
    pub(crate) fn io(action: impl Into<String>, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Error::DiskFull { path: path.to_owned() };
        }
        Error::Io { action: format!("{} {}", action.into(), path.display()), source }
    }

    /// What the user can do about it; none where the message says it all.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Config { hint, .. } | Error::Usage { hint, .. } => hint.clone(),
            Error::Cycle(_) => Some("remove one of these entries from the `needs` of its stage".into()),
            Error::HashMismatch { .. } => Some(
                "the file was not kept. A truncated or altered download: try again; a new upstream file: check it, then change the pin".into(),
            ),
            Error::SourceUnavailable { file, .. } => Some(format!(
                "check the network and `umlfs doctor`, or put {file} into a directory and name it with --sources DIR"
            )),
            Error::Host { hint, .. } | Error::Sandbox { hint, .. } => Some(hint.clone()),
            Error::Step(failure) => Some(format!(
                "look around where it failed with `umlfs build --shell {}`; finished steps are kept, a later run continues there",
                failure.step
            )),
            Error::Steps(_) => Some("finished steps are kept; a later run continues with the failed ones".into()),
            Error::Conflict { .. } => Some("let one of the two recipes remove its copy in its last phase".into()),
            Error::DiskFull { .. } => Some(
                "free some space or move the cache with XDG_CACHE_HOME; finished steps are kept, the same command continues".into(),
            ),
            Error::Interrupted => Some("finished steps are kept; the same command continues".into()),
            Error::Package { .. } | Error::Io { .. } => None,
        }
    }

    /// The exit status that the command line should end with: 2 for what the user wrote, 130 for Ctrl-C, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config { .. } | Error::Usage { .. } | Error::Cycle(_) => 2,
            Error::Interrupted => 130,
            _ => 1,
        }
    }
}

/// The builder's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
