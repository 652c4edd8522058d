//! Program text with patched system calls.
//!
//! Natively a system call is one instruction, `syscall`; here it traps, at 2.4 us. At a site's first trap the nearest instruction
//! before it that is as long as a jump is replaced by one, to a *trampoline*: that does what the instructions from there on did and
//! jumps to the door. Only that one instruction changes, by one store where its place allows. So a thread that is anywhere in between, or jumps there, still does what
//! it should, if slowly, and a call that is restarted goes on at its `syscall`.
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
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use iced_x86::{Decoder, DecoderOptions, FlowControl};

/// Files are apart by this much in the window.
const WINDOW_STEP: u64 = 0x1_0000;
/// A text longer than this stays as it is: its copy would take too long.
const LONGEST_TEXT: u64 = 256 << 20;
/// `jmp rel32`.
const JMP: u8 = 0xe9;
/// Bytes of `jmp rel32`.
const JMP_LEN: usize = 5;
/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

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

    /// Its bytes. Patches change them under who looks, an instruction at a time.
    fn text(&self) -> &'static [u8] {
        // SAFETY: the copy's range of the patches' file is mapped there for good.
        unsafe { core::slice::from_raw_parts((PATCHES_BASE + self.offset) as *const u8, self.len as usize) }
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
    /// Sites that have trapped.
    sites: BTreeMap<u64, Site>,
}

/// What has become of a site.
#[derive(Clone, Copy)]
enum Site {
    /// It is patched: where the jump is.
    Patched(u64),
    /// It cannot be patched.
    Left,
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
        let Some(file) = text_of(vma) else { return Ok(false) };
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
    pub(super) fn trapped(&self, ctx: &Ctx, site: u64) {
        // A site that stays as it is traps again; nothing is lost but time.
        let _ = self.patch(ctx, site);
    }

    fn patch(&self, ctx: &Ctx, site: u64) -> Option<()> {
        let area = Area::of(site)?;
        let space = ctx.mm().ok()?;
        let vma = space.vma_at(site)?;
        let file = text_of(&vma)?;
        let id = FileId::of(file).ok()?;
        let mut files = self.files.lock();
        let text = files.entry(id).or_default();
        let copy = match text.copies.iter().find(|c| c.contains(vma.start, vma.end)) {
            Some(copy) => *copy,
            None => {
                let copy = self.copy(&vma)?;
                text.copies.push(copy);
                copy
            }
        };
        let known = text.sites.entry(site).or_insert_with(|| {
            Lead::before(copy.text(), (site - copy.start) as usize)
                .and_then(|lead| self.patch_copy(&copy, site, area, &lead))
                .map_or(Site::Left, Site::Patched)
        });
        let Site::Patched(at) = *known else { return None };
        drop(files);
        self.refresh(&space, at, &copy)
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

    /// Patches a site in a copy; where the jump is.
    fn patch_copy(&self, copy: &Copy, site: u64, area: Area, lead: &Lead) -> Option<u64> {
        let at = copy.start + lead.start as u64;
        let code = copy.text().get(lead.start..(site - copy.start) as usize)?;
        let trampoline = self.trampoline(area, site, at, code, lead)?;
        let mut jump = [0; JMP_LEN];
        jump[0] = JMP;
        jump[1..].copy_from_slice(&distance(at + JMP_LEN as u64, trampoline).to_le_bytes());
        self.patching.store(at, Ordering::SeqCst);
        write_code(copy.seen(at), jump);
        self.patching.store(0, Ordering::SeqCst);
        Some(at)
    }

    /// A trampoline: the instructions before a site, which begin at `from`, `lea site + 2, %rcx`, `jmp *door`.
    fn trampoline(&self, area: Area, site: u64, from: u64, code: &[u8], lead: &Lead) -> Option<u64> {
        let size = lead.trampoline_size().next_multiple_of(16);
        let mut next = self.trampolines.lock();
        let offset = next[area.index];
        if offset + size as u64 > TRAMPOLINES_SIZE {
            return None;
        }
        next[area.index] += size as u64;
        drop(next);
        let start = area.base + offset;
        let bytes = lead.trampoline(code, from, start, site, area.base)?;
        // SAFETY: the place was just taken, and no jump leads there yet.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), (area.seen() + offset) as *mut u8, bytes.len()) };
        Some(start)
    }

    /// Has the running process map the copy around a patch, if it does not yet.
    fn refresh(&self, space: &AddressSpace, at: u64, copy: &Copy) -> Option<()> {
        let mut mapped = [0; JMP_LEN];
        let patched = copy.text().get((at - copy.start) as usize..)?.get(..JMP_LEN)?;
        if memory::read(at, &mut mapped) == JMP_LEN && mapped == *patched {
            return Some(());
        }
        let inner = space.inner.lock();
        let vma = inner.vma_at(at).filter(|vma| copy.contains(vma.start, vma.end) && text_of(vma).is_some())?;
        self.map_copy(vma, copy).ok()
    }
}

fn distance(from: u64, to: u64) -> i32 {
    to.wrapping_sub(from) as i64 as i32
}

/// The instructions before a call that a trampoline takes over.
struct Lead {
    /// Where they begin: with one that is at least as long as a jump.
    start: usize,
    pieces: Vec<Piece>,
}

/// One instruction of a [`Lead`]; offsets are from the lead's start.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// It does the same wherever it lies.
    Plain { from: usize, to: usize },
    /// It has a distance from its end, in the four bytes at `field`.
    Relative { from: usize, to: usize, field: usize },
    /// It jumps to `target` on condition `condition` (the low half of its operation code).
    Branch { condition: u8, target: i64 },
}

