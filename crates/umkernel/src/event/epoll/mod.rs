//! `epoll(7)`: a set of files that is told of their events rather than asking each of them each time.
//!
//! Each member keeps a waker on its file's queues; a wake-up puts the member on the ready list. Waiting takes members
//! from the ready list and asks only their files. A level-triggered member goes back on the list as long as its file
//! has something to report, an edge-triggered one only with the next wake-up.

mod ready;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;

use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::{Mutex, PollTable, Wake};
use crate::vfs::{File, FileOps, OpenFlags, PollEvents};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use ready::{ReadyList, Waker};

/// Behaviour of a member, in the upper bits of its events (`EPOLL*` of `linux/eventpoll.h`).
mod behaviour {
    pub(super) const EXCLUSIVE: u32 = 1 << 28;
    pub(super) const WAKEUP: u32 = 1 << 29;
    pub(super) const ONESHOT: u32 = 1 << 30;
    pub(super) const EDGE: u32 = 1 << 31;
    pub(super) const ALL: u32 = EXCLUSIVE | WAKEUP | ONESHOT | EDGE;
}

/// How deep sets may contain sets (`EP_MAX_NESTS`).
const MAX_DEPTH: usize = 4;

/// A member's events and the word that its owner gets back with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Events of `poll(2)` and behaviour (`EPOLLET`...).
    pub events: u32,
    /// The owner's word.
    pub data: u64,
}

/// An event of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The member.
    id: u64,
    /// What happened.
    pub events: PollEvents,
    /// The owner's word.
    pub data: u64,
}

struct Member {
    fd: i32,
    file: Weak<File>,
    interest: Interest,
    waker: Arc<Waker>,
    /// Keeps the waker on the file's queues.
    _table: Arc<Mutex<Option<PollTable>>>,
}

#[derive(Default)]
struct Members {
    next_id: u64,
    by_id: BTreeMap<u64, Member>,
}

/// An open set.
pub struct Epoll {
    members: Mutex<Members>,
    ready: Arc<ReadyList>,
}

/// A new empty set.
pub fn create(ctx: &Ctx) -> Arc<File> {
    let ops = Epoll { members: Mutex::default(), ready: Arc::default() };
    ctx.kernel.vfs.anon_file("anon_inode:[eventpoll]", Box::new(ops), OpenFlags::RDWR)
}

/// The set behind an open file.
///
/// # Errors
/// `EINVAL` when it is none.
pub fn of(file: &File) -> Result<&Epoll> {
    file.ops_as::<Epoll>().ok_or(Errno::EINVAL.into())
}

fn same(member: &Member, fd: i32, file: &Arc<File>) -> bool {
    member.fd == fd && core::ptr::eq(member.file.as_ptr(), Arc::as_ptr(file))
}

/// A member's own events; errors and hang-ups always belong to them, unless it was disarmed (`EPOLLONESHOT`).
fn wanted(interest: &Interest) -> PollEvents {
    PollEvents::from_bits_retain(interest.events & !behaviour::ALL)
}

impl Epoll {
    /// `EPOLL_CTL_ADD`.
    ///
    /// # Errors
    /// `EPERM` for a file that cannot be waited for, `EEXIST`, `ELOOP` when sets would contain each other or be nested too
    /// deep, `EINVAL` for `EPOLLEXCLUSIVE` with events that it does not go with.
    pub fn add(&self, ctx: &Ctx, own: &Arc<File>, fd: i32, file: &Arc<File>, interest: Interest) -> Result<()> {
        if interest.events & behaviour::EXCLUSIVE != 0 {
            let fits = PollEvents::IN | PollEvents::OUT | PollEvents::ERR | PollEvents::HUP;
            let behaves = behaviour::EXCLUSIVE | behaviour::WAKEUP | behaviour::EDGE;
            if interest.events & !(fits.bits() | behaves) != 0 || file.ops_as::<Epoll>().is_some() {
                bail!(EINVAL, "EPOLLEXCLUSIVE with other events");
            }
        }
        if !file.ops.as_ref().is_some_and(|ops| ops.pollable()) {
            bail!(EPERM, "the file cannot be waited for");
        }
        if let Some(inner) = file.ops_as::<Epoll>() {
            inner.check_nesting(own, 1)?;
        }
        let interest = Interest { events: interest.events | (PollEvents::ERR | PollEvents::HUP).bits(), ..interest };
        let mut members = self.members.lock();
        if members.by_id.values().any(|m| same(m, fd, file)) {
            bail!(EEXIST);
        }
        let dead: Vec<u64> =
            members.by_id.iter().filter(|(_, m)| m.file.strong_count() == 0).map(|(&id, _)| id).collect();
        let mut gone: Vec<Member> = dead.iter().filter_map(|id| members.by_id.remove(id)).collect();
        let id = members.next_id;
        members.next_id += 1;
        let waker = Arc::new(Waker::new(id, self.ready.clone()));
        let table = Arc::new(Mutex::new(None));
        let member = Member { fd, file: Arc::downgrade(file), interest, waker: waker.clone(), _table: table.clone() };
        members.by_id.insert(id, member);
        drop(members);
        gone.clear();
        // The queues are taken without the set's lock: a wake-up may come at once.
        let exclusive = interest.events & behaviour::EXCLUSIVE != 0;
        let table_for = if exclusive { PollTable::exclusive } else { PollTable::new };
        let mut registered = table_for(waker.clone());
        let events = file.poll(ctx, Some(&mut registered));
        *table.lock() = Some(registered);
        if events.intersects(wanted(&interest)) {
            waker.wake();
        }
        Ok(())
    }

