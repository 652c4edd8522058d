//! `umlfs up`: build from source, make the image, boot it.

use std::path::{Path, PathBuf};

use imgtool::{HumanSize, Options, Size, Snapshot, create, parse_size};
use lfsbuild::cancel::CancelOnSignal;
use lfsbuild::doctor::{self, Severity};
use lfsbuild::store::Store;
use lfsbuild::{BuildOptions, BuildOutput, progress};

use super::boot::{MachineArgs, boot_image};
use super::build::{ProfileArgs, SourceArgs, WorkArgs, report};
use super::doctor::examine;
use crate::CommandResult;
use crate::error::CliError;
use crate::ui::Bar;

const EXAMPLES: &str = "\
Examples:
  umlfs up                              from nothing to a login shell; a second time, at once
  umlfs up --exec 'uname -a; df /'      run one command in the system instead, return its exit status
  umlfs up --fresh                      the same system with a new disk
  umlfs up --image my.img               keep the disk in a file of your own

What was built and the disk stay in the cache; what the guest wrote is there the next time.
Exit status: as `umlfs boot`.";

/// Image size where a profile names none.
const DEFAULT_SIZE: u64 = 256 << 20;

/// Build a system from source, make its image, boot it
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,

    #[command(flatten)]
    sources: SourceArgs,

    #[command(flatten)]
    work: WorkArgs,

    /// Install with apt-get what the host lacks (through sudo, for other users than root)
    #[arg(long)]
    install: bool,

    /// The disk's image [default: one in the cache for each build]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// Make the image anew even if it is there: what the guest wrote is lost
    #[arg(long)]
    fresh: bool,

    #[command(flatten)]
    machine: MachineArgs,
}

pub(crate) fn run(args: Args) -> CommandResult {
    check_host(&args)?;
    let mut options = args.sources.options();
    args.work.apply(&mut options);
    let output = build(&args.profile, &options)?;
    let image = match &args.image {
        Some(path) => path.clone(),
        None => cached_image(&output)?,
    };
    if args.fresh || !image.exists() {
        make_image(&output, &image)?;
    }
    boot_image(image, &args.machine)
}

/// The image of the profile `tiny` in the cache, built and made if it is not there yet.
pub(crate) fn tiny_image() -> Result<PathBuf, CliError> {
    let profile = ProfileArgs { profile: "tiny".into(), config_dir: None };
    let output = build(&profile, &SourceArgs { source_dirs: Vec::new(), offline: false }.options())?;
    let image = cached_image(&output)?;
    if !image.exists() {
        make_image(&output, &image)?;
    }
    Ok(image)
}

/// Stops with the one command to run if the host lacks something; or runs it, where the user has allowed that.
fn check_host(args: &Args) -> Result<(), CliError> {
    let checks = examine(&args.profile, args.install)?;
    let missing: Vec<_> = checks.iter().filter(|c| c.severity == Severity::Missing).map(|c| c.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let error = CliError::failed(format_args!("this machine lacks: {}", missing.join(", ")));
    Err(match doctor::mending_command(&checks) {
        Some(command) => error.hint(format_args!("run `{command}`, or `umlfs up --install` does it")),
        None => error.hint("`umlfs doctor` says more"),
    })
}

fn build(profile: &ProfileArgs, options: &BuildOptions) -> Result<BuildOutput, CliError> {
    let builder = profile.open()?;
    let signals = CancelOnSignal::install();
    let output = builder.build(options, progress::for_stderr().as_ref()).map_err(report)?;
    drop(signals);
    Ok(output)
}

/// Where the image of this very build lies.
fn cached_image(output: &BuildOutput) -> Result<PathBuf, CliError> {
    /// Enough of the key to tell builds apart in a file's name.
    const KEY_LEN: usize = 16;
    let dir = Store::open_default().and_then(|store| store.dir("images")).map_err(report)?;
    let key = output.key.get(..KEY_LEN).unwrap_or(&output.key);
    Ok(dir.join(format!("{}-{key}.img", output.profile)))
}

fn make_image(output: &BuildOutput, path: &Path) -> Result<(), CliError> {
    let size = match &output.image.size {
        Some(text) => parse_size(text).map_err(super::image::report)?,
        None => DEFAULT_SIZE,
    };
    let options = Options {
        overwrite: true,
        from: output.packages.iter().map(|package| package.path.clone()).collect(),
        size: Size::Bytes(size),
        label: output.image.label.clone().unwrap_or_default(),
        ..Options::new(path)
    };
    let mut bar = Bar::new("writing the image");
    let created =
        create(&options, &mut |now: &Snapshot| bar.set(now.bytes, now.bytes_total)).map_err(super::image::report)?;
    bar.finish();
    {
        use std::io::Write as _;
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(anstream::stderr(), "{}: {} image", path.display(), HumanSize(created.size));
    }
    Ok(())
}
