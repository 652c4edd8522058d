//! `NETLINK_ROUTE` (`rtnetlink(7)`): the one interface and its addresses, as `ip(8)` and `getifaddrs(3)` ask for them.

use super::{half, word};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::net::interface::{self, Assigned, Loopback, mapped, unmapped};
use crate::task::Capabilities;
use alloc::vec::Vec;
use linux_raw_sys::net::{AF_INET, AF_INET6};

/// Bytes of a `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

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

/// The answers to the requests in a message, each a message of its own for the socket with `port`.
pub(super) fn answers(ctx: &Ctx, port: u32, mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
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
            answers.push(answer.raw);
        }
    }
    answers
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::errno::Errno;

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
