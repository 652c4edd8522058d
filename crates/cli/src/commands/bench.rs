//! `umlfs bench`: native, direct, ptrace and User-Mode Linux, in one run.

use std::path::PathBuf;

use bench::measures::MEASURES;
use bench::report::Report;
use bench::system::{Programs, System};
use bench::{Config, run as measure};
use lfsbuild::store::Store;
use umkernel::platform::direct::load::check_host;

use super::build::report as store_error;
use super::up;
use crate::error::CliError;
use crate::ui::Bar;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs bench                             everything that the tiny system can do, on every platform there is
  umlfs bench getppid stat fork-wait      just these
  umlfs bench --save before.json          and later: umlfs bench --compare before.json
  umlfs bench --root debian.img --package make-4.4.1.tar.gz
                                          a configure script, a compilation and git as well

Ratios are to the host's own figure of the same round: they carry over to other hosts, and to busy ones.
Exit status: 0 also where a goal is missed; 1 when nothing could be measured.";

/// Measure machines against the host and User-Mode Linux
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to measure [default: all that can be]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// List what can be measured
    #[arg(long)]
    list: bool,

    /// The systems to measure beside the host [default: all that run here]
    #[arg(long, value_enum, value_name = "SYSTEM", value_delimiter = ',')]
    on: Vec<On>,

    /// A User-Mode Linux kernel [default: linux.uml, where that is installed]
    #[arg(long, value_name = "PATH")]
    uml: Option<PathBuf>,

    /// An image with busybox [default: the profile tiny, which is built if it is not there yet]
    #[arg(long, value_name = "IMAGE")]
    image: Option<PathBuf>,

    /// An image, archive or directory with a compiler, make and git, for configure, compile and git-status
    #[arg(long, value_name = "ROOT", requires = "package")]
    root: Option<PathBuf>,

    /// An archive of sources with a configure script
    #[arg(long, value_name = "ARCHIVE", requires = "root")]
    package: Option<PathBuf>,

    /// Rounds over all systems
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Milliseconds for each of the five batches of an operation
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    milliseconds: u32,

    /// Where images and files lie meanwhile: on the file system to compare with [default: the cache]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Save the run
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Compare with a saved run
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum On {
    /// Our kernel in the guests' own processes
    Direct,
    /// Our kernel, which traces its guests
    Ptrace,
    /// User-Mode Linux
    Uml,
}

fn report(error: bench::Error) -> CliError {
    let hint = error.hint();
    let failed = CliError::chain(&error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

pub(crate) fn run(args: &Args) -> CommandResult {
    if args.list {
        list()?;
        return Ok(0);
    }
    // A run takes minutes: what is wrong with the command shows before.
    let earlier = args.compare.as_deref().map(Report::read).transpose().map_err(report)?;
    let config = config(args)?;
    let mut bar = Bar::new("measuring");
    let measured = measure(&config, &mut |done, total| bar.set(done, total)).map_err(report)?;
    bar.finish();
    if let Some(path) = &args.save {
        measured.save(path).map_err(report)?;
    }
    let text = if args.json { measured.json() } else { measured.table(earlier.as_ref()) };
    ui::with_stdout(|w| w.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))?;
    Ok(0)
}

fn list() -> Result<(), CliError> {
    ui::with_stdout(|w| {
        for measure in MEASURES {
            writeln!(w, "{:<20} {}", measure.name, measure.about).map_err(|error| CliError::output(&error))?;
        }
        Ok(())
    })
}

fn config(args: &Args) -> Result<Config, CliError> {
    let uml = match &args.uml {
        Some(path) if !path.is_file() => {
            let what = format_args!("--uml: {} is no file", path.display());
            return Err(
                CliError::failed(what).hint("name a User-Mode Linux kernel, as Debian's user-mode-linux has it")
            );
        }
        Some(path) => Some(path.clone()),
        None => installed("linux.uml"),
    };
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => Store::open_default().and_then(|store| store.dir("work")).map_err(store_error)?,
    };
    let umlfs = std::env::current_exe()
        .map_err(|error| CliError::failed(format_args!("cannot find this program's own file: {error}")))?;
    Ok(Config {
        systems: systems(&args.on, uml.is_some())?,
        programs: Programs { umlfs, uml },
        names: args.names.clone(),
        image: match &args.image {
            Some(image) => image.clone(),
            None => up::tiny_image()?,
        },
        root: args.root.clone().zip(args.package.clone()),
        rounds: args.rounds,
        milliseconds: args.milliseconds,
        directory,
    })
}

/// What to measure beside the host: what the user has named, or all that runs here.
fn systems(named: &[On], has_uml: bool) -> Result<Vec<System>, CliError> {
    let direct = check_host();
    if named.is_empty() {
        if let Err(what) = &direct {
            tracing::warn!("the direct platform is left out: {what}");
        }
        let all = [(System::Direct, direct.is_ok()), (System::Ptrace, true), (System::Uml, has_uml)];
        return Ok(all.into_iter().filter_map(|(system, runs)| runs.then_some(system)).collect());
    }
    let system = |on: &On| match on {
        On::Direct => direct.as_ref().map(|()| System::Direct).map_err(|what| {
            CliError::failed(format_args!("the direct platform cannot run here: {what}"))
                .hint("leave `direct` out of --on, or `--on` as a whole: then all that runs here is measured")
        }),
        On::Ptrace => Ok(System::Ptrace),
        On::Uml if has_uml => Ok(System::Uml),
        On::Uml => Err(CliError::failed("there is no linux.uml on the path")
            .hint("install user-mode-linux, or name a kernel with --uml PATH")),
    };
    named.iter().map(system).collect()
}

/// A program on the path.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
