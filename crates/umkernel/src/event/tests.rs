use crate::errno::Errno;
use crate::kernel::Ctx;
use crate::testing::{addr, machine, open};
use core::cell::Cell;
use linux_raw_sys::general::*;
use std::vec;

fn eventfd(ctx: &Ctx, initial: u64, flags: u32) -> u64 {
    ctx.call(__NR_eventfd2, &[initial, u64::from(flags)]).unwrap() as u64
}

fn poll(ctx: &Ctx, fds: &mut [(i32, u16, u16)], timeout: i32) -> crate::Result<usize> {
    let mut raw: vec::Vec<[u8; 8]> = fds
        .iter()
        .map(|&(fd, events, _)| {
            let mut r = [0xff; 8];
            r[..4].copy_from_slice(&fd.to_le_bytes());
            r[4..6].copy_from_slice(&events.to_le_bytes());
            r
        })
        .collect();
    let result = ctx.call(__NR_poll, &[raw.as_mut_ptr() as u64, fds.len() as u64, timeout as u64]);
    for (fd, r) in fds.iter_mut().zip(&raw) {
        fd.2 = u16::from_le_bytes([r[6], r[7]]);
    }
    result
}

fn pipe(ctx: &Ctx) -> [i32; 2] {
    let fds = Cell::new([0i32; 2]);
    ctx.call(__NR_pipe2, &[addr(&fds), 0]).unwrap();
    fds.get()
}

const IN: u16 = 1;
const OUT: u16 = 4;
const HUP: u16 = 0x10;
const NVAL: u16 = 0x20;

#[test]
fn poll_reports_each_file() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let fds = pipe(&ctx);
    let event = eventfd(&ctx, 0, 0) as i32;
    let mut set = [(fds[0], IN, 0), (fds[1], OUT, 0), (event, IN | OUT, 0), (-5, IN, 0), (99, IN, 0)];
    assert_eq!(poll(&ctx, &mut set, -1), Ok(3));
    assert_eq!(set.map(|s| s.2), [0, OUT, OUT, 0, NVAL]);
    ctx.call(__NR_close, &[fds[1] as u64]).unwrap();
    let mut set = [(fds[0], 0, 0)];
    assert_eq!(poll(&ctx, &mut set, -1), Ok(1));
    assert_eq!(set[0].2, HUP);
    assert_eq!(ctx.call(__NR_poll, &[8, 1, 0]).unwrap_err().errno, Errno::EFAULT);
    assert_eq!(ctx.call(__NR_poll, &[0, 1 << 20, 0]).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(poll(&ctx, &mut [], 1), Ok(0));
}

