//! The system as a whole: names, limits, power.

use super::{Kind, Printer, text};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) const KINDS: &[Kind] = &[
    Kind::exit("utsname", utsname),
    Kind::exit("sysinfo", sysinfo),
    Kind::entry("reboot_magic", |p, v| p.choice(v & 0xffff_ffff, REBOOT, "LINUX_REBOOT_???")),
    Kind::entry("reboot_cmd", |p, v| p.choice(v & 0xffff_ffff, REBOOT, "LINUX_REBOOT_CMD_???")),
    Kind::entry("reboot_arg", |p, v| {
        // Only a restart with a command has one.
        if p.preceding() as u32 == 0xa1b2_c3d4 { p.string(v, p.limit) } else { p.omitted = true }
    }),
    Kind::entry("rlimit_resource", |p, v| p.choice(v & 0xffff_ffff, RLIMITS, "RLIMIT_???")),
    Kind::entry("rlimit_in", rlimit),
    Kind::exit("rlimit_out", rlimit),
    Kind::entry("rusage_who", |p, v| {
        p.choice(
            v & 0xffff_ffff,
            &[(0, "RUSAGE_SELF"), (0xffff_ffff, "RUSAGE_CHILDREN"), (1, "RUSAGE_THREAD")],
            "RUSAGE_???",
        );
    }),
    Kind::exit("rusage", rusage),
    Kind::entry("syslog_action", |p, v| p.choice(v & 0xffff_ffff, SYSLOG, "SYSLOG_ACTION_???")),
];

const REBOOT: &[(u64, &str)] = &[
    (0xfee1_dead, "LINUX_REBOOT_MAGIC1"),
    (0x2812_1969, "LINUX_REBOOT_MAGIC2"),
    (0x0512_1996, "LINUX_REBOOT_MAGIC2A"),
    (0x1604_1998, "LINUX_REBOOT_MAGIC2B"),
    (0x2011_2000, "LINUX_REBOOT_MAGIC2C"),
    (0x0123_4567, "LINUX_REBOOT_CMD_RESTART"),
    (0xcdef_0123, "LINUX_REBOOT_CMD_HALT"),
    (0x89ab_cdef, "LINUX_REBOOT_CMD_CAD_ON"),
    (0, "LINUX_REBOOT_CMD_CAD_OFF"),
    (0x4321_fedc, "LINUX_REBOOT_CMD_POWER_OFF"),
    (0xa1b2_c3d4, "LINUX_REBOOT_CMD_RESTART2"),
];

const RLIMITS: &[(u64, &str)] = &[
    (0, "RLIMIT_CPU"),
    (1, "RLIMIT_FSIZE"),
    (2, "RLIMIT_DATA"),
    (3, "RLIMIT_STACK"),
    (4, "RLIMIT_CORE"),
    (5, "RLIMIT_RSS"),
    (6, "RLIMIT_NPROC"),
    (7, "RLIMIT_NOFILE"),
    (8, "RLIMIT_MEMLOCK"),
    (9, "RLIMIT_AS"),
    (10, "RLIMIT_LOCKS"),
    (11, "RLIMIT_SIGPENDING"),
    (12, "RLIMIT_MSGQUEUE"),
    (13, "RLIMIT_NICE"),
    (14, "RLIMIT_RTPRIO"),
    (15, "RLIMIT_RTTIME"),
];

const SYSLOG: &[(u64, &str)] = &[
    (0, "SYSLOG_ACTION_CLOSE"),
    (1, "SYSLOG_ACTION_OPEN"),
    (2, "SYSLOG_ACTION_READ"),
    (3, "SYSLOG_ACTION_READ_ALL"),
    (4, "SYSLOG_ACTION_READ_CLEAR"),
    (5, "SYSLOG_ACTION_CLEAR"),
    (6, "SYSLOG_ACTION_CONSOLE_OFF"),
    (7, "SYSLOG_ACTION_CONSOLE_ON"),
    (8, "SYSLOG_ACTION_CONSOLE_LEVEL"),
    (9, "SYSLOG_ACTION_SIZE_UNREAD"),
    (10, "SYSLOG_ACTION_SIZE_BUFFER"),
];

/// The first two of the six fields, as strace abbreviates.
fn utsname(p: &mut Printer, addr: u64) {
    const FIELD: usize = 65;
    p.structure(addr, |p, fields: [[u8; FIELD]; 2]| {
        let show = |field: &[u8; FIELD]| {
            let end = field.iter().position(|&b| b == 0).unwrap_or(FIELD);
            text::quote(&field[..end], false)
        };
        p.push(&format!("{{sysname={}, nodename={}, ...}}", show(&fields[0]), show(&fields[1])));
    });
}

/// `struct sysinfo` as words; `procs` shares the eleventh with padding, `mem_unit` ends it.
fn sysinfo(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, w: [u64; 14]| {
        let names = ["totalram", "freeram", "sharedram", "bufferram", "totalswap", "freeswap"];
        let memory: Vec<String> = names.iter().zip(&w[4..10]).map(|(name, value)| format!("{name}={value}")).collect();
        p.push(&format!("{{uptime={}, loads=[{}, {}, {}], {}", w[0], w[1], w[2], w[3], memory.join(", ")));
        let (procs, unit) = (w[10] & 0xffff, w[13] & 0xffff_ffff);
        p.push(&format!(", procs={procs}, totalhigh={}, freehigh={}, mem_unit={unit}}}", w[11], w[12]));
    });
}

fn limit(value: u64) -> String {
    match value {
        u64::MAX => "RLIM64_INFINITY".into(),
        v if v > 1024 && v % 1024 == 0 => format!("{}*1024", v / 1024),
        v => format!("{v}"),
    }
}

fn rlimit(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, [cur, max]: [u64; 2]| {
        p.push(&format!("{{rlim_cur={}, rlim_max={}}}", limit(cur), limit(max)));
    });
}

fn rusage(p: &mut Printer, addr: u64) {
    // wait4 without a child to tell of stores nothing.
    if p.is("wait4") && matches!(p.result, Some(Ok(0))) {
        return p.address(addr);
    }
    p.structure(addr, |p, t: [i64; 4]| {
        let [us, uu, ss, su] = t;
        let times = format!("ru_utime={{tv_sec={us}, tv_usec={uu}}}, ru_stime={{tv_sec={ss}, tv_usec={su}}}");
        p.push(&format!("{{{times}, ...}}"));
    });
}
