//! Running one step: its work directory, its sandbox, its package.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use step_init::{EXIT_NO_SANDBOX, Report};

use crate::SOURCE_DATE_EPOCH;
use crate::base::FINISH;
use crate::error::{Error, Location, Result, StepFailure};
use crate::package::{MAIN, Manifest, check_conflicts, pack};
use crate::pkg::diff;
use crate::plan::{Plan, Step};
use crate::progress::{Event, Progress};
use crate::recipe::{Recipe, Root, Stage};
use crate::sandbox::{Exit, Sandbox, Spec};
use crate::sources::Fetcher;
use crate::store::{Record, Store, read_json, remove_file, remove_tree, write_json};
use crate::suite::{self, PHASE, Tests};
use crate::unpack::unpack;
use crate::work::Work;

/// Output lines that a failure shows.
const TAIL_LINES: usize = 15;

/// What all steps of a build share.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) store: &'a Store,
    pub(crate) fetcher: &'a Fetcher<'a>,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) sandbox: &'a dyn Sandbox,
    pub(crate) makeflags: String,
    pub(crate) jobs: usize,
    /// Whether test suites are run, too.
    pub(crate) tests: Option<Tests>,
}

/// A step's place on the host, ready to be run.
pub(crate) struct Prepared {
    pub(crate) work: Work,
    pub(crate) spec: Spec,
    /// Sources by file name, with the hash of the file that was taken.
    sources: BTreeMap<String, String>,
}

/// How the phases of a sandbox ended.
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// Those that were begun, with the wall time of each in seconds.
    phases: Vec<(String, f64)>,
    /// What the sandbox told of a failure.
    report: Option<Report>,
}

impl Ended {
    /// How they ended, in words.
    pub(crate) fn said(&self) -> String {
        match (&self.report, self.exit.status.code(), self.exit.status.signal()) {
            (Some(Report::Failed { status, .. }), ..) => status.clone(),
            (_, Some(0), _) => "good".into(),
            (_, Some(EXIT_NO_SANDBOX), _) => "the sandbox ended without a reason".into(),
            (_, Some(code), _) => format!("exit status {code}"),
            (_, None, signal) => format!("the sandbox was killed by signal {}", signal.unwrap_or(0)),
        }
    }
}

/// Name of the file in the store's `logs` that takes a step's output while it runs.
pub(crate) fn log_name(step: &Step) -> String {
    format!("{}.log", step.name.replace('/', "-"))
}

fn unknown_step(step: &Step) -> Error {
    Error::Usage { message: format!("there is no step {:?}", step.name), hint: None }
}

