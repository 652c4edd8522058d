//! The broker: see [`super::messages`]. A part of the `umlfs` program.

use super::messages::{CHUNK, HEAD, MOST, Op, Request, Resident};
use crate::host;
use crate::platform::usage::{self, Usage};
use nix::libc;
use std::collections::HashMap;
use std::format;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::vec;
use std::vec::Vec;

/// Forks the broker of the calling process, which will be the kernel process; the machine's end of its socket, and its host id.
///
/// # Errors
/// A sentence about what the host refused.
pub(super) fn start() -> Result<(OwnedFd, i32), std::string::String> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let (theirs, ours) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| format!("cannot make a pair of sockets: {e}"))?;
    let kernel = host::getpid();
    // SAFETY: this process has no other threads.
    match unsafe { nix::unistd::fork() }.map_err(|e| format!("cannot start a process: {e}"))? {
        nix::unistd::ForkResult::Parent { child } => Ok((theirs, child.as_raw())),
        nix::unistd::ForkResult::Child => {
            drop(theirs);
            serve(&ours, kernel);
            // SAFETY: ends the process without running what belongs to its parent.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Serves until the machine is gone.
fn serve(socket: &OwnedFd, kernel: i32) {
    // SAFETY: constant arguments. The terminal's signals are for the front process, and nothing outlives the machine.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    for fd in 0..socket.as_raw_fd() {
        host::close(fd);
    }
    let mut buf = vec![0u8; HEAD + CHUNK];
    let mut guests = Guests { kernel, statm: HashMap::new() };
    loop {
        // SAFETY: the buffer is ours and writable.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) };
        if got <= 0 {
            if got < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
                continue;
            }
            return;
        }
        let (value, payload) = match Request::decode(&buf[..got as usize]) {
            Some(request) => guests.answer(&request, &buf[HEAD..got as usize]),
            None => (-i64::from(libc::EINVAL), Vec::new()),
        };
        let mut reply = vec![0u8; HEAD];
        reply[..8].copy_from_slice(&value.to_le_bytes());
        reply.extend_from_slice(&payload);
        // SAFETY: the buffer is ours and readable. If nobody listens any more, the next call says so.
        unsafe { libc::send(socket.as_raw_fd(), reply.as_ptr().cast(), reply.len(), libc::MSG_NOSIGNAL) };
    }
}

/// The guest processes of a machine.
struct Guests {
    /// Host id of the kernel process, whose children they are.
    kernel: i32,
    /// `/proc/PID/statm` of those that were asked about: it stands for the process that it was opened for, whoever gets its number later.
    statm: HashMap<i32, File>,
}

impl Guests {
    /// Whether a process is one. The broker is not, which is a child of the kernel process as well.
    fn has(&self, pid: i32) -> bool {
        parent_of(pid) == Some(self.kernel) && pid != host::getpid()
    }

    /// Answers a request: the value, and the payload.
    fn answer(&mut self, request: &Request, payload: &[u8]) -> (i64, Vec<u8>) {
        const ESRCH: i64 = -3;
        let error = |e: crate::Error| -i64::from(e.errno.0);
        let pid = request.pid;
        if request.op != Op::Resident && !self.has(pid) {
            return (ESRCH, Vec::new());
        }
        let proc = |name: &str| match std::fs::read(format!("/proc/{pid}/{name}")) {
            Ok(mut text) => {
                text.truncate(CHUNK);
                (text.len() as i64, text)
            }
            Err(_) => (ESRCH, Vec::new()),
        };
        match request.op {
            Op::Kick => match host::tgkill(pid, request.tid, super::layout::KICK.into()) {
                Ok(()) => (0, Vec::new()),
                Err(e) => (error(e), Vec::new()),
            },
            Op::Read => {
                let mut bytes = vec![0; (request.len as usize).min(CHUNK)];
                match host::process_vm_read(pid, request.addr, &mut bytes) {
                    Ok(n) => {
                        bytes.truncate(n);
                        (n as i64, bytes)
                    }
                    Err(e) => (error(e), Vec::new()),
                }
            }
            Op::Write => match host::process_vm_write(pid, request.addr, payload) {
                Ok(n) => (n as i64, Vec::new()),
                Err(e) => (error(e), Vec::new()),
            },
            Op::Resident => {
                let pids = payload.as_chunks().0.iter().take(MOST).map(|pid| i32::from_le_bytes(*pid));
                let bytes: Vec<u8> = pids.flat_map(|pid| self.resident(pid).unwrap_or_default().encode()).collect();
                (bytes.len() as i64, bytes)
            }
            Op::SmapsRollup => proc("smaps_rollup"),
            Op::Usage => match std::fs::read_to_string(format!("/proc/{pid}/smaps")) {
                Ok(text) => {
                    let mappings = usage::parse(&text);
                    let asked = mappings.iter().filter(|mapping| mapping.start >= request.addr);
                    let bytes: Vec<u8> = asked.take(CHUNK / Usage::SIZE).flat_map(Usage::encode).collect();
                    (bytes.len() as i64, bytes)
                }
                Err(_) => (ESRCH, Vec::new()),
            },
        }
    }

