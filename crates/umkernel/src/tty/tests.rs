//! Terminals as programs see them: system calls on pseudoterminals and consoles.

use super::termios::*;
use super::{ConsoleOutput, Tty};
use crate::errno::Errno;
use crate::kernel::Ctx;
use crate::signal::{self, SigAction, SigSet, number};
use crate::sync::Mutex;
use crate::testing::{Machine, addr, machine, open, soon};
use crate::vfs::{DeviceKind, OpenFlags};
use core::cell::Cell;
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::*;
use std::boxed::Box;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

const RDWR: u32 = O_RDWR;

fn ioctl(ctx: &Ctx, fd: u64, cmd: u32, arg: u64) -> Result<usize, Errno> {
    ctx.call(__NR_ioctl, &[fd, u64::from(cmd), arg]).map_err(|e| e.errno)
}

fn get(ctx: &Ctx, fd: u64, cmd: u32) -> Result<i32, Errno> {
    let value = Cell::new(-1);
    ioctl(ctx, fd, cmd, addr(&value))?;
    Ok(value.get())
}

fn set(ctx: &Ctx, fd: u64, cmd: u32, value: i32) -> Result<usize, Errno> {
    ioctl(ctx, fd, cmd, addr(&value))
}

fn read(ctx: &Ctx, fd: u64, max: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0u8; max];
    let n = ctx.call(__NR_read, &[fd, buf.as_mut_ptr() as u64, max as u64]).map_err(|e| e.errno)?;
    buf.truncate(n);
    Ok(buf)
}

fn write(ctx: &Ctx, fd: u64, data: &[u8]) -> Result<usize, Errno> {
    ctx.call(__NR_write, &[fd, addr(data), data.len() as u64]).map_err(|e| e.errno)
}

fn close(ctx: &Ctx, fd: u64) {
    ctx.call(__NR_close, &[fd]).unwrap();
}

fn set_termios(ctx: &Ctx, fd: u64, change: impl FnOnce(&mut Termios)) {
    let raw = Cell::new([0u8; TERMIOS_SIZE]);
    ioctl(ctx, fd, TCGETS, addr(&raw)).unwrap();
    let mut t = Termios::from_termios(&raw.get(), &Termios::default());
    change(&mut t);
    ioctl(ctx, fd, TCSETS, addr(&t.to_termios())).unwrap();
}

fn events(ctx: &Ctx, fd: u64) -> u16 {
    let raw = Cell::new([fd as u16, 0, 0x7, 0]);
    ctx.call(__NR_poll, &[addr(&raw), 1, 0]).unwrap();
    raw.get()[3]
}

/// A new pseudoterminal: master and slave.
fn pty(ctx: &Ctx) -> (u64, u64) {
    let master = open(ctx, "/ptmx", RDWR | O_NONBLOCK).unwrap();
    set(ctx, master, TIOCSPTLCK, 0).unwrap();
    let index = get(ctx, master, TIOCGPTN).unwrap();
    let slave = open(ctx, &std::format!("/{index}"), RDWR | O_NONBLOCK).unwrap();
    (master, slave)
}

fn pending(task: &crate::task::Task, sig: u8) -> bool {
    signal::pending(task).contains(sig)
}

/// Keeps signals pending where a test can see them.
fn hold_signals(ctx: &Ctx) {
    signal::set_blocked(ctx, SigSet::FULL);
}

#[test]
fn lines_travel_both_ways() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let (master, slave) = pty(&ctx);
    assert_eq!(read(&ctx, slave, 10), Err(Errno::EAGAIN));
    assert_eq!(read(&ctx, master, 10), Err(Errno::EAGAIN));
    assert_eq!(write(&ctx, master, b"ab\x7fc\n"), Ok(5));
    assert_eq!(get(&ctx, slave, FIONREAD), Ok(3));
    assert_eq!(read(&ctx, slave, 10), Ok(b"ac\n".to_vec()));
    assert_eq!(read(&ctx, master, 99), Ok(b"ab\x08 \x08c\r\n".to_vec()));
    assert_eq!(write(&ctx, slave, b"x\ty\n"), Ok(4));
    assert_eq!(get(&ctx, master, FIONREAD), Ok(5));
    assert_eq!(read(&ctx, master, 99), Ok(b"x\ty\r\n".to_vec()));
    assert_eq!(ioctl(&ctx, slave, 0x5499, 0), Err(Errno::ENOTTY));
    assert_eq!(ioctl(&ctx, slave, TCGETS, 8), Err(Errno::EFAULT));
}

