//! Core files (`core(5)`): what a process was when a signal ended it, as an ELF file that debuggers read.
//!
//! [`write()`] is called by the thread that takes the signal, in its own memory. `notes` has what is told of the process and
//! its registers; of several threads only the one that took the signal is shown. Memory that was never written is left out,
//! or a hole.

mod notes;
mod pattern;

use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::loader::elf;
use crate::log;
use crate::mm::{KernelSrc, MapFlags, PAGE_SIZE, Prot, Vma, VmaKind};
use crate::platform::TrapFrame;
use crate::signal::SigInfo;
use crate::vfs::{AT_FDCWD, File, OpenFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

pub use pattern::Pattern;

/// What of memory goes into core files (`core(5)`): private and shared anonymous memory, private and shared file mappings,
/// headers of programs and libraries.
const ANONYMOUS_PRIVATE: u32 = 1;
const ANONYMOUS_SHARED: u32 = 2;
const FILE_PRIVATE: u32 = 4;
const FILE_SHARED: u32 = 8;
const ELF_HEADERS: u32 = 16;
/// Until `/proc/PID/coredump_filter` says something else; the rest is of huge pages.
pub const DEFAULT_FILTER: u32 = ANONYMOUS_PRIVATE | ANONYMOUS_SHARED | ELF_HEADERS | 32;
/// All that there are on Linux.
pub const FILTERS: u32 = 0x1ff;

/// Memory copied at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of an ELF file header and of a program header.
const HEADER_LEN: u64 = 64;
const SEGMENT_LEN: u64 = 56;
/// The most segments: their number has 16 bits, and one is for notes.
const SEGMENTS_MAX: usize = 65_000;

/// Writes a core file of the running task's process, if its limits and its owner allow one; true if it did.
pub fn write(ctx: &Ctx, frame: &TrapFrame, info: &SigInfo) -> bool {
    let limit = ctx.task.process.limit(linux_raw_sys::general::RLIMIT_CORE as usize);
    // Two threads may be ended by a signal each at the same time.
    if limit < PAGE_SIZE || !ctx.creds().dumpable || ctx.task.process.settings.dumping.swap(true, Ordering::AcqRel) {
        return false;
    }
    match dump(ctx, frame, info, limit) {
        Ok(()) => true,
        Err(e) => {
            let pid = ctx.task.process.pid;
            ctx.kernel.message(log::Level::Info, alloc::format!("core dump of process {pid} failed: {e}"));
            false
        }
    }
}

/// A part of memory in the file.
struct Part {
    vma: Vma,
    /// Bytes that the file has of it; the rest is zero, or the mapped file's.
    len: u64,
}

fn dump(ctx: &Ctx, frame: &TrapFrame, info: &SigInfo, limit: u64) -> Result<()> {
    let space = ctx.mm()?;
    let vmas: Vec<Vma> = space.inner.lock().vmas.values().cloned().collect();
    let filter = ctx.task.process.settings.core_filter.load(Ordering::Relaxed);
    let parts: Vec<Part> = vmas.iter().filter_map(|vma| part(vma, filter, frame.rsp)).take(SEGMENTS_MAX).collect();
    let notes = notes::all(ctx, frame, info, &vmas)?;
    let file = create(ctx, &ctx.kernel.core_pattern.name(ctx, info.signo))?;
    let mut out = Output { ctx, file, at: 0, limit };

    let headers = HEADER_LEN + SEGMENT_LEN * (parts.len() as u64 + 1);
    out.put(&file_header(parts.len() as u16 + 1))?;
    out.put(&segment(elf::PT_NOTE, 0, headers, 0, (notes.len() as u64, 0), 4))?;
    let mut offset = (headers + notes.len() as u64).next_multiple_of(PAGE_SIZE);
    for Part { vma, len } in &parts {
        let sizes = (*len, vma.len());
        out.put(&segment(elf::PT_LOAD, flags(vma.prot), offset, vma.start, sizes, PAGE_SIZE))?;
        offset += len;
    }
    out.put(&notes)?;
    out.at = out.at.next_multiple_of(PAGE_SIZE);
    for part in &parts {
        out.copy(part)?;
    }
    // The end may be a hole.
    let location = &out.file.location;
    ctx.kernel.vfs.truncate(ctx, location, out.at.min(limit), true)
}

/// Which part of a VMA goes into the file. A private mapping of a file that can be written counts as anonymous: what has been
/// changed of it is. Of the stack that `stack_pointer` is in, what is in use.
fn part(vma: &Vma, filter: u32, stack_pointer: u64) -> Option<Part> {
    /// What functions may use below the stack pointer (System V ABI for x86-64).
    const RED_ZONE: u64 = 128;
    let wants = |kind: u32| filter & kind != 0;
    let shared = vma.flags.contains(MapFlags::SHARED);
    let whole = match &vma.kind {
        VmaKind::Reserved("[vdso]") => true,
        VmaKind::Reserved(_) => return None,
        _ if !vma.prot.contains(Prot::READ) || vma.flags.contains(MapFlags::DONT_DUMP) => false,
        VmaKind::Anonymous | VmaKind::Heap | VmaKind::Stack => wants(ANONYMOUS_PRIVATE),
        VmaKind::Shared { .. } => wants(ANONYMOUS_SHARED),
        VmaKind::File { .. } if shared => wants(FILE_SHARED),
        VmaKind::File { .. } => wants(FILE_PRIVATE) || wants(ANONYMOUS_PRIVATE) && vma.prot.contains(Prot::WRITE),
    };
    let header = matches!(vma.kind, VmaKind::File { offset: 0, .. }) && !shared && vma.prot.contains(Prot::READ);
    let len = match whole {
        true => vma.len(),
        false if header && wants(ELF_HEADERS) => PAGE_SIZE,
        false => 0,
    };
    let used = (stack_pointer - RED_ZONE.min(stack_pointer)) & !(PAGE_SIZE - 1);
    if matches!(vma.kind, VmaKind::Stack) && whole && (vma.start..vma.end).contains(&used) {
        return Some(Part { vma: vma.slice(used, vma.end), len: vma.end - used });
    }
    Some(Part { vma: vma.clone(), len })
}

/// `p_flags` of a protection.
fn flags(prot: Prot) -> u32 {
    let pairs = [(Prot::EXEC, 1), (Prot::WRITE, 2), (Prot::READ, 4)];
    pairs.into_iter().filter(|(bit, _)| prot.contains(*bit)).fold(0, |all, (_, flag)| all | flag)
}

/// A new file, for its owner alone, in place of what had its name. So nobody is given the memory of another's process to
/// read, by a link or a file of his that lies there.
fn create(ctx: &Ctx, path: &[u8]) -> Result<Arc<File>> {
    // What cannot be removed is there when the file is made.
    let _ = ctx.kernel.vfs.unlink(ctx, AT_FDCWD, path);
    let how = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOFOLLOW | OpenFlags::LARGEFILE;
    ctx.kernel.vfs.open(ctx, AT_FDCWD, path, how, 0o600)
}

/// The ELF header of a core file with so many program headers.
fn file_header(segments: u16) -> Vec<u8> {
    const ET_CORE: u16 = 4;
    const EM_X86_64: u16 = 62;
    let mut h = Vec::with_capacity(HEADER_LEN as usize);
    h.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    h.extend_from_slice(&ET_CORE.to_le_bytes());
    h.extend_from_slice(&EM_X86_64.to_le_bytes());
    h.extend_from_slice(&1u32.to_le_bytes());
    // Entry, then where program and section headers are.
    for word in [0, HEADER_LEN, 0] {
        h.extend_from_slice(&word.to_le_bytes());
    }
    h.extend_from_slice(&0u32.to_le_bytes());
    for half in [HEADER_LEN as u16, SEGMENT_LEN as u16, segments, 0, 0, 0] {
        h.extend_from_slice(&half.to_le_bytes());
    }
    h
}

/// A program header; `sizes` are those in the file and in memory.
fn segment(kind: u32, flags: u32, offset: u64, addr: u64, sizes: (u64, u64), align: u64) -> Vec<u8> {
    let mut h = Vec::with_capacity(SEGMENT_LEN as usize);
    h.extend_from_slice(&kind.to_le_bytes());
    h.extend_from_slice(&flags.to_le_bytes());
    for word in [offset, addr, 0, sizes.0, sizes.1, align] {
        h.extend_from_slice(&word.to_le_bytes());
    }
    h
}

/// The file as it grows, up to `RLIMIT_CORE`.
struct Output<'a> {
    ctx: &'a Ctx<'a>,
    file: Arc<File>,
    at: u64,
    limit: u64,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let room = self.limit.saturating_sub(self.at).min(bytes.len() as u64) as usize;
        if room > 0 && self.file.pwrite(self.ctx, self.at, &mut KernelSrc::new(&bytes[..room]))? < room {
            return Err(Errno::ENOSPC.into());
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Copies memory; pages of zeros, and those that cannot be read, become holes.
    fn copy(&mut self, part: &Part) -> Result<()> {
        let space = self.ctx.mm()?;
        let mut buf = alloc::vec![0u8; CHUNK];
        let mut done = 0;
        while done < part.len && self.at < self.limit {
            // Someone killed it for good: then nobody wants to wait for its memory.
            if self.ctx.task.dying.load(Ordering::SeqCst) {
                return Err(Errno::EINTR.into());
            }
            let want = (part.len - done).min(CHUNK as u64) as usize;
            let got = self.ctx.kernel.platform.read_memory(space, part.vma.start + done, &mut buf[..want]);
            // What cannot be read is passed over by a page.
            let step = if got == 0 { want.min(PAGE_SIZE as usize) } else { got };
            if buf[..got].iter().any(|byte| *byte != 0) {
                self.put(&buf[..got])?;
            } else {
                self.at += got as u64;
            }
            self.at += (step - got) as u64;
            done += step as u64;
        }
        self.at += part.len - done;
        Ok(())
    }
}
