//! System V IPC: shared memory, semaphore sets, message queues.

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::host;
use crate::ipc::sem::{Operation, Question};
use crate::ipc::{Object, Perm, Table, msg, sem, sequence_of, shm};
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::time::read_timespec;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

const GET: &[Arg] = &[KEY, Arg::Kind("ipc_get")];
const SHMGET: &[Arg] = &[KEY, Arg::Uint, Arg::Kind("ipc_get")];
const SEMGET: &[Arg] = &[KEY, Arg::Int, Arg::Kind("ipc_get")];
const KEY: Arg = Arg::Kind("ipc_key");
const SHMAT: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Kind("shmat_flags")];
const SHMCTL: &[Arg] = &[Arg::Int, Arg::Kind("shmctl"), Arg::Ptr];
const SEMOP: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint];
const SEMTIMEDOP: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Kind("timespec_in")];
const SEMCTL: &[Arg] = &[Arg::Int, Arg::Int, Arg::Kind("semctl"), Arg::Hex];
const MSGSND: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Kind("ipc_message_flags")];
const MSGRCV: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Long, Arg::Kind("ipc_message_flags")];
const MSGCTL: &[Arg] = &[Arg::Int, Arg::Kind("msgctl"), Arg::Ptr];
const SPLIT_NOTE: Support = Support::Partial("an attachment that was split counts once");
const NO_HUGE_PAGES: Support = Support::Partial("no huge pages");

/// The calls of this family.
pub(super) const TABLE: &[Entry] = &[
    Entry::new(29, "shmget", Family::Ipc, SHMGET, NO_HUGE_PAGES, sys_shmget),
    Entry::new(30, "shmat", Family::Ipc, SHMAT, Support::Full, sys_shmat),
    Entry::new(31, "shmctl", Family::Ipc, SHMCTL, SPLIT_NOTE, sys_shmctl),
    Entry::new(64, "semget", Family::Ipc, SEMGET, Support::Full, sys_semget),
    Entry::new(65, "semop", Family::Ipc, SEMOP, Support::Full, |ctx, args, _| operate(ctx, args, 0)),
    Entry::new(66, "semctl", Family::Ipc, SEMCTL, Support::Full, sys_semctl),
    Entry::new(67, "shmdt", Family::Ipc, &[Arg::Ptr], Support::Full, sys_shmdt),
    Entry::new(68, "msgget", Family::Ipc, GET, Support::Full, sys_msgget),
    Entry::new(69, "msgsnd", Family::Ipc, MSGSND, Support::Full, sys_msgsnd),
    Entry::new(70, "msgrcv", Family::Ipc, MSGRCV, Support::Full, sys_msgrcv),
    Entry::new(71, "msgctl", Family::Ipc, MSGCTL, Support::Full, sys_msgctl),
    Entry::new(220, "semtimedop", Family::Ipc, SEMTIMEDOP, Support::Full, |ctx, args, _| operate(ctx, args, args[3])),
];

// Commands that all three kinds have.
const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;

/// `IPC_STAT` and the like: which object, and whether it may be looked at.
fn looked_at<T: Object>(ctx: &Ctx, table: &Table<T>, id: i32, how: Look) -> Result<(i32, Arc<T>)> {
    let (id, object) = match how {
        Look::Number => (id, table.find(id)?),
        Look::Place | Look::PlaceByAnybody => table.at(id)?,
    };
    if how != Look::PlaceByAnybody {
        object.perm().check(ctx.creds(), 0o444)?;
    }
    Ok((id, object))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Number,
    Place,
    PlaceByAnybody,
}

impl Look {
    /// What looking returns.
    fn result(self, id: i32) -> usize {
        if self == Look::Number { 0 } else { id as usize }
    }
}

