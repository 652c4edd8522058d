use super::bpf::{Instruction, Program};
use super::{Flags, attach, inherit, set_strict, show};
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::PAGE_SIZE;
use crate::platform::TrapFrame;
use crate::signal::number::{SIGKILL, SIGSYS};
use crate::task::{Capabilities, Task, WaitStatus};
use crate::testing::{addr, machine, soon};
use crate::trap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::*;
use linux_raw_sys::ptrace::*;

fn load(offset: u32) -> Instruction {
    Instruction { code: 0x20, jump_true: 0, jump_false: 0, k: offset }
}

fn gives(result: u32) -> Instruction {
    Instruction { code: 0x06, jump_true: 0, jump_false: 0, k: result }
}

/// Gives a result for one call, and allows all others.
fn on(nr: u32, result: u32) -> Vec<Instruction> {
    let compare = Instruction { code: 0x15, jump_true: 0, jump_false: 1, k: nr };
    vec![load(0), compare, gives(result), gives(SECCOMP_RET_ALLOW)]
}

fn filter(ctx: &Ctx, nr: u32, result: u32, flags: Flags) -> Result<usize> {
    attach(ctx, Program::new(on(nr, result))?, flags)
}

/// Makes a call by the door.
fn make(ctx: &Ctx, nr: u32) -> Result<usize> {
    let nr = u64::from(nr);
    trap::syscall(ctx, &mut TrapFrame { orig_rax: nr, rax: nr, rip: 0x1002, ..TrapFrame::default() })
}

fn failed(errno: Errno) -> Result<usize> {
    Ok(usize::from(errno.0).wrapping_neg())
}

fn ending(task: &Task) -> (bool, Option<WaitStatus>, Option<WaitStatus>) {
    let inner = task.process.inner.lock();
    (task.dying.load(Ordering::SeqCst), inner.exiting, inner.leader_status)
}

#[test]
fn arguments_are_checked_in_linux_s_order() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let seccomp = |operation: u32, flags: u32, argument: u64| {
        ctx.call(__NR_seccomp, &[operation.into(), flags.into(), argument]).map_err(|e| e.errno)
    };
    let encoded: Vec<u8> = on(__NR_getpid, SECCOMP_RET_ERRNO | 5).iter().flat_map(|i| i.encode()).collect();
    let fprog = |len: u64| [len, addr(&encoded[..])];
    let (good, empty, long) = (fprog(4), fprog(0), fprog(4097));
    assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 64, 0), Err(Errno::EINVAL));
    assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 1 | 8, addr(&good)), Err(Errno::EINVAL));
    assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 32, addr(&good)), Err(Errno::EINVAL));
    assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 0, 0), Err(Errno::EFAULT));
    assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 0, addr(&[4u64, 0])), Err(Errno::EINVAL));
    assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 0, addr(&[4u64, PAGE_SIZE])), Err(Errno::EFAULT));
    assert_eq!(seccomp(SECCOMP_SET_MODE_STRICT, 1, 0), Err(Errno::EINVAL));
    assert_eq!(seccomp(SECCOMP_SET_MODE_STRICT, 0, 1), Err(Errno::EINVAL));
    assert_eq!(seccomp(4, 0, 0), Err(Errno::EINVAL));
    let sizes = Cell::new([0u16; 3]);
    assert_eq!(seccomp(SECCOMP_GET_NOTIF_SIZES, 0, addr(&sizes)), Ok(0));
    assert_eq!(sizes.get(), [80, 24, 64]);
    assert_eq!(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, addr(&SECCOMP_RET_USER_NOTIF)), Ok(0));
    assert_eq!(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, addr(&0x1234_0000u32)), Err(Errno::EOPNOTSUPP));

    let mut creds = (*task.creds()).clone();
    creds.effective -= Capabilities::SYS_ADMIN;
    task.creds.set(Arc::new(creds));
    for (fprog, errno) in [(&good, Errno::EACCES), (&empty, Errno::EINVAL), (&long, Errno::EINVAL)] {
        assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 0, addr(fprog)), Err(errno));
    }
    assert_eq!((task.seccomp.mode(), task.trace.is_watched()), (SECCOMP_MODE_DISABLED, false));
    assert_eq!(ctx.call(__NR_prctl, &[38, 1, 0, 0, 0]), Ok(0));
    assert_eq!(seccomp(SECCOMP_SET_MODE_FILTER, 0, addr(&good)), Ok(0));
    assert_eq!((task.seccomp.mode(), task.seccomp.filters()), (SECCOMP_MODE_FILTER, 1));
    assert_eq!(make(&ctx, __NR_getpid), failed(Errno::EIO));
    assert_eq!(ctx.call(__NR_prctl, &[21]), Ok(2));
    assert_eq!(seccomp(SECCOMP_SET_MODE_STRICT, 0, 0), Err(Errno::EINVAL));
}

