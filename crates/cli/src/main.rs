//! The `umlfs` command: one file per subcommand under `commands/`, no logic of its own, but for `uml/`: a real User-Mode Linux as
//! the kernel.

mod commands;
mod error;
mod ui;
mod uml;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::error::CliError;

/// How a subcommand ends: the process's exit status, or an error to print.
///
/// `boot --exec` hands the guest command's own status through, so this is any byte and not only success.
type CommandResult = Result<u8, CliError>;

/// The kernel image of the `direct` platform.
const KERNEL_IMAGE: &[u8] = include_bytes!(env!("UMLFS_KERNEL_IMAGE"));

/// The first program of a machine that builds a step.
const STEP_INIT: &[u8] = include_bytes!(env!("UMLFS_STEP_INIT"));

const EXAMPLES: &str = "\
Exit status:
  0  done
  1  it failed: one line says what, a second one what to do
  2  the command line is wrong

Environment:
  UMLFS_LOG  log filter on standard error, such as `debug` or `imgtool=trace`
  NO_COLOR   set to anything: no colours";

/// Build a Linux From Scratch system from source, make its disk image, boot it in a user-mode kernel.
#[derive(Parser)]
#[command(
    name = "umlfs",
    version,
    styles = ui::STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(Box<commands::up::Args>),
    Build(Box<commands::build::Args>),
    Pkg(commands::pkg::Args),
    Report(commands::report::Args),
    Sources(commands::sources::Args),
    Doctor(commands::doctor::Args),
    Image(Box<commands::image::Args>),
    Boot(Box<commands::boot::Args>),
    Bench(Box<commands::bench::Args>),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

impl Command {
    fn run(self) -> CommandResult {
        match self {
            Self::Up(args) => commands::up::run(*args),
            Self::Build(args) => commands::build::run(*args),
            Self::Pkg(args) => commands::pkg::run(args),
            Self::Report(args) => commands::report::run(&args),
            Self::Sources(args) => commands::sources::run(args),
            Self::Doctor(args) => commands::doctor::run(&args),
            Self::Image(args) => commands::image::run(*args),
            Self::Boot(args) => commands::boot::run(*args),
            Self::Bench(args) => commands::bench::run(&args),
            Self::Completions(args) => commands::completions::run(&args),
            Self::Man(args) => commands::man::run(&args),
        }
    }
}

/// Makes a write beyond the host's limit for files (`ulimit -f`) an error like any other, where it would end the process. Programs
/// that this one runs have the signal as it was.
fn outlive_file_limit() {
    extern "C" fn nothing(_: std::ffi::c_int) {}
    // SAFETY: the handler touches nothing.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::Handler(nothing)) };
}

fn main() -> ExitCode {
    // Build steps run in a copy of this program that becomes their sandbox.
    lfsbuild::sandbox::run_if_helper();
    outlive_file_limit();
    let cli = Cli::parse();
    match ui::init_logging().and_then(|()| cli.command.run()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}
