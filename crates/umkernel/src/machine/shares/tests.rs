//! The server against requests that no kernel would make, and what its answers say.

use super::*;
use crate::fs::hostfs::protocol::{CHANGE, encode_change};
use crate::vfs::{SetAttr, Timestamp};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("umkernel-shares-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("shared")).unwrap();
        std::fs::write(path.join("secret"), "secret").unwrap();
        Directory(path)
    }

    fn shared(&self) -> PathBuf {
        self.0.join("shared")
    }

    fn server(&self, read_only: bool) -> Server {
        server(&self.shared(), read_only)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn server(host: &Path, read_only: bool) -> Server {
    let mount = ShareMount { guest: "/".into(), read_only };
    prepare(&[ShareConfig { host: host.into(), mount }]).unwrap().0
}

fn ask(server: &Server, request: Request, payload: &[u8]) -> Shared<(u64, Vec<u8>)> {
    let mut out = vec![0; CHUNK + Stat::SIZE];
    let (value, len) = server.answer(&request, payload, &mut out)?;
    out.truncate(len);
    Ok((value, out))
}

fn lookup(server: &Server, directory: u64, name: &[u8]) -> Shared<u64> {
    let (_, stat) = ask(server, Request::new(Op::Lookup, directory), name)?;
    Ok(Stat::decode(&stat).unwrap().node)
}

#[test]
fn no_name_leads_out() {
    let directory = Directory::new("names");
    symlink("../secret", directory.shared().join("link")).unwrap();
    symlink("/", directory.shared().join("root")).unwrap();
    let server = directory.server(false);
    for wrong in [&b""[..], b".", b"..", b"../secret", b"/etc/passwd", b"a/b", b"a\0b", b"root/etc"] {
        assert_eq!(lookup(&server, 0, wrong), Err(Errno::INVAL), "{wrong:?}");
        for op in [Op::Named, Op::Create, Op::Unlink, Op::Rmdir, Op::Link] {
            let request = Request { a: 0o100_644, ..Request::new(op, 0) };
            assert_eq!(ask(&server, request, wrong), Err(Errno::INVAL), "{op:?} {wrong:?}");
        }
        if !wrong.contains(&0) {
            let both = |a: &[u8], b: &[u8]| [a, b"\0", b].concat();
            for payload in [both(wrong, b"x"), both(b"x", wrong)] {
                assert!(ask(&server, Request::new(Op::Rename, 0), &payload).is_err(), "{payload:?}");
            }
            assert_eq!(ask(&server, Request::new(Op::Symlink, 0), &both(wrong, b"x")), Err(Errno::INVAL));
        }
    }
    // A link is a file like others: it can be read, and leads nowhere.
    for (name, target) in [(&b"link"[..], &b"../secret"[..]), (b"root", b"/")] {
        let link = lookup(&server, 0, name).unwrap();
        assert_eq!(ask(&server, Request::new(Op::ReadLink, link), b"").unwrap().1, target);
        for op in [Op::Open, Op::ReadDir, Op::Read, Op::Write, Op::XattrGet, Op::Sync, Op::Allocate] {
            let request = Request { a: 1, b: 8, ..Request::new(op, link) };
            assert!(ask(&server, request, b"user.x").is_err(), "{op:?}");
        }
        let size = SetAttr { size: Some(0), ..SetAttr::default() };
        let mode = SetAttr { mode: Some(0o777), ..SetAttr::default() };
        for change in [size, mode] {
            let mut payload = [0; CHANGE];
            encode_change(&change, &mut payload);
            assert!(ask(&server, Request::new(Op::Change, link), &payload).is_err());
        }
        assert!(lookup(&server, link, b"etc").is_err());
    }
    assert_eq!(std::fs::read(directory.0.join("secret")).unwrap(), b"secret");
    // What is above the shared directory is never named.
    let (_, records) = ask(&server, Request::new(Op::ReadDir, 0), b"").unwrap();
    assert!(!records.windows(6).any(|window| window == b"secret"));
}

#[test]
fn devices_and_fifos_of_the_host_are_not_opened() {
    let server = server(Path::new("/dev"), false);
    let null = lookup(&server, 0, b"null").unwrap();
    for op in [Op::Open, Op::Read, Op::Write] {
        assert_eq!(ask(&server, Request { a: 1, b: 1, ..Request::new(op, null) }, b"x"), Err(Errno::NXIO), "{op:?}");
    }
    let directory = Directory::new("fifo");
    let server = directory.server(false);
    for (mode, expected) in
        [(0o010_600, Ok(())), (0o140_600, Ok(())), (0o020_600, Err(Errno::PERM)), (0o060_600, Err(Errno::PERM))]
    {
        let request = Request { a: mode, ..Request::new(Op::Create, 0) };
        assert_eq!(ask(&server, request, format!("f{mode}").as_bytes()).map(drop), expected, "{mode:o}");
    }
    let fifo = lookup(&server, 0, format!("f{}", 0o010_600).as_bytes()).unwrap();
    // Would wait for ever.
    assert_eq!(ask(&server, Request { a: 1, ..Request::new(Op::Open, fifo) }, b""), Err(Errno::NXIO));
}

#[test]
fn nothing_changes_in_what_is_shared_to_read() {
    let directory = Directory::new("ro");
    std::fs::write(directory.shared().join("file"), "data").unwrap();
    let before = std::fs::metadata(directory.shared().join("file")).unwrap();
    let server = directory.server(true);
    let file = lookup(&server, 0, b"file").unwrap();
    assert_eq!(ask(&server, Request { b: 10, ..Request::new(Op::Read, file) }, b"").unwrap().1, b"data");
    let mut change = [0; CHANGE];
    let time = Timestamp { sec: 1, nsec: 0 };
    encode_change(&SetAttr { mode: Some(0o777), mtime: Some(time), ..SetAttr::default() }, &mut change);
    let on_file = [
        (Op::Write, &b"x"[..]),
        (Op::Change, &change),
        (Op::Allocate, b""),
        (Op::XattrSet, b"user.a\0b"),
        (Op::XattrRemove, b"user.a"),
    ];
    for (op, payload) in on_file {
        let request = Request { b: 8, ..Request::new(op, file) };
        assert_eq!(ask(&server, request, payload).map(drop), Err(Errno::ROFS), "{op:?}");
    }
    let on_directory = [
        (Op::Create, &b"n"[..]),
        (Op::Symlink, b"n\0t"),
        (Op::Link, b"n"),
        (Op::Unlink, b"file"),
        (Op::Rmdir, b"file"),
        (Op::Rename, b"file\0n"),
    ];
    for (op, payload) in on_directory {
        let request = Request { a: 0o100_644, other: if op == Op::Rename { 0 } else { file }, ..Request::new(op, 0) };
        assert_eq!(ask(&server, request, payload).map(drop), Err(Errno::ROFS), "{op:?}");
    }
    assert_eq!(ask(&server, Request { a: 2, ..Request::new(Op::Open, file) }, b"").map(drop), Err(Errno::ROFS));
    let after = std::fs::metadata(directory.shared().join("file")).unwrap();
    assert_eq!((after.ctime_nsec(), after.mode()), (before.ctime_nsec(), before.mode()));
    assert_eq!(std::fs::read_dir(directory.shared()).unwrap().count(), 1);
}

#[test]
fn owners_are_as_in_a_user_namespace() {
    let directory = Directory::new("owners");
    let (uid, gid) = (1234, 1235);
    let me = rustix::process::geteuid().as_raw();
    let node = |owners| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, directory.shared(), flags, Mode::empty()).unwrap();
        Node::new(fd, false, owners).unwrap()
    };
    let seen = |owners| node(owners).stat().map(|stat| stat.uid).unwrap();
    assert_eq!(seen(Owners::of(uid, gid)), 65534);
    if me != 0 {
        assert_eq!(seen(Owners::own()), 0);
    }
    let owner = |uid| {
        let mut payload = [0; CHANGE];
        encode_change(&SetAttr { uid: Some(uid), ..SetAttr::default() }, &mut payload);
        node(Owners::of(1234, 1235)).change(&payload)
    };
    // Nobody's stays nobody's, and cannot be given away.
    assert_eq!((owner(65534), owner(0), owner(5)), (Ok(()), Err(Errno::PERM), Err(Errno::PERM)));
}

