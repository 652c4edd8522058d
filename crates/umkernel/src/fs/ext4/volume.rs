//! The file system behind its lock, and the file that grows without its knowing.
//!
//! A file that is written from front to back gets its bytes straight to where the blocks behind its end will lie
//! ([`ext4::Fs::room_behind`]), with its new size in memory only. The file system hears of it when anything else is
//! asked of it: whoever takes the lock by [`Ext4Fs::lock`] finds that all is told. One file at a time can grow so.

use super::{Ext4Fs, Ext4Inode, error};
use crate::block::Disk;
use crate::errno::Result;
use crate::sync::MutexGuard;
use crate::vfs::Timestamp;
use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering;

/// A file that will not get this large with a write goes the plain way: it may well be all there is to it.
const SMALL: u64 = 16 << 10;
/// The most room to look for.
const MAX_ROOM: u64 = 8 << 20;
/// The most bytes to move while nobody else can use the file system.
const MAX_STEP: usize = 1 << 20;

/// What the lock of a file system protects.
pub(super) struct Volume {
    pub(super) fs: ext4::Fs<Arc<Disk>>,
    growing: Option<Growing>,
    /// Why a file did not get what had been written to it; the next sync says so.
    lost: Option<ext4::Error>,
}

/// A file whose size and last blocks the file system does not know yet.
struct Growing {
    inode: Arc<Ext4Inode>,
    room: ext4::Room,
    size: u64,
}

/// The file system, locked.
pub(super) struct Locked<'a> {
    volume: MutexGuard<'a, Volume>,
    /// The file that had grown. Goes after the lock, as it may be the last reference.
    _grown: Option<Arc<Ext4Inode>>,
}

impl Deref for Locked<'_> {
    type Target = ext4::Fs<Arc<Disk>>;

    fn deref(&self) -> &Self::Target {
        &self.volume.fs
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.volume.fs
    }
}

impl Locked<'_> {
    /// Fails, once, if a file lost what had been written to it.
    pub(super) fn check_lost(&mut self) -> Result<()> {
        self.volume.lost.take().map_or(Ok(()), |e| Err(error(e)))
    }
}

impl Volume {
    pub(super) fn new(fs: ext4::Fs<Arc<Disk>>) -> Volume {
        Volume { fs, growing: None, lost: None }
    }

    /// Tells the file system of the file that has grown, which is to be dropped without the lock.
    #[must_use]
    fn settle(&mut self) -> Option<Arc<Ext4Inode>> {
        let Growing { inode, room, size } = self.growing.take()?;
        if size > room.file_offset {
            let time = inode.modified();
            let extended = self.fs.extend(&room, size, ext4::Timestamp { sec: time.sec, nsec: time.nsec });
            // What the extent tree took, or the old size again.
            let refreshed = inode.refresh_from(&mut self.fs);
            if let Err(e) = extended {
                self.lost.get_or_insert(e);
            } else if refreshed.is_err() {
                self.lost.get_or_insert(ext4::Error::Io(ext4::IoError::EIO));
            }
        }
        Some(inode)
    }
}

impl Growing {
    fn is(&self, inode: &Ext4Inode) -> bool {
        core::ptr::eq(Arc::as_ptr(&self.inode), inode)
    }

    /// Where the next bytes go, and how many have room there.
    fn next(&self) -> (u64, u64) {
        let used = self.size - self.room.file_offset;
        (self.room.device_offset + used, self.room.len - used)
    }
}

impl Ext4Fs {
    /// The file system, told of every byte that was written.
    pub(super) fn lock(&self) -> Locked<'_> {
        let mut volume = self.volume.lock();
        let grown = volume.settle();
        Locked { volume, _grown: grown }
    }

    /// The file system, for questions whose answers have nothing to do with the size or the blocks of a file in use.
    pub(super) fn lock_for_names(&self) -> Locked<'_> {
        Locked { volume: self.volume.lock(), _grown: None }
    }

    /// Whether changes are refused.
    pub(super) fn is_read_only(&self) -> bool {
        self.volume.lock().fs.is_read_only()
    }
}

impl Ext4Inode {
    /// Appends up to `want` bytes: `store` puts as many as it is told to a place of the disk and says how many it did.
    /// `None` where there is no room that the file system need not know of. The caller holds the inode's extents.
    pub(super) fn append(
        &self,
        want: usize,
        store: impl FnOnce(u64, usize) -> Option<Result<usize>>,
    ) -> Option<Result<usize>> {
        if self.size().saturating_add(want as u64) < SMALL {
            return None;
        }
        // The file that grew before; dropped after the lock.
        let _before;
        let mut volume = self.fs.volume.lock();
        if !volume.growing.as_ref().is_some_and(|g| g.is(self) && g.next().1 > 0) {
            drop(volume);
            let me = self.weak().upgrade()?;
            volume = self.fs.volume.lock();
            _before = volume.settle();
            let size = self.size();
            let room = volume.fs.room_behind(self.ino(), (want as u64).max(size.min(MAX_ROOM))).ok()??;
            if room.file_offset != size {
                return None;
            }
            volume.growing = Some(Growing { inode: me, room, size });
            self.fs.dirty.store(true, Ordering::Release);
        }
        let growing = volume.growing.as_mut()?;
        let (place, left) = growing.next();
        let len = want.min(MAX_STEP).min(usize::try_from(left).unwrap_or(usize::MAX));
        let stored = store(place, len)?;
        if let Ok(n) = stored {
            let old = growing.size;
            growing.size += n as u64;
            self.note_appended(old, growing.size, Timestamp::now());
        }
        Some(stored)
    }

    /// As [`Ext4Inode::append`] for bytes in a buffer: how many of them it took.
    pub(super) fn append_buffer(&self, data: &[u8]) -> Result<usize> {
        let mut done = 0;
        while done < data.len() {
            let left = &data[done..];
            match self.append(left.len(), |at, len| Some(self.fs.disk.write(at, &left[..len]).map(|()| len))) {
                None => break,
                Some(Ok(n)) => done += n,
                Some(Err(e)) if done == 0 => return Err(e),
                Some(Err(_)) => break,
            }
        }
        Ok(done)
    }
}
