//! Extended attributes: who may see and change which (`xattr(7)`).

use super::{Access, FileType, Location, NotifyEvents, Vfs, check_mode, notify};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::task::Capabilities;
use alloc::vec::Vec;

const USER: &[u8] = b"user.";
const TRUSTED: &[u8] = b"trusted.";
const SECURITY: &[u8] = b"security.";
const SYSTEM: &[u8] = b"system.";

/// The access control list, of which the mode's permission bits are a part (`acl(5)`).
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// The permission bits that an access control list stands for, and whether it says more than they do; none if it has no entries or
/// is malformed.
fn bits_of_acl(value: &[u8]) -> Option<(u32, bool)> {
    // Linux `posix_acl_xattr.h`: a version, then entries of tag, permissions and id.
    const USER_OBJ: u16 = 1;
    const GROUP_OBJ: u16 = 4;
    const MASK: u16 = 16;
    const OTHER: u16 = 32;
    let entries = value.get(4..)?.chunks_exact(8);
    if entries.len() == 0 {
        return None;
    }
    let (mut bits, mut mask, mut more) = (0, None, false);
    for entry in entries {
        let [t0, t1, p0, p1, ..] = *entry else { return None };
        let allowed = u32::from(u16::from_le_bytes([p0, p1])) & 7;
        match u16::from_le_bytes([t0, t1]) {
            USER_OBJ => bits |= allowed << 6,
            GROUP_OBJ => bits |= allowed << 3,
            OTHER => bits |= allowed,
            MASK => mask = Some(allowed),
            _ => more = true,
        }
    }
    // The mode's bits for the group are the mask's, where there is one.
    Some(match mask {
        Some(mask) => (bits & !0o070 | mask << 3, true),
        None => (bits, more),
    })
}

/// Checks an access to an attribute by its name space; the value is then the file system's affair.
fn permission(ctx: &Ctx, at: &Location, name: &[u8], write: bool) -> Result<()> {
    if write {
        at.mount.want_write()?;
    }
    let creds = ctx.creds();
    let inode = &at.dentry.inode;
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
        return check_mode(creds, &attr, if write { Access::WRITE } else { Access::READ });
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
        at.dentry.inode.xattr_get(name)
    }

    /// `setxattr(2)`; `flags` are `XATTR_CREATE` (1) and `XATTR_REPLACE` (2).
    pub fn xattr_set(&self, ctx: &Ctx, at: &Location, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        permission(ctx, at, name, true)?;
        let inode = &at.dentry.inode;
        inode.xattr_set(name, value, flags)?;
        if name == ACCESS_ACL
            && let Some((bits, more)) = bits_of_acl(value)
        {
            if !more {
                inode.xattr_remove(name)?;
            }
            return self.chmod(ctx, at, inode.attr()?.mode & 0o7000 | bits);
        }
        notify::at(at, NotifyEvents::ATTRIB);
        Ok(())
    }

    /// `removexattr(2)`.
    pub fn xattr_remove(&self, ctx: &Ctx, at: &Location, name: &[u8]) -> Result<()> {
        permission(ctx, at, name, true)?;
        at.dentry.inode.xattr_remove(name)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, allowed) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&allowed.to_le_bytes());
            value.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        value
    }

    #[test]
    fn an_access_control_list_has_permission_bits() {
        assert_eq!(bits_of_acl(&acl(&[(1, 7), (4, 5), (32, 5)])), Some((0o755, false)));
        assert_eq!(bits_of_acl(&acl(&[(1, 6), (2, 7), (4, 0), (16, 7), (32, 4)])), Some((0o674, true)));
        assert_eq!(bits_of_acl(&acl(&[])), None);
        assert_eq!(bits_of_acl(b"\x02"), None);
    }
}
