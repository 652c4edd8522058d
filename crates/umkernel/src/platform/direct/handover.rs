//! What the loader hands over to the kernel image: plain data in the memory that both have, laid out alike in two programs that
//! are compiled separately.

use crate::block::{DiskFiles, MAX_DISKS, MAX_OVERLAYS, OverlayFiles};
use crate::fs::hostfs::LANES;
use crate::host::HostFd;
use crate::host::process::TERMIOS_SIZE;
use crate::trace::{CallFilter, Clock, HostStream, Options, Style, TaskFilter};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Ranges of the host's own in every process: vdso, vvar and what goes with them.
pub const MAX_RESERVED: usize = 8;

/// A range of the host's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRange {
    /// First address; 0 if there is no such range.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// One of [`RANGE_NAMES`], by its place.
    pub name: u64,
}

/// What `/proc/PID/maps` calls the host's ranges.
pub const RANGE_NAMES: [&str; 3] = ["[vdso]", "[vvar]", "[vvar_vclock]"];

/// Bytes of the loader's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    start: *const u8,
    len: usize,
}

impl Text {
    /// Bytes that outlive the machine.
    pub const fn new(bytes: &'static [u8]) -> Text {
        Text { start: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes.
    pub fn bytes(&self) -> &'static [u8] {
        // SAFETY: made by `new`, in memory that both programs have.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }

    /// Strings in a row, each with a NUL behind it; NULs of their own are dropped.
    pub fn list<'a>(strings: impl IntoIterator<Item = &'a str>) -> Text {
        let all: Vec<u8> = strings.into_iter().flat_map(|s| s.bytes().filter(|&b| b != 0).chain([0])).collect();
        Text::new(all.leak())
    }

    /// The strings of a list.
    pub fn strings(&self) -> Vec<String> {
        let all = self.bytes().strip_suffix(b"\0").map(|all| all.split(|&b| b == 0));
        all.into_iter().flatten().map(|string| String::from_utf8_lossy(string).into_owned()).collect()
    }
}

impl From<&str> for Text {
    /// A copy that outlives the machine.
    fn from(text: &str) -> Text {
        Text::new(Vec::from(text.as_bytes()).leak())
    }
}

/// A file of the host that text goes to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// The file; -1 for none.
    pub file: i32,
    /// 1 if that is a terminal in raw mode.
    pub raw: u32,
}

impl Stream {
    /// None.
    pub const NONE: Stream = Stream { file: -1, raw: 0 };

    /// The stream, in the kernel's hands.
    pub fn open(&self) -> Option<HostStream> {
        (self.file != -1).then(|| HostStream::new(HostFd::new(self.file), self.raw != 0))
    }
}

/// Who watches the guests: [`Options`] as plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// Where it goes to; [`Stream::NONE`] if nobody watches.
    pub stream: Stream,
    /// See [`Options::style`].
    pub style: Style,
    /// See [`Options::clock`].
    pub clock: Clock,
    /// 1 for [`Options::durations`].
    pub durations: u32,
    /// See [`Options::string_limit`].
    pub string_limit: u32,
    /// See [`Options::calls`].
    pub calls: CallFilter,
    /// See [`TaskFilter::pids`]: a list of numbers.
    pub pids: Text,
    /// See [`TaskFilter::comms`].
    pub comms: Text,
}

impl Trace {
    /// A trace to a file of the host.
    pub fn new(stream: Stream, options: &Options) -> Trace {
        let pids: Vec<String> = options.tasks.pids.iter().map(ToString::to_string).collect();
        Trace {
            stream,
            style: options.style,
            clock: options.clock,
            durations: options.durations.into(),
            string_limit: options.string_limit as u32,
            calls: options.calls,
            pids: Text::list(pids.iter().map(String::as_str)),
            comms: Text::list(options.tasks.comms.iter().map(String::as_str)),
        }
    }

    /// What it shows.
    pub fn options(&self) -> Options {
        let pids = self.pids.strings().iter().filter_map(|pid| pid.parse().ok()).collect();
        Options {
            style: self.style,
            clock: self.clock,
            durations: self.durations != 0,
            calls: self.calls,
            tasks: TaskFilter { pids, comms: self.comms.strings() },
            string_limit: self.string_limit as usize,
        }
    }
}

/// A disk; see [`DiskFiles`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// The image; -1 if there is no such disk.
    pub image: i32,
    overlays: [i32; MAX_OVERLAYS],
    overlay_count: u32,
    index: u32,
    read_only: u32,
    overlay_data_at: u64,
    overlay_bitmap_at: u64,
    /// Its size in bytes.
    pub size: u64,
    name: Text,
}

