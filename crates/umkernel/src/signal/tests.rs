//! Signals between the tasks of a test kernel, and frames against those of the host's kernel.

use super::frame::native;
use super::number::*;
use super::*;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::{ProcessState, Rlimit, Task, WaitStatus};
use crate::testing::{Machine, addr, machine, soon};
use linux_raw_sys::general as nr;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec;
use std::vec::Vec;

/// A machine with process 1 and a process of its own group.
fn two() -> (Machine, Arc<Task>, Arc<Task>) {
    let machine = machine();
    let init = machine.task();
    let task = machine.child(&init);
    let pid = task.process.pid;
    task.process.inner.lock().pgid = pid;
    (machine, init, task)
}

fn block(ctx: &Ctx, signals: &[u8]) {
    set_blocked(ctx, SigSet::of(signals));
}

fn handler(task: &Task, sig: u8, flags: SaFlags, mask: &[u8]) {
    let flags = (flags | SaFlags::RESTORER).bits();
    set_action(&task.process, sig, SigAction { handler: 0x5000, flags, restorer: 0x6000, mask: SigSet::of(mask) });
}

fn user(sig: u8) -> SigInfo {
    SigInfo::user(sig, code::SI_USER, 1, 0)
}

#[test]
fn standard_signals_coalesce_and_realtime_signals_queue() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    block(&ctx, &[SIGUSR1, 40]);
    for value in 1..=3 {
        let detail = SigDetail::Sender { pid: 1, uid: 0, value };
        for signo in [SIGUSR1, 40] {
            send_to_process(ctx.kernel, &task.process, SigInfo { signo, code: code::SI_QUEUE, errno: 0, detail })?;
        }
    }
    assert!(!task.signal_pending(), "blocked signals want no attention");
    let mut seen = Vec::new();
    while let Some(info) = dequeue(&ctx, SigSet::FULL) {
        let SigDetail::Sender { value, .. } = info.detail else { panic!("{info:?}") };
        seen.push((info.signo, value));
    }
    assert_eq!(seen, [(SIGUSR1, 1), (40, 1), (40, 2), (40, 3)]);
    Ok(())
}

#[test]
fn the_limit_holds_up_realtime_signals_only() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    block(&ctx, &[SIGUSR1, SIGUSR2, 40]);
    task.process.rlimits.lock()[nr::RLIMIT_SIGPENDING as usize] = Rlimit { cur: 1, max: 1 };
    let queue = |sig| SigInfo { code: code::SI_QUEUE, ..user(sig) };
    send_to_process(ctx.kernel, &task.process, queue(40))?;
    let refused = send_to_process(ctx.kernel, &task.process, queue(40));
    assert_eq!(refused.map_err(|e| e.errno), Err(Errno::EAGAIN));
    send_to_process(ctx.kernel, &task.process, user(SIGUSR1))?;
    // Its details are lost, not the signal.
    send_to_process(ctx.kernel, &task.process, queue(SIGUSR2))?;
    assert_eq!(task.process.signals.pending(), SigSet::of(&[SIGUSR1, SIGUSR2, 40]));
    assert_eq!(ctx.kernel.queued_signals.count(0), 2);
    Ok(())
}

#[test]
fn ignored_signals_are_dropped_unless_blocked() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    set_action(&task.process, SIGUSR1, SigAction { handler: SigAction::IGNORE, ..SigAction::default() });
    send_to_process(ctx.kernel, &task.process, user(SIGUSR1))?;
    send_to_process(ctx.kernel, &task.process, user(SIGCHLD))?;
    assert!(pending(&task).is_empty());
    block(&ctx, &[SIGUSR1, SIGCHLD]);
    send_to_process(ctx.kernel, &task.process, user(SIGUSR1))?;
    send_to_process(ctx.kernel, &task.process, user(SIGCHLD))?;
    assert_eq!(pending(&task), SigSet::of(&[SIGUSR1, SIGCHLD]));
    // Ignoring what is pending drops it.
    set_action(&task.process, SIGCHLD, SigAction { handler: SigAction::IGNORE, ..SigAction::default() });
    assert_eq!(pending(&task), SigSet::of(&[SIGUSR1]));
    Ok(())
}

