//! Which number is which call, what its arguments are, and how far it is supported.

use super::Handler;

/// What an argument is, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A signed number.
    Int,
    /// An unsigned number.
    Uint,
    /// A number best read in hexadecimal.
    Hex,
    /// A number best read in octal (modes).
    Mode,
    /// A descriptor.
    Fd,
    /// A descriptor or `AT_FDCWD`.
    DirFd,
    /// A path.
    Path,
    /// Another NUL-terminated string.
    Str,
    /// Bytes to the kernel, as many as argument N says.
    BufIn(u8),
    /// Bytes from the kernel, as many as the result says.
    BufOut,
    /// An address.
    Ptr,
    /// A NULL-terminated list of strings.
    StrList,
    /// A signal number.
    Signal,
    /// A structure or flag word with its own decoder, by name.
    Kind(&'static str),
}

/// What a call belongs to; `--trace` filters by it. The names are strace's classes where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the families' own names")]
pub enum Family {
    File,
    Desc,
    Memory,
    Process,
    Signal,
    Ipc,
    Network,
    Time,
    Creds,
    System,
}

/// How far a call is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As on Linux.
    Full,
    /// As on Linux but for what the note says.
    Partial(&'static str),
}

/// One system call.
pub struct Entry {
    /// Number.
    pub nr: u64,
    /// Name.
    pub name: &'static str,
    /// Family.
    pub family: Family,
    /// Arguments.
    pub args: &'static [Arg],
    /// Support.
    pub support: Support,
    /// The code.
    pub handler: Handler,
}

impl Entry {
    /// An entry of a family's table.
    pub const fn new(
        nr: u64,
        name: &'static str,
        family: Family,
        args: &'static [Arg],
        support: Support,
        handler: Handler,
    ) -> Entry {
        Entry { nr, name, family, args, support, handler }
    }
}

/// The entry of a call; `None` for one that the kernel does not have.
pub fn entry(nr: u64) -> Option<&'static Entry> {
    usize::try_from(nr).ok().and_then(|nr| *INDEX.get(nr)?)
}

/// Numbers that a table may use, exclusive.
const NUMBERS: usize = 512;

/// The entries by number. A number used twice does not compile.
static INDEX: [Option<&'static Entry>; NUMBERS] = {
    let mut index = [None; NUMBERS];
    let mut family = 0;
    while family < FAMILIES.len() {
        let table = FAMILIES[family];
        let mut at = 0;
        while at < table.len() {
            let entry = &table[at];
            assert!(index[entry.nr as usize].is_none(), "two system calls have the same number");
            index[entry.nr as usize] = Some(entry);
            at += 1;
        }
        family += 1;
    }
    index
};

/// The tables of the families.
// One a line, so that families are added side by side.
#[rustfmt::skip]
static FAMILIES: &[&[Entry]] = &[
    super::attributes::TABLE,
    super::directory::TABLE,
    super::fcntl::TABLE,
    super::file_copy::TABLE,
    super::file_io::TABLE,
    super::event::TABLE,
    super::futex::TABLE,
    super::ioctl::TABLE,
    super::creds::TABLE,
    super::ids::TABLE,
    super::memory::TABLE,
    super::mount::TABLE,
    super::open::TABLE,
    super::poll::TABLE,
    super::process::TABLE,
    super::signal::TABLE,
    super::stat::TABLE,
    super::prctl::TABLE,
    super::system::TABLE,
    super::time::TABLE,
    super::timers::TABLE,
];
