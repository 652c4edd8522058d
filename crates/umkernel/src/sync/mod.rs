//! The kernel's own locks and wait queues, on process-shared futexes: they work from a shared arena, with neither
//! libc nor thread-local storage.
//!
//! Lock order, outermost first: task table, process, address space, file table, directory (`Dentry::lock`), mount tree, dentry, inode,
//! file system, tty or POSIX message queue, wait queue. A lock is never held across a wait. The list of mount namespaces that have ended
//! is within the mount tree, for the last reference to one may go with a mount that is taken out; who holds the list only tries to take the
//! tree.

pub mod contention;
mod mutex;
mod oneshot;
mod rwlock;
mod seqlock;
mod wait;

pub use mutex::{Mutex, MutexGuard};
pub use oneshot::{Receiver, Sender, oneshot};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use seqlock::{SeqLock, SeqWriter};
pub use wait::{PollTable, WaitQueue, Waiter, Wake};
