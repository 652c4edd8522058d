//! One command, with its standard streams carried to and from the host.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use uml_init::{CHUNK, Decoder, Frame, LINE, Request};

use crate::power::kill_all;
use crate::{Fault, first_that_runs};

/// Runs the command to its end; what it has written is at the host then.
pub(crate) fn run(request: &Request, console: Result<&File, &std::io::Error>) -> Result<u8, Fault> {
    let line = open_line().map_err(|e| Fault::new(format!("the guest cannot open {LINE}: {e}"), ""))?;
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    let ends = ends.thread_block().and_then(|()| SignalFd::new(&ends));
    let ends =
        ends.map_err(|e| Fault::new(format!("the kernel has no signalfd: {e}"), "it needs CONFIG_SIGNALFD=y"))?;
    let console = if request.terminal.contains(&true) { console.ok() } else { None };
    let child = first_that_runs(request, |command| start(command, request, console)).map_err(|e| {
        let name = request.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let hint = "`umlfs image ls` shows what the image holds";
        Fault::new(format!("cannot run {name} in the guest: {e}"), hint)
    })?;
    Pump::new(line, child).run(&ends).map_err(|e| Fault::new(format!("the line to the host: {e}"), ""))
}

/// The line to the host: raw, and never waited for.
fn open_line() -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let line = File::options().read(true).write(true).custom_flags(flags).open(LINE)?;
    let mut settings = tcgetattr(&line)?;
    cfmakeraw(&mut settings);
    tcsetattr(&line, SetArg::TCSANOW, &settings)?;
    Ok(line)
}

