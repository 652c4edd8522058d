//! Pass 2: directories' blocks and entries.

use super::{Checker, DirRun, Entry, Mend};
use crate::cache::{Block, Kind};
use crate::device::BlockDevice;
use crate::dir::{Entries, is_node};
use crate::error::{Place, Result};
use crate::features::Incompat;
use crate::inode::{FL_ENCRYPT, FL_INDEX, FL_INLINE_DATA, I_BLOCK_LEN, Inode};
use crate::le::{bytes_at, u32_at};
use crate::types::{FileType, Ino, ROOT_INO};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A directory while its blocks are read.
struct Walk<'a> {
    dir: &'a Inode,
    names: BTreeSet<Vec<u8>>,
}

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn check_directories(&mut self) -> Result<()> {
        for (dir, runs) in core::mem::take(&mut self.dirs) {
            if dir.has(FL_INLINE_DATA) {
                self.check_inline(&dir)?;
            } else {
                self.check_directory(&dir, runs)?;
            }
            self.fs.shrink_cache();
        }
        Ok(())
    }

    fn check_directory(&mut self, dir: &Inode, mut runs: Vec<DirRun>) -> Result<()> {
        runs.sort_unstable();
        let indexed = self.fs.is_indexed(dir);
        let seed = self.fs.inode_seed(dir.ino, dir.generation());
        let mut walk = Walk { dir, names: BTreeSet::new() };
        let mut leaves: Vec<(u32, u64, Block)> = Vec::new();
        let mut nodes: Vec<(u32, Block)> = Vec::new();
        let mut next = 0;
        for (first, start, len) in runs {
            if first != next {
                self.bad_inode(dir.ino, format!("block {next} of the directory is a hole"));
            }
            next = first.saturating_add(len);
            for i in 0..len {
                let (lblk, block) = (first + i, start + u64::from(i));
                if self.fs.check_block(block).is_err() {
                    continue;
                }
                let data = self.fs.block(block, Kind::Plain)?;
                if indexed && (lblk == 0 || is_node(&data)) {
                    let data = self.read_checked(block, Kind::DirIndex(seed), Mend::DropIndex(dir.ino))?;
                    if lblk == 0 {
                        self.check_block_entries(&mut walk, lblk, block, &data);
                    }
                    nodes.push((lblk, data));
                    continue;
                }
                self.read_checked(block, Kind::Dir(seed), Mend::DirBlock(dir.ino, block))?;
                self.check_block_entries(&mut walk, lblk, block, &data);
                if indexed {
                    leaves.push((lblk, block, data));
                }
            }
        }
        if next == 0 {
            self.bad_inode(dir.ino, "the directory has no blocks");
        }
        if indexed && !dir.has(FL_ENCRYPT) {
            self.check_index(dir, &nodes, &leaves);
        }
        Ok(())
    }

    fn check_block_entries(&mut self, walk: &mut Walk<'_>, lblk: u32, block: u64, data: &[u8]) {
        let dir = walk.dir.ino;
        let (space, root) = (self.fs.dir_space(), lblk == 0 && walk.dir.has(FL_INDEX));
        // The root of an index has its table in the space of `..`.
        let area = if root { data } else { bytes_at(data, 0, space) };
        for (position, e) in Entries::new(area, self.fs.bs).enumerate() {
            let e = match e {
                Ok(e) => e,
                Err(what) => {
                    self.found(Place::Inode(dir), Mend::No, format!("block {lblk} of the directory: {what}"));
                    return;
                }
            };
            let at = Entry { dir, block, off: e.off };
            if lblk == 0
                && position < 2
                && e.name.iter().all(|c| *c == b'.')
                && area.get(e.off + 8 + e.name.len()) != Some(&0)
            {
                self.bad_inode(dir, "the name of the directory's . or .. does not end in a zero byte");
            }
            match (lblk, position, e.name) {
                (0, 0, b".") => {
                    if e.ino != dir {
                        self.bad_inode(dir, format!("the directory's . leads to inode {}", e.ino));
                    }
                    self.refer(dir);
                }
                (0, 1, b"..") => self.note_parent(dir, e.ino),
                (0, 0, _) => self.bad_inode(dir, "the directory's first entry is not ."),
                (0, 1, _) => self.bad_inode(dir, "the directory's second entry is not .."),
                _ if e.ino == 0 => {}
                _ => {
                    let (ino, byte, name) = (e.ino, e.file_type, e.name);
                    self.check_entry(walk, Some(at), ino, byte, name);
                }
            }
        }
    }

    fn note_parent(&mut self, dir: Ino, parent: Ino) {
        self.refer(parent);
        if let Some(known) = self.inodes.get_mut(&dir) {
            known.dotdot = parent;
        }
    }

    fn refer(&mut self, ino: Ino) {
        if let Some(known) = self.inodes.get_mut(&ino) {
            known.refs += 1;
        }
    }

    /// Checks an entry other than `.` and `..`. `at` is its place, unless it lies in the inode.
    fn check_entry(&mut self, walk: &mut Walk<'_>, at: Option<Entry>, ino: Ino, byte: u8, name: &[u8]) {
        let dir = walk.dir.ino;
        let encrypted = walk.dir.has(FL_ENCRYPT);
        let shown: String = String::from_utf8_lossy(name).chars().flat_map(char::escape_debug).collect();
        let clear = at.map_or(Mend::No, Mend::ClearEntry);
        if !encrypted && (name.is_empty() || name.contains(&b'/') || name.contains(&0)) {
            self.found(Place::Inode(dir), Mend::No, format!("the name \"{shown}\" is not possible"));
        }
        if name == b"." || name == b".." {
            self.found(Place::Inode(dir), clear, format!("there is a second \"{shown}\""));
            return;
        }
        if !walk.names.insert(name.to_vec()) {
            self.found(Place::Inode(dir), Mend::No, format!("the name \"{shown}\" is there twice"));
        }
        if ino > self.fs.sb.inodes_count {
            self.found(Place::Inode(dir), clear, format!("\"{shown}\" leads to inode {ino}, out of range"));
            return;
        }
        if ino < self.fs.sb.first_ino && ino != ROOT_INO {
            self.found(Place::Inode(dir), clear, format!("\"{shown}\" leads to inode {ino} of the file system itself"));
            return;
        }
        let filetype = self.fs.sb.features.incompat.contains(Incompat::FILETYPE);
        let Some(known) = self.inodes.get_mut(&ino).filter(|known| known.nlink > 0) else {
            self.found(Place::Inode(dir), clear, format!("\"{shown}\" leads to inode {ino}, which is free"));
            return;
        };
        let file_type = known.file_type;
        known.refs += 1;
        if file_type == Some(FileType::Directory) {
            let first = known.parent == 0 && ino != ROOT_INO;
            let other = known.parent;
            if first {
                known.parent = dir;
            } else {
                known.refs -= 1;
                let what = format!("\"{shown}\" leads to directory {ino}, which directory {other} names already");
                self.found(Place::Inode(dir), clear, what);
                return;
            }
        }
        let right = if filetype { file_type.map_or(byte, FileType::dirent_byte) } else { 0 };
        // 0 is "not known".
        if byte != right && byte != 0 {
            let mend = match (at, file_type) {
                (Some(at), Some(file_type)) => Mend::EntryType(at, file_type),
                _ => Mend::No,
            };
            let what = format!("\"{shown}\" has type {byte}, expected {right}");
            self.found(Place::Inode(dir), mend, what);
        }
    }

    /// A directory whose entries lie in the inode.
    fn check_inline(&mut self, dir: &Inode) -> Result<()> {
        let mut walk = Walk { dir, names: BTreeSet::new() };
        let tail = self.fs.inline_tail(dir);
        let Some(tail) = self.note(tail, Mend::No)? else { return Ok(()) };
        let first = bytes_at(dir.i_block(), 4, I_BLOCK_LEN - 4).to_vec();
        self.refer(dir.ino);
        self.note_parent(dir.ino, u32_at(dir.i_block(), 0));
        for region in [first, tail.unwrap_or_default()] {
            for e in Entries::new(&region, self.fs.bs) {
                match e {
                    Ok(e) if e.ino == 0 => {}
                    Ok(e) => {
                        let (ino, byte, name) = (e.ino, e.file_type, e.name.to_vec());
                        self.check_entry(&mut walk, None, ino, byte, &name);
                    }
                    Err(what) => {
                        self.bad_inode(dir.ino, what);
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
