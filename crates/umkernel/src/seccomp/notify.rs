//! `SECCOMP_RET_USER_NOTIF`: a task's call waits until a supervisor, who has the filter's listener, has decided about it
//! (seccomp_unotify(2)).
//!
//! The call is a *notification* on the listener's list until it has been answered: new, then taken by the supervisor, then answered. A
//! signal takes the task away from it, unless the filter says that only a fatal one may once it has been taken. Descriptors that the
//! supervisor gives to the task are installed by the task itself, which is woken for that.

use super::bpf::Data;
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::mm::PAGE_SIZE;
use crate::signal;
use crate::sync::{Mutex, PollTable, WaitQueue, Wake};
use crate::task::Pid;
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;

/// Bytes of `struct seccomp_notif`.
pub const NOTIFICATION_SIZE: usize = 16 + Data::SIZE as usize;
/// Bytes of `struct seccomp_notif_resp`.
pub const RESPONSE_SIZE: usize = 24;
/// Bytes of the first version of `struct seccomp_notif_addfd`, the only one.
const ADDFD_SIZE: usize = 24;

/// Requests of `ioctl(2)` (`linux/seccomp.h`).
mod request {
    pub(super) const RECV: u32 = 0xc050_2100;
    pub(super) const SEND: u32 = 0xc018_2101;
    pub(super) const ID_VALID: u32 = 0x4008_2102;
    /// As it was defined at first, with the direction mistaken.
    pub(super) const ID_VALID_ONCE: u32 = 0x8008_2102;
    pub(super) const SET_FLAGS: u32 = 0x4008_2104;
    /// Whatever size its structure has.
    pub(super) const ADDFD: u32 = 0x2103;
    /// Magic and number of a request.
    pub(super) const KIND: u32 = 0xffff;

    /// Bytes of a request's structure.
    pub(super) fn size(request: u32) -> usize {
        (request >> 16 & 0x3fff) as usize
    }
}

/// Flags of a response, of a descriptor that is given, and of the listener (`linux/seccomp.h`).
const CONTINUE: u32 = 1;
const SETFD: u32 = 1;
const SEND_TOO: u32 = 2;
const SYNC_WAKE_UP: u64 = 1;

/// What the tasks behind a filter and the filter's supervisor share.
pub(super) struct Listener {
    inner: Mutex<Inner>,
    /// Woken for the supervisor: a notification has come or was taken, or the last task has gone.
    arrivals: Arc<WaitQueue>,
    /// Woken for tasks that wait for answers, and for supervisors that wait for a task to install a descriptor.
    answers: WaitQueue,
    /// Once a call was taken, only a fatal signal interrupts it (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`).
    killable: bool,
}

struct Inner {
    /// The next notification's.
    id: u64,
    /// Somebody has the listener.
    open: bool,
    /// There are tasks behind the filter.
    used: bool,
    /// Oldest first.
    list: Vec<Notification>,
}

struct Notification {
    id: u64,
    tid: Pid,
    data: Data,
    progress: Progress,
    /// Descriptors that the task is to install, the next one last.
    gifts: Vec<Arc<Gift>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    New,
    Taken,
    Answered(Answer),
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is made.
    Goes,
    /// It is not, and this is in `rax` afterwards.
    Gives(i64),
}

impl Answer {
    const NO_SUPERVISOR: Answer = Answer::Gives(-(Errno::ENOSYS.0 as i64));
}

/// What a task finds that waits for its supervisor.
enum Look {
    /// A descriptor to install.
    Gift(Arc<Gift>),
    /// The answer.
    Answer(Answer),
    /// Neither; and whether the supervisor has taken the call.
    Nothing { taken: bool },
}

/// A descriptor for a task.
struct Gift {
    file: Arc<File>,
    /// The number that it is to have, or any.
    place: Option<u32>,
    close_on_exec: bool,
    /// Its number is the call's result.
    answers: bool,
    outcome: Mutex<Option<Result<i32>>>,
}

impl Inner {
    fn find(&mut self, id: u64) -> Option<&mut Notification> {
        self.list.iter_mut().find(|notification| notification.id == id)
    }

    /// A notification that the supervisor has taken and not answered.
    fn find_taken(&mut self, id: u64) -> Result<&mut Notification> {
        match self.find(id) {
            Some(notification) if notification.progress == Progress::Taken => Ok(notification),
            Some(_) => bail!(EINPROGRESS, "not taken yet, or answered"),
            None => bail!(ENOENT, "no call waits under this number"),
        }
    }
}

