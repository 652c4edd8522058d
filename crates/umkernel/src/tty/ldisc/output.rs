//! Output processing (`OPOST`) and the column that it keeps.

use super::{LineDiscipline, OutQueue, is_control, to_upper};
use crate::tty::termios::*;

impl LineDiscipline {
    /// Sends what a program writes; returns how many of its bytes were taken, fewer when `out` has no more room.
    pub fn write(&mut self, data: &[u8], out: &mut OutQueue) -> usize {
        if !self.termios.o(OPOST) {
            let n = data.len().min(out.room());
            out.put(&data[..n]);
            return n;
        }
        let mut done = 0;
        while done < data.len() {
            let plain = self.plain_run(&data[done..]).min(out.room());
            if plain > 0 {
                out.put(&data[done..done + plain]);
                self.column += plain;
                done += plain;
            } else if self.output_char(data[done], out) {
                done += 1;
            } else {
                break;
            }
        }
        done
    }

    /// Sends echoes that are still held back: before each write of a program.
    pub fn settle_echoes(&mut self, out: &mut OutQueue) {
        self.process_echoes(out);
    }

    /// Length of the run of characters that only move the column by one each.
    fn plain_run(&self, data: &[u8]) -> usize {
        if self.termios.o(OLCUC) {
            return 0;
        }
        data.iter().position(|c| !(0x20..0x7f).contains(c)).unwrap_or(data.len())
    }

    pub(super) fn is_continuation(&self, c: u8) -> bool {
        self.termios.i(IUTF8) && c & 0xc0 == 0x80
    }

    /// Sends one character with output processing; false if `out` has no room for all that it becomes.
    pub(super) fn output_char(&mut self, c: u8, out: &mut OutQueue) -> bool {
        let t = &self.termios;
        let room = out.room();
        if room == 0 {
            return false;
        }
        let mut sent = c;
        match c {
            b'\n' => {
                if t.o(ONLRET) {
                    self.column = 0;
                }
                if t.o(ONLCR) {
                    if room < 2 {
                        return false;
                    }
                    self.column = 0;
                    self.canon_column = 0;
                    out.put(b"\r\n");
                    return true;
                }
                self.canon_column = self.column;
            }
            b'\r' => {
                if t.o(ONOCR) && self.column == 0 {
                    return true;
                }
                if t.o(OCRNL) {
                    sent = b'\n';
                    if t.o(ONLRET) {
                        self.column = 0;
                        self.canon_column = 0;
                    }
                } else {
                    self.column = 0;
                    self.canon_column = 0;
                }
            }
            b'\t' => {
                let spaces = 8 - (self.column & 7);
                if t.oflag & TABDLY == XTABS {
                    if room < spaces {
                        return false;
                    }
                    self.column += spaces;
                    out.put(&b"        "[..spaces]);
                    return true;
                }
                self.column += spaces;
            }
            8 => self.column = self.column.saturating_sub(1),
            _ if !is_control(c) => {
                if t.o(OLCUC) {
                    sent = to_upper(c);
                }
                if !self.is_continuation(c) {
                    self.column += 1;
                }
            }
            _ => {}
        }
        out.put(&[sent]);
        true
    }
}
