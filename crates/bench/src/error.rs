//! What can go wrong.

use std::path::PathBuf;

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something with a file.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the host said.
        source: std::io::Error,
    },
    /// A program ended badly.
    #[error("{what} failed ({status}): {output}")]
    Failed {
        /// What it was to do.
        what: String,
        /// How it ended.
        status: String,
        /// The end of its output.
        output: String,
    },
    /// Something about images.
    #[error(transparent)]
    Image(#[from] imgtool::Error),
    /// There is no such measure.
    #[error("nothing is called `{0}`")]
    UnknownMeasure(String),
    /// An earlier run cannot be read.
    #[error("{path} is no saved run: {source}", path = .path.display())]
    NotARun {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Start { program, .. } if program == "cc" => {
                Some("install a C compiler (gcc) with its static C library")
            }
            Error::Failed { what, .. } if what.starts_with("compiling") => {
                Some("a C compiler with its static C library is needed (gcc, libc6-dev)")
            }
            Error::UnknownMeasure(_) => Some("`umlfs bench --list` lists what can be measured"),
            Error::NotARun { .. } => Some("name a file that `umlfs bench --save` has written"),
            _ => None,
        }
    }
}
