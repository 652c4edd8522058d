//! What the kernel says that it is (`uname(2)`, `/proc/version`).

/// The system's name: it speaks Linux's interface.
pub const SYSNAME: &str = "Linux";
/// The release whose interface it follows.
pub const RELEASE: &str = "6.12.0-umlfs";
/// The build.
pub const VERSION: &str = "#1 SMP umlfs";
/// The hardware.
pub const MACHINE: &str = "x86_64";
