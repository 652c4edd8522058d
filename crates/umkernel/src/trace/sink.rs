//! Where traces go on the host.

use super::{Options, Sink, Tracer};
use crate::sync::Mutex;
use std::boxed::Box;
use std::format;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::string::String;

/// A trace that a user asks for.
#[derive(Clone, Debug, Default)]
pub struct TraceConfig {
    /// What it shows.
    pub options: Options,
    /// The file that it goes to; standard error without one.
    pub file: Option<PathBuf>,
}

impl TraceConfig {
    /// Makes the file, empty.
    ///
    /// # Errors
    /// A sentence about a file that cannot be written.
    pub fn create_file(&self) -> Result<(), String> {
        self.file.as_ref().map_or(Ok(()), |path| {
            File::create(path).map(drop).map_err(|e| format!("cannot write the trace to {}: {e}", path.display()))
        })
    }

    /// Makes the tracer; its file goes on where it was, as a machine that restarts needs it.
    ///
    /// # Errors
    /// A sentence about a file that cannot be written.
    pub fn start(&self) -> Result<Tracer, String> {
        let sink: Box<dyn Sink> = match &self.file {
            Some(path) => {
                let file = File::options().append(true).create(true).open(path);
                let file = file.map_err(|e| format!("cannot write the trace to {}: {e}", path.display()))?;
                Box::new(Stream { stream: Mutex::new(file), raw: false })
            }
            None => {
                let stderr = io::stderr();
                // The terminal is raw while a machine has it.
                let raw = stderr.is_terminal();
                Box::new(Stream { stream: Mutex::new(stderr), raw })
            }
        };
        Ok(Tracer::new(self.options.clone(), sink))
    }
}

/// A trace to a stream of the host, unbuffered: it is complete up to the last call however the machine ends.
struct Stream<W> {
    stream: Mutex<W>,
    /// Lines end with a carriage return as well.
    raw: bool,
}

impl<W: Write + Send> Sink for Stream<W> {
    fn write(&self, text: &str) {
        // A full disk or a closed pipe stops the trace, not the machine.
        let _ = if self.raw {
            self.stream.lock().write_all(text.replace('\n', "\r\n").as_bytes())
        } else {
            self.stream.lock().write_all(text.as_bytes())
        };
    }
}