    /// What a process has resident; `None` for one that has ended.
    fn resident(&mut self, pid: i32) -> Option<Resident> {
        /// More are opened each time: descriptors are few.
        const KEPT: usize = 256;
        if let Some(resident) = self.statm.get(&pid).and_then(statm) {
            return Some(resident);
        }
        self.statm.remove(&pid);
        let file = File::open(format!("/proc/{pid}/statm")).ok()?;
        // After the file was opened: another process of this number would not be the file's.
        if !self.has(pid) {
            return None;
        }
        let resident = statm(&file);
        if self.statm.len() == KEPT {
            self.statm.retain(|_, file| statm(file).is_some());
        }
        if self.statm.len() < KEPT {
            self.statm.insert(pid, file);
        }
        resident
    }
}

/// The second and third field of `/proc/PID/statm` (proc(5)); `None` for one that has ended.
fn statm(file: &File) -> Option<Resident> {
    let mut text = [0; 128];
    let len = file.read_at(&mut text, 0).ok()?;
    let mut fields = str::from_utf8(&text[..len]).ok()?.split(' ').map(|field| field.parse().ok());
    let all = fields.nth(1)??;
    Some(Resident { all, file: fields.next()?? })
}

/// The parent of a process (`stat` of proc(5): behind the name, which may hold anything).
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_children_of_the_kernel_process_are_touched() {
        let own = host::getpid();
        let request = |pid| Request { op: Op::SmapsRollup, pid, tid: 0, addr: 0, len: 0 };
        let resident = |guests: &mut Guests, pids: &[i32]| {
            let bytes: Vec<u8> = pids.iter().flat_map(|pid| pid.to_le_bytes()).collect();
            let (_, answer) = guests.answer(&Request { op: Op::Resident, ..request(0) }, &bytes);
            answer.as_chunks().0.iter().map(|bytes| Resident::decode(*bytes)).collect::<Vec<_>>()
        };
        let mut guests = Guests { kernel: own, statm: HashMap::new() };
        assert_eq!(guests.answer(&request(1), &[]).0, -3);
        assert_eq!(guests.answer(&request(own), &[]).0, -3);
        assert_eq!(guests.answer(&request(-1), &[]).0, -3);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (len, text) = guests.answer(&request(child.id() as i32), &[]);
        assert!(len > 0 && text.len() as i64 == len);
        let pids = [1, child.id() as i32, own, -1];
        // It has just begun to touch its program's pages.
        let begun = std::time::Instant::now();
        loop {
            let all = resident(&mut guests, &pids);
            assert!([0, 2, 3].iter().all(|other| all[*other] == Resident::default()));
            if all[1].all > all[1].file && all[1].file > 0 {
                break;
            }
            assert!(begun.elapsed().as_secs() < 30, "{:?}", all[1]);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(resident(&mut guests, &pids), [Resident::default(); 4]);
        assert!(guests.statm.is_empty());
        // The broker itself is no guest, although it is the kernel process's child.
        let mut siblings = Guests { kernel: parent_of(own).unwrap(), statm: HashMap::new() };
        assert_eq!(resident(&mut siblings, &[own]), [Resident::default()]);
    }
}
