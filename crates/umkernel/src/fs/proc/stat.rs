//! `/proc/PID/stat` and `/proc/PID/statm`.

use super::subject::Subject;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{PAGE_SIZE, Prot, VmaKind};
use crate::task::{ProcessState, Rusage, WaitStatus};
use crate::time::NSEC_PER_TICK;
use crate::vfs::makedev;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

/// The state's letter and its word in `status`.
pub(super) fn state(subject: &Subject) -> (char, &'static str) {
    let Some(task) = subject.task() else { return ('Z', "zombie") };
    if task.trace.is_stopped() {
        ('t', "tracing stop")
    } else if task.signals.is_stopped()
        || !task.trace.is_traced() && subject.process.inner.lock().state == ProcessState::Stopped
    {
        ('T', "stopped")
    } else if task.is_running() || task.trace.is_resumed() {
        ('R', "running")
    } else {
        ('S', "sleeping")
    }
}

/// Processor time of the process, or of the thread.
fn times(ctx: &Ctx, subject: &Subject) -> Rusage {
    if subject.whole {
        return ctx.kernel.process_times(&subject.process);
    }
    let (utime, stime) = subject.task().map_or((0, 0), |t| ctx.kernel.platform.cpu_times(&t));
    Rusage { utime, stime, max_rss: 0 }
}

/// The name as `stat` and `status` show it.
pub(super) fn name(subject: &Subject) -> String {
    let comm = subject.task().map(|t| *t.comm.lock()).or_else(|| *subject.process.settings.last_comm.lock());
    String::from_utf8_lossy(comm.unwrap_or_default().as_bytes()).into_owned()
}

pub(super) fn stat(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let process = &subject.process;
    let task = subject.task();
    let (pgid, sid, tty, threads, exit_signal, nice, children, zombie) = {
        let inner = process.inner.lock();
        let zombie = if let ProcessState::Zombie(status) = inner.state { Some(status) } else { None };
        let threads = inner.threads.len();
        (inner.pgid, inner.sid, inner.tty.clone(), threads, inner.exit_signal, inner.nice, inner.dead_children, zombie)
    };
    let (tty_nr, foreground) = match &tty {
        Some(tty) => (makedev(tty.device.0, tty.device.1), tty.session_and_foreground().1.unwrap_or(-1)),
        None => (0, -1),
    };
    let used = times(ctx, subject);
    let ticks = |ns: u64| ns / NSEC_PER_TICK;
    let start = task.as_ref().map_or(0, |t| ticks(t.start_time.saturating_sub(ctx.kernel.boot_monotonic)));
    let allowed = subject.check_access(ctx).is_ok();
    let space = subject.memory();
    let (vsize, rss) = match &space {
        Some(mm) => (mm.inner.lock().total(), ctx.kernel.platform.resident_pages(mm).0),
        None => (0, 0),
    };
    let rss_limit = process.limit(linux_raw_sys::general::RLIMIT_RSS as usize);
    let (pending, blocked) = task.as_ref().map_or((0, 0), |t| (t.signals.pending().0, t.signals.blocked().0));
    let (ignored, caught) = process.handlers.lock().ignored_and_caught();
    let sched = task.as_ref().map(|t| t.sched.inner.lock().clone()).unwrap_or_default();
    let priority = if sched.priority > 0 { -1 - sched.priority as i32 } else { 20 + i32::from(nice) };
    let layout = space.filter(|_| allowed).map(|mm| {
        let inner = mm.inner.lock();
        let code = inner.vmas.values().find(|v| v.prot.contains(Prot::EXEC) && matches!(v.kind, VmaKind::File { .. }));
        let data = inner.vmas.values().find(|v| v.prot.contains(Prot::WRITE) && matches!(v.kind, VmaKind::File { .. }));
        let range = |v: Option<&crate::mm::Vma>| v.map_or((0, 0), |v| (v.start, v.end));
        (range(code), range(data), inner.stack_start, inner.brk_start, inner.args, inner.env)
    });
    let (code, data, stack, brk, args, env) = layout.unwrap_or_default();
    let exit_code = zombie.filter(|_| allowed || task.is_none()).map_or(0, WaitStatus::to_word);

    let mut text = format!("{} ({}) {} ", subject.tid, name(subject), state(subject).0);
    let fields: [i64; 49] = [
        process.ppid().into(),
        pgid.into(),
        sid.into(),
        tty_nr as i64,
        foreground.into(),
        // PF_RANDOMIZE, as every process of Linux has it.
        0x0040_0000,
        0,
        0,
        0,
        0,
        ticks(used.utime) as i64,
        ticks(used.stime) as i64,
        ticks(children.utime) as i64,
        ticks(children.stime) as i64,
        priority.into(),
        nice.into(),
        threads as i64,
        0,
        start as i64,
        vsize as i64,
        rss as i64,
        rss_limit as i64,
        code.0 as i64,
        code.1 as i64,
        stack as i64,
        0,
        0,
        pending as i64 & 0x7fff_ffff,
        blocked as i64 & 0x7fff_ffff,
        ignored.0 as i64 & 0x7fff_ffff,
        caught.0 as i64 & 0x7fff_ffff,
        i64::from(state(subject).0 == 'S'),
        0,
        0,
        exit_signal.into(),
        task.as_ref().map_or(0, |t| t.processor(ctx.kernel)).into(),
        sched.priority.into(),
        sched.policy.into(),
        0,
        0,
        0,
        data.0 as i64,
        data.1 as i64,
        brk as i64,
        args.0 as i64,
        args.1 as i64,
        env.0 as i64,
        env.1 as i64,
        exit_code.into(),
    ];
    for (i, field) in fields.iter().enumerate() {
        let separator = if i + 1 == fields.len() { '\n' } else { ' ' };
        // Limits and addresses are unsigned.
        let unsigned = matches!(i, 19..=24);
        // Writing to a string cannot fail.
        let _ =
            if unsigned { write!(text, "{}{separator}", *field as u64) } else { write!(text, "{field}{separator}") };
    }
    Ok(text.into_bytes())
}