#[test]
fn a_locked_terminal_cannot_be_opened() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let master = open(&ctx, "/ptmx", RDWR).unwrap();
    assert_eq!(open(&ctx, "/0", RDWR).unwrap_err().errno, Errno::EIO);
    assert_eq!(get(&ctx, master, TIOCGPTLCK), Ok(1));
    set(&ctx, master, TIOCSPTLCK, 0).unwrap();
    let peer = ioctl(&ctx, master, TIOCGPTPEER, u64::from(RDWR | O_NOCTTY)).unwrap() as u64;
    assert_eq!(write(&ctx, peer, b"hi"), Ok(2));
    assert_eq!(read(&ctx, master, 9), Ok(b"hi".to_vec()));
    close(&ctx, master);
    assert_eq!(open(&ctx, "/0", RDWR).unwrap_err().errno, Errno::ENOENT);
}

#[test]
fn closing_either_side_shows_on_the_other() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let (master, slave) = pty(&ctx);
    write(&ctx, slave, b"last words").unwrap();
    close(&ctx, slave);
    assert_eq!(events(&ctx, master), 0x15);
    assert_eq!(read(&ctx, master, 99), Ok(b"last words".to_vec()));
    assert_eq!(read(&ctx, master, 99), Err(Errno::EIO));
    let slave = open(&ctx, "/0", RDWR | O_NONBLOCK).unwrap();
    assert_eq!(read(&ctx, master, 99), Err(Errno::EAGAIN));
    hold_signals(&ctx);
    close(&ctx, master);
    assert_eq!(read(&ctx, slave, 9), Ok(vec![]));
    assert_eq!(write(&ctx, slave, b"x"), Err(Errno::EIO));
    assert_eq!(events(&ctx, slave), 0x1d);
    assert_eq!(ioctl(&ctx, slave, TCGETS, 0), Err(Errno::EIO));
    assert!(pending(&task, number::SIGHUP) && pending(&task, number::SIGCONT));
    assert!(task.process.tty().is_none());
}

#[test]
fn a_leader_acquires_its_terminal() {
    let m = machine();
    let (init, task) = (m.task(), m.task());
    let ctx = m.ctx(&task);
    let master = open(&ctx, "/ptmx", RDWR).unwrap();
    set(&ctx, master, TIOCSPTLCK, 0).unwrap();
    let quiet = open(&ctx, "/0", RDWR | O_NOCTTY).unwrap();
    assert_eq!(get(&ctx, quiet, TIOCGPGRP), Err(Errno::ENOTTY));
    assert_eq!(get(&ctx, quiet, TIOCGSID), Err(Errno::ENOTTY));
    assert_eq!(get(&ctx, master, TIOCGPGRP), Ok(0));
    assert!(task.process.tty().is_none());
    assert_eq!(ioctl(&ctx, quiet, TIOCSCTTY, 0), Ok(0));
    assert_eq!(get(&ctx, quiet, TIOCGSID), Ok(task.tid()));
    assert_eq!(get(&ctx, master, TIOCGPGRP), Ok(task.tid()));
    assert_eq!(ioctl(&ctx, quiet, TIOCSCTTY, 0), Ok(0), "again is fine");
    // Another leader cannot have it, unless it is privileged and steals it.
    init.files.set(task.files());
    let other = m.ctx(&init);
    assert_eq!(ioctl(&other, quiet, TIOCSCTTY, 0), Err(Errno::EPERM));
    assert_eq!(ioctl(&other, quiet, TIOCSCTTY, 1), Ok(0));
    assert!(task.process.tty().is_none());
    assert_eq!(ioctl(&other, quiet, TIOCNOTTY, 0), Ok(0));
    assert_eq!(ioctl(&other, quiet, TIOCNOTTY, 0), Err(Errno::ENOTTY));
}

