//! `AF_INET` and `AF_INET6` over the loopback interface (`tcp(7)`, `udp(7)`): what one socket sends is put into the other's
//! queue. There are no packets; what of the protocols programs can see is there: ports, the order of opening and
//! closing, resets, `TIME_WAIT`.

mod address;
mod options;
mod ports;
mod stream;
mod tables;
mod tcp;
mod udp;

pub(crate) use ports::Ports;
pub(crate) use tables::{Table, table};

use super::endpoint::{Endpoint, Outgoing};
use super::options::Options;
use super::{Net, Received, RecvFlags};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::task::Capabilities;
use crate::vfs::PollEvents;
use address::{Addr, Version, is_any, is_multicast};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::net::*;
use ports::Claim;
use stream::Stream;

/// Ports below this need `CAP_NET_BIND_SERVICE` (`net.ipv4.ip_unprivileged_port_start`).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// What a TCP socket is in the middle of.
#[derive(Default)]
enum Link {
    /// Nothing yet.
    #[default]
    Closed,
    /// Connections may come.
    Listening {
        backlog: usize,
        /// Established and not accepted.
        waiting: VecDeque<Arc<Socket>>,
        /// Those for which the queue has no room yet.
        pending: VecDeque<Arc<Socket>>,
    },
    /// On its way: this side of it waits at a listener whose queue is full.
    Connecting,
    /// To the other side.
    Peer(Arc<Socket>),
    /// A connection was reset or fully closed.
    Over,
}

/// A message on its way.
struct Datagram {
    data: Vec<u8>,
    from: Addr,
    to: Addr,
    /// Time to live and traffic class.
    hops: i32,
    class: i32,
}

/// An internet socket: TCP if it transports a stream, otherwise UDP.
pub(crate) struct Socket {
    version: Version,
    tcp: bool,
    /// Who made it: `SO_REUSEPORT` is among a user's own.
    uid: u32,
    ino: AtomicU64,
    state: Mutex<State>,
    /// Woken when something can be received or accepted.
    readable: Arc<WaitQueue>,
    /// Woken when something can be sent, or a connection came about.
    writable: Arc<WaitQueue>,
}

/// What changes about a socket, under its lock. No two sockets are locked at once.
#[derive(Default)]
struct State {
    local: Option<Addr>,
    /// The port was chosen by the kernel because the socket connected or sent.
    chosen: bool,
    remote: Option<Addr>,
    link: Link,
    /// A `connect` that does not wait was begun, and its outcome was not asked for.
    connect_pending: bool,
    /// What was received of a stream.
    stream: Stream,
    messages: VecDeque<Datagram>,
    /// A message that is not whole yet (`MSG_MORE`, `UDP_CORK`), and where it goes.
    corked: Option<(Addr, Vec<u8>)>,
    /// Bytes of the messages, with what Linux charges for each.
    charged: usize,
    /// The other side sends no more.
    fin: bool,
    receive_shut: bool,
    send_shut: bool,
    /// This side said that it sends no more before the other did.
    closed_first: bool,
    /// The other side's socket is closed: what is sent now is answered by a reset.
    peer_gone: bool,
    error: Option<Errno>,
    options: Options,
    /// Options of the protocols that are kept and shown, by level and number.
    numbers: BTreeMap<(u32, u32), i32>,
}

impl State {
    fn is_listening(&self) -> bool {
        matches!(self.link, Link::Listening { .. })
    }

    fn take_error(&mut self) -> Result<()> {
        self.error.take().map_or(Ok(()), |errno| Err(errno.into()))
    }

    fn peer(&self) -> Option<Arc<Socket>> {
        match &self.link {
            Link::Peer(peer) => Some(peer.clone()),
            _ => None,
        }
    }

    fn number(&self, level: u32, option: u32) -> Option<i32> {
        self.numbers.get(&(level, option)).copied()
    }

    fn v6_only(&self) -> bool {
        self.number(options::IPPROTO_IPV6, options::IPV6_V6ONLY).is_some_and(|n| n != 0)
    }
}

/// `socket(2)` for `AF_INET` and `AF_INET6`.
///
/// # Errors
/// `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT` for what is neither TCP nor UDP.
pub(crate) fn create(ctx: &Ctx, domain: u32, kind: u32, protocol: u32) -> Result<Arc<dyn Endpoint>> {
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    let version = if domain == AF_INET { Version::V4 } else { Version::V6 };
    let tcp = match (kind, protocol) {
        (SOCK_STREAM, 0 | TCP) => true,
        (SOCK_DGRAM, 0 | UDP) => false,
        (SOCK_STREAM | SOCK_DGRAM, _) => bail!(EPROTONOSUPPORT),
        (SOCK_RAW, _) if !ctx.creds().capable(Capabilities::NET_RAW) => bail!(EPERM),
        (SOCK_RAW, _) => bail!(EPROTONOSUPPORT, "raw sockets are not built"),
        _ => bail!(ESOCKTNOSUPPORT),
    };
    Ok(Socket::new(version, tcp, ctx.creds().euid))
}

