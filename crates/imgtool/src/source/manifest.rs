//! Manifests as input: text files in the format of `mtree(5)`, as `bsdtar --format=mtree` writes it. A line names a file
//! and says what it is to be:
//!
//! ```text
//! /set uid=0 gid=0 mode=0644
//! ./etc type=dir mode=0755
//! ./etc/motd type=file contents=files/motd time=1700000000.0
//! ./bin/sh type=link link=busybox
//! ./dev/null type=char device=linux,1,3 mode=0666
//! ```
//!
//! A regular file without `contents` is empty. Names with a slash count from the root; others lie in the directory that
//! the last `type=dir` line without a slash entered, and `..` leaves it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ext4::Timestamp;

use super::directory::read_contents;
use crate::Error;
use crate::tree::{Body, Content, Data, Meta, Node, Origin, SafePath, Tree, symlink_target};

/// What is known of a file: keywords with their values.
type Keywords = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keywords that matter here. Others of `mtree(5)` (checksums, `nlink`, names of users) are passed over.
const PASSED_OVER: &[&[u8]] = &[
    b"cksum",
    b"flags",
    b"gname",
    b"ignore",
    b"inode",
    b"md5",
    b"md5digest",
    b"nlink",
    b"nochange",
    b"optional",
    b"resdevice",
    b"ripemd160digest",
    b"rmd160",
    b"rmd160digest",
    b"sha1",
    b"sha1digest",
    b"sha256",
    b"sha256digest",
    b"sha384",
    b"sha384digest",
    b"sha512",
    b"sha512digest",
    b"size",
    b"tags",
    b"uname",
];
const KNOWN: &[&[u8]] = &[b"type", b"mode", b"uid", b"gid", b"time", b"link", b"contents", b"device"];

/// Adds what the manifest at `path`, the `number`th input, describes to `tree`. Contents are found from the manifest's
/// directory on.
///
/// # Errors
/// A line is malformed (named by its number), or contents cannot be read.
pub(crate) fn read_manifest(path: &Path, number: u32, tree: &mut Tree) -> Result<(), Error> {
    let text = fs::read(path).map_err(|error| Error::io("read", path, &error))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut defaults = Keywords::new();
    // The directory that names without a slash lie in.
    let mut here: Vec<Vec<u8>> = Vec::new();
    for (line_number, line) in joined(&text) {
        let failed = |error: Error| error.at(format_args!("{}: line {line_number}", path.display()));
        let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let Some(name) = words.next().filter(|name| !name.starts_with(b"#")) else { continue };
        match name {
            b"/set" => parse(words, &mut defaults).map_err(failed)?,
            b"/unset" => words.for_each(|word| {
                if word == b"all" {
                    defaults.clear();
                }
                defaults.remove(word);
            }),
            b".." => {
                here.pop().ok_or_else(|| failed(Error::new("`..` leaves the root")))?;
            }
            _ => {
                let mut keywords = defaults.clone();
                parse(words, &mut keywords).map_err(failed)?;
                let name = unescape(name).map_err(failed)?;
                let node = node(&keywords, directory, number).map_err(failed)?;
                let enters = matches!(node.body, Body::Directory(_)) && !name.contains(&b'/');
                let full = if name.contains(&b'/') {
                    name.strip_prefix(b"/").unwrap_or(&name).to_vec()
                } else {
                    here.iter().chain([&name]).cloned().collect::<Vec<_>>().join(&b'/')
                };
                SafePath::new(&full).and_then(|safe| tree.insert(&safe, node)).map_err(failed)?;
                if enters && name != b"." {
                    here.push(name);
                }
            }
        }
    }
    Ok(())
}

/// Lines with their numbers; a backslash at the end joins one with the next.
fn joined(text: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (line, more) = match line.strip_suffix(b"\\") {
            Some(line) => (line, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| goes_on) {
            Some((_, before)) => before.extend_from_slice(line),
            None => lines.push((number, line.to_vec())),
        }
        goes_on = more;
    }
    lines
}

fn parse<'a>(words: impl Iterator<Item = &'a [u8]>, into: &mut Keywords) -> Result<(), Error> {
    for word in words {
        let (key, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (word.get(..at).unwrap_or_default(), word.get(at + 1..).unwrap_or_default()),
            None => (word, &b""[..]),
        };
        if KNOWN.contains(&key) {
            into.insert(key.to_vec(), unescape(value)?);
        } else if !PASSED_OVER.contains(&key) {
            return Err(Error::new(format_args!("`{}` is no keyword of mtree(5)", String::from_utf8_lossy(key))));
        }
    }
    Ok(())
}

/// Resolves `\ooo` and `\s` (`vis(3)`).
fn unescape(text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let octal = rest.first_chunk::<3>().and_then(|digits| {
            digits.iter().try_fold(0u32, |all, d| (b'0'..=b'7').contains(d).then(|| all * 8 + u32::from(d - b'0')))
        });
        let (value, len) = match (octal.and_then(|value| u8::try_from(value).ok()), rest.first()) {
            (Some(value), _) => (value, 3),
            (None, Some(b's')) => (b' ', 1),
            (None, Some(b'n')) => (b'\n', 1),
            (None, Some(b't')) => (b'\t', 1),
            (None, Some(b'\\')) => (b'\\', 1),
            (None, Some(b'#')) => (b'#', 1),
            _ => return Err(Error::new("a backslash without three octal digits, `s`, `n`, `t`, `#` or a backslash")),
        };
        out.push(value);
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok(out)
}

