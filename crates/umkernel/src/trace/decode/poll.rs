//! poll, select and epoll.

use super::{Kind, Printer, text, time};
use crate::host::TimeSpec;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("pollfds", pollfds),
    Kind::entry("fd_set", fd_set),
    Kind::entry("pselect_mask", pselect_mask),
    Kind::entry("epoll_flags", |p, v| p.flags(v, &[(0o2_000_000, "EPOLL_CLOEXEC")], "EPOLL_???")),
    Kind::entry("epoll_op", |p, v| p.choice(v & 0xffff_ffff, EPOLL_OP, "EPOLL_CTL_???")),
    Kind::entry("epoll_event_in", epoll_event),
    Kind::exit("epoll_events_out", epoll_events),
];

const EVENTS: &[(u64, &str)] = &[
    (0x1, "POLLIN"),
    (0x2, "POLLPRI"),
    (0x4, "POLLOUT"),
    (0x40, "POLLRDNORM"),
    (0x80, "POLLRDBAND"),
    (0x100, "POLLWRNORM"),
    (0x200, "POLLWRBAND"),
    (0x400, "POLLMSG"),
    (0x2000, "POLLRDHUP"),
    (0x8, "POLLERR"),
    (0x10, "POLLHUP"),
    (0x20, "POLLNVAL"),
];

const EPOLL_EVENTS: &[(u64, &str)] = &[
    (0x1, "EPOLLIN"),
    (0x2, "EPOLLPRI"),
    (0x4, "EPOLLOUT"),
    (0x40, "EPOLLRDNORM"),
    (0x80, "EPOLLRDBAND"),
    (0x100, "EPOLLWRNORM"),
    (0x200, "EPOLLWRBAND"),
    (0x400, "EPOLLMSG"),
    (0x8, "EPOLLERR"),
    (0x10, "EPOLLHUP"),
    (0x2000, "EPOLLRDHUP"),
    (0x1000_0000, "EPOLLEXCLUSIVE"),
    (0x2000_0000, "EPOLLWAKEUP"),
    (0x4000_0000, "EPOLLONESHOT"),
    (0x8000_0000, "EPOLLET"),
];

const EPOLL_OP: &[(u64, &str)] = &[(1, "EPOLL_CTL_ADD"), (2, "EPOLL_CTL_DEL"), (3, "EPOLL_CTL_MOD")];

/// A `struct pollfd`: fd, events, revents.
fn split(word: u64) -> (i32, u64, u64) {
    (word as i32, word >> 32 & 0xffff, word >> 48)
}

fn read_pollfds(p: &Printer, addr: u64, count: u64) -> Option<Vec<u64>> {
    p.ctx.read_vec(addr, count.min(1024) as usize).ok()
}

fn pollfds(p: &mut Printer, addr: u64) {
    let Some(fds) = read_pollfds(p, addr, p.following()) else { return p.address(addr) };
    let show = |word: u64| {
        let (fd, events, _) = split(word);
        if fd < 0 {
            format!("{{fd={fd}}}")
        } else {
            format!("{{fd={fd}, events={}}}", super::flags::show(events, EVENTS, "POLL???"))
        }
    };
    let mut list: Vec<String> = fds.iter().take(p.limit).map(|&w| show(w)).collect();
    if fds.len() > p.limit {
        list.push("...".into());
    }
    let text = format!("[{}]", list.join(", "));
    p.push(&text);
}

/// The descriptors of an `fd_set`, of which the first argument says how long it is.
fn fd_set(p: &mut Printer, addr: u64) {
    match read_fd_set(p, addr) {
        Some(set) => p.push(&set),
        None => p.address(addr),
    }
}

fn read_fd_set(p: &Printer, addr: u64) -> Option<String> {
    if addr == 0 {
        return None;
    }
    let count = (p.args[0] as i32).clamp(0, 1024) as usize;
    let mut bytes = alloc::vec![0u8; count.div_ceil(64) * 8];
    p.ctx.read_user(addr, &mut bytes).ok()?;
    let set = (0..count).filter(|fd| bytes[fd / 8] >> (fd % 8) & 1 != 0);
    Some(format!("[{}]", set.map(|fd| format!("{fd}")).collect::<Vec<_>>().join(" ")))
}

/// The last argument of `pselect6(2)`: a pointer to a mask and its size.
fn pselect_mask(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, [mask, size]: [u64; 2]| {
        let set = p.read(mask).map(|bits| super::signal::set(crate::signal::SigSet(bits)));
        let shown = set.unwrap_or_else(|| if mask == 0 { "NULL".into() } else { text::hex(mask) });
        p.push(&format!("{{sigmask={shown}, sigsetsize={size}}}"));
    });
}

fn epoll_event(p: &mut Printer, addr: u64) {
    // EPOLL_CTL_DEL looks at none.
    if p.args[1] == 2 {
        return p.address(addr);
    }
    p.structure(addr, |p, raw: [u8; 12]| p.push(&show_event(raw)));
}

fn show_event(raw: [u8; 12]) -> String {
    let events = u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]);
    let data = u64::from_ne_bytes(core::array::from_fn(|i| raw[4 + i]));
    let events = super::flags::show(u64::from(events), EPOLL_EVENTS, "EPOLL???");
    format!("{{events={events}, data={{u32={}, u64={data}}}}}", data as u32)
}

fn epoll_events(p: &mut Printer, addr: u64) {
    let Some(Ok(count)) = p.result else { return p.address(addr) };
    let Ok(events) = p.ctx.read_vec::<[u8; 12]>(addr, *count) else { return p.address(addr) };
    let text = format!("[{}]", events.into_iter().map(show_event).collect::<Vec<_>>().join(", "));
    p.push(&text);
}

/// What poll or select found, as strace adds it to the result.
pub(super) fn ready(p: &mut Printer) {
    let Some(Ok(found)) = p.result else { return };
    if *found == 0 {
        return p.push(" (Timeout)");
    }
    let is_poll = p.is("poll") || p.is("ppoll");
    let mut parts: Vec<String> = Vec::new();
    if is_poll {
        let fds = read_pollfds(p, p.args[0], p.args[1]).unwrap_or_default();
        let shown =
            fds.into_iter().map(split).filter(|f| f.0 >= 0 && f.2 != 0).map(|(fd, _, revents)| {
                format!("{{fd={fd}, revents={}}}", super::flags::show(revents, EVENTS, "POLL???"))
            });
        parts.push(format!("[{}]", shown.collect::<Vec<_>>().join(", ")));
    } else {
        for (index, name) in [(1, "in"), (2, "out"), (3, "except")] {
            let set = read_fd_set(p, p.args[index]).filter(|s| s != "[]");
            parts.extend(set.map(|set| format!("{name} {set}")));
        }
    }
    // These two store what is left of the time.
    if p.is("ppoll") || p.is("pselect6") {
        let timeout = p.args[if is_poll { 2 } else { 4 }];
        parts.extend(p.read(timeout).map(|ts: TimeSpec| format!("left {}", time::show_timespec(ts))));
    } else if p.is("select") {
        let left = p.read(p.args[4]);
        parts.extend(left.map(|[sec, usec]: [i64; 2]| format!("left {{tv_sec={sec}, tv_usec={usec}}}")));
    }
    if !parts.is_empty() {
        let text = format!(" ({})", parts.join(", "));
        p.push(&text);
    }
}
