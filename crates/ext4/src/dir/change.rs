//! Adding, replacing and removing directory entries.

use super::htree::Probe;
use super::{Entries, Found, entry_size};
use crate::cache::Kind;
use crate::csum::DIR_TAIL;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::{Compat, Incompat};
use crate::fs::Fs;
use crate::inode::{FL_INDEX, FL_INLINE_DATA, Inode};
use crate::le::{bytes_at, put_bytes, put8, put16, put32};
use crate::types::{FileType, Ino, NAME_MAX};

/// Where a new entry can go, as the check that its name is new found out.
#[derive(Debug)]
pub(crate) enum Slot {
    /// In this block, which has room.
    Block(u64),
    /// No block has room.
    Full,
    /// Where the hash index leads.
    Index(Probe),
}

/// Stores an entry length.
pub(crate) fn put_rec_len(data: &mut [u8], off: usize, len: usize) {
    let bs = data.len();
    let v = if len < 65536 {
        (len & 65532) | (len >> 16 & 3)
    } else if len == bs {
        65535
    } else {
        (len & 65532) | (len >> 16 & 3)
    };
    put16(data, off + 4, v as u16);
}

/// Writes an entry.
pub(crate) fn put_entry(data: &mut [u8], off: usize, rec_len: usize, ino: Ino, name: &[u8], file_type: u8) {
    put32(data, off, ino);
    put_rec_len(data, off, rec_len);
    put8(data, off + 6, name.len() as u8);
    put8(data, off + 7, file_type);
    put_bytes(data, off + 8, name);
}

/// Where in a block's entries a new one of `need` bytes fits: the entry to use or to shorten, and the bytes that keep
/// their place in it.
fn find_room(data: &[u8], space: usize, need: usize) -> Result<Option<(usize, usize, usize)>, &'static str> {
    for e in Entries::new(bytes_at(data, 0, space), data.len()) {
        let e = e?;
        if e.rec_len >= e.used() + need {
            return Ok(Some((e.off, e.used(), e.rec_len)));
        }
    }
    Ok(None)
}

impl<D: BlockDevice> Fs<D> {
    pub(crate) fn dirent_type(&self, t: FileType) -> u8 {
        if self.sb.features.incompat.contains(Incompat::FILETYPE) { t.dirent_byte() } else { 0 }
    }

    pub(super) fn dir_seed(&self, dir: &Inode) -> u32 {
        self.inode_seed(dir.ino, dir.generation())
    }