impl Disk {
    /// The place of a disk that is not there.
    pub const NONE: Disk = Disk {
        image: -1,
        overlays: [-1; MAX_OVERLAYS],
        overlay_count: 0,
        index: 0,
        read_only: 0,
        overlay_data_at: 0,
        overlay_bitmap_at: 0,
        size: 0,
        name: Text::new(&[]),
    };

    /// The disk in these files.
    pub fn of(files: &DiskFiles) -> Disk {
        let mut disk = Disk {
            image: files.image.raw(),
            index: files.index.into(),
            read_only: files.read_only.into(),
            size: files.size,
            name: Text::from(files.name.as_str()),
            ..Disk::NONE
        };
        if let Some(overlays) = &files.overlays {
            let places = disk.overlays.iter_mut().zip(&overlays.files);
            disk.overlay_count = places.map(|(place, file)| *place = file.raw()).count() as u32;
            (disk.overlay_data_at, disk.overlay_bitmap_at) = (overlays.data_at, overlays.bitmap_at);
        }
        disk
    }

    /// All its files.
    pub fn descriptors(&self) -> impl Iterator<Item = i32> + '_ {
        self.overlays().chain([self.image]).filter(|file| *file >= 0)
    }

    fn overlays(&self) -> impl Iterator<Item = i32> + '_ {
        self.overlays.iter().copied().take(self.overlay_count as usize)
    }

    /// Takes its files over.
    pub fn files(&self) -> Option<DiskFiles> {
        let overlays = OverlayFiles {
            files: self.overlays().map(HostFd::new).collect(),
            data_at: self.overlay_data_at,
            bitmap_at: self.overlay_bitmap_at,
        };
        (self.image >= 0).then(|| DiskFiles {
            index: self.index as u8,
            image: HostFd::new(self.image),
            overlays: (self.overlay_count > 0).then_some(overlays),
            size: self.size,
            read_only: self.read_only != 0,
            name: String::from_utf8_lossy(self.name.bytes()).into_owned(),
        })
    }
}

/// Why [`Handover::run`] holds nothing: the machine looks for an init by itself.
pub const RUN_ANY_INIT: u32 = 0;
/// [`Handover::run`] names the program to run as process 1.
pub const RUN_INIT: u32 = 1;
/// [`Handover::run`] is a command.
pub const RUN_COMMAND: u32 = 2;

/// Marks a share in [`Handover::shares`] in which nothing may be changed.
pub const READ_ONLY: &str = "ro";

/// Everything. Lists are made by [`Text::list`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// The arena's host file.
    pub arena_file: i32,
    /// The patches' host file.
    pub patches_file: i32,
    /// The broker's socket.
    pub broker_socket: i32,
    /// The broker's host id.
    pub broker_pid: i32,
    /// The share server's sockets; -1 if nothing is shared.
    pub share_sockets: [i32; LANES],
    /// What is shared, a list: where the guest sees it, [`READ_ONLY`] or nothing, and so on.
    pub shares: Text,
    /// The disks; the first has the root file system.
    pub disks: [Disk; MAX_DISKS],
    /// Number of the partition that has it; 0 for the disk as a whole.
    pub root_partition: u32,
    /// Where the outcome is reported.
    pub report_file: i32,
    /// 1 if the kernel's messages go to the console.
    pub verbose: u32,
    /// Processors that the guest sees.
    pub cpus: u32,
    /// Bytes of guest memory.
    pub memory: u64,
    /// The kernel's command line.
    pub command_line: Text,
    /// One of the `RUN` constants.
    pub run_kind: u32,
    /// 1 if `termios` holds the settings of the terminal on standard input, as they are to be left.
    pub has_terminal: u32,
    /// See [`RUN_INIT`] and [`RUN_COMMAND`].
    pub run: Text,
    /// The first program's environment, a list: name, value, name, value.
    pub env: Text,
    /// Who watches the guests.
    pub trace: Trace,
    /// Where figures go to when the machine has stopped.
    pub stats: Stream,
    /// See [`HostRange`].
    pub host_ranges: [HostRange; MAX_RESERVED],
    /// `AT_HWCAP`, `AT_HWCAP2`, `AT_MINSIGSTKSZ` of the host's auxiliary vector, with their keys.
    pub hardware: [[u64; 2]; 3],
    /// See `has_terminal`.
    pub termios: [u8; TERMIOS_SIZE],
}
