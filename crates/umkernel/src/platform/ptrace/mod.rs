//! The `ptrace` platform: the classic mechanism of User-Mode Linux.
//!
//! A guest process is a traced host process with nothing in its memory but the guest's own pages, the host's vdso and a
//! `stub` page. `PTRACE_SYSEMU` stops it at each system call before the host looks at it; the kernel thread that
//! traces it services the call and lets it run on. A kernel thread is a host thread of the umlfs process, one for each guest
//! thread, so that guest threads run, and enter the kernel, on as many processors as the host has.
//!
//! Guest processes share the umlfs process's descriptor table, so that the kernel can have them map the disk image and
//! its memory files; they cannot use it, since none of their system calls reaches the host.

mod process;
mod run;
mod stub;
mod tracee;

use super::usage::{self, Usage};
use super::{Backing, Platform, Reserved, Spawn, TrapFrame};
use crate::errno::{Errno, Error, Result};
use crate::host;
use crate::kernel::{Ctx, Kernel};
use crate::mm::{AddressSpace, PAGE_SIZE, Prot, TASK_SIZE};
use crate::task::Task;
use nix::libc;
use process::{HostProcess, PROCESS, Zygote};
use std::boxed::Box;
use std::collections::HashMap;
use std::format;
use std::string::{String, ToString};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;
use std::vec::Vec;
use tracee::Tracee;

/// The platform's state.
pub struct Ptrace {
    zygote: Zygote,
    /// Host processes with guests in them, by host id.
    processes: Mutex<HashMap<i32, Arc<HostProcess>>>,
    /// The processor's initial extended state, as long as the host wants it.
    initial_xstate: std::sync::OnceLock<Vec<u8>>,
}

impl Ptrace {
    /// Starts the platform: makes the process that all guest processes come from.
    ///
    /// # Errors
    /// A sentence for the user where the host forbids what it needs.
    pub fn new() -> core::result::Result<Ptrace, String> {
        Ok(Ptrace {
            zygote: Zygote::start()?,
            processes: Mutex::new(HashMap::new()),
            initial_xstate: std::sync::OnceLock::new(),
        })
    }

    fn processes(&self) -> MutexGuard<'_, HashMap<i32, Arc<HostProcess>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process_of(&self, task: &Task) -> Result<Arc<HostProcess>> {
        let pid = task.host.pid.load(Ordering::Relaxed);
        self.processes().get(&pid).cloned().ok_or(Error::new(Errno::ESRCH, "no host process"))
    }

    /// Ends the task's host thread, and its host process with the last.
    fn leave(&self, task: &Task) {
        let tracee = tracee_of(task);
        if let Ok(process) = self.process_of(task) {
            if process.alone() {
                self.processes().remove(&process.pid);
            }
            process.leave(tracee);
        }
    }

    fn adopt(&self, pid: i32) -> Arc<HostProcess> {
        let process = HostProcess::new(pid);
        self.processes().insert(pid, process.clone());
        process
    }
}

fn tracee_of(task: &Task) -> Tracee {
    Tracee { pid: task.host.pid.load(Ordering::Relaxed), tid: task.host.tid.load(Ordering::Relaxed) }
}

fn kill(pid: i32) {
    // SAFETY: signals and reaps a child that only this process knows.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, core::ptr::null_mut(), libc::__WALL);
    }
}

