//! Streams: connecting, accepting, sending, receiving, closing (`tcp(7)`).

use super::address::{Addr, is_multicast};
use super::{Errno, Link, Socket, State, Version, count};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::net::endpoint::Outgoing;
use crate::net::socket::{interrupted, wait_within};
use crate::net::{Received, RecvFlags};
use crate::signal::{self, number};
use crate::vfs::PollEvents;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use linux_raw_sys::net::{SO_OOBINLINE, SO_REUSEADDR};

/// `net.core.somaxconn`.
const MAX_BACKLOG: u32 = 4096;
/// Bytes taken from the sender's memory at once.
const CHUNK: usize = 64 * 1024;

/// The states of `/proc/net/tcp` and `TCP_INFO`.
pub(super) mod number_of {
    pub(in crate::net) const ESTABLISHED: u8 = 1;
    pub(in crate::net) const SYN_SENT: u8 = 2;
    pub(in crate::net) const FIN_WAIT2: u8 = 5;
    pub(in crate::net) const TIME_WAIT: u8 = 6;
    pub(in crate::net) const CLOSE: u8 = 7;
    pub(in crate::net) const CLOSE_WAIT: u8 = 8;
    pub(in crate::net) const LISTEN: u8 = 10;
}

impl State {
    /// The connection's state as Linux numbers it.
    pub(super) fn tcp_state(&self) -> u8 {
        match (&self.link, self.send_shut, self.fin) {
            (Link::Listening { .. }, ..) => number_of::LISTEN,
            (Link::Connecting, ..) => number_of::SYN_SENT,
            (Link::Peer(_), false, false) => number_of::ESTABLISHED,
            (Link::Peer(_), true, false) => number_of::FIN_WAIT2,
            (Link::Peer(_), false, true) => number_of::CLOSE_WAIT,
            (Link::Peer(_) | Link::Closed | Link::Over, ..) => number_of::CLOSE,
        }
    }

    /// The connection is reset: what was received can still be read, then comes the error.
    fn reset(&mut self, error: Errno) {
        self.link = Link::Over;
        self.error = Some(error);
        self.fin = true;
        self.receive_shut = true;
        self.send_shut = true;
    }
}

impl Socket {
    /// `listen(2)`; a socket without a port gets one.
    pub(super) fn start_listening(self: &Arc<Self>, ctx: &Ctx, backlog: i32) -> Result<()> {
        let backlog = (backlog as u32).min(MAX_BACKLOG) as usize;
        {
            let mut state = self.state.lock();
            match &mut state.link {
                Link::Closed => {}
                Link::Listening { backlog: old, .. } => {
                    *old = backlog;
                    return Ok(());
                }
                _ => bail!(EINVAL, "the socket is connected"),
            }
        }
        let local = self.state.lock().local;
        let net = &ctx.kernel.net;
        match local {
            Some(local) => {
                let claim = self.claim(local.ip);
                net.tcp.lock().check_listen(&claim, local.port)?;
            }
            None => {
                let ip = self.version.any();
                let claim = self.claim(ip);
                let port = net.tcp.lock().bind(&claim, 0)?;
                self.state.lock().local = Some(Addr { ip, port });
            }
        }
        let mut state = self.state.lock();
        state.link = Link::Listening { backlog, waiting: VecDeque::new(), pending: VecDeque::new() };
        (state.receive_shut, state.send_shut, state.fin) = (false, false, false);
        Ok(())
    }

