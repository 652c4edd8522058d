//! What the host must have to build, and what mends it: for `umlfs doctor` and in front of `up`.

use std::process::{Command, Stdio};

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
    /// A finding without a remedy.
    pub fn new(name: impl Into<String>, severity: Severity, found: impl Into<String>) -> Self {
        Check { name: name.into(), severity, found: found.into(), packages: Vec::new(), advice: None }
    }

    /// With something to do about it.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Looks at the host: whether it can build a profile.
///
/// # Errors
/// There is no such profile; `host.yaml` or a recipe is wrong.
pub fn examine(configs: &ConfigDir, profile: &str, store: &Store) -> Result<Vec<Check>> {
    let mut checks = vec![machine()];
    let wanted = host_groups(configs, &Profile::load(configs, profile)?)?;
    for (name, group) in HostTools::load(configs)?.tools.iter().filter(|(name, _)| wanted.contains(*name)) {
        checks.push(tool_group(name, group));
    }
    checks.push(rooms());
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

/// Which sandbox builds use. Whether machines can be booted is for others to say.
fn rooms() -> Check {
    let name = "sandbox";
    match sandbox::probe() {
        Ok(()) => Check::new(name, Severity::Good, "builds run in user, mount, pid and network namespaces"),
        Err(Error::Sandbox { message, hint }) => {
            let found = format!("builds run in umlfs's own kernel, for want of namespaces: {message}");
            Check::new(name, Severity::Limited, found).advice(hint)
        }
        Err(e) => Check::new(name, Severity::Missing, e.to_string()),
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