#[test]
fn stop_and_continue_signals_take_each_other_back() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    block(&ctx, &[SIGTSTP, SIGCONT]);
    send_to_process(ctx.kernel, &task.process, user(SIGTSTP))?;
    send_to_process(ctx.kernel, &task.process, user(SIGCONT))?;
    assert_eq!(pending(&task), SigSet::of(&[SIGCONT]));
    send_to_task(ctx.kernel, &task, user(SIGTSTP))?;
    assert_eq!(pending(&task), SigSet::of(&[SIGTSTP]));
    Ok(())
}

#[test]
fn init_takes_only_what_it_handles() -> Result<()> {
    let (machine, init, _) = two();
    let ctx = machine.ctx(&init);
    init.process.signals.unkillable.store(true, Ordering::SeqCst);
    for sig in [SIGKILL, SIGSTOP, SIGTERM, SIGSEGV] {
        send_to_process(ctx.kernel, &init.process, user(sig))?;
    }
    assert!(pending(&init).is_empty() && !init.dying.load(Ordering::SeqCst));
    handler(&init, SIGTERM, SaFlags::empty(), &[]);
    send_to_process(ctx.kernel, &init.process, user(SIGTERM))?;
    assert_eq!(pending(&init), SigSet::of(&[SIGTERM]));
    // A fault of its own ends init all the same.
    force(&ctx, SigInfo::fault(SIGSEGV, code::SEGV_MAPERR, 8));
    handler(&init, SIGTERM, SaFlags::empty(), &[]);
    deliver(&ctx, &mut TrapFrame::default(), None);
    assert_eq!(init.process.inner.lock().exiting, Some(WaitStatus::Signaled(SIGSEGV, false)));
    Ok(())
}

#[test]
fn a_signal_goes_to_a_thread_that_does_not_block_it() -> Result<()> {
    let (machine, _, first) = two();
    let second = machine.thread(&first);
    block(&machine.ctx(&first), &[SIGUSR1]);
    send_to_process(&machine.kernel, &first.process, user(SIGUSR1))?;
    assert!(!first.signal_pending() && second.signal_pending());
    // When that thread blocks it before it looked, nobody takes it; unblocking it again wakes.
    block(&machine.ctx(&second), &[SIGUSR1]);
    assert!(!second.signal_pending());
    block(&machine.ctx(&first), &[]);
    assert!(first.signal_pending());
    Ok(())
}

#[test]
fn blocking_a_pending_signal_hands_it_to_another_thread() -> Result<()> {
    let (machine, _, first) = two();
    let second = machine.thread(&first);
    send_to_process(&machine.kernel, &first.process, user(SIGUSR1))?;
    assert!(first.signal_pending() && !second.signal_pending());
    block(&machine.ctx(&first), &[SIGUSR1]);
    assert!(!first.signal_pending() && second.signal_pending());
    Ok(())
}

#[test]
fn kill_ends_all_threads() -> Result<()> {
    let (machine, _, first) = two();
    let second = machine.thread(&first);
    send_to_task(&machine.kernel, &second, user(SIGKILL))?;
    for task in [&first, &second] {
        assert!(task.dying.load(Ordering::SeqCst) && task.signal_pending());
    }
    assert_eq!(first.process.inner.lock().exiting, Some(WaitStatus::Signaled(SIGKILL, false)));
    Ok(())
}

/// Runs `deliver` for a task on a host thread of its own.
fn on_thread<'s>(scope: &'s std::thread::Scope<'s, '_>, machine: &'s Machine, task: &'s Arc<Task>) {
    scope.spawn(move || deliver(&machine.ctx(task), &mut TrapFrame::default(), None));
}