impl Socket {
    fn new(version: Version, tcp: bool, uid: u32) -> Arc<Socket> {
        let options = if tcp { Options::for_tcp() } else { Options::default() };
        Arc::new(Socket {
            version,
            tcp,
            uid,
            ino: AtomicU64::new(0),
            state: Mutex::new(State { options, ..State::default() }),
            readable: Arc::default(),
            writable: Arc::default(),
        })
    }

    fn wake_all(&self) {
        self.readable.wake_all();
        self.writable.wake_all();
    }

    fn ports<'a>(&self, net: &'a Net) -> &'a Mutex<Ports> {
        if self.tcp { &net.tcp } else { &net.udp }
    }

    fn claim<'a>(self: &'a Arc<Self>, ip: super::interface::Ip) -> Claim<'a> {
        let state = self.state.lock();
        let (reuse_addr, reuse_port) = (state.options.flag(SO_REUSEADDR), state.options.flag(SO_REUSEPORT));
        Claim { socket: self, ip, v6_only: state.v6_only(), reuse_addr, reuse_port }
    }

    /// The address as this socket's programs see it.
    fn encode(&self, addr: Option<Addr>) -> Vec<u8> {
        let addr = addr.unwrap_or(Addr { ip: self.version.any(), port: 0 });
        addr.encode(self.version)
    }

    /// Gives the socket a port of the kernel's choice, and the address that its packets come from.
    fn bind_to_send(self: &Arc<Self>, ctx: &Ctx, ip: super::interface::Ip) -> Result<Addr> {
        if let Some(local) = self.state.lock().local {
            return Ok(local);
        }
        let claim = self.claim(ip);
        let port = self.ports(&ctx.kernel.net).lock().bind_to_connect(&claim)?;
        let local = Addr { ip, port };
        let mut state = self.state.lock();
        (state.local, state.chosen) = (Some(local), true);
        Ok(local)
    }

    /// Gives the port back, unless the program chose it.
    fn unbind_chosen(self: &Arc<Self>, net: &Net) {
        let local = {
            let mut state = self.state.lock();
            if !core::mem::take(&mut state.chosen) {
                return;
            }
            state.local.take()
        };
        if let Some(local) = local {
            self.ports(net).lock().remove(self, local, None);
        }
    }

    /// Where a connection or message to `to` goes, and from which address it comes.
    ///
    /// # Errors
    /// `ENETUNREACH` for addresses that are not the machine's own; `ENETUNREACH`, `EINVAL` for those of another family.
    fn route(&self, ctx: &Ctx, to: Addr) -> Result<(Addr, super::interface::Ip)> {
        let mut to = to;
        // The wildcard means this machine.
        if is_any(&to.ip) {
            to.ip = match self.version {
                Version::V4 => super::interface::mapped([127, 0, 0, 1]),
                Version::V6 if to.ip == address::ANY4 => super::interface::mapped([127, 0, 0, 1]),
                Version::V6 => core::array::from_fn(|i| u8::from(i == 15)),
            };
        }
        let (v6_only, local) = {
            let state = self.state.lock();
            (state.v6_only(), state.local)
        };
        let is_v4 = super::interface::unmapped(&to.ip).is_some();
        if self.version == Version::V6 && is_v4 && v6_only {
            bail!(ENETUNREACH, "an IPv4 address on a socket for IPv6 only");
        }
        let bound = local.map(|l| l.ip).filter(|ip| !is_any(ip));
        if bound.is_some_and(|ip| super::interface::unmapped(&ip).is_some() != is_v4) {
            bail!(ENETUNREACH, "the socket is bound to the other family");
        }
        let source = ctx.kernel.net.loopback.lock().source_for(&to.ip);
        let Some(source) = source else { bail!(ENETUNREACH, "there is no way off this machine") };
        Ok((to, bound.unwrap_or(source)))
    }

    fn receive_deadline(&self) -> Option<u64> {
        self.state.lock().options.receive_timeout.map(|ns| host::monotonic_ns().saturating_add(ns))
    }

    fn send_deadline(&self) -> Option<u64> {
        self.state.lock().options.send_timeout.map(|ns| host::monotonic_ns().saturating_add(ns))
    }
}

/// Notes traffic for the interface's statistics.
fn count(net: &Net, bytes: usize) {
    let mut lo = net.loopback.lock();
    lo.bytes += bytes as u64;
    lo.packets += 1;
}

impl Endpoint for Socket {
    fn domain(&self) -> u32 {
        self.version.domain()
    }

    fn is_stream(&self) -> bool {
        self.tcp
    }

