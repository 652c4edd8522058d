//! What filters do that an administrator wants to hear of: messages in the kernel's log, as of Linux's audit without a daemon.

use crate::bail;
use crate::errno::Result;
use crate::host;
use crate::kernel::Ctx;
use crate::log::Level;
use crate::sync::Mutex;
use crate::task::Capabilities;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::ptrace::{
    AUDIT_ARCH_X86_64, AUDIT_SECCOMP, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};

/// What filters may ask for, the gravest first, with the names that `/proc/sys/kernel/seccomp` has for them.
pub const ACTIONS: [(u32, &str); 8] = [
    (SECCOMP_RET_KILL_PROCESS, "kill_process"),
    (SECCOMP_RET_KILL_THREAD, "kill_thread"),
    (SECCOMP_RET_TRAP, "trap"),
    (SECCOMP_RET_ERRNO, "errno"),
    (SECCOMP_RET_USER_NOTIF, "user_notif"),
    (SECCOMP_RET_TRACE, "trace"),
    (SECCOMP_RET_LOG, "log"),
    (SECCOMP_RET_ALLOW, "allow"),
];

/// The one that is never logged.
const ALLOW: usize = ACTIONS.len() - 1;

/// Messages of one [`INTERVAL`] at most: what a filter logs must not push everything else out of the log.
const BURST: u32 = 10;
/// Nanoseconds.
const INTERVAL: u64 = 5_000_000_000;

/// Which actions are logged, and how much there was to log lately.
pub struct ActionLog {
    /// Bits by place in [`ACTIONS`].
    logged: AtomicU32,
    /// When an interval began (CLOCK_MONOTONIC, nanoseconds), and how many messages there were since.
    recent: Mutex<(u64, u32)>,
}

impl Default for ActionLog {
    fn default() -> ActionLog {
        ActionLog { logged: AtomicU32::new((1 << ALLOW) - 1), recent: Mutex::default() }
    }
}

impl ActionLog {
    /// `/proc/sys/kernel/seccomp/actions_logged`.
    pub fn names(&self) -> String {
        let logged = self.logged.load(Ordering::Relaxed);
        let chosen = ACTIONS.iter().enumerate().filter(|(place, _)| logged >> place & 1 != 0);
        chosen.map(|(_, (_, name))| *name).collect::<Vec<_>>().join(" ")
    }

    /// Says which actions are logged from now on.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`; `EINVAL` for a name of none, or of the one that is not logged.
    pub fn set_names(&self, ctx: &Ctx, text: &[u8]) -> Result<()> {
        if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
            bail!(EPERM, "what is logged is an administrator's business");
        }
        let text = String::from_utf8_lossy(text);
        let mut logged = 0u32;
        for name in text.split_ascii_whitespace() {
            match ACTIONS[..ALLOW].iter().position(|action| action.1 == name) {
                Some(place) => logged |= 1 << place,
                None => bail!(EINVAL, "no action that could be logged"),
            }
        }
        self.logged.store(logged, Ordering::Relaxed);
        Ok(())
    }

    /// Whether an action is logged; one that Linux does not know ends a process like the gravest.
    fn wants(&self, action: u32) -> bool {
        let place = ACTIONS.iter().position(|known| known.0 == action).unwrap_or(0);
        self.logged.load(Ordering::Relaxed) >> place & 1 != 0
    }

    /// Whether one more message may be added at this time.
    fn has_room(&self, now: u64) -> bool {
        let mut recent = self.recent.lock();
        if now.saturating_sub(recent.0) >= INTERVAL {
            *recent = (now, 0);
        }
        recent.1 = recent.1.saturating_add(1);
        recent.1 <= BURST
    }
}

/// Logs what was done about the running task's call: grave actions, and those of filters that `asks`, if the administrator wants to
/// hear of them. `signal`: what the task gets for it, or 0.
pub(super) fn note(ctx: &Ctx, nr: u32, address: u64, action: u32, asks: bool, signal: u8) {
    let by_itself = !matches!(
        action,
        SECCOMP_RET_TRAP | SECCOMP_RET_ERRNO | SECCOMP_RET_USER_NOTIF | SECCOMP_RET_TRACE | SECCOMP_RET_ALLOW
    );
    let log = &ctx.kernel.seccomp_log;
    let heard = (by_itself || asks) && log.wants(action) && log.has_room(host::monotonic_ns());
    if !heard {
        return;
    }
    let comm = *ctx.task.comm.lock();
    let comm = String::from_utf8_lossy(comm.as_bytes());
    let (creds, pid) = (ctx.creds(), ctx.task.process.pid);
    let text = format!(
        "audit: type={AUDIT_SECCOMP} uid={} gid={} pid={pid} comm={comm:?} sig={signal} arch={AUDIT_ARCH_X86_64:x} \
         syscall={} compat=0 ip={address:#x} code={action:#x}",
        creds.uid, creds.gid, nr as i32
    );
    ctx.kernel.message(Level::Notice, text);
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use crate::testing::machine;

    #[test]
    fn names_say_what_is_logged() {
        let machine = machine();
        let task = machine.task();
        let (ctx, log) = (machine.ctx(&task), ActionLog::default());
        assert_eq!(log.names(), "kill_process kill_thread trap errno user_notif trace log");
        assert!(!log.wants(SECCOMP_RET_ALLOW) && log.wants(SECCOMP_RET_LOG) && log.wants(0x1234_0000));
        log.set_names(&ctx, b"log  errno\n").unwrap();
        assert_eq!(log.names(), "errno log");
        for wrong in ["allow", "kill", "errno,log"] {
            assert!(log.set_names(&ctx, wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(log.names(), "errno log");
        log.set_names(&ctx, b"\n").unwrap();
        assert_eq!(log.names(), "");
    }

    #[test]
    fn messages_are_few() {
        let log = ActionLog::default();
        let said = |at: u64, times: u32| (0..times).filter(|_| log.has_room(at)).count();
        assert_eq!(said(INTERVAL, 3 * BURST), BURST as usize);
        assert_eq!(said(2 * INTERVAL - 1, 5), 0);
        assert_eq!(said(2 * INTERVAL, 5), 5);
    }
}