/// Two neighbours of 32 bits as a word.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// `struct ipc64_perm` as words.
fn perm_words(perm: &Perm) -> [u64; 6] {
    let sequence = sequence_of(perm.id);
    [pair(perm.key as u32, perm.uid), pair(perm.gid, perm.cuid), pair(perm.cgid, perm.mode), sequence.into(), 0, 0]
}

/// Owner, group and mode that `IPC_SET` gives.
fn owner_at(ctx: &Ctx, addr: u64) -> Result<(u32, u32, u32)> {
    let [key_uid, gid_cuid, cgid_mode]: [u64; 3] = ctx.read_val(addr)?;
    Ok(((key_uid >> 32) as u32, gid_cuid as u32, (cgid_mode >> 32) as u32))
}

fn write_words(ctx: &Ctx, addr: u64, words: &[u64]) -> Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    ctx.write_user(addr, &bytes)
}

fn write_ints(ctx: &Ctx, addr: u64, ints: &[u64]) -> Result<()> {
    let capped = |value: &u64| i32::try_from(*value).unwrap_or(i32::MAX);
    let bytes: Vec<u8> = ints.iter().flat_map(|value| capped(value).to_ne_bytes()).collect();
    ctx.write_user(addr, &bytes)
}

fn sys_shmget(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    shm::get(ctx, args[0] as i32, args[1], args[2] as i32).map(|id| id as usize)
}

fn sys_shmat(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    shm::attach(ctx, args[0] as i32, args[1], args[2] as i32).map(|addr| addr as usize)
}

fn sys_shmdt(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    shm::detach(ctx, args[0]).map(|()| 0)
}

