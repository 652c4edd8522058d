//! The host judges: each scenario makes the same calls on the host's sockets and on ours, and what they show must agree.

use crate::errno::Errno;
use crate::kernel::Ctx;
use crate::testing::{addr, machine};
use core::cell::Cell;
use linux_raw_sys::general::*;
use linux_raw_sys::net::*;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

type Call<'a> = &'a dyn Fn(u32, &[u64]) -> Result<u64, Errno>;

/// One side of the comparison, and what it has shown.
struct Side<'a> {
    call: Call<'a>,
    /// Distinguishes the sides' abstract names.
    tag: &'static str,
    log: Vec<String>,
}

impl Side<'_> {
    fn call(&self, nr: u32, args: &[u64]) -> Result<u64, Errno> {
        (self.call)(nr, args)
    }

    fn note(&mut self, what: &str, result: &dyn core::fmt::Debug) {
        self.log.push(format!("{what}: {result:?}"));
    }

    fn socket(&self, kind: u32) -> u64 {
        self.call(__NR_socket, &[1, u64::from(kind | SOCK_NONBLOCK), 0]).unwrap()
    }

    fn pair(&self, kind: u32) -> (u64, u64) {
        let fds = Cell::new([0i32; 2]);
        self.call(__NR_socketpair, &[1, u64::from(kind | SOCK_NONBLOCK), 0, addr(&fds)]).unwrap();
        (fds.get()[0] as u64, fds.get()[1] as u64)
    }

    fn name(&self, name: &str) -> Vec<u8> {
        format!("\x01\0\0{}-{}-{name}", self.tag, std::process::id()).into_bytes()
    }

    fn on_name(&self, nr: u32, fd: u64, name: &str) -> Result<u64, Errno> {
        let raw = self.name(name);
        self.call(nr, &[fd, raw.as_ptr() as u64, raw.len() as u64])
    }

    fn send(&self, fd: u64, data: &[u8]) -> Result<u64, Errno> {
        self.call(__NR_sendto, &[fd, addr(data), data.len() as u64, u64::from(MSG_NOSIGNAL), 0, 0])
    }

    fn send_to(&self, fd: u64, data: &[u8], name: &str) -> Result<u64, Errno> {
        let raw = self.name(name);
        let args = [fd, addr(data), data.len() as u64, u64::from(MSG_NOSIGNAL), raw.as_ptr() as u64, raw.len() as u64];
        self.call(__NR_sendto, &args)
    }

    fn receive(&self, fd: u64, max: usize, flags: u32) -> Result<(u64, Vec<u8>), Errno> {
        let mut buf = vec![0u8; max];
        let n = self.call(__NR_recvfrom, &[fd, buf.as_mut_ptr() as u64, max as u64, u64::from(flags), 0, 0])?;
        buf.truncate(n as usize);
        Ok((n, buf))
    }

    fn poll(&self, fd: u64) -> u16 {
        let raw = Cell::new([fd as u16, 0, 0x2fff, 0]);
        self.call(__NR_poll, &[addr(&raw), 1, 0]).unwrap();
        raw.get()[3]
    }

    fn option(&self, fd: u64, option: u32) -> Result<(i32, i32), Errno> {
        let (value, len) = (Cell::new(0i32), Cell::new(4i32));
        self.call(__NR_getsockopt, &[fd, 1, u64::from(option), addr(&value), addr(&len)])?;
        Ok((value.get(), len.get()))
    }

    fn set_option(&self, fd: u64, option: u32, value: i32) -> Result<u64, Errno> {
        self.call(__NR_setsockopt, &[fd, 1, u64::from(option), addr(&value), 4])
    }

    fn close(&self, fd: u64) {
        self.call(__NR_close, &[fd]).unwrap();
    }

    fn accept(&self, fd: u64) -> Result<u64, Errno> {
        self.call(__NR_accept4, &[fd, 0, 0, u64::from(SOCK_NONBLOCK)])
    }
}

const SOCK_NONBLOCK: u32 = O_NONBLOCK;

fn host_call(nr: u32, args: &[u64]) -> Result<u64, Errno> {
    let mut a = [0; 6];
    a[..args.len()].copy_from_slice(args);
    // SAFETY: the scenarios pass pointers to buffers of the lengths that they say.
    let result = unsafe { nix::libc::syscall(i64::from(nr), a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result < 0 {
        Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap() as u16))
    } else {
        Ok(result as u64)
    }
}

