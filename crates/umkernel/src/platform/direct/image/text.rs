//! Program text with patched system calls.
//!
//! Natively a system call is one instruction, `syscall`; here it traps, at 2.4 us. At a site's first trap the nearest instruction
//! before it that is as long as a jump is replaced by one, to a *trampoline*: that does what the instructions from there on did and
//! jumps to the door. Only that one instruction changes, by one store where its place allows. So a thread that is anywhere in between, or jumps there, still does what
//! it should, if slowly, and a call that is restarted goes on at its `syscall`.
//!
//! Where there is no such instruction, the jump is written over the `syscall` itself and the beginning of what follows, which the
//! trampoline does instead. From the site's first trap on, every call from there returns into the trampoline, so that no thread comes
//! to the overwritten instructions, unless a jump leads there: then the site stays as it is. A call that is restarted goes on two bytes before
//! where it would have returned to, so a jump back to the beginning lies there.
//!
//! Patches live in one *copy* of a file's text, which all processes map instead of the file from then on: a site traps about
//! once in a machine. So that jumps to the trampolines fit every process, a file has its place in all of them: programs and
//! libraries that can be relocated lie in a *window* that begins with the trampolines, fixed ones are reached from low
//! trampolines. A file is known by its inode, size and times: one that changes is another.

use super::layout::{
    LOW_TRAMPOLINES, PATCHES_BASE, PATCHES_SIZE, TRAMPOLINES_SIZE, WINDOW_BASE, WINDOW_END, WINDOW_TRAMPOLINES,
};
use super::memory;
use super::trampoline::{JMP, JMP_LEN, Lead, SYSCALL, Tail, is_split};
use crate::errno::Result;
use crate::host;
use crate::kernel::Ctx;
use crate::mm::{AddressSpace, MapFlags, PAGE_SIZE, Prot, Vma, VmaKind};
use crate::platform::WaysIn;
use crate::sync::Mutex;
use crate::vfs::{File, Timestamp};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Files are apart by this much in the window.
const WINDOW_STEP: u64 = 0x1_0000;
/// A text longer than this stays as it is: its copy would take too long.
const LONGEST_TEXT: u64 = 256 << 20;

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
    /// It is patched: where the jump is, and where its calls return to if not behind the `syscall`.
    Patched { at: u64, back: Option<u64> },
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
    /// Calls that have trapped.
    traps: AtomicU64,
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
            traps: AtomicU64::new(0),
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

    /// Whether there is a copy of a VMA's text, which processes may have mapped.
    pub(super) fn has_copy(&self, vma: &Vma) -> bool {
        let Some(id) = text_of(vma).and_then(|file| FileId::of(file).ok()) else { return false };
        let overlaps = |c: &Copy| c.start < vma.end && vma.start < c.start + c.len;
        self.files.lock().get(&id).is_some_and(|text| text.copies.iter().any(overlaps))
    }

    /// Where a call that returns into a trampoline would have returned to; `rip` itself if it is no such place.
    pub(super) fn program_counter(&self, rip: u64) -> u64 {
        if ![IN_WINDOW, LOW].iter().any(|area| (area.base..area.base + TRAMPOLINES_SIZE).contains(&rip)) {
            return rip;
        }
        let files = self.files.lock();
        let mut sites = files.values().flat_map(|text| text.sites.iter());
        let behind = |site: &Site| matches!(site, Site::Patched { back: Some(back), .. } if *back == rip);
        sites.find(|(_, site)| behind(site)).map_or(rip, |(at, _)| at + SYSCALL.len() as u64)
    }

    fn map_copy(&self, vma: &Vma, copy: &Copy) -> Result<()> {
        let place = (self.file, copy.offset + (vma.start - copy.start));
        host::map_fixed(vma.start, vma.len(), vma.prot.bits(), Some(place), false)
    }

    /// How calls have come in.
    pub(super) fn ways_in(&self) -> WaysIn {
        let files = self.files.lock();
        let sites = || files.values().flat_map(|text| text.sites.values());
        let patched = sites().filter(|site| matches!(site, Site::Patched { .. })).count();
        let trapped = self.traps.load(Ordering::Relaxed);
        WaysIn { trapped, patched_sites: patched, other_sites: sites().count() - patched }
    }

    /// A call has trapped at `site`: patches it, so that the next one does not, if that can be done. Where the call returns to, if
    /// not behind its `syscall`.
    pub(super) fn trapped(&self, ctx: &Ctx, site: u64) -> Option<u64> {
        self.traps.fetch_add(1, Ordering::Relaxed);
        let area = Area::of(site)?;
        let space = ctx.mm().ok()?;
        if space.debugged.load(Ordering::Relaxed) {
            return None;
        }
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
        let known = text.sites.entry(site).or_insert_with(|| self.patch(&copy, site, area).unwrap_or(Site::Left));
        let Site::Patched { at, back } = *known else { return None };
        drop(files);
        // A process that does not get the copy traps again; nothing is lost but time.
        let _ = self.refresh(&space, at, &copy);
        back
    }

    fn patch(&self, copy: &Copy, site: u64, area: Area) -> Option<Site> {
        let offset = (site - copy.start) as usize;
        let lead = Lead::before(copy.text(), offset);
        if let Some(lead) = &lead
            && !lead.is_passed_by(copy.text(), offset)
            && let Some(patched) = self.patch_lead(copy, site, area, lead)
        {
            return Some(patched);
        }
        self.patch_site(copy, site, area).or_else(|| self.patch_lead(copy, site, area, &lead?))
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

    /// Patches an instruction before a site in a copy.
    fn patch_lead(&self, copy: &Copy, site: u64, area: Area, lead: &Lead) -> Option<Site> {
        let at = copy.start + lead.start as u64;
        let code = copy.text().get(lead.start..(site - copy.start) as usize)?;
        let (start, place) = self.reserve(area, lead.trampoline_size())?;
        let bytes = lead.trampoline(code, at, start, site, area.base)?;
        put(place, &bytes);
        self.write_jump(copy, at, start);
        Some(Site::Patched { at, back: None })
    }

    /// Patches a site itself and what follows it.
    fn patch_site(&self, copy: &Copy, site: u64, area: Area) -> Option<Site> {
        let offset = (site - copy.start) as usize;
        let tail = Tail::behind(copy.text(), offset)?;
        let (start, place) = self.reserve(area, tail.trampoline_size())?;
        let code = &copy.text()[tail.start..tail.start + tail.len];
        let (bytes, back) = tail.trampoline(code, copy.start + tail.start as u64, start, area.base)?;
        put(place, &bytes);
        self.write_jump(copy, site, start);
        Some(Site::Patched { at: site, back: Some(start + back as u64) })
    }

    /// Room for a trampoline: where it lies in processes, and where the kernel sees it.
    fn reserve(&self, area: Area, size: usize) -> Option<(u64, u64)> {
        let mut next = self.trampolines.lock();
        let offset = next[area.index];
        let end = offset + size.next_multiple_of(16) as u64;
        if end > TRAMPOLINES_SIZE {
            return None;
        }
        next[area.index] = end;
        Some((area.base + offset, area.seen() + offset))
    }

    fn write_jump(&self, copy: &Copy, at: u64, to: u64) {
        let mut jump = [0; JMP_LEN];
        jump[0] = JMP;
        jump[1..].copy_from_slice(&distance(at + JMP_LEN as u64, to).to_le_bytes());
        self.patching.store(at, Ordering::SeqCst);
        write_code(copy.seen(at), jump);
        self.patching.store(0, Ordering::SeqCst);
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

/// Writes a trampoline, to which no jump leads yet.
fn put(place: u64, bytes: &[u8]) {
    // SAFETY: the place was reserved for it.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place as *mut u8, bytes.len()) };
}

fn distance(from: u64, to: u64) -> i32 {
    to.wrapping_sub(from) as i64 as i32
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
