//! Who has which port: conflicts, choosing free ones, finding who is meant.

use super::Socket;
use super::address::{Addr, reaches};
use crate::bail;
use crate::errno::Result;
use crate::host;
use crate::net::interface::Ip;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::net::{SO_REUSEADDR, SO_REUSEPORT};

/// `net.ipv4.ip_local_port_range`.
const EPHEMERAL: core::ops::RangeInclusive<u16> = 32768..=60999;
/// How long the side that closed first keeps its port (`TCP_TIMEWAIT_LEN`), nanoseconds.
const TIME_WAIT: u64 = 60_000_000_000;
/// When a new connection may take such a port again (`net.ipv4.tcp_tw_reuse` for loopback), nanoseconds.
const TIME_WAIT_REUSE: u64 = 1_000_000_000;

/// A connection that is over and keeps its port for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lingering {
    pub(crate) remote: Addr,
    pub(crate) since: u64,
    reuse: bool,
}

enum Holder {
    Socket(Weak<Socket>),
    Lingering(Lingering),
}

struct Entry {
    ip: Ip,
    v6_only: bool,
    holder: Holder,
}

/// What a socket asks of the table.
pub(super) struct Claim<'a> {
    pub(super) socket: &'a Arc<Socket>,
    pub(super) ip: Ip,
    pub(super) v6_only: bool,
    pub(super) reuse_addr: bool,
    pub(super) reuse_port: bool,
}

/// The ports of TCP or of UDP. Locked before any socket.
#[derive(Default)]
pub(crate) struct Ports {
    by_port: BTreeMap<u16, Vec<Entry>>,
    /// Turns among those who share a port.
    turn: usize,
}

impl Entry {
    fn alive(&self, now: u64) -> bool {
        match &self.holder {
            Holder::Socket(socket) => socket.strong_count() > 0,
            Holder::Lingering(l) => now < l.since.saturating_add(TIME_WAIT),
        }
    }

    /// Whether it keeps `claim` from having the port; with `to_listen` from listening there.
    fn conflicts(&self, claim: &Claim<'_>, to_listen: bool) -> bool {
        let overlap = reaches(&self.ip, self.v6_only, &claim.ip) || reaches(&claim.ip, claim.v6_only, &self.ip);
        if !overlap {
            return false;
        }
        match &self.holder {
            Holder::Lingering(l) => !(to_listen || claim.reuse_addr && l.reuse),
            Holder::Socket(other) => {
                let Some(other) = other.upgrade().filter(|o| !Arc::ptr_eq(o, claim.socket)) else { return false };
                let state = other.state.lock();
                let share_addr = claim.reuse_addr && state.options.flag(SO_REUSEADDR);
                let share_port = claim.reuse_port && state.options.flag(SO_REUSEPORT) && other.uid == claim.socket.uid;
                let listens = state.is_listening();
                if to_listen { listens && !share_port } else { !(share_port || share_addr && !listens) }
            }
        }
    }
}