fn compare(scenario: impl Fn(&mut Side)) {
    let m = machine();
    let (_init, task) = (m.task(), m.task());
    let ctx: Ctx = m.ctx(&task);
    let guest = |nr: u32, args: &[u64]| ctx.call(nr, args).map(|n| n as u64).map_err(|e| e.errno);
    let mut ours = Side { call: &guest, tag: "ours", log: vec![] };
    scenario(&mut ours);
    let mut hosts = Side { call: &host_call, tag: "host", log: vec![] };
    scenario(&mut hosts);
    assert!(!ours.log.is_empty());
    for (ours, host) in ours.log.iter().zip(&hosts.log) {
        assert_eq!(ours, host, "left: ours, right: the host's");
    }
}

macro_rules! note {
    ($side:expr, $call:expr) => {{
        let result = $call;
        $side.note(stringify!($call), &result);
        result
    }};
}

#[test]
fn streams_between_a_pair() {
    compare(|s| {
        let (a, b) = s.pair(SOCK_STREAM);
        note!(s, s.poll(a));
        note!(s, s.receive(a, 10, 0)).ok();
        note!(s, s.send(a, b"hello ")).ok();
        note!(s, s.send(a, b"world")).ok();
        note!(s, s.poll(b));
        note!(s, s.receive(b, 3, MSG_PEEK)).ok();
        note!(s, s.receive(b, 8, 0)).ok();
        note!(s, s.receive(b, 99, MSG_WAITALL)).ok();
        note!(s, s.send(b, b"")).ok();
        note!(s, s.receive(a, 9, 0)).ok();
        note!(s, s.call(__NR_shutdown, &[a, 1])).ok();
        note!(s, (s.poll(a), s.poll(b)));
        note!(s, s.send(a, b"x")).ok();
        note!(s, s.receive(b, 9, 0)).ok();
        note!(s, s.send(b, b"still")).ok();
        note!(s, s.receive(a, 9, 0)).ok();
        note!(s, s.call(__NR_shutdown, &[a, 3])).ok();
        note!(s, s.send(b, b"unread")).ok();
        s.close(a);
        note!(s, s.poll(b));
        note!(s, s.send(b, b"x")).ok();
        note!(s, s.send(b, b"x")).ok();
        note!(s, s.receive(b, 9, 0)).ok();
        s.close(b);
    });
}

#[test]
fn messages_keep_their_bounds() {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        compare(|s| {
            let (a, b) = s.pair(kind);
            note!(s, s.send(a, b"one")).ok();
            note!(s, s.send(a, b"")).ok();
            note!(s, s.send(a, b"three")).ok();
            note!(s, s.receive(b, 2, MSG_PEEK)).ok();
            note!(s, s.receive(b, 2, MSG_TRUNC).map(|r| r.0)).ok();
            note!(s, s.receive(b, 2, 0)).ok();
            note!(s, s.receive(b, 9, 0)).ok();
            note!(s, s.receive(b, 9, 0)).ok();
            let sent = (0..100).take_while(|_| s.send(a, b"many").is_ok()).count();
            note!(s, sent);
            note!(s, s.send(a, b"x")).ok();
            note!(s, s.poll(a) & 4);
            note!(s, s.send(a, &vec![0; 300_000])).unwrap_err();
            s.close(b);
            note!(s, s.poll(a));
            note!(s, s.send(a, b"x")).ok();
            note!(s, s.send(a, b"x")).ok();
            note!(s, s.receive(a, 9, 0)).ok();
            s.close(a);
        });
    }
}

