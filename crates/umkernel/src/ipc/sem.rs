//! Semaphore sets (`semget(2)`).
//!
//! The operations of a call happen all together or not at all. A call that has to wait leaves its operations with the set; whoever
//! changes a value carries out, in the order of their coming, those that have become possible, and wakes their callers.

use super::{IPC_NOWAIT, Ipc, Object, Perm, now};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::{Ctx, Kernel};
use crate::sync::{Mutex, WaitQueue};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The largest value (`SEMVMX`).
pub const MOST: i32 = 32_767;
/// What part of the machine's memory all semaphores may take: any user can make them.
const MEMORY_PART: u64 = 16;
/// `SEM_UNDO`.
const UNDO: i32 = 0x1000;

/// One operation (`struct sembuf`).
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Which semaphore.
    pub number: usize,
    /// What is added to its value; 0 waits for 0.
    pub change: i32,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: i32,
}

/// A set.
pub struct Set {
    state: Mutex<State>,
    done: WaitQueue,
}

struct State {
    perm: Perm,
    values: Vec<Semaphore>,
    /// When it was last operated on, and made or changed.
    operated: i64,
    changed: i64,
    removed: bool,
    waiting: Vec<Arc<Waiting>>,
    /// What is added to each value when a process ends.
    undo: BTreeMap<i32, Vec<i32>>,
}

#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: i32,
    /// The process that changed it last.
    pid: i32,
}

/// What `semctl(2)` tells of a set (`struct semid_ds`); times in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Owner and mode.
    pub perm: Perm,
    /// When it was last operated on.
    pub operated: i64,
    /// When it was made or changed.
    pub changed: i64,
    /// How many semaphores it has.
    pub count: u64,
}

/// Operations that are not possible yet.
struct Waiting {
    operations: Vec<Operation>,
    pid: i32,
    /// [`PENDING`], 0 when they have been carried out, or an error's number.
    result: AtomicI32,
    /// The operation that stands in the way.
    obstacle: AtomicUsize,
}

const PENDING: i32 = -1;

/// How many sets have something to undo for a process: most processes end without looking.
#[derive(Default)]
pub(crate) struct UndoCount(AtomicUsize);

/// Whether operations are possible.
enum Attempt {
    Done,
    Blocked(usize),
    Failed(Errno),
}

impl Object for Set {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
}

impl Set {
    /// What `semctl(2)` tells.
    pub fn status(&self) -> Status {
        let state = self.state.lock();
        let count = state.values.len() as u64;
        Status { perm: state.perm, operated: state.operated, changed: state.changed, count }
    }

    /// Its state for a caller who may read (or, with 0o222, alter) it.
    fn open(&self, ctx: &Ctx, wanted: u32) -> Result<crate::sync::MutexGuard<'_, State>> {
        let state = self.state.lock();
        state.perm.check(ctx.creds(), wanted)?;
        if state.removed {
            bail!(EIDRM);
        }
        Ok(state)
    }
}

impl State {
    /// Carries operations out if all are possible.
    fn attempt(&mut self, operations: &[Operation], pid: i32, count: &UndoCount) -> Attempt {
        let mut values: BTreeMap<usize, i32> = BTreeMap::new();
        let mut undo: BTreeMap<usize, i32> = BTreeMap::new();
        let own = self.undo.get(&pid);
        for (at, Operation { number, change, flags }) in operations.iter().copied().enumerate() {
            let value = values.entry(number).or_insert(self.values[number].value);
            let after = *value + change;
            if change == 0 && *value != 0 || after < 0 {
                return if flags & IPC_NOWAIT != 0 { Attempt::Failed(Errno::EAGAIN) } else { Attempt::Blocked(at) };
            }
            if after > MOST {
                return Attempt::Failed(Errno::ERANGE);
            }
            if flags & UNDO != 0 {
                let kept = undo.entry(number).or_insert(own.map_or(0, |own| own[number]));
                *kept -= change;
                if *kept < -MOST - 1 || *kept > MOST {
                    return Attempt::Failed(Errno::ERANGE);
                }
            }
            *value = after;
        }
        for (number, value) in values {
            self.values[number] = Semaphore { value, pid };
        }
        if !undo.is_empty() {
            let count_of_set = self.values.len();
            let own = self.undo.entry(pid).or_insert_with(|| {
                count.0.fetch_add(1, Ordering::Relaxed);
                vec![0; count_of_set]
            });
            undo.into_iter().for_each(|(number, kept)| own[number] = kept);
        }
        self.operated = now();
        Attempt::Done
    }

