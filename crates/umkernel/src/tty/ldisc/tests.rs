//! The host's own pseudoterminals judge the line discipline: the same settings, input, reads and writes go to both.

use super::*;
use proptest::prelude::*;
use std::os::fd::{AsRawFd, OwnedFd};
use std::string::String;
use std::time::Duration;
use std::vec;

#[derive(Clone, Debug)]
enum Step {
    Set(Termios),
    Input(Vec<u8>),
    Write(Vec<u8>),
    Read(usize),
}

/// What a step showed: the result of a read or write (`None`: it would block), then what the terminal printed, then
/// the bytes that `FIONREAD` promises.
type Seen = (Option<Vec<u8>>, Vec<u8>, usize);

fn ours(steps: &[Step]) -> Vec<Seen> {
    let mut ldisc = LineDiscipline::new(Termios::default());
    let mut out = OutQueue::new(8192, 4095);
    let mut pending: Vec<u8> = Vec::new();
    let mut seen = Vec::new();
    for step in steps {
        let mut effects = Effects::default();
        let result = match step {
            Step::Set(t) => {
                ldisc.set_termios(*t, &mut out, &mut effects);
                Some(vec![])
            }
            Step::Input(bytes) => {
                pending.extend(bytes);
                Some(vec![])
            }
            Step::Write(bytes) => {
                ldisc.settle_echoes(&mut out);
                let n = ldisc.write(bytes, &mut out);
                (n > 0 || bytes.is_empty()).then(|| vec![n as u8])
            }
            Step::Read(max) => {
                let polls_only = !ldisc.by_lines() && ldisc.termios.control(VMIN) == 0;
                if ldisc.readable(1) {
                    let mut got = Vec::new();
                    ldisc.take(*max, &mut got);
                    Some(got)
                } else {
                    polls_only.then(Vec::new)
                }
            }
        };
        let taken = ldisc.receive(&pending, &mut out, &mut effects);
        pending.drain(..taken);
        ldisc.look_ahead(&pending, &mut out, &mut effects);
        let printed = out.bytes.drain(..).collect();
        seen.push((result, printed, ldisc.input_len()));
    }
    seen
}

fn raw_ioctl(fd: &OwnedFd, request: u64, arg: *mut u8) {
    // SAFETY: the callers pass buffers of the size that the request says.
    let result = unsafe { nix::libc::ioctl(fd.as_raw_fd(), request, arg) };
    assert_eq!(result, 0, "ioctl {request:#x}: {}", std::io::Error::last_os_error());
}

fn fionread(fd: &OwnedFd) -> usize {
    let mut n = 0i32;
    raw_ioctl(fd, nix::libc::FIONREAD, (&raw mut n).cast());
    n as usize
}

/// Lets the host's own queues come to rest: looking at them with poll pushes the work along.
fn settle(master: &OwnedFd, slave: &OwnedFd, pause: Duration) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut last = None;
    loop {
        let mut fds = [PollFd::new(slave.as_fd(), PollFlags::POLLIN), PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        let now = Some((fionread(slave), fionread(master)));
        if now == last {
            return;
        }
        last = now;
        std::thread::sleep(pause);
    }
}

fn nonblocking_read(fd: &OwnedFd, max: usize) -> Option<Vec<u8>> {
    let mut buf = vec![0; max];
    match nix::unistd::read(fd, &mut buf) {
        Ok(n) => {
            buf.truncate(n);
            Some(buf)
        }
        Err(nix::Error::EAGAIN) => None,
        Err(error) => panic!("read: {error}"),
    }
}

fn hosts(steps: &[Step], pause: Duration) -> Vec<Seen> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let pty = nix::pty::openpty(None, None).unwrap();
    for fd in [&pty.master, &pty.slave] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    let mut seen = Vec::new();
    for step in steps {
        let result = match step {
            Step::Set(t) => {
                let mut raw = t.to_termios();
                raw_ioctl(&pty.slave, nix::libc::TCSETS, raw.as_mut_ptr());
                Some(vec![])
            }
            Step::Input(bytes) => {
                assert_eq!(nix::unistd::write(&pty.master, bytes), Ok(bytes.len()));
                Some(vec![])
            }
            Step::Write(bytes) => match nix::unistd::write(&pty.slave, bytes) {
                Ok(n) => Some(vec![n as u8]),
                Err(nix::Error::EAGAIN) => None,
                Err(error) => panic!("write: {error}"),
            },
            Step::Read(max) => nonblocking_read(&pty.slave, *max),
        };
        settle(&pty.master, &pty.slave, pause);
        let printed = nonblocking_read(&pty.master, 16384).unwrap_or_default();
        seen.push((result, printed, fionread(&pty.slave)));
    }
    seen
}

