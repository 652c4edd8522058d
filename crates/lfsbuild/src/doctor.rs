//! What the host must have to build and boot, and what mends it: for `umlfs doctor` and in front of `up`.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::config::ConfigDir;
use crate::error::{Error, Result};
use crate::host::{HostTools, find_command, install_command};
use crate::plan::host_groups;
use crate::profile::Profile;
use crate::sandbox;
use crate::store::Store;

/// Room that a small build takes, in bytes.
const DISK_WANTED: u64 = 1 << 30;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// All is well.
    Good,
    /// Something works less well, or only part of the program works.
    Limited,
    /// Nothing can be built or booted.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Check {
    /// What (`make`, `user namespaces`).
    pub name: String,
    /// How it stands.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// Debian packages that mend it.
    pub packages: Vec<String>,
    /// What else to do.
    pub advice: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, severity: Severity, found: impl Into<String>) -> Self {
        Check { name: name.into(), severity, found: found.into(), packages: Vec::new(), advice: None }
    }

    fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Looks at the host: whether it can build a profile and boot.
///
/// # Errors
/// There is no such profile; `host.yaml` or a recipe is wrong.
pub fn examine(configs: &ConfigDir, profile: &str, store: &Store) -> Result<Vec<Check>> {
    let mut checks = vec![machine()];
    let wanted = host_groups(configs, &Profile::load(configs, profile)?)?;
    for (name, group) in HostTools::load(configs)?.tools.iter().filter(|(name, _)| wanted.contains(*name)) {
        checks.push(tool_group(name, group));
    }
    checks.push(namespaces());
    checks.push(traces());
    checks.push(seccomp());
    checks.push(protection_keys());
    checks.push(source_packages());
    checks.push(disk(store));
    Ok(checks)
}

/// The one command that installs all that the checks miss; none when nothing is to be installed.
pub fn mending_command(checks: &[Check]) -> Option<String> {
    let packages = wanted_packages(checks);
    (!packages.is_empty()).then(|| install_command(&packages))
}

fn wanted_packages(checks: &[Check]) -> Vec<String> {
    let mut packages: Vec<String> = checks.iter().flat_map(|c| c.packages.iter().cloned()).collect();
    packages.sort();
    packages.dedup();
    packages
}

/// Installs what the checks miss, with the terminal's input and output. The value tells whether there was anything to install.
///
/// # Errors
/// apt-get failed, or cannot be run.
pub fn install(checks: &[Check]) -> Result<bool> {
    let packages = wanted_packages(checks);
    if packages.is_empty() {
        return Ok(false);
    }
    let is_root = nix::unistd::geteuid().is_root();
    let run = |arguments: &[&str]| -> Result<()> {
        let mut command = if is_root { Command::new("apt-get") } else { Command::new("sudo") };
        if !is_root {
            command.arg("apt-get");
        }
        let action = "installing packages".to_owned();
        // apt's own output is for the user's eyes; standard output may be a program's (--json).
        command.args(arguments).stdout(Stdio::from(std::io::stderr()));
        let status = command.status().map_err(|source| Error::Io { action: action.clone(), source })?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Host { message: format!("{action} failed: {status}"), hint: install_command(&packages) })
    };
    run(&["update"])?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages.iter().map(String::as_str));
    run(&arguments)?;
    Ok(true)
}

fn machine() -> Check {
    let name = "machine";
    match nix::sys::utsname::uname() {
        Ok(system) => {
            let found = format!("{}, Linux {}", system.machine().to_string_lossy(), system.release().to_string_lossy());
            if system.machine() == "x86_64" {
                Check::new(name, Severity::Good, found)
            } else {
                Check::new(name, Severity::Missing, found).advice("umlfs builds and boots x86-64 systems only")
            }
        }
        Err(e) => Check::new(name, Severity::Limited, format!("uname: {e}")),
    }
}

fn tool_group(name: &str, group: &crate::host::ToolGroup) -> Check {
    let missing: Vec<String> = group
        .commands
        .iter()
        .filter(|c| find_command(c).is_none())
        .cloned()
        .chain(group.located_files().filter(|(_, path)| path.is_none()).map(|(places, _)| places.to_owned()))
        .collect();
    if missing.is_empty() {
        return Check::new(name, Severity::Good, group.summary.clone());
    }
    let mut check = Check::new(name, Severity::Missing, format!("{}: lacks {}", group.summary, missing.join(", ")));
    check.packages.clone_from(&group.debian);
    check
}

