//! Building a profile: what `umlfs build` and `umlfs up` call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cancel::cancelled;
use crate::config::ConfigDir;
use crate::error::{Error, Result};
use crate::hash::Fields;
use crate::jobserver::{Jobserver, processors};
use crate::package::{MAIN, Manifest, check_conflicts, pack_rules};
use crate::plan::{Plan, Step};
use crate::profile::{ImageDefaults, Profile};
use crate::progress::{Event, Progress};
use crate::recipe::{FileRule, NodeKind};
use crate::sandbox::{self, Choice, Machine, Sandbox};
use crate::sources::Fetcher;
use crate::step::Context;
use crate::store::{Archive, Store, StoreLock, read_json, remove_file, remove_tree, write_json};
use crate::suite::Tests;

/// Seconds that one standard build unit takes on one core, where no measurement of the step itself is known.
pub const SBU_SECONDS: f64 = 175.0;

/// The lock file of the builder that runs; its time is the time at which that one began.
pub(crate) const LOCK: &str = "lock";

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Jobs at once, over all steps; 0 for one more than there are processors: configure scripts wait for the programs that they start,
    /// and the processor with them.
    pub jobs: usize,
    /// After a failure, go on with the steps that do not need the failed one.
    pub keep_going: bool,
    /// Directories that may have sources already.
    pub source_dirs: Vec<PathBuf>,
    /// Do not use the network.
    pub offline: bool,
    /// Whether to run the packages' own test suites.
    pub tests: Option<Tests>,
    /// What steps run in.
    pub sandbox: Choice,
    /// What it takes to run them in umlfs's own kernel; without it there are namespaces only.
    pub machine: Option<Machine>,
}

/// Which steps to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All of the profile.
    All,
    /// One step and all that it needs.
    Until(String),
    /// One step; what it needs must be there.
    Only(String),
    /// One step and all that need it, built again even if they are there.
    From(String),
}

/// One run of the builder, for the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// When it began, seconds since 1970.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
    /// Jobs at once.
    pub jobs: usize,
    /// Processors that it had; 0 in records of older builders.
    #[serde(default)]
    pub processors: usize,
    /// Steps of the plan; those that were not built were reused or not wanted.
    pub planned: usize,
    /// Steps that it built, in the order in which they were finished.
    pub built: Vec<String>,
}

impl BuildOptions {
    fn jobs(&self) -> usize {
        if self.jobs > 0 { self.jobs } else { processors() + 1 }
    }
}

impl Run {
    /// Processors that its jobs could use.
    pub fn used_processors(&self) -> usize {
        if self.processors > 0 { self.jobs.min(self.processors) } else { self.jobs }
    }
}

/// A profile, read and planned.
#[derive(Debug)]
pub struct Builder {
    /// The profile.
    pub profile: Profile,
    /// Its plan.
    pub plan: Plan,
    /// Where packages are kept.
    pub store: Store,
}

/// A built system: archives to be laid over each other in this order.
#[derive(Debug, Clone)]
pub struct BuildOutput {
    /// The profile's name.
    pub profile: String,
    /// Defaults for the image.
    pub image: ImageDefaults,
    /// The archives. No path but directories is in two of them; a directory keeps the attributes that it got first.
    pub packages: Vec<PackageArchive>,
    /// Hash over the archives in their order: the same key, the same root file system.
    pub key: String,
}

/// One package of a built system.
#[derive(Debug, Clone)]
pub struct PackageArchive {
    /// `NAME/STAGE[:OUTPUT]`, or `profile:NAME` for the profile's own files.
    pub name: String,
    /// An uncompressed tar file whose headers carry owners, modes, links and device numbers.
    pub path: PathBuf,
    /// What is in it.
    pub archive: Archive,
    /// Path by path.
    pub manifest: Manifest,
}

impl BuildOutput {
    /// Writes all packages as one tar file.
    ///
    /// # Errors
    /// The file cannot be written; a package's archive cannot be read.
    pub fn write_merged(&self, path: &Path) -> Result<()> {
        let archives: Vec<_> = self.packages.iter().map(|p| p.path.as_path()).collect();
        crate::compose::merge(&archives, path)
    }
}