/// Compares; the host gets more time before a difference counts, for it works in the background.
fn compare(steps: &[Step]) -> std::result::Result<(), String> {
    let ours = ours(steps);
    let mut theirs = Vec::new();
    for pause in [1, 10, 50] {
        theirs = hosts(steps, Duration::from_millis(pause));
        if ours == theirs {
            return Ok(());
        }
    }
    let at = (0..steps.len()).find(|&i| ours[i] != theirs[i]).unwrap_or(0);
    Err(std::format!("step {at}: {:?}\n ours {:?}\n host {:?}", steps[at], ours[at], theirs[at]))
}

fn check(steps: &[Step]) {
    if let Err(difference) = compare(steps) {
        panic!("{difference}");
    }
}

fn input(bytes: &[u8]) -> Step {
    Step::Input(bytes.to_vec())
}

fn with(change: impl FnOnce(&mut Termios)) -> Step {
    let mut t = Termios::default();
    change(&mut t);
    Step::Set(t)
}

#[test]
fn edits_lines() {
    for text in [
        &b"hello\n"[..],
        b"helxx\x7f\x7flo\r",
        b"one two three\x17\x17x\n",
        b"a\tb\tc\x7f\x7f\x7f\x7fq\n",
        b"ab\x01\x1b[A\x7f\x7f\x7f\n",
        b"kill me\x15again\n",
        b"\x16\x03lit\x16\x7f\n",
        b"abc\x12def\n",
        b"no newline\x04",
        b"\x04",
        b"\x1cabc",
        b"x\x19y\x0f\n",
    ] {
        check(&[input(text), Step::Read(3), Step::Read(100), Step::Read(100)]);
    }
}

#[test]
fn ends_of_file_and_exact_reads() {
    check(&[
        input(b"abc\x04"),
        Step::Read(3),
        Step::Read(3),
        input(b"\x04\x04x\x04"),
        Step::Read(9),
        Step::Read(9),
        Step::Read(9),
    ]);
    check(&[input(b"abc\nde\x04\x04"), Step::Read(4), Step::Read(1), Step::Read(1), Step::Read(9), Step::Read(9)]);
}

#[test]
fn multibyte_characters_are_erased_whole() {
    check(&[with(|t| t.iflag |= IUTF8), input("aé漢\x7f\x7fü\tx\x7f\x7fy\n".as_bytes()), Step::Read(99)]);
    check(&[
        with(|t| {
            t.iflag |= IUTF8;
            t.lflag |= ECHOPRT
        }),
        input("aé漢\x7f\x7fz\x15\n".as_bytes()),
        Step::Read(99),
    ]);
    check(&[with(|t| t.iflag |= IUTF8), input(b"\xa9\xa9\x7f\x7f\n"), Step::Read(99)]);
}

#[test]
fn flow_control() {
    check(&[
        input(b"\x13"),
        Step::Write(b"held".to_vec()),
        input(b"typed\n"),
        input(b"\x11"),
        Step::Write(b"go".to_vec()),
        Step::Read(9),
    ]);
    check(&[
        with(|t| t.iflag |= IXANY),
        input(b"\x13"),
        Step::Write(b"x".to_vec()),
        input(b"a"),
        Step::Write(b"y".to_vec()),
    ]);
    check(&[input(b"\x13ab"), with(|t| t.iflag &= !IXON), Step::Write(b"z".to_vec())]);
}

#[test]
fn mode_changes_keep_what_was_typed() {
    let raw = || with(|t| t.lflag &= !(ICANON | ECHO));
    check(&[
        input(b"abc"),
        raw(),
        Step::Read(2),
        Step::Read(2),
        input(b"xyz"),
        with(|_| ()),
        Step::Read(2),
        Step::Read(2),
    ]);
    check(&[raw(), input(b"a\0"), with(|_| ()), Step::Read(9), input(b"\n"), Step::Read(9)]);
}

#[test]
fn long_lines_and_full_buffers() {
    let long = vec![b'x'; 2000];
    check(&[input(&long), input(&long), input(&long), input(b"y\n"), Step::Read(4000), Step::Read(4000)]);
    let raw = with(|t| t.lflag &= !(ICANON | ECHO));
    check(&[
        raw,
        input(&long),
        input(&long),
        input(&long),
        Step::Read(1000),
        Step::Read(60),
        Step::Read(9000),
        Step::Read(9000),
    ]);
    let mut lines = Vec::new();
    (0..900).for_each(|i| lines.extend(std::format!("line {i}\n").bytes()));
    check(&[
        input(&lines[..3000]),
        input(&lines[3000..6000]),
        Step::Read(99),
        Step::Read(99),
        input(&lines[6000..]),
        Step::Read(5),
    ]);
}

