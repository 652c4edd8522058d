//! Buffers, vectors of them, and what moves data between descriptors.

use super::{Kind, Printer, When, names, text};
use alloc::format;

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "iovec", when: When::ExitIf(reads), decode: iovec },
    Kind::entry("iovec_in", iovec),
    Kind::exit("iovec_out", iovec),
    Kind::exit("fd_pair", |p, v| p.structure(v, |p, fds: [i32; 2]| p.push(&format!("[{}, {}]", fds[0], fds[1])))),
    Kind::exit("int_out", int),
    Kind::entry("int_in", int),
    Kind::entry("off_in", |p, v| p.structure(v, |p, offset: i64| p.push(&format!("[{offset}]")))),
    Kind::entry("rwf_flags", |p, v| p.flags(v & 0xffff_ffff, RWF, "RWF_???")),
    Kind::entry("splice_flags", |p, v| p.flags(v & 0xffff_ffff, SPLICE, "SPLICE_F_???")),
    Kind::entry("eventfd_flags", |p, v| {
        let names = [(1, "EFD_SEMAPHORE"), (0o2_000_000, "EFD_CLOEXEC"), (0o4000, "EFD_NONBLOCK")];
        p.flags(v, &names, "EFD_???");
    }),
    Kind::entry("inotify_flags", |p, v| {
        p.flags(v, &[(0o2_000_000, "IN_CLOEXEC"), (0o4000, "IN_NONBLOCK")], "IN_???");
    }),
    Kind::entry("inotify_mask", |p, v| p.flags(v & 0xffff_ffff, INOTIFY, "IN_???")),
    Kind::entry("getrandom_flags", |p, v| {
        p.flags(v & 0xffff_ffff, &[(1, "GRND_NONBLOCK"), (2, "GRND_RANDOM"), (4, "GRND_INSECURE")], "GRND_???");
    }),
];

/// Whether the call fills the buffers of its vector.
fn reads(p: &Printer) -> bool {
    names::name(p.nr).is_some_and(|name| name.contains("read") || name.contains("recv"))
}

const RWF: &[(u64, &str)] =
    &[(1, "RWF_HIPRI"), (2, "RWF_DSYNC"), (4, "RWF_SYNC"), (8, "RWF_NOWAIT"), (16, "RWF_APPEND")];
const SPLICE: &[(u64, &str)] =
    &[(1, "SPLICE_F_MOVE"), (2, "SPLICE_F_NONBLOCK"), (4, "SPLICE_F_MORE"), (8, "SPLICE_F_GIFT")];
const INOTIFY: &[(u64, &str)] = &[
    (0x1, "IN_ACCESS"),
    (0x2, "IN_MODIFY"),
    (0x4, "IN_ATTRIB"),
    (0x8, "IN_CLOSE_WRITE"),
    (0x10, "IN_CLOSE_NOWRITE"),
    (0x20, "IN_OPEN"),
    (0x40, "IN_MOVED_FROM"),
    (0x80, "IN_MOVED_TO"),
    (0x100, "IN_CREATE"),
    (0x200, "IN_DELETE"),
    (0x400, "IN_DELETE_SELF"),
    (0x800, "IN_MOVE_SELF"),
    (0x100_0000, "IN_ONLYDIR"),
    (0x200_0000, "IN_DONT_FOLLOW"),
    (0x400_0000, "IN_EXCL_UNLINK"),
    (0x2000_0000, "IN_MASK_ADD"),
    (0x8000_0000, "IN_ONESHOT"),
];

fn int(p: &mut Printer, addr: u64) {
    p.structure(addr, |p, value: i32| p.push(&format!("[{value}]")));
}

/// A buffer that the kernel has filled with `len` bytes.
pub(super) fn filled_buffer(p: &mut Printer, addr: u64, len: u64) {
    if p.is("getrandom") {
        let mut bytes = alloc::vec![0; (len as usize).min(p.limit)];
        if p.ctx.read_user(addr, &mut bytes).is_ok() {
            return p.push(&text::quote_hex(&bytes, len as usize > bytes.len()));
        }
    }
    // getcwd counts the NUL, which is no part of the path.
    let len = if p.is("getcwd") { len.saturating_sub(1) } else { len };
    p.buffer(addr, len);
}

fn iovec(p: &mut Printer, addr: u64) {
    let count = p.following().min(1024) as usize;
    // How much of the buffers there is to see: all that is written, what was read.
    let reads = p.argument(p.index).is_some_and(|arg| p.is_out(arg));
    let mut left = match p.result {
        Some(Ok(n)) if reads => *n as u64,
        _ if reads => return p.address(addr),
        _ => u64::MAX,
    };
    let Ok(vectors) = p.ctx.read_vec::<[u64; 2]>(addr, count) else { return p.address(addr) };
    p.push("[");
    for (i, [base, len]) in vectors.into_iter().enumerate() {
        if i > 0 {
            p.push(", ");
        }
        if i >= p.limit {
            p.push("...");
            break;
        }
        p.push("{iov_base=");
        p.buffer(base, len.min(left));
        p.push(&format!(", iov_len={len}}}"));
        left = left.saturating_sub(len);
    }
    p.push("]");
}
