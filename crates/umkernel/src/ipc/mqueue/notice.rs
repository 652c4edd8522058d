//! Telling a process that a message has come to a queue that was empty (`mq_notify(3)`).

use crate::errno::Result;
use crate::kernel::Ctx;
use crate::net::netlink::Reserved;
use crate::signal::{self, SigDetail, SigInfo, code};
use crate::task::{Pid, Process};
use alloc::sync::{Arc, Weak};
use core::ptr;

/// Bytes of what `SIGEV_THREAD` has sent: the process's own, but for the last one (`NOTIFY_COOKIE_LEN`).
pub const COOKIE_LEN: usize = 32;

/// How a process is told.
pub enum How {
    /// Not at all; others cannot be told meanwhile (`SIGEV_NONE`).
    Silent,
    /// By a signal and its value (`SIGEV_SIGNAL`); by none if the signal is 0.
    Signal(u8, u64),
    /// By a message to a netlink socket, where a thread of the C library's waits for it (`SIGEV_THREAD`).
    Thread(Cookie),
}

/// What a thread of the C library's is sent, and where.
pub struct Cookie {
    room: Reserved,
    bytes: [u8; COOKIE_LEN],
}

impl Cookie {
    /// `bytes` for the socket that there is room in.
    pub(crate) fn new(room: Reserved, bytes: [u8; COOKIE_LEN]) -> Cookie {
        Cookie { room, bytes }
    }

    fn send(mut self, why: u8) {
        self.bytes[COOKIE_LEN - 1] = why;
        self.room.send(self.bytes.to_vec());
    }
}

/// Last byte of a cookie: there is a message (`NOTIFY_WOKENUP`).
const WOKEN: u8 = 1;
/// Last byte of a cookie: there will be no notice any more (`NOTIFY_REMOVED`).
const REMOVED: u8 = 2;

/// Who is told, and how.
pub struct Notice {
    how: How,
    process: Weak<Process>,
    pid: Pid,
    /// The number of the address space that the program had: what the process executes later knows nothing of it.
    program: u64,
}

impl Notice {
    /// For the running task's process.
    ///
    /// # Errors
    /// `ESRCH` for a kernel thread, which has no program.
    pub fn new(ctx: &Ctx, how: How) -> Result<Notice> {
        let process = &ctx.task.process;
        Ok(Notice { how, process: Arc::downgrade(process), pid: process.pid, program: ctx.mm()?.id })
    }

    /// Whether it is for this process.
    pub(super) fn is_for(&self, process: &Arc<Process>) -> bool {
        ptr::eq(self.process.as_ptr(), Arc::as_ptr(process))
    }

    /// `sigev_notify`, the signal, and the process, as the queue's file shows them.
    pub(super) fn shown(&self) -> (u32, u8, Pid) {
        match self.how {
            How::Signal(signo, _) => (0, signo, self.pid),
            How::Silent => (1, 0, self.pid),
            How::Thread(_) => (2, 0, self.pid),
        }
    }

    /// The running task has sent a message.
    pub(super) fn tell(self, ctx: &Ctx) {
        match self.how {
            How::Silent | How::Signal(0, _) => {}
            How::Signal(signo, value) => {
                let Some(process) = self.process.upgrade().filter(|process| still_runs(process, self.program)) else {
                    return;
                };
                let detail = SigDetail::Sender { pid: ctx.task.process.pid, uid: ctx.creds().uid, value };
                let info = SigInfo { signo, code: code::SI_MESGQ, errno: 0, detail };
                // Where the process has too many signals waiting, this one is lost, as on Linux.
                let _ = signal::send_to_process(ctx.kernel, &process, info);
            }
            How::Thread(cookie) => cookie.send(WOKEN),
        }
    }

    /// Nobody is to be told any more.
    pub(super) fn cancel(self) {
        if let How::Thread(cookie) = self.how {
            cookie.send(REMOVED);
        }
    }
}

/// Whether a process still executes what it did when it had this address space.
fn still_runs(process: &Process, program: u64) -> bool {
    // Any thread will do; one that is ending has given its memory up already.
    let threads = process.inner.lock().threads.clone();
    threads.iter().any(|task| task.mm().is_ok_and(|space| space.id == program))
}