fn node(keywords: &Keywords, directory: &Path, number: u32) -> Result<Node, Error> {
    let get = |key: &str| keywords.get(key.as_bytes());
    let text = |key: &str| get(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let kind = text("type").ok_or_else(|| Error::new("`type=` is missing, and no /set line gives one"))?;
    let id = |key: &str| match text(key) {
        None => Ok(0),
        Some(value) => value.parse::<u32>().map_err(|_| Error::new(format_args!("{key}={value} is no number"))),
    };
    let default = if kind == "dir" { 0o755 } else { 0o644 };
    let mode = match text("mode") {
        None => default,
        Some(value) => u16::from_str_radix(&value, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| Error::new(format_args!("mode={value} is no octal number up to 7777")))?,
    };
    let device = || {
        let value = text("device").ok_or_else(|| Error::new("a device without `device=`"))?;
        let parts: Vec<&str> = value.split(',').collect();
        let numbers = match parts.as_slice() {
            [_, major, minor] | [major, minor] => major.parse().ok().zip(minor.parse().ok()),
            _ => None,
        };
        numbers.ok_or_else(|| Error::new(format_args!("device={value}, expected FORMAT,MAJOR,MINOR")))
    };
    let body = match kind.as_str() {
        "dir" => Body::Directory(BTreeMap::new()),
        "file" => match get("contents") {
            Some(contents) => {
                let below = Path::new(OsStr::from_bytes(contents));
                Body::Regular(read_contents(&directory.join(below), below, number)?)
            }
            None => {
                Body::Regular(Content { len: 0, origin: Origin::Host(number, Box::default()), data: Data::Whole(0) })
            }
        },
        "link" => {
            let target = get("link").ok_or_else(|| Error::new("a symbolic link without `link=`"))?;
            Body::Symlink(symlink_target(target)?)
        }
        "char" => device().map(|(major, minor)| Body::CharDevice(major, minor))?,
        "block" => device().map(|(major, minor)| Body::BlockDevice(major, minor))?,
        "fifo" => Body::Fifo,
        "socket" => Body::Socket,
        other => {
            return Err(
                Error::new(format_args!("type={other}")).hint("expected file, dir, link, char, block, fifo or socket")
            );
        }
    };
    let meta = Meta { mode, uid: id("uid")?, gid: id("gid")?, mtime: time(text("time").as_deref())? };
    Ok(Node { meta, xattrs: Vec::new(), body, kept: None })
}

/// `SECONDS.NANOSECONDS`, as `mtree(5)` has it: the fraction is a count of nanoseconds.
fn time(text: Option<&str>) -> Result<Timestamp, Error> {
    let Some(text) = text else { return Ok(Timestamp::default()) };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    match (seconds.parse(), fraction.parse()) {
        (Ok(sec), Ok(nsec)) if nsec < 1_000_000_000 => Ok(Timestamp { sec, nsec }),
        _ => Err(Error::new(format_args!("time={text}, expected SECONDS.NANOSECONDS"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Step;

    fn read(text: &str) -> Result<Vec<(String, Node)>, Error> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("data"), b"12345").unwrap();
        let manifest = directory.path().join("m");
        std::fs::write(&manifest, text).unwrap();
        let mut tree = Tree::new();
        read_manifest(&manifest, 0, &mut tree)?;
        let mut path = Vec::new();
        let mut found = Vec::new();
        for step in tree.walk() {
            match step {
                Step::Root => {}
                Step::Leave => {
                    path.pop();
                }
                Step::Name { name, id } => {
                    path.push(String::from_utf8_lossy(name).into_owned());
                    found.push((path.join("/"), tree.node(id).clone()));
                    if !matches!(tree.node(id).body, Body::Directory(_)) {
                        path.pop();
                    }
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn both_ways_to_name_files() {
        let full = "#mtree\n/set type=file uid=1 gid=2 mode=0640\n./etc type=dir mode=0755 nlink=2\n\
                    ./etc/a\\040b time=17.5 contents=data\n./etc/l type=link link=a\\sb \\\n  mode=0777\n\
                    ./null type=char device=linux,1,3\n";
        let relative = ". type=dir\n/set type=file uid=1 gid=2 mode=0640\netc type=dir mode=0755\n\
                        a\\040b time=17.5 contents=data\nl type=link link=a\\sb mode=0777\n..\n\
                        null type=char device=native,1,3\n";
        for text in [full, relative] {
            let found = read(text).unwrap();
            let names: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(names, ["etc", "etc/a b", "etc/l", "null"]);
            let (_, file) = &found[1];
            assert_eq!((file.meta.mode, file.meta.uid, file.meta.gid), (0o640, 1, 2));
            assert_eq!(file.meta.mtime, Timestamp { sec: 17, nsec: 5 });
            assert!(matches!(&file.body, Body::Regular(content) if content.len == 5));
            assert!(matches!(&found[2].1.body, Body::Symlink(target) if &target[..] == b"a b"));
            assert!(matches!(found[3].1.body, Body::CharDevice(1, 3)));
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, words) in [
            ("a\n", "line 1: `type=` is missing"),
            ("\n\na type=dir mode=9\n", "line 3: mode=9"),
            ("a type=file contents=none\n", "none"),
            ("../a type=dir\n", "climbs"),
            ("..\n", "leaves the root"),
            ("a type=dir colour=red\n", "`colour` is no keyword"),
            ("a type=char\n", "without `device=`"),
            ("a\\9 type=dir\n", "backslash"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
