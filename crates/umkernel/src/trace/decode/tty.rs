//! Device control: request names, terminal settings, window sizes.

use super::{Kind, Printer, When, text};
use alloc::format;
use alloc::string::String;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("ioctl", |p, v| p.push(&request_name(v as u32))),
    Kind { name: "ioctl_arg", when: When::Exit, decode: argument },
];

/// What the third argument of a request points to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Termios,
    WinSize,
    Int,
    Number,
    Queue,
    Nothing,
    Pointer,
}

const REQUESTS: &[(u32, &str, Shape)] = &[
    (0x5401, "TCGETS", Shape::Termios),
    // The number is also one of the sound system's.
    (0x5402, "SNDCTL_TMR_START or TCSETS", Shape::Termios),
    (0x5403, "SNDCTL_TMR_STOP or TCSETSW", Shape::Termios),
    (0x5404, "SNDCTL_TMR_CONTINUE or TCSETSF", Shape::Termios),
    (0x5409, "TCSBRK", Shape::Number),
    (0x540a, "TCXONC", Shape::Number),
    (0x540b, "TCFLSH", Shape::Queue),
    (0x540c, "TIOCEXCL", Shape::Nothing),
    (0x540d, "TIOCNXCL", Shape::Nothing),
    (0x540e, "TIOCSCTTY", Shape::Number),
    (0x540f, "TIOCGPGRP", Shape::Int),
    (0x5410, "TIOCSPGRP", Shape::Int),
    (0x5411, "TIOCOUTQ", Shape::Int),
    (0x5412, "TIOCSTI", Shape::Pointer),
    (0x5413, "TIOCGWINSZ", Shape::WinSize),
    (0x5414, "TIOCSWINSZ", Shape::WinSize),
    (0x541b, "FIONREAD", Shape::Int),
    (0x541d, "TIOCCONS", Shape::Nothing),
    (0x5420, "TIOCPKT", Shape::Int),
    (0x5421, "FIONBIO", Shape::Int),
    (0x5422, "TIOCNOTTY", Shape::Nothing),
    (0x5423, "TIOCSETD", Shape::Int),
    (0x5424, "TIOCGETD", Shape::Int),
    (0x5425, "TCSBRKP", Shape::Number),
    (0x5429, "TIOCGSID", Shape::Int),
    (0x5450, "FIONCLEX", Shape::Nothing),
    (0x5451, "FIOCLEX", Shape::Nothing),
    (0x5452, "FIOASYNC", Shape::Int),
    (0x8004_5430, "TIOCGPTN", Shape::Int),
    (0x4004_5431, "TIOCSPTLCK", Shape::Int),
    (0x5441, "TIOCGPTPEER", Shape::Number),
    (0x125d, "BLKROSET", Shape::Int),
    (0x125e, "BLKROGET", Shape::Int),
    (0x125f, "BLKRRPART", Shape::Nothing),
    (0x1260, "BLKGETSIZE", Shape::Pointer),
    (0x1261, "BLKFLSBUF", Shape::Nothing),
    (0x1262, "BLKRASET", Shape::Number),
    (0x1263, "BLKRAGET", Shape::Pointer),
    (0x1264, "BLKFRASET", Shape::Number),
    (0x1265, "BLKFRAGET", Shape::Pointer),
    (0x1268, "BLKSSZGET", Shape::Int),
    (0x1277, "BLKDISCARD", Shape::Pointer),
    (0x1278, "BLKIOMIN", Shape::Int),
    (0x1279, "BLKIOOPT", Shape::Int),
    (0x127a, "BLKALIGNOFF", Shape::Int),
    (0x127b, "BLKPBSZGET", Shape::Int),
    (0x127e, "BLKROTATIONAL", Shape::Pointer),
    (0x8008_1270, "BLKBSZGET", Shape::Int),
    (0x8008_1272, "BLKGETSIZE64", Shape::Pointer),
    (0x8008_6601, "FS_IOC_GETFLAGS", Shape::Pointer),
    (0x4008_6602, "FS_IOC_SETFLAGS", Shape::Pointer),
    (0x4004_9409, "BTRFS_IOC_CLONE or FICLONE", Shape::Number),
    (0x4c00, "LOOP_SET_FD", Shape::Number),
    (0x4c01, "LOOP_CLR_FD", Shape::Nothing),
    (0x4c02, "LOOP_SET_STATUS", Shape::Pointer),
    (0x4c03, "LOOP_GET_STATUS", Shape::Pointer),
    (0x4c04, "LOOP_SET_STATUS64", Shape::Pointer),
    (0x4c05, "LOOP_GET_STATUS64", Shape::Pointer),
    (0x4c06, "LOOP_CHANGE_FD", Shape::Number),
    (0x4c07, "LOOP_SET_CAPACITY", Shape::Nothing),
    (0x4c08, "LOOP_SET_DIRECT_IO", Shape::Number),
    (0x4c09, "LOOP_SET_BLOCK_SIZE", Shape::Number),
    (0x4c0a, "LOOP_CONFIGURE", Shape::Pointer),
    (0x4c80, "LOOP_CTL_ADD", Shape::Number),
    (0x4c81, "LOOP_CTL_REMOVE", Shape::Number),
    (0x4c82, "LOOP_CTL_GET_FREE", Shape::Nothing),
    (0xb701, "NS_GET_USERNS", Shape::Nothing),
    (0xb702, "NS_GET_PARENT", Shape::Nothing),
    (0xb703, "NS_GET_NSTYPE", Shape::Nothing),
    (0xb704, "NS_GET_OWNER_UID", Shape::Pointer),
    (0x4b33, "KDGKBTYPE", Shape::Pointer),
    (0x4b3a, "KDSETMODE", Shape::Number),
    (0x4b3b, "KDGETMODE", Shape::Pointer),
    (0x5600, "VT_OPENQRY", Shape::Int),
    (0x5603, "VT_GETSTATE", Shape::Pointer),
    (0x5606, "VT_ACTIVATE", Shape::Number),
];