impl Context<'_> {
    /// Puts sources, inputs and needed packages into a work directory, and nothing else.
    pub(crate) fn prepare(&self, step: &Step, work: Work) -> Result<Prepared> {
        let (recipe, stage) = self.plan.stage(step).ok_or_else(|| unknown_step(step))?;
        work.clear()?;
        for sub in ["build", "dest", "inputs", "sysroot", "tmp", "mnt"] {
            let path = work.join(sub);
            std::fs::create_dir_all(&path).map_err(|e| Error::io("creating", &path, e))?;
            let mode = if sub == "tmp" { 0o1777 } else { 0o755 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .map_err(|e| Error::io("changing the mode of", &path, e))?;
        }
        let prepared = self.spec(step, recipe, stage, work)?;
        self.fill(step, recipe, stage, &prepared)?;
        Ok(prepared)
    }

    /// The orders for the sandbox. Fetches the sources, if need be.
    pub(crate) fn spec(&self, step: &Step, recipe: &Recipe, stage: &Stage, work: Work) -> Result<Prepared> {
        let mut sources = BTreeMap::new();
        let mut files = Vec::new();
        for (_, source) in &step.sources {
            let fetched = self.fetcher.fetch(recipe, source, self.progress)?;
            files.push((source.file.value.clone(), fetched.path));
            sources.insert(source.file.value.clone(), fetched.sha256);
        }
        let mut build_dir = format!("/build/{}-{}", recipe.name.value, recipe.version);
        if let Some(directory) = &stage.directory {
            build_dir = format!("{build_dir}/{directory}");
        }
        let path = match stage.root {
            Root::Host => "/tools/bin:/host/bin",
            Root::Packages => "/usr/bin:/usr/sbin:/bin:/sbin",
        };
        let env = [
            ("PATH", path.to_owned()),
            ("HOME", "/build".into()),
            ("LC_ALL", "C".into()),
            ("TZ", "UTC".into()),
            ("TERM", "dumb".into()),
            ("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string()),
            ("MAKEFLAGS", self.makeflags.clone()),
            ("JOBS", self.jobs.to_string()),
            ("NAME", recipe.name.value.clone()),
            ("VERSION", recipe.version.clone()),
            ("DEST", "/dest".into()),
            ("SOURCES", "/sources".into()),
            ("INPUTS", "/inputs".into()),
            ("SYSROOT", "/sysroot".into()),
        ];
        let spec = Spec {
            builder: std::process::id() as i32,
            root: stage.root,
            work: work.to_path_buf(),
            sources: files,
            commands: step.commands.clone(),
            env: env
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .chain(stage.env.iter().map(|(k, v)| (k.clone(), v.clone())))
                .collect(),
            cwd: build_dir.into(),
            phases: stage.phases.iter().map(|(name, text)| (name.clone(), text.value.clone())).collect(),
            interactive: false,
        };
        Ok(Prepared { work, spec, sources })
    }

    fn fill(&self, step: &Step, recipe: &Recipe, stage: &Stage, prepared: &Prepared) -> Result<()> {
        let work = &prepared.work;
        let build = work.join("build");
        let main = build.join(format!("{}-{}", recipe.name.value, recipe.version));
        let mut first = true;
        for ((place, source), (_, path)) in step.sources.iter().zip(&prepared.spec.sources) {
            if !source.unpack {
                continue;
            }
            // The first is the package's own; others lie beside it, under their archive's or recipe's name.
            let into = match place {
                Some(recipe) => build.join(recipe),
                None if first => main.clone(),
                None => build.join(source.file.split(".tar").next().unwrap_or(&source.file)),
            };
            first = false;
            let inner = source.debian.as_ref().and_then(|d| d.inner.as_deref());
            unpack(path, &into, inner)?;
        }
        let start = stage.directory.as_ref().map_or_else(|| main.clone(), |directory| main.join(directory));
        std::fs::create_dir_all(&start).map_err(|e| Error::io("creating", &start, e))?;
        for (name, bytes) in &step.inputs {
            let path = work.join("inputs").join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| Error::io("creating", parent, e))?;
            }
            std::fs::write(&path, bytes).map_err(|e| Error::io("writing", &path, e))?;
        }
        plain_modes(&work.join("inputs"))?;
        let mut manifests = Vec::new();
        let mut archives = Vec::new();
        for (need, key) in &step.needs {
            let output = need.output.as_deref().unwrap_or(MAIN);
            manifests.push((need.to_string(), self.store.manifest(key, output)?));
            archives.push(self.store.archive_path(key, output));
        }
        check_conflicts(manifests.iter().map(|(name, manifest)| (name.as_str(), manifest)))?;
        self.sandbox.furnish(&prepared.spec, &archives)
    }

    /// Builds a step and puts its package into the store.
    pub(crate) fn build(&self, step: &Step) -> Result<Record> {
        let (part, record) = self.make(step, "part", self.tests)?;
        let place = self.store.package_dir(&step.key);
        remove_tree(&place)?;
        std::fs::rename(&part, &place).map_err(|e| Error::io("moving to", &place, e))?;
        Ok(record)
    }

    /// Builds a finished step again for its test suite. The package that is there stays, with the new results.
    pub(crate) fn build_for_tests(&self, step: &Step) -> Result<Record> {
        let mut kept = self.store.record(&step.key).ok_or_else(|| unknown_step(step))?;
        let (part, record) = self.make(step, "test.part", self.tests)?;
        let place = self.store.package_dir(&step.key);
        if record.tests.is_some() {
            let log = place.join(suite::LOG);
            std::fs::rename(part.join(suite::LOG), &log).map_err(|e| Error::io("moving to", &log, e))?;
            kept.tests = record.tests;
            write_json(&place.join("record.json"), &kept)?;
        }
        remove_tree(&part)?;
        Ok(kept)
    }

    /// Builds a step again and compares: none when its package is the same, byte for byte, else what differs.
    pub(crate) fn compare(&self, step: &Step) -> Result<Option<Vec<String>>> {
        let kept = self.store.record(&step.key).ok_or_else(|| unknown_step(step))?;
        let (part, record) = self.make(step, "check.part", None)?;
        let mut differences = Vec::new();
        for (output, archive) in &record.outputs {
            if kept.outputs.get(output).map(|a| &a.sha256) == Some(&archive.sha256) {
                continue;
            }
            let again: Manifest = read_json(&part.join(format!("{output}.json"))).unwrap_or_default();
            differences.extend(diff(&self.store.manifest(&step.key, output)?, &again).iter().map(ToString::to_string));
        }
        let same = record.outputs.iter().all(|(name, a)| kept.outputs.get(name).is_some_and(|k| k.sha256 == a.sha256));
        remove_tree(&part)?;
        Ok((!same).then_some(differences))
    }

    /// Builds a step into a directory beside its place in the store.
    fn make(&self, step: &Step, suffix: &str, tests: Option<Tests>) -> Result<(PathBuf, Record)> {
        let started = Instant::now();
        let (recipe, stage) = self.plan.stage(step).ok_or_else(|| unknown_step(step))?;
        let log = self.log_path(step)?;
        // Who follows the step must not take an earlier run's for it.
        remove_file(&log)?;
        let prepared = self.prepare(step, self.store.work_of(&step.key)?)?;
        let (cpu, phases) = self.run(step, recipe, stage, &prepared, &log)?;
        let packages = self.store.dir("packages")?;
        let part = packages.join(format!("{}.{suffix}", step.key));
        remove_tree(&part)?;
        std::fs::create_dir_all(&part).map_err(|e| Error::io("creating", &part, e))?;
        let outputs = pack(&step.name, &self.sandbox.installed(&prepared.spec)?, &stage.files, &stage.outputs, &part)?;
        let mut record = Record {
            step: step.name.clone(),
            key: step.key.clone(),
            version: recipe.version.clone(),
            license: recipe.license.clone(),
            sources: prepared.sources.clone(),
            needs: step.needs.iter().map(|(need, key)| (need.to_string(), key.clone())).collect(),
            outputs,
            wall_seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            finished: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            phases,
            tests: None,
            sandbox: self.sandbox.kind(),
            builder: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let kept_log = part.join("build.log");
        let tested = match tests {
            Some(_) => self.test(step, stage, &prepared, &log, &part.join(suite::LOG))?,
            None => None,
        };
        match tested {
            Some(tested) if tests == Some(Tests::Strict) && !tested.result.good => {
                remove_tree(&part)?;
                return Err(self.failure(step, recipe, stage, &prepared, &log, tested.ended));
            }
            Some(tested) => {
                record.tests = Some(tested.result);
                // Copied, not cut: who follows may not have come to the end.
                copy_start(&log, tested.begin, &kept_log).map_err(|e| Error::io("writing", &kept_log, e))?;
                remove_file(&log)?;
            }
            None => std::fs::rename(&log, &kept_log).map_err(|e| Error::io("moving to", &kept_log, e))?,
        }
        write_json(&part.join("record.json"), &record)?;
        remove_tree(&prepared.work)?;
        Ok((part, record))
    }

    fn log_path(&self, step: &Step) -> Result<PathBuf> {
        Ok(self.store.dir("logs")?.join(log_name(step)))
    }

    /// Runs the phases; the value is the processor time that they took, and the wall time of each in seconds.
    fn run(
        &self,
        step: &Step,
        recipe: &Recipe,
        stage: &Stage,
        prepared: &Prepared,
        log: &Path,
    ) -> Result<(Duration, Vec<(String, f64)>)> {
        File::create(log).map_err(|e| Error::io("creating", log, e))?;
        if stage.phases.is_empty() {
            return Ok((Duration::ZERO, Vec::new()));
        }
        let ended = self.sandboxed(step, &prepared.spec, log)?;
        if ended.exit.status.success() {
            return Ok((ended.exit.cpu, ended.phases));
        }
        Err(self.failure(step, recipe, stage, prepared, log, ended))
    }

    /// Runs what `spec` orders, with its output at the end of `log`.
    pub(crate) fn sandboxed(&self, step: &Step, spec: &Spec, log: &Path) -> Result<Ended> {
        let mut began: Vec<(String, Instant)> = Vec::new();
        let mut report = None;
        let exit = self.sandbox.run(spec, log, &mut |told| match told {
            Report::Phase(phase) => {
                self.progress.event(Event::Phase { step: &step.name, phase: &phase });
                began.push((phase, Instant::now()));
            }
            told => report = Some(told),
        })?;
        let ends: Vec<Instant> = began.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]).collect();
        let phases = began.into_iter().zip(ends).map(|((name, at), end)| (name, (end - at).as_secs_f64())).collect();
        Ok(Ended { exit, phases, report })
    }

    fn failure(
        &self,
        step: &Step,
        recipe: &Recipe,
        stage: &Stage,
        prepared: &Prepared,
        log: &Path,
        ended: Ended,
    ) -> Error {
        let tail = tail(log, TAIL_LINES);
        let free =
            nix::sys::statvfs::statvfs(&*prepared.work).map_or(u64::MAX, |s| s.blocks_available() * s.fragment_size());
        if free < 1 << 20 || tail.iter().any(|l| l.contains("No space left on device")) {
            return Error::DiskFull { path: prepared.work.to_path_buf() };
        }
        let mut failure = StepFailure {
            step: step.name.clone(),
            phase: ended.phases.last().map(|(name, _)| name.clone()).unwrap_or_default(),
            location: None,
            command: None,
            status: ended.said(),
            log: log.to_owned(),
            tail,
        };
        if let Some(Report::Failed { phase, status, line, command }) = ended.report {
            let test = stage.test.as_ref().filter(|_| phase == PHASE);
            let text = test.or_else(|| stage.phases.iter().find(|(name, _)| *name == phase).map(|(_, text)| text));
            failure.location = text.and_then(|text| {
                let line = line?;
                let file = match &stage.finish_file {
                    Some(file) if phase == FINISH => file.clone(),
                    _ => recipe.path.clone(),
                };
                Some(Location { file, line: (text.line + line).saturating_sub(1), column: 0 })
            });
            failure.phase = phase;
            failure.status = status;
            failure.command = command;
        }
        Error::Step(Box::new(failure))
    }

    /// Gives the user a shell in a step's sandbox: in the state in which it failed, if it did, else freshly prepared.
    /// The value is the shell's exit status.
    pub(crate) fn shell(&self, step: &Step) -> Result<i32> {
        let (recipe, stage) = self.plan.stage(step).ok_or_else(|| unknown_step(step))?;
        let work = self.store.work_of(&step.key)?;
        let borrowed = !work.ends_with(&step.key);
        let mut prepared = if self.sandbox.was_here(&work) {
            self.progress.event(Event::Note(&format!("{}: as its last run left it", step.name)));
            self.spec(step, recipe, stage, work)?
        } else {
            let why = if borrowed { ", since another umlfs is at work in its directory" } else { "" };
            self.progress.event(Event::Note(&format!("{}: freshly unpacked{why}", step.name)));
            self.prepare(step, work)?
        };
        self.progress.event(Event::Note(
            "the phases are scripts in /run/umlfs/phases (bash -eux /run/umlfs/phases/1-...); `exit` leaves; nothing is packaged",
        ));
        prepared.spec.interactive = true;
        prepared.spec.phases.extend(stage.test.as_ref().map(|text| (PHASE.to_owned(), text.value.clone())));
        let mut prompt = format!("[{}] \\w\\$ ", step.name);
        if stage.root == Root::Packages {
            self.progress.event(Event::Note(
                "/ is a copy of the new system that you may change: here the phases install straight into it, as the book does",
            ));
            // The name of the user comes from /etc/passwd: without one, bash says "I have no name!".
            prompt = "(lfs chroot) \\u:\\w\\$ ".into();
            prepared.spec.env.retain(|(name, _)| name != "DEST");
            prepared.spec.env.push(("DEST".into(), String::new()));
        }
        prepared.spec.env.extend([
            ("PS1".to_owned(), prompt),
            ("TERM".to_owned(), std::env::var("TERM").unwrap_or_else(|_| "dumb".into())),
        ]);
        let status = self.sandbox.shell(&prepared.spec)?;
        if borrowed {
            remove_tree(&prepared.work)?;
        }
        Ok(status)
    }
}

/// Copies the first bytes of a file.
fn copy_start(from: &Path, bytes: u64, to: &Path) -> std::io::Result<()> {
    std::io::copy(&mut File::open(from)?.take(bytes), &mut File::create(to)?).map(drop)
}

/// Gives all files of a tree the modes that they have for a user with the usual umask: what is copied from them must not
/// depend on the user's own.
fn plain_modes(dir: &Path) -> Result<()> {
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|e| Error::io("changing the mode of", path, e))
    };
    chmod(dir, 0o755)?;
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("reading", dir, e))? {
        let entry = entry.map_err(|e| Error::io("reading", dir, e))?;
        let path = entry.path();
        if path.is_dir() { plain_modes(&path)? } else { chmod(&path, 0o644)? }
    }
    Ok(())
}

/// The last lines of a log, made printable.
fn tail(log: &Path, lines: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(16 << 10)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    all.iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| line.chars().map(|c| if c.is_control() && c != '\t' { '.' } else { c }).collect())
        .collect()
}