    /// `connect(2)`. As on Linux, a call that does not wait always ends with `EINPROGRESS`, however fast the connection is.
    pub(super) fn connect_stream(self: &Arc<Self>, ctx: &Ctx, to: Addr, nonblocking: bool) -> Result<()> {
        {
            let mut state = self.state.lock();
            let pending = state.connect_pending;
            match &state.link {
                Link::Listening { .. } => bail!(EISCONN, "the socket listens"),
                Link::Peer(_) if pending => {
                    state.connect_pending = false;
                    return Ok(());
                }
                Link::Peer(_) => bail!(EISCONN),
                Link::Connecting if nonblocking => bail!(EALREADY),
                Link::Connecting => {
                    drop(state);
                    return self.wait_for_connection(ctx);
                }
                Link::Over | Link::Closed if pending => {
                    state.connect_pending = false;
                    state.take_error()?;
                    bail!(ECONNABORTED);
                }
                // As on Linux, the socket of a connection that is over may be used again.
                Link::Over | Link::Closed => {}
            }
        }
        if is_multicast(&to.ip) {
            bail!(ENETUNREACH);
        }
        let (to, source) = self.route(ctx, to)?;
        let net = &ctx.kernel.net;
        let mut local = self.bind_to_send(ctx, source)?;
        local.ip = source;
        self.state.lock().local = Some(local);
        let listener = if to.port == 0 { None } else { net.tcp.lock().listener(to) };
        let joined = listener.is_some_and(|listener| self.join(ctx, &listener, local, to));
        if !joined {
            let mut state = self.state.lock();
            // The port stays, as on Linux, but not the address.
            if state.chosen {
                state.local = Some(Addr { ip: self.version.any(), ..local });
            }
            state.remote = None;
            if !nonblocking {
                bail!(ECONNREFUSED);
            }
            state.reset(Errno::ECONNREFUSED);
            state.link = Link::Closed;
            state.connect_pending = true;
            drop(state);
            self.wake_all();
            bail!(EINPROGRESS);
        }
        if nonblocking {
            self.state.lock().connect_pending = true;
            bail!(EINPROGRESS);
        }
        self.wait_for_connection(ctx)
    }

    /// Sleeps until the connection is there or has failed.
    fn wait_for_connection(&self, ctx: &Ctx) -> Result<()> {
        let deadline = self.send_deadline();
        let settled = || (!matches!(self.state.lock().link, Link::Connecting)).then_some(());
        let waited = ctx.wait(&self.writable, deadline, settled);
        let mut state = self.state.lock();
        match waited {
            Ok(Some(())) => {
                state.connect_pending = false;
                match state.link {
                    Link::Peer(_) => Ok(()),
                    _ => {
                        state.take_error()?;
                        Err(Errno::ECONNREFUSED.into())
                    }
                }
            }
            Ok(None) => {
                state.connect_pending = true;
                bail!(EINPROGRESS)
            }
            Err(e) => {
                state.connect_pending = true;
                Err(interrupted(e, deadline))
            }
        }
    }

    /// Puts a new socket, connected to this one, on the listener's queue. False if it listens no longer.
    fn join(self: &Arc<Self>, ctx: &Ctx, listener: &Arc<Socket>, local: Addr, to: Addr) -> bool {
        let accepted = Socket::new(listener.version, true, listener.uid);
        {
            // Nobody else knows the new socket yet.
            let theirs = listener.state.lock();
            let (options, numbers) = (theirs.options, theirs.numbers.clone());
            drop(theirs);
            let mut new = accepted.state.lock();
            (new.options, new.numbers) = (options, numbers);
            (new.local, new.remote) = (Some(to), Some(local));
            new.link = Link::Peer(self.clone());
        }
        {
            // Before anybody can send: a connection without its other side does not exist.
            let mut own = self.state.lock();
            own.remote = Some(to);
            own.link = Link::Connecting;
            own.stream.clear();
            own.error = None;
            (own.fin, own.receive_shut, own.send_shut) = (false, false, false);
            (own.peer_gone, own.closed_first) = (false, false);
        }
        let claim = accepted.claim(to.ip);
        ctx.kernel.net.tcp.lock().add(&claim, to.port);
        let mut state = listener.state.lock();
        let Link::Listening { backlog, waiting, pending } = &mut state.link else {
            drop(state);
            ctx.kernel.net.tcp.lock().remove(&accepted, to, None);
            return false;
        };
        if waiting.len() > *backlog {
            pending.push_back(accepted);
            return true;
        }
        waiting.push_back(accepted.clone());
        drop(state);
        self.established(accepted);
        listener.readable.wake_one();
        true
    }

