//! The front process: starts the kernel process, looks after the terminal, and reports how the machine ended.
//!
//! Two processes, so that whichever is killed, `kill -9` included, the other one puts the terminal back. The kernel process
//! takes its guests with it when it dies (`PTRACE_O_EXITKILL`, `PR_SET_PDEATHSIG`); when this one dies, it powers off. Whatever
//! processes it leaves all the same become this one's children, and are ended.

use super::launch::{self, LaunchConfig, Target};
use super::{BootError, Outcome};
use crate::host::process::TERMIOS_SIZE;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::termios::{self, SetArg, Termios};
use nix::sys::time::TimeVal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};
use std::format;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::string::String;
use std::vec::Vec;

/// Exit code of a machine whose kernel panicked or was killed.
const BROKEN: u8 = 1;

/// Boots a machine in a process of its own, again as often as it asks for, and returns the exit code for the caller.
/// The calling process must have no other threads.
///
/// # Errors
/// A machine that could not be booted, whose kernel panicked, or that was killed.
pub fn boot(config: &LaunchConfig) -> Result<u8, BootError> {
    supervise(config.stats.as_ref(), &|terminal, report| {
        launch::run(&LaunchConfig { terminal, ..config.clone() }, report)
    })
}

/// A machine for [`supervise`]: runs in a process of its own, until it has stopped. It is given the settings that the terminal on
/// standard input is to be left with, and where to report how it ended if it does not return. SIGTERM, SIGINT and SIGHUP, which
/// are blocked, ask it to stop, SIGUSR1 is Ctrl-Alt-Del.
pub type Machine<'a> = dyn Fn(Option<[u8; TERMIOS_SIZE]>, BorrowedFd<'_>) -> Result<Outcome, BootError> + 'a;

/// What [`boot`] does, for any machine: one process runs it, and this one has the terminal in raw mode, passes on signals, and
/// ends what it has left behind. What it took from the host goes to `stats`.
///
/// # Errors
/// As [`boot`].
pub fn supervise(stats: Option<&Target>, machine: &Machine<'_>) -> Result<u8, BootError> {
    let terminal = Terminal::take();
    let watched = watched_signals();
    let before = block(&watched)?;
    // SAFETY: constant arguments; orphans of the machine become children of this process. Without, they stay what they are.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let result = loop {
        match run_once(stats, machine, &terminal, &watched) {
            Ok(Outcome::Restart) => {}
            Ok(Outcome::Off(code)) => break Ok(code),
            Ok(Outcome::Panic) => break Err(BootError::new("the guest's kernel panicked", "its report is above")),
            Err(e) => break Err(e),
        }
    };
    terminal.restore();
    // What came in between goes to the caller as it always would.
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    result
}

fn watched_signals() -> SigSet {
    let mut set = SigSet::empty();
    use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGCHLD] {
        set.add(signal);
    }
    set
}

fn block(set: &SigSet) -> Result<SigSet, BootError> {
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(set), Some(&mut before))
        .map_err(|e| BootError::new(format!("cannot block signals: {e}"), ""))?;
    Ok(before)
}

fn run_once(
    stats: Option<&Target>,
    machine: &Machine<'_>,
    terminal: &Terminal,
    watched: &SigSet,
) -> Result<Outcome, BootError> {
    let cannot = |what: &str, e: nix::Error| BootError::new(format!("cannot {what}: {e}"), "");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| cannot("make a pipe", e))?;
    let monitor = getpid();
    // SAFETY: the caller has no other threads, so the child may go on as this process would have.
    match unsafe { fork() }.map_err(|e| cannot("start the kernel process", e))? {
        ForkResult::Child => {
            drop(read);
            kernel_process(machine, terminal, write, monitor)
        }
        ForkResult::Parent { child } => {
            drop(write);
            let status = watch(child, watched)?;
            end_orphans();
            if let Some(target) = stats {
                // The machine has run: a file that cannot be written any more does not undo that.
                let _ = target.append(&host_use());
            }
            report(read, status)
        }
    }
}

/// What the host did for the machine, which has ended, as text.
fn host_use() -> String {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return String::new() };
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    format!(
        "the host serviced {} page faults, {} of them from its disks; {:.3} s of processor time in user mode, {:.3} s in the host's \
         kernel\n",
        usage.minor_page_faults() + usage.major_page_faults(),
        usage.major_page_faults(),
        seconds(usage.user_time()),
        seconds(usage.system_time())
    )
}

