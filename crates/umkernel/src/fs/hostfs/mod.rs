//! hostfs: directories of the host that the user has named (`umlfs boot --share`).
//!
//! ```text
//! guest ── VFS ── HostInode ── Channel ══ socket ══ share server (machine::shares) ── the host's files
//! ```
//!
//! No process that runs guests opens a file of the host: what is shared is asked for by messages, and the server, which shares no
//! memory with the machine, knows nothing but directories that the user named and what lies below them. Symbolic links are followed
//! by the guest's own path walks, in its own tree.
//!
//! The host may change what is shared at any time. What the guest does is seen at once by the guest; what the host does, after
//! a tenth of a second at the latest, and whenever a file is opened. Owners are seen as in a user namespace with one user: what belongs to
//! the user who runs the machine is root's, all else is nobody's.

mod channel;
mod inode;
mod pages;
pub mod protocol;

pub use channel::{Channel, LANES};

use super::store::Store;
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::vfs::{AT_FDCWD, FileSystem, InodeRef, MountFlags, StatFs, WalkFlags};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use inode::{HostInode, Moment};
use protocol::{Op, Request, Stat};

/// `HOSTFS_SUPER_MAGIC` of `linux/magic.h`.
const HOSTFS_MAGIC: u64 = 0x00c0_ffee;
/// How long what the server said is believed, in nanoseconds.
const VALID: u64 = 100_000_000;
/// Files that the server is asked to keep open; beyond, names that nobody uses are forgotten first.
const NODES_MAX: u64 = 16_384;

/// Where a shared directory is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareMount {
    /// Path in the guest.
    pub guest: String,
    /// Nothing may be changed.
    pub read_only: bool,
}

/// A shared directory.
pub struct HostFs {
    channel: Arc<Channel>,
    dev: u64,
    /// The node of the directory itself.
    root_node: u64,
    /// The host's device that it is on.
    host_dev: u64,
    root: Mutex<Option<Arc<HostInode>>>,
    /// Those in memory, by the host's device and number: a file is the same inode under all its names.
    inodes: Mutex<BTreeMap<(u64, u64), Weak<HostInode>>>,
    /// Copies of files that are mapped.
    store: Store,
    /// Counts changes of names: what is known of links and sizes of directories is believed no longer.
    epoch: AtomicU64,
    /// Inodes in memory.
    nodes: AtomicU64,
}

impl HostFs {
    /// The share of this number.
    pub(crate) fn new(channel: &Arc<Channel>, number: u64, dev: u64) -> Result<Arc<HostFs>> {
        let stat = Stat { node: number, ..channel.stat(Request::new(Op::Attr, number))? };
        let fs = Arc::new(HostFs {
            channel: channel.clone(),
            dev,
            root_node: number,
            host_dev: stat.dev,
            root: Mutex::default(),
            inodes: Mutex::default(),
            store: Store::new()?,
            epoch: AtomicU64::new(0),
            nodes: AtomicU64::new(0),
        });
        let root = HostInode::get(&fs, &stat, Moment::now(&fs))?;
        *fs.root.lock() = Some(root);
        Ok(fs)
    }

    fn names_changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets names that nobody uses, if there are too many.
    fn make_room(&self, ctx: &Ctx) {
        if self.nodes.load(Ordering::Relaxed) > NODES_MAX {
            ctx.kernel.vfs.forget_names(64);
        }
    }
}

impl FileSystem for HostFs {
    fn name(&self) -> &'static str {
        "hostfs"
    }

    fn root(&self) -> Result<InodeRef> {
        match &*self.root.lock() {
            Some(root) => Ok(root.clone()),
            None => bail!(EIO),
        }
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn statfs(&self) -> Result<StatFs> {
        let space = self.channel.bytes(Request::new(Op::StatFs, self.root_node), &[])?;
        let Some(space) = protocol::decode_space(&space) else { bail!(EIO) };
        Ok(StatFs { fs_type: HOSTFS_MAGIC, fsid: self.dev, ..space })
    }

    fn unmount(&self) -> Result<()> {
        let root = self.root.lock().take();
        drop(root);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Mounts what the user shares, in the order in which it was named. Directories that the image lacks are made.
///
/// # Errors
/// The first share that cannot be mounted, with the reason.
pub fn mount_shares<'a>(
    ctx: &Ctx,
    channel: &Arc<Channel>,
    shares: &'a [ShareMount],
) -> core::result::Result<(), (&'a ShareMount, crate::Error)> {
    for (number, share) in (0..).zip(shares) {
        mount(ctx, channel, number, share).map_err(|e| (share, e))?;
    }
    Ok(())
}

fn mount(ctx: &Ctx, channel: &Arc<Channel>, number: u64, share: &ShareMount) -> Result<()> {
    let vfs = &ctx.kernel.vfs;
    let path = share.guest.as_bytes();
    let ends = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&byte| byte == b'/'));
    let made = ends.map(|end| vfs.mkdir(ctx, AT_FDCWD, &path[..end], 0o755));
    let refused = made.filter_map(Result::err).filter(|e| *e != Errno::EEXIST).last();
    let at = vfs.resolve(ctx, AT_FDCWD, path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY);
    let at = at.map_err(|e| refused.unwrap_or(e))?;
    let fs = HostFs::new(channel, number, vfs.anonymous_dev())?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, share.read_only);
    vfs.mount_at(&at, fs, b"none", flags).map(drop)
}
