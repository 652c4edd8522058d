//! Steps in machines of umlfs's own kernel, for hosts that let nobody make namespaces.
//!
//! The program `umlfs` does each part, as a child process: `image create` makes a disk from the packages that the step needs and
//! from its work directory ([`disk`]), `boot` runs the phases there (by the program [`step_init`]), `image cp` brings back what was
//! installed. A step on the host's tools sees them as shares of the host's directories, read-only; all that it writes lies on the
//! disk. The machine ends with the builder, and with it all that runs in it.
//!
//! Jobs: the jobserver's pipe does not reach into a machine. So a step's make gets a fixed number of jobs there: for the step's own
//! token and, of those that are free when it begins, its share ([`Jobserver::share`]). They are taken out of the pot until the phases
//! are over. So steps that run at once share the processors evenly, and together never run more jobs than the user allows; but what
//! a step leaves unused, while it configures, say, nobody else can use.

mod disk;
mod program;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use step_init::{IN_IMAGE, PROGRAM, Report};

use self::program::Program;
use super::child::{self, Exit};
use super::{Kind, Machine, Sandbox, Spec, host_root};
use crate::error::{Error, Result};
use crate::jobserver::{Jobserver, processors};
use crate::recipe::Root;
use crate::store::remove_tree;

/// What a run puts into [`IN_IMAGE`], in the step's work directory: there when a run has begun.
const ORDERS: &str = "orders";
/// The same for a user's shell.
const SHELL: &str = "shell";

/// Machines.
pub(super) struct Umkernel<'a> {
    program: Program,
    machine: &'a Machine,
    /// None: nobody else builds.
    pot: Option<&'a Jobserver>,
}

/// Whether a work directory is as a run in a machine has left it.
pub(super) fn was_here(work: &Path) -> bool {
    disk::path(work).is_file() && work.join(ORDERS).is_dir()
}

impl<'a> Umkernel<'a> {
    pub(super) fn new(machine: &'a Machine, pot: Option<&'a Jobserver>) -> Self {
        Umkernel { program: Program::new(&machine.program), machine, pot }
    }

    /// Puts what is to be done on the disk.
    fn order(&self, spec: &Spec, jobs: usize, name: &str) -> Result<()> {
        let dir = spec.work.join(name);
        remove_tree(&dir)?;
        disk::mkdir(&dir)?;
        let mut orders = spec.orders();
        // Those of the builder, which a recipe's own follow.
        for (name, value) in [("MAKEFLAGS", format!("-j{jobs}")), ("JOBS", jobs.to_string())] {
            if let Some((_, own)) = orders.env.iter_mut().find(|(k, _)| k == name) {
                *own = value;
            }
        }
        let write = |name: &str, bytes: &[u8], mode| {
            let path = dir.join(name);
            std::fs::write(&path, bytes)
                .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(mode)))
                .map_err(|e| Error::io("writing", &path, e))
        };
        write(PROGRAM, self.machine.init, 0o755)?;
        write(step_init::ORDERS, &orders.encode(), 0o644)?;
        step_init::write_scripts(&dir, &spec.phases).map_err(|message| Error::Sandbox {
            message,
            hint: format!("is there room in {}, and may you write there?", dir.display()),
        })?;
        disk::put(&self.program, spec, &dir, IN_IMAGE)
    }

    /// The command that boots the disk.
    fn boot(&self, spec: &Spec, jobs: usize) -> std::process::Command {
        let mut command = self.program.command(spec.builder);
        command.arg("boot").arg(disk::path(&spec.work));
        let cpus = jobs.min(processors());
        command.args(["--mem", &host_memory().to_string(), "--cpus", &cpus.to_string()]);
        if spec.root == Root::Host {
            for directory in host_root::shared() {
                command.arg("--share").arg(format!("{directory}:{directory}:ro"));
            }
        }
        command.arg("--").arg(format!("{IN_IMAGE}/{PROGRAM}"));
        command
    }
}

