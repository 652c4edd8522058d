//! `fork`, `vfork`, `clone`: new tasks.

use super::{Looks, Part, Pid, Process, ProcessInner, ProcessState, Rusage, Task, pidfd};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::ns;
use crate::platform::{HostThread, Spawn, TrapFrame};
use crate::ptrace;
use crate::seccomp;
use crate::signal::{self, ProcessSignals};
use crate::sync::{Mutex, WaitQueue, Waiter};
use crate::vfs::OpenFlags;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

bitflags::bitflags! {
    /// Flags of `clone(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CloneFlags: u64 {
        /// Share memory.
        const VM = 0x100;
        /// Share root, working directory and umask.
        const FS = 0x200;
        /// Share the descriptor table.
        const FILES = 0x400;
        /// Share signal handlers.
        const SIGHAND = 0x800;
        /// Return a pidfd.
        const PIDFD = 0x1000;
        /// Go on being traced.
        const PTRACE = 0x2000;
        /// The caller sleeps until the child lets go of the memory.
        const VFORK = 0x4000;
        /// The caller's parent becomes the child's.
        const PARENT = 0x8000;
        /// A thread of the caller's process.
        const THREAD = 0x1_0000;
        /// A mount namespace of its own.
        const NEWNS = 0x2_0000;
        /// Share System V semaphore adjustments.
        const SYSVSEM = 0x4_0000;
        /// Set the thread pointer.
        const SETTLS = 0x8_0000;
        /// Store the child's id in the parent.
        const PARENT_SETTID = 0x10_0000;
        /// Clear the child's id in the child when it ends.
        const CHILD_CLEARTID = 0x20_0000;
        /// Ignored.
        const DETACHED = 0x40_0000;
        /// No tracer may trace the child by its own wish.
        const UNTRACED = 0x80_0000;
        /// Store the child's id in the child.
        const CHILD_SETTID = 0x100_0000;
        /// A namespace of names of the machine of its own.
        const NEWUTS = 0x400_0000;
        /// A namespace of System V objects of its own.
        const NEWIPC = 0x800_0000;
        /// A user namespace of its own.
        const NEWUSER = 0x1000_0000;
        /// A time namespace of its own; within the exit signal of the old `clone`.
        const NEWTIME = 0x80;
        /// All namespaces that Linux has but `NEWUSER`: mount, cgroup, uts, ipc, pid, net, and time.
        const NAMESPACES = 0x6e02_0080;
        /// Share the I/O context.
        const IO = 0x8000_0000;
        /// Reset signal handlers.
        const CLEAR_SIGHAND = 0x1_0000_0000;
        const _ = !0;
    }
}

/// What a `clone` was asked.
#[derive(Clone, Copy, Debug)]
pub struct CloneArgs {
    /// Flags.
    pub flags: CloneFlags,
    /// Signal to the parent at the end; 0 for none.
    pub exit_signal: u8,
    /// Stack pointer of the child; 0 to go on with the parent's.
    pub stack: u64,
    /// Where the parent gets the child's id, or the pidfd of the old `clone`.
    pub parent_tid: u64,
    /// Where the child gets its id, and where it is cleared.
    pub child_tid: u64,
    /// Thread pointer.
    pub tls: u64,
    /// Where the pidfd goes.
    pub pidfd: u64,
}

impl CloneArgs {
    /// `fork(2)`.
    pub fn fork() -> CloneArgs {
        CloneArgs {
            flags: CloneFlags::empty(),
            exit_signal: signal::number::SIGCHLD,
            stack: 0,
            parent_tid: 0,
            child_tid: 0,
            tls: 0,
            pidfd: 0,
        }
    }

    /// `vfork(2)`.
    pub fn vfork() -> CloneArgs {
        CloneArgs { flags: CloneFlags::VM | CloneFlags::VFORK, ..CloneArgs::fork() }
    }

