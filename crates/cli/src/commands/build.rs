//! `umlfs build`: a profile's packages, from source.

use std::path::{Path, PathBuf};

use lfsbuild::base::Bases;
use lfsbuild::builder::Target;
use lfsbuild::cancel::CancelOnSignal;
use lfsbuild::config::ConfigDir;
use lfsbuild::follow::{Beside, Follow, beside};
use lfsbuild::graph::Graph;
use lfsbuild::progress::Progress;
use lfsbuild::sandbox::{Choice, Machine};
use lfsbuild::store::Store;
use lfsbuild::suite::{self, Tests};
use lfsbuild::{BuildOptions, BuildOutput, Builder, progress};

use crate::error::CliError;
use crate::{CommandResult, ui};

const EXAMPLES: &str = "\
Examples:
  umlfs build                               build the tiny system, or say that it is built
  umlfs build --out root.tar                and write its root file system as one tar archive
  umlfs build --dry-run                     what would be built
  umlfs build --explain busybox/final       what a step does, from what, and why it would run
  umlfs build --until musl/tools            a step and all that it needs
  umlfs build --follow busybox/final        with the step's own output as it comes
  umlfs build --shell busybox/final         a shell where the step works, or where it failed
  umlfs build --shell chroot                inside the new system, where nobody has a name yet
  umlfs build --test --only m4/final        a package's own test suite; the results are recorded
  umlfs build --check musl/tools            build a step again: is its package the same, byte for byte?
  umlfs build --graph svg > plan.svg        what needs what, as a picture
  umlfs build --sandbox umkernel            each step in a machine of umlfs's own kernel: the same packages";

/// Which system, and where its recipes and sources come from
#[derive(clap::Args, Clone)]
pub(crate) struct ProfileArgs {
    /// The system to build
    #[arg(long, short, value_name = "NAME", default_value = "tiny")]
    pub(crate) profile: String,

    /// Recipes and profiles from DIR instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
}

/// Where sources may come from
#[derive(clap::Args, Clone)]
pub(crate) struct SourceArgs {
    /// A directory that may have the source archives; may be given more than once
    #[arg(long = "sources", value_name = "DIR")]
    pub(crate) source_dirs: Vec<PathBuf>,

    /// Do not use the network
    #[arg(long)]
    pub(crate) offline: bool,
}

/// How steps are run.
#[derive(clap::Args)]
pub(crate) struct WorkArgs {
    /// Jobs at once over all steps [default: one more than there are processors]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,

    /// What steps run in; packages and their keys do not depend on it
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    sandbox: SandboxArg,
}

/// Build a system's packages from source
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,

    #[command(flatten)]
    sources: SourceArgs,

    /// Build STEP and all that it needs, no more
    #[arg(long, value_name = "STEP", conflicts_with_all = ["only", "out"])]
    until: Option<String>,

    /// Build STEP alone; what it needs must be built
    #[arg(long, value_name = "STEP", conflicts_with = "out")]
    only: Option<String>,

    /// Build STEP and all that need it again, even if they are built
    #[arg(long, value_name = "STEP", conflicts_with_all = ["until", "only", "out"])]
    from: Option<String>,

    #[command(flatten)]
    work: WorkArgs,

    /// After a failure, build what does not need the failed step
    #[arg(long, short)]
    keep_going: bool,

    /// Explain STEP: what it does, from what, where the book tells of it; nothing is built
    #[arg(long, value_name = "STEP", conflicts_with_all = ["until", "only", "dry_run", "shell", "out"])]
    explain: Option<String>,

    /// Print what would be built
    #[arg(long, conflicts_with_all = ["shell", "out"])]
    dry_run: bool,

    /// Copy STEP's own output to standard output as it comes, also out of a build that runs already; of a finished step, what it
    /// wrote
    #[arg(long, value_name = "STEP", conflicts_with_all = ["dry_run", "explain", "shell"])]
    follow: Option<String>,

    /// Run the test suites of the packages that are built, and record the results; with `--only`, of a finished package, too. `strict`:
    /// a step whose suite fails has failed
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "record", conflicts_with_all = ["explain", "dry_run", "shell", "check", "graph"])]
    test: Option<HowTests>,

    /// Build STEP again and compare; without STEP, all that is built
    #[arg(long, value_name = "STEP", num_args = 0..=1, conflicts_with_all = ["until", "only", "from", "dry_run", "explain", "shell", "out", "follow"])]
    check: Option<Option<String>>,

    /// Print what needs what, in Graphviz's language or as an SVG picture
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "dot", conflicts_with_all = ["until", "only", "from", "dry_run", "explain", "shell", "out", "follow", "check"])]
    graph: Option<GraphFormat>,

    /// A shell in STEP's sandbox, as its last run left it; `chroot` stands for the new system's own root
    #[arg(long, value_name = "STEP", conflicts_with_all = ["until", "only", "from", "out"])]
    shell: Option<String>,

    /// Write the root file system to FILE as one tar archive
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What a failing test suite means.
#[derive(Clone, Copy, clap::ValueEnum)]
enum HowTests {
    /// It is recorded
    Record,
    /// Its step has failed
    Strict,
}

