//! Sources from the Python package index, as pip on the host is told of it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use umlfs_tests::place::{Place, fails, sha256, stderr, succeeds};

const INSTALLS: &str = "    phases:\n      install: |\n        cp hello \"$DEST/hello\"\n";

/// A server of these paths; the values are its address and what was asked of it, with the kinds of content that would do.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(files: &[(&str, &[u8])]) -> Server {
        let files: HashMap<String, Vec<u8>> = files.iter().map(|(p, b)| ((*p).to_owned(), b.to_vec())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let answer = match (files.get(&path), path.strip_prefix("/moved")) {
                    (Some(body), _) => {
                        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
                    }
                    (None, Some(to)) => format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n").into(),
                    (None, None) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                };
                log.lock().unwrap().push(path);
                // The client may leave first.
                let _ = stream.write_all(&answer);
            }
        });
        Server { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// A place, an archive that it needs, and the archive's hash; `pypi` is the recipe's.
fn wants(pypi: &str) -> (Place, Vec<u8>, String) {
    let place = Place::new();
    place.source(None);
    let archive = place.path("sources/src-1.tar.gz");
    let pin = sha256(&archive);
    let bytes = fs::read(&archive).unwrap();
    let source = format!("sources:\n  - file: src-1.tar.gz\n    sha256: {pin}\n    pypi: {pypi}\n");
    place.recipe("a", &source, INSTALLS);
    place.profile(&["a"]);
    (place, bytes, pin)
}

/// Builds with that index, which is found by itself.
fn build(place: &Place, index: &str, args: &[&str]) -> Output {
    let mut command = place.command(args);
    command.env("PIP_INDEX_URL", index).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command.output().unwrap()
}

#[test]
fn a_python_package_comes_from_pips_index() {
    let (place, bytes, pin) = wants("{name: Src, version: 1}");
    let html = format!("<html><body><a href=\"../../f/src-1.tar.gz#sha256={pin}\">src-1.tar.gz</a></body></html>");
    let server = Server::new(&[("/simple/src/", html.as_bytes()), ("/f/src-1.tar.gz", &bytes)]);
    let index = format!("http://{}/simple/", server.address);
    fails(&build(&place, &index, &["--offline"]), 1, &["src-1.tar.gz", "Python package Src 1: not asked (--offline)"]);
    assert_eq!(server.asked(), [""; 0]);
    succeeds(&build(&place, &index, &[]));
    assert_eq!(server.asked(), ["/simple/src/", "/f/src-1.tar.gz"]);
    // It is kept.
    succeeds(&build(&place, &index, &["--from", "a/final", "--offline"]));
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn the_index_may_answer_in_json_and_from_elsewhere() {
    let (place, bytes, pin) = wants("{name: s.rc, version: 1, file: s_rc-1.tar.gz}");
    let json = format!(
        "{{\"meta\": {{\"api-version\": \"1.0\"}}, \"name\": \"s-rc\", \"files\": [{{\"filename\": \"s_rc-1.tar.gz\", \
         \"url\": \"s_rc-1.tar.gz\", \"hashes\": {{\"sha256\": \"{pin}\"}}}}]}}"
    );
    let server = Server::new(&[("/s/s-rc/", json.as_bytes()), ("/s/s-rc/s_rc-1.tar.gz", &bytes)]);
    succeeds(&build(&place, &format!("http://{}/moved/s", server.address), &[]));
    // The link is relative to where the page was found in the end.
    assert_eq!(server.asked(), ["/moved/s/s-rc/", "/s/s-rc/", "/s/s-rc/s_rc-1.tar.gz"]);
}

#[test]
fn what_the_index_lacks_is_told() {
    let (place, bytes, pin) = wants("{name: src, version: 1}");
    let page = b"<a href=src-1-py3-none-any.whl>w</a><a href=src-2.tar.gz>2</a>";
    let server =
        Server::new(&[("/w/src/", page), ("/h/src/", b"<a href=src-1.tar.gz>"), ("/h/src/src-1.tar.gz", b"no")]);
    let at = |path: &str| format!("http://{}/{path}", server.address);
    let missing = format!("{}/src/ has no src-1.tar.gz; of version 1 it has src-1-py3-none-any.whl", at("w"));
    fails(&build(&place, &at("w"), &[]), 1, &["cannot get src-1.tar.gz for a", &missing]);
    fails(&build(&place, &at("none"), &[]), 1, &[&format!("{}/src/: http status: 404", at("none"))]);
    fails(&build(&place, &at("h"), &[]), 1, &["is not the file that the recipe pins", &pin]);
    assert_eq!(fs::read_dir(place.path("cache/umlfs/sources")).unwrap().count(), 0);

    // A directory of the user's may have it instead, and then the index is not asked.
    server.asked();
    fs::create_dir(place.path("stick")).unwrap();
    fs::write(place.path("stick/src-1.tar.gz"), bytes).unwrap();
    succeeds(&build(&place, &at("none"), &["--sources", place.path("stick").to_str().unwrap()]));
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn an_index_that_does_not_answer_is_asked_once() {
    let (place, _, pin) = wants("{name: src, version: 1}");
    let source = format!("sources:\n  - file: b-1.tar.gz\n    sha256: {pin}\n    pypi: {{name: b, version: 1}}\n");
    place.recipe("b", &source, INSTALLS);
    place.profile(&["a", "b"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = build(&place, &index, &["--keep-going", "--jobs", "1"]);
    fails(&output, 1, &["2 steps failed", "skipped, the index failed before in this run"]);
    fails(
        &build(&place, "http://user:word@127.0.0.1:1/simple", &[]),
        1,
        &["name and password, which umlfs does not send"],
    );
    assert!(!stderr(&build(&place, "http://user:word@127.0.0.1:1/simple", &[])).contains("word@"));
}

#[test]
fn the_index_is_the_one_of_pips_own_files() {
    let has_pip =
        ["pip3", "pip"].iter().any(|p| Command::new(p).arg("--version").stdout(Stdio::null()).status().is_ok());
    if !has_pip {
        eprintln!("skipped: this host has no pip");
        return;
    }
    let (place, bytes, _) = wants("{name: src, version: 1}");
    let server = Server::new(&[("/i/src/", b"<a href=/f/src-1.tar.gz>"), ("/f/src-1.tar.gz", &bytes)]);
    place.write("pip.conf", &format!("[global]\nindex-url = http://{}/i\n", server.address));
    let mut command = place.command(&[]);
    command.env_remove("PIP_INDEX_URL").env("PIP_CONFIG_FILE", place.path("pip.conf"));
    succeeds(&command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").output().unwrap());
    assert_eq!(server.asked(), ["/i/src/", "/f/src-1.tar.gz"]);
}
