//! Where traces go on the host.

use super::{Options, Sink, Tracer};
use crate::sync::Mutex;
use std::boxed::Box;
use std::format;
use std::fs::File;
use std::io::{self, Write};
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
    /// Opens the file and makes the tracer.
    ///
    /// # Errors
    /// A sentence about a file that cannot be written.
    pub fn start(&self) -> Result<Tracer, String> {
        let sink: Box<dyn Sink> = match &self.file {
            Some(path) => {
                let file =
                    File::create(path).map_err(|e| format!("cannot write the trace to {}: {e}", path.display()))?;
                Box::new(Stream(Mutex::new(file)))
            }
            None => Box::new(Stream(Mutex::new(io::stderr()))),
        };
        Ok(Tracer::new(self.options.clone(), sink))
    }
}

/// A trace to a stream of the host, unbuffered: it is complete up to the last call however the machine ends.
struct Stream<W>(Mutex<W>);

impl<W: Write + Send> Sink for Stream<W> {
    fn write(&self, text: &str) {
        // A full disk or a closed pipe stops the trace, not the machine.
        let _ = self.0.lock().write_all(text.as_bytes());
    }
}
