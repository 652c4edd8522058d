//! System V IPC, and POSIX message queues.

use super::{Kind, Printer, mode};
use alloc::format;

pub(super) const KINDS: &[Kind] = &[
    Kind::entry("ipc_key", |p, v| match v as i32 {
        0 => p.push("IPC_PRIVATE"),
        key => p.push(&format!("{:#x}", key as u32)),
    }),
    Kind::entry("ipc_get", get_flags),
    Kind::entry("shmat_flags", |p, v| p.flags(v, ATTACH, "SHM_???")),
    Kind::entry("ipc_message_flags", |p, v| p.flags(v, MESSAGE, "MSG_???")),
    Kind::entry("shmctl", |p, v| command(p, v, SHM)),
    Kind::entry("semctl", |p, v| command(p, v, SEM)),
    Kind::entry("msgctl", |p, v| command(p, v, MSG)),
    // A queue that is made has no flags yet: they are not looked at.
    Kind::entry("mq_attr_made", |p, v| queue_attributes(p, v, |p, flags| p.hex(flags))),
    Kind::entry("mq_attr_in", |p, v| queue_attributes(p, v, queue_flags)),
    Kind::exit("mq_attr_out", |p, v| queue_attributes(p, v, queue_flags)),
];

const GET: &[(u64, &str)] =
    &[(0o1000, "IPC_CREAT"), (0o2000, "IPC_EXCL"), (0o4000, "IPC_NOWAIT or SHM_HUGETLB"), (0o10000, "SHM_NORESERVE")];
const ATTACH: &[(u64, &str)] =
    &[(0, "0"), (0o10000, "SHM_RDONLY"), (0o20000, "SHM_RND"), (0o40000, "SHM_REMAP"), (0o100000, "SHM_EXEC")];
const MESSAGE: &[(u64, &str)] =
    &[(0, "0"), (0o4000, "IPC_NOWAIT"), (0o10000, "MSG_NOERROR"), (0o20000, "MSG_EXCEPT"), (0o40000, "MSG_COPY")];
const COMMON: &[(u64, &str)] = &[(0, "IPC_RMID"), (1, "IPC_SET"), (2, "IPC_STAT"), (3, "IPC_INFO")];
const SHM: &[(u64, &str)] =
    &[(11, "SHM_LOCK"), (12, "SHM_UNLOCK"), (13, "SHM_STAT"), (14, "SHM_INFO"), (15, "SHM_STAT_ANY")];
const SEM: &[(u64, &str)] = &[
    (11, "GETPID"),
    (12, "GETVAL"),
    (13, "GETALL"),
    (14, "GETNCNT"),
    (15, "GETZCNT"),
    (16, "SETVAL"),
    (17, "SETALL"),
    (18, "SEM_STAT"),
    (19, "SEM_INFO"),
    (20, "SEM_STAT_ANY"),
];
const MSG: &[(u64, &str)] = &[(11, "MSG_STAT"), (12, "MSG_INFO"), (13, "MSG_STAT_ANY")];

fn get_flags(p: &mut Printer, value: u64) {
    let flags = value & !0o777;
    if flags != 0 {
        p.flags(flags, GET, "IPC_???");
        p.push("|");
    }
    p.push(&mode::permissions(value as u32 & 0o777));
}

/// A `struct mq_attr`.
fn queue_attributes(p: &mut Printer, addr: u64, show_flags: fn(&mut Printer, u64)) {
    p.structure(addr, |p, attr: [i64; 8]| {
        p.push("{mq_flags=");
        show_flags(p, attr[0] as u64);
        p.push(&format!(", mq_maxmsg={}, mq_msgsize={}, mq_curmsgs={}}}", attr[1], attr[2], attr[3]));
    });
}

fn queue_flags(p: &mut Printer, flags: u64) {
    p.flags(flags, &[(0o4000, "O_NONBLOCK")], "O_???");
}

fn command(p: &mut Printer, value: u64, own: &[(u64, &str)]) {
    let value = value as u32 as u64;
    match COMMON.iter().chain(own).find(|(number, _)| *number == value) {
        Some((_, name)) => p.push(name),
        None => p.signed(value),
    }
}