    fn check(&self) -> Result<()> {
        let f = self.flags;
        if f.contains(CloneFlags::SIGHAND) && !f.contains(CloneFlags::VM) {
            bail!(EINVAL, "CLONE_SIGHAND without CLONE_VM");
        }
        if f.contains(CloneFlags::THREAD) && !f.contains(CloneFlags::SIGHAND) {
            bail!(EINVAL, "CLONE_THREAD without CLONE_SIGHAND");
        }
        if f.contains(CloneFlags::NEWNS | CloneFlags::FS) {
            bail!(EINVAL, "CLONE_NEWNS with CLONE_FS");
        }
        if f.contains(CloneFlags::CLEAR_SIGHAND | CloneFlags::SIGHAND) {
            bail!(EINVAL, "CLONE_CLEAR_SIGHAND with CLONE_SIGHAND");
        }
        if f.contains(CloneFlags::PIDFD) && f.intersects(CloneFlags::THREAD | CloneFlags::DETACHED) {
            bail!(EINVAL, "a pidfd of a thread");
        }
        if f.contains(CloneFlags::PIDFD | CloneFlags::PARENT_SETTID) && self.pidfd == self.parent_tid {
            bail!(EINVAL, "the pidfd and the child's id have one place");
        }
        if self.exit_signal > 64 {
            bail!(EINVAL, "no such signal");
        }
        Ok(())
    }
}

/// `clone(2)`: makes a task and starts it. Returns its id, which the child's own return of 0 mirrors.
pub fn clone(ctx: &Ctx, args: &CloneArgs, frame: &mut TrapFrame) -> Result<Pid> {
    args.check()?;
    let kernel = ctx.kernel;
    let parent = ctx.task;
    let flags = args.flags;
    check_process_limit(ctx)?;
    if flags.contains(CloneFlags::SETTLS) && args.tls >= crate::mm::TASK_SIZE {
        bail!(EPERM, "the thread area's address is not the guest's");
    }
    let fs = if flags.contains(CloneFlags::FS) { parent.fs() } else { Arc::new(parent.fs().duplicate()) };
    let namespaces = ns::for_child(ctx, flags, &fs)?;
    let tid = kernel.new_pid()?;
    let mm = parent.mm()?;
    let child_mm = if flags.contains(CloneFlags::VM) { mm } else { Arc::new(mm.fork(kernel.new_id(), tid)) };
    let process = if flags.contains(CloneFlags::THREAD) { parent.process.clone() } else { new_process(ctx, tid, args) };
    let files = if flags.contains(CloneFlags::FILES) { parent.files() } else { Arc::new(parent.files().duplicate()) };
    let vfork_done = flags.contains(CloneFlags::VFORK).then(|| Arc::new(WaitQueue::new()));
    let child = Arc::new(Task {
        tid: AtomicI32::new(tid),
        process: process.clone(),
        waiter: Arc::new(Waiter::new()),
        host: HostThread::default(),
        comm: Mutex::new(*parent.comm.lock()),
        creds: Part::new(parent.creds()),
        fs: Part::new(fs),
        files: Part::new(files),
        namespaces: Part::new(Some(namespaces)),
        mm: Part::new(Some(child_mm.clone())),
        looks: Looks::default(),
        signals: parent.signals.for_child(flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK)),
        attention: AtomicBool::new(false),
        dying: AtomicBool::new(false),
        clear_child_tid: AtomicU64::new(if flags.contains(CloneFlags::CHILD_CLEARTID) { args.child_tid } else { 0 }),
        robust_list: AtomicU64::new(0),
        futex: Default::default(),
        sched: parent.sched.for_child(),
        vfork_parent: Mutex::new(vfork_done.clone()),
        restart: Mutex::new(None),
        in_syscall: AtomicU32::new(u32::MAX),
        trace: Default::default(),
        no_new_privs: AtomicBool::new(false),
        seccomp: Default::default(),
        start_time: crate::host::monotonic_ns(),
    });
    let mut child_frame = *frame;
    child_frame.rax = 0;
    if args.stack != 0 {
        child_frame.rsp = args.stack;
    }
    if flags.contains(CloneFlags::SETTLS) {
        child_frame.fs_base = args.tls;
    }
    if flags.contains(CloneFlags::PARENT_SETTID) {
        // A bad address is the caller's own loss, as on Linux.
        let _ = ctx.write_val(args.parent_tid, &tid);
    }

    adopt(ctx, &child, flags)?;
    let pidfd = if flags.contains(CloneFlags::PIDFD) { Some(give_pidfd(ctx, &child, args.pidfd)) } else { None };
    let pidfd = pidfd.transpose().inspect_err(|_| disown(ctx, &child))?;
    let how = match () {
        () if flags.contains(CloneFlags::THREAD) => Spawn::Thread,
        () if flags.contains(CloneFlags::VM) => Spawn::ShareMemory,
        () => Spawn::Fork,
    };
    if flags.contains(CloneFlags::CHILD_SETTID) && how != Spawn::Fork {
        // The memory is the child's as well.
        let _ = ctx.write_val(args.child_tid, &tid);
    }
    let event = ptrace::link::clone_event(ctx, flags, args.exit_signal);
    if event.is_some() || flags.contains(CloneFlags::PTRACE) {
        ptrace::new_child(ctx, &child);
    }
    let settid = if flags.contains(CloneFlags::CHILD_SETTID) && how == Spawn::Fork { args.child_tid } else { 0 };
    if let Err(e) = kernel.platform.spawn(kernel, parent, &child, how, child_frame, settid) {
        disown(ctx, &child);
        if let Some(fd) = pidfd {
            // Nobody has used it yet, or it is not the caller's any more.
            let _ = ctx.files().remove(ctx, fd);
        }
        return Err(e);
    }
    if let Some(event) = event {
        ptrace::stop::event(ctx, frame, event, tid as u64);
    }
    if let Some(done) = vfork_done {
        wait_for_vfork(ctx, &child, &done);
        ptrace::stop::event(ctx, frame, ptrace::Event::VforkDone, tid as u64);
    }
    Ok(tid)
}

