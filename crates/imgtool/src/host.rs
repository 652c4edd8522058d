//! The host's side of copies between it and an image, of any format: links that are there are never followed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ext4::Timestamp;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::Error;

/// The names in a directory, in order: the host hands them out in any.
pub(crate) fn names(directory: &Path) -> Result<Vec<OsString>, Error> {
    let failed = |error: &io::Error| Error::io("read the directory", directory, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| failed(&error))? {
        names.push(entry.map_err(|error| failed(&error))?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a file to read it, unless it has become a link or a device since it was looked at.
pub(crate) fn open_contents(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    options.open(path).map_err(|error| Error::io("open", path, &error))
}

/// Makes a directory, if it is not there. A link to one is none: an image could have made it.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::io("make the directory", path, &error)),
    }
}

/// Removes what is in a file's place, unless it is a directory: a file is never written through a link that is there.
pub(crate) fn make_way(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => {
            Err(Error::new(format_args!("{} is a directory, in the way of a file", path.display())))
        }
        Ok(_) => fs::remove_file(path).map_err(|error| Error::io("replace", path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("stat", path, &error)),
    }
}

/// Makes a file and has it filled. If that fails, no half a file is left.
pub(crate) fn new_file<T>(path: &Path, mode: u32, fill: impl FnOnce(&File) -> Result<T, Error>) -> Result<T, Error> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let filled = fill(&file.map_err(|error| Error::io("make", path, &error))?);
    if filled.is_err() {
        // The error matters more than one of removing it.
        let _ = fs::remove_file(path);
    }
    filled
}

/// Sets the times of a file, or of a link itself.
pub(crate) fn set_times(path: &Path, accessed: Timestamp, modified: Timestamp) -> Result<(), Error> {
    let spec = |time: Timestamp| TimeSpec::new(time.sec, time.nsec.into());
    utimensat(AT_FDCWD, path, &spec(accessed), &spec(modified), UtimensatFlags::NoFollowSymlink)
        .map_err(|errno| Error::io("set the times of", path, &errno.into()))
}
