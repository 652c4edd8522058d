//! Credentials (`credentials(7)`, `capabilities(7)`).

mod change;
mod exec;

pub use change::{Ids, commit};
pub use exec::for_exec;

use alloc::sync::Arc;
use alloc::vec::Vec;

/// Bits of `securebits` (`linux/securebits.h`).
pub mod securebits {
    /// Programs that root runs get no capabilities for that.
    pub const NOROOT: u32 = 1 << 0;
    /// Changing user ids leaves capabilities alone.
    pub const NO_SETUID_FIXUP: u32 = 1 << 2;
    /// Leaving root keeps permitted capabilities; [`super::Creds::keep_caps`].
    pub const KEEP_CAPS: u32 = 1 << 4;
    /// Locks [`KEEP_CAPS`].
    pub const KEEP_CAPS_LOCKED: u32 = 1 << 5;
    /// Nothing is added to the ambient set.
    pub const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    /// All bits, and the locks next to them.
    pub const ALL: u32 = 0x55;
    /// All locks.
    pub const ALL_LOCKS: u32 = ALL << 1;
}

bitflags::bitflags! {
    /// A capability set (`linux/capability.h`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capabilities: u64 {
        /// Change owners.
        const CHOWN = 1 << 0;
        /// Bypass read, write and execute permission.
        const DAC_OVERRIDE = 1 << 1;
        /// Bypass read permission on files, read and search on directories.
        const DAC_READ_SEARCH = 1 << 2;
        /// Act as a file's owner.
        const FOWNER = 1 << 3;
        /// Keep set-user-ID and set-group-ID bits.
        const FSETID = 1 << 4;
        /// Signal any process.
        const KILL = 1 << 5;
        /// Change group ids.
        const SETGID = 1 << 6;
        /// Change user ids.
        const SETUID = 1 << 7;
        /// Change capabilities.
        const SETPCAP = 1 << 8;
        /// Bind ports below 1024.
        const NET_BIND_SERVICE = 1 << 10;
        /// Configure the network.
        const NET_ADMIN = 1 << 12;
        /// Set the immutable and append-only flags.
        const LINUX_IMMUTABLE = 1 << 9;
        /// Use raw sockets.
        const NET_RAW = 1 << 13;
        /// Lock memory.
        const IPC_LOCK = 1 << 14;
        /// Bypass permissions of System V objects.
        const IPC_OWNER = 1 << 15;
        /// Change root.
        const SYS_CHROOT = 1 << 18;
        /// Use raw I/O.
        const SYS_RAWIO = 1 << 17;
        /// Trace any process.
        const SYS_PTRACE = 1 << 19;
        /// Administer the system: mount, host name and much else.
        const SYS_ADMIN = 1 << 21;
        /// Reboot.
        const SYS_BOOT = 1 << 22;
        /// Raise priorities.
        const SYS_NICE = 1 << 23;
        /// Exceed resource limits.
        const SYS_RESOURCE = 1 << 24;
        /// Set the clock.
        const SYS_TIME = 1 << 25;
        /// Configure terminals.
        const SYS_TTY_CONFIG = 1 << 26;
        /// Make device nodes.
        const MKNOD = 1 << 27;
        /// Take leases on anybody's files.
        const LEASE = 1 << 28;
        /// Override mandatory access control.
        const MAC_OVERRIDE = 1 << 32;
        /// Read and clear the kernel log.
        const SYSLOG = 1 << 34;
        /// Everything up to CAP_CHECKPOINT_RESTORE, the last that Linux defines.
        const ALL = (1 << 41) - 1;
        /// What comes and goes with the file-system user id.
        const FS_SET = Self::CHOWN.bits() | Self::MKNOD.bits() | Self::DAC_OVERRIDE.bits()
            | Self::DAC_READ_SEARCH.bits() | Self::FOWNER.bits() | Self::FSETID.bits()
            | Self::LINUX_IMMUTABLE.bits() | Self::MAC_OVERRIDE.bits();
        const _ = !0;
    }
}

/// Who a task is. Never changed in place: a change makes a new one.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields' names are those of credentials(7)")]
pub struct Creds {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Arc<Vec<u32>>,
    pub permitted: Capabilities,
    pub effective: Capabilities,
    pub inheritable: Capabilities,
    pub bounding: Capabilities,
    pub ambient: Capabilities,
    pub securebits: u32,
    pub keep_caps: bool,
    /// `prctl(PR_SET_DUMPABLE)`: whether others of the same user may look into the process.
    pub dumpable: bool,
}

impl Creds {
    /// The super-user with every capability: what the machine's first process gets.
    pub fn root() -> Creds {
        Creds {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Arc::new(Vec::new()),
            permitted: Capabilities::ALL,
            effective: Capabilities::ALL,
            inheritable: Capabilities::empty(),
            bounding: Capabilities::ALL,
            ambient: Capabilities::empty(),
            securebits: 0,
            keep_caps: false,
            dumpable: true,
        }
    }

    /// Whether the effective set holds a capability.
    pub fn capable(&self, cap: Capabilities) -> bool {
        self.effective.contains(cap)
    }

    /// Whether a task with these credentials may look into one with `other`'s, by real ids (`PTRACE_MODE_READ_REALCREDS`
    /// of `ptrace(2)`): same ids all through, and no capability that this one lacks; or CAP_SYS_PTRACE.
    pub fn may_trace(&self, other: &Creds) -> bool {
        let same_user = [other.uid, other.euid, other.suid] == [self.uid; 3];
        let same_group = [other.gid, other.egid, other.sgid] == [self.gid; 3];
        let covered = self.permitted.contains(other.permitted);
        same_user && same_group && covered && other.dumpable || self.capable(Capabilities::SYS_PTRACE)
    }

    /// Whether the file-system group or a supplementary group is `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