impl Piece {
    /// Its bytes in a trampoline.
    fn len(&self) -> usize {
        match self {
            Piece::Plain { from, to } | Piece::Relative { from, to, .. } => to - from,
            Piece::Branch { .. } => NEAR_BRANCH_LEN,
        }
    }
}

/// `jcc rel32`.
const NEAR_BRANCH_LEN: usize = 6;
/// `lea rel32(%rip), %rcx`.
const LEA_RCX: [u8; 3] = [0x48, 0x8d, 0x0d];
/// `jmp *rel32(%rip)`.
const JMP_INDIRECT: [u8; 2] = [0xff, 0x25];
/// Bytes of a field with a distance.
const DISTANCE_LEN: usize = 4;

impl Lead {
    /// Decodes the code before `site`. Code is read from the front, and where an instruction begins shows only by reading from
    /// far enough before, where wrong guesses have met the right sequence; so several guesses must agree.
    fn before(text: &[u8], site: usize) -> Option<Lead> {
        const FARTHEST: usize = 160;
        const GUESSES: usize = 16;
        /// Guesses that must agree; those that end up beside the site were wrong.
        const ENOUGH: usize = 8;
        if text.get(site..site + 2)? != SYSCALL {
            return None;
        }
        let mut found: Option<(usize, usize)> = None;
        for guess in 0..GUESSES.min(site) {
            let begin = site.saturating_sub(FARTHEST) + guess;
            let Some(start) = long_instruction(&text[begin..site], begin) else { continue };
            match &mut found {
                None => found = Some((start, 1)),
                Some((same, times)) if *same == start => *times += 1,
                Some(_) => return None,
            }
        }
        let (start, _) = found.filter(|&(_, times)| times >= ENOUGH)?;
        Lead::at(&text[start..site], start)
    }

    /// See [`is_split`].
    #[cfg(test)]
    fn is_split(&self) -> bool {
        is_split(self.start)
    }

    fn at(code: &[u8], start: usize) -> Option<Lead> {
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let mut pieces = Vec::new();
        while decoder.can_decode() {
            let from = decoder.position();
            let instruction = decoder.decode();
            let to = decoder.position();
            pieces.push(if instruction.flow_control() == FlowControl::ConditionalBranch {
                let condition = condition(&code[from..to])?;
                Piece::Branch { condition, target: instruction.near_branch_target() as i64 }
            } else if instruction.is_ip_rel_memory_operand() {
                let offsets = decoder.get_constant_offsets(&instruction);
                if offsets.displacement_size() != DISTANCE_LEN {
                    return None;
                }
                Piece::Relative { from, to, field: from + offsets.displacement_offset() }
            } else {
                Piece::Plain { from, to }
            });
        }
        Some(Lead { start, pieces })
    }

