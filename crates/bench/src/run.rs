//! A run: rounds over all systems.

use std::path::PathBuf;
use std::process::Command;

use crate::error::{Error, Result};
use crate::measures::{Kind, MEASURES, Measure};
use crate::place::{BENCH, BUSYBOX, Place, WORK};
use crate::report::{Figures, Report, Row};
use crate::system::{Programs, System, output_of};

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// What runs the systems.
    pub programs: Programs,
    /// Which systems; the host always is one.
    pub systems: Vec<System>,
    /// Names of measures; none stands for all that can be taken.
    pub names: Vec<String>,
    /// An image with a busybox: `tiny`.
    pub image: PathBuf,
    /// A system with a compiler, make and git, and an archive with a package that has a configure script.
    pub root: Option<(PathBuf, PathBuf)>,
    /// Rounds.
    pub rounds: u32,
    /// Milliseconds for each of the five batches of an operation.
    pub milliseconds: u32,
    /// Where files go for the time of the run.
    pub directory: PathBuf,
}

/// Takes the figures. `progress` hears how many of how many steps are done.
///
/// # Errors
/// Nothing at all can be measured; what fails for a single measure on one system is noted in the report.
pub fn run(config: &Config, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
    for name in &config.names {
        crate::measures::find(name).ok_or_else(|| Error::UnknownMeasure(name.clone()))?;
    }
    let wanted = |measure: &&Measure| match config.names.is_empty() {
        true => config.root.is_some() || !matches!(measure.kind, Kind::Package(_)),
        false => config.names.iter().any(|name| name == measure.name),
    };
    let measures: Vec<&'static Measure> = MEASURES.iter().filter(wanted).collect();
    let mut session = Session::new(config, measures)?;
    session.all(progress)?;
    Ok(session.report())
}

struct Session<'a> {
    config: &'a Config,
    systems: Vec<System>,
    measures: Vec<&'static Measure>,
    busybox: Place,
    package: Option<Place>,
    /// Of each measure, for each system.
    figures: Vec<(&'static str, System, Figures)>,
    problems: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(config: &'a Config, measures: Vec<&'static Measure>) -> Result<Session<'a>> {
        let mut systems = vec![System::Native];
        systems.extend(config.systems.iter().copied().filter(|system| *system != System::Native));
        let busybox = Place::with_busybox(&config.directory, &config.image)?;
        let needs_package = measures.iter().any(|measure| matches!(measure.kind, Kind::Package(_)));
        let package = match &config.root {
            Some((root, package)) if needs_package => Some(Place::with_root(&config.directory, root, package)?),
            _ => None,
        };
        Ok(Session { config, systems, measures, busybox, package, figures: Vec::new(), problems: Vec::new() })
    }

    fn all(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        self.busybox.prepare(&self.systems)?;
        if self.has(|kind| matches!(kind, Kind::Script(_))) {
            for system in self.systems.clone() {
                self.make_tree(system);
            }
        }
        let systems = self.systems.clone();
        let steps = u64::from(self.config.rounds) * systems.len() as u64;
        for round in 0..self.config.rounds {
            if let Some(package) = &self.package {
                package.prepare(&systems)?;
            }
            for (index, system) in systems.iter().enumerate() {
                progress(u64::from(round) * systems.len() as u64 + index as u64, steps);
                self.operations(*system);
                self.boots(*system);
                self.scripts(*system);
                // Ten seconds natively are minutes there: once is enough.
                if round == 0 || matches!(system, System::Native | System::Direct) {
                    self.packages(*system);
                }
            }
        }
        progress(steps, steps);
        Ok(())
    }

    fn has(&self, kind: impl Fn(Kind) -> bool) -> bool {
        self.measures.iter().any(|measure| kind(measure.kind))
    }

    fn make_tree(&mut self, system: System) {
        let made = self.rooted(system, &self.busybox, &self.busybox.tree_arguments());
        if let Err(e) = made {
            self.problems.push(format!("tree on {}: {e}", system.name()));
        }
    }

    fn note(&mut self, name: &'static str, system: System, value: std::result::Result<f64, String>) {
        let value = match value {
            Ok(value) => value,
            Err(what) => return self.problem(name, system, &what),
        };
        let native = self.figures.iter().find(|(n, s, _)| *n == name && *s == System::Native);
        let native = native.and_then(|(_, _, figures)| figures.samples.last().copied());
        let at = self.figures.iter().position(|(n, s, _)| *n == name && *s == system).unwrap_or_else(|| {
            self.figures.push((name, system, Figures::default()));
            self.figures.len() - 1
        });
        let figures = &mut self.figures[at].2;
        figures.samples.push(value);
        if system == System::Native {
            figures.ratios.push(1.0);
        } else if let Some(native) = native.filter(|native| *native > 0.0) {
            figures.ratios.push(value / native);
        }
    }

    fn problem(&mut self, names: &str, system: System, what: &str) {
        let problem = format!("{names} on {}: {what}", system.name());
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn operations(&mut self, system: System) {
        let names: Vec<&'static str> = self
            .measures
            .iter()
            .filter(|measure| measure.kind == Kind::Operation)
            .map(|measure| measure.name)
            .collect();
        if names.is_empty() {
            return;
        }
        let milliseconds = self.config.milliseconds.to_string();
        let arguments = [&["micro", &milliseconds], &names[..]].concat();
        let output = self.config.programs.guest_program(system, &self.busybox, &arguments);
        let text = match output {
            Ok(text) => text,
            Err(e) => return self.problem(&names.join(", "), system, &e.to_string()),
        };
        let mut missing = Vec::new();
        for name in names {
            match figure(&text, name) {
                Some(value) => self.note(name, system, value),
                None => missing.push(name),
            }
        }
        if !missing.is_empty() {
            self.problem(&missing.join(", "), system, "the guest program did not come to it");
        }
    }

    fn boots(&mut self, system: System) {
        if system == System::Native {
            return;
        }
        for measure in self.measures.clone() {
            if let Kind::Boot(to) = measure.kind {
                let time = self.config.programs.boot_time(system, &self.busybox.image(system), to);
                self.note(measure.name, system, time.map_err(|e| e.to_string()));
            }
        }
    }

    fn scripts(&mut self, system: System) {
        for measure in self.measures.clone() {
            let Kind::Script(script) = measure.kind else { continue };
            let output = self.rooted(system, &self.busybox, &["time", BUSYBOX, "sh", "-c", script]);
            self.note(measure.name, system, milliseconds(output));
        }
    }

    fn packages(&mut self, system: System) {
        for measure in self.measures.clone() {
            let Kind::Package(script) = measure.kind else { continue };
            let Some(place) = self.package.as_ref().filter(|place| place.has_package()) else {
                let what = "it needs --root, an image with a compiler, and --package, an archive of sources";
                self.note(measure.name, system, Err(what.into()));
                continue;
            };
            let arguments = ["time", "/bin/sh", "-c", script];
            let output = self.rooted(system, place, &arguments);
            self.note(measure.name, system, milliseconds(output));
        }
    }

    /// The guest program's output with an image's root directory as its own.
    fn rooted(&self, system: System, place: &Place, arguments: &[&str]) -> Result<String> {
        match system {
            System::Native => in_root(place, arguments),
            _ => self.config.programs.guest_program(system, place, arguments),
        }
    }

    fn report(self) -> Report {
        let rows = self.measures.iter().map(|measure| Row {
            name: measure.name.to_string(),
            systems: self
                .figures
                .iter()
                .filter(|(name, _, _)| *name == measure.name)
                .map(|(_, system, figures)| (*system, figures.clone()))
                .collect(),
        });
        Report { host: host(), rounds: self.config.rounds, rows: rows.collect(), problems: self.problems }
    }
}

