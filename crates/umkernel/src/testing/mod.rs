//! A kernel for tests: its guests' memory is the test's own, and nothing runs unless the test calls it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
#![cfg_attr(fuzzing, allow(dead_code, reason = "the targets need less than the tests"))]

pub mod chance;

use crate::errno::{Errno, Result};
use crate::fs::devpts::DevPts;
use crate::fs::tmpfs::{Options, TmpFs};
use crate::kernel::{Config, Ctx, Kernel};
use crate::mm::{AddressSpace, Prot};
use crate::ns::{Registry, Uts};
use crate::platform::{Backing, HostThreadFn, KernelThreadFn, Platform, Reserved, Spawn, StartFn, TrapFrame};
use crate::sync::Mutex;
use crate::task::{FirstTask, Task};
use crate::vfs::{FdTable, FileSystem, FsContext, Location, MountFlags, Vfs};
use crate::{host, syscall};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The platform: memory of the test's own process, reached so that a bad address is an error.
#[derive(Default)]
struct TestPlatform {
    /// All that calls may reach; what they map is noted down, and nothing more. Without, they map nothing.
    arena: Option<Range<u64>>,
}

impl TestPlatform {
    /// How much of `len` bytes at `addr` may be reached.
    fn reachable(&self, addr: u64, len: usize) -> usize {
        let Some(arena) = &self.arena else { return len };
        if !arena.contains(&addr) {
            return 0;
        }
        len.min((arena.end - addr) as usize)
    }

    fn mapped(&self) -> Result<()> {
        if self.arena.is_some() { Ok(()) } else { Err(Errno::ENOSYS.into()) }
    }
}

impl Platform for TestPlatform {
    fn way_in(&self) -> &'static str {
        "came into a test's kernel"
    }

    fn name(&self) -> &'static str {
        "test"
    }

    fn read_memory(&self, _space: &AddressSpace, addr: u64, buf: &mut [u8]) -> usize {
        let len = self.reachable(addr, buf.len());
        host::process_vm_read(host::getpid(), addr, &mut buf[..len]).unwrap_or(0)
    }

    fn write_memory(&self, _space: &AddressSpace, addr: u64, buf: &[u8]) -> usize {
        host::process_vm_write(host::getpid(), addr, &buf[..self.reachable(addr, buf.len())]).unwrap_or(0)
    }

    fn compare_exchange(&self, _task: &Task, addr: u64, expected: u32, new: u32) -> Result<u32> {
        let mut probe = [0; 4];
        if !addr.is_multiple_of(4)
            || self.reachable(addr, 4) < 4
            || host::process_vm_read(host::getpid(), addr, &mut probe)? != 4
        {
            return Err(Errno::EFAULT.into());
        }
        // SAFETY: the address is aligned and was readable just now; tests pass words of their own.
        let word = unsafe { &*(addr as *const AtomicU32) };
        Ok(word.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|held| held))
    }

    fn map(&self, _: &Task, _: u64, _: u64, _: Prot, _: Backing) -> Result<()> {
        self.mapped()
    }

    fn unmap(&self, _: &Task, _: u64, _: u64) -> Result<()> {
        self.mapped()
    }

    fn protect(&self, _: &Task, _: u64, _: u64, _: Prot) -> Result<()> {
        self.mapped()
    }

    fn remap(&self, _: &Task, _: u64, _: u64, _: u64, _: u64) -> Result<()> {
        self.mapped()
    }

    fn advise(&self, _: &Task, _: u64, _: u64, _: i32) -> Result<()> {
        self.mapped()
    }

    fn spawn(&self, _: &Arc<Kernel>, _: &Task, _: &Arc<Task>, _: Spawn, _: TrapFrame, _: u64) -> Result<()> {
        Ok(())
    }

    fn spawn_fresh(&self, _: &Arc<Kernel>, _: &Arc<Task>, _: StartFn) -> Result<()> {
        Ok(())
    }

    fn spawn_kernel_thread(&self, _: &Arc<Kernel>, _: &Arc<Task>, _: KernelThreadFn) -> Result<()> {
        Ok(())
    }

    fn spawn_host_thread(&self, _: &'static str, _: HostThreadFn) -> Result<()> {
        Ok(())
    }

    fn release(&self, _: &Task) {}

    fn replace_memory(&self, _: &Task, _: bool) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }

    fn kick(&self, _: &Task) {}

    fn extended_state(&self, _: &Task) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn set_extended_state(&self, _: &Task, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn cpu_times(&self, _: &Task) -> (u64, u64) {
        (0, 0)
    }

    fn resident_pages(&self, _: &AddressSpace) -> (u64, u64) {
        (0, 0)
    }

    fn start(&self, _: &Arc<Kernel>) -> Result<()> {
        Ok(())
    }

    fn memory_usage(&self, _: &AddressSpace) -> Vec<crate::platform::usage::Usage> {
        Vec::new()
    }

    fn memory_share(&self, _: &AddressSpace) -> alloc::string::String {
        alloc::string::String::new()
    }

    fn kernel_memory(&self) -> u64 {
        0
    }

    fn hardware_auxv(&self) -> Vec<(u64, u64)> {
        Vec::new()
    }

    fn reserved_ranges(&self) -> Vec<Reserved> {
        Vec::new()
    }
}

/// A kernel and where its tasks start.
pub(crate) struct Machine {
    pub(crate) kernel: Arc<Kernel>,
    root: Location,
}

/// A machine whose root directory is a devpts. The registered devices are the character devices.
pub(crate) fn machine() -> Machine {
    machine_on(DevPts::for_test())
}