    /// Carries out what has become possible. True if somebody is to be woken.
    fn serve(&mut self, count: &UndoCount) -> bool {
        let mut any = false;
        let mut at = 0;
        while let Some(one) = self.waiting.get(at).cloned() {
            match self.attempt(&one.operations, one.pid, count) {
                Attempt::Blocked(obstacle) => {
                    one.obstacle.store(obstacle, Ordering::Relaxed);
                    at += 1;
                    continue;
                }
                Attempt::Failed(e) => one.result.store(i32::from(e.0), Ordering::SeqCst),
                Attempt::Done => one.result.store(0, Ordering::SeqCst),
            }
            self.waiting.remove(at);
            any = true;
            // Those before it may be possible now.
            at = 0;
        }
        any
    }

    fn check_number(&self, number: usize) -> Result<()> {
        if number >= self.values.len() {
            bail!(EINVAL, "no such semaphore");
        }
        Ok(())
    }
}

/// `semget(2)`.
pub fn get(ctx: &Ctx, key: i32, count: i32, flags: i32) -> Result<i32> {
    let ipc = ctx.ipc();
    let Ipc { limits, sem, .. } = ipc;
    if count < 0 || count as u64 > limits.semmsl.get() {
        bail!(EINVAL, "a size that no set has");
    }
    let count = count as usize;
    let all = total(ipc);
    let mut everywhere = 0;
    ctx.kernel.namespaces.for_each_ipc(|ipc| everywhere += total(ipc));
    let make = |perm| {
        if count == 0 {
            bail!(EINVAL, "a set without semaphores");
        }
        if all + count as u64 > limits.semmns.get() {
            bail!(ENOSPC);
        }
        if (everywhere + count as u64) * size_of::<Semaphore>() as u64 > ctx.kernel.config.memory / MEMORY_PART {
            bail!(ENOMEM, "more of the kernel's memory than semaphores may take");
        }
        let (values, waiting, undo) = (vec![Semaphore::default(); count], Vec::new(), BTreeMap::new());
        let state = State { perm, values, operated: 0, changed: now(), removed: false, waiting, undo };
        Ok(Set { state: Mutex::new(state), done: WaitQueue::new() })
    };
    let fits = |there: &Set| if count > there.state.lock().values.len() { Err(Errno::EINVAL.into()) } else { Ok(()) };
    sem.get((key, flags), ctx.creds(), limits.semmni.get(), fits, make)
}

/// Semaphores of all sets.
pub fn total(ipc: &Ipc) -> u64 {
    ipc.sem.all().iter().map(|set| set.status().count).sum()
}

/// `semop(2)`, `semtimedop(2)` with a deadline (CLOCK_MONOTONIC, nanoseconds).
pub fn operate(ctx: &Ctx, id: i32, operations: Vec<Operation>, deadline: Option<u64>) -> Result<()> {
    let Ipc { sem, undo, .. } = ctx.ipc();
    let set = sem.find(id)?;
    let pid = ctx.task.process.pid;
    let alters = operations.iter().any(|one| one.change != 0);
    let mut state = set.state.lock();
    if operations.iter().any(|one| one.number >= state.values.len()) {
        bail!(EFBIG, "no such semaphore");
    }
    state.perm.check(ctx.creds(), if alters { 0o222 } else { 0o444 })?;
    if state.removed {
        bail!(EIDRM);
    }
    let obstacle = match state.attempt(&operations, pid, undo) {
        Attempt::Failed(e) => return Err(e.into()),
        Attempt::Done => {
            if state.serve(undo) {
                drop(state);
                set.done.wake_all();
            }
            return Ok(());
        }
        Attempt::Blocked(obstacle) => obstacle,
    };
    let (result, obstacle) = (AtomicI32::new(PENDING), AtomicUsize::new(obstacle));
    let own = Arc::new(Waiting { operations, pid, result, obstacle });
    state.waiting.push(own.clone());
    drop(state);
    let result = || Some(own.result.load(Ordering::SeqCst)).filter(|result| *result != PENDING);
    let waited = ctx.wait(&set.done, deadline, result);
    let mut state = set.state.lock();
    state.waiting.retain(|one| !Arc::ptr_eq(one, &own));
    drop(state);
    // It may have happened after all.
    match (result(), waited) {
        (Some(0), _) => Ok(()),
        (Some(error), _) => Err(Errno(error as u16).into()),
        (None, Ok(_)) => Err(Errno::EAGAIN.into()),
        // Never restarted (`signal(7)`).
        (None, Err(_)) => Err(Errno::EINTR.into()),
    }
}

