//! Passes 3 and 4: directories hang together, and inodes have as many names as they state.

use super::{Checker, Mend};
use crate::device::BlockDevice;
use crate::error::Place;
use crate::types::{FileType, Ino, ROOT_INO};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

/// A directory with more states 1 (feature `dir_nlink`).
const LINK_MAX: u32 = crate::namei::LINK_MAX as u32;

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn check_connections(&mut self) {
        let is_dir = |t: Option<FileType>| t == Some(FileType::Directory);
        match self.inodes.get(&ROOT_INO) {
            Some(root) if is_dir(root.file_type) => {}
            _ => {
                self.bad_inode(ROOT_INO, "the root is not a directory");
                return;
            }
        }
        let dirs: Vec<Ino> =
            self.inodes.iter().filter(|(_, k)| is_dir(k.file_type) && k.nlink > 0).map(|(ino, _)| *ino).collect();
        let mut reached: BTreeSet<Ino> = [ROOT_INO].into();
        for dir in dirs {
            let mut trail = BTreeSet::new();
            let mut at = dir;
            // Up to what is known to be reached, or to where no directory names it, or round.
            while !reached.contains(&at) && trail.insert(at) {
                match self.inodes.get(&at).map(|k| k.parent) {
                    Some(parent) if parent != 0 => at = parent,
                    _ => break,
                }
            }
            if reached.contains(&at) {
                reached.extend(trail);
            } else if at == dir {
                let named = self.inodes.get(&dir).is_some_and(|k| k.parent != 0);
                let what = if named { "the directory is below itself" } else { "no directory names this directory" };
                let mend = if named { Mend::No } else { Mend::Reconnect(dir) };
                self.found(Place::Inode(dir), mend, what);
            }
        }
        let wrong: Vec<(Ino, Ino, Ino)> = self
            .inodes
            .iter()
            .filter(|(_, k)| is_dir(k.file_type) && k.nlink > 0)
            .map(|(ino, k)| (*ino, if *ino == ROOT_INO { ROOT_INO } else { k.parent }, k.dotdot))
            .filter(|(_, parent, dotdot)| *parent != 0 && parent != dotdot)
            .collect();
        for (dir, parent, dotdot) in wrong {
            // The links that the wrong one adds are counted for whom it names; with the repair they move.
            for (ino, by) in [(dotdot, -1), (parent, 1)] {
                if let Some(known) = self.inodes.get_mut(&ino) {
                    known.refs = known.refs.saturating_add_signed(by);
                }
            }
            let what = format!("the directory's .. leads to inode {dotdot}, expected {parent}");
            self.found(Place::Inode(dir), Mend::Parent(dir, parent), what);
        }
    }

    pub(super) fn check_links(&mut self) {
        let mut findings = Vec::new();
        for (&ino, known) in &self.inodes {
            if known.holds_value.is_some() || self.orphans.contains(&ino) && known.nlink == 0 {
                continue;
            }
            let is_dir = known.file_type == Some(FileType::Directory);
            let mut refs = known.refs;
            if is_dir && known.parent == 0 && ino != ROOT_INO {
                // Without a name of its own: the connection's finding.
                refs += 1;
            } else if refs == 0 {
                findings.push((
                    ino,
                    Mend::Reconnect(ino),
                    format!("no directory names the inode ({} links)", known.nlink),
                ));
                refs = 1;
            }
            let right = if is_dir && refs > LINK_MAX { 1 } else { refs };
            if u32::from(known.nlink) != right {
                let what = format!("the link count is {}, expected {right}", known.nlink);
                let mend = u16::try_from(right).map_or(Mend::No, |right| Mend::Links(ino, right));
                findings.push((ino, mend, what));
            }
        }
        for (ino, mend, what) in findings {
            self.found(Place::Inode(ino), mend, what);
        }
    }
}
