//! Process 1 of a real User-Mode Linux: makes the image the root, mounts what was asked for, runs init in its own place or
//! one command, and stops the machine in good order. It does what umlfs's own kernel does by itself (`umkernel`,
//! `machine/init.rs`), so that a program finds the same surroundings in both.

mod command;
mod first_root;
mod mounts;
mod power;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use uml_init::{Outcome, Request, Run};

use crate::first_root::FirstRoot;

/// Why nothing ran, and what to do about it.
struct Fault {
    what: String,
    hint: &'static str,
}

impl Fault {
    fn new(what: impl Into<String>, hint: &'static str) -> Fault {
        Fault { what: what.into(), hint }
    }
}

fn main() {
    let first = FirstRoot::open();
    let outcome = match run(&first) {
        Ok(code) => Outcome::Exit(code),
        Err(Fault { what, hint }) => Outcome::Failed { what, hint: hint.into() },
    };
    power::off(&first, &outcome);
}

/// Returns when the command has ended, or nothing could be run.
fn run(first: &FirstRoot) -> Result<u8, Fault> {
    let request = first.request()?;
    mounts::enter_root(request.partition, request.read_only)?;
    mounts::devices();
    mounts::loopback_up();
    if request.run == Run::Command {
        mounts::for_command();
    }
    mounts::shares(&request)?;
    let console = mounts::open_console();
    match request.run {
        Run::Init => Err(become_init(&request)),
        Run::Command => command::run(&request, console.as_ref()),
    }
}

/// A program of the request, with its arguments and environment.
fn program(request: &Request, path: &OsStr) -> Command {
    let mut command = Command::new(path);
    if let Some((name, rest)) = request.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().current_dir("/");
    for variable in &request.env {
        let bytes = variable.as_bytes();
        let end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        let (name, value) = bytes.split_at(end);
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value.get(1..).unwrap_or_default()));
    }
    command
}

/// Tries the request's programs one after the other; the error is the first that says more than that there is none.
fn first_that_runs<T>(request: &Request, mut start: impl FnMut(Command) -> std::io::Result<T>) -> Result<T, Errno> {
    let mut error = Errno::ENOENT;
    for path in &request.programs {
        match start(program(request, path)) {
            Ok(started) => return Ok(started),
            Err(e) if error == Errno::ENOENT => error = e.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
            Err(_) => {}
        }
    }
    Err(error)
}

fn become_init(request: &Request) -> Fault {
    let error = match first_that_runs::<()>(request, |mut command| Err(command.exec())) {
        Ok(()) => Errno::EIO,
        Err(e) => e,
    };
    let names: Vec<_> = request.programs.iter().map(|path| path.to_string_lossy()).collect();
    match &names[..] {
        [name] => Fault::new(format!("cannot run init {name}: {error}"), "`init=` names a program in the image"),
        _ => Fault::new(
            format!("no working init: none of {} runs: {error}", names.join(", ")),
            "name one with init=PATH, or run one command with --exec",
        ),
    }
}