/// Runs the guest program in the host's copy of the root directory, as its root, in namespaces of its own: not as process 1, which would
/// power off.
fn in_root(place: &Place, arguments: &[&str]) -> Result<String> {
    const SCRIPT: &str = "mount --rbind /dev \"$1/dev\" && mount -t proc proc \"$1/proc\" && chroot \"$@\"";
    let (verb, rest) = arguments.split_first().map_or(("", arguments), |(verb, rest)| (*verb, rest));
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", SCRIPT, "sh"]);
    command.arg(place.native_root()).args([BENCH, verb, BENCH, WORK]).args(rest);
    command.env("B", BUSYBOX);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    output_of("the guest program in a root directory of the host", "unshare", &mut command)
}

/// The figure of a line of the guest program's, or why there is none; `None` without such a line.
fn figure(output: &str, name: &str) -> Option<std::result::Result<f64, String>> {
    let text = output.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(' '))?;
    Some(text.trim().parse().map_err(|_| text.trim_start_matches('!').trim().to_string()))
}

fn milliseconds(output: Result<String>) -> std::result::Result<f64, String> {
    match output {
        Ok(text) => match figure(&text, "time") {
            Some(figure) => figure.map(|ns| ns / 1e6),
            None => Err("the guest program has said nothing".into()),
        },
        Err(e) => Err(e.to_string()),
    }
}

/// The host's kernel and processor.
fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let count = std::thread::available_parallelism().map_or(1, |n| n.get());
    format!("Linux {}, {count} x {}", read("/proc/sys/kernel/osrelease").trim(), model.unwrap_or("unknown processor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_programs_lines() {
        let output = "stat 12.50\r\nopen-close ! No space left on device\nstat-other 3\n";
        assert_eq!(figure(output, "stat"), Some(Ok(12.5)));
        assert_eq!(figure(output, "open-close"), Some(Err("No space left on device".into())));
        assert!(figure(output, "getppid").is_none());
    }
}
