//! `mmap(2)`: choosing an address, checking rights, and telling the host what lies behind a VMA.

use super::space::MMAP_MIN;
use super::{AddressSpace, MapFlags, PAGE_SIZE, Prot, SharedMemory, TASK_SIZE, Vma, VmaKind, page_up};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::loader;
use crate::platform::Backing;
use crate::vfs::{File, FileType, InodeFlags, InodeRef};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Flags of `mmap(2)`.
pub mod flags {
    #![allow(missing_docs, reason = "the flags' names are those of mmap(2)")]
    pub const SHARED: u64 = 1;
    pub const PRIVATE: u64 = 2;
    pub const SHARED_VALIDATE: u64 = 3;
    pub const TYPE: u64 = 0xf;
    pub const FIXED: u64 = 0x10;
    pub const ANONYMOUS: u64 = 0x20;
    pub const BIT32: u64 = 0x40;
    pub const ABOVE4G: u64 = 0x80;
    pub const GROWSDOWN: u64 = 0x100;
    pub const DENYWRITE: u64 = 0x800;
    pub const EXECUTABLE: u64 = 0x1000;
    pub const LOCKED: u64 = 0x2000;
    pub const NORESERVE: u64 = 0x4000;
    pub const POPULATE: u64 = 0x8000;
    pub const NONBLOCK: u64 = 0x10000;
    pub const STACK: u64 = 0x20000;
    pub const HUGETLB: u64 = 0x40000;
    pub const HUGE_SIZES: u64 = 0x3f << 26;
    pub const FIXED_NOREPLACE: u64 = 0x100000;
    /// What every kernel has taken without a word; `SHARED_VALIDATE` refuses all else that it does not know.
    pub const LEGACY: u64 = TYPE
        | FIXED
        | ANONYMOUS
        | BIT32
        | ABOVE4G
        | GROWSDOWN
        | DENYWRITE
        | EXECUTABLE
        | LOCKED
        | NORESERVE
        | POPULATE
        | NONBLOCK
        | STACK
        | HUGETLB
        | HUGE_SIZES;
}

/// Device number of `/dev/zero`.
const DEV_ZERO: u64 = 1 << 8 | 5;

/// What `mmap(2)` was asked.
pub struct MapRequest {
    /// Address, a wish unless `FIXED`.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// [`flags`].
    pub flags: u64,
    /// The file, unless anonymous.
    pub file: Option<Arc<File>>,
    /// Byte offset in it.
    pub offset: u64,
}

impl AddressSpace {
    /// `mmap(2)`; returns the address.
    pub fn mmap(&self, ctx: &Ctx, request: MapRequest) -> Result<u64> {
        let MapRequest { addr, prot, flags: f, file, offset, .. } = request;
        if request.len == 0 {
            bail!(EINVAL, "length is zero");
        }
        let len = page_up(request.len).filter(|&l| l <= TASK_SIZE).ok_or(Errno::ENOMEM)?;
        if !offset.is_multiple_of(PAGE_SIZE) {
            bail!(EINVAL, "offset is not a multiple of the page size");
        }
        offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
        if f & flags::HUGETLB != 0 {
            bail!(ENOMEM, "no huge pages are reserved");
        }
        let shared = match f & flags::TYPE {
            flags::SHARED => true,
            flags::SHARED_VALIDATE if file.is_some() => {
                if f & !flags::LEGACY != 0 {
                    bail!(EOPNOTSUPP, "unknown flags with MAP_SHARED_VALIDATE");
                }
                true
            }
            flags::PRIVATE => false,
            _ => bail!(EINVAL, "neither MAP_SHARED nor MAP_PRIVATE"),
        };
        let counts =
            if file.is_some() { !shared && prot.contains(Prot::WRITE) } else { shared || prot.contains(Prot::WRITE) };
        if counts && f & flags::NORESERVE == 0 && len > ctx.kernel.config.memory {
            bail!(ENOMEM, "more than the machine has");
        }
        let mut map_flags = MapFlags::empty();
        if let Some(file) = &file {
            map_flags.set(MapFlags::NEVER_WRITABLE, shared && !file.flags().writable());
            map_flags.set(MapFlags::NEVER_EXECUTABLE, file.location.mount.no_exec());
        }
        let kind = match file {
            Some(file) => file_kind(ctx, file, offset, len, prot, shared)?,
            None if shared => VmaKind::Shared { memory: Arc::new(SharedMemory::new(len)?), offset: 0 },
            None => VmaKind::Anonymous,
        };
        map_flags.set(MapFlags::SHARED, shared);
        map_flags.set(MapFlags::GROWS_DOWN, f & flags::GROWSDOWN != 0);

        let mut inner = self.inner.lock();
        if f & flags::LOCKED != 0 || inner.lock_future {
            inner
                .check_lock_limit(ctx, len)
                .map_err(|e| if e.errno == Errno::ENOMEM { Errno::EAGAIN.into() } else { e })?;
            map_flags.insert(MapFlags::LOCKED);
        }
        let fixed = f & (flags::FIXED | flags::FIXED_NOREPLACE) != 0;
        let start = if fixed {
            if !addr.is_multiple_of(PAGE_SIZE) {
                bail!(EINVAL, "address is not a multiple of the page size");
            }
            let end = addr.checked_add(len).filter(|&end| end <= TASK_SIZE).ok_or(Errno::ENOMEM)?;
            if addr < MMAP_MIN {
                bail!(EPERM, "below vm.mmap_min_addr");
            }
            if f & flags::FIXED_NOREPLACE != 0 && !inner.is_free(addr, end) {
                bail!(EEXIST);
            }
            addr
        } else {
            let wish = addr & !(PAGE_SIZE - 1);
            let wish = if wish == 0 { text_place(ctx, &kind, shared, len).unwrap_or(0) } else { wish };
            let fits = wish >= MMAP_MIN && wish.checked_add(len).is_some_and(|end| end <= TASK_SIZE);
            if fits && inner.is_free(wish, wish + len) {
                wish
            } else {
                let below = if f & flags::BIT32 != 0 { 0x8000_0000 } else { inner.mmap_base };
                let found = inner.find_free(len, below)?;
                if f & flags::BIT32 != 0 && found + len > 0x8000_0000 {
                    bail!(ENOMEM);
                }
                found
            }
        };
        let replaced: u64 =
            inner.overlapping(start, start + len).iter().map(|v| v.slice(start, start + len).len()).sum();
        if (inner.total() - replaced).saturating_add(len) > ctx.task.process.limit(super::RLIMIT_AS) {
            bail!(ENOMEM, "RLIMIT_AS");
        }
        inner.map(ctx, Vma { start, end: start + len, prot, flags: map_flags, kind })?;
        if f & flags::POPULATE != 0 && f & flags::NONBLOCK == 0 || map_flags.contains(MapFlags::LOCKED) {
            inner.populate(ctx, start, start + len);
        }
        Ok(start)
    }
}

