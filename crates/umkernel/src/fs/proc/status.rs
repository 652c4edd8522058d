//! `/proc/PID/status`.

use super::stat::{Sizes, name, sleeps, state};
use super::subject::Subject;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::PAGE_SIZE;
use crate::task::Creds;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

pub(super) fn status(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = fill(ctx, subject, &mut text);
    Ok(text.into_bytes())
}

fn escape(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\n', "\\n")
}

fn fill(ctx: &Ctx, subject: &Subject, out: &mut String) -> core::fmt::Result {
    let process = &subject.process;
    let task = subject.task();
    let creds = task.as_ref().map(|t| t.creds());
    let nobody = Creds::root();
    let creds = creds.as_deref().unwrap_or(&nobody);
    let (letter, word) = state(subject);
    let (pgid, sid) = process.group_and_session();
    let (pid, tid) = (process.pid, subject.tid);

    writeln!(out, "Name:\t{}", escape(&name(subject)))?;
    if let Some(task) = &task {
        let umask = task.fs().inner.lock().umask;
        writeln!(out, "Umask:\t{umask:04o}")?;
    }
    writeln!(out, "State:\t{letter} ({word})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}")?;
    let tracer = task.as_ref().map_or(0, |t| t.trace.tracer_pid());
    writeln!(out, "PPid:\t{}\nTracerPid:\t{tracer}", process.ppid())?;
    writeln!(out, "Uid:\t{}\t{}\t{}\t{}", creds.uid, creds.euid, creds.suid, creds.fsuid)?;
    writeln!(out, "Gid:\t{}\t{}\t{}\t{}", creds.gid, creds.egid, creds.sgid, creds.fsgid)?;
    writeln!(out, "FDSize:\t{}", task.as_ref().map_or(0, |t| t.files().size().next_multiple_of(64)))?;
    write!(out, "Groups:\t")?;
    creds.groups.iter().try_for_each(|g| write!(out, "{g} "))?;
    writeln!(out, "\nNStgid:\t{pid}\nNSpid:\t{tid}\nNSpgid:\t{pgid}\nNSsid:\t{sid}")?;
    writeln!(out, "Kthread:\t{}", u8::from(task.is_some() && subject.memory().is_none()))?;
    memory(ctx, subject, out)?;

    let threads = process.inner.lock().threads.len();
    let queued = ctx.kernel.queued_signals.count(creds.uid);
    let queue_limit = process.limit(linux_raw_sys::general::RLIMIT_SIGPENDING as usize);
    writeln!(out, "Threads:\t{threads}\nSigQ:\t{queued}/{queue_limit}")?;
    let (pending, blocked) = task.as_ref().map_or((0, 0), |t| (t.signals.pending().0, t.signals.blocked().0));
    let (ignored, caught) = process.handlers.lock().ignored_and_caught();
    writeln!(out, "SigPnd:\t{pending:016x}\nShdPnd:\t{:016x}", process.signals.pending().0)?;
    writeln!(out, "SigBlk:\t{blocked:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}", ignored.0, caught.0)?;
    let sets = [
        ("CapInh", creds.inheritable),
        ("CapPrm", creds.permitted),
        ("CapEff", creds.effective),
        ("CapBnd", creds.bounding),
        ("CapAmb", creds.ambient),
    ];
    sets.iter().try_for_each(|(name, set)| writeln!(out, "{name}:\t{:016x}", set.bits()))?;
    let no_new_privs = task.as_ref().is_some_and(|t| t.no_new_privs.load(Ordering::Relaxed));
    let (mode, filters) = task.as_ref().map_or((0, 0), |t| (t.seccomp.mode(), t.seccomp.filters()));
    writeln!(out, "NoNewPrivs:\t{}\nSeccomp:\t{mode}\nSeccomp_filters:\t{filters}", u8::from(no_new_privs))?;
    let cpus = ctx.kernel.config.cpus.max(1) as usize;
    let allowed = task.as_ref().map_or_else(|| crate::task::all_cpus(cpus), |t| t.sched.allowed_cpus(cpus));
    writeln!(out, "Cpus_allowed:\t{}\nCpus_allowed_list:\t{}", mask_text(&allowed, cpus), list_text(&allowed, cpus))?;
    writeln!(out, "Mems_allowed:\t1\nMems_allowed_list:\t0")?;
    writeln!(out, "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t0", sleeps(subject))
}

/// The `Vm` lines; a zombie and a kernel thread have none.
fn memory(ctx: &Ctx, subject: &Subject, out: &mut String) -> core::fmt::Result {
    let Some(space) = subject.memory() else { return Ok(()) };
    let (resident, file) = ctx.kernel.platform.resident_pages(&space);
    let sizes = Sizes::of(&space);
    let anonymous = resident.saturating_sub(file);
    let lines = [
        ("VmPeak", sizes.total),
        ("VmSize", sizes.total),
        ("VmLck", sizes.locked),
        ("VmPin", 0),
        ("VmHWM", resident * PAGE_SIZE),
        ("VmRSS", resident * PAGE_SIZE),
        ("RssAnon", anonymous * PAGE_SIZE),
        ("RssFile", file * PAGE_SIZE),
        ("RssShmem", 0),
        ("VmData", sizes.data - sizes.stack),
        ("VmStk", sizes.stack),
        ("VmExe", sizes.code),
        ("VmLib", 0),
        ("VmPTE", 0),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    for (name, bytes) in lines {
        // RssAnon and its like are set one tab further.
        let tab = if name.starts_with("Rss") { "\t" } else { "" };
        writeln!(out, "{name}:\t{tab}{:8} kB", bytes / 1024)?;
    }
    writeln!(out, "CoreDumping:\t0\nTHP_enabled:\t0\nuntag_mask:\t0xffffffffffffffff")
}

/// A set of processors as `%*pb` prints it: words of 32 bits in hexadecimal, the highest first.
pub(super) fn mask_text(mask: &[u64], cpus: usize) -> String {
    let words = cpus.div_ceil(32);
    let word = |i: usize| mask.get(i / 2).map_or(0, |w| (w >> (32 * (i % 2))) as u32);
    let highest_digits = match cpus % 32 {
        0 => 8,
        bits => bits.div_ceil(4),
    };
    let mut text = String::new();
    for i in (0..words).rev() {
        let digits = if i + 1 == words { highest_digits } else { 8 };
        // Writing to a string cannot fail.
        let _ = write!(text, "{:0digits$x}{}", word(i), if i > 0 { "," } else { "" });
    }
    text
}

/// A set of processors as `%*pbl` prints it: `0-2,5`.
pub(in crate::fs) fn list_text(mask: &[u64], cpus: usize) -> String {
    let set = |i: usize| i < cpus && mask.get(i / 64).is_some_and(|w| w >> (i % 64) & 1 == 1);
    let mut ranges: Vec<String> = Vec::new();
    let mut at = 0;
    while at < cpus {
        if !set(at) {
            at += 1;
            continue;
        }
        let start = at;
        while set(at + 1) {
            at += 1;
        }
        ranges.push(if at == start { start.to_string() } else { alloc::format!("{start}-{at}") });
        at += 1;
    }
    ranges.join(",")
}
