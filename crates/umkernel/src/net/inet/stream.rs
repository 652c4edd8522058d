//! The bytes of a stream that were received, with the urgent one among them.

use crate::errno::Result;
use crate::mm::IoDst;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Up to this many bytes, small writes share a buffer.
const SHARED: usize = 16 * 1024;

/// An urgent byte.
struct Urgent {
    /// Where in the stream it was sent, counted from the first byte.
    at: u64,
    /// The byte, until it is read.
    byte: Option<u8>,
    /// It is among the other bytes (`SO_OOBINLINE`).
    inline: bool,
}

/// Bytes that were received and not read.
#[derive(Default)]
pub(super) struct Stream {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were read.
    start: usize,
    len: usize,
    /// Bytes read since the beginning.
    position: u64,
    urgent: Option<Urgent>,
}

impl Stream {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.len += data.len();
        match self.pieces.back_mut() {
            Some(last) if last.len() + data.len() <= SHARED => last.extend_from_slice(data),
            _ => self.pieces.push_back(data.to_vec()),
        }
    }

    /// Adds an urgent byte; an earlier one becomes an ordinary mark of the past.
    pub(super) fn push_urgent(&mut self, byte: u8, inline: bool) {
        let at = self.position + self.len as u64;
        if inline {
            self.push(&[byte]);
        }
        self.urgent = Some(Urgent { at, byte: Some(byte), inline });
    }

    /// There is an urgent byte that was not read (`POLLPRI`).
    pub(super) fn has_urgent(&self) -> bool {
        self.urgent.as_ref().is_some_and(|u| u.byte.is_some())
    }

    /// The urgent byte; `None` when there is none to be read by itself.
    pub(super) fn take_urgent(&mut self, peek: bool) -> Option<u8> {
        let urgent = self.urgent.as_mut().filter(|u| !u.inline)?;
        if peek { urgent.byte } else { urgent.byte.take() }
    }

    /// The next byte is the one at the mark.
    pub(super) fn at_mark(&self) -> bool {
        self.urgent.as_ref().is_some_and(|u| u.at == self.position)
    }

    /// Bytes that one read gives at most: none beyond the mark, if that lies ahead.
    fn limit(&self, ahead: u64) -> usize {
        let here = self.position + ahead;
        let to_mark = self.urgent.as_ref().filter(|u| u.at > here).map_or(u64::MAX, |u| u.at - here);
        usize::try_from(to_mark).unwrap_or(usize::MAX)
    }

    /// Moves bytes to `dst`, behind the first `skip` ones; with `peek` they stay.
    pub(super) fn read(&mut self, dst: &mut dyn IoDst, peek: bool, skip: usize) -> Result<usize> {
        let mut left = self.limit(skip as u64).min(self.len - skip.min(self.len));
        let mut done = 0;
        let (mut piece, mut at) = (0, self.start + skip);
        while left > 0 && dst.remaining() > 0 {
            let Some(data) = self.pieces.get(piece) else { break };
            if at >= data.len() {
                at -= data.len();
                piece += 1;
                continue;
            }
            let part = &data[at..data.len().min(at.saturating_add(left))];
            let n = match dst.put(part) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            (done, left, at) = (done + n, left - n, at + n);
            if n < part.len() {
                break;
            }
        }
        if !peek {
            self.forget(done);
        }
        Ok(done)
    }

    /// Drops the first `n` bytes (`MSG_TRUNC` on a stream).
    pub(super) fn discard(&mut self, max: usize) -> usize {
        let n = self.limit(0).min(self.len).min(max);
        self.forget(n);
        n
    }

    fn forget(&mut self, n: usize) {
        self.len -= n;
        self.position += n as u64;
        self.start += n;
        while self.pieces.front().is_some_and(|p| self.start >= p.len()) {
            self.start -= self.pieces.pop_front().map_or(0, |p| p.len());
        }
        if self.urgent.as_ref().is_some_and(|u| u.at < self.position) {
            self.urgent = None;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Stream::default();
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::mm::KernelDst;

    fn read(stream: &mut Stream, max: usize, peek: bool, skip: usize) -> Vec<u8> {
        let mut buf = alloc::vec![0; max];
        let n = stream.read(&mut KernelDst::new(&mut buf), peek, skip).unwrap();
        buf.truncate(n);
        buf
    }

    #[test]
    fn bytes_come_in_order_and_stop_at_the_mark() {
        let mut stream = Stream::default();
        stream.push(b"hello ");
        stream.push(&[b'x'; SHARED]);
        assert_eq!(read(&mut stream, 8, true, 0), b"hello xx");
        assert_eq!(read(&mut stream, 3, true, 4), b"o x");
        assert_eq!(read(&mut stream, 6, false, 0), b"hello ");
        assert_eq!(stream.discard(usize::MAX), SHARED);
        stream.push(b"ab");
        stream.push_urgent(b'!', false);
        stream.push(b"cd");
        assert!(stream.has_urgent() && !stream.at_mark());
        assert_eq!(read(&mut stream, 9, false, 0), b"ab");
        assert!(stream.at_mark());
        assert_eq!((stream.take_urgent(false), stream.take_urgent(false)), (Some(b'!'), None));
        assert_eq!(read(&mut stream, 9, false, 0), b"cd");
        assert!(!stream.at_mark() && stream.len() == 0);
    }
}
