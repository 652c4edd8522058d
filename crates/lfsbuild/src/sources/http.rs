//! Downloads over HTTP and HTTPS, with the proxies of the environment.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Longest wait for a connection, and for the answer's head. A school's network that drops packets must not stall a build.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);

/// Downloads `url` to `path`.
///
/// # Errors
/// The host cannot be reached, answers with an error, or sends less than it announced.
pub(super) fn download(url: &str, path: &Path, name: &str, progress: &dyn Progress) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .user_agent(concat!("umlfs/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let answer = agent.get(url).call().map_err(|e| failed(e.into_io()))?;
    let total = answer.body().content_length();
    let mut body = answer.into_body().into_reader();
    let mut file = std::fs::File::create(path).map_err(|e| Error::io("creating", path, e))?;
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        if cancelled() {
            return Err(Error::Interrupted);
        }
        let n = body.read(&mut buffer).map_err(|e| failed(e))?;
        if n == 0 {
            break;
        }
        file.write_all(buffer.get(..n).unwrap_or_default()).map_err(|e| Error::io("writing", path, e))?;
        done += n as u64;
        progress.event(Event::FetchProgress { file: name, done, total });
    }
    if let Some(total) = total.filter(|total| *total != done) {
        return Err(failed(std::io::Error::other(format!("the transfer ended after {done} of {total} bytes"))));
    }
    Ok(())
}

fn failed(source: std::io::Error) -> Error {
    Error::Io { action: "download".to_owned(), source }
}