    fn trampoline_size(&self) -> usize {
        let leads = self.pieces.iter().map(Piece::len).sum::<usize>();
        leads + LEA_RCX.len() + JMP_INDIRECT.len() + 2 * DISTANCE_LEN
    }

    /// The trampoline's code at `start`, for a lead with this `code` at `from` and a site; the door's address is kept at `door`.
    fn trampoline(&self, code: &[u8], from: u64, start: u64, site: u64, door: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.trampoline_size());
        // What an instruction refers to stays where it is.
        let refer = |bytes: &mut Vec<u8>, field: usize, end: usize, target: u64| {
            let distance = i32::try_from(target.wrapping_sub(start + end as u64) as i64).ok()?;
            bytes[field..field + DISTANCE_LEN].copy_from_slice(&distance.to_le_bytes());
            Some(())
        };
        let append = |bytes: &mut Vec<u8>, operation: &[u8], target: u64| {
            bytes.extend_from_slice(operation);
            let field = bytes.len();
            bytes.extend_from_slice(&[0; DISTANCE_LEN]);
            refer(bytes, field, field + DISTANCE_LEN, target)
        };
        for piece in &self.pieces {
            match *piece {
                Piece::Plain { from, to } => bytes.extend_from_slice(&code[from..to]),
                Piece::Relative { from: first, to, field } => {
                    let old = i32::from_le_bytes(core::array::from_fn(|i| code[field + i]));
                    let target = (from + to as u64).wrapping_add_signed(old.into());
                    let at = bytes.len() + (field - first);
                    bytes.extend_from_slice(&code[first..to]);
                    let end = bytes.len();
                    refer(&mut bytes, at, end, target)?;
                }
                Piece::Branch { condition, target } => {
                    append(&mut bytes, &[0x0f, 0x80 | condition], from.wrapping_add_signed(target))?;
                }
            }
        }
        append(&mut bytes, &LEA_RCX, site + SYSCALL.len() as u64)?;
        append(&mut bytes, &JMP_INDIRECT, door)?;
        Some(bytes)
    }
}

/// The condition of a conditional jump, the low half of its operation code; `None` for `loop` and the like, which only come short.
fn condition(code: &[u8]) -> Option<u8> {
    match *code {
        [short @ 0x70..=0x7f, _] => Some(short & 15),
        [0x0f, near @ 0x80..=0x8f, _, _, _, _] => Some(near & 15),
        _ => None,
    }
}

/// Whether a jump at this offset of a text would lie in two words, which no one store writes.
fn is_split(at: usize) -> bool {
    at % 8 + JMP_LEN > 8
}

/// Where the last instruction begins that is as long as a jump and from which control flows to the end of `code`, which begins
/// at `begin`, unless a conditional jump leads away; one that can be replaced by one store before any other. `None` if there is none,
/// or the code does not end with an instruction.
fn long_instruction(code: &[u8], begin: usize) -> Option<usize> {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let (mut whole, mut split) = (None, None);
    while decoder.can_decode() {
        let at = begin + decoder.position();
        let instruction = decoder.decode();
        // An instruction that is cut off by the end is invalid.
        let goes_on = match instruction.flow_control() {
            FlowControl::Next => true,
            FlowControl::ConditionalBranch => condition(&code[at - begin..decoder.position()]).is_some(),
            _ => false,
        };
        if instruction.is_invalid() || !goes_on {
            (whole, split) = (None, None);
        } else if instruction.len() >= JMP_LEN {
            *(if is_split(at) { &mut split } else { &mut whole }) = Some(at);
        }
    }
    whole.or(split)
}

/// Writes a jump over an instruction of at least its length that other processors may be executing.
fn write_code(at: u64, code: [u8; 5]) {
    if !is_split(at as usize) {
        let word = at & !7;
        let within = (at - word) as usize;
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
        // Every processor that runs a guest was interrupted, and the return from an interrupt drops what had been fetched ahead
        // (`IRET` is a serialising instruction); one that runs a guest only later has loaded its page table, which does the same.
        let _ = host::membarrier();
        for (i, byte) in code.iter().enumerate().skip(1) {
            core::ptr::write_volatile((at + i as u64) as *mut u8, *byte);
        }
        let _ = host::membarrier();
        core::ptr::write_volatile(at as *mut u8, code[0]);
    }
}

