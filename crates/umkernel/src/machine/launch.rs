//! What comes before a machine runs: opens and locks what the user named, saying what is wrong with it, and starts the
//! platform.

use super::shares::{self, ShareConfig};
use super::{BootError, DOCTOR, Disks, MachineConfig, Outcome, Run, Shares, WATCHED_SIGNALS, Watchers};
use crate::block::{DiskFiles, MAX_DISKS, OverlayFiles};
use crate::fs::hostfs::{Channel, LANES};
use crate::host::{HostFd, process};
use crate::platform::direct::handover::{self, Handover, Stream, Text, Trace};
use crate::platform::direct::load;
use crate::platform::ptrace::Ptrace;
use crate::trace::{HostStream, Options, Sink, Tracer};
use std::boxed::Box;
use std::format;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::time::{Duration, Instant};
use std::vec::Vec;

/// A machine as a user asks for it.
#[derive(Clone, Debug)]
pub struct LaunchConfig {
    /// The disk with the root file system, `/dev/ubda`; read-only, that is mounted so.
    pub root: DiskConfig,
    /// The partition that has it; `None` for the disk as a whole.
    pub partition: Option<u32>,
    /// Further disks, at most `MAX_DISKS - 1`.
    pub disks: Vec<DiskConfig>,
    /// Directories of the host that the guest sees.
    pub shares: Vec<ShareConfig>,
    /// Who watches the guests' system calls.
    pub trace: Option<TraceConfig>,
    /// Who wants figures about them at the end.
    pub stats: Option<Target>,
    /// Which mechanism runs the guests.
    pub platform: PlatformChoice,
    /// The kernel image of the `direct` platform.
    pub kernel_image: &'static [u8],
    /// The settings that the terminal on standard input is to be left with (`struct termios` of the host's kernel).
    pub terminal: Option<[u8; process::TERMIOS_SIZE]>,
    /// What the machine is like and what it runs.
    pub machine: MachineConfig,
}

/// A disk as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Its number, below [`MAX_DISKS`]: 0 is `/dev/ubda`.
    pub index: u8,
    /// The image.
    pub image: PathBuf,
    /// Overlay files above the image, which is then only read.
    pub overlays: Option<OverlayConfig>,
    /// Nothing is written to it.
    pub read_only: bool,
}

/// Overlay files, checked to belong to the image and to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// From the lowest to the topmost, which takes the writes; at most [`MAX_OVERLAYS`](crate::block::MAX_OVERLAYS).
    pub files: Vec<PathBuf>,
    /// Where the disk's first byte lies in each.
    pub data_at: u64,
    /// Where the bitmap of the blocks that it has begins in each.
    pub bitmap_at: u64,
}

/// Runs a machine in the calling process, which is the kernel process and ends afterwards. On `direct` the outcome goes to
/// `report`, and only an error comes back.
///
/// # Errors
/// Before any guest code ran: the image, the trace's file, the host's rights, or a program that cannot be started.
pub fn run(config: &LaunchConfig, report: BorrowedFd<'_>) -> Result<Outcome, BootError> {
    // The platform's threads inherit the mask.
    process::block_signals(WATCHED_SIGNALS.0).map_err(|e| BootError::new(format!("cannot block signals: {e}"), ""))?;
    // Before there is a file that its process must not have.
    let shares = (!config.shares.is_empty()).then(|| shares::start(&config.shares)).transpose()?;
    let disks = config.open_disks()?;
    let chosen = choose(config)?;
    let streams = Streams::open(config).map_err(|what| BootError::new(what, ""))?;
    match chosen {
        Chosen::Direct => Err(enter(config, &disks, shares.as_ref(), &streams, report)),
        Chosen::Ptrace(platform) => {
            let shares = shares.map(|sockets| Shares {
                channel: Channel::new(sockets.map(IntoRawFd::into_raw_fd)),
                mounts: config.shares.iter().map(|share| share.mount.clone()).collect(),
            });
            super::run(&config.machine, Box::new(platform), disks, shares, streams.watchers(config))
        }
    }
}