    /// `accept(2)`.
    pub(super) fn next_connection(&self, ctx: &Ctx, nonblocking: bool) -> Result<Arc<Socket>> {
        let deadline = self.receive_deadline();
        let next = || match &mut self.state.lock().link {
            Link::Listening { waiting, pending, .. } => {
                let first = waiting.pop_front()?;
                // What waited for room has it now.
                let admitted = pending.pop_front();
                waiting.extend(admitted.clone());
                Some(Ok((first, admitted)))
            }
            _ => Some(Err(Errno::EINVAL)),
        };
        let found = match next() {
            Some(found) => found,
            None if nonblocking => bail!(EAGAIN),
            None => wait_within(ctx, &self.readable, deadline, next)?,
        };
        let (first, admitted) = found?;
        if let Some(admitted) = admitted
            && let Some(client) = { admitted.state.lock().peer() }
        {
            client.established(admitted);
        }
        Ok(first)
    }

    /// The connection that this socket was waiting for is there; `other` is its other side.
    fn established(&self, other: Arc<Socket>) {
        let mut state = self.state.lock();
        match state.link {
            Link::Connecting => state.link = Link::Peer(other),
            // The other side has reset it already.
            Link::Over if state.error.is_some() => {}
            _ => {
                drop(state);
                let mut other = other.state.lock();
                (other.fin, other.peer_gone) = (true, true);
                return;
            }
        }
        drop(state);
        self.wake_all();
    }

    pub(super) fn shutdown_stream(&self, receive: bool, send: bool) -> Result<()> {
        let mut state = self.state.lock();
        match &mut state.link {
            Link::Closed | Link::Over => bail!(ENOTCONN),
            Link::Listening { .. } if receive => {
                let Link::Listening { waiting, pending, .. } = core::mem::take(&mut state.link) else { return Ok(()) };
                drop(state);
                refuse(&waiting, Errno::ECONNRESET);
                refuse(&pending, Errno::ECONNREFUSED);
                self.wake_all();
                return Ok(());
            }
            _ => {}
        }
        state.receive_shut |= receive;
        let first_time = send && !state.send_shut;
        state.send_shut |= send;
        if first_time {
            state.closed_first |= !state.fin;
        }
        let peer = state.peer().filter(|_| first_time);
        drop(state);
        if let Some(peer) = peer {
            peer.state.lock().fin = true;
            peer.wake_all();
        }
        self.wake_all();
        Ok(())
    }

    /// `connect(2)` to `AF_UNSPEC`: the connection is reset, the socket as new but for its address.
    pub(super) fn disconnect_stream(self: &Arc<Self>, ctx: &Ctx) -> Result<()> {
        let link = core::mem::take(&mut self.state.lock().link);
        end_link(link, true);
        {
            let mut state = self.state.lock();
            state.remote = None;
            state.stream.clear();
            state.error = None;
            (state.fin, state.receive_shut, state.send_shut) = (false, false, false);
            state.connect_pending = false;
        }
        self.unbind_chosen(&ctx.kernel.net);
        self.wake_all();
        Ok(())
    }

    /// The last descriptor is closed. Gives the remote address if the connection lingers on, and whether its port may be
    /// used again meanwhile.
    pub(super) fn close_stream(&self) -> Option<(Addr, bool)> {
        let mut state = self.state.lock();
        let link = core::mem::replace(&mut state.link, Link::Over);
        let at_once = state.options.linger[0] != 0 && state.options.linger[1] == 0;
        let reset = at_once || state.stream.len() > 0;
        let connected = matches!(link, Link::Peer(_));
        let first = connected && !reset && (state.closed_first || !state.fin);
        let lingers = state.remote.filter(|_| first).map(|remote| (remote, state.options.flag(SO_REUSEADDR)));
        state.stream.clear();
        drop(state);
        end_link(link, reset);
        lingers
    }

    pub(super) fn send_stream(self: &Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: Outgoing<'_>) -> Result<usize> {
        let result = self.send_bytes(ctx, src, &how);
        if let Err(e) = &result
            && *e == Errno::EPIPE
            && !how.no_signal
        {
            signal::raise(ctx, number::SIGPIPE);
        }
        result
    }

    /// Whom to send to; `None` while that is not known yet.
    fn target(&self) -> Result<Option<Arc<Socket>>> {
        let mut state = self.state.lock();
        state.take_error()?;
        if state.send_shut {
            bail!(EPIPE);
        }
        match &state.link {
            Link::Peer(peer) => Ok(Some(peer.clone())),
            Link::Connecting => Ok(None),
            Link::Closed | Link::Over | Link::Listening { .. } => bail!(EPIPE),
        }
    }