#[test]
fn a_process_stops_when_its_last_thread_has_stopped() -> Result<()> {
    let (machine, init, first) = two();
    let second = machine.thread(&first);
    // A handler, so that SIGCHLD is kept.
    handler(&init, SIGCHLD, SaFlags::empty(), &[]);
    let event = || first.process.inner.lock().event;
    send_to_process(&machine.kernel, &first.process, user(SIGSTOP))?;
    std::thread::scope(|scope| -> Result<()> {
        on_thread(scope, &machine, &first);
        soon(|| first.signals.is_stopped());
        assert_eq!(event(), None, "one thread still runs");
        assert!(second.signal_pending());
        on_thread(scope, &machine, &second);
        soon(|| event().is_some());
        assert_eq!(event(), Some(WaitStatus::Stopped(SIGSTOP)));
        assert_eq!(first.process.inner.lock().state, ProcessState::Stopped);
        soon(|| pending(&init).contains(SIGCHLD));
        let told = dequeue(&machine.ctx(&init), SigSet::FULL);
        assert_eq!(told.map(|i| (i.signo, i.code)), Some((SIGCHLD, code::CLD_STOPPED)));

        // A signal does not wake a stopped process; SIGCONT does.
        handler(&first, SIGUSR1, SaFlags::empty(), &[]);
        send_to_process(&machine.kernel, &first.process, user(SIGUSR1))?;
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(first.signals.is_stopped() && second.signals.is_stopped());
        set_action(&first.process, SIGUSR1, SigAction { handler: SigAction::IGNORE, ..SigAction::default() });
        send_to_process(&machine.kernel, &first.process, user(SIGCONT))?;
        Ok(())
    })?;
    assert_eq!(event(), Some(WaitStatus::Continued));
    assert_eq!(first.process.inner.lock().state, ProcessState::Running);
    let told = dequeue(&machine.ctx(&init), SigSet::FULL);
    assert_eq!(told.map(|i| i.code), Some(code::CLD_CONTINUED));
    Ok(())
}

#[test]
fn the_parent_can_be_spared_news_of_stops() -> Result<()> {
    let (machine, init, task) = two();
    handler(&init, SIGCHLD, SaFlags::NOCLDSTOP, &[]);
    send_to_process(&machine.kernel, &task.process, user(SIGSTOP))?;
    std::thread::scope(|scope| {
        on_thread(scope, &machine, &task);
        soon(|| task.process.inner.lock().event.is_some());
        send_to_process(&machine.kernel, &task.process, user(SIGCONT))
    })?;
    assert!(pending(&init).is_empty());
    Ok(())
}

#[test]
fn a_stopped_process_can_be_killed() -> Result<()> {
    let (machine, _, task) = two();
    send_to_process(&machine.kernel, &task.process, user(SIGSTOP))?;
    std::thread::scope(|scope| {
        on_thread(scope, &machine, &task);
        soon(|| task.signals.is_stopped());
        send_to_process(&machine.kernel, &task.process, user(SIGKILL))
    })?;
    assert_eq!(task.process.inner.lock().exiting, Some(WaitStatus::Signaled(SIGKILL, false)));
    Ok(())
}

#[test]
fn a_thread_that_ends_completes_a_stop() -> Result<()> {
    let (machine, _, first) = two();
    let second = machine.thread(&first);
    send_to_process(&machine.kernel, &first.process, user(SIGSTOP))?;
    std::thread::scope(|scope| {
        on_thread(scope, &machine, &first);
        soon(|| first.signals.is_stopped());
        first.process.inner.lock().threads.retain(|t| !Arc::ptr_eq(t, &second));
        thread_ended(&machine.kernel, &second);
        assert_eq!(first.process.inner.lock().event, Some(WaitStatus::Stopped(SIGSTOP)));
        send_to_process(&machine.kernel, &first.process, user(SIGCONT))
    })
}

#[test]
fn terminals_do_not_stop_orphaned_groups() -> Result<()> {
    let machine = machine();
    let init = machine.task();
    let task = machine.child(&init);
    let pid = task.process.pid;
    {
        let mut inner = task.process.inner.lock();
        (inner.pgid, inner.sid) = (pid, pid);
    }
    assert!(is_orphaned(&machine.kernel, pid, None));
    send_to_process(&machine.kernel, &task.process, user(SIGTSTP))?;
    // Would sleep if it stopped.
    deliver(&machine.ctx(&task), &mut TrapFrame::default(), None);
    assert_eq!(task.process.inner.lock().state, ProcessState::Running);
    Ok(())
}