fn request_name(request: u32) -> String {
    match REQUESTS.iter().find(|r| r.0 == request) {
        Some((_, name, _)) => (*name).into(),
        None => {
            let direction = match request >> 30 {
                0 => "_IOC_NONE",
                1 => "_IOC_WRITE",
                2 => "_IOC_READ",
                _ => "_IOC_READ|_IOC_WRITE",
            };
            let (kind, number, size) = (request >> 8 & 0xff, request & 0xff, request >> 16 & 0x3fff);
            let hex = |n: u32| text::hex(u64::from(n));
            format!("_IOC({direction}, {}, {}, {})", hex(kind), hex(number), hex(size))
        }
    }
}

fn argument(p: &mut Printer, value: u64) {
    let request = p.args[1] as u32;
    let shape = REQUESTS.iter().find(|r| r.0 == request).map_or(Shape::Pointer, |r| r.2);
    match shape {
        Shape::Nothing => p.omitted = true,
        Shape::Number => p.signed(value),
        Shape::Queue => p.choice(value, &[(0, "TCIFLUSH"), (1, "TCOFLUSH"), (2, "TCIOFLUSH")], "TC???"),
        Shape::Int => p.structure(value, |p, n: i32| p.push(&format!("[{n}]"))),
        Shape::WinSize => p.structure(value, |p, s: [u16; 4]| {
            let [row, col, x, y] = s;
            p.push(&format!("{{ws_row={row}, ws_col={col}, ws_xpixel={x}, ws_ypixel={y}}}"));
        }),
        Shape::Termios => p.structure(value, |p, modes: [u32; 4]| p.push(&termios(modes))),
        Shape::Pointer => p.address(value),
    }
}

