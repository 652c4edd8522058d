//! What queues may take of the kernel's memory: by user (`RLIMIT_MSGQUEUE` of `getrlimit(2)`), and all together.
//!
//! A queue counts from the start for all that it may ever hold, for the user who made it, until it has no name and nobody has it
//! open any more. Whoever may raise limits is not bounded by that: messages that there really are have a bound of the machine's.

use super::PRIORITIES;
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::settings::Settings;
use crate::sync::Mutex;
use crate::task::Capabilities;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general::RLIMIT_MSGQUEUE;

/// Queues that there can be, whoever makes them.
const QUEUES: u64 = 1 << 15;
/// What Linux counts for a message besides its bytes (`struct msg_msg`).
const MESSAGE: u64 = 48;
/// What Linux counts for each priority that messages may have (`struct posix_msg_tree_node`).
const PRIORITY: u64 = 48;
/// The part of the machine's memory that messages may take.
const SHARE: u64 = 4;

/// How many messages a queue takes, and of how many bytes (`struct mq_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Messages.
    pub messages: u64,
    /// Bytes of a message.
    pub bytes: u64,
}

impl Capacity {
    /// The most that there is, whoever asks (`HARD_MSGMAX`, `HARD_MSGSIZEMAX`).
    pub const MOST: Capacity = Capacity { messages: 65_536, bytes: 16 << 20 };

    /// What is granted; `privileged`: to who may exceed limits.
    fn granted(settings: &Settings, wish: Option<[i64; 2]>, privileged: bool) -> Result<Capacity> {
        let most = Capacity { messages: settings.mqueue_msg_max.get(), bytes: settings.mqueue_msgsize_max.get() };
        let Some(wish) = wish else {
            let messages = settings.mqueue_msg_default.get().min(most.messages);
            return Ok(Capacity { messages, bytes: settings.mqueue_msgsize_default.get().min(most.bytes) });
        };
        let most = if privileged { Capacity::MOST } else { most };
        let [messages, bytes] = wish.map(|n| u64::try_from(n).unwrap_or(0));
        if !(1..=most.messages).contains(&messages) || !(1..=most.bytes).contains(&bytes) {
            bail!(EINVAL, "no capacity that a queue may have");
        }
        Ok(Capacity { messages, bytes })
    }

    /// What it counts for.
    fn cost(self) -> u64 {
        self.messages * (self.bytes + MESSAGE) + self.messages.min(PRIORITIES.into()) * PRIORITY
    }
}

/// Who has taken how much.
#[derive(Default)]
pub(super) struct Accounts {
    queues: Mutex<Queues>,
    /// Bytes of messages that there are.
    held: AtomicU64,
}

#[derive(Default)]
struct Queues {
    count: u64,
    /// What those of each real user id count for.
    cost: BTreeMap<u32, u64>,
}

impl Accounts {
    /// Counts a new queue of the running task's user.
    pub(super) fn charge(self: &Arc<Self>, ctx: &Ctx, wish: Option<[i64; 2]>) -> Result<(Capacity, Charge)> {
        let settings = &ctx.kernel.settings;
        let creds = ctx.creds();
        let privileged = creds.capable(Capabilities::SYS_RESOURCE);
        let most = if privileged { QUEUES } else { settings.mqueue_queues_max.get().min(QUEUES) };
        let limit = ctx.task.process.limit(RLIMIT_MSGQUEUE as usize);
        let mut queues = self.queues.lock();
        if queues.count >= most {
            bail!(ENOSPC, "fs.mqueue.queues_max");
        }
        let capacity = Capacity::granted(settings, wish, privileged)?;
        let cost = capacity.cost();
        let sum = queues.cost.get(&creds.uid).map_or(cost, |before| before.saturating_add(cost));
        if sum > limit {
            bail!(EMFILE, "RLIMIT_MSGQUEUE");
        }
        queues.count += 1;
        queues.cost.insert(creds.uid, sum);
        Ok((capacity, Charge { accounts: self.clone(), uid: creds.uid, cost }))
    }

    /// Counts a message of `len` bytes.
    pub(super) fn hold(self: &Arc<Self>, ctx: &Ctx, len: u64) -> Result<Held> {
        let most = ctx.kernel.config.memory / SHARE;
        let bytes = len.saturating_add(MESSAGE);
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= most);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Errno::ENOMEM)?;
        Ok(Held { accounts: self.clone(), bytes })
    }
}

/// A queue that counts; no more once it is dropped.
pub(super) struct Charge {
    accounts: Arc<Accounts>,
    uid: u32,
    cost: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut queues = self.accounts.queues.lock();
        queues.count -= 1;
        let left = queues.cost.get(&self.uid).map_or(0, |sum| sum.saturating_sub(self.cost));
        match left {
            0 => queues.cost.remove(&self.uid),
            left => queues.cost.insert(self.uid, left),
        };
    }
}

/// A message that counts; no more once it is dropped.
pub(super) struct Held {
    accounts: Arc<Accounts>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.accounts.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_keep_to_the_settings() {
        let settings = Settings::default();
        let granted = |wish, privileged| Capacity::granted(&settings, wish, privileged).map_err(|error| error.errno);
        let usual = Capacity { messages: 10, bytes: 8192 };
        assert_eq!((granted(None, false), usual.cost()), (Ok(usual), 82_880));
        settings.mqueue_msg_max.set(5).unwrap();
        settings.mqueue_msgsize_default.set(200).unwrap();
        let cut = Capacity { messages: 5, bytes: 200 };
        assert_eq!((granted(None, false), granted(None, true)), (Ok(cut), Ok(cut)));
        for wish in [[6, 1], [0, 1], [1, 0], [-1, 1], [1, -1], [1, 8193]] {
            assert_eq!(granted(Some(wish), false), Err(Errno::EINVAL), "{wish:?}");
        }
        assert!(granted(Some([5, 8192]), false).is_ok() && granted(Some([65_536, 16 << 20]), true).is_ok());
        assert!(granted(Some([65_537, 1]), true).is_err() && granted(Some([1, i64::MAX]), true).is_err());
    }

    #[test]
    #[cfg(feature = "ptrace")]
    fn messages_have_a_share_of_the_memory() {
        let machine = crate::testing::machine();
        let task = machine.task();
        let ctx = machine.ctx(&task);
        let accounts = Arc::new(Accounts::default());
        let held = accounts.hold(&ctx, ctx.kernel.config.memory / SHARE - MESSAGE).unwrap();
        assert_eq!(accounts.hold(&ctx, 0).err(), Some(Errno::ENOMEM.into()));
        assert_eq!(accounts.hold(&ctx, u64::MAX).err(), Some(Errno::ENOMEM.into()));
        drop(held);
        assert!(accounts.hold(&ctx, 0).is_ok());
    }
}
