//! The kernel thread of a guest thread: traces it, services what it stops for, and lets it run on.

use super::tracee::{KICK, Stop, Tracee};
use super::tracee_of;
use crate::errno::{Errno, Error, Result};
use crate::kernel::{Ctx, Kernel};
use crate::platform::{StartFn, TrapFrame};
use crate::signal::number::SIGSEGV;
use crate::signal::{SigInfo, code};
use crate::task::Task;
use crate::trap;
use nix::libc;
use std::string::ToString;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

/// Stack of a kernel thread: path walks and directory splits take some 10 KiB.
const STACK: usize = 512 * 1024;

/// Starts a host thread for the kernel.
pub(super) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_string()).stack_size(STACK).spawn(body).map(drop)
}

/// Starts the kernel thread of a task whose host thread sleeps in the stub, and returns when it has taken it over.
pub(super) fn start(kernel: &Arc<Kernel>, task: &Arc<Task>, first: StartFn) -> Result<()> {
    let (kernel, task) = (kernel.clone(), task.clone());
    let (taken, wait) = mpsc::channel();
    let body = move || {
        let tracee = tracee_of(&task);
        let result = Tracee::seize(tracee.pid, tracee.tid).map(drop);
        // SAFETY: gettid has no arguments.
        task.host.kernel_tid.store(unsafe { libc::gettid() }, Ordering::Relaxed);
        let ok = result.is_ok();
        let _ = taken.send(result);
        if ok {
            let ctx = Ctx { kernel: &kernel, task: &task };
            if let Some(frame) = first(&ctx) {
                run(&ctx, frame);
            }
            trap::ended(&ctx);
        }
    };
    let no_thread = Error::new(Errno::EAGAIN, "the host gives no more threads");
    thread("kernel", body).map_err(|_| no_thread)?;
    wait.recv().map_err(|_| no_thread)?
}

fn run(ctx: &Ctx, mut frame: TrapFrame) {
    let task = ctx.task;
    let mut result = None;
    loop {
        if trap::return_to_user(ctx, &mut frame, result.take()) == trap::Next::End {
            return;
        }
        let tracee = tracee_of(task);
        frame.orig_rax = TrapFrame::NO_SYSCALL;
        if tracee.set_registers(&frame).is_err() {
            trap::killed(ctx);
            return;
        }
        // A signal sent from here on sees `in_user` and kicks; one sent before is seen now.
        task.host.in_user.store(true, Ordering::SeqCst);
        let stop = if task.attention.load(Ordering::SeqCst) { Stop::Signal(KICK) } else { tracee.run() };
        task.host.in_user.store(false, Ordering::SeqCst);
        let Ok(registers) = tracee.registers() else {
            trap::killed(ctx);
            return;
        };
        frame = registers;
        match stop {
            // `syscall` leaves its return address in rcx; other gates do not, which is quicker to see than to ask.
            Stop::Syscall if frame.rcx != frame.rip && tracee.is_32_bit_call() => {
                // A kernel without 32-bit programs has no such gate: the instruction faults.
                const GATE_LEN: u64 = 2;
                frame.rip -= GATE_LEN;
                frame.orig_rax = TrapFrame::NO_SYSCALL;
                trap::fault(ctx, &frame, SigInfo::fault(SIGSEGV, code::SI_KERNEL, 0));
            }
            Stop::Syscall => result = Some(trap::syscall(ctx, &mut frame)),
            Stop::Interrupted => frame.orig_rax = TrapFrame::NO_SYSCALL,
            Stop::Signal(signal) => {
                frame.orig_rax = TrapFrame::NO_SYSCALL;
                if signal != KICK
                    && let Some(fault) = fault(&tracee, signal)
                {
                    trap::fault(ctx, &frame, fault);
                }
            }
            Stop::Gone => {
                trap::killed(ctx);
                return;
            }
        }
    }
}

/// The guest's fault behind a host signal; `None` for a signal that somebody on the host sent.
fn fault(tracee: &Tracee, signal: i32) -> Option<SigInfo> {
    let info = tracee.siginfo().ok()?;
    let synchronous = matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP);
    if !synchronous || info.si_code <= 0 {
        return None;
    }
    // SAFETY: a fault's siginfo holds an address.
    let addr = unsafe { info.si_addr() } as u64;
    Some(SigInfo::fault(signal as u8, info.si_code, addr))
}
