//! One traced host thread: the `ptrace(2)` calls on it. Everything here runs on the thread that traces it.

use super::stub::{STUB_CALL, STUB_CLONE, STUB_EXCHANGE};
use crate::errno::{Errno, Error, Result};
use crate::platform::TrapFrame;
use nix::libc;
use std::vec;
use std::vec::Vec;

/// The host signal that brings running guest code into the kernel.
pub(super) const KICK: i32 = libc::SIGURG;

const PTRACE_SYSEMU: u32 = 31;
const NT_X86_XSTATE: usize = 0x202;
/// More than the XSAVE area of any processor so far (AMX included: 11 KiB).
const XSTATE_MAX: usize = 16384;

/// Why a traced thread stopped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// At a system call, which the host has skipped.
    Syscall,
    /// A host signal is about to be delivered to it.
    Signal(i32),
    /// The host stopped it for its tracer (`PTRACE_INTERRUPT`): nothing has happened.
    Interrupted,
    /// It has been killed.
    Gone,
}

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Default)]
struct RseqConfiguration {
    pointer: u64,
    size: u32,
    signature: u32,
    flags: u32,
    pad: u32,
}

/// A traced host thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracee {
    pub(super) pid: i32,
    pub(super) tid: i32,
}

fn errno() -> Error {
    let nr = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Error::new(Errno(nr as u16), "ptrace")
}

impl Tracee {
    fn request(&self, request: u32, addr: usize, data: usize) -> Result<()> {
        // SAFETY: callers pass addresses of live memory of the right type where the request takes one.
        let ret = unsafe { libc::ptrace(request as _, self.tid, addr, data) };
        if ret < 0 { Err(errno()) } else { Ok(()) }
    }

    /// Takes a thread that sleeps in the stub, and stops it.
    pub(super) fn seize(pid: i32, tid: i32) -> Result<Tracee> {
        let tracee = Tracee { pid, tid };
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        tracee.request(libc::PTRACE_SEIZE, 0, options as usize)?;
        tracee.request(libc::PTRACE_INTERRUPT, 0, 0)?;
        match tracee.wait() {
            Stop::Gone => Err(Error::new(Errno::ESRCH, "a new guest process was killed at once")),
            _ => Ok(tracee),
        }
    }

