//! The line discipline `N_TTY`: what lies between a terminal's wire and the programs that use it.
//!
//! Input goes through [`LineDiscipline::receive`] into a buffer of 4096 bytes, edited and echoed on its way; programs
//! take it out line by line (canonical mode) or byte by byte. Output goes through [`LineDiscipline::write`]. The
//! discipline neither sleeps nor sends signals: it notes in [`Effects`] what its caller has to do.
//!
//! `termios(3)` says what each setting does. Where it leaves room (the order of echoes, what a full buffer does, what
//! a change of mode does to pending input), Linux's own behaviour counts; the tests compare with the host's.

mod echo;
mod input;
mod output;

use super::termios::*;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes that the input buffer holds (`N_TTY_BUF_SIZE`); one is kept free for the end of a line.
pub const BUFFER: usize = 4096;

/// Bytes on their way out: to the host's descriptor, or to the other side of a pseudoterminal.
pub struct OutQueue {
    bytes: VecDeque<u8>,
    limit: usize,
    /// The first bytes, up to this many, count as received by the other side.
    delivered: usize,
    /// Output is held (`^S`, `TCOOFF`): there is no room until it goes on.
    pub stopped: bool,
}

impl OutQueue {
    /// An empty queue for `limit` bytes, the first `delivered` of which count as received by the other side.
    pub fn new(limit: usize, delivered: usize) -> OutQueue {
        OutQueue { bytes: VecDeque::new(), limit, delivered, stopped: false }
    }

    /// Bytes that may be added now.
    pub fn room(&self) -> usize {
        if self.stopped { 0 } else { self.limit.saturating_sub(self.bytes.len()) }
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The waiting bytes, first part first.
    pub fn as_slices(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slices()
    }

    /// Removes the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        self.bytes.drain(..n.min(self.bytes.len()));
    }

    /// Forgets what the other side has not received.
    pub fn flush(&mut self) {
        self.bytes.truncate(self.delivered);
    }

    /// Adds bytes for which [`OutQueue::room`] said that there is room.
    pub fn put(&mut self, data: &[u8]) {
        self.bytes.extend(data);
    }
}

/// What the caller of a line discipline has to do once it has let go of the terminal's lock.
#[derive(Debug, Default)]
pub struct Effects {
    /// Signals for the foreground process group, in order.
    pub signals: Vec<u8>,
    /// A reader may find something new.
    pub readable: bool,
    /// A signal character flushed the queues: input and output.
    pub flushed: bool,
    /// Output was stopped (`Some(true)`) or started (`Some(false)`).
    pub flow: Option<bool>,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The end of a line, or of the file, was reached.
    Line,
    /// The caller's space is full or the buffer is empty.
    Partial,
}

/// The state of one terminal's line discipline.
pub struct LineDiscipline {
    termios: Termios,
    /// Input, by position modulo [`BUFFER`].
    buffer: Box<[u8; BUFFER]>,
    /// Positions that end a line. An ended line's `DISABLED` byte stands for the end of the file.
    line_ends: Box<[u64; BUFFER / 64]>,
    /// Where the next byte goes; positions only ever grow until a flush.
    head: usize,
    /// Where the next byte is taken.
    tail: usize,
    /// Behind the last complete line.
    canon_head: usize,
    /// Behind the last byte that a raw reader may take.
    commit_head: usize,
    /// Characters that need more than to be stored and echoed.
    special: [u64; 4],
    /// No setting asks for any look at the input.
    raw: bool,
    /// The next character is literal.
    literal_next: bool,
    /// Within a `\.../` of `ECHOPRT`.
    erasing: bool,
    /// Echo not yet sent; coded as `echo` says.
    echo: echo::EchoBuffer,
    column: usize,
    /// Column of the line's first character: tabs are erased up to it.
    canon_column: usize,
    /// Output was stopped by `tcflow(3)`: only that starts it again.
    flow_by_call: bool,
    /// Bytes of coming input in which flow control was obeyed already.
    looked_ahead: usize,
}

impl Default for LineDiscipline {
    fn default() -> LineDiscipline {
        LineDiscipline::new(Termios::default())
    }
}

