//! What the guest is asked to do.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A directory of the host to be seen in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its absolute path on the host.
    pub host: OsString,
    /// Its absolute path in the guest.
    pub guest: OsString,
    /// The guest may not write.
    pub read_only: bool,
}

/// What the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The first of the programs that runs becomes process 1.
    Init,
    /// The first of the programs that runs is a child of process 1; when it ends, so does the machine.
    Command,
}

/// What the guest is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The partition of the root disk that is mounted; the whole disk if `None`.
    pub partition: Option<u32>,
    /// It is mounted read-only.
    pub read_only: bool,
    /// Directories of the host to mount.
    pub shares: Vec<Share>,
    /// What becomes of the program.
    pub run: Run,
    /// Where the program may lie.
    pub programs: Vec<OsString>,
    /// Its arguments, the first its name; without any, its path is its name.
    pub args: Vec<OsString>,
    /// Its environment, each `NAME=VALUE`.
    pub env: Vec<OsString>,
    /// Which of the command's standard streams are the console.
    pub terminal: [bool; 3],
}

impl Request {
    /// As bytes: items that end with a zero byte each, a letter for what it is before its text.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |key: u8, text: &[u8]| {
            bytes.push(key);
            bytes.extend_from_slice(text);
            bytes.push(0);
        };
        if let Some(number) = self.partition {
            put(b'n', number.to_string().as_bytes());
        }
        put(b'd', if self.read_only { b"ro" } else { b"rw" });
        for share in &self.shares {
            put(b'h', share.host.as_bytes());
            put(if share.read_only { b'r' } else { b'w' }, share.guest.as_bytes());
        }
        put(b'm', if self.run == Run::Init { b"init" } else { b"command" });
        let lists = [(b'p', &self.programs), (b'a', &self.args), (b'e', &self.env)];
        lists.into_iter().for_each(|(key, list)| list.iter().for_each(|text| put(key, text.as_bytes())));
        let terminals = self.terminal.map(|is| if is { b't' } else { b'-' });
        put(b't', &terminals);
        bytes
    }

    /// The request that bytes stand for; `None` if they are none.
    pub fn decode(bytes: &[u8]) -> Option<Request> {
        let mut request = Request {
            partition: None,
            read_only: false,
            shares: Vec::new(),
            run: Run::Init,
            programs: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            terminal: [false; 3],
        };
        let mut host = None;
        for item in bytes.strip_suffix(&[0])?.split(|byte| *byte == 0) {
            let (key, text) = item.split_first()?;
            let owned = OsString::from_vec(text.to_vec());
            match (key, text) {
                (b'n', _) => request.partition = Some(std::str::from_utf8(text).ok()?.parse().ok()?),
                (b'd', _) => request.read_only = text == b"ro",
                (b'h', _) => host = Some(owned),
                (b'r' | b'w', _) => {
                    request.shares.push(Share { host: host.take()?, guest: owned, read_only: *key == b'r' });
                }
                (b'm', b"init") => request.run = Run::Init,
                (b'm', b"command") => request.run = Run::Command,
                (b'p', _) => request.programs.push(owned),
                (b'a', _) => request.args.push(owned),
                (b'e', _) => request.env.push(owned),
                (b't', _) => request.terminal = <[u8; 3]>::try_from(text).ok()?.map(|letter| letter == b't'),
                _ => return None,
            }
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_as_it_was() {
        let share = |host: &str, guest: &str, read_only| Share { host: host.into(), guest: guest.into(), read_only };
        let request = Request {
            partition: Some(12),
            read_only: true,
            shares: vec![share("/a b", "/mnt", true), share("/c,d", "/opt/x", false)],
            run: Run::Command,
            programs: vec!["/usr/bin/x".into(), "/bin/x".into()],
            args: vec!["x".into(), "".into(), OsString::from_vec(vec![0xff, b'\n'])],
            env: vec!["A=1".into(), "B=".into()],
            terminal: [false, true, false],
        };
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }

    #[test]
    fn what_is_no_request_is_none() {
        for bytes in [&b""[..], b"dro", b"\0", b"zx\0", b"r/mnt\0", b"tt\0", b"n\0", b"n-1\0", b"mboth\0"] {
            assert_eq!(Request::decode(bytes), None, "{bytes:?}");
        }
    }
}
