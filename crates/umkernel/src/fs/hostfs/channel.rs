//! The kernel's end of the share server's sockets: see [`protocol`](super::protocol).

use super::protocol::{ANSWER_HEAD, Answer, CHUNK, Op, REQUEST_HEAD, Request, Stat};
use crate::bail;
use crate::errno::{Errno, Error, Result};
use crate::fs::buffer::{self, BufferPool};
use crate::host::{self, HostFd};
use crate::sync::{Mutex, MutexGuard};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Sockets, each with a thread of the server's at its other end: requests that can be under way at the same time.
pub const LANES: usize = 4;
/// Nodes that wait to be forgotten before the server is told.
const FORGET_AT: usize = 64;

const _: () = assert!(buffer::SIZE >= REQUEST_HEAD + CHUNK && REQUEST_HEAD >= ANSWER_HEAD);

/// The way to the share server.
pub struct Channel {
    lanes: [Lane; LANES],
    next: AtomicUsize,
    buffers: BufferPool,
    forgotten: Mutex<Vec<u64>>,
}

struct Lane {
    socket: HostFd,
    /// The serial number of the last request.
    turn: Mutex<u32>,
}

impl Channel {
    /// The channel over these sockets, whose other ends the server has.
    pub fn new(sockets: [i32; LANES]) -> Channel {
        Channel {
            lanes: sockets.map(|socket| Lane { socket: HostFd::new(socket), turn: Mutex::default() }),
            next: AtomicUsize::new(0),
            buffers: BufferPool::default(),
            forgotten: Mutex::default(),
        }
    }

    /// A lane that is free, or one to wait for.
    fn lane(&self) -> (&Lane, MutexGuard<'_, u32>) {
        let free = self.lanes.iter().find_map(|lane| Some((lane, lane.turn.try_lock()?)));
        free.unwrap_or_else(|| {
            let lane = &self.lanes[self.next.fetch_add(1, Ordering::Relaxed) % LANES];
            (lane, lane.turn.lock())
        })
    }

    /// Asks. `fill` writes the request's payload and says how long it is; `done` gets the answer's value and payload.
    ///
    /// # Errors
    /// What the server says, or `EIO` if it is gone.
    pub fn ask<T>(
        &self,
        request: Request,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
        done: impl FnOnce(u64, &[u8]) -> Result<T>,
    ) -> Result<T> {
        self.tell_forgotten();
        self.buffers.with(|message| {
            let len = fill(&mut message[REQUEST_HEAD..REQUEST_HEAD + CHUNK])?;
            let (answer, got) = self.exchange(request, message, REQUEST_HEAD + len)?;
            done(answer.value, &message[ANSWER_HEAD..got])
        })
    }

    /// Sends a message of `len` bytes, and waits for its answer.
    fn exchange(&self, request: Request, message: &mut [u8], len: usize) -> Result<(Answer, usize)> {
        let gone = || Error::new(Errno::EIO, "the share server is gone");
        let (lane, mut serial) = self.lane();
        *serial = serial.wrapping_add(1);
        Request { serial: *serial, ..request }.encode(message);
        send(&lane.socket, &message[..len])?;
        let (answer, got) = loop {
            let got = match host::read(lane.socket.raw(), message) {
                Err(e) if e == Errno::EINTR => continue,
                got => got?,
            };
            let answer = Answer::decode(&message[..got]).ok_or_else(gone)?;
            // An answer to a task that was killed before it came is nobody's any more.
            if answer.serial == *serial {
                break (answer, got);
            }
        };
        drop(serial);
        match answer.errno {
            0 => Ok((answer, got)),
            errno => Err(Error::new(Errno(errno as u16), "share")),
        }
    }

    /// Asks without a payload; the answer says what a file is like now.
    pub fn stat(&self, request: Request) -> Result<Stat> {
        self.stat_with(request, &[])
    }

    /// As [`Channel::stat`], with a payload of pieces in a row.
    pub fn stat_with(&self, request: Request, pieces: &[&[u8]]) -> Result<Stat> {
        self.ask(request, |place| copy(place, pieces), |_, payload| stat(payload))
    }

    /// Asks for what is done or not.
    pub fn done(&self, request: Request, pieces: &[&[u8]]) -> Result<()> {
        self.ask(request, |place| copy(place, pieces), |_, _| Ok(()))
    }

    /// Asks for bytes.
    pub fn bytes(&self, request: Request, pieces: &[&[u8]]) -> Result<Vec<u8>> {
        self.ask(request, |place| copy(place, pieces), |_, payload| Ok(payload.to_vec()))
    }

    /// Nobody uses a node any more. Waits for no answer, and not for long.
    pub fn forget(&self, node: u64) {
        self.forgotten.lock().push(node);
    }

    /// Tells the server what was forgotten, once that is worth a message.
    fn tell_forgotten(&self) {
        let mut forgotten = self.forgotten.lock();
        if forgotten.len() < FORGET_AT {
            return;
        }
        let nodes = core::mem::take(&mut *forgotten);
        drop(forgotten);
        for nodes in nodes.chunks(FORGET_AT) {
            let mut message = [0; REQUEST_HEAD + FORGET_AT * 8];
            for (place, node) in message[REQUEST_HEAD..].as_chunks_mut().0.iter_mut().zip(nodes) {
                *place = node.to_le_bytes();
            }
            let (lane, _turn) = self.lane();
            Request::new(Op::Forget, 0).encode(&mut message);
            // If the server is gone, so is what it knew.
            let _ = send(&lane.socket, &message[..REQUEST_HEAD + nodes.len() * 8]);
        }
    }
}

fn send(socket: &HostFd, message: &[u8]) -> Result<()> {
    loop {
        match host::write(socket.raw(), message) {
            Err(e) if e == Errno::EINTR => {}
            Err(e) if e == Errno::EPIPE => bail!(EIO, "the share server is gone"),
            sent => return sent.map(drop),
        }
    }
}

fn copy(place: &mut [u8], pieces: &[&[u8]]) -> Result<usize> {
    let mut len = 0;
    for piece in pieces {
        let Some(into) = place.get_mut(len..len + piece.len()) else { bail!(E2BIG) };
        into.copy_from_slice(piece);
        len += piece.len();
    }
    Ok(len)
}

/// The payload of an answer about a file.
pub(super) fn stat(payload: &[u8]) -> Result<Stat> {
    Stat::decode(payload).ok_or(Error::new(Errno::EIO, "the share server talks nonsense"))
}