impl LineDiscipline {
    /// A discipline with empty buffers at column 0.
    pub fn new(termios: Termios) -> LineDiscipline {
        let mut ldisc = LineDiscipline {
            termios,
            buffer: Box::new([0; BUFFER]),
            line_ends: Box::new([0; BUFFER / 64]),
            head: 0,
            tail: 0,
            canon_head: 0,
            commit_head: 0,
            special: [0; 4],
            raw: false,
            literal_next: false,
            erasing: false,
            echo: echo::EchoBuffer::default(),
            column: 0,
            canon_column: 0,
            flow_by_call: false,
            looked_ahead: 0,
        };
        ldisc.classify();
        ldisc
    }

    /// The settings.
    pub fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Canonical mode without `EXTPROC`: input is read by lines.
    fn by_lines(&self) -> bool {
        self.termios.l(ICANON) && !self.termios.l(EXTPROC)
    }

    fn at(&self, position: usize) -> u8 {
        self.buffer[position % BUFFER]
    }

    fn ends_line(&self, position: usize) -> bool {
        let bit = position % BUFFER;
        self.line_ends[bit / 64] & 1 << (bit % 64) != 0
    }

    fn mark_line_end(&mut self, position: usize, ends: bool) {
        let bit = position % BUFFER;
        let mask = 1 << (bit % 64);
        if ends {
            self.line_ends[bit / 64] |= mask;
        } else {
            self.line_ends[bit / 64] &= !mask;
        }
    }

    /// Changes the settings; pending input follows a change between canonical and raw mode as on Linux: what was typed
    /// so far becomes readable.
    pub fn set_termios(&mut self, new: Termios, out: &mut OutQueue, effects: &mut Effects) {
        let old = core::mem::replace(&mut self.termios, new);
        if (old.lflag ^ new.lflag) & (ICANON | EXTPROC) != 0 {
            self.line_ends.fill(0);
            if !new.l(ICANON) || self.head == self.tail {
                self.canon_head = self.tail;
            } else {
                self.mark_line_end(self.head - 1, true);
                self.canon_head = self.head;
            }
            self.commit_head = self.head;
            self.erasing = false;
            self.literal_next = false;
        }
        self.classify();
        if old.i(IXON) && !new.i(IXON) && !self.flow_by_call {
            self.start_output(out, effects);
            self.process_echoes(out);
        }
        effects.readable = true;
    }

    /// Finds out which characters are special under the current settings.
    fn classify(&mut self) {
        let t = &self.termios;
        self.raw = !t.i(ISTRIP | IUCLC | IGNCR | ICRNL | INLCR | IXON | PARMRK) && !t.l(ICANON | ISIG | ECHO);
        let mut special = [0u64; 4];
        let mut add = |c: u8| special[usize::from(c) / 64] |= 1 << (c % 64);
        if t.i(IGNCR | ICRNL) {
            add(b'\r');
        }
        if t.i(INLCR) {
            add(b'\n');
        }
        if t.l(ICANON) {
            [VERASE, VKILL, VEOF, VEOL].iter().for_each(|&i| add(t.control(i)));
            add(b'\n');
            if t.l(IEXTEN) {
                [VWERASE, VLNEXT, VEOL2].iter().for_each(|&i| add(t.control(i)));
                if t.l(ECHO) {
                    add(t.control(VREPRINT));
                }
            }
        }
        if t.i(IXON) {
            [VSTART, VSTOP].iter().for_each(|&i| add(t.control(i)));
        }
        if t.l(ISIG) {
            [VINTR, VQUIT, VSUSP].iter().for_each(|&i| add(t.control(i)));
        }
        special[usize::from(DISABLED) / 64] &= !(1 << (DISABLED % 64));
        self.special = special;
    }

    fn is_special(&self, c: u8) -> bool {
        self.special[usize::from(c) / 64] & 1 << (c % 64) != 0
    }

    /// Whether a read would find something; `at_least` is what a raw read waits for (`VMIN`).
    pub fn readable(&self, at_least: usize) -> bool {
        if self.by_lines() { self.canon_head != self.tail } else { self.commit_head - self.tail >= at_least.max(1) }
    }

