//! What a futex is, wherever it is mapped.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{AddressSpace, MapFlags, SharedMemory, TASK_SIZE, Vma, VmaKind};
use crate::vfs::InodeRef;
use alloc::sync::Arc;

/// Names a futex: the same word has the same key in every task that can reach it.
#[derive(Clone)]
pub enum Key {
    /// A word of one address space (its id, the address).
    Private(u64, u64),
    /// A word of a shared anonymous object, by byte offset. Holding the object keeps its name from being used again.
    Memory(Arc<SharedMemory>, u64),
    /// A word of a file mapped shared, by byte offset.
    File(InodeRef, u64),
}

impl Key {
    /// The key of the word at `addr` of the running task's memory.
    ///
    /// # Errors
    /// `EINVAL` if the address is not a multiple of 4; `EFAULT` if it is no user address, or not mapped where what is
    /// mapped there matters (`shared`).
    pub fn new(ctx: &Ctx, addr: u64, shared: bool) -> Result<Key> {
        if !addr.is_multiple_of(4) {
            bail!(EINVAL, "a futex is aligned to 4 bytes");
        }
        if addr > TASK_SIZE - 4 {
            return Err(Errno::EFAULT.into());
        }
        let mm = ctx.mm()?;
        if !shared {
            return Ok(Key::Private(mm.id, addr));
        }
        let vma = mm.vma_at(addr).ok_or(Errno::EFAULT)?;
        Ok(Key::of_shared(&vma, addr).unwrap_or(Key::Private(mm.id, addr)))
    }

    /// The key of a word that lies in a shared mapping of `space`; `None` if it does not.
    pub(super) fn shared_in(space: &AddressSpace, addr: u64) -> Option<Key> {
        Key::of_shared(&space.vma_at(addr)?, addr)
    }

    fn of_shared(vma: &Vma, addr: u64) -> Option<Key> {
        let within = addr - vma.start;
        match &vma.kind {
            VmaKind::Shared { memory, offset } => Some(Key::Memory(memory.clone(), offset + within)),
            VmaKind::File { file, offset } if vma.flags.contains(MapFlags::SHARED) => {
                Some(Key::File(file.inode.clone(), offset + within))
            }
            _ => None,
        }
    }

    /// Kind, object and place as plain numbers.
    fn parts(&self) -> (u8, u64, u64) {
        match self {
            Key::Private(mm, addr) => (0, *mm, *addr),
            Key::Memory(memory, offset) => (1, Arc::as_ptr(&memory.fd) as u64, *offset),
            Key::File(inode, offset) => (2, Arc::as_ptr(inode).cast::<()>() as u64, *offset),
        }
    }

    /// A hash whose upper bits are well mixed.
    pub(super) fn hash(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let (kind, object, place) = self.parts();
        let mixed = (object ^ u64::from(kind) << 61).wrapping_mul(GOLDEN).rotate_left(29) ^ place >> 2;
        mixed.wrapping_mul(GOLDEN)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.parts() == other.parts()
    }
}
