//! The machine's disks: each the image itself, or a copy-on-write file of the kernel's own kind where the image is to stay as it is.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use imgtool::cow;
use umkernel::block::DiskFiles;
use umkernel::machine::BootError;
use umkernel::machine::launch::DiskConfig;

use super::workplace::Workplace;
use super::{failed, report};
use crate::error::CliError;

/// The disk, locked against other machines.
pub(crate) enum Disk {
    /// The image.
    Image { locked: DiskFiles, path: PathBuf },
    /// A file without a name, so that nothing of it is left however the machine ends: where the overlay lies, or, for a machine that
    /// may not write, in the workplace. The kernel inherits it, and finds it among its own descriptors: Landlock keeps it from those
    /// of others.
    Lent { loan: cow::Loan, descriptor: RawFd, found: PathBuf },
}

/// The kernel's name for a disk.
pub(crate) fn device(config: &DiskConfig) -> String {
    format!("ubd{}", char::from(b'a' + config.index))
}

/// The kernel replays the root's journal even if it is to write nothing; so a read-only machine gets an overlay that is thrown
/// away. Other disks it opens to read.
fn is_the_image_itself(config: &DiskConfig) -> bool {
    config.overlays.is_none() && (!config.read_only || config.index > 0)
}

impl Disk {
    /// Locks the disk and puts it into the workplace under its name.
    pub(crate) fn take(config: &DiskConfig, place: &Workplace) -> Result<Disk, BootError> {
        let name = place.path().join(device(config));
        let link =
            |to: &Path| symlink(to, &name).map_err(|e| failed(format!("cannot make {}: {e}", name.display()), ""));
        if is_the_image_itself(config) {
            let locked = config.open()?;
            let path = config.image.canonicalize().unwrap_or_else(|_| config.image.clone());
            link(&path)?;
            return Ok(Disk::Image { locked, path });
        }
        let top = config.overlays.as_ref().and_then(|overlays| overlays.files.last()).unwrap_or(&config.image);
        let directory = match config.read_only {
            true => place.path(),
            false => top.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")),
        };
        let cannot = |e| failed(format!("cannot make a file in {}: {e}", directory.display()), "");
        let file = tempfile::tempfile_in(directory).map_err(cannot)?;
        let descriptor = file.as_raw_fd();
        let found = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
        // In messages, it is called by where it takes its space.
        let loan = cow::lend(top, file, directory, !config.read_only)
            .map_err(|e| failed(e.to_string(), e.advice().unwrap_or_default()))?;
        link(&found)?;
        Ok(Disk::Lent { loan, descriptor, found })
    }

    /// The file that the kernel writes to, if it does.
    pub(crate) fn written(&self) -> Option<&Path> {
        match self {
            Disk::Image { locked, path } => (!locked.read_only).then_some(path),
            Disk::Lent { found, .. } => Some(found),
        }
    }

    /// The descriptor that the kernel is to inherit.
    pub(crate) fn inherited(&self) -> Option<RawFd> {
        match self {
            Disk::Image { .. } => None,
            Disk::Lent { descriptor, .. } => Some(*descriptor),
        }
    }

    /// Brings what the machine has written to where it belongs.
    pub(crate) fn give_back(&self) -> Result<(), CliError> {
        match self {
            Disk::Image { .. } => Ok(()),
            Disk::Lent { loan, .. } => loan.take_back().map(drop).map_err(|e| {
                report(failed(format!("what the machine wrote is lost: {e}"), e.advice().unwrap_or_default()))
            }),
        }
    }
}