#[test]
fn the_gravest_counts_and_of_equals_the_last() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let pid = task.process.pid as usize;
    assert_eq!(make(&ctx, __NR_getpid), Ok(pid));
    filter(&ctx, __NR_getpid, SECCOMP_RET_LOG, Flags::empty()).unwrap();
    assert_eq!(make(&ctx, __NR_getpid), Ok(pid));
    let mut messages = (0..m.kernel.log.end()).filter_map(|n| m.kernel.log.get(n));
    assert!(messages.any(|m| m.text.contains("syscall=39 ") && m.text.ends_with("code=0x7ffc0000")));
    filter(&ctx, __NR_getpid, SECCOMP_RET_TRACE | 7, Flags::empty()).unwrap();
    assert_eq!(make(&ctx, __NR_getpid), failed(Errno::ENOSYS), "without a tracer");
    filter(&ctx, __NR_getpid, SECCOMP_RET_ERRNO | 3, Flags::empty()).unwrap();
    filter(&ctx, __NR_getpid, SECCOMP_RET_ERRNO | 4, Flags::empty()).unwrap();
    assert_eq!(make(&ctx, __NR_getpid), failed(Errno::EINTR));
    filter(&ctx, __NR_getpid, SECCOMP_RET_ALLOW, Flags::empty()).unwrap();
    assert_eq!(make(&ctx, __NR_getpid), failed(Errno::EINTR));
    assert_eq!(make(&ctx, __NR_getppid), Ok(0));
    filter(&ctx, __NR_getppid, SECCOMP_RET_ERRNO | 0xffff, Flags::empty()).unwrap();
    assert_eq!(make(&ctx, __NR_getppid), failed(Errno(4095)));
    filter(&ctx, __NR_getuid, SECCOMP_RET_ERRNO, Flags::empty()).unwrap();
    assert_eq!(make(&ctx, __NR_getuid), Ok(0));
    assert_eq!(task.seccomp.filters(), 7);
    filter(&ctx, __NR_getpid, SECCOMP_RET_TRAP | 9, Flags::empty()).unwrap();
    assert_eq!(make(&ctx, __NR_getpid), Ok(__NR_getpid as usize), "the registers as they were");
    assert!(task.signals.pending().contains(SIGSYS) && !ending(&task).0);
    filter(&ctx, __NR_getpid, SECCOMP_RET_KILL_PROCESS, Flags::empty()).unwrap();
    assert!(make(&ctx, __NR_getpid).is_err());
    assert_eq!(ending(&task), (true, Some(WaitStatus::Signaled(SIGSYS, false)), None));
}

#[test]
fn a_thread_is_killed_alone_unless_it_is_the_last() {
    let m = machine();
    let _init = m.task();
    let first = m.task();
    let second = m.thread(&first);
    let ctx = m.ctx(&second);
    filter(&ctx, __NR_getpid, SECCOMP_RET_KILL_THREAD, Flags::empty()).unwrap();
    assert!(make(&m.ctx(&first), __NR_getpid).is_ok(), "the other one's filter");
    assert!(make(&ctx, __NR_getpid).is_err());
    assert_eq!((ending(&second), ending(&first).0), ((true, None, None), false));
    filter(&m.ctx(&first), __NR_getpid, SECCOMP_RET_KILL_THREAD, Flags::empty()).unwrap();
    assert!(make(&m.ctx(&first), __NR_getpid).is_err());
    assert_eq!(ending(&first), (true, Some(WaitStatus::Signaled(SIGSYS, false)), None));
}