    /// As [`LineDiscipline::readable`] for `poll(2)`: `VMIN` counts if no `VTIME` limits the wait for it.
    pub fn poll_readable(&self) -> bool {
        let (min, time) = (self.termios.control(VMIN), self.termios.control(VTIME));
        self.readable(if time == 0 { usize::from(min) } else { 1 })
    }

    /// Bytes to read now (`FIONREAD`): those of complete lines in canonical mode, without end-of-file marks.
    pub fn input_len(&self) -> usize {
        if !self.by_lines() {
            return self.head - self.tail;
        }
        let marks = (self.tail..self.canon_head).filter(|&p| self.ends_line(p) && self.at(p) == DISABLED).count();
        self.canon_head - self.tail - marks
    }

    /// Moves up to `max` bytes of input to `into`: at most one line in canonical mode.
    pub fn take(&mut self, max: usize, into: &mut Vec<u8>) -> Taken {
        if !self.by_lines() {
            let n = max.min(self.commit_head - self.tail);
            self.copy_out(n, into);
            return Taken::Partial;
        }
        let n = max.min(self.canon_head - self.tail);
        match (self.tail..self.tail + n).find(|&p| self.ends_line(p)) {
            Some(end) => {
                let is_mark = self.at(end) == DISABLED;
                self.copy_out(end - self.tail + usize::from(!is_mark), into);
                self.mark_line_end(end, false);
                self.tail = end + 1;
                Taken::Line
            }
            None => {
                self.copy_out(n, into);
                // A mark right behind a read that took all it asked for would otherwise end the file for the next.
                if n == max
                    && self.tail != self.canon_head
                    && self.ends_line(self.tail)
                    && self.at(self.tail) == DISABLED
                {
                    self.mark_line_end(self.tail, false);
                    self.tail += 1;
                }
                Taken::Partial
            }
        }
    }

    fn copy_out(&mut self, n: usize, into: &mut Vec<u8>) {
        let start = self.tail % BUFFER;
        let first = n.min(BUFFER - start);
        into.extend_from_slice(&self.buffer[start..start + first]);
        into.extend_from_slice(&self.buffer[..n - first]);
        self.tail += n;
    }

    /// Forgets all input (`TCIFLUSH`).
    pub fn flush_input(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.canon_head = 0;
        self.commit_head = 0;
        self.line_ends.fill(0);
        self.erasing = false;
        self.looked_ahead = 0;
    }

    /// Stops output for `tcflow(TCOOFF)`; only [`LineDiscipline::resume`] starts it again.
    pub fn suspend(&mut self, out: &mut OutQueue, effects: &mut Effects) {
        self.flow_by_call = true;
        self.stop_output(out, effects);
    }

    /// Starts output that [`LineDiscipline::suspend`] stopped (`TCOON`).
    pub fn resume(&mut self, out: &mut OutQueue, effects: &mut Effects) {
        if core::mem::take(&mut self.flow_by_call) {
            self.start_output(out, effects);
        }
    }

    fn stop_output(&mut self, out: &mut OutQueue, effects: &mut Effects) {
        if !core::mem::replace(&mut out.stopped, true) {
            effects.flow = Some(true);
        }
    }

    fn start_output(&mut self, out: &mut OutQueue, effects: &mut Effects) {
        if out.stopped && !self.flow_by_call {
            out.stopped = false;
            effects.flow = Some(false);
        }
    }
}

/// A control character as Linux's own `ctype` has it: 0..=31 and 127.
fn is_control(c: u8) -> bool {
    c < 0x20 || c == 0x7f
}

/// A letter or digit of ISO 8859-1, which is what the kernel's `ctype` knows.
fn is_alnum(c: u8) -> bool {
    c.is_ascii_alphanumeric() || (c >= 0xc0 && c != 0xd7 && c != 0xf7)
}

/// Upper case to lower case in ISO 8859-1.
fn to_lower(c: u8) -> u8 {
    let upper = c.is_ascii_uppercase() || ((0xc0..=0xde).contains(&c) && c != 0xd7);
    if upper { c + 32 } else { c }
}

/// Lower case to upper case in ISO 8859-1, by the kernel's table: also for the two letters without one.
fn to_upper(c: u8) -> u8 {
    let lower = c.is_ascii_lowercase() || (c >= 0xdf && c != 0xf7);
    if lower { c - 32 } else { c }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
