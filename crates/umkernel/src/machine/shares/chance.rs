//! Requests that bytes without a meaning stand for: what a fuzzer, or a loop over random bytes, asks of the server. Nothing is
//! expected of the answers; the server must not panic, and nothing beside what is shared may change.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use super::*;
use crate::fs::hostfs::protocol::{CHANGE, OPEN_WRITE};
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Requests of one run at most.
const REQUESTS: usize = 300;
/// What requests like as names: in twos where an operation takes two.
const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"dir",
    b"link",
    b"",
    b".",
    b"..",
    b"../secret",
    b"/",
    b"a\0b",
    b"b\0dir",
    b"n\0../secret",
    b"dir\0a",
    b"user.x",
    b"user.x\0value",
    b"a/b",
];
/// What requests like as numbers: modes with their types, flags, offsets and lengths.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    16,
    4096,
    65_536,
    0o100_644,
    0o040_755,
    0o010_600,
    0o140_600,
    0o020_666,
    0o104_777,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// What is shared, and beside it what is not.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("umkernel-requests-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("shared/dir")).unwrap();
        fs::write(path.join("shared/a"), "contents").unwrap();
        symlink("../secret", path.join("shared/link")).unwrap();
        fs::write(path.join("secret"), "secret").unwrap();
        Place(path)
    }

    /// All that may not change of what is not shared.
    fn beside(&self) -> (Vec<String>, Vec<u8>, [i64; 4]) {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        let secret = self.0.join("secret");
        let meta = |of: &Path| -> Metadata { fs::symlink_metadata(of).unwrap() };
        let (directory, file) = (meta(&self.0), meta(&secret));
        let times = [directory.ctime(), directory.ctime_nsec(), file.ctime(), file.ctime_nsec()];
        (
            names.iter().map(|entry| entry.file_name().into_string().unwrap()).collect(),
            fs::read(&secret).unwrap(),
            times,
        )
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        open_up(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Directories whose modes were changed can be removed again.
fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Bytes to take one after the other; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        NUMBERS[usize::from(self.next()) % NUMBERS.len()]
    }

    /// Mostly one of the first nodes.
    fn node(&mut self) -> u64 {
        match self.next() {
            255 => u64::MAX,
            number => u64::from(number % 12),
        }
    }

    fn payload(&mut self, op: Op) -> Vec<u8> {
        let kind = self.next();
        if op == Op::Change && kind < 224 {
            let mut words = [0; CHANGE];
            for word in words.as_chunks_mut::<8>().0 {
                *word = self.number().to_le_bytes();
            }
            words[0] = kind;
            return words.to_vec();
        }
        match kind {
            240.. => (0..kind - 240).map(|_| self.next()).collect(),
            // Up to what one message carries, and a byte more than that.
            232.. => vec![kind; CHUNK + 1 - usize::from(kind % 2)],
            _ => NAMES[usize::from(kind) % NAMES.len()].to_vec(),
        }
    }

    fn message(&mut self) -> Vec<u8> {
        let what = self.next();
        if what >= 248 {
            return (0..self.next()).map(|_| self.next()).collect();
        }
        let mut head = [0; REQUEST_HEAD];
        head[0] = what % 25;
        let op = Request::decode(&head).map_or(Op::Attr, |request| request.op);
        let request = Request {
            node: self.node(),
            other: self.node(),
            a: self.number(),
            b: self.number(),
            ..Request::new(op, 0)
        };
        // Nothing that would take the host's disk.
        let bounded = Request { b: request.b.min(1 << 16), ..request };
        let request = if op == Op::Allocate { bounded } else { request };
        request.encode(&mut head);
        head[0] = what % 25;
        [&head[..], &self.payload(op)].concat()
    }
}

/// Asks what `data` stands for.
///
/// # Panics
/// The server does, or reaches what is not shared.
pub fn requests(data: &[u8]) {
    let place = Place::new();
    let mut bytes = Bytes(data);
    let read_only = bytes.next().is_multiple_of(8);
    let mount = ShareMount { guest: "/".into(), read_only };
    let (server, ..) =
        prepare(&[ShareConfig { host: place.0.join("shared"), mount }]).unwrap_or_else(|e| panic!("{}", e.what));
    let before = place.beside();
    let mut answer = vec![0; LONGEST_ANSWER];
    for name in [&b"a"[..], b"dir", b"link"] {
        let lookup = Request::new(Op::Lookup, 0);
        let _ = server.answer(&lookup, name, &mut answer);
    }
    let _ = server.answer(&Request { a: OPEN_WRITE, ..Request::new(Op::Open, 1) }, b"", &mut answer);
    for _ in 0..REQUESTS {
        if bytes.0.is_empty() {
            break;
        }
        let message = bytes.message();
        let len = server.respond(&message, &mut answer);
        assert!(len.is_none_or(|len| (ANSWER_HEAD..=LONGEST_ANSWER).contains(&len)));
    }
    drop(server);
    assert!(place.beside() == before, "what is not shared has changed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_by_chance_leave_the_host_whole() {
        let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
        let first = number("SHARE_SEED", 1);
        for seed in first..first + number("SHARE_RUNS", 300) {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            };
            let data: Vec<u8> = (0..200).flat_map(|_| next()).collect();
            requests(&data);
        }
    }
}