#[test]
fn background_groups_are_stopped() {
    let m = machine();
    let (_init, shell) = (m.task(), m.task());
    let job = m.child(&shell);
    let ctx = m.ctx(&shell);
    let (master, slave) = pty(&ctx);
    {
        let mut inner = job.process.inner.lock();
        inner.pgid = job.process.pid;
        inner.tty = shell.process.tty();
    }
    job.files.set(shell.files());
    let background = m.ctx(&job);
    write(&ctx, master, b"line\n").unwrap();

    assert_eq!(read(&background, slave, 9), Err(Errno::ERESTARTSYS));
    assert!(pending(&job, number::SIGTTIN));
    assert_eq!(write(&background, slave, b"x"), Ok(1), "without TOSTOP writing is free");
    set_termios(&ctx, slave, |t| t.lflag |= TOSTOP);
    assert_eq!(write(&background, slave, b"x"), Err(Errno::ERESTARTSYS));
    assert!(pending(&job, number::SIGTTOU));
    assert_eq!(ioctl(&background, slave, TCSETS, 0), Err(Errno::ERESTARTSYS));
    assert_eq!(set(&background, slave, TIOCSPGRP, job.process.pid), Err(Errno::ERESTARTSYS));

    // Blocked or ignored: reading fails, writing goes through.
    signal::set_blocked(&background, SigSet::of(&[number::SIGTTIN]));
    assert_eq!(read(&background, slave, 9), Err(Errno::EIO));
    job.process.handlers.lock().update(number::SIGTTOU, |a| a.handler = SigAction::IGNORE);
    assert_eq!(write(&background, slave, b"x"), Ok(1));
    assert_eq!(set(&background, slave, TIOCSPGRP, job.process.pid), Ok(0));
    assert_eq!(read(&background, slave, 9), Ok(b"line\n".to_vec()));

    // The shell is in the background now; its own group is no orphan's as long as its parent is in the session.
    assert_eq!(read(&ctx, slave, 9), Err(Errno::EIO), "an orphaned group");
    for (value, error) in [(-1, Errno::EINVAL), (9999, Errno::ESRCH), (1, Errno::EPERM)] {
        assert_eq!(set(&background, slave, TIOCSPGRP, value), Err(error));
    }
    assert_eq!(ioctl(&background, slave, TIOCSPGRP, 8), Err(Errno::EFAULT));
}

#[test]
fn typed_signals_and_sizes_reach_the_foreground() {
    let m = machine();
    let (_init, task) = (m.task(), m.task());
    let ctx = m.ctx(&task);
    hold_signals(&ctx);
    let (master, slave) = pty(&ctx);
    write(&ctx, master, b"abc\x03").unwrap();
    assert!(pending(&task, number::SIGINT));
    assert_eq!(read(&ctx, master, 99), Ok(b"^C".to_vec()), "the echo of abc was flushed");
    write(&ctx, master, b"\x1a\x1c").unwrap();
    assert!(pending(&task, number::SIGTSTP) && pending(&task, number::SIGQUIT));
    assert_eq!(ioctl(&ctx, master, TIOCSIG, u64::from(number::SIGTERM)), Err(Errno::EINVAL));

    let size = WinSize { rows: 24, cols: 80, xpixel: 1, ypixel: 2 };
    assert_eq!(ioctl(&ctx, master, TIOCSWINSZ, addr(&size.to_bytes())), Ok(0));
    assert!(pending(&task, number::SIGWINCH));
    signal::dequeue(&ctx, SigSet::FULL.without(number::SIGHUP));
    while signal::dequeue(&ctx, SigSet::of(&[number::SIGWINCH])).is_some() {}
    assert_eq!(ioctl(&ctx, slave, TIOCSWINSZ, addr(&size.to_bytes())), Ok(0));
    assert!(!pending(&task, number::SIGWINCH), "nothing changed");
    let got = Cell::new([0u8; 8]);
    assert_eq!(ioctl(&ctx, slave, TIOCGWINSZ, addr(&got)), Ok(0));
    assert_eq!(WinSize::from_bytes(&got.get()), size);
}

#[test]
fn packet_mode_reports_what_the_terminal_does() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let (master, slave) = pty(&ctx);
    set(&ctx, master, TIOCPKT, 1).unwrap();
    write(&ctx, slave, b"data").unwrap();
    assert_eq!(read(&ctx, master, 99), Ok(b"\0data".to_vec()));
    write(&ctx, master, b"\x13").unwrap();
    assert_eq!(events(&ctx, master), 0x7);
    assert_eq!(read(&ctx, master, 99), Ok(vec![TIOCPKT_STOP as u8]));
    write(&ctx, master, b"\x11").unwrap();
    assert_eq!(read(&ctx, master, 99), Ok(vec![TIOCPKT_START as u8]));
    set_termios(&ctx, slave, |t| t.iflag &= !IXON);
    assert_eq!(read(&ctx, master, 99), Ok(vec![TIOCPKT_NOSTOP as u8]));
    ioctl(&ctx, slave, TCFLSH, 2).unwrap();
    assert_eq!(read(&ctx, master, 99), Ok(vec![(TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE) as u8]));
    assert_eq!(ioctl(&ctx, slave, TCFLSH, 3), Err(Errno::EINVAL));
}