pub(super) fn statm(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let Some(space) = subject.memory() else { return Ok(b"0 0 0 0 0 0 0\n".to_vec()) };
    let (resident, shared) = ctx.kernel.platform.resident_pages(&space);
    let sizes = Sizes::of(&space);
    let fields = [sizes.total / PAGE_SIZE, resident, shared, sizes.code / PAGE_SIZE, 0, sizes.data / PAGE_SIZE, 0];
    let mut text = fields.map(|f| f.to_string()).join(" ");
    text.push('\n');
    Ok(text.into_bytes())
}

/// Bytes of an address space by use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) total: u64,
    /// Executable.
    pub(super) code: u64,
    /// Private and writable, and the stack.
    pub(super) data: u64,
    pub(super) stack: u64,
    pub(super) locked: u64,
}

impl Sizes {
    pub(super) fn of(space: &crate::mm::AddressSpace) -> Sizes {
        use crate::mm::MapFlags;
        let inner = space.inner.lock();
        let mut sizes = Sizes { total: inner.total(), ..Sizes::default() };
        for vma in inner.vmas.values() {
            match vma.kind {
                VmaKind::Reserved(_) => continue,
                VmaKind::Stack => sizes.stack += vma.len(),
                _ if vma.prot.contains(Prot::EXEC) => sizes.code += vma.len(),
                _ if vma.prot.contains(Prot::WRITE) && !vma.flags.contains(MapFlags::SHARED) => {
                    sizes.data += vma.len();
                }
                _ => {}
            }
            if vma.flags.contains(MapFlags::LOCKED) {
                sizes.locked += vma.len();
            }
        }
        sizes.data += sizes.stack;
        sizes
    }
}

/// How often the threads of a process went to sleep.
pub(super) fn sleeps(subject: &Subject) -> u64 {
    subject.task().map_or(0, |t| t.sched.sleeps.load(Ordering::Relaxed))
}
