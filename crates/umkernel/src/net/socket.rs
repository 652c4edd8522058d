//! Sockets and how they are connected.

use super::ancillary::Ucred;
use super::message::Packet;
use super::options::Options;
use super::{Address, Endpoint, Net, Outgoing, Received, RecvFlags, Sending, SockOpt};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Mutex, PollTable, WaitQueue};
use crate::vfs::{AT_FDCWD, Access, FileType, Location, PollEvents, WalkFlags};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::net::SOL_SOCKET;

/// `SOMAXCONN`: the longest queue of connections that wait to be accepted.
const MAX_BACKLOG: u32 = 4096;

/// What a socket transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Bytes, between two connected sockets.
    Stream = 1,
    /// Messages, from anyone.
    Datagram = 2,
    /// Messages, between two connected sockets.
    SeqPacket = 5,
}

/// What a socket is connected to.
#[derive(Default)]
pub(super) enum Link {
    /// Nothing.
    #[default]
    None,
    /// Connections may come.
    Listening {
        backlog: usize,
        /// Those that have come: the new sockets on this side.
        waiting: VecDeque<Arc<Socket>>,
    },
    /// The other side, or where a datagram socket sends to.
    Peer(Arc<Socket>),
}

/// A socket.
pub struct Socket {
    /// What it transports.
    pub kind: Kind,
    /// The inode of its file, 0 before it has one.
    pub(super) ino: AtomicU64,
    pub(super) state: Mutex<State>,
    /// Woken when something can be received or accepted.
    pub(super) readable: Arc<WaitQueue>,
    /// Woken when something that was sent was received, which makes room.
    pub(super) writable: Arc<WaitQueue>,
}

/// What changes about a socket, under its lock. No two sockets are locked at once.
#[derive(Default)]
pub(super) struct State {
    pub(super) address: Address,
    /// Keeps the inode of a bound path.
    pub(super) location: Option<Location>,
    pub(super) link: Link,
    /// What was received, and its bytes.
    pub(super) queue: VecDeque<Packet>,
    pub(super) queued: usize,
    /// Nothing more can be received; nothing more can be sent.
    pub(super) receive_shut: bool,
    pub(super) send_shut: bool,
    /// A connection existed and the other side is gone.
    pub(super) closed: bool,
    /// An error for the next call (`SO_ERROR`).
    pub(super) error: Option<Errno>,
    /// Who the other side was when it connected or listened (`SO_PEERCRED`).
    pub(super) peer_creds: Option<Ucred>,
    /// Who called `listen(2)`.
    pub(super) own_creds: Option<Ucred>,
    pub(super) options: Options,
}

impl State {
    pub(super) fn peer(&self) -> Option<Arc<Socket>> {
        match &self.link {
            Link::Peer(peer) => Some(peer.clone()),
            _ => None,
        }
    }

    pub(super) fn take_error(&mut self) -> Result<()> {
        self.error.take().map_or(Ok(()), |errno| Err(errno.into()))
    }
}

impl Socket {
    /// A socket that is neither bound nor connected.
    pub fn create(kind: Kind) -> Arc<Socket> {
        let ino = AtomicU64::new(0);
        Arc::new(Socket { kind, ino, state: Mutex::default(), readable: Arc::default(), writable: Arc::default() })
    }

    /// Whether two sockets must be connected before anything is sent.
    pub(super) fn by_connection(&self) -> bool {
        self.kind != Kind::Datagram
    }

    pub(super) fn wake_all(&self) {
        self.readable.wake_all();
        self.writable.wake_all();
    }

