//! `umlfs boot`: run an image in the user-mode kernel.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use imgtool::Target as Disk;
use umkernel::machine::launch::{LaunchConfig, PlatformChoice, Target};
use umkernel::machine::shares::ShareConfig;
use umkernel::machine::{MachineConfig, Run, monitor};

use super::disks::{self, Named, Root, parse_disk, root_disk};
use super::share::parse_share;
use super::trace::TraceArgs;
use super::uml::{OwnOption, UmlArgs};
use crate::error::CliError;
use crate::{CommandResult, uml};

const EXAMPLES: &str = "\
Examples:
  umlfs boot tiny.img                              boot to a login shell; `poweroff` ends it
  umlfs boot tiny.img --exec 'uname -a; df /'      run one command, power off, return its exit status
  umlfs boot tiny.img --exec 'cat >/root/f' <file  its input, output and errors are this command's own
  umlfs boot tiny.img -- /bin/ls -l /              the same without a shell in between
  umlfs boot tiny.img --cow my.cow                 what the machine writes goes to my.cow
  umlfs boot tiny.img --share src:/mnt --exec 'ls /mnt'
                                                   the directory src of this host is the guest's /mnt
  umlfs boot tiny.img --kernel linux.uml --exec 'uname -a'
                                                   the same in a real User-Mode Linux, to compare
  umlfs boot disk.img:2                            the root file system is on the second partition of a disk
  umlfs boot tiny.img --disk data.img --exec 'mount /dev/ubdb /mnt && ls /mnt'
                                                   another disk
  umlfs boot ubda=tiny.img root=/dev/ubda rw init=/sbin/init mem=512M
                                                   as User-Mode Linux takes it; root=/dev/ubda2 is a partition

Exit status: the command's own with --exec or --, 128 plus the signal if one killed it;
otherwise 0 after power-off and 1 when the machine could not be booted.
Signals: SIGUSR1 is Ctrl-Alt-Del, SIGTERM and SIGINT power off.";

/// Boot an image in the user-mode kernel
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The root disk's image, or DISK:PARTITION, and kernel arguments: ubda=IMAGE root=/dev/ubda ro|rw init=PATH mem=SIZE quiet ...
    #[arg(value_name = "IMAGE|KEY=VALUE", required = true)]
    words: Vec<String>,

    #[command(flatten)]
    machine: MachineArgs,
}

/// Options that every command that boots has.
#[derive(clap::Args)]
pub(crate) struct MachineArgs {
    /// Run CMD by the guest's /bin/sh instead of init, power off, return its exit status
    #[arg(long, value_name = "CMD", conflicts_with = "init")]
    exec: Option<String>,

    /// Run this program with its arguments in the same way, without a shell
    #[arg(last = true, value_name = "ARGV", conflicts_with_all = ["exec", "init"])]
    argv: Vec<String>,

    /// Program to run as process 1
    #[arg(long, value_name = "PATH")]
    init: Option<String>,

    /// Guest memory
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    mem: u64,

    /// Processors that the guest sees [default: the host's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    cpus: Option<u32>,

    /// Keep what the machine writes in this overlay, made if it is not there; the image stays as it is
    #[arg(long, value_name = "FILE")]
    cow: Option<PathBuf>,

    /// Give the guest another disk, /dev/ubdb and so on: an image, an overlay, or any other file; :ro to read only
    #[arg(long, value_name = "FILE[:ro]", value_parser = parse_disk)]
    disk: Vec<Named>,

    /// Show the guest a directory of this host at a place of its own (hostfs), with the rights that you have; :ro to read only
    #[arg(long, value_name = "HOST:GUEST[:ro]", value_parser = parse_share)]
    share: Vec<ShareConfig>,

    /// More kernel arguments
    #[arg(long, value_name = "ARGS")]
    append: Option<String>,

    /// How the guest's system calls reach the kernel
    #[arg(long, value_enum, value_name = "PLATFORM", default_value_t, env = PLATFORM, hide_env_values = true)]
    platform: Platform,

    /// At power-off, show what the guests asked of the kernel: calls with their latencies, how they came in, waits for locks;
    /// on standard error or in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    stats: Option<Option<PathBuf>>,

    #[command(flatten)]
    trace: TraceArgs,

    #[command(flatten)]
    uml: UmlArgs,
}

/// The environment's name for `--platform`.
const PLATFORM: &str = "UMLFS_PLATFORM";

