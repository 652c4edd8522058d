//! Sockets (`socket(7)`): `AF_UNIX`, and `AF_INET` and `AF_INET6` within the machine.

pub mod address;
mod ancillary;
mod endpoint;
mod file;
pub(crate) mod inet;
pub mod interface;
mod message;
pub(crate) mod netlink;
mod options;
mod pair;
mod socket;
pub(crate) mod tables;
#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests;
mod transfer;

pub use address::Address;
pub use ancillary::{Ancillary, MAX_FILES, Ucred};
pub use endpoint::{Endpoint, Outgoing};
pub use file::SocketFile;
pub use message::{Received, RecvFlags, Sending};
pub use options::SockOpt;
pub use pair::pair;
pub use socket::{Kind, Socket};

use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::sync::Mutex;
use crate::vfs::Location;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// `socket(2)`. `unix_kind` says which kind an `AF_UNIX` socket is.
///
/// # Errors
/// `EAFNOSUPPORT` for a family that there is not, and what the families say.
pub fn create(
    ctx: &Ctx,
    domain: u32,
    kind: u32,
    protocol: u32,
    unix_kind: impl FnOnce() -> Result<Kind>,
) -> Result<Arc<dyn Endpoint>> {
    use linux_raw_sys::net::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX};
    match domain {
        AF_UNIX => Ok(Socket::create(unix_kind()?)),
        AF_INET | AF_INET6 => inet::create(ctx, domain, kind, protocol),
        AF_NETLINK => netlink::create(kind, protocol),
        _ => Err(Errno::EAFNOSUPPORT.into()),
    }
}

type AbstractNames = BTreeMap<(Kind, Vec<u8>), Weak<Socket>>;

/// The names that sockets of the machine are bound to.
#[derive(Default)]
pub struct Net {
    /// The ports of TCP and of UDP.
    pub(crate) tcp: Mutex<inet::Ports>,
    pub(crate) udp: Mutex<inet::Ports>,
    /// Netlink sockets.
    netlink: netlink::Ports,
    /// The network interface.
    pub loopback: interface::SharedLoopback,
    /// Each kind of socket has names of its own.
    abstract_names: Mutex<AbstractNames>,
    /// By device and inode number; a bound socket keeps its inode in memory.
    inodes: Mutex<BTreeMap<(u64, u64), Weak<Socket>>>,
}

impl Net {
    /// Gives a socket an abstract name.
    ///
    /// # Errors
    /// `EADDRINUSE` when another has it.
    fn bind_abstract(&self, name: &[u8], socket: &Arc<Socket>) -> Result<()> {
        let mut names = self.abstract_names.lock();
        let key = (socket.kind, name.to_vec());
        if names.get(&key).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE.into());
        }
        names.insert(key, Arc::downgrade(socket));
        Ok(())
    }

    /// Finds an unused abstract name, five hexadecimal digits, as `bind(2)` with an empty address does.
    fn autobind(&self, socket: &Arc<Socket>) -> Result<Vec<u8>> {
        const NAMES: u32 = 1 << 20;
        let mut seed = [0; 4];
        crate::host::getrandom(&mut seed);
        let start = u32::from_le_bytes(seed);
        for i in 0..NAMES {
            let name = alloc::format!("{:05x}", start.wrapping_add(i) % NAMES).into_bytes();
            if self.bind_abstract(&name, socket).is_ok() {
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC.into())
    }

    fn bind_inode(&self, location: &Location, socket: &Arc<Socket>) -> Result<()> {
        let attr = location.dentry.inode.attr()?;
        self.inodes.lock().insert((attr.dev, attr.ino), Arc::downgrade(socket));
        Ok(())
    }

    fn by_abstract(&self, kind: Kind, name: &[u8]) -> Option<Arc<Socket>> {
        self.abstract_names.lock().get(&(kind, name.to_vec())).and_then(Weak::upgrade)
    }

    fn by_inode(&self, location: &Location) -> Result<Option<Arc<Socket>>> {
        let attr = location.dentry.inode.attr()?;
        Ok(self.inodes.lock().get(&(attr.dev, attr.ino)).and_then(Weak::upgrade))
    }

    /// The socket is closed: its name is free, though a path stays as an inode.
    fn forget(&self, socket: &Arc<Socket>) {
        let is_other = |s: &Weak<Socket>| !core::ptr::eq(s.as_ptr(), Arc::as_ptr(socket)) && s.strong_count() > 0;
        if socket.address() != Address::Unnamed {
            self.abstract_names.lock().retain(|_, s| is_other(s));
            self.inodes.lock().retain(|_, s| is_other(s));
        }
    }
}
