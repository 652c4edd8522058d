//! Settings of the kernel that an administrator changes at run time (`sysctl(8)`): numbers within bounds.
//! `/proc/sys` shows and sets them.

use crate::bail;
use crate::errno::Result;
use crate::ipc::mqueue::Capacity;
use crate::task::{PID_MAX, PID_MAX_LIMIT, RESERVED_PIDS};
use core::sync::atomic::{AtomicU64, Ordering};

/// A number that may be set, within bounds: most stand for memory of the kernel's own.
pub struct Limit {
    value: AtomicU64,
    least: u64,
    most: u64,
}

impl Limit {
    /// One from 0 to `most`.
    pub(crate) const fn new(value: u64, most: u64) -> Limit {
        Limit::between(value, 0, most)
    }

    const fn between(value: u64, least: u64, most: u64) -> Limit {
        Limit { value: AtomicU64::new(value), least, most }
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Sets it.
    ///
    /// # Errors
    /// `EINVAL` for less or more than it may be.
    pub fn set(&self, value: u64) -> Result<()> {
        if value < self.least || value > self.most {
            bail!(EINVAL, "not within the setting's bounds");
        }
        self.value.store(value, Ordering::Relaxed);
        Ok(())
    }
}

/// The settings, with Linux's names and defaults (`Documentation/admin-guide/sysctl`), but for those of System V objects
/// ([`crate::ipc::Limits`]).
pub struct Settings {
    /// `kernel.pid_max`: where process ids begin again.
    pub pid_max: Limit,
    /// `vm.max_map_count`: VMAs of an address space.
    pub max_map_count: Limit,
    /// `fs.aio-max-nr`: requests that all contexts of `io_setup(2)` may have.
    pub aio_max_nr: Limit,
    /// `fs.leases-enable`: whether leases are given.
    pub leases_enable: Limit,
    /// `fs.lease-break-time`: seconds that a holder has to give one back; 0 for as many as it takes.
    pub lease_break_time: Limit,
    /// `fs.pipe-max-size`: bytes of a pipe that an ordinary user may ask for.
    pub pipe_max_size: Limit,
    /// `fs.inotify.max_queued_events`: events that wait for a reader.
    pub inotify_queued_events: Limit,
    /// `fs.inotify.max_user_instances`: inotify descriptors of a user.
    pub inotify_user_instances: Limit,
    /// `fs.inotify.max_user_watches`: marks of a user.
    pub inotify_user_watches: Limit,
    /// `fs.mqueue.queues_max`: POSIX message queues of those who may not exceed limits.
    pub mqueue_queues_max: Limit,
    /// `fs.mqueue.msg_max`: the most messages that a queue can be made for, without a privilege.
    pub mqueue_msg_max: Limit,
    /// `fs.mqueue.msgsize_max`: the longest messages that a queue can be made for, without a privilege.
    pub mqueue_msgsize_max: Limit,
    /// `fs.mqueue.msg_default`: messages that a queue takes whose maker does not say.
    pub mqueue_msg_default: Limit,
    /// `fs.mqueue.msgsize_default`: bytes of its messages.
    pub mqueue_msgsize_default: Limit,
}

impl Default for Settings {
    fn default() -> Settings {
        const INT: u64 = i32::MAX as u64;
        /// `MIN_MSGSIZEMAX` of `linux/ipc_namespace.h`.
        const SHORTEST_LIMIT: u64 = 128;
        Settings {
            pid_max: Limit::between(PID_MAX as u64, RESERVED_PIDS as u64 + 1, PID_MAX_LIMIT as u64),
            // A VMA takes some hundred bytes of the kernel's memory.
            max_map_count: Limit::new(65530, 1 << 20),
            aio_max_nr: Limit::new(65536, 1 << 20),
            leases_enable: Limit::new(1, 1),
            lease_break_time: Limit::new(45, INT),
            pipe_max_size: Limit::between(1 << 20, 4096, 1 << 31),
            inotify_queued_events: Limit::new(16384, 1 << 20),
            inotify_user_instances: Limit::new(128, INT),
            inotify_user_watches: Limit::new(65536, 1 << 24),
            mqueue_queues_max: Limit::new(256, INT),
            mqueue_msg_max: Limit::between(10, 1, Capacity::MOST.messages),
            mqueue_msgsize_max: Limit::between(8192, SHORTEST_LIMIT, Capacity::MOST.bytes),
            mqueue_msg_default: Limit::between(10, 1, Capacity::MOST.messages),
            mqueue_msgsize_default: Limit::between(8192, SHORTEST_LIMIT, Capacity::MOST.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_bounds() {
        let settings = Settings::default();
        assert!(settings.pid_max.set(300).is_err() && settings.pid_max.get() == 32768);
        assert!(settings.pid_max.set(301).is_ok() && settings.pid_max.get() == 301);
        assert!(settings.pipe_max_size.set(u64::MAX).is_err());
    }
}