#[test]
fn strict_mode_leaves_four_calls() {
    let m = machine();
    let _init = m.task();
    let task = m.task();
    let ctx = m.ctx(&task);
    set_strict(&ctx).unwrap();
    assert_eq!(make(&ctx, __NR_read).unwrap_err().errno, Errno::EBADF);
    assert!(!ending(&task).0);
    assert!(make(&ctx, __NR_getpid).is_err());
    assert_eq!(ending(&task), (true, None, Some(WaitStatus::Signaled(SIGKILL, false))));
}

#[test]
fn threads_and_children_get_filters() {
    let m = machine();
    let first = m.task();
    let (second, third) = (m.thread(&first), m.thread(&first));
    let ctx = m.ctx(&first);
    filter(&ctx, __NR_getppid, SECCOMP_RET_ERRNO | 1, Flags::empty()).unwrap();
    first.no_new_privs.store(true, Ordering::SeqCst);
    filter(&ctx, __NR_getpid, SECCOMP_RET_ERRNO | 2, Flags::TSYNC).unwrap();
    for task in [&first, &second, &third] {
        assert_eq!(make(&m.ctx(task), __NR_getpid), failed(Errno::ENOENT));
        assert_eq!((task.seccomp.filters(), task.no_new_privs.load(Ordering::SeqCst)), (2, true));
    }
    let child = m.child(&first);
    inherit(&first, &child);
    assert_eq!(make(&m.ctx(&child), __NR_getppid), failed(Errno::EPERM));
    assert!(child.trace.is_filtered() && child.no_new_privs.load(Ordering::SeqCst));

    // One that has gone its own way is in the way.
    filter(&m.ctx(&third), __NR_getuid, SECCOMP_RET_ERRNO | 3, Flags::empty()).unwrap();
    let tid = third.tid() as usize;
    assert_eq!(filter(&ctx, __NR_getgid, SECCOMP_RET_ERRNO | 4, Flags::TSYNC), Ok(tid));
    let flags = Flags::TSYNC | Flags::TSYNC_ESRCH;
    assert_eq!(filter(&ctx, __NR_getgid, SECCOMP_RET_ERRNO | 4, flags).unwrap_err().errno, Errno::ESRCH);
    assert!(make(&ctx, __NR_getgid).is_ok());
    third.dying.store(true, Ordering::SeqCst);
    assert_eq!(filter(&ctx, __NR_getgid, SECCOMP_RET_ERRNO | 4, flags), Ok(0));
    assert_eq!(make(&m.ctx(&second), __NR_getgid), failed(Errno::EINTR));
}

#[test]
fn filters_are_many_and_end_one_by_one() {
    let m = machine();
    let task = m.task();
    let ctx = m.ctx(&task);
    let smallest = || Program::new(vec![gives(SECCOMP_RET_ALLOW)]).unwrap();
    let mut count = 0;
    let refused = loop {
        match attach(&ctx, smallest(), Flags::LOG) {
            Ok(_) => count += 1,
            Err(e) => break e.errno,
        }
    };
    // n instructions, and 4 besides for each filter but the last.
    assert_eq!((refused, count), (Errno::ENOMEM, (32768 - 1) / 5 + 1));
    assert_eq!(task.seccomp.filters(), count);
    let shown = show(&ctx, &task, 0).map_err(|e| e.errno);
    assert_eq!(shown.err(), Some(Errno::EACCES), "who is restricted is shown nothing");
    let (other, none) = (m.task(), m.task());
    let shown = show(&m.ctx(&other), &task, u64::from(count) - 1).unwrap();
    assert_eq!((shown.instructions.len(), shown.logs), (Instruction::SIZE, true));
    for (task, index, errno) in [(&task, u64::from(count), Errno::ENOENT), (&none, 0, Errno::EINVAL)] {
        assert_eq!(show(&m.ctx(&other), task, index).err().map(|e| e.errno), Some(errno));
    }
    task.seccomp.release();
    assert_eq!(task.seccomp.mode(), SECCOMP_MODE_DISABLED);
}