impl MachineArgs {
    /// The real User-Mode Linux that is to run the machine, if one was named.
    fn other_kernel(&self) -> Result<Option<uml::Kernel>, CliError> {
        let name = self.platform.to_possible_value().map(|value| value.get_name().to_string());
        let platform = !matches!(self.platform, Platform::Auto) && std::env::var(PLATFORM).ok() != name;
        let own = [
            ("--platform", platform, "that kernel has its own way to its guests' system calls"),
            ("--trace", self.trace.is_given(), "only umlfs's own kernel shows its guests' system calls"),
            ("--stats", self.stats.is_some(), "only umlfs's own kernel counts its guests' system calls"),
        ];
        self.uml.kernel(&own.map(|(name, given, why)| OwnOption { name, given, why }), self.cpus)
    }
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Platform {
    /// direct; ptrace where the host lacks what that needs
    #[default]
    Auto,
    /// The kernel in the guest's own processes, behind a memory protection key
    Direct,
    /// The kernel traces the guest's processes, as User-Mode Linux does
    Ptrace,
}

impl From<Platform> for PlatformChoice {
    fn from(platform: Platform) -> PlatformChoice {
        match platform {
            Platform::Auto => PlatformChoice::Auto,
            Platform::Direct => PlatformChoice::Direct,
            Platform::Ptrace => PlatformChoice::Ptrace,
        }
    }
}

/// A size as `imgtool` reads them, of at least what a guest needs.
fn parse_size(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 16 << 20;
    let size = imgtool::parse_size(text).map_err(|e| e.to_string())?;
    if size < LEAST { Err("a machine needs at least 16M".into()) } else { Ok(size) }
}

pub(crate) fn run(args: Args) -> CommandResult {
    let words = Words::parse(&args.words)?;
    let Some(image) = &words.image else {
        return Err(CliError::usage("no image is named").hint("umlfs boot IMAGE, or ubda=IMAGE"));
    };
    boot(root_disk(image, words.root)?, &words, &args.machine)
}

/// Boots `image` with the options alone.
pub(crate) fn boot_image(image: PathBuf, machine: &MachineArgs) -> CommandResult {
    boot(Disk::from(&*image), &Words::default(), machine)
}

fn boot(root: Disk, words: &Words, args: &MachineArgs) -> CommandResult {
    let kernel = args.other_kernel()?;
    // The kernel would refuse what is no image as well; this says what it is instead.
    let shown = root.to_string();
    root.contents().and_then(|what| what.require_ext(Path::new(&shown))).map_err(super::image::report)?;
    let chain = disks::layers(&root.path, args.cow.as_deref()).map_err(super::image::report)?;
    let appended = match &args.append {
        Some(text) => Words::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>())?,
        None => Words::default(),
    };
    let init = args.init.clone().or_else(|| appended.init.clone()).or_else(|| words.init.clone());
    let run = if let Some(command) = &args.exec {
        Run::Command(vec!["/bin/sh".into(), "-c".into(), command.clone()])
    } else if !args.argv.is_empty() {
        Run::Command(args.argv.clone())
    } else {
        Run::Init(init)
    };
    let interactive = matches!(run, Run::Init(_));
    let mut env = words.env.clone();
    env.extend(appended.env.clone());
    if let Ok(term) = std::env::var("TERM") {
        env.push(("TERM".into(), term));
    }
    let machine = MachineConfig {
        memory: appended.memory.or(words.memory).unwrap_or(args.mem),
        cpus: args.cpus.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32)),
        command_line: command_line(Root(root.partition), words, &appended),
        verbose: interactive && !words.quiet && !appended.quiet,
        run,
        env,
    };
    let stats = args.stats.clone().map(|file| Target { file });
    if let Some(target) = &stats {
        target.create_file().map_err(CliError::failed)?;
    }
    let read_only = appended.read_only.or(words.read_only).unwrap_or(false);
    let config = LaunchConfig {
        root: disks::config(0, chain, read_only),
        partition: root.partition,
        disks: disks::further(words.disks.iter().chain(&appended.disks).chain(&args.disk), &root.path)?,
        shares: args.share.clone(),
        trace: args.trace.config()?,
        stats,
        platform: args.platform.into(),
        kernel_image: crate::KERNEL_IMAGE,
        terminal: None,
        machine,
    };
    match &kernel {
        Some(kernel) => {
            let words = words.kept.iter().chain(&appended.kept).cloned().collect();
            uml::boot(&uml::Options { kernel, words }, &config)
        }
        None => monitor::boot(&config).map_err(uml::report),
    }
}

fn command_line(root: Root, words: &Words, appended: &Words) -> String {
    let mut line = vec![format!("root={root}")];
    line.extend(words.kept.iter().chain(&appended.kept).cloned());
    line.join(" ")
}