impl Listener {
    pub(super) fn new(killable: bool) -> Arc<Listener> {
        let mut first = [0; 8];
        host::getrandom(&mut first);
        let inner = Inner { id: u64::from_ne_bytes(first), open: true, used: true, list: Vec::new() };
        Arc::new(Listener { inner: Mutex::new(inner), arrivals: Arc::default(), answers: WaitQueue::new(), killable })
    }

    /// The supervisor's file.
    pub(super) fn file(self: &Arc<Self>, ctx: &Ctx) -> Arc<File> {
        let ops = ListenerFile { listener: self.clone() };
        ctx.kernel.vfs.anon_file("anon_inode:seccomp notify", Box::new(ops), OpenFlags::RDWR)
    }

    /// No task is behind the filter any more.
    pub(super) fn abandoned(&self) {
        self.inner.lock().used = false;
        self.arrivals.wake_all();
    }

    /// The supervisor has closed the listener: nobody is asked any more.
    fn close(&self) {
        let mut inner = self.inner.lock();
        inner.open = false;
        for notification in &mut inner.list {
            if !matches!(notification.progress, Progress::Answered(_)) {
                notification.progress = Progress::Answered(Answer::NO_SUPERVISOR);
            }
        }
        drop(inner);
        self.answers.wake_all();
    }

    /// Asks the supervisor about the running task's call. `None` if the call is to be made, else what comes of it.
    pub(super) fn ask(&self, ctx: &Ctx, data: Data) -> Option<Result<usize>> {
        let answer = match self.add(ctx, data) {
            Some(id) => self.wait_for_answer(ctx, id),
            None => Ok(Answer::NO_SUPERVISOR),
        };
        match answer {
            Ok(Answer::Goes) => None,
            Ok(Answer::Gives(value)) => Some(Ok(value as usize)),
            Err(e) => Some(Err(e)),
        }
    }

    /// Puts the running task's call on the list; `None` without a supervisor.
    fn add(&self, ctx: &Ctx, data: Data) -> Option<u64> {
        let mut inner = self.inner.lock();
        if !inner.open {
            return None;
        }
        let id = inner.id;
        inner.id = id.wrapping_add(1);
        inner.list.push(Notification { id, tid: ctx.task.tid(), data, progress: Progress::New, gifts: Vec::new() });
        drop(inner);
        self.arrivals.wake_all();
        Some(id)
    }

    fn wait_for_answer(&self, ctx: &Ctx, id: u64) -> Result<Answer> {
        let sleeper = ctx.task.waiter.clone() as Arc<dyn Wake>;
        self.answers.add(sleeper.clone());
        let mut last_gift = None;
        let answer = loop {
            ctx.task.waiter.prepare();
            let taken = match self.look(id) {
                Look::Gift(gift) => match gift.install(ctx) {
                    Ok(fd) if gift.answers => {
                        last_gift = Some((gift, fd));
                        break Ok(Answer::Gives(fd.into()));
                    }
                    outcome => {
                        self.installed(id, &gift, outcome);
                        continue;
                    }
                },
                Look::Answer(answer) => break Ok(answer),
                Look::Nothing { taken } => taken,
            };
            let interrupted = match self.killable && taken {
                true => signal::is_fatal_pending(ctx),
                false => ctx.task.signal_pending(),
            };
            if interrupted {
                break Err(Errno::ERESTARTSYS.into());
            }
            ctx.task.sleep(None);
        };
        self.answers.remove(&sleeper);
        self.remove(id);
        // Who hears of it finds no call any more.
        if let Some((gift, fd)) = last_gift {
            *gift.outcome.lock() = Some(Ok(fd));
        }
        self.answers.wake_all();
        answer
    }

    /// The running task waits no longer: takes its notification off the list.
    fn remove(&self, id: u64) {
        let mut inner = self.inner.lock();
        let place = inner.list.iter().position(|notification| notification.id == id);
        let notification = place.map(|place| inner.list.remove(place));
        drop(inner);
        for gift in notification.into_iter().flat_map(|notification| notification.gifts) {
            *gift.outcome.lock() = Some(Err(Errno::ESRCH.into()));
        }
    }

