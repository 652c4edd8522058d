//! What guest processes have the kernel process do for them, because the filter keeps them from other host processes: sending
//! the kick, and looking into another process's memory and state.

use crate::errno::{Errno, Error, Result};
use crate::host;
use crate::sync::Mutex;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

/// What can be asked.
#[derive(Clone, Copy)]
pub(super) enum Request {
    /// Send a host signal to a thread.
    Signal { pid: i32, tid: i32, signal: i32 },
    /// Read another process's memory into the arena.
    Read { pid: i32, addr: u64, to: *mut u8, len: usize },
    /// Write it from the arena.
    Write { pid: i32, addr: u64, from: *const u8, len: usize },
    /// Resident pages of a process, all of them (`statm`, field 2) and the shared ones (field 3).
    Resident { pid: i32 },
}

/// The desk: one request at a time.
pub(super) struct Proxy {
    turn: Mutex<()>,
    state: AtomicU32,
    request: UnsafeCell<Request>,
    answer: UnsafeCell<Result<(u64, u64)>>,
}

// SAFETY: the cells are the asker's while it has its turn, and the server's between ASKED and ANSWERED.
unsafe impl Sync for Proxy {}
// SAFETY: the pointers in a request point into the arena.
unsafe impl Send for Proxy {}

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const ANSWERED: u32 = 2;

impl Default for Proxy {
    fn default() -> Proxy {
        Proxy {
            turn: Mutex::default(),
            state: AtomicU32::new(IDLE),
            request: UnsafeCell::new(Request::Resident { pid: 0 }),
            answer: UnsafeCell::new(Ok((0, 0))),
        }
    }
}

impl Proxy {
    /// Has a request served, from any thread of the machine.
    pub(super) fn ask(&self, request: Request) -> Result<(u64, u64)> {
        // SAFETY: the running thread's own slot.
        if unsafe { super::slot::current().own() }.in_kernel_process {
            return serve(request);
        }
        let _turn = self.turn.lock();
        // SAFETY: this thread has the turn and the server waits.
        unsafe { *self.request.get() = request };
        self.state.store(ASKED, Ordering::Release);
        host::futex_wake(&self.state, 1);
        while self.state.load(Ordering::Acquire) == ASKED {
            host::futex_wait(&self.state, ASKED, None);
        }
        self.state.store(IDLE, Ordering::Relaxed);
        // SAFETY: answered, and the next request needs the turn.
        unsafe { *self.answer.get() }
    }

    /// Serves requests for as long as the machine runs; in the kernel process.
    pub(super) fn run(&self) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state != ASKED {
                host::futex_wait(&self.state, state, None);
                continue;
            }
            // SAFETY: the asker waits until ANSWERED.
            unsafe { *self.answer.get() = serve(*self.request.get()) };
            self.state.store(ANSWERED, Ordering::Release);
            host::futex_wake(&self.state, 1);
        }
    }
}

fn serve(request: Request) -> Result<(u64, u64)> {
    let count = |n: usize| (n as u64, 0);
    match request {
        Request::Signal { pid, tid, signal } => host::tgkill(pid, tid, signal).map(|()| (0, 0)),
        Request::Read { pid, addr, to, len } => {
            // SAFETY: the asker's buffer, in memory that all processes share, and the asker waits.
            let buf = unsafe { core::slice::from_raw_parts_mut(to, len) };
            host::process_vm_read(pid, addr, buf).map(count)
        }
        Request::Write { pid, addr, from, len } => {
            // SAFETY: as above.
            let buf = unsafe { core::slice::from_raw_parts(from, len) };
            host::process_vm_write(pid, addr, buf).map(count)
        }
        Request::Resident { pid } => {
            let path = alloc::ffi::CString::new(alloc::format!("/proc/{pid}/statm")).unwrap_or_default();
            let text = host::process::read_file(&path)?;
            let text = core::str::from_utf8(&text).unwrap_or_default();
            let mut fields = text.split(' ').skip(1).map(|field| field.trim().parse().unwrap_or(0));
            match (fields.next(), fields.next()) {
                (Some(all), Some(shared)) => Ok((all, shared)),
                _ => Err(Error::new(Errno::EIO, "statm")),
            }
        }
    }
}
