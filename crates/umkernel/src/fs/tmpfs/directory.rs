//! Directories of tmpfs.

use super::TmpInode;
use crate::vfs::DirEntry;
use crate::vfs::{FileType, Inode};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Where `.` and `..` stand in a listing; other entries follow, each at the number it got when it was added.
const DOT: u64 = 0;
const DOT_DOT: u64 = 1;
const FIRST: u64 = 2;

/// The names in a directory.
#[derive(Default)]
pub(super) struct Names {
    by_name: BTreeMap<Arc<[u8]>, u64>,
    /// In the order in which they were added, so that a listing goes on where it stopped whatever happened meanwhile.
    by_number: BTreeMap<u64, (Arc<[u8]>, Arc<TmpInode>)>,
    added: u64,
}

impl Names {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<TmpInode>> {
        let number = self.by_name.get(name)?;
        self.by_number.get(number).map(|(_, inode)| inode)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Adds a name, or gives one that exists another inode; returns the inode it had.
    pub(super) fn set(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Option<Arc<TmpInode>> {
        if let Some(number) = self.by_name.get(name)
            && let Some(entry) = self.by_number.get_mut(number)
        {
            return Some(core::mem::replace(&mut entry.1, inode));
        }
        let number = FIRST + self.added;
        self.added += 1;
        let name: Arc<[u8]> = Arc::from(name);
        self.by_name.insert(name.clone(), number);
        self.by_number.insert(number, (name, inode));
        None
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let number = self.by_name.remove(name)?;
        self.by_number.remove(&number).map(|(_, inode)| inode)
    }

    /// Takes out everything.
    pub(super) fn take_all(&mut self) -> Vec<Arc<TmpInode>> {
        self.by_name.clear();
        core::mem::take(&mut self.by_number).into_values().map(|(_, inode)| inode).collect()
    }

    /// Lists from `cookie` on; false when the sink was full.
    pub(super) fn list(
        &self,
        cookie: u64,
        (own, parent): (u64, u64),
        sink: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> bool {
        let dots = [(DOT, own, &b"."[..]), (DOT_DOT, parent, &b".."[..])];
        for (number, ino, name) in dots {
            if number >= cookie && !sink(&DirEntry { ino, file_type: FileType::Directory, name, next: number + 1 }) {
                return false;
            }
        }
        self.by_number.range(cookie.max(FIRST)..).all(|(&number, (name, inode))| {
            sink(&DirEntry { ino: inode.ino(), file_type: inode.file_type(), name, next: number + 1 })
        })
    }
}
