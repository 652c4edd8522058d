//! `/proc/net/tcp`, `udp` and their like.

use super::address::{Addr, Version};
use super::tcp::number_of;
use super::{Net, Socket};
use crate::net::interface::{Ip, unmapped};
use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use core::sync::atomic::Ordering;

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// `tcp`.
    Tcp,
    /// `tcp6`.
    Tcp6,
    /// `udp`.
    Udp,
    /// `udp6`.
    Udp6,
}

fn hex(addr: &Addr, v6: bool) -> String {
    let word = |b: &[u8]| format!("{:08X}", u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let ip: &Ip = &addr.ip;
    let text: String = if v6 { ip.chunks(4).map(word).collect() } else { word(&ip[12..]) };
    format!("{text}:{:04X}", addr.port)
}

/// The file's text.
pub(crate) fn table(net: &Net, table: Table) -> String {
    let (tcp, v6) = (matches!(table, Table::Tcp | Table::Tcp6), matches!(table, Table::Tcp6 | Table::Udp6));
    let version = if v6 { Version::V6 } else { Version::V4 };
    let columns = match (v6, tcp) {
        (false, true) => {
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
        }
        (true, true) => {
            "  sl  local_address                         remote_address                        st tx_queue rx_queue tr \
             tm->when retrnsmt   uid  timeout inode"
        }
        (false, false) => {
            "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref \
             pointer drops"
        }
        (true, false) => {
            "  sl  local_address                         remote_address                        st tx_queue rx_queue tr \
             tm->when retrnsmt   uid  timeout inode ref pointer drops"
        }
    };
    // Linux pads the lines of IPv4.
    let width = match (v6, tcp) {
        (true, _) => 0,
        (false, true) => 149,
        (false, false) => 127,
    };
    let mut text = format!("{columns:width$}\n");
    let (sockets, lingering) = (if tcp { &net.tcp } else { &net.udp }).lock().all();
    let mut n = 0;
    for socket in sockets.iter().filter(|s| s.version == version) {
        let line = if tcp { tcp_line(socket, n, v6) } else { udp_line(socket, n, v6) };
        let _ = writeln!(text, "{line:width$}");
        n += 1;
    }
    for (local, l) in lingering.iter().filter(|(l, _)| unmapped(&l.ip).is_none() == v6) {
        let line = format!(
            "{n:4}: {} {} {:02X} 00000000:00000000 03:00000000 00000000     0        0 0 3 0000000000000000",
            hex(local, v6),
            hex(&l.remote, v6),
            number_of::TIME_WAIT,
        );
        let _ = writeln!(text, "{line:width$}");
        n += 1;
    }
    text
}

fn ends(socket: &Socket) -> (Addr, Addr) {
    let state = socket.state.lock();
    let none = Addr { ip: socket.version.any(), port: 0 };
    (state.local.unwrap_or(none), state.remote.unwrap_or(none))
}

fn tcp_line(socket: &Socket, n: usize, v6: bool) -> String {
    let (local, remote) = ends(socket);
    let unsent = super::Endpoint::unsent_bytes(socket);
    let state = socket.state.lock();
    let waiting = match &state.link {
        super::Link::Listening { waiting, .. } => waiting.len(),
        _ => state.stream.len(),
    };
    format!(
        "{n:4}: {} {} {:02X} {unsent:08X}:{waiting:08X} 00:00000000 00000000 {:5}        0 {} 1 0000000000000000 100 0 0 10 0",
        hex(&local, v6),
        hex(&remote, v6),
        state.tcp_state(),
        socket.uid,
        socket.ino.load(Ordering::Relaxed),
    )
}

fn udp_line(socket: &Socket, n: usize, v6: bool) -> String {
    let (local, remote) = ends(socket);
    let state = socket.state.lock();
    let number = if state.remote.is_some() { number_of::ESTABLISHED } else { number_of::CLOSE };
    format!(
        "{n:5}: {} {} {number:02X} 00000000:{:08X} 00:00000000 00000000 {:5}        0 {} 2 0000000000000000 0",
        hex(&local, v6),
        hex(&remote, v6),
        state.charged,
        socket.uid,
        socket.ino.load(Ordering::Relaxed),
    )
}
