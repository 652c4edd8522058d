//! Loading programs: `execve(2)` up to the registers that the new program starts with.

pub mod elf;
mod script;
mod stack;

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{AddressSpace, KernelDst, MapFlags, PAGE_SIZE, Prot, SpaceInner, TASK_SIZE, Vma, VmaKind, page_up};
use crate::vfs::File;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use elf::{HEADER_LEN, Header, Program, Segment};
pub use script::{Image, find_program};
pub use stack::{MAX_ARG_STRLEN, StackPlan, at, check_size};

/// Bytes of a file that decide what it is (`BINPRM_BUF_SIZE`).
pub(crate) const HEAD_LEN: usize = 256;
/// Where position-independent programs go, before randomisation (`ELF_ET_DYN_BASE`).
const PIE_BASE: u64 = 0x5555_5555_4000;
/// Where the stack ends, before randomisation: below whatever the host keeps at the top.
const STACK_TOP: u64 = 0x7fe0_0000_0000;
/// Unmapped space between the stack's lowest address and what `mmap` places.
const STACK_GUARD: u64 = 1 << 20;

/// A program and its interpreter, opened and checked: from here on only memory can fail.
pub struct Loaded {
    program: Program,
    file: Arc<File>,
    interp: Option<(Program, Arc<File>)>,
}

/// Where a program was put.
pub struct Placed {
    /// First instruction: the interpreter's, if there is one.
    pub entry: u64,
    /// First instruction of the program itself.
    pub program_entry: u64,
    /// Where its program headers lie.
    pub phdr: u64,
    /// How many there are.
    pub phnum: u64,
    /// Where the interpreter lies; 0 without one.
    pub interp_base: u64,
    /// First address behind the program: where the heap may begin.
    pub end: u64,
    /// Lowest and highest text and data, for the heap's place.
    pub relocated: bool,
}

/// Reads from a file into a kernel buffer; returns the bytes read.
pub(crate) fn read_file(file: &File, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let n = file.inode.read_at(offset + done as u64, &mut KernelDst::new(&mut buf[done..]))?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}

fn read_program(file: &File, head: &[u8]) -> Result<Program> {
    let header = Header::parse(head)?;
    let mut phdrs = vec![0; header.phdrs_len()];
    let got = read_file(file, header.phoff, &mut phdrs)?;
    Program::parse(header, &phdrs[..got])
}

/// Opens and checks everything that running `file` needs.
pub fn load(ctx: &Ctx, file: Arc<File>, head: &[u8]) -> Result<Loaded> {
    let program = read_program(&file, head)?;
    let interp = match program.interp {
        None => None,
        Some((offset, len)) => {
            let mut path = vec![0; len as usize];
            if read_file(&file, offset, &mut path)? < path.len() || path.pop() != Some(0) {
                bail!(ENOEXEC, "the interpreter's path is cut off");
            }
            let interp = ctx.kernel.vfs.open_exec(ctx, &path)?;
            let mut head = [0; HEADER_LEN];
            let got = read_file(&interp, 0, &mut head)?;
            let bad_interp = |e: crate::Error| if e == Errno::ENOEXEC { Errno::ELIBBAD.into() } else { e };
            let loaded = read_program(&interp, &head[..got]).map_err(bad_interp)?;
            Some((loaded, interp))
        }
    };
    Ok(Loaded { program, file, interp })
}

fn random_pages(bits: u32) -> u64 {
    let mut bytes = [0; 8];
    crate::host::getrandom(&mut bytes);
    (u64::from_le_bytes(bytes) & ((1 << bits) - 1)) * PAGE_SIZE
}

