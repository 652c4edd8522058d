//! What every subcommand returns when it cannot do its work: what went wrong, and what to do about it.

use std::error::Error;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};

use crate::ui;

/// Exit status of a command that failed.
const FAILED: u8 = 1;
/// Exit status of a command line that makes no sense; clap uses the same one.
const USAGE: u8 = 2;
/// Exit status when the reader of our output went away, as a shell reports a death by SIGPIPE.
const BROKEN_PIPE: u8 = 128 + 13;

/// An error as the user sees it: one line that says what and where, perhaps one that says what to do.
#[derive(Debug)]
pub(crate) struct CliError {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl CliError {
    /// The command was understood and could not be carried out (exit status 1).
    pub(crate) fn failed(message: impl Display) -> Self {
        Self { message: message.to_string(), hint: None, code: FAILED }
    }

    /// The command line itself is wrong in a way that clap cannot see (exit status 2).
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { code: USAGE, ..Self::failed(message) }
    }

    /// The same error with another exit status.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// An error with its chain of causes, joined by colons. A cause that the message above it already spells out
    /// is not repeated.
    pub(crate) fn chain(error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                // Writing to a String cannot fail.
                let _ = write!(message, ": {text}");
            }
            source = cause.source();
        }
        Self::failed(message)
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// A failed write to standard output. A reader that has seen enough (`umlfs ... | head`) is no reason to complain.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { message: String::new(), hint: None, code: BROKEN_PIPE };
        }
        Self::failed(format_args!("cannot write to standard output: {error}"))
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.code
    }

    /// Prints `umlfs: error: WHAT` and the hint to standard error. An error without a message prints nothing.
    pub(crate) fn print(&self) {
        if self.message.is_empty() {
            return;
        }
        let styles = ui::STYLES;
        let (error, hint) = (styles.get_error(), styles.get_valid());
        let mut out = anstream::stderr().lock();
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(out, "umlfs: {error}error:{error:#} {}", self.message);
        if let Some(text) = &self.hint {
            let _ = writeln!(out, "  {hint}hint:{hint:#} {text}");
        }
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);
    impl Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as &dyn Error)
        }
    }

    #[test]
    fn causes_are_joined_once() {
        let inner = Layer("no space left", None);
        let middle = Layer("writing block 7: no space left", Some(Box::new(inner)));
        let outer = Layer("out.img", Some(Box::new(middle)));
        let error = CliError::chain(&outer);
        assert_eq!(error.to_string(), "out.img: writing block 7: no space left");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_reader_that_left_is_no_error_message() {
        let error = CliError::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.to_string(), "");
        assert_eq!(error.exit_code(), 141);
    }
}
