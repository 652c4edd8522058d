//! Which number is which call, what its arguments are, and how far it is supported.

use super::Handler;

/// What an argument is, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A signed 32-bit number.
    Int,
    /// A signed 64-bit number: file offsets.
    Long,
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

impl Family {
    /// All families.
    pub const ALL: [Family; 10] = [
        Family::File,
        Family::Desc,
        Family::Memory,
        Family::Process,
        Family::Signal,
        Family::Ipc,
        Family::Network,
        Family::Time,
        Family::Creds,
        Family::System,
    ];

    /// The name that a user writes behind `%`.
    pub fn name(self) -> &'static str {
        match self {
            Family::File => "file",
            Family::Desc => "desc",
            Family::Memory => "memory",
            Family::Process => "process",
            Family::Signal => "signal",
            Family::Ipc => "ipc",
            Family::Network => "network",
            Family::Time => "time",
            Family::Creds => "creds",
            Family::System => "system",
        }
    }

    /// The family of a name; also by strace's short names.
    pub fn by_name(name: &str) -> Option<Family> {
        let name = if name == "net" { "network" } else { name };
        Family::ALL.into_iter().find(|f| f.name() == name)
    }
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
    slot(nr).map(|slot| slot.entry)
}

/// The source file, below the crate's `src`, that the call's handler is in.
pub fn module(nr: u64) -> Option<&'static str> {
    slot(nr).map(|slot| slot.module)
}

/// All calls that the kernel has, by number.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    INDEX.iter().flatten().map(|slot| slot.entry)
}

fn slot(nr: u64) -> Option<&'static Slot> {
    usize::try_from(nr).ok().and_then(|nr| INDEX.get(nr)).and_then(Option::as_ref)
}

/// Where a number leads.
#[derive(Clone, Copy)]
struct Slot {
    entry: &'static Entry,
    module: &'static str,
}

/// Above all numbers.
const NUMBERS: usize = 512;

/// Entries by number, laid out by the compiler, which refuses a number that is there twice.
static INDEX: [Option<Slot>; NUMBERS] = {
    let mut index = [None; NUMBERS];
    let mut family = 0;
    while family < FAMILIES.len() {
        let (module, table) = FAMILIES[family];
        let mut i = 0;
        while i < table.len() {
            let entry = &table[i];
            assert!(index[entry.nr as usize].is_none(), "two entries for one number");
            index[entry.nr as usize] = Some(Slot { entry, module });
            i += 1;
        }
        family += 1;
    }
    index
};

macro_rules! families {
    ($($module:ident,)*) => {
        &[$((concat!("syscall/", stringify!($module), ".rs"), super::$module::TABLE),)*]
    };
}

/// The tables of the families, one a line, with the source file of each.
#[rustfmt::skip]
const FAMILIES: &[(&str, &[Entry])] = families![
    aio,
    attributes,
    creds,
    directory,
    event,
    fcntl,
    file_copy,
    file_io,
    futex,
    ids,
    inotify,
    ioctl,
    ipc,
    memory,
    mlock,
    mount,
    mount_fd,
    mqueue,
    namespaces,
    open,
    pidfd,
    poll,
    prctl,
    process,
    process_vm,
    ptrace,
    sched,
    seccomp,
    signal,
    socket,
    stat,
    system,
    time,
    timers,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::names;

    #[test]
    fn numbers_and_names_agree() {
        assert!(entries().count() > 20);
        for entry in entries() {
            assert_eq!(names::name(entry.nr), Some(entry.name));
            assert_eq!(super::entry(entry.nr).map(|e| e.name), Some(entry.name));
            assert!(entry.args.len() <= 6, "{}", entry.name);
        }
        assert!(super::entry(u64::MAX).is_none());
    }
}