    fn send_bytes(self: &Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: &Outgoing<'_>) -> Result<usize> {
        let deadline = self.send_deadline();
        let mut sent = 0;
        let mut data = alloc::vec![0; src.remaining().min(CHUNK)];
        loop {
            let left = src.remaining();
            let room = match self.target() {
                Err(e) if sent == 0 => return Err(e),
                Err(_) => return Ok(sent),
                Ok(Some(_)) if left == 0 => return Ok(sent),
                Ok(Some(peer)) => Some((self.room_at(&peer), peer)),
                Ok(None) => None,
            };
            let Some((room, peer)) = room.filter(|(room, _)| *room > 0) else {
                if how.nonblocking {
                    return if sent > 0 { Ok(sent) } else { Err(Errno::EAGAIN.into()) };
                }
                let ready = || match self.target_state() {
                    None => Some(()),
                    Some(None) => None,
                    Some(Some(peer)) => (self.room_at(&peer) > 0).then_some(()),
                };
                match wait_within(ctx, &self.writable, deadline, ready) {
                    Ok(()) => continue,
                    Err(_) if sent > 0 => return Ok(sent),
                    Err(e) => return Err(e),
                }
            };
            let want = left.min(CHUNK).min(room);
            let n = match src.take(&mut data[..want]) {
                Ok(n) => n,
                Err(e) if sent == 0 => return Err(e),
                Err(_) => return Ok(sent),
            };
            let gone = self.state.lock().peer_gone;
            if gone {
                // Nobody is there any more: the answer is a reset, which the next call hears of.
                self.state.lock().reset(Errno::EPIPE);
                self.wake_all();
                return Ok(sent + n);
            }
            let urgent = how.urgent && n == left;
            {
                let mut receiver = peer.state.lock();
                let ordinary = if urgent { n - 1 } else { n };
                receiver.stream.push(&data[..ordinary]);
                if urgent {
                    let inline = receiver.options.flag(SO_OOBINLINE);
                    receiver.stream.push_urgent(data[n - 1], inline);
                }
            }
            peer.readable.wake_one();
            count(&ctx.kernel.net, n);
            sent += n;
        }
    }

    /// As [`Socket::target`] without taking the error: `None` if a call would not wait for it.
    fn target_state(&self) -> Option<Option<Arc<Socket>>> {
        let state = self.state.lock();
        if state.error.is_some() || state.send_shut {
            return None;
        }
        match &state.link {
            Link::Peer(peer) => Some(Some(peer.clone())),
            Link::Connecting => Some(None),
            _ => None,
        }
    }

    /// Bytes that can be on their way at most.
    fn capacity(&self, peer: &Socket) -> usize {
        let ours = self.state.lock().options.tcp_send_room();
        ours + peer.state.lock().options.receive_buffer
    }

    fn room_at(&self, peer: &Socket) -> usize {
        let capacity = self.capacity(peer);
        capacity.saturating_sub(peer.state.lock().stream.len())
    }

