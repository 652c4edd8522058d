//! Extended attributes: setting and removing.

use super::{
    BLOCK_HEADER, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, SYSTEM, VALUE_MAX, XATTR_MAGIC, Xattr, acl, split_name,
};
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::Compat;
use crate::fs::Fs;
use crate::inode::{FL_EA_INODE, FL_INLINE_DATA, Inode, Time};
use crate::le::{put_bytes, put8, put16, put32, u32_at};
use crate::types::{FileType, Ino, Timestamp, XattrMode};
use alloc::vec::Vec;

/// The hash of name and value (`ext4_xattr_hash_entry`).
fn entry_hash(x: &Xattr) -> u32 {
    if x.inode != 0 {
        return x.hash;
    }
    hash(x, false)
}

/// Whether an entry's stored hash is right, 0 for none. Kernels before 6.2 took the name's characters as signed.
pub(crate) fn hash_is_right(x: &Xattr) -> bool {
    x.hash == 0 || x.hash == hash(x, false) || x.hash == hash(x, true)
}

fn hash(x: &Xattr, signed: bool) -> u32 {
    let mut h = 0u32;
    for &b in &x.name {
        let c = if signed { i32::from(b.cast_signed()).cast_unsigned() } else { u32::from(b) };
        h = (h << 5) ^ (h >> 27) ^ c;
    }
    for c in x.value.chunks(4) {
        let mut word = [0; 4];
        put_bytes(&mut word, 0, c);
        h = (h << 16) ^ (h >> 16) ^ u32::from_le_bytes(word);
    }
    h
}

/// Bytes that a list takes, its end mark included.
fn list_len(list: &[Xattr]) -> usize {
    list.iter().map(|x| x.entry_len() + x.value_len()).sum::<usize>() + 4
}

/// Writes entries from `off` on and values from the end of `area` downwards; value offsets count from `base`.
fn encode(list: &[Xattr], area: &mut [u8], off: usize, base: usize) {
    let (mut at, mut end) = (off, area.len() & !3);
    for x in list {
        end -= x.value_len();
        let inline = x.inode == 0 && !x.value.is_empty();
        put8(area, at, x.name.len() as u8);
        put8(area, at + 1, x.index);
        put16(area, at + 2, if inline { (end - base) as u16 } else { 0 });
        put32(area, at + 4, x.inode);
        put32(area, at + 8, x.size);
        put32(area, at + 12, entry_hash(x));
        put_bytes(area, at + 16, &x.name);
        if inline {
            put_bytes(area, end, &x.value);
        }
        at += x.entry_len();
    }
}