/// As [`machine`], with an empty tmpfs as the root directory.
pub(crate) fn tmpfs_machine() -> Machine {
    machine_on(tmpfs())
}

fn tmpfs() -> Arc<dyn FileSystem> {
    TmpFs::new("tmpfs", 0x100, Options { mode: 0o755, ..Options::for_memory(64 << 20) }).unwrap()
}

/// As [`machine`], with this file system as the root.
pub(crate) fn machine_on(root: Arc<dyn FileSystem>) -> Machine {
    machine_with(root, TestPlatform::default())
}

fn machine_with(root: Arc<dyn FileSystem>, platform: TestPlatform) -> Machine {
    let vfs = Vfs::new();
    let names = Uts { nodename: "test".into(), domainname: "(none)".into() };
    let namespaces = Registry::new(&vfs, names);
    let kernel = Kernel {
        platform: Box::new(platform),
        config: Config { memory: 1 << 30, cpus: 1, max_tasks: 100, command_line: "test".into(), profile: false },
        tasks: Default::default(),
        vfs,
        namespaces,
        queued_signals: Default::default(),
        time: Default::default(),
        load: Default::default(),
        futexes: Default::default(),
        ttys: Default::default(),
        net: Default::default(),
        log: Default::default(),
        unknown_calls: Default::default(),
        settings: Default::default(),
        core_pattern: Default::default(),
        seccomp_log: Default::default(),
        aio: Default::default(),
        mqueues: Default::default(),
        trace: None,
        profile: None,
        power: Default::default(),
        message_sink: Mutex::new(None),
        empty_file: host::HostFd::new(host::memfd_create(c"empty").unwrap()),
        next_id: AtomicU64::new(1),
        boot_monotonic: host::monotonic_ns(),
        boot_realtime: host::realtime_ns(),
    };
    let root = kernel.vfs.mount_root(root, b"none", MountFlags::empty()).unwrap();
    crate::chardev::register(&kernel);
    crate::block::register_loops(&kernel.vfs);
    crate::fs::register(&kernel.vfs);
    Machine { kernel: Arc::new(kernel), root }
}

impl Machine {
    /// A process with one task that leads a session of its own. The first has process id 1.
    pub(crate) fn task(&self) -> Arc<Task> {
        let pid = self.kernel.new_pid().unwrap();
        let fs = Arc::new(FsContext::at_root(self.root.clone()));
        let task = FirstTask { pid, name: b"test", fs, files: Arc::new(FdTable::default()) }.create(&self.kernel);
        task.mm.set(Some(Arc::new(AddressSpace::new(self.kernel.new_id(), &[]))));
        self.kernel.tasks.insert(&task);
        task
    }

    /// Another process in the session and group of `parent`, as its child.
    pub(crate) fn child(&self, parent: &Arc<Task>) -> Arc<Task> {
        let task = self.task();
        let (pgid, sid) = parent.process.group_and_session();
        let tty = parent.process.tty();
        let mut inner = task.process.inner.lock();
        inner.parent = Some(Arc::downgrade(&parent.process));
        inner.pgid = pgid;
        inner.sid = sid;
        inner.tty = tty;
        drop(inner);
        parent.process.inner.lock().children.push(task.process.clone());
        task
    }

    /// Another thread of the process of `first`.
    pub(crate) fn thread(&self, first: &Arc<Task>) -> Arc<Task> {
        let tid = self.kernel.new_pid().unwrap();
        let made = FirstTask { pid: tid, name: b"test", fs: first.fs(), files: first.files() }.create(&self.kernel);
        let mut task = Arc::into_inner({
            made.process.inner.lock().threads.clear();
            made
        })
        .unwrap();
        task.process = first.process.clone();
        let task = Arc::new(task);
        task.mm.set(first.mm.get());
        first.process.inner.lock().threads.push(task.clone());
        self.kernel.tasks.insert(&task);
        task
    }

    /// The context of a task.
    pub(crate) fn ctx<'a>(&'a self, task: &'a Arc<Task>) -> Ctx<'a> {
        Ctx { kernel: &self.kernel, task }
    }
}

impl Ctx<'_> {
    /// Makes a system call as the task would.
    pub(crate) fn call(&self, nr: u32, args: &[u64]) -> Result<usize> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let [rdi, rsi, rdx, r10, r8, r9] = all;
        let mut frame = TrapFrame { orig_rax: u64::from(nr), rdi, rsi, rdx, r10, r8, r9, ..TrapFrame::default() };
        syscall::dispatch(self, &mut frame)
    }
}

/// The address of a value of the test's, for system calls. What a call stores into goes in a [`core::cell::Cell`].
pub(crate) fn addr<T: ?Sized>(value: &T) -> u64 {
    (value as *const T).cast::<u8>() as u64
}

/// A small generator of its own, so that a failure can be repeated from its seed, which is not 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 20) % n
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Waits for something that another host thread does.
pub(crate) fn soon(mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("did not happen within 2 s");
}

/// Makes a file of the task's, for tests that start from descriptors.
pub(crate) fn open(ctx: &Ctx, path: &str, flags: u32) -> Result<u64> {
    let path = std::ffi::CString::new(path).unwrap();
    let at_cwd = crate::vfs::AT_FDCWD as i64 as u64;
    ctx.call(linux_raw_sys::general::__NR_openat, &[at_cwd, path.as_ptr() as u64, u64::from(flags), 0o666])
        .map(|fd| fd as u64)
}