    /// `bind(2)`.
    ///
    /// # Errors
    /// `EINVAL` when it has an address already; `EADDRINUSE`; what making the inode says.
    pub fn bind(self: &Arc<Socket>, ctx: &Ctx, address: Address) -> Result<()> {
        let net = &ctx.kernel.net;
        let bound = self.state.lock().address != Address::Unnamed;
        let address = match address {
            // An address without a name asks for any abstract name; a second time for none.
            Address::Unnamed if bound => return Ok(()),
            _ if bound => bail!(EINVAL, "the socket is bound already"),
            Address::Unnamed => Address::Abstract(net.autobind(self)?),
            Address::Abstract(name) => {
                net.bind_abstract(&name, self)?;
                Address::Abstract(name)
            }
            Address::Path(path) => {
                let made = ctx.kernel.vfs.mknod(ctx, AT_FDCWD, &path, FileType::Socket, 0o777, 0);
                let location = made.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE.into() } else { e })?;
                net.bind_inode(&location, self)?;
                self.state.lock().location = Some(location);
                Address::Path(path)
            }
        };
        self.state.lock().address = address;
        Ok(())
    }

    /// `listen(2)`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams; `EINVAL` without an address or when connected.
    pub fn listen(&self, ctx: &Ctx, backlog: i32) -> Result<()> {
        if !self.by_connection() {
            bail!(EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.address == Address::Unnamed {
            bail!(EINVAL, "the socket has no address");
        }
        let backlog = (backlog as u32).min(MAX_BACKLOG) as usize;
        state.own_creds = Some(Ucred::effective(ctx));
        let closed = state.closed;
        match &mut state.link {
            Link::None if !closed => state.link = Link::Listening { backlog, waiting: VecDeque::new() },
            Link::Listening { backlog: old, .. } => *old = backlog,
            _ => bail!(EINVAL, "the socket is connected"),
        }
        drop(state);
        self.writable.wake_all();
        Ok(())
    }

    /// The socket that an address leads to.
    ///
    /// # Errors
    /// `ECONNREFUSED` when nobody is there, `EACCES`, `EPROTOTYPE` for another kind, what the path walk says.
    pub(super) fn find(&self, ctx: &Ctx, address: &Address) -> Result<Arc<Socket>> {
        let found = match address {
            Address::Unnamed => bail!(EINVAL, "no name"),
            Address::Abstract(name) => ctx.kernel.net.by_abstract(self.kind, name),
            Address::Path(path) => {
                let location = ctx.kernel.vfs.resolve(ctx, AT_FDCWD, path, WalkFlags::FOLLOW)?;
                location.permission(ctx.creds(), Access::WRITE)?;
                if location.dentry.inode.file_type() != FileType::Socket {
                    bail!(ECONNREFUSED, "not a socket");
                }
                ctx.kernel.net.by_inode(&location)?
            }
        };
        let Some(found) = found else { bail!(ECONNREFUSED, "no socket is bound there") };
        if found.kind != self.kind {
            bail!(EPROTOTYPE, "a socket of another kind");
        }
        Ok(found)
    }

    /// `connect(2)`. A datagram socket may change or, with no family (`None`), drop where it sends to.
    ///
    /// # Errors
    /// As the man page says; `EAGAIN` when the listener's queue is full and the call must not block.
    pub fn connect(self: &Arc<Socket>, ctx: &Ctx, address: Option<&Address>, nonblocking: bool) -> Result<()> {
        let Some(address) = address else {
            if self.by_connection() {
                bail!(EINVAL);
            }
            self.state.lock().link = Link::None;
            return Ok(());
        };
        if self.state.lock().options.pass_creds {
            self.bind_if_unnamed(ctx)?;
        }
        if !self.by_connection() {
            let peer = self.find(ctx, address)?;
            peer.accepts_from(self)?;
            self.state.lock().link = Link::Peer(peer);
            self.writable.wake_all();
            return Ok(());
        }
        let deadline = self.send_deadline();
        loop {
            let listener = self.find(ctx, address)?;
            match &self.state.lock().link {
                Link::None => {}
                Link::Peer(_) => bail!(EISCONN),
                Link::Listening { .. } => bail!(EINVAL),
            }
            if let Some(()) = self.try_connect(ctx, &listener)? {
                return Ok(());
            }
            if nonblocking {
                bail!(EAGAIN, "the listener's queue is full");
            }
            let room = || match &listener.state.lock().link {
                Link::Listening { backlog, waiting } => (waiting.len() <= *backlog).then_some(()),
                _ => Some(()),
            };
            wait_within(ctx, &listener.writable, deadline, room)?;
        }
    }

    fn bind_if_unnamed(self: &Arc<Socket>, ctx: &Ctx) -> Result<()> {
        if self.state.lock().address == Address::Unnamed { self.bind(ctx, Address::Unnamed) } else { Ok(()) }
    }

    /// Puts a new socket, connected to this one, on the listener's queue; `None` when that is full.
    fn try_connect(self: &Arc<Socket>, ctx: &Ctx, listener: &Arc<Socket>) -> Result<Option<()>> {
        let accepted = Socket::create(self.kind);
        let mut state = listener.state.lock();
        let listener_creds = state.own_creds;
        let address = state.address.clone();
        let location = state.location.clone();
        let options = state.options;
        let Link::Listening { backlog, waiting } = &mut state.link else { bail!(ECONNREFUSED) };
        if waiting.len() > *backlog {
            return Ok(None);
        }
        {
            // Nobody else knows the new socket yet.
            let mut new = accepted.state.lock();
            new.address = address;
            new.location = location;
            new.link = Link::Peer(self.clone());
            new.peer_creds = Some(Ucred::effective(ctx));
            new.options.pass_creds = options.pass_creds;
        }
        waiting.push_back(accepted.clone());
        drop(state);
        let mut own = self.state.lock();
        own.link = Link::Peer(accepted);
        own.peer_creds = listener_creds;
        own.closed = false;
        drop(own);
        listener.readable.wake_one();
        self.wake_all();
        Ok(Some(()))
    }

    /// A connected datagram socket takes messages from its peer alone.
    pub(super) fn accepts_from(self: &Arc<Socket>, sender: &Arc<Socket>) -> Result<()> {
        match &self.state.lock().link {
            Link::Peer(peer) if !Arc::ptr_eq(peer, sender) => bail!(EPERM, "the receiver is connected to another"),
            _ => Ok(()),
        }
    }

    /// `accept(2)`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams, `EINVAL` when it does not listen, `EAGAIN`.
    pub fn accept(&self, ctx: &Ctx, nonblocking: bool) -> Result<Arc<Socket>> {
        if !self.by_connection() {
            bail!(EOPNOTSUPP);
        }
        let deadline = self.receive_deadline();
        let next = || match &mut self.state.lock().link {
            Link::Listening { waiting, .. } => waiting.pop_front().map(Ok),
            _ => Some(Err(Errno::EINVAL)),
        };
        let found = match next() {
            Some(found) => found,
            None if nonblocking => bail!(EAGAIN),
            None => wait_within(ctx, &self.readable, deadline, next)?,
        };
        self.writable.wake_all();
        Ok(found?)
    }

    /// `shutdown(2)`.
    pub fn shutdown(&self, receive: bool, send: bool) {
        let peer = {
            let mut state = self.state.lock();
            state.receive_shut |= receive;
            state.send_shut |= send;
            state.peer().filter(|_| self.by_connection())
        };
        if let Some(peer) = peer {
            let mut state = peer.state.lock();
            state.receive_shut |= send;
            state.send_shut |= receive;
            drop(state);
            peer.wake_all();
        }
        self.wake_all();
    }

    /// The address it is bound to.
    pub fn address(&self) -> Address {
        self.state.lock().address.clone()
    }

    /// The other side's address.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_address(&self) -> Result<Address> {
        let peer = self.state.lock().peer();
        peer.map(|p| p.address()).ok_or(Errno::ENOTCONN.into())
    }

    /// When a receiving call has to give up.
    pub(super) fn receive_deadline(&self) -> Option<u64> {
        self.state.lock().options.receive_timeout.map(|ns| host::monotonic_ns().saturating_add(ns))
    }

    /// When a sending call has to give up.
    pub(super) fn send_deadline(&self) -> Option<u64> {
        self.state.lock().options.send_timeout.map(|ns| host::monotonic_ns().saturating_add(ns))
    }

    /// The last descriptor is closed: the other side, or those who wait to be accepted, learn of it.
    fn hang_up(&self) {
        let mut state = self.state.lock();
        let link = core::mem::take(&mut state.link);
        let unread = !state.queue.is_empty();
        let queue = core::mem::take(&mut state.queue);
        state.queued = 0;
        state.closed = true;
        state.receive_shut = true;
        state.send_shut = true;
        let location = state.location.take();
        drop(state);
        self.wake_all();
        match link {
            Link::Peer(peer) if self.by_connection() => peer.lose_peer(unread),
            Link::Peer(_) | Link::None => {}
            Link::Listening { waiting, .. } => waiting.iter().for_each(|embryo| {
                let other = embryo.state.lock().peer();
                embryo.state.lock().link = Link::None;
                if let Some(other) = other {
                    other.lose_peer(true);
                }
            }),
        }
        // Files under way close here, outside all locks.
        drop((queue, location));
    }

    /// The other side is gone; `reset` when it leaves something unread.
    fn lose_peer(&self, reset: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        state.receive_shut = true;
        state.send_shut = true;
        if reset {
            state.error = Some(Errno::ECONNRESET);
        }
        drop(state);
        self.wake_all();
    }

    fn look(&self, table: Option<&mut PollTable>) -> PollEvents {
        let peer = self.state.lock().peer();
        if let Some(table) = table {
            table.register(&self.readable);
            table.register_state(&self.writable);
            // Room comes about in the receiver's queue.
            if let Some(peer) = &peer {
                table.register_output(&peer.writable);
            }
        }
        let room = self.may_send(peer.as_ref());
        let state = self.state.lock();
        let input = PollEvents::IN | PollEvents::RDNORM;
        let mut events = PollEvents::empty();
        events.set(PollEvents::ERR, state.error.is_some());
        if let Link::Listening { waiting, .. } = &state.link {
            events.set(input, !waiting.is_empty());
            return events;
        }
        events.set(input | PollEvents::RDHUP, state.receive_shut);
        events.set(input, state.receive_shut || !state.queue.is_empty());
        let unconnected = self.by_connection() && (matches!(state.link, Link::None) || state.closed);
        events.set(PollEvents::HUP, unconnected || state.receive_shut && state.send_shut);
        events.set(PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND, room);
        events
    }
}

