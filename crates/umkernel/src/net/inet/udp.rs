//! Messages (`udp(7)`).

use super::address::{Addr, is_any, is_multicast};
use super::options::{self, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, UDP_CORK};
use super::{Datagram, Errno, Socket, State, Version, count};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::net::endpoint::Outgoing;
use crate::net::interface::{self, unmapped};
use crate::net::socket::wait_within;
use crate::net::{Received, RecvFlags};
use crate::vfs::PollEvents;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::net::SO_BROADCAST;

/// The largest message: what 65,535 bytes leave behind an IPv4 and a UDP header.
const MAX_MESSAGE: usize = 65_507;
/// The same behind no more than a UDP header.
const MAX_MESSAGE_V6: usize = 65_527;
/// What Linux charges a receiver for each message besides its data.
const OVERHEAD: usize = 768;

impl Socket {
    pub(super) fn connect_messages(self: &Arc<Self>, ctx: &Ctx, to: Addr) -> Result<()> {
        let (to, source) = self.route(ctx, to)?;
        let mut local = self.bind_to_send(ctx, source)?;
        let mut state = self.state.lock();
        if is_any(&local.ip) {
            local.ip = source;
        }
        state.local = Some(local);
        state.remote = Some(to);
        Ok(())
    }

    pub(super) fn disconnect_messages(self: &Arc<Self>, ctx: &Ctx) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.remote = None;
            state.error = None;
        }
        self.unbind_chosen(&ctx.kernel.net);
        Ok(())
    }

    pub(super) fn shutdown_messages(&self, receive: bool, send: bool) -> Result<()> {
        let mut state = self.state.lock();
        // Without a peer it is an error, and happens all the same, so that those who wait are woken.
        let connected = state.remote.is_some();
        state.receive_shut |= receive;
        state.send_shut |= send;
        drop(state);
        self.wake_all();
        if connected { Ok(()) } else { Err(Errno::ENOTCONN.into()) }
    }

    pub(super) fn send_datagram(self: &Arc<Self>, ctx: &Ctx, src: &mut dyn IoSrc, how: Outgoing<'_>) -> Result<usize> {
        if how.urgent {
            bail!(EOPNOTSUPP);
        }
        let len = src.remaining();
        let before = self.state.lock().corked.as_ref().map_or(0, |(_, data)| data.len());
        if before + len > if self.version == Version::V4 { MAX_MESSAGE } else { MAX_MESSAGE_V6 } {
            bail!(EMSGSIZE);
        }
        let to = match how.to {
            Some(raw) => Addr::decode(self.version, raw, true)?,
            None => match self.state.lock().remote {
                Some(remote) => remote,
                None => bail!(EDESTADDRREQ),
            },
        };
        if to.port == 0 {
            bail!(EINVAL, "port 0");
        }
        {
            let mut state = self.state.lock();
            state.take_error()?;
            if state.send_shut {
                bail!(EPIPE);
            }
            if unmapped(&to.ip) == Some([255; 4]) && !state.options.flag(SO_BROADCAST) {
                bail!(EACCES, "a broadcast without SO_BROADCAST");
            }
        }
        if is_multicast(&to.ip) {
            bail!(ENETUNREACH, "no multicast");
        }
        let (to, source) = self.route(ctx, to)?;
        let local = self.bind_to_send(ctx, self.version.any())?;
        let from = Addr { ip: source, port: local.port };
        let mut data = alloc::vec![0; len];
        if len > 0 && src.take(&mut data)? < len {
            bail!(EFAULT);
        }
        let (to, data) = {
            let mut state = self.state.lock();
            // What a message begun earlier goes to, all of it goes to.
            let (to, data) = match state.corked.take() {
                Some((first_to, mut whole)) => {
                    whole.append(&mut data);
                    (first_to, whole)
                }
                None => (to, data),
            };
            if how.more || state.number(IPPROTO_UDP, UDP_CORK).is_some_and(|on| on != 0) {
                state.corked = Some((to, data));
                return Ok(len);
            }
            (to, data)
        };
        self.deliver(ctx, from, to, data, &how.ancillary.others)?;
        Ok(len)
    }

    /// Sends the message that was begun, if there is one: `UDP_CORK` was taken back.
    pub(super) fn uncork(&self, ctx: &Ctx) -> Result<()> {
        let (corked, local) = {
            let mut state = self.state.lock();
            (state.corked.take(), state.local)
        };
        let (Some((to, data)), Some(local)) = (corked, local) else { return Ok(()) };
        let (to, source) = self.route(ctx, to)?;
        self.deliver(ctx, Addr { ip: source, port: local.port }, to, data, &[])
    }

    /// Gives a whole message to who listens there.
    fn deliver(&self, ctx: &Ctx, from: Addr, to: Addr, data: Vec<u8>, control: &[(u32, u32, Vec<u8>)]) -> Result<()> {
        let len = data.len();
        let (hops, class) = {
            let state = self.state.lock();
            (options::hops(&state, &to), options::class(&state, &to))
        };
        let (hops, class) = options::for_message(control, (hops, class))?;
        let receiver = ctx.kernel.net.udp.lock().receiver(to, from);
        count(&ctx.kernel.net, len);
        let Some(receiver) = receiver else {
            // The host's answer that nobody is there reaches those who are connected.
            let mut state = self.state.lock();
            if state.remote == Some(to) {
                state.error = Some(Errno::ECONNREFUSED);
                drop(state);
                self.wake_all();
            }
            return Ok(());
        };
        let mut state = receiver.state.lock();
        // Without room a message is lost.
        if state.charged + len + OVERHEAD <= state.options.receive_buffer {
            state.charged += len + OVERHEAD;
            state.messages.push_back(Datagram { data, from, to, hops, class });
        }
        drop(state);
        receiver.readable.wake_one();
        Ok(())
    }

    pub(super) fn receive_datagram(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received> {
        if flags.urgent {
            bail!(EOPNOTSUPP);
        }
        let deadline = self.receive_deadline();
        loop {
            if let Some(found) = self.take_datagram(dst, flags) {
                return found;
            }
            if flags.nonblocking {
                bail!(EAGAIN);
            }
            if self.state.lock().receive_shut {
                return Ok(Received::default());
            }
            let arrived = || {
                let state = self.state.lock();
                (!state.messages.is_empty() || state.receive_shut || state.error.is_some()).then_some(())
            };
            wait_within(ctx, &self.readable, deadline, arrived)?;
        }
    }

    fn take_datagram(&self, dst: &mut dyn IoDst, flags: RecvFlags) -> Option<Result<Received>> {
        let mut state = self.state.lock();
        if let Some(error) = state.error.take() {
            return Some(Err(error.into()));
        }
        let message = state.messages.front()?;
        let fits = message.data.len().min(dst.remaining());
        let stored = if fits == 0 { Ok(0) } else { dst.put(&message.data[..fits]) };
        let result = match stored {
            Ok(n) if n == fits => Ok(Received {
                len: if flags.real_len { message.data.len() } else { fits },
                truncated: fits < message.data.len(),
                from: message.from.encode(self.version),
                extra: control(&state, message),
                ..Received::default()
            }),
            Ok(_) => Err(Errno::EFAULT.into()),
            Err(e) => Err(e),
        };
        if !flags.peek
            && let Some(message) = state.messages.pop_front()
        {
            state.charged -= message.data.len() + OVERHEAD;
        }
        Some(result)
    }

    pub(super) fn poll_datagrams(&self) -> PollEvents {
        let state = self.state.lock();
        let input = PollEvents::IN | PollEvents::RDNORM;
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        events.set(input | PollEvents::RDHUP, state.receive_shut);
        events.set(input, state.receive_shut || !state.messages.is_empty());
        events.set(PollEvents::HUP, state.receive_shut && state.send_shut);
        events.set(PollEvents::ERR, state.error.is_some());
        events
    }
}

