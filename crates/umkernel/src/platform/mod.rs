//! How guests run: the small interface between the kernel and the mechanism that brings it their system calls.
//!
//! Each guest process is a host process and each guest thread a host thread. The kernel's work for a task
//! happens on that task's own *kernel thread*; methods that take the running task are called there only.

pub mod direct;
mod frame;
#[cfg(feature = "ptrace")]
pub mod ptrace;
pub mod usage;

pub use frame::TrapFrame;

use crate::errno::Result;
use crate::kernel::{Ctx, Kernel};
use crate::mm::{AddressSpace, Prot, Vma};
use crate::task::Task;
use crate::vfs::File;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};

/// The platform's part of a task.
#[derive(Debug, Default)]
pub struct HostThread {
    /// Host process id; 0 for a kernel thread, which has no host process.
    pub pid: AtomicI32,
    /// Host thread id.
    pub tid: AtomicI32,
    /// Host thread id of the kernel thread, where that is another thread.
    pub kernel_tid: AtomicI32,
    /// Where the `direct` platform keeps what belongs to the thread.
    pub slot: AtomicU64,
    /// Guest code is running or about to: a pending signal needs a kick.
    pub in_user: AtomicBool,
}

/// What a guest mapping is made of on the host.
#[derive(Clone, Copy, Debug)]
pub enum Backing {
    /// Zero pages, private to the address space.
    Anonymous,
    /// Pages of a host file (the disk image, a memfd).
    File {
        /// Host descriptor, valid in every guest's host process.
        fd: i32,
        /// Byte offset, page aligned.
        offset: u64,
        /// Stores go to the file (MAP_SHARED) rather than to private copies.
        shared: bool,
    },
}

/// How a new task's host thread comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spawn {
    /// A thread in the caller's host process.
    Thread,
    /// A new process with a copy of the caller's memory.
    Fork,
    /// A new process that shares the caller's memory (`CLONE_VM` without `CLONE_THREAD`).
    ShareMemory,
}

/// What a fresh task does first.
pub type StartFn = Box<dyn FnOnce(&Ctx) -> Option<TrapFrame> + Send>;
/// What a kernel thread does.
pub type KernelThreadFn = Box<dyn FnOnce(&Ctx) + Send>;
/// What a host thread of the kernel process does.
pub type HostThreadFn = Box<dyn FnOnce() + Send>;

/// How often system calls came in by which way, and from where.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaysIn {
    /// Calls that trapped; all others came by a jump.
    pub trapped: u64,
    /// `syscall` instructions that a jump has taken the place of.
    pub patched_sites: usize,
    /// Those that have to trap.
    pub other_sites: usize,
}

/// A mechanism that runs guests.
pub trait Platform: Send + Sync {
    /// `"ptrace"` or `"direct"`.
    fn name(&self) -> &'static str;

    /// How calls have come in so far, where there is more than one way.
    fn ways_in(&self) -> Option<WaysIn> {
        None
    }

    /// How the kernel comes to service a system call, in words that continue "the program ...": for learners.
    fn way_in(&self) -> &'static str;

    /// The kernel exists: called once, before the first task is made.
    fn start(&self, kernel: &Arc<Kernel>) -> Result<()>;

    /// Copies from guest memory; returns the bytes copied before the first address that cannot be read.
    fn read_memory(&self, space: &AddressSpace, addr: u64, buf: &mut [u8]) -> usize;

    /// Copies to guest memory; returns the bytes copied before the first address that cannot be written.
    fn write_memory(&self, space: &AddressSpace, addr: u64, buf: &[u8]) -> usize;

    /// Reads a host file straight into guest memory: the bytes moved, fewer before an address that cannot be written. `None` if
    /// the data has to come by way of the kernel.
    fn read_file(
        &self,
        _space: &AddressSpace,
        _addr: u64,
        _len: usize,
        _fd: i32,
        _offset: u64,
    ) -> Option<Result<usize>> {
        None
    }

    /// Writes to a host file straight from guest memory, likewise.
    fn write_file(
        &self,
        _space: &AddressSpace,
        _addr: u64,
        _len: usize,
        _fd: i32,
        _offset: u64,
    ) -> Option<Result<usize>> {
        None
    }

    /// Puts `new` into the 32-bit word at `addr` of the running task's memory if it holds `expected`, in one step that guest
    /// code on other processors cannot come between. Returns what the word held; `EFAULT` if it cannot be written.
    fn compare_exchange(&self, task: &Task, addr: u64, expected: u32, new: u32) -> Result<u32>;

    /// Maps pages at exactly `addr` in the running task's memory, replacing what was there.
    fn map(&self, task: &Task, addr: u64, len: u64, prot: Prot, backing: Backing) -> Result<()>;

    /// Maps a VMA that is a file's text from a copy of the platform's own, if it has one. False if the file itself is to be mapped.
    fn map_text(&self, _task: &Task, _vma: &Vma) -> Result<bool> {
        Ok(false)
    }

