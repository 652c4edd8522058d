use crate::errno::Errno;
use crate::kernel::Ctx;
use crate::testing::{addr, machine};
use core::cell::Cell;
use linux_raw_sys::general::*;
use std::vec;
use std::vec::Vec;

fn eventfd(ctx: &Ctx, initial: u64, flags: u32) -> u64 {
    ctx.call(__NR_eventfd2, &[initial, u64::from(flags | EFD_NONBLOCK)]).unwrap() as u64
}

fn ctl(ctx: &Ctx, set: u64, op: u32, fd: u64, events: u32, data: u64) -> crate::Result<usize> {
    let mut event = [0u8; 12];
    event[..4].copy_from_slice(&events.to_le_bytes());
    event[4..].copy_from_slice(&data.to_le_bytes());
    ctx.call(__NR_epoll_ctl, &[set, u64::from(op), fd, addr(&event)])
}

fn wait(ctx: &Ctx, set: u64, timeout: i32) -> Vec<(u32, u64)> {
    let raw = Cell::new([[0u8; 12]; 8]);
    let n = ctx.call(__NR_epoll_wait, &[set, addr(&raw), 8, timeout as u64]).unwrap();
    let mut out = vec![];
    for event in &raw.get()[..n] {
        out.push((
            u32::from_le_bytes(event[..4].try_into().unwrap()),
            u64::from_le_bytes(event[4..].try_into().unwrap()),
        ));
    }
    out
}

fn add(ctx: &Ctx, fd: u64, value: u64) {
    assert_eq!(ctx.call(__NR_write, &[fd, addr(&value), 8]), Ok(8));
}

fn take(ctx: &Ctx, fd: u64) -> crate::Result<u64> {
    let value = Cell::new(0u64);
    ctx.call(__NR_read, &[fd, addr(&value), 8])?;
    Ok(value.get())
}

#[test]
fn levels_and_edges() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let set = ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64;
    let (level, edge) = (eventfd(&ctx, 0, 0), eventfd(&ctx, 0, 0));
    ctl(&ctx, set, EPOLL_CTL_ADD, level, EPOLLIN, 1).unwrap();
    ctl(&ctx, set, EPOLL_CTL_ADD, edge, EPOLLIN | EPOLLET, 2).unwrap();
    assert_eq!(wait(&ctx, set, 0), vec![]);
    add(&ctx, level, 1);
    add(&ctx, edge, 1);
    assert_eq!(wait(&ctx, set, 0), vec![(EPOLLIN, 1), (EPOLLIN, 2)]);
    assert_eq!(wait(&ctx, set, 0), vec![(EPOLLIN, 1)]);
    add(&ctx, edge, 1);
    assert_eq!(wait(&ctx, set, 0).len(), 2);
    assert_eq!(take(&ctx, level), Ok(1));
    assert_eq!(take(&ctx, edge), Ok(2));
    assert_eq!(wait(&ctx, set, 0), vec![]);
}

#[test]
fn one_shot_rests_until_armed_again() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let set = ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64;
    let fd = eventfd(&ctx, 5, 0);
    ctl(&ctx, set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT, 7).unwrap();
    assert_eq!(wait(&ctx, set, 0), vec![(EPOLLIN, 7)]);
    add(&ctx, fd, 1);
    assert_eq!(wait(&ctx, set, 0), vec![]);
    ctl(&ctx, set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT | EPOLLONESHOT, 8).unwrap();
    assert_eq!(wait(&ctx, set, 0), vec![(EPOLLIN | EPOLLOUT, 8)]);
}

#[test]
fn wrong_uses_are_refused() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let set = ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64;
    let fd = eventfd(&ctx, 0, 0);
    let err = |r: crate::Result<usize>| r.unwrap_err().errno;
    assert_eq!(err(ctx.call(__NR_epoll_create, &[0])), Errno::EINVAL);
    assert_eq!(err(ctx.call(__NR_epoll_create1, &[1])), Errno::EINVAL);
    assert_eq!(err(ctl(&ctx, set, EPOLL_CTL_ADD, 99, EPOLLIN, 0)), Errno::EBADF);
    assert_eq!(err(ctl(&ctx, 99, EPOLL_CTL_ADD, fd, EPOLLIN, 0)), Errno::EBADF);
    assert_eq!(err(ctl(&ctx, fd, EPOLL_CTL_ADD, set, EPOLLIN, 0)), Errno::EINVAL);
    assert_eq!(err(ctl(&ctx, set, EPOLL_CTL_ADD, set, EPOLLIN, 0)), Errno::EINVAL);
    assert_eq!(err(ctl(&ctx, set, EPOLL_CTL_MOD, fd, EPOLLIN, 0)), Errno::ENOENT);
    assert_eq!(err(ctl(&ctx, set, EPOLL_CTL_DEL, fd, EPOLLIN, 0)), Errno::ENOENT);
    assert_eq!(err(ctl(&ctx, set, 77, fd, EPOLLIN, 0)), Errno::EINVAL);
    assert_eq!(err(ctl(&ctx, set, EPOLL_CTL_ADD, fd, EPOLLEXCLUSIVE | EPOLLPRI, 0)), Errno::EINVAL);
    ctl(&ctx, set, EPOLL_CTL_ADD, fd, EPOLLIN, 0).unwrap();
    assert_eq!(err(ctl(&ctx, set, EPOLL_CTL_ADD, fd, EPOLLIN, 0)), Errno::EEXIST);
    assert_eq!(err(ctx.call(__NR_epoll_ctl, &[set, u64::from(EPOLL_CTL_MOD), fd, 0])), Errno::EFAULT);
    assert_eq!(err(ctx.call(__NR_epoll_wait, &[set, 16, 0, 0])), Errno::EINVAL);
    add(&ctx, fd, 1);
    assert_eq!(err(ctx.call(__NR_epoll_wait, &[set, 16, 1, 0])), Errno::EFAULT);
    assert_eq!(wait(&ctx, set, 0).len(), 1);
}