/// Ends all children of the calling thread, among them what the kernel process has left behind: a hostile guest can make
/// processes on `direct` that nobody knows.
pub fn end_orphans() {
    let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for _ in 0..1000 {
        let found = children();
        let pids: Vec<i32> = found.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids.into_iter().map(Pid::from_raw) {
            // Those that end by themselves, as guests do whose kernel has ended, need no killing, but for their reaping.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Waits for the kernel process, passing on signals that ask for an end or are Ctrl-Alt-Del.
fn watch(child: Pid, watched: &SigSet) -> Result<WaitStatus, BootError> {
    loop {
        let signal = watched.wait().map_err(|e| BootError::new(format!("cannot wait: {e}"), ""))?;
        if signal != Signal::SIGCHLD {
            // A child that is gone already is reaped below.
            let _ = kill(child, if signal == Signal::SIGQUIT { Signal::SIGTERM } else { signal });
        }
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR) => {}
            Ok(status) => return Ok(status),
            Err(e) => return Err(BootError::new(format!("cannot wait for the kernel process: {e}"), "")),
        }
    }
}

/// What the kernel process said before it ended, or what must have happened if it said nothing.
fn report(pipe: OwnedFd, status: WaitStatus) -> Result<Outcome, BootError> {
    let mut message = Vec::new();
    // A pipe that cannot be read said nothing.
    let _ = File::from(pipe).read_to_end(&mut message);
    match super::report::decode(&message) {
        Some(outcome) => outcome,
        None => Err(match status {
            WaitStatus::Signaled(_, Signal::SIGABRT, _) => {
                BootError::new("the kernel process panicked", "its report is above; please file it as a bug")
            }
            WaitStatus::Signaled(_, signal, _) => BootError::new(
                format!("the kernel process was killed by {signal}"),
                "the image's journal is replayed at the next boot: what was synced is there",
            ),
            other => BootError::new(format!("the kernel process ended unexpectedly ({other:?})"), ""),
        }),
    }
}

fn kernel_process(machine: &Machine<'_>, terminal: &Terminal, pipe: OwnedFd, monitor: Pid) -> ! {
    // SAFETY: a constant argument; ends this process in good order when its parent is killed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    if getppid() != monitor {
        // Killed before this process has come to ask for the signal.
        terminal.restore();
        // SAFETY: as at the end.
        unsafe { libc::_exit(BROKEN.into()) }
    }
    no_core_dumps();
    outlive_file_limit();
    std::panic::set_hook(std::boxed::Box::new(|info| {
        // The terminal may be raw: lines end with both.
        let text = format!("umlfs kernel panic: {info}").replace('\n', "\r\n");
        let _ = write!(std::io::stderr(), "\r\n{text}\r\n");
    }));
    let outcome = machine(terminal.settings(), pipe.as_fd());
    // If nobody listens any more, nobody minds.
    let _ = File::from(pipe).write_all(&super::report::encode(&outcome));
    if getppid() != monitor {
        terminal.restore();
    }
    // SAFETY: ends the process without running what the parent's atexit handlers would do a second time.
    unsafe { libc::_exit(BROKEN.into()) }
}

/// Guests that the host kills must not leave core files behind.
fn no_core_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is ours and readable.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// What is written beyond the host's limit for files (`ulimit -f`) is an error of the guest's disk, not the machine's end.
fn outlive_file_limit() {
    // SAFETY: no code is named.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// The host's terminal, in raw mode while a machine has it.
struct Terminal {
    saved: Option<Termios>,
}

impl Terminal {
    /// Puts standard input into raw mode, if it is a terminal.
    fn take() -> Terminal {
        // SAFETY: descriptor 0 is open for as long as this process runs; if not, the calls below say so.
        let stdin = unsafe { BorrowedFd::borrow_raw(0) };
        let Ok(saved) = termios::tcgetattr(stdin) else { return Terminal { saved: None } };
        let mut raw = saved.clone();
        termios::cfmakeraw(&mut raw);
        let took = termios::tcsetattr(stdin, SetArg::TCSADRAIN, &raw).is_ok();
        Terminal { saved: took.then_some(saved) }
    }

    /// The settings to go back to, as the host's kernel has them.
    fn settings(&self) -> Option<[u8; TERMIOS_SIZE]> {
        let saved: libc::termios = self.saved.clone()?.into();
        // SAFETY: the C library's structure is larger, and begins as the kernel's does: flags, line, control characters.
        Some(unsafe { core::mem::transmute_copy(&saved) })
    }

    /// Puts it back as it was.
    fn restore(&self) {
        let Some(saved) = &self.saved else { return };
        let mut ttou = SigSet::empty();
        ttou.add(Signal::SIGTTOU);
        // From the background, which the shell may have put us into, this needs the signal blocked.
        let mut before = SigSet::empty();
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ttou), Some(&mut before));
        // SAFETY: as in `take`.
        let stdin = unsafe { BorrowedFd::borrow_raw(0) };
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(stdin, SetArg::TCSADRAIN, saved);
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    }
}
