//! An address space: the tree of a process's VMAs.

use super::Vma;
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use core::sync::atomic::AtomicI32;

/// What the threads of a process share as their memory.
pub struct AddressSpace {
    /// A host process that has this memory: what the platform reads and writes it through.
    pub host_pid: AtomicI32,
    /// Distinguishes address spaces in futex keys.
    pub id: u64,
    /// The VMAs and what belongs to them.
    pub inner: Mutex<SpaceInner>,
}

/// The changeable part of an [`AddressSpace`].
#[derive(Default)]
pub struct SpaceInner {
    /// VMAs by start address; they never overlap.
    pub vmas: BTreeMap<u64, Vma>,
    /// Where the heap begins.
    pub brk_start: u64,
    /// Where the heap ends (`brk(2)`).
    pub brk: u64,
    /// Highest address for `mmap(2)` to choose.
    pub mmap_base: u64,
    /// Where the arguments lie (start, end): `/proc/PID/cmdline`.
    pub args: (u64, u64),
    /// Where the environment lies (start, end): `/proc/PID/environ`.
    pub env: (u64, u64),
    /// Start of the stack as given to the program.
    pub stack_start: u64,
    /// The auxiliary vector as given to the program: `/proc/PID/auxv`.
    pub auxv: alloc::vec::Vec<(u64, u64)>,
}
