//! The machine's disk: the image itself, or a copy-on-write file of the kernel's own kind where the image is to stay as it is.

use std::os::unix::fs::symlink;
use std::path::Path;

use imgtool::cow;
use umkernel::machine::launch::LaunchConfig;
use umkernel::machine::{BootError, RootDisk};

use super::workplace::Workplace;
use super::{failed, report};
use crate::error::CliError;

/// The disk, locked against other machines.
pub(crate) enum Disk {
    /// The image.
    Image { _locked: RootDisk },
    /// A file beside the overlay, or, for a machine that may not write, in the workplace.
    Lent { loan: cow::Loan, file: tempfile::TempPath },
}

/// The kernel replays the image's journal even if it is to write nothing; so a read-only machine gets an overlay that is
/// thrown away.
fn writes_to_the_image(config: &LaunchConfig) -> bool {
    config.overlays.is_none() && !config.read_only
}

impl Disk {
    /// Locks the disk and puts it into the workplace as `ubda`.
    pub(crate) fn take(config: &LaunchConfig, place: &Workplace) -> Result<Disk, BootError> {
        let name = place.path().join("ubda");
        let link = |to: &Path| {
            let to = to.canonicalize().unwrap_or_else(|_| to.to_owned());
            symlink(to, &name).map_err(|e| failed(format!("cannot make {}: {e}", name.display()), ""))
        };
        if writes_to_the_image(config) {
            let locked = config.open_disk()?;
            link(&config.image)?;
            return Ok(Disk::Image { _locked: locked });
        }
        let top = config.overlays.as_ref().and_then(|overlays| overlays.files.last()).unwrap_or(&config.image);
        let directory = match config.read_only {
            true => place.path(),
            false => top.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")),
        };
        let made = tempfile::Builder::new().prefix(".umlfs-uml-").tempfile_in(directory);
        let cannot = |e| failed(format!("cannot make a file in {}: {e}", directory.display()), "");
        let (file, path) = made.map_err(cannot)?.into_parts();
        let loan = cow::lend(top, file, &path, !config.read_only)
            .map_err(|e| failed(e.to_string(), e.advice().unwrap_or_default()))?;
        link(&path)?;
        Ok(Disk::Lent { loan, file: path })
    }

    /// The file that the kernel writes to.
    pub(crate) fn file<'a>(&'a self, config: &'a LaunchConfig) -> &'a Path {
        match self {
            Disk::Image { .. } => &config.image,
            Disk::Lent { file, .. } => file,
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

    /// Removes what was made for it.
    pub(crate) fn remove(&self) {
        if let Disk::Lent { file, .. } = self {
            // A hidden file that stays behind does no harm.
            let _ = std::fs::remove_file(file);
        }
    }
}
