//! Calls that work on two words at once.

use super::Key;
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;

/// Wakes up to `wake` sleepers of the first word and moves up to `requeue` others to the second
/// (`FUTEX_CMP_REQUEUE`; without `expected`, `FUTEX_REQUEUE`). Returns how many were woken or moved.
///
/// # Errors
/// `EAGAIN` if the first word does not hold `expected`; `EINVAL` for negative numbers.
pub fn requeue(
    ctx: &Ctx,
    from: u64,
    to: u64,
    shared: bool,
    wake: i32,
    requeue: i32,
    expected: Option<u32>,
) -> Result<usize> {
    if wake < 0 || requeue < 0 {
        bail!(EINVAL, "a negative number of sleepers");
    }
    let (wake, requeue) = (wake as usize, requeue as usize);
    let from_key = Key::new(ctx, from, shared)?;
    let to_key = Key::new(ctx, to, shared)?;
    let (mut source, mut target) = ctx.kernel.futexes.two_buckets(&from_key, &to_key);
    if let Some(expected) = expected
        && ctx.read_val::<u32>(from)? != expected
    {
        return Err(Errno::EAGAIN.into());
    }
    let woken = source.wake(&from_key, wake, u32::MAX);
    let mut moved = alloc::vec::Vec::new();
    let mut stayed = alloc::vec::Vec::with_capacity(source.sleepers.len());
    for sleeper in source.sleepers.drain(..) {
        if moved.len() < requeue && *sleeper.key.lock() == from_key {
            *sleeper.key.lock() = to_key.clone();
            moved.push(sleeper);
        } else {
            stayed.push(sleeper);
        }
    }
    source.sleepers = stayed;
    let count = woken + moved.len();
    target.as_mut().unwrap_or(&mut source).sleepers.append(&mut moved);
    Ok(count)
}

/// The operation and comparison of `FUTEX_WAKE_OP`, from its last argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeOp {
    op: u32,
    op_arg: i32,
    cmp: u32,
    cmp_arg: i32,
}

impl WakeOp {
    /// Decodes the argument; `ENOSYS` for an operation or comparison that is not defined.
    pub fn decode(encoded: u32) -> Result<WakeOp> {
        const ARGUMENT_IS_SHIFT: u32 = 8;
        let signed12 = |bits: u32| ((bits << 20) as i32) >> 20;
        let op = encoded >> 28;
        let mut op_arg = signed12(encoded >> 12);
        if op & ARGUMENT_IS_SHIFT != 0 {
            op_arg = 1i32 << (op_arg & 31);
        }
        let decoded = WakeOp { op: op & 7, op_arg, cmp: encoded >> 24 & 15, cmp_arg: signed12(encoded) };
        if decoded.op > 4 || decoded.cmp > 5 {
            return Err(Errno::ENOSYS.into());
        }
        Ok(decoded)
    }

    /// What the word becomes.
    pub fn apply(self, old: u32) -> u32 {
        let arg = self.op_arg as u32;
        match self.op {
            0 => arg,
            1 => old.wrapping_add(arg),
            2 => old | arg,
            3 => old & !arg,
            _ => old ^ arg,
        }
    }

    /// Whether the word's old value asks for the second wake-up.
    pub fn holds(self, old: u32) -> bool {
        let (old, arg) = (old as i32, self.cmp_arg);
        match self.cmp {
            0 => old == arg,
            1 => old != arg,
            2 => old < arg,
            3 => old <= arg,
            4 => old > arg,
            _ => old >= arg,
        }
    }
}

/// Changes the second word, wakes up to `wake` sleepers of the first and, if the second word's old value says so, up to
/// `wake2` of the second (`FUTEX_WAKE_OP`). Returns how many.
pub fn wake_op(ctx: &Ctx, addr: u64, addr2: u64, shared: bool, wake: i32, wake2: i32, op: WakeOp) -> Result<usize> {
    let key = Key::new(ctx, addr, shared)?;
    let key2 = Key::new(ctx, addr2, shared)?;
    let (mut first, mut second) = ctx.kernel.futexes.two_buckets(&key, &key2);
    let mut old = ctx.read_val::<u32>(addr2)?;
    loop {
        let found = ctx.kernel.platform.compare_exchange(ctx.task, addr2, old, op.apply(old))?;
        if found == old {
            break;
        }
        old = found;
    }
    let mut woken = first.wake(&key, wake.max(1) as usize, u32::MAX);
    if op.holds(old) {
        let bucket = second.as_mut().unwrap_or(&mut first);
        woken += bucket.wake(&key2, wake2.max(1) as usize, u32::MAX);
    }
    Ok(woken)
}