/// What is asked of one semaphore.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// `GETVAL`.
    Value,
    /// `GETPID`.
    Pid,
    /// `GETNCNT`: who waits for it to grow.
    WaitForMore,
    /// `GETZCNT`: who waits for 0.
    WaitForZero,
}

/// Tells of a semaphore.
pub fn ask(ctx: &Ctx, id: i32, number: usize, question: Question) -> Result<i32> {
    let set = ctx.ipc().sem.find(id)?;
    let state = set.open(ctx, 0o444)?;
    state.check_number(number)?;
    let waiting = |zero: bool| {
        let obstacle = |one: &Arc<Waiting>| one.operations[one.obstacle.load(Ordering::Relaxed)];
        let is = |one: &Operation| one.number == number && (one.change == 0) == zero;
        state.waiting.iter().map(obstacle).filter(is).count() as i32
    };
    Ok(match question {
        Question::Value => state.values[number].value,
        Question::Pid => state.values[number].pid,
        Question::WaitForMore => waiting(false),
        Question::WaitForZero => waiting(true),
    })
}

/// The values of all semaphores (`GETALL`).
pub fn values(ctx: &Ctx, id: i32) -> Result<Vec<u16>> {
    let set = ctx.ipc().sem.find(id)?;
    let state = set.open(ctx, 0o444)?;
    Ok(state.values.iter().map(|one| one.value as u16).collect())
}

/// Sets one semaphore (`SETVAL`).
pub fn set_value(ctx: &Ctx, id: i32, number: usize, value: i32) -> Result<()> {
    if !(0..=MOST).contains(&value) {
        bail!(ERANGE);
    }
    change(ctx, id, |state| {
        state.check_number(number)?;
        state.set(number, value, ctx.task.process.pid);
        Ok(())
    })
}

/// Sets all semaphores (`SETALL`): as many as the set has, which `read` is told.
pub fn set_values(ctx: &Ctx, id: i32, read: impl FnOnce(usize) -> Result<Vec<u16>>) -> Result<()> {
    // Read without the set's lock: the memory may be anything.
    let count = ctx.ipc().sem.find(id)?.open(ctx, 0o222)?.values.len();
    let values = read(count)?;
    if values.iter().any(|value| i32::from(*value) > MOST) {
        bail!(ERANGE);
    }
    change(ctx, id, |state| {
        for (number, value) in values.iter().enumerate() {
            state.set(number, i32::from(*value), ctx.task.process.pid);
        }
        Ok(())
    })
}

impl State {
    /// A value that was set is nobody's to undo.
    fn set(&mut self, number: usize, value: i32, pid: i32) {
        self.values[number] = Semaphore { value, pid };
        self.undo.values_mut().for_each(|own| own[number] = 0);
    }
}

fn change(ctx: &Ctx, id: i32, change: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
    let set = ctx.ipc().sem.find(id)?;
    let mut state = set.open(ctx, 0o222)?;
    change(&mut state)?;
    state.changed = now();
    if state.serve(&ctx.ipc().undo) {
        drop(state);
        set.done.wake_all();
    }
    Ok(())
}

/// Takes an owner and a mode (`IPC_SET`).
pub fn set_owner(ctx: &Ctx, id: i32, (uid, gid, mode): (u32, u32, u32)) -> Result<()> {
    let set = ctx.ipc().sem.find(id)?;
    let mut state = set.state.lock();
    state.perm.check_owner(ctx.creds())?;
    state.perm.set(uid, gid, mode);
    state.changed = now();
    Ok(())
}

