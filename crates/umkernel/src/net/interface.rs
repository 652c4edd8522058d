//! The one network interface, `lo` (`netdevice(7)`): its state, its addresses, and the `ioctl(2)`s on it.
//!
//! It is up from the start, with `127.0.0.1/8` and `::1/128`, so that a command without boot scripts has it.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::task::Capabilities;
use alloc::vec::Vec;
use linux_raw_sys::ioctl::*;

/// The interface's name and number.
pub const NAME: &[u8] = b"lo";
/// See [`NAME`].
pub const INDEX: u32 = 1;
/// `ARPHRD_LOOPBACK` of `linux/if_arp.h`.
pub const HARDWARE: u16 = 772;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const IFF_LOWER_UP: u32 = 0x1_0000;
/// Flags that a program may set and that change nothing here: `IFF_DEBUG`, `IFF_NOARP`, `IFF_ALLMULTI`, `IFF_PROMISC`.
const IFF_CHANGEABLE: u32 = 0x4 | 0x80 | 0x200 | 0x100;

/// An internet address: IPv6, or IPv4 as `::ffff:a.b.c.d`.
pub type Ip = [u8; 16];

/// The IPv6 form of an IPv4 address.
pub const fn mapped([a, b, c, d]: [u8; 4]) -> Ip {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address behind an IPv6 one.
pub fn unmapped(ip: &Ip) -> Option<[u8; 4]> {
    ip.strip_prefix(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])?.first_chunk::<4>().copied()
}

/// An address of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Address.
    pub ip: Ip,
    /// Bits of its network, of 32 or 128.
    pub prefix: u8,
}

impl Assigned {
    /// Whether an address is of this one's network. All of it leads back to the machine when it is IPv4's.
    fn covers(&self, ip: &Ip) -> bool {
        let (own, other) = (u128::from_be_bytes(self.ip), u128::from_be_bytes(*ip));
        match (unmapped(&self.ip), unmapped(ip)) {
            (Some(_), Some(_)) => (own ^ other).checked_shr(32 - u32::from(self.prefix.min(32))).unwrap_or(0) == 0,
            (None, None) => own == other,
            _ => false,
        }
    }
}

/// What is known of the interface.
#[derive(Clone, Debug)]
pub struct Loopback {
    /// It carries traffic.
    pub up: bool,
    /// Further flags, kept and shown.
    flags: u32,
    /// Largest packet (`SIOCGIFMTU`).
    pub mtu: u32,
    /// Length of its queue (`SIOCGIFTXQLEN`).
    pub queue: u32,
    /// Its addresses.
    pub addresses: Vec<Assigned>,
    /// Bytes and messages that went over it.
    pub bytes: u64,
    /// See `bytes`.
    pub packets: u64,
}

impl Default for Loopback {
    fn default() -> Loopback {
        let mut v6 = [0; 16];
        v6[15] = 1;
        let addresses =
            alloc::vec![Assigned { ip: mapped([127, 0, 0, 1]), prefix: 8 }, Assigned { ip: v6, prefix: 128 },];
        Loopback { up: true, flags: 0, mtu: 65536, queue: 1000, addresses, bytes: 0, packets: 0 }
    }
}

impl Loopback {
    /// `IFF_*` as `SIOCGIFFLAGS` and netlink show them.
    pub fn flags(&self) -> u32 {
        let up = if self.up { IFF_UP | IFF_RUNNING | IFF_LOWER_UP } else { 0 };
        IFF_LOOPBACK | up | self.flags
    }

    /// Sets the flags that can be set.
    pub fn set_flags(&mut self, flags: u32) {
        self.up = flags & IFF_UP != 0;
        self.flags = flags & IFF_CHANGEABLE;
    }

    /// Whether an address leads to this machine.
    pub fn is_local(&self, ip: &Ip) -> bool {
        self.up && self.addresses.iter().any(|a| a.covers(ip))
    }

    /// The address that a packet to `ip` comes from.
    pub fn source_for(&self, ip: &Ip) -> Option<Ip> {
        let exact = self.addresses.iter().find(|a| a.ip == *ip);
        let found = exact.or_else(|| self.addresses.iter().find(|a| a.covers(ip)));
        found.filter(|_| self.up).map(|a| a.ip)
    }

