//! Sending and receiving.

use super::ancillary::Ucred;
use super::message::{Packet, Received, RecvFlags, Sending};
use super::socket::{Link, State, wait_within};
use super::{Kind, Socket};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{IoDst, IoSrc};
use crate::signal::{self, number};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Bytes of a stream that travel together.
const STREAM_CHUNK: usize = 32 * 1024;
/// Messages that may wait at a receiver (`net.unix.max_dgram_qlen`); one more is let in.
const MAX_MESSAGES: usize = 10;
/// What a buffer must hold besides a message.
const OVERHEAD: usize = 32;
/// What Linux charges a sender for each packet besides its data.
const PACKET_OVERHEAD: usize = 768;

/// Whether a receiver has room for more of what `sender`, with a buffer of `send_buffer` bytes, sends.
fn has_room(sender: &Socket, receiver: &State, send_buffer: usize) -> bool {
    takes_more(sender, receiver) && charge(receiver) < send_buffer
}

/// Whether a receiver takes more messages; two that are connected to each other are bounded by buffers alone.
fn takes_more(sender: &Socket, receiver: &State) -> bool {
    let mutual = matches!(&receiver.link, Link::Peer(p) if core::ptr::eq(Arc::as_ptr(p), sender));
    sender.kind == Kind::Stream || mutual || receiver.queue.len() <= MAX_MESSAGES
}

/// What a receiver's queue takes of the sender's buffer.
fn charge(receiver: &State) -> usize {
    receiver.queued + receiver.queue.len() * PACKET_OVERHEAD
}

impl Socket {
    /// Whether a send is worthwhile, for `poll(2)`: three quarters of the buffer are free.
    pub(super) fn may_send(&self, peer: Option<&Arc<Socket>>) -> bool {
        let send_buffer = self.state.lock().options.send_buffer;
        peer.is_none_or(|p| {
            let receiver = p.state.lock();
            receiver.receive_shut || takes_more(self, &receiver) && charge(&receiver) * 4 <= send_buffer
        })
    }

    /// `sendmsg(2)`; returns the bytes sent.
    ///
    /// # Errors
    /// As the man page says; `EPIPE` comes with `SIGPIPE` unless that is not wanted.
    pub fn send(self: &Arc<Socket>, ctx: &Ctx, src: &mut dyn IoSrc, sending: Sending) -> Result<usize> {
        let no_signal = sending.no_signal;
        let result = match self.kind {
            Kind::Stream => self.send_stream(ctx, src, sending),
            Kind::Datagram | Kind::SeqPacket => self.send_message(ctx, src, sending),
        };
        if let Err(e) = &result
            && *e == Errno::EPIPE
            && !no_signal
            && self.by_connection()
        {
            signal::raise(ctx, number::SIGPIPE);
        }
        result
    }

    /// The connected peer.
    fn connected_peer(&self) -> Result<Arc<Socket>> {
        let mut state = self.state.lock();
        // A stream's error is for who receives.
        if self.kind != Kind::Stream {
            state.take_error()?;
        }
        if state.send_shut {
            bail!(EPIPE);
        }
        state.peer().ok_or(Errno::ENOTCONN.into())
    }

