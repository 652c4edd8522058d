//! The machine's side of the broker's socket: see [`messages`](super::messages).

use super::messages::{CHUNK, HEAD, MOST, Op, Request, Resident};
use crate::errno::{Errno, Error, Result};
use crate::host;
use crate::platform::usage::Usage;
use crate::sync::Mutex;
use alloc::string::String;
use alloc::vec::Vec;

/// The socket, for one request at a time.
pub(super) struct Broker {
    turn: Mutex<()>,
    socket: i32,
}

impl Broker {
    pub(super) fn new(socket: i32) -> Broker {
        Broker { turn: Mutex::default(), socket }
    }

    /// The socket's descriptor, which the filter knows.
    pub(super) fn socket(&self) -> i32 {
        self.socket
    }

    /// Asks; the answer's payload comes into `into`. Returns the answer's value.
    fn ask(&self, request: &Request, payload: &[u8], into: &mut [u8]) -> Result<usize> {
        let mut message = [0; HEAD + CHUNK];
        message[..HEAD].copy_from_slice(&request.encode());
        message[HEAD..HEAD + payload.len()].copy_from_slice(payload);
        let turn = self.turn.lock();
        let sent = loop {
            match host::write(self.socket, &message[..HEAD + payload.len()]) {
                Err(e) if e == Errno::EINTR => {}
                sent => break sent,
            }
        };
        sent?;
        let got = loop {
            match host::read(self.socket, &mut message) {
                Err(e) if e == Errno::EINTR => {}
                got => break got?,
            }
        };
        drop(turn);
        if got < HEAD {
            return Err(Error::new(Errno::EIO, "the broker is gone"));
        }
        let value = i64::from_le_bytes(core::array::from_fn(|i| message[i]));
        if value < 0 {
            return Err(Error::new(Errno(-value as u16), "broker"));
        }
        let payload = &message[HEAD..got];
        let len = payload.len().min(into.len());
        into[..len].copy_from_slice(&payload[..len]);
        Ok(value as usize)
    }

    /// Makes guest code of a thread enter the kernel.
    pub(super) fn kick(&self, pid: i32, tid: i32) -> Result<()> {
        self.ask(&Request { op: Op::Kick, pid, tid, addr: 0, len: 0 }, &[], &mut []).map(drop)
    }

    /// Reads another process's memory; returns the bytes read before the first that cannot be.
    pub(super) fn read(&self, pid: i32, addr: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for chunk in buf.chunks_mut(CHUNK) {
            let addr = addr.wrapping_add(done as u64);
            let request = Request { op: Op::Read, pid, tid: 0, addr, len: chunk.len() as u32 };
            let got = self.ask(&request, &[], chunk).unwrap_or(0).min(chunk.len());
            done += got;
            if got < chunk.len() {
                break;
            }
        }
        done
    }

    /// Writes another process's memory; returns the bytes written before the first that cannot be.
    pub(super) fn write(&self, pid: i32, addr: u64, buf: &[u8]) -> usize {
        let mut done = 0;
        for chunk in buf.chunks(CHUNK) {
            let addr = addr.wrapping_add(done as u64);
            let put = self.ask(&Request { op: Op::Write, pid, tid: 0, addr, len: 0 }, chunk, &mut []).unwrap_or(0);
            done += put.min(chunk.len());
            if put < chunk.len() {
                break;
            }
        }
        done
    }

    fn text(&self, op: Op, pid: i32) -> String {
        let mut text: Vec<u8> = alloc::vec![0; CHUNK];
        let len = self.ask(&Request { op, pid, tid: 0, addr: 0, len: 0 }, &[], &mut text).unwrap_or(0);
        text.truncate(len);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Resident pages of processes: all, and those that are shared with files. None of one that has ended.
    pub(super) fn resident(&self, pids: &[i32]) -> Vec<(u64, u64)> {
        let mut pages = Vec::with_capacity(pids.len());
        for pids in pids.chunks(MOST) {
            let request = Request { op: Op::Resident, pid: 0, tid: 0, addr: 0, len: 0 };
            let payload: Vec<u8> = pids.iter().flat_map(|pid| pid.to_le_bytes()).collect();
            let mut answer = [0; CHUNK];
            let len = self.ask(&request, &payload, &mut answer).unwrap_or(0).min(CHUNK);
            let (answers, _) = answer[..len].as_chunks();
            let answers = answers.iter().map(|bytes| Resident::decode(*bytes));
            pages.extend(answers.map(|of| (u64::from(of.all), u64::from(of.file))));
        }
        pages.resize(pids.len(), (0, 0));
        pages
    }

    /// What of a process's mappings is in memory; nothing of one that has ended.
    pub(super) fn memory_usage(&self, pid: i32) -> Vec<Usage> {
        let mut all: Vec<Usage> = Vec::new();
        let mut answer = [0; CHUNK];
        loop {
            let addr = all.last().map_or(0, |last| last.end);
            let request = Request { op: Op::Usage, pid, tid: 0, addr, len: 0 };
            let len = self.ask(&request, &[], &mut answer).unwrap_or(0).min(CHUNK);
            let (found, _) = answer[..len].as_chunks();
            let before = all.len();
            all.extend(found.iter().map(Usage::decode).filter(|usage| usage.end > addr));
            if all.len() == before {
                return all;
            }
        }
    }

    /// `/proc/PID/smaps_rollup` of a process; empty for one that has ended.
    pub(super) fn smaps_rollup(&self, pid: i32) -> String {
        self.text(Op::SmapsRollup, pid)
    }
}
