//! The room in which a step's commands run: user, mount, pid, network, IPC and host-name namespaces of its own.
//!
//! The builder starts a copy of its own program as `umlfs-sandbox`, which makes the namespaces and runs the phases
//! ([`run_if_helper`]). A process of its own, because user namespaces can only be entered by a single-threaded one, and so
//! that one SIGKILL ends a step and everything that it started: the helper dies with the builder (parent-death signal), and
//! the first process of the pid namespace dies with the helper, which makes the kernel end all others in it.
//!
//! What a step sees, always at the same paths: `/build` (writable), `/dest` (writable, packaged afterwards), `/sources` and
//! `/inputs` (read-only), `/sysroot` and `/tools` (the needed packages, read-only), `/tmp`, a minimal `/dev`, `/proc`.
//! See user_namespaces(7), mount_namespaces(7), pid_namespaces(7), pivot_root(2).

mod inside;
mod mounts;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::Root;

/// `argv[0]` of the helper process.
const HELPER: &str = "umlfs-sandbox";

/// Exit status of the helper when a phase failed; the event stream tells more.
pub(crate) const EXIT_PHASE_FAILED: i32 = 101;
/// Exit status of the helper when it could not make the sandbox.
pub(crate) const EXIT_NO_SANDBOX: i32 = 102;

/// Part of every step's key: to be raised when the sandbox changes in a way that can change what a step makes.
pub(crate) const SANDBOX_VERSION: u32 = 1;

/// What the helper is to do, as JSON in a file of the step's work directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The builder's process ID: the helper ends when it is gone.
    pub(crate) builder: i32,
    /// What the root is made of.
    pub(crate) root: Root,
    /// The step's work directory on the host, with `build`, `dest`, `inputs`, `sysroot`, `tmp` and `mnt` in it.
    pub(crate) work: PathBuf,
    /// Files that appear in `/sources`: name there, path on the host.
    pub(crate) sources: Vec<(String, PathBuf)>,
    /// Commands that appear in `/host/bin`: name there, path on the host.
    pub(crate) commands: Vec<(String, PathBuf)>,
    /// The whole environment of the phases.
    pub(crate) env: Vec<(String, String)>,
    /// Directory in which the phases start.
    pub(crate) cwd: PathBuf,
    /// Phases: name and shell text.
    pub(crate) phases: Vec<(String, String)>,
    /// Give the user a shell on the terminal in place of running the phases.
    pub(crate) interactive: bool,
}

/// What the helper reports on its standard output, one JSON object a line.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// A phase starts.
    Phase(
        /// Its name.
        String,
    ),
    /// A phase failed; the helper ends.
    Failed {
        /// Its name.
        phase: String,
        /// `exit status 2` or `killed by signal 9`.
        status: String,
        /// Line of the failing command in the phase's text, from 1, when the shell could tell.
        line: Option<u64>,
        /// The failing command.
        command: Option<String>,
    },
    /// The sandbox could not be made.
    NoSandbox {
        /// The call that failed, and its errno.
        message: String,
    },
}

/// Runs the sandbox helper and ends the process, when this process was started as one; otherwise does nothing.
///
/// To be called first thing in `main` of every program that builds, before it starts threads.
pub fn run_if_helper() {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != HELPER) {
        return;
    }
    let status = match args.next() {
        Some(spec) => inside::run(Path::new(&spec)),
        None => EXIT_NO_SANDBOX,
    };
    std::process::exit(status);
}

/// The command that starts the helper. Standard output is to be the report stream, standard error the log.
pub(crate) fn helper(spec: &Path) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0(HELPER).arg(spec).env_clear();
    command
}

/// What to do where the host does not let a user make namespaces, from what the host says about itself.
pub fn namespace_hint() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned());
    if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "user namespaces are switched off here; as root: sysctl -w user.max_user_namespaces=10000".into();
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "unprivileged user namespaces are switched off here; as root: sysctl -w kernel.unprivileged_userns_clone=1".into();
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "AppArmor restricts user namespaces here; as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".into();
    }
    "the host's kernel or container forbids user namespaces; in Docker or Podman start the container with \
     --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        .into()
}

/// Tries to make a sandbox and reports why it does not work: for `umlfs doctor`.
///
/// # Errors
/// [`Error::Sandbox`] with the reason and what to do.
pub fn probe() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("umlfs-probe-{}", std::process::id()));
    let made = probe_in(&dir);
    let removed = std::fs::remove_dir_all(&dir).map_err(|e| Error::io("removing", &dir, e));
    made.and(removed)
}

fn probe_in(dir: &Path) -> Result<()> {
    for sub in ["build", "dest", "inputs", "sysroot", "tmp", "mnt"] {
        let path = dir.join(sub);
        std::fs::create_dir_all(&path).map_err(|e| Error::io("creating", &path, e))?;
    }
    let spec = Spec {
        builder: nix::unistd::getpid().as_raw(),
        root: Root::Host,
        work: dir.to_owned(),
        sources: Vec::new(),
        commands: Vec::new(),
        env: Vec::new(),
        cwd: "/".into(),
        phases: vec![("probe".into(), ":".into())],
        interactive: false,
    };
    let path = dir.join("spec.json");
    write_spec(&spec, &path)?;
    let output = helper(&path)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| Error::io("starting the sandbox helper for", dir, e))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| match serde_json::from_str(line) {
            Ok(Report::NoSandbox { message }) => Some(message),
            _ => None,
        })
        .unwrap_or_else(|| {
            format!("the helper ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
        });
    Err(Error::Sandbox { message, hint: namespace_hint() })
}

/// Writes the helper's orders.
pub(crate) fn write_spec(spec: &Spec, path: &Path) -> Result<()> {
    let text = serde_json::to_vec(spec).map_err(|e| Error::io("writing", path, e.into()))?;
    std::fs::write(path, text).map_err(|e| Error::io("writing", path, e))
}
