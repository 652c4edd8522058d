//! The one error type: a sentence that says what, where and what was expected, and perhaps what to do.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;

const TOO_LARGE: &str = "`ulimit -f` tells how large files may be here; some file systems have a limit of their own";

/// Why an image operation failed.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error that says `message`.
    pub fn new(message: impl Display) -> Self {
        Self { message: message.to_string(), hint: None }
    }

    /// A failed file operation: `cannot ACTION PATH: REASON`.
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let reason = reason(error);
        let new = Self::new(format_args!("cannot {action} {}: {reason}", path.display()));
        match error.kind() {
            io::ErrorKind::StorageFull => {
                new.hint(format_args!("free some space on the file system that holds {}", path.display()))
            }
            io::ErrorKind::FileTooLarge => new.hint(TOO_LARGE),
            _ => new,
        }
    }

    /// A file that could not be made `size` bytes long.
    pub(crate) fn resizing(size: u64, error: &io::Error) -> Self {
        let new = Self::new(format_args!("cannot set the size to {size} bytes: {}", reason(error)));
        if error.kind() == io::ErrorKind::FileTooLarge { new.hint(TOO_LARGE) } else { new }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Puts the place where it happened in front: `PLACE: MESSAGE`.
    #[must_use]
    pub fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What the user can do about it, when that is known.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// An I/O error without Rust's "(os error N)".
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