impl Loaded {
    /// Maps the program into an empty address space: segments, interpreter, stack, heap.
    pub fn map(&self, ctx: &Ctx, space: &AddressSpace) -> Result<Placed> {
        let mut inner = space.inner.lock();
        let stack_len = ctx.task.process.limit(crate::mm::RLIMIT_STACK).clamp(PAGE_SIZE * 32, 1 << 30);
        let stack_len = page_up(stack_len).ok_or(Errno::ENOMEM)?;
        let stack_top = STACK_TOP - random_pages(18);
        let mut prot = Prot::READ | Prot::WRITE;
        prot.set(Prot::EXEC, self.program.exec_stack);
        let stack =
            Vma { start: stack_top - stack_len, end: stack_top, prot, flags: MapFlags::empty(), kind: VmaKind::Stack };
        inner.mmap_base = stack.start - STACK_GUARD - random_pages(18);
        inner.map(ctx, stack)?;
        inner.stack_start = stack_top;

        let (start, end) = self.program.extent()?;
        let wanted = place(ctx, &inner, &self.program, &self.file)?;
        let base = if !self.program.header.relocatable {
            0
        } else if let Some(base) = wanted {
            base
        } else if self.interp.is_some() {
            choose(&self.program, PIE_BASE + random_pages(18))?
        } else {
            // A static PIE, perhaps the dynamic loader itself: where mmap would put it, clear of what it loads.
            let below = inner.mmap_base;
            choose(&self.program, inner.find_free(end - start + self.program.alignment(), below)?)?
        };
        map_segments(ctx, &mut inner, &self.program, &self.file, base)?;
        let mut placed = Placed {
            entry: base.wrapping_add(self.program.header.entry),
            program_entry: base.wrapping_add(self.program.header.entry),
            phdr: self.program.phdr_vaddr().map_or(0, |a| base.wrapping_add(a)),
            phnum: self.program.header.phnum.into(),
            interp_base: 0,
            end: base.wrapping_add(end),
            relocated: base.wrapping_add(start) >= PIE_BASE,
        };
        if let Some((interp, file)) = &self.interp {
            let (start, end) = interp.extent()?;
            let base = if let Some(base) = place(ctx, &inner, interp, file)? {
                base
            } else if interp.header.relocatable {
                let below = inner.mmap_base;
                choose(interp, inner.find_free(end - start + interp.alignment(), below)?)?
            } else {
                0
            };
            map_segments(ctx, &mut inner, interp, file, base)?;
            placed.entry = base.wrapping_add(interp.header.entry);
            placed.interp_base = base.wrapping_add(start);
        }
        let apart = wanted.is_some() || self.program.header.relocatable && self.interp.is_none();
        let brk = if apart { PIE_BASE } else { placed.end };
        let brk = page_up(brk).ok_or(Errno::ENOMEM)? + random_pages(13);
        (inner.brk_start, inner.brk) = (brk, brk);
        Ok(placed)
    }
}

/// The relocation that puts a relocatable program where the platform wants it, if it does and the place is free.
fn place(ctx: &Ctx, inner: &SpaceInner, program: &Program, file: &Arc<File>) -> Result<Option<u64>> {
    if !program.header.relocatable {
        return Ok(None);
    }
    let (start, end) = program.extent()?;
    let span = end - start + program.alignment();
    let wanted = ctx.kernel.platform.place_text(file, span).filter(|&at| inner.is_free(at, at + span));
    wanted.map(|at| choose(program, at)).transpose()
}

/// Whether a file is a relocatable ELF file of this machine: a shared library, or a program that may lie anywhere.
pub(crate) fn is_relocatable(file: &File) -> bool {
    let mut head = [0; HEADER_LEN];
    let read = file.inode.read_at(0, &mut KernelDst::new(&mut head));
    read.is_ok_and(|n| Header::parse(&head[..n]).is_ok_and(|header| header.relocatable))
}

/// The relocation that puts a program at `at` or the next address that suits its alignment.
fn choose(program: &Program, at: u64) -> Result<u64> {
    let (start, _) = program.extent()?;
    let align = program.alignment();
    let at = at.checked_add(align - 1).ok_or(Errno::ENOMEM)? & !(align - 1);
    Ok(at.wrapping_sub(start & !(align - 1)))
}

fn map_segments(ctx: &Ctx, inner: &mut SpaceInner, program: &Program, file: &Arc<File>, base: u64) -> Result<()> {
    let (start, end) = program.extent()?;
    let (start, end) = (base.wrapping_add(start), base.wrapping_add(end));
    if start < crate::mm::MMAP_MIN || end <= start || end > TASK_SIZE {
        bail!(ENOMEM, "the program does not fit in memory");
    }
    program.segments.iter().try_for_each(|segment| map_segment(ctx, inner, segment, file, base))
}

fn map_segment(ctx: &Ctx, inner: &mut SpaceInner, s: &Segment, file: &Arc<File>, base: u64) -> Result<()> {
    let vaddr = base.wrapping_add(s.vaddr);
    let start = vaddr & !(PAGE_SIZE - 1);
    let within = vaddr - start;
    let file_end = vaddr + s.filesz;
    let file_pages_end = if s.filesz == 0 { start } else { page_up(file_end).ok_or(Errno::ENOMEM)? };
    let end = page_up(vaddr + s.memsz).ok_or(Errno::ENOMEM)?;
    if file_pages_end > start {
        let kind = VmaKind::File { file: file.clone(), offset: s.offset - within };
        inner.map(ctx, Vma { start, end: file_pages_end, prot: s.prot, flags: MapFlags::empty(), kind })?;
        if s.memsz > s.filesz && s.prot.contains(Prot::WRITE) && file_pages_end > file_end {
            let zeroes = vec![0; (file_pages_end - file_end) as usize];
            let space = ctx.mm()?;
            if ctx.kernel.platform.write_memory(space, file_end, &zeroes) < zeroes.len() {
                bail!(EFAULT, "the page behind a segment's data cannot be cleared");
            }
        }
    }
    if end > file_pages_end {
        let (flags, kind) = (MapFlags::empty(), VmaKind::Anonymous);
        inner.map(ctx, Vma { start: file_pages_end, end, prot: s.prot, flags, kind })?;
    }
    Ok(())
}

/// Arguments and environment of a new program.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    /// `argv`.
    pub args: Vec<Vec<u8>>,
    /// `envp`.
    pub env: Vec<Vec<u8>>,
}
