//! Message queues (`msgget(2)`).

use super::{IPC_NOWAIT, Ipc, Object, Perm, now};
use crate::bail;
use crate::errno::{Errno, Error, Result};
use crate::kernel::Ctx;
use crate::sync::{Mutex, WaitQueue};
use crate::task::Capabilities;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// `MSG_NOERROR`: a message that is too long is cut.
const CUT: i32 = 0o10000;
/// `MSG_EXCEPT`: any but those of the type.
const EXCEPT: i32 = 0o20000;
/// `MSG_COPY`: the message stays in the queue; the type is its place.
const COPY: i32 = 0o40000;

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its type, above 0.
    pub kind: i64,
    /// What it says.
    pub text: Vec<u8>,
}

/// A queue.
pub struct Queue {
    state: Mutex<State>,
    /// Woken when there is a message more, or a message less.
    more: WaitQueue,
    less: WaitQueue,
}

struct State {
    status: Status,
    messages: VecDeque<Message>,
    removed: bool,
}

/// What `msgctl(2)` tells of a queue (`struct msqid_ds`); times in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Owner and mode.
    pub perm: Perm,
    /// When a message was last sent, received; when it was made or changed.
    pub sent: i64,
    /// See there.
    pub received: i64,
    /// See there.
    pub changed: i64,
    /// Bytes in it.
    pub bytes: u64,
    /// Messages in it.
    pub count: u64,
    /// Bytes that it takes.
    pub most: u64,
    /// Who sent and received last.
    pub sender: i32,
    /// See there.
    pub receiver: i32,
}

impl Object for Queue {
    fn perm(&self) -> Perm {
        self.state.lock().status.perm
    }
}

impl Queue {
    /// What `msgctl(2)` tells.
    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    fn wake_all(&self) {
        self.more.wake_all();
        self.less.wake_all();
    }
}

impl State {
    fn has_room(&self, len: u64) -> bool {
        let Status { bytes, count, most, .. } = self.status;
        bytes + len <= most && count < most
    }

    /// The place of the message that a receiver wants.
    fn find(&self, kind: i64, flags: i32) -> Option<usize> {
        let mut messages = self.messages.iter();
        match kind {
            place if flags & COPY != 0 => usize::try_from(place).ok().filter(|place| *place < self.messages.len()),
            0 => (!self.messages.is_empty()).then_some(0),
            kind if kind < 0 => {
                let fits = messages.enumerate().filter(|(_, message)| message.kind <= kind.saturating_neg());
                // Of the lowest type the first.
                fits.min_by_key(|(place, message)| (message.kind, *place)).map(|(place, _)| place)
            }
            kind => messages.position(|message| (message.kind == kind) == (flags & EXCEPT == 0)),
        }
    }
}

/// `msgget(2)`.
pub fn get(ctx: &Ctx, key: i32, flags: i32) -> Result<i32> {
    let Ipc { limits, msg, .. } = ctx.ipc();
    let make = |perm| {
        let status = Status {
            perm,
            sent: 0,
            received: 0,
            changed: now(),
            bytes: 0,
            count: 0,
            most: limits.msgmnb.get(),
            sender: 0,
            receiver: 0,
        };
        let state = State { status, messages: VecDeque::new(), removed: false };
        Ok(Queue { state: Mutex::new(state), more: WaitQueue::new(), less: WaitQueue::new() })
    };
    msg.get((key, flags), ctx.creds(), limits.msgmni.get(), |_| Ok(()), make)
}

/// A queue's state for a caller who may read (or, with 0o222, write) it.
fn open<'a>(queue: &'a Queue, ctx: &Ctx, wanted: u32) -> Result<crate::sync::MutexGuard<'a, State>> {
    let state = queue.state.lock();
    if state.removed {
        bail!(EIDRM);
    }
    state.status.perm.check(ctx.creds(), wanted)?;
    Ok(state)
}

/// Interrupted waits go on unless a handler ran, which has them fail (`signal(7)`).
fn interrupted(error: Error) -> Error {
    if error.errno == Errno::ERESTARTSYS { Errno::ERESTARTNOHAND.into() } else { error }
}

/// `msgsnd(2)`.
pub fn send(ctx: &Ctx, id: i32, message: Message, flags: i32) -> Result<()> {
    let queue = ctx.ipc().msg.find(id)?;
    let len = message.text.len() as u64;
    let mut message = Some(message);
    let mut attempt = || -> Option<Result<()>> {
        let mut state = match open(&queue, ctx, 0o222) {
            Ok(state) => state,
            Err(e) => return Some(Err(e)),
        };
        if !state.has_room(len) {
            return (flags & IPC_NOWAIT != 0).then(|| Err(Errno::EAGAIN.into()));
        }
        state.messages.extend(message.take());
        state.status.bytes += len;
        state.status.count += 1;
        state.status.sent = now();
        state.status.sender = ctx.task.process.pid;
        Some(Ok(()))
    };
    ctx.wait(&queue.less, None, &mut attempt).map_err(interrupted)?.unwrap_or(Ok(()))?;
    queue.more.wake_all();
    Ok(())
}

