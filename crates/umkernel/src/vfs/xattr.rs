//! Extended attributes: who may see and change which (`xattr(7)`).

use super::acl::{Acl, Kind};
use super::{Access, FileType, Location, NotifyEvents, Vfs, check_access, notify};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::task::Capabilities;
use alloc::vec::Vec;

const USER: &[u8] = b"user.";
const TRUSTED: &[u8] = b"trusted.";
const SECURITY: &[u8] = b"security.";
const SYSTEM: &[u8] = b"system.";

/// Checks an access to an attribute by its name space; the value is then the file system's affair.
fn permission(ctx: &Ctx, at: &Location, name: &[u8], write: bool) -> Result<()> {
    let creds = ctx.creds();
    let inode = &at.dentry.inode;
    if write {
        at.mount.want_write()?;
        inode.check_changeable()?;
    }
    if name.starts_with(TRUSTED) {
        if !creds.capable(Capabilities::SYS_ADMIN) {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA }.into());
        }
        return Ok(());
    }
    let attr = inode.attr()?;
    if name.starts_with(USER) {
        match attr.file_type {
            FileType::Regular => {}
            // In a sticky directory only its owner may attach attributes.
            FileType::Directory if !write || attr.mode & 0o1000 == 0 || creds.owns(&attr) => {}
            _ => return Err(if write { Errno::EPERM } else { Errno::ENODATA }.into()),
        }
        return check_access(creds, inode, if write { Access::WRITE } else { Access::READ });
    }
    if name.starts_with(SECURITY) {
        if write && !creds.capable(Capabilities::SYS_ADMIN) {
            bail!(EPERM);
        }
        return Ok(());
    }
    if name.starts_with(SYSTEM) {
        if write && !creds.owns(&attr) {
            bail!(EPERM);
        }
        return Ok(());
    }
    bail!(EOPNOTSUPP)
}

impl Vfs {
    /// `getxattr(2)`.
    pub fn xattr_get(&self, ctx: &Ctx, at: &Location, name: &[u8]) -> Result<Vec<u8>> {
        permission(ctx, at, name, false)?;
        let inode = &at.dentry.inode;
        if Kind::of_name(name).is_some() && inode.file_type() == FileType::Symlink {
            bail!(EOPNOTSUPP);
        }
        inode.xattr_get(name)
    }

    /// `setxattr(2)`; `flags` are `XATTR_CREATE` (1) and `XATTR_REPLACE` (2).
    pub fn xattr_set(&self, ctx: &Ctx, at: &Location, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        permission(ctx, at, name, true)?;
        let inode = &at.dentry.inode;
        if let Some(kind) = Kind::of_name(name).filter(|_| inode.keeps_acls()) {
            return self.set_acl(ctx, at, kind, Acl::parse(value)?);
        }
        inode.xattr_set(name, value, flags)?;
        notify::at(at, NotifyEvents::ATTRIB);
        Ok(())
    }

    /// `removexattr(2)`.
    pub fn xattr_remove(&self, ctx: &Ctx, at: &Location, name: &[u8]) -> Result<()> {
        permission(ctx, at, name, true)?;
        let inode = &at.dentry.inode;
        if let Some(kind) = Kind::of_name(name).filter(|_| inode.keeps_acls()) {
            return self.set_acl(ctx, at, kind, None);
        }
        inode.xattr_remove(name)?;
        notify::at(at, NotifyEvents::ATTRIB);
        Ok(())
    }

    /// `listxattr(2)`: `trusted.` names are seen with `CAP_SYS_ADMIN` only.
    pub fn xattr_list(&self, ctx: &Ctx, at: &Location) -> Result<Vec<Vec<u8>>> {
        let mut names = at.dentry.inode.xattr_list()?;
        if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
            names.retain(|name| !name.starts_with(TRUSTED));
        }
        Ok(names)
    }
}
