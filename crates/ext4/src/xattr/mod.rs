//! Extended attributes (Linux `Documentation/filesystems/ext4/attributes.rst`): behind the inode's fixed fields, in
//! one further block that equal inodes may share, and values over a block's size in inodes of their own.

mod acl;
mod change;

pub(crate) use change::hash_is_right;

use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::{FL_EA_INODE, Inode};
use crate::le::{bytes_at, u8_at, u16_at, u32_at};
use crate::types::Ino;
use alloc::vec::Vec;

pub(crate) const XATTR_MAGIC: u32 = 0xEA02_0000;
/// Bytes before the entries of an attribute block.
pub(crate) const BLOCK_HEADER: usize = 32;
/// Linux's limit for a value (`XATTR_SIZE_MAX`).
pub(crate) const VALUE_MAX: usize = 65536;

const SYSTEM: u8 = 7;
const POSIX_ACL_ACCESS: u8 = 2;
const POSIX_ACL_DEFAULT: u8 = 3;

/// Name prefixes and the numbers stored for them.
const PREFIXES: &[(u8, &[u8])] = &[
    (1, b"user."),
    (POSIX_ACL_ACCESS, b"system.posix_acl_access"),
    (POSIX_ACL_DEFAULT, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (8, b"system.richacl"),
    (SYSTEM, b"system."),
];

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xattr {
    /// Number of the name's prefix.
    pub(crate) index: u8,
    /// The name without its prefix.
    pub(crate) name: Vec<u8>,
    /// The value, unless an inode holds it.
    pub(crate) value: Vec<u8>,
    /// The inode that holds the value, or 0.
    pub(crate) inode: Ino,
    /// Length of the value.
    pub(crate) size: u32,
    /// The stored hash; kept for values in inodes, where it cannot be recomputed from the value here.
    pub(crate) hash: u32,
}

impl Xattr {
    /// Bytes of the entry without its value.
    pub(crate) fn entry_len(&self) -> usize {
        (16 + self.name.len()).next_multiple_of(4)
    }
    /// Bytes of the value where it is stored with the entry.
    pub(crate) fn value_len(&self) -> usize {
        if self.inode != 0 { 0 } else { self.value.len().next_multiple_of(4) }
    }
    /// The attributes in an attribute block.
    pub(crate) fn decode_block(ino: Ino, data: &[u8]) -> Result<Vec<Xattr>> {
        decode(ino, data, BLOCK_HEADER, 0)
    }
    fn full_name(&self) -> Option<Vec<u8>> {
        let (_, prefix) = PREFIXES.iter().find(|(i, _)| *i == self.index)?;
        let mut n = prefix.to_vec();
        n.extend_from_slice(&self.name);
        Some(n)
    }
}

/// Splits a full name into prefix number and rest.
fn split_name(name: &[u8]) -> Result<(u8, &[u8])> {
    for (index, prefix) in PREFIXES {
        if let Some(rest) = name.strip_prefix(*prefix) {
            let whole = !prefix.ends_with(b".");
            if whole != rest.is_empty() {
                continue;
            }
            if rest.len() > 255 {
                return Err(Error::Invalid("an extended attribute's name is longer than 255 bytes"));
            }
            return Ok((*index, rest));
        }
    }
    Err(Error::Unsupported {
        what: alloc::string::String::from("an extended attribute name without a known prefix (user., trusted., ...)"),
        read_only_possible: false,
    })
}

/// Decodes a list of entries at `off`; value offsets count from `base`.
fn decode(ino: Ino, data: &[u8], off: usize, base: usize) -> Result<Vec<Xattr>> {
    let bad = |what| Err(Error::inode(ino, what));
    let mut out = Vec::new();
    let mut at = off;
    loop {
        if at + 4 > data.len() || u32_at(data, at) == 0 {
            return Ok(out);
        }
        let name_len = usize::from(u8_at(data, at));
        if at + 16 + name_len > data.len() {
            return bad("an extended attribute's entry crosses its area's end");
        }
        let (offset, size) = (usize::from(u16_at(data, at + 2)), u32_at(data, at + 8));
        let inode = u32_at(data, at + 4);
        let mut value = Vec::new();
        if inode == 0 {
            let start = base + offset;
            let len = size as usize;
            if len > data.len() || start + len > data.len() {
                return bad("an extended attribute's value lies outside its area");
            }
            value = bytes_at(data, start, len).to_vec();
        }
        let name = bytes_at(data, at + 16, name_len).to_vec();
        out.push(Xattr { index: u8_at(data, at + 1), name, value, inode, size, hash: u32_at(data, at + 12) });
        at += (16 + name_len).next_multiple_of(4);
    }
}

impl<D: BlockDevice> Fs<D> {
    /// Where the attributes behind an inode's fixed fields start, if there is room for any.
    pub(crate) fn ibody_start(&self, inode: &Inode) -> Option<usize> {
        let start = 128 + inode.extra_isize();
        (inode.raw.len() > 128 && inode.extra_isize() >= 4 && start.is_multiple_of(4) && start + 8 <= inode.raw.len())
            .then_some(start)
    }

    /// The attributes in the inode itself.
    pub(crate) fn ibody_xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        match self.ibody_start(inode) {
            Some(s) if u32_at(&inode.raw, s) == XATTR_MAGIC => decode(inode.ino, &inode.raw, s + 4, s + 4),
            _ => Ok(Vec::new()),
        }
    }

    /// The attributes in the inode's attribute block.
    pub(crate) fn block_xattrs(&mut self, inode: &Inode) -> Result<Vec<Xattr>> {
        let block = inode.file_acl();
        if block == 0 {
            return Ok(Vec::new());
        }
        let data = self.block(block, Kind::Xattr)?;
        if u32_at(&data, 0) != XATTR_MAGIC || u32_at(&data, 8) != 1 {
            return Err(Error::inode(inode.ino, "the extended attribute block has a wrong magic or length"));
        }
        Xattr::decode_block(inode.ino, &data)
    }

    /// All attributes, those in the inode first.
    fn all_xattrs(&mut self, inode: &Inode) -> Result<Vec<Xattr>> {
        let mut all = self.ibody_xattrs(inode)?;
        all.extend(self.block_xattrs(inode)?);
        Ok(all)
    }

    /// The bytes of an inline file or directory that do not fit the inode's 60 (attribute `system.data`).
    pub(crate) fn inline_tail(&mut self, inode: &Inode) -> Result<Option<Vec<u8>>> {
        let list = self.ibody_xattrs(inode)?;
        Ok(list.into_iter().find(|x| x.index == SYSTEM && x.name == b"data").map(|x| x.value))
    }

    /// Reads a value that an inode of its own holds.
    fn read_ea_inode(&mut self, owner: Ino, x: &Xattr) -> Result<Vec<u8>> {
        let inode = self.inode(x.inode)?;
        if !inode.has(FL_EA_INODE) || inode.size() != u64::from(x.size) || x.size as usize > VALUE_MAX {
            return Err(Error::inode(owner, "an extended attribute names an inode that does not hold its value"));
        }
        let mut v = alloc::vec![0; x.size as usize];
        let n = self.read_blocks(&inode, 0, &mut v)?;
        v.truncate(n);
        Ok(v)
    }

    /// The value of an extended attribute, by its full name (`user.x`, `system.posix_acl_access`, ...), in the form
    /// that `getxattr(2)` returns.
    ///
    /// # Errors
    /// [`Error::NoData`] if there is none; [`Error::Unsupported`] for an unknown prefix; [`Error::NotFound`],
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn xattr_get(&mut self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let (index, rest) = split_name(name)?;
        let inode = self.inode(ino)?;
        let found = self.all_xattrs(&inode)?.into_iter().find(|x| x.index == index && x.name == rest);
        let x = found.filter(|x| !is_hidden(x)).ok_or(Error::NoData)?;
        let value = if x.inode != 0 { self.read_ea_inode(ino, &x)? } else { x.value };
        match index {
            POSIX_ACL_ACCESS | POSIX_ACL_DEFAULT => {
                acl::to_user(&value).ok_or(Error::inode(ino, "the access control list is malformed"))
            }
            _ => Ok(value),
        }
    }

    /// The full names of an inode's extended attributes, in stored order.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Corrupt`], [`Error::Io`].
    pub fn xattr_list(&mut self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let inode = self.inode(ino)?;
        Ok(self.all_xattrs(&inode)?.iter().filter(|x| !is_hidden(x)).filter_map(Xattr::full_name).collect())
    }
}

/// Whether an attribute is the file system's own affair.
fn is_hidden(x: &Xattr) -> bool {
    x.index == SYSTEM && x.name == b"data"
}