    /// The IPv4 addresses.
    fn v4(&self) -> impl Iterator<Item = ([u8; 4], u8)> {
        self.addresses.iter().filter_map(|a| Some((unmapped(&a.ip)?, a.prefix)))
    }
}

/// The interface under its lock.
pub type SharedLoopback = Mutex<Loopback>;

const AF_INET: u16 = 2;
/// `struct ifreq`: a name and a union.
const NAME_LEN: usize = 16;
const REQUEST_LEN: usize = 40;

fn netmask(prefix: u8) -> [u8; 4] {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).to_be_bytes()
}

fn sockaddr(ip: [u8; 4]) -> [u8; 24] {
    let mut raw = [0; 24];
    raw[..2].copy_from_slice(&AF_INET.to_le_bytes());
    raw[4..8].copy_from_slice(&ip);
    raw
}

/// The requests of `netdevice(7)` on a socket.
///
/// # Errors
/// `ENODEV` for another interface, `EADDRNOTAVAIL` where it has no address, `EPERM` for changes without `CAP_NET_ADMIN`,
/// `ENOTTY` for other requests.
pub fn ioctl(ctx: &Ctx, cmd: u32, arg: u64) -> Result<usize> {
    const SIOCETHTOOL: u32 = 0x8946;
    const SIOCGIFMAP: u32 = 0x8970;
    const SIOCGIFTXQLEN: u32 = 0x8942;
    const SIOCSIFTXQLEN: u32 = 0x8943;
    if cmd == SIOCGIFCONF {
        return list(ctx, arg);
    }
    let known = [
        SIOCGIFNAME,
        SIOCGIFFLAGS,
        SIOCSIFFLAGS,
        SIOCGIFADDR,
        SIOCSIFADDR,
        SIOCGIFBRDADDR,
        SIOCGIFDSTADDR,
        SIOCGIFNETMASK,
        SIOCSIFNETMASK,
        SIOCGIFMETRIC,
        SIOCGIFMTU,
        SIOCSIFMTU,
        SIOCGIFHWADDR,
        SIOCGIFINDEX,
        SIOCGIFTXQLEN,
        SIOCSIFTXQLEN,
        SIOCGIFMAP,
        SIOCETHTOOL,
    ];
    if !known.contains(&cmd) {
        return Err(Errno::ENOTTY.into());
    }
    let mut request = [0u8; REQUEST_LEN];
    ctx.read_user(arg, &mut request)?;
    let word = |at: usize| u32::from_le_bytes([request[at], request[at + 1], request[at + 2], request[at + 3]]);
    let value = word(NAME_LEN);
    let name_end = request[..NAME_LEN].iter().position(|&b| b == 0 || b == b':').unwrap_or(NAME_LEN);
    let is_lo = if cmd == SIOCGIFNAME { value == INDEX } else { &request[..name_end] == NAME };
    if !is_lo {
        bail!(ENODEV);
    }
    let changes = [SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU, SIOCSIFTXQLEN].contains(&cmd);
    if changes && !ctx.creds().capable(Capabilities::NET_ADMIN) {
        bail!(EPERM);
    }
    let mut lo = ctx.kernel.net.loopback.lock();
    let mut answer = [0u8; 24];
    let number = |answer: &mut [u8; 24], n: u32| answer[..4].copy_from_slice(&n.to_le_bytes());
    match cmd {
        SIOCGIFNAME => {
            request[..NAME_LEN].fill(0);
            request[..NAME.len()].copy_from_slice(NAME);
            number(&mut answer, value);
        }
        SIOCGIFFLAGS => answer[..2].copy_from_slice(&(lo.flags() as u16).to_le_bytes()),
        SIOCSIFFLAGS => lo.set_flags(value & 0xffff),
        SIOCGIFADDR | SIOCGIFDSTADDR => answer = sockaddr(lo.v4().next().ok_or(Errno::EADDRNOTAVAIL)?.0),
        SIOCGIFNETMASK => answer = sockaddr(netmask(lo.v4().next().ok_or(Errno::EADDRNOTAVAIL)?.1)),
        SIOCGIFBRDADDR => {
            lo.v4().next().ok_or(Errno::EADDRNOTAVAIL)?;
            answer = sockaddr([0; 4]);
        }
        SIOCSIFADDR | SIOCSIFNETMASK => set_address(&mut lo, cmd == SIOCSIFADDR, &request[NAME_LEN..])?,
        SIOCGIFMETRIC | SIOCGIFMAP => {}
        SIOCGIFMTU => number(&mut answer, lo.mtu),
        SIOCSIFMTU if value as i32 >= 0 => lo.mtu = value,
        SIOCSIFMTU => bail!(EINVAL),
        SIOCGIFHWADDR => answer[..2].copy_from_slice(&HARDWARE.to_le_bytes()),
        SIOCGIFINDEX => number(&mut answer, INDEX),
        SIOCGIFTXQLEN => number(&mut answer, lo.queue),
        SIOCSIFTXQLEN => lo.queue = value,
        _ => bail!(EOPNOTSUPP, "the interface has no hardware to set"),
    }
    drop(lo);
    if !changes {
        request[NAME_LEN..].copy_from_slice(&answer);
        ctx.write_user(arg, &request)?;
    }
    Ok(0)
}

