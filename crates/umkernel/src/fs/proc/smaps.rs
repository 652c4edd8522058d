//! `/proc/PID/smaps` and `smaps_rollup`: the VMAs with what of them is in memory, which the host tells.

use super::maps;
use super::subject::Subject;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::mm::{MapFlags, Prot, Vma, VmaKind};
use crate::platform::usage::{Size, Usage};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// The VMAs that a process sees, and the use of each.
fn used(ctx: &Ctx, subject: &Subject) -> Result<Vec<(Vma, Usage)>> {
    subject.check_access(ctx)?;
    let Some(space) = subject.memory() else { return Ok(Vec::new()) };
    let vmas: Vec<Vma> = space.inner.lock().vmas.values().cloned().collect();
    let host = ctx.kernel.platform.memory_usage(&space);
    let seen = vmas.into_iter().filter(|vma| !matches!(vma.kind, VmaKind::Reserved("")));
    let with_usage = seen.map(|vma| {
        let mut usage = Usage { start: vma.start, end: vma.end, ..Usage::default() };
        // Both are in order of their addresses.
        let first = host.partition_point(|mapping| mapping.end <= vma.start);
        host[first..].iter().take_while(|mapping| mapping.start < vma.end).for_each(|mapping| usage.add(mapping));
        (vma, usage)
    });
    Ok(with_usage.collect())
}

pub(super) fn smaps(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let root = ctx.fs().inner.lock().root.clone();
    let mut text = Vec::new();
    for (vma, usage) in used(ctx, subject)? {
        maps::line(&mut text, &vma, &root);
        let mut lines = format!("Size:           {:8} kB\n", vma.len() >> 10);
        lines += "KernelPageSize:        4 kB\nMMUPageSize:           4 kB\n";
        push(&mut lines, &usage, locked(&vma, &usage));
        lines += "THPeligible:           0\nVmFlags: ";
        lines += &flags(&vma);
        lines.push('\n');
        text.extend_from_slice(lines.as_bytes());
    }
    Ok(text)
}

pub(super) fn rollup(ctx: &Ctx, subject: &Subject) -> Result<Vec<u8>> {
    let all = used(ctx, subject)?;
    let (Some((first, _)), Some((last, _))) = (all.first(), all.last()) else { return Ok(Vec::new()) };
    let mut text = format!("{:08x}-{:08x} ---p 00000000 00:00 0 ", first.start, last.end);
    text = format!("{text:73}[rollup]\n");
    let mut sum = Usage::default();
    let mut all_locked = 0;
    for (vma, usage) in &all {
        sum.sizes.iter_mut().zip(usage.sizes).for_each(|(sum, size)| *sum += size);
        all_locked += locked(vma, usage);
    }
    push(&mut text, &sum, all_locked);
    Ok(text.into_bytes())
}

/// What a VMA has of locked memory.
fn locked(vma: &Vma, usage: &Usage) -> u64 {
    if vma.flags.contains(MapFlags::LOCKED) { usage.size(Size::Pss) } else { 0 }
}

/// The lines of sizes.
fn push(text: &mut String, usage: &Usage, locked: u64) {
    let mut line = |name: &str, bytes: u64| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<15} {:8} kB", format!("{name}:"), bytes >> 10);
    };
    for (which, name) in Size::ALL {
        line(name, usage.size(which));
        if which == Size::Pss {
            line("Pss_Dirty", usage.size(Size::PrivateDirty).min(usage.size(Size::Pss)));
        }
    }
    for name in
        ["KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb"]
    {
        line(name, 0);
    }
    line("Swap", 0);
    line("SwapPss", 0);
    line("Locked", locked);
}

/// `VmFlags`: two letters each, with a space behind.
fn flags(vma: &Vma) -> String {
    let has = |flag| vma.flags.contains(flag);
    let shared = has(MapFlags::SHARED);
    let pairs = [
        (vma.prot.contains(Prot::READ), "rd"),
        (vma.prot.contains(Prot::WRITE), "wr"),
        (vma.prot.contains(Prot::EXEC), "ex"),
        (shared, "sh"),
        (true, "mr"),
        (!has(MapFlags::NEVER_WRITABLE), "mw"),
        (!has(MapFlags::NEVER_EXECUTABLE), "me"),
        (shared, "ms"),
        (vma.grows_down() || matches!(vma.kind, VmaKind::Stack), "gd"),
        (has(MapFlags::LOCKED), "lo"),
        (has(MapFlags::DONT_FORK), "dc"),
        (has(MapFlags::WIPE_ON_FORK), "wf"),
        (has(MapFlags::DONT_DUMP), "dd"),
        (has(MapFlags::SEALED), "sl"),
    ];
    pairs.iter().filter(|(set, _)| *set).map(|(_, name)| format!("{name} ")).collect()
}
