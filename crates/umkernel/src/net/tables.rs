//! Text files of `/proc/net` beside those of TCP and UDP.

use super::interface::{self, Loopback, unmapped};
use super::socket::Link;
use super::{Address, Net, Socket};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

/// `/proc/net/dev`.
pub(crate) fn devices(net: &Net) -> String {
    let Loopback { bytes, packets, .. } = *net.loopback.lock();
    format!(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier \
         compressed\n    lo: {bytes:7} {packets:7}    0    0    0     0          0         0 {bytes:8} {packets:7}    0    0    \
         0     0       0          0\n"
    )
}

/// `/proc/net/if_inet6`.
pub(crate) fn inet6(net: &Net) -> String {
    let lo = net.loopback.lock();
    let mut text = String::new();
    for address in lo.addresses.iter().filter(|a| unmapped(&a.ip).is_none()) {
        let hex: String = address.ip.iter().map(|b| format!("{b:02x}")).collect();
        // Scope of the host, permanent.
        let _ = writeln!(text, "{hex} {:02x} {:02x} 10 80       lo", interface::INDEX, address.prefix);
    }
    text
}

/// `/proc/net/unix`: the sockets that have a name.
pub(crate) fn unix(net: &Net) -> String {
    let mut text = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n");
    let mut named: BTreeMap<u64, Arc<Socket>> = BTreeMap::new();
    let abstracts: Vec<Weak<Socket>> = net.abstract_names.lock().values().cloned().collect();
    let paths: Vec<Weak<Socket>> = net.inodes.lock().values().cloned().collect();
    for socket in abstracts.iter().chain(&paths).filter_map(Weak::upgrade) {
        named.insert(socket.ino.load(Ordering::Relaxed), socket);
    }
    for (ino, socket) in named {
        let state = socket.state.lock();
        let (flags, number) = match &state.link {
            Link::None => (0, 1),
            Link::Listening { .. } => (0x10000, 1),
            Link::Peer(_) => (0, 3),
        };
        let name = match &state.address {
            Address::Unnamed => String::new(),
            Address::Path(path) => format!(" {}", String::from_utf8_lossy(path)),
            Address::Abstract(name) => format!(" @{}", String::from_utf8_lossy(name).replace('\0', "@")),
        };
        let kind = socket.kind as u32;
        let _ = writeln!(text, "0000000000000000: 00000002 00000000 {flags:08X} {kind:04X} {number:02X} {ino:5}{name}");
    }
    text
}
