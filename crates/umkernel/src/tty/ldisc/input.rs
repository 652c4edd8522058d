//! Input processing: what happens to a character that the terminal sends.

use super::{BUFFER, Effects, LineDiscipline, OutQueue, is_alnum, is_control, to_lower};
use crate::tty::termios::*;
use linux_raw_sys::general::{SIGINT, SIGQUIT, SIGTSTP};

/// What an erasing character erases.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Erase {
    Char,
    Word,
    Line,
}

impl LineDiscipline {
    /// Takes input; returns how much of it. What is left has to be offered again once a reader has made room.
    ///
    /// In canonical mode a line without an end in sight fills the buffer; from then on each further character takes the
    /// place of the last.
    pub fn receive(&mut self, input: &[u8], out: &mut OutQueue, effects: &mut Effects) -> usize {
        let mut done = 0;
        loop {
            let used = self.head - self.tail;
            let mut free = (BUFFER - used) as isize;
            if self.termios.i(PARMRK) {
                free = (free + 2) / 3;
            }
            let room = free - 1;
            let overflow = room <= 0 && self.termios.l(ICANON) && self.canon_head == self.tail;
            if overflow && room < 0 {
                self.head -= 1;
            }
            let room = if room <= 0 { usize::from(overflow) } else { room as usize };
            let n = room.min(input.len() - done);
            if n == 0 {
                return done;
            }
            self.receive_block(&input[done..done + n], out, effects);
            done += n;
        }
    }

    /// Obeys `^S` and `^Q` in input that does not fit yet, so that a full buffer cannot hold back the `^Q` that would
    /// let its reader go on. The input is offered to [`LineDiscipline::receive`] later.
    pub fn look_ahead(&mut self, input: &[u8], out: &mut OutQueue, effects: &mut Effects) {
        let fresh = self.looked_ahead.min(input.len());
        self.looked_ahead = input.len();
        if self.termios.i(IXON) {
            input[fresh..].iter().for_each(|&c| {
                self.flow_control(c, false, out, effects);
            });
        }
    }

    fn receive_block(&mut self, input: &[u8], out: &mut OutQueue, effects: &mut Effects) {
        let strips = self.termios.i(ISTRIP) || (self.termios.i(IUCLC) && self.termios.l(IEXTEN));
        if self.raw || (self.termios.l(EXTPROC) && !strips) {
            self.looked_ahead = self.looked_ahead.saturating_sub(input.len());
            input.iter().for_each(|&c| self.store(c));
        } else {
            for &c in input {
                let obeyed = self.looked_ahead > 0;
                self.looked_ahead = self.looked_ahead.saturating_sub(1);
                self.receive_char(c, obeyed, out, effects);
            }
            self.flush_echoes(out);
        }
        if !self.by_lines() {
            self.commit_head = self.head;
            effects.readable |= self.commit_head != self.tail;
        }
    }

    fn store(&mut self, c: u8) {
        self.buffer[self.head % BUFFER] = c;
        self.head += 1;
    }

    /// Stores a character, `0xff` twice with `PARMRK`.
    fn store_marked(&mut self, c: u8) {
        if c == 0xff && self.termios.i(PARMRK) {
            self.store(c);
        }
        self.store(c);
    }

    fn receive_char(&mut self, c: u8, obeyed: bool, out: &mut OutQueue, effects: &mut Effects) {
        let literal = core::mem::take(&mut self.literal_next);
        let mut c = c;
        if self.termios.i(ISTRIP) {
            c &= 0x7f;
        }
        if self.termios.i(IUCLC) && self.termios.l(IEXTEN) {
            c = to_lower(c);
        }
        if literal {
            self.receive_plain(c, out, effects);
        } else if self.termios.l(EXTPROC) {
            self.store(c);
        } else if self.is_special(c) {
            self.receive_special(c, obeyed, out, effects);
        } else {
            self.receive_plain(c, out, effects);
        }
    }

    /// With `IXANY` any character starts stopped output.
    fn start_by_any(&mut self, out: &mut OutQueue, effects: &mut Effects) {
        if out.stopped && !self.flow_by_call && self.termios.i(IXON) && self.termios.i(IXANY) {
            self.start_output(out, effects);
            self.process_echoes(out);
        }
    }

    fn receive_plain(&mut self, c: u8, out: &mut OutQueue, effects: &mut Effects) {
        self.start_by_any(out, effects);
        if self.termios.l(ECHO) {
            self.finish_erasing();
            self.echo_line_start();
            self.echo_char(c);
            self.commit_echoes(out);
        }
        self.store_marked(c);
    }

    /// True if the character controls the flow; `obeyed`: it has had its effect before.
    fn flow_control(&mut self, c: u8, obeyed: bool, out: &mut OutQueue, effects: &mut Effects) -> bool {
        let start = c == self.termios.control(VSTART);
        let stop = c == self.termios.control(VSTOP);
        if c == DISABLED || !(start || stop) {
            return false;
        }
        if obeyed {
            return true;
        }
        if start {
            self.start_output(out, effects);
            self.process_echoes(out);
        } else {
            self.stop_output(out, effects);
        }
        true
    }

