//! `/proc/sysvipc`: the objects of System V IPC, a line each (`sysvipc(7)`).

use crate::ipc::{Ipc, Perm};
use crate::mm::PAGE_SIZE;
use alloc::format;
use alloc::string::String;

const MESSAGES: &str = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n";
const SEMAPHORES: &str = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
const SEGMENTS: &str = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      \
                        ctime                   rss                  swap\n";

/// Key, number and mode.
fn start(perm: &Perm) -> String {
    format!("{:10} {:10}  {:4o}", perm.key, perm.id, perm.mode)
}

fn owners(perm: &Perm) -> String {
    format!("{:5} {:5} {:5} {:5}", perm.uid, perm.gid, perm.cuid, perm.cgid)
}

pub(super) fn messages(ipc: &Ipc) -> String {
    let lines = ipc.msg.all().into_iter().map(|queue| {
        let s = queue.status();
        let (start, owners) = (start(&s.perm), owners(&s.perm));
        let used = format!("{:10} {:10} {:5} {:5}", s.bytes, s.count, s.sender, s.receiver);
        format!("{start}  {used} {owners} {:10} {:10} {:10}\n", s.sent, s.received, s.changed)
    });
    [String::from(MESSAGES)].into_iter().chain(lines).collect()
}

pub(super) fn semaphores(ipc: &Ipc) -> String {
    let lines = ipc.sem.all().into_iter().map(|set| {
        let s = set.status();
        let (start, owners) = (start(&s.perm), owners(&s.perm));
        format!("{start} {:10} {owners} {:10} {:10}\n", s.count, s.operated, s.changed)
    });
    [String::from(SEMAPHORES)].into_iter().chain(lines).collect()
}

pub(super) fn segments(ipc: &Ipc) -> String {
    let lines = ipc.shm.all().into_iter().map(|segment| {
        let s = segment.status();
        let (start, owners) = (start(&s.perm), owners(&s.perm));
        let used = format!("{:21} {:5} {:5}  {:5}", s.size, s.maker, s.last, s.count);
        let times = format!("{:10} {:10} {:10}", s.attached, s.detached, s.changed);
        format!("{start} {used} {owners} {times} {:21} {:21}\n", s.size.next_multiple_of(PAGE_SIZE), 0)
    });
    [String::from(SEGMENTS)].into_iter().chain(lines).collect()
}
