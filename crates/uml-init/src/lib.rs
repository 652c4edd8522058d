//! What `umlfs boot --kernel` and its program in the guest, process 1 of a real User-Mode Linux, say to each other.
//!
//! The guest's root is at first a directory of the host (`rootfstype=hostfs`), which holds that program. Three ways lead
//! across:
//!
//! - [`Request`]: a file in that directory, written before the kernel starts: what to mount, what to run.
//! - [`Outcome`]: a file in that directory, written at the end: the command's exit status, or why nothing ran.
//! - [`Frame`]: the command's standard streams, through a serial line (`con1`, the guest's `/dev/tty1`) in raw mode. A
//!   terminal line alone could carry neither three streams nor the end of one.

mod frame;
mod outcome;
mod request;

pub use frame::{CHUNK, Decoder, Frame, INPUT, NoFrame};
pub use outcome::Outcome;
pub use request::{Request, Run, Share};

/// The request's name in the first root.
pub const REQUEST: &str = "request";
/// The outcome's name in the first root.
pub const OUTCOME: &str = "outcome";
/// The program's name in the first root.
pub const INIT: &str = "init";
/// Directories of the first root on which something is mounted: devtmpfs, proc, and the root disk.
pub const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "new"];
/// The guest's end of the line that carries frames.
pub const LINE: &str = "/dev/tty1";