/// Sleeps until `condition` gives a value, as a call on a socket does: `EAGAIN` when its time limit passes; interrupted, it
/// is restarted only without one (`signal(7)`).
pub(super) fn wait_within<T>(
    ctx: &Ctx,
    queue: &WaitQueue,
    deadline: Option<u64>,
    condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    match ctx.wait(queue, deadline, condition) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => bail!(EAGAIN),
        Err(e) => Err(interrupted(e, deadline)),
    }
}

/// An interrupted wait with a time limit is not restarted.
pub(super) fn interrupted(error: crate::Error, deadline: Option<u64>) -> crate::Error {
    if error == Errno::ERESTARTSYS && deadline.is_some() { Errno::EINTR.into() } else { error }
}

impl Endpoint for Socket {
    fn domain(&self) -> u32 {
        u32::from(super::address::AF_UNIX)
    }

    fn is_stream(&self) -> bool {
        self.kind == Kind::Stream
    }

    fn bind(self: Arc<Self>, ctx: &Ctx, address: &[u8]) -> Result<()> {
        Socket::bind(&self, ctx, Address::decode(address)?)
    }

    fn connect(self: Arc<Self>, ctx: &Ctx, address: &[u8], nonblocking: bool) -> Result<()> {
        let unspecified = self.kind == Kind::Datagram && address.starts_with(&[0, 0]);
        let address = if unspecified { None } else { Some(Address::decode(address)?) };
        Socket::connect(&self, ctx, address.as_ref(), nonblocking)
    }