/// What steps run in.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum SandboxArg {
    /// namespaces; umkernel where the host forbids them
    #[default]
    Auto,
    /// User, mount, pid and network namespaces of the host
    Namespaces,
    /// A machine of umlfs's own kernel for each step
    Umkernel,
}

/// How `--graph` writes the plan.
#[derive(Clone, Copy, clap::ValueEnum)]
enum GraphFormat {
    /// Graphviz's language
    Dot,
    /// A picture
    Svg,
}

impl ProfileArgs {
    /// Reads and plans the profile, with the user's store.
    pub(crate) fn open(&self) -> Result<Builder, CliError> {
        let configs = self.configs()?;
        let store = Store::open_default().map_err(report)?;
        Builder::open(&configs, &self.profile, store).map_err(report)
    }

    pub(crate) fn configs(&self) -> Result<ConfigDir, CliError> {
        ConfigDir::open(self.config_dir.as_deref()).map_err(report)
    }
}

impl SourceArgs {
    /// The builder's options, with as many jobs as by default.
    pub(crate) fn options(&self) -> BuildOptions {
        // This very program, even if another has taken its place.
        let machine = Machine { program: "/proc/self/exe".into(), init: crate::STEP_INIT };
        BuildOptions {
            source_dirs: self.source_dirs.clone(),
            offline: self.offline,
            machine: Some(machine),
            ..BuildOptions::default()
        }
    }
}

impl WorkArgs {
    /// Sets what they say in the builder's options.
    pub(crate) fn apply(&self, options: &mut BuildOptions) {
        options.jobs = self.jobs.map_or(0, usize::from);
        options.sandbox = match self.sandbox {
            SandboxArg::Auto => Choice::Auto,
            SandboxArg::Namespaces => Choice::Namespaces,
            SandboxArg::Umkernel => Choice::Umkernel,
        };
    }
}

pub(crate) fn run(args: Args) -> CommandResult {
    // A place names the profile that has it.
    let place = match &args.shell {
        Some(name) if !name.contains('/') => {
            let bases = Bases::load(&args.profile.configs()?).map_err(report)?;
            Some(bases.place(name).map_err(report)?.clone())
        }
        _ => None,
    };
    let profile = match &place {
        Some(place) => ProfileArgs { profile: place.profile.clone(), ..args.profile },
        None => args.profile,
    };
    let builder = profile.open()?;
    let mut options = args.sources.options();
    args.work.apply(&mut options);
    options.keep_going = args.keep_going;
    options.tests = args.test.map(|how| match how {
        HowTests::Record => Tests::Record,
        HowTests::Strict => Tests::Strict,
    });
    if let Some(step) = &args.explain {
        return explain(&builder, step);
    }
    if let Some(format) = args.graph {
        let graph = Graph::of(&builder);
        let text = match format {
            GraphFormat::Dot => graph.dot(),
            GraphFormat::Svg => graph.svg(),
        };
        ui::with_stdout(|w| w.write_all(text.as_bytes()).map_err(|error| CliError::output(&error)))?;
        return Ok(0);
    }
    let target = match (args.until, args.only, args.from) {
        (Some(step), ..) => Target::Until(step),
        (None, Some(step), _) => Target::Only(step),
        (None, None, Some(step)) => Target::From(step),
        (None, None, None) => Target::All,
    };
    if args.dry_run {
        return dry_run(&builder, &target);
    }
    if let Some(step) = &args.check {
        return check(&builder, step.as_slice(), &options);
    }
    // Bars would be torn by what is followed.
    let progress: Box<dyn Progress> = match args.follow {
        Some(_) => Box::new(progress::Lines),
        None => progress::for_stderr(),
    };
    if let Some(step) = place.map(|place| place.step).or(args.shell) {
        let status = builder.shell(&step, &options, progress.as_ref()).map_err(report)?;
        return Ok(u8::try_from(status).unwrap_or(1));
    }
    let signals = CancelOnSignal::install();
    let earlier = builder.last_run().map(|run| run.ended);
    let result = match &args.follow {
        Some(step) => {
            if !matches!(target, Target::From(_)) && follow_beside(&builder, step, progress.as_ref())? {
                return Ok(0);
            }
            follow(&builder, step, &target, &options, progress.as_ref())
        }
        None => builder.run(&target, &options, progress.as_ref()).map_err(report),
    };
    if options.tests.is_some() {
        tested(&builder, earlier)?;
    }
    result?;
    drop(signals);
    if target != Target::All {
        return Ok(0);
    }
    let output = builder.output().map_err(report)?;
    if let Some(out) = &args.out {
        output.write_merged(out).map_err(report)?;
    }
    summary(&output, args.out.as_deref())?;
    Ok(0)
}

