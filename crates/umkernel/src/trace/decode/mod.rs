//! What arguments and results mean, in strace's notation.
//!
//! The system-call table says what each argument is; decoders for what it calls a *kind*, a structure or a flag word, lie in
//! one file per family.

mod creds;
mod file;
mod flags;
mod futex;
mod io;
mod ipc;
mod memory;
mod mode;
mod mount;
mod net;
mod poll;
mod process;
mod signal;
mod system;
mod text;
mod time;
mod tty;

pub(super) use signal::{signal_line, signal_name};

use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::{PAGE_SIZE, Pod};
use crate::platform::TrapFrame;
use crate::syscall::{self, Arg, names};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// When an argument can be read.
#[derive(Clone, Copy)]
enum When {
    /// Before the call.
    Entry,
    /// After it: the kernel fills it.
    Exit,
    /// After it where this says so: the kernel fills it in some calls.
    ExitIf(fn(&Printer) -> bool),
}

/// A decoder of one kind of argument.
struct Kind {
    name: &'static str,
    when: When,
    decode: fn(&mut Printer, u64),
}

impl Kind {
    const fn entry(name: &'static str, decode: fn(&mut Printer, u64)) -> Kind {
        Kind { name, when: When::Entry, decode }
    }

    const fn exit(name: &'static str, decode: fn(&mut Printer, u64)) -> Kind {
        Kind { name, when: When::Exit, decode }
    }
}

/// All decoders.
static KINDS: &[&[Kind]] = &[
    creds::KINDS,
    file::KINDS,
    futex::KINDS,
    io::KINDS,
    ipc::KINDS,
    memory::KINDS,
    mount::KINDS,
    net::KINDS,
    poll::KINDS,
    process::KINDS,
    signal::KINDS,
    system::KINDS,
    time::KINDS,
    tty::KINDS,
];

fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().flat_map(|k| k.iter()).find(|k| k.name == name)
}

/// A call's arguments on their way into text.
struct Printer<'a> {
    ctx: &'a Ctx<'a>,
    nr: u64,
    args: [u64; 6],
    /// The stack pointer at entry.
    stack: u64,
    /// The argument that is being decoded.
    index: usize,
    /// `None` before the call.
    result: Option<&'a Result<usize>>,
    /// Bytes of a string that are shown.
    limit: usize,
    out: String,
    /// The argument means nothing in this call: it and what follows are not shown.
    omitted: bool,
    /// The decoder has shown the arguments behind its own as well.
    ended: bool,
}

