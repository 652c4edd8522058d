//! The objects of one kind, by number and by key.
//!
//! A number is a place in the table and a sequence number, so that one that was removed is not taken for its successor. Both are
//! given as Linux gives them (`ipc_idr_alloc`): places in turn, and the next sequence number when they begin anew.

use super::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, Perm};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::sync::Mutex;
use crate::task::Creds;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Bits of a number that are the place.
const PLACE_BITS: u32 = 15;
/// Places that there are.
pub(super) const MOST: u64 = 1 << PLACE_BITS;
/// So many places are used before the first is used again.
const CYCLE: i32 = 64;
/// Sequence numbers that there are.
const SEQUENCES: i32 = i32::MAX >> PLACE_BITS;

/// An object of a table.
pub trait Object {
    /// Owner and mode as they are now.
    fn perm(&self) -> Perm;
}

/// The objects of one kind.
pub struct Table<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    places: BTreeMap<i32, (i32, Arc<T>)>,
    keys: BTreeMap<i32, i32>,
    sequence: i32,
    last_place: i32,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        let inner = Inner { places: BTreeMap::new(), keys: BTreeMap::new(), sequence: 0, last_place: -1 };
        Table { inner: Mutex::new(inner) }
    }
}

impl<T> Inner<T> {
    /// `None` if all places are taken.
    fn next_id(&mut self) -> Option<i32> {
        let in_use = self.places.len() as i32;
        let end = (in_use + in_use / 2).max(CYCLE).min(MOST as i32);
        let mut in_turn = (self.last_place + 1..end).chain(0..end);
        let place = in_turn.find(|place| !self.places.contains_key(place))?;
        if place <= self.last_place {
            self.sequence = (self.sequence + 1) % SEQUENCES;
        }
        self.last_place = place;
        Some(self.sequence << PLACE_BITS | place)
    }
}

/// The part of a number that is not its place.
pub fn sequence_of(id: i32) -> u32 {
    id as u32 >> PLACE_BITS
}

fn place_of(id: i32) -> i32 {
    id & (MOST as i32 - 1)
}

impl<T: Object> Table<T> {
    /// `shmget(2)` and the like: the number of the object with this key, which `make` makes if that is asked for; `fits` looks at
    /// one that is there.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`; `ENOSPC` for more than `most` objects; those of `fits` and `make`.
    pub fn get(
        &self,
        (key, flags): (i32, i32),
        creds: &Creds,
        most: u64,
        fits: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(Perm) -> Result<T>,
    ) -> Result<i32> {
        let mut inner = self.inner.lock();
        let found = if key == IPC_PRIVATE { None } else { inner.keys.get(&key).copied() };
        if let Some((id, object)) = found.and_then(|place| inner.places.get(&place)) {
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                bail!(EEXIST);
            }
            fits(object)?;
            object.perm().check(creds, flags as u32)?;
            return Ok(*id);
        }
        if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
            bail!(ENOENT);
        }
        if inner.places.len() as u64 >= most {
            bail!(ENOSPC);
        }
        let before = (inner.sequence, inner.last_place);
        let id = inner.next_id().ok_or(Errno::ENOSPC)?;
        let object = match make(Perm::new(key, id, flags, creds)) {
            Ok(object) => Arc::new(object),
            Err(e) => {
                (inner.sequence, inner.last_place) = before;
                return Err(e);
            }
        };
        inner.places.insert(place_of(id), (id, object));
        if key != IPC_PRIVATE {
            inner.keys.insert(key, place_of(id));
        }
        Ok(id)
    }

    /// The object with this number.
    ///
    /// # Errors
    /// `EINVAL` if there is none; `EIDRM` if it was removed and its place has another one.
    pub fn find(&self, id: i32) -> Result<Arc<T>> {
        let inner = self.inner.lock();
        match inner.places.get(&place_of(id)).filter(|_| id >= 0) {
            Some((own, object)) if *own == id => Ok(object.clone()),
            Some(_) => Err(Errno::EIDRM.into()),
            None => Err(Errno::EINVAL.into()),
        }
    }

    /// The object at a place: for programs that list them (`SHM_STAT` and the like).
    ///
    /// # Errors
    /// `EINVAL` if there is none.
    pub fn at(&self, place: i32) -> Result<(i32, Arc<T>)> {
        let inner = self.inner.lock();
        // A whole number will do, as with Linux.
        let found = inner.places.get(&place_of(place)).filter(|_| place >= 0);
        found.map(|(id, object)| (*id, object.clone())).ok_or(Errno::EINVAL.into())
    }

    /// Nobody finds the object by its key any more.
    pub(super) fn forget_key(&self, id: i32) {
        self.inner.lock().keys.retain(|_, place| *place != place_of(id));
    }

    /// Removes an object.
    pub(super) fn remove(&self, id: i32) {
        let mut inner = self.inner.lock();
        inner.keys.retain(|_, place| *place != place_of(id));
        let gone = match inner.places.get(&place_of(id)) {
            Some((own, _)) if *own == id => inner.places.remove(&place_of(id)),
            _ => None,
        };
        drop(inner);
        drop(gone);
    }

    /// All objects, by place.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.inner.lock().places.values().map(|(_, object)| object.clone()).collect()
    }

    /// The highest place that is taken, or 0: what `IPC_INFO` and its like return.
    pub fn highest(&self) -> usize {
        self.inner.lock().places.keys().next_back().map_or(0, |place| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(Perm);

    impl Object for Thing {
        fn perm(&self) -> Perm {
            self.0
        }
    }

    #[test]
    fn numbers_are_those_of_linux() {
        let (table, root) = (Table::<Thing>::default(), Creds::root());
        let get = |key, flags| table.get((key, flags), &root, 4, |_| Ok(()), |perm| Ok(Thing(perm)));
        assert_eq!(get(5, 0), Err(Errno::ENOENT.into()));
        assert_eq!((get(5, IPC_CREAT), get(5, 0), get(IPC_PRIVATE, 0)), (Ok(0), Ok(0), Ok(1)));
        assert_eq!(get(5, IPC_CREAT | IPC_EXCL), Err(Errno::EEXIST.into()));
        assert_eq!((get(6, IPC_CREAT), table.highest()), (Ok(2), 2));
        table.remove(1);
        assert_eq!(table.find(1).err(), Some(Errno::EINVAL.into()));
        let failed = table.get((7, IPC_CREAT), &root, 4, |_| Ok(()), |_| Err(Errno::ENOMEM.into()));
        assert_eq!(failed, Err(Errno::ENOMEM.into()));
        // In turn: the place that is free again is not the next one.
        assert_eq!((get(7, IPC_CREAT), get(8, IPC_CREAT)), (Ok(3), Ok(4)));
        assert_eq!(get(9, IPC_CREAT), Err(Errno::ENOSPC.into()));
        table.remove(4);
        for place in 5..CYCLE {
            assert_eq!(get(8, IPC_CREAT), Ok(place));
            table.remove(place);
        }
        assert_eq!(get(8, IPC_CREAT), Ok(1 << PLACE_BITS | 1));
        assert_eq!(table.find(1).err(), Some(Errno::EIDRM.into()));
        assert_eq!(table.at(1).map(|(id, _)| id), Ok(1 << PLACE_BITS | 1));
        table.forget_key(0);
        assert_eq!((table.remove(3), get(5, 0)), ((), Err(Errno::ENOENT.into())));
        assert!(table.find(0).is_ok() && table.find(-1).is_err());
    }
}