#[test]
fn held_output_blocks_writers_until_it_goes_on() {
    let m = machine();
    let (task, other) = (m.task(), m.task());
    let ctx = m.ctx(&task);
    let (master, _) = pty(&ctx);
    let slave = open(&ctx, "/0", RDWR).unwrap();
    other.files.set(task.files());
    ioctl(&ctx, slave, TCXONC, 0).unwrap();
    std::thread::scope(|s| {
        let writer = s.spawn(|| write(&m.ctx(&other), slave, b"held\n"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(read(&ctx, master, 9), Err(Errno::EAGAIN));
        assert_eq!(events(&ctx, slave), 0);
        write(&ctx, master, b"\x11").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(read(&ctx, master, 9), Err(Errno::EAGAIN), "^Q does not undo tcflow");
        ioctl(&ctx, slave, TCXONC, 1).unwrap();
        assert_eq!(writer.join().unwrap(), Ok(5));
    });
    assert_eq!(read(&ctx, master, 9), Ok(b"held\r\n".to_vec()));
}

#[test]
fn a_long_write_waits_for_its_reader() {
    let m = machine();
    let (task, other) = (m.task(), m.task());
    let ctx = m.ctx(&task);
    let (master, slave) = pty(&ctx);
    other.files.set(task.files());
    let data: Vec<u8> = (0..50_000u32).map(|i| b'a' + (i % 26) as u8).collect();
    let fits = write(&ctx, slave, &data).unwrap();
    assert!((8000..20_000).contains(&fits), "{fits}");
    let blocking = open(&ctx, "/0", RDWR).unwrap();
    let mut got = Vec::new();
    std::thread::scope(|s| {
        let writer = s.spawn(|| write(&m.ctx(&other), blocking, &data[fits..]));
        while got.len() < data.len() {
            match read(&ctx, master, 777) {
                Ok(more) => got.extend(more),
                Err(_) => std::thread::yield_now(),
            }
        }
        assert_eq!(writer.join().unwrap(), Ok(data.len() - fits));
    });
    assert_eq!(got, data);
}

#[test]
fn raw_reads_obey_min_and_time() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let (master, _) = pty(&ctx);
    let slave = open(&ctx, "/0", RDWR).unwrap();
    let mode = |min, time| {
        set_termios(&ctx, slave, |t| {
            t.lflag &= !(ICANON | ECHO);
            t.cc[VMIN as usize] = min;
            t.cc[VTIME as usize] = time;
        });
    };
    let timed = |max| {
        let start = std::time::Instant::now();
        (read(&ctx, slave, max).unwrap().len(), start.elapsed().as_millis() / 100)
    };
    mode(0, 0);
    assert_eq!(timed(9), (0, 0));
    mode(0, 2);
    assert_eq!(timed(9), (0, 2));
    mode(5, 1);
    write(&ctx, master, b"abc").unwrap();
    assert_eq!(timed(9), (3, 1));
    mode(2, 0);
    write(&ctx, master, b"abc").unwrap();
    assert_eq!(timed(9), (3, 0));
    write(&ctx, master, b"a").unwrap();
    assert_eq!(events(&ctx, slave) & 1, 0, "poll waits for VMIN");
    write(&ctx, master, b"b").unwrap();
    assert_eq!(events(&ctx, slave) & 1, 1);
    // As on Linux, a full read buffer of 64 bytes counts as enough.
    assert_eq!(timed(9), (2, 0));
    mode(100, 0);
    write(&ctx, master, &[b'x'; 150]).unwrap();
    assert_eq!(timed(200), (64, 0));
}

/// What a console printed, and how much more it takes.
#[derive(Default)]
struct Screen {
    text: Mutex<Vec<u8>>,
    full: std::sync::atomic::AtomicBool,
}

impl ConsoleOutput for Arc<Screen> {
    fn write(&self, bytes: &[u8]) -> usize {
        if self.full.load(std::sync::atomic::Ordering::SeqCst) {
            return 0;
        }
        self.text.lock().extend_from_slice(bytes);
        bytes.len()
    }
}

fn console(m: &Machine) -> (std::sync::Arc<Tty>, Arc<Screen>) {
    let screen = Arc::new(Screen::default());
    (m.kernel.ttys.add_console(0, Box::new(screen.clone())), screen)
}

/// Opens a device by number.
fn open_device(ctx: &Ctx, rdev: (u32, u32), flags: OpenFlags) -> Result<u64, Errno> {
    let rdev = crate::vfs::makedev(rdev.0, rdev.1);
    let root = ctx.fs().inner.lock().root.clone();
    let device = ctx.kernel.vfs.devices.get(DeviceKind::Char, rdev).map_err(|e| e.errno)?;
    let ops = device.open(ctx, &root, rdev, flags).map_err(|e| e.errno)?;
    let inode = ctx.kernel.vfs.anon_inode(crate::vfs::FileType::CharDevice, 0o666, (0, 0));
    let file = ctx.kernel.vfs.anon_file_on("tty", inode, Some(ops), flags);
    Ok(ctx.files().insert(file, false, 0, 99).unwrap() as u64)
}

#[test]
fn a_console_prints_and_takes_input() {
    let m = machine();
    let (tty, screen) = console(&m);
    crate::chardev::register(&m.kernel);
    let task = m.task();
    let ctx = m.ctx(&task);
    assert_eq!(open_device(&ctx, (5, 0), OpenFlags::RDWR), Err(Errno::ENXIO));
    let fd = open_device(&ctx, (5, 1), OpenFlags::RDWR).unwrap();
    assert!(task.process.tty().is_none(), "/dev/console controls nobody");
    assert_eq!(write(&ctx, fd, b"login: "), Ok(7));
    assert_eq!(tty.receive(&m.kernel, b"root\r"), 5);
    assert_eq!(read(&ctx, fd, 99), Ok(b"root\n".to_vec()));
    assert_eq!(*screen.text.lock(), b"login: root\r\n");

    let tty0 = open_device(&ctx, (4, 0), OpenFlags::RDWR).unwrap();
    assert!(task.process.tty().is_some());
    let current = open_device(&ctx, (5, 0), OpenFlags::RDWR).unwrap();
    assert_eq!(get(&ctx, current, TIOCGSID), Ok(task.tid()));
    hold_signals(&ctx);
    tty.resize(&m.kernel, 50, 132);
    assert!(pending(&task, number::SIGWINCH));
    assert_eq!(tty.window_size().cols, 132);

    super::disassociate(&m.kernel, &task.process);
    assert!(pending(&task, number::SIGHUP));
    assert_eq!(write(&ctx, tty0, b"x"), Err(Errno::EIO));
    assert_eq!(write(&ctx, fd, b"!"), Ok(1), "the console itself lives on");
}

#[test]
fn a_console_waits_for_the_host() {
    let m = machine();
    let (tty, screen) = console(&m);
    crate::chardev::register(&m.kernel);
    let (task, other) = (m.task(), m.task());
    let ctx = m.ctx(&task);
    let fd = open_device(&ctx, (5, 1), OpenFlags::RDWR).unwrap();
    other.files.set(task.files());
    screen.full.store(true, std::sync::atomic::Ordering::SeqCst);
    let data = vec![b'z'; 40_000];
    std::thread::scope(|s| {
        let writer = s.spawn(|| write(&m.ctx(&other), fd, &data));
        soon(|| tty.output_pending() >= 16 * 1024);
        assert!(!writer.is_finished());
        screen.full.store(false, std::sync::atomic::Ordering::SeqCst);
        tty.output_ready(&m.kernel);
        assert_eq!(writer.join().unwrap(), Ok(40_000));
    });
    assert_eq!(screen.text.lock().len(), 40_000);
    // Input beyond what fits is left to the caller.
    set_termios(&ctx, fd, |t| t.lflag &= !(ICANON | ECHO));
    let typed = vec![b'k'; 20_000];
    let first = tty.receive(&m.kernel, &typed[..8000]) + tty.receive(&m.kernel, &typed[..8000]);
    assert!(first < 16_000, "{first}");
    std::thread::scope(|s| {
        let waiter = s.spawn(|| tty.wait_for_input_room(None));
        let mut got = 0;
        while got < first {
            got += read(&ctx, fd, 4096).unwrap().len();
        }
        waiter.join().unwrap();
    });
}