    /// Waits until the thread stops.
    pub(super) fn wait(&self) -> Stop {
        loop {
            let mut status = 0;
            // SAFETY: the status word is ours.
            let got = unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL) };
            if got < 0 {
                if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
                    continue;
                }
                return Stop::Gone;
            }
            if !libc::WIFSTOPPED(status) {
                return Stop::Gone;
            }
            if status >> 16 != 0 {
                return Stop::Interrupted;
            }
            return match libc::WSTOPSIG(status) {
                s if s == libc::SIGTRAP | 0x80 => Stop::Syscall,
                s => Stop::Signal(s),
            };
        }
    }

    /// Lets the thread run for a moment and stops it again.
    pub(super) fn step(&self) -> Result<()> {
        self.request(libc::PTRACE_CONT, 0, 0)?;
        std::thread::sleep(std::time::Duration::from_millis(1));
        self.request(libc::PTRACE_INTERRUPT, 0, 0)?;
        self.wait();
        Ok(())
    }

    /// Runs guest code until the next stop.
    pub(super) fn run(&self) -> Stop {
        if self.request(PTRACE_SYSEMU, 0, 0).is_err() {
            return self.wait();
        }
        self.wait()
    }

    /// Whether the thread, stopped at a system call, came by the gate of 32-bit programs (`int 0x80`). Hosts before 5.3 do not know.
    pub(super) fn is_32_bit_call(&self) -> bool {
        const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e;
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        // struct ptrace_syscall_info: operation and padding, architecture, and more.
        let mut info = [0u32; 22];
        let known = self.request(PTRACE_GET_SYSCALL_INFO, size_of_val(&info), &raw mut info as usize).is_ok();
        known && info[1] == AUDIT_ARCH_I386
    }

    pub(super) fn registers(&self) -> Result<TrapFrame> {
        let mut frame = TrapFrame::default();
        self.request(libc::PTRACE_GETREGS, 0, &raw mut frame as usize)?;
        Ok(frame)
    }

    pub(super) fn set_registers(&self, frame: &TrapFrame) -> Result<()> {
        self.request(libc::PTRACE_SETREGS, 0, &raw const *frame as usize)
    }

    /// What the host knows of the signal that the thread stopped for.
    pub(super) fn siginfo(&self) -> Result<libc::siginfo_t> {
        // SAFETY: all zeroes is a valid siginfo.
        let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
        self.request(libc::PTRACE_GETSIGINFO, 0, &raw mut info as usize)?;
        Ok(info)
    }

    pub(super) fn extended_state(&self) -> Result<Vec<u8>> {
        let mut buf = vec![0u8; XSTATE_MAX];
        let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        self.request(libc::PTRACE_GETREGSET, NT_X86_XSTATE, &raw mut iov as usize)?;
        buf.truncate(iov.iov_len);
        Ok(buf)
    }

    pub(super) fn set_extended_state(&self, state: &mut [u8]) -> Result<()> {
        let iov = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
        self.request(libc::PTRACE_SETREGSET, NT_X86_XSTATE, &raw const iov as usize)
    }

    /// Takes back what the C library of this process had registered with the host for the thread that was forked:
    /// addresses in memory that a guest does not have. The host would fault on them.
    pub(super) fn forget_registrations(&self) -> Result<()> {
        const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
        const RSEQ_FLAG_UNREGISTER: u64 = 1;
        let mut config = RseqConfiguration::default();
        let size = size_of::<RseqConfiguration>();
        // Hosts before 5.13 do not know the request; C libraries that register came later.
        let known = self.request(PTRACE_GET_RSEQ_CONFIGURATION, size, &raw mut config as usize).is_ok();
        if known && config.pointer != 0 {
            let args = [config.pointer, config.size.into(), RSEQ_FLAG_UNREGISTER, config.signature.into(), 0, 0];
            self.call(libc::SYS_rseq, args)?;
        }
        const ROBUST_LIST_HEAD: u64 = 24;
        self.call(libc::SYS_set_robust_list, [0, ROBUST_LIST_HEAD, 0, 0, 0, 0]).map(drop)
    }

    /// Makes a host call in the thread.
    pub(super) fn call(&self, nr: i64, args: [u64; 6]) -> Result<u64> {
        self.call_at(STUB_CALL, nr, args)
    }

    /// Makes a host `clone` in the thread; the child sleeps in the stub, untraced. Returns its host id.
    pub(super) fn clone(&self, flags: i32) -> Result<i32> {
        self.call_at(STUB_CLONE, libc::SYS_clone, [flags as u64, 0, 0, 0, 0, 0]).map(|tid| tid as i32)
    }

    /// A compare-and-exchange made by the thread itself, so that its process's other threads see one step.
    pub(super) fn compare_exchange(&self, addr: u64, expected: u32, new: u32) -> Result<u32> {
        let frame =
            TrapFrame { rax: expected.into(), rdi: addr, rsi: new.into(), ..TrapFrame::start(STUB_EXCHANGE, 0) };
        self.set_registers(&frame)?;
        loop {
            self.request(libc::PTRACE_CONT, 0, 0)?;
            match self.wait() {
                Stop::Signal(libc::SIGTRAP) => return Ok(self.registers()?.rax as u32),
                Stop::Signal(libc::SIGSEGV | libc::SIGBUS) => return Err(Errno::EFAULT.into()),
                // A kick, or a stray signal from the host: the instruction is still to come, or the trap behind it.
                Stop::Signal(_) | Stop::Syscall | Stop::Interrupted => {}
                Stop::Gone => return Err(Error::new(Errno::ESRCH, "the guest process was killed")),
            }
        }
    }

    /// The registers change: the caller sets them anew before guest code runs on.
    fn call_at(&self, rip: u64, nr: i64, args: [u64; 6]) -> Result<u64> {
        let frame = TrapFrame {
            rax: nr as u64,
            rdi: args[0],
            rsi: args[1],
            rdx: args[2],
            r10: args[3],
            r8: args[4],
            r9: args[5],
            ..TrapFrame::start(rip, 0)
        };
        self.set_registers(&frame)?;
        loop {
            self.request(libc::PTRACE_CONT, 0, 0)?;
            match self.wait() {
                Stop::Signal(libc::SIGTRAP) => break,
                Stop::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL) => {
                    return Err(Error::new(Errno::EFAULT, "the stub cannot run"));
                }
                // A kick, or a stray signal from the host: the call is made or restarted all the same.
                Stop::Signal(_) | Stop::Syscall | Stop::Interrupted => {}
                Stop::Gone => return Err(Error::new(Errno::ESRCH, "the guest process was killed")),
            }
        }
        let ret = self.registers()?.rax as i64;
        if (-4095..0).contains(&ret) { Err(Error::new(Errno(-ret as u16), "host call")) } else { Ok(ret as u64) }
    }

    /// Ends this thread alone; its process lives on.
    pub(super) fn exit_thread(&self) {
        let frame = TrapFrame { rax: libc::SYS_exit as u64, ..TrapFrame::start(STUB_CALL, 0) };
        if self.set_registers(&frame).is_ok() {
            while self.request(libc::PTRACE_CONT, 0, 0).is_ok() {
                if let Stop::Gone = self.wait() {
                    break;
                }
            }
        }
    }
}
