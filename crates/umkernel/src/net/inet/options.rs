//! Options of the protocols (`ip(7)`, `ipv6(7)`, `tcp(7)`, `udp(7)`).

use super::address::Addr;
use super::{Link, Socket, State};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::mm::bytes_of;
use crate::net::Ucred;
use crate::net::interface::unmapped;
use crate::net::options::SockOpt;
use alloc::vec::Vec;
use linux_raw_sys::net::{
    SO_ACCEPTCONN, SO_DOMAIN, SO_ERROR, SO_PEERCRED, SO_PROTOCOL, SO_RCVBUF, SO_SNDBUF, SO_TYPE, SOL_SOCKET,
};

pub(super) const IPPROTO_IP: u32 = 0;
pub(super) const IPPROTO_TCP: u32 = 6;
pub(super) const IPPROTO_UDP: u32 = 17;
pub(super) const IPPROTO_IPV6: u32 = 41;
pub(super) const IP_TOS: u32 = 1;
pub(super) const IP_TTL: u32 = 2;
pub(super) const IP_PKTINFO: u32 = 8;
pub(super) const IP_RECVTTL: u32 = 12;
pub(super) const IP_RECVTOS: u32 = 13;
pub(super) const IP_FREEBIND: u32 = 15;
pub(super) const IPV6_V6ONLY: u32 = 26;
pub(super) const IPV6_UNICAST_HOPS: u32 = 16;
pub(super) const IPV6_RECVPKTINFO: u32 = 49;
pub(super) const IPV6_PKTINFO: u32 = 50;
pub(super) const IPV6_RECVHOPLIMIT: u32 = 51;
pub(super) const IPV6_HOPLIMIT: u32 = 52;
pub(super) const IPV6_RECVTCLASS: u32 = 66;
pub(super) const IPV6_TCLASS: u32 = 67;
pub(super) const UDP_CORK: u32 = 1;
const TCP_MAXSEG: u32 = 2;
const TCP_INFO: u32 = 11;
const TCP_CONGESTION: u32 = 13;
/// `net.ipv4.ip_default_ttl`.
const DEFAULT_HOPS: i32 = 64;
/// What `TCP_MAXSEG` says of a connection over the loopback interface, and without one.
const SEGMENT: i32 = 65483;
const SEGMENT_UNCONNECTED: i32 = 536;

/// Numbers that are kept and shown: level, option, value before it is set, lowest, highest.
const NUMBERS: &[(u32, u32, i32, i32, i32)] = &[
    (IPPROTO_IP, IP_TOS, 0, 0, 255),
    (IPPROTO_IP, IP_TTL, DEFAULT_HOPS, -1, 255),
    (IPPROTO_IP, IP_PKTINFO, 0, 0, 1),
    (IPPROTO_IP, 6, 0, 0, 1),  // IP_RECVOPTS
    (IPPROTO_IP, 10, 1, 0, 5), // IP_MTU_DISCOVER
    (IPPROTO_IP, 11, 0, 0, 1), // IP_RECVERR
    (IPPROTO_IP, IP_RECVTTL, 0, 0, 1),
    (IPPROTO_IP, IP_RECVTOS, 0, 0, 1),
    (IPPROTO_IP, IP_FREEBIND, 0, 0, 1),
    (IPPROTO_IP, 19, 0, 0, 1),    // IP_TRANSPARENT
    (IPPROTO_IP, 20, 0, 0, 1),    // IP_ORIGDSTADDR
    (IPPROTO_IP, 24, 0, 0, 1),    // IP_BIND_ADDRESS_NO_PORT
    (IPPROTO_IP, 33, 1, -1, 255), // IP_MULTICAST_TTL
    (IPPROTO_IP, 34, 1, 0, 1),    // IP_MULTICAST_LOOP
    (IPPROTO_IP, 49, 1, 0, 1),    // IP_MULTICAST_ALL
    (IPPROTO_IPV6, IPV6_UNICAST_HOPS, DEFAULT_HOPS, -1, 255),
    (IPPROTO_IPV6, 18, 1, -1, 255), // IPV6_MULTICAST_HOPS
    (IPPROTO_IPV6, 19, 1, 0, 1),    // IPV6_MULTICAST_LOOP
    (IPPROTO_IPV6, 23, 1, 0, 5),    // IPV6_MTU_DISCOVER
    (IPPROTO_IPV6, 25, 0, 0, 1),    // IPV6_RECVERR
    (IPPROTO_IPV6, IPV6_V6ONLY, 0, 0, 1),
    (IPPROTO_IPV6, IPV6_RECVPKTINFO, 0, 0, 1),
    (IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 0, 0, 1),
    (IPPROTO_IPV6, IPV6_RECVTCLASS, 0, 0, 1),
    (IPPROTO_IPV6, IPV6_TCLASS, 0, -1, 255),
    (IPPROTO_IPV6, 70, 0, 0, 1),               // IPV6_AUTOFLOWLABEL
    (IPPROTO_IPV6, 78, 0, 0, 1),               // IPV6_FREEBIND
    (IPPROTO_TCP, 1, 0, 0, 1),                 // TCP_NODELAY
    (IPPROTO_TCP, 3, 0, 0, 1),                 // TCP_CORK
    (IPPROTO_TCP, 4, 7200, 1, 32767),          // TCP_KEEPIDLE
    (IPPROTO_TCP, 5, 75, 1, 32767),            // TCP_KEEPINTVL
    (IPPROTO_TCP, 6, 9, 1, 127),               // TCP_KEEPCNT
    (IPPROTO_TCP, 7, 6, 1, 127),               // TCP_SYNCNT
    (IPPROTO_TCP, 8, 60, i32::MIN, i32::MAX),  // TCP_LINGER2
    (IPPROTO_TCP, 9, 0, i32::MIN, i32::MAX),   // TCP_DEFER_ACCEPT
    (IPPROTO_TCP, 10, 0, 0, i32::MAX),         // TCP_WINDOW_CLAMP
    (IPPROTO_TCP, 12, 1, i32::MIN, i32::MAX),  // TCP_QUICKACK
    (IPPROTO_TCP, 18, 0, 0, i32::MAX),         // TCP_USER_TIMEOUT
    (IPPROTO_TCP, 23, 0, 0, i32::MAX),         // TCP_FASTOPEN
    (IPPROTO_TCP, 25, -1, i32::MIN, i32::MAX), // TCP_NOTSENT_LOWAT
    (IPPROTO_TCP, 30, 0, 0, 1),                // TCP_FASTOPEN_CONNECT
    (IPPROTO_UDP, UDP_CORK, 0, 0, 1),
];