impl Sandbox for Umkernel<'_> {
    fn kind(&self) -> Kind {
        Kind::Umkernel
    }

    fn furnish(&self, spec: &Spec, archives: &[PathBuf]) -> Result<()> {
        disk::make(&self.program, spec, archives)
    }

    fn was_here(&self, work: &Path) -> bool {
        was_here(work)
    }

    fn run(&self, spec: &Spec, log: &Path, tell: &mut dyn FnMut(Report)) -> Result<Exit> {
        let share = self.pot.map(Jobserver::share);
        let jobs = share.as_ref().map_or_else(processors, |share| share.jobs());
        self.order(spec, jobs, ORDERS)?;
        let output = child::log_end(log)?;
        let begin = output.metadata().map_err(|e| Error::io("reading", log, e))?.len();
        let mut command = self.boot(spec, jobs);
        // A group of its own: Ctrl-C on the terminal reaches the builder, which then ends the step.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(output).process_group(0);
        let started = command.spawn().map_err(|e| Error::io("starting a machine for", &spec.work, e))?;
        let (mut silent, mut no_sandbox) = (true, None);
        // All of a machine's processes have its standard output open: when that ends, they are gone.
        let exit = child::attend(started, &mut |line| match Report::decode(line) {
            Some(Report::NoSandbox { message }) => no_sandbox = Some(message),
            Some(report) => {
                silent = false;
                tell(report);
            }
            None => {}
        })?;
        if let Some(message) = no_sandbox {
            let hint = format!("a machine that boots this disk: umlfs boot {}", disk::path(&spec.work).display());
            return Err(Error::Sandbox { message, hint });
        }
        if silent && !exit.status.success() {
            return Err(program::failure("umlfs boot", &program::text_from(log, begin), exit.status, &spec.work));
        }
        Ok(exit)
    }

    fn installed(&self, spec: &Spec) -> Result<PathBuf> {
        disk::get(&self.program, spec, "dest")
    }

    fn shell(&self, spec: &Spec) -> Result<i32> {
        let jobs = processors();
        self.order(spec, jobs, SHELL)?;
        let status = self.boot(spec, jobs).status().map_err(|e| Error::io("starting a machine for", &spec.work, e))?;
        Ok(status.code().unwrap_or(1))
    }
}

/// The host's memory in bytes. Guests take of it what they use, as the processes of namespaces do.
fn host_memory() -> u64 {
    /// Where the host does not tell.
    const USUAL: u64 = 4 << 30;
    use nix::unistd::{SysconfVar, sysconf};
    let get = |name| sysconf(name).ok().flatten().and_then(|n| u64::try_from(n).ok());
    get(SysconfVar::_PHYS_PAGES).zip(get(SysconfVar::PAGE_SIZE)).map_or(USUAL, |(pages, size)| pages * size)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Leaves a work directory as a run does.
    pub(in crate::sandbox) fn leave(work: &Path) {
        std::fs::write(disk::path(work), "").unwrap();
        std::fs::create_dir(work.join(ORDERS)).unwrap();
    }

    fn spec(work: &Path, root: Root) -> Spec {
        Spec {
            builder: 1,
            root,
            work: work.to_owned(),
            sources: Vec::new(),
            commands: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            phases: Vec::new(),
            interactive: false,
        }
    }

    #[test]
    fn a_machine_has_the_jobs_that_it_may_run_and_the_host_only_where_it_needs_it() {
        let machine = Machine { program: "umlfs".into(), init: b"" };
        let umkernel = Umkernel::new(&machine, None);
        let words = |root| {
            let command = umkernel.boot(&spec(Path::new("/w"), root), 1);
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let packages = words(Root::Packages);
        assert_eq!(packages[..2], ["boot", "/w/root.img"]);
        assert_eq!(packages[4..], ["--cpus", "1", "--", "/umlfs/init"]);
        assert!(words(Root::Host).iter().any(|word| word == "/usr:/usr:ro"));
    }

    #[test]
    fn the_host_has_memory() {
        assert!(host_memory() >= 64 << 20);
    }
}
