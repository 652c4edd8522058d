//! System V IPC (`sysvipc(7)`): shared memory, semaphore sets and message queues, each found by a key and named by a number; and
//! POSIX message queues, in [`mqueue`], which are files.
//!
//! System V's three kinds share how their objects are found and who may use them ([`Table`], [`Perm`]); what an object does is in
//! a module of its own. Objects outlive the processes that make them. `/proc/sysvipc` lists them.

mod limits;
pub mod mqueue;
pub mod msg;
mod perm;
pub mod sem;
pub mod shm;
mod table;

pub use limits::Limits;
pub use perm::Perm;
pub use table::{Object, Table, sequence_of};

use alloc::sync::Arc;

/// `key_t`: an object that nobody else finds.
pub const IPC_PRIVATE: i32 = 0;
/// Make it if it is not there.
pub const IPC_CREAT: i32 = 0o1000;
/// With [`IPC_CREAT`]: fail if it is there.
pub const IPC_EXCL: i32 = 0o2000;
/// Do not wait.
pub const IPC_NOWAIT: i32 = 0o4000;

/// All objects of the machine.
#[derive(Default)]
pub struct Ipc {
    /// How many and how large objects may be.
    pub limits: Limits,
    /// Shared memory.
    pub shm: Arc<Table<shm::Segment>>,
    /// Semaphore sets.
    pub sem: Table<sem::Set>,
    /// Message queues.
    pub msg: Table<msg::Queue>,
    /// POSIX message queues.
    pub mqueue: mqueue::Mqueues,
    /// What processes have to take back when they end.
    pub(crate) undo: sem::UndoCount,
}

/// The time as these objects keep it: seconds since 1970.
fn now() -> i64 {
    crate::vfs::Timestamp::now().sec
}
