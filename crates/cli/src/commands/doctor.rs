//! `umlfs doctor`: what the host lacks.

use lfsbuild::doctor::{self, Check, Severity};
use lfsbuild::store::Store;

use super::build::{ProfileArgs, report};
use super::platforms;
use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs doctor            what is there, what is not, and the one command that mends it
  umlfs doctor --install  run that command

Exit status: 0 when everything needed is there, 1 when something is missing.";

/// Say what this machine lacks to build and boot
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,

    /// Install the missing packages with apt-get (through sudo, for other users than root)
    #[arg(long)]
    install: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Looks at the host: whether it can build a profile and boot. With `install`, what is missing is installed before.
pub(crate) fn examine(profile: &ProfileArgs, install: bool) -> Result<Vec<Check>, CliError> {
    let configs = profile.configs()?;
    let store = Store::open_default().map_err(report)?;
    let mut checks = doctor::examine(&configs, &profile.profile, &store).map_err(report)?;
    if install && doctor::install(&checks).map_err(report)? {
        checks = doctor::examine(&configs, &profile.profile, &store).map_err(report)?;
    }
    checks.extend(platforms::checks());
    Ok(checks)
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let checks = examine(&args.profile, args.install)?;
    let command = doctor::mending_command(&checks);
    if args.json {
        print_json(&checks, command.as_deref())?
    } else {
        print(&checks)?
    }
    let missing: Vec<_> = checks.iter().filter(|c| c.severity == Severity::Missing).map(|c| c.name.as_str()).collect();
    if !missing.is_empty() {
        let error = CliError::failed(format_args!("not ready: {}", missing.join(", ")));
        let advice = checks.iter().filter(|c| c.severity == Severity::Missing).find_map(|c| c.advice.clone());
        return Err(match command.or(advice) {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }
    Ok(0)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "good",
        Severity::Limited => "limited",
        Severity::Missing => "missing",
    }
}

fn print(checks: &[Check]) -> Result<(), CliError> {
    ui::with_stdout(|w| {
        let mut write = || -> std::io::Result<()> {
            for check in checks {
                writeln!(w, "{:<8} {:<16} {}", word(check.severity), check.name, check.found)?;
                if let Some(advice) = &check.advice {
                    writeln!(w, "{:26}{advice}", "")?;
                }
            }
            Ok(())
        };
        write().map_err(|error| CliError::output(&error))
    })
}

fn print_json(checks: &[Check], command: Option<&str>) -> Result<(), CliError> {
    let rows: Vec<_> = checks
        .iter()
        .map(|c| {
            serde_json::json!({
                "name": c.name,
                "state": word(c.severity),
                "found": c.found,
                "packages": c.packages,
                "advice": c.advice,
            })
        })
        .collect();
    let all = serde_json::json!({ "checks": rows, "mend": command });
    ui::with_stdout(|w| writeln!(w, "{all:#}").map_err(|error| CliError::output(&error)))
}