/// Gives the caller a descriptor of a new process, and stores its number.
fn give_pidfd(ctx: &Ctx, child: &Task, addr: u64) -> Result<i32> {
    let file = pidfd::create(ctx, child.process.clone(), OpenFlags::empty());
    let fd = ctx.install(file, true)?;
    if let Err(e) = ctx.write_val(addr, &fd) {
        let _ = ctx.files().remove(ctx, fd);
        return Err(e);
    }
    Ok(fd)
}

/// Sleeps until a `vfork` child has executed a program or ended. Only the end of the caller's own process cuts it short.
fn wait_for_vfork(ctx: &Ctx, child: &Task, done: &WaitQueue) {
    let sleeper = ctx.task.waiter.clone() as Arc<dyn crate::sync::Wake>;
    done.add(sleeper.clone());
    loop {
        ctx.task.waiter.prepare();
        if child.vfork_parent.lock().is_none() || ctx.task.dying.load(Ordering::SeqCst) {
            break;
        }
        ctx.task.sleep(None);
    }
    done.remove(&sleeper);
}

/// Wakes a parent that sleeps in `vfork`: the task has let go of its memory.
pub(super) fn vfork_done(task: &Task) {
    let parent = task.vfork_parent.lock().take();
    if let Some(parent) = parent {
        parent.wake_all();
    }
}

/// `RLIMIT_NPROC`: tasks of the caller's real user.
fn check_process_limit(ctx: &Ctx) -> Result<()> {
    const RLIMIT_NPROC: usize = 6;
    let creds = ctx.creds();
    let limit = ctx.task.process.limit(RLIMIT_NPROC);
    if creds.uid == 0 || limit == super::Rlimit::INFINITY {
        return Ok(());
    }
    let threads: Vec<Arc<Task>> =
        ctx.kernel.tasks.processes().iter().flat_map(|p| p.inner.lock().threads.clone()).collect();
    let mine = threads.iter().filter(|t| t.creds().uid == creds.uid).count();
    if mine as u64 >= limit { Err(Errno::EAGAIN.into()) } else { Ok(()) }
}

