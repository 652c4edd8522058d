//! `umlfs sources`: what a profile is made from, pinned by hash.

use clap::Subcommand;
use lfsbuild::cancel::CancelOnSignal;
use lfsbuild::progress::{self, Event};
use lfsbuild::sources::{Fetcher, SourceState};

use super::build::{ProfileArgs, SourceArgs, report};
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs sources list             every archive with its hash, and whether it is here
  umlfs sources fetch            bring all of them, so that builds work offline
  umlfs sources verify --json    compute their hashes again";

/// List, fetch or verify a system's source archives
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print every source with its hash, and whether it is in the cache
    #[command(after_help = "Examples:\n  umlfs sources list --json\n  umlfs sources list --profile tiny-test")]
    List(ListArgs),
    /// Bring every source into the cache
    #[command(after_help = "Examples:\n  umlfs sources fetch\n  umlfs sources fetch --offline --sources /media/stick")]
    Fetch(FetchArgs),
    /// Compute the hashes of the cached sources again
    #[command(after_help = "Examples:\n  umlfs sources verify && echo ready for a class without a network")]
    Verify(ListArgs),
}

#[derive(clap::Args)]
struct ListArgs {
    #[command(flatten)]
    profile: ProfileArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct FetchArgs {
    #[command(flatten)]
    list: ListArgs,

    #[command(flatten)]
    sources: SourceArgs,
}

pub(crate) fn run(args: Args) -> CommandResult {
    match args.command {
        Command::List(args) => list(&args, false),
        Command::Verify(args) => list(&args, true),
        Command::Fetch(args) => fetch(&args),
    }
}

fn list(args: &ListArgs, verify: bool) -> CommandResult {
    let builder = args.profile.open()?;
    let fetcher = Fetcher::new(&builder.store, Vec::new(), true);
    let mut rows = Vec::new();
    let mut bad = 0;
    for (recipe, source) in builder.plan.sources() {
        let state = fetcher.state(source, verify).map_err(report)?;
        let state = match state {
            SourceState::Present => "present",
            SourceState::Missing => "missing",
            SourceState::Damaged => "damaged",
        };
        if verify && state != "present" {
            bad += 1;
        }
        rows.push((recipe, source, state));
    }
    ui::with_stdout(|w| {
        let mut write = || -> std::io::Result<()> {
            if args.json {
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(recipe, source, state)| {
                        serde_json::json!({
                            "package": recipe.name.value,
                            "version": recipe.version,
                            "license": recipe.license,
                            "file": source.file.value,
                            "sha256": source.sha256.value,
                            "urls": source.urls.iter().map(|u| u.value.as_str()).collect::<Vec<_>>(),
                            "debian": source.debian.as_ref().map(|d| format!("{}={}", d.source, d.version)),
                            "pypi": source.pypi.as_ref().map(|p| format!("{}=={}", *p.name, p.version)),
                            "state": state,
                        })
                    })
                    .collect();
                return writeln!(w, "{:#}", serde_json::Value::Array(rows));
            }
            for (recipe, source, state) in &rows {
                writeln!(w, "{state:<8} {:<16} {}  {}", recipe.name.value, source.sha256.value, source.file.value)?;
            }
            Ok(())
        };
        write().map_err(|error| CliError::output(&error))
    })?;
    if bad > 0 {
        return Err(CliError::failed(format_args!("{bad} of {} sources are missing or damaged", rows.len()))
            .hint("umlfs sources fetch"));
    }
    Ok(0)
}

fn fetch(args: &FetchArgs) -> CommandResult {
    let builder = args.list.profile.open()?;
    let progress = progress::for_stderr();
    let signals = CancelOnSignal::install();
    let fetched = builder.fetch_sources(&args.sources.options(), progress.as_ref());
    progress.event(Event::Finished);
    drop(signals);
    fetched.map_err(report)?;
    list(&args.list, false)
}