/// Kernel arguments as User-Mode Linux and Linux take them (`kernel-parameters.txt`).
#[derive(Debug, Default, PartialEq)]
struct Words {
    image: Option<PathBuf>,
    root: Option<Root>,
    /// `ubdb=` and so on.
    disks: Vec<Named>,
    read_only: Option<bool>,
    init: Option<String>,
    memory: Option<u64>,
    quiet: bool,
    /// `KEY=VALUE` that the kernel does not know goes to init's environment, as on Linux.
    env: Vec<(String, String)>,
    /// What `/proc/cmdline` shows.
    kept: Vec<String>,
}

impl Words {
    fn parse(words: &[String]) -> Result<Words, CliError> {
        let mut parsed = Words::default();
        for word in words {
            parsed.take(word)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, word: &str) -> Result<(), CliError> {
        let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.contains('/')) else {
            match word {
                "ro" => self.read_only = Some(true),
                "rw" => self.read_only = Some(false),
                "quiet" => self.quiet = true,
                _ => return self.name_image(word),
            }
            self.kept.push(word.to_string());
            return Ok(());
        };
        match disks::number(key) {
            Some((0, read_only)) => {
                self.read_only = if read_only { Some(true) } else { self.read_only };
                return self.name_image(value);
            }
            Some((index, read_only)) => {
                self.disks.push(Named { index: Some(index), path: value.into(), read_only });
                return Ok(());
            }
            None => {}
        }
        match key {
            "root" => {
                let unknown = || {
                    CliError::usage(format_args!("root={value}: the root disk is /dev/ubda"))
                        .hint("name the image with ubda=IMAGE; root=/dev/ubda2 is its second partition")
                };
                self.root = Some(Root::parse(value).ok_or_else(unknown)?);
                return Ok(());
            }
            "init" => self.init = Some(value.to_string()),
            "mem" => {
                self.memory = Some(parse_size(value).map_err(|e| CliError::usage(format_args!("mem={value}: {e}")))?);
            }
            // The console is this terminal, whatever UML would have made of it.
            "con" | "con0" | "console" | "ssl" | "umid" => {}
            _ if key.starts_with("con") || key.starts_with("ubd") => {
                return Err(
                    CliError::usage(format_args!("{word}: only con0 and ubda to ubdh are there")).hint("leave it out")
                );
            }
            _ if key.contains('.') => {}
            _ => self.env.push((key.to_string(), value.to_string())),
        }
        self.kept.push(word.to_string());
        Ok(())
    }

    fn name_image(&mut self, image: &str) -> Result<(), CliError> {
        if let Some(first) = self.image.replace(PathBuf::from(image)) {
            return Err(CliError::usage(format_args!("two images are named: {} and {image}", first.display()))
                .hint("kernel arguments are ro, rw, quiet or KEY=VALUE; options begin with --"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Words, CliError> {
        Words::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn classic_arguments() {
        let parsed =
            words("ubda=root.img ubdb=a.img ubd2r=b=c.img root=/dev/ubda rw init=/bin/sh mem=512M con0=fd:0,fd:1 TEST=1 mod.opt=2").unwrap();
        assert_eq!(parsed.image, Some(PathBuf::from("root.img")));
        assert_eq!(parsed.read_only, Some(false));
        let disk = |index, path: &str, read_only| Named { index: Some(index), path: path.into(), read_only };
        assert_eq!(parsed.disks, [disk(1, "a.img", false), disk(2, "b=c.img", true)]);
        assert_eq!(parsed.init.as_deref(), Some("/bin/sh"));
        assert_eq!(parsed.memory, Some(512 << 20));
        assert_eq!(parsed.env, [("TEST".to_string(), "1".to_string())]);
        assert_eq!(parsed.kept.join(" "), "rw init=/bin/sh mem=512M con0=fd:0,fd:1 TEST=1 mod.opt=2");
    }

    #[test]
    fn an_image_may_have_an_equals_sign_in_its_path() {
        assert_eq!(words("./a=b/c.img").unwrap().image, Some(PathBuf::from("./a=b/c.img")));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(words("a.img b.img").unwrap_err().exit_code(), 2);
        for root in ["/dev/sda1", "/dev/ubdb", "/dev/ubda0", "/dev/ubda+1", "/dev/ubda2x", "ubda", "98:x"] {
            assert_eq!(words(&format!("root={root}")).unwrap_err().exit_code(), 2, "{root}");
        }
        assert_eq!(words("mem=lots").unwrap_err().exit_code(), 2);
        assert_eq!(words("ubdi=other.img").unwrap_err().exit_code(), 2);
        assert_eq!(words("con1=pty").unwrap_err().exit_code(), 2);
    }
}
