//! Host processes of the guests: who still uses one, and the zygote that fresh ones come from.

use super::stub;
use super::tracee::Tracee;
use crate::errno::{Errno, Error, Result};
use crate::platform::Reserved;
use nix::libc;
use std::format;
use std::string::String;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::vec::Vec;

/// A host process and the guest threads that live in it.
pub(super) struct HostProcess {
    pub(super) pid: i32,
    /// Threads that have not ended; the process is killed with the last.
    threads: Mutex<usize>,
    ended: Condvar,
}

impl HostProcess {
    pub(super) fn new(pid: i32) -> Arc<HostProcess> {
        Arc::new(HostProcess { pid, threads: Mutex::new(1), ended: Condvar::new() })
    }

    fn count(&self) -> std::sync::MutexGuard<'_, usize> {
        self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One more guest thread lives here.
    pub(super) fn add_thread(&self) {
        *self.count() += 1;
    }

    /// Whether the caller's thread is the only one.
    pub(super) fn alone(&self) -> bool {
        *self.count() == 1
    }

    /// Ends a thread of the process, and the process with the last one. A process's first host thread cannot end
    /// before the others: its tracer waits for them.
    pub(super) fn leave(&self, tracee: Tracee) {
        let mut threads = self.count();
        *threads -= 1;
        if *threads == 0 {
            drop(threads);
            kill_and_reap(self.pid, tracee.tid);
            self.ended.notify_all();
        } else if tracee.tid == self.pid {
            while *threads > 0 {
                threads = self.ended.wait(threads).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        } else {
            drop(threads);
            tracee.exit_thread();
        }
    }
}

fn kill_and_reap(pid: i32, tid: i32) {
    // SAFETY: signals and waits for a child that only this process knows; no memory is involved.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        if tid != pid {
            reap(tid);
        }
        reap(pid);
    }
}

/// # Safety
/// None beyond the call itself; the status word is local.
unsafe fn reap(tid: i32) {
    loop {
        let mut status = 0;
        // SAFETY: the status word is ours.
        let got = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        let interrupted = got < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
        if !interrupted && (got < 0 || !libc::WIFSTOPPED(status)) {
            return;
        }
    }
}

/// A guest process that never runs: a thread of its own keeps it stopped in the stub and has it cloned on request.
pub(super) struct Zygote {
    requests: Mutex<mpsc::Sender<mpsc::Sender<Result<i32>>>>,
    /// What every guest address space holds that is not the guest's.
    pub(super) reserved: Vec<Reserved>,
}

impl Zygote {
    /// Makes the first guest process and empties its memory.
    ///
    /// # Errors
    /// Where the host refuses `ptrace` or `memfd`, a sentence that says so.
    pub(super) fn start() -> core::result::Result<Zygote, String> {
        let (requests, inbox) = mpsc::channel::<mpsc::Sender<Result<i32>>>();
        let (ready, started) = mpsc::channel();
        thread::Builder::new()
            .name("zygote".into())
            .spawn(move || match prepare() {
                Ok((tracee, reserved)) => {
                    if ready.send(Ok((tracee.pid, reserved))).is_ok() {
                        for reply in inbox {
                            let _ = reply.send(tracee.clone(PROCESS));
                        }
                    }
                    kill_and_reap(tracee.pid, tracee.tid);
                }
                Err(e) => drop(ready.send(Err(e))),
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        let (pid, reserved) = started.recv().map_err(|_| String::from("the zygote's thread ended"))??;
        watch(pid)?;
        Ok(Zygote { requests: Mutex::new(requests), reserved })
    }

    /// A new host process with empty memory, sleeping in the stub.
    pub(super) fn spawn(&self) -> Result<i32> {
        let gone = Error::new(Errno::EAGAIN, "the zygote is gone");
        let (reply, answer) = mpsc::channel();
        let requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        requests.send(reply).map_err(|_| gone)?;
        drop(requests);
        answer.recv().map_err(|_| gone)?
    }
}

/// Ends the kernel process when the zygote is killed: a machine that cannot make processes is none. The zygote's own thread sleeps
/// until it is asked for something, and may never notice.
fn watch(pid: i32) -> core::result::Result<(), String> {
    // SAFETY: two numbers.
    let file = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if file < 0 {
        return Err(format!("cannot watch a process (pidfd_open): {}", std::io::Error::last_os_error()));
    }
    let body = move || {
        let mut polled = libc::pollfd { fd: file as i32, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which is ours.
        while unsafe { libc::poll(&raw mut polled, 1, -1) } < 1 {}
        panic!("the zygote was killed");
    };
    thread::Builder::new().name("watch".into()).spawn(body).map_err(|e| format!("cannot start a thread: {e}"))?;
    Ok(())
}

/// Clone flags of a guest process: a child of this process, which it shares its descriptors with.
pub(super) const PROCESS: i32 = libc::CLONE_FILES | libc::CLONE_PARENT | libc::SIGCHLD;

fn prepare() -> core::result::Result<(Tracee, Vec<Reserved>), String> {
    let stub = stub::memfd().map_err(|e| format!("cannot make a memory file: {e}"))?;
    let pid = stub::spawn_first(&stub).map_err(|e| format!("cannot start a process: {e}"))?;
    let take = || -> Result<Tracee> {
        let tracee = Tracee::seize(pid, pid)?;
        // The first stop may come before the stub: run until the process sleeps there.
        while !(stub::STUB_BASE..stub::STUB_BASE + stub::STUB_LEN).contains(&tracee.registers()?.rip) {
            thread::yield_now();
            tracee.step()?;
        }
        tracee.forget_registrations()?;
        Ok(tracee)
    };
    let tracee = take().map_err(|e| {
        // SAFETY: the child is ours.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        format!("the host does not let umlfs trace its own processes (ptrace: {})", e.errno)
    })?;
    let reserved = empty_memory(&tracee)?;
    Ok((tracee, reserved))
}

/// Unmaps everything but the stub and the host's vdso.
fn empty_memory(tracee: &Tracee) -> core::result::Result<Vec<Reserved>, String> {
    let path = format!("/proc/{}/maps", tracee.pid);
    let maps = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let mut reserved = Vec::new();
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else { continue };
        let name = match rest.rsplit(' ').next() {
            Some("[vdso]") => "[vdso]",
            Some("[vvar]") => "[vvar]",
            Some("[vvar_vclock]") => "[vvar_vclock]",
            Some("[vsyscall]") => continue,
            _ if start == stub::STUB_BASE => "",
            _ => {
                tracee
                    .call(libc::SYS_munmap, [start, end - start, 0, 0, 0, 0])
                    .map_err(|e| format!("cannot empty a guest's memory: {e}"))?;
                continue;
            }
        };
        reserved.push(Reserved { start, end, name });
    }
    Ok(reserved)
}
