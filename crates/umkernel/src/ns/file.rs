//! Files that stand for namespaces: what the links in `/proc/PID/ns` lead to (`ioctl_nsfs(2)`).
//!
//! They are on a file system of their own, `nsfs`, which is mounted nowhere. One that is mounted itself (`mount --bind`) keeps its namespace.

use super::{Kind, Namespace};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::vfs::{Attr, Dentry, File, FileOps, FileType, Inode, InodeRef, Location, OpenFlags};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;

/// A namespace's file. Each time that somebody looks there is a new one; all have the namespace's number.
struct NsInode {
    attr: Attr,
    namespace: Namespace,
}

/// Where a namespace's file is.
pub fn location(ctx: &Ctx, namespace: Namespace) -> Location {
    let mount = ctx.kernel.vfs.nsfs();
    let attr = Attr::new(mount.sb.fs.dev(), namespace.number(), FileType::Regular, 0o444, (0, 0));
    let name = namespace.text();
    let inode: InodeRef = Arc::new(NsInode { attr, namespace });
    Location { mount, dentry: Dentry::detached(inode, name.as_bytes()) }
}

/// The namespace that an inode stands for, if it does for any.
pub(super) fn of(inode: &dyn Inode) -> Option<&Namespace> {
    inode.as_any().downcast_ref::<NsInode>().map(|inode| &inode.namespace)
}

/// Whether an inode stands for a namespace.
pub fn is_file(inode: &dyn Inode) -> bool {
    of(inode).is_some()
}

/// The number of the mount namespace that an inode stands for, if it does for one.
pub fn number_of_mounts(inode: &dyn Inode) -> Option<u64> {
    of(inode).filter(|namespace| namespace.kind() == Kind::Mnt).map(Namespace::number)
}

impl Inode for NsInode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.attr)
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn open(self: Arc<Self>, _ctx: &Ctx, _flags: OpenFlags) -> Result<Option<Box<dyn FileOps>>> {
        Ok(Some(Box::new(OpenNs { kind: self.namespace.kind() })))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open one. The file's inode holds the namespace.
struct OpenNs {
    kind: Kind,
}

impl FileOps for OpenNs {
    fn pollable(&self) -> bool {
        false
    }

    fn ioctl(&self, _ctx: &Ctx, _file: &File, cmd: u32, _arg: u64) -> Result<usize> {
        // `linux/nsfs.h`.
        const NS_GET_USERNS: u32 = 0xb701;
        const NS_GET_PARENT: u32 = 0xb702;
        const NS_GET_NSTYPE: u32 = 0xb703;
        const NS_GET_OWNER_UID: u32 = 0xb704;
        match cmd {
            NS_GET_USERNS => bail!(EPERM, "there are no user namespaces"),
            NS_GET_PARENT => bail!(EINVAL, "a kind without hierarchy"),
            NS_GET_NSTYPE => Ok(self.kind.flag().bits() as usize),
            NS_GET_OWNER_UID => bail!(EINVAL, "no user namespace"),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