/// The time to live of what a socket sends to an address.
pub(super) fn hops(state: &State, to: &Addr) -> i32 {
    let v4 = unmapped(&to.ip).is_some();
    let (level, option) = if v4 { (IPPROTO_IP, IP_TTL) } else { (IPPROTO_IPV6, IPV6_UNICAST_HOPS) };
    state.number(level, option).filter(|&n| n > 0).unwrap_or(DEFAULT_HOPS)
}

/// Its traffic class.
pub(super) fn class(state: &State, to: &Addr) -> i32 {
    let v4 = unmapped(&to.ip).is_some();
    let (level, option) = if v4 { (IPPROTO_IP, IP_TOS) } else { (IPPROTO_IPV6, IPV6_TCLASS) };
    state.number(level, option).filter(|&n| n > 0).unwrap_or(0)
}

/// Time to live and traffic class of one message, as its control messages say (`ip(7)`, RFC 3542).
///
/// # Errors
/// `EINVAL` for values out of range, and for a message that is not known.
pub(super) fn for_message(control: &[(u32, u32, Vec<u8>)], (hops, class): (i32, i32)) -> Result<(i32, i32)> {
    let (mut hops, mut class) = (hops, class);
    for (level, kind, data) in control {
        let value = match (data.first_chunk::<4>(), data.as_slice()) {
            (Some(word), _) if data.len() == 4 => i32::from_le_bytes(*word),
            (_, &[byte]) if *level == IPPROTO_IP => i32::from(byte),
            _ if [IP_PKTINFO, IPV6_PKTINFO].contains(kind) => 0,
            _ => bail!(EINVAL, "a control message of a wrong length"),
        };
        match (*level, *kind) {
            (IPPROTO_IP, IP_TTL) if (1..=255).contains(&value) => hops = value,
            (IPPROTO_IPV6, IPV6_HOPLIMIT) if (-1..=255).contains(&value) => {
                hops = if value < 0 { DEFAULT_HOPS } else { value };
            }
            (IPPROTO_IP, IP_TOS) if (0..=255).contains(&value) => class = value,
            (IPPROTO_IPV6, IPV6_TCLASS) if (-1..=255).contains(&value) => class = value.max(0),
            // Where the message comes from: the only interface.
            (IPPROTO_IP, IP_PKTINFO) | (IPPROTO_IPV6, IPV6_PKTINFO) => {}
            _ => bail!(EINVAL, "an unknown control message, or a value out of range"),
        }
    }
    Ok((hops, class))
}

impl Socket {
    fn has_level(&self, level: u32) -> bool {
        match level {
            IPPROTO_IP => true,
            IPPROTO_IPV6 => self.is_v6(),
            IPPROTO_TCP => self.tcp,
            IPPROTO_UDP => !self.tcp,
            _ => false,
        }
    }

