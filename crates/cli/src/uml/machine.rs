//! The keeper: starts the kernel, is between it and the user, and ends whatever is left of it.

use std::os::fd::{AsFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use umkernel::machine::{BootError, Outcome, monitor};

use super::confine::Confinement;
use super::console::Console;
use super::line::Line;
use super::messages::Messages;
use super::outcome::End;
use super::workplace::Workplace;
use super::{failed, mconsole};

/// How long a guest that was asked to stop may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the kernel may take to make its file systems read-only, which it does in its own time.
const REMOUNT: Duration = Duration::from_secs(1);

/// A machine that is ready to start.
pub(crate) struct Plan<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Path,
    /// Its command line.
    pub(crate) words: Vec<String>,
    /// Where its memory file lies.
    pub(crate) memory_directory: PathBuf,
    /// Where its files are.
    pub(crate) place: &'a Workplace,
    /// It runs init on the console, no command.
    pub(crate) interactive: bool,
    /// What the kernel prints is shown.
    pub(crate) verbose: bool,
    /// Which of the command's streams are the console.
    pub(crate) terminal: [bool; 3],
    /// Descriptors of this process that it has as well.
    pub(crate) inherited: Vec<RawFd>,
    /// What else it may write: its disk, and what is shared for writing.
    pub(crate) writable: Vec<PathBuf>,
}

/// A machine that runs.
struct Machine<'a> {
    plan: &'a Plan<'a>,
    kernel: Child,
    console: Console,
    line: Option<Line>,
    /// The signal that asked it to stop, and until when it may take.
    stopping: Option<(i32, Instant)>,
}

impl Plan<'_> {
    /// Runs the machine to its end. The calling process, which must have no other threads, ends afterwards.
    pub(crate) fn run(&self) -> Result<Outcome, BootError> {
        let cannot = |what: &'static str| move |e| failed(format!("cannot {what}: {e}"), "");
        let host = |what: &'static str| move |e: std::io::Error| failed(format!("cannot {what}: {e}"), "");
        // SAFETY: constant arguments; what the kernel leaves behind becomes a child of this process.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        let watched = watched_signals();
        watched.thread_block().map_err(cannot("block signals"))?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC).map_err(cannot("wait for signals"))?;
        let console = Console::new().map_err(host("make a terminal"))?;
        let line = (!self.interactive).then(Line::new).transpose().map_err(host("make a socket"))?;
        let (messages_from, messages_to) = std::io::pipe().map_err(host("make a pipe"))?;
        let kernel = self.start(&console, line.as_ref(), messages_to)?;
        let messages = Messages::default();
        // From here on there are threads.
        let printed = messages.read(messages_from, self.verbose);
        let shown = console.show(self.screen(), &messages).map_err(host("read the console"))?;
        let served = line.as_ref().map(Line::serve).transpose().map_err(host("read from the guest"))?;
        if self.interactive || self.terminal[0] {
            console.feed().map_err(host("write to the console"))?;
        }
        let mut machine = Machine { plan: self, kernel, console, line, stopping: None };
        let status = machine.wait(&signals)?;
        monitor::end_orphans();
        // Nobody else has the other ends any more: what is still to be read comes, and then the end.
        machine.console.close();
        machine.line.into_iter().for_each(Line::close);
        for thread in [Some(printed), Some(shown), served].into_iter().flatten() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        let stopped = machine.stopping.map(|(signal, _)| signal);
        let root = self.place.root();
        End { kernel: self.kernel, root: &root, status, stopped, log: &messages.text() }.outcome()
    }

    /// The standard stream on which the console is seen.
    fn screen(&self) -> Option<i32> {
        if self.interactive {
            return Some(1);
        }
        [1, 2, 0].into_iter().find(|stream| self.terminal[*stream as usize])
    }

    fn start(&self, console: &Console, line: Option<&Line>, messages: std::io::PipeWriter) -> Result<Child, BootError> {
        let (console, line) = (console.slave(), line.map(Line::kernels));
        let own = [self.place.path(), &self.memory_directory, Path::new("/dev"), Path::new("/proc")];
        let confinement = Confinement::to(own.into_iter().chain(self.writable.iter().map(|path| &**path)))
            .map_err(|e| failed(format!("cannot confine the kernel (Landlock): {e}"), ""))?;
        let mut command = Command::new(self.kernel);
        command.args(&self.words).args(["con=null".into(), "ssl=null".into(), format!("con0=fd:{console}")]);
        command.args(line.map(|line| format!("con1=fd:{line}")));
        let also = messages.try_clone().map_err(|e| failed(format!("cannot start the kernel: {e}"), ""))?;
        command.stdin(Stdio::null()).stdout(messages).stderr(also).env("TMPDIR", &self.memory_directory);
        // A kernel that is linked with a C library of its own registers an area for restartable sequences, which its guests'
        // processes inherit and do not have: the host would kill each at its first interrupt (rseq(2)).
        command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
        let kept: Vec<RawFd> =
            [Some(console), line].into_iter().flatten().chain(self.inherited.iter().copied()).collect();
        // SAFETY: only calls that are safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                SigSet::empty().thread_set_mask()?;
                // Keys of the user's terminal are the guest's.
                nix::unistd::setsid()?;
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                for descriptor in &kept {
                    libc::fcntl(*descriptor, libc::F_SETFD, 0);
                }
                confinement.as_ref().map_or(Ok(()), Confinement::enter)
            });
        }
        command.spawn().map_err(|e| failed(format!("cannot run {}: {e}", self.kernel.display()), ""))
    }
}

