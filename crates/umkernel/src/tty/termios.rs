//! Terminal settings (`termios(3)`, `ioctl_tty(2)`): the four flag words, the control characters, the speeds, and
//! their layouts in guest memory.

pub use linux_raw_sys::general::{
    B0, B300, B38400, BOTHER, BRKINT, CBAUD, CLOCAL, CREAD, CS8, CSIZE, ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ECHONL,
    ECHOPRT, EXTPROC, FLUSHO, HUPCL, IBSHIFT, ICANON, ICRNL, IEXTEN, IGNBRK, IGNCR, IGNPAR, INLCR, INPCK, ISIG, ISTRIP,
    IUCLC, IUTF8, IXANY, IXON, NOFLSH, OCRNL, OLCUC, ONLCR, ONLRET, ONOCR, OPOST, PARENB, PARMRK, TABDLY, TOSTOP, VEOF,
    VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT, VMIN, VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VTIME, VWERASE, XTABS,
};

/// A control character of this value is switched off (`_POSIX_VDISABLE`).
pub const DISABLED: u8 = 0;

/// Number of control characters that the kernel's structures hold (`NCCS` of `asm-generic/termbits.h`).
pub const NCCS: usize = 19;

/// Size of the old System V `struct termio` (`TCGETA`), padding included.
pub const TERMIO_SIZE: usize = 18;
/// Size of `struct termios` (`TCGETS`).
pub const TERMIOS_SIZE: usize = 36;
/// Size of `struct termios2` (`TCGETS2`).
pub const TERMIOS2_SIZE: usize = 44;

/// A terminal's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields' names are those of termios(3)")]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    /// Line discipline number: always 0, `N_TTY`.
    pub line: u8,
    pub cc: [u8; NCCS],
    /// Input speed in bits per second.
    pub ispeed: u32,
    /// Output speed in bits per second.
    pub ospeed: u32,
}

impl Default for Termios {
    /// What Linux gives a new terminal (`tty_std_termios`): canonical, echoing, 38400 8N1.
    fn default() -> Termios {
        let mut cc = [0; NCCS];
        let control = |c: u8| c & 0x1f;
        for (index, value) in [
            (VINTR, control(b'C')),
            (VQUIT, control(b'\\')),
            (VERASE, 0x7f),
            (VKILL, control(b'U')),
            (VEOF, control(b'D')),
            (VTIME, 0),
            (VMIN, 1),
            (VSTART, control(b'Q')),
            (VSTOP, control(b'S')),
            (VSUSP, control(b'Z')),
            (VREPRINT, control(b'R')),
            (linux_raw_sys::general::VDISCARD, control(b'O')),
            (VWERASE, control(b'W')),
            (VLNEXT, control(b'V')),
        ] {
            cc[index as usize] = value;
        }
        Termios {
            iflag: ICRNL | IXON,
            oflag: OPOST | ONLCR,
            cflag: B38400 | CS8 | CREAD | HUPCL,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc,
            ispeed: 38400,
            ospeed: 38400,
        }
    }
}

impl Termios {
    /// What a pseudoterminal begins with: no line to hang up.
    pub fn pseudoterminal() -> Termios {
        let standard = Termios::default();
        Termios { cflag: standard.cflag & !HUPCL, ..standard }
    }
}