    /// What there is for the task of a notification: descriptors come before the answer, which may be the number of one.
    fn look(&self, id: u64) -> Look {
        let mut inner = self.inner.lock();
        let Some(notification) = inner.find(id) else { return Look::Nothing { taken: false } };
        match (notification.gifts.pop(), notification.progress) {
            (Some(gift), _) => Look::Gift(gift),
            (None, Progress::Answered(answer)) => Look::Answer(answer),
            (None, progress) => Look::Nothing { taken: progress == Progress::Taken },
        }
    }

    /// The running task has installed a descriptor, or could not: if that was to be the answer, the supervisor may try another one.
    fn installed(&self, id: u64, gift: &Gift, outcome: Result<i32>) {
        if gift.answers
            && let Some(notification) = self.inner.lock().find(id)
        {
            notification.progress = Progress::Taken;
        }
        *gift.outcome.lock() = Some(outcome);
        self.answers.wake_all();
    }

    /// `SECCOMP_IOCTL_NOTIF_RECV`: waits for a call and takes it.
    fn receive(&self, ctx: &Ctx, addr: u64) -> Result<usize> {
        let room: [u8; NOTIFICATION_SIZE] = ctx.read_val(addr)?;
        if room.iter().any(|byte| *byte != 0) {
            bail!(EINVAL, "the structure is to be zero");
        }
        let taken = ctx.wait_for(&self.arrivals, || {
            let mut inner = self.inner.lock();
            let used = inner.used;
            let new = inner.list.iter_mut().find(|notification| notification.progress == Progress::New);
            match new {
                Some(notification) => {
                    notification.progress = Progress::Taken;
                    Some(Some((notification.id, notification.tid, notification.data)))
                }
                None if used => None,
                None => Some(None),
            }
        })?;
        let Some((id, tid, data)) = taken else { bail!(ENOENT, "nobody is left to ask") };
        self.arrivals.wake_all();
        let mut bytes = Vec::with_capacity(NOTIFICATION_SIZE);
        bytes.extend(id.to_ne_bytes());
        bytes.extend(tid.to_ne_bytes());
        // No flags are defined.
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(data.bytes());
        if let Err(e) = ctx.write_user(addr, &bytes) {
            // The call is there for the next who asks.
            if let Ok(notification) = self.inner.lock().find_taken(id) {
                notification.progress = Progress::New;
            }
            // The task may be interrupted again.
            self.answers.wake_all();
            self.arrivals.wake_all();
            return Err(e);
        }
        Ok(0)
    }

    /// `SECCOMP_IOCTL_NOTIF_SEND`: answers a call.
    fn answer(&self, ctx: &Ctx, addr: u64) -> Result<usize> {
        // struct seccomp_notif_resp: id, val, error and flags.
        let [id, value, rest]: [u64; RESPONSE_SIZE / 8] = ctx.read_val(addr)?;
        let (error, flags) = (rest as i32, (rest >> 32) as u32);
        if flags & !CONTINUE != 0 || flags & CONTINUE != 0 && (error != 0 || value != 0) {
            bail!(EINVAL, "unknown flag, or a result for a call that is made");
        }
        let answer = match (flags, error) {
            (CONTINUE, _) => Answer::Goes,
            (_, 0) => Answer::Gives(value as i64),
            (_, error) => Answer::Gives(error.into()),
        };
        self.inner.lock().find_taken(id)?.progress = Progress::Answered(answer);
        self.answers.wake_all();
        Ok(0)
    }

    /// `SECCOMP_IOCTL_NOTIF_ID_VALID`: whether a call that was taken still waits.
    fn is_valid(&self, ctx: &Ctx, addr: u64) -> Result<usize> {
        let id = ctx.read_val(addr)?;
        if self.inner.lock().find_taken(id).is_err() {
            bail!(ENOENT, "no call waits under this number");
        }
        Ok(0)
    }

