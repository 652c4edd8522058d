//! Extended attributes: in inodes, in blocks that inodes share, and in inodes of their own.

use super::inodes::Extent;
use super::{Checker, Mend};
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Place, Result};
use crate::inode::Inode;
use crate::le::u32_at;
use crate::types::Ino;
use crate::xattr::{XATTR_MAGIC, Xattr, hash_is_right};
use alloc::format;

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn check_attributes(&mut self, inode: &Inode, extent: &mut Extent) -> Result<()> {
        let body = self.fs.ibody_xattrs(inode);
        if let Some(body) = self.note(body, Mend::No)? {
            self.check_list(inode.ino, &body, true, extent);
        }
        let block = inode.file_acl();
        if block == 0 {
            return Ok(());
        }
        if self.fs.check_block(block).is_err() {
            self.bad_inode(inode.ino, format!("the attribute block {block} lies outside the file system"));
            return Ok(());
        }
        extent.blocks += 1;
        let first = !self.shared.contains_key(&block);
        if let Some((found, _)) = self.shared.get_mut(&block) {
            *found += 1;
        } else {
            if !self.mark(inode.ino, block, 1) {
                return Ok(());
            }
            let data = self.read_checked(block, Kind::Xattr, Mend::No)?;
            if u32_at(&data, 0) != XATTR_MAGIC || u32_at(&data, 8) != 1 {
                let what = "the extended attribute block has a wrong magic or length";
                self.found(Place::Block(block), Mend::No, what);
                return Ok(());
            }
            self.shared.insert(block, (1, u32_at(&data, 4)));
        }
        let data = self.fs.block(block, Kind::Plain)?;
        let list = Xattr::decode_block(inode.ino, &data);
        if let Some(list) = self.note(list, Mend::No)? {
            self.check_list(inode.ino, &list, first, extent);
        }
        Ok(())
    }

    /// `first`: nobody else's list was this one before, so that its references count.
    fn check_list(&mut self, ino: Ino, list: &[Xattr], first: bool, extent: &mut Extent) {
        for x in list {
            if x.inode != 0 {
                *self.values.entry(x.inode).or_insert(0) += u64::from(first);
                // The owner's count includes the space of values in inodes of their own.
                extent.blocks += u64::from(x.size).div_ceil(self.fs.bs as u64);
            } else if !hash_is_right(x) {
                self.bad_inode(ino, "the hash of an extended attribute does not match its name and value");
            }
        }
    }

    /// Reference counts of what inodes share.
    pub(super) fn check_sharing(&mut self) {
        for (block, (found, stated)) in core::mem::take(&mut self.shared) {
            if found != stated {
                let what = format!("the attribute block states {stated} references, expected {found}");
                self.found(Place::Block(block), Mend::Shares(block, found), what);
            }
        }
        let values = core::mem::take(&mut self.values);
        for (ino, found) in &values {
            match self.inodes.get(ino).and_then(|known| known.holds_value) {
                Some(stated) if stated == *found => {}
                Some(stated) => {
                    self.bad_inode(*ino, format!("the attribute's value states {stated} references, expected {found}"));
                }
                None => self.bad_inode(*ino, "the inode is named as an attribute's value, but is none"),
            }
        }
        let stray: alloc::vec::Vec<Ino> = self
            .inodes
            .iter()
            .filter(|(ino, known)| known.holds_value.is_some() && !values.contains_key(ino))
            .map(|(ino, _)| *ino)
            .collect();
        for ino in stray {
            self.bad_inode(ino, "the inode holds an attribute's value, but no inode names it");
        }
    }
}
