//! What the loader hands over to the kernel image: plain data in the memory that both have, laid out alike in two programs that
//! are compiled separately.

use crate::block::MAX_OVERLAYS;
use crate::host::process::TERMIOS_SIZE;

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
    pub fn new(bytes: &'static [u8]) -> Text {
        Text { start: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes.
    pub fn bytes(&self) -> &'static [u8] {
        // SAFETY: made by `new`, in memory that both programs have.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Why [`Handover::run`] holds nothing: the machine looks for an init by itself.
pub const RUN_ANY_INIT: u32 = 0;
/// [`Handover::run`] names the program to run as process 1.
pub const RUN_INIT: u32 = 1;
/// [`Handover::run`] is a command.
pub const RUN_COMMAND: u32 = 2;

/// Everything. Lists are strings that end with NUL each.
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
    /// The root disk's image.
    pub image_file: i32,
    /// Overlay files above the image, the lowest first; see [`OverlayFiles`](crate::block::OverlayFiles).
    pub overlay_files: [i32; MAX_OVERLAYS],
    /// How many there are.
    pub overlay_count: u32,
    /// Where the disk's bytes begin in each.
    pub overlay_data_at: u64,
    /// Where the bitmap begins in each.
    pub overlay_bitmap_at: u64,
    /// Bytes of the image.
    pub image_size: u64,
    /// Where the outcome is reported.
    pub report_file: i32,
    /// 1 if the image is only read.
    pub read_only: u32,
    /// 1 if the kernel's messages go to the console.
    pub verbose: u32,
    /// Processors that the guest sees.
    pub cpus: u32,
    /// Bytes of guest memory.
    pub memory: u64,
    /// What messages call the image.
    pub image_name: Text,
    /// The kernel's command line.
    pub command_line: Text,
    /// One of the `RUN` constants.
    pub run_kind: u32,
    /// 1 if `termios` holds the settings of the terminal on standard input, as they are to be left.
    pub has_terminal: u32,
    /// See [`RUN_INIT`] and [`RUN_COMMAND`].
    pub run: Text,
    /// The first program's environment: name, value, name, value.
    pub env: Text,
    /// See [`HostRange`].
    pub host_ranges: [HostRange; MAX_RESERVED],
    /// `AT_HWCAP`, `AT_HWCAP2`, `AT_MINSIGSTKSZ` of the host's auxiliary vector, with their keys.
    pub hardware: [[u64; 2]; 3],
    /// See `has_terminal`.
    pub termios: [u8; TERMIOS_SIZE],
}