    fn bind(self: Arc<Self>, ctx: &Ctx, address: &[u8]) -> Result<()> {
        // As on Linux, AF_UNSPEC with the wildcard stands for AF_INET.
        let mut raw = address.to_vec();
        if self.version == Version::V4 && raw.len() >= 16 && address::family(&raw)? == AF_UNSPEC && raw[4..8] == [0; 4]
        {
            raw[..2].copy_from_slice(&(AF_INET as u16).to_le_bytes());
        }
        let addr = Addr::decode(self.version, &raw, false)?;
        let v6_only = self.state.lock().v6_only();
        if self.version == Version::V6 && v6_only && super::interface::unmapped(&addr.ip).is_some() {
            bail!(EINVAL, "an IPv4 address on a socket for IPv6 only");
        }
        let usable = is_any(&addr.ip)
            || ctx.kernel.net.loopback.lock().is_local(&addr.ip)
            || is_multicast(&addr.ip) && !self.tcp
            || self.state.lock().number(0, options::IP_FREEBIND).is_some_and(|n| n != 0);
        if !usable {
            bail!(EADDRNOTAVAIL, "not an address of this machine");
        }
        if (1..FIRST_UNPRIVILEGED).contains(&addr.port) && !ctx.creds().capable(Capabilities::NET_BIND_SERVICE) {
            bail!(EACCES, "a port below 1024");
        }
        {
            let state = self.state.lock();
            if state.local.is_some() || !matches!(state.link, Link::Closed) {
                bail!(EINVAL, "the socket is bound already");
            }
        }
        let claim = self.claim(addr.ip);
        let port = self.ports(&ctx.kernel.net).lock().bind(&claim, addr.port)?;
        self.state.lock().local = Some(Addr { port, ..addr });
        Ok(())
    }

    fn connect(self: Arc<Self>, ctx: &Ctx, address: &[u8], nonblocking: bool) -> Result<()> {
        let unspecified = address::family(address)? == AF_UNSPEC;
        match (self.tcp, unspecified) {
            (true, true) => self.disconnect_stream(ctx),
            (false, true) => self.disconnect_messages(ctx),
            (true, false) => self.connect_stream(ctx, Addr::decode(self.version, address, true)?, nonblocking),
            (false, false) => self.connect_messages(ctx, Addr::decode(self.version, address, true)?),
        }
    }

    fn listen(self: Arc<Self>, ctx: &Ctx, backlog: i32) -> Result<()> {
        if !self.tcp {
            bail!(EOPNOTSUPP);
        }
        self.start_listening(ctx, backlog)
    }

    fn accept(&self, ctx: &Ctx, nonblocking: bool) -> Result<Arc<dyn Endpoint>> {
        if !self.tcp {
            bail!(EOPNOTSUPP);
        }
        self.next_connection(ctx, nonblocking).map(|s| s as Arc<dyn Endpoint>)
    }

    fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        if self.tcp { self.shutdown_stream(receive, send) } else { self.shutdown_messages(receive, send) }
    }

    fn local(&self) -> Vec<u8> {
        self.encode(self.state.lock().local)
    }

    fn remote(&self) -> Result<Vec<u8>> {
        let state = self.state.lock();
        let connected = !self.tcp || matches!(state.link, Link::Peer(_));
        match state.remote.filter(|_| connected) {
            Some(remote) => Ok(self.encode(Some(remote))),
            None => bail!(ENOTCONN),
        }
    }

    fn option(&self, _ctx: &Ctx, level: u32, option: u32) -> Result<Vec<u8>> {
        self.get_option(level, option)
    }

    fn set_option(&self, ctx: &Ctx, level: u32, option: u32, value: &[u8]) -> Result<()> {
        self.change_option(level, option, value)?;
        let uncorked = (level, option) == (options::IPPROTO_UDP, options::UDP_CORK)
            && self.state.lock().number(level, option) == Some(0);
        if uncorked { self.uncork(ctx) } else { Ok(()) }
    }

    fn send(self: Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: Outgoing<'_>) -> Result<usize> {
        if self.tcp { self.send_stream(ctx, src, how) } else { self.send_datagram(ctx, src, how) }
    }

    fn receive(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received> {
        if flags.error_queue {
            bail!(EAGAIN, "the queue of errors is empty");
        }
        if self.tcp { self.receive_stream(ctx, dst, flags) } else { self.receive_datagram(ctx, dst, flags) }
    }

    fn poll(&self, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.readable);
            table.register_output(&self.writable);
        }
        if self.tcp { self.poll_stream() } else { self.poll_datagrams() }
    }

    fn readable_bytes(&self) -> Result<usize> {
        let state = self.state.lock();
        if state.is_listening() {
            bail!(EINVAL);
        }
        Ok(if self.tcp { state.stream.len() } else { state.messages.front().map_or(0, |m| m.data.len()) })
    }

    fn unsent_bytes(&self) -> usize {
        let peer = self.state.lock().peer();
        peer.map_or(0, |p| p.state.lock().stream.len())
    }

    fn at_mark(&self) -> Result<bool> {
        if self.tcp { Ok(self.state.lock().stream.at_mark()) } else { Err(Errno::ENOTTY.into()) }
    }

    fn opened(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    fn close(self: Arc<Self>, net: Option<&Net>) {
        let lingers = if self.tcp { self.close_stream() } else { None };
        let local = self.state.lock().local.take();
        if let (Some(local), Some(net)) = (local, net) {
            self.ports(net).lock().remove(&self, local, lingers);
        }
        self.wake_all();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