    /// Whether a VMA may show a copy of the platform's own rather than the file: see [`Platform::map_text`].
    fn has_text_copy(&self, _vma: &Vma) -> bool {
        false
    }

    /// Where a task is in the program's own text that is at `rip`, should that be in code of the platform's which stands for it.
    fn program_counter(&self, rip: u64) -> u64 {
        rip
    }

    /// Where the platform wants a relocatable program or library of `span` bytes to lie in every address space, if it cares.
    fn place_text(&self, _file: &File, _span: u64) -> Option<u64> {
        None
    }

    /// Unmaps pages of the running task's memory.
    fn unmap(&self, task: &Task, addr: u64, len: u64) -> Result<()>;

    /// Changes the protection of pages of the running task's memory.
    fn protect(&self, task: &Task, addr: u64, len: u64, prot: Prot) -> Result<()>;

    /// Moves pages of the running task's memory to exactly `new_addr`, growing or shrinking the mapping.
    fn remap(&self, task: &Task, addr: u64, len: u64, new_addr: u64, new_len: u64) -> Result<()>;

    /// `madvise(2)` on the running task's memory, for advice that changes content or residence.
    fn advise(&self, task: &Task, addr: u64, len: u64, advice: i32) -> Result<()>;

    /// Starts `child` on a kernel thread of its own; its guest code begins with `frame`. Its id is stored at `settid` in
    /// its own memory first, unless that is 0.
    fn spawn(
        &self,
        kernel: &Arc<Kernel>,
        parent: &Task,
        child: &Arc<Task>,
        how: Spawn,
        frame: TrapFrame,
        settid: u64,
    ) -> Result<()>;

    /// Starts `child`, the first task of a process with empty memory, on a kernel thread of its own: `start` runs there and
    /// gives the registers to begin guest code with, or `None` to end.
    fn spawn_fresh(&self, kernel: &Arc<Kernel>, child: &Arc<Task>, start: StartFn) -> Result<()>;

    /// Starts a task that never runs guest code.
    fn spawn_kernel_thread(&self, kernel: &Arc<Kernel>, task: &Arc<Task>, body: KernelThreadFn) -> Result<()>;

    /// Starts a host thread of the kernel process that works for the kernel as long as the machine runs, and for no task.
    /// It has the caller's signal mask. The name is for who looks at the host's threads.
    fn spawn_host_thread(&self, name: &'static str, body: HostThreadFn) -> Result<()>;

    /// Lets go of what the running task has on the host; the last call made for it.
    fn release(&self, task: &Task);

    /// exec: gives the running task empty memory of its own (only vdso and the kernel's ranges are mapped), whether
    /// it was alone in its memory (`alone`) or shares it with others, whose memory stays as it is.
    fn replace_memory(&self, task: &Task, alone: bool) -> Result<()>;

    /// Makes guest code of `task`, if it runs right now, enter the kernel soon.
    fn kick(&self, task: &Task);

    /// The running task's extended processor state, in the XSAVE format of a Linux signal frame.
    fn extended_state(&self, task: &Task) -> Result<Vec<u8>>;

    /// Sets the running task's extended processor state from an XSAVE image that a guest supplies: the platform
    /// checks it. An empty slice means the initial state.
    fn set_extended_state(&self, task: &Task, state: &[u8]) -> Result<()>;

    /// Processor time the task used so far, in nanoseconds: guest code, kernel code.
    fn cpu_times(&self, task: &Task) -> (u64, u64);

    /// Resident pages of an address space: (all, of these shared with files).
    fn resident_pages(&self, space: &AddressSpace) -> (u64, u64);

    /// As [`Platform::resident_pages`], of many.
    fn all_resident_pages(&self, spaces: &[&AddressSpace]) -> Vec<(u64, u64)> {
        spaces.iter().map(|space| self.resident_pages(space)).collect()
    }

    /// `smaps_rollup` of proc(5) of an address space's host process, as its host has it; empty if it has ended.
    fn memory_share(&self, space: &AddressSpace) -> String;

    /// What of an address space is in memory, mapping by mapping as its host process has them; nothing of one that has ended.
    fn memory_usage(&self, space: &AddressSpace) -> Vec<usage::Usage>;

    /// Bytes of memory that the kernel itself uses.
    fn kernel_memory(&self) -> u64;

    /// The entries of the auxiliary vector that describe the processor (`AT_HWCAP`, `AT_HWCAP2`, `AT_MINSIGSTKSZ`).
    fn hardware_auxv(&self) -> Vec<(u64, u64)>;

    /// Where the host's vdso lies in every guest (start, length), so that exec can announce it and `mmap` avoids it.
    fn reserved_ranges(&self) -> Vec<Reserved>;
}

/// A range of every guest address space that is not the guest's to change.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What `/proc/PID/maps` calls it: `"[vdso]"`, `"[vvar]"`, or empty for the kernel's own, which is not shown.
    pub name: &'static str,
}