#[test]
fn connections() {
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        compare(|s| {
            let (l, c) = (s.socket(kind), s.socket(kind));
            note!(s, (s.poll(l), s.poll(c)));
            note!(s, s.call(__NR_listen, &[l, 1])).ok();
            note!(s, s.on_name(__NR_connect, c, "a")).ok();
            note!(s, s.on_name(__NR_bind, l, "a")).ok();
            note!(s, s.on_name(__NR_bind, l, "b")).ok();
            note!(s, s.on_name(__NR_bind, c, "a")).ok();
            note!(s, s.on_name(__NR_connect, c, "a")).ok();
            note!(s, s.accept(l)).ok();
            note!(s, s.call(__NR_listen, &[l, 1])).ok();
            note!(s, s.accept(l)).ok();
            note!(s, s.option(l, SO_ACCEPTCONN)).ok();
            note!(s, s.on_name(__NR_connect, c, "a")).ok();
            note!(s, s.on_name(__NR_connect, c, "a")).ok();
            note!(s, (s.poll(l), s.poll(c)));
            note!(s, s.send(c, b"early")).ok();
            let more: Vec<u64> = (0..4).map(|_| s.socket(kind)).collect();
            for &fd in &more {
                note!(s, s.on_name(__NR_connect, fd, "a")).ok();
            }
            let a = s.accept(l).unwrap();
            note!(s, s.receive(a, 99, 0)).ok();
            note!(s, s.send(a, b"welcome")).ok();
            note!(s, s.receive(c, 99, 0)).ok();
            note!(s, s.send_to(c, b"x", "a")).ok();
            note!(s, s.receive(l, 9, 0)).ok();
            note!(s, s.send(l, b"x")).ok();
            // What waits to be accepted when the listener goes is reset.
            s.close(l);
            note!(s, s.poll(more[0]));
            note!(s, s.receive(more[0], 9, 0)).ok();
            note!(s, s.receive(more[0], 9, 0)).ok();
            note!(s, s.on_name(__NR_connect, more[3], "a")).ok();
            note!(s, s.send(a, b"after")).ok();
            note!(s, s.receive(c, 99, 0)).ok();
            s.close(c);
            note!(s, s.receive(a, 99, 0)).ok();
            [a, more[0], more[1], more[2], more[3]].iter().for_each(|&fd| s.close(fd));
        });
    }
}

#[test]
fn datagrams_by_name() {
    compare(|s| {
        let (a, b, c) = (s.socket(SOCK_DGRAM), s.socket(SOCK_DGRAM), s.socket(SOCK_DGRAM));
        note!(s, s.send(a, b"x")).ok();
        note!(s, s.send_to(a, b"x", "b")).ok();
        s.on_name(__NR_bind, b, "b").unwrap();
        note!(s, s.send_to(a, b"first", "b")).ok();
        note!(s, s.on_name(__NR_connect, a, "b")).ok();
        note!(s, s.send(a, b"second")).ok();
        note!(s, s.receive(b, 99, 0)).ok();
        note!(s, s.receive(b, 99, 0)).ok();
        // Once connected to c, b takes from nobody else.
        s.on_name(__NR_bind, c, "c").unwrap();
        note!(s, s.on_name(__NR_connect, b, "c")).ok();
        note!(s, s.send_to(a, b"x", "b")).ok();
        note!(s, s.send_to(c, b"third", "b")).ok();
        note!(s, s.receive(b, 99, 0)).ok();
        let unspecified = [0u8; 2];
        note!(s, s.call(__NR_connect, &[b, addr(&unspecified), 2])).ok();
        note!(s, s.send_to(a, b"again", "b")).ok();
        note!(s, s.call(__NR_listen, &[b, 1])).ok();
        note!(s, s.accept(b)).ok();
        let stream = s.socket(SOCK_STREAM);
        note!(s, s.on_name(__NR_connect, stream, "b")).ok();
        note!(s, s.send_to(stream, b"x", "b")).ok();
        note!(s, s.receive(stream, 9, 0)).ok();
        s.close(b);
        note!(s, s.send(a, b"x")).ok();
        note!(s, s.send(a, b"x")).ok();
        [a, c, stream].iter().for_each(|&fd| s.close(fd));
    });
}

#[test]
fn addresses_and_arguments() {
    compare(|s| {
        for (family, kind, protocol) in
            [(1, 9, 0), (1, 11, 0), (1, 4, 0), (1, 1, 7), (99, 1, 0), (1, 0x100001, 0), (1, 1, 1)]
        {
            let result = s.call(__NR_socket, &[family, kind, protocol]);
            note!(s, result.map(|fd| s.close(fd))).ok();
        }
        let fd = s.socket(SOCK_STREAM);
        let (raw, len) = (Cell::new([7u8; 120]), Cell::new(120i32));
        note!(s, s.call(__NR_getsockname, &[fd, addr(&raw), addr(&len)])).ok();
        note!(s, (len.get(), raw.get()[..4].to_vec()));
        note!(s, s.call(__NR_getpeername, &[fd, addr(&raw), addr(&len)])).ok();
        len.set(-1);
        note!(s, s.call(__NR_getsockname, &[fd, addr(&raw), addr(&len)])).ok();
        note!(s, s.call(__NR_getsockname, &[fd, addr(&raw), 8])).ok();
        for len in [0u64, 1, 111, 200, u64::MAX] {
            note!(s, s.call(__NR_bind, &[fd, addr(&raw), len])).ok();
        }
        note!(s, s.call(__NR_bind, &[fd, 8, 10])).ok();
        let auto = [1u8, 0];
        note!(s, s.call(__NR_bind, &[fd, addr(&auto), 2])).ok();
        len.set(120);
        s.call(__NR_getsockname, &[fd, addr(&raw), addr(&len)]).unwrap();
        note!(s, (len.get(), raw.get()[2]));
        len.set(3);
        s.call(__NR_getsockname, &[fd, addr(&raw), addr(&len)]).unwrap();
        note!(s, len.get());
        let event = s.call(__NR_eventfd2, &[0, 0]).unwrap();
        note!(s, s.call(__NR_listen, &[event, 0])).ok();
        note!(s, s.call(__NR_listen, &[9999, 0])).ok();
        s.close(fd);
        s.close(event);
    });
}

