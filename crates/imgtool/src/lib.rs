//! Disk images without root: make a file system from a directory or archives, look into it, say what a file is.
//!
//! Everything here works on ordinary files through the host's page cache; nothing is mounted and no loop device is
//! needed. The on-disk format itself is the `ext4` crate's.

mod error;
mod identify;
mod size;

pub use error::Error;
pub use identify::{Contents, ExtFault, identify};
pub use size::{HumanSize, parse_size};