/// The file behind a VMA that is text: a file's, private, executable and not writable.
fn text_of(vma: &Vma) -> Option<&File> {
    let is_text = vma.prot.contains(Prot::READ | Prot::EXEC) && !vma.prot.contains(Prot::WRITE);
    match &vma.kind {
        VmaKind::File { file, .. } if is_text && !vma.flags.contains(MapFlags::SHARED) => Some(file),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOV_EAX: [u8; 5] = [0xb8, 3, 0, 0, 0];
    const MOV_ESI: [u8; 5] = [0xbe, 1, 0, 0, 0];
    const LEA_RDI: [u8; 7] = [0x48, 0x8d, 0x3d, 0x10, 0, 0, 0];

    /// Where the lead of the call at the end of `code` begins, behind 64 bytes of no operation.
    fn lead(code: &[&[u8]]) -> Option<Lead> {
        let text = [&[0x90; 64][..], &code.concat(), &SYSCALL].concat();
        Lead::before(&text, text.len() - SYSCALL.len())
    }

    #[test]
    fn a_jump_replaces_one_instruction_that_leads_to_the_call() {
        assert_eq!(lead(&[&MOV_EAX]).map(|l| (l.start, l.is_split())), Some((64, false)));
        // The nearer one would take two stores.
        assert_eq!(lead(&[&MOV_ESI, &MOV_EAX]).map(|l| l.start), Some(64));
        assert_eq!(lead(&[&[0x90; 3], &MOV_EAX, &[0x90]]).map(|l| (l.start, l.is_split())), Some((67, false)));
        assert_eq!(lead(&[&[0x90; 5], &MOV_EAX]).map(|l| (l.start, l.is_split())), Some((69, true)));
        // mov %r8, %rax is too short, and what is before a jump does not lead here.
        assert!(lead(&[&[0x4c, 0x89, 0xc0]]).is_none());
        assert!(lead(&[&MOV_EAX, &[0xeb, 0]]).is_none());
        assert!(Lead::before(&[0x90; 128], 100).is_none(), "no call there");
    }

    #[test]
    fn what_refers_to_its_own_place_is_found() {
        let Some(lead) = lead(&[&LEA_RDI, &[0x90], &MOV_EAX]) else { panic!() };
        assert_eq!((lead.start, lead.pieces), (72, alloc::vec![Piece::Plain { from: 0, to: 5 }]));
        let Some(lead) = self::lead(&[&LEA_RDI, &[0x31, 0xc0]]) else { panic!() };
        let pieces = alloc::vec![Piece::Relative { from: 0, to: 7, field: 3 }, Piece::Plain { from: 7, to: 9 }];
        assert_eq!((lead.start, lead.pieces), (64, pieces));
    }

    /// glibc's `read`: `cmpb $0, single_threaded(%rip)`, `je`, `xor %eax, %eax`, `syscall`.
    #[test]
    fn a_conditional_jump_leads_where_it_did() {
        const CMPB: [u8; 7] = [0x80, 0x3d, 0x20, 0, 0, 0, 0];
        let code = [&CMPB[..], &[0x74, 0x17], &[0x31, 0xc0]].concat();
        let Some(lead) = lead(&[&code]) else { panic!() };
        assert_eq!((lead.start, &lead.pieces[1]), (64, &Piece::Branch { condition: 4, target: 0x20 }));
        let (from, start, door) = (0x1000_u64, 0x10_0000_u64, 0x20_0000_u64);
        let site = from + code.len() as u64;
        let Some(bytes) = lead.trampoline(&code, from, start, site, door) else { panic!() };
        assert_eq!(bytes.len(), lead.trampoline_size());
        let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
        let decoded: Vec<_> = (0..5).map(|_| decoder.decode()).collect();
        assert!(!decoder.can_decode());
        assert_eq!(decoded[0].ip_rel_memory_address(), from + 7 + 0x20);
        assert_eq!(decoded[1].near_branch_target(), from + 9 + 0x17);
        assert_eq!(decoded[3].ip_rel_memory_address(), site + 2);
        assert_eq!(decoded[4].ip_rel_memory_address(), door);
        assert!(lead.trampoline(&code, from, 1 << 40, site, door).is_none(), "out of reach");
    }
}
