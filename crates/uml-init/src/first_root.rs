//! The host's directory that is the root until the image is.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use uml_init::{OUTCOME, Outcome, REQUEST, Request};

use crate::Fault;

/// The first root: reachable for as long as this is kept, also when the image has taken its place.
pub(crate) struct FirstRoot {
    directory: Option<OwnedFd>,
    /// `/proc/sys/kernel/printk`.
    printk: Option<File>,
}

impl FirstRoot {
    /// Takes hold of it.
    pub(crate) fn open() -> FirstRoot {
        // The kernel has mounted it already if CONFIG_DEVTMPFS_MOUNT is set. Whatever is missing shows where it is needed.
        let _ = mount(Some("devtmpfs"), "/dev", Some("devtmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"));
        let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open("/", flags, Mode::empty()).ok();
        FirstRoot { directory, printk: File::options().write(true).open("/proc/sys/kernel/printk").ok() }
    }

    /// What is asked for.
    pub(crate) fn request(&self) -> Result<Request, Fault> {
        let bytes = std::fs::read(format!("/{REQUEST}")).ok();
        bytes
            .and_then(|bytes| Request::decode(&bytes))
            .ok_or_else(|| Fault::new("the guest cannot read its request", ""))
    }

    /// Leaves the outcome for the host.
    pub(crate) fn leave(&self, outcome: &Outcome) {
        let Some(directory) = &self.directory else { return };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let Ok(file) = openat(directory, OUTCOME, flags, Mode::from_bits_truncate(0o600)) else { return };
        // A host that gets none says so.
        let mut file = File::from(file);
        let _ = file.write_all(outcome.encode().as_bytes()).and_then(|()| file.sync_all());
    }

    /// The kernel prints nothing to the console any more: that it halts is no part of what a command prints.
    pub(crate) fn hush(&self) {
        if let Some(mut printk) = self.printk.as_ref() {
            let _ = printk.write_all(b"0");
        }
    }
}