impl Printer<'_> {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// The argument next to the one that is being decoded.
    fn following(&self) -> u64 {
        self.args.get(self.index + 1).copied().unwrap_or(0)
    }

    fn preceding(&self) -> u64 {
        self.index.checked_sub(1).map_or(0, |i| self.args[i])
    }

    fn is(&self, name: &str) -> bool {
        names::name(self.nr) == Some(name)
    }

    fn signed(&mut self, value: u64) {
        self.push(&format!("{}", value as i32));
    }

    fn hex(&mut self, value: u64) {
        self.push(&text::hex(value));
    }

    fn address(&mut self, value: u64) {
        if value == 0 { self.push("NULL") } else { self.push(&text::hex(value)) }
    }

    fn descriptor(&mut self, value: u64) {
        const AT_FDCWD: i32 = -100;
        if value as i32 == AT_FDCWD { self.push("AT_FDCWD") } else { self.signed(value) }
    }

    /// A value from user memory; `None` where the pointer is null or bad.
    fn read<T: Pod>(&self, addr: u64) -> Option<T> {
        if addr == 0 { None } else { self.ctx.read_val(addr).ok() }
    }

    /// A structure from user memory in `{...}` or whatever `show` makes of it; the address if it cannot be read.
    fn structure<T: Pod>(&mut self, addr: u64, show: impl FnOnce(&mut Self, T)) {
        match self.read(addr) {
            Some(value) => show(self, value),
            None => self.address(addr),
        }
    }

    /// Up to `max` bytes of a string, and whether there are more.
    fn string_bytes(&self, addr: u64, max: usize) -> Option<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        let space = self.ctx.mm().ok()?;
        loop {
            let at = addr.checked_add(bytes.len() as u64)?;
            // Not beyond a page: the string may end right before an unmapped one.
            let want = ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(max + 1 - bytes.len()).min(256);
            let mut chunk = [0; 256];
            let got = self.ctx.kernel.platform.read_memory(space, at, &mut chunk[..want]);
            if let Some(end) = chunk[..got].iter().position(|&b| b == 0) {
                bytes.extend_from_slice(&chunk[..end]);
                let more = bytes.len() > max;
                bytes.truncate(max);
                return Some((bytes, more));
            }
            bytes.extend_from_slice(&chunk[..got]);
            if bytes.len() > max {
                bytes.truncate(max);
                return Some((bytes, true));
            }
            if got < want {
                return None;
            }
        }
    }

    fn string(&mut self, addr: u64, max: usize) {
        match self.string_bytes(addr, max) {
            Some((bytes, more)) if addr != 0 => self.quoted(&bytes, more),
            _ => self.address(addr),
        }
    }

    fn path(&mut self, addr: u64) {
        const PATH_MAX: usize = 4096;
        self.string(addr, PATH_MAX);
    }

    fn quoted(&mut self, bytes: &[u8], more: bool) {
        self.push(&text::quote(bytes, more));
    }

    /// `len` bytes of user memory, cut to the limit.
    fn buffer(&mut self, addr: u64, len: u64) {
        if addr == 0 {
            return self.push("NULL");
        }
        let shown = (len as usize).min(self.limit);
        let mut bytes = alloc::vec![0; shown];
        if self.ctx.read_user(addr, &mut bytes).is_ok() {
            self.quoted(&bytes, len as usize > shown);
        } else {
            self.address(addr);
        }
    }

    /// The names of the bits that are set, joined by `|`.
    fn flags(&mut self, value: u64, names: &[(u64, &str)], unknown: &str) {
        self.push(&flags::show(value, names, unknown));
    }

    /// The name of a value.
    fn choice(&mut self, value: u64, names: &[(u64, &str)], unknown: &str) {
        match names.iter().find(|n| n.0 == value) {
            Some((_, name)) => self.push(name),
            None => {
                let comment = format!("{} /* {unknown} */", text::hex(value));
                self.push(&comment);
            }
        }
    }

    fn string_list(&mut self, addr: u64) {
        /// Elements that strace shows.
        const SHOWN: usize = 32;
        /// Elements that are counted before one gives up.
        const COUNTED: usize = 100_000;
        let is_environment = self.index > 0 && matches!(self.argument(self.index - 1), Some(Arg::StrList));
        if addr == 0 {
            return self.push("NULL");
        }
        let mut pointers = Vec::new();
        loop {
            match self.ctx.read_val::<u64>(addr.wrapping_add(pointers.len() as u64 * 8)) {
                Ok(0) => break,
                Ok(pointer) if pointers.len() < COUNTED => pointers.push(pointer),
                _ => return self.address(addr),
            }
        }
        if is_environment {
            let plural = if pointers.len() == 1 { "" } else { "s" };
            let text = format!("{} /* {} var{plural} */", text::hex(addr), pointers.len());
            return self.push(&text);
        }
        self.push("[");
        for (i, &pointer) in pointers.iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            if i == SHOWN {
                self.push("...");
                break;
            }
            self.string(pointer, self.limit);
        }
        self.push("]");
    }

    fn argument(&self, index: usize) -> Option<Arg> {
        syscall::entry(self.nr).and_then(|e| e.args.get(index)).copied()
    }

    /// Whether the call has failed, so that what it was to fill means nothing.
    fn failed(&self) -> bool {
        matches!(self.result, Some(Err(_)))
    }

    fn decode(&mut self, arg: Arg) {
        let value = self.args[self.index];
        match arg {
            Arg::Int => self.signed(value),
            Arg::Long => self.push(&format!("{}", value as i64)),
            Arg::Uint => self.push(&format!("{value}")),
            Arg::Hex => self.hex(value),
            Arg::Mode => mode::argument(self, value),
            Arg::Fd => self.signed(value),
            Arg::DirFd => self.descriptor(value),
            Arg::Path => self.path(value),
            Arg::Str => self.string(value, self.limit),
            Arg::BufIn(len) => self.buffer(value, self.args.get(usize::from(len)).copied().unwrap_or(0)),
            Arg::BufOut => match self.result {
                Some(Ok(len)) => io::filled_buffer(self, value, *len as u64),
                _ => self.address(value),
            },
            Arg::Ptr => self.address(value),
            Arg::StrList => self.string_list(value),
            Arg::Signal => self.push(&signal::argument(value)),
            Arg::Kind(name) => match kind(name) {
                Some(kind) if matches!(kind.when, When::Exit) && self.failed() => self.address(value),
                Some(kind) => (kind.decode)(self, value),
                None => self.hex(value),
            },
        }
    }

    fn is_out(&self, arg: Arg) -> bool {
        match arg {
            Arg::BufOut => true,
            Arg::Kind(name) => kind(name).is_some_and(|k| match k.when {
                When::Entry => false,
                When::Exit => true,
                When::ExitIf(fills) => fills(self),
            }),
            _ => false,
        }
    }
}

