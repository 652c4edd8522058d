use super::*;
use crate::host::monotonic_ns;
use crate::testing::{Machine, addr, machine, soon};
use crate::{Ctx, Errno};
use core::cell::Cell;
use linux_raw_sys::general::*;
use std::vec::Vec;

const MS: u64 = 1_000_000;

/// Runs `test` with the timer thread at work.
fn with_timers(test: impl FnOnce(&Machine, &Ctx)) {
    let machine = machine();
    let kernel = machine.kernel.clone();
    let timers = std::thread::spawn(move || run(&kernel));
    let task = machine.task();
    test(&machine, &machine.ctx(&task));
    machine.kernel.time.stop();
    timers.join().unwrap();
}

fn pending(ctx: &Ctx) -> bool {
    let set = Cell::new(0u64);
    ctx.call(__NR_rt_sigpending, &[addr(&set), 8]).unwrap();
    set.get() & 1 << (SIGALRM - 1) != 0
}

#[test]
fn a_relative_sleep_takes_its_time_and_checks_its_argument() {
    with_timers(|_, ctx| {
        let start = monotonic_ns();
        assert_eq!(ctx.call(__NR_nanosleep, &[addr(&[0u64, 20 * MS]), 0]), Ok(0));
        assert!(monotonic_ns() - start >= 20 * MS);
        for bad in [[0, NSEC_PER_SEC], [u64::MAX, 0]] {
            assert_eq!(ctx.call(__NR_nanosleep, &[addr(&bad), 0]).unwrap_err(), Errno::EINVAL);
        }
        assert_eq!(ctx.call(__NR_nanosleep, &[1, 0]).unwrap_err(), Errno::EFAULT);
        let absolute = [0u64, 1];
        assert_eq!(ctx.call(__NR_clock_nanosleep, &[0, 1, addr(&absolute), 0]), Ok(0));
        assert_eq!(ctx.call(__NR_clock_nanosleep, &[4, 0, addr(&absolute), 0]).unwrap_err(), Errno::EOPNOTSUPP);
        assert_eq!(ctx.call(__NR_clock_nanosleep, &[3, 0, addr(&absolute), 0]).unwrap_err(), Errno::EOPNOTSUPP);
    });
}

#[test]
fn a_real_interval_timer_sends_its_signal() {
    with_timers(|_, ctx| {
        let blocked = 1u64 << (SIGALRM - 1);
        ctx.call(__NR_rt_sigprocmask, &[0, addr(&blocked), 0, 8]).unwrap();
        let (value, old) = ([0u64, 0, 0, 5000], Cell::new([0u64; 4]));
        ctx.call(__NR_setitimer, &[0, addr(&value), 0]).unwrap();
        ctx.call(__NR_getitimer, &[0, addr(&old)]).unwrap();
        assert!((1..=5000).contains(&old.get()[3]));
        soon(|| pending(ctx));
        ctx.call(__NR_getitimer, &[0, addr(&old)]).unwrap();
        assert_eq!(old.get(), [0; 4]);
        assert_eq!(ctx.call(__NR_setitimer, &[3, addr(&value), 0]).unwrap_err(), Errno::EINVAL);
    });
}

#[test]
fn alarm_tells_the_seconds_left() {
    with_timers(|_, ctx| {
        assert_eq!(ctx.call(__NR_alarm, &[100]), Ok(0));
        assert_eq!(ctx.call(__NR_alarm, &[0]), Ok(100));
        assert_eq!(ctx.call(__NR_alarm, &[0]), Ok(0));
    });
}

#[test]
fn a_periodic_posix_timer_counts_what_its_signal_stands_for() {
    with_timers(|_, ctx| {
        let blocked = 1u64 << (SIGALRM - 1);
        ctx.call(__NR_rt_sigprocmask, &[0, addr(&blocked), 0, 8]).unwrap();
        let id = Cell::new(-1i32);
        ctx.call(__NR_timer_create, &[1, 0, addr(&id)]).unwrap();
        let every_ms = [0, MS, 0, MS];
        ctx.call(__NR_timer_settime, &[id.get() as u64, 0, addr(&every_ms), 0]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let info = Cell::new([0u32; 32]);
        let no_time = [0u64; 2];
        assert_eq!(ctx.call(__NR_rt_sigtimedwait, &[addr(&blocked), addr(&info), addr(&no_time), 8]), Ok(14));
        // si_code, si_timerid, si_overrun.
        assert_eq!(info.get()[2] as i32, -2);
        assert_eq!(info.get()[4] as i32, id.get());
        let overrun = info.get()[5] as usize;
        assert!((10..=40).contains(&overrun), "{overrun}");
        assert_eq!(ctx.call(__NR_timer_getoverrun, &[id.get() as u64]), Ok(overrun));
        assert_eq!(ctx.call(__NR_timer_delete, &[id.get() as u64]), Ok(0));
        assert_eq!(ctx.call(__NR_timer_delete, &[id.get() as u64]).unwrap_err(), Errno::EINVAL);
    });
}

#[test]
fn an_ignored_timer_signal_does_not_stop_the_timer() {
    with_timers(|_, ctx| {
        let ignore = [1u64, 0, 0, 0];
        ctx.call(__NR_rt_sigaction, &[SIGALRM.into(), addr(&ignore), 0, 8]).unwrap();
        let id = Cell::new(-1i32);
        ctx.call(__NR_timer_create, &[1, 0, addr(&id)]).unwrap();
        ctx.call(__NR_timer_settime, &[id.get() as u64, 0, addr(&[0, MS, 0, MS]), 0]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let (blocked, default) = (1u64 << (SIGALRM - 1), [0u64; 4]);
        ctx.call(__NR_rt_sigprocmask, &[0, addr(&blocked), 0, 8]).unwrap();
        ctx.call(__NR_rt_sigaction, &[SIGALRM.into(), addr(&default), 0, 8]).unwrap();
        soon(|| pending(ctx));
    });
}

#[test]
fn a_timer_descriptor_is_read_once_a_tick() {
    with_timers(|_, ctx| {
        let fd = ctx.call(__NR_timerfd_create, &[1, u64::from(O_NONBLOCK)]).unwrap() as u64;
        let ticks = Cell::new(0u64);
        let read = || ctx.call(__NR_read, &[fd, addr(&ticks), 8]);
        assert_eq!(read().unwrap_err(), Errno::EAGAIN);
        ctx.call(__NR_timerfd_settime, &[fd, 0, addr(&[0, 2 * MS, 0, 2 * MS]), 0]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(read(), Ok(8));
        assert!((5..=20).contains(&ticks.get()), "{}", ticks.get());
        ctx.call(__NR_timerfd_settime, &[fd, 0, addr(&[0u64; 4]), 0]).unwrap();
        assert_eq!(read().unwrap_err(), Errno::EAGAIN);
        assert_eq!(ctx.call(__NR_read, &[fd, addr(&ticks), 4]).unwrap_err(), Errno::EINVAL);
    });
}

#[test]
fn clocks_are_known_by_their_ids() {
    with_timers(|_, ctx| {
        let ts = Cell::new([0u64; 2]);
        let known: Vec<u64> = (0..16).filter(|&id| ctx.call(__NR_clock_gettime, &[id, addr(&ts)]).is_ok()).collect();
        assert_eq!(known, [0, 1, 2, 3, 4, 5, 6, 7, 11]);
        assert_eq!(ctx.call(__NR_clock_getres, &[0, 0]), Ok(0));
        assert_eq!(ctx.call(__NR_clock_settime, &[0, addr(&ts)]).unwrap_err(), Errno::EPERM);
    });
}
