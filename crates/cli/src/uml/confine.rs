//! The kernel writes nowhere on the host but where its machine needs it, whatever its guest mounts by hostfs: Landlock sees to
//! that, on hosts that have it (Linux 5.13). What it may read is left as it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::libc;

/// Everything that changes a file or directory, by the version of Landlock that came with it (`linux/landlock.h`).
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_AND_MAKE: u64 = 0b1_1111_1111 << 4;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// What a rule for a file that is no directory may allow.
const OF_FILES: u64 = WRITE_FILE | TRUNCATE;

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// Where a process may write, for itself and all that it starts.
#[derive(Debug)]
pub(crate) struct Confinement {
    rules: OwnedFd,
}

fn call(number: libc::c_long, args: [usize; 4]) -> io::Result<libc::c_long> {
    // SAFETY: the callers pass what the call reads, and its length.
    match unsafe { libc::syscall(number, args[0], args[1], args[2], args[3]) } {
        result if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Confinement {
    /// Only what lies at or below `paths` may be written; those that are not there are left out. Nothing on a host without Landlock.
    ///
    /// # Errors
    /// The host has it, and refuses.
    pub(crate) fn to<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<Option<Confinement>> {
        /// `LANDLOCK_CREATE_RULESET_VERSION`.
        const VERSION: usize = 1;
        let Ok(version) = call(libc::SYS_landlock_create_ruleset, [0, 0, VERSION, 0]) else { return Ok(None) };
        let newer = [(2, REFER), (3, TRUNCATE)].into_iter().filter(|(since, _)| version >= *since);
        let handled = newer.fold(WRITE_FILE | REMOVE_AND_MAKE, |all, (_, right)| all | right);
        let attributes = &raw const handled as usize;
        let rules = call(libc::SYS_landlock_create_ruleset, [attributes, size_of_val(&handled), 0, 0])?;
        // SAFETY: the call has just made it.
        let rules = unsafe { OwnedFd::from_raw_fd(rules as RawFd) };
        for path in paths {
            let Ok(file) = File::open(path) else { continue };
            let allowed = if file.metadata()?.is_dir() { handled } else { handled & OF_FILES };
            let rule = Beneath { allowed, parent: file.as_raw_fd() };
            /// `LANDLOCK_RULE_PATH_BENEATH`.
            const BENEATH: usize = 1;
            call(libc::SYS_landlock_add_rule, [rules.as_raw_fd() as usize, BENEATH, &raw const rule as usize, 0])?;
        }
        Ok(Some(Confinement { rules }))
    }

    /// Confines the calling process for good. Safe between fork and exec.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // SAFETY: constant arguments; without it, only root may confine itself.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        call(libc::SYS_landlock_restrict_self, [self.rules.as_raw_fd() as usize, 0, 0, 0]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn only_what_is_named_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("in")).unwrap();
        for name in ["file", "other"] {
            std::fs::write(path(name), "old\n").unwrap();
        }
        let Some(confinement) = Confinement::to([&*path("in"), &path("file"), &path("missing")]).unwrap() else {
            eprintln!("NOT TESTED: this host has no Landlock");
            return;
        };
        let mut shell = Command::new("/bin/sh");
        shell.current_dir(directory.path());
        let script = "echo new >file && mkdir in/d && echo x >in/d/f && mv in/d in/e && rm -r in/e && cat other; \
                      echo new >other; mkdir d; rm other; ln in/x out; mv file in/file; echo done";
        // SAFETY: two system calls.
        unsafe { shell.args(["-c", script]).pre_exec(move || confinement.enter()) };
        let output = shell.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "old\ndone\n", "{output:?}");
        let names = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!((names, std::fs::read_to_string(path("other")).unwrap()), (3, "old\n".into()));
        assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "new\n");
    }
}
