//! The smaller files of `/proc/PID`.

use super::stat::{name, state};
use super::subject::Subject;
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::PAGE_SIZE;
use crate::task::{Capabilities, Comm, Rlimit, core_dump};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

pub(super) fn comm(_ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let mut text = name(subject).into_bytes();
    text.push(b'\n');
    Ok(text)
}

pub(super) fn set_comm(ctx: &Ctx, subject: &Subject, text: &[u8]) -> Result<()> {
    if !Arc::ptr_eq(&subject.process, &ctx.task.process) {
        bail!(EINVAL, "a thread of another process");
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    *subject.living()?.comm.lock() = Comm::new(text);
    Ok(())
}

pub(super) fn personality(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    subject.check_access(ctx)?;
    Ok(format!("{:08x}\n", subject.living()?.sched.inner.lock().personality).into_bytes())
}

pub(super) fn limits(_ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    const ROWS: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let number = |n: u64| if n == Rlimit::INFINITY { "unlimited".to_string() } else { n.to_string() };
    let mut text = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let limits = *subject.process.rlimits.lock();
    for ((name, unit), limit) in ROWS.iter().zip(limits) {
        text += &format!("{name:<25} {:<20} {:<20} ", number(limit.cur), number(limit.max));
        text += &if unit.is_empty() { "\n".to_string() } else { format!("{unit:<10}\n") };
    }
    Ok(text.into_bytes())
}

pub(super) fn mounts(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let fs = subject.task().ok_or(Errno::EINVAL)?.fs();
    let root = fs.inner.lock().root.clone();
    Ok(ctx.kernel.vfs.mounts_text(&root))
}

pub(super) fn mountinfo(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let fs = subject.task().ok_or(Errno::EINVAL)?.fs();
    let root = fs.inner.lock().root.clone();
    Ok(ctx.kernel.vfs.mountinfo_text(&root))
}

/// Where it sleeps; as on a kernel without symbols, never told.
pub(super) fn wchan(_ctx: &Ctx, _subject: &Subject) -> Result<Vec<u8>> {
    Ok(b"0".to_vec())
}

/// Nanoseconds on a processor, waiting for one (the host does not tell), and how often it got one.
pub(super) fn schedstat(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let (user, system) = subject.task().map_or((0, 0), |t| ctx.kernel.platform.cpu_times(&t));
    Ok(format!("{} 0 {}\n", user + system, super::stat::sleeps(subject)).into_bytes())
}

pub(super) fn cgroup(_ctx: &Ctx, _subject: &Subject) -> Result<Vec<u8>> {
    Ok(b"0::/\n".to_vec())
}

/// As Linux computes it: thousandths of memory, moved by the adjustment, on a scale up to 2000.
pub(super) fn core_filter(_: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    Ok(format!("{:08x}\n", subject.process.settings.core_filter.load(Ordering::Relaxed)).into_bytes())
}

pub(super) fn set_core_filter(_: &Ctx, subject: &Subject, text: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let filter = parsed.map_err(|_| Errno::EINVAL)?;
    subject.process.settings.core_filter.store(filter & core_dump::FILTERS, Ordering::Relaxed);
    Ok(())
}

pub(super) fn oom_score(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let pages = subject.memory().map_or(0, |mm| ctx.kernel.platform.resident_pages(&mm).0);
    let total = (ctx.kernel.config.memory / PAGE_SIZE).max(1) as i64;
    let adjust = i64::from(subject.process.settings.oom_score_adj.load(Ordering::Relaxed));
    let points = pages as i64 + adjust * total / 1000;
    let score = if adjust == -1000 || state(subject).0 == 'Z' { 0 } else { (1000 + points * 1000 / total) * 2 / 3 };
    Ok(format!("{}\n", score.max(0)).into_bytes())
}

pub(super) fn oom_score_adj(_ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    Ok(format!("{}\n", subject.process.settings.oom_score_adj.load(Ordering::Relaxed)).into_bytes())
}

fn number<T: core::str::FromStr>(text: &[u8]) -> Result<T> {
    let text = String::from_utf8_lossy(text);
    text.trim().parse().map_err(|_| crate::Error::new(Errno::EINVAL, "not a number"))
}

pub(super) fn set_oom_score_adj(ctx: &Ctx, subject: &Subject, text: &[u8]) -> Result<()> {
    let new: i32 = number(text)?;
    if !(-1000..=1000).contains(&new) {
        bail!(EINVAL, "beyond -1000..1000");
    }
    let adjust = &subject.process.settings.oom_score_adj;
    if new < adjust.load(Ordering::Relaxed) && !ctx.creds().capable(Capabilities::SYS_RESOURCE) {
        bail!(EACCES, "lowering it is privileged");
    }
    adjust.store(new, Ordering::Relaxed);
    Ok(())
}

pub(super) fn login_uid(_ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    Ok(subject.process.settings.login_uid.load(Ordering::Relaxed).to_string().into_bytes())
}

/// Can be set once, by the process itself; with privilege, again.
pub(super) fn set_login_uid(ctx: &Ctx, subject: &Subject, text: &[u8]) -> Result<()> {
    const AUDIT_CONTROL: Capabilities = Capabilities::from_bits_retain(1 << 30);
    let new: u32 = number(text)?;
    if !Arc::ptr_eq(&subject.process, &ctx.task.process) {
        bail!(EPERM, "another process");
    }
    let login = &subject.process.settings.login_uid;
    if login.load(Ordering::Relaxed) != u32::MAX && !ctx.creds().capable(AUDIT_CONTROL) {
        bail!(EPERM, "set already");
    }
    login.store(new, Ordering::Relaxed);
    Ok(())
}

pub(super) fn session_id(_ctx: &Ctx, _subject: &Subject) -> Result<Vec<u8>> {
    Ok(u32::MAX.to_string().into_bytes())
}
