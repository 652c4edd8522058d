//! The room in which a step's commands run.
//!
//! There are two kinds, and a step sees no difference between them: namespaces of the host and, where a host lets
//! nobody make them, a machine of umlfs's own kernel. What a step makes, and its key, do not depend on the kind.
//!
//! What a step sees, always at the same paths: `/build` (writable), `/dest` (writable, packaged afterwards), `/sources` and
//! `/inputs` (read-only), `/sysroot` and `/tools` (the needed packages, read-only; or they are `/` itself), `/tmp`, a minimal
//! `/dev`, `/proc`. Its phases are run by [`step_init`].

mod child;
mod host_root;
mod namespaces;
mod umkernel;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use step_init::{Orders, Report};

use crate::error::{Error, Result};
use crate::jobserver::Jobserver;
use crate::progress::{Event, Progress};
use crate::recipe::Root;

pub(crate) use child::Exit;
pub(crate) use namespaces::probe;
pub use namespaces::run_if_helper;

/// Part of every step's key: to be raised when the sandbox changes in a way that can change what a step makes.
pub(crate) const SANDBOX_VERSION: u32 = 1;

/// Which kind of sandbox the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Namespaces; umlfs's own kernel where the host forbids them.
    #[default]
    Auto,
    /// Namespaces.
    Namespaces,
    /// umlfs's own kernel.
    Umkernel,
}

/// A kind of sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Namespaces of the host.
    #[default]
    Namespaces,
    /// A machine of umlfs's own kernel.
    Umkernel,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Namespaces => "namespaces",
            Kind::Umkernel => "umkernel",
        })
    }
}

/// What it takes to run steps in umlfs's own kernel.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The `umlfs` program, which makes images and boots them.
    pub program: PathBuf,
    /// The program `step-init`, linked statically.
    pub init: &'static [u8],
}

/// What is to be run, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The builder's process ID: a sandbox ends when it is gone.
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

impl Spec {
    /// What is left to do where the place has been made.
    fn orders(&self) -> Orders {
        Orders {
            packages: self.root == Root::Packages,
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            phases: self.phases.iter().map(|(name, _)| name.clone()).collect(),
            interactive: self.interactive,
        }
    }
}

/// A kind of sandbox, at work.
pub(crate) trait Sandbox: Sync {
    /// Which one.
    fn kind(&self) -> Kind;

    /// Brings the packages that a step needs to where it looks for them. All else is in the work directory.
    fn furnish(&self, spec: &Spec, archives: &[PathBuf]) -> Result<()>;

    /// Whether a work directory is as a run in this kind of sandbox has left it.
    fn was_here(&self, work: &Path) -> bool;

    /// Runs the phases, with their output at the end of `log`.
    ///
    /// # Errors
    /// The sandbox cannot be made, or the user interrupts. A phase that fails is no error.
    fn run(&self, spec: &Spec, log: &Path, tell: &mut dyn FnMut(Report)) -> Result<Exit>;

    /// The directory of the host that has what the phases have installed.
    fn installed(&self, spec: &Spec) -> Result<PathBuf>;

    /// Gives the user a shell; the value is its exit status.
    fn shell(&self, spec: &Spec) -> Result<i32>;
}

/// The kind of sandbox that builds use here, and a reason where it is not the first choice.
///
/// # Errors
/// [`Error::Sandbox`] when the user's choice cannot be had.
fn choose(choice: Choice, machine: Option<&Machine>) -> Result<(Kind, Option<String>)> {
    match (choice, machine) {
        (Choice::Namespaces, _) => Ok((Kind::Namespaces, None)),
        (Choice::Umkernel, Some(_)) => Ok((Kind::Umkernel, None)),
        (Choice::Umkernel, None) => Err(Error::Sandbox {
            message: "this program has no kernel of its own to build in".into(),
            hint: "use --sandbox namespaces".into(),
        }),
        (Choice::Auto, machine) => match (probe(), machine) {
            (Ok(()), _) => Ok((Kind::Namespaces, None)),
            (Err(Error::Sandbox { message, .. }), Some(_)) => Ok((Kind::Umkernel, Some(message))),
            (Err(e), _) => Err(e),
        },
    }
}

/// The sandbox for a build whose jobs come out of `pot`.
///
/// # Errors
/// [`Error::Sandbox`] when the user's choice cannot be had.
pub(crate) fn open<'a>(
    choice: Choice,
    machine: Option<&'a Machine>,
    pot: Option<&'a Jobserver>,
    progress: &dyn Progress,
) -> Result<Box<dyn Sandbox + 'a>> {
    let (kind, reason) = choose(choice, machine)?;
    if let Some(reason) = reason {
        progress.event(Event::Note(&format!(
            "the host does not let you make namespaces ({reason}): steps run in umlfs's own kernel (--sandbox umkernel)"
        )));
    }
    Ok(match (kind, machine) {
        (Kind::Umkernel, Some(machine)) => Box::new(umkernel::Umkernel::new(machine, pot)),
        _ => Box::new(namespaces::Namespaces),
    })
}

/// For a shell in a work directory: the kind that has run there, if the user does not mind.
pub(crate) fn choice_for(choice: Choice, work: &Path) -> Choice {
    if choice == Choice::Auto && umkernel::was_here(work) { Choice::Umkernel } else { choice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_followed_or_refused() {
        let machine = Machine { program: "umlfs".into(), init: b"" };
        assert_eq!(choose(Choice::Namespaces, Some(&machine)).unwrap(), (Kind::Namespaces, None));
        assert_eq!(choose(Choice::Umkernel, Some(&machine)).unwrap(), (Kind::Umkernel, None));
        assert!(matches!(choose(Choice::Umkernel, None), Err(Error::Sandbox { .. })));
    }

    #[test]
    fn a_shell_goes_where_the_step_has_run() {
        let work = tempfile::tempdir().unwrap();
        assert_eq!(choice_for(Choice::Auto, work.path()), Choice::Auto);
        umkernel::tests::leave(work.path());
        assert_eq!(choice_for(Choice::Auto, work.path()), Choice::Umkernel);
        assert_eq!(choice_for(Choice::Namespaces, work.path()), Choice::Namespaces);
    }
}