/// `msgrcv(2)`: a message of at most `most` bytes.
pub fn receive(ctx: &Ctx, id: i32, most: usize, kind: i64, flags: i32) -> Result<Message> {
    if flags & COPY != 0 && (flags & EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        bail!(EINVAL, "MSG_COPY looks at one place and does not wait");
    }
    let queue = ctx.ipc().msg.find(id)?;
    let attempt = || -> Option<Result<Message>> {
        let mut state = match open(&queue, ctx, 0o444) {
            Ok(state) => state,
            Err(e) => return Some(Err(e)),
        };
        let Some(place) = state.find(kind, flags) else {
            return (flags & IPC_NOWAIT != 0).then(|| Err(Errno::ENOMSG.into()));
        };
        let len = state.messages[place].text.len();
        if len > most && flags & CUT == 0 {
            return Some(Err(Errno::E2BIG.into()));
        }
        if flags & COPY != 0 {
            return Some(Ok(state.messages[place].clone()));
        }
        let message = state.messages.remove(place)?;
        state.status.bytes -= len as u64;
        state.status.count -= 1;
        state.status.received = now();
        state.status.receiver = ctx.task.process.pid;
        Some(Ok(message))
    };
    let got = ctx.wait(&queue.more, None, attempt).map_err(interrupted)?;
    let mut message = got.unwrap_or(Err(Errno::ENOMSG.into()))?;
    message.text.truncate(most);
    queue.less.wake_all();
    Ok(message)
}

/// Takes an owner, a mode and how many bytes the queue takes (`IPC_SET`).
pub fn set(ctx: &Ctx, id: i32, (uid, gid, mode): (u32, u32, u32), most: u64) -> Result<()> {
    let Ipc { limits, msg, .. } = ctx.ipc();
    let queue = msg.find(id)?;
    let creds = ctx.creds();
    let mut state = queue.state.lock();
    state.status.perm.check_owner(creds)?;
    if most > limits.msgmnb.get() && !creds.capable(Capabilities::SYS_RESOURCE) {
        bail!(EPERM, "more than msgmnb");
    }
    state.status.perm.set(uid, gid, mode);
    state.status.most = most;
    state.status.changed = now();
    drop(state);
    // Rights and room may be others now.
    queue.wake_all();
    Ok(())
}

/// Removes a queue; who waits for it hears of that (`IPC_RMID`).
pub fn remove(ctx: &Ctx, id: i32) -> Result<()> {
    let table = &ctx.ipc().msg;
    let queue = table.find(id)?;
    let mut state = queue.state.lock();
    state.status.perm.check_owner(ctx.creds())?;
    state.removed = true;
    drop(state);
    table.remove(id);
    queue.wake_all();
    Ok(())
}

/// Messages of all queues, and their bytes.
pub fn totals(ipc: &Ipc) -> (u64, u64) {
    let all = ipc.msg.all().into_iter().map(|queue| queue.status());
    all.fold((0, 0), |(count, bytes), status| (count + status.count, bytes + status.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tmpfs_machine;

    #[test]
    fn receivers_choose_by_type() {
        let machine = tmpfs_machine();
        let task = machine.task();
        let ctx = machine.ctx(&task);
        let id = get(&ctx, 0, 0o600).unwrap();
        for (kind, text) in [(5, "five"), (3, "three"), (7, "seven"), (3, "another")] {
            send(&ctx, id, Message { kind, text: text.as_bytes().to_vec() }, IPC_NOWAIT).unwrap();
        }
        let take = |kind, flags| {
            let got = receive(&ctx, id, 100, kind, flags | IPC_NOWAIT);
            got.map(|message| message.text).map_err(|e| e.errno)
        };
        assert_eq!(take(2, COPY), Ok(b"seven".to_vec()));
        assert_eq!(take(4, COPY), Err(Errno::ENOMSG));
        assert_eq!(take(-4, 0), Ok(b"three".to_vec()));
        assert_eq!(take(5, EXCEPT), Ok(b"seven".to_vec()));
        assert_eq!(take(7, 0), Err(Errno::ENOMSG));
        assert_eq!(receive(&ctx, id, 2, 0, 0).map(drop), Err(Errno::E2BIG.into()));
        assert_eq!(receive(&ctx, id, 2, 0, CUT).unwrap().text, b"fi");
        assert_eq!((take(0, 0), take(0, 0)), (Ok(b"another".to_vec()), Err(Errno::ENOMSG)));
        let Status { bytes, count, .. } = ctx.ipc().msg.find(id).unwrap().status();
        assert_eq!((bytes, count), (0, 0));
    }

    #[test]
    fn a_full_queue_takes_nothing_more() {
        let machine = tmpfs_machine();
        let task = machine.task();
        let ctx = machine.ctx(&task);
        let id = get(&ctx, 0, 0o600).unwrap();
        let put = |len: usize| send(&ctx, id, Message { kind: 1, text: alloc::vec![0; len] }, IPC_NOWAIT).is_ok();
        assert!(put(8192) && put(8192) && !put(1) && put(0));
        receive(&ctx, id, 8192, 0, 0).unwrap();
        assert!(put(1));
        remove(&ctx, id).unwrap();
        assert!(!put(1));
    }
}
