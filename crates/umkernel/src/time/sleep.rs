//! Sleeping (`clock_nanosleep(2)`).

use super::{Clock, timespec};
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;

/// Shortest and longest time between two looks at a CPU clock.
const CPU_LOOK: (u64, u64) = (1_000_000, 20_000_000);

/// Sleeps until a clock shows `at`. Interrupted, it asks for a restart that a handler prevents.
pub fn sleep_until(ctx: &Ctx, clock: &Clock, at: u64) -> Result<()> {
    loop {
        let now = clock.now(ctx.kernel)?;
        if now >= at {
            return Ok(());
        }
        let deadline = if clock.is_cpu() {
            host::monotonic_ns() + (at - now).clamp(CPU_LOOK.0, CPU_LOOK.1)
        } else {
            clock.to_monotonic(at)
        };
        let slept: Result<Option<()>> = ctx.wait_on(&[], Some(deadline), || None);
        slept.map_err(|e| if e == Errno::ERESTARTSYS { Errno::ERESTARTNOHAND.into() } else { e })?;
    }
}

/// Sleeps for `ns` nanoseconds; interrupted, it stores what is left at `remaining` and goes on later.
pub fn sleep_for(ctx: &Ctx, clock: &Clock, ns: u64, remaining: u64) -> Result<usize> {
    // A change of the real-time clock does not change how long a relative sleep takes.
    let steady = if clock.is_cpu() { clock.clone() } else { Clock::Host(1) };
    let at = steady.now(ctx.kernel)?.saturating_add(ns);
    go_on(ctx, steady, at, remaining)
}

fn go_on(ctx: &Ctx, clock: Clock, at: u64, remaining: u64) -> Result<usize> {
    match sleep_until(ctx, &clock, at) {
        Ok(()) => Ok(0),
        Err(e) if e == Errno::ERESTARTNOHAND => {
            let left = at.saturating_sub(clock.now(ctx.kernel)?);
            if left == 0 {
                return Ok(0);
            }
            if remaining != 0 {
                ctx.write_val(remaining, &timespec(left))?;
            }
            Err(ctx.task.restart_with(move |ctx| go_on(ctx, clock, at, remaining)))
        }
        Err(e) => Err(e),
    }
}
