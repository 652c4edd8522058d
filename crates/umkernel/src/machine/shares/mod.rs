//! The share server: the one process of a machine that opens files of the host, and only below the directories that the user
//! shares (`umlfs boot --share`). What it is asked is in [`protocol`](crate::fs::hostfs::protocol).
//!
//! It shares no memory with the machine and takes nothing on trust: nodes are descriptors that it opened itself, each from its
//! parent's by a single name, never by a path, and symbolic links are never followed. So no request leads out of what is shared.
//!
//! It is no child of the kernel process, which would take it for a guest, but of the monitor, and it ends with the machine: when
//! nobody has the other ends of its sockets any more.

mod attributes;
#[cfg(any(test, fuzzing))]
pub mod chance;
mod content;
mod names;
mod node;

use super::BootError;
use crate::fs::hostfs::protocol::{ANSWER_HEAD, Answer, CHUNK, Op, REQUEST_HEAD, Request, SPACE, Stat, encode_space};
use crate::fs::hostfs::{LANES, ShareMount};
use crate::platform::direct::load::close_all_but;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, fork};
use node::{Node, Owners, Shared};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::format;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::string::String;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::vec;
use std::vec::Vec;

/// A write's answer has an offset behind the file's state, nothing is longer than data.
const LONGEST_ANSWER: usize = ANSWER_HEAD + CHUNK + Stat::SIZE;

/// A directory of the host's that the guest is to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareConfig {
    /// Its path on the host.
    pub host: PathBuf,
    /// Where the guest sees it.
    pub mount: ShareMount,
}

/// Starts the server for these directories: the machine's ends of its sockets. The calling process has no other threads.
///
/// # Errors
/// A directory that cannot be opened, or what the host refuses.
pub fn start(shares: &[ShareConfig]) -> Result<[OwnedFd; LANES], BootError> {
    let (server, theirs, ours) = prepare(shares)?;
    // SAFETY: this process has no other threads.
    match unsafe { fork() }.map_err(|e| BootError::new(format!("cannot start a process: {e}"), ""))? {
        ForkResult::Parent { child } => {
            // Its child goes on.
            let _ = nix::sys::wait::waitpid(child, None);
            Ok(theirs)
        }
        ForkResult::Child => {
            // SAFETY: as above; what follows ends the process without running what belongs to its parent.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                drop(theirs);
                // Without it, the guest finds no server: better than one with files of the machine's.
                if alone(&ours, &server).is_ok() {
                    server.run(ours);
                }
            }
            // SAFETY: as above.
            unsafe { libc::_exit(0) }
        }
    }
}

/// A server that knows these directories, the machine's ends of its sockets, and its own.
fn prepare(shares: &[ShareConfig]) -> Result<(Server, [OwnedFd; LANES], [OwnedFd; LANES]), BootError> {
    let server = Server::default();
    for share in shares {
        let cannot = |e: Errno| {
            let hint = "--share takes a directory that you may read";
            BootError::new(format!("cannot share {}: {e}", share.host.display()), hint)
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &share.host, flags, Mode::empty()).map_err(cannot)?;
        server.add(Node::new(root, share.mount.read_only, Owners::own()).map_err(cannot)?);
    }
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..LANES {
        let (kernel, server) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| BootError::new(format!("cannot make a pair of sockets: {e}"), ""))?;
        theirs.push(kernel);
        ours.push(server);
    }
    let all = |sockets: Vec<OwnedFd>| sockets.try_into().map_err(|_| BootError::new("not a socket for each lane", ""));
    Ok((server, all(theirs)?, all(ours)?))
}

/// What the server knows.
#[derive(Default)]
struct Server {
    nodes: RwLock<BTreeMap<u64, Arc<Node>>>,
    /// Numbers are never used again: one that was forgotten stays unknown.
    next: AtomicU64,
}

impl Server {
    /// Serves until the machine is gone.
    fn run(self, sockets: [OwnedFd; LANES]) {
        let server = Arc::new(self);
        let lanes: Vec<_> = sockets
            .into_iter()
            .map(|socket| {
                let server = server.clone();
                std::thread::spawn(move || server.serve(&socket))
            })
            .collect();
        for lane in lanes {
            // A lane that panicked has ended the process.
            let _ = lane.join();
        }
    }

    fn serve(&self, socket: &OwnedFd) {
        let mut message = vec![0; REQUEST_HEAD + CHUNK];
        let mut answer = vec![0; LONGEST_ANSWER];
        loop {
            let got = match rustix::io::read(socket, &mut message[..]) {
                Err(Errno::INTR) => continue,
                Ok(0) | Err(_) => return,
                Ok(got) => got,
            };
            let Some(len) = self.respond(&message[..got], &mut answer) else { continue };
            // If nobody listens any more, the next read says so.
            while let Err(Errno::INTR) = rustix::io::write(socket, &answer[..len]) {}
        }
    }

    /// Does what a message asks, and puts the answer together; its length, if there is one.
    fn respond(&self, message: &[u8], answer: &mut [u8]) -> Option<usize> {
        let request = Request::decode(message);
        let payload = &message[REQUEST_HEAD.min(message.len())..];
        if let Some(Request { op: Op::Forget, .. }) = request {
            self.forget(payload);
            return None;
        }
        let done = request.ok_or(Errno::INVAL).and_then(|r| self.answer(&r, payload, &mut answer[ANSWER_HEAD..]));
        let serial = request.map_or(0, |r| r.serial);
        let (head, len) = match done {
            Ok((value, len)) => (Answer { serial, errno: 0, value }, len),
            Err(e) => (Answer { serial, errno: e.raw_os_error() as u32, value: 0 }, 0),
        };
        head.encode(answer);
        Some(ANSWER_HEAD + len)
    }

