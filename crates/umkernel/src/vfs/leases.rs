//! Leases (`fcntl(F_SETLEASE)`): who holds one on a file is told before somebody else opens it or cuts it, and has time to finish what he
//! is at.

use super::{AsyncIo, File, FileType, Inode, InodeCommon};
use crate::bail;
use crate::errno::Result;
use crate::host;
use crate::kernel::Ctx;
use crate::sync::{Mutex, WaitQueue};
use crate::task::Capabilities;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// What a lease keeps away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// Writers.
    Read,
    /// Everybody else.
    Write,
}

/// The leases on an inode.
#[derive(Default)]
pub(super) struct Leases {
    /// There are, or have been, some.
    any: AtomicBool,
    leased: Mutex<Option<Arc<Leased>>>,
}

#[derive(Default)]
struct Leased {
    leases: Mutex<Vec<Lease>>,
    /// Woken when one has gone or become less.
    changed: WaitQueue,
}

struct Lease {
    /// The open file that it belongs to, by address.
    file: usize,
    kind: LeaseKind,
    /// Who is told, and with which descriptor.
    io: Arc<AsyncIo>,
    fd: i32,
    breaking: Option<Breaking>,
}

/// Somebody waits for a lease to become less.
#[derive(Clone, Copy)]
struct Breaking {
    /// What may be left of it.
    to: Option<LeaseKind>,
    /// When it becomes so by itself (CLOCK_MONOTONIC, nanoseconds).
    at: u64,
}

impl Lease {
    /// Whether it keeps an open away that would write, or only read.
    fn conflicts(&self, write: bool) -> bool {
        write || self.kind == LeaseKind::Write
    }

    /// What it is, or is about to become.
    fn told(&self) -> Option<LeaseKind> {
        self.breaking.map_or(Some(self.kind), |breaking| breaking.to)
    }
}

impl Leased {
    /// Ends what has had its time.
    fn expire(&self, leases: &mut Vec<Lease>) {
        let now = host::monotonic_ns();
        let due = |lease: &Lease| lease.breaking.filter(|breaking| breaking.at <= now);
        let mut changed = false;
        leases.retain(|lease| {
            let stays = due(lease).is_none_or(|breaking| breaking.to.is_some());
            if !stays {
                lease.io.forget();
                changed = true;
            }
            stays
        });
        for lease in leases.iter_mut() {
            if let Some(Breaking { to: Some(kind), .. }) = due(lease) {
                (lease.kind, lease.breaking, changed) = (kind, None, true);
            }
        }
        if changed {
            self.changed.wake_all();
        }
    }
}

impl Leases {
    fn get(&self) -> Option<Arc<Leased>> {
        if self.any.load(Ordering::Acquire) { self.leased.lock().clone() } else { None }
    }

    fn get_or_new(&self) -> Arc<Leased> {
        self.any.store(true, Ordering::SeqCst);
        self.leased.lock().get_or_insert_default().clone()
    }

    /// An open file is gone, by address.
    pub(super) fn release(&self, file: usize) {
        let Some(leased) = self.get() else { return };
        let mut leases = leased.leases.lock();
        let gone = leases.iter().position(|lease| lease.file == file).map(|at| leases.swap_remove(at));
        drop(leases);
        if let Some(lease) = gone {
            lease.io.forget();
        }
        leased.changed.wake_all();
    }
}

impl File {
    /// `fcntl(F_SETLEASE)` with the descriptor `fd` of the file: takes a lease, or changes the one that there is.
    ///
    /// # Errors
    /// `EACCES` for another one's file, `EINVAL` for what is no regular file, `EAGAIN` while others use it.
    pub fn set_lease(self: &Arc<Self>, ctx: &Ctx, fd: i32, kind: LeaseKind) -> Result<()> {
        let Some(common) = self.check_lease(ctx)? else { bail!(EINVAL) };
        if ctx.kernel.settings.leases_enable.get() == 0 {
            bail!(EINVAL, "fs.leases-enable");
        }
        let io = self.async_io_for(ctx);
        let read_elsewhere = kind == LeaseKind::Write && self.is_read_elsewhere(ctx);
        let leased = common.leases.get_or_new();
        let mut leases = leased.leases.lock();
        leased.expire(&mut leases);
        let writers = match kind {
            LeaseKind::Read => 0,
            LeaseKind::Write => i32::from(self.flags().writable()),
        };
        // A program that is being executed has readers, too, though none with a descriptor.
        let executed = kind == LeaseKind::Write && common.writers() < 0;
        if read_elsewhere || executed || common.writers() > writers {
            bail!(EAGAIN, "the file is open");
        }
        let me = Arc::as_ptr(self) as usize;
        let mut others = leases.iter().filter(|lease| lease.file != me);
        if others.any(|lease| kind == LeaseKind::Write || lease.breaking.is_some_and(|breaking| breaking.to.is_none()))
        {
            bail!(EAGAIN, "somebody else has a lease");
        }
        match leases.iter_mut().find(|lease| lease.file == me) {
            Some(lease) => {
                (lease.kind, lease.fd) = (kind, fd);
                // Who waits for less of it goes on waiting until there is less, or its time is over.
                if kind == LeaseKind::Read {
                    lease.breaking = lease.breaking.filter(|breaking| breaking.to.is_none());
                }
            }
            None => {
                // Before anybody could want it back.
                io.own(ctx);
                leases.push(Lease { file: me, kind, io, fd, breaking: None });
            }
        }
        drop(leases);
        self.note_lock();
        leased.changed.wake_all();
        Ok(())
    }