fn watched_signals() -> SigSet {
    use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGWINCH};
    [SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGWINCH].into_iter().collect()
}

impl Machine<'_> {
    /// Passes on signals until the kernel has ended.
    fn wait(&mut self, signals: &SignalFd) -> Result<ExitStatus, BootError> {
        loop {
            let wait = match self.stopping {
                Some((_, until)) => {
                    let left = until.saturating_duration_since(Instant::now());
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            let ready = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], wait).unwrap_or(0);
            if ready > 0
                && let Ok(Some(signal)) = signals.read_signal()
            {
                self.take(signal.ssi_signo as i32);
            }
            if self.stopping.is_some_and(|(_, until)| Instant::now() >= until) {
                self.end_kernel();
            }
            match self.kernel.try_wait() {
                Ok(None) => self.reap_orphans(),
                Ok(Some(status)) => return Ok(status),
                Err(e) => return Err(failed(format!("cannot wait for the kernel: {e}"), "")),
            }
        }
    }

    fn take(&mut self, signal: i32) {
        match signal {
            libc::SIGCHLD => {}
            libc::SIGWINCH => self.console.follow_window(),
            libc::SIGUSR1 if self.plan.interactive => self.command("cad"),
            libc::SIGUSR1 => {}
            // Who asks twice does not want to wait.
            _ if self.stopping.is_some() => self.end_kernel(),
            signal => {
                self.stopping = Some((signal, Instant::now() + PATIENCE));
                self.stop(signal);
            }
        }
    }

    /// Asks the machine to stop, in order.
    fn stop(&self, signal: i32) {
        if let Some(line) = &self.line {
            return line.stop(128 + signal as u8);
        }
        // No program of the guest's is asked: file systems are synced, then made read-only, then the kernel halts.
        for command in ["sysrq s", "sysrq u", "halt"] {
            if command == "halt" {
                std::thread::sleep(REMOUNT);
            }
            if mconsole::command(&self.plan.place.mconsole(), command).is_err() {
                return self.end_kernel();
            }
        }
    }

    fn command(&self, text: &str) {
        // A kernel that is not so far yet does not hear the keys either.
        let _ = mconsole::command(&self.plan.place.mconsole(), text);
    }

    fn end_kernel(&self) {
        // One that has ended is reaped next.
        let _ = kill(Pid::from_raw(self.kernel.id() as i32), Signal::SIGKILL);
    }

    /// Reaps what the kernel has left to this process while it still runs, but not the kernel itself.
    fn reap_orphans(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(status) = waitid(Id::All, flags) {
            match status.pid() {
                Some(pid) if pid.as_raw() != self.kernel.id() as i32 => {
                    let _ = nix::sys::wait::waitpid(pid, Some(WaitPidFlag::WNOHANG));
                }
                _ => return,
            }
        }
    }
}
