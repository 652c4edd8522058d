//! Times, clocks and timers.

use super::{Kind, Printer, signal};
use crate::host::TimeSpec;
use alloc::format;
use alloc::string::String;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("timespec_in", timespec),
    Kind::exit("timespec_out", timespec),
    Kind::exit("timespec_left", time_left),
    Kind::entry("timeval_in", timeval),
    Kind::exit("timeval_out", timeval),
    Kind::entry("timespec_pair", timespec_pair),
    Kind::entry("timeval_pair", timeval_pair),
    Kind::entry("itimerspec_in", itimerspec),
    Kind::exit("itimerspec_out", itimerspec),
    Kind::entry("itimerval_in", itimerval),
    Kind::exit("itimerval_out", itimerval),
    Kind::exit("tms", tms),
    Kind::entry("clock", |p, v| p.choice(v & 0xffff_ffff, CLOCKS, "CLOCK_???")),
    Kind::entry("clock_flags", |p, v| p.flags(v, &[(1, "TIMER_ABSTIME")], "TIMER_???")),
    Kind::entry("itimer", |p, v| {
        p.choice(v, &[(0, "ITIMER_REAL"), (1, "ITIMER_VIRTUAL"), (2, "ITIMER_PROF")], "ITIMER_???");
    }),
    Kind::entry("timerfd_flags", |p, v| {
        p.flags(v, &[(0o2_000_000, "TFD_CLOEXEC"), (0o4000, "TFD_NONBLOCK")], "TFD_???");
    }),
    Kind::entry("timerfd_settime_flags", |p, v| {
        p.flags(v, &[(1, "TFD_TIMER_ABSTIME"), (2, "TFD_TIMER_CANCEL_ON_SET")], "TFD_???");
    }),
    Kind::entry("sigevent", sigevent),
    Kind::exit("timer_id_out", |p, v| p.structure(v, |p, id: i32| p.push(&format!("[{id}]")))),
];

const CLOCKS: &[(u64, &str)] = &[
    (0, "CLOCK_REALTIME"),
    (1, "CLOCK_MONOTONIC"),
    (2, "CLOCK_PROCESS_CPUTIME_ID"),
    (3, "CLOCK_THREAD_CPUTIME_ID"),
    (4, "CLOCK_MONOTONIC_RAW"),
    (5, "CLOCK_REALTIME_COARSE"),
    (6, "CLOCK_MONOTONIC_COARSE"),
    (7, "CLOCK_BOOTTIME"),
    (8, "CLOCK_REALTIME_ALARM"),
    (9, "CLOCK_BOOTTIME_ALARM"),
    (11, "CLOCK_TAI"),
];

pub(super) fn show_timespec(ts: TimeSpec) -> String {
    format!("{{tv_sec={}, tv_nsec={}}}", ts.sec, ts.nsec)
}

fn show_timeval(tv: [i64; 2]) -> String {
    format!("{{tv_sec={}, tv_usec={}}}", tv[0], tv[1])
}

fn timespec(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, ts: TimeSpec| p.push(&show_timespec(ts)));
}

fn timeval(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, tv: [i64; 2]| p.push(&show_timeval(tv)));
}

/// What is left of a sleep: filled only when a handler ends it, which the call does not know yet.
fn time_left(p: &mut Printer, addr: u64) {
    p.address(addr);
}

fn timespec_pair(p: &mut Printer, addr: u64) {
    const UTIME_NOW: i64 = (1 << 30) - 1;
    const UTIME_OMIT: i64 = (1 << 30) - 2;
    p.structure(addr, |p, pair: [TimeSpec; 2]| {
        let show = |ts: TimeSpec| match ts.nsec {
            UTIME_NOW => "UTIME_NOW".into(),
            UTIME_OMIT => "UTIME_OMIT".into(),
            _ => show_timespec(ts),
        };
        let text = format!("[{}, {}]", show(pair[0]), show(pair[1]));
        p.push(&text);
    });
}

fn timeval_pair(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, pair: [[i64; 2]; 2]| {
        let text = format!("[{}, {}]", show_timeval(pair[0]), show_timeval(pair[1]));
        p.push(&text);
    });
}

fn itimerspec(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, pair: [TimeSpec; 2]| {
        let text = format!("{{it_interval={}, it_value={}}}", show_timespec(pair[0]), show_timespec(pair[1]));
        p.push(&text);
    });
}

fn itimerval(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, pair: [[i64; 2]; 2]| {
        let text = format!("{{it_interval={}, it_value={}}}", show_timeval(pair[0]), show_timeval(pair[1]));
        p.push(&text);
    });
}

fn tms(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, t: [u64; 4]| {
        let text = format!("{{tms_utime={}, tms_stime={}, tms_cutime={}, tms_cstime={}}}", t[0], t[1], t[2], t[3]);
        p.push(&text);
    });
}

fn sigevent(p: &mut Printer, addr: u64) {
    const NOTIFY: &[(u64, &str)] =
        &[(0, "SIGEV_SIGNAL"), (1, "SIGEV_NONE"), (2, "SIGEV_THREAD"), (4, "SIGEV_THREAD_ID")];
    // sigev_value, then sigev_signo and sigev_notify, then sigev_notify_thread_id.
    p.structure(addr, |p, words: [u64; 3]| {
        let (value, signo, notify) = (words[0], words[1] & 0xffff_ffff, words[1] >> 32);
        p.push("{");
        if value != 0 {
            p.push(&format!("sigev_value={{sival_int={}, sival_ptr={value:#x}}}, ", value as i32));
        }
        p.push(&format!("sigev_signo={}, sigev_notify=", signal::argument(signo)));
        p.choice(notify, NOTIFY, "SIGEV_???");
        if notify == 4 {
            p.push(&format!(", sigev_notify_thread_id={}", words[2] as i32));
        }
        p.push("}");
    });
}