#[test]
fn a_stop_is_lifted_though_the_buffer_is_full() {
    let raw = with(|t| t.lflag &= !(ICANON | ECHO));
    let long = vec![b'x'; 2500];
    check(&[
        raw,
        input(b"\x13"),
        input(&long),
        input(&long),
        Step::Write(b"held".to_vec()),
        input(b"q\x11r"),
        Step::Write(b"free".to_vec()),
        Step::Read(4000),
        Step::Read(4000),
    ]);
}

#[test]
fn output_processing() {
    for oflag in [
        0,
        OPOST,
        OPOST | ONLCR,
        OPOST | OCRNL,
        OPOST | ONOCR,
        OPOST | XTABS | ONLCR,
        OPOST | OLCUC,
        OPOST | ONLRET,
        OPOST | OCRNL | ONLRET | ONOCR | XTABS,
    ] {
        check(&[
            with(|t| t.oflag = oflag),
            Step::Write(b"ab\tc\n\r\rd\te\x08\x08\t\xe9\xdf\xff\xd7f\x01\x7fg\n\ta".to_vec()),
            input(b"\tx\x7f\x7f\n"),
        ]);
    }
}

fn flags(choices: &'static [u32], usual: u32) -> BoxedStrategy<u32> {
    let none = Just(0u32).boxed();
    choices.iter().fold(none, |all, &bit| {
        let on = prop::bool::weighted(if usual & bit != 0 { 0.75 } else { 0.25 });
        (all, on).prop_map(move |(all, on)| if on { all | bit } else { all }).boxed()
    })
}

fn settings() -> BoxedStrategy<Termios> {
    let i = flags(&[ISTRIP, INLCR, IGNCR, ICRNL, IUCLC, IXON, IXANY, IUTF8, PARMRK], ICRNL);
    let o = flags(&[OPOST, ONLCR, OCRNL, ONOCR, ONLRET, OLCUC, XTABS], OPOST | ONLCR);
    let l = flags(
        &[ISIG, ICANON, ECHO, ECHOE, ECHOK, ECHONL, NOFLSH, ECHOCTL, ECHOPRT, ECHOKE, IEXTEN],
        ICANON | ECHO | ECHOE | ECHOK | ECHOKE | ECHOCTL | IEXTEN,
    );
    let cc = prop::collection::vec((0..NCCS, prop::sample::select(&b"\0\x01\x03\x04\n\r\tab\x7f\xff\xe9"[..])), 0..3);
    let assemble = |(iflag, oflag, lflag, cc, min): (u32, u32, u32, Vec<(usize, u8)>, u8)| {
        let mut t = Termios { iflag, oflag, lflag, ..Termios::default() };
        cc.into_iter().for_each(|(index, c)| t.cc[index] = c);
        t.cc[VMIN as usize] = min;
        t.cc[VTIME as usize] = 0;
        t
    };
    (i, o, l, cc, 0u8..4).prop_map(assemble).boxed()
}

fn typed() -> BoxedStrategy<Vec<u8>> {
    let byte = prop_oneof![
        6 => prop::sample::select(&b"abz AZ_09.\t"[..]),
        4 => prop::sample::select(&b"\n\r\x7f\x15\x17\x16\x12\x04\x13\x11\0\x01\x08\x1b"[..]),
        2 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..40).boxed()
}

fn steps() -> BoxedStrategy<Vec<Step>> {
    let step = prop_oneof![
        2 => settings().prop_map(Step::Set),
        6 => typed().prop_map(Step::Input),
        3 => typed().prop_map(Step::Write),
        3 => (1usize..50).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 1..12).boxed()
}

/// A signal character throws away echo that the host may or may not have sent yet, so it comes first in its input.
fn is_racy(steps: &[Step]) -> bool {
    let mut t = Termios::default();
    steps.iter().any(|step| {
        if let Step::Set(new) = step {
            t = *new;
        }
        let signals = [t.control(VINTR), t.control(VQUIT), t.control(VSUSP)];
        let masked = |c: u8| if t.i(ISTRIP) { c & 0x7f } else { c };
        let is_signal = |&c: &u8| signals.iter().any(|&s| s != 0 && (s == c || s == masked(c)));
        matches!(step, Step::Input(bytes) if t.l(ISIG) && !t.l(NOFLSH) && bytes.iter().skip(1).any(is_signal))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_the_host(steps in steps().prop_filter("racy on the host", |s| !is_racy(s))) {
        if let Err(difference) = compare(&steps) {
            return Err(TestCaseError::fail(difference));
        }
    }
}