#[test]
fn options() {
    compare(|s| {
        let fd = s.socket(SOCK_SEQPACKET);
        for option in
            [SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_PASSCRED, SO_ACCEPTCONN, 9999]
        {
            note!(s, s.option(fd, option)).ok();
        }
        for (option, value) in [
            (SO_SNDBUF, 1000),
            (SO_RCVBUF, 10_000),
            (SO_PASSCRED, 1),
            (SO_KEEPALIVE, 5),
            (SO_REUSEADDR, 1),
            (SO_RCVLOWAT, 0),
            (SO_PRIORITY, 3),
            (SO_TYPE, 1),
            (SO_ERROR, 1),
            (SO_ACCEPTCONN, 1),
            (9999, 1),
        ] {
            note!(s, s.set_option(fd, option, value)).ok();
            note!(s, s.option(fd, option)).ok();
        }
        let value = [1i32, 2];
        note!(s, s.call(__NR_setsockopt, &[fd, 1, u64::from(SO_LINGER), addr(&value), 4])).ok();
        note!(s, s.call(__NR_setsockopt, &[fd, 1, u64::from(SO_PASSCRED), addr(&value), 3])).ok();
        note!(s, s.call(__NR_setsockopt, &[fd, 1, u64::from(SO_PASSCRED), 8, 4])).ok();
        note!(s, s.call(__NR_setsockopt, &[fd, 6, 1, addr(&value), 4])).ok();
        let time = [0i64, 2_000_000];
        note!(s, s.call(__NR_setsockopt, &[fd, 1, u64::from(SO_RCVTIMEO_OLD), addr(&time), 16])).ok();
        s.close(fd);
    });
}

/// A `struct msghdr` with one buffer.
struct Message {
    header: Cell<[u64; 7]>,
    _iov: std::boxed::Box<[u64; 2]>,
    data: Vec<u8>,
    control: Vec<u8>,
}

impl Message {
    fn new(data: &[u8], control: &[u8]) -> Message {
        let mut data = data.to_vec();
        let mut control = control.to_vec();
        let iov = std::boxed::Box::new([data.as_mut_ptr() as u64, data.len() as u64]);
        let header = [0, 0, iov.as_ptr() as u64, 1, control.as_mut_ptr() as u64, control.len() as u64, 0];
        Message { header: Cell::new(header), _iov: iov, data, control }
    }

    fn flags_and_control(&self) -> (u64, Vec<u8>) {
        let header = self.header.get();
        (header[6], self.control[..header[5] as usize].to_vec())
    }
}

fn control(kind: u32, words: &[u32]) -> Vec<u8> {
    let mut raw = (16 + words.len() as u64 * 4).to_le_bytes().to_vec();
    raw.extend(1u32.to_le_bytes());
    raw.extend(kind.to_le_bytes());
    words.iter().for_each(|w| raw.extend(w.to_le_bytes()));
    raw.resize(raw.len().next_multiple_of(8), 0);
    raw
}

