//! `AF_NETLINK` (`netlink(7)`): sockets between programs and the kernel, and among programs, of two protocols.
//!
//! `NETLINK_ROUTE` ([`route`]) answers questions about the network; `NETLINK_KOBJECT_UEVENT` ([`uevent`]) tells who listens what
//! becomes of devices, and carries what udev makes of it to its listeners. A socket of either takes what the kernel has kept room in
//! its buffer for ([`Reserved`]).

mod reserved;
mod route;
pub(crate) mod uevent;

pub(crate) use reserved::Reserved;

use super::endpoint::{Endpoint, Outgoing};
use super::options::Options;
use super::socket::wait_within;
use super::{Net, Received, RecvFlags, Ucred};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::task::Capabilities;
use crate::vfs::PollEvents;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::AtomicU64;
use linux_raw_sys::net::{AF_NETLINK, SO_DOMAIN, SO_ERROR, SO_PROTOCOL, SO_TYPE, SOCK_DGRAM, SOCK_RAW, SOL_SOCKET};

/// The protocols that there are.
const NETLINK_ROUTE: u32 = 0;
const NETLINK_KOBJECT_UEVENT: u32 = 15;
/// Bytes of a `struct sockaddr_nl`.
const ADDRESS_LEN: usize = 12;
/// The longest message that is sent.
const MAX_MESSAGE: usize = 32 * 1024;

/// The netlink sockets of the machine that have an address.
#[derive(Default)]
pub(super) struct Ports {
    /// By protocol and port id.
    bound: Mutex<BTreeMap<(u32, u32), Weak<Netlink>>>,
    /// The number of the last event of a device.
    sequence: AtomicU64,
}

impl Ports {
    /// Gives a socket a port id: `wish`, or, if another has it and `else_any`, another.
    fn take(&self, socket: &Arc<Netlink>, wish: u32, else_any: bool) -> Option<u32> {
        let mut bound = self.bound.lock();
        let mut port = wish;
        let mut next = u32::MAX - 4096;
        while bound.contains_key(&(socket.protocol, port)) {
            if !else_any {
                return None;
            }
            port = next;
            next -= 1;
        }
        bound.insert((socket.protocol, port), Arc::downgrade(socket));
        Some(port)
    }

    fn release(&self, protocol: u32, port: u32) {
        self.bound.lock().remove(&(protocol, port));
    }

    fn find(&self, protocol: u32, port: u32) -> Option<Arc<Netlink>> {
        self.bound.lock().get(&(protocol, port)).and_then(Weak::upgrade)
    }

    /// Gives a message to all of a protocol that listen to a group, but not to the sender.
    fn broadcast(&self, protocol: u32, group: u32, message: &Message) {
        let all: Vec<Arc<Netlink>> =
            self.bound.lock().range((protocol, 0)..=(protocol, u32::MAX)).filter_map(|(_, s)| s.upgrade()).collect();
        for socket in all {
            let mut state = socket.state.lock();
            if state.groups & group == 0 || state.port == message.from.0 {
                continue;
            }
            state.overrun |= state.take(message.clone()).is_err();
            drop(state);
            socket.readable.wake_all();
        }
    }
}

/// A message on its way to a program.
#[derive(Clone)]
struct Message {
    data: Vec<u8>,
    /// The sender's port id, 0 the kernel's; and the group, as a mask, that it was sent to.
    from: (u32, u32),
    /// Who sent it.
    creds: Ucred,
}

#[derive(Default)]
struct State {
    port: u32,
    groups: u32,
    queue: VecDeque<Message>,
    /// Bytes in the queue, and those that room is kept for.
    queued: usize,
    /// A message found no room.
    overrun: bool,
    options: Options,
}

impl State {
    /// Queues a message; an error when the buffer is full.
    fn take(&mut self, message: Message) -> Result<()> {
        if self.queued + message.data.len() > self.options.receive_buffer {
            bail!(ENOBUFS);
        }
        self.queued += message.data.len();
        self.queue.push_back(message);
        Ok(())
    }
}

