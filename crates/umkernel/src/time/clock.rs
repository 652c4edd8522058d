//! Clocks by their ids (`clock_gettime(2)`).

use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::task::{Process, Task};
use alloc::sync::{Arc, Weak};
use linux_raw_sys::general as raw;

/// Which part of processor time a CPU clock counts (`linux/posix-timers.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuTime {
    /// Guest code.
    User,
    /// Guest and kernel code.
    All,
}

/// A clock.
#[derive(Clone)]
pub enum Clock {
    /// One of the host's clocks, by its id: the guest's vdso reads them, too.
    Host(i32),
    /// Processor time of a process.
    Process(Weak<Process>, CpuTime),
    /// Processor time of a thread.
    Thread(Weak<Task>, CpuTime),
}

/// Resolution of the coarse clocks: one tick at 250 Hz.
const COARSE_RESOLUTION: u64 = 4_000_000;

impl Clock {
    /// The clock with this id; `EINVAL` if there is none.
    pub fn from_id(ctx: &Ctx, id: i32) -> Result<Clock> {
        if id < 0 {
            return Clock::cpu(ctx, id);
        }
        match id as u32 {
            raw::CLOCK_PROCESS_CPUTIME_ID => Ok(Clock::Process(Arc::downgrade(&ctx.task.process), CpuTime::All)),
            raw::CLOCK_THREAD_CPUTIME_ID => Ok(Clock::Thread(Arc::downgrade(ctx.task), CpuTime::All)),
            raw::CLOCK_SGI_CYCLE => bail!(EINVAL, "no such clock"),
            0..=raw::CLOCK_TAI => Ok(Clock::Host(id)),
            _ => bail!(EINVAL, "no such clock"),
        }
    }

    /// A CPU clock of another task: `~id << 3`, a bit for threads, and which time (`clock_getcpuclockid(3)`).
    fn cpu(ctx: &Ctx, id: i32) -> Result<Clock> {
        const THREAD: i32 = 4;
        let which = match id & 3 {
            1 => CpuTime::User,
            0 | 2 => CpuTime::All,
            _ => bail!(EINVAL, "clocks of descriptors are not built"),
        };
        let pid = !(id >> 3);
        let tasks = &ctx.kernel.tasks;
        if id & THREAD != 0 {
            let task = if pid == 0 { Some(ctx.task.clone()) } else { tasks.task(pid) };
            let task = task.filter(|t| Arc::ptr_eq(&t.process, &ctx.task.process)).ok_or(Errno::EINVAL)?;
            return Ok(Clock::Thread(Arc::downgrade(&task), which));
        }
        let process = if pid == 0 { Some(ctx.task.process.clone()) } else { tasks.process(pid) };
        Ok(Clock::Process(Arc::downgrade(&process.ok_or(Errno::EINVAL)?), which))
    }

    /// The reading in nanoseconds; `EINVAL` when whose time it counts has ended.
    pub fn now(&self, kernel: &crate::kernel::Kernel) -> Result<u64> {
        let pick = |user, system, which| if which == CpuTime::User { user } else { user + system };
        match self {
            Clock::Host(id) if matches!(*id as u32, raw::CLOCK_REALTIME_ALARM | raw::CLOCK_BOOTTIME_ALARM) => {
                bail!(EINVAL, "the machine has no real-time clock that could wake it")
            }
            Clock::Host(id) => host::clock_gettime(*id),
            Clock::Process(process, which) => {
                let used = kernel.process_times(&*process.upgrade().ok_or(Errno::EINVAL)?);
                Ok(pick(used.utime, used.stime, *which))
            }
            Clock::Thread(task, which) => {
                let (user, system) = kernel.platform.cpu_times(&*task.upgrade().ok_or(Errno::EINVAL)?);
                Ok(pick(user, system, *which))
            }
        }
    }

    /// The resolution in nanoseconds.
    pub fn resolution(&self) -> u64 {
        match self {
            Clock::Host(id) if matches!(*id as u32, raw::CLOCK_REALTIME_COARSE | raw::CLOCK_MONOTONIC_COARSE) => {
                COARSE_RESOLUTION
            }
            _ => 1,
        }
    }

    /// Whether this is a CPU clock.
    pub fn is_cpu(&self) -> bool {
        !matches!(self, Clock::Host(_))
    }

    /// Whether sleeps and timers can go by it.
    pub fn has_timers(&self) -> bool {
        let without = [
            raw::CLOCK_MONOTONIC_RAW,
            raw::CLOCK_REALTIME_COARSE,
            raw::CLOCK_MONOTONIC_COARSE,
            // The alarm clocks wake a suspended machine; this one has no real-time clock to do so.
            raw::CLOCK_REALTIME_ALARM,
            raw::CLOCK_BOOTTIME_ALARM,
        ];
        !matches!(self, Clock::Host(id) if without.contains(&(*id as u32)))
    }

    /// When by CLOCK_MONOTONIC a host clock will show `at`, as the clocks stand now.
    pub fn to_monotonic(&self, at: u64) -> u64 {
        match self {
            Clock::Host(id) if *id as u32 != raw::CLOCK_MONOTONIC => {
                let now = host::clock_gettime(*id).unwrap_or(at);
                host::monotonic_ns().saturating_add(at.saturating_sub(now))
            }
            _ => at,
        }
    }
}