fn start(mut command: Command, request: &Request, console: Option<&File>) -> std::io::Result<Child> {
    let stream = |is_terminal| match console.filter(|_| is_terminal) {
        Some(console) => console.try_clone().map(Stdio::from),
        None => Ok(Stdio::piped()),
    };
    let [input, output, error] = request.terminal;
    command.stdin(stream(input)?).stdout(stream(output)?).stderr(stream(error)?);
    let terminal = console.and_then(|_| request.terminal.iter().position(|is| *is));
    // SAFETY: only calls that are safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            nix::unistd::setsid()?;
            if let Some(stream) = terminal {
                libc::ioctl(stream as libc::c_int, libc::TIOCSCTTY, 0);
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Moves bytes between the command's pipes and the line.
struct Pump {
    line: File,
    decoder: Decoder,
    /// For the line; nothing more is read from the command while there is some.
    pending: Vec<u8>,
    pid: Pid,
    stdin: Option<ChildStdin>,
    /// For standard input.
    input: Vec<u8>,
    /// The host was asked for input.
    wanted: bool,
    /// The host has no more.
    last: bool,
    /// Standard output and error.
    outputs: [Option<File>; 2],
    status: Option<u8>,
    done: bool,
    received: bool,
}

fn file(pipe: impl Into<std::os::fd::OwnedFd>) -> File {
    File::from(pipe.into())
}

impl Pump {
    fn new(line: File, mut child: Child) -> Pump {
        let pid = Pid::from_raw(child.id() as i32);
        let stdin = child.stdin.take();
        if let Some(pipe) = &stdin {
            // A command that does not read must not hold up the rest.
            let _ = fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        }
        Pump {
            line,
            decoder: Decoder::default(),
            pending: Frame::Hello.encode(),
            pid,
            stdin,
            input: Vec::new(),
            wanted: false,
            last: false,
            outputs: [child.stdout.take().map(file), child.stderr.take().map(file)],
            status: None,
            done: false,
            received: false,
        }
    }

    fn run(mut self, ends: &SignalFd) -> std::io::Result<u8> {
        while !self.received {
            self.queue();
            self.wait(ends)?;
        }
        Ok(self.status.unwrap_or(0))
    }

    /// Says what is due.
    fn queue(&mut self) {
        if self.stdin.is_some() && self.input.is_empty() && !self.wanted && !self.last {
            self.pending.extend(Frame::Want.encode());
            self.wanted = true;
        }
        if self.input.is_empty() && self.last {
            self.stdin = None;
        }
        if self.status.is_some() && self.outputs.iter().all(Option::is_none) && !self.done {
            self.pending.extend(Frame::Done.encode());
            self.done = true;
        }
    }

    /// Sleeps until something can be done, and does it.
    fn wait(&mut self, ends: &SignalFd) -> std::io::Result<()> {
        let none = PollFlags::empty();
        let when = |is, flags| if is { flags } else { none };
        let idle = self.pending.is_empty();
        let mut fds = vec![
            PollFd::new(self.line.as_fd(), PollFlags::POLLIN | when(!idle, PollFlags::POLLOUT)),
            PollFd::new(ends.as_fd(), PollFlags::POLLIN),
        ];
        let pipes = [self.stdin.as_ref().map(AsFd::as_fd), fd(&self.outputs[0]), fd(&self.outputs[1])];
        let wants = [when(!self.input.is_empty(), PollFlags::POLLOUT), PollFlags::POLLIN, PollFlags::POLLIN];
        let places = [0, 1, 2].map(|n| {
            let (pipe, want) = (pipes[n]?, wants[n]);
            // While the line is full, the outputs are not looked at, not even for their end.
            if n > 0 && !idle {
                return None;
            }
            fds.push(PollFd::new(pipe, want));
            Some(fds.len() - 1)
        });
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents().unwrap_or(none)).collect();
        let at = |place: Option<usize>| place.and_then(|place| ready.get(place)).copied().unwrap_or(none);
        let (line, ended) = (at(Some(0)), at(Some(1)));
        let [input, output, error] = places.map(at);
        if line.intersects(PollFlags::POLLOUT) {
            self.send()?;
        }
        if line.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
            self.receive()?;
        }
        if !input.is_empty() {
            self.feed(input);
        }
        for (n, ready) in [output, error].into_iter().enumerate() {
            if !ready.is_empty() {
                self.carry(n);
            }
        }
        if !ended.is_empty() {
            // One signal may stand for many children.
            let _ = ends.read_signal();
            self.reap();
        }
        Ok(())
    }

    fn send(&mut self) -> std::io::Result<()> {
        match self.line.write(&self.pending) {
            Ok(n) => drop(self.pending.drain(..n)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        match self.line.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.decoder.push(buffer.get(..n).unwrap_or_default()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        loop {
            match self.decoder.frame().map_err(|_| ErrorKind::InvalidData)? {
                Some(Frame::Input(bytes)) => {
                    self.wanted = false;
                    self.last |= bytes.is_empty();
                    self.input = bytes;
                }
                Some(Frame::Closed(stream)) => {
                    if let Some(output) = self.outputs.get_mut(usize::from(stream).wrapping_sub(1)) {
                        *output = None;
                    }
                }
                Some(Frame::Stop(code)) => self.end(code),
                Some(Frame::Received) => self.received = true,
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }

    /// Gives the command its input.
    fn feed(&mut self, ready: PollFlags) {
        let Some(stdin) = &mut self.stdin else { return };
        let written = if ready.contains(PollFlags::POLLERR) {
            Err(ErrorKind::BrokenPipe.into())
        } else {
            stdin.write(&self.input)
        };
        match written {
            Ok(n) => drop(self.input.drain(..n)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // Nobody reads any more.
            Err(_) => {
                self.stdin = None;
                self.input.clear();
            }
        }
    }

    /// Takes what the command has written.
    fn carry(&mut self, n: usize) {
        let Some(Some(output)) = self.outputs.get_mut(n) else { return };
        let mut buffer = vec![0; CHUNK];
        match output.read(&mut buffer) {
            Ok(read @ 1..) => {
                buffer.truncate(read);
                let frame = if n == 0 { Frame::Output(buffer) } else { Frame::Error(buffer) };
                self.pending.extend(frame.encode());
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            _ => self.outputs[n] = None,
        }
    }

    /// Reaps children and orphans; the command's end is the end of all.
    fn reap(&mut self) {
        loop {
            let code = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => 128 + signal as i32,
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            self.end(code as u8);
        }
    }

    /// Ends all that runs.
    fn end(&mut self, code: u8) {
        self.status.get_or_insert(code);
        kill_all();
        self.stdin = None;
        self.input.clear();
    }
}

fn fd(file: &Option<File>) -> Option<BorrowedFd<'_>> {
    file.as_ref().map(AsFd::as_fd)
}
