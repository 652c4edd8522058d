//! POSIX message queues (`mq_overview(7)`).
//!
//! What a queue is and does is here: messages by priority, who waits for them ([`Queue`]), who is told of them ([`Notice`]), and
//! what all that may take of the kernel's memory ([`Capacity`]). Their names, and what is open of them, are a file system's:
//! [`crate::fs::mqueue`].

mod account;
mod notice;
mod queue;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;

pub use account::Capacity;
pub use notice::{COOKIE_LEN, Cookie, How, Notice};
pub use queue::{Message, Patience, Queue};

use crate::errno::Result;
use crate::kernel::Ctx;
use account::Accounts;
use alloc::sync::Arc;
use alloc::vec;

/// Priorities that there are, from 0 on (`MQ_PRIO_MAX`).
pub const PRIORITIES: u32 = 32_768;

/// What the machine's queues take of its memory, whichever namespace they are in.
#[derive(Default)]
pub struct Mqueues {
    accounts: Arc<Accounts>,
}

impl Mqueues {
    /// An empty queue of the running task's user; `wish`: how many messages it is to take, and of how many bytes.
    ///
    /// # Errors
    /// `ENOSPC` by `fs.mqueue.queues_max`, `EINVAL` for a wish that is not granted, `EMFILE` by `RLIMIT_MSGQUEUE`.
    pub fn create(&self, ctx: &Ctx, wish: Option<[i64; 2]>) -> Result<Queue> {
        let (capacity, charge) = self.accounts.charge(ctx, wish)?;
        Ok(Queue::new(capacity, charge))
    }

    /// A message of `len` bytes at `addr`.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn load(&self, ctx: &Ctx, addr: u64, len: usize, priority: u32) -> Result<Message> {
        let held = self.accounts.hold(ctx, len as u64)?;
        let mut text = vec![0; len];
        ctx.read_user(addr, &mut text)?;
        Ok(Message::new(priority, text, held))
    }
}
