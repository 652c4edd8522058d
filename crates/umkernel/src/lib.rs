//! A user-mode Linux kernel: it services every system call of its guests itself.
//!
//! The core is `no_std` + `alloc` and keeps all its state under one root, [`kernel::Kernel`], so that it can
//! run from memory that many host processes share. How a guest's system call reaches it is a
//! [`platform`]'s business. The [`machine`] that puts it all together and runs it is `no_std` as well; only the `ptrace`
//! platform and what starts a machine's process (`machine::monitor`, `machine::launch`) use `std`.
//!
//! Dependencies point one way: `syscall` over `task`, `signal`, `mm`, `vfs`, `time`, over `fs`, `block`, `tty`,
//! over `sync`, over `platform` and `host`.
#![no_std]
extern crate alloc;
#[cfg(feature = "ptrace")]
extern crate std;

pub mod block;
pub mod chardev;
pub mod errno;
pub mod event;
pub mod fs;
pub mod futex;
pub mod host;
pub mod ipc;
pub mod kernel;
pub mod loader;
pub mod log;
pub mod machine;
pub mod mm;
pub mod net;
pub mod ns;
pub mod platform;
pub mod power;
pub mod profile;
pub mod ptrace;
pub mod seccomp;
pub mod settings;
pub mod sync;

pub mod signal;
pub mod stats;
pub mod syscall;
pub mod task;
#[cfg(any(test, fuzzing))]
#[cfg(feature = "ptrace")]
pub mod testing;
pub mod time;
pub mod trace;
pub mod trap;
pub mod tty;
pub mod version;
pub mod vfs;

pub use errno::{Errno, Error, Result};
pub use kernel::{Ctx, Kernel};