/// Which mechanism runs the guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlatformChoice {
    /// `direct`; `ptrace` where the host lacks what that needs.
    #[default]
    Auto,
    /// In the guests' own processes.
    Direct,
    /// By tracing.
    Ptrace,
}

enum Chosen {
    Direct,
    Ptrace(Ptrace),
}

fn choose(config: &LaunchConfig) -> Result<Chosen, BootError> {
    let ptrace = || Ptrace::new().map(Chosen::Ptrace);
    let direct = || load::check_host().map(|()| Chosen::Direct);
    match config.platform {
        PlatformChoice::Ptrace => ptrace().map_err(|what| BootError::new(what, DOCTOR)),
        PlatformChoice::Direct => direct().map_err(|what| {
            BootError::new(
                format!("the direct platform cannot run here: {what}"),
                "`--platform ptrace` works without it",
            )
        }),
        PlatformChoice::Auto => direct().or_else(|lacks| {
            ptrace().map_err(|what| {
                BootError::new(format!("{what}; and the direct platform cannot run here: {lacks}"), DOCTOR)
            })
        }),
    }
}

/// Hands the process over to the kernel image; returns only if that fails.
fn enter(
    config: &LaunchConfig,
    disks: &Disks,
    shares: Option<&[OwnedFd; LANES]>,
    streams: &Streams,
    report: BorrowedFd<'_>,
) -> BootError {
    let machine = &config.machine;
    let (run_kind, run) = match &machine.run {
        Run::Init(None) => (handover::RUN_ANY_INIT, Text::from("")),
        Run::Init(Some(path)) => (handover::RUN_INIT, Text::list([path.as_str()])),
        Run::Command(argv) => (handover::RUN_COMMAND, Text::list(argv.iter().map(String::as_str))),
    };
    let termios = config.terminal;
    let all = || [&disks.root].into_iter().chain(&disks.others);
    let mut handed = [handover::Disk::NONE; MAX_DISKS];
    handed.iter_mut().zip(all()).for_each(|(place, files)| *place = handover::Disk::of(files));
    let handover = Handover {
        arena_file: -1,
        patches_file: -1,
        broker_socket: -1,
        broker_pid: 0,
        share_sockets: shares.map_or([-1; LANES], |sockets| sockets.each_ref().map(|socket| socket.as_raw_fd())),
        shares: Text::list(config.shares.iter().flat_map(|share| {
            [share.mount.guest.as_str(), if share.mount.read_only { handover::READ_ONLY } else { "" }]
        })),
        disks: handed,
        root_partition: disks.partition.unwrap_or(0),
        report_file: report.as_raw_fd(),
        verbose: machine.verbose.into(),
        cpus: machine.cpus,
        memory: machine.memory,
        command_line: Text::from(machine.command_line.as_str()),
        run_kind,
        has_terminal: termios.is_some().into(),
        run,
        env: Text::list(machine.env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()])),
        trace: streams.trace(config),
        stats: Stream::of(streams.stats.as_ref()),
        host_ranges: Default::default(),
        hardware: Default::default(),
        termios: termios.unwrap_or([0; process::TERMIOS_SIZE]),
    };
    let files = all().flat_map(|disk| disk.overlays.iter().flat_map(|overlays| &overlays.files).chain([&disk.image]));
    // SAFETY: open for as long as `disks` live.
    let keep = files.map(|file| unsafe { BorrowedFd::borrow_raw(file.raw()) }).chain([report]);
    let sockets = shares.into_iter().flatten().map(|socket| socket.as_fd());
    let keep: Vec<_> = keep.chain(streams.all().map(|stream| stream.file.as_fd())).chain(sockets).collect();
    BootError::new(load::enter(config.kernel_image, handover, &keep), "`--platform ptrace` works without it")
}

