//! `AF_NETLINK` with `NETLINK_ROUTE` (`netlink(7)`, `rtnetlink(7)`): the one interface and its addresses, as `ip(8)` and
//! `getifaddrs(3)` ask for them.

use super::endpoint::{Endpoint, Outgoing};
use super::interface::{self, Assigned, Loopback, mapped, unmapped};
use super::options::Options;
use super::socket::wait_within;
use super::{Net, Received, RecvFlags};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::task::Capabilities;
use crate::vfs::PollEvents;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use linux_raw_sys::net::{AF_INET, AF_INET6, AF_NETLINK, SO_DOMAIN, SO_ERROR, SO_PROTOCOL, SO_TYPE, SOL_SOCKET};

/// `NETLINK_ROUTE`: the one protocol that is answered.
const NETLINK_ROUTE: u32 = 0;
/// Bytes of a `struct sockaddr_nl` and of a `struct nlmsghdr`.
const ADDRESS_LEN: usize = 12;
const HEADER_LEN: usize = 16;
/// The longest request that is read.
const MAX_REQUEST: usize = 32 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// The highest message type of `rtnetlink(7)` that is known to ask for something (`RTM_GET*` are those with remainder 2).
const RTM_MAX: u16 = 123;

struct State {
    port: u32,
    groups: u32,
    queue: VecDeque<Vec<u8>>,
    options: Options,
}

/// A netlink socket.
pub(super) struct Netlink {
    kind: u32,
    state: Mutex<State>,
    readable: Arc<WaitQueue>,
}

/// `socket(2)` for `AF_NETLINK`.
///
/// # Errors
/// `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT` for other protocols.
pub(super) fn create(kind: u32, protocol: u32) -> Result<Arc<dyn Endpoint>> {
    use linux_raw_sys::net::{SOCK_DGRAM, SOCK_RAW};
    if kind != SOCK_RAW && kind != SOCK_DGRAM {
        bail!(ESOCKTNOSUPPORT);
    }
    if protocol != NETLINK_ROUTE {
        bail!(EPROTONOSUPPORT, "of the netlink protocols there is NETLINK_ROUTE");
    }
    let state = State { port: 0, groups: 0, queue: VecDeque::new(), options: Options::default() };
    Ok(Arc::new(Netlink { kind, state: Mutex::new(state), readable: Arc::default() }))
}

