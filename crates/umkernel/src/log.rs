//! The kernel log: what `dmesg(1)` shows.

use crate::sync::{Mutex, WaitQueue};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

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

/// What `syslog(2)` says the buffer's size is.
pub const BUFFER_SIZE: usize = 1 << 17;
/// Messages of a lower level than this go to the console, until somebody changes it.
const DEFAULT_CONSOLE_LEVEL: u32 = 7;

/// The ring of messages.
pub struct KernelLog {
    inner: Mutex<Ring>,
    /// Messages of a lower level go to the console.
    console_level: AtomicU32,
    /// The level while the console is switched off; 0 while it is on.
    saved_level: AtomicU32,
    /// Woken by each message.
    pub arrival: Arc<WaitQueue>,
}

#[derive(Default)]
struct Ring {
    next: u64,
    messages: VecDeque<Message>,
    /// Where the reader of `syslog(2)` is: a message, and bytes of its text taken already.
    reader: (u64, usize),
    /// The first message that was not cleared.
    cleared: u64,
}

impl Default for KernelLog {
    fn default() -> KernelLog {
        KernelLog {
            inner: Mutex::default(),
            console_level: AtomicU32::new(DEFAULT_CONSOLE_LEVEL),
            saved_level: AtomicU32::new(0),
            arrival: Arc::default(),
        }
    }
}

impl Message {
    /// The message as `syslog(2)` returns it: level, time, text and newline.
    fn line(&self) -> String {
        let (sec, usec) = (self.time / 1_000_000_000, self.time % 1_000_000_000 / 1000);
        alloc::format!("<{}>[{sec:5}.{usec:06}] {}\n", self.level as u8, self.text)
    }
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

    /// The sequence number of the next message.
    pub fn end(&self) -> u64 {
        self.inner.lock().next
    }

    /// The sequence number of the first message that was not cleared.
    pub fn cleared(&self) -> u64 {
        self.inner.lock().cleared
    }

    /// Takes up to `len` bytes that the reader of `syslog(2)` has not seen; empty if there is nothing new.
    pub fn read(&self, len: usize) -> Vec<u8> {
        let mut ring = self.inner.lock();
        let ring = &mut *ring;
        let mut text = Vec::new();
        for message in &ring.messages {
            if message.sequence < ring.reader.0 {
                continue;
            }
            let skip = if message.sequence == ring.reader.0 { ring.reader.1 } else { 0 };
            let line = message.line();
            let rest = &line.as_bytes()[skip.min(line.len())..];
            let room = len - text.len();
            if rest.len() > room {
                // A line is cut only for a reader whose buffer it would never fit.
                if text.is_empty() {
                    text.extend_from_slice(&rest[..room]);
                    ring.reader = (message.sequence, skip + room);
                }
                break;
            }
            text.extend_from_slice(rest);
            ring.reader = (message.sequence + 1, 0);
        }
        text
    }

    /// Bytes that the reader of `syslog(2)` has not seen.
    pub fn unread(&self) -> usize {
        let ring = self.inner.lock();
        let (from, skip) = ring.reader;
        let new = ring.messages.iter().filter(|m| m.sequence >= from);
        new.map(|m| m.line().len() - if m.sequence == from { skip } else { 0 }).sum()
    }

    /// The newest messages that fit into `len` bytes, without those that were cleared; with `clear`, clears them.
    pub fn read_all(&self, len: usize, clear: bool) -> Vec<u8> {
        let mut ring = self.inner.lock();
        let mut lines = Vec::new();
        let mut total = 0;
        for message in ring.messages.iter().rev().take_while(|m| m.sequence >= ring.cleared) {
            let line = message.line();
            total += line.len();
            if total > len {
                break;
            }
            lines.push(line);
        }
        if clear {
            ring.cleared = ring.next;
        }
        lines.iter().rev().flat_map(|line| line.bytes()).collect()
    }

    /// Forgets all messages as far as [`KernelLog::read_all`] goes.
    pub fn clear(&self) {
        let mut ring = self.inner.lock();
        ring.cleared = ring.next;
    }

    /// Whether messages of this level go to the console.
    pub fn on_console(&self, level: Level) -> bool {
        (level as u32) < self.console_level.load(Ordering::Relaxed)
    }

    /// Messages of a lower level than this go to the console from now on.
    pub fn set_console_level(&self, level: u32) {
        self.saved_level.store(0, Ordering::Relaxed);
        self.console_level.store(level, Ordering::Relaxed);
    }

    /// The console level.
    pub fn console_level(&self) -> u32 {
        self.console_level.load(Ordering::Relaxed)
    }

    /// Switches the console off, but for emergencies, and on again.
    pub fn set_console(&self, on: bool) {
        if on {
            let saved = self.saved_level.swap(0, Ordering::Relaxed);
            if saved != 0 {
                self.console_level.store(saved, Ordering::Relaxed);
            }
        } else if self.saved_level.load(Ordering::Relaxed) == 0 {
            self.saved_level.store(self.console_level.swap(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;

    #[test]
    fn the_reader_takes_each_line_once_and_read_all_the_newest() {
        let log = KernelLog::default();
        log.add(Level::Info, 0, "first".into());
        log.add(Level::Error, 1_500_000_000, "second".into());
        assert_eq!(log.read(30), b"<6>[    0.000000] first\n");
        assert_eq!(log.unread(), 25);
        assert_eq!(log.read(5), b"<3>[ ");
        assert_eq!(log.read(100), b"   1.500000] second\n");
        assert!(log.read(100).is_empty());
        assert_eq!(log.read_all(30, true), b"<3>[    1.500000] second\n");
        assert!(log.read_all(100, false).is_empty());
    }

    #[test]
    fn the_console_goes_off_and_on() {
        let log = KernelLog::default();
        assert!(log.on_console(Level::Info) && !log.on_console(Level::Debug));
        log.set_console(false);
        assert!(!log.on_console(Level::Alert) && log.on_console(Level::Emergency));
        log.set_console(true);
        assert!(log.on_console(Level::Info));
    }
}
