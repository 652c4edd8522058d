//! Shared memory segments (`shmget(2)`).
//!
//! A segment is a host file in memory, as any shared memory is. Each `shmat(2)` makes an attachment, which the VMAs that it maps
//! hold together; a forked child's hold one of its own. With the last of a segment's, one that was removed is gone.

use super::{Ipc, Object, Perm, Table, now};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{Attachment, PAGE_SIZE, Prot, SharedMemory, page_up};
use crate::sync::Mutex;
use crate::task::Capabilities;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use linux_raw_sys::general::RLIMIT_MEMLOCK;

/// `SHM_HUGETLB`.
const HUGE_PAGES: i32 = 0o4000;
/// `SHM_NORESERVE`.
const NO_RESERVE: i32 = 0o10000;
/// `SHM_RDONLY`.
pub const READ_ONLY: i32 = 0o10000;
/// `SHM_RND`: round the address down.
pub const ROUND: i32 = 0o20000;
/// `SHM_REMAP`: replace what is mapped there.
pub const REPLACE: i32 = 0o40000;
/// `SHM_EXEC`.
pub const EXECUTE: i32 = 0o100000;
/// Of a mode, `SHM_DEST`: goes with the last attachment.
const REMOVED: u32 = 0o1000;
/// Of a mode, `SHM_LOCKED`.
const LOCKED: u32 = 0o2000;

/// A segment.
pub struct Segment {
    memory: SharedMemory,
    size: u64,
    state: Mutex<Status>,
    table: Weak<Table<Segment>>,
}

/// What `shmctl(2)` tells of a segment (`struct shmid_ds`); times in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Owner and mode.
    pub perm: Perm,
    /// Bytes.
    pub size: u64,
    /// When it was attached, detached, made or changed.
    pub attached: i64,
    /// See there.
    pub detached: i64,
    /// See there.
    pub changed: i64,
    /// The process that made it.
    pub maker: i32,
    /// The last one that attached or detached it.
    pub last: i32,
    /// How often it is attached.
    pub count: u64,
}

impl Object for Segment {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
}

impl Segment {
    /// What `shmctl(2)` tells.
    pub fn status(&self) -> Status {
        *self.state.lock()
    }

    fn attach(self: &Arc<Segment>, pid: i32, by: i32) -> Attached {
        let mut state = self.state.lock();
        state.count += 1;
        state.attached = now();
        state.last = by;
        Attached { segment: self.clone(), pid }
    }
}

/// A segment in a process's memory.
struct Attached {
    segment: Arc<Segment>,
    pid: i32,
}

impl Attachment for Attached {
    fn for_child(&self, pid: i32) -> Box<dyn Attachment> {
        Box::new(self.segment.attach(pid, self.pid))
    }

    fn name(&self) -> String {
        format!("/SYSV{:08x} (deleted)", self.segment.perm().key)
    }

    fn number(&self) -> u64 {
        self.segment.perm().id as u64
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.segment.state.lock();
        state.count -= 1;
        state.detached = now();
        state.last = self.pid;
        let gone = state.count == 0 && state.perm.mode & REMOVED != 0;
        let id = state.perm.id;
        drop(state);
        if let Some(table) = self.segment.table.upgrade().filter(|_| gone) {
            table.remove(id);
        }
    }
}

/// `shmget(2)`.
pub fn get(ctx: &Ctx, key: i32, size: u64, flags: i32) -> Result<i32> {
    let ipc = ctx.ipc();
    let Ipc { limits, shm, .. } = ipc;
    let pages = pages(ipc);
    let make = |perm| {
        if size == 0 || size > limits.shmmax.get() {
            bail!(EINVAL, "a size that no segment has");
        }
        if flags & HUGE_PAGES != 0 {
            bail!(ENOMEM, "no huge pages are reserved");
        }
        let rounded = page_up(size).ok_or(Errno::ENOSPC)?;
        if pages.saturating_add(rounded / PAGE_SIZE) > limits.shmall.get() {
            bail!(ENOSPC);
        }
        if flags & NO_RESERVE == 0 && rounded > ctx.kernel.config.memory {
            bail!(ENOMEM, "more than the machine has");
        }
        let status = Status {
            perm,
            size,
            attached: 0,
            detached: 0,
            changed: now(),
            maker: ctx.task.process.pid,
            last: 0,
            count: 0,
        };
        let (memory, table) = (SharedMemory::new(rounded)?, Arc::downgrade(shm));
        Ok(Segment { memory, size, state: Mutex::new(status), table })
    };
    let fits = |there: &Segment| if size > there.size { Err(Errno::EINVAL.into()) } else { Ok(()) };
    shm.get((key, flags), ctx.creds(), limits.shmmni.get(), fits, make)
}