#[test]
fn ppoll_stores_the_time_left() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let event = eventfd(&ctx, 1, 0);
    let mut raw = [0u8; 8];
    raw[0] = event as u8;
    raw[4] = 1;
    let time = Cell::new([10i64, 0]);
    assert_eq!(ctx.call(__NR_ppoll, &[addr(&raw), 1, addr(&time), 0, 0]), Ok(1));
    let left = time.get();
    assert!(left[0] == 9 && left[1] > 900_000_000, "{left:?}");
    for bad in [[0i64, -1], [0, 1_000_000_000], [-1, 0]] {
        assert_eq!(ctx.call(__NR_ppoll, &[addr(&raw), 1, addr(&bad), 0, 0]).unwrap_err().errno, Errno::EINVAL);
    }
    let mask = 0u64;
    let args = [addr(&raw), 1, addr(&time), addr(&mask), 4];
    assert_eq!(ctx.call(__NR_ppoll, &args).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn select_counts_bits() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let fds = pipe(&ctx);
    let event = eventfd(&ctx, 1, 0);
    let bit = |fd: u64| 1u64 << fd;
    let read = Cell::new(bit(fds[0] as u64) | bit(event));
    let write = Cell::new(bit(fds[1] as u64) | bit(event));
    assert_eq!(ctx.call(__NR_select, &[10, addr(&read), addr(&write), 0, 0]), Ok(3));
    assert_eq!((read.get(), write.get()), (bit(event), bit(fds[1] as u64) | bit(event)));
    let bad = Cell::new(1u64 << 40);
    assert_eq!(ctx.call(__NR_select, &[64, addr(&bad), 0, 0, 0]).unwrap_err().errno, Errno::EBADF);
    let time = Cell::new([0i64, 1000]);
    assert_eq!(ctx.call(__NR_select, &[40, addr(&bad), 0, 0, addr(&time)]), Ok(0));
    assert_eq!(ctx.call(__NR_select, &[u64::MAX, 0, 0, 0, 0]).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn select_waits_on_when_only_a_hang_up_comes() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let fds = pipe(&ctx);
    ctx.call(__NR_close, &[fds[1] as u64]).unwrap();
    let except = Cell::new(1u64 << fds[0]);
    let time = Cell::new([0i64, 20_000]);
    let start = std::time::Instant::now();
    assert_eq!(ctx.call(__NR_select, &[64, 0, 0, addr(&except), addr(&time)]), Ok(0));
    assert!(start.elapsed().as_millis() >= 20);
    assert_eq!(time.get(), [0, 0]);
}

#[test]
fn event_counters() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let (fd, sem) = (eventfd(&ctx, 3, EFD_NONBLOCK), eventfd(&ctx, 2, EFD_NONBLOCK | EFD_SEMAPHORE));
    let value = Cell::new(0u64);
    let read = |fd| ctx.call(__NR_read, &[fd, addr(&value), 8]).map(|_| value.get()).map_err(|e| e.errno);
    assert_eq!(read(fd), Ok(3));
    assert_eq!(read(fd), Err(Errno::EAGAIN));
    assert_eq!((read(sem), read(sem), read(sem)), (Ok(1), Ok(1), Err(Errno::EAGAIN)));
    let (max, one, most) = (u64::MAX, 1u64, u64::MAX - 1);
    let write = |v: &u64| ctx.call(__NR_write, &[fd, addr(v), 8]).map_err(|e| e.errno);
    assert_eq!(write(&max), Err(Errno::EINVAL));
    assert_eq!((write(&most), write(&one)), (Ok(8), Err(Errno::EAGAIN)));
    assert_eq!(ctx.call(__NR_read, &[fd, addr(&value), 4]).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(ctx.call(__NR_eventfd2, &[0, 2]).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn signals_are_read_as_data() {
    use crate::signal::{self, SigInfo, number};
    let m = machine();
    let init = m.task();
    let task = m.child(&init);
    let ctx = m.ctx(&task);
    let mask = signal::SigSet::of(&[number::SIGUSR1, number::SIGUSR2]);
    signal::set_blocked(&ctx, mask);
    let fd = ctx.call(__NR_signalfd4, &[u64::MAX, addr(&mask.0), 8, u64::from(EFD_NONBLOCK)]).unwrap() as u64;
    let mut set = [(fd as i32, IN, 0)];
    assert_eq!(poll(&ctx, &mut set, 0), Ok(0));
    for sig in [number::SIGUSR2, number::SIGUSR1] {
        signal::send_to_process(&m.kernel, &task.process, SigInfo::user(sig, 0, 42, 7)).unwrap();
    }
    assert_eq!(poll(&ctx, &mut set, 0), Ok(1));
    let infos = Cell::new([[0u8; 128]; 3]);
    assert_eq!(ctx.call(__NR_read, &[fd, addr(&infos), 3 * 128]), Ok(256));
    let got = infos.get();
    assert_eq!((got[0][0], got[1][0], got[0][12]), (number::SIGUSR1, number::SIGUSR2, 42));
    assert_eq!(ctx.call(__NR_read, &[fd, addr(&infos), 128]).unwrap_err().errno, Errno::EAGAIN);
    assert_eq!(ctx.call(__NR_read, &[fd, addr(&infos), 100]).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn memory_devices() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    use crate::vfs::{DeviceKind, makedev};
    let root = task.fs().inner.lock().root.clone();
    let file = |minor| {
        let rdev = makedev(1, minor);
        let device = m.kernel.vfs.devices.get(DeviceKind::Char, rdev).unwrap();
        let ops = device.open(&ctx, &root, rdev, crate::vfs::OpenFlags::RDWR).unwrap();
        let inode = m.kernel.vfs.anon_inode(crate::vfs::FileType::CharDevice, 0o666, (0, 0));
        let file = m.kernel.vfs.anon_file_on("device", inode, Some(ops), crate::vfs::OpenFlags::RDWR);
        ctx.files().insert(file, false, 0, 99).unwrap() as u64
    };
    let (null, zero, full, random) = (file(3), file(5), file(7), file(8));
    let buf = Cell::new([1u8; 9000]);
    let io = |nr, fd| ctx.call(nr, &[fd, addr(&buf), 9000]).map_err(|e| e.errno);
    assert_eq!((io(__NR_read, null), io(__NR_write, null)), (Ok(0), Ok(9000)));
    assert_eq!((io(__NR_read, zero), io(__NR_write, zero)), (Ok(9000), Ok(9000)));
    assert!(buf.get().iter().all(|&b| b == 0));
    assert_eq!((io(__NR_read, full), io(__NR_write, full)), (Ok(9000), Err(Errno::ENOSPC)));
    assert_eq!(io(__NR_read, random), Ok(9000));
    assert!(buf.get().iter().filter(|&&b| b == 0).count() < 200);
    assert_eq!(ctx.call(__NR_read, &[zero, 8, 10]).unwrap_err().errno, Errno::EFAULT);
    let set = ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64;
    let event = [0u8; 12];
    assert_eq!(ctx.call(__NR_epoll_ctl, &[set, 1, null, addr(&event)]).unwrap_err().errno, Errno::EPERM);
    assert!(open(&ctx, "/ptmx", 2).is_ok());
}