fn namespaces() -> Check {
    let name = "sandbox";
    match sandbox::probe() {
        Ok(()) => Check::new(name, Severity::Good, "user, mount, pid and network namespaces work"),
        Err(Error::Sandbox { message, hint }) => Check::new(name, Severity::Missing, message).advice(hint),
        Err(e) => Check::new(name, Severity::Missing, e.to_string()),
    }
}

/// Starts a traced program, sees it stop, lets it end.
fn traces() -> Check {
    let name = "ptrace";
    let bad = |reason: String| {
        Check::new(name, Severity::Missing, reason).advice(
            "booting needs ptrace: in a container allow it (--cap-add SYS_PTRACE or --security-opt seccomp=unconfined); \
             as root: sysctl -w kernel.yama.ptrace_scope=1",
        )
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the closure makes one system call and no allocation.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(Into::into));
    }
    let child = match command.spawn() {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(e) => return bad(format!("PTRACE_TRACEME: {e}")),
    };
    let stopped = matches!(waitpid(child, None), Ok(WaitStatus::Stopped(..)));
    // It is stopped at its exec, or gone: killing and reaping it leaves nothing behind in either case.
    let _ = ptrace::kill(child);
    let _ = waitpid(child, None);
    if stopped {
        Check::new(name, Severity::Good, "works: the ptrace platform can boot")
    } else {
        bad("a traced program did not stop".into())
    }
}

fn seccomp() -> Check {
    let name = "seccomp";
    let action: u32 = libc::SECCOMP_RET_TRAP;
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads one u32.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    match Errno::result(result) {
        Ok(_) => Check::new(name, Severity::Good, "filters can trap system calls"),
        Err(e) => Check::new(name, Severity::Limited, format!("SECCOMP_GET_ACTION_AVAIL: {e}"))
            .advice("the direct platform cannot be used; the ptrace platform can"),
    }
}

fn protection_keys() -> Check {
    let name = "protection keys";
    // SAFETY: pkey_alloc takes two numbers.
    let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) };
    match Errno::result(key) {
        Ok(key) => {
            // SAFETY: the key was allocated above and protects nothing.
            unsafe { libc::syscall(libc::SYS_pkey_free, key) };
            Check::new(name, Severity::Good, "the processor has them")
        }
        Err(e) => Check::new(name, Severity::Limited, format!("pkey_alloc: {e}"))
            .advice("the direct platform cannot protect its kernel here; the ptrace platform can be used"),
    }
}

fn source_packages() -> Check {
    let name = "apt";
    if find_command("apt-get").is_none() {
        return Check::new(name, Severity::Limited, "not there: sources come from upstream only").advice(
            "bring sources with `umlfs sources fetch` where there is a network, or name a directory with --sources",
        );
    }
    let keyring = ["gpg", "pgp"]
        .iter()
        .any(|e| std::path::Path::new(&format!("/usr/share/keyrings/debian-archive-keyring.{e}")).is_file());
    if keyring {
        return Check::new(name, Severity::Good, "Debian's source packages can serve where upstream does not answer");
    }
    let mut check = Check::new(name, Severity::Limited, "Debian's archive keyring is not there");
    check.packages.push("debian-archive-keyring".into());
    check
}

fn disk(store: &Store) -> Check {
    let name = "disk";
    let place = store.path().ancestors().find(|p| p.exists()).unwrap_or(std::path::Path::new("/"));
    match nix::sys::statvfs::statvfs(place) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let found = format!("{:.1} GB free for {}", free as f64 / 1e9, store.path().display());
            if free >= DISK_WANTED {
                Check::new(name, Severity::Good, found)
            } else {
                Check::new(name, Severity::Limited, found)
                    .advice("free some space, or name another place in XDG_CACHE_HOME")
            }
        }
        Err(e) => Check::new(name, Severity::Limited, format!("statvfs of {}: {e}", place.display())),
    }
}
