//! `umlfs pkg`: what finished packages hold.

use clap::Subcommand;
use lfsbuild::package::Manifest;
use lfsbuild::pkg;
use lfsbuild::recipe::OutputRef;

use super::build::{ProfileArgs, report};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs pkg list                        the system's packages: version, licence, size
  umlfs pkg files busybox/final         every path with its mode and owner
  umlfs pkg owner /bin/busybox          whose file it is
  umlfs pkg verify                      compute the archives' hashes again
  umlfs pkg diff musl/tools DIR         against a package's directory in another cache";

/// Look into the packages that were built
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the system's packages: version, licence, paths, size
    #[command(after_help = "Examples:\n  umlfs pkg list --json\n  umlfs pkg list --profile lfs-temporary")]
    List {
        #[command(flatten)]
        profile: ProfileArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print every path of a package
    #[command(after_help = "Examples:\n  umlfs pkg files busybox/final")]
    Files {
        #[command(flatten)]
        profile: ProfileArgs,
        /// The package: NAME/STAGE, NAME/STAGE:OUTPUT, or its directory
        package: String,
    },
    /// Say which package of the system brings a path
    #[command(after_help = "Examples:\n  umlfs pkg owner /etc/passwd /bin/sh")]
    Owner {
        #[command(flatten)]
        profile: ProfileArgs,
        /// Absolute paths in the built system
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Compute the hashes of the archives again
    #[command(after_help = "Examples:\n  umlfs pkg verify && echo the cache is whole")]
    Verify {
        #[command(flatten)]
        profile: ProfileArgs,
    },
    /// Print in which paths two packages differ; exit status 1 when they do
    #[command(after_help = "Examples:\n  umlfs pkg diff bash/temporary /mnt/other-cache/umlfs/packages/0123...")]
    Diff {
        #[command(flatten)]
        profile: ProfileArgs,
        /// NAME/STAGE, NAME/STAGE:OUTPUT, or a package's directory
        first: String,
        /// The same, of the other package
        second: String,
    },
}

pub(crate) fn run(args: Args) -> CommandResult {
    match args.command {
        Command::List { profile, json } => list(&profile, json),
        Command::Files { profile, package } => files(&profile, &package),
        Command::Owner { profile, paths } => owner(&profile, &paths),
        Command::Verify { profile } => verify(&profile),
        Command::Diff { profile, first, second } => diff(&profile, &first, &second),
    }
}

fn list(profile: &ProfileArgs, json: bool) -> CommandResult {
    let builder = profile.open()?;
    let mut rows = Vec::new();
    for reference in &builder.plan.packages {
        let step = builder.plan.step(&reference.step).map_err(report)?;
        let Some((recipe, _)) = builder.plan.stage(step) else { continue };
        let record = builder.store.record(&step.key);
        let output = reference.output.as_deref().unwrap_or(lfsbuild::package::MAIN);
        let archive = record.as_ref().and_then(|r| r.outputs.get(output)).cloned();
        rows.push((reference.to_string(), recipe, step, archive));
    }
    ui::with_stdout(|w| {
        let mut write = || -> std::io::Result<()> {
            if json {
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(name, recipe, step, archive)| {
                        serde_json::json!({
                            "package": name,
                            "version": recipe.version,
                            "license": recipe.license,
                            "summary": recipe.summary,
                            "key": step.key,
                            "built": archive.is_some(),
                            "sha256": archive.as_ref().map(|a| a.sha256.as_str()),
                            "paths": archive.as_ref().map(|a| a.entries),
                            "bytes": archive.as_ref().map(|a| a.installed_size),
                        })
                    })
                    .collect();
                return writeln!(w, "{:#}", serde_json::Value::Array(rows));
            }
            for (name, recipe, _, archive) in &rows {
                let size = match archive {
                    Some(a) => format!("{:>6} paths {:>8} KiB", a.entries, a.installed_size.div_ceil(1024)),
                    None => "not built".into(),
                };
                writeln!(w, "{name:<26} {:<14} {size:<25} {}", recipe.version, recipe.license)?;
            }
            Ok(())
        };
        write().map_err(|error| CliError::output(&error))
    })?;
    Ok(0)
}

fn files(profile: &ProfileArgs, package: &str) -> CommandResult {
    let builder = profile.open()?;
    let manifest = pkg::manifest(&builder, package).map_err(report)?;
    ui::with_stdout(|w| {
        manifest
            .entries
            .iter()
            .try_for_each(|e| {
                let owner = format!("{}:{}", e.uid, e.gid);
                writeln!(
                    w,
                    "{}{:04o} {owner:<8} {}  ({})",
                    pkg::letter(&e.kind),
                    e.mode,
                    e.path,
                    pkg::describe(&e.kind)
                )
            })
            .map_err(|error| CliError::output(&error))
    })?;
    Ok(0)
}

fn owner(profile: &ProfileArgs, paths: &[String]) -> CommandResult {
    let builder = profile.open()?;
    let packages: Vec<(OutputRef, Manifest)> = builder
        .plan
        .packages
        .iter()
        // What is not built has no files yet; that is said below where it matters.
        .filter_map(|reference| Some((reference.clone(), pkg::manifest(&builder, &reference.to_string()).ok()?)))
        .collect();
    let mut missing = Vec::new();
    let mut lines = Vec::new();
    for path in paths {
        let mut found = false;
        for (reference, manifest) in &packages {
            for entry in manifest.entries.iter().filter(|e| e.path == path.trim_end_matches('/')) {
                found = true;
                lines.push(format!("{reference}: {} ({})", entry.path, pkg::describe(&entry.kind)));
            }
        }
        if !found {
            missing.push(path.as_str());
        }
    }
    ui::with_stdout(|w| {
        lines.iter().try_for_each(|line| writeln!(w, "{line}")).map_err(|error| CliError::output(&error))
    })?;
    if missing.is_empty() {
        return Ok(0);
    }
    let unbuilt = builder.plan.packages.len() - packages.len();
    let error = CliError::failed(format_args!("no package of {} brings {}", builder.profile.name, missing.join(", ")));
    Err(match unbuilt {
        0 => error.hint("name the path as it is in its package: absolute, and not through a link"),
        n => error.hint(format_args!("{n} of its packages are not built yet: `umlfs build`")),
    })
}

fn verify(profile: &ProfileArgs) -> CommandResult {
    let builder = profile.open()?;
    let mut faults = Vec::new();
    let mut good = 0;
    for record in builder.plan.steps.iter().filter_map(|step| builder.store.record(&step.key)) {
        let found = pkg::verify(&builder, &record).map_err(report)?;
        if found.is_empty() {
            good += 1;
        }
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", record.step)));
    }
    ui::with_stdout(|w| {
        let mut write = || -> std::io::Result<()> {
            faults.iter().try_for_each(|fault| writeln!(w, "{fault}"))?;
            writeln!(w, "{good} packages are whole")
        };
        write().map_err(|error| CliError::output(&error))
    })?;
    match faults.len() {
        0 => Ok(0),
        n => Err(CliError::failed(format_args!("{n} archives are damaged"))
            .hint("build these steps again: `umlfs build --from STEP`")),
    }
}

fn diff(profile: &ProfileArgs, first: &str, second: &str) -> CommandResult {
    let builder = profile.open()?;
    let manifest = |name| pkg::manifest(&builder, name).map_err(report);
    let differences = pkg::diff(&manifest(first)?, &manifest(second)?);
    ui::with_stdout(|w| {
        differences.iter().try_for_each(|d| writeln!(w, "{d}")).map_err(|error| CliError::output(&error))
    })?;
    Ok(u8::from(!differences.is_empty()))
}