impl Ports {
    /// Gives a socket a port, or any free one for port 0.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub(super) fn bind(&mut self, claim: &Claim<'_>, port: u16) -> Result<u16> {
        let port = if port != 0 {
            if self.entries(port).iter().any(|e| e.conflicts(claim, false)) {
                bail!(EADDRINUSE);
            }
            port
        } else {
            let free = |entries: &[Entry]| !entries.iter().any(|e| e.conflicts(claim, false));
            self.choose(free)?
        };
        self.add(claim, port);
        Ok(port)
    }

    /// A port for a socket that connects or sends without having been bound.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when all are taken.
    pub(super) fn bind_to_connect(&mut self, claim: &Claim<'_>) -> Result<u16> {
        let now = host::monotonic_ns();
        let old =
            |e: &Entry| matches!(e.holder, Holder::Lingering(l) if l.since.saturating_add(TIME_WAIT_REUSE) <= now);
        let Ok(port) = self.choose(|entries| entries.iter().all(old)) else { bail!(EADDRNOTAVAIL) };
        self.add(claim, port);
        Ok(port)
    }

    /// Whether a socket bound to a port may listen there.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub(super) fn check_listen(&mut self, claim: &Claim<'_>, port: u16) -> Result<()> {
        if self.entries(port).iter().any(|e| e.conflicts(claim, true)) {
            bail!(EADDRINUSE);
        }
        Ok(())
    }

    /// Adds a socket to a port without a check: what a listener accepts.
    pub(super) fn add(&mut self, claim: &Claim<'_>, port: u16) {
        let holder = Holder::Socket(Arc::downgrade(claim.socket));
        self.entries(port).push(Entry { ip: claim.ip, v6_only: claim.v6_only, holder });
    }

    /// The socket is gone from the port; with a remote address its connection lingers.
    pub(super) fn remove(&mut self, socket: &Arc<Socket>, local: Addr, lingers: Option<(Addr, bool)>) {
        let Some(entries) = self.by_port.get_mut(&local.port) else { return };
        let is_other = |e: &Entry| !matches!(&e.holder, Holder::Socket(s) if core::ptr::eq(s.as_ptr(), &**socket));
        entries.retain(is_other);
        if let Some((remote, reuse)) = lingers {
            let since = host::monotonic_ns();
            let holder = Holder::Lingering(Lingering { remote, since, reuse });
            entries.push(Entry { ip: local.ip, v6_only: false, holder });
        }
        if entries.is_empty() {
            self.by_port.remove(&local.port);
        }
    }

    fn entries(&mut self, port: u16) -> &mut Vec<Entry> {
        let now = host::monotonic_ns();
        let entries = self.by_port.entry(port).or_default();
        entries.retain(|e| e.alive(now));
        entries
    }

    /// A port of the ephemeral range whose entries please.
    fn choose(&mut self, mut free: impl FnMut(&[Entry]) -> bool) -> Result<u16> {
        let mut seed = [0; 2];
        host::getrandom(&mut seed);
        let (first, count) = (*EPHEMERAL.start(), EPHEMERAL.len() as u16);
        let start = u16::from_le_bytes(seed) % count;
        for i in 0..count {
            let port = first + (start + i) % count;
            if free(self.entries(port)) {
                return Ok(port);
            }
        }
        bail!(EADDRINUSE, "all ephemeral ports are taken")
    }

    /// The listener that a connection to `to` reaches; several that share the port take turns.
    pub(super) fn listener(&mut self, to: Addr) -> Option<Arc<Socket>> {
        self.best(to.port, |socket, entry| {
            let listens = socket.state.lock().is_listening();
            (listens && reaches(&entry.ip, entry.v6_only, &to.ip)).then_some(rank(entry, &to.ip))
        })
    }

    /// The socket that takes a message from `from` to `to`: rather one connected to the sender.
    pub(super) fn receiver(&mut self, to: Addr, from: Addr) -> Option<Arc<Socket>> {
        self.best(to.port, |socket, entry| {
            if !reaches(&entry.ip, entry.v6_only, &to.ip) {
                return None;
            }
            match socket.state.lock().remote {
                Some(remote) if remote != from => None,
                remote => Some(rank(entry, &to.ip) + if remote.is_some() { 4 } else { 0 }),
            }
        })
    }

    fn best(&mut self, port: u16, mut score: impl FnMut(&Arc<Socket>, &Entry) -> Option<u32>) -> Option<Arc<Socket>> {
        let mut found: Vec<(u32, Arc<Socket>)> = Vec::new();
        for entry in self.by_port.get(&port)? {
            let Holder::Socket(socket) = &entry.holder else { continue };
            let Some(socket) = socket.upgrade() else { continue };
            if let Some(score) = score(&socket, entry) {
                found.push((score, socket));
            }
        }
        let best = found.iter().map(|f| f.0).max()?;
        found.retain(|f| f.0 == best);
        self.turn = self.turn.wrapping_add(1);
        let at = self.turn % found.len();
        Some(found.swap_remove(at).1)
    }

    /// All sockets, and what lingers with its local address.
    pub(crate) fn all(&self) -> (Vec<Arc<Socket>>, Vec<(Addr, Lingering)>) {
        let now = host::monotonic_ns();
        let (mut sockets, mut lingering) = (Vec::new(), Vec::new());
        for (&port, entry) in self.by_port.iter().flat_map(|(port, e)| e.iter().map(move |e| (port, e))) {
            match &entry.holder {
                Holder::Socket(socket) => sockets.extend(socket.upgrade()),
                Holder::Lingering(l) if entry.alive(now) => lingering.push((Addr { ip: entry.ip, port }, *l)),
                Holder::Lingering(_) => {}
            }
        }
        (sockets, lingering)
    }
}

/// How closely an entry fits: its address rather than a wildcard, IPv4's wildcard rather than that of both.
fn rank(entry: &Entry, to: &Ip) -> u32 {
    if entry.ip == *to { 2 } else { u32::from(entry.ip == super::address::ANY4) }
}
