//! A channel for one value: how a host thread learns what came of something that another one does.

use super::{Mutex, Waiter, Wake};
use alloc::sync::Arc;

/// What both ends share.
struct Channel<T> {
    value: Mutex<Option<T>>,
    /// Woken when the sender is gone, with a value left behind or without.
    done: Waiter,
}

/// The end that gives the value. Dropping it without tells the receiver that there will be none.
pub struct Sender<T>(Arc<Channel<T>>);

/// The end that waits for the value.
pub struct Receiver<T>(Arc<Channel<T>>);

/// Makes a channel.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel { value: Mutex::new(None), done: Waiter::new() });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Sender<T> {
    /// Gives the value. If the receiver is gone, nobody gets it.
    pub fn send(self, value: T) {
        *self.0.value.lock() = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.done.wake();
    }
}

impl<T> Receiver<T> {
    /// Blocks the calling host thread until there is a value; `None` if the sender is gone without one. Not interruptible
    /// by signals.
    pub fn receive(self) -> Option<T> {
        while !self.0.done.sleep(None) {}
        self.0.value.lock().take()
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_value_crosses_between_threads_early_or_late() {
        for (before, after) in [(0, 20), (20, 0)] {
            let (sender, receiver) = oneshot();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(before));
                sender.send(7);
            });
            std::thread::sleep(Duration::from_millis(after));
            assert_eq!(receiver.receive(), Some(7));
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_sender_that_is_gone_sends_nothing() {
        let (sender, receiver) = oneshot::<()>();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(sender);
        });
        assert_eq!(receiver.receive(), None);
        thread.join().unwrap();
    }

    #[test]
    fn a_value_may_be_of_no_interest() {
        let value = Arc::new(());
        let (sender, receiver) = oneshot();
        drop(receiver);
        sender.send(value.clone());
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
