//! Signals (`signal(7)`).

use crate::sync::Mutex;
use alloc::vec::Vec;

/// A set of signals: bit `n - 1` is signal `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigSet(pub u64);

/// Why a signal was sent: the parts of `siginfo_t` that Linux fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    /// Signal number, 1..=64.
    pub signo: u8,
    /// `si_code`.
    pub code: i32,
    /// `si_errno`.
    pub errno: i32,
    /// The rest, by kind.
    pub detail: SigDetail,
}

/// The union of `siginfo_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigDetail {
    /// Nothing more.
    None,
    /// Sent by a process (`kill`, `tgkill`, `sigqueue`), with the value of `sigqueue(3)`.
    Sender {
        /// Process id of the sender.
        pid: i32,
        /// Its real user id.
        uid: u32,
        /// `si_value`.
        value: u64,
    },
    /// A child's end, stop or continue.
    Child {
        /// The child.
        pid: i32,
        /// Its real user id.
        uid: u32,
        /// Exit code or signal.
        status: i32,
        /// Its CPU time in clock ticks (1/100 s): user, system.
        utime: u64,
        /// System time in clock ticks.
        stime: u64,
    },
    /// A fault at an address.
    Fault {
        /// `si_addr`.
        addr: u64,
        /// `si_trapno` or 0.
        trapno: i32,
    },
    /// A POSIX timer's expiry.
    Timer {
        /// Timer id.
        id: i32,
        /// `si_overrun`.
        overrun: i32,
        /// `si_value`.
        value: u64,
    },
}

/// A thread's signal state.
#[derive(Default)]
pub struct TaskSignals {
    /// Pending for this thread alone, oldest first.
    pub pending: Mutex<Vec<SigInfo>>,
}

/// A process's signal state.
#[derive(Default)]
pub struct ProcessSignals {
    /// Pending for the whole process, oldest first.
    pub pending: Mutex<Vec<SigInfo>>,
}

/// The actions of a process.
#[derive(Default)]
pub struct SigHandlers {}

/// Sends a signal for a fault of the running task; it cannot be blocked or ignored.
pub fn force(_ctx: &crate::Ctx, _info: SigInfo) {}

/// See [`crate::trap::return_to_user`].
pub fn deliver(_ctx: &crate::Ctx, _frame: &mut crate::platform::TrapFrame, _result: Option<crate::Result<usize>>) {}