/// Removes a set; who waits for it hears of that (`IPC_RMID`).
pub fn remove(ctx: &Ctx, id: i32) -> Result<()> {
    let Ipc { sem, undo, .. } = ctx.ipc();
    let set = sem.find(id)?;
    let mut state = set.state.lock();
    state.perm.check_owner(ctx.creds())?;
    state.removed = true;
    for one in state.waiting.drain(..) {
        one.result.store(i32::from(Errno::EIDRM.0), Ordering::SeqCst);
    }
    undo.0.fetch_sub(core::mem::take(&mut state.undo).len(), Ordering::Relaxed);
    drop(state);
    sem.remove(id);
    set.done.wake_all();
    Ok(())
}

/// A process has ended: what it did with `SEM_UNDO` is undone, wherever it did it.
pub(crate) fn process_ended(kernel: &Kernel, pid: i32) {
    kernel.namespaces.for_each_ipc(|ipc| undo_all(ipc, pid));
}

/// Undoes what a process did in a namespace with `SEM_UNDO`.
pub(crate) fn undo_all(ipc: &Ipc, pid: i32) {
    let Ipc { sem, undo, .. } = ipc;
    if undo.0.load(Ordering::Relaxed) == 0 {
        return;
    }
    for set in sem.all() {
        let mut state = set.state.lock();
        let Some(own) = state.undo.remove(&pid) else { continue };
        undo.0.fetch_sub(1, Ordering::Relaxed);
        for (number, change) in own.into_iter().enumerate().filter(|(_, change)| *change != 0) {
            // Where it does not fit any more, it goes as far as it can.
            let value = (state.values[number].value + change).clamp(0, MOST);
            state.values[number] = Semaphore { value, pid };
        }
        state.operated = now();
        if state.serve(undo) {
            drop(state);
            set.done.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tmpfs_machine;

    fn operation(number: usize, change: i32, flags: i32) -> Operation {
        Operation { number, change, flags }
    }

    #[test]
    fn operations_happen_together_or_not_at_all() {
        let machine = tmpfs_machine();
        let task = machine.task();
        let ctx = machine.ctx(&task);
        let id = get(&ctx, 0, 3, 0o600).unwrap();
        let now = |ops: &[Operation]| operate(&ctx, id, ops.to_vec(), Some(0)).map_err(|e| e.errno);
        assert_eq!(now(&[operation(0, 2, 0), operation(1, 1, 0)]), Ok(()));
        assert_eq!(now(&[operation(0, -1, 0), operation(2, -1, 0)]), Err(Errno::EAGAIN));
        assert_eq!(now(&[operation(0, -1, 0), operation(2, -1, IPC_NOWAIT)]), Err(Errno::EAGAIN));
        assert_eq!(values(&ctx, id).unwrap(), [2, 1, 0]);
        // Each sees what those before it did.
        assert_eq!(now(&[operation(2, 1, 0), operation(2, -1, 0), operation(2, 0, 0)]), Ok(()));
        assert_eq!(now(&[operation(0, MOST, 0)]), Err(Errno::ERANGE));
        assert_eq!(now(&[operation(3, 1, 0)]), Err(Errno::EFBIG));
        assert_eq!(ask(&ctx, id, 0, Question::Value).unwrap(), 2);
        assert_eq!(ask(&ctx, id, 0, Question::Pid).unwrap(), ctx.task.process.pid);
        assert!(set_value(&ctx, id, 0, MOST + 1).is_err() && set_value(&ctx, id, 3, 0).is_err());
        remove(&ctx, id).unwrap();
        assert_eq!(now(&[operation(0, 1, 0)]), Err(Errno::EINVAL));
    }

    #[test]
    fn what_a_process_did_is_undone_at_its_end() {
        let machine = tmpfs_machine();
        let task = machine.task();
        let ctx = machine.ctx(&task);
        let id = get(&ctx, 0, 2, 0o600).unwrap();
        set_values(&ctx, id, |_| Ok(vec![5, 5])).unwrap();
        let both = vec![operation(0, -3, UNDO), operation(1, 4, UNDO), operation(1, 2, 0)];
        operate(&ctx, id, both, None).unwrap();
        assert_eq!(values(&ctx, id).unwrap(), [2, 11]);
        set_value(&ctx, id, 0, 1).unwrap();
        process_ended(&machine.kernel, ctx.task.process.pid);
        assert_eq!(values(&ctx, id).unwrap(), [1, 7], "a value that was set is not undone");
        assert_eq!(ctx.ipc().undo.0.load(Ordering::Relaxed), 0);
    }
}