/// A call's name; a number that is none in strace's way.
pub(super) fn call_name(nr: u64) -> String {
    names::name(nr).map_or_else(|| format!("syscall_{}", text::hex(nr)), String::from)
}

fn printer<'a>(ctx: &'a Ctx<'a>, nr: u64, args: [u64; 6], limit: usize) -> Printer<'a> {
    Printer { ctx, nr, args, stack: 0, index: 0, result: None, limit, out: String::new(), omitted: false, ended: false }
}

/// The text of a call's arguments before the first that the kernel fills, and how many there are.
pub(super) fn entry_arguments(ctx: &Ctx, frame: &TrapFrame, limit: usize) -> (usize, String) {
    let nr = frame.orig_rax;
    let mut p = Printer { stack: frame.rsp, ..printer(ctx, nr, frame.args(), limit) };
    if process::custom_entry(&mut p) {
        return (usize::MAX, p.out);
    }
    let all = syscall::entry(nr).map_or(UNKNOWN, |e| e.args);
    while let Some(&arg) = all.get(p.index) {
        if p.is_out(arg) {
            break;
        }
        let before = p.out.len();
        if p.index > 0 {
            p.push(", ");
        }
        p.decode(arg);
        if p.omitted {
            p.out.truncate(before);
            return (usize::MAX, p.out);
        }
        if p.ended {
            return (usize::MAX, p.out);
        }
        p.index += 1;
    }
    if p.index > 0 && p.index < all.len() {
        p.push(", ");
    }
    (p.index, p.out)
}

/// Arguments of a call that the table does not have.
const UNKNOWN: &[Arg] = &[Arg::Hex; 6];

/// The text of the arguments from the `first` on, after the call.
pub(super) fn exit_arguments(
    ctx: &Ctx,
    nr: u64,
    args: [u64; 6],
    first: usize,
    result: &Result<usize>,
    limit: usize,
) -> String {
    let mut p = Printer { index: first, result: Some(result), ..printer(ctx, nr, args, limit) };
    let all = syscall::entry(nr).map_or(UNKNOWN, |e| e.args);
    while let Some(&arg) = all.get(p.index) {
        let before = p.out.len();
        if p.index > first {
            p.push(", ");
        }
        p.decode(arg);
        if p.omitted {
            p.out.truncate(before);
            break;
        }
        if p.ended {
            break;
        }
        p.index += 1;
    }
    process::custom_exit(&mut p);
    p.out
}

/// One argument in strace's notation, for the explaining trace; before the call with `result` `None`.
pub(super) fn argument(
    ctx: &Ctx,
    nr: u64,
    args: [u64; 6],
    index: usize,
    result: Option<&Result<usize>>,
    limit: usize,
) -> Option<String> {
    let mut p = Printer { index, result, ..printer(ctx, nr, args, limit) };
    let arg = p.argument(index)?;
    if p.is_out(arg) != result.is_some() {
        return None;
    }
    p.decode(arg);
    (!p.omitted).then_some(p.out)
}

/// A call's result in strace's notation.
pub(super) fn result(ctx: &Ctx, nr: u64, args: [u64; 6], result: &Result<usize>) -> String {
    match result {
        Ok(value) => match names::name(nr) {
            Some("mmap" | "brk" | "mremap" | "shmat") => text::hex(*value as u64),
            Some("umask") => format!("{value:#o}").replacen("0o", "0", 1),
            Some("fcntl") => file::fcntl_result(args[1], *value as u64),
            // What rax was before the signal: perhaps an error.
            Some("rt_sigreturn") => match Errno::from_return_value(*value) {
                Some(errno) => error(errno),
                None => format!("{}", *value as i64),
            },
            Some("poll" | "ppoll" | "select" | "pselect6") => {
                let mut p = Printer { result: Some(result), ..printer(ctx, nr, args, 32) };
                poll::ready(&mut p);
                format!("{value}{}", p.out)
            }
            _ => format!("{}", *value as i64),
        },
        Err(e) if super::lines::is_restart(e.errno) => {
            format!("? {:?} ({})", e.errno, text::restart(e.errno))
        }
        Err(e) => error(e.errno),
    }
}

fn error(errno: Errno) -> String {
    format!("-1 {errno:?} ({})", errno.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_in_the_table_has_a_decoder() {
        for entry in syscall::entries() {
            for arg in entry.args {
                if let Arg::Kind(name) = arg {
                    assert!(kind(name).is_some(), "{}: no decoder for arguments of kind {name:?}", entry.name);
                }
            }
        }
    }

    #[test]
    fn kinds_are_there_once() {
        let mut names: Vec<&str> = KINDS.iter().flat_map(|k| k.iter()).map(|k| k.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
