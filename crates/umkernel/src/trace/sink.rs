//! Where traces go on the host.

use super::Sink;
use crate::host::{self, HostFd};

/// A trace to a stream of the host, unbuffered: it is complete up to the last call however the machine ends.
#[derive(Debug)]
pub struct HostStream {
    stream: HostFd,
    raw: bool,
}

impl HostStream {
    /// A trace to a descriptor that it takes over. On a terminal in raw mode (`raw`), which it is while a machine has it, lines
    /// end with a carriage return as well.
    pub fn new(stream: HostFd, raw: bool) -> HostStream {
        HostStream { stream, raw }
    }
}

impl Sink for HostStream {
    fn write(&self, text: &str) {
        // A full disk or a closed pipe stops the trace, not the machine.
        let _ = if self.raw {
            host::write_all(self.stream.raw(), text.replace('\n', "\r\n").as_bytes())
        } else {
            host::write_all(self.stream.raw(), text.as_bytes())
        };
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use std::io::Read;
    use std::string::String;

    fn written(raw: bool, text: &str) -> String {
        let (mut read, write) = std::io::pipe().unwrap();
        HostStream::new(HostFd::new(std::os::fd::IntoRawFd::into_raw_fd(write)), raw).write(text);
        let mut got = String::new();
        // The end comes because the stream has closed its descriptor.
        read.read_to_string(&mut got).unwrap();
        got
    }

    #[test]
    fn a_raw_terminal_gets_carriage_returns() {
        assert_eq!(written(false, "open()\nread"), "open()\nread");
        assert_eq!(written(true, "open()\nread"), "open()\r\nread");
    }

    #[test]
    fn a_stream_without_a_reader_is_let_be() {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        HostStream::new(HostFd::new(std::os::fd::IntoRawFd::into_raw_fd(write)), false).write("lost\n");
    }
}