#[test]
fn files_travel() {
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        compare(|s| {
            let (a, b) = s.pair(kind);
            let event = s.call(__NR_eventfd2, &[5, 0]).unwrap();
            let message = Message::new(b"file", &control(SCM_RIGHTS, &[event as u32, a as u32]));
            note!(s, s.call(__NR_sendmsg, &[a, addr(&message.header), 0])).ok();
            s.send(a, b"tail").unwrap();
            s.close(event);
            let got = Message::new(&[0; 99], &[0xaa; 64]);
            note!(s, s.call(__NR_recvmsg, &[b, addr(&got.header), u64::from(MSG_CMSG_CLOEXEC)])).ok();
            let (flags, raw) = got.flags_and_control();
            note!(s, (flags, raw[..16].to_vec(), raw.len(), core::hint::black_box(&got.data)[..5].to_vec()));
            let fd = u64::from(raw[16]);
            note!(s, s.call(__NR_fcntl, &[fd, 1, 0])).ok();
            let value = Cell::new(0u64);
            note!(s, s.call(__NR_read, &[fd, addr(&value), 8])).ok();
            note!(s, value.get());
            note!(s, s.receive(b, 99, 0)).ok();
            [fd, u64::from(raw[20])].iter().for_each(|&fd| s.close(fd));

            // No room for the files: they are closed, and the flag says so.
            let message = Message::new(b"x", &control(SCM_RIGHTS, &[a as u32, a as u32]));
            for room in [0, 8, 20, 24] {
                s.call(__NR_sendmsg, &[a, addr(&message.header), 0]).unwrap();
                let got = Message::new(&[0; 9], &vec![0; room]);
                note!(s, s.call(__NR_recvmsg, &[b, addr(&got.header), 0])).ok();
                let (flags, raw) = got.flags_and_control();
                note!(s, (room, flags, raw.len()));
                for word in raw.get(16..).unwrap_or_default().chunks_exact(4) {
                    s.close(u64::from(word[0]));
                }
            }
            for bad in [control(SCM_RIGHTS, &[9999]), control(77, &[1]), vec![3; 20], control(SCM_CREDENTIALS, &[1])] {
                let message = Message::new(b"x", &bad);
                note!(s, s.call(__NR_sendmsg, &[a, addr(&message.header), 0])).ok();
            }
            s.close(a);
            s.close(b);
        });
    }
}

#[test]
fn credentials_come_with_messages() {
    compare(|s| {
        let (a, b) = s.pair(SOCK_DGRAM);
        s.set_option(b, SO_PASSCRED, 1).unwrap();
        s.send(a, b"who").unwrap();
        let got = Message::new(&[0; 9], &[0; 64]);
        note!(s, s.call(__NR_recvmsg, &[b, addr(&got.header), 0])).ok();
        let (flags, raw) = got.flags_and_control();
        note!(s, (flags, raw[..16].to_vec(), raw.len()));
        let (own, len) = (Cell::new([0u32; 3]), Cell::new(12));
        s.call(__NR_getsockopt, &[a, 1, u64::from(SO_PEERCRED), addr(&own), addr(&len)]).unwrap();
        let words: Vec<u32> = raw[16..28].chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        note!(s, words == own.get());
        s.close(a);
        s.close(b);
    });
}

#[test]
fn a_stream_carries_much_between_threads() {
    let m = machine();
    let (task, other) = (m.task(), m.task());
    let ctx = m.ctx(&task);
    let fds = Cell::new([0i32; 2]);
    ctx.call(__NR_socketpair, &[1, 1, 0, addr(&fds)]).unwrap();
    let [a, b] = fds.get().map(|fd| fd as u64);
    other.files.set(task.files());
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    let mut got = Vec::new();
    std::thread::scope(|s| {
        s.spawn(|| {
            let sent = m.ctx(&other).call(__NR_write, &[a, data.as_ptr() as u64, data.len() as u64]);
            assert_eq!(sent, Ok(data.len()));
            m.ctx(&other).call(__NR_close, &[a]).unwrap();
        });
        let mut buf = vec![0u8; 50_000];
        loop {
            match ctx.call(__NR_read, &[b, buf.as_mut_ptr() as u64, buf.len() as u64]).unwrap() {
                0 => break,
                n => got.extend_from_slice(&buf[..n]),
            }
        }
    });
    assert!(got == data);
}

#[test]
fn a_receive_gives_up_in_time() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let fds = Cell::new([0i32; 2]);
    ctx.call(__NR_socketpair, &[1, 2, 0, addr(&fds)]).unwrap();
    let fd = fds.get()[0] as u64;
    let time = [0i64, 50_000];
    ctx.call(__NR_setsockopt, &[fd, 1, u64::from(SO_RCVTIMEO_OLD), addr(&time), 16]).unwrap();
    let start = std::time::Instant::now();
    let buf = Cell::new([0u8; 8]);
    assert_eq!(ctx.call(__NR_read, &[fd, addr(&buf), 8]).unwrap_err().errno, Errno::EAGAIN);
    assert!(start.elapsed().as_millis() >= 50);
}

/// A `struct sockaddr_nl`.
fn netlink_address(port: u32, groups: u32) -> [u32; 3] {
    [16, port, groups]
}

