//! A file that appears whole under its name, or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;

use crate::Error;

/// An output being written. It has no name until [`Output::publish`]; dropped before that (or killed), nothing is left.
pub(crate) struct Output {
    file: File,
    target: PathBuf,
    overwrite: bool,
    /// The file's name for the time being, on file systems that have no unnamed files.
    name: Option<PathBuf>,
}

impl Output {
    /// Starts an output that is to be `target`; a symbolic link there is followed.
    ///
    /// # Errors
    /// The target exists and is no regular file or not to be overwritten, or its directory cannot be written.
    pub(crate) fn create(target: &Path, overwrite: bool) -> Result<Self, Error> {
        let target = match target.canonicalize() {
            Ok(existing) => {
                if !existing.is_file() {
                    return Err(Error::new(format_args!(
                        "{} exists and is no regular file, expected the name of an image to make",
                        target.display()
                    )));
                }
                if !overwrite {
                    return Err(exists(target));
                }
                existing
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => target.to_owned(),
            Err(error) => return Err(Error::io("look for", target, &error)),
        };
        if target.file_name().is_none() {
            return Err(Error::new(format_args!("{} names no file, expected an image to make", target.display())));
        }
        let directory = directory_of(&target);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o666);
        let unnamed = options.clone().custom_flags(libc::O_TMPFILE).open(directory);
        let (file, name) = match unnamed {
            Ok(file) if proc_path(&file).exists() => (file, None),
            Ok(_) => Self::named(&options, &target)?,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                Self::named(&options, &target)?
            }
            Err(error) => return Err(Error::io("make a file in", directory, &error)),
        };
        Ok(Self { file, target, overwrite, name })
    }

    fn named(options: &OpenOptions, target: &Path) -> Result<(File, Option<PathBuf>), Error> {
        let name = hidden_name(target);
        let file = options.clone().create_new(true).open(&name).map_err(|error| Error::io("make", &name, &error))?;
        Ok((file, Some(name)))
    }

    /// The file to write.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The directory that the output is made in.
    pub(crate) fn directory(&self) -> &Path {
        directory_of(&self.target)
    }

    /// Gives the file its name, atomically.
    ///
    /// # Errors
    /// Something else has the name meanwhile, or the host refuses.
    pub(crate) fn publish(mut self) -> Result<(), Error> {
        let failed = |target: &Path, error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(target),
            _ => Error::io("give its name to", target, &error),
        };
        let link = |from: &Path, to: &Path| -> io::Result<()> {
            Ok(nix::unistd::linkat(AT_FDCWD, from, AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW)?)
        };
        if !self.overwrite {
            let from = self.name.clone().unwrap_or_else(|| proc_path(&self.file));
            return link(&from, &self.target).map_err(|error| failed(&self.target, error));
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let name = hidden_name(&self.target);
                link(&proc_path(&self.file), &name).map_err(|error| failed(&name, error))?;
                self.name = Some(name.clone());
                name
            }
        };
        std::fs::rename(&name, &self.target).map_err(|error| failed(&self.target, error))?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Already failing, or linked under its own name: nothing more can be done about a leftover.
            let _ = std::fs::remove_file(name);
        }
    }
}

fn exists(target: &Path) -> Error {
    Error::new(format_args!("{} exists already", target.display())).hint("add --force to replace it")
}

fn directory_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn proc_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A name beside the target that no other process uses.
fn hidden_name(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let output = Output::create(&target, false).unwrap();
        output.file().write_all(b"half").unwrap();
        drop(output);
        assert!(names(directory.path()).is_empty());

        let output = Output::create(&target, false).unwrap();
        output.file().write_all(b"one").unwrap();
        output.publish().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"one");

        assert!(Output::create(&target, false).is_err());
        let output = Output::create(&target, true).unwrap();
        output.file().write_all(b"two").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        output.publish().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        assert_eq!(names(directory.path()), ["out"]);
    }

    #[test]
    fn a_name_taken_meanwhile_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let output = Output::create(&target, false).unwrap();
        std::fs::write(&target, b"theirs").unwrap();
        assert!(output.publish().unwrap_err().to_string().contains("exists already"));
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
        assert_eq!(names(directory.path()), ["out"]);
    }

    #[test]
    fn bad_targets_are_named() {
        let directory = tempfile::tempdir().unwrap();
        for (target, reason) in
            [(directory.path().to_owned(), "no regular file"), (directory.path().join("none/out"), "No such file")]
        {
            let error = Output::create(&target, true).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
