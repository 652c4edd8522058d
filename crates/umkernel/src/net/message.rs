//! What travels between sockets.

use super::Address;
use super::ancillary::{Ancillary, Ucred};
use crate::vfs::File;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A message, or a piece of a stream, on its way.
pub(super) struct Packet {
    pub(super) data: Vec<u8>,
    /// Bytes of it that were read already (streams).
    pub(super) offset: usize,
    /// The sender's address.
    pub(super) from: Address,
    /// Who sent it.
    pub(super) creds: Ucred,
    /// Open files that come along.
    pub(super) files: Vec<Arc<File>>,
}

impl Packet {
    pub(super) fn unread(&self) -> &[u8] {
        &self.data[self.offset..]
    }
}

/// How to receive (`MSG_*` of `recv(2)`).
#[derive(Clone, Copy, Debug, Default)]
pub struct RecvFlags {
    /// Do not wait.
    pub nonblocking: bool,
    /// Leave what was read where it is.
    pub peek: bool,
    /// Wait for as much as was asked for.
    pub wait_all: bool,
    /// Tell a message's length even if it did not fit.
    pub real_len: bool,
    /// Out-of-band data only (`MSG_OOB`).
    pub urgent: bool,
    /// From the queue of errors (`MSG_ERRQUEUE`).
    pub error_queue: bool,
}

/// What was received.
#[derive(Default)]
pub struct Received {
    /// Bytes.
    pub len: usize,
    /// A message did not fit.
    pub truncated: bool,
    /// The sender's address as programs see it; empty where there is none to tell.
    pub from: Vec<u8>,
    /// What was received is urgent data.
    pub urgent: bool,
    /// Further control messages, by level and type.
    pub extra: Vec<(u32, u32, Vec<u8>)>,
    /// Who sent it, if the receiver wants to know (`SO_PASSCRED`).
    pub creds: Option<Ucred>,
    /// Open files that came along.
    pub files: Vec<Arc<File>>,
}

/// How and what to send besides the data.
#[derive(Default)]
pub struct Sending {
    /// Do not wait.
    pub nonblocking: bool,
    /// No `SIGPIPE` when the other side is gone.
    pub no_signal: bool,
    /// Where to, rather than to the peer.
    pub to: Option<Address>,
    /// Files and credentials.
    pub ancillary: Ancillary,
}