/// A netlink socket.
pub(super) struct Netlink {
    kind: u32,
    protocol: u32,
    state: Mutex<State>,
    readable: Arc<WaitQueue>,
    /// Woken when there is more room in the buffer.
    room: WaitQueue,
}

/// `socket(2)` for `AF_NETLINK`.
///
/// # Errors
/// `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT` for other protocols.
pub(super) fn create(kind: u32, protocol: u32) -> Result<Arc<dyn Endpoint>> {
    if kind != SOCK_RAW && kind != SOCK_DGRAM {
        bail!(ESOCKTNOSUPPORT);
    }
    if !matches!(protocol, NETLINK_ROUTE | NETLINK_KOBJECT_UEVENT) {
        bail!(EPROTONOSUPPORT, "of the netlink protocols there are NETLINK_ROUTE and NETLINK_KOBJECT_UEVENT");
    }
    Ok(Arc::new(Netlink { kind, protocol, state: Mutex::default(), readable: Arc::default(), room: WaitQueue::new() }))
}

fn word(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn half(raw: &[u8], at: usize) -> u16 {
    raw.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn encode((port, groups): (u32, u32)) -> Vec<u8> {
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

impl Netlink {
    /// The socket's port id; without one it gets its process's, or another if that is taken.
    fn bound(self: &Arc<Self>, ctx: &Ctx) -> u32 {
        let mut state = self.state.lock();
        if state.port == 0 {
            let wish = ctx.task.process.pid as u32;
            state.port = ctx.kernel.net.netlink.take(self, wish, true).unwrap_or(wish);
        }
        state.port
    }

    /// Whether the caller may send to other programs, to one (`port`) or to those of some `groups`.
    fn check_receivers(&self, ctx: &Ctx, (port, groups): (u32, u32)) -> Result<()> {
        if (port, groups) == (0, 0) {
            return Ok(());
        }
        if self.protocol == NETLINK_ROUTE {
            bail!(ECONNREFUSED, "sockets of NETLINK_ROUTE talk to the kernel only");
        }
        if ctx.creds().capable(Capabilities::NET_ADMIN) { Ok(()) } else { Err(Errno::EPERM.into()) }
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
            let Some(port) = ctx.kernel.net.netlink.take(&self, port, false) else { bail!(EADDRINUSE) };
            state.port = port;
        }
        state.groups = groups;
        drop(state);
        self.bound(ctx);
        Ok(())
    }

    fn connect(self: Arc<Self>, ctx: &Ctx, address: &[u8], _nonblocking: bool) -> Result<()> {
        let (port, _) = decode(address)?;
        if port != 0 {
            bail!(ECONNREFUSED, "where a message goes is said with it");
        }
        self.bound(ctx);
        Ok(())
    }

    fn local(&self) -> Vec<u8> {
        let state = self.state.lock();
        encode((state.port, state.groups))
    }

    fn remote(&self) -> Result<Vec<u8>> {
        Ok(encode((0, 0)))
    }

    fn option(&self, _ctx: &Ctx, level: u32, option: u32) -> Result<Vec<u8>> {
        if level != SOL_SOCKET {
            bail!(ENOPROTOOPT);
        }
        let number = match option {
            SO_TYPE => self.kind,
            SO_DOMAIN => AF_NETLINK,
            SO_PROTOCOL => self.protocol,
            SO_ERROR if core::mem::take(&mut self.state.lock().overrun) => u32::from(Errno::ENOBUFS.0),
            SO_ERROR => 0,
            _ => return self.state.lock().options.get(option),
        };
        Ok(number.to_le_bytes().to_vec())
    }

    fn set_option(&self, _ctx: &Ctx, level: u32, option: u32, value: &[u8]) -> Result<()> {
        const SOL_NETLINK: u32 = 270;
        const NETLINK_ADD_MEMBERSHIP: u32 = 1;
        const NETLINK_DROP_MEMBERSHIP: u32 = 2;
        // NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK: what they ask for makes answers shorter or longer in
        // ways that programs must bear without.
        const KNOWN: [u32; 3] = [10, 11, 12];
        let mut state = self.state.lock();
        match (level, option) {
            (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP | NETLINK_DROP_MEMBERSHIP) => {
                let Some(group) = word(value, 0).checked_sub(1).and_then(|bit| 1u32.checked_shl(bit)) else {
                    bail!(EINVAL, "groups are numbered from 1 to 32");
                };
                let joins = option == NETLINK_ADD_MEMBERSHIP;
                state.groups = if joins { state.groups | group } else { state.groups & !group };
                Ok(())
            }
            (SOL_NETLINK, option) if KNOWN.contains(&option) => Ok(()),
            (SOL_SOCKET, _) => state.options.set(option, value),
            _ => Err(Errno::ENOPROTOOPT.into()),
        }
    }

    fn send(self: Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: Outgoing<'_>) -> Result<usize> {
        if how.urgent {
            bail!(EOPNOTSUPP);
        }
        let (to, groups) = how.to.map(decode).transpose()?.unwrap_or_default();
        self.check_receivers(ctx, (to, groups))?;
        let len = src.remaining();
        if len > MAX_MESSAGE {
            bail!(EMSGSIZE);
        }
        let mut data = alloc::vec![0; len];
        if len > 0 && src.take(&mut data)? < len {
            bail!(EFAULT);
        }
        let port = self.bound(ctx);
        if self.protocol == NETLINK_ROUTE {
            let answers = route::answers(ctx, port, &data);
            let mut state = self.state.lock();
            for data in answers {
                let message = Message { data, from: (0, 0), creds: Ucred::default() };
                state.overrun |= state.take(message).is_err();
            }
            drop(state);
            self.readable.wake_all();
            return Ok(len);
        }
        // The lowest of the groups that are named; to the kernel itself there is nothing to say.
        let group = groups & groups.wrapping_neg();
        let message =
            Message { data, from: (port, group), creds: how.ancillary.creds.unwrap_or_else(|| Ucred::real(ctx)) };
        if group != 0 {
            ctx.kernel.net.netlink.broadcast(self.protocol, group, &message);
        }
        if to != 0 {
            let Some(receiver) = ctx.kernel.net.netlink.find(self.protocol, to) else { bail!(ECONNREFUSED) };
            let taken = receiver.state.lock().take(message);
            if taken.is_err() {
                bail!(EAGAIN, "the receiver's buffer is full");
            }
            receiver.readable.wake_all();
        }
        Ok(len)
    }

    fn receive(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received> {
        if flags.urgent {
            bail!(EOPNOTSUPP);
        }
        let timeout = self.state.lock().options.receive_timeout;
        let deadline = timeout.map(|ns| crate::host::monotonic_ns().saturating_add(ns));
        let there = || {
            let state = self.state.lock();
            (state.overrun || !state.queue.is_empty()).then_some(())
        };
        if there().is_none() {
            if flags.nonblocking {
                bail!(EAGAIN);
            }
            wait_within(ctx, &self.readable, deadline, there)?;
        }
        let mut state = self.state.lock();
        if core::mem::take(&mut state.overrun) {
            bail!(ENOBUFS, "messages were lost");
        }
        let Some(message) = state.queue.front() else { bail!(EAGAIN) };
        let (whole, fits) = (message.data.len(), message.data.len().min(dst.remaining()));
        if fits > 0 && dst.put(&message.data[..fits])? < fits {
            bail!(EFAULT);
        }
        let creds = state.options.pass_creds.then_some(message.creds);
        let from = encode(message.from);
        if !flags.peek {
            state.queue.pop_front();
            state.queued = state.queued.saturating_sub(whole);
        }
        drop(state);
        self.room.wake_all();
        let len = if flags.real_len { whole } else { fits };
        Ok(Received { len, truncated: fits < whole, from, creds, ..Received::default() })
    }

    fn poll(&self, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.readable);
        }
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        let state = self.state.lock();
        events.set(PollEvents::IN | PollEvents::RDNORM, !state.queue.is_empty());
        events.set(PollEvents::ERR, state.overrun);
        events
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.state.lock().queue.front().map_or(0, |message| message.data.len()))
    }

    fn close(self: Arc<Self>, net: Option<&Net>) {
        let port = core::mem::take(&mut self.state.lock().port);
        if let Some(net) = net
            && port != 0
        {
            net.netlink.release(self.protocol, port);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