    /// `EPOLL_CTL_MOD`.
    ///
    /// # Errors
    /// `ENOENT` when the file is no member; `EINVAL` where `EPOLLEXCLUSIVE` is involved.
    pub fn modify(&self, ctx: &Ctx, fd: i32, file: &Arc<File>, interest: Interest) -> Result<()> {
        if interest.events & behaviour::EXCLUSIVE != 0 {
            bail!(EINVAL, "EPOLLEXCLUSIVE cannot be added to a member");
        }
        let interest = Interest { events: interest.events | (PollEvents::ERR | PollEvents::HUP).bits(), ..interest };
        let waker = {
            let mut members = self.members.lock();
            let member = members.by_id.values_mut().find(|m| same(m, fd, file)).ok_or(Errno::ENOENT)?;
            if member.interest.events & behaviour::EXCLUSIVE != 0 {
                bail!(EINVAL, "an EPOLLEXCLUSIVE member cannot be changed");
            }
            member.interest = interest;
            member.waker.clone()
        };
        if file.poll(ctx, None).intersects(wanted(&interest)) {
            waker.wake();
        }
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    ///
    /// # Errors
    /// `ENOENT` when the file is no member.
    pub fn delete(&self, fd: i32, file: &Arc<File>) -> Result<()> {
        let mut members = self.members.lock();
        let id = members.by_id.iter().find(|(_, m)| same(m, fd, file)).map(|(&id, _)| id).ok_or(Errno::ENOENT)?;
        let member = members.by_id.remove(&id);
        drop(members);
        // Leaving the queues takes their locks, under which wake-ups run.
        drop(member);
        Ok(())
    }

    /// Refuses a nesting in which `outer` would contain itself, or that is too deep.
    fn check_nesting(&self, outer: &Arc<File>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!(ELOOP, "sets nested too deep");
        }
        let files: Vec<Arc<File>> = self.members.lock().by_id.values().filter_map(|m| m.file.upgrade()).collect();
        for file in files {
            if Arc::ptr_eq(&file, outer) {
                bail!(ELOOP, "the set would contain itself");
            }
            if let Some(inner) = file.ops_as::<Epoll>() {
                inner.check_nesting(outer, depth + 1)?;
            }
        }
        Ok(())
    }

    /// `epoll_wait(2)`: up to `max` events; none when the deadline passes first.
    ///
    /// # Errors
    /// `EINTR` when a signal came first.
    pub fn wait(&self, ctx: &Ctx, max: usize, deadline: Option<u64>) -> Result<Vec<Found>> {
        let collect = || Some(self.collect(ctx, max)).filter(|found| !found.is_empty());
        match ctx.wait(&self.ready.waiting, deadline, collect) {
            Ok(found) => Ok(found.unwrap_or_default()),
            Err(e) if e == Errno::ERESTARTSYS => bail!(EINTR),
            Err(e) => Err(e),
        }
    }

    /// Takes up to `max` events from the ready list.
    fn collect(&self, ctx: &Ctx, max: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let mut again = Vec::new();
        for _ in 0..self.ready.len() {
            if found.len() == max {
                break;
            }
            let Some(id) = self.ready.take() else { break };
            let member = {
                let members = self.members.lock();
                members.by_id.get(&id).map(|m| (m.file.upgrade(), m.interest, m.waker.clone()))
            };
            let Some((file, interest, waker)) = member else { continue };
            let Some(file) = file else {
                let closed = self.members.lock().by_id.remove(&id);
                drop(closed);
                continue;
            };
            let events = file.poll(ctx, None) & wanted(&interest);
            if events.is_empty() {
                continue;
            }
            found.push(Found { id, events, data: interest.data });
            if interest.events & behaviour::ONESHOT != 0 {
                if let Some(member) = self.members.lock().by_id.get_mut(&id).filter(|m| m.interest == interest) {
                    member.interest.events &= behaviour::ALL;
                }
            } else if interest.events & behaviour::EDGE == 0 {
                again.push(waker);
            }
        }
        again.iter().for_each(|waker| waker.put_back());
        if !found.is_empty() && self.ready.len() > 0 {
            // Others that wait may have looked while the list was empty.
            self.ready.waiting.wake_all();
        }
        found
    }

    /// Puts events back that could not be handed over.
    pub fn put_back(&self, lost: &[Found]) {
        let members = self.members.lock();
        lost.iter().filter_map(|l| members.by_id.get(&l.id)).for_each(|m| m.waker.put_back());
    }

    /// Whether a member of the ready list has something to report.
    fn has_events(&self, ctx: &Ctx) -> bool {
        self.ready.ids().into_iter().any(|id| {
            let member = self.members.lock().by_id.get(&id).map(|m| (m.file.upgrade(), m.interest));
            let Some((Some(file), interest)) = member else { return false };
            file.poll(ctx, None).intersects(wanted(&interest))
        })
    }
}

impl FileOps for Epoll {
    fn poll(&self, ctx: &Ctx, _file: &File, table: Option<&mut PollTable>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.ready.polled);
        }
        if self.has_events(ctx) { PollEvents::IN | PollEvents::RDNORM } else { PollEvents::empty() }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
