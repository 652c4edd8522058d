//! Guest memory: address spaces, their VMAs, and access to user memory.

mod grow;
mod lock;
pub mod map;
mod remap;
mod seal;
mod space;
mod user;
mod vma;

pub(crate) use space::covers;
pub use space::{AddressSpace, MMAP_MIN, SpaceInner};
pub use user::{IoDst, IoSrc, KernelDst, KernelSrc, Pod, UserDst, UserSrc, bytes_of};
pub use vma::{Attachment, MapFlags, Prot, SharedMemory, Vma, VmaKind};

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;

/// The first address a guest may not use (x86-64, four-level paging, one guard page).
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// `RLIMIT_DATA` of `getrlimit(2)`.
pub const RLIMIT_DATA: usize = 2;
/// `RLIMIT_STACK` of `getrlimit(2)`.
pub const RLIMIT_STACK: usize = 3;
/// `RLIMIT_AS` of `getrlimit(2)`.
pub const RLIMIT_AS: usize = 9;

/// Rounds up to whole pages; `None` on overflow.
pub fn page_up(n: u64) -> Option<u64> {
    n.checked_add(PAGE_SIZE - 1).map(|n| n & !(PAGE_SIZE - 1))
}