#[test]
fn default_actions_end_the_process() -> Result<()> {
    for (sig, status) in [(SIGTERM, Some(WaitStatus::Signaled(SIGTERM, false))), (SIGWINCH, None), (SIGCONT, None)] {
        let (machine, _, task) = two();
        block(&machine.ctx(&task), &[sig]);
        send_to_process(&machine.kernel, &task.process, user(sig))?;
        block(&machine.ctx(&task), &[]);
        deliver(&machine.ctx(&task), &mut TrapFrame::default(), None);
        assert_eq!(task.process.inner.lock().exiting, status);
    }
    Ok(())
}

/// A stack, and registers as in the middle of a program that uses it.
fn program() -> (Vec<u64>, TrapFrame) {
    let stack = vec![0u64; 2048];
    let frame = TrapFrame {
        rip: 0x40_1002,
        rsp: addr(&stack[2000]),
        rax: 39,
        orig_rax: 39,
        rbx: 1,
        rcx: 2,
        rdx: 3,
        rsi: 4,
        rdi: 5,
        rbp: 6,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
        eflags: 0x246,
        cs: TrapFrame::USER_CS,
        ss: TrapFrame::USER_SS,
        fs_base: 77,
        ..TrapFrame::default()
    };
    (stack, frame)
}

#[test]
fn a_handler_runs_and_goes_back() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    let (_stack, before) = program();
    let mut frame = before;
    handler(&task, SIGUSR1, SaFlags::SIGINFO | SaFlags::RESTART, &[SIGUSR2]);
    block(&ctx, &[SIGHUP]);
    send_to_process(ctx.kernel, &task.process, user(SIGUSR1))?;
    deliver(&ctx, &mut frame, Some(Err(Errno::ERESTARTSYS.into())));
    assert_eq!((frame.rip, frame.rdi, frame.rax), (0x5000, u64::from(SIGUSR1), 0));
    assert_eq!(frame.rsp % 16, 8);
    assert_eq!(ctx.read_val::<u64>(frame.rsp)?, 0x6000, "the restorer is the return address");
    assert_eq!(ctx.read_val::<i32>(frame.rsi)?, i32::from(SIGUSR1), "rsi: siginfo");
    assert_eq!(ctx.read_val::<u64>(frame.rdx + 40 + 16 * 8)?, 0x40_1000, "rdx: ucontext; the call starts again");
    assert_eq!(task.signals.blocked(), SigSet::of(&[SIGHUP, SIGUSR1, SIGUSR2]));
    assert_eq!(frame.fs_base, 77);

    // The handler's return pops the restorer's address; the restorer calls rt_sigreturn.
    frame.rsp += 8;
    frame.orig_rax = u64::from(nr::__NR_rt_sigreturn);
    let rax = return_from_handler(&ctx, &mut frame);
    deliver(&ctx, &mut frame, Some(rax));
    let expected = TrapFrame { rip: 0x40_1000, rax: 39, orig_rax: TrapFrame::NO_SYSCALL, ..before };
    assert_eq!(frame, expected);
    assert_eq!(task.signals.blocked(), SigSet::of(&[SIGHUP]));
    Ok(())
}

#[test]
fn handlers_nest_and_reset() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    let (_stack, mut frame) = program();
    handler(&task, SIGUSR1, SaFlags::RESETHAND | SaFlags::NODEFER, &[]);
    handler(&task, SIGUSR2, SaFlags::empty(), &[]);
    send_to_process(ctx.kernel, &task.process, user(SIGUSR1))?;
    send_to_process(ctx.kernel, &task.process, user(SIGUSR2))?;
    deliver(&ctx, &mut frame, None);
    // The second handler's frame lies on the first's: it interrupts its first instruction.
    assert_eq!(frame.rdi, u64::from(SIGUSR2));
    assert_eq!(ctx.read_val::<u64>(frame.rdx + 40 + 16 * 8)?, 0x5000);
    assert_eq!(task.signals.blocked(), SigSet::of(&[SIGUSR2]), "SA_NODEFER blocks nothing");
    assert_eq!(task.process.handlers.lock().get(SIGUSR1).handler, SigAction::DEFAULT);
    Ok(())
}