fn new_process(ctx: &Ctx, pid: Pid, args: &CloneArgs) -> Arc<Process> {
    let parent = &ctx.task.process;
    let handlers = parent.handlers.lock().clone();
    let handlers = match () {
        () if args.flags.contains(CloneFlags::SIGHAND) => handlers,
        () if args.flags.contains(CloneFlags::CLEAR_SIGHAND) => Arc::default(),
        () => Arc::new(handlers.duplicate()),
    };
    let inner = parent.inner.lock();
    Arc::new(Process {
        pid,
        parent_pid: AtomicI32::new(0),
        inner: Mutex::new(ProcessInner {
            parent: None,
            children: Vec::new(),
            pgid: inner.pgid,
            sid: inner.sid,
            tty: inner.tty.clone(),
            threads: Vec::new(),
            state: ProcessState::Running,
            exiting: None,
            leader_status: None,
            uid_at_exit: 0,
            maker: Arc::downgrade(ctx.task),
            tracer: None,
            event: None,
            exit_signal: args.exit_signal,
            dead_threads: Rusage::default(),
            dead_children: Rusage::default(),
            has_execed: false,
            subreaper: false,
            parent_death_signal: 0,
            nice: inner.nice,
        }),
        child_events: Arc::new(WaitQueue::new()),
        exit_event: Arc::new(WaitQueue::new()),
        handlers: Mutex::new(handlers),
        signals: ProcessSignals::default(),
        rlimits: Mutex::new(*parent.rlimits.lock()),
        exe: Mutex::new(parent.exe.lock().clone()),
        timers: Default::default(),
        settings: parent.settings.for_child(),
    })
}

/// Puts a new task into its process, its parent and the table. Fails if its process is ending already.
fn adopt(ctx: &Ctx, child: &Arc<Task>, flags: CloneFlags) -> Result<()> {
    let process = &child.process;
    // A signal comes first, so that a stop or a kill of the process or its group does not miss the child.
    if ctx.task.signal_pending() {
        bail!(ERESTARTNOINTR, "a signal is pending");
    }
    if flags.contains(CloneFlags::THREAD) {
        let mut inner = process.inner.lock();
        if inner.exiting.is_some() || ctx.task.dying.load(Ordering::SeqCst) {
            bail!(ERESTARTNOINTR, "the process is ending");
        }
        // A filter that another thread attaches for all is the child's before this or by that.
        seccomp::inherit(ctx.task, child);
        inner.threads.push(child.clone());
    } else {
        let me = &ctx.task.process;
        let inner = me.inner.lock();
        seccomp::inherit(ctx.task, child);
        drop(inner);
        let parent = if flags.contains(CloneFlags::PARENT) { me.parent().unwrap_or(me.clone()) } else { me.clone() };
        let mut inner = process.inner.lock();
        process.set_parent(&mut inner, &parent);
        inner.threads.push(child.clone());
        drop(inner);
        parent.inner.lock().children.push(process.clone());
        ctx.kernel.time.limits_changed(ctx.kernel, process);
    }
    ctx.kernel.load.forks.fetch_add(1, Ordering::Relaxed);
    ctx.kernel.tasks.insert(child);
    Ok(())
}

/// Undoes [`adopt`] for a task that could not be started.
fn disown(ctx: &Ctx, child: &Arc<Task>) {
    ptrace::link::untie(child);
    let process = &child.process;
    process.inner.lock().threads.retain(|t| !Arc::ptr_eq(t, child));
    ctx.kernel.tasks.remove_task(child.tid());
    if !Arc::ptr_eq(process, &ctx.task.process) {
        if let Some(parent) = process.parent() {
            parent.inner.lock().children.retain(|p| !Arc::ptr_eq(p, process));
        }
        ctx.kernel.tasks.remove_process(process.pid);
    }
}