impl AddressSpace {
    /// Maps `len` bytes of shared memory (`shmat(2)`), at `place` if there is one; returns the address.
    ///
    /// # Errors
    /// `EINVAL` if there is something at `place` that is not to be `replace`d, or it is not the guest's; `ENOMEM`.
    pub fn map_shared(
        &self,
        ctx: &Ctx,
        memory: Arc<SharedMemory>,
        len: u64,
        prot: Prot,
        place: Option<u64>,
        replace: bool,
    ) -> Result<u64> {
        let mut inner = self.inner.lock();
        let start = match place {
            Some(start) => {
                let end =
                    start.checked_add(len).filter(|&end| end <= TASK_SIZE && start >= MMAP_MIN).ok_or(Errno::EINVAL)?;
                if !replace && !inner.is_free(start, end) {
                    bail!(EINVAL, "something is mapped there");
                }
                start
            }
            None => {
                let below = inner.mmap_base;
                inner.find_free(len, below)?
            }
        };
        if inner.total().saturating_add(len) > ctx.task.process.limit(super::RLIMIT_AS) {
            bail!(ENOMEM, "RLIMIT_AS");
        }
        let kind = VmaKind::Shared { memory, offset: 0 };
        let mut flags = MapFlags::SHARED;
        flags.set(MapFlags::NEVER_WRITABLE, !prot.contains(Prot::WRITE));
        inner.map(ctx, Vma { start, end: start + len, prot, flags, kind })?;
        Ok(start)
    }

    /// Unmaps what is left of the attachment that was mapped at `addr` (`shmdt(2)`). False if there is none.
    ///
    /// # Errors
    /// As of [`AddressSpace::unmap`].
    pub fn unmap_attachment(&self, ctx: &Ctx, addr: u64) -> Result<bool> {
        let mut inner = self.inner.lock();
        let of_it = |vma: &Vma| match &vma.kind {
            VmaKind::Shared { memory, offset } if memory.attachment.is_some() && vma.start - addr == *offset => {
                Some(memory.clone())
            }
            _ => None,
        };
        let mut found: Option<Arc<SharedMemory>> = None;
        let mut parts = Vec::new();
        for vma in inner.vmas.range(addr..).map(|(_, vma)| vma) {
            let Some(memory) = of_it(vma) else { continue };
            if found.get_or_insert_with(|| memory.clone()).fd.raw() == memory.fd.raw() {
                parts.push((vma.start, vma.end));
            }
        }
        for (start, end) in &parts {
            inner.unmap(ctx, *start, *end)?;
        }
        drop(inner);
        Ok(found.is_some())
    }

