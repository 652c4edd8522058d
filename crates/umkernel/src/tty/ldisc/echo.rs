//! The echo buffer: echo is produced while input is processed and sent when there is room for it, in order.
//!
//! Characters stand for themselves; [`START`] begins an operation: another `START` is that byte itself, one of the
//! named operations, or a control character to be shown as `^X`. What the terminal shows depends on the column at the
//! time of sending, so tabs are erased by an operation rather than by ready-made backspaces.

use super::{LineDiscipline, OutQueue, is_control};
use crate::tty::termios::*;
use alloc::collections::VecDeque;

const START: u8 = 0xff;
const MOVE_BACK_COLUMN: u8 = 0x80;
const SET_CANON_COLUMN: u8 = 0x81;
/// Followed by the number of columns used within the tab, modulo 8, with [`AFTER_TAB`] if they began at a tab stop.
const ERASE_TAB: u8 = 0x82;
const AFTER_TAB: u8 = 0x80;

/// Echo is sent early once this many bytes wait.
const COMMIT_WATERMARK: usize = 256;
/// And then again with each further block.
const COMMIT_BLOCK: usize = 256;
/// When this much cannot be sent, the oldest is forgotten.
const DISCARD_WATERMARK: usize = super::BUFFER - 32;

/// Echo that waits.
#[derive(Default)]
pub(super) struct EchoBuffer {
    bytes: VecDeque<u8>,
    /// Bytes that belong to fully processed characters.
    mark: usize,
    /// Bytes to be sent as soon as there is room.
    commit: usize,
}

impl EchoBuffer {
    fn drop_front(&mut self, n: usize) {
        self.bytes.drain(..n);
        self.mark = self.mark.saturating_sub(n);
        self.commit = self.commit.saturating_sub(n);
    }

    pub(super) fn clear(&mut self) {
        *self = EchoBuffer::default();
    }
}

impl LineDiscipline {
    fn echo_op(&mut self, op: u8) {
        self.echo.bytes.extend([START, op]);
    }

    pub(super) fn echo_raw(&mut self, c: u8) {
        if c == START {
            self.echo_op(START);
        } else {
            self.echo.bytes.push_back(c);
        }
    }

    /// Echoes a character, a control character as `^X` with `ECHOCTL`.
    pub(super) fn echo_char(&mut self, c: u8) {
        if c == START {
            self.echo_op(START);
        } else if self.termios.l(ECHOCTL) && is_control(c) && c != b'\t' {
            self.echo_op(c);
        } else {
            self.echo.bytes.push_back(c);
        }
    }

    /// Remembers the column of a line's first character.
    pub(super) fn echo_line_start(&mut self) {
        if self.canon_head == self.head {
            self.echo_op(SET_CANON_COLUMN);
        }
    }

    pub(super) fn echo_move_back(&mut self) {
        self.echo_op(MOVE_BACK_COLUMN);
    }

    pub(super) fn echo_erase_tab(&mut self, columns: usize, after_tab: bool) {
        self.echo_op(ERASE_TAB);
        let columns = (columns & 7) as u8;
        self.echo.bytes.push_back(columns | if after_tab { AFTER_TAB } else { 0 });
    }

    pub(super) fn finish_erasing(&mut self) {
        if core::mem::take(&mut self.erasing) {
            self.echo_raw(b'/');
        }
    }

    /// Marks the echo so far as complete; sends it when a good deal has come together.
    pub(super) fn commit_echoes(&mut self, out: &mut OutQueue) {
        let waiting = self.echo.bytes.len();
        let committed = self.echo.commit;
        self.echo.mark = waiting;
        if waiting >= COMMIT_WATERMARK && waiting % COMMIT_BLOCK <= committed % COMMIT_BLOCK {
            self.echo.commit = waiting;
            self.send_echoes(out);
        }
    }

    /// Sends all complete echo.
    pub(super) fn process_echoes(&mut self, out: &mut OutQueue) {
        if self.echo.mark > 0 {
            self.echo.commit = self.echo.mark;
            self.send_echoes(out);
        }
    }

    /// Sends all echo at the end of a piece of input.
    pub(super) fn flush_echoes(&mut self, out: &mut OutQueue) {
        if self.termios.l(ECHO | ECHONL) && self.echo.commit != self.echo.bytes.len() {
            self.echo.commit = self.echo.bytes.len();
            self.send_echoes(out);
        }
    }

    fn send_echoes(&mut self, out: &mut OutQueue) {
        let mut sent = 0;
        while sent < self.echo.commit {
            match self.send_one(sent, out) {
                Some(len) => sent += len,
                None => break,
            }
        }
        while self.echo.commit > sent && self.echo.commit - sent >= DISCARD_WATERMARK {
            sent += match (self.echo_at(sent), self.echo_at(sent + 1)) {
                (START, ERASE_TAB) => 3,
                (START, _) => 2,
                _ => 1,
            };
        }
        self.echo.drop_front(sent.min(self.echo.bytes.len()));
    }

    fn echo_at(&self, at: usize) -> u8 {
        self.echo.bytes.get(at).copied().unwrap_or(0)
    }

    /// Sends the echo at `at`; its length in the echo buffer, or `None` without room.
    fn send_one(&mut self, at: usize, out: &mut OutQueue) -> Option<usize> {
        let c = self.echo_at(at);
        let room = out.room();
        if c != START {
            if self.termios.o(OPOST) {
                return self.output_char(c, out).then_some(1);
            }
            if room == 0 {
                return None;
            }
            out.put(&[c]);
            return Some(1);
        }
        match self.echo_at(at + 1) {
            ERASE_TAB => {
                let coded = self.echo_at(at + 2);
                let mut columns = usize::from(coded);
                if coded & AFTER_TAB == 0 {
                    columns += self.canon_column;
                }
                let back = 8 - (columns & 7);
                if back > room {
                    return None;
                }
                out.put(&[8; 8][..back]);
                self.column = self.column.saturating_sub(back);
                return Some(3);
            }
            SET_CANON_COLUMN => self.canon_column = self.column,
            MOVE_BACK_COLUMN => self.column = self.column.saturating_sub(1),
            START => {
                if room == 0 {
                    return None;
                }
                out.put(&[START]);
                self.column += 1;
            }
            control => {
                if room < 2 {
                    return None;
                }
                out.put(&[b'^', control ^ 0o100]);
                self.column += 2;
            }
        }
        Some(2)
    }
}
