//! Virtual memory areas: what each range of a guest's address space is.

use crate::errno::Result;
use crate::host::{self, HostFd};
use crate::vfs::File;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

bitflags::bitflags! {
    /// Page protection: `PROT_*` of `mmap(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Prot: u32 {
        /// Pages may be read.
        const READ = 1;
        /// Pages may be written.
        const WRITE = 2;
        /// Pages may be executed.
        const EXEC = 4;
    }

    /// Properties of a mapping that matter after `mmap(2)` returned.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u32 {
        /// Stores are seen by other mappings of the same object.
        const SHARED = 1;
        /// A stack (`MAP_GROWSDOWN`).
        const GROWS_DOWN = 2;
        /// Not copied to a child (`MADV_DONTFORK`).
        const DONT_FORK = 4;
        /// Zeroed in a child (`MADV_WIPEONFORK`).
        const WIPE_ON_FORK = 8;
        /// Locked in memory (`mlock(2)`): counted, and always true here.
        const LOCKED = 16;
        /// Can never be made writable: a shared mapping of what is not open for writing.
        const NEVER_WRITABLE = 32;
        /// Can never be made executable: a file of a `noexec` mount.
        const NEVER_EXECUTABLE = 64;
        /// Not in core files (`MADV_DONTDUMP`).
        const DONT_DUMP = 256;
        /// Stays as it is (`mseal(2)`).
        const SEALED = 128;
    }
}

/// Why a process has memory that others have, too, where that is kept count of: a System V segment.
pub trait Attachment: Send + Sync {
    /// What a forked child has: process `pid`.
    fn for_child(&self, pid: i32) -> Box<dyn Attachment>;

    /// What `/proc/PID/maps` calls it.
    fn name(&self) -> String;

    /// The inode number there.
    fn number(&self) -> u64;
}

/// Memory that several address spaces share: anonymous shared mappings, System V segments.
pub struct SharedMemory {
    /// The memfd that holds the pages. All that share them have this one.
    pub fd: Arc<HostFd>,
    /// Ended with the last mapping of it.
    pub attachment: Option<Box<dyn Attachment>>,
}

impl SharedMemory {
    /// A new object of `len` zero bytes.
    ///
    /// # Errors
    /// What the host says to `memfd_create(2)` or `ftruncate(2)`.
    pub fn new(len: u64) -> Result<SharedMemory> {
        let fd = HostFd::new(host::memfd_create(c"guest-shared")?);
        host::ftruncate(fd.raw(), len)?;
        Ok(SharedMemory { fd: Arc::new(fd), attachment: None })
    }

    /// The same memory, as it is attached to a process.
    pub fn attached(&self, attachment: Box<dyn Attachment>) -> SharedMemory {
        SharedMemory { fd: self.fd.clone(), attachment: Some(attachment) }
    }

    /// Names the object in `/proc/PID/maps`.
    pub fn id(&self) -> u64 {
        self.attachment.as_ref().map_or(self.fd.raw() as u64, |attachment| attachment.number())
    }
}

/// What lies behind a VMA.
#[derive(Clone)]
pub enum VmaKind {
    /// Private zero pages.
    Anonymous,
    /// The heap that `brk(2)` moves.
    Heap,
    /// The first thread's stack.
    Stack,
    /// Shared zero pages, from `offset` of the object on.
    Shared {
        /// The object.
        memory: Arc<SharedMemory>,
        /// Byte offset of the VMA's start in it.
        offset: u64,
    },
    /// A file, from `offset` on.
    File {
        /// The open file, which the mapping keeps open.
        file: Arc<File>,
        /// Byte offset of the VMA's start in it.
        offset: u64,
    },
    /// A range that is not the guest's to change; the name is what `/proc/PID/maps` shows.
    Reserved(&'static str),
}

/// One contiguous range of an address space with the same properties throughout.
#[derive(Clone)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Protection.
    pub prot: Prot,
    /// Other properties.
    pub flags: MapFlags,
    /// What lies behind it.
    pub kind: VmaKind,
}

impl Vma {
    /// A stack that faults below it make longer.
    pub fn grows_down(&self) -> bool {
        self.flags.contains(MapFlags::GROWS_DOWN)
    }

    /// Where it begins, with the gap that is kept free below a stack that grows.
    pub(super) fn gap_start(&self) -> u64 {
        if self.grows_down() { self.start.saturating_sub(super::grow::STACK_GUARD_GAP) } else { self.start }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True for a range of no length; the tree never holds one.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The part of this VMA within `[start, end)`, with offsets moved along.
    pub fn slice(&self, start: u64, end: u64) -> Vma {
        let start = start.max(self.start);
        let end = end.min(self.end);
        let moved = start - self.start;
        let kind = match &self.kind {
            VmaKind::Shared { memory, offset } => VmaKind::Shared { memory: memory.clone(), offset: offset + moved },
            VmaKind::File { file, offset } => VmaKind::File { file: file.clone(), offset: offset + moved },
            other => other.clone(),
        };
        Vma { start, end, prot: self.prot, flags: self.flags, kind }
    }
}