#[test]
fn rubbish_gets_an_error() {
    let directory = Directory::new("rubbish");
    let server = directory.server(false);
    for op in [Op::Rename, Op::Symlink, Op::XattrSet, Op::Change] {
        assert!(ask(&server, Request::new(op, 0), b"").is_err(), "{op:?}");
    }
    for node in [1, 77, u64::MAX] {
        assert_eq!(ask(&server, Request::new(Op::Attr, node), b""), Err(Errno::STALE));
    }
    let link = Request { other: u64::MAX, ..Request::new(Op::Link, 0) };
    assert_eq!(ask(&server, link, b"n"), Err(Errno::STALE));
    let file = Request { a: 0o100_600, ..Request::new(Op::Create, 0) };
    let stat = ask(&server, file, b"f").unwrap().1;
    let file = Stat::decode(&stat).unwrap().node;
    for (a, b) in [(u64::MAX, u64::MAX), (i64::MAX as u64, 1), (0, u64::MAX)] {
        let _ = ask(&server, Request { a, b, ..Request::new(Op::Read, file) }, b"");
        let _ = ask(&server, Request { a, b, ..Request::new(Op::Seek, file) }, b"");
        let _ = ask(&server, Request { a, b, other: a, ..Request::new(Op::Allocate, file) }, b"");
        let _ = ask(&server, Request { a, ..Request::new(Op::ReadDir, 0) }, b"");
    }
    // Forgotten, it is unknown, even if its number is named again.
    server.forget(&[file.to_le_bytes(), 99u64.to_le_bytes()].concat());
    server.forget(b"abc");
    assert_eq!(ask(&server, Request::new(Op::Attr, file), b""), Err(Errno::STALE));
}
