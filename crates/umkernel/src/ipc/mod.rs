//! System V IPC (`sysvipc(7)`): shared memory, semaphore sets and message queues, each found by a key and named by a number; and
//! POSIX message queues, in [`mqueue`], which are files.
//!
//! System V's three kinds share how their objects are found and who may use them ([`Table`], [`Perm`]); what an object does is in
//! a module of its own. Objects outlive the processes that make them, and end with their namespace (`ipc_namespaces(7)`).
//! `/proc/sysvipc` lists them.

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

use crate::kernel::Ctx;
use crate::ns::Ticket;
use crate::sync::Mutex;
use crate::vfs::Mount;
use alloc::sync::Arc;

/// `key_t`: an object that nobody else finds.
pub const IPC_PRIVATE: i32 = 0;
/// Make it if it is not there.
pub const IPC_CREAT: i32 = 0o1000;
/// With [`IPC_CREAT`]: fail if it is there.
pub const IPC_EXCL: i32 = 0o2000;
/// Do not wait.
pub const IPC_NOWAIT: i32 = 0o4000;

/// A namespace of objects, with limits of its own.
pub struct Ipc {
    ticket: Ticket,
    /// How many and how large objects may be.
    pub limits: Limits,
    /// Shared memory.
    pub shm: Arc<Table<shm::Segment>>,
    /// Semaphore sets.
    pub sem: Table<sem::Set>,
    /// Message queues.
    pub msg: Table<msg::Queue>,
    /// Where the kernel itself looks for POSIX message queues, once anybody has.
    pub(crate) mqueue: Mutex<Option<Arc<Mount>>>,
    /// What processes have to take back when they end.
    pub(crate) undo: sem::UndoCount,
}

impl Ipc {
    /// Without objects.
    pub(crate) fn new(ticket: Ticket) -> Ipc {
        Ipc {
            ticket,
            limits: Limits::default(),
            shm: Arc::default(),
            sem: Table::default(),
            msg: Table::default(),
            mqueue: Mutex::default(),
            undo: sem::UndoCount::default(),
        }
    }

    /// What says which namespace it is.
    pub(crate) fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

impl<'a> Ctx<'a> {
    /// The System V objects that the running task finds.
    pub fn ipc(&self) -> &'a Ipc {
        &self.namespaces().ipc
    }
}

/// The time as these objects keep it: seconds since 1970.
fn now() -> i64 {
    crate::vfs::Timestamp::now().sec
}