impl LaunchConfig {
    fn open_disks(&self) -> Result<Disks, BootError> {
        let root = self.root.open()?;
        let others = self.disks.iter().map(DiskConfig::open).collect::<Result<_, _>>()?;
        Ok(Disks { root, partition: self.partition, others })
    }
}

impl DiskConfig {
    /// Opens and locks the image and its overlays.
    ///
    /// # Errors
    /// An image that cannot be opened, is none, or belongs to another machine that runs.
    pub fn open(&self) -> Result<DiskFiles, BootError> {
        let path = self.image.display();
        let name = self.overlays.as_ref().and_then(|o| o.files.last()).unwrap_or(&self.image).display().to_string();
        let file = open(&self.image, !self.read_only && self.overlays.is_none())?;
        let meta = file.metadata().map_err(|e| BootError::new(format!("{path}: {e}"), ""))?;
        if meta.is_dir() {
            return Err(BootError::new(format!("{path} is a directory"), "`umlfs image create` makes an image of it"));
        }
        let size = meta.len();
        let mut probe = [0; 1];
        if size == 0 || file.read_at(&mut probe, 0).map_err(|e| BootError::new(format!("{path}: {e}"), ""))? == 0 {
            let hint = "`umlfs image create` makes an image, `truncate -s 1G FILE` an empty disk to add";
            return Err(BootError::new(format!("{path} is empty"), hint));
        }
        let overlays = self.overlays.as_ref().map(|overlays| overlays.open(self.read_only)).transpose()?;
        let image = HostFd::new(file.into_raw_fd());
        Ok(DiskFiles { index: self.index, image, overlays, size, read_only: self.read_only, name })
    }
}

impl OverlayConfig {
    fn open(&self, read_only: bool) -> Result<OverlayFiles, BootError> {
        let mut files = Vec::new();
        for (n, path) in self.files.iter().enumerate() {
            let write = !read_only && n + 1 == self.files.len();
            files.push(HostFd::new(open(path, write)?.into_raw_fd()));
        }
        Ok(OverlayFiles { files, data_at: self.data_at, bitmap_at: self.bitmap_at })
    }
}

/// Opens a file and locks it against who would write what this machine reads, or the other way round.
fn open(path: &Path, write: bool) -> Result<File, BootError> {
    let file = File::options().read(true).write(write).open(path).map_err(|e| {
        BootError::new(format!("cannot open {}: {e}", path.display()), "the root disk's image is the first argument")
    })?;
    lock(path, &file, write)?;
    Ok(file)
}