/// `shmat(2)`; returns the address.
pub fn attach(ctx: &Ctx, id: i32, addr: u64, flags: i32) -> Result<u64> {
    let place = match addr {
        0 if flags & REPLACE != 0 => bail!(EINVAL, "nothing to replace"),
        0 => None,
        addr if addr.is_multiple_of(PAGE_SIZE) => Some(addr),
        addr if flags & ROUND != 0 => Some(addr & !(PAGE_SIZE - 1)),
        _ => bail!(EINVAL, "address is not a multiple of the page size"),
    };
    let (mut prot, mut wanted) = (Prot::READ, 0o444);
    if flags & READ_ONLY == 0 {
        (prot, wanted) = (prot | Prot::WRITE, wanted | 0o222);
    }
    if flags & EXECUTE != 0 {
        (prot, wanted) = (prot | Prot::EXEC, wanted | 0o111);
    }
    let segment = ctx.ipc().shm.find(id)?;
    segment.perm().check(ctx.creds(), wanted)?;
    let pid = ctx.task.process.pid;
    let memory = segment.memory.attached(Box::new(segment.attach(pid, pid)));
    let len = page_up(segment.size).ok_or(Errno::ENOMEM)?;
    ctx.mm()?.map_shared(ctx, Arc::new(memory), len, prot, place, flags & REPLACE != 0)
}

/// `shmdt(2)`.
pub fn detach(ctx: &Ctx, addr: u64) -> Result<()> {
    if !addr.is_multiple_of(PAGE_SIZE) || !ctx.mm()?.unmap_attachment(ctx, addr)? {
        bail!(EINVAL, "no segment is attached there");
    }
    Ok(())
}

/// Takes an owner and a mode (`IPC_SET`).
pub fn set(ctx: &Ctx, id: i32, (uid, gid, mode): (u32, u32, u32)) -> Result<()> {
    let segment = ctx.ipc().shm.find(id)?;
    let mut state = segment.state.lock();
    state.perm.check_owner(ctx.creds())?;
    state.perm.set(uid, gid, mode);
    state.changed = now();
    Ok(())
}

/// Removes a segment, now or with its last attachment (`IPC_RMID`).
pub fn remove(ctx: &Ctx, id: i32) -> Result<()> {
    let table = &ctx.ipc().shm;
    let segment = table.find(id)?;
    let mut state = segment.state.lock();
    state.perm.check_owner(ctx.creds())?;
    state.perm.key = super::IPC_PRIVATE;
    state.perm.mode |= REMOVED;
    let attached = state.count > 0;
    drop(state);
    if attached {
        table.forget_key(id)
    } else {
        table.remove(id)
    }
    Ok(())
}

/// `SHM_LOCK` and `SHM_UNLOCK`: the mark alone, as all memory is the host's to keep.
pub fn lock(ctx: &Ctx, id: i32, on: bool) -> Result<()> {
    let segment = ctx.ipc().shm.find(id)?;
    let creds = ctx.creds();
    let mut state = segment.state.lock();
    if !creds.capable(Capabilities::IPC_LOCK) {
        if ![state.perm.uid, state.perm.cuid].contains(&creds.euid) {
            bail!(EPERM);
        }
        if on && ctx.task.process.limit(RLIMIT_MEMLOCK as usize) == 0 {
            bail!(EPERM, "RLIMIT_MEMLOCK");
        }
    }
    if on {
        state.perm.mode |= LOCKED;
    } else {
        state.perm.mode &= !LOCKED;
    }
    Ok(())
}

/// Pages of all segments. What is in memory of them is the host's affair: all is taken to be.
pub fn pages(ipc: &Ipc) -> u64 {
    ipc.shm.all().iter().map(|segment| segment.size.div_ceil(PAGE_SIZE)).sum()
}
