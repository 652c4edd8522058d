use super::{attach, link, may_access, request, seize, trace_me};
use crate::errno::Errno;
use crate::task::{ProcessState, Task, WaitOptions, WaitStatus, Which, wait};
use crate::testing::machine;
use alloc::sync::Arc;

const LOOK: WaitOptions = WaitOptions::NOHANG.union(WaitOptions::EXITED);

/// Makes a task's process a zombie, as the end of its only thread does, as far as tracers see it.
fn end(task: &Arc<Task>) {
    let mut inner = task.process.inner.lock();
    inner.threads.clear();
    inner.state = ProcessState::Zombie(WaitStatus::Exited(3));
}

#[test]
fn one_tracer_and_not_ones_own_threads() {
    let m = machine();
    let (_init, tracer, other) = (m.task(), m.task(), m.task());
    let (tracee, thread) = (m.task(), m.thread(&tracer));
    let (ours, theirs) = (m.ctx(&tracer), m.ctx(&other));
    assert_eq!(attach(&ours, &tracer).unwrap_err().errno, Errno::EPERM);
    assert_eq!(attach(&ours, &thread).unwrap_err().errno, Errno::EPERM);
    assert_eq!(seize(&ours, &tracee, 0x1000).unwrap_err().errno, Errno::EIO);
    assert_eq!(seize(&ours, &tracee, 1 << 21).unwrap_err().errno, Errno::EINVAL);
    seize(&ours, &tracee, 1).unwrap();
    assert_eq!(attach(&theirs, &tracee).unwrap_err().errno, Errno::EPERM);
    assert_eq!(trace_me(&m.ctx(&tracee)).unwrap_err().errno, Errno::EPERM);
    assert_eq!(tracee.trace.tracer_pid(), tracer.tid());
    // It is not stopped, and not the other one's at all.
    assert_eq!(request::resume(&ours, &tracee, request::Resume::Continue, 0).unwrap_err().errno, Errno::ESRCH);
    assert_eq!(request::interrupt_tracee(&theirs, &tracee).unwrap_err().errno, Errno::ESRCH);
    request::interrupt_tracee(&ours, &tracee).unwrap();
    assert!(tracee.trace.must_trap() && tracee.signal_pending());
}

#[test]
fn users_look_into_what_is_theirs() {
    let m = machine();
    let (_init, user, root) = (m.task(), m.task(), m.task());
    let ids = crate::task::creds::Ids { real: 1000, effective: 1000, saved: 1000, fs: 1000 };
    let creds = user.creds().with_users(ids).with_groups(ids);
    user.creds.set(Arc::new(creds));
    assert!(may_access(&m.ctx(&root), &user).is_ok());
    assert_eq!(may_access(&m.ctx(&user), &root).unwrap_err().errno, Errno::EPERM);
    assert_eq!(attach(&m.ctx(&user), &root).unwrap_err().errno, Errno::EPERM);
    // A set-user-id program of a tracee's gains nothing, unless the tracer could trace it then, too.
    let other = m.task();
    seize(&m.ctx(&root), &other, 0).unwrap();
    assert!(other.trace.may_gain_privileges());
}

#[test]
fn a_tracee_is_its_own_when_the_tracer_ends() {
    let m = machine();
    let (_init, tracer, tracee) = (m.task(), m.task(), m.task());
    seize(&m.ctx(&tracer), &tracee, 0).unwrap();
    link::tracer_ended(&m.ctx(&tracer));
    assert!(!tracee.trace.is_traced() && tracee.process.inner.lock().tracer.is_none());
    // And it takes no more.
    assert_eq!(seize(&m.ctx(&tracer), &tracee, 0).unwrap_err().errno, Errno::EPERM);
}

#[test]
fn the_tracer_is_told_of_an_end_before_the_parent() {
    let m = machine();
    let (init, tracer) = (m.task(), m.task());
    let tracee = m.child(&init);
    seize(&m.ctx(&tracer), &tracee, 0).unwrap();
    let which = Which::Pid(tracee.process.pid);
    assert!(wait(&m.ctx(&tracer), which, LOOK).unwrap().is_none());
    end(&tracee);
    assert!(link::zombie_of(&m.kernel, &tracee.process, WaitStatus::Exited(3)), "the parent is not told yet");
    assert!(wait(&m.ctx(&init), which, LOOK).unwrap().is_none());
    let told = wait(&m.ctx(&tracer), which, LOOK).unwrap().unwrap();
    assert_eq!((told.pid, told.status), (tracee.process.pid, WaitStatus::Exited(3)));
    assert_eq!(wait(&m.ctx(&tracer), which, LOOK).unwrap_err().errno, Errno::ECHILD);
    let told = wait(&m.ctx(&init), which, LOOK).unwrap().unwrap();
    assert_eq!(told.status, WaitStatus::Exited(3));
    assert!(m.kernel.tasks.process(tracee.process.pid).is_none());
}
