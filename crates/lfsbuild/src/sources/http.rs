//! Downloads over HTTP and HTTPS, with the proxies of the environment and the certificates that the host trusts.

use std::io::{Error as IoError, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ureq::ResponseExt;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Longest wait for a connection, and for the answer's head. A school's network that drops packets must not stall a build.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);

/// Longest time without a byte, once they flow.
const STALL: Duration = Duration::from_secs(30);

/// Where hosts keep the certificates that they trust: Debian and Arch, Fedora, openSUSE.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Request<'a> {
    /// The address.
    pub(super) url: &'a str,
    /// Kinds of content, as in the header `Accept`; none for any.
    pub(super) accept: Option<&'a str>,
    /// The file of certificates to trust, PEM; none for the host's.
    pub(super) certificates: Option<&'a Path>,
}

/// What the transfer's thread hands over.
enum Piece {
    /// The answer's head came, from that address; the body has that length, when the server said so.
    Head(String, Option<u64>),
    /// Some of the body.
    Data(Vec<u8>),
}

/// Downloads to `path`; the value is the address that it came from in the end, after redirections.
///
/// # Errors
/// The host cannot be reached, answers with an error, stalls, or sends less than it announced; the user interrupts.
pub(super) fn get(request: &Request<'_>, path: &Path, name: &str, progress: &dyn Progress) -> Result<String> {
    let mut file = std::fs::File::create(path).map_err(|e| Error::io("creating", path, e))?;
    // A thread of its own, which may be left behind: nothing else can end a read from a server that says nothing.
    let (send, receive) = sync_channel(16);
    let (url, accept) = (request.url.to_owned(), request.accept.map(str::to_owned));
    let certificates = request.certificates.map(Path::to_owned);
    std::thread::spawn(move || {
        if let Err(e) = transfer(&url, accept.as_deref(), certificates, &send) {
            // Nobody listens any more when the build was interrupted.
            let _ = send.send(Err(e));
        }
    });
    let (mut from, mut done, mut total) = (request.url.to_owned(), 0, None);
    let mut last = Instant::now();
    loop {
        match receive.recv_timeout(Duration::from_millis(100)) {
            Ok(Ok(Piece::Head(address, length))) => (from, total) = (address, length),
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
        _ => Ok(from),
    }
}

/// The certificates to trust: those named, else those that the host names or keeps, else those that came with umlfs.
fn trusted(named: Option<PathBuf>) -> Result<RootCerts, IoError> {
    let of_host = || BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    let by_environment = || std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).filter(|path| path.is_file());
    let Some(path) = named.or_else(by_environment).or_else(of_host) else {
        return Ok(RootCerts::WebPki);
    };
    let text = std::fs::read(&path).map_err(|e| IoError::new(e.kind(), format!("{}: {e}", path.display())))?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn transfer(
    url: &str,
    accept: Option<&str>,
    certificates: Option<PathBuf>,
    to: &SyncSender<Result<Piece, IoError>>,
) -> Result<(), IoError> {
    // Over plain HTTP there is nothing to read.
    let roots = if url.starts_with("http:") { RootCerts::WebPki } else { trusted(certificates)? };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent(concat!("umlfs/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let request = agent.get(url);
    let request = match accept {
        Some(accept) => request.header("Accept", accept),
        None => request,
    };
    let answer = request.call().map_err(ureq::Error::into_io)?;
    let gone = |_| IoError::from(std::io::ErrorKind::BrokenPipe);
    let from = answer.get_uri().to_string();
    to.send(Ok(Piece::Head(from, answer.body().content_length()))).map_err(gone)?;
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
