//! Downloads over HTTP and HTTPS, with the proxies of the environment.

use std::io::{Error as IoError, Read, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Longest wait for a connection, and for the answer's head. A school's network that drops packets must not stall a build.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);

/// Longest time without a byte, once they flow.
const STALL: Duration = Duration::from_secs(30);

/// What the transfer's thread hands over.
enum Piece {
    /// The answer's head came; the body has that length, when the server said so.
    Head(Option<u64>),
    /// Some of the body.
    Data(Vec<u8>),
}

/// Downloads `url` to `path`.
///
/// # Errors
/// The host cannot be reached, answers with an error, stalls, or sends less than it announced; the user interrupts.
pub(super) fn download(url: &str, path: &Path, name: &str, progress: &dyn Progress) -> Result<()> {
    let mut file = std::fs::File::create(path).map_err(|e| Error::io("creating", path, e))?;
    // A thread of its own, which may be left behind: nothing else can end a read from a server that says nothing.
    let (send, receive) = sync_channel(16);
    let wanted = url.to_owned();
    std::thread::spawn(move || {
        if let Err(e) = transfer(&wanted, &send) {
            // Nobody listens any more when the build was interrupted.
            let _ = send.send(Err(e));
        }
    });
    let (mut done, mut total) = (0, None);
    let mut last = Instant::now();
    loop {
        match receive.recv_timeout(Duration::from_millis(100)) {
            Ok(Ok(Piece::Head(length))) => total = length,
            Ok(Ok(Piece::Data(bytes))) => {
                file.write_all(&bytes).map_err(|e| Error::io("writing", path, e))?;
                done += bytes.len() as u64;
                progress.event(Event::FetchProgress { file: name, done, total });
            }
            Ok(Err(e)) => return Err(failed(e)),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if cancelled() {
                    return Err(Error::Interrupted);
                }
                if last.elapsed() > STALL {
                    return Err(failed(IoError::other(format!("nothing came for {} s", STALL.as_secs()))));
                }
                continue;
            }
        }
        last = Instant::now();
    }
    match total {
        Some(total) if total != done => {
            Err(failed(IoError::other(format!("the transfer ended after {done} of {total} bytes"))))
        }
        _ => Ok(()),
    }
}

fn transfer(url: &str, to: &SyncSender<Result<Piece, IoError>>) -> Result<(), IoError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .user_agent(concat!("umlfs/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let answer = agent.get(url).call().map_err(ureq::Error::into_io)?;
    let gone = |_| IoError::from(std::io::ErrorKind::BrokenPipe);
    to.send(Ok(Piece::Head(answer.body().content_length()))).map_err(gone)?;
    let mut body = answer.into_body().into_reader();
    loop {
        let mut bytes = vec![0; 1 << 16];
        let n = body.read(&mut bytes)?;
        if n == 0 {
            return Ok(());
        }
        bytes.truncate(n);
        to.send(Ok(Piece::Data(bytes))).map_err(gone)?;
    }
}

fn failed(source: IoError) -> Error {
    Error::Io { action: "download".to_owned(), source }
}
