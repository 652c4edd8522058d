//! Program text with patched system calls.
//!
//! Natively a system call is one instruction, `syscall`; here it traps, at 2.4 us. At a site's first trap the instruction before
//! it is replaced by a jump to a *trampoline*, which does what the instruction did and jumps to the door; the `syscall` stays where
//! it is, so what jumps right to it still works, if slowly, and a call that is restarted goes on there.
//!
//! Patches live in one *copy* of a file's text, which all processes map instead of the file from then on: a site traps about
//! once in a machine. So that jumps to the trampolines fit every process, a file has its place in all of them: programs and
//! libraries that can be relocated lie in a *window* that begins with the trampolines, fixed ones are reached from low
//! trampolines. A file is known by its inode, size and times: one that changes is another.

use super::layout::{
    LOW_TRAMPOLINES, PATCHES_BASE, PATCHES_SIZE, TRAMPOLINES_SIZE, WINDOW_BASE, WINDOW_END, WINDOW_TRAMPOLINES,
};
use super::memory;
use crate::errno::Result;
use crate::host;
use crate::kernel::Ctx;
use crate::mm::{AddressSpace, MapFlags, PAGE_SIZE, Prot, Vma, VmaKind};
use crate::sync::Mutex;
use crate::vfs::{File, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Files are apart by this much in the window.
const WINDOW_STEP: u64 = 0x1_0000;
/// A text longer than this stays as it is: its copy would take too long.
const LONGEST_TEXT: u64 = 256 << 20;
/// The highest call number that code loads as a constant.
const HIGHEST_CALL: u32 = 600;
/// `mov $imm32, %eax`.
const MOV_EAX: u8 = 0xb8;
/// `jmp rel32`.
const JMP: u8 = 0xe9;
/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Bytes of `mov $imm32, %eax` and of `jmp rel32`.
const PATCH: u64 = 5;

/// A file's content, as long as it is the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FileId {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl FileId {
    fn of(file: &File) -> Result<FileId> {
        let time = |t: Timestamp| (t.sec, t.nsec);
        let attr = file.inode.attr()?;
        Ok(FileId { dev: attr.dev, ino: attr.ino, size: attr.size, mtime: time(attr.mtime), ctime: time(attr.ctime) })
    }
}

/// A copy of a range of text.
#[derive(Clone, Copy)]
struct Copy {
    /// Where the text lies in every process.
    start: u64,
    len: u64,
    /// Where the copy lies in the patches' file.
    offset: u64,
}

impl Copy {
    fn contains(&self, start: u64, end: u64) -> bool {
        self.start <= start && end <= self.start + self.len
    }

    /// Where the kernel sees the byte that lies at `addr` in processes.
    fn seen(&self, addr: u64) -> u64 {
        PATCHES_BASE + self.offset + (addr - self.start)
    }
}

#[derive(Default)]
struct TextFile {
    /// Where a relocatable file lies; 0 if it is not relocatable or has no place.
    base: u64,
    copies: Vec<Copy>,
    /// Sites that cannot be patched.
    left: BTreeSet<u64>,
}

/// Counts for who looks at the platform.
#[derive(Default)]
pub(super) struct Counts {
    /// Calls that trapped.
    pub(super) trapped: AtomicU64,
    /// Sites patched.
    pub(super) patched: AtomicU64,
    /// Sites that cannot be.
    pub(super) left: AtomicU64,
}

/// All texts of the machine.
pub(super) struct Texts {
    files: Mutex<BTreeMap<FileId, TextFile>>,
    /// Next free place in the window.
    window: AtomicU64,
    /// Next free byte of the patches' file.
    fresh: AtomicU64,
    /// Next free byte of each trampoline area, from its beginning.
    trampolines: Mutex<[u64; 2]>,
    /// The patches' host file.
    file: i32,
    /// Where an instruction is being replaced by way of a breakpoint, or 0.
    patching: AtomicU64,
    pub(super) counts: Counts,
}

/// Which trampolines a site uses.
#[derive(Clone, Copy)]
struct Area {
    index: usize,
    /// Where it lies in processes.
    base: u64,
}

const IN_WINDOW: Area = Area { index: 0, base: WINDOW_TRAMPOLINES };
const LOW: Area = Area { index: 1, base: LOW_TRAMPOLINES };

impl Area {
    fn of(site: u64) -> Option<Area> {
        match site {
            _ if (WINDOW_BASE..WINDOW_END).contains(&site) => Some(IN_WINDOW),
            _ if site < 1 << 30 => Some(LOW),
            _ => None,
        }
    }

    /// Where the kernel sees it: the patches' file begins with the areas.
    fn seen(self) -> u64 {
        PATCHES_BASE + self.index as u64 * TRAMPOLINES_SIZE
    }
}