#[test]
fn programs_talk_by_netlink() {
    // The host lets root alone send to other programs.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // NETLINK_KOBJECT_UEVENT, and a group that no system uses.
    const PROTOCOL: u64 = 15;
    const GROUP: u32 = 1 << 29;
    compare(|s| {
        let call = s.call;
        let socket = || call(__NR_socket, &[16, u64::from(SOCK_RAW | SOCK_NONBLOCK), PROTOCOL]).unwrap();
        let bind = |fd: u64, to: [u32; 3]| call(__NR_bind, &[fd, addr(&to), 12]);
        let name = |fd: u64| {
            let (name, len) = (Cell::new([0u32; 3]), Cell::new(12u32));
            call(__NR_getsockname, &[fd, addr(&name), addr(&len)]).unwrap();
            name.get()
        };
        let send = |fd: u64, data: &[u8], to: [u32; 3]| {
            call(__NR_sendto, &[fd, addr(data), data.len() as u64, 0, addr(&to), 12])
        };
        // The message, the group that it went to, and whether it came from `from`; and the bytes of its control messages.
        let receive = |fd: u64, from: u64| {
            let (sender, message) = (Cell::new([0u32; 3]), Message::new(&[0; 9], &[0; 64]));
            let mut header = message.header.get();
            (header[0], header[1]) = (addr(&sender), 12);
            message.header.set(header);
            let len = call(__NR_recvmsg, &[fd, addr(&message.header), 0])? as usize;
            let [_, port, groups] = sender.get();
            let (flags, control) = message.flags_and_control();
            Ok::<_, Errno>((message.data[..len].to_vec(), port == name(from)[1], groups, flags, control.len()))
        };
        let (a, b) = (socket(), socket());
        s.note("bind", &(bind(a, netlink_address(0, 0)), bind(b, netlink_address(0, GROUP))));
        s.note("groups", &(name(a)[2], name(b)[2], name(a)[1] == name(b)[1]));
        s.note("taken", &bind(socket(), netlink_address(name(a)[1], 0)));
        s.note("to nobody", &send(a, b"x", netlink_address(1 << 30, 0)));
        s.note("to one", &send(a, b"unicast", netlink_address(name(b)[1], 0)));
        s.note("to all", &send(a, b"multicast", netlink_address(0, GROUP)));
        s.note("first", &receive(b, a));
        s.set_option(b, SO_PASSCRED, 1).unwrap();
        s.note("second", &receive(b, a));
        s.note("none", &(receive(b, a), receive(a, b)));
        s.note("own", &(send(b, b"x", netlink_address(0, GROUP)), receive(b, b)));
        let leave = |option: u64| call(__NR_setsockopt, &[b, 270, option, addr(&30u32), 4]);
        s.note("leave", &(leave(2), name(b)[2], send(a, b"x", netlink_address(0, GROUP)), receive(b, a)));
        s.note("join", &(leave(1), name(b)[2], send(a, b"x", netlink_address(0, GROUP)), receive(b, a)));
        let filled = (0..10_000).take_while(|_| send(a, &[0; 1000], netlink_address(0, GROUP)).is_ok()).count();
        s.note("filled", &(filled, receive(b, a), receive(b, a).is_ok()));
        s.close(a);
        s.close(b);
    });
}

#[test]
fn devices_announce_themselves() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let fd = ctx.call(__NR_socket, &[16, u64::from(SOCK_RAW | SOCK_NONBLOCK), 15]).unwrap() as u64;
    ctx.call(__NR_bind, &[fd, addr(&netlink_address(0, 1)), 12]).unwrap();
    ctx.call(__NR_setsockopt, &[fd, 1, u64::from(SO_PASSCRED), addr(&1u32), 4]).unwrap();
    let device = super::netlink::uevent::Device {
        path: "/devices/virtual/mem/null".into(),
        subsystem: "mem",
        properties: "MAJOR=1\nMINOR=3\n".into(),
    };
    super::netlink::uevent::synthesize(&m.kernel, &device, b"add").unwrap();
    assert_eq!(super::netlink::uevent::synthesize(&m.kernel, &device, b"ad").unwrap_err().errno, Errno::EINVAL);
    let got = Message::new(&[0; 200], &[0; 64]);
    let len = ctx.call(__NR_recvmsg, &[fd, addr(&got.header), 0]).unwrap();
    assert!(got.data[..len].starts_with(b"add@/devices/virtual/mem/null\0ACTION=add\0"));
    // The kernel's own: process 0, root. udevd takes no others.
    assert_eq!(got.flags_and_control().1[16..28], [0; 12]);
}