const INPUT: &[(u64, &str)] = &[
    (0o1, "IGNBRK"),
    (0o2, "BRKINT"),
    (0o4, "IGNPAR"),
    (0o10, "PARMRK"),
    (0o20, "INPCK"),
    (0o40, "ISTRIP"),
    (0o100, "INLCR"),
    (0o200, "IGNCR"),
    (0o400, "ICRNL"),
    (0o1000, "IUCLC"),
    (0o2000, "IXON"),
    (0o4000, "IXANY"),
    (0o10_000, "IXOFF"),
    (0o20_000, "IMAXBEL"),
    (0o40_000, "IUTF8"),
];
const OUTPUT: &[(u64, &str)] = &[
    (0o1, "OPOST"),
    (0o2, "OLCUC"),
    (0o4, "ONLCR"),
    (0o10, "OCRNL"),
    (0o20, "ONOCR"),
    (0o40, "ONLRET"),
    (0o100, "OFILL"),
    (0o200, "OFDEL"),
];
const CONTROL: &[(u64, &str)] = &[
    (0o100, "CSTOPB"),
    (0o200, "CREAD"),
    (0o400, "PARENB"),
    (0o1000, "PARODD"),
    (0o2000, "HUPCL"),
    (0o4000, "CLOCAL"),
    (0o20_000_000_000, "CRTSCTS"),
];
const LOCAL: &[(u64, &str)] = &[
    (0o1, "ISIG"),
    (0o2, "ICANON"),
    (0o4, "XCASE"),
    (0o10, "ECHO"),
    (0o20, "ECHOE"),
    (0o40, "ECHOK"),
    (0o100, "ECHONL"),
    (0o200, "NOFLSH"),
    (0o400, "TOSTOP"),
    (0o100_000, "IEXTEN"),
    (0o1000, "ECHOCTL"),
    (0o2000, "ECHOPRT"),
    (0o4000, "ECHOKE"),
    (0o10_000, "FLUSHO"),
    (0o40_000, "PENDIN"),
    (0o200_000, "EXTPROC"),
];
const SPEEDS: &[(u64, &str)] = &[
    (0, "B0"),
    (0o7, "B300"),
    (0o11, "B1200"),
    (0o13, "B2400"),
    (0o14, "B4800"),
    (0o15, "B9600"),
    (0o16, "B19200"),
    (0o17, "B38400"),
    (0o10_001, "B57600"),
    (0o10_002, "B115200"),
];

/// The four flag words of `struct termios`, as strace abbreviates it.
fn termios([input, output, control, local]: [u32; 4]) -> String {
    let show = |value: u32, names| super::flags::show(u64::from(value), names, "???");
    let delays = format!(
        "NL{}|CR{}|TAB{}|BS{}|VT{}|FF{}",
        output >> 8 & 1,
        output >> 9 & 3,
        output >> 11 & 3,
        output >> 13 & 1,
        output >> 14 & 1,
        output >> 15 & 1
    );
    let rest = output & 0o377;
    let output = if rest == 0 { delays } else { format!("{delays}|{}", show(rest, OUTPUT)) };
    let speed = u64::from(control & 0o10_017);
    let speed = SPEEDS.iter().find(|s| s.0 == speed).map_or("B???", |s| s.1);
    let size = 5 + (control >> 4 & 3);
    let rest = control & !(0o10_017 | 0o60);
    let control =
        if rest == 0 { format!("{speed}|CS{size}") } else { format!("{speed}|CS{size}|{}", show(rest, CONTROL)) };
    let (input, local) = (show(input, INPUT), show(local, LOCAL));
    format!("{{c_iflag={input}, c_oflag={output}, c_cflag={control}, c_lflag={local}, ...}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_settings_read_as_strace_prints_them() {
        assert_eq!(request_name(0x5413), "TIOCGWINSZ");
        assert_eq!(request_name(0x1234_5678), "_IOC(_IOC_NONE, 0x56, 0x78, 0x1234)");
        assert_eq!(
            termios([0o2400, 0o5, 0o277, 0o105_073]),
            "{c_iflag=ICRNL|IXON, c_oflag=NL0|CR0|TAB0|BS0|VT0|FF0|OPOST|ONLCR, c_cflag=B38400|CS8|CREAD, \
             c_lflag=ISIG|ICANON|ECHO|ECHOE|ECHOK|IEXTEN|ECHOCTL|ECHOKE, ...}"
        );
    }
}
