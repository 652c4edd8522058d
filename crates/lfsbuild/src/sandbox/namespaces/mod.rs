//! Steps in user, mount, pid, network, IPC and host-name namespaces of the host.
//!
//! The builder starts a copy of its own program as `umlfs-sandbox`, which makes the namespaces and runs the phases
//! ([`run_if_helper`]). A process of its own, because user namespaces can only be entered by a single-threaded one, and so
//! that one SIGKILL ends a step and everything that it started: the helper dies with the builder (parent-death signal), and
//! the first process of the pid namespace dies with the helper, which makes the kernel end all others in it.
//! See user_namespaces(7), mount_namespaces(7), pid_namespaces(7), pivot_root(2).

mod inside;
mod mounts;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use step_init::{EXIT_NO_SANDBOX, Report};

use super::child::{self, Exit};
use super::{Kind, Sandbox, Spec};
use crate::compose::compose;
use crate::error::{Error, Result};
use crate::recipe::Root;

/// `argv[0]` of the helper process.
const HELPER: &str = "umlfs-sandbox";

/// The helper's orders for the phases, in the step's work directory: there when a run has begun.
const SPEC: &str = "spec.json";
/// Its orders for a user's shell.
const SHELL: &str = "shell.json";

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

/// Namespaces of the host.
#[derive(Debug)]
pub(super) struct Namespaces;

impl Sandbox for Namespaces {
    fn kind(&self) -> Kind {
        Kind::Namespaces
    }

    fn furnish(&self, spec: &Spec, archives: &[PathBuf]) -> Result<()> {
        compose(archives.iter().map(PathBuf::as_path), &spec.work.join("sysroot"))
    }

    fn was_here(&self, work: &Path) -> bool {
        work.join(SPEC).is_file()
    }

    fn run(&self, spec: &Spec, log: &Path, tell: &mut dyn FnMut(Report)) -> Result<Exit> {
        let orders = spec.work.join(SPEC);
        write_spec(spec, &orders)?;
        let output = child::log_end(log)?;
        let mut command = helper(&orders);
        // A group of its own: Ctrl-C on the terminal reaches the builder, which then ends the step.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(output).process_group(0);
        let started = command.spawn().map_err(|e| Error::io("starting the sandbox for", &spec.work, e))?;
        let mut no_sandbox = None;
        // The helper takes the whole pid namespace with it.
        let exit = child::attend(started, &mut |line| match Report::decode(line) {
            Some(Report::NoSandbox { message }) => no_sandbox = Some(message),
            Some(report) => tell(report),
            None => {}
        })?;
        match no_sandbox {
            Some(message) => Err(Error::Sandbox { message, hint: namespace_hint() }),
            None => Ok(exit),
        }
    }

    fn installed(&self, spec: &Spec) -> Result<PathBuf> {
        Ok(spec.work.join("dest"))
    }

    fn shell(&self, spec: &Spec) -> Result<i32> {
        let orders = spec.work.join(SHELL);
        write_spec(spec, &orders)?;
        let status = helper(&orders).status().map_err(|e| Error::io("starting the sandbox for", &spec.work, e))?;
        Ok(status.code().unwrap_or(1))
    }
}

/// The command that starts the helper. Standard output is to be the report stream, standard error the log.
fn helper(spec: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(HELPER).arg(spec).env_clear();
    command
}

/// Writes the helper's orders.
fn write_spec(spec: &Spec, path: &Path) -> Result<()> {
    let text = serde_json::to_vec(spec).map_err(|e| Error::io("writing", path, e.into()))?;
    std::fs::write(path, text).map_err(|e| Error::io("writing", path, e))
}

/// What to do where the host does not let a user make namespaces, from what the host says about itself.
fn namespace_hint() -> String {
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

/// Tries to make namespaces.
///
/// # Errors
/// [`Error::Sandbox`] with the reason and what to do.
pub(crate) fn probe() -> Result<()> {
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
    let path = dir.join(SPEC);
    write_spec(&spec, &path)?;
    let output = helper(&path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::io("starting the sandbox helper for", dir, e))?;
    if output.status.success() {
        return Ok(());
    }
    let message = output
        .stdout
        .split(|byte| *byte == b'\n')
        .find_map(|line| match Report::decode(line) {
            Some(Report::NoSandbox { message }) => Some(message),
            _ => None,
        })
        .unwrap_or_else(|| {
            format!("the helper ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
        });
    Err(Error::Sandbox { message, hint: namespace_hint() })
}