/// Two machines that write to one image would destroy it.
fn lock(path: &Path, file: &File, write: bool) -> Result<(), BootError> {
    /// Guest processes of a machine that was killed end within that time.
    const PATIENCE: Duration = Duration::from_millis(500);
    let give_up = Instant::now() + PATIENCE;
    let result = loop {
        let result = if write { file.try_lock() } else { file.try_lock_shared() };
        if !matches!(result, Err(std::fs::TryLockError::WouldBlock)) || Instant::now() > give_up {
            break result;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    match result {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(BootError::new(
            format!("{} is in use by another machine", path.display()),
            "power it off first, or boot with `ro` so that both only read, or each with its own `--cow FILE`",
        )),
        // A file system without locks: nothing to be done.
        Err(std::fs::TryLockError::Error(_)) => Ok(()),
    }
}

/// Where text for the user goes: a file, or standard error.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The file; standard error without one.
    pub file: Option<PathBuf>,
}

impl Target {
    /// Makes the file, empty.
    ///
    /// # Errors
    /// A sentence about a file that cannot be written.
    pub fn create_file(&self) -> Result<(), String> {
        self.file.as_ref().map_or(Ok(()), |path| {
            File::create(path).map(drop).map_err(|e| format!("cannot write to {}: {e}", path.display()))
        })
    }

    /// Writes behind what is there already.
    pub(super) fn append(&self, text: &str) -> Result<(), String> {
        self.open()?.into_host().write(text);
        Ok(())
    }

    /// Opens it; a file goes on where it was, as a machine that restarts needs it.
    fn open(&self) -> Result<OpenStream, String> {
        match &self.file {
            Some(path) => {
                let file = File::options().append(true).create(true).open(path);
                let file = file.map_err(|e| format!("cannot write to {}: {e}", path.display()))?.into();
                Ok(OpenStream { file, raw: false })
            }
            None => {
                let stderr = io::stderr();
                let file = stderr.as_fd().try_clone_to_owned();
                let file = file.map_err(|e| format!("cannot write to standard error: {e}"))?;
                // The terminal is raw while a machine has it.
                Ok(OpenStream { file, raw: stderr.is_terminal() })
            }
        }
    }
}

/// A trace that a user asks for.
#[derive(Clone, Debug, Default)]
pub struct TraceConfig {
    /// What it shows.
    pub options: Options,
    /// Where it goes.
    pub target: Target,
}

/// An open [`Target`].
#[derive(Debug)]
struct OpenStream {
    file: OwnedFd,
    /// It is a terminal in raw mode.
    raw: bool,
}

impl OpenStream {
    fn into_host(self) -> HostStream {
        HostStream::new(HostFd::new(self.file.into_raw_fd()), self.raw)
    }
}

impl Stream {
    fn of(stream: Option<&OpenStream>) -> Stream {
        stream.map_or(Stream::NONE, |stream| Stream { file: stream.file.as_raw_fd(), raw: stream.raw.into() })
    }
}

/// What a machine's watchers write to.
struct Streams {
    trace: Option<OpenStream>,
    stats: Option<OpenStream>,
}

impl Streams {
    fn open(config: &LaunchConfig) -> Result<Streams, String> {
        let trace = config.trace.as_ref().map(|trace| trace.target.open()).transpose()?;
        Ok(Streams { trace, stats: config.stats.as_ref().map(Target::open).transpose()? })
    }

    fn all(&self) -> impl Iterator<Item = &OpenStream> {
        self.trace.iter().chain(&self.stats)
    }

    fn trace(&self, config: &LaunchConfig) -> Trace {
        let options = config.trace.as_ref().map(|trace| trace.options.clone()).unwrap_or_default();
        Trace::new(Stream::of(self.trace.as_ref()), &options)
    }

    fn watchers(self, config: &LaunchConfig) -> Watchers {
        let trace = self.trace.zip(config.trace.as_ref());
        Watchers {
            trace: trace.map(|(stream, trace)| Tracer::new(trace.options.clone(), Box::new(stream.into_host()))),
            stats: self.stats.map(OpenStream::into_host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_belongs_to_one_machine_that_writes() {
        let path = std::env::temp_dir().join(format!("umkernel-launch-{}", std::process::id()));
        std::fs::write(&path, [0; 512]).unwrap();
        let writing = DiskConfig { index: 0, image: path.clone(), overlays: None, read_only: false };
        let reading = DiskConfig { read_only: true, ..writing.clone() };
        let disk = writing.open().unwrap();
        assert_eq!((disk.size, disk.read_only), (512, false));
        assert!(writing.open().unwrap_err().what.contains("in use"));
        assert!(reading.open().unwrap_err().what.contains("in use"));
        drop(disk);
        // Children that other tests start just now may hold the descriptor, and so the lock, until they run their programs.
        crate::testing::soon(|| reading.open().is_ok());
        let disks = [reading.open().unwrap(), reading.open().unwrap()];
        assert!(disks.iter().all(|disk| disk.read_only));
        drop(disks);
        std::fs::write(&path, []).unwrap();
        assert!(writing.open().unwrap_err().what.contains("is empty"));
        std::fs::remove_file(&path).unwrap();
        assert!(writing.open().unwrap_err().what.contains("cannot open"));
        assert!(DiskConfig { image: std::env::temp_dir(), ..writing }.open().is_err());
    }
}