    fn send_stream(self: &Arc<Socket>, ctx: &Ctx, src: &mut dyn IoSrc, sending: Sending) -> Result<usize> {
        if sending.to.is_some() {
            let connected = self.state.lock().peer().is_some();
            if connected {
                bail!(EISCONN);
            }
            bail!(EOPNOTSUPP);
        }
        let peer = self.connected_peer()?;
        let creds = sending.ancillary.creds.unwrap_or_else(|| Ucred::real(ctx));
        let mut files = sending.ancillary.files;
        let from = self.address();
        let deadline = self.send_deadline();
        let mut sent = 0;
        while src.remaining() > 0 {
            let mut data = alloc::vec![0; src.remaining().min(STREAM_CHUNK)];
            let result = (|| {
                self.wait_for_room(ctx, &peer, sending.nonblocking, deadline)?;
                let n = src.take(&mut data)?;
                data.truncate(n);
                let mut receiver = peer.state.lock();
                if receiver.receive_shut {
                    src.untake(n);
                    bail!(EPIPE);
                }
                let files = core::mem::take(&mut files);
                receiver.queued += n;
                let data = core::mem::take(&mut data);
                receiver.queue.push_back(Packet { data, offset: 0, from: from.clone(), creds, files });
                Ok(n)
            })();
            match result {
                Ok(n) => {
                    sent += n;
                    peer.readable.wake_one();
                }
                Err(_) if sent > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }

    /// Waits until the receiver has room, or will receive nothing more.
    fn wait_for_room(&self, ctx: &Ctx, peer: &Arc<Socket>, nonblocking: bool, deadline: Option<u64>) -> Result<()> {
        let send_buffer = self.state.lock().options.send_buffer;
        let room = || {
            let receiver = peer.state.lock();
            (receiver.receive_shut || has_room(self, &receiver, send_buffer)).then_some(())
        };
        if nonblocking {
            return room().ok_or(Errno::EAGAIN.into());
        }
        wait_within(ctx, &peer.writable, deadline, room)
    }

    fn send_message(self: &Arc<Socket>, ctx: &Ctx, src: &mut dyn IoSrc, sending: Sending) -> Result<usize> {
        let to = sending.to.as_ref().filter(|_| self.kind == Kind::Datagram);
        let peer = match to {
            Some(address) => {
                let peer = self.find(ctx, address)?;
                peer.accepts_from(self)?;
                peer
            }
            None => self.connected_peer()?,
        };
        let len = src.remaining();
        if len > self.state.lock().options.send_buffer.saturating_sub(OVERHEAD) {
            bail!(EMSGSIZE);
        }
        if self.state.lock().options.pass_creds && self.kind == Kind::Datagram {
            let unnamed = self.address() == super::Address::Unnamed;
            if unnamed {
                self.bind(ctx, super::Address::Unnamed)?;
            }
        }
        let mut data = alloc::vec![0; len];
        if len > 0 && src.take(&mut data)? < len {
            bail!(EFAULT);
        }
        let deadline = self.send_deadline();
        self.wait_for_room(ctx, &peer, sending.nonblocking, deadline)?;
        let creds = sending.ancillary.creds.unwrap_or_else(|| Ucred::real(ctx));
        let packet = Packet { data, offset: 0, from: self.address(), creds, files: sending.ancillary.files };
        let mut receiver = peer.state.lock();
        if receiver.closed && self.kind == Kind::Datagram {
            drop(receiver);
            let mut state = self.state.lock();
            if matches!(&state.link, Link::Peer(p) if Arc::ptr_eq(p, &peer)) {
                state.link = Link::None;
            }
            bail!(ECONNREFUSED, "the receiver is gone");
        }
        if receiver.receive_shut {
            bail!(EPIPE);
        }
        receiver.queued += len;
        receiver.queue.push_back(packet);
        drop(receiver);
        peer.readable.wake_one();
        Ok(len)
    }

    /// `recvmsg(2)` but for urgent data, of which there is none.
    ///
    /// # Errors
    /// As the man page says.
    pub fn receive(&self, ctx: &Ctx, dst: &mut dyn IoDst, flags: RecvFlags) -> Result<Received> {
        let deadline = self.receive_deadline();
        let mut received = Received::default();
        loop {
            let progress = {
                let mut state = self.state.lock();
                self.check_connected(&state)?;
                match self.kind {
                    Kind::Stream => self.take_stream(&mut state, dst, flags, &mut received),
                    Kind::Datagram | Kind::SeqPacket => self.take_message(&mut state, dst, flags, &mut received),
                }
            };
            self.writable.wake_all();
            match progress {
                Ok(Progress::Done) => return Ok(received),
                Ok(Progress::More) => {}
                Err(_) if received.len > 0 => return Ok(received),
                Err(e) => return Err(e),
            }
            if flags.nonblocking {
                if received.len > 0 {
                    return Ok(received);
                }
                bail!(EAGAIN);
            }
            let arrived = || {
                let state = self.state.lock();
                (!state.queue.is_empty() || state.receive_shut || state.error.is_some()).then_some(())
            };
            match wait_within(ctx, &self.readable, deadline, arrived) {
                Ok(()) => {}
                Err(_) if received.len > 0 => return Ok(received),
                Err(e) => return Err(e),
            }
        }
    }

    fn check_connected(&self, state: &State) -> Result<()> {
        let connected = matches!(state.link, Link::Peer(_)) || state.closed;
        match self.kind {
            Kind::Stream if !connected => bail!(EINVAL, "the socket is not connected"),
            Kind::SeqPacket if !connected => bail!(ENOTCONN),
            _ => Ok(()),
        }
    }

    /// Takes bytes of a stream, never across a change of sender that the receiver is told of, nor behind files.
    fn take_stream(
        &self,
        state: &mut State,
        dst: &mut dyn IoDst,
        flags: RecvFlags,
        received: &mut Received,
    ) -> Result<Progress> {
        let wants_creds = state.options.pass_creds;
        let mut ahead = 0;
        while dst.remaining() > 0 {
            // When peeking, what was seen already stays in front.
            let Some(packet) = state.queue.get_mut(ahead) else { break };
            if wants_creds && received.creds.is_some_and(|c| c != packet.creds) {
                return Ok(Progress::Done);
            }
            let n = dst.put(packet.unread())?;
            received.len += n;
            if wants_creds {
                received.creds = Some(packet.creds);
            }
            let mut files = Vec::new();
            if flags.peek {
                files.clone_from(&packet.files);
                ahead += 1;
            } else {
                files.append(&mut packet.files);
                packet.offset += n;
                let used_up = packet.unread().is_empty();
                state.queued -= n;
                if used_up {
                    state.queue.pop_front();
                }
            }
            if !files.is_empty() {
                received.files = files;
                return Ok(Progress::Done);
            }
        }
        let satisfied = received.len > 0 && (!flags.wait_all || flags.peek);
        if satisfied || dst.remaining() == 0 {
            return Ok(Progress::Done);
        }
        if received.len == 0 {
            state.take_error()?;
        }
        Ok(if state.receive_shut { Progress::Done } else { Progress::More })
    }

    fn take_message(
        &self,
        state: &mut State,
        dst: &mut dyn IoDst,
        flags: RecvFlags,
        received: &mut Received,
    ) -> Result<Progress> {
        let wants_creds = state.options.pass_creds;
        let Some(packet) = state.queue.front_mut() else {
            state.take_error()?;
            return Ok(if state.receive_shut { Progress::Done } else { Progress::More });
        };
        let fits = packet.data.len().min(dst.remaining());
        if fits > 0 && dst.put(&packet.data[..fits])? < fits {
            bail!(EFAULT);
        }
        received.truncated = fits < packet.data.len();
        received.len = if flags.real_len { packet.data.len() } else { fits };
        received.from = if packet.from == super::Address::Unnamed { Vec::new() } else { packet.from.encode() };
        received.creds = wants_creds.then_some(packet.creds);
        if flags.peek {
            received.files.clone_from(&packet.files);
        } else {
            received.files = core::mem::take(&mut packet.files);
            let len = packet.data.len();
            state.queue.pop_front();
            state.queued -= len;
        }
        Ok(Progress::Done)
    }

    /// Bytes that can be read now: of a stream all, otherwise of the next message (`FIONREAD`).
    pub(super) fn next_len(&self) -> Result<usize> {
        let state = self.state.lock();
        if matches!(state.link, Link::Listening { .. }) {
            bail!(EINVAL);
        }
        Ok(match self.kind {
            Kind::Stream | Kind::SeqPacket => state.queued,
            Kind::Datagram => state.queue.front().map_or(0, |p| p.data.len()),
        })
    }

    /// Bytes sent and not read yet (`SIOCOUTQ`).
    pub(super) fn unread_by_peer(&self) -> usize {
        let peer = self.state.lock().peer();
        peer.map_or(0, |p| p.state.lock().queued)
    }
}

/// How a look at the queue ended.
enum Progress {
    /// The call is done.
    Done,
    /// More has to come.
    More,
}