/// Speeds by their `B*` code without `CBAUDEX`; then those with it.
const SPEEDS: [u32; 16] = [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400];
const SPEEDS_EXTENDED: [u32; 16] = [
    0, 57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
    2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

/// The bits of `cflag` that code the output speed; the input speed's are these shifted left by [`IBSHIFT`].
const CBAUDEX: u32 = 0o10000;

fn decode_speed(code: u32, other: u32) -> u32 {
    let index = (code & 15) as usize;
    if code == BOTHER {
        other
    } else if code & CBAUDEX != 0 {
        SPEEDS_EXTENDED[index]
    } else {
        SPEEDS[index]
    }
}

impl Termios {
    /// A control character.
    pub fn control(&self, index: u32) -> u8 {
        self.cc.get(index as usize).copied().unwrap_or(DISABLED)
    }

    /// True if the input flag is set.
    pub fn i(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }

    /// True if the output flag is set.
    pub fn o(&self, flag: u32) -> bool {
        self.oflag & flag != 0
    }

    /// True if the local flag is set.
    pub fn l(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }

    /// Sets the speeds in bits per second from the codes in `cflag`, as every `TCSETS*` does; `BOTHER` keeps those
    /// given.
    pub fn derive_speeds(&mut self) {
        let input_code = self.cflag >> IBSHIFT & CBAUD;
        self.ospeed = decode_speed(self.cflag & CBAUD, self.ospeed);
        self.ispeed = if input_code == B0 { self.ospeed } else { decode_speed(input_code, self.ispeed) };
    }

    /// As `TCGETS` stores it.
    pub fn to_termios(&self) -> [u8; TERMIOS_SIZE] {
        let mut out = [0; TERMIOS_SIZE];
        for (i, word) in [self.iflag, self.oflag, self.cflag, self.lflag].into_iter().enumerate() {
            out[i * 4..i * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        out[16] = self.line;
        out[17..36].copy_from_slice(&self.cc);
        out
    }

    /// As `TCGETS2` stores it.
    pub fn to_termios2(&self) -> [u8; TERMIOS2_SIZE] {
        let mut out = [0; TERMIOS2_SIZE];
        out[..TERMIOS_SIZE].copy_from_slice(&self.to_termios());
        out[36..40].copy_from_slice(&self.ispeed.to_le_bytes());
        out[40..44].copy_from_slice(&self.ospeed.to_le_bytes());
        out
    }

    /// As `TCGETA` stores it: the low halves of the flag words and eight control characters.
    pub fn to_termio(&self) -> [u8; TERMIO_SIZE] {
        let mut out = [0; TERMIO_SIZE];
        for (i, word) in [self.iflag, self.oflag, self.cflag, self.lflag].into_iter().enumerate() {
            out[i * 2..i * 2 + 2].copy_from_slice(&(word as u16).to_le_bytes());
        }
        out[8] = self.line;
        out[9..17].copy_from_slice(&self.cc[..8]);
        out
    }

    /// From what `TCSETS` is given; speeds follow from `cflag`.
    pub fn from_termios(raw: &[u8; TERMIOS_SIZE], old: &Termios) -> Termios {
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let mut cc = [0; NCCS];
        cc.copy_from_slice(&raw[17..36]);
        Termios {
            iflag: word(0),
            oflag: word(4),
            cflag: word(8),
            lflag: word(12),
            line: raw[16],
            cc,
            ispeed: old.ispeed,
            ospeed: old.ospeed,
        }
    }

    /// From what `TCSETS2` is given.
    pub fn from_termios2(raw: &[u8; TERMIOS2_SIZE], old: &Termios) -> Termios {
        let mut first = [0; TERMIOS_SIZE];
        first.copy_from_slice(&raw[..TERMIOS_SIZE]);
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        Termios { ispeed: word(36), ospeed: word(40), ..Termios::from_termios(&first, old) }
    }

    /// From what `TCSETA` is given: upper halves and the other control characters stay.
    pub fn from_termio(raw: &[u8; TERMIO_SIZE], old: &Termios) -> Termios {
        let half = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
        let mix = |old: u32, low: u32| old & 0xffff_0000 | low;
        let mut cc = old.cc;
        cc[..8].copy_from_slice(&raw[9..17]);
        Termios {
            iflag: mix(old.iflag, half(0)),
            oflag: mix(old.oflag, half(2)),
            cflag: mix(old.cflag, half(4)),
            lflag: mix(old.lflag, half(6)),
            line: raw[8],
            cc,
            ..*old
        }
    }
}

/// Size of a terminal's window (`struct winsize`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WinSize {
    /// Rows of characters.
    pub rows: u16,
    /// Columns of characters.
    pub cols: u16,
    /// Width in pixels; 0 if nobody said.
    pub xpixel: u16,
    /// Height in pixels; 0 if nobody said.
    pub ypixel: u16,
}

impl WinSize {
    /// As `TIOCGWINSZ` stores it.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut out = [0; 8];
        for (i, n) in [self.rows, self.cols, self.xpixel, self.ypixel].into_iter().enumerate() {
            out[i * 2..i * 2 + 2].copy_from_slice(&n.to_le_bytes());
        }
        out
    }

    /// From what `TIOCSWINSZ` is given.
    pub fn from_bytes(raw: &[u8; 8]) -> WinSize {
        let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        WinSize { rows: half(0), cols: half(2), xpixel: half(4), ypixel: half(6) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_round_trip() {
        let t = Termios { cflag: B38400 | CS8 | 0xabc0_0000, ..Termios::default() };
        assert_eq!(Termios::from_termios(&t.to_termios(), &t), t);
        assert_eq!(Termios::from_termios2(&t.to_termios2(), &Termios::default()), t);
        assert_eq!(Termios::from_termio(&t.to_termio(), &t), t);
    }

    #[test]
    fn speeds_follow_the_codes() {
        let mut t = Termios { cflag: CBAUDEX | 2 | CS8, ..Termios::default() };
        t.derive_speeds();
        assert_eq!((t.ispeed, t.ospeed), (115_200, 115_200));
        t.cflag = BOTHER | CS8 | (13 << IBSHIFT);
        t.ospeed = 12345;
        t.derive_speeds();
        assert_eq!((t.ispeed, t.ospeed), (9600, 12345));
    }
}