/// Changes the first IPv4 address or its mask.
fn set_address(lo: &mut Loopback, address: bool, raw: &[u8]) -> Result<()> {
    if raw[..2] != AF_INET.to_le_bytes() {
        bail!(EINVAL, "not an AF_INET address");
    }
    let ip = [raw[4], raw[5], raw[6], raw[7]];
    let first = lo.addresses.iter().position(|a| unmapped(&a.ip).is_some());
    match (address, first) {
        (true, Some(at)) if ip == [0; 4] => _ = lo.addresses.remove(at),
        (true, Some(at)) => lo.addresses[at] = Assigned { ip: mapped(ip), prefix: class_prefix(ip) },
        (true, None) => lo.addresses.insert(0, Assigned { ip: mapped(ip), prefix: class_prefix(ip) }),
        (false, Some(at)) => {
            let mask = u32::from_be_bytes(ip);
            if mask.leading_ones() + mask.trailing_zeros() < 32 {
                bail!(EINVAL, "not a network mask");
            }
            lo.addresses[at].prefix = mask.leading_ones() as u8;
        }
        (false, None) => bail!(EADDRNOTAVAIL),
    }
    Ok(())
}

/// The prefix that an address of the old classes has (`inet_abc_len`).
fn class_prefix(ip: [u8; 4]) -> u8 {
    match ip[0] {
        0..128 => 8,
        128..192 => 16,
        192..224 => 24,
        _ => 32,
    }
}

/// `SIOCGIFCONF`: a `struct ifconf` with one request for each IPv4 address.
fn list(ctx: &Ctx, arg: u64) -> Result<usize> {
    let [len, buf]: [u64; 2] = ctx.read_val(arg)?;
    let mut out = Vec::new();
    for (ip, _) in ctx.kernel.net.loopback.lock().v4() {
        let mut request = [0; REQUEST_LEN];
        request[..NAME.len()].copy_from_slice(NAME);
        request[NAME_LEN..].copy_from_slice(&sockaddr(ip));
        out.extend_from_slice(&request);
    }
    if buf != 0 {
        let room = usize::try_from(len as u32 as i32).map_err(|_| Errno::EINVAL)?;
        out.truncate(room / REQUEST_LEN * REQUEST_LEN);
        ctx.write_user(buf, &out)?;
    }
    ctx.write_val(arg, &(out.len() as u32)).map(|()| 0)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_whole_network_of_an_ipv4_address_is_local() {
        let mut lo = Loopback::default();
        assert!(lo.is_local(&mapped([127, 9, 8, 7])) && !lo.is_local(&mapped([10, 0, 0, 1])));
        let mut v6 = [0; 16];
        v6[15] = 1;
        assert!(lo.is_local(&v6) && !lo.is_local(&[0; 16]));
        assert_eq!(lo.source_for(&mapped([127, 9, 8, 7])), Some(mapped([127, 0, 0, 1])));
        lo.set_flags(0);
        assert!(!lo.is_local(&v6) && lo.source_for(&v6).is_none());
        assert_eq!(netmask(8), [255, 0, 0, 0]);
    }
}
