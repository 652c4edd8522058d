//! Stopping a build on Ctrl-C, SIGTERM and SIGHUP.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static CANCELLED: AtomicBool = AtomicBool::new(false);

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

extern "C" fn note(_: nix::libc::c_int) {
    CANCELLED.store(true, Ordering::Relaxed);
}

/// While it lives, Ctrl-C, SIGTERM and SIGHUP stop the build in order; when dropped, they do again what they did before.
#[derive(Debug)]
pub struct CancelOnSignal {
    before: Vec<(Signal, SigAction)>,
}

impl CancelOnSignal {
    /// Takes the signals over.
    pub fn install() -> Self {
        CANCELLED.store(false, Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        let before = SIGNALS
            .into_iter()
            // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
            .filter_map(|signal| unsafe { sigaction(signal, &action) }.ok().map(|old| (signal, old)))
            .collect();
        CancelOnSignal { before }
    }
}

impl Drop for CancelOnSignal {
    fn drop(&mut self) {
        for (signal, action) in &self.before {
            // SAFETY: puts back an action that was installed before.
            let _ = unsafe { sigaction(*signal, action) };
        }
    }
}

/// Whether one of the signals came while a [`CancelOnSignal`] lived.
pub fn cancelled() -> bool {
    CANCELLED.load(Ordering::Relaxed)
}

/// A reader that ends with an error once the user interrupts: for archives, which take long to unpack.
pub(crate) struct UntilCancelled<R>(pub(crate) R);

impl<R: Read> Read for UntilCancelled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if cancelled() {
            // Not of the kind `Interrupted`: that asks for another try.
            return Err(std::io::Error::other("interrupted by the user"));
        }
        self.0.read(buffer)
    }
}
