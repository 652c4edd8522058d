//! What the kernel prints: its last lines are kept, to say why it ended.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};

/// The end of all that was printed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages {
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Messages {
    /// Adds to it.
    pub(crate) fn add(&self, bytes: &[u8]) {
        const MOST: usize = 32 * 1024;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let over = kept.len().saturating_sub(MOST);
        kept.drain(..over);
    }

    /// As text.
    pub(crate) fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }

    /// Reads what the program prints before it has a console, until its end; with `show` to standard error, a raw terminal.
    pub(crate) fn read(&self, mut from: impl Read + Send + 'static, show: bool) -> JoinHandle<()> {
        let messages = self.clone();
        spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let bytes = buffer.get(..read).unwrap_or_default();
                messages.add(bytes);
                if show {
                    // Nobody is left to tell when standard error is gone.
                    let _ = std::io::stderr().write_all(&for_raw_terminal(bytes));
                }
            }
        })
    }
}

/// Lines end with both characters on a raw terminal.
fn for_raw_terminal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let messages = Messages::default();
        let text = format!("{}the end", "x".repeat(100_000));
        messages.read(std::io::Cursor::new(text), false).join().unwrap();
        let kept = messages.text();
        assert!(kept.ends_with("xthe end") && kept.len() == 32 * 1024);
        assert_eq!(for_raw_terminal(b"a\nb"), b"a\r\nb");
    }
}
