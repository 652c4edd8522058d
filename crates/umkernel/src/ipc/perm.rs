//! Who an object belongs to, and who may use it.

use crate::bail;
use crate::errno::Result;
use crate::task::{Capabilities, Creds};

/// Owner, maker and mode of an object (`struct ipc_perm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm {
    /// What it is found by.
    pub key: i32,
    /// Its number.
    pub id: i32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Who made it.
    pub cuid: u32,
    /// The maker's group.
    pub cgid: u32,
    /// Permission bits, and those of the object's kind.
    pub mode: u32,
}

/// Bits of a mode that say who may read and write.
const MODE: u32 = 0o777;

impl Perm {
    /// Of a new object of the caller's.
    pub(super) fn new(key: i32, id: i32, flags: i32, creds: &Creds) -> Perm {
        let (uid, gid) = (creds.euid, creds.egid);
        Perm { key, id, uid, gid, cuid: uid, cgid: gid, mode: flags as u32 & MODE }
    }

    /// Fails with `EACCES` unless all the rights that `wanted` has, wherever in a mode, are there (`ipcperms` of Linux).
    pub fn check(&self, creds: &Creds, wanted: u32) -> Result<()> {
        let wanted = (wanted >> 6 | wanted >> 3 | wanted) & 7;
        let granted = if [self.uid, self.cuid].contains(&creds.euid) {
            self.mode >> 6
        } else if creds.in_group(self.gid) || creds.in_group(self.cgid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted != 0 && !creds.capable(Capabilities::IPC_OWNER) {
            bail!(EACCES);
        }
        Ok(())
    }

    /// Fails with `EPERM` unless the caller owns or made the object, or is privileged.
    pub(super) fn check_owner(&self, creds: &Creds) -> Result<()> {
        if ![self.uid, self.cuid].contains(&creds.euid) && !creds.capable(Capabilities::SYS_ADMIN) {
            bail!(EPERM);
        }
        Ok(())
    }

    /// Takes an owner and a mode (`IPC_SET`).
    pub(super) fn set(&mut self, uid: u32, gid: u32, mode: u32) {
        (self.uid, self.gid) = (uid, gid);
        self.mode = self.mode & !MODE | mode & MODE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;

    #[test]
    fn the_first_class_that_fits_decides() {
        let user =
            |uid, gid| Creds { euid: uid, egid: gid, fsgid: gid, effective: Capabilities::empty(), ..Creds::root() };
        let perm = Perm { uid: 1, gid: 10, cuid: 2, cgid: 20, ..Perm::new(5, 0, 0o460, &Creds::root()) };
        let may = |creds: &Creds, wanted| perm.check(creds, wanted).is_ok();
        for owner in [user(1, 99), user(2, 10)] {
            assert!(may(&owner, 0o444) && !may(&owner, 0o222) && !may(&owner, 0o006));
        }
        for member in [user(3, 10), user(3, 20)] {
            assert!(may(&member, 0o666) && !may(&member, 0o1));
        }
        assert_eq!(perm.check(&user(3, 30), 0o400), Err(Errno::EACCES.into()));
        assert!(may(&user(3, 30), 0) && may(&Creds::root(), 0o777));
        assert_eq!(perm.check_owner(&user(3, 10)), Err(Errno::EPERM.into()));
        assert!(perm.check_owner(&user(2, 0)).is_ok() && perm.check_owner(&Creds::root()).is_ok());
    }
}