    /// Checks that a name is new and says where its entry can go.
    pub(crate) fn entry_slot(&mut self, dir: &mut Inode, name: &[u8]) -> Result<Slot> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if self.is_indexed(dir) {
            if self.find_entry(dir, name)?.is_some() {
                return Err(Error::Exists);
            }
            if let Some(p) = self.index_probe(dir, |fs, v| fs.hash_name(name, v).map(|h| h.major))? {
                return Ok(Slot::Index(p));
            }
            return Err(Error::inode(dir.ino, "the directory's hash index is damaged"));
        }
        let mut slot = Slot::Full;
        let (space, need) = (self.dir_space(), entry_size(name.len()));
        for lblk in 0..self.dir_blocks(dir)? {
            let Some((block, data, index)) = self.dir_block(dir, lblk)? else { continue };
            if self.find_in_block(dir, block, &data, name)?.is_some() {
                return Err(Error::Exists);
            }
            let room = find_room(&data, space, need).map_err(|what| Error::inode(dir.ino, what))?;
            if matches!(slot, Slot::Full) && room.is_some() && !index {
                slot = Slot::Block(block);
            }
        }
        Ok(slot)
    }

    /// Adds an entry where [`Fs::entry_slot`] said. The caller writes the directory's inode.
    pub(crate) fn insert_entry(
        &mut self,
        dir: &mut Inode,
        name: &[u8],
        ino: Ino,
        file_type: FileType,
        slot: Slot,
    ) -> Result<()> {
        match slot {
            Slot::Block(block) => {
                if self.add_to_block(dir, block, name, ino, file_type)? {
                    return Ok(());
                }
                Err(Error::inode(dir.ino, "a directory block has less room than it had"))
            }
            Slot::Index(probe) => self.index_insert(dir, probe, name, ino, file_type),
            Slot::Full => {
                let blocks = self.dir_blocks(dir)?;
                if blocks == 1 && self.sb.features.compat.contains(Compat::DIR_INDEX) && !dir.has(FL_INDEX) {
                    self.make_indexed(dir)?;
                    let probe = self.index_probe(dir, |fs, v| fs.hash_name(name, v).map(|h| h.major))?;
                    let probe = probe.ok_or(Error::inode(dir.ino, "the directory's new hash index is damaged"))?;
                    return self.index_insert(dir, probe, name, ino, file_type);
                }
                // Linux, too, clears the flag where the index does not cover the directory.
                let (_, block) = self.append_dir_block(dir)?;
                if self.add_to_block(dir, block, name, ino, file_type)? {
                    return Ok(());
                }
                Err(Error::inode(dir.ino, "an empty directory block has no room"))
            }
        }
    }

    /// Adds an entry to a block; false if there is no room.
    pub(super) fn add_to_block(
        &mut self,
        dir: &Inode,
        block: u64,
        name: &[u8],
        ino: Ino,
        file_type: FileType,
    ) -> Result<bool> {
        let kind = Kind::Dir(self.dir_seed(dir));
        let (space, byte) = (self.dir_space(), self.dirent_type(file_type));
        let data = self.block(block, kind)?;
        let room = find_room(&data, space, entry_size(name.len())).map_err(|what| Error::inode(dir.ino, what))?;
        let Some((off, used, rec_len)) = room else {
            return Ok(false);
        };
        drop(data);
        let data = self.block_mut(block, kind)?;
        if used > 0 {
            put_rec_len(data, off, used);
        }
        put_entry(data, off + used, rec_len - used, ino, name, byte);
        Ok(true)
    }

    /// Makes a block's entries one unused one, with a checksum entry behind where the file system has those.
    pub(super) fn init_leaf(&mut self, block: u64, seed: u32) -> Result<()> {
        let space = self.dir_space();
        let data = self.block_new(block, Kind::Dir(seed))?;
        put_rec_len(data, 0, space);
        put_tail(data, space);
        Ok(())
    }

    /// Adds an empty block at the directory's end.
    pub(super) fn append_dir_block(&mut self, dir: &mut Inode) -> Result<(u32, u64)> {
        let lblk = self.dir_blocks(dir)?;
        let (block, _) = self.fill_hole(dir, lblk, 1, false)?;
        dir.set_size(u64::from(lblk + 1) * self.bs as u64);
        self.init_leaf(block, self.dir_seed(dir))?;
        Ok((lblk, block))
    }

    /// Adds an empty block to a directory without an index.
    pub(crate) fn grow_dir(&mut self, dir: &mut Inode) -> Result<()> {
        self.append_dir_block(dir).map(|_| ())
    }

    /// Gives a new directory its first block.
    pub(crate) fn init_dir(&mut self, dir: &mut Inode, parent: Ino) -> Result<()> {
        let (_, block) = self.append_dir_block(dir)?;
        let byte = self.dirent_type(FileType::Directory);
        let space = self.dir_space();
        let ino = dir.ino;
        let data = self.block_mut(block, Kind::Dir(self.dir_seed(dir)))?;
        put_entry(data, 0, 12, ino, b".", byte);
        put_entry(data, 12, space - 12, parent, b"..", byte);
        Ok(())
    }

    /// Gives a directory whose entries lie in the inode a block for them.
    pub(crate) fn dir_leave_inode(&mut self, dir: &mut Inode) -> Result<()> {
        if !dir.has(FL_INLINE_DATA) || self.read_only {
            return Ok(());
        }
        let entries = self.inline_entries(dir)?;
        self.drop_inline(dir)?;
        dir.set_flags(dir.flags() & !FL_INLINE_DATA);
        self.init_map(dir);
        dir.set_size(0);
        let parent = entries.iter().find(|e| e.2 == b"..").map_or(dir.ino, |e| e.0);
        self.init_dir(dir, parent)?;
        for (ino, file_type, name) in entries {
            if name == b"." || name == b".." {
                continue;
            }
            let slot = self.entry_slot(dir, &name)?;
            let t = FileType::from_dirent_byte(file_type).unwrap_or(FileType::Regular);
            self.insert_entry(dir, &name, ino, t, slot)?;
        }
        self.put_inode(dir, true)
    }

    /// Makes an entry lead to another inode.
    pub(crate) fn set_entry(&mut self, dir: &Inode, found: Found, ino: Ino, file_type: FileType) -> Result<()> {
        let byte = self.dirent_type(file_type);
        let data = self.block_mut(found.block, Kind::Dir(self.dir_seed(dir)))?;
        put32(data, found.off, ino);
        put8(data, found.off + 7, byte);
        Ok(())
    }

    /// Removes an entry; its space goes to the one before it in the block.
    pub(crate) fn remove_entry(&mut self, dir: &mut Inode, found: Found) -> Result<()> {
        let kind = Kind::Dir(self.dir_seed(dir));
        let data = self.block(found.block, kind)?;
        let mut before = None;
        let mut this = None;
        for e in Entries::new(&data, self.bs) {
            let e = e.map_err(|what| Error::inode(dir.ino, what))?;
            if e.off == found.off {
                this = Some(e.rec_len);
                break;
            }
            before = Some((e.off, e.rec_len));
        }
        drop(data);
        let Some(len) = this else {
            return Err(Error::inode(dir.ino, "a directory entry vanished"));
        };
        let data = self.block_mut(found.block, kind)?;
        if let Some(s) = data.get_mut(found.off..found.off + len) {
            s.fill(0);
        }
        match before {
            Some((off, l)) => put_rec_len(data, off, l + len),
            None => put_rec_len(data, found.off, len),
        }
        Ok(())
    }

    /// Whether a directory has no entries but `.` and `..`.
    pub(crate) fn dir_is_empty(&mut self, dir: &Inode) -> Result<bool> {
        if dir.has(FL_INLINE_DATA) {
            return Ok(self.inline_entries(dir)?.len() <= 2);
        }
        for lblk in 0..self.dir_blocks(dir)? {
            let Some((_, data, _)) = self.dir_block(dir, lblk)? else { continue };
            for e in Entries::new(&data, self.bs) {
                let e = e.map_err(|what| Error::inode(dir.ino, what))?;
                if e.ino != 0 && e.name != b"." && e.name != b".." {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Makes a directory's `..` lead to another parent.
    pub(crate) fn set_parent(&mut self, dir: &Inode, parent: Ino) -> Result<()> {
        if dir.has(FL_INLINE_DATA) {
            let mut d = dir.clone();
            put32(d.i_block_mut(), 0, parent);
            return self.put_inode(&mut d, true);
        }
        let Some((block, data, index)) = self.dir_block(dir, 0)? else {
            return Err(Error::inode(dir.ino, "the directory has no first block"));
        };
        let at = Entries::new(&data, self.bs).nth(1);
        let Some(Ok(e)) = at.filter(|e| e.as_ref().is_ok_and(|e| e.name == b"..")) else {
            return Err(Error::inode(dir.ino, "the directory's second entry is not .."));
        };
        let (off, seed) = (e.off, self.dir_seed(dir));
        let kind = if index { Kind::DirIndex(seed) } else { Kind::Dir(seed) };
        put32(self.block_mut(block, kind)?, off, parent);
        Ok(())
    }
}

/// The entry with the checksum, where there is room for it behind `space`.
pub(crate) fn put_tail(data: &mut [u8], space: usize) {
    if space + DIR_TAIL == data.len() {
        put32(data, space, 0);
        put16(data, space + 4, DIR_TAIL as u16);
        put16(data, space + 6, 0xDE00);
        put32(data, space + 8, 0);
    }
}
