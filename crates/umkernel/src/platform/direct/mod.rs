//! The `direct` platform: the kernel runs in its guests' own processes.
//!
//! The kernel image (`image`, linked by `crates/kernel-image`) is mapped at the same address in every guest process, and its state
//! lies in a shared arena behind a protection key. A guest's system call enters the image in the same host thread
//! (`image::entry`), which sleeps there when the guest sleeps. A seccomp filter (`image::filter`) traps every system call from
//! elsewhere: the first call from a site, or all of them where the site cannot be patched, comes in by a host signal
//! (`image::signal`).
//!
//! The *kernel process* boots the machine and runs its services; the *zygote* is the guest process that fresh ones are cloned
//! from (`image::spawn`). Host threads keep their kernel stacks in the arena (`image::slot`), so a task can move to another host
//! process within a call, as `execve` after `vfork` needs it.
//!
//! Nothing that runs the kernel's code can reach the host's processes and files: what needs that is asked of a *broker*
//! ([`messages`]), which shares no memory with the machine.
//!
//! The loader (`load`), a part of the `umlfs` program, maps the image and jumps into it. The two share [`layout`] and
//! [`handover`] and nothing else.

#[cfg(feature = "ptrace")]
mod broker;
pub mod handover;
#[cfg(feature = "direct")]
pub mod image;
pub mod layout;
#[cfg(feature = "ptrace")]
pub mod load;
pub mod messages;