impl Platform for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn way_in(&self) -> &'static str {
        "executed `syscall` and was stopped there by the host, for this kernel, which traces it"
    }

    fn start(&self, _: &Arc<Kernel>) -> Result<()> {
        Ok(())
    }

    fn read_memory(&self, space: &AddressSpace, addr: u64, buf: &mut [u8]) -> usize {
        host::process_vm_read(space.host_pid.load(Ordering::Relaxed), addr, buf).unwrap_or(0)
    }

    fn write_memory(&self, space: &AddressSpace, addr: u64, buf: &[u8]) -> usize {
        host::process_vm_write(space.host_pid.load(Ordering::Relaxed), addr, buf).unwrap_or(0)
    }

    fn compare_exchange(&self, task: &Task, addr: u64, expected: u32, new: u32) -> Result<u32> {
        tracee_of(task).compare_exchange(addr, expected, new)
    }

    fn map(&self, task: &Task, addr: u64, len: u64, prot: Prot, backing: Backing) -> Result<()> {
        let (flags, fd, offset) = match backing {
            Backing::Anonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, u64::MAX, 0),
            Backing::File { fd, offset, shared: true } => (libc::MAP_SHARED, fd as u64, offset),
            Backing::File { fd, offset, shared: false } => (libc::MAP_PRIVATE | libc::MAP_NORESERVE, fd as u64, offset),
        };
        let args = [addr, len, prot.bits().into(), (flags | libc::MAP_FIXED) as u64, fd, offset];
        tracee_of(task).call(libc::SYS_mmap, args).map(drop)
    }

    fn unmap(&self, task: &Task, addr: u64, len: u64) -> Result<()> {
        tracee_of(task).call(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]).map(drop)
    }

    fn protect(&self, task: &Task, addr: u64, len: u64, prot: Prot) -> Result<()> {
        tracee_of(task).call(libc::SYS_mprotect, [addr, len, prot.bits().into(), 0, 0, 0]).map(drop)
    }

    fn remap(&self, task: &Task, addr: u64, len: u64, new_addr: u64, new_len: u64) -> Result<()> {
        let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        tracee_of(task).call(libc::SYS_mremap, [addr, len, new_len, flags, new_addr, 0]).map(drop)
    }

    fn advise(&self, task: &Task, addr: u64, len: u64, advice: i32) -> Result<()> {
        tracee_of(task).call(libc::SYS_madvise, [addr, len, advice as u64, 0, 0, 0]).map(drop)
    }

    fn spawn(
        &self,
        kernel: &Arc<Kernel>,
        parent: &Task,
        child: &Arc<Task>,
        how: Spawn,
        frame: TrapFrame,
        settid: u64,
    ) -> Result<()> {
        let caller = tracee_of(parent);
        let thread = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        let (pid, tid) = match how {
            Spawn::Thread => {
                let process = self.process_of(parent)?;
                let tid = caller.clone(thread)?;
                process.add_thread();
                (caller.pid, tid)
            }
            Spawn::Fork | Spawn::ShareMemory => {
                let pid = caller.clone(if how == Spawn::Fork { PROCESS } else { PROCESS | libc::CLONE_VM })?;
                self.adopt(pid);
                (pid, pid)
            }
        };
        child.host.pid.store(pid, Ordering::Relaxed);
        child.host.tid.store(tid, Ordering::Relaxed);
        if how == Spawn::Fork {
            child.mm()?.host_pid.store(pid, Ordering::Relaxed);
        }
        let first = move |ctx: &Ctx| {
            if settid != 0 {
                // A bad address is the child's own loss, as on Linux.
                let _ = ctx.write_val(settid, &ctx.task.tid());
            }
            Some(frame)
        };
        run::start(kernel, child, Box::new(first)).inspect_err(|_| {
            if pid == tid {
                self.processes().remove(&pid);
                kill(pid);
            }
        })
    }

    fn spawn_fresh(&self, kernel: &Arc<Kernel>, child: &Arc<Task>, start: super::StartFn) -> Result<()> {
        let pid = self.zygote.spawn()?;
        self.adopt(pid);
        child.host.pid.store(pid, Ordering::Relaxed);
        child.host.tid.store(pid, Ordering::Relaxed);
        run::start(kernel, child, start).inspect_err(|_| {
            self.processes().remove(&pid);
            kill(pid);
        })
    }

    fn spawn_kernel_thread(&self, kernel: &Arc<Kernel>, task: &Arc<Task>, body: super::KernelThreadFn) -> Result<()> {
        let (kernel, task) = (kernel.clone(), task.clone());
        let body = move || body(&Ctx { kernel: &kernel, task: &task });
        run::thread("kernel", body).map_err(|_| Error::new(Errno::EAGAIN, "the host gives no more threads"))
    }

    fn spawn_host_thread(&self, name: &'static str, body: super::HostThreadFn) -> Result<()> {
        run::thread(name, body).map_err(|_| Error::new(Errno::EAGAIN, "the host gives no more threads"))
    }

    fn release(&self, task: &Task) {
        self.leave(task);
    }

    fn replace_memory(&self, task: &Task, alone: bool) -> Result<()> {
        let old = tracee_of(task);
        if alone && self.process_of(task)?.alone() {
            let mut at = 0;
            for range in &self.zygote.reserved {
                if range.start > at {
                    old.call(libc::SYS_munmap, [at, range.start - at, 0, 0, 0, 0])?;
                }
                at = range.end;
            }
            if at < TASK_SIZE {
                old.call(libc::SYS_munmap, [at, TASK_SIZE - at, 0, 0, 0, 0])?;
            }
            return Ok(());
        }
        let pid = self.zygote.spawn()?;
        let fresh = Tracee::seize(pid, pid).inspect_err(|_| kill(pid))?;
        self.leave(task);
        self.adopt(pid);
        task.host.pid.store(fresh.pid, Ordering::Relaxed);
        task.host.tid.store(fresh.tid, Ordering::Relaxed);
        Ok(())
    }

    fn kick(&self, task: &Task) {
        let _ =
            host::tgkill(task.host.pid.load(Ordering::Relaxed), task.host.tid.load(Ordering::Relaxed), tracee::KICK);
    }

    fn extended_state(&self, task: &Task) -> Result<Vec<u8>> {
        tracee_of(task).extended_state()
    }

    fn set_extended_state(&self, task: &Task, state: &[u8]) -> Result<()> {
        let tracee = tracee_of(task);
        let mut full = match self.initial_xstate.get() {
            Some(initial) => initial.clone(),
            None => {
                // XSTATE_BV of zero: every component in its initial state.
                let mut initial = tracee.extended_state()?;
                initial.fill(0);
                initial[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
                initial[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
                self.initial_xstate.get_or_init(|| initial).clone()
            }
        };
        let len = state.len().min(full.len());
        full[..len].copy_from_slice(&state[..len]);
        tracee.set_extended_state(&mut full)
    }

    fn cpu_times(&self, task: &Task) -> (u64, u64) {
        let (pid, tid) = (task.host.pid.load(Ordering::Relaxed), task.host.tid.load(Ordering::Relaxed));
        (guest_time(pid, tid), thread_clock(task.host.kernel_tid.load(Ordering::Relaxed)))
    }

    fn resident_pages(&self, space: &AddressSpace) -> (u64, u64) {
        let (all, shared) = statm(&space.host_pid.load(Ordering::Relaxed).to_string());
        // The stub page is the kernel's.
        (all.saturating_sub(stub::STUB_LEN / PAGE_SIZE), shared)
    }

    fn memory_share(&self, space: &AddressSpace) -> String {
        let path = format!("/proc/{}/smaps_rollup", space.host_pid.load(Ordering::Relaxed));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn memory_usage(&self, space: &AddressSpace) -> Vec<Usage> {
        let path = format!("/proc/{}/smaps", space.host_pid.load(Ordering::Relaxed));
        usage::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    fn kernel_memory(&self) -> u64 {
        let (all, shared) = statm("self");
        (all - shared.min(all)) * PAGE_SIZE
    }

    fn hardware_auxv(&self) -> Vec<(u64, u64)> {
        const AT_MINSIGSTKSZ: u64 = 51;
        // SAFETY: getauxval only looks up the process's own vector.
        let get = |key: u64| (key, unsafe { libc::getauxval(key) });
        vec![get(libc::AT_HWCAP), get(libc::AT_HWCAP2), get(AT_MINSIGSTKSZ)]
    }

    fn reserved_ranges(&self) -> Vec<Reserved> {
        self.zygote.reserved.clone()
    }
}

/// Resident pages of a host process: all, and those of them that are a file's or shared. None of one that has ended.
fn statm(pid: &str) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let mut fields = text.split(' ').skip(1).map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

/// The CPU clock of a host thread, nanoseconds; 0 for a thread that has ended.
/// Processor time of a guest thread. The host tells the clocks of other processes' threads to nobody, only what its
/// scheduler has noted of them, which is some milliseconds old for one that runs.
fn guest_time(pid: i32, tid: i32) -> u64 {
    const SCHED: i32 = 2;
    if tid == 0 {
        return 0;
    }
    let noted = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).unwrap_or_default();
    match noted.split(' ').next().and_then(|run| run.parse().ok()) {
        Some(run) => run,
        // A host without this file: the process's clock, as if all its threads were the first.
        None if tid == pid => host::clock_gettime(!pid << 3 | SCHED).unwrap_or(0),
        None => 0,
    }
}

/// Processor time of one of this process's own threads.
fn thread_clock(tid: i32) -> u64 {
    // Clock ids of threads, as `linux/posix-timers_types.h` makes them: per-thread scheduler clock.
    const PER_THREAD_SCHED: i32 = 4 | 2;
    if tid == 0 { 0 } else { host::clock_gettime(!tid << 3 | PER_THREAD_SCHED).unwrap_or(0) }
}