impl<D: BlockDevice> Fs<D> {
    /// Sets an extended attribute, by its full name, to the value that `setxattr(2)` passes. An access ACL does not
    /// change the permission bits: that is the caller's part.
    ///
    /// # Errors
    /// [`Error::Exists`] or [`Error::NoData`] as `mode` demands, [`Error::NoSpace`] if the attributes of an inode
    /// exceed a block, [`Error::Invalid`] for a malformed ACL, and as [`Fs::set_attr`].
    pub fn xattr_set(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode, now: Timestamp) -> Result<()> {
        let (index, rest) = split_name(name)?;
        if index == SYSTEM {
            return Err(Error::NotPermitted("attributes of the file system itself"));
        }
        if value.len() > VALUE_MAX {
            return Err(Error::NoSpace);
        }
        let value = match index {
            POSIX_ACL_ACCESS | POSIX_ACL_DEFAULT => {
                acl::to_disk(value).ok_or(Error::Invalid("the access control list is malformed"))?
            }
            _ => value.to_vec(),
        };
        let new = Xattr { index, name: rest.to_vec(), size: value.len() as u32, value, inode: 0, hash: 0 };
        self.operation(|fs| fs.change_xattr(ino, &new, true, mode, now))
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoData`] if there is none, and as [`Fs::set_attr`].
    pub fn xattr_remove(&mut self, ino: Ino, name: &[u8], now: Timestamp) -> Result<()> {
        let (index, rest) = split_name(name)?;
        if index == SYSTEM {
            return Err(Error::NotPermitted("attributes of the file system itself"));
        }
        let gone = Xattr { index, name: rest.to_vec(), size: 0, value: Vec::new(), inode: 0, hash: 0 };
        self.operation(|fs| fs.change_xattr(ino, &gone, false, XattrMode::Replace, now))
    }

    fn change_xattr(&mut self, ino: Ino, x: &Xattr, keep: bool, mode: XattrMode, now: Timestamp) -> Result<()> {
        let mut inode = self.inode(ino)?;
        let same = |o: &Xattr| o.index == x.index && o.name == x.name;
        let mut body = self.ibody_xattrs(&inode)?;
        let mut block = self.block_xattrs(&inode)?;
        let old = body.iter().chain(&block).find(|o| same(o)).cloned();
        match (mode, &old) {
            (XattrMode::Create, Some(_)) => return Err(Error::Exists),
            (XattrMode::Replace, None) => return Err(Error::NoData),
            _ => {}
        }
        let block_before = block.clone();
        body.retain(|o| !same(o));
        block.retain(|o| !same(o));
        if keep {
            body.push(x.clone());
            if !self.body_fits(&inode, &body) {
                body.pop();
                block.push(x.clone());
                if BLOCK_HEADER + list_len(&block) > self.bs {
                    return Err(Error::NoSpace);
                }
            }
        }
        self.store_body(&mut inode, &body)?;
        if block != block_before {
            // e2fsck does not look for attribute blocks of symbolic links whose target is inline data.
            if inode.has(FL_INLINE_DATA) && inode.file_type() == Some(FileType::Symlink) {
                self.leave_inode(&mut inode)?;
            }
            self.store_block(&mut inode, block)?;
        }
        if let Some(o) = old.filter(|o| o.inode != 0) {
            self.release_ea_inode(o.inode)?;
            self.uncount_value(&mut inode, &o)?;
        }
        inode.set_time(Time::Change, now);
        self.note_time(now);
        self.put_inode(&mut inode, true)
    }

    fn body_fits(&self, inode: &Inode, list: &[Xattr]) -> bool {
        self.ibody_start(inode).is_some_and(|s| s + 4 + list_len(list) <= inode.raw.len())
    }

    fn store_body(&self, inode: &mut Inode, list: &[Xattr]) -> Result<()> {
        let Some(start) = self.ibody_start(inode) else {
            return Ok(());
        };
        if list.is_empty() {
            if let Some(s) = inode.raw.get_mut(start..) {
                s.fill(0);
            }
            return Ok(());
        }
        if !self.body_fits(inode, list) {
            return Err(Error::inode(inode.ino, "the attributes in the inode do not fit it"));
        }
        if let Some(s) = inode.raw.get_mut(start..) {
            s.fill(0);
        }
        put32(&mut inode.raw, start, XATTR_MAGIC);
        encode(list, &mut inode.raw, start + 4, start + 4);
        Ok(())
    }

    /// Replaces the attribute block by one with this list.
    fn store_block(&mut self, inode: &mut Inode, mut list: Vec<Xattr>) -> Result<()> {
        let old = inode.file_acl();
        if list.is_empty() {
            return self.release_block(inode);
        }
        list.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
        let shared = match old {
            0 => true,
            b => u32_at(&self.block(b, Kind::Xattr)?, 4) != 1,
        };
        let block = if shared {
            if old != 0 {
                // The copy refers to the values in inodes of their own, too.
                for x in list.iter().filter(|x| x.inode != 0) {
                    self.count_value(x.inode)?;
                }
                self.release_block(inode)?;
            }
            let b = self.alloc_meta(inode, self.inode_goal(inode.ino))?;
            self.block_new(b, Kind::Xattr)?;
            b
        } else {
            old
        };
        let mut hash = 0u32;
        for h in list.iter().map(entry_hash) {
            if h == 0 {
                hash = 0;
                break;
            }
            hash = (hash << 16) ^ (hash >> 16) ^ h;
        }
        let data = self.block_mut(block, Kind::Xattr)?;
        data.fill(0);
        put32(data, 0, XATTR_MAGIC);
        put32(data, 4, 1);
        put32(data, 8, 1);
        put32(data, 12, hash);
        encode(&list, data, BLOCK_HEADER, 0);
        inode.set_file_acl(block);
        if !self.sb.features.compat.contains(Compat::EXT_ATTR) && self.sb.revision > 0 {
            self.sb.features.compat |= Compat::EXT_ATTR;
            self.cache.txn.super_dirty = true;
        }
        Ok(())
    }

    /// Gives up an inode's reference to its attribute block.
    fn release_block(&mut self, inode: &mut Inode) -> Result<()> {
        let block = inode.file_acl();
        if block == 0 {
            return Ok(());
        }
        let count = u32_at(&self.block(block, Kind::Xattr)?, 4);
        if count > 1 {
            put32(self.block_mut(block, Kind::Xattr)?, 4, count - 1);
        } else {
            self.free_blocks(block, 1, true)?;
        }
        self.add_blocks(inode, -1)?;
        inode.set_file_acl(0);
        Ok(())
    }

    /// Takes a value in an inode of its own from the owner's block count, which includes it.
    fn uncount_value(&self, owner: &mut Inode, x: &Xattr) -> Result<()> {
        self.add_blocks(owner, -i64::from(x.size.div_ceil(self.bs as u32)))
    }

    /// Adds a reference to an inode that holds a value.
    fn count_value(&mut self, ino: Ino) -> Result<()> {
        let mut inode = self.inode(ino)?;
        let count = inode.value_references() + 1;
        put32(&mut inode.raw, 12, (count >> 32) as u32);
        put32(&mut inode.raw, 36, (count & 0xFFFF_FFFF) as u32);
        self.put_inode(&mut inode, true)
    }

    /// Gives up a reference to an inode that holds a value. Its count is kept in fields that it has no use for.
    fn release_ea_inode(&mut self, ino: Ino) -> Result<()> {
        let mut inode = self.inode(ino)?;
        if !inode.has(FL_EA_INODE) {
            return Err(Error::inode(ino, "the inode does not hold an extended attribute's value"));
        }
        let count = inode.value_references();
        if count > 1 {
            put32(&mut inode.raw, 12, ((count - 1) >> 32) as u32);
            put32(&mut inode.raw, 36, ((count - 1) & 0xFFFF_FFFF) as u32);
            return self.put_inode(&mut inode, true);
        }
        // A value has at most 64 KiB, so its blocks go in one step.
        self.remove_range(&mut inode, 0, 1 << 32)?;
        self.free_inode(&mut inode)
    }

    /// Frees all attributes of an inode that is being deleted.
    pub(crate) fn drop_xattrs(&mut self, inode: &mut Inode) -> Result<()> {
        let mut holders: Vec<Ino> = self.ibody_xattrs(inode)?.iter().map(|x| x.inode).collect();
        let block = inode.file_acl();
        if block != 0 {
            let last = u32_at(&self.block(block, Kind::Xattr)?, 4) <= 1;
            if last {
                holders.extend(self.block_xattrs(inode)?.iter().map(|x| x.inode));
            }
        }
        self.release_block(inode)?;
        for ino in holders.into_iter().filter(|i| *i != 0) {
            self.release_ea_inode(ino)?;
        }
        Ok(())
    }

    /// Removes the attribute that holds an inline file's or directory's further bytes.
    pub(crate) fn drop_inline(&mut self, inode: &mut Inode) -> Result<()> {
        let mut body = self.ibody_xattrs(inode)?;
        body.retain(|x| !super::is_hidden(x));
        self.store_body(inode, &body)
    }
}
