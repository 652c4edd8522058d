//! Namespaces (`namespaces(7)`): what tasks see of the machine's names, mounts and System V objects.
//!
//! A task has a part in one namespace of each kind ([`Namespaces`]), which it shares with its children until it says otherwise: by flags of
//! `clone(2)`, by `unshare(2)`, or by `setns(2)` with a file that stands for another one ([`location`]). A namespace lives as long as a task
//! is in it or a file of it is open or mounted somewhere.
//!
//! PID, user, network, cgroup and time namespaces are not built. To guests the kernel is one that was configured without them.

mod change;
mod file;
mod uts;

pub use change::{for_child, join, unshare};
pub use file::{is_file, location, number_of_mounts};
pub use uts::{Uts, UtsNamespace};

use crate::bail;
use crate::errno::Result;
use crate::ipc::Ipc;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::task::CloneFlags;
use crate::vfs::{MountNamespace, Vfs};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Numbers of the namespaces that the machine starts in: those of Linux, where the kind has a fixed one (`linux/nsfs.h`).
const FIRST_UTS: u64 = 0xefff_fffe;
const FIRST_IPC: u64 = 0xefff_ffff;
const FIRST_MNT: u64 = 0xf000_0000;

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// System V objects.
    Ipc,
    /// Mounts.
    Mnt,
    /// Names of the machine.
    Uts,
}

impl Kind {
    /// All that are built, in the order in which `/proc/PID/ns` lists them.
    pub const ALL: [Kind; 3] = [Kind::Ipc, Kind::Mnt, Kind::Uts];

    /// Its name in `/proc/PID/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ipc => "ipc",
            Kind::Mnt => "mnt",
            Kind::Uts => "uts",
        }
    }

    /// What asks for a new one.
    pub fn flag(self) -> CloneFlags {
        match self {
            Kind::Ipc => CloneFlags::NEWIPC,
            Kind::Mnt => CloneFlags::NEWNS,
            Kind::Uts => CloneFlags::NEWUTS,
        }
    }
}

/// A namespace of any kind.
#[derive(Clone)]
pub enum Namespace {
    /// See [`Kind::Ipc`].
    Ipc(Arc<Ipc>),
    /// See [`Kind::Mnt`].
    Mnt(Arc<MountNamespace>),
    /// See [`Kind::Uts`].
    Uts(Arc<UtsNamespace>),
}

impl Namespace {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Namespace::Ipc(_) => Kind::Ipc,
            Namespace::Mnt(_) => Kind::Mnt,
            Namespace::Uts(_) => Kind::Uts,
        }
    }

    /// Its number, which no other namespace has: the inode number of its file.
    pub fn number(&self) -> u64 {
        match self {
            Namespace::Ipc(ipc) => ipc.ticket().number(),
            Namespace::Mnt(mnt) => mnt.number(),
            Namespace::Uts(uts) => uts.ticket.number(),
        }
    }

    /// What links to it show: `uts:[4026531838]`.
    pub fn text(&self) -> String {
        alloc::format!("{}:[{}]", self.kind().name(), self.number())
    }
}

/// The namespaces that a task is in (Linux: `struct nsproxy`). Replaced whole, never changed in place.
#[derive(Clone)]
pub struct Namespaces {
    /// System V objects.
    pub ipc: Arc<Ipc>,
    /// Mounts.
    pub mnt: Arc<MountNamespace>,
    /// Names of the machine.
    pub uts: Arc<UtsNamespace>,
}

impl Namespaces {
    /// The one of a kind.
    pub fn get(&self, kind: Kind) -> Namespace {
        match kind {
            Kind::Ipc => Namespace::Ipc(self.ipc.clone()),
            Kind::Mnt => Namespace::Mnt(self.mnt.clone()),
            Kind::Uts => Namespace::Uts(self.uts.clone()),
        }
    }

    fn set(&mut self, namespace: Namespace) {
        match namespace {
            Namespace::Ipc(ipc) => self.ipc = ipc,
            Namespace::Mnt(mnt) => self.mnt = mnt,
            Namespace::Uts(uts) => self.uts = uts,
        }
    }
}

/// A namespace's number, and its place among as many of its kind as there may be, which it gives back at its end.
pub struct Ticket {
    number: u64,
    living: Arc<AtomicUsize>,
}

impl Ticket {
    /// For one that is there before anybody counts.
    fn first(number: u64) -> Ticket {
        Ticket { number, living: Arc::new(AtomicUsize::new(1)) }
    }

    /// For the tree of mounts that the machine starts with.
    pub(crate) fn first_mounts() -> Ticket {
        Ticket::first(FIRST_MNT)
    }

    /// The number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What there is of namespaces in a machine.
pub struct Registry {
    /// Those that the machine starts in.
    pub initial: Arc<Namespaces>,
    next: AtomicU64,
    /// How many of each kind there are besides.
    living: [Arc<AtomicUsize>; Kind::ALL.len()],
    /// Those of System V objects besides.
    ipc: Mutex<Vec<Weak<Ipc>>>,
}

impl Registry {
    /// With the namespaces that a machine starts in.
    pub fn new(vfs: &Vfs, names: Uts) -> Registry {
        let ipc = Arc::new(Ipc::new(Ticket::first(FIRST_IPC)));
        let uts = UtsNamespace { ticket: Ticket::first(FIRST_UTS), names: Mutex::new(names) };
        Registry {
            initial: Arc::new(Namespaces { ipc, mnt: vfs.initial_namespace().clone(), uts: Arc::new(uts) }),
            next: AtomicU64::new(FIRST_MNT + 1),
            living: Default::default(),
            ipc: Mutex::new(Vec::new()),
        }
    }

    /// A ticket for one more.
    ///
    /// # Errors
    /// `ENOSPC` when there are as many of the kind as there may be: half as many as tasks, as on Linux.
    fn ticket(&self, ctx: &Ctx, kind: Kind) -> Result<Ticket> {
        let most = ctx.kernel.config.max_tasks / 2;
        let living = &self.living[kind as usize];
        let more = |count: usize| (count < most).then_some(count + 1);
        if living.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            bail!(ENOSPC, "as many namespaces as there may be");
        }
        Ok(Ticket { number: self.next.fetch_add(1, Ordering::Relaxed), living: living.clone() })
    }

    /// A new namespace without System V objects.
    fn new_ipc(&self, ticket: Ticket) -> Arc<Ipc> {
        let ipc = Arc::new(Ipc::new(ticket));
        let mut known = self.ipc.lock();
        known.retain(|ipc| ipc.strong_count() > 0);
        known.push(Arc::downgrade(&ipc));
        ipc
    }

    /// Calls `f` with each namespace of System V objects. Each process that ends does; mostly there is one.
    pub(crate) fn for_each_ipc(&self, mut f: impl FnMut(&Ipc)) {
        f(&self.initial.ipc);
        if self.living[Kind::Ipc as usize].load(Ordering::Relaxed) > 0 {
            let others: Vec<Arc<Ipc>> = self.ipc.lock().iter().filter_map(Weak::upgrade).collect();
            others.iter().for_each(|ipc| f(ipc));
        }
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