    /// Maps the page at `addr` if its file has grown to reach it since the mapping was made, or shrank and grew again.
    /// True if it did: the access that faulted succeeds when it is tried again.
    pub fn map_grown(&self, ctx: &Ctx, addr: u64) -> bool {
        let page = addr & !(PAGE_SIZE - 1);
        let inner = self.inner.lock();
        let Some(piece) = inner.vma_at(page).map(|vma| vma.slice(page, page + PAGE_SIZE)) else {
            return false;
        };
        let VmaKind::File { file, offset } = &piece.kind else {
            return false;
        };
        let reaches = file.inode.attr().is_ok_and(|attr| *offset < attr.size);
        // Looked at afterwards: where the image itself is too short, trying again would fault for ever.
        reaches && back_vma(ctx, &piece).is_ok() && ctx.kernel.platform.read_memory(self, page, &mut [0]) == 1
    }

    /// Maps the pages of a range that their file has grown to reach, as a guest's own access would by its fault. Called
    /// ahead of a copy, which may run under locks of the very file.
    pub(super) fn reach_grown(&self, ctx: &Ctx, addr: u64, len: usize) {
        if !self.tails.load(Ordering::Relaxed) || ctx.mm().is_ok_and(|own| !core::ptr::eq(own, self)) {
            return;
        }
        let Some(end) = addr.checked_add(len as u64).filter(|&end| end <= TASK_SIZE) else { return };
        let files: Vec<(u64, u64)> = {
            let inner = self.inner.lock();
            let overlapping = inner.overlapping(addr, end);
            let files = overlapping.iter().filter(|vma| matches!(vma.kind, VmaKind::File { .. }));
            files.map(|vma| (vma.start.max(addr), vma.end.min(end))).collect()
        };
        for (start, end) in files {
            let mut page = start & !(PAGE_SIZE - 1);
            while page < end {
                let readable = ctx.kernel.platform.read_memory(self, page, &mut [0]) == 1;
                if !readable && !self.map_grown(ctx, page) {
                    break;
                }
                page += PAGE_SIZE;
            }
        }
    }

    /// Takes the pages that a cut concerns out of all mappings. Those that the file still has come back when touched.
    fn cut_file(&self, ctx: &Ctx, cut: &FileCut) {
        let FileCut { inode, from, .. } = cut;
        let from = *from;
        let inner = self.inner.lock();
        for vma in inner.vmas.values() {
            let VmaKind::File { file, offset } = &vma.kind else { continue };
            let Some(end) = offset.checked_add(vma.len()).filter(|&end| from < end) else { continue };
            if !Arc::ptr_eq(&file.inode, inode) {
                continue;
            }
            let start = from.max(*offset);
            let shared = vma.flags.contains(MapFlags::SHARED);
            if !shared && !cut.private {
                continue;
            }
            self.tails.store(true, Ordering::Relaxed);
            let backing = Backing::File { fd: ctx.kernel.empty_file.raw(), offset: 0, shared };
            let addr = vma.start + (start - offset);
            if ctx.kernel.platform.map(ctx.task, addr, end - start, vma.prot, backing).is_err() {
                // Rather no memory than pages that may be another file's by now.
                let _ = ctx.kernel.platform.unmap(ctx.task, addr, end - start);
            }
        }
    }

    /// Whether pages of `inode` from `from` on are mapped.
    fn maps_file(&self, inode: &InodeRef, from: u64) -> bool {
        self.inner.lock().vmas.values().any(|vma| {
            matches!(&vma.kind, VmaKind::File { file, offset }
                if offset.saturating_add(vma.len()) > from && Arc::ptr_eq(&file.inode, inode))
        })
    }
}

/// A file lost blocks: mappings must not reach them any longer.
#[derive(Clone)]
pub struct FileCut {
    /// The file.
    pub inode: InodeRef,
    /// Byte offset of the first page concerned.
    pub from: u64,
    /// Private copies go too, as when the file became shorter; a hole in it leaves them.
    pub private: bool,
}

/// Makes all mappings let go of pages whose blocks may serve another file now. Those of other processes lose them when
/// they enter the kernel, which they are made to do at once.
pub fn file_cut(ctx: &Ctx, cut: &FileCut) {
    if !cut.inode.common().is_some_and(|common| common.mapped()) {
        return;
    }
    let own = ctx.task.mm().ok();
    if let Some(space) = &own {
        space.cut_file(ctx, cut);
    }
    for process in ctx.kernel.tasks.processes() {
        let threads = process.inner.lock().threads.clone();
        // One thread does it for all that share the memory.
        let Some((task, space)) = threads.iter().find_map(|task| Some((task, task.mm().ok()?))) else { continue };
        if own.as_ref().is_some_and(|own| Arc::ptr_eq(own, &space)) || !space.maps_file(&cut.inode, cut.from) {
            continue;
        }
        space.add_cut(cut.clone());
        task.interrupt(ctx.kernel);
    }
}