    fn listen(self: Arc<Self>, ctx: &Ctx, backlog: i32) -> Result<()> {
        Socket::listen(&self, ctx, backlog)
    }

    fn accept(&self, ctx: &Ctx, nonblocking: bool) -> Result<Arc<dyn Endpoint>> {
        Socket::accept(self, ctx, nonblocking).map(|s| s as Arc<dyn Endpoint>)
    }

    fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        Socket::shutdown(self, receive, send);
        Ok(())
    }

    fn local(&self) -> Vec<u8> {
        self.address().encode()
    }

    fn remote(&self) -> Result<Vec<u8>> {
        self.peer_address().map(|a| a.encode())
    }

    fn option(&self, _ctx: &Ctx, level: u32, option: u32) -> Result<Vec<u8>> {
        if level != SOL_SOCKET {
            bail!(EOPNOTSUPP, "AF_UNIX has options of SOL_SOCKET only");
        }
        Socket::option(self, SockOpt(option))
    }

    fn set_option(&self, _ctx: &Ctx, level: u32, option: u32, value: &[u8]) -> Result<()> {
        if level != SOL_SOCKET {
            bail!(EOPNOTSUPP, "AF_UNIX has options of SOL_SOCKET only");
        }
        Socket::set_option(self, SockOpt(option), value)
    }

    fn send(self: Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: Outgoing<'_>) -> Result<usize> {
        if how.urgent {
            bail!(EOPNOTSUPP);
        }
        let to = how.to.map(Address::decode).transpose()?;
        let Outgoing { nonblocking, no_signal, ancillary, .. } = how;
        Socket::send(&self, ctx, src, Sending { nonblocking, no_signal, to, ancillary })
    }

    fn receive(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received> {
        match self.kind {
            Kind::Stream if flags.urgent => bail!(EINVAL),
            Kind::Datagram | Kind::SeqPacket if flags.urgent => bail!(EOPNOTSUPP),
            _ => Socket::receive(self, ctx, dst, flags),
        }
    }

    fn poll(&self, table: Option<&mut PollTable>) -> PollEvents {
        self.look(table)
    }

    fn readable_bytes(&self) -> Result<usize> {
        self.next_len()
    }

    fn unsent_bytes(&self) -> usize {
        self.unread_by_peer()
    }

    fn opened(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    fn close(self: Arc<Self>, net: Option<&Net>) {
        self.hang_up();
        if let Some(net) = net {
            net.forget(&self);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