impl Texts {
    /// No texts yet; `file` is the patches' host file, mapped at [`PATCHES_BASE`].
    pub(super) fn new(file: i32) -> Texts {
        for area in [IN_WINDOW, LOW] {
            // Each area begins with the door's address, which its jumps read.
            // SAFETY: the patches' file is mapped there and nobody else uses it yet.
            unsafe { *(area.seen() as *mut u64) = super::entry::at::entry() };
        }
        Texts {
            files: Mutex::default(),
            window: AtomicU64::new(WINDOW_TRAMPOLINES + TRAMPOLINES_SIZE),
            fresh: AtomicU64::new(2 * TRAMPOLINES_SIZE),
            trampolines: Mutex::new([64, 64]),
            file,
            patching: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    /// Where an instruction is being replaced by way of a breakpoint; 0 for nowhere.
    pub(super) fn patching(&self) -> u64 {
        self.patching.load(Ordering::SeqCst)
    }

    /// Where a relocatable program or library of `span` bytes belongs; `None` if it may lie anywhere.
    pub(super) fn place(&self, file: &File, span: u64) -> Option<u64> {
        let id = FileId::of(file).ok()?;
        let mut files = self.files.lock();
        let text = files.entry(id).or_default();
        if text.base == 0 {
            let room = span.next_multiple_of(WINDOW_STEP) + WINDOW_STEP;
            let base = self.window.fetch_add(room, Ordering::Relaxed);
            if base.saturating_add(room) > WINDOW_END {
                self.window.fetch_sub(room, Ordering::Relaxed);
                return None;
            }
            text.base = base;
        }
        Some(text.base)
    }

    /// Maps the copy of a VMA's text, if there is one for that place. True if it did.
    pub(super) fn map(&self, vma: &Vma) -> Result<bool> {
        let Some((file, _)) = text_of(vma) else { return Ok(false) };
        let id = FileId::of(file)?;
        let files = self.files.lock();
        let copy = files.get(&id).and_then(|text| text.copies.iter().find(|c| c.contains(vma.start, vma.end)));
        let Some(copy) = copy.copied() else { return Ok(false) };
        drop(files);
        self.map_copy(vma, &copy)?;
        Ok(true)
    }

    fn map_copy(&self, vma: &Vma, copy: &Copy) -> Result<()> {
        let place = (self.file, copy.offset + (vma.start - copy.start));
        host::map_fixed(vma.start, vma.len(), vma.prot.bits(), Some(place), false)
    }

    /// A call has trapped at `site`: patches it, so that the next one does not, if that can be done.
    pub(super) fn trapped(&self, ctx: &Ctx, site: u64, nr: u64) {
        self.counts.trapped.fetch_add(1, Ordering::Relaxed);
        // A site that stays as it is traps again; nothing is lost but time.
        let _ = self.patch(ctx, site, nr);
    }

    fn patch(&self, ctx: &Ctx, site: u64, nr: u64) -> Option<()> {
        let area = Area::of(site)?;
        let space = ctx.mm().ok()?;
        let vma = space.vma_at(site)?;
        let (file, _) = text_of(&vma)?;
        let id = FileId::of(file).ok()?;
        let mut files = self.files.lock();
        let text = files.entry(id).or_default();
        if text.left.contains(&site) {
            return None;
        }
        let copy = match text.copies.iter().find(|c| c.contains(vma.start, vma.end)) {
            Some(copy) => *copy,
            None => {
                let copy = self.copy(&vma)?;
                text.copies.push(copy);
                copy
            }
        };
        if site < copy.start + PATCH || self.patch_copy(&copy, site, nr, area).is_none() {
            self.counts.left.fetch_add(1, Ordering::Relaxed);
            text.left.insert(site);
            return None;
        }
        drop(files);
        self.refresh(&space, site, &copy)
    }

    /// Copies a VMA's text. Nobody maps the copy yet.
    fn copy(&self, vma: &Vma) -> Option<Copy> {
        if vma.len() > LONGEST_TEXT {
            return None;
        }
        let offset = self.fresh.fetch_add(vma.len(), Ordering::Relaxed);
        if offset + vma.len() > PATCHES_SIZE {
            self.fresh.fetch_sub(vma.len(), Ordering::Relaxed);
            return None;
        }
        let copy = Copy { start: vma.start, len: vma.len(), offset };
        // SAFETY: the range of the patches' file was just taken and is mapped there.
        let bytes = unsafe { core::slice::from_raw_parts_mut(copy.seen(vma.start) as *mut u8, vma.len() as usize) };
        let copied = memory::read(vma.start, bytes) as u64;
        // Pages behind the file's end cannot be read; they hold no code.
        (copied + PAGE_SIZE > vma.len()).then_some(copy)
    }

    /// Patches a site in a copy, unless it is already.
    fn patch_copy(&self, copy: &Copy, site: u64, nr: u64, area: Area) -> Option<()> {
        let at = copy.seen(site - PATCH);
        // SAFETY: within the copy; other processors may be executing it, but only this code, under the lock, writes it.
        let bytes: [u8; 7] = unsafe { core::ptr::read_volatile(at as *const [u8; 7]) };
        if bytes[5..] != SYSCALL {
            return None;
        }
        if bytes[0] == JMP {
            return Some(());
        }
        let number = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        if bytes[0] != MOV_EAX || u64::from(number) != nr || number > HIGHEST_CALL {
            return None;
        }
        let trampoline = self.trampoline(area, site, number)?;
        let distance = trampoline.wrapping_sub(site) as i64 as i32;
        let mut jump = [0; 5];
        jump[0] = JMP;
        jump[1..].copy_from_slice(&distance.to_le_bytes());
        self.patching.store(site - PATCH, Ordering::SeqCst);
        write_code(at, jump);
        self.patching.store(0, Ordering::SeqCst);
        self.counts.patched.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    /// A trampoline: `mov $nr, %eax; lea site + 2, %rcx; jmp *door`.
    fn trampoline(&self, area: Area, site: u64, nr: u32) -> Option<u64> {
        const SIZE: u64 = 32;
        let mut next = self.trampolines.lock();
        let offset = next[area.index];
        if offset + SIZE > TRAMPOLINES_SIZE {
            return None;
        }
        next[area.index] += SIZE;
        drop(next);
        let start = area.base + offset;
        let mut code = [0xcc; SIZE as usize];
        code[0] = MOV_EAX;
        code[1..5].copy_from_slice(&nr.to_le_bytes());
        code[5..8].copy_from_slice(&[0x48, 0x8d, 0x0d]);
        let back = (site + 2).wrapping_sub(start + 12) as i64 as i32;
        code[8..12].copy_from_slice(&back.to_le_bytes());
        code[12..14].copy_from_slice(&[0xff, 0x25]);
        let door = area.base.wrapping_sub(start + 18) as i64 as i32;
        code[14..18].copy_from_slice(&door.to_le_bytes());
        // SAFETY: the place was just taken, and no jump leads there yet.
        unsafe { core::ptr::write((area.seen() + offset) as *mut [u8; SIZE as usize], code) };
        Some(start)
    }

    /// Has the running process map the copy around a site, if it does not yet.
    fn refresh(&self, space: &AddressSpace, site: u64, copy: &Copy) -> Option<()> {
        let mut mapped = [0];
        // SAFETY: within the copy.
        let patched = unsafe { core::ptr::read_volatile(copy.seen(site - PATCH) as *const u8) };
        if memory::read(site - PATCH, &mut mapped) == 1 && mapped[0] == patched {
            return Some(());
        }
        let inner = space.inner.lock();
        let vma = inner.vma_at(site).filter(|vma| copy.contains(vma.start, vma.end) && text_of(vma).is_some())?;
        self.map_copy(vma, copy).ok()
    }
}

/// Writes a jump over an instruction of the same length that other processors may be executing.
fn write_code(at: u64, code: [u8; 5]) {
    let word = at & !7;
    let within = (at - word) as usize;
    if within + code.len() <= 8 {
        // SAFETY: within the copy; one store, which no processor sees half of.
        unsafe {
            let mut bytes = core::ptr::read_volatile(word as *const u64).to_le_bytes();
            bytes[within..within + code.len()].copy_from_slice(&code);
            core::ptr::write_volatile(word as *mut u64, u64::from_le_bytes(bytes));
        }
        return;
    }
    // SAFETY: as above. A breakpoint first, at which others wait; then the rest; then the first byte.
    unsafe {
        core::ptr::write_volatile(at as *mut u8, super::signal::BREAKPOINT);
        // Every processor has gone through the host's scheduler, which drops what it had fetched ahead.
        let _ = host::membarrier();
        for (i, byte) in code.iter().enumerate().skip(1) {
            core::ptr::write_volatile((at + i as u64) as *mut u8, *byte);
        }
        let _ = host::membarrier();
        core::ptr::write_volatile(at as *mut u8, code[0]);
    }
}

/// The file and offset behind a VMA that is text: a file's, private, executable and not writable.
fn text_of(vma: &Vma) -> Option<(&File, u64)> {
    let readable = vma.prot.contains(Prot::READ | Prot::EXEC) && !vma.prot.contains(Prot::WRITE);
    match &vma.kind {
        VmaKind::File { file, offset } if readable && !vma.flags.contains(MapFlags::SHARED) => Some((file, *offset)),
        _ => None,
    }
}
