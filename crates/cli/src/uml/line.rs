//! The line to the guest's first program, the kernel's `con1`: it carries the standard streams of `--exec`.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, spawn};

use uml_init::{Decoder, Frame, INPUT};

/// Our end of the line.
pub(crate) struct Line {
    shared: Arc<Mutex<State>>,
    reader: UnixStream,
    kernels: OwnedFd,
}

struct State {
    writer: UnixStream,
    /// The guest listens; before, its terminal would echo what it is sent.
    heard: bool,
    /// To be said as soon as it does.
    stop: Option<u8>,
}

impl State {
    fn say(&mut self, frame: &Frame) {
        // A kernel that has ended is noticed elsewhere.
        let _ = self.writer.write_all(&frame.encode());
    }
}

impl Line {
    /// Makes it.
    pub(crate) fn new() -> io::Result<Line> {
        let (ours, kernels) = UnixStream::pair()?;
        let state = State { writer: ours.try_clone()?, heard: false, stop: None };
        Ok(Line { shared: Arc::new(Mutex::new(state)), reader: ours, kernels: kernels.into() })
    }

    /// The kernel's end.
    pub(crate) fn kernels(&self) -> RawFd {
        self.kernels.as_raw_fd()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the guest to end all that runs, and to say that its exit status is `code`.
    pub(crate) fn stop(&self, code: u8) {
        let mut state = self.state();
        if state.heard {
            state.say(&Frame::Stop(code));
        } else {
            state.stop = Some(code);
        }
    }

    /// Starts to move the streams: our own standard input, output and error. The thread ends when the kernel's end is closed.
    pub(crate) fn serve(&self) -> io::Result<JoinHandle<()>> {
        let (wanted, wants) = channel();
        let for_input = self.shared.clone();
        spawn(move || give_input(&for_input, &wants));
        let (mut reader, shared) = (self.reader.try_clone()?, self.shared.clone());
        Ok(spawn(move || {
            let (mut decoder, mut buffer) = (Decoder::default(), [0; 4096]);
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                decoder.push(buffer.get(..read).unwrap_or_default());
                loop {
                    match decoder.frame() {
                        Ok(Some(frame)) => take(&shared, frame, &wanted),
                        Ok(None) => break,
                        // A program of the guest's writes to the line: that is its own harm.
                        Err(_) => return,
                    }
                }
            }
        }))
    }

    /// Closes the kernel's end.
    pub(crate) fn close(self) {
        drop(self.kernels);
    }
}

/// Does what the guest says.
fn take(shared: &Mutex<State>, frame: Frame, wanted: &Sender<()>) {
    let say = |frame: &Frame| shared.lock().unwrap_or_else(PoisonError::into_inner).say(frame);
    let (stream, written) = match &frame {
        Frame::Output(bytes) => (1, write(&mut io::stdout(), bytes)),
        Frame::Error(bytes) => (2, write(&mut io::stderr(), bytes)),
        Frame::Hello => {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            state.heard = true;
            if let Some(code) = state.stop.take() {
                state.say(&Frame::Stop(code));
            }
            return;
        }
        // The other thread lives as long as this one.
        Frame::Want => return wanted.send(()).unwrap_or(()),
        Frame::Done => return say(&Frame::Received),
        Frame::Input(_) | Frame::Closed(_) | Frame::Stop(_) | Frame::Received => return,
    };
    if written.is_err() {
        // When nobody reads any more, the guest's writers are told (SIGPIPE).
        say(&Frame::Closed(stream));
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Standard input, a piece each time that the guest has room for one.
fn give_input(shared: &Mutex<State>, wants: &Receiver<()>) {
    let mut buffer = vec![0; INPUT];
    while let Ok(()) = wants.recv() {
        // Input that cannot be read has ended.
        let read = io::stdin().read(&mut buffer).unwrap_or(0);
        let bytes = buffer.get(..read).unwrap_or_default().to_vec();
        shared.lock().unwrap_or_else(PoisonError::into_inner).say(&Frame::Input(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_before_the_guest_listens() {
        let line = Line::new().unwrap();
        let mut guest = UnixStream::from(line.kernels.try_clone().unwrap());
        let served = line.serve().unwrap();
        line.stop(143);
        guest.set_nonblocking(true).unwrap();
        assert!(guest.read(&mut [0; 16]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
        guest.set_nonblocking(false).unwrap();
        guest.write_all(&[Frame::Hello.encode(), Frame::Done.encode()].concat()).unwrap();
        let wanted = [Frame::Stop(143).encode(), Frame::Received.encode()].concat();
        let mut said = vec![0; wanted.len()];
        guest.read_exact(&mut said).unwrap();
        assert_eq!(said, wanted);
        drop(guest);
        line.close();
        served.join().unwrap();
    }
}
