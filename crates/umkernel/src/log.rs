//! The kernel log: what `dmesg(1)` shows.

use crate::sync::{Mutex, WaitQueue};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;

/// Messages kept; older ones are forgotten.
const CAPACITY: usize = 1024;

/// How much a message matters (`syslog(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the levels' own names")]
pub enum Level {
    Emergency = 0,
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// Shows messages: given the level, the time in nanoseconds since boot, and the text.
pub type Sink = alloc::boxed::Box<dyn Fn(Level, u64, &str) + Send + Sync>;

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Counts from 0 at boot.
    pub sequence: u64,
    /// How much it matters.
    pub level: Level,
    /// Nanoseconds since boot.
    pub time: u64,
    /// One line, without its newline.
    pub text: String,
}

/// The ring of messages.
#[derive(Default)]
pub struct KernelLog {
    inner: Mutex<Ring>,
    /// Woken by each message.
    pub arrival: Arc<WaitQueue>,
}

#[derive(Default)]
struct Ring {
    next: u64,
    messages: VecDeque<Message>,
}

impl KernelLog {
    /// Adds a message, `time` nanoseconds after boot.
    pub fn add(&self, level: Level, time: u64, text: String) {
        let mut ring = self.inner.lock();
        let sequence = ring.next;
        ring.next += 1;
        if ring.messages.len() == CAPACITY {
            ring.messages.pop_front();
        }
        ring.messages.push_back(Message { sequence, level, time, text });
        drop(ring);
        self.arrival.wake_all();
    }

    /// The first message whose sequence number is at least `from`.
    pub fn get(&self, from: u64) -> Option<Message> {
        let ring = self.inner.lock();
        ring.messages.iter().find(|m| m.sequence >= from).cloned()
    }
}