    fn receive_special(&mut self, c: u8, obeyed: bool, out: &mut OutQueue, effects: &mut Effects) {
        if self.termios.i(IXON) && self.flow_control(c, obeyed, out, effects) {
            return;
        }
        if self.termios.l(ISIG) {
            let signals = [(VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)];
            if let Some((_, signal)) = signals.into_iter().find(|&(index, _)| c == self.termios.control(index)) {
                self.receive_signal(signal as u8, c, out, effects);
                return;
            }
        }
        self.start_by_any(out, effects);
        let mut c = c;
        if c == b'\r' {
            if self.termios.i(IGNCR) {
                return;
            }
            if self.termios.i(ICRNL) {
                c = b'\n';
            }
        } else if c == b'\n' && self.termios.i(INLCR) {
            c = b'\r';
        }
        if self.termios.l(ICANON) && self.receive_editing(c, out, effects) {
            return;
        }
        if self.termios.l(ECHO) {
            self.finish_erasing();
            if c == b'\n' {
                self.echo_raw(b'\n');
            } else {
                self.echo_line_start();
                self.echo_char(c);
            }
            self.commit_echoes(out);
        }
        self.store_marked(c);
    }

    fn receive_signal(&mut self, signal: u8, c: u8, out: &mut OutQueue, effects: &mut Effects) {
        effects.signals.push(signal);
        if !self.termios.l(NOFLSH) {
            self.echo.clear();
            self.flush_input();
            out.flush();
            effects.flushed = true;
        }
        if self.termios.i(IXON) {
            self.start_output(out, effects);
        }
        if self.termios.l(ECHO) {
            self.echo_char(c);
            self.commit_echoes(out);
        } else {
            self.process_echoes(out);
        }
    }

    /// Canonical mode's own characters; false for any other.
    fn receive_editing(&mut self, c: u8, out: &mut OutQueue, effects: &mut Effects) -> bool {
        let t = self.termios;
        let extended = t.l(IEXTEN);
        if c == t.control(VERASE) || c == t.control(VKILL) || (c == t.control(VWERASE) && extended) {
            self.erase(c);
            self.commit_echoes(out);
            return true;
        }
        if c == t.control(VLNEXT) && extended {
            self.literal_next = true;
            if t.l(ECHO) {
                self.finish_erasing();
                if t.l(ECHOCTL) {
                    self.echo_raw(b'^');
                    self.echo_raw(8);
                    self.commit_echoes(out);
                }
            }
            return true;
        }
        if c == t.control(VREPRINT) && t.l(ECHO) && extended {
            self.finish_erasing();
            self.echo_char(c);
            self.echo_raw(b'\n');
            for position in self.canon_head..self.head {
                self.echo_char(self.at(position));
            }
            self.commit_echoes(out);
            return true;
        }
        if c == b'\n' {
            if t.l(ECHO | ECHONL) {
                self.echo_raw(b'\n');
                self.commit_echoes(out);
            }
            self.end_line(c, effects);
            return true;
        }
        if c == t.control(VEOF) {
            self.end_line(DISABLED, effects);
            return true;
        }
        if c == t.control(VEOL) || (c == t.control(VEOL2) && extended) {
            if t.l(ECHO) {
                self.echo_line_start();
                self.echo_char(c);
                self.commit_echoes(out);
            }
            if c == 0xff && t.i(PARMRK) {
                self.store(c);
            }
            self.end_line(c, effects);
            return true;
        }
        false
    }

    fn end_line(&mut self, c: u8, effects: &mut Effects) {
        self.mark_line_end(self.head, true);
        self.store(c);
        self.canon_head = self.head;
        effects.readable = true;
    }

    fn erase(&mut self, c: u8) {
        if self.head == self.canon_head {
            return;
        }
        let t = self.termios;
        let kind = if c == t.control(VERASE) {
            Erase::Char
        } else if c == t.control(VWERASE) {
            Erase::Word
        } else {
            if !t.l(ECHO) {
                self.head = self.canon_head;
                return;
            }
            if !(t.l(ECHOK) && t.l(ECHOKE) && t.l(ECHOE)) {
                self.head = self.canon_head;
                self.finish_erasing();
                self.echo_char(t.control(VKILL));
                if t.l(ECHOK) {
                    self.echo_raw(b'\n');
                }
                return;
            }
            Erase::Line
        };
        let mut in_word = false;
        while self.head != self.canon_head {
            // One character, of several bytes with IUTF8.
            let mut start = self.head - 1;
            while self.is_continuation(self.at(start)) && start != self.canon_head {
                start -= 1;
            }
            let c = self.at(start);
            if self.is_continuation(c) {
                break;
            }
            if kind == Erase::Word {
                if is_alnum(c) || c == b'_' {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            let end = core::mem::replace(&mut self.head, start);
            if t.l(ECHO) {
                self.echo_erased(c, start, end, kind);
            }
            if kind == Erase::Char {
                break;
            }
        }
        if self.head == self.canon_head && t.l(ECHO) {
            self.finish_erasing();
        }
    }

    /// Shows that the character at `start..end` is gone.
    fn echo_erased(&mut self, c: u8, start: usize, end: usize, kind: Erase) {
        let t = self.termios;
        if t.l(ECHOPRT) {
            if !core::mem::replace(&mut self.erasing, true) {
                self.echo_raw(b'\\');
            }
            self.echo_char(c);
            for position in start + 1..end {
                self.echo_raw(self.at(position));
                self.echo_move_back();
            }
        } else if kind == Erase::Char && !t.l(ECHOE) {
            self.echo_char(t.control(VERASE));
        } else if c == b'\t' {
            let mut columns = 0;
            let mut after_tab = false;
            for position in (self.canon_head..start).rev() {
                let c = self.at(position);
                if c == b'\t' {
                    after_tab = true;
                    break;
                } else if is_control(c) {
                    columns += if t.l(ECHOCTL) { 2 } else { 0 };
                } else if !self.is_continuation(c) {
                    columns += 1;
                }
            }
            self.echo_erase_tab(columns, after_tab);
        } else {
            let width = match (is_control(c), t.l(ECHOCTL)) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => 1,
            };
            (0..width).for_each(|_| [8, b' ', 8].into_iter().for_each(|c| self.echo_raw(c)));
        }
    }
}