#[test]
fn a_handler_without_room_is_a_segmentation_fault() -> Result<()> {
    for (handled, sig) in [(false, SIGUSR1), (true, SIGSEGV)] {
        let (machine, _, task) = two();
        let ctx = machine.ctx(&task);
        let mut frame = TrapFrame { rsp: 0x10, ..TrapFrame::default() };
        handler(&task, sig, SaFlags::empty(), &[]);
        assert_eq!(handled, sig == SIGSEGV);
        send_to_process(ctx.kernel, &task.process, user(sig))?;
        deliver(&ctx, &mut frame, None);
        assert_eq!(task.process.inner.lock().exiting, Some(WaitStatus::Signaled(SIGSEGV, false)));
    }
    Ok(())
}

#[test]
fn a_bad_frame_is_a_segmentation_fault() {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    let mut frame = TrapFrame { rsp: 0x10, orig_rax: 15, ..TrapFrame::default() };
    let result = return_from_handler(&ctx, &mut frame);
    deliver(&ctx, &mut frame, Some(result));
    assert_eq!(task.process.inner.lock().exiting, Some(WaitStatus::Signaled(SIGSEGV, false)));
}

#[test]
fn suspend_goes_back_to_the_old_mask_after_the_handler() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    let (_stack, mut frame) = program();
    handler(&task, SIGUSR1, SaFlags::empty(), &[]);
    block(&ctx, &[SIGUSR1, SIGHUP]);
    send_to_process(ctx.kernel, &task.process, user(SIGUSR1))?;
    let mask = Cell::new(0u64);
    let result = ctx.call(nr::__NR_rt_sigsuspend, &[addr(&mask), 8]);
    assert_eq!(result.map_err(|e| e.errno), Err(Errno::ERESTARTNOHAND));
    assert_eq!(task.signals.blocked(), SigSet::EMPTY, "still suspended");
    deliver(&ctx, &mut frame, Some(result));
    assert_eq!(frame.rdi, u64::from(SIGUSR1));
    assert_eq!(task.signals.blocked(), SigSet::of(&[SIGUSR1]), "in the handler");
    frame.rsp += 8;
    let rax = return_from_handler(&ctx, &mut frame)?;
    assert_eq!(rax as i64, -i64::from(Errno::EINTR.0));
    assert_eq!(task.signals.blocked(), SigSet::of(&[SIGUSR1, SIGHUP]));
    Ok(())
}

#[test]
fn timedwait_takes_signals_that_are_blocked() -> Result<()> {
    let (machine, _, task) = two();
    let ctx = machine.ctx(&task);
    block(&ctx, &[SIGUSR1, SIGCHLD]);
    let set = Cell::new(SigSet::of(&[SIGUSR1, SIGCHLD]).0);
    let info = Cell::new([0u8; SIGINFO_SIZE]);
    let short = Cell::new(host::TimeSpec { sec: 0, nsec: 1_000_000 });
    let wait = |timeout: u64| ctx.call(nr::__NR_rt_sigtimedwait, &[addr(&set), addr(&info), timeout, 8]);
    assert_eq!(wait(addr(&short)).map_err(|e| e.errno), Err(Errno::EAGAIN));
    short.set(host::TimeSpec { sec: 0, nsec: -1 });
    assert_eq!(wait(addr(&short)).map_err(|e| e.errno), Err(Errno::EINVAL));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            // Ignored by default, and waited for all the same.
            send_to_process(&machine.kernel, &task.process, user(SIGCHLD)).unwrap();
        });
        assert_eq!(wait(0), Ok(usize::from(SIGCHLD)));
    });
    assert_eq!(info.get()[0], SIGCHLD);
    assert_eq!(task.signals.blocked(), SigSet::of(&[SIGUSR1, SIGCHLD]));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            send_to_process(&machine.kernel, &task.process, user(SIGTERM)).unwrap();
        });
        assert_eq!(wait(0).map_err(|e| e.errno), Err(Errno::EINTR));
    });
    Ok(())
}

