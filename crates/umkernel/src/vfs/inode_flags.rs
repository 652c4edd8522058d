//! Inode flags (`chattr(1)`, `ioctl_iflags(2)`): what may not happen to a file, whoever asks.

use super::{Inode, Location, NotifyEvents, SetAttr, Timestamp, Vfs, notify};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::task::Capabilities;

bitflags::bitflags! {
    /// The flags that the kernel itself acts on, with the values of `FS_*_FL` (`linux/fs.h`). File systems have more.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InodeFlags: u32 {
        /// Compressed.
        const COMPRESSED = 0x4;
        /// No change at all.
        const IMMUTABLE = 0x10;
        /// Written behind its end only; names of a directory are added only.
        const APPEND = 0x20;
        /// Left out by `dump(8)`: a note for programs.
        const NODUMP = 0x40;
        /// Access times are not kept.
        const NOATIME = 0x80;
        /// Encrypted.
        const ENCRYPTED = 0x800;
        /// Checked against a tree of hashes.
        const VERITY = 0x10_0000;
        const _ = !0;
    }
}

impl dyn Inode {
    /// The inode's flags; none where the file system has none.
    pub fn flags(&self) -> InodeFlags {
        self.common().map_or(InodeFlags::empty(), |common| common.flags())
    }

    /// Refuses a change of attributes, names or contents that neither immutable nor append-only files take: `EPERM`.
    pub(super) fn check_changeable(&self) -> Result<()> {
        if self.flags().intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            bail!(EPERM, "the file is immutable or append-only");
        }
        Ok(())
    }

    /// Refuses any change of an immutable file: `EPERM`.
    pub(super) fn check_mutable(&self) -> Result<()> {
        if self.flags().contains(InodeFlags::IMMUTABLE) {
            bail!(EPERM, "the file is immutable");
        }
        Ok(())
    }

    /// Refuses to take blocks from a file that has to keep them ([`InodeCommon::pin`](super::InodeCommon::pin)): `ETXTBSY`, as Linux says of
    /// a swap file.
    pub(super) fn check_unpinned(&self) -> Result<()> {
        if self.common().is_some_and(|common| common.pins() > 0) {
            bail!(ETXTBSY, "a file system in it is mounted");
        }
        Ok(())
    }

    /// Refuses what an append-only file does not take: `EPERM`.
    pub(super) fn check_not_append_only(&self) -> Result<()> {
        if self.flags().contains(InodeFlags::APPEND) {
            bail!(EPERM, "the file is append-only");
        }
        Ok(())
    }
}

impl Vfs {
    /// `ioctl(FS_IOC_SETFLAGS)` on what is at a place.
    ///
    /// # Errors
    /// `EPERM` for who is not the owner, or may not set what binds root as well; `EOPNOTSUPP` for flags that the file system
    /// has not, `ENOTTY` where it has none.
    pub fn set_inode_flags(&self, ctx: &Ctx, location: &Location, flags: InodeFlags) -> Result<()> {
        location.mount.want_write()?;
        let inode = &location.dentry.inode;
        let creds = ctx.creds();
        if !creds.owns(&inode.attr()?) {
            bail!(EPERM);
        }
        let binding = InodeFlags::IMMUTABLE | InodeFlags::APPEND;
        let changed = inode.flags() ^ flags;
        if changed.intersects(binding) && !creds.capable(Capabilities::LINUX_IMMUTABLE) {
            bail!(EPERM, "CAP_LINUX_IMMUTABLE");
        }
        inode.set_flags(flags.bits())?;
        inode.set_attr(&SetAttr { ctime: Some(Timestamp::now()), ..SetAttr::default() })?;
        notify::at(location, NotifyEvents::ATTRIB);
        Ok(())
    }
}
