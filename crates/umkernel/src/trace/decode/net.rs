//! Sockets.

use super::{Kind, Printer, When, text};
use alloc::format;
use alloc::string::String;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("socket_domain", |p, v| p.choice(v & 0xffff_ffff, FAMILIES, "AF_???")),
    Kind::entry("socket_type", socket_type),
    Kind::entry("socket_protocol", socket_protocol),
    Kind::entry("socket_flags", |p, v| p.flags(v & 0xffff_ffff, TYPE_FLAGS, "SOCK_???")),
    Kind::entry("sockaddr_in", |p, v| address(p, v, p.following() as usize)),
    Kind { name: "sockaddr_out", when: When::Exit, decode: filled_address },
    Kind::exit("socklen_inout", |p, v| p.structure(v, |p, len: u32| p.push(&format!("[{len}]")))),
    Kind::entry("msg_flags", |p, v| p.flags(v & 0xffff_ffff, MESSAGE, "MSG_???")),
    Kind::entry("shutdown_how", |p, v| {
        p.choice(v & 0xffff_ffff, &[(0, "SHUT_RD"), (1, "SHUT_WR"), (2, "SHUT_RDWR")], "SHUT_???");
    }),
];

const FAMILIES: &[(u64, &str)] =
    &[(0, "AF_UNSPEC"), (1, "AF_UNIX"), (2, "AF_INET"), (10, "AF_INET6"), (16, "AF_NETLINK"), (17, "AF_PACKET")];
const TYPES: &[(u64, &str)] = &[
    (1, "SOCK_STREAM"),
    (2, "SOCK_DGRAM"),
    (3, "SOCK_RAW"),
    (4, "SOCK_RDM"),
    (5, "SOCK_SEQPACKET"),
    (10, "SOCK_PACKET"),
];
const TYPE_FLAGS: &[(u64, &str)] = &[(0o2_000_000, "SOCK_CLOEXEC"), (0o4000, "SOCK_NONBLOCK")];
const PROTOCOLS: &[(u64, &str)] =
    &[(0, "IPPROTO_IP"), (1, "IPPROTO_ICMP"), (6, "IPPROTO_TCP"), (17, "IPPROTO_UDP"), (58, "IPPROTO_ICMPV6")];
const MESSAGE: &[(u64, &str)] = &[
    (0x1, "MSG_OOB"),
    (0x2, "MSG_PEEK"),
    (0x4, "MSG_DONTROUTE"),
    (0x8, "MSG_CTRUNC"),
    (0x20, "MSG_TRUNC"),
    (0x40, "MSG_DONTWAIT"),
    (0x80, "MSG_EOR"),
    (0x100, "MSG_WAITALL"),
    (0x4000, "MSG_NOSIGNAL"),
    (0x8000, "MSG_MORE"),
    (0x4000_0000, "MSG_CMSG_CLOEXEC"),
];

fn socket_type(p: &mut Printer, value: u64) {
    p.choice(value & 0xf, TYPES, "SOCK_???");
    if value & 0xffff_fff0 != 0 {
        p.push("|");
        p.flags(value & 0xffff_fff0, TYPE_FLAGS, "SOCK_???");
    }
}

fn socket_protocol(p: &mut Printer, value: u64) {
    if matches!(p.args[0], 2 | 10) {
        p.choice(value & 0xffff_ffff, PROTOCOLS, "IPPROTO_???");
    } else {
        p.push(&format!("{}", value as u32));
    }
}

fn filled_address(p: &mut Printer, addr: u64) {
    match p.read::<u32>(p.following()) {
        Some(len) => address(p, addr, len as usize),
        None => p.address(addr),
    }
}

/// A socket address of at most `len` bytes.
fn address(p: &mut Printer, addr: u64, len: usize) {
    /// `sizeof(struct sockaddr_storage)`.
    const MAX: usize = 128;
    let mut bytes = alloc::vec![0; len.min(MAX)];
    if addr == 0 || bytes.len() < 2 || p.ctx.read_user(addr, &mut bytes).is_err() {
        return p.address(addr);
    }
    p.push(&show(&bytes));
}

/// The text of a socket address, which has at least its family.
fn show(bytes: &[u8]) -> String {
    let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
    let port = |b: &[u8]| u16::from_be_bytes([b[2], b[3]]);
    match family {
        1 if bytes.len() == 2 => "{sa_family=AF_UNIX}".into(),
        1 if bytes[2] == 0 && bytes.len() > 3 => {
            format!("{{sa_family=AF_UNIX, sun_path=@{}}}", text::quote(&bytes[3..], false))
        }
        1 => {
            let path = &bytes[2..];
            let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
            format!("{{sa_family=AF_UNIX, sun_path={}}}", text::quote(&path[..end], false))
        }
        2 if bytes.len() >= 16 => {
            let [a, b, c, d] = [bytes[4], bytes[5], bytes[6], bytes[7]];
            format!("{{sa_family=AF_INET, sin_port=htons({}), sin_addr=inet_addr(\"{a}.{b}.{c}.{d}\")}}", port(bytes))
        }
        10 if bytes.len() >= 24 => {
            let octets: [u8; 16] = core::array::from_fn(|i| bytes[8 + i]);
            let addr = core::net::Ipv6Addr::from(octets);
            format!(
                "{{sa_family=AF_INET6, sin6_port=htons({}), sin6_flowinfo=htonl(0), \
                 inet_pton(AF_INET6, \"{addr}\", &sin6_addr), sin6_scope_id=0}}",
                port(bytes)
            )
        }
        _ => {
            let name = FAMILIES.iter().find(|f| f.0 == u64::from(family)).map_or("AF_???", |f| f.1);
            format!("{{sa_family={name}, sa_data={}}}", text::quote(&bytes[2..], false))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_strace_prints_them() {
        assert_eq!(show(b"\x01\0/tmp/s\0junk"), "{sa_family=AF_UNIX, sun_path=\"/tmp/s\"}");
        assert_eq!(show(b"\x01\0\0abs"), "{sa_family=AF_UNIX, sun_path=@\"abs\"}");
        assert_eq!(show(b"\x01\0"), "{sa_family=AF_UNIX}");
        let inet = b"\x02\0\0\x50\x7f\0\0\x01\0\0\0\0\0\0\0\0";
        assert_eq!(show(inet), "{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr(\"127.0.0.1\")}");
        assert_eq!(show(b"\x63\0ab"), "{sa_family=AF_???, sa_data=\"ab\"}");
    }
}