    /// `fcntl(F_SETLEASE, F_UNLCK)`: gives the lease back.
    ///
    /// # Errors
    /// As [`File::set_lease`]; `EAGAIN` if there is none.
    pub fn end_lease(self: &Arc<Self>, ctx: &Ctx) -> Result<()> {
        let me = Arc::as_ptr(self) as usize;
        let common = self.check_lease(ctx)?;
        match common {
            Some(common) if self.lease_of(me).is_some() => common.leases.release(me),
            _ => bail!(EAGAIN, "no lease"),
        }
        Ok(())
    }

    /// `fcntl(F_GETLEASE)`: the lease, or what it is to become.
    pub fn lease(self: &Arc<Self>) -> Option<LeaseKind> {
        self.lease_of(Arc::as_ptr(self) as usize).flatten()
    }

    /// The lease of an open file of this inode, by address.
    fn lease_of(&self, file: usize) -> Option<Option<LeaseKind>> {
        let leased = self.inode.common()?.leases.get()?;
        let mut leases = leased.leases.lock();
        leased.expire(&mut leases);
        leases.iter().find(|lease| lease.file == file).map(Lease::told)
    }

    fn check_lease(&self, ctx: &Ctx) -> Result<Option<&InodeCommon>> {
        let creds = ctx.creds();
        if creds.fsuid != self.inode.attr()?.uid && !creds.capable(Capabilities::LEASE) {
            bail!(EACCES);
        }
        if self.inode.file_type() != FileType::Regular {
            bail!(EINVAL, "no regular file");
        }
        Ok(self.inode.common())
    }

    /// Whether somebody has the file open to read it, by another open file than this one. Nobody counts those, since it is asked rarely.
    fn is_read_elsewhere(self: &Arc<Self>, ctx: &Ctx) -> bool {
        let is_other = |other: &Arc<File>| {
            Arc::ptr_eq(&other.inode, &self.inode) && !Arc::ptr_eq(other, self) && !other.flags().writable()
        };
        ctx.kernel.tasks.processes().iter().any(|process| {
            let threads = process.inner.lock().threads.clone();
            threads.iter().any(|task| {
                let files = task.files();
                files.descriptors().into_iter().filter_map(|fd| files.get(fd).ok()).any(|file| is_other(&file))
            })
        })
    }
}

impl dyn Inode {
    /// Makes way for who is about to open or cut the file: has the leases that are in the way told, and waits until they are gone.
    ///
    /// # Errors
    /// `EWOULDBLOCK` with `nonblocking`, though the holders are told; `ERESTARTSYS` for a signal.
    pub(super) fn break_leases(&self, ctx: &Ctx, write: bool, nonblocking: bool) -> Result<()> {
        const SECOND: u64 = 1_000_000_000;
        let Some(leased) = self.common().and_then(|common| common.leases.get()) else { return Ok(()) };
        loop {
            let mut leases = leased.leases.lock();
            leased.expire(&mut leases);
            // 0 is as long as it takes.
            let time = match ctx.kernel.settings.lease_break_time.get() {
                0 => u64::MAX,
                seconds => host::monotonic_ns().saturating_add(seconds * SECOND),
            };
            let (mut soonest, mut told) = (None::<u64>, Vec::new());
            for lease in leases.iter_mut().filter(|lease| lease.conflicts(write)) {
                let to = if write { None } else { Some(LeaseKind::Read) };
                match &mut lease.breaking {
                    Some(breaking) if breaking.to.is_none() || !write => {}
                    breaking => {
                        *breaking = Some(Breaking { to, at: time });
                        told.push((lease.io.clone(), lease.fd));
                    }
                }
                let at = lease.breaking.map_or(time, |breaking| breaking.at);
                soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
            }
            drop(leases);
            told.iter().for_each(|(io, fd)| io.tell_of_break(*fd));
            let Some(soonest) = soonest else { return Ok(()) };
            if nonblocking {
                bail!(EAGAIN, "there is a lease on the file");
            }
            let free = || leased.leases.lock().iter().all(|lease| !lease.conflicts(write)).then_some(());
            ctx.wait(&leased.changed, Some(soonest), free)?;
        }
    }
}
