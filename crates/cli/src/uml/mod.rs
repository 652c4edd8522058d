//! `umlfs boot --kernel`: the same image in a real User-Mode Linux, the `linux` that a kernel source makes with `ARCH=um`, so that
//! the two kernels can be compared.
//!
//! ```text
//! umlfs (monitor) ──fork──► keeper ──► linux ── its own processes
//!   raw terminal, signals     │ console ⇄ con0 (a pseudo-terminal)
//!   exit status               │ --exec's streams ⇄ con1 (a socket)
//!                             └ the end of all of them
//! ```
//!
//! The monitor is the one of our own kernel's machines (`umkernel::machine::monitor`). The guest's root is at first a directory of
//! the host with the program of `crates/uml-init` in it, process 1, which mounts the image and does in the guest what our own
//! kernel does by itself.

mod arguments;
mod confine;
mod console;
mod disk;
mod kernel;
mod line;
mod machine;
mod mconsole;
mod messages;
mod outcome;
mod workplace;

use std::io::IsTerminal;
use std::path::Path;

use umkernel::machine::launch::LaunchConfig;
use umkernel::machine::{BootError, Run, monitor};

use crate::CommandResult;
use crate::error::CliError;

pub(crate) use kernel::Kernel;

/// What a user asks for beside what our own kernel is asked for.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// Words of the kernel's command line.
    pub(crate) words: Vec<String>,
}

/// An error of a machine, as the command shows it.
pub(crate) fn report(BootError { what, hint }: BootError) -> CliError {
    let error = CliError::failed(what);
    if hint.is_empty() { error } else { error.hint(hint) }
}

fn failed(what: impl Into<String>, hint: impl Into<String>) -> BootError {
    BootError { what: what.into(), hint: hint.into() }
}

/// Boots the machine and returns the exit code for the caller.
pub(crate) fn boot(options: &Options<'_>, config: &LaunchConfig) -> CommandResult {
    let interactive = matches!(config.machine.run, Run::Init(_));
    let terminal = [0, 1, 2].map(|stream| !interactive && is_terminal(stream));
    let place = workplace::Workplace::new().map_err(report)?;
    let disks = [&config.root].into_iter().chain(&config.disks).map(|disk| disk::Disk::take(disk, &place));
    let disks = disks.collect::<Result<Vec<_>, _>>().map_err(report)?;
    place.furnish(&arguments::request(config, terminal)).map_err(report)?;
    let shared = config.shares.iter().filter(|share| !share.mount.read_only).map(|share| share.host.clone());
    let plan = machine::Plan {
        inherited: disks.iter().filter_map(disk::Disk::inherited).collect(),
        kernel: options.kernel.path(),
        words: arguments::command_line(options, config, place.path()),
        memory_directory: workplace::memory_directory(config.machine.memory).map_err(report)?,
        place: &place,
        interactive,
        verbose: config.machine.verbose,
        terminal,
        writable: shared.chain(disks.iter().filter_map(disk::Disk::written).map(Path::to_owned)).collect(),
    };
    let ended = monitor::supervise(None, &|_, _| {
        let outcome = plan.run();
        if place.is_left_alone() {
            // The process that would do it was killed.
            let _ = give_back(&disks);
            place.remove();
        }
        outcome
    });
    // What the machine has written counts, however it ended.
    let kept = give_back(&disks);
    let code = ended.map_err(report)?;
    kept.map(|()| code)
}

/// Brings what the machine has written to where it belongs; the first error, when all has been tried.
fn give_back(disks: &[disk::Disk]) -> Result<(), CliError> {
    disks.iter().map(disk::Disk::give_back).fold(Ok(()), Result::and)
}

fn is_terminal(stream: i32) -> bool {
    match stream {
        0 => std::io::stdin().is_terminal(),
        1 => std::io::stdout().is_terminal(),
        _ => std::io::stderr().is_terminal(),
    }
}

/// A path as the kernel takes it in its command line, which ends words at spaces.
fn word(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
