//! A trace for learners: what happens at each system call, in words.

use super::prototypes::{Gives, Prototype, prototype};
use super::{Tracer, decode};
use crate::errno::Result;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::syscall::{self, Support};
use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

/// Registers that carry arguments, in order.
const REGISTERS: [&str; 6] = ["rdi", "rsi", "rdx", "r10", "r8", "r9"];
/// Bytes of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

impl Tracer {
    /// Tells what stopped and what it asks for.
    pub(super) fn explain_enter(&self, ctx: &Ctx, frame: &TrapFrame) {
        let (nr, args) = (frame.orig_rax, frame.args());
        let name = decode::call_name(nr);
        let known = prototype(&name);
        let mut text = format!(
            "{} calls {name}\n  1. At {:#x} the program {}:\n     it asks the kernel for something.\n",
            who(ctx),
            frame.rip.wrapping_sub(SYSCALL_LEN),
            ctx.kernel.platform.way_in()
        );
        text += &register("rax", nr, &format!("the call's number: {name}"));
        let parameters = known.map_or("", |p| p.parameters).split_whitespace();
        for (index, parameter) in parameters.take(args.len()).enumerate() {
            let meaning = decode::argument(ctx, nr, args, index, None, self.string_limit());
            let meaning = match meaning {
                Some(shown) if shown != plain(args[index]) => format!("{parameter} = {shown}"),
                _ => String::from(parameter),
            };
            text += &register(REGISTERS[index], args[index], &meaning);
        }
        text += &handler(nr, &name, known);
        self.begin_call(ctx, nr, args);
        self.explain(&text);
    }

    /// Tells what came of it.
    pub(super) fn explain_leave(&self, ctx: &Ctx, frame: &TrapFrame, result: &Result<usize>) {
        let Some(call) = self.end_call(ctx) else { return };
        let name = decode::call_name(call.nr);
        let known = prototype(&name);
        let mut text = format!("{}: {name} is done\n", who(ctx));
        let parameters = known.map_or("", |p| p.parameters).split_whitespace();
        for (index, parameter) in parameters.take(call.args.len()).enumerate().filter(|_| result.is_ok()) {
            let filled = decode::argument(ctx, call.nr, call.args, index, Some(result), self.string_limit());
            if let Some(shown) = filled.filter(|f| *f != plain(call.args[index])) {
                text += &format!("     The kernel stored at {parameter}: {shown}\n");
            }
        }
        text += &if ctx.task.dying.load(Ordering::SeqCst) {
            String::from("  3. The program does not go on: it has ended.\n")
        } else {
            let (value, meaning) = outcome(ctx, &call.nr, call.args, known, result);
            let next =
                if name == "execve" && result.is_ok() { "the new program begins" } else { "the program goes on" };
            format!("  3. {value} goes into rax{meaning}; {next} at {:#x}.\n", frame.rip)
        };
        text.push('\n');
        self.explain(&text);
    }

    /// Writes a whole piece of text at once, so that those of different tasks do not mix.
    fn explain(&self, text: &str) {
        let _turn = self.state.lock();
        self.sink.write(text);
    }
}

fn who(ctx: &Ctx) -> String {
    let comm = *ctx.task.comm.lock();
    format!("Process {} ({})", ctx.task.tid(), String::from_utf8_lossy(comm.as_bytes()))
}

/// An argument as a decoder without knowledge of it would show it.
fn plain(value: u64) -> String {
    format!("{value:#x}")
}

fn register(name: &str, value: u64, meaning: &str) -> String {
    format!("     {name:<3} = {:<18} {meaning}\n", format!("{value:#x}"))
}

/// Who serves the call, and what it does.
fn handler(nr: u64, name: &str, known: Option<&Prototype>) -> String {
    let Some(entry) = syscall::entry(nr) else {
        return format!("  2. This kernel does not have {name}.\n");
    };
    let module = syscall::module(nr).unwrap_or("the table");
    let mut text = format!(
        "  2. The host's kernel never sees the call. This kernel's own {name} ({}; {} calls) runs in its place",
        module,
        entry.family.name()
    );
    if let Some(known) = known {
        text += &format!(":\n     it {}", known.summary);
    }
    text += ".\n";
    if let Support::Partial(note) = entry.support {
        text += &format!("     Here it differs from Linux's: {note}.\n");
    }
    text
}

/// The value for `rax`, and what it means.
fn outcome(ctx: &Ctx, nr: &u64, args: [u64; 6], known: Option<&Prototype>, result: &Result<usize>) -> (String, String) {
    match result {
        Err(e) if super::lines::is_restart(e.errno) => {
            return (
                String::from("Nothing yet"),
                String::from(": a signal interrupted the call, and is delivered first"),
            );
        }
        Err(e) => {
            let why = if e.why.is_empty() { String::new() } else { format!(", namely: {}", e.why) };
            let meaning = format!(", the number of the error {:?} made negative: {}{why}", e.errno, e.errno.text());
            return (format!("-{}", e.errno.0), meaning);
        }
        Ok(_) => {}
    }
    let value = decode::result(ctx, *nr, args, result);
    let meaning = match known.map(|k| k.gives) {
        Some(Gives::Success) => ", which means success",
        Some(Gives::Descriptor) => ", the new descriptor",
        Some(Gives::Bytes) => ", the number of bytes",
        Some(Gives::Count) => ", the count",
        Some(Gives::Id) => ", the id",
        Some(Gives::Address) => ", the address",
        Some(Gives::Value | Gives::Nothing) | None => "",
    };
    (value, meaning.into())
}