/// Words of a notification as the supervisor gets it: its id is the first.
type Notification = [u64; 10];

#[test]
fn a_supervisor_decides() {
    const RECV: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    const ID_VALID: u64 = 0x4008_2102;
    const ADDFD: u64 = 0x4018_2103;
    let m = machine();
    let (supervisor, task) = (m.task(), m.task());
    let (ours, theirs) = (m.ctx(&supervisor), m.ctx(&task));
    let fd = filter(&theirs, __NR_getpid, SECCOMP_RET_USER_NOTIF, Flags::NEW_LISTENER).unwrap() as i32;
    let twice = filter(&theirs, __NR_getuid, SECCOMP_RET_USER_NOTIF, Flags::NEW_LISTENER);
    assert_eq!(twice.unwrap_err().errno, Errno::EBUSY);
    let listener = theirs.files().get(fd).unwrap();
    let fd = ours.install(listener, true).unwrap() as u64;
    drop(theirs.files().remove(&theirs, 0));
    let ioctl = |request: u64, at: u64| ours.call(__NR_ioctl, &[fd, request, at]).map_err(|e| e.errno);

    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let ctx = m.ctx(&task);
            [make(&ctx, __NR_getpid), make(&ctx, __NR_getpid), make(&ctx, __NR_getpid), make(&ctx, __NR_getpid)]
        });
        let take = || {
            let notification: Cell<Notification> = Cell::new([0; 10]);
            assert_eq!(ioctl(RECV, addr(&notification)), Ok(0));
            let [id, about, call, ..] = notification.get();
            assert_eq!((about, call as u32), (task.tid() as u64, __NR_getpid));
            id
        };
        let id = take();
        assert_eq!(ioctl(RECV, addr(&[1u64; 10])), Err(Errno::EINVAL));
        assert_eq!(ioctl(ID_VALID, addr(&id)), Ok(0));
        assert_eq!(ioctl(ID_VALID, addr(&(id + 1))), Err(Errno::ENOENT));
        assert_eq!(ioctl(SEND, addr(&[id, 0, 2 << 32])), Err(Errno::EINVAL));
        assert_eq!(ioctl(SEND, addr(&[id, 4711, 0])), Ok(0));
        let id = take();
        assert_eq!(ioctl(SEND, addr(&[id, 0, u64::from(5u32.wrapping_neg())])), Ok(0));
        let id = take();
        assert_eq!(ioctl(SEND, addr(&[id, 0, 1 << 32])), Ok(0));
        let id = take();
        // A descriptor, whose number is the result.
        assert_eq!(ioctl(ADDFD, addr(&[id, 2 | fd << 32, 0])), Ok(0));
        let pid = task.process.pid as usize;
        assert_eq!(asking.join().unwrap(), [Ok(4711), failed(Errno::EIO), Ok(pid), Ok(0)]);
        assert!(task.files().get(0).is_ok());
        assert_eq!(ioctl(SEND, addr(&[id, 0, 0])), Err(Errno::ENOENT));
    });

    // A signal takes the task away.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| make(&m.ctx(&task), __NR_getpid));
        soon(|| task.sched.sleeping.load(Ordering::SeqCst));
        task.interrupt(&m.kernel);
        assert_eq!(asking.join().unwrap().unwrap_err().errno, Errno::ERESTARTSYS);
    });
    task.attention.store(false, Ordering::SeqCst);

    // Nobody is left to decide.
    drop(task.files().remove(&theirs, 0));
    drop(ours.files().remove(&ours, fd as i32));
    assert_eq!(make(&theirs, __NR_getpid), failed(Errno::ENOSYS));
}