    pub(super) fn receive_stream(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received> {
        if flags.urgent {
            return self.receive_urgent(dst, flags.peek);
        }
        let deadline = self.receive_deadline();
        let mut received = Received::default();
        loop {
            let (result, peer, state) = {
                let mut state = self.state.lock();
                let skip = if flags.peek { received.len } else { 0 };
                // As Linux does for streams, MSG_TRUNC throws the bytes away.
                let result = if flags.real_len && !flags.peek {
                    let n = state.stream.discard(dst.remaining() - received.len.min(dst.remaining()));
                    Ok(n)
                } else {
                    state.stream.read(dst, flags.peek, skip)
                };
                let got = *result.as_ref().unwrap_or(&0);
                received.len += got;
                let end = self.end_of_stream(&mut state, received.len);
                (result, state.peer().filter(|_| got > 0 && !flags.peek), end)
            };
            if let Some(peer) = peer {
                peer.writable.wake_all();
            }
            match result {
                Ok(_) => {}
                Err(_) if received.len > 0 => return Ok(received),
                Err(e) => return Err(e),
            }
            let enough = if flags.wait_all { dst.remaining() == 0 } else { received.len > 0 };
            if enough || dst.remaining() == 0 {
                return Ok(received);
            }
            match state {
                Some(Ok(())) => return Ok(received),
                Some(Err(_)) if received.len > 0 => return Ok(received),
                Some(Err(e)) => return Err(e.into()),
                None => {}
            }
            if flags.nonblocking {
                return if received.len > 0 { Ok(received) } else { Err(Errno::EAGAIN.into()) };
            }
            let seen = if flags.peek { received.len } else { 0 };
            let arrived = || {
                let state = self.state.lock();
                let over = state.fin || state.receive_shut || state.error.is_some();
                (state.stream.len() > seen || over || state.stream.has_urgent() && state.stream.at_mark()).then_some(())
            };
            match wait_within(ctx, &self.readable, deadline, arrived) {
                Ok(()) => {}
                Err(_) if received.len > 0 => return Ok(received),
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether nothing more can come: the end, or an error, which is taken if nothing was read before it.
    fn end_of_stream(&self, state: &mut State, received: usize) -> Option<core::result::Result<(), Errno>> {
        if state.error.is_some() && received == 0 && state.stream.len() == 0 {
            return state.error.take().map(Err);
        }
        if (state.fin || state.receive_shut) && state.stream.len() <= received {
            return Some(Ok(()));
        }
        match state.link {
            Link::Closed | Link::Listening { .. } => Some(Err(Errno::ENOTCONN)),
            _ => None,
        }
    }

    fn receive_urgent(&self, dst: &mut dyn IoDst, peek: bool) -> Result<Received> {
        let mut state = self.state.lock();
        if matches!(state.link, Link::Closed | Link::Listening { .. }) {
            bail!(ENOTCONN);
        }
        let Some(byte) = state.stream.take_urgent(peek) else { bail!(EINVAL, "no urgent data") };
        let len = dst.put(&[byte])?;
        Ok(Received { len, urgent: true, ..Received::default() })
    }

    pub(super) fn poll_stream(&self) -> PollEvents {
        let input = PollEvents::IN | PollEvents::RDNORM;
        let output = PollEvents::OUT | PollEvents::WRNORM;
        let peer = self.state.lock().peer();
        let roomy = peer.is_none_or(|peer| {
            let capacity = self.capacity(&peer);
            peer.state.lock().stream.len() * 3 <= capacity * 2
        });
        let state = self.state.lock();
        if let Link::Listening { waiting, .. } = &state.link {
            return if waiting.is_empty() { PollEvents::empty() } else { input };
        }
        let no_more = state.fin || state.receive_shut;
        let closed = matches!(state.link, Link::Closed | Link::Over);
        let mut events = PollEvents::empty();
        events.set(PollEvents::HUP, closed || no_more && state.send_shut);
        events.set(input | PollEvents::RDHUP, no_more);
        events.set(input, no_more || state.stream.len() > 0);
        events.set(PollEvents::PRI, state.stream.has_urgent());
        events.set(PollEvents::ERR, state.error.is_some());
        if !matches!(state.link, Link::Connecting) {
            events.set(output, roomy || state.send_shut);
        }
        events
    }

    pub(super) fn is_v6(&self) -> bool {
        self.version == Version::V6
    }
}

/// Ends what a socket was in the middle of, for the other side.
fn end_link(link: Link, reset: bool) {
    match link {
        Link::Peer(peer) => {
            let mut state = peer.state.lock();
            // A side that has been reset, or has a new connection since, is not concerned.
            if reset {
                if matches!(state.link, Link::Peer(_) | Link::Connecting) {
                    state.reset(Errno::ECONNRESET);
                }
            } else {
                state.fin = true;
                state.peer_gone = true;
            }
            drop(state);
            peer.wake_all();
        }
        Link::Listening { waiting, pending, .. } => {
            refuse(&waiting, Errno::ECONNRESET);
            refuse(&pending, Errno::ECONNREFUSED);
        }
        Link::Closed | Link::Connecting | Link::Over => {}
    }
}

/// Tells clients whose connections will not be accepted.
fn refuse(connections: &VecDeque<Arc<Socket>>, error: Errno) {
    for connection in connections {
        let client = {
            let mut state = connection.state.lock();
            let client = state.peer();
            state.link = Link::Over;
            client
        };
        if let Some(client) = client {
            client.state.lock().reset(error);
            client.wake_all();
        }
    }
}
