//! A queue: its messages, and who waits for one or for room.
//!
//! Who waits is served: a sender gives its message to the receiver that has waited longest, and a receiver puts the message of the
//! sender that has waited longest into the queue. So each change wakes the one whom it serves, and nobody in vain (`ipc/mqueue.c`
//! of Linux).

use super::account::{Capacity, Charge, Held};
use super::notice::Notice;
use crate::bail;
use crate::errno::{Errno, Error, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::sync::{Mutex, MutexGuard, PollTable, WaitQueue};
use crate::task::Process;
use crate::time::Clock;
use crate::vfs::PollEvents;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::CLOCK_REALTIME;

/// A message.
pub struct Message {
    /// Higher ones come first.
    pub priority: u32,
    /// What it says.
    pub text: Vec<u8>,
    _held: Held,
}

impl Message {
    pub(super) fn new(priority: u32, text: Vec<u8>, held: Held) -> Message {
        Message { priority, text, _held: held }
    }
}

/// A queue.
pub struct Queue {
    capacity: Capacity,
    state: Mutex<State>,
    /// Woken when there is a message or room that nobody has waited for.
    readiness: Arc<WaitQueue>,
    _charge: Charge,
}

#[derive(Default)]
struct State {
    /// By priority, oldest first; no list is empty.
    messages: BTreeMap<u32, VecDeque<Message>>,
    count: u64,
    /// Of all messages.
    bytes: u64,
    /// Those who wait, longest first. Senders do only while the queue is full, receivers only while it is empty.
    senders: VecDeque<Arc<Waiting>>,
    receivers: VecDeque<Arc<Waiting>>,
    /// Who is told of the next message in the empty queue.
    notice: Option<Notice>,
}

/// Somebody who waits.
struct Waiting {
    /// What a sender brings, until it is taken; what a receiver gets, once it is there.
    message: Mutex<Option<Message>>,
    /// Woken when that has happened.
    served: WaitQueue,
}

impl Waiting {
    fn with(message: Option<Message>) -> Arc<Waiting> {
        Arc::new(Waiting { message: Mutex::new(message), served: WaitQueue::new() })
    }
}

/// The list of those who wait that one is in.
type Line = fn(&mut State) -> &mut VecDeque<Arc<Waiting>>;

impl State {
    fn insert(&mut self, message: Message) {
        self.count += 1;
        self.bytes += message.text.len() as u64;
        self.messages.entry(message.priority).or_default().push_back(message);
    }

    /// The oldest message of the highest priority.
    fn take(&mut self) -> Option<Message> {
        let mut highest = self.messages.last_entry()?;
        let message = highest.get_mut().pop_front();
        if highest.get().is_empty() {
            highest.remove();
        }
        let message = message?;
        self.count -= 1;
        self.bytes -= message.text.len() as u64;
        Some(message)
    }
}

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: `EAGAIN`.
    None,
    /// Until `CLOCK_REALTIME` shows so many nanoseconds, if that is said: `ETIMEDOUT`.
    Until(Option<u64>),
}

impl Queue {
    pub(super) fn new(capacity: Capacity, charge: Charge) -> Queue {
        Queue { capacity, state: Mutex::default(), readiness: Arc::default(), _charge: charge }
    }

    /// What it takes.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Messages in it.
    pub fn count(&self) -> u64 {
        self.state.lock().count
    }

    /// What its file says.
    pub fn describe(&self) -> String {
        let state = self.state.lock();
        let (notify, signo, pid) = state.notice.as_ref().map_or((0, 0, 0), Notice::shown);
        format!("QSIZE:{:<10} NOTIFY:{notify:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
    }

    /// What could be done now without waiting.
    pub fn poll(&self, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.readiness);
        }
        let count = self.count();
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, count > 0);
        events.set(PollEvents::OUT | PollEvents::WRNORM, count < self.capacity.messages);
        events
    }

    /// Puts a message in, or gives it to who waits for one.
    ///
    /// # Errors
    /// Where there is no room: as `patience` says, and `ERESTARTSYS`.
    pub fn send(&self, ctx: &Ctx, message: Message, patience: Patience) -> Result<()> {
        let mut state = self.state.lock();
        if state.count == self.capacity.messages {
            let Patience::Until(deadline) = patience else { bail!(EAGAIN) };
            let waiting = Waiting::with(Some(message));
            let taken = || waiting.message.lock().is_none().then_some(());
            return self.wait(ctx, state, |state| &mut state.senders, &waiting, deadline, taken);
        }
        if let Some(receiver) = state.receivers.pop_front() {
            *receiver.message.lock() = Some(message);
            drop(state);
            receiver.served.wake_all();
            return Ok(());
        }
        state.insert(message);
        let notice = if state.count == 1 { state.notice.take() } else { None };
        // Who is told may look at once; and a signal takes locks that come before this one.
        drop(state);
        if let Some(notice) = notice {
            notice.tell(ctx);
        }
        self.readiness.wake_one();
        Ok(())
    }

    /// Takes the oldest message of the highest priority.
    ///
    /// # Errors
    /// Where there is none: as `patience` says, and `ERESTARTSYS`.
    pub fn receive(&self, ctx: &Ctx, patience: Patience) -> Result<Message> {
        let mut state = self.state.lock();
        let Some(message) = state.take() else {
            let Patience::Until(deadline) = patience else { bail!(EAGAIN) };
            let waiting = Waiting::with(None);
            let given = || waiting.message.lock().take();
            return self.wait(ctx, state, |state| &mut state.receivers, &waiting, deadline, given);
        };
        let Some(sender) = state.senders.pop_front() else {
            drop(state);
            self.readiness.wake_one();
            return Ok(message);
        };
        let next = sender.message.lock().take();
        if let Some(next) = next {
            state.insert(next);
        }
        drop(state);
        sender.served.wake_all();
        Ok(message)
    }

    /// Waits in a line until `served` gives a value; the deadline is one of `CLOCK_REALTIME`.
    fn wait<T>(
        &self,
        ctx: &Ctx,
        mut state: MutexGuard<'_, State>,
        line: Line,
        waiting: &Arc<Waiting>,
        deadline: Option<u64>,
        mut served: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        line(&mut state).push_back(waiting.clone());
        drop(state);
        let clock = Clock::Host(CLOCK_REALTIME as i32);
        let failed: Error = loop {
            match ctx.wait(&waiting.served, deadline.map(|at| clock.to_monotonic(at)), &mut served) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) if deadline.is_some_and(|at| at <= host::realtime_ns()) => break Errno::ETIMEDOUT.into(),
                // The host's clock was set back.
                Ok(None) => {}
                Err(error) => break error,
            }
        };
        // Whoever takes this one out of the line serves it under the same lock.
        let mut state = self.state.lock();
        line(&mut state).retain(|other| !Arc::ptr_eq(other, waiting));
        drop(state);
        served().ok_or(failed)
    }

    /// Has a process told of the next message in the empty queue.
    ///
    /// # Errors
    /// `EBUSY` when one is told already.
    pub fn register(&self, notice: Notice) -> Result<()> {
        let mut state = self.state.lock();
        if state.notice.is_some() {
            bail!(EBUSY);
        }
        state.notice = Some(notice);
        Ok(())
    }

    /// Has a process not told any more; true if it would have been.
    pub fn unregister(&self, process: &Arc<Process>) -> bool {
        let mut state = self.state.lock();
        let gone = state.notice.take_if(|notice| notice.is_for(process));
        drop(state);
        let was = gone.is_some();
        if let Some(notice) = gone {
            notice.cancel();
        }
        was
    }
}
