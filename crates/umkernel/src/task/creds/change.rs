//! Changing user and group ids, and what that does to capabilities (`setresuid(2)`, `capabilities(7)`).

use super::{Capabilities, Creds, securebits};
use crate::bail;
use crate::errno::Result;
use crate::kernel::Ctx;

/// "Leave as it is" among the arguments of `setresuid(2)`.
const KEEP: u32 = u32::MAX;

/// Real, effective, saved and file-system id, of a user or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields' names are those of credentials(7)")]
pub struct Ids {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    pub fs: u32,
}

impl Ids {
    /// `setuid(2)`, `setgid(2)`.
    pub fn set(self, id: u32, privileged: bool) -> Result<Ids> {
        if id == KEEP {
            bail!(EINVAL, "-1 is no id");
        }
        if privileged {
            return Ok(Ids { real: id, effective: id, saved: id, fs: id });
        }
        if id != self.real && id != self.saved {
            bail!(EPERM, "neither the real nor the saved id");
        }
        Ok(Ids { effective: id, fs: id, ..self })
    }

    /// `setreuid(2)`, `setregid(2)`.
    pub fn set_re(self, real: u32, effective: u32, privileged: bool) -> Result<Ids> {
        let mut new = self;
        if real != KEEP {
            if !privileged && real != self.real && real != self.effective {
                bail!(EPERM, "neither the real nor the effective id");
            }
            new.real = real;
        }
        if effective != KEEP {
            if !privileged && !self.has(effective) {
                bail!(EPERM, "none of the process's ids");
            }
            new.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != self.real) {
            new.saved = new.effective;
        }
        new.fs = new.effective;
        Ok(new)
    }

    /// `setresuid(2)`, `setresgid(2)`.
    pub fn set_res(self, real: u32, effective: u32, saved: u32, privileged: bool) -> Result<Ids> {
        let allowed = |id: u32| id == KEEP || privileged || self.has(id);
        if ![real, effective, saved].into_iter().all(allowed) {
            bail!(EPERM, "none of the process's ids");
        }
        let pick = |new: u32, old: u32| if new == KEEP { old } else { new };
        let effective = pick(effective, self.effective);
        Ok(Ids { real: pick(real, self.real), effective, saved: pick(saved, self.saved), fs: effective })
    }

    /// `setfsuid(2)`, `setfsgid(2)`: what is not allowed changes nothing.
    pub fn set_fs(self, fs: u32, privileged: bool) -> Ids {
        if fs != KEEP && (privileged || self.has(fs) || fs == self.fs) { Ids { fs, ..self } } else { self }
    }

    fn has(self, id: u32) -> bool {
        id == self.real || id == self.effective || id == self.saved
    }
}

impl Creds {
    /// The user ids.
    pub fn users(&self) -> Ids {
        Ids { real: self.uid, effective: self.euid, saved: self.suid, fs: self.fsuid }
    }

    /// The group ids.
    pub fn group_ids(&self) -> Ids {
        Ids { real: self.gid, effective: self.egid, saved: self.sgid, fs: self.fsgid }
    }

    /// These credentials with other group ids.
    pub fn with_groups(&self, ids: Ids) -> Creds {
        Creds { gid: ids.real, egid: ids.effective, sgid: ids.saved, fsgid: ids.fs, ..self.clone() }
    }

    /// These credentials with other user ids, and the capabilities that go with them: leaving root drops them, becoming
    /// root makes the permitted ones effective.
    pub fn with_users(&self, ids: Ids) -> Creds {
        let mut new = Creds { uid: ids.real, euid: ids.effective, suid: ids.saved, fsuid: ids.fs, ..self.clone() };
        if self.securebits & securebits::NO_SETUID_FIXUP != 0 {
            return new;
        }
        let was_root = self.uid == 0 || self.euid == 0 || self.suid == 0;
        if was_root && new.uid != 0 && new.euid != 0 && new.suid != 0 {
            if !self.keep_caps {
                new.permitted = Capabilities::empty();
                new.effective = Capabilities::empty();
            }
            new.ambient = Capabilities::empty();
        }
        if self.euid == 0 && new.euid != 0 {
            new.effective = Capabilities::empty();
        }
        if self.euid != 0 && new.euid == 0 {
            new.effective = new.permitted;
        }
        new
    }

    /// These credentials with another file-system user id (`setfsuid(2)`).
    pub fn with_fs_user(&self, fsuid: u32) -> Creds {
        let mut new = Creds { fsuid, ..self.clone() };
        if self.securebits & securebits::NO_SETUID_FIXUP == 0 {
            if self.fsuid == 0 && fsuid != 0 {
                new.effective.remove(Capabilities::FS_SET);
            }
            if self.fsuid != 0 && fsuid == 0 {
                new.effective |= new.permitted & Capabilities::FS_SET;
            }
        }
        new
    }

    /// `securebits` as programs see them.
    pub fn all_securebits(&self) -> u32 {
        self.securebits | if self.keep_caps { securebits::KEEP_CAPS } else { 0 }
    }
}

/// Gives the running task new credentials. A process that is somebody else now is not to be looked into by who it was, nor
/// killed by its parent's end.
pub fn commit(ctx: &Ctx, mut new: Creds) {
    let old = ctx.creds();
    let other = old.euid != new.euid
        || old.egid != new.egid
        || old.fsuid != new.fsuid
        || old.fsgid != new.fsgid
        || !old.permitted.contains(new.permitted);
    if other {
        new.dumpable = false;
        ctx.task.process.inner.lock().parent_death_signal = 0;
    }
    ctx.set_creds(new);
}