#[test]
fn calls_check_their_arguments_in_linux_order() {
    let (machine, init, task) = two();
    let ctx = machine.ctx(&task);
    let mine = task.process.pid as u64;
    let action = Cell::new(SigAction::default());
    for (call, args, expected) in [
        (nr::__NR_rt_sigaction, &[0, 0, 0, 8][..], Err(Errno::EINVAL)),
        (nr::__NR_rt_sigaction, &[65, 0, 0, 8], Err(Errno::EINVAL)),
        (nr::__NR_rt_sigaction, &[10, 0, 0, 4], Err(Errno::EINVAL)),
        (nr::__NR_rt_sigaction, &[10, 1, 0, 8], Err(Errno::EFAULT)),
        (nr::__NR_rt_sigaction, &[9, addr(&action), 0, 8], Err(Errno::EINVAL)),
        (nr::__NR_rt_sigaction, &[9, 0, addr(&action), 8], Ok(0)),
        (nr::__NR_rt_sigprocmask, &[9, 0, 0, 8], Ok(0)),
        (nr::__NR_rt_sigprocmask, &[9, addr(&action), 0, 8], Err(Errno::EINVAL)),
        (nr::__NR_rt_sigprocmask, &[0, 1, 0, 8], Err(Errno::EFAULT)),
        (nr::__NR_rt_sigpending, &[1, 8], Err(Errno::EFAULT)),
        (nr::__NR_rt_sigpending, &[addr(&action), 9], Err(Errno::EINVAL)),
        (nr::__NR_kill, &[mine, 0], Ok(0)),
        (nr::__NR_kill, &[mine, 65], Err(Errno::EINVAL)),
        (nr::__NR_kill, &[999, 65], Err(Errno::ESRCH)),
        (nr::__NR_kill, &[-999i64 as u64, 0], Err(Errno::ESRCH)),
        (nr::__NR_kill, &[i32::MIN as u64, 0], Err(Errno::ESRCH)),
        (nr::__NR_tkill, &[0, 1], Err(Errno::EINVAL)),
        (nr::__NR_tkill, &[999, 1], Err(Errno::ESRCH)),
        (nr::__NR_tgkill, &[1, mine, 0], Err(Errno::ESRCH)),
        (nr::__NR_tgkill, &[mine, mine, 0], Ok(0)),
        (nr::__NR_rt_sigqueueinfo, &[mine, 10, 1], Err(Errno::EFAULT)),
        (nr::__NR_sigaltstack, &[1, 0], Err(Errno::EFAULT)),
        (nr::__NR_restart_syscall, &[], Err(Errno::EINTR)),
    ] {
        assert_eq!(ctx.call(call, args).map_err(|e| e.errno), expected, "call {call} {args:x?}");
    }
    drop(init);
}

#[test]
fn other_users_may_not_signal() {
    let (machine, init, task) = two();
    let ctx = machine.ctx(&task);
    let mut creds = (*task.creds()).clone();
    (creds.uid, creds.euid, creds.suid) = (1000, 1000, 1000);
    creds.effective = crate::task::Capabilities::empty();
    task.creds.set(Arc::new(creds));
    let kill = |sig: u8| ctx.call(nr::__NR_kill, &[1, u64::from(sig)]).map_err(|e| e.errno);
    assert_eq!(kill(SIGTERM), Err(Errno::EPERM));
    assert_eq!(kill(0), Err(Errno::EPERM));
    assert_eq!(kill(SIGCONT), Ok(0), "of the same session");
    task.process.inner.lock().sid = 77;
    assert_eq!(kill(SIGCONT), Err(Errno::EPERM));
    let forged = Cell::new(SigInfo::kernel(SIGUSR1).encode());
    let queue = ctx.call(nr::__NR_rt_sigqueueinfo, &[1, u64::from(SIGUSR1), addr(&forged)]);
    assert_eq!(queue.map_err(|e| e.errno), Err(Errno::EPERM));
    drop(init);
}

#[test]
fn frames_are_those_of_the_hosts_kernel() {
    let captured = native::capture();
    let ours = native::rebuild(&captured);
    assert_eq!(ours.address, captured.address, "where the frame lies");
    assert_eq!(ours.xstate_address, captured.xstate_address, "where the processor state lies");
    // Linux leaves the reserved words of sigcontext as they were on the stack.
    let reserved = 240..304;
    for (at, (ours, theirs)) in ours.bytes.iter().zip(&captured.bytes).enumerate() {
        assert!(reserved.contains(&at) || ours == theirs, "byte {at} of the frame: {ours} for {theirs}");
    }
    assert_eq!(ours.marks, captured.marks, "the marks of the processor state");
}
