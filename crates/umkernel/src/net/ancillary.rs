//! Control messages (`cmsg(3)`, `unix(7)`): open files and credentials that travel with data.

use super::message::Received;
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::Pod;
use crate::task::{Capabilities, Pid};
use crate::vfs::File;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::net::{SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET};

/// The most open files in one message (`SCM_MAX_FD`).
pub const MAX_FILES: usize = 253;
/// Bytes of a `struct cmsghdr`.
const HEADER: usize = 16;

/// Who a process is: `struct ucred`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ucred {
    /// Process id.
    pub pid: Pid,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

// SAFETY: three words of four bytes, no padding.
unsafe impl Pod for Ucred {}

impl Ucred {
    /// The caller by its effective ids: what `SO_PEERCRED` shows.
    pub fn effective(ctx: &Ctx) -> Ucred {
        let creds = ctx.creds();
        Ucred { pid: ctx.task.process.pid, uid: creds.euid, gid: creds.egid }
    }

    /// The caller by its real ids: what goes with each message.
    pub fn real(ctx: &Ctx) -> Ucred {
        let creds = ctx.creds();
        Ucred { pid: ctx.task.process.pid, uid: creds.uid, gid: creds.gid }
    }

    /// Whether the caller may call itself this.
    fn check(&self, ctx: &Ctx) -> Result<()> {
        let creds = ctx.creds();
        let pid = self.pid == ctx.task.process.pid || creds.capable(Capabilities::SYS_ADMIN);
        let uid = [creds.uid, creds.euid, creds.suid].contains(&self.uid) || creds.capable(Capabilities::SETUID);
        let gid = [creds.gid, creds.egid, creds.sgid].contains(&self.gid) || creds.capable(Capabilities::SETGID);
        if pid && uid && gid { Ok(()) } else { Err(Errno::EPERM.into()) }
    }
}

/// What a message brings besides its data.
#[derive(Default)]
pub struct Ancillary {
    /// Open files.
    pub files: Vec<Arc<File>>,
    /// Who the sender says it is; by default what it is.
    pub creds: Option<Ucred>,
    /// Messages of the protocols: level, type, value.
    pub others: Vec<(u32, u32, Vec<u8>)>,
}

impl Ancillary {
    /// Decodes the control messages of `sendmsg(2)`.
    ///
    /// # Errors
    /// `EINVAL` for a malformed or unknown message or too many files, `EBADF`, `EPERM` for false credentials.
    pub fn decode(ctx: &Ctx, raw: &[u8]) -> Result<Ancillary> {
        let mut ancillary = Ancillary::default();
        let mut rest = raw;
        while rest.len() >= HEADER {
            let word = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
            let len = u64::from(word(0)) | u64::from(word(4)) << 32;
            let Some(len) = usize::try_from(len).ok().filter(|len| (HEADER..=rest.len()).contains(len)) else {
                bail!(EINVAL, "a control message of a wrong length");
            };
            let (level, kind, data) = (word(8), word(12), &rest[HEADER..len]);
            if level == SOL_SOCKET {
                match kind {
                    SCM_RIGHTS => ancillary.add_files(ctx, data)?,
                    SCM_CREDENTIALS => ancillary.set_creds(ctx, data)?,
                    _ => bail!(EINVAL, "an unknown control message"),
                }
            } else {
                ancillary.others.push((level, kind, data.to_vec()));
            }
            rest = &rest[len.next_multiple_of(8).min(rest.len())..];
        }
        Ok(ancillary)
    }

    fn add_files(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()> {
        let files = ctx.files();
        let (numbers, _) = data.as_chunks::<4>();
        if self.files.len() + numbers.len() > MAX_FILES {
            bail!(EINVAL, "too many files in a message");
        }
        for number in numbers {
            let file = files.get_or_path(i32::from_le_bytes(*number))?;
            self.files.push(file);
        }
        Ok(())
    }

    fn set_creds(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()> {
        let (words, rest) = data.as_chunks::<4>();
        let ([pid, uid, gid], []) = (words, rest) else { bail!(EINVAL, "not a struct ucred") };
        let word = |raw: &[u8; 4]| u32::from_le_bytes(*raw);
        let creds = Ucred { pid: word(pid) as Pid, uid: word(uid), gid: word(gid) };
        creds.check(ctx)?;
        self.creds = Some(creds);
        Ok(())
    }
}

/// The control messages for what was received.
pub(crate) struct Control {
    /// As they are stored.
    pub(crate) raw: Vec<u8>,
    /// Not all fitted.
    pub(crate) truncated: bool,
}

impl Received {
    /// Encodes control messages for `room` bytes and gives the files that came along descriptors.
    pub(crate) fn control(&self, ctx: &Ctx, room: usize, close_on_exec: bool) -> Control {
        let mut control = Control { raw: Vec::new(), truncated: false };
        if let Some(creds) = &self.creds {
            control.add(room, (SOL_SOCKET, SCM_CREDENTIALS), crate::mm::bytes_of(creds));
        }
        for (level, kind, data) in &self.extra {
            control.add(room, (*level, *kind), data);
        }
        if self.files.is_empty() {
            return control;
        }
        let fits = room.saturating_sub(control.raw.len() + HEADER) / 4;
        let mut numbers = Vec::new();
        for file in self.files.iter().take(fits) {
            match ctx.install(file.clone(), close_on_exec) {
                Ok(fd) => numbers.extend_from_slice(&fd.to_le_bytes()),
                Err(_) => break,
            }
        }
        control.truncated |= numbers.len() < self.files.len() * 4;
        if !numbers.is_empty() {
            control.add(room, (SOL_SOCKET, SCM_RIGHTS), &numbers);
        }
        control
    }
}

impl Control {
    /// Adds a message, cut to what fits.
    fn add(&mut self, room: usize, (level, kind): (u32, u32), data: &[u8]) {
        let left = room.saturating_sub(self.raw.len());
        if left < HEADER {
            self.truncated = true;
            return;
        }
        let len = (HEADER + data.len()).min(left);
        self.truncated |= len < HEADER + data.len();
        self.raw.extend_from_slice(&(len as u64).to_le_bytes());
        self.raw.extend_from_slice(&level.to_le_bytes());
        self.raw.extend_from_slice(&kind.to_le_bytes());
        self.raw.extend_from_slice(&data[..len - HEADER]);
        let padded = self.raw.len().next_multiple_of(8).min(room);
        self.raw.resize(padded, 0);
    }
}
