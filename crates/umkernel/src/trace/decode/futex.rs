//! Futexes.

use super::{Kind, Printer};
use alloc::format;

pub(super) const KINDS: &[Kind] = &[Kind::entry("futex_op", operation)];

const OPERATIONS: &[(u64, &str)] = &[
    (0, "FUTEX_WAIT"),
    (1, "FUTEX_WAKE"),
    (2, "FUTEX_FD"),
    (3, "FUTEX_REQUEUE"),
    (4, "FUTEX_CMP_REQUEUE"),
    (5, "FUTEX_WAKE_OP"),
    (6, "FUTEX_LOCK_PI"),
    (7, "FUTEX_UNLOCK_PI"),
    (8, "FUTEX_TRYLOCK_PI"),
    (9, "FUTEX_WAIT_BITSET"),
    (10, "FUTEX_WAKE_BITSET"),
    (11, "FUTEX_WAIT_REQUEUE_PI"),
    (12, "FUTEX_CMP_REQUEUE_PI"),
    (13, "FUTEX_LOCK_PI2"),
];
const PRIVATE: u64 = 128;
const CLOCK_REALTIME: u64 = 256;

/// The operation and all that follows: what it is depends on the operation.
fn operation(p: &mut Printer, value: u64) {
    let operation = value & !(PRIVATE | CLOCK_REALTIME);
    p.choice(operation, OPERATIONS, "FUTEX_???");
    if value & PRIVATE != 0 {
        p.push("_PRIVATE");
    }
    if value & CLOCK_REALTIME != 0 {
        p.push("|FUTEX_CLOCK_REALTIME");
    }
    let [_, _, count, timeout, other, last] = p.args;
    let number = |n: u64| format!(", {}", n as u32);
    let bitset = |n: u64| match n as u32 {
        u32::MAX => ", FUTEX_BITSET_MATCH_ANY".into(),
        bits => format!(", {bits:#x}"),
    };
    match operation {
        0 => {
            p.push(&number(count));
            limit(p, timeout);
        }
        1 => p.push(&number(count)),
        3 => {
            p.push(&number(count));
            p.push(&number(timeout));
            address(p, other);
        }
        4 | 5 | 12 => {
            p.push(&number(count));
            p.push(&number(timeout));
            address(p, other);
            p.push(&if operation == 5 { format!(", {:#x}", last as u32) } else { number(last) });
        }
        6 | 13 => limit(p, timeout),
        7 | 8 => {}
        9 => {
            p.push(&number(count));
            limit(p, timeout);
            p.push(&bitset(last));
        }
        10 => {
            p.push(&number(count));
            p.push(&bitset(last));
        }
        11 => {
            p.push(&number(count));
            limit(p, timeout);
            address(p, other);
        }
        _ => [count, timeout, other, last].into_iter().for_each(|n| p.push(&format!(", {n:#x}"))),
    }
    p.ended = true;
}

fn limit(p: &mut Printer, addr: u64) {
    p.push(", ");
    p.structure(addr, |p, ts| p.push(&super::time::show_timespec(ts)));
}

fn address(p: &mut Printer, addr: u64) {
    p.push(", ");
    p.address(addr);
}
