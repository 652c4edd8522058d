//! Figures about the machine as a whole: memory in use, load, processor time.

use crate::kernel::Kernel;
use crate::mm::{AddressSpace, PAGE_SIZE};
use crate::sync::Mutex;
use crate::task::{Rusage, Task};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// What the machine was started with.
    pub total: u64,
    /// Not in use.
    pub free: u64,
    /// Resident in processes, without what is a file's.
    pub anonymous: u64,
    /// Resident in processes and a file's.
    pub mapped: u64,
    /// The kernel's own.
    pub kernel: u64,
    /// Shared anonymous memory: none is told apart from `mapped`.
    pub shared: u64,
}

/// What the processes use. Two processes that share a page both count it.
pub fn memory(kernel: &Kernel) -> MemoryUse {
    let mut spaces: BTreeMap<u64, Arc<AddressSpace>> = BTreeMap::new();
    for process in kernel.tasks.processes() {
        let first = process.inner.lock().threads.first().cloned();
        if let Some(mm) = first.and_then(|t| t.mm().ok()) {
            spaces.insert(mm.id, mm);
        }
    }
    let own = kernel.platform.kernel_memory();
    let mut used = MemoryUse { total: kernel.config.memory, kernel: own, ..MemoryUse::default() };
    let spaces: Vec<&AddressSpace> = spaces.values().map(|space| &**space).collect();
    for (all, file) in kernel.platform.all_resident_pages(&spaces) {
        used.anonymous += all.saturating_sub(file) * PAGE_SIZE;
        used.mapped += file * PAGE_SIZE;
    }
    used.free = used.total.saturating_sub(used.anonymous + used.kernel);
    used.mapped = used.mapped.min(used.free);
    used
}

/// Bits behind the binary point of a load average.
pub const LOAD_FRACTION_BITS: u32 = 11;
/// 1 as a load average.
const ONE: u64 = 1 << LOAD_FRACTION_BITS;
/// e^(-5 s / 1, 5, 15 min) as `linux/sched/loadavg.h` has them.
const DECAY: [u64; 3] = [1884, 2014, 2037];
/// Nanoseconds between two samples.
pub const LOAD_INTERVAL: u64 = 5_000_000_000;

/// The load averages of `/proc/loadavg`.
#[derive(Default)]
pub struct Load {
    averages: Mutex<[u64; 3]>,
    /// Tasks made since boot (`processes` of `/proc/stat`).
    pub forks: AtomicU64,
    ended: Mutex<Ended>,
}

/// What tasks used that have ended.
#[derive(Default)]
struct Ended {
    user: u64,
    system: u64,
    sleeps: u64,
}

impl Load {
    /// Over 1, 5 and 15 minutes, with [`LOAD_FRACTION_BITS`] bits behind the point.
    pub fn averages(&self) -> [u64; 3] {
        *self.averages.lock()
    }

    /// Notes what a task used that ends: nanoseconds of guest and kernel code, and how often it went to sleep.
    pub fn task_ended(&self, user: u64, system: u64, sleeps: u64) {
        let mut ended = self.ended.lock();
        ended.user += user;
        ended.system += system;
        ended.sleeps += sleeps;
    }

    /// Processor time of tasks that have ended, nanoseconds: guest code, kernel code.
    pub fn ended_times(&self) -> (u64, u64) {
        let ended = self.ended.lock();
        (ended.user, ended.system)
    }

    /// How often tasks went to sleep that have ended.
    pub fn ended_sleeps(&self) -> u64 {
        self.ended.lock().sleeps
    }

    /// Takes a sample: tasks that run or wait for the disk. To be called every [`LOAD_INTERVAL`].
    pub fn sample(&self, active: u64) {
        let active = active * ONE;
        for (average, decay) in self.averages.lock().iter_mut().zip(DECAY) {
            let mut new = *average * decay + active * (ONE - decay);
            if active >= *average {
                new += ONE - 1;
            }
            *average = new / ONE;
        }
    }
}

impl Kernel {
    /// Tasks that run or could run.
    pub fn running_tasks(&self) -> usize {
        let processes = self.tasks.processes();
        processes.iter().map(|p| p.inner.lock().threads.iter().filter(|t| t.is_running()).count()).sum()
    }

    /// Nanoseconds since boot.
    pub fn uptime_ns(&self) -> u64 {
        crate::host::monotonic_ns().saturating_sub(self.boot_monotonic)
    }

    /// Processor time of a process so far: all its threads, also those that ended.
    pub fn process_times(&self, process: &crate::task::Process) -> Rusage {
        let inner = process.inner.lock();
        let mut used = inner.dead_threads;
        for thread in &inner.threads {
            let (utime, stime) = self.platform.cpu_times(thread);
            used.utime += utime;
            used.stime += stime;
        }
        used
    }
}

impl Task {
    /// Whether the task runs or could run: it is not asleep in the kernel.
    pub fn is_running(&self) -> bool {
        !self.sched.sleeping.load(Ordering::Relaxed)
    }

    /// The processor that the task runs on, as the guest numbers them.
    pub fn processor(&self, kernel: &Kernel) -> u32 {
        crate::host::getcpu() % kernel.config.cpus.max(1)
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    #[test]
    fn load_approaches_the_number_of_active_tasks() {
        let load = Load::default();
        // One minute of two busy tasks: 2 * (1 - 1/e) = 1.26.
        (0..12).for_each(|_| load.sample(2));
        let minute = load.averages()[0] as f64 / ONE as f64;
        assert!((1.2..1.32).contains(&minute), "{minute}");
        (0..1000).for_each(|_| load.sample(0));
        assert_eq!(load.averages()[0], 0);
    }
}