fn sys_shmctl(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const SHM_LOCK: i32 = 11;
    const SHM_UNLOCK: i32 = 12;
    const SHM_STAT: i32 = 13;
    const SHM_INFO: i32 = 14;
    const SHM_STAT_ANY: i32 = 15;
    let (id, command, addr) = (args[0] as i32, args[1] as i32, args[2]);
    let ipc = ctx.ipc();
    if id < 0 || command < 0 {
        bail!(EINVAL);
    }
    let stat = |how: Look| -> Result<usize> {
        let (id, segment) = looked_at(ctx, &ipc.shm, id, how)?;
        let status = segment.status();
        let mut words = perm_words(&status.perm).to_vec();
        let times = [status.attached, status.detached, status.changed].map(|time| time as u64);
        words.push(status.size);
        words.extend(times);
        words.extend([pair(status.maker as u32, status.last as u32), status.count, 0, 0]);
        write_words(ctx, addr, &words)?;
        Ok(how.result(id))
    };
    match command {
        IPC_STAT => stat(Look::Number),
        SHM_STAT => stat(Look::Place),
        SHM_STAT_ANY => stat(Look::PlaceByAnybody),
        IPC_RMID => shm::remove(ctx, id).map(|()| 0),
        IPC_SET => shm::set(ctx, id, owner_at(ctx, addr)?).map(|()| 0),
        SHM_LOCK | SHM_UNLOCK => shm::lock(ctx, id, command == SHM_LOCK).map(|()| 0),
        IPC_INFO => {
            let limits = &ipc.limits;
            let (max, mni, all) = (limits.shmmax.get(), limits.shmmni.get(), limits.shmall.get());
            // `struct shminfo64`: the most, the least, segments, segments of a process, pages.
            write_words(ctx, addr, &[max, 1, mni, mni, all, 0, 0, 0, 0])?;
            Ok(ipc.shm.highest())
        }
        SHM_INFO => {
            let pages = shm::pages(ipc);
            // `struct shm_info`: segments, pages, those in memory, those swapped out.
            write_words(ctx, addr, &[ipc.shm.all().len() as u64, pages, pages, 0, 0, 0])?;
            Ok(ipc.shm.highest())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn sys_semget(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    sem::get(ctx, args[0] as i32, args[1] as i32, args[2] as i32).map(|id| id as usize)
}

/// `semop(2)`, `semtimedop(2)`: the time to wait is at `timeout`, if that is not 0.
fn operate(ctx: &Ctx, args: &[u64; 6], timeout: u64) -> Result<usize> {
    /// `struct sembuf`: number, change, flags.
    const SIZE: usize = 6;
    let (id, addr, count) = (args[0] as i32, args[1], args[2]);
    if id < 0 || count < 1 {
        bail!(EINVAL);
    }
    if count > ctx.ipc().limits.semopm.get() {
        bail!(E2BIG, "more operations than semopm");
    }
    let deadline = match timeout {
        0 => None,
        addr => Some(host::monotonic_ns().saturating_add(read_timespec(ctx, addr)?)),
    };
    let mut bytes = vec![0; count as usize * SIZE];
    ctx.read_user(addr, &mut bytes)?;
    let operation = |bytes: &[u8; SIZE]| {
        let [a, b, c, d, e, f] = *bytes;
        let number = u16::from_ne_bytes([a, b]);
        let (change, flags) = (i16::from_ne_bytes([c, d]), i16::from_ne_bytes([e, f]));
        Operation { number: number.into(), change: change.into(), flags: flags.into() }
    };
    let operations = bytes.as_chunks().0.iter().map(operation).collect();
    sem::operate(ctx, id, operations, deadline).map(|()| 0)
}

fn sys_semctl(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const GETPID: i32 = 11;
    const GETVAL: i32 = 12;
    const GETALL: i32 = 13;
    const GETNCNT: i32 = 14;
    const GETZCNT: i32 = 15;
    const SETVAL: i32 = 16;
    const SETALL: i32 = 17;
    const SEM_STAT: i32 = 18;
    const SEM_INFO: i32 = 19;
    const SEM_STAT_ANY: i32 = 20;
    let (id, number, command, addr) = (args[0] as i32, args[1] as i32 as usize, args[2] as i32, args[3]);
    let ipc = ctx.ipc();
    if id < 0 {
        bail!(EINVAL);
    }
    let stat = |how: Look| -> Result<usize> {
        let (id, set) = looked_at(ctx, &ipc.sem, id, how)?;
        let status = set.status();
        let mut words = perm_words(&status.perm).to_vec();
        words.extend([status.operated as u64, 0, status.changed as u64, 0, status.count, 0, 0]);
        write_words(ctx, addr, &words)?;
        Ok(how.result(id))
    };
    let ask = |question| sem::ask(ctx, id, number, question).map(|answer| answer as usize);
    match command {
        IPC_STAT => stat(Look::Number),
        SEM_STAT => stat(Look::Place),
        SEM_STAT_ANY => stat(Look::PlaceByAnybody),
        IPC_RMID => sem::remove(ctx, id).map(|()| 0),
        IPC_SET => sem::set_owner(ctx, id, owner_at(ctx, addr)?).map(|()| 0),
        GETVAL => ask(Question::Value),
        GETPID => ask(Question::Pid),
        GETNCNT => ask(Question::WaitForMore),
        GETZCNT => ask(Question::WaitForZero),
        SETVAL => sem::set_value(ctx, id, number, addr as i32).map(|()| 0),
        GETALL => {
            let bytes: Vec<u8> = sem::values(ctx, id)?.into_iter().flat_map(u16::to_ne_bytes).collect();
            ctx.write_user(addr, &bytes).map(|()| 0)
        }
        SETALL => sem::set_values(ctx, id, |count| ctx.read_vec(addr, count)).map(|()| 0),
        IPC_INFO | SEM_INFO => {
            let limits = &ipc.limits;
            let [mni, mns, msl, opm] =
                [&limits.semmni, &limits.semmns, &limits.semmsl, &limits.semopm].map(|l| l.get());
            // `struct seminfo`; `SEM_INFO` has sets and semaphores in use where `IPC_INFO` has sizes of old.
            let (usz, aem) = match command {
                SEM_INFO => (ipc.sem.all().len() as u64, sem::total(ipc)),
                _ => (20, sem::MOST as u64),
            };
            write_ints(ctx, addr, &[mns, mni, mns, mns, msl, opm, opm, usz, sem::MOST as u64, aem])?;
            Ok(ipc.sem.highest())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn sys_msgget(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    msg::get(ctx, args[0] as i32, args[1] as i32).map(|id| id as usize)
}

fn sys_msgsnd(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (id, addr, len, flags) = (args[0] as i32, args[1], args[2], args[3] as i32);
    let kind: i64 = ctx.read_val(addr)?;
    if len > ctx.ipc().limits.msgmax.get() || id < 0 || kind < 1 {
        bail!(EINVAL);
    }
    let mut text = vec![0; len as usize];
    ctx.read_user(addr + size_of::<i64>() as u64, &mut text)?;
    msg::send(ctx, id, msg::Message { kind, text }, flags).map(|()| 0)
}

fn sys_msgrcv(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    let (id, addr, most, kind, flags) = (args[0] as i32, args[1], args[2], args[3] as i64, args[4] as i32);
    if id < 0 || (most as i64) < 0 {
        bail!(EINVAL);
    }
    let message = msg::receive(ctx, id, most as usize, kind, flags)?;
    ctx.write_val(addr, &message.kind)?;
    ctx.write_user(addr + size_of::<i64>() as u64, &message.text)?;
    Ok(message.text.len())
}

fn sys_msgctl(ctx: &Ctx, args: &[u64; 6], _: &mut TrapFrame) -> Result<usize> {
    const MSG_STAT: i32 = 11;
    const MSG_INFO: i32 = 12;
    const MSG_STAT_ANY: i32 = 13;
    /// Where `struct msqid64_ds` has the bytes that the queue takes.
    const MOST_AT: u64 = 88;
    let (id, command, addr) = (args[0] as i32, args[1] as i32, args[2]);
    let ipc = ctx.ipc();
    if id < 0 || command < 0 {
        bail!(EINVAL);
    }
    let stat = |how: Look| -> Result<usize> {
        let (id, queue) = looked_at(ctx, &ipc.msg, id, how)?;
        let status = queue.status();
        let mut words = perm_words(&status.perm).to_vec();
        words.extend([status.sent, status.received, status.changed].map(|time| time as u64));
        words.extend([status.bytes, status.count, status.most]);
        words.extend([pair(status.sender as u32, status.receiver as u32), 0, 0]);
        write_words(ctx, addr, &words)?;
        Ok(how.result(id))
    };
    match command {
        IPC_STAT => stat(Look::Number),
        MSG_STAT => stat(Look::Place),
        MSG_STAT_ANY => stat(Look::PlaceByAnybody),
        IPC_RMID => msg::remove(ctx, id).map(|()| 0),
        IPC_SET => msg::set(ctx, id, owner_at(ctx, addr)?, ctx.read_val(addr + MOST_AT)?).map(|()| 0),
        IPC_INFO | MSG_INFO => {
            let limits = &ipc.limits;
            let [max, mnb, mni] = [&limits.msgmax, &limits.msgmnb, &limits.msgmni].map(|limit| limit.get());
            // `struct msginfo`: pool, map, max, mnb, mni, ssz, tql, and 16 bits of seg. `MSG_INFO` has queues, messages and bytes in
            // use where `IPC_INFO` has sizes of old.
            const SSZ: u64 = 16;
            const SEG: u64 = 0xffff;
            let (pool, map, tql) = match command {
                MSG_INFO => {
                    let (count, bytes) = msg::totals(ipc);
                    (ipc.msg.all().len() as u64, count, bytes)
                }
                _ => (mni * mnb / 1024, mnb, mnb),
            };
            write_ints(ctx, addr, &[pool, map, max, mnb, mni, SSZ, tql, SEG])?;
            Ok(ipc.msg.highest())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