/// The results of the test suites that the run since `earlier` ran, as a table. It is indented: lines that begin with a step's name
/// say where its archive is.
fn tested(builder: &Builder, earlier: Option<f64>) -> Result<(), CliError> {
    let built = builder.last_run().filter(|run| Some(run.ended) != earlier).map_or(Vec::new(), |run| run.built);
    let record = |name: &String| builder.plan.step(name).ok().and_then(|step| builder.store.record(&step.key));
    let results: Vec<_> = built.iter().filter_map(|name| Some((name, record(name)?))).collect();
    ui::with_stdout(|w| {
        let mut write = || -> std::io::Result<()> {
            writeln!(
                w,
                "  {:<26} {:>8} {:>8} {:>8} {:>8}  ended",
                "test suite of", "passed", "failed", "skipped", "xfailed"
            )?;
            for (name, record) in &results {
                match &record.tests {
                    Some(t) => {
                        let c = t.counts;
                        let counts = format!("{:>8} {:>8} {:>8} {:>8}", c.passed, c.failed, c.skipped, c.xfailed);
                        let log = builder.store.package_dir(&record.key).join(suite::LOG);
                        writeln!(w, "  {name:<26} {counts}  {}, {:.1} s, {}", t.status, t.seconds, log.display())?;
                    }
                    None => writeln!(w, "  {name:<26} {:>35}  its recipe has no `test`", "")?,
                }
            }
            match results.len() {
                0 => {
                    writeln!(
                        w,
                        "  nothing was built, so nothing was tested; `--test --only STEP` tests a finished step"
                    )
                }
                _ => Ok(()),
            }
        };
        write().map_err(|error| CliError::output(&error))
    })
}

/// Follows a step in a build that runs already; false when there is none, or it ended without the step.
fn follow_beside(builder: &Builder, step: &str, progress: &dyn Progress) -> Result<bool, CliError> {
    match beside(builder, step, progress).map_err(report)? {
        Beside::Finished => Ok(true),
        Beside::Nobody => Ok(false),
        Beside::Failed => Err(CliError::failed(format_args!("{step} failed in the build that was followed"))
            .hint(format!("umlfs build --shell {step}"))),
    }
}