fn word(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn half(raw: &[u8], at: usize) -> u16 {
    raw.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn encode(port: u32, groups: u32) -> Vec<u8> {
    let mut raw = (AF_NETLINK as u16).to_le_bytes().to_vec();
    raw.extend_from_slice(&[0; 2]);
    raw.extend_from_slice(&port.to_le_bytes());
    raw.extend_from_slice(&groups.to_le_bytes());
    raw
}

fn decode(raw: &[u8]) -> Result<(u32, u32)> {
    if raw.len() < ADDRESS_LEN || u32::from(half(raw, 0)) != AF_NETLINK {
        bail!(EINVAL, "not a struct sockaddr_nl");
    }
    Ok((word(raw, 4), word(raw, 8)))
}

/// A request's header.
#[derive(Clone, Copy)]
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Messages of an answer, one behind the other.
struct Answer {
    raw: Vec<u8>,
    header: Header,
    port: u32,
}

impl Answer {
    fn begin(&mut self, kind: u16, flags: u16) -> usize {
        let at = self.raw.len();
        self.raw.extend_from_slice(&[0; 4]);
        self.raw.extend_from_slice(&kind.to_le_bytes());
        self.raw.extend_from_slice(&flags.to_le_bytes());
        self.raw.extend_from_slice(&self.header.sequence.to_le_bytes());
        self.raw.extend_from_slice(&self.port.to_le_bytes());
        at
    }

    fn end(&mut self, at: usize) {
        let len = (self.raw.len() - at) as u32;
        self.raw[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn attribute(&mut self, kind: u16, data: &[u8]) {
        self.raw.extend_from_slice(&((4 + data.len()) as u16).to_le_bytes());
        self.raw.extend_from_slice(&kind.to_le_bytes());
        self.raw.extend_from_slice(data);
        let padded = self.raw.len().next_multiple_of(4);
        self.raw.resize(padded, 0);
    }

    /// `struct ifinfomsg` and attributes (`IFLA_*`).
    fn link(&mut self, lo: &Loopback, flags: u16) {
        let at = self.begin(RTM_NEWLINK, flags);
        self.raw.extend_from_slice(&[0, 0]);
        self.raw.extend_from_slice(&interface::HARDWARE.to_le_bytes());
        self.raw.extend_from_slice(&interface::INDEX.to_le_bytes());
        self.raw.extend_from_slice(&lo.flags().to_le_bytes());
        self.raw.extend_from_slice(&[0; 4]);
        self.attribute(3, b"lo\0");
        self.attribute(13, &lo.queue.to_le_bytes());
        // Operational state: unknown when up, as Linux says of it, down otherwise.
        self.attribute(16, &[if lo.up { 0 } else { 2 }]);
        self.attribute(17, &[0]);
        self.attribute(4, &lo.mtu.to_le_bytes());
        self.attribute(27, &0u32.to_le_bytes());
        self.attribute(6, b"noqueue\0");
        self.attribute(1, &[0; 6]);
        self.attribute(2, &[0; 6]);
        self.attribute(23, &statistics(lo));
        self.end(at);
    }

    /// `struct ifaddrmsg` and attributes (`IFA_*`).
    fn address(&mut self, assigned: &Assigned, flags: u16) {
        const HOST: u8 = 254;
        const GLOBAL: u8 = 0;
        const PERMANENT: u32 = 0x80;
        let at = self.begin(RTM_NEWADDR, flags);
        let v4 = unmapped(&assigned.ip);
        let family = if v4.is_some() { AF_INET } else { AF_INET6 };
        let own = v4.is_some_and(|ip| ip[0] == 127) || v4.is_none();
        let scope = if own { HOST } else { GLOBAL };
        self.raw.extend_from_slice(&[family as u8, assigned.prefix, PERMANENT as u8, scope]);
        self.raw.extend_from_slice(&interface::INDEX.to_le_bytes());
        match v4 {
            Some(ip) => {
                self.attribute(1, &ip);
                self.attribute(2, &ip);
                self.attribute(3, b"lo\0");
            }
            None => self.attribute(1, &assigned.ip),
        }
        self.attribute(8, &PERMANENT.to_le_bytes());
        // Preferred and valid for ever; when it was made is not kept.
        let cache = [u32::MAX, u32::MAX, 0, 0];
        self.attribute(6, crate::mm::bytes_of(&cache));
        self.end(at);
    }

    fn done(&mut self) {
        let at = self.begin(NLMSG_DONE, NLM_F_MULTI);
        self.raw.extend_from_slice(&[0; 4]);
        self.end(at);
    }

    /// `NLMSG_ERROR` with the request's header; 0 is an acknowledgement.
    fn error(&mut self, errno: i32, request: &[u8]) {
        let at = self.begin(NLMSG_ERROR, 0);
        self.raw.extend_from_slice(&(-errno).to_le_bytes());
        self.raw.extend_from_slice(if errno == 0 { &request[..HEADER_LEN] } else { request });
        self.end(at);
    }
}

/// `struct rtnl_link_stats64`: packets and bytes, each received and sent.
fn statistics(lo: &Loopback) -> Vec<u8> {
    const WORDS: usize = 25;
    let mut words = [0u64; WORDS];
    words[..4].copy_from_slice(&[lo.packets, lo.packets, lo.bytes, lo.bytes]);
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// The attributes behind a message's own structure.
fn attributes(raw: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut rest = raw;
    while rest.len() >= 4 {
        let len = usize::from(half(rest, 0));
        if len < 4 || len > rest.len() {
            break;
        }
        found.push((half(rest, 2) & 0x3fff, &rest[4..len]));
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    found
}

/// Whether a link message means the interface; without a name or number it means all.
fn means_lo(body: &[u8]) -> bool {
    let index = word(body, 4);
    let attributes = attributes(body.get(16..).unwrap_or_default());
    let name = attributes.iter().find(|a| a.0 == 3).map(|a| a.1.split(|&b| b == 0).next().unwrap_or_default());
    index == interface::INDEX || index == 0 && name == Some(interface::NAME)
}

fn set_link(lo: &mut Loopback, body: &[u8]) -> Result<()> {
    if !means_lo(body) {
        bail!(ENODEV);
    }
    let (flags, change) = (word(body, 8), word(body, 12));
    let change = if change == 0 { u32::MAX } else { change };
    if word(body, 8) != 0 || word(body, 12) != 0 {
        let all = lo.flags() & !change | flags & change;
        lo.set_flags(all);
    }
    for (kind, data) in attributes(body.get(16..).unwrap_or_default()) {
        match kind {
            4 => lo.mtu = word(data, 0),
            13 => lo.queue = word(data, 0),
            _ => {}
        }
    }
    Ok(())
}

fn change_address(lo: &mut Loopback, body: &[u8], add: bool, exclusive: bool) -> Result<()> {
    if word(body, 4) != interface::INDEX {
        bail!(ENODEV);
    }
    let attributes = attributes(body.get(8..).unwrap_or_default());
    // IFA_LOCAL rather than IFA_ADDRESS, which is the other end of a point-to-point link.
    let data = [2, 1].iter().find_map(|kind| attributes.iter().find(|a| a.0 == *kind)).map(|a| a.1);
    let family = u32::from(body.first().copied().unwrap_or(0));
    let (ip, most) = match (family, data) {
        (AF_INET, Some(&[a, b, c, d])) => (mapped([a, b, c, d]), 32),
        (AF_INET6, Some(data)) if data.len() == 16 => (core::array::from_fn(|i| data[i]), 128),
        _ => bail!(EINVAL, "no address"),
    };
    let prefix = body.get(1).copied().unwrap_or(0);
    if prefix > most {
        bail!(EINVAL, "the prefix is longer than the address");
    }
    let assigned = Assigned { ip, prefix };
    match (add, lo.addresses.iter().position(|a| *a == assigned)) {
        (true, Some(_)) if exclusive => bail!(EEXIST),
        (true, Some(_)) => {}
        (true, None) => {
            // IPv4's before IPv6's, as they are listed.
            let v4 = lo.addresses.iter().filter(|a| unmapped(&a.ip).is_some()).count();
            let at = if family == AF_INET { v4 } else { lo.addresses.len() };
            lo.addresses.insert(at, assigned);
        }
        (false, Some(at)) => _ = lo.addresses.remove(at),
        (false, None) => bail!(EADDRNOTAVAIL),
    }
    Ok(())
}

/// Answers one request; `Ok(true)` when an acknowledgement is still to come if it was asked for.
fn handle(ctx: &Ctx, answer: &mut Answer, body: &[u8]) -> Result<bool> {
    let Header { kind, flags, .. } = answer.header;
    let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    if !(RTM_NEWLINK..=RTM_MAX).contains(&kind) {
        bail!(EOPNOTSUPP);
    }
    if kind % 4 != 2 && !ctx.creds().capable(Capabilities::NET_ADMIN) {
        bail!(EPERM);
    }
    let mut lo = ctx.kernel.net.loopback.lock();
    match kind {
        RTM_GETLINK if dump => answer.link(&lo, NLM_F_MULTI),
        RTM_GETLINK if means_lo(body) => {
            answer.link(&lo, 0);
            return Ok(true);
        }
        RTM_GETLINK => bail!(ENODEV),
        RTM_NEWLINK | RTM_SETLINK => return set_link(&mut lo, body).map(|()| true),
        RTM_GETADDR if dump => {
            let family = u32::from(body.first().copied().unwrap_or(0));
            let chosen = |a: &&Assigned| match family {
                AF_INET => unmapped(&a.ip).is_some(),
                AF_INET6 => unmapped(&a.ip).is_none(),
                _ => true,
            };
            lo.addresses.iter().filter(chosen).for_each(|a| answer.address(a, NLM_F_MULTI));
        }
        RTM_NEWADDR | RTM_DELADDR => {
            let exclusive = flags & NLM_F_EXCL != 0;
            return change_address(&mut lo, body, kind == RTM_NEWADDR, exclusive).map(|()| true);
        }
        // Routes, neighbours, rules: there are none to list.
        _ if kind % 4 == 2 && dump => {}
        _ => bail!(EOPNOTSUPP),
    }
    answer.done();
    Ok(false)
}

impl Netlink {
    fn bind_if_unbound(&self, ctx: &Ctx) -> u32 {
        let mut state = self.state.lock();
        if state.port == 0 {
            state.port = ctx.kernel.net.netlink_port(ctx.task.process.pid as u32);
        }
        state.port
    }

    /// Answers the requests in a message.
    fn answer(&self, ctx: &Ctx, port: u32, mut rest: &[u8]) {
        while rest.len() >= HEADER_LEN {
            let len = word(rest, 0) as usize;
            if !(HEADER_LEN..=rest.len()).contains(&len) {
                break;
            }
            let request = &rest[..len];
            let header = Header { kind: half(request, 4), flags: half(request, 6), sequence: word(request, 8) };
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
            if header.flags & NLM_F_REQUEST == 0 {
                continue;
            }
            let mut answer = Answer { raw: Vec::new(), header, port };
            // Control messages of netlink itself are only acknowledged.
            let result = if header.kind < 16 { Ok(true) } else { handle(ctx, &mut answer, &request[HEADER_LEN..]) };
            match result {
                Ok(true) if header.flags & NLM_F_ACK != 0 => answer.error(0, request),
                Ok(_) => {}
                Err(e) => {
                    answer.raw.clear();
                    answer.error(i32::from(e.errno.0), request);
                }
            }
            if !answer.raw.is_empty() {
                self.state.lock().queue.push_back(answer.raw);
            }
        }
        self.readable.wake_all();
    }
}

impl Endpoint for Netlink {
    fn domain(&self) -> u32 {
        AF_NETLINK
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn bind(self: Arc<Self>, ctx: &Ctx, address: &[u8]) -> Result<()> {
        let (port, groups) = decode(address)?;
        let mut state = self.state.lock();
        if port != 0 && state.port != 0 && port != state.port {
            bail!(EINVAL, "the socket is bound already");
        }
        if port != 0 && state.port == 0 {
            if !ctx.kernel.net.netlink_take(port) {
                bail!(EADDRINUSE);
            }
            state.port = port;
        }
        state.groups = groups;
        drop(state);
        self.bind_if_unbound(ctx);
        Ok(())
    }

    fn connect(self: Arc<Self>, ctx: &Ctx, address: &[u8], _nonblocking: bool) -> Result<()> {
        let (port, _) = decode(address)?;
        if port != 0 {
            bail!(ECONNREFUSED, "netlink sockets talk to the kernel only");
        }
        self.bind_if_unbound(ctx);
        Ok(())
    }

    fn local(&self) -> Vec<u8> {
        let state = self.state.lock();
        encode(state.port, state.groups)
    }

    fn remote(&self) -> Result<Vec<u8>> {
        Ok(encode(0, 0))
    }

    fn option(&self, _ctx: &Ctx, level: u32, option: u32) -> Result<Vec<u8>> {
        if level != SOL_SOCKET {
            bail!(ENOPROTOOPT);
        }
        let number = match option {
            SO_TYPE => self.kind,
            SO_DOMAIN => AF_NETLINK,
            SO_PROTOCOL => NETLINK_ROUTE,
            SO_ERROR => 0,
            _ => return self.state.lock().options.get(option),
        };
        Ok(number.to_le_bytes().to_vec())
    }

    fn set_option(&self, _ctx: &Ctx, level: u32, option: u32, value: &[u8]) -> Result<()> {
        const SOL_NETLINK: u32 = 270;
        // NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK: what they ask for makes answers shorter or longer in
        // ways that programs must bear without.
        const KNOWN: [u32; 3] = [10, 11, 12];
        match level {
            SOL_NETLINK if KNOWN.contains(&option) => Ok(()),
            SOL_SOCKET => self.state.lock().options.set(option, value),
            _ => Err(Errno::ENOPROTOOPT.into()),
        }
    }

    fn send(self: Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: Outgoing<'_>) -> Result<usize> {
        if how.urgent {
            bail!(EOPNOTSUPP);
        }
        let to = how.to.map(decode).transpose()?.map_or(0, |a| a.0);
        if to != 0 {
            bail!(ECONNREFUSED, "netlink sockets talk to the kernel only");
        }
        let len = src.remaining();
        if len > MAX_REQUEST {
            bail!(EMSGSIZE);
        }
        let mut raw = alloc::vec![0; len];
        if len > 0 && src.take(&mut raw)? < len {
            bail!(EFAULT);
        }
        let port = self.bind_if_unbound(ctx);
        self.answer(ctx, port, &raw);
        Ok(len)
    }

    fn receive(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received> {
        if flags.urgent {
            bail!(EOPNOTSUPP);
        }
        let timeout = self.state.lock().options.receive_timeout;
        let deadline = timeout.map(|ns| crate::host::monotonic_ns().saturating_add(ns));
        let there = || (!self.state.lock().queue.is_empty()).then_some(());
        if there().is_none() {
            if flags.nonblocking {
                bail!(EAGAIN);
            }
            wait_within(ctx, &self.readable, deadline, there)?;
        }
        let mut state = self.state.lock();
        let Some(message) = state.queue.front() else { bail!(EAGAIN) };
        let (whole, fits) = (message.len(), message.len().min(dst.remaining()));
        if fits > 0 && dst.put(&message[..fits])? < fits {
            bail!(EFAULT);
        }
        if !flags.peek {
            state.queue.pop_front();
        }
        let len = if flags.real_len { whole } else { fits };
        Ok(Received { len, truncated: fits < whole, from: encode(0, 0), ..Received::default() })
    }

    fn poll(&self, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.readable);
        }
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        events.set(PollEvents::IN | PollEvents::RDNORM, !self.state.lock().queue.is_empty());
        events
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.state.lock().queue.front().map_or(0, Vec::len))
    }

    fn close(self: Arc<Self>, net: Option<&Net>) {
        let port = core::mem::take(&mut self.state.lock().port);
        if let Some(net) = net
            && port != 0
        {
            net.netlink_release(port);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn attributes_end_where_they_are_broken() {
        assert_eq!(attributes(b"\x06\0\x03\0lo\0\0\x05\0\x01\0x"), [(3, &b"lo"[..]), (1, b"x")]);
        for raw in [&b"\x03\0\0\0"[..], b"\xff\0\0\0", b"\x04\0\0"] {
            assert!(attributes(raw).is_empty());
        }
    }

    #[test]
    fn addresses_come_and_go() {
        let mut lo = Loopback::default();
        let body = b"\x02\x18\0\0\x01\0\0\0\x08\0\x02\0\x0a\0\0\x01";
        assert!(change_address(&mut lo, body, true, true).is_ok());
        assert!(lo.is_local(&mapped([10, 0, 0, 77])));
        assert_eq!(change_address(&mut lo, body, true, true).unwrap_err().errno, Errno::EEXIST);
        assert!(change_address(&mut lo, body, false, false).is_ok());
        assert_eq!(change_address(&mut lo, body, false, false).unwrap_err().errno, Errno::EADDRNOTAVAIL);
        assert!(change_address(&mut lo, b"\x02\x21", true, false).is_err());
    }
}