/// On the way to user mode: does what [`file_cut`] left to this process.
pub fn take_cuts(ctx: &Ctx) {
    let Ok(space) = ctx.mm() else { return };
    space.take_cuts().iter().for_each(|cut| space.cut_file(ctx, cut));
}

/// Where the platform wants what looks like the first mapping of a shared library by its loader.
fn text_place(ctx: &Ctx, kind: &VmaKind, shared: bool, len: u64) -> Option<u64> {
    let VmaKind::File { file, offset: 0 } = kind else { return None };
    if shared || !loader::is_relocatable(file) {
        return None;
    }
    ctx.kernel.platform.place_text(file, len)
}

/// Checks what a file mapping needs and says what lies behind it.
fn file_kind(ctx: &Ctx, file: Arc<File>, offset: u64, len: u64, prot: Prot, shared: bool) -> Result<VmaKind> {
    let access = file.flags();
    if !access.readable() {
        bail!(EACCES, "the file is not open for reading");
    }
    if shared && prot.contains(Prot::WRITE) && !access.writable() {
        bail!(EACCES, "the file is not open for writing");
    }
    if shared && access.writable() && file.inode.flags().contains(InodeFlags::APPEND) {
        bail!(EACCES, "the file is append-only");
    }
    if prot.contains(Prot::EXEC) && file.location.mount.no_exec() {
        bail!(EPERM, "the file system is mounted noexec");
    }
    match file.inode.file_type() {
        FileType::Regular => {}
        FileType::CharDevice if file.inode.attr()?.rdev == DEV_ZERO => {
            return Ok(if shared {
                VmaKind::Shared { memory: Arc::new(SharedMemory::new(len)?), offset: 0 }
            } else {
                VmaKind::Anonymous
            });
        }
        _ => bail!(ENODEV),
    }
    if shared && access.writable() && !file.inode.maps_shared_writable() {
        bail!(ENODEV, "stores would not reach the file");
    }
    // Asked now so that a file that cannot be mapped says so before anything changes.
    let _ = (ctx, file.inode.host_extents(offset, 0, false)?);
    if let Some(common) = file.inode.common() {
        common.set_mapped();
    }
    Ok(VmaKind::File { file, offset })
}

fn note_tail(ctx: &Ctx) {
    if let Ok(space) = ctx.mm() {
        space.tails.store(true, Ordering::Relaxed);
    }
}

fn is_debugged(ctx: &Ctx) -> bool {
    ctx.mm().is_ok_and(|space| space.debugged.load(Ordering::Relaxed))
}

/// Makes the host's mappings for a VMA.
pub(crate) fn back_vma(ctx: &Ctx, vma: &Vma) -> Result<()> {
    let platform = &*ctx.kernel.platform;
    let shared = vma.flags.contains(MapFlags::SHARED);
    match &vma.kind {
        VmaKind::Anonymous | VmaKind::Heap | VmaKind::Stack => {
            platform.map(ctx.task, vma.start, vma.len(), vma.prot, Backing::Anonymous)
        }
        VmaKind::Shared { memory, offset } => {
            let backing = Backing::File { fd: memory.fd.raw(), offset: *offset, shared: true };
            platform.map(ctx.task, vma.start, vma.len(), vma.prot, backing)
        }
        VmaKind::File { .. }
            if vma.prot.contains(Prot::EXEC) && !shared && !is_debugged(ctx) && platform.map_text(ctx.task, vma)? =>
        {
            Ok(())
        }
        VmaKind::File { file, offset } => {
            let mut at = *offset;
            for extent in file.inode.host_extents(*offset, vma.len(), shared)? {
                let addr = vma.start + (extent.file_offset - offset);
                let backing = match extent.host {
                    Some((fd, offset)) => Backing::File { fd, offset, shared },
                    None => Backing::Anonymous,
                };
                platform.map(ctx.task, addr, extent.len, vma.prot, backing)?;
                at = extent.file_offset + extent.len;
            }
            let end = offset + vma.len();
            if at < end {
                note_tail(ctx);
                // Pages behind the end of the file: SIGBUS, which an empty host file gives by itself.
                let backing = Backing::File { fd: ctx.kernel.empty_file.raw(), offset: 0, shared };
                platform.map(ctx.task, vma.start + (at - offset), end - at, vma.prot, backing)?;
            }
            Ok(())
        }
        VmaKind::Reserved(_) => bail!(EINVAL, "the kernel's own pages"),
    }
}