/// Builds with a step's output on standard output; of a step that is finished already, what it wrote then.
fn follow(
    builder: &Builder,
    step: &str,
    target: &Target,
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<(), CliError> {
    let logs = builder.logs(step).map_err(report)?;
    if !builder.to_build(target, options).map_err(report)?.iter().any(|s| s.name == step) {
        let mut file = std::fs::File::open(&logs.1).map_err(|error| {
            CliError::usage(format_args!("{step} is neither to be built nor built: {}: {error}", logs.1.display()))
                .hint("name a step that `umlfs build --dry-run` shows as one to be built")
        })?;
        ui::with_stdout(|w| std::io::copy(&mut file, w).map(drop).map_err(|error| CliError::output(&error)))?;
    }
    let follow = Follow::new(progress, step, logs);
    builder.run(target, options, &follow).map_err(report)
}

/// Builds steps again and says which differ.
fn check(builder: &Builder, names: &[String], options: &BuildOptions) -> CommandResult {
    let signals = CancelOnSignal::install();
    let mut different = 0;
    let mut lines = Vec::new();
    builder
        .check(names, options, progress::for_stderr().as_ref(), |name, differences| match differences {
            None => lines.push(format!("same    {name}")),
            Some(paths) => {
                different += 1;
                lines.push(format!("DIFFERS {name}"));
                lines.extend(paths.iter().map(|path| format!("    {path}")));
            }
        })
        .map_err(report)?;
    drop(signals);
    ui::with_stdout(|w| {
        lines.iter().try_for_each(|line| writeln!(w, "{line}")).map_err(|error| CliError::output(&error))
    })?;
    if different > 0 {
        return Err(CliError::failed(format_args!("{different} steps do not give the same package twice"))
            .hint("what differs is named above: a time, a path or an order that the package's build puts into it"));
    }
    Ok(0)
}

/// Names the archives, for scripts and for who wants to look into them.
fn summary(output: &BuildOutput, out: Option<&Path>) -> Result<(), CliError> {
    ui::with_stdout(|w| {
        let mut write = || -> std::io::Result<()> {
            for package in &output.packages {
                writeln!(
                    w,
                    "{:<24} {:>6} paths {:>8} KiB  {}",
                    package.name,
                    package.archive.entries,
                    package.archive.installed_size.div_ceil(1024),
                    package.path.display()
                )?;
            }
            match out {
                Some(out) => writeln!(w, "root file system: {}", out.display()),
                None => Ok(()),
            }
        };
        write().map_err(|error| CliError::output(&error))
    })
}

fn dry_run(builder: &Builder, target: &Target) -> CommandResult {
    let missing: Vec<String> = builder.missing(target).map_err(report)?.iter().map(|s| s.name.clone()).collect();
    let status = builder.status();
    ui::with_stdout(|w| {
        for step in &status {
            let name = &step.step.name;
            let action = match (step.finished, missing.contains(name)) {
                (true, _) => "finished",
                (false, true) => "build",
                (false, false) => "skip",
            };
            writeln!(w, "{action:<9} {name:<28} {:>6.1} s  {}", step.estimate.as_secs_f64(), short(&step.step.key))
                .map_err(|error| CliError::output(&error))?;
        }
        Ok(())
    })?;
    Ok(0)
}

fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

fn explain(builder: &Builder, name: &str) -> CommandResult {
    let step = builder.plan.step(name).map_err(report)?;
    let Some((recipe, stage)) = builder.plan.stage(step) else {
        return Err(CliError::usage(format_args!("there is no step {name}")));
    };
    let record = builder.store.record(&step.key);
    ui::with_stdout(|w| {
        let mut write = || -> std::io::Result<()> {
            writeln!(w, "{name}: {} {} - {}", recipe.name.value, recipe.version, recipe.summary)?;
            writeln!(w, "\n{}", stage.summary.trim_end())?;
            if let Some(book) = &stage.book {
                writeln!(w, "\nbook:     Linux From Scratch, section {book}")?;
            }
            writeln!(w, "recipe:   {}", recipe.path)?;
            writeln!(w, "licence:  {}", recipe.license)?;
            writeln!(w, "expected: {} SBU", stage.sbu)?;
            for (_, source) in &step.sources {
                writeln!(w, "source:   {} sha256 {}", source.file.value, source.sha256.value)?;
            }
            for (need, key) in &step.needs {
                writeln!(w, "needs:    {need} (key {})", short(key))?;
            }
            for input in step.inputs.keys() {
                writeln!(w, "input:    {input}")?;
            }
            if let Some(base) = &stage.base {
                writeln!(w, "base:     {}", base.value)?;
            }
            for group in stage.inherited_host.iter().map(|p| &p.value).chain(&stage.host) {
                writeln!(w, "host:     {}", group.value)?;
            }
            let needed_by: Vec<_> = builder
                .plan
                .steps
                .iter()
                .filter(|s| s.needs.iter().any(|(need, _)| need.step == name))
                .map(|s| s.name.as_str())
                .collect();
            if !needed_by.is_empty() {
                writeln!(w, "for:      {}", needed_by.join(", "))?;
            }
            writeln!(w, "key:      {}", step.key)?;
            match &record {
                Some(record) => writeln!(
                    w,
                    "state:    finished, took {:.1} s ({:.1} s of processor time) in {}",
                    record.wall_seconds, record.cpu_seconds, record.sandbox
                )?,
                None => writeln!(w, "state:    to be built: the cache has no package with this key")?,
            }
            if let Some(tests) = record.as_ref().and_then(|r| r.tests.as_ref()) {
                writeln!(w, "tests:    {tests}")?;
            }
            let phases = stage.phases.iter().map(|(name, text)| (format!("phase {name}"), text));
            for (title, text) in phases.chain(stage.test.iter().map(|text| ("tests (--test)".to_owned(), text))) {
                writeln!(w, "\n{title}:")?;
                for line in text.lines() {
                    writeln!(w, "    {line}")?;
                }
            }
            Ok(())
        };
        write().map_err(|error| CliError::output(&error))
    })?;
    Ok(0)
}

/// A builder's error as the user sees it.
pub(crate) fn report(error: lfsbuild::Error) -> CliError {
    let shown = CliError::chain(&error).with_code(error.exit_code());
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}
