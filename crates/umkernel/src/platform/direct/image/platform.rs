//! What the core asks of the platform.

use super::arena::arena;
use super::slot::current;
use super::{filter, layout, memory, spawn, zygote};
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::{Ctx, Kernel};
use crate::mm::{AddressSpace, Prot, Vma};
use crate::platform::usage::Usage;
use crate::platform::{Backing, HostThreadFn, KernelThreadFn, Platform, Reserved, Spawn, StartFn, TrapFrame, WaysIn};
use crate::task::Task;
use crate::vfs::File;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// The platform. Its state is the arena's.
pub(super) struct Direct;

/// Whether `space` is the memory that the running thread is in.
fn is_here(space: &AddressSpace) -> bool {
    // SAFETY: the running thread's own slot.
    let Some(task) = (unsafe { current().own() }).task.as_ref() else { return false };
    // SAFETY: this thread runs the task.
    unsafe { task.mm.own() }.as_deref().is_some_and(|own| core::ptr::eq(own, space))
}

fn is_running(task: &Task) -> bool {
    // SAFETY: the running thread's own slot.
    unsafe { current().own() }.task.as_deref().is_some_and(|own| core::ptr::eq(own, task))
}

impl Platform for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn ways_in(&self) -> Option<WaysIn> {
        Some(arena().texts.ways_in())
    }

    fn way_in(&self) -> &'static str {
        "executed `syscall`, or the jump into this kernel that has taken its place since the first time"
    }

    fn start(&self, kernel: &Arc<Kernel>) -> Result<()> {
        arena().set_kernel(kernel.clone());
        zygote::start()?;
        filter::install(filter::Role::KernelProcess)?;
        spawn::spawn_service(None, Box::new(|| spawn::reap()))
    }

    fn read_memory(&self, space: &AddressSpace, addr: u64, buf: &mut [u8]) -> usize {
        if is_here(space) {
            return memory::read(addr, buf);
        }
        let pid = space.host_pid.load(Ordering::Relaxed);
        // The key does not keep the broker from what is the kernel's there.
        let len = memory::reachable(addr, buf.len());
        arena().broker.read(pid, addr, &mut buf[..len])
    }

    fn write_memory(&self, space: &AddressSpace, addr: u64, buf: &[u8]) -> usize {
        if is_here(space) {
            return memory::write(addr, buf);
        }
        let pid = space.host_pid.load(Ordering::Relaxed);
        arena().broker.write(pid, addr, &buf[..memory::reachable(addr, buf.len())])
    }

    fn read_file(&self, space: &AddressSpace, addr: u64, len: usize, fd: i32, offset: u64) -> Option<Result<usize>> {
        if !is_here(space) || !memory::is_guests(addr, len) {
            return None;
        }
        // SAFETY: the running thread's own slot.
        let memory = unsafe { current().own() }.memory.as_ref();
        if fd == arena().facts.image_file && memory.is_some_and(|memory| memory.view.copy(offset, addr, len)) {
            return Some(Ok(len));
        }
        // SAFETY: the range was checked to be the guest's.
        Some(unsafe { host::pread_to(fd, addr, len, offset) })
    }

    fn write_file(&self, space: &AddressSpace, addr: u64, len: usize, fd: i32, offset: u64) -> Option<Result<usize>> {
        (is_here(space) && memory::is_guests(addr, len)).then(|| host::pwrite_from(fd, addr, len, offset))
    }

    fn compare_exchange(&self, _: &Task, addr: u64, expected: u32, new: u32) -> Result<u32> {
        memory::compare_exchange(addr, expected, new).ok_or(Errno::EFAULT.into())
    }

    fn map(&self, _: &Task, addr: u64, len: u64, prot: Prot, backing: Backing) -> Result<()> {
        let (file, shared) = match backing {
            Backing::Anonymous => (None, false),
            Backing::File { fd, offset, shared } => (Some((fd, offset)), shared),
        };
        host::map_fixed(addr, len, prot.bits().into(), file, shared)
    }

    fn map_text(&self, _: &Task, vma: &Vma) -> Result<bool> {
        arena().texts.map(vma)
    }

    fn has_text_copy(&self, vma: &Vma) -> bool {
        arena().texts.has_copy(vma)
    }

    fn program_counter(&self, rip: u64) -> u64 {
        arena().texts.program_counter(rip)
    }

    fn place_text(&self, file: &File, span: u64) -> Option<u64> {
        arena().texts.place(file, span)
    }

    fn unmap(&self, _: &Task, addr: u64, len: u64) -> Result<()> {
        host::unmap_range(addr, len)
    }

    fn protect(&self, _: &Task, addr: u64, len: u64, prot: Prot) -> Result<()> {
        host::protect(addr, len, prot.bits().into())
    }

    fn remap(&self, _: &Task, addr: u64, len: u64, new_addr: u64, new_len: u64) -> Result<()> {
        host::remap(addr, len, new_addr, new_len)
    }

    fn advise(&self, _: &Task, addr: u64, len: u64, advice: i32) -> Result<()> {
        host::advise(addr, len, advice)
    }

    fn spawn(
        &self,
        _: &Arc<Kernel>,
        _: &Task,
        child: &Arc<Task>,
        how: Spawn,
        frame: TrapFrame,
        settid: u64,
    ) -> Result<()> {
        spawn::spawn(child, how, frame, settid)
    }

    fn spawn_fresh(&self, _: &Arc<Kernel>, child: &Arc<Task>, start: StartFn) -> Result<()> {
        spawn::spawn_fresh(child, start)
    }

    fn spawn_kernel_thread(&self, kernel: &Arc<Kernel>, task: &Arc<Task>, body: KernelThreadFn) -> Result<()> {
        let (own_kernel, own_task) = (kernel.clone(), task.clone());
        let body = move || body(&Ctx { kernel: &own_kernel, task: &own_task });
        spawn::spawn_service(Some(task), Box::new(body))
    }

    fn spawn_host_thread(&self, _: &'static str, body: HostThreadFn) -> Result<()> {
        spawn::spawn_service(None, body)
    }

    fn kernel_memory(&self) -> u64 {
        arena().heap.used()
    }

    fn release(&self, _: &Task) {
        // The host thread ends right after, see `spawn::end`.
    }

    fn replace_memory(&self, _: &Task, alone: bool) -> Result<()> {
        // SAFETY: the running thread's own slot.
        let memory = unsafe { current().own() }.memory.clone();
        if alone && memory.is_some_and(|memory| memory.alone()) {
            return spawn::empty_memory();
        }
        spawn::move_to_fresh_process()
    }

    fn kick(&self, task: &Task) {
        if is_running(task) {
            // It looks on its way out.
            return;
        }
        let (pid, tid) = (task.host.pid.load(Ordering::Relaxed), task.host.tid.load(Ordering::Relaxed));
        if pid != 0 {
            // A thread that is gone needs no kick.
            let _ = arena().broker.kick(pid, tid);
        }
    }

    fn extended_state(&self, _: &Task) -> Result<Vec<u8>> {
        // SAFETY: the running thread's own frame; its other registers may be borrowed, these are not.
        Ok(arena().facts.xstate.save(unsafe { &(*current().frame()).xmm }))
    }

    fn set_extended_state(&self, _: &Task, state: &[u8]) -> Result<()> {
        // SAFETY: as in `extended_state`.
        arena().facts.xstate.load(state, unsafe { &mut (*current().frame()).xmm })
    }

    fn cpu_times(&self, task: &Task) -> (u64, u64) {
        // Clock ids of processes, as `linux/posix-timers_types.h` makes them: scheduler clock.
        const SCHED: i32 = 2;
        const CLOCK_THREAD_CPUTIME: i32 = 3;
        let pid = task.host.pid.load(Ordering::Relaxed);
        let clock = if is_running(task) { CLOCK_THREAD_CPUTIME } else { !pid << 3 | SCHED };
        if pid == 0 { (0, 0) } else { (host::clock_gettime(clock).unwrap_or(0), 0) }
    }

    fn resident_pages(&self, space: &AddressSpace) -> (u64, u64) {
        if is_here(space) {
            return (host::peak_resident() / crate::mm::PAGE_SIZE, 0);
        }
        self.all_resident_pages(&[space])[0]
    }

    fn all_resident_pages(&self, spaces: &[&AddressSpace]) -> Vec<(u64, u64)> {
        let pids: Vec<i32> = spaces.iter().map(|space| space.host_pid.load(Ordering::Relaxed)).collect();
        arena().broker.resident(&pids)
    }

    fn memory_share(&self, space: &AddressSpace) -> String {
        arena().broker.smaps_rollup(space.host_pid.load(Ordering::Relaxed))
    }

    fn memory_usage(&self, space: &AddressSpace) -> Vec<Usage> {
        arena().broker.memory_usage(space.host_pid.load(Ordering::Relaxed))
    }

    fn hardware_auxv(&self) -> Vec<(u64, u64)> {
        arena().facts.hardware.to_vec()
    }

    fn reserved_ranges(&self) -> Vec<Reserved> {
        let kernel = layout::KERNEL_RANGES.map(|(start, end)| Reserved { start, end, name: "" });
        let host = arena().facts.reserved.iter().filter(|range| range.end != 0).copied();
        kernel.into_iter().chain(host).collect()
    }
}
