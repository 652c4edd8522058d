//! What every kind of socket offers to system calls: addresses and options travel as the bytes that programs pass.

use super::{Ancillary, Received, RecvFlags};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::PollTable;
use crate::vfs::PollEvents;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// How and what to send besides the data.
#[derive(Default)]
pub struct Outgoing<'a> {
    /// Do not wait.
    pub nonblocking: bool,
    /// No `SIGPIPE` when the other side is gone.
    pub no_signal: bool,
    /// Out-of-band data (`MSG_OOB`).
    pub urgent: bool,
    /// More is to come before it is a whole message (`MSG_MORE`).
    pub more: bool,
    /// Where to, rather than to the peer.
    pub to: Option<&'a [u8]>,
    /// Files and credentials.
    pub ancillary: Ancillary,
}

/// A socket of some address family. Errors are those of the calls' man pages.
pub trait Endpoint: Any + Send + Sync {
    /// Its family (`AF_*`).
    fn domain(&self) -> u32;

    /// Whether it transports a stream of bytes.
    fn is_stream(&self) -> bool;

    /// `bind(2)`.
    fn bind(self: Arc<Self>, ctx: &Ctx, address: &[u8]) -> Result<()>;

    /// `connect(2)`.
    fn connect(self: Arc<Self>, ctx: &Ctx, address: &[u8], nonblocking: bool) -> Result<()>;

    /// `listen(2)`.
    fn listen(self: Arc<Self>, _ctx: &Ctx, _backlog: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// `accept(2)`.
    fn accept(&self, _ctx: &Ctx, _nonblocking: bool) -> Result<Arc<dyn Endpoint>> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// `shutdown(2)`.
    fn shutdown(&self, _receive: bool, _send: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// `getsockname(2)`.
    fn local(&self) -> Vec<u8>;

    /// `getpeername(2)`.
    fn remote(&self) -> Result<Vec<u8>>;

    /// `getsockopt(2)`: the option's value, to be cut to what the caller has room for.
    fn option(&self, ctx: &Ctx, level: u32, option: u32) -> Result<Vec<u8>>;

    /// `setsockopt(2)`.
    fn set_option(&self, ctx: &Ctx, level: u32, option: u32, value: &[u8]) -> Result<()>;

    /// `sendmsg(2)`; returns the bytes sent.
    fn send(self: Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: Outgoing<'_>) -> Result<usize>;

    /// `recvmsg(2)`.
    fn receive(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received>;

    /// What could be done now without blocking.
    fn poll(&self, table: Option<&mut PollTable>) -> PollEvents;

    /// Bytes that can be read now (`FIONREAD`).
    fn readable_bytes(&self) -> Result<usize>;

    /// Bytes sent and not read yet (`SIOCOUTQ`).
    fn unsent_bytes(&self) -> usize {
        0
    }

    /// Whether the next byte to read is behind the urgent one (`SIOCATMARK`).
    fn at_mark(&self) -> Result<bool> {
        Err(Errno::ENOTTY.into())
    }

    /// Told once which inode its file has.
    fn opened(&self, _ino: u64) {}

    /// The last descriptor is closed.
    fn close(self: Arc<Self>, net: Option<&super::Net>);

    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
}