#[test]
fn nesting_works_but_never_in_circles() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let sets: Vec<u64> = (0..6).map(|_| ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64).collect();
    let fd = eventfd(&ctx, 0, 0);
    ctl(&ctx, sets[0], EPOLL_CTL_ADD, fd, EPOLLIN, 1).unwrap();
    ctl(&ctx, sets[1], EPOLL_CTL_ADD, sets[0], EPOLLIN, 2).unwrap();
    ctl(&ctx, sets[2], EPOLL_CTL_ADD, sets[1], EPOLLIN, 3).unwrap();
    assert_eq!(ctl(&ctx, sets[0], EPOLL_CTL_ADD, sets[2], EPOLLIN, 4).unwrap_err().errno, Errno::ELOOP);
    assert_eq!(wait(&ctx, sets[2], 0), vec![]);
    add(&ctx, fd, 1);
    assert_eq!(wait(&ctx, sets[2], 0), vec![(EPOLLIN, 3)]);
    assert_eq!(wait(&ctx, sets[0], 0), vec![(EPOLLIN, 1)]);
    take(&ctx, fd).unwrap();
    assert_eq!(wait(&ctx, sets[2], 0), vec![]);
}

#[test]
fn a_closed_file_is_no_member_any_more() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let set = ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64;
    let fd = eventfd(&ctx, 1, 0);
    ctl(&ctx, set, EPOLL_CTL_ADD, fd, EPOLLIN, 1).unwrap();
    let copy = ctx.call(__NR_dup, &[fd]).unwrap() as u64;
    ctx.call(__NR_close, &[fd]).unwrap();
    assert_eq!(wait(&ctx, set, 0), vec![(EPOLLIN, 1)], "the open file lives on in the copy");
    ctx.call(__NR_close, &[copy]).unwrap();
    assert_eq!(wait(&ctx, set, 0), vec![]);
    let other = eventfd(&ctx, 1, 0);
    assert_eq!(other, fd);
    ctl(&ctx, set, EPOLL_CTL_ADD, other, EPOLLIN, 2).unwrap();
    assert_eq!(wait(&ctx, set, 0), vec![(EPOLLIN, 2)]);
}

#[test]
fn a_sleeper_is_woken_by_another_thread() {
    let m = machine();
    let (task, other) = (m.task(), m.task());
    let ctx = m.ctx(&task);
    let set = ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64;
    let fd = eventfd(&ctx, 0, 0);
    ctl(&ctx, set, EPOLL_CTL_ADD, fd, EPOLLIN, 1).unwrap();
    other.files.set(task.files());
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            add(&m.ctx(&other), fd, 3);
        });
        assert_eq!(wait(&ctx, set, 5000), vec![(EPOLLIN, 1)]);
    });
    assert_eq!(take(&ctx, fd), Ok(3));
    let before = std::time::Instant::now();
    assert_eq!(wait(&ctx, set, 50), vec![]);
    assert!(before.elapsed().as_millis() >= 50);
}

#[test]
fn a_signal_interrupts_and_the_mask_is_swapped() {
    use crate::signal::{self, SigInfo, number};
    let m = machine();
    let init = m.task();
    let task = m.child(&init);
    let ctx = m.ctx(&task);
    let set = ctx.call(__NR_epoll_create1, &[0]).unwrap() as u64;
    let raw = [[0u8; 12]; 1];
    let blocked = signal::SigSet::of(&[number::SIGTERM]);
    signal::set_blocked(&ctx, blocked);
    signal::send_to_process(&m.kernel, &task.process, SigInfo::kernel(number::SIGTERM)).unwrap();
    assert_eq!(wait(&ctx, set, 0), vec![]);
    let none = 0u64;
    let result = ctx.call(__NR_epoll_pwait, &[set, addr(&raw), 1, u64::MAX, addr(&none), 8]);
    assert_eq!(result.unwrap_err().errno, Errno::EINTR);
}