    /// `SECCOMP_IOCTL_NOTIF_ADDFD`: gives the task a descriptor, and waits until it has it. Returns its number there.
    fn give(&self, ctx: &Ctx, addr: u64, size: usize) -> Result<usize> {
        if !(ADDFD_SIZE..PAGE_SIZE as usize).contains(&size) {
            bail!(EINVAL, "the structure's size");
        }
        let mut bytes = vec![0; size];
        ctx.read_user(addr, &mut bytes)?;
        let (known, rest) = bytes.split_at(ADDFD_SIZE);
        if rest.iter().any(|byte| *byte != 0) {
            bail!(E2BIG, "fields of a later version");
        }
        // struct seccomp_notif_addfd: id, flags, srcfd, newfd and newfd_flags.
        let word = |at: usize| u32::from_ne_bytes(core::array::from_fn(|i| known[at + i]));
        let id = u64::from(word(0)) | u64::from(word(4)) << 32;
        let (flags, source, place, new_flags) = (word(8), word(12), word(16), word(20));
        let cloexec = OpenFlags::CLOEXEC.bits();
        if new_flags & !cloexec != 0 || flags & !(SETFD | SEND_TOO) != 0 || place != 0 && flags & SETFD == 0 {
            bail!(EINVAL, "unknown flags, or a number without its flag");
        }
        let gift = Arc::new(Gift {
            file: ctx.files().get(source as i32)?,
            place: (flags & SETFD != 0).then_some(place),
            close_on_exec: new_flags & cloexec != 0,
            answers: flags & SEND_TOO != 0,
            outcome: Mutex::new(None),
        });
        self.add_gift(id, &gift)?;
        self.answers.wake_all();
        let installed = ctx.wait_for(&self.answers, || *gift.outcome.lock());
        match installed {
            Ok(outcome) => outcome.map(|fd| fd as usize),
            Err(e) => {
                self.take_back(id, &gift);
                // It may have been installed meanwhile.
                let outcome = *gift.outcome.lock();
                outcome.unwrap_or(Err(e)).map(|fd| fd as usize)
            }
        }
    }

    fn add_gift(&self, id: u64, gift: &Arc<Gift>) -> Result<()> {
        let mut inner = self.inner.lock();
        let notification = inner.find_taken(id)?;
        if gift.answers && !notification.gifts.is_empty() {
            bail!(EBUSY, "descriptors are on their way");
        }
        if gift.answers {
            // There is one answer only, which the task completes.
            notification.progress = Progress::Answered(Answer::Gives(0));
        }
        notification.gifts.push(gift.clone());
        Ok(())
    }

    fn take_back(&self, id: u64, gift: &Arc<Gift>) {
        if let Some(notification) = self.inner.lock().find(id) {
            notification.gifts.retain(|other| !Arc::ptr_eq(other, gift));
        }
    }
}

impl Gift {
    /// Gives the file a descriptor of the running task's.
    fn install(&self, ctx: &Ctx) -> Result<i32> {
        let Some(place) = self.place else { return ctx.install(self.file.clone(), self.close_on_exec) };
        let limit = ctx.task.process.limit(linux_raw_sys::general::RLIMIT_NOFILE as usize);
        if u64::from(place) >= limit {
            bail!(EBADF, "RLIMIT_NOFILE");
        }
        let files = ctx.files();
        if let Some(replaced) = files.replace(ctx, place as usize, self.file.clone(), self.close_on_exec) {
            files.closed(&replaced);
            if let Some(ops) = &replaced.ops {
                // As dup2(2), which says nothing of what it closes.
                let _ = ops.flush(ctx, &replaced);
            }
        }
        Ok(place as i32)
    }
}

/// The supervisor's open file.
struct ListenerFile {
    listener: Arc<Listener>,
}

impl FileOps for ListenerFile {
    fn ioctl(&self, ctx: &Ctx, _file: &File, cmd: u32, arg: u64) -> Result<usize> {
        match cmd {
            request::RECV => self.listener.receive(ctx, arg),
            request::SEND => self.listener.answer(ctx, arg),
            request::ID_VALID | request::ID_VALID_ONCE => self.listener.is_valid(ctx, arg),
            // Who is woken runs when the host lets it: there is nothing to choose.
            request::SET_FLAGS if arg & !SYNC_WAKE_UP == 0 => Ok(0),
            _ if cmd & request::KIND == request::ADDFD => self.listener.give(ctx, arg, request::size(cmd)),
            _ => bail!(EINVAL, "no request of a seccomp listener"),
        }
    }

    fn poll(&self, _ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.listener.arrivals);
        }
        let inner = self.listener.inner.lock();
        let any = |progress: Progress| inner.list.iter().any(|notification| notification.progress == progress);
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, any(Progress::New));
        events.set(PollEvents::OUT | PollEvents::WRNORM, any(Progress::Taken));
        events.set(PollEvents::HUP, !inner.used);
        events
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for ListenerFile {
    fn drop(&mut self) {
        self.listener.close();
    }
}
