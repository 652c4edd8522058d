//! Signals that tell of a file's readiness (`O_ASYNC`, `fcntl(F_SETOWN)`, `F_SETSIG`).
//!
//! A file's [`AsyncIo`] is put on the queues that a poll of the file would sleep on: what wakes them sends the signal.

use super::{File, PollEvents};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::signal::number::SIGIO;
use crate::signal::{self, SigDetail, SigInfo, code};
use crate::sync::{Mutex, PollTable, Wake};
use crate::task::{Creds, Pid, Task};
use alloc::sync::{Arc, Weak};

/// Who is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    #[default]
    Nobody,
    /// A thread.
    Thread(Pid),
    /// A process.
    Process(Pid),
    /// A process group.
    Group(Pid),
}

/// Who is told, and how; and in whose name.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    owner: Owner,
    /// Real and effective user of who has set the owner: they must be allowed to send it signals.
    ids: (u32, u32),
    /// Instead of `SIGIO`, with the reason (`F_SETSIG`).
    signal: u8,
}

/// What a file has of it once anything of it was asked for.
pub struct AsyncIo {
    shared: Arc<Shared>,
    /// Where it hears of changes, while `O_ASYNC` is set.
    heard: Mutex<Option<PollTable>>,
}

/// What those who wake queues see of it: nothing that would leave a queue when it goes.
struct Shared {
    kernel: Weak<Kernel>,
    how: Mutex<How>,
}

/// One direction of a file.
struct Teller {
    shared: Arc<Shared>,
    fd: i32,
    output: bool,
}

impl Wake for Teller {
    fn wake(&self) {
        let (why, band) = if self.output {
            (code::POLL_OUT, PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND)
        } else {
            (code::POLL_IN, PollEvents::IN | PollEvents::RDNORM)
        };
        self.shared.tell(self.fd, why, band.bits());
    }
}

impl AsyncIo {
    pub(super) fn new(kernel: &Arc<Kernel>) -> Arc<AsyncIo> {
        let shared = Arc::new(Shared { kernel: Arc::downgrade(kernel), how: Mutex::default() });
        Arc::new(AsyncIo { shared, heard: Mutex::default() })
    }

    /// Who is told.
    pub fn owner(&self) -> Owner {
        self.shared.how.lock().owner
    }

    /// Says who is told, in the running task's name.
    ///
    /// # Errors
    /// `ESRCH` when there is no such thread, process or group.
    pub fn set_owner(&self, ctx: &Ctx, owner: Owner) -> Result<()> {
        let tasks = &ctx.kernel.tasks;
        let exists = match owner {
            Owner::Nobody => true,
            Owner::Thread(tid) => tasks.task(tid).is_some(),
            Owner::Process(pid) => tasks.process(pid).is_some() || tasks.task(pid).is_some(),
            Owner::Group(pgid) => !tasks.group(pgid).is_empty(),
        };
        if !exists {
            return Err(Errno::ESRCH.into());
        }
        let creds = ctx.creds();
        let mut how = self.shared.how.lock();
        (how.owner, how.ids) = (owner, (creds.uid, creds.euid));
        Ok(())
    }

    /// Has the running task's process told, unless it is said who is.
    pub(super) fn own(&self, ctx: &Ctx) {
        let creds = ctx.creds();
        let mut how = self.shared.how.lock();
        if how.owner == Owner::Nobody {
            (how.owner, how.ids) = (Owner::Process(ctx.task.process.pid), (creds.uid, creds.euid));
        }
    }

    /// The signal (`F_GETSIG`), 0 for `SIGIO` without a reason.
    pub fn signal(&self) -> u8 {
        self.shared.how.lock().signal
    }

    /// Sets it (`F_SETSIG`).
    ///
    /// # Errors
    /// `EINVAL` for what is no signal.
    pub fn set_signal(&self, signal: u64) -> Result<()> {
        if signal > u64::from(signal::number::SIGRTMAX) {
            bail!(EINVAL);
        }
        self.shared.how.lock().signal = signal as u8;
        Ok(())
    }

    /// A lease on the file is gone, and with it who is told and by which signal (`lease_modify` of Linux).
    pub(super) fn forget(&self) {
        *self.shared.how.lock() = How::default();
    }

    /// Tells that somebody wants a lease on the file back (`F_SETLEASE`).
    pub(super) fn tell_of_break(&self, fd: i32) {
        /// `POLLMSG`, which is for nothing else.
        const MESSAGE: u32 = 0x400;
        self.shared.tell(fd, code::POLL_MSG, (PollEvents::IN | PollEvents::RDNORM).bits() | MESSAGE);
    }

    /// Begins to tell, with `fd` as the descriptor that signals name; or ends.
    pub(super) fn switch(&self, ctx: &Ctx, file: &File, fd: i32, on: bool) {
        let Some(ops) = file.ops.as_ref().filter(|ops| ops.signals()) else { return };
        let old = self.heard.lock().take();
        // Not under the lock: it takes those of the queues, which are held while they wake.
        drop(old);
        if on {
            let teller = |output| -> Arc<dyn Wake> { Arc::new(Teller { shared: self.shared.clone(), fd, output }) };
            let mut table = PollTable::directed(teller(false), teller(true));
            ops.poll(ctx, file, Some(&mut table));
            *self.heard.lock() = Some(table);
        }
    }
}

impl Shared {
    /// Sends the signal: with `F_SETSIG`, it says why and what could be done.
    fn tell(&self, fd: i32, why: i32, band: u32) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        let how = *self.how.lock();
        let info = match how.signal {
            0 => SigInfo::kernel(SIGIO),
            signo => {
                SigInfo { code: why, detail: SigDetail::Poll { band: i64::from(band), fd }, ..SigInfo::kernel(signo) }
            }
        };
        let allowed = |task: &Task| may_tell(how.ids, &task.creds());
        // Who has ended needs no signal.
        match how.owner {
            Owner::Nobody => {}
            Owner::Thread(tid) => {
                if let Some(task) = kernel.tasks.task(tid).filter(|task| allowed(task)) {
                    let _ = signal::send_to_task(&kernel, &task, info);
                }
            }
            Owner::Process(pid) => {
                if let Some(task) = kernel.tasks.task(pid).filter(|task| allowed(task)) {
                    let _ = signal::send_to_process(&kernel, &task.process, info);
                }
            }
            Owner::Group(pgid) => {
                for process in kernel.tasks.group(pgid) {
                    let first = process.inner.lock().threads.first().cloned();
                    if first.is_some_and(|task| allowed(&task)) {
                        let _ = signal::send_to_process(&kernel, &process, info);
                    }
                }
            }
        }
    }
}

/// Whether who set the owner may send it signals (`sigio_perm` of Linux).
fn may_tell((uid, euid): (u32, u32), to: &Creds) -> bool {
    euid == 0 || [uid, euid].iter().any(|id| *id == to.uid || *id == to.suid)
}