    fn node(&self, number: u64) -> Shared<Arc<Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned().ok_or(Errno::STALE)
    }

    /// Gives a node its number.
    fn add(&self, node: Node) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(node));
        number
    }

    fn forget(&self, payload: &[u8]) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let numbers = payload.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        // Closed when the lock is free again.
        let gone: Vec<_> = numbers.filter_map(|number| nodes.remove(&number)).collect();
        drop(nodes);
        drop(gone);
    }

    /// Tells what a node is like.
    fn told(&self, node: &Node, number: u64, out: &mut [u8]) -> Shared<(u64, usize)> {
        Stat { node: number, ..node.stat()? }.encode(out);
        Ok((0, Stat::SIZE))
    }

    /// Does what is asked; the answer's value, and the length of its payload, which is in `out`.
    fn answer(&self, request: &Request, payload: &[u8], out: &mut [u8]) -> Shared<(u64, usize)> {
        let node = self.node(request.node)?;
        let new = |made: Node, out: &mut [u8]| {
            let stat = made.stat()?;
            Stat { node: self.add(made), ..stat }.encode(out);
            Ok((0, Stat::SIZE))
        };
        let copied = |bytes: &[u8], out: &mut [u8]| {
            let place = out.get_mut(..bytes.len()).ok_or(Errno::RANGE)?;
            place.copy_from_slice(bytes);
            Ok((0, bytes.len()))
        };
        let nothing = |(): ()| (0, 0);
        match request.op {
            Op::Attr => {}
            Op::Forget => return Err(Errno::INVAL),
            Op::Lookup => return new(node.child(payload)?, out),
            Op::Named => {
                node.named(payload)?.encode(out);
                return Ok((0, Stat::SIZE));
            }
            Op::Open => node.open(request.a)?,
            Op::Create => return new(node.create(payload, request.a as u32)?, out),
            Op::Symlink => return new(node.symlink(payload)?, out),
            Op::Link => return node.link(payload, &*self.node(request.other)?).map(nothing),
            Op::Unlink => return node.remove(payload, false).map(nothing),
            Op::Rmdir => return node.remove(payload, true).map(nothing),
            Op::Rename => return node.rename(payload, &*self.node(request.other)?, request.a as u32).map(nothing),
            Op::ReadLink => return copied(&node.target()?, out),
            Op::ReadDir => return Ok((0, node.list(request.a, wanted(request.b, out))?)),
            Op::Read => return Ok((0, node.read(request.a, wanted(request.b, out))?)),
            Op::Write => {
                let (written, end) = node.write(request.a, request.b == 1, payload)?;
                self.told(&node, request.node, out)?;
                out[Stat::SIZE..Stat::SIZE + 8].copy_from_slice(&end.to_le_bytes());
                return Ok((written as u64, Stat::SIZE + 8));
            }
            Op::Change => node.change(payload)?,
            Op::Allocate => node.allocate(request.other as u32, request.a, request.b)?,
            Op::Seek => return Ok((node.seek(request.a, request.b == 1)?, 0)),
            Op::Sync => return node.sync(request.a == 1).map(nothing),
            Op::StatFs => {
                encode_space(&node.space()?, out);
                return Ok((0, SPACE));
            }
            Op::XattrGet => return copied(&node.xattr(payload)?, out),
            Op::XattrSet => node.set_xattr(payload, request.a as u32)?,
            Op::XattrList => return copied(&node.xattrs()?, out),
            Op::XattrRemove => node.remove_xattr(payload)?,
        }
        self.told(&node, request.node, out)
    }
}

/// The place for as many bytes as are asked for, if one message can carry them.
fn wanted(bytes: u64, out: &mut [u8]) -> &mut [u8] {
    &mut out[..usize::try_from(bytes).map_or(CHUNK, |bytes| bytes.min(CHUNK))]
}

/// Leaves the caller's session, terminal and files, all but what the server needs.
///
/// # Errors
/// The files cannot be found out.
fn alone(sockets: &[OwnedFd], server: &Server) -> Result<(), String> {
    // SAFETY: constant arguments. The terminal's signals are not for this process; modes come from the guest, its umask applied.
    unsafe {
        libc::setsid();
        libc::umask(0);
    }
    let nodes = server.nodes.read().unwrap_or_else(PoisonError::into_inner);
    let keep: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).chain(nodes.values().map(|node| node.raw())).collect();
    drop(nodes);
    close_all_but(&keep)?;
    for _ in 0..3 {
        // The lowest free ones are those of the standard streams. Without, a file of the guest's may get such a number: no harm.
        let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR, Mode::empty());
        std::mem::forget(null);
    }
    let _ = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most));
    Ok(())
}

/// A server in threads of the calling process, for tests: the kernel's end.
#[cfg(test)]
pub(crate) fn in_threads(host: &std::path::Path, read_only: bool) -> Arc<crate::fs::hostfs::Channel> {
    use std::os::fd::IntoRawFd;
    let mount = ShareMount { guest: "/".into(), read_only };
    let (server, theirs, ours) = prepare(&[ShareConfig { host: host.into(), mount }]).unwrap();
    std::thread::spawn(move || server.run(ours));
    Arc::new(crate::fs::hostfs::Channel::new(theirs.map(IntoRawFd::into_raw_fd)))
}

#[cfg(test)]
mod tests;