    pub(super) fn get_option(&self, level: u32, option: u32) -> Result<Vec<u8>> {
        let mut state = self.state.lock();
        if level == SOL_SOCKET {
            let number = match option {
                SO_TYPE => {
                    if self.tcp {
                        1
                    } else {
                        2
                    }
                }
                SO_DOMAIN => self.version.domain() as i32,
                SO_PROTOCOL => {
                    if self.tcp {
                        IPPROTO_TCP as i32
                    } else {
                        IPPROTO_UDP as i32
                    }
                }
                SO_ERROR => state.error.take().map_or(0, |e| i32::from(e.0)),
                SO_ACCEPTCONN => i32::from(state.is_listening()),
                SO_PEERCRED => {
                    return Ok(bytes_of(&Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX }).to_vec());
                }
                _ => return state.options.get(option),
            };
            return Ok(number.to_le_bytes().to_vec());
        }
        if !self.has_level(level) {
            return Err(if self.is_v6() { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP }.into());
        }
        let connected = matches!(state.link, Link::Peer(_));
        match (level, option) {
            (IPPROTO_TCP, TCP_INFO) => Ok(info(&state)),
            (IPPROTO_TCP, TCP_CONGESTION) => Ok(b"cubic\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            (IPPROTO_TCP, TCP_MAXSEG) => {
                let segment = if connected { SEGMENT } else { SEGMENT_UNCONNECTED };
                Ok(segment.to_le_bytes().to_vec())
            }
            // IP_MTU, IPV6_MTU: of a connection.
            (IPPROTO_IP, 14) | (IPPROTO_IPV6, 24) if state.remote.is_some() => Ok(65536i32.to_le_bytes().to_vec()),
            (IPPROTO_IP, 14) | (IPPROTO_IPV6, 24) => bail!(ENOTCONN),
            // IP_OPTIONS: none.
            (IPPROTO_IP, 4) => Ok(Vec::new()),
            _ => {
                let Some(known) = NUMBERS.iter().find(|n| (n.0, n.1) == (level, option)) else { bail!(ENOPROTOOPT) };
                let value = state.number(level, option).filter(|&n| n != -1 || known.3 != -1).unwrap_or(known.2);
                Ok(value.to_le_bytes().to_vec())
            }
        }
    }

    pub(super) fn change_option(&self, level: u32, option: u32, raw: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        if level == SOL_SOCKET {
            if option == SO_SNDBUF {
                state.options.fixed_send_buffer = true;
            }
            if [SO_SNDBUF, SO_RCVBUF].contains(&option) && raw.len() < 4 {
                bail!(EINVAL);
            }
            return state.options.set(SockOpt(option).0, raw);
        }
        if !self.has_level(level) {
            return Err(Errno::ENOPROTOOPT.into());
        }
        if (level, option) == (IPPROTO_TCP, TCP_CONGESTION) {
            let name = raw.split(|&b| b == 0).next().unwrap_or_default();
            return if [&b"cubic"[..], b"reno"].contains(&name) { Ok(()) } else { Err(Errno::ENOENT.into()) };
        }
        if (level, option) == (IPPROTO_TCP, TCP_MAXSEG) {
            return Ok(());
        }
        let Some(&(.., low, high)) = NUMBERS.iter().find(|n| (n.0, n.1) == (level, option)) else { bail!(ENOPROTOOPT) };
        // Options of IP take a single byte as well.
        let value = match (raw.first_chunk::<4>(), raw.first(), level) {
            (Some(word), ..) => i32::from_le_bytes(*word),
            (None, Some(&byte), IPPROTO_IP) => i32::from(byte),
            _ => bail!(EINVAL, "an option's value has 4 bytes or more"),
        };
        let is_flag = (low, high) == (0, 1);
        if !is_flag && !(low..=high).contains(&value) || (level, option, value) == (IPPROTO_IP, IP_TTL, 0) {
            bail!(EINVAL, "out of range");
        }
        if (level, option) == (IPPROTO_IPV6, IPV6_V6ONLY) && state.local.is_some() {
            bail!(EINVAL, "the socket is bound already");
        }
        let value = if is_flag { i32::from(value != 0) } else { value };
        state.numbers.insert((level, option), value);
        Ok(())
    }
}

/// `struct tcp_info` as far as it has something to tell: the state, the segment sizes.
fn info(state: &State) -> Vec<u8> {
    const SIZE: usize = 232;
    let mut raw = alloc::vec![0; SIZE];
    raw[0] = state.tcp_state();
    for at in [16, 20] {
        raw[at..at + 4].copy_from_slice(&SEGMENT.to_le_bytes());
    }
    raw
}