/// A step and whether it is finished, for `--dry-run`.
#[derive(Debug, Clone)]
pub struct StepStatus<'a> {
    /// The step.
    pub step: &'a Step,
    /// Whether the store has it.
    pub finished: bool,
    /// How long building it may take or took.
    pub estimate: Duration,
}

impl Builder {
    /// Reads a profile and plans it.
    ///
    /// # Errors
    /// Anything wrong in the configuration; a host that lacks tools.
    pub fn open(configs: &ConfigDir, profile: &str, store: Store) -> Result<Builder> {
        let profile = Profile::load(configs, profile)?;
        let plan = Plan::new(configs, &profile, &store)?;
        Ok(Builder { profile, plan, store })
    }

    /// Builds what the store does not have, and gives the whole system.
    ///
    /// # Errors
    /// Whatever stopped it; what was finished before stays finished.
    pub fn build(&self, options: &BuildOptions, progress: &dyn Progress) -> Result<BuildOutput> {
        self.run(&Target::All, options, progress)?;
        self.output()
    }

    /// Builds the target's steps that the store does not have.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn run(&self, target: &Target, options: &BuildOptions, progress: &dyn Progress) -> Result<()> {
        let steps = self.to_build(target, options)?;
        if steps.is_empty() {
            progress.event(Event::Planned { total: self.plan.steps.len(), to_build: 0, estimate: Duration::ZERO });
            return Ok(());
        }
        let _lock = self.lock(progress)?;
        // It may have built them.
        let steps = self.to_build(target, options)?;
        self.tidy()?;
        let jobs = options.jobs();
        let estimates = self.estimates(jobs);
        let total: Duration = steps.iter().filter_map(|s| estimates.get(&s.name)).sum();
        progress.event(Event::Planned { total: self.plan.steps.len(), to_build: steps.len(), estimate: total });
        let jobserver = Jobserver::new(jobs)?;
        let sandbox = sandbox::open(options.sandbox, options.machine.as_ref(), Some(&jobserver), progress)?;
        let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
        let mut built = Vec::new();
        let fetcher = Fetcher::new(&self.store, options.source_dirs.clone(), options.offline);
        let common = self.context(&fetcher, &*sandbox, progress, jobs, jobserver.makeflags());
        let context = Context { tests: options.tests, ..common };
        // A finished step that is named alone is built for its tests.
        let keep_packages =
            matches!(target, Target::Only(_)) && steps.iter().all(|s| self.store.record(&s.key).is_some());
        let mut history: BTreeMap<String, f64> = read_json(&self.history_path()).unwrap_or_default();
        let keep_going = options.keep_going;
        let result =
            crate::schedule::run(&context, &jobserver, &steps, &estimates, keep_going, keep_packages, |record| {
                history.insert(record.step.clone(), record.wall_seconds);
                built.push(record.step.clone());
            });
        // Estimates only: a build whose disk is full has a better error to tell.
        let saved = write_json(&self.history_path(), &history).and_then(|()| {
            let ended = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
            let run = Run { began, ended, jobs, processors: processors(), planned: self.plan.steps.len(), built };
            write_json(&self.store.dir("runs")?.join(format!("{}.json", self.profile.name)), &run)
        });
        progress.event(Event::Finished);
        result.and(saved)
    }

    /// The steps that a run would build: what is missing and, where tests are wanted of one step by name, that step anyhow.
    ///
    /// # Errors
    /// As [`Builder::missing`].
    pub fn to_build(&self, target: &Target, options: &BuildOptions) -> Result<Vec<&Step>> {
        let missing = self.missing(target)?;
        match target {
            Target::Only(name) if options.tests.is_some() => Ok(vec![self.plan.step(name)?]),
            _ => Ok(missing),
        }
    }

    /// The steps of a target that the store does not have, in the plan's order.
    ///
    /// # Errors
    /// There is no such step; with [`Target::Only`], something that it needs is not there.
    pub fn missing(&self, target: &Target) -> Result<Vec<&Step>> {
        let absent = |step: &&Step| self.store.record(&step.key).is_none();
        match target {
            Target::All => Ok(self.plan.steps.iter().filter(absent).collect()),
            Target::Only(name) => {
                let step = self.plan.step(name)?;
                if let Some((need, _)) = step.needs.iter().find(|(_, key)| self.store.record(key).is_none()) {
                    return Err(Error::Usage {
                        message: format!("{name} needs {need}, which is not built yet"),
                        hint: Some(format!("`--until {name}` builds it with all that it needs")),
                    });
                }
                Ok(Some(step).into_iter().filter(absent).collect())
            }
            Target::From(name) => {
                let mut again = vec![self.plan.step(name)?.name.as_str()];
                for step in &self.plan.steps {
                    if step.needs.iter().any(|(need, _)| again.contains(&need.step.as_str())) {
                        again.push(step.name.as_str());
                    }
                }
                // What they need besides must be there, too.
                let mut wanted = again.clone();
                for step in self.plan.steps.iter().rev() {
                    if wanted.contains(&step.name.as_str()) {
                        wanted.extend(step.needs.iter().map(|(need, _)| need.step.as_str()));
                    }
                }
                let chosen = |step: &&Step| {
                    let name = step.name.as_str();
                    again.contains(&name) || (wanted.contains(&name) && absent(step))
                };
                Ok(self.plan.steps.iter().filter(chosen).collect())
            }
            Target::Until(name) => {
                let mut wanted = vec![self.plan.step(name)?.name.as_str()];
                for step in self.plan.steps.iter().rev() {
                    if wanted.contains(&step.name.as_str()) {
                        wanted.extend(step.needs.iter().map(|(need, _)| need.step.as_str()));
                    }
                }
                Ok(self.plan.steps.iter().filter(|s| wanted.contains(&s.name.as_str())).filter(absent).collect())
            }
        }
    }

    /// Builds finished steps again and compares: each step with what differs, none where its package is the same to the byte.
    /// `checked` is called after each.
    ///
    /// # Errors
    /// There is no such step; it is not built yet; building it again fails.
    pub fn check(
        &self,
        names: &[String],
        options: &BuildOptions,
        progress: &dyn Progress,
        mut checked: impl FnMut(&str, Option<&[String]>),
    ) -> Result<()> {
        let steps = match names {
            [] => self.plan.steps.iter().filter(|s| self.store.record(&s.key).is_some()).collect(),
            names => names.iter().map(|name| self.plan.step(name)).collect::<Result<Vec<_>>>()?,
        };
        if let Some(absent) = steps.iter().find(|s| self.store.record(&s.key).is_none()) {
            return Err(Error::Usage {
                message: format!("{} is not built yet: there is nothing to compare with", absent.name),
                hint: Some(format!("run `umlfs build --until {}` first", absent.name)),
            });
        }
        let _lock = self.lock(progress)?;
        self.tidy()?;
        let jobs = options.jobs();
        let jobserver = Jobserver::new(jobs)?;
        let fetcher = Fetcher::new(&self.store, options.source_dirs.clone(), options.offline);
        let sandbox = sandbox::open(options.sandbox, options.machine.as_ref(), Some(&jobserver), progress)?;
        let context = self.context(&fetcher, &*sandbox, progress, jobs, jobserver.makeflags());
        for step in steps {
            let estimate = self.store.record(&step.key).map_or(0.0, |r| r.wall_seconds);
            let estimate = Duration::try_from_secs_f64(estimate).unwrap_or_default();
            progress.event(Event::StepStarted { step: &step.name, estimate });
            let started = std::time::Instant::now();
            // make assumes to hold one token already.
            jobserver.refill().map_err(|source| Error::Io { action: "filling the jobserver".into(), source })?;
            jobserver.try_acquire();
            let differences = context.compare(step)?;
            progress.event(Event::StepFinished { step: &step.name, elapsed: started.elapsed() });
            checked(&step.name, differences.as_deref());
        }
        progress.event(Event::Finished);
        Ok(())
    }

    /// The file that takes a step's output while it runs, and where it is kept afterwards.
    ///
    /// # Errors
    /// There is no such step; the store cannot be written.
    pub fn logs(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let step = self.plan.step(name)?;
        let kept = self.store.package_dir(&step.key).join("build.log");
        Ok((self.store.dir("logs")?.join(crate::step::log_name(step)), kept))
    }

    /// The latest run of the builder for this profile; none when there was none or its notes are gone.
    pub fn last_run(&self) -> Option<Run> {
        read_json(&self.store.path().join("runs").join(format!("{}.json", self.profile.name)))
    }

    /// All steps with their state.
    pub fn status(&self) -> Vec<StepStatus<'_>> {
        let estimates = self.estimates(std::thread::available_parallelism().map_or(1, usize::from));
        self.plan
            .steps
            .iter()
            .map(|step| {
                let record = self.store.record(&step.key);
                let estimate = estimates.get(&step.name).copied().unwrap_or_default();
                StepStatus {
                    step,
                    finished: record.is_some(),
                    estimate: record
                        .map_or(estimate, |r| Duration::try_from_secs_f64(r.wall_seconds).unwrap_or(estimate)),
                }
            })
            .collect()
    }

    /// The system as built.
    ///
    /// # Errors
    /// A package is missing from the store; two packages bring the same file.
    pub fn output(&self) -> Result<BuildOutput> {
        let mut packages = Vec::new();
        for reference in &self.plan.packages {
            let key = &self.plan.step(&reference.step)?.key;
            let output = reference.output.as_deref().unwrap_or(MAIN);
            let archive =
                self.store.record(key).and_then(|r| r.outputs.get(output).cloned()).ok_or_else(|| Error::Usage {
                    message: format!("{reference} is not built yet"),
                    hint: Some("run `umlfs build`".into()),
                })?;
            packages.push(PackageArchive {
                name: reference.to_string(),
                path: self.store.archive_path(key, output),
                archive,
                manifest: self.store.manifest(key, output)?,
            });
        }
        if let Some(own) = self.profile_package()? {
            packages.push(own);
        }
        check_conflicts(packages.iter().map(|p| (p.name.as_str(), &p.manifest)))?;
        let mut fields = Fields::new("umlfs root");
        for package in &packages {
            fields.add("archive", &package.archive.sha256);
        }
        Ok(BuildOutput {
            profile: self.profile.name.clone(),
            image: self.profile.image.clone(),
            packages,
            key: fields.finish(),
        })
    }

    /// The files that the profile itself brings, as a package.
    fn profile_package(&self) -> Result<Option<PackageArchive>> {
        let mut rules = self.profile.files.clone();
        if let Some(hostname) = &self.profile.image.hostname {
            rules.entry("/etc/hostname".into()).or_insert_with(|| FileRule {
                kind: Some(NodeKind::File),
                content: Some(format!("{hostname}\n")),
                ..FileRule::default()
            });
        }
        if rules.is_empty() {
            return Ok(None);
        }
        let mut fields = Fields::new("umlfs profile files");
        fields.add("format", crate::FORMAT_VERSION.to_string());
        fields.add("epoch", crate::SOURCE_DATE_EPOCH.to_string());
        fields.add("rules", serde_json::to_vec(&rules).unwrap_or_default());
        let key = fields.finish();
        let place = self.store.package_dir(&key);
        let archive_path = place.join("archive.json");
        let archive: Archive = match read_json(&archive_path) {
            Some(archive) => archive,
            None => {
                let part = self.store.dir("packages")?.join(format!("{key}.{}.part", std::process::id()));
                remove_tree(&part)?;
                std::fs::create_dir_all(&part).map_err(|e| Error::io("creating", &part, e))?;
                let archive = pack_rules(&rules, MAIN, &part)?;
                write_json(&part.join("archive.json"), &archive)?;
                match std::fs::rename(&part, &place) {
                    Ok(()) => {}
                    // Another umlfs made the same in the meantime.
                    Err(_) if archive_path.is_file() => remove_tree(&part)?,
                    Err(e) => return Err(Error::io("moving to", &place, e)),
                }
                archive
            }
        };
        Ok(Some(PackageArchive {
            name: format!("profile:{}", self.profile.name),
            path: self.store.archive_path(&key, MAIN),
            archive,
            manifest: self.store.manifest(&key, MAIN)?,
        }))
    }

    /// Brings every source of the plan into the store. All are tried, and the first error is given back.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub fn fetch_sources(&self, options: &BuildOptions, progress: &dyn Progress) -> Result<()> {
        let fetcher = Fetcher::new(&self.store, options.source_dirs.clone(), options.offline);
        let mut first_error = Ok(());
        for (recipe, source) in self.plan.sources() {
            match fetcher.fetch(recipe, source, progress) {
                Ok(_) => {}
                Err(e @ (Error::Interrupted | Error::DiskFull { .. })) => return Err(e),
                Err(e) => first_error = first_error.and(Err(e)),
            }
        }
        first_error
    }

    /// The right to build: one builder at a time. Who looks, fetches or works in a directory of his own does without.
    fn lock(&self, progress: &dyn Progress) -> Result<StoreLock> {
        let owner = format!("process {}, profile {}", std::process::id(), self.profile.name);
        self.store.lock(LOCK, &owner, &cancelled, |other| {
            progress.event(Event::Note(&format!(
                "another umlfs ({other}) is building into the same cache; waiting for it to end"
            )));
        })
    }

    /// A shell in a step's sandbox; the value is its exit status.
    ///
    /// # Errors
    /// There is no such step, something that it needs is not built yet, or the sandbox cannot be made.
    pub fn shell(&self, name: &str, options: &BuildOptions, progress: &dyn Progress) -> Result<i32> {
        let step = self.plan.step(name)?;
        if let Some((need, _)) = step.needs.iter().find(|(_, key)| self.store.record(key).is_none()) {
            self.run(&Target::Until(need.step.clone()), options, progress)?;
        }
        let fetcher = Fetcher::new(&self.store, options.source_dirs.clone(), options.offline);
        let jobs = processors();
        let choice = sandbox::choice_for(options.sandbox, &self.store.path().join("work").join(&step.key));
        let sandbox = sandbox::open(choice, options.machine.as_ref(), None, progress)?;
        self.context(&fetcher, &*sandbox, progress, jobs, format!("-j{jobs}")).shell(step)
    }

    /// What steps share, without their tests.
    fn context<'a>(
        &'a self,
        fetcher: &'a Fetcher<'a>,
        sandbox: &'a dyn Sandbox,
        progress: &'a dyn Progress,
        jobs: usize,
        makeflags: String,
    ) -> Context<'a> {
        Context { plan: &self.plan, store: &self.store, fetcher, progress, sandbox, makeflags, jobs, tests: None }
    }

    fn history_path(&self) -> PathBuf {
        self.store.path().join("history.json")
    }

    /// How long each step may take: as last time, else by its SBU.
    fn estimates(&self, jobs: usize) -> BTreeMap<String, Duration> {
        let history: BTreeMap<String, f64> = read_json(&self.history_path()).unwrap_or_default();
        let together = jobs.min(processors());
        self.plan
            .steps
            .iter()
            .map(|step| {
                let by_sbu =
                    || self.plan.stage(step).map_or(0.0, |(_, stage)| stage.sbu * SBU_SECONDS / together as f64);
                let seconds = history.get(&step.name).copied().unwrap_or_else(by_sbu);
                (step.name.clone(), Duration::try_from_secs_f64(seconds).unwrap_or_default())
            })
            .collect()
    }

    /// Removes what interrupted builders left, but not the work directories of this plan: a failed step may be looked into; nor what
    /// a living process has in its hands.
    fn tidy(&self) -> Result<()> {
        let entries = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries(self.store.dir("work")?) {
            let name = entry.file_name();
            if !self.plan.steps.iter().any(|s| *s.key == *name)
                && let Some(work) = self.store.claim(&name.to_string_lossy())?
            {
                remove_tree(&work)?;
            }
        }
        for entry in entries(self.store.dir("packages")?) {
            if left_behind(&entry.file_name().to_string_lossy()) {
                remove_tree(&entry.path())?;
            }
        }
        for entry in entries(self.store.dir("sources")?) {
            if left_behind(&entry.file_name().to_string_lossy()) {
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Whether a file is an unfinished one that nobody works on: `NAME.part`, or `NAME.PID.part` of a process that is no more.
fn left_behind(name: &str) -> bool {
    let Some(name) = name.strip_suffix(".part") else {
        return false;
    };
    let owner = name.rsplit('.').next().and_then(|pid| pid.parse::<u32>().ok());
    !owner.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_process_writes_is_not_left_behind() {
        assert!(!left_behind(&format!(".m4-1.4.19.tar.xz.{}.part", std::process::id())));
        // More than any Linux has.
        assert!(left_behind(".m4-1.4.19.tar.xz.4194305.part"));
        assert!(left_behind("0a1b.part") && left_behind("0a1b.check.part"));
        assert!(!left_behind("m4-1.4.19.tar.xz"));
    }
}