/// The control messages that the receiver has asked for (`IP_PKTINFO` and its like).
fn control(state: &State, message: &Datagram) -> Vec<(u32, u32, Vec<u8>)> {
    let wants = |level, option| state.number(level, option).is_some_and(|n| n != 0);
    let mut extra = Vec::new();
    let index = interface::INDEX.to_le_bytes();
    let v4 = unmapped(&message.to.ip);
    if let Some(ip) = v4 {
        if wants(IPPROTO_IP, options::IP_PKTINFO) {
            extra.push((IPPROTO_IP, options::IP_PKTINFO, [index, ip, ip].concat()));
        }
        if wants(IPPROTO_IP, options::IP_RECVTTL) {
            extra.push((IPPROTO_IP, options::IP_TTL, message.hops.to_le_bytes().to_vec()));
        }
        if wants(IPPROTO_IP, options::IP_RECVTOS) {
            extra.push((IPPROTO_IP, options::IP_TOS, alloc::vec![message.class as u8]));
        }
    }
    if wants(IPPROTO_IPV6, options::IPV6_RECVPKTINFO) {
        extra.push((IPPROTO_IPV6, options::IPV6_PKTINFO, [&message.to.ip[..], &index].concat()));
    }
    if v4.is_none() && wants(IPPROTO_IPV6, options::IPV6_RECVHOPLIMIT) {
        extra.push((IPPROTO_IPV6, options::IPV6_HOPLIMIT, message.hops.to_le_bytes().to_vec()));
    }
    if v4.is_none() && wants(IPPROTO_IPV6, options::IPV6_RECVTCLASS) {
        extra.push((IPPROTO_IPV6, options::IPV6_TCLASS, message.class.to_le_bytes().to_vec()));
    }
    extra
}
